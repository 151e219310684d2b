/* Bitmaps over docs, in chunks of 4096 bits.
 *
 * A write changes the same few chunks again and again, so it keeps them in memory and writes them
 * once, with its commit; what is read inside the write looks through these first. */
#include "memcube/store_internal.h"

static struct memcube_key bits_key(uint32_t space, uint8_t which, uint32_t chunk)
{
    struct memcube_key key = memcube_key_of(space);
    memcube_key_u8(&key, which);
    memcube_key_u32(&key, chunk);
    return key;
}

static size_t bits_bucket(uint32_t space, uint8_t which, uint32_t chunk)
{
    const uint32_t mixed = (space * 31 + which) * 31 + chunk;
    return mixed % MEMCUBE_BITS_BUCKETS;
}

static enum memos_status page_find(struct memcube_write *write, uint32_t space, uint8_t which,
    uint32_t chunk, struct memcube_bits_page **out, struct memos_error *err)
{
    struct memcube_bits_page **bucket = &write->bits[bits_bucket(space, which, chunk)];
    struct memos_bytes value;

    for (struct memcube_bits_page *page = *bucket; page; page = page->next) {
        if (page->space == space && page->which == which && page->chunk == chunk) {
            *out = page;
            return MEMOS_OK;
        }
    }
    struct memcube_bits_page *page = memos_arena_take(&write->read.arena, 1, sizeof *page);
    if (!page) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a bitmap");
    }
    *page = (struct memcube_bits_page){ .space = space, .which = which, .chunk = chunk };
    const struct memcube_key key = bits_key(space, which, chunk);
    const enum memos_status status = memcube_get(
        write->read.txn, write->store->tables.bits, memcube_key_view(&key), &value, err);
    if (status == MEMOS_OK && value.size != sizeof page->bytes) {
        return memos_fail(err, MEMOS_CORRUPT, "a chunk of a bitmap is damaged");
    }
    if (status == MEMOS_OK) {
        memcpy(page->bytes, value.data, sizeof page->bytes);
    } else if (status != MEMOS_NOT_FOUND) {
        return status;
    }
    page->next = *bucket;
    *bucket = page;
    *out = page;
    return MEMOS_OK;
}

enum memos_status memcube_bits_set(struct memcube_write *write, uint32_t space, uint8_t which,
    uint32_t doc, bool value, struct memos_error *err)
{
    struct memcube_bits_page *page = NULL;

    const enum memos_status status =
        page_find(write, space, which, doc / MEMCUBE_BITS_DOCS, &page, err);
    if (status != MEMOS_OK) {
        return status;
    }
    const uint32_t bit = doc % MEMCUBE_BITS_DOCS;
    const uint8_t mask = (uint8_t)(1u << (bit % 8));
    if (value) {
        page->bytes[bit / 8] |= mask;
    } else {
        page->bytes[bit / 8] &= (uint8_t)~mask;
    }
    return MEMOS_OK;
}

/* Bit d of words[d / 64] lies in byte d / 8 of a little-endian word, and so it does in a chunk. */
static void words_or(uint64_t *words, uint32_t docs_end, uint32_t chunk, const uint8_t *bytes)
{
    const size_t words_count = ((size_t)docs_end + 63) / 64;
    const size_t first = (size_t)chunk * (MEMCUBE_BITS_DOCS / 64);

    for (size_t i = 0; i < MEMCUBE_BITS_DOCS / 64 && first + i < words_count; i++) {
        uint64_t word = 0;
        memcpy(&word, bytes + i * sizeof word, sizeof word);
        words[first + i] |= le64toh(word);
    }
    if (docs_end % 64 != 0 && words_count > 0) {
        words[words_count - 1] &= (UINT64_C(1) << (docs_end % 64)) - 1;
    }
}

static struct memcube_bits_page *page_cached(
    struct memcube_read *read, uint32_t space, uint8_t which, uint32_t chunk)
{
    struct memcube_bits_page *page =
        read->write ? read->write->bits[bits_bucket(space, which, chunk)] : NULL;
    while (page && (page->space != space || page->which != which || page->chunk != chunk)) {
        page = page->next;
    }
    return page;
}

enum memos_status memcube_bits_load(struct memcube_read *read, uint32_t space, uint8_t which,
    uint64_t *words, uint32_t docs_end, struct memos_error *err)
{
    const uint32_t chunks = docs_end / MEMCUBE_BITS_DOCS + 1;

    for (uint32_t chunk = 0; chunk < chunks; chunk++) {
        const struct memcube_bits_page *page = page_cached(read, space, which, chunk);
        if (page) {
            words_or(words, docs_end, chunk, page->bytes);
            continue;
        }
        const struct memcube_key key = bits_key(space, which, chunk);
        struct memos_bytes value;
        const enum memos_status status = memcube_get(
            read->txn, read->store->tables.bits, memcube_key_view(&key), &value, err);
        if (status == MEMOS_OK && value.size == MEMCUBE_BITS_BYTES) {
            words_or(words, docs_end, chunk, value.data);
        } else if (status == MEMOS_OK) {
            return memos_fail(err, MEMOS_CORRUPT, "a chunk of a bitmap is damaged");
        } else if (status != MEMOS_NOT_FOUND) {
            return status;
        }
    }
    return MEMOS_OK;
}

enum memos_status memcube_bits_flush(struct memcube_write *write, struct memos_error *err)
{
    for (size_t i = 0; i < MEMCUBE_BITS_BUCKETS; i++) {
        for (struct memcube_bits_page *page = write->bits[i]; page; page = page->next) {
            const struct memcube_key key = bits_key(page->space, page->which, page->chunk);
            const enum memos_status status = memcube_put(write->read.txn,
                write->store->tables.bits, memcube_key_view(&key),
                memos_bytes_make(page->bytes, sizeof page->bytes), err);
            if (status != MEMOS_OK) {
                return status;
            }
        }
    }
    return MEMOS_OK;
}
