/* Signed statements about a space's history: made, kept beside it, and held against it. */
#include "memcube/proof.h"

#include <sodium.h>
#include <string.h>

#define FORMAT_VERSION 1
#define ENCODED_BYTES_MAX 256

/* Key: space, seq, public key, so that several may vouch for the same head. */
static struct memcube_key key_of(uint32_t space, const struct memcube_checkpoint *checkpoint)
{
    struct memcube_key key = memcube_key_of_u64(space, checkpoint->seq);
    memcube_key_bytes(&key, checkpoint->public_key, sizeof checkpoint->public_key);
    return key;
}

enum memos_status memcube_checkpoint_decode(const struct memos_id *space_id,
    struct memos_bytes key, struct memos_bytes value, struct memcube_checkpoint *out,
    struct memos_error *err)
{
    struct memos_reader k = memos_reader_of(key);
    struct memos_reader v = memos_reader_of(value);

    *out = (struct memcube_checkpoint){ .space_id = *space_id };
    (void)memos_read_u32_be(&k);
    out->seq = memos_read_u64_be(&k);
    memos_read_into(&k, out->public_key, sizeof out->public_key);
    uint8_t version = memos_read_u8(&v);
    out->time_us = (int64_t)memos_read_u64(&v);
    memos_read_into(&v, out->head.bytes, sizeof out->head.bytes);
    memos_read_into(&v, out->signature, sizeof out->signature);
    if (version != FORMAT_VERSION || !memos_reader_done(&k) || !memos_reader_done(&v)) {
        return memos_fail(err, MEMOS_CORRUPT, "the checkpoint at seq %llu cannot be read",
            (unsigned long long)out->seq);
    }
    return MEMOS_OK;
}

enum memos_status memcube_checkpoint_make(struct memcube_write *write, struct memos_bytes space,
    const uint8_t secret_key[64], struct memcube_checkpoint *out, struct memos_error *err)
{
    struct memcube_space_state *state;
    struct memos_buffer bytes = memos_buffer_make(ENCODED_BYTES_MAX);
    enum memos_status status = memcube_space_state_find(write, space, &state, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (state->space.seq == 0) {
        return memos_fail(err, MEMOS_NOT_FOUND, "the space has no history to vouch for yet");
    }
    struct memcube_checkpoint made = {
        .space_id = state->space.id,
        .seq = state->space.seq,
        .head = state->space.head,
        .time_us = write->store->clock.wall_us(write->store->clock.self),
    };
    (void)crypto_sign_ed25519_sk_to_pk(made.public_key, secret_key);
    memcube_checkpoint_encode(&made, &bytes);
    if (bytes.failed || crypto_sign_ed25519_detached(
                            made.signature, NULL, bytes.data, bytes.size, secret_key) != 0) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "could not sign the checkpoint");
        goto out;
    }
    memos_buffer_reset(&bytes);
    memos_buffer_u8(&bytes, FORMAT_VERSION);
    memos_buffer_u64(&bytes, (uint64_t)made.time_us);
    memos_buffer_bytes(&bytes, made.head.bytes, sizeof made.head.bytes);
    memos_buffer_bytes(&bytes, made.signature, sizeof made.signature);
    struct memcube_key key = key_of(state->space.number, &made);
    status = memcube_put(write->read.txn, write->store->tables.checkpoint,
        memcube_key_view(&key), memos_buffer_view(&bytes), err);
    if (status == MEMOS_OK) {
        *out = made;
    }
out:
    memos_buffer_free(&bytes);
    return status;
}

enum memos_status memcube_checkpoint_list(struct memcube_read *read,
    const struct memcube_space *space, struct memcube_checkpoint *out, size_t count_max,
    size_t *out_count, struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    struct memcube_key prefix = memcube_key_of(space->number);
    struct memcube_key end = memcube_key_of_u64(space->number, UINT64_MAX);
    struct memos_bytes key = memcube_key_view(&end), value;
    size_t count = 0;

    enum memos_status status =
        memcube_cursor_open(read->txn, read->store->tables.checkpoint, &cursor, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_cursor_move(cursor, MEMCUBE_AT_OR_AFTER, &key, &value, err);
    status = status == MEMOS_NOT_FOUND
                 ? memcube_cursor_move(cursor, MEMCUBE_LAST, &key, &value, err)
                 : memcube_cursor_move(cursor, MEMCUBE_PREVIOUS, &key, &value, err);
    while (status == MEMOS_OK && count < count_max && memcube_key_begins(key, &prefix)) {
        status = memcube_checkpoint_decode(&space->id, key, value, &out[count], err);
        if (status == MEMOS_OK) {
            count++;
            status = memcube_cursor_move(cursor, MEMCUBE_PREVIOUS, &key, &value, err);
        }
    }
    memcube_cursor_close(&cursor);
    if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    }
    *out_count = count;
    return MEMOS_OK;
}

enum memos_status memcube_checkpoint_check(struct memcube_read *read,
    const struct memcube_space *space, const struct memcube_checkpoint *checkpoint,
    struct memos_error *err)
{
    struct memos_buffer bytes = memos_buffer_make(ENCODED_BYTES_MAX);
    struct memcube_log_record record;
    size_t count = 0;

    memcube_checkpoint_encode(checkpoint, &bytes);
    bool signed_so = !bytes.failed &&
        crypto_sign_ed25519_verify_detached(
            checkpoint->signature, bytes.data, bytes.size, checkpoint->public_key) == 0;
    memos_buffer_free(&bytes);
    if (!signed_so) {
        return memos_fail(err, MEMOS_CORRUPT,
            "the signature of the checkpoint at seq %llu is wrong",
            (unsigned long long)checkpoint->seq);
    }
    if (!memos_id_equal(&checkpoint->space_id, &space->id)) {
        return memos_fail(err, MEMOS_CONFLICT, "the checkpoint is of another space");
    }
    if (checkpoint->seq == 0 || checkpoint->seq > space->seq) {
        return memos_fail(err, MEMOS_CONFLICT,
            "the checkpoint is at seq %llu, but the history ends at %llu",
            (unsigned long long)checkpoint->seq, (unsigned long long)space->seq);
    }
    enum memos_status status =
        memcube_log_read(read, space, checkpoint->seq, false, &record, 1, &count, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (count != 1 || record.seq != checkpoint->seq ||
        !memcube_hash_equal(&record.hash, &checkpoint->head)) {
        return memos_fail(err, MEMOS_CONFLICT,
            "record %llu is not the one that the checkpoint vouches for",
            (unsigned long long)checkpoint->seq);
    }
    return MEMOS_OK;
}
