#include "proto/id.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static void random_bytes(void *out, size_t size)
{
    uint8_t *at = out;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        memos_assert(got > 0 || errno == EINTR);
        if (got > 0) {
            at += got;
            size -= (size_t)got;
        }
    }
}

static void set_stamp(struct memos_id *id, uint64_t ms)
{
    for (int i = 0; i < 6; i++) {
        id->bytes[i] = (uint8_t)(ms >> (8 * (5 - i)));
    }
    id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0F) | 0x70); /* version 7 */
    id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3F) | 0x80); /* variant 10 */
}

/* Add a small random step to the 62 bits after the variant; false when they overflow. */
static bool count_up(struct memos_id *id)
{
    uint8_t step;
    random_bytes(&step, 1);
    unsigned carry = step + 1u;
    for (int i = 15; i >= 9 && carry; i--) {
        carry += id->bytes[i];
        id->bytes[i] = (uint8_t)carry;
        carry >>= 8;
    }
    if (carry) {
        carry += id->bytes[8] & 0x3F;
        id->bytes[8] = (uint8_t)(0x80 | (carry & 0x3F));
        carry >>= 6;
    }
    return carry == 0;
}

struct memos_id memos_id_next(struct memos_id_source *source, const struct memos_clock *clock)
{
    uint64_t now_ms = (uint64_t)(clock->wall_us(clock->self) / 1000);
    if (now_ms <= source->last_ms && count_up(&source->last)) {
        return source->last;
    }
    source->last_ms = now_ms > source->last_ms ? now_ms : source->last_ms + 1;
    random_bytes(source->last.bytes, sizeof source->last.bytes);
    set_stamp(&source->last, source->last_ms);
    return source->last;
}

char *memos_id_format(const struct memos_id *id, char out[MEMOS_ID_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    char *at = out;
    for (size_t i = 0; i < sizeof id->bytes; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *at++ = '-';
        }
        *at++ = digits[id->bytes[i] >> 4];
        *at++ = digits[id->bytes[i] & 15];
    }
    *at = 0;
    return out;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_hex(struct memos_bytes text, struct memos_id *out)
{
    const char *at = text.data;
    bool dashes = text.size == MEMOS_ID_TEXT_BYTES - 1;
    if (!dashes && text.size != 32) {
        return false;
    }
    size_t digits = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (dashes && (i == 8 || i == 13 || i == 18 || i == 23)) {
            if (at[i] != '-') {
                return false;
            }
            continue;
        }
        int value = hex_value(at[i]);
        if (value < 0) {
            return false;
        }
        uint8_t *byte = &out->bytes[digits / 2];
        *byte = (uint8_t)(digits % 2 ? *byte | value : value << 4);
        digits++;
    }
    return digits == 32;
}

enum memos_status memos_id_parse(
    struct memos_bytes text, struct memos_id *out, struct memos_error *err)
{
    struct memos_id id;
    if (!parse_hex(text, &id)) {
        return memos_fail(err, MEMOS_INVALID,
            "'%.*s' is not an id: give 32 hex digits, with or without dashes",
            (int)(text.size > 64 ? 64 : text.size), text.data ? (const char *)text.data : "");
    }
    *out = id;
    return MEMOS_OK;
}

bool memos_id_equal(const struct memos_id *a, const struct memos_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool memos_id_is_nil(const struct memos_id *id)
{
    static const struct memos_id nil;
    return memos_id_equal(id, &nil);
}
