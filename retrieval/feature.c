/* The feature index: making records, and keeping conversations in order. */
#include "retrieval/feature.h"

#include "retrieval/feature_internal.h"
#include "retrieval/question.h"

#include <stdlib.h>
#include <string.h>

/* Of a text, so many bytes are searched for days that it means. */
#define DATES_BYTES_MAX ((size_t)2000)

/* What a record is made from, before it is linked. */
struct made {
    struct retrieval_feature feature;
    uint8_t ranges[RETRIEVAL_FEATURE_RANGES_MAX * RETRIEVAL_RANGE_BYTES]; /* masked */
    size_t ranges_bytes;
};

/* ---- making -------------------------------------------------------------------------------- */

/* What makes the doc's conversation; empty: it has none. */
static struct memos_bytes session_name(const struct memcube_description *description)
{
    for (size_t i = 0; i < description->attributes_count; i++) {
        if (memos_bytes_equal(description->attributes[i].name, memos_bytes_of("session"))) {
            return description->attributes[i].value;
        }
    }
    if (description->sources_count == 0) {
        return memos_bytes_make(NULL, 0);
    }
    struct memos_bytes uri = description->sources[0].uri;
    while (uri.size > 0 && ((const char *)uri.data)[uri.size - 1] != '/') {
        uri.size--;
    }
    return uri;
}

static uint64_t session_hash(
    const uint8_t key[crypto_shorthash_KEYBYTES], struct memos_bytes session)
{
    uint8_t hash[crypto_shorthash_BYTES];
    uint64_t value;
    if (session.size == 0) {
        return 0;
    }
    (void)crypto_shorthash(hash, session.data, session.size, key);
    memcpy(&value, hash, sizeof value);
    value &= (UINT64_C(1) << 56) - 1;
    return value ? value : 1;
}

static void put_range(struct made *made, int64_t from_day, int64_t to_day)
{
    const int32_t days[2] = {(int32_t)from_day, (int32_t)to_day};
    for (size_t i = 0; i < 2; i++) {
        for (int byte = 0; byte < 4; byte++) {
            made->ranges[made->ranges_bytes++] = (uint8_t)((uint32_t)days[i] >> (8 * byte));
        }
    }
}

/* The days that the text means; ranges too wide to say anything are left out. */
static void make_ranges(struct made *made, const struct memcube_index_doc *doc,
    const uint8_t key[crypto_shorthash_KEYBYTES])
{
    struct retrieval_date dates[RETRIEVAL_FEATURE_RANGES_MAX];
    struct memos_bytes text = doc->text;
    text.size = text.size < DATES_BYTES_MAX ? text.size : DATES_BYTES_MAX;
    size_t count =
        retrieval_dates_find(text, made->feature.event_us, dates, RETRIEVAL_FEATURE_RANGES_MAX);
    for (size_t i = 0; i < count; i++) {
        int64_t from = retrieval_day_of_us(dates[i].from_us);
        int64_t to = retrieval_day_of_us(dates[i].to_us - 1);
        if (dates[i].from_us != RETRIEVAL_DATE_BEGIN && dates[i].to_us != RETRIEVAL_DATE_END &&
            to - from <= RETRIEVAL_FUSE_DATE_WIDE_DAYS) {
            put_range(made, from, to);
        }
    }
    if (made->ranges_bytes > 0) {
        made->feature.flags |= RETRIEVAL_FEATURE_DATES;
        retrieval_feature_mask(key, doc->doc, made->ranges, made->ranges_bytes);
    }
}

static void make(const struct retrieval_features *features, const struct memcube_index_doc *doc,
    struct made *out)
{
    const struct memcube_description *description = &doc->version->description;
    uint8_t key[crypto_shorthash_KEYBYTES], name_key[RETRIEVAL_NAME_KEY_BYTES];
    struct retrieval_traits traits = retrieval_traits_of(features->statements, doc->text);
    bool machine = retrieval_name_is_machine(description->speaker);

    retrieval_feature_secret(doc->secret, key);
    retrieval_name_key(doc->secret, name_key);
    *out = (struct made){.ranges_bytes = 0};
    out->feature = (struct retrieval_feature){
        .session = session_hash(key, session_name(description)),
        .flags = RETRIEVAL_FEATURE_THERE | (traits.time ? RETRIEVAL_FEATURE_TIME : 0) |
                 (traits.ask ? RETRIEVAL_FEATURE_ASK : 0) |
                 (traits.statement == 1.0f  ? RETRIEVAL_FEATURE_STRONG
                     : traits.statement > 0 ? RETRIEVAL_FEATURE_WEAK
                                            : 0) |
                 (machine ? RETRIEVAL_FEATURE_MACHINE : 0),
        .event_us = description->event_us ? description->event_us : doc->version->time_us,
        .speaker = retrieval_name_hash(name_key, description->speaker),
        .words = (uint16_t)(traits.words < UINT16_MAX ? traits.words : UINT16_MAX),
        .asking = (uint16_t)(traits.question * (float)UINT16_MAX + 0.5f),
    };
    make_ranges(out, doc, key);
    sodium_memzero(key, sizeof key);
    sodium_memzero(name_key, sizeof name_key);
}

