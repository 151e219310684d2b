/* What is said to an endpoint, and what it answers: JSON in bounded memory. */
#include "retrieval/encoder_internal.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What an answer may hold beside its numbers, for each text and in all. */
enum { VALUES_PER_TEXT = 32, VALUES_BESIDE = 1024 };

/* ---- the request --------------------------------------------------------------------------- */

static void write_text(struct memos_buffer *out, struct memos_bytes text)
{
    const uint8_t *at = text.data;
    size_t left = text.size;

    memos_buffer_u8(out, '"');
    while (left > 0) {
        size_t size = memos_bytes_utf8_sequence(memos_bytes_make(at, left));
        if (size == 0) {
            memos_buffer_bytes(out, "\xEF\xBF\xBD", 3);
            size = 1;
        } else if (*at < 0x20) {
            memos_buffer_printf(out, "\\u%04x", *at);
        } else {
            if (*at == '"' || *at == '\\') {
                memos_buffer_u8(out, '\\');
            }
            memos_buffer_bytes(out, at, size);
        }
        at += size;
        left -= size;
    }
    memos_buffer_u8(out, '"');
}

void retrieval_request_write(
    struct memos_buffer *out, const char *model, const struct memos_bytes *texts, size_t count)
{
    memos_buffer_printf(out, "{\"model\":");
    write_text(out, memos_bytes_of(model));
    memos_buffer_printf(out, ",\"encoding_format\":\"float\",\"input\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            memos_buffer_u8(out, ',');
        }
        write_text(out, texts[i].size > 0 ? texts[i] : memos_bytes_of(" "));
    }
    memos_buffer_printf(out, "]}");
}

/* ---- the answer ---------------------------------------------------------------------------- */

/* A parser makes some 40 bytes of each value, even of one of two bytes. Values in one array or
 * object are parted by commas, so that counting commas bounds them before any is made. */
static bool too_many_values(struct memos_bytes json, size_t values_max)
{
    const char *at = json.data, *end = at + json.size;
    for (size_t commas = 0; at < end; at++, commas++) {
        at = memchr(at, ',', (size_t)(end - at));
        if (!at) {
            return false;
        } else if (commas == values_max) {
            return true;
        }
    }
    return false;
}

/* One vector to its place, as a unit vector. */
static enum memos_status read_vector(
    const json_t *numbers, size_t position, size_t dims, float *out, struct memos_error *err)
{
    double squares = 0.0;
    for (size_t i = 0; i < dims; i++) {
        const json_t *number = json_array_get(numbers, i);
        float value = (float)json_number_value(number);
        if (!json_is_number(number) || !isfinite(value)) {
            return memos_fail(err, MEMOS_CORRUPT,
                "the endpoint's vector %zu has no finite number at %zu", position, i);
        }
        squares += (double)value * (double)value;
    }
    double length = sqrt(squares);
    if (!(length > 0.0)) {
        return memos_fail(
            err, MEMOS_CORRUPT, "the endpoint's vector %zu cannot be normalised", position);
    }
    for (size_t i = 0; i < dims; i++) {
        float value = (float)json_number_value(json_array_get(numbers, i));
        out[i] = (float)((double)value / length);
    }
    return MEMOS_OK;
}

/* Where in the request an item belongs: its "index", or its place when it has none. */
static enum memos_status index_of(const json_t *item, size_t place, size_t count, uint8_t *seen,
    size_t *out_index, struct memos_error *err)
{
    const json_t *index = json_object_get(item, "index");
    if (index && !json_is_integer(index)) {
        return memos_fail(err, MEMOS_CORRUPT, "the endpoint's item %zu has an odd index", place);
    }
    json_int_t number = index ? json_integer_value(index) : (json_int_t)place;
    if (number < 0 || (uint64_t)number >= count || seen[number]) {
        return memos_fail(err, MEMOS_CORRUPT,
            "the endpoint's item %zu has the index %lld, unwanted or twice", place,
            (long long)number);
    }
    seen[number] = 1;
    *out_index = (size_t)number;
    return MEMOS_OK;
}

static enum memos_status read_items(const json_t *items, size_t *dims, float *out,
    size_t out_floats, uint8_t *seen, struct memos_error *err)
{
    size_t count = json_array_size(items), wanted = *dims;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(items, i);
        const json_t *numbers = json_object_get(item, "embedding");
        size_t found = json_array_size(numbers), index = 0; /* found 0: no array */
        if (wanted == 0 && found <= out_floats / count) {
            wanted = found;
        }
        if (found == 0 || found != wanted) {
            return memos_fail(err, MEMOS_CORRUPT,
                "the endpoint's vector %zu has %zu dimensions instead of %zu", i, found, wanted);
        }
        enum memos_status status = index_of(item, i, count, seen, &index, err);
        if (status == MEMOS_OK) {
            status = read_vector(numbers, i, wanted, out + index * wanted, err);
        }
        if (status != MEMOS_OK) {
            return status;
        }
    }
    *dims = wanted;
    return MEMOS_OK;
}

enum memos_status retrieval_answer_read(struct memos_bytes json, size_t count, size_t *dims,
    float *out, size_t out_floats, struct memos_error *err)
{
    size_t numbers_max = *dims > 0 ? count * *dims : out_floats;
    json_error_t where;

    memos_assert(count > 0 && numbers_max <= out_floats);
    if (json.size > RETRIEVAL_ANSWER_BYTES_MAX ||
        too_many_values(json, numbers_max + count * VALUES_PER_TEXT + VALUES_BESIDE)) {
        return memos_fail(err, MEMOS_CORRUPT,
            "the endpoint's answer for %zu texts is too large (%zu bytes)", count, json.size);
    }
    json_t *root = json_loadb(json.data ? json.data : "", json.size, 0, &where);
    if (!root) {
        return memos_fail(err, MEMOS_CORRUPT, "the endpoint's answer is no JSON, at byte %d of %zu",
            where.position, json.size);
    }
    const json_t *items = json_object_get(root, "data");
    enum memos_status status = MEMOS_OK;
    uint8_t *seen = calloc(count, 1);
    if (!seen) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to read %zu vectors", count);
    } else if (!json_is_array(items) || json_array_size(items) != count) {
        status = memos_fail(err, MEMOS_CORRUPT, "the endpoint gave %zu vectors for %zu texts",
            json_array_size(items), count);
    } else {
        status = read_items(items, dims, out, out_floats, seen, err);
    }
    free(seen);
    json_decref(root);
    return status;
}
