#include "memos/broker/access.h"

#include "memos/broker/convert.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BYTES_MAX = 64 << 20, PAGE = 256 };

struct broker_access {
    atomic_uint references;
    struct memos_arena arena;
    struct broker_grant *grants; /* sorted by principal once sealed */
    size_t grants_count, grants_capacity;
    struct broker_key *keys; /* sorted by public key once sealed */
    size_t keys_count, keys_capacity;
    int64_t until_us;
};

static const char *const right_texts[] = {"", "read", "write", "admin"};

const char *broker_right_text(enum broker_right right)
{
    return right_texts[right];
}

enum broker_right broker_right_of(struct memos_bytes text)
{
    for (int i = BROKER_RIGHT_READ; i <= BROKER_RIGHT_ADMIN; i++) {
        if (memos_bytes_equal(text, memos_bytes_of(right_texts[i]))) {
            return (enum broker_right)i;
        }
    }
    return BROKER_RIGHT_NONE;
}

bool broker_pattern_covers(struct memos_bytes pattern, struct memos_bytes space)
{
    const char *name = space.data, *text = pattern.data;
    if (memos_bytes_equal(pattern, space)) {
        return true;
    }
    if (space.size == 0 || name[0] == '_' || pattern.size == 0 || text[pattern.size - 1] != '*') {
        return false;
    }
    size_t prefix = pattern.size - 1; /* with its slash; empty for "*" */
    return space.size > prefix && memcmp(name, text, prefix) == 0;
}

/* ---- making ---- */

enum memos_status broker_access_create(struct broker_access **out_access, struct memos_error *err)
{
    struct broker_access *access = calloc(1, sizeof *access);
    if (!access) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the table of grants");
    }
    atomic_init(&access->references, 1);
    memos_arena_init(&access->arena, ARENA_BYTES_MAX);
    *out_access = access;
    return MEMOS_OK;
}

struct broker_access *broker_access_keep(struct broker_access *access)
{
    atomic_fetch_add_explicit(&access->references, 1, memory_order_relaxed);
    return access;
}

void broker_access_drop(struct broker_access **access)
{
    struct broker_access *it = *access;
    *access = NULL;
    if (it && atomic_fetch_sub_explicit(&it->references, 1, memory_order_acq_rel) == 1) {
        memos_arena_finish(&it->arena);
        free(it->grants);
        free(it->keys);
        free(it);
    }
}

/* A copy in the table's arena; false when that is full. */
static bool copy_text(struct broker_access *access, struct memos_bytes *text)
{
    text->data = memos_arena_copy(&access->arena, *text);
    return text->data != NULL;
}

/* Room for one more item; the array may move. NULL without memory. */
static void *room_for(void *items, size_t count, size_t *capacity, size_t item_bytes)
{
    if (count < *capacity) {
        return items;
    }
    size_t more = *capacity ? *capacity * 2 : 16;
    void *grown = reallocarray(items, more, item_bytes);
    *capacity = grown ? more : *capacity;
    return grown;
}

enum memos_status broker_access_add_grant(
    struct broker_access *access, const struct broker_grant *grant, struct memos_error *err)
{
    struct broker_grant copy = *grant;
    struct broker_grant *grants =
        room_for(access->grants, access->grants_count, &access->grants_capacity, sizeof *grants);
    access->grants = grants ? grants : access->grants;
    if (!grants || !copy_text(access, &copy.principal) || !copy_text(access, &copy.spaces)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu grants", access->grants_count);
    }
    grants[access->grants_count++] = copy;
    return MEMOS_OK;
}

enum memos_status broker_access_add_key(
    struct broker_access *access, const struct broker_key *key, struct memos_error *err)
{
    struct broker_key copy = *key;
    struct broker_key *keys =
        room_for(access->keys, access->keys_count, &access->keys_capacity, sizeof *keys);
    access->keys = keys ? keys : access->keys;
    if (!keys || !copy_text(access, &copy.public_key) || !copy_text(access, &copy.principal)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu keys", access->keys_count);
    }
    keys[access->keys_count++] = copy;
    return MEMOS_OK;
}

static int grant_order(const void *a, const void *b)
{
    const struct broker_grant *left = a, *right = b;
    int order = memos_bytes_compare(left->principal, right->principal);
    return order != 0 ? order : memos_bytes_compare(left->spaces, right->spaces);
}

static int key_order(const void *a, const void *b)
{
    const struct broker_key *left = a, *right = b;
    return memos_bytes_compare(left->public_key, right->public_key);
}

void broker_access_seal(struct broker_access *access)
{
    if (access->grants_count > 1) {
        qsort(access->grants, access->grants_count, sizeof *access->grants, grant_order);
    }
    if (access->keys_count > 1) {
        qsort(access->keys, access->keys_count, sizeof *access->keys, key_order);
    }
}

/* ---- reading it from the store ---- */

static struct memos_bytes member(const json_t *object, const char *name)
{
    return memos_bytes_of(json_string_value(json_object_get(object, name)));
}