/* ---- records ------------------------------------------------------------------------------- */

/* One space's records inside a transaction. */
struct records {
    const struct retrieval_features *features;
    struct memcube_txn *txn;
    uint32_t space;
};

static struct memos_bytes session_key(
    uint8_t out[RETRIEVAL_SESSION_KEY_BYTES], uint32_t space, uint64_t session)
{
    uint64_t be = htobe64(session);
    (void)retrieval_feature_key(out, space, 0);
    memcpy(out + 4, &be, sizeof be);
    return memos_bytes_make(out, RETRIEVAL_SESSION_KEY_BYTES);
}

/* The record of a doc, zeros when there is none. A chunk of a wrong size counts as none. */
static enum memos_status record_read(
    struct records *records, uint32_t doc, struct retrieval_feature *out, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_FEATURE_KEY_BYTES];
    struct memos_bytes chunk;
    *out = (struct retrieval_feature){.flags = 0};
    enum memos_status status = memcube_get(records->txn, records->features->doc,
        retrieval_feature_key(key, records->space, doc / RETRIEVAL_FEATURE_CHUNK_DOCS), &chunk,
        err);
    if (status == MEMOS_OK && chunk.size == RETRIEVAL_FEATURE_CHUNK_BYTES) {
        *out = retrieval_feature_decode(
            (const uint8_t *)chunk.data +
            (size_t)(doc % RETRIEVAL_FEATURE_CHUNK_DOCS) * RETRIEVAL_FEATURE_BYTES);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static enum memos_status record_write(struct records *records, uint32_t doc,
    const struct retrieval_feature *feature, struct memos_error *err)
{
    uint8_t key_bytes[RETRIEVAL_FEATURE_KEY_BYTES], chunk[RETRIEVAL_FEATURE_CHUNK_BYTES] = {0};
    struct memos_bytes old,
        key = retrieval_feature_key(key_bytes, records->space, doc / RETRIEVAL_FEATURE_CHUNK_DOCS);
    enum memos_status status = memcube_get(records->txn, records->features->doc, key, &old, err);
    if (status == MEMOS_OK && old.size == sizeof chunk) {
        memcpy(chunk, old.data, sizeof chunk);
    } else if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    retrieval_feature_encode(
        feature, chunk + (size_t)(doc % RETRIEVAL_FEATURE_CHUNK_DOCS) * RETRIEVAL_FEATURE_BYTES);
    return memcube_put(
        records->txn, records->features->doc, key, memos_bytes_make(chunk, sizeof chunk), err);
}

/* The last doc of a session; 0: it has none. */
static enum memos_status session_last(
    struct records *records, uint64_t session, uint32_t *out_doc, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_SESSION_KEY_BYTES];
    struct memos_bytes value;
    *out_doc = 0;
    enum memos_status status = memcube_get(records->txn, records->features->session,
        session_key(key, records->space, session), &value, err);
    if (status == MEMOS_OK) {
        struct memos_reader reader = memos_reader_of(value);
        *out_doc = memos_read_u32(&reader);
    }
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

static enum memos_status session_set(
    struct records *records, uint64_t session, uint32_t doc, struct memos_error *err)
{
    uint8_t key[RETRIEVAL_SESSION_KEY_BYTES], value[4];
    struct memos_bytes at = session_key(key, records->space, session);
    if (doc == 0) {
        enum memos_status status = memcube_delete(
            records->txn, records->features->session, at, memos_bytes_make(NULL, 0), err);
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    for (int i = 0; i < 4; i++) {
        value[i] = (uint8_t)(doc >> (8 * i));
    }
    return memcube_put(
        records->txn, records->features->session, at, memos_bytes_make(value, sizeof value), err);
}

/* ---- conversations ------------------------------------------------------------------------- */

/* Make `next` what follows `doc` (0: nothing does, it is the session's last). */
static enum memos_status set_next(
    struct records *records, uint64_t session, uint32_t doc, uint32_t next, struct memos_error *err)
{
    struct retrieval_feature feature;
    if (doc == 0) {
        return MEMOS_OK;
    }
    enum memos_status status = record_read(records, doc, &feature, err);
    if (status != MEMOS_OK || feature.session != session) {
        return status;
    }
    feature.next = next;
    return record_write(records, doc, &feature, err);
}

static enum memos_status set_previous(struct records *records, uint64_t session, uint32_t doc,
    uint32_t previous, struct memos_error *err)
{
    struct retrieval_feature feature;
    if (doc == 0) {
        return previous == 0 ? MEMOS_OK : session_set(records, session, previous, err);
    }
    enum memos_status status = record_read(records, doc, &feature, err);
    if (status != MEMOS_OK || feature.session != session) {
        return status;
    }
    feature.previous = previous;
    return record_write(records, doc, &feature, err);
}

/* Where a new record goes: behind the content that it replaces (F3), else at the session's end. A
 * repair puts a doc in that is older than the last ones: then, behind the nearest older one. */
static enum memos_status find_place(struct records *records, const struct memcube_index_doc *doc,
    struct retrieval_feature *feature, struct memos_error *err)
{
    struct retrieval_feature other = {.flags = 0};
    enum memos_status status = MEMOS_OK;

    feature->previous = feature->next = 0;
    if (doc->replaces != 0) {
        status = record_read(records, doc->replaces, &other, err);
        if (status == MEMOS_OK && other.session == feature->session) {
            feature->previous = doc->replaces;
            feature->next = other.next;
            return MEMOS_OK;
        }
    }
    if (status == MEMOS_OK) {
        status = session_last(records, feature->session, &feature->previous, err);
    }
    for (uint32_t passed = 0;
         status == MEMOS_OK && feature->previous > doc->doc && passed < doc->doc; passed++) {
        status = record_read(records, feature->previous, &other, err);
        if (status == MEMOS_OK && other.session != feature->session) {
            break; /* a broken list: its own check mends it */
        }
        feature->next = feature->previous;
        feature->previous = other.previous;
    }
    return status;
}

static enum memos_status link_record(struct records *records, uint32_t doc,
    const struct retrieval_feature *feature, struct memos_error *err)
{
    enum memos_status status = set_next(records, feature->session, feature->previous, doc, err);
    if (status == MEMOS_OK) {
        status = set_previous(records, feature->session, feature->next, doc, err);
    }
    return status;
}

/* Join what is before and after a record that goes. */
static enum memos_status unlink_record(struct records *records, uint32_t doc,
    const struct retrieval_feature *feature, struct memos_error *err)
{
    struct retrieval_feature other;
    uint32_t last;
    enum memos_status status = record_read(records, feature->previous, &other, err);
    if (status == MEMOS_OK && feature->previous != 0 && other.next == doc) {
        status = set_next(records, feature->session, feature->previous, feature->next, err);
    }
    if (status == MEMOS_OK) {
        status = record_read(records, feature->next, &other, err);
    }
    if (status == MEMOS_OK && feature->next != 0 && other.previous == doc) {
        status = set_previous(records, feature->session, feature->next, feature->previous, err);
    }
    if (status == MEMOS_OK) {
        status = session_last(records, feature->session, &last, err);
    }
    if (status == MEMOS_OK && last == doc) {
        status = session_set(records, feature->session, feature->previous, err);
    }
    return status;
}

/* ---- the index ----------------------------------------------------------------------------- */

static enum memos_status index_open(void *self, struct memcube_db *db, struct memos_error *err)
{
    struct retrieval_features *features = self;
    const struct {
        const char *name;
        memcube_table *table;
    } all[] = {
        {"feat.doc", &features->doc},
        {"feat.session", &features->session},
        {"feat.date", &features->date},
    };
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && status == MEMOS_OK; i++) {
        status = memcube_db_table(db, all[i].name, MEMCUBE_TABLE_MAP, all[i].table, err);
    }
    return status;
}

static enum memos_status index_add(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    struct retrieval_features *features = self;
    struct records records = {features, txn, doc->space};
    struct retrieval_feature before;
    struct made made;

    enum memos_status status = record_read(&records, doc->doc, &before, err);
    if ((before.flags & RETRIEVAL_FEATURE_THERE) != 0 ||
        ((uint64_t)doc->space << 32 | doc->doc) ==
            atomic_load_explicit(&features->erased_last, memory_order_relaxed)) {
        atomic_store_explicit(&features->repaired, true, memory_order_release);
    }
    make(features, doc, &made);
    if (status == MEMOS_OK && made.ranges_bytes > 0) {
        uint8_t key[RETRIEVAL_FEATURE_KEY_BYTES];
        status = memcube_put(txn, features->date, retrieval_feature_key(key, doc->space, doc->doc),
            memos_bytes_make(made.ranges, made.ranges_bytes), err);
    }
    if (status == MEMOS_OK && made.feature.session != 0) {
        status = find_place(&records, doc, &made.feature, err);
    }
    if (status == MEMOS_OK) {
        status = record_write(&records, doc->doc, &made.feature, err);
    }
    if (status == MEMOS_OK && made.feature.session != 0) {
        status = link_record(&records, doc->doc, &made.feature, err);
    }
    return status;
}

static enum memos_status index_erase(
    void *self, struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err)
{
    static const struct retrieval_feature nothing;
    struct retrieval_features *features = self;
    struct records records = {features, txn, space};
    struct retrieval_feature feature;
    uint8_t key[RETRIEVAL_FEATURE_KEY_BYTES];

    atomic_store_explicit(
        &features->erased_last, (uint64_t)space << 32 | doc, memory_order_relaxed);
    enum memos_status status = memcube_delete(txn, features->date,
        retrieval_feature_key(key, space, doc), memos_bytes_make(NULL, 0), err);
    if (status == MEMOS_OK || status == MEMOS_NOT_FOUND) {
        status = record_read(&records, doc, &feature, err);
    }
    if (status == MEMOS_OK && feature.session != 0) {
        status = unlink_record(&records, doc, &feature, err);
    }
    if (status == MEMOS_OK && (feature.flags & RETRIEVAL_FEATURE_THERE) != 0) {
        status = record_write(&records, doc, &nothing, err);
    }
    return status;
}

/* F2 for one doc. */
static enum memos_status links_check(struct records *records, uint32_t doc,
    const struct retrieval_feature *feature, bool *out_right, struct memos_error *err)
{
    struct retrieval_feature other;
    uint32_t last = doc;
    enum memos_status status = MEMOS_OK;
    *out_right = feature->session != 0 || (feature->previous == 0 && feature->next == 0);
    if (feature->previous != 0) {
        status = record_read(records, feature->previous, &other, err);
        *out_right = *out_right && other.next == doc && other.session == feature->session;
    }
    if (status == MEMOS_OK && feature->next != 0) {
        status = record_read(records, feature->next, &other, err);
        *out_right = *out_right && other.previous == doc && other.session == feature->session;
    } else if (status == MEMOS_OK && feature->session != 0) {
        status = session_last(records, feature->session, &last, err);
        *out_right = *out_right && last == doc;
    }
    return status;
}

static enum memos_status index_check(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    struct retrieval_features *features = self;
    struct records records = {features, txn, doc->space};
    struct retrieval_feature found;
    uint8_t key[RETRIEVAL_FEATURE_KEY_BYTES], as_made[RETRIEVAL_FEATURE_BYTES],
        as_found[RETRIEVAL_FEATURE_BYTES];
    struct memos_bytes ranges = memos_bytes_make(NULL, 0);
    struct made made;
    bool right = false;

    make(features, doc, &made);
    enum memos_status status = record_read(&records, doc->doc, &found, err);
    if (status == MEMOS_OK) {
        made.feature.previous = found.previous;
        made.feature.next = found.next;
        retrieval_feature_encode(&made.feature, as_made);
        retrieval_feature_encode(&found, as_found);
        status = memcube_get(
            txn, features->date, retrieval_feature_key(key, doc->space, doc->doc), &ranges, err);
    }
    if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    if (memcmp(as_made, as_found, sizeof as_made) != 0 ||
        !memos_bytes_equal(ranges, memos_bytes_make(made.ranges, made.ranges_bytes))) {
        return memos_fail(err, MEMOS_CORRUPT,
            "feature index: doc %u of space %u does not have the record of its text", doc->doc,
            doc->space);
    }
    status = links_check(&records, doc->doc, &found, &right, err);
    if (status == MEMOS_OK && !right) {
        status = memos_fail(err, MEMOS_CORRUPT,
            "feature index: doc %u of space %u is not linked into its conversation", doc->doc,
            doc->space);
    }
    return status;
}

enum memos_status retrieval_features_create(const struct retrieval_statements *statements,
    struct retrieval_features **out_features, struct memos_error *err)
{
    if (sodium_init() < 0) {
        return memos_fail(err, MEMOS_INTERNAL, "libsodium does not start");
    }
    struct retrieval_features *features = calloc(1, sizeof *features);
    if (!features) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the feature index");
    }
    if (pthread_mutex_init(&features->lock, NULL) != 0) {
        free(features);
        return memos_fail(err, MEMOS_INTERNAL, "a lock cannot be made");
    }
    features->statements = statements;
    features->index = (struct memcube_index){
        .name = "feat",
        .self = features,
        .open = index_open,
        .add = index_add,
        .erase = index_erase,
        .check = index_check,
    };
    *out_features = features;
    return MEMOS_OK;
}

void retrieval_features_destroy(struct retrieval_features **features)
{
    if (*features) {
        retrieval_speakers_free(&(*features)->speakers);
        (void)pthread_mutex_destroy(&(*features)->lock);
        free(*features);
        *features = NULL;
    }
}

struct memcube_index *retrieval_features_index(struct retrieval_features *features)
{
    return &features->index;
}
