#include "paramem/json.h"

#include "paramem/files.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct paramem_json_limits paramem_json_config = {
    .bytes_max = (size_t)1 << 20, .depth_max = 32, .values_max = 100000};

/* Depth and number of values, whatever else is wrong with the bytes: that, the parser says. */
static bool within_limits(struct memos_bytes bytes, const struct paramem_json_limits *limits)
{
    const uint8_t *at = bytes.data;
    size_t depth = 0, values = 1;

    for (size_t i = 0; i < bytes.size; i++) {
        switch (at[i]) {
        case '"':
            for (i++; i < bytes.size && at[i] != '"'; i++) {
                i += at[i] == '\\';
            }
            break;
        case '{':
        case '[':
            if (++depth > limits->depth_max) {
                return false;
            }
            values++;
            break;
        case '}':
        case ']':
            depth -= depth > 0;
            break;
        case ',':
            values++;
            break;
        default:
            break;
        }
    }
    return values <= limits->values_max;
}

enum memos_status paramem_json_parse(struct memos_bytes bytes,
    const struct paramem_json_limits *limits, const char *name, json_t **out,
    struct memos_error *err)
{
    json_error_t what;
    if (bytes.size > limits->bytes_max || !within_limits(bytes, limits)) {
        return memos_fail(err, MEMOS_TOO_LARGE,
            "%s: more than %zu bytes, %zu values or a depth of %zu", name, limits->bytes_max,
            limits->values_max, limits->depth_max);
    }
    const char *text = bytes.data ? bytes.data : "";
    json_t *json = json_loadb(text, bytes.size, JSON_REJECT_DUPLICATES, &what);
    if (!json && json_error_code(&what) == json_error_numeric_overflow) {
        /* "model_max_length" of many tokenizers is 10^30. */
        json =
            json_loadb(text, bytes.size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &what);
    }
    if (!json) {
        bool memory = json_error_code(&what) == json_error_out_of_memory;
        return memos_fail(err, memory ? MEMOS_NO_MEMORY : MEMOS_CORRUPT, "%s: line %d: %s", name,
            what.line, what.text);
    }
    *out = json;
    return MEMOS_OK;
}

enum memos_status paramem_json_read(const char *folder, const char *name,
    const struct paramem_json_limits *limits, json_t **out, struct memos_error *err)
{
    struct memos_buffer text;
    enum memos_status status = paramem_file_read(folder, name, limits->bytes_max, &text, err);
    if (status == MEMOS_OK) {
        status = paramem_json_parse(memos_buffer_view(&text), limits, name, out, err);
    }
    memos_buffer_free(&text);
    return status;
}

struct paramem_keys paramem_keys_of(const json_t *json, const char *name, struct memos_error *err)
{
    struct paramem_keys keys = {.object = json, .name = name, .status = MEMOS_OK, .err = err};
    if (!json_is_object(json)) {
        paramem_keys_fail(&keys, MEMOS_CORRUPT, "an object was expected");
    }
    return keys;
}

void paramem_keys_fail(struct paramem_keys *keys, enum memos_status status, const char *format, ...)
{
    char text[MEMOS_ERROR_TEXT_BYTES];
    va_list arguments;
    if (keys->status != MEMOS_OK) {
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    keys->status = memos_fail(keys->err, status, "%s: %s", keys->name, text);
}

/* NULL: absent, or something has failed. */
static const json_t *look(struct paramem_keys *keys, const char *key)
{
    const json_t *value = keys->status == MEMOS_OK ? json_object_get(keys->object, key) : NULL;
    return json_is_null(value) ? NULL : value;
}

uint64_t paramem_keys_count_or(
    struct paramem_keys *keys, const char *key, uint64_t low, uint64_t high, uint64_t fallback)
{
    const json_t *value = look(keys, key);
    if (!value) {
        return fallback;
    }
    double number = json_is_number(value) ? json_number_value(value) : NAN;
    if (!(number >= (double)low && number <= (double)high) || number != floor(number)) {
        paramem_keys_fail(keys, MEMOS_CORRUPT,
            "%s must be a whole number from %" PRIu64 " to %" PRIu64, key, low, high);
        return fallback;
    }
    return (uint64_t)number; /* exact: callers' bounds are below 2^53 */
}

uint64_t paramem_keys_count(struct paramem_keys *keys, const char *key, uint64_t low, uint64_t high)
{
    if (keys->status == MEMOS_OK && !look(keys, key)) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%s is missing", key);
    }
    return paramem_keys_count_or(keys, key, low, high, low);
}

double paramem_keys_real_or(
    struct paramem_keys *keys, const char *key, double low, double high, double fallback)
{
    const json_t *value = look(keys, key);
    if (!value) {
        return fallback;
    }
    double number = json_is_number(value) ? json_number_value(value) : NAN;
    if (!(number >= low && number <= high)) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%s must be a number from %g to %g", key, low, high);
        return fallback;
    }
    return number;
}

bool paramem_keys_bool_or(struct paramem_keys *keys, const char *key, bool fallback)
{
    const json_t *value = look(keys, key);
    if (value && !json_is_boolean(value)) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%s must be true or false", key);
    }
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

const char *paramem_keys_text_or(struct paramem_keys *keys, const char *key, const char *fallback)
{
    const json_t *value = look(keys, key);
    if (value && !json_is_string(value)) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%s must be a string", key);
    }
    return json_is_string(value) ? json_string_value(value) : fallback;
}

const json_t *paramem_keys_tree(struct paramem_keys *keys, const char *key, json_type type)
{
    const json_t *value = look(keys, key);
    if (value && json_typeof(value) != type) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%s must be %s", key,
            type == JSON_ARRAY ? "an array" : "an object");
        return NULL;
    }
    return value;
}
