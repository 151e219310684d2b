/* Reading features: records by doc, walks along conversations. */
#include "retrieval/feature_internal.h"

#include <string.h>

/* A walk passes at most so many docs that are not seen (other contents of edited turns, docs that
 * were archived or are hidden). */
#define PASSED_MAX 4096

struct memos_bytes retrieval_feature_key(
    uint8_t out[RETRIEVAL_FEATURE_KEY_BYTES], uint32_t space, uint32_t chunk_or_doc)
{
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(space >> (24 - 8 * i));
        out[4 + i] = (uint8_t)(chunk_or_doc >> (24 - 8 * i));
    }
    return memos_bytes_make(out, RETRIEVAL_FEATURE_KEY_BYTES);
}

#define SESSION_BITS 56

struct retrieval_feature retrieval_feature_decode(const uint8_t at[RETRIEVAL_FEATURE_BYTES])
{
    struct memos_reader r = memos_reader_of(memos_bytes_make(at, RETRIEVAL_FEATURE_BYTES));
    struct retrieval_feature feature;
    feature.previous = memos_read_u32(&r);
    feature.next = memos_read_u32(&r);
    uint64_t packed = memos_read_u64(&r);
    feature.session = packed & ((UINT64_C(1) << SESSION_BITS) - 1);
    feature.flags = (unsigned)(packed >> SESSION_BITS);
    feature.event_us = (int64_t)memos_read_u64(&r);
    feature.speaker = memos_read_u32(&r);
    feature.words = memos_read_u16(&r);
    feature.asking = memos_read_u16(&r);
    return feature;
}

static uint8_t *put_le(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
    return at + bytes;
}

void retrieval_feature_encode(
    const struct retrieval_feature *feature, uint8_t out[RETRIEVAL_FEATURE_BYTES])
{
    out = put_le(out, feature->previous, 4);
    out = put_le(out, feature->next, 4);
    out = put_le(out, feature->session | (uint64_t)feature->flags << SESSION_BITS, 8);
    out = put_le(out, (uint64_t)feature->event_us, 8);
    out = put_le(out, feature->speaker, 4);
    out = put_le(out, feature->words, 2);
    (void)put_le(out, feature->asking, 2);
}

void retrieval_feature_secret(const uint8_t *secret, uint8_t out[crypto_shorthash_KEYBYTES])
{
    static const uint8_t purpose[] = "memos features 1";
    (void)crypto_generichash(
        out, crypto_shorthash_KEYBYTES, purpose, sizeof purpose - 1, secret, 32);
}

void retrieval_feature_mask(
    const uint8_t key[crypto_shorthash_KEYBYTES], uint32_t doc, uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += crypto_shorthash_BYTES) {
        uint8_t place[9] = {'d'}, mask[crypto_shorthash_BYTES];
        (void)put_le(put_le(place + 1, doc, 4), i, 4);
        (void)crypto_shorthash(mask, place, sizeof place, key);
        for (size_t k = 0; k < sizeof mask && i + k < size; k++) {
            bytes[i + k] ^= mask[k];
        }
    }
}

enum memos_status retrieval_features_load(const struct retrieval_features *features,
    struct memcube_txn *txn, uint32_t space, uint32_t docs_end, struct memos_arena *arena,
    struct retrieval_features_view *out, struct memos_error *err)
{
    *out = (struct retrieval_features_view){.features = features,
        .txn = txn,
        .space = space,
        .chunks_count = docs_end / RETRIEVAL_FEATURE_CHUNK_DOCS + 1};
    out->chunks = memos_arena_take(arena, out->chunks_count, sizeof *out->chunks);
    if (!out->chunks) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to search %u docs", docs_end);
    }
    memset(out->chunks, 0, out->chunks_count * sizeof *out->chunks);
    return MEMOS_OK;
}

enum memos_status retrieval_features_view_check(
    const struct retrieval_features_view *view, struct memos_error *err)
{
    if (view->status != MEMOS_OK && err) {
        *err = view->error;
    }
    return view->status;
}

