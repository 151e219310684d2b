/* The small records of the vector index: encoders, which one is active, counts. */
#include "retrieval/vectors_internal.h"

#define ENCODER_FORMAT 1u
#define ENCODER_BYTES_MAX 1024

static struct memos_bytes number_key(uint8_t out[4], uint32_t number)
{
    const uint32_t be = htobe32(number);
    memcpy(out, &be, sizeof be);
    return memos_bytes_make(out, sizeof be);
}

/* ---- encoders ------------------------------------------------------------------------------ */

static enum memos_status encoder_decode(struct memos_bytes key, struct memos_bytes value,
    struct retrieval_vec_encoder *out, struct memos_error *err)
{
    struct memos_reader k = memos_reader_of(key), r = memos_reader_of(value);

    *out = (struct retrieval_vec_encoder){.number = memos_read_u32_be(&k)};
    const uint8_t format = memos_read_u8(&r);
    memos_read_into(&r, out->fingerprint, sizeof out->fingerprint);
    out->dims = memos_read_u32(&r);
    out->codes = memos_read_u8(&r);
    (void)memos_read_sized(&r, ENCODER_BYTES_MAX);
    if (!memos_reader_done(&r) || !memos_reader_done(&k) || format != ENCODER_FORMAT ||
        out->number == 0 || out->dims == 0 || out->dims > RETRIEVAL_DIMS_MAX ||
        out->codes < KERN_F32 || out->codes > KERN_I8) {
        return memos_fail(
            err, MEMOS_CORRUPT, "vector index: the record of encoder %u is damaged", out->number);
    }
    out->code_bytes = retrieval_code_bytes(out->codes, out->dims);
    return MEMOS_OK;
}

enum memos_status retrieval_vec_encoder_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t number, struct retrieval_vec_encoder *out,
    struct memos_error *err)
{
    uint8_t key_bytes[4];
    struct memos_bytes key = number_key(key_bytes, number), value;

    enum memos_status status = memcube_get(txn, tables->encoder, key, &value, err);
    if (status == MEMOS_NOT_FOUND) {
        return memos_fail(err, MEMOS_NOT_FOUND, "vector index: there is no encoder %u", number);
    }
    return status == MEMOS_OK ? encoder_decode(key, value, out, err) : status;
}

enum memos_status retrieval_vec_encoder_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, const struct retrieval_vec_encoder *encoder, struct memos_bytes name,
    struct memos_error *err)
{
    uint8_t key[4];
    struct memos_buffer b = memos_buffer_make(ENCODER_BYTES_MAX + 64);

    memos_buffer_u8(&b, ENCODER_FORMAT);
    memos_buffer_bytes(&b, encoder->fingerprint, sizeof encoder->fingerprint);
    memos_buffer_u32(&b, (uint32_t)encoder->dims);
    memos_buffer_u8(&b, (uint8_t)encoder->codes);
    name.size = name.size < ENCODER_BYTES_MAX ? name.size : ENCODER_BYTES_MAX;
    memos_buffer_sized(&b, name);
    enum memos_status status =
        b.failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for an encoder's record")
                 : memcube_put(txn, tables->encoder, number_key(key, encoder->number),
                       memos_buffer_view(&b), err);
    memos_buffer_free(&b);
    return status;
}

enum memos_status retrieval_vec_encoder_list(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, struct retrieval_vec_encoder *out, size_t count_max, size_t *out_count,
    uint32_t *out_last, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    size_t count = 0;

    *out_last = 0;
    enum memos_status status = memcube_cursor_open(txn, tables->encoder, &cursor, err);
    if (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, err);
    }
    while (status == MEMOS_OK) {
        struct retrieval_vec_encoder encoder;
        status = encoder_decode(key, value, &encoder, err);
        if (status == MEMOS_OK) {
            *out_last = encoder.number;
            if (count < count_max) {
                out[count++] = encoder;
            }
            status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, err);
        }
    }
    memcube_cursor_close(&cursor);
    *out_count = count;
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* ---- numbers ------------------------------------------------------------------------------- */

/* A value of one u64; 0 when it is not there. */
static enum memos_status number_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, struct memos_bytes key, uint64_t *out, struct memos_error *err)
{
    struct memos_bytes value;

    *out = 0;
    enum memos_status status = memcube_get(txn, tables->meta, key, &value, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    struct memos_reader r = memos_reader_of(value);
    *out = memos_read_u64(&r);
    return memos_reader_done(&r)
               ? MEMOS_OK
               : memos_fail(err, MEMOS_CORRUPT, "vector index: a number is damaged");
}

static enum memos_status number_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, struct memos_bytes key, uint64_t value, struct memos_error *err)
{
    const uint64_t le = htole64(value);
    return memcube_put(txn, tables->meta, key, memos_bytes_make(&le, sizeof le), err);
}

enum memos_status retrieval_vec_active_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, struct retrieval_vec_encoder *out, uint64_t *out_turns,
    struct memos_error *err)
{
    struct memos_bytes value;

    *out = (struct retrieval_vec_encoder){.number = 0};
    if (out_turns) {
        *out_turns = 0;
    }
    enum memos_status status =
        memcube_get(txn, tables->meta, memos_bytes_of("active"), &value, err);
    if (status != MEMOS_OK) {
        return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    struct memos_reader r = memos_reader_of(value);
    const uint32_t number = memos_read_u32(&r);
    const uint64_t turns = memos_read_u64(&r);
    if (!memos_reader_done(&r)) {
        return memos_fail(err, MEMOS_CORRUPT, "vector index: which encoder is active is damaged");
    }
    if (out_turns) {
        *out_turns = turns;
    }
    return retrieval_vec_encoder_get(tables, txn, number, out, err);
}

enum memos_status retrieval_vec_active_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t number, uint64_t turns, struct memos_error *err)
{
    uint8_t value[12];
    const uint32_t number_le = htole32(number);
    const uint64_t turns_le = htole64(turns);

    memcpy(value, &number_le, sizeof number_le);
    memcpy(value + sizeof number_le, &turns_le, sizeof turns_le);
    return memcube_put(
        txn, tables->meta, memos_bytes_of("active"), memos_bytes_make(value, sizeof value), err);
}

enum memos_status retrieval_vec_change_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint64_t *out_change, struct memos_error *err)
{
    return number_get(tables, txn, memos_bytes_of("change"), out_change, err);
}

enum memos_status retrieval_vec_change_put(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint64_t change, struct memos_error *err)
{
    return number_put(tables, txn, memos_bytes_of("change"), change, err);
}

static struct memos_bytes count_key(uint8_t out[9], uint32_t encoder)
{
    memcpy(out, "count", 5);
    (void)number_key(out + 5, encoder);
    return memos_bytes_make(out, 9);
}

enum memos_status retrieval_vec_count_get(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t encoder, uint64_t *out_count, struct memos_error *err)
{
    uint8_t key[9];
    return number_get(tables, txn, count_key(key, encoder), out_count, err);
}

enum memos_status retrieval_vec_count_add(const struct retrieval_vec_tables *tables,
    struct memcube_txn *txn, uint32_t encoder, int64_t more, struct memos_error *err)
{
    uint8_t key[9];
    uint64_t count;

    enum memos_status status = retrieval_vec_count_get(tables, txn, encoder, &count, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const uint64_t less = more < 0 ? (uint64_t)-more : 0;
    count = less > count ? 0 : count - less + (more > 0 ? (uint64_t)more : 0);
    return number_put(tables, txn, count_key(key, encoder), count, err);
}