/* A payload that is not a well-formed grant or key is passed over: it grants nothing. */
static enum memos_status take_payload(struct broker_access *access, struct memos_bytes payload,
    bool is_key, int64_t since_us, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    json_t *object = json_loadb(payload.data, payload.size, JSON_REJECT_DUPLICATES, NULL);
    struct memos_bytes principal = member(object, "principal");
    struct broker_grant grant = {
        principal, member(object, "spaces"), broker_right_of(member(object, "rights")), since_us};
    struct broker_key key = {member(object, "public_key"), principal, since_us};

    if (!broker_principal_valid(principal)) {
        /* revoked, or none of ours */
    } else if (is_key && key.public_key.size == BROKER_KEY_BYTES) {
        status = broker_access_add_key(access, &key, err);
    } else if (!is_key && grant.right != BROKER_RIGHT_NONE && broker_pattern_valid(grant.spaces)) {
        status = broker_access_add_grant(access, &grant, err);
    }
    json_decref(object);
    return status;
}

/* The first moment at which this version stops or begins to hold by itself. */
static void note_times(struct broker_access *access, const struct memcube_governance *governance)
{
    const int64_t times[] = {governance->expires_us, governance->valid_to_us};
    for (size_t i = 0; i < 2; i++) {
        if (times[i] > 0 && (access->until_us == 0 || times[i] < access->until_us)) {
            access->until_us = times[i];
        }
    }
}

static enum memos_status take_version(struct broker_access *access, struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_version *version,
    struct memos_error *err)
{
    struct memos_bytes payload;
    enum memos_status status = memcube_payload_get(read, space, version, false, &payload, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_FORGOTTEN ? MEMOS_OK : status;
    }
    bool is_key = memos_bytes_equal(version->subtype, memos_bytes_of("key"));
    note_times(access, &version->governance);
    return take_payload(access, payload, is_key, version->time_us, err);
}

static enum memos_status take_all(struct broker_access *access, struct memcube_read *read,
    const struct memcube_space *space, struct memos_error *err)
{
    const struct memos_bytes subtypes[] = {memos_bytes_of("grant"), memos_bytes_of("key")};
    struct memcube_list_query query = {
        .filter = {.subtypes = subtypes, .subtypes_count = 2, .include_stale = true},
        .count_max = PAGE,
    };
    struct memcube_version *page = calloc(PAGE, sizeof *page);
    enum memos_status status =
        page ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory to read the grants");
    do {
        size_t count = 0;
        if (status == MEMOS_OK) {
            status = memcube_list(read, space, &query, page, &count, &query.cursor, err);
        }
        for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
            status = take_version(access, read, space, &page[i], err);
        }
    } while (status == MEMOS_OK && query.cursor != 0);
    free(page);
    return status;
}

enum memos_status broker_access_load(
    struct memcube_read *read, struct broker_access **out_access, struct memos_error *err)
{
    struct broker_access *access = NULL;
    struct memcube_space space;
    enum memos_status status = broker_access_create(&access, err);
    if (status == MEMOS_OK) {
        status = memcube_space_find(read, memos_bytes_of(BROKER_SYSTEM), &space, err);
        if (status == MEMOS_OK) {
            status = take_all(access, read, &space, err);
        } else if (status == MEMOS_NOT_FOUND) {
            status = MEMOS_OK;
        }
    }
    if (status != MEMOS_OK) {
        broker_access_drop(&access);
        return status;
    }
    broker_access_seal(access);
    *out_access = access;
    return MEMOS_OK;
}

/* ---- asking ---- */

/* The first grant whose principal is not before this one. */
static size_t grants_begin(const struct broker_access *access, struct memos_bytes principal)
{
    size_t low = 0, high = access->grants_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memos_bytes_compare(access->grants[middle].principal, principal) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

enum broker_right broker_access_right(
    const struct broker_access *access, struct memos_bytes principal, struct memos_bytes space)
{
    enum broker_right best = BROKER_RIGHT_NONE;
    if (memos_bytes_equal(principal, memos_bytes_of(BROKER_OWNER))) {
        return BROKER_RIGHT_ADMIN;
    }
    for (size_t i = grants_begin(access, principal); i < access->grants_count; i++) {
        const struct broker_grant *grant = &access->grants[i];
        if (!memos_bytes_equal(grant->principal, principal)) {
            break;
        }
        if (grant->right > best && broker_pattern_covers(grant->spaces, space)) {
            best = grant->right;
        }
    }
    return best;
}

bool broker_access_global(
    const struct broker_access *access, struct memos_bytes principal, enum broker_right right)
{
    /* "*" is no space's name, so that nothing but a grant on it covers it. */
    return broker_access_right(access, principal, memos_bytes_of("*")) >= right;
}

struct memos_bytes broker_access_principal(
    const struct broker_access *access, struct memos_bytes public_key)
{
    struct broker_key wanted = {.public_key = public_key};
    const struct broker_key *found =
        access->keys_count == 0
            ? NULL
            : bsearch(&wanted, access->keys, access->keys_count, sizeof wanted, key_order);
    return found ? found->principal : memos_bytes_make(NULL, 0);
}

int64_t broker_access_until(const struct broker_access *access)
{
    return access->until_us;
}

const struct broker_grant *broker_access_grants(
    const struct broker_access *access, size_t *out_count)
{
    *out_count = access->grants_count;
    return access->grants;
}

const struct broker_key *broker_access_keys(const struct broker_access *access, size_t *out_count)
{
    *out_count = access->keys_count;
    return access->keys;
}