/* A chunk's records; zeros where there are none or they cannot be read. */
static const uint8_t *chunk_read(struct retrieval_features_view *view, uint32_t chunk)
{
    static const uint8_t nothing[RETRIEVAL_FEATURE_CHUNK_BYTES];
    uint8_t key[RETRIEVAL_FEATURE_KEY_BYTES];
    struct memos_error error;
    struct memos_bytes value;

    enum memos_status status = memcube_get(view->txn, view->features->doc,
        retrieval_feature_key(key, view->space, chunk), &value, &error);
    if (status == MEMOS_OK && value.size == RETRIEVAL_FEATURE_CHUNK_BYTES) {
        return value.data;
    }
    if (status == MEMOS_OK) {
        status = memos_fail(&error, MEMOS_CORRUPT, "feature index: a chunk of records is broken");
    }
    if (status != MEMOS_NOT_FOUND && view->status == MEMOS_OK) {
        view->status = status;
        view->error = error;
    }
    return nothing;
}

static const uint8_t *record_at(struct retrieval_features_view *view, uint32_t doc)
{
    const uint32_t chunk = doc / RETRIEVAL_FEATURE_CHUNK_DOCS;
    if (chunk >= view->chunks_count) {
        return NULL;
    }
    if (!view->chunks[chunk]) {
        view->chunks[chunk] = chunk_read(view, chunk);
    }
    return view->chunks[chunk] +
           (size_t)(doc % RETRIEVAL_FEATURE_CHUNK_DOCS) * RETRIEVAL_FEATURE_BYTES;
}

bool retrieval_feature_get(
    struct retrieval_features_view *view, uint32_t doc, struct retrieval_feature *out)
{
    const uint8_t *at = record_at(view, doc);
    *out = at ? retrieval_feature_decode(at) : (struct retrieval_feature){.flags = 0};
    return (out->flags & RETRIEVAL_FEATURE_THERE) != 0;
}

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static bool docs_has(const struct memcube_docs *docs, uint32_t doc)
{
    return doc < docs->docs_end && (docs->words[doc / 64] >> (doc % 64) & 1) != 0;
}

size_t retrieval_features_beside(struct retrieval_features_view *view, uint32_t doc, bool after,
    const struct memcube_docs *visible, size_t count_max, uint32_t *out)
{
    const uint8_t *at = record_at(view, doc);
    size_t count = 0;
    for (size_t passed = 0; at && count < count_max && passed < PASSED_MAX; passed++) {
        uint32_t next = read_u32(at + (after ? 4 : 0));
        if (next == 0) {
            break;
        }
        if (docs_has(visible, next)) {
            out[count++] = next;
        }
        at = record_at(view, next);
    }
    return count;
}

enum memos_status retrieval_features_ranges(const struct retrieval_features *features,
    struct memcube_txn *txn, const struct memcube_space *space, uint32_t doc,
    struct retrieval_fuse_range *out, size_t *out_count, struct memos_error *err)
{
    uint8_t key_bytes[RETRIEVAL_FEATURE_KEY_BYTES], key[crypto_shorthash_KEYBYTES];
    uint8_t bytes[RETRIEVAL_FEATURE_RANGES_MAX * RETRIEVAL_RANGE_BYTES];
    struct memos_bytes value;

    *out_count = 0;
    enum memos_status status = memcube_get(
        txn, features->date, retrieval_feature_key(key_bytes, space->number, doc), &value, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    if (value.size > sizeof bytes || value.size % RETRIEVAL_RANGE_BYTES != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "feature index: the days of doc %u are broken", doc);
    }
    memcpy(bytes, value.data, value.size);
    retrieval_feature_secret(space->secret, key);
    retrieval_feature_mask(key, doc, bytes, value.size);
    struct memos_reader reader = memos_reader_of(memos_bytes_make(bytes, value.size));
    while (reader.left > 0) {
        out[*out_count].from_day = (int32_t)memos_read_u32(&reader);
        out[*out_count].to_day = (int32_t)memos_read_u32(&reader);
        ++*out_count;
    }
    return MEMOS_OK;
}
