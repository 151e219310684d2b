/* Entries: the codes of a doc's spans, encrypted under the doc's key. */
#include "retrieval/vectors_internal.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>

#define ENTRY_FORMAT 1u
#define HASH_BYTES 16u
#define NONCE_BYTES crypto_aead_chacha20poly1305_NPUBBYTES
#define TAG_BYTES crypto_aead_chacha20poly1305_ABYTES
#define HASH_AT (1u + 4u + 1u)
#define NONCE_AT (HASH_AT + HASH_BYTES)
#define BODY_AT (NONCE_AT + NONCE_BYTES)

_Static_assert(crypto_aead_chacha20poly1305_KEYBYTES == MEMCUBE_DOC_KEY_BYTES, "a doc's key");
_Static_assert(NONCE_BYTES == 8, "README.md says so");

static size_t body_bytes(const struct retrieval_vec_encoder *encoder, size_t spans)
{
    return spans * (sizeof(float) + encoder->code_bytes);
}

void retrieval_vec_text_hash(
    const uint8_t key[MEMCUBE_DOC_KEY_BYTES], const uint8_t spans_hash[16], uint8_t out[16])
{
    static const char purpose[] = "memos vector text 1";
    uint8_t text[sizeof purpose - 1 + HASH_BYTES];

    memcpy(text, purpose, sizeof purpose - 1);
    memcpy(text + sizeof purpose - 1, spans_hash, HASH_BYTES);
    (void)crypto_generichash(out, HASH_BYTES, text, sizeof text, key, MEMCUBE_DOC_KEY_BYTES);
}

enum memos_status retrieval_vec_entry_view(
    struct memos_bytes value, struct retrieval_vec_entry *out, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(value);

    const uint8_t format = memos_read_u8(&r);
    out->encoder = memos_read_u32(&r);
    out->spans = memos_read_u8(&r);
    out->hash = memos_read_bytes(&r, HASH_BYTES).data;
    out->bytes = value;
    (void)memos_read_bytes(&r, NONCE_BYTES);
    if (r.failed || format != ENTRY_FORMAT || out->encoder == 0 || out->spans == 0 ||
        out->spans > RETRIEVAL_SPANS_MAX || r.left <= TAG_BYTES) {
        return memos_fail(
            err, MEMOS_CORRUPT, "vector index: an entry of %zu bytes is damaged", value.size);
    }
    return MEMOS_OK;
}

void retrieval_vec_codes_finish(struct retrieval_vec_codes *codes)
{
    if (codes->room) {
        sodium_memzero(codes->room, codes->room_bytes);
    }
    free(codes->room);
    *codes = (struct retrieval_vec_codes){.spans = 0};
}

static bool room_for(struct retrieval_vec_codes *codes, size_t bytes)
{
    if (codes->room_bytes < bytes) {
        const size_t most = (bytes + 63) / 64 * 64;
        uint8_t *room = aligned_alloc(64, most);
        if (!room) {
            return false;
        }
        free(codes->room);
        codes->room = room;
        codes->room_bytes = most;
    }
    return true;
}

enum memos_status retrieval_vec_entry_open(const struct retrieval_vec_entry *entry,
    const struct retrieval_vec_encoder *encoder, const uint8_t key[MEMCUBE_DOC_KEY_BYTES],
    struct retrieval_vec_codes *out, struct memos_error *err)
{
    const uint8_t *bytes = entry->bytes.data;
    const size_t size = body_bytes(encoder, entry->spans);

    if (entry->encoder != encoder->number || entry->bytes.size != BODY_AT + size + TAG_BYTES) {
        return memos_fail(err, MEMOS_CORRUPT, "vector index: an entry of %zu spans has %zu bytes",
            entry->spans, entry->bytes.size);
    }
    if (!room_for(out, size)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to read a vector");
    }
    if (crypto_aead_chacha20poly1305_decrypt_detached(out->room, NULL, bytes + BODY_AT, size,
            bytes + BODY_AT + size, bytes, BODY_AT, bytes + NONCE_AT, key) != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "vector index: an entry was changed");
    }
    out->spans = entry->spans;
    memcpy(out->scales, out->room, out->spans * sizeof *out->scales);
    out->codes = out->room + out->spans * sizeof *out->scales;
    return MEMOS_OK;
}

enum memos_status retrieval_vec_entry_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t space, uint32_t doc,
    const struct retrieval_vec_encoder *encoder, const uint8_t key[MEMCUBE_DOC_KEY_BYTES],
    const uint8_t spans_hash[16], const float *values, size_t spans_count, struct memos_error *err)
{
    uint8_t doc_key[RETRIEVAL_DOC_KEY_BYTES], head[BODY_AT];
    struct retrieval_vec_codes plain = {.spans = 0};
    const size_t size = body_bytes(encoder, spans_count);
    const uint32_t number = htole32(encoder->number);
    void *room = NULL;

    memos_assert(spans_count >= 1 && spans_count <= RETRIEVAL_SPANS_MAX);
    if (!room_for(&plain, size)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to write a vector");
    }
    for (size_t i = 0; i < spans_count; i++) {
        const float scale = retrieval_code_encode(encoder->codes, values + i * encoder->dims,
            encoder->dims, plain.room + spans_count * sizeof(float) + i * encoder->code_bytes);
        memcpy(plain.room + i * sizeof scale, &scale, sizeof scale);
    }
    head[0] = ENTRY_FORMAT;
    memcpy(head + 1, &number, sizeof number);
    head[5] = (uint8_t)spans_count;
    retrieval_vec_text_hash(key, spans_hash, head + HASH_AT);
    randombytes_buf(head + NONCE_AT, NONCE_BYTES);
    enum memos_status status = memcube_put_room(txn, tables->doc,
        retrieval_doc_key(doc_key, space, doc), BODY_AT + size + TAG_BYTES, &room, err);
    if (status == MEMOS_OK) {
        uint8_t *at = room;
        memcpy(at, head, BODY_AT);
        (void)crypto_aead_chacha20poly1305_encrypt_detached(at + BODY_AT, at + BODY_AT + size, NULL,
            plain.room, size, head, BODY_AT, NULL, head + NONCE_AT, key);
    }
    retrieval_vec_codes_finish(&plain);
    return status;
}
