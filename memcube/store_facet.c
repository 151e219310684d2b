/* Facets: which docs have a tag, a subtype, a source, a speaker; and the names of external ids. */
#include "memcube/store_internal.h"

#include <sodium.h>
#include <stdlib.h>

struct memcube_facet_key memcube_facet_of(
    const uint8_t secret[32], enum memcube_facet facet, struct memos_bytes value)
{
    struct memcube_facet_key key = { .facet = (uint8_t)facet };

    _Static_assert(sizeof key.hash == crypto_shorthash_BYTES, "SipHash-2-4 gives 64 bits");
    crypto_shorthash(key.hash, value.data, value.size, secret + 16);
    return key;
}

struct memcube_key memcube_external_key(
    const struct memcube_space *space, struct memos_bytes external_id)
{
    struct memcube_key key = memcube_key_of(space->number);
    uint8_t hash[16];

    crypto_generichash(
        hash, sizeof hash, external_id.data, external_id.size, space->secret, 32);
    memcube_key_bytes(&key, hash, sizeof hash);
    return key;
}

static struct memcube_key facet_key(uint32_t space, const struct memcube_facet_key *facet)
{
    struct memcube_key key = memcube_key_of(space);
    memcube_key_u8(&key, facet->facet);
    memcube_key_bytes(&key, facet->hash, sizeof facet->hash);
    return key;
}

static int facet_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct memcube_facet_key));
}

enum memos_status memcube_facets_of(const uint8_t secret[32],
    const struct memcube_version *version, struct memos_arena *arena,
    struct memcube_facet_key **out, size_t *out_count, struct memos_error *err)
{
    const struct memcube_description *description = &version->description;
    const size_t most = description->tags_count + description->sources_count + 2;
    struct memcube_facet_key *keys = memos_arena_take(arena, most, sizeof *keys);
    size_t count = 0;
    size_t kept = 0;

    if (!keys) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a version's facets");
    }
    for (size_t i = 0; i < description->tags_count; i++) {
        keys[count++] = memcube_facet_of(secret, MEMCUBE_FACET_TAG, description->tags[i]);
    }
    for (size_t i = 0; i < description->sources_count; i++) {
        if (description->sources[i].uri.size > 0) {
            keys[count++] =
                memcube_facet_of(secret, MEMCUBE_FACET_SOURCE, description->sources[i].uri);
        }
    }
    if (version->subtype.size > 0) {
        keys[count++] = memcube_facet_of(secret, MEMCUBE_FACET_SUBTYPE, version->subtype);
    }
    if (description->speaker.size > 0) {
        keys[count++] = memcube_facet_of(secret, MEMCUBE_FACET_SPEAKER, description->speaker);
    }
    qsort(keys, count, sizeof *keys, facet_compare);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || facet_compare(&keys[kept - 1], &keys[i]) != 0) {
            keys[kept++] = keys[i];
        }
    }
    *out = keys;
    *out_count = kept;
    return MEMOS_OK;
}

static enum memos_status facet_write(struct memcube_write *write, uint32_t space, uint32_t doc,
    const struct memcube_facet_key *facet, bool add, struct memos_error *err)
{
    const struct memcube_key key = facet_key(space, facet);
    const uint32_t be = htobe32(doc);
    const struct memos_bytes value = memos_bytes_make(&be, sizeof be);
    const memcube_table table = write->store->tables.facet;

    if (add) {
        return memcube_put(write->read.txn, table, memcube_key_view(&key), value, err);
    }
    const enum memos_status status =
        memcube_delete(write->read.txn, table, memcube_key_view(&key), value, err);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

enum memos_status memcube_facets_move(struct memcube_write *write,
    const struct memcube_space *space, uint32_t doc, const struct memcube_version *before,
    const struct memcube_version *after, struct memos_error *err)
{
    struct memcube_facet_key *old = NULL;
    struct memcube_facet_key *new = NULL;
    size_t old_count = 0;
    size_t new_count = 0;
    enum memos_status status = MEMOS_OK;

    if (before) {
        status = memcube_facets_of(
            space->secret, before, &write->scratch, &old, &old_count, err);
    }
    if (status == MEMOS_OK && after) {
        status =
            memcube_facets_of(space->secret, after, &write->scratch, &new, &new_count, err);
    }
    size_t i = 0;
    size_t j = 0;
    while (status == MEMOS_OK && (i < old_count || j < new_count)) {
        const int order = i == old_count   ? 1
                          : j == new_count ? -1
                                           : facet_compare(&old[i], &new[j]);
        if (order < 0) {
            status = facet_write(write, space->number, doc, &old[i], false, err);
        } else if (order > 0) {
            status = facet_write(write, space->number, doc, &new[j], true, err);
        }
        i += order <= 0;
        j += order >= 0;
    }
    return status;
}

static void words_set(
    struct memos_bytes values, uint64_t *words, uint32_t docs_end)
{
    for (size_t at = 0; values.size - at >= sizeof(uint32_t); at += sizeof(uint32_t)) {
        uint32_t doc = 0;
        memcpy(&doc, (const uint8_t *)values.data + at, sizeof doc);
        doc = be32toh(doc);
        if (doc < docs_end) {
            words[doc / 64] |= UINT64_C(1) << (doc % 64);
        }
    }
}

enum memos_status memcube_facet_load(struct memcube_read *read, const struct memcube_space *space,
    enum memcube_facet facet, struct memos_bytes value, uint64_t *words, uint32_t docs_end,
    struct memos_error *err)
{
    const struct memcube_facet_key hashed = memcube_facet_of(space->secret, facet, value);
    const struct memcube_key wanted = facet_key(space->number, &hashed);
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key = memcube_key_view(&wanted);
    struct memos_bytes values;

    enum memos_status status =
        memcube_cursor_open(read->txn, read->store->tables.facet, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_AT, &key, &values, err);
    }
    for (bool first = true; status == MEMOS_OK; first = false) {
        status = memcube_cursor_values(cursor, first, &values, err);
        if (status == MEMOS_OK) {
            words_set(values, words, docs_end);
        }
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}
