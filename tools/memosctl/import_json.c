#include "tools/memosctl/import_json.h"

#include <string.h>

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t skip_blanks(struct memos_bytes bytes, size_t at)
{
    const uint8_t *data = bytes.data;
    while (at < bytes.size && is_blank(data[at])) {
        at++;
    }
    return at;
}

/* Past the closing quote of the string that begins at `at`; bytes.size when there is none. */
static size_t skip_string(struct memos_bytes bytes, size_t at)
{
    const uint8_t *data = bytes.data;
    for (at++; at < bytes.size; at++) {
        if (data[at] == '\\') {
            at++;
        } else if (data[at] == '"') {
            return at + 1;
        }
    }
    return bytes.size;
}

/* Past the value that begins at `at`. Only brackets and strings are looked at; what lies between
 * them is the parser's. */
static enum memos_status skip_value(
    struct memos_bytes bytes, size_t at, size_t *out_end, struct memos_error *err)
{
    const uint8_t *data = bytes.data;
    size_t begin = at, depth = 0, values = 1;
    do {
        uint8_t c = data[at];
        if (c == '[' || c == '{') {
            depth++;
            at++;
        } else if (c == ']' || c == '}') {
            if (depth == 0) {
                break;
            }
            depth--;
            at++;
        } else if (c == '"') {
            at = skip_string(bytes, at);
        } else if (depth == 0) { /* a number or a word */
            while (at < bytes.size && !is_blank(data[at]) && !strchr(",]}[{\"", data[at])) {
                at++;
            }
        } else {
            values += c == ',' || c == ':';
            at++;
        }
        if (depth > CTL_IMPORT_JSON_DEPTH_MAX || values > CTL_IMPORT_JSON_VALUES_MAX ||
            at - begin > CTL_IMPORT_JSON_BYTES_MAX) {
            return memos_fail(err, MEMOS_TOO_LARGE,
                "a JSON value at byte %zu is deeper than %d, has more than %d values, or more "
                "than %zu MiB",
                begin, CTL_IMPORT_JSON_DEPTH_MAX, CTL_IMPORT_JSON_VALUES_MAX,
                CTL_IMPORT_JSON_BYTES_MAX >> 20);
        }
    } while (depth > 0 && at < bytes.size);
    if (depth > 0 || at == begin) {
        return memos_fail(err, MEMOS_INVALID, "the JSON %s at byte %zu",
            depth > 0 ? "ends in the middle of the value that begins" : "has no value", begin);
    }
    *out_end = at;
    return MEMOS_OK;
}

static enum memos_status parse_one(struct memos_bytes bytes, json_t **out, struct memos_error *err)
{
    json_error_t why;
    *out = json_loadb(bytes.data, bytes.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (!*out) {
        return memos_fail(err, MEMOS_INVALID, "not JSON: %s (byte %d)", why.text, why.position);
    }
    return MEMOS_OK;
}

enum memos_status ctl_import_json_parse(
    struct memos_bytes bytes, json_t **out, struct memos_error *err)
{
    size_t begin = skip_blanks(bytes, 0), end = 0;
    *out = NULL;
    if (begin == bytes.size) {
        return memos_fail(err, MEMOS_INVALID, "not JSON: it is empty");
    }
    enum memos_status status = skip_value(bytes, begin, &end, err);
    if (status == MEMOS_OK && skip_blanks(bytes, end) != bytes.size) {
        return memos_fail(err, MEMOS_INVALID, "not JSON: something follows at byte %zu", end);
    }
    if (status == MEMOS_OK) {
        status =
            parse_one(memos_bytes_make((const uint8_t *)bytes.data + begin, end - begin), out, err);
    }
    return status;
}

struct ctl_import_json ctl_import_json_begin(struct memos_bytes bytes, bool in_array)
{
    return (struct ctl_import_json){.all = bytes, .in_array = in_array};
}

/* Move to the next element of an array: past '[' or ','. *out_end: there is none. */
static enum memos_status next_element(
    struct ctl_import_json *json, bool *out_end, struct memos_error *err)
{
    const uint8_t *data = json->all.data;
    bool is_first = !json->is_begun;
    uint8_t c = json->at < json->all.size ? data[json->at] : 0;
    json->is_begun = true;
    if (is_first && c == '[') {
        json->at = skip_blanks(json->all, json->at + 1);
        *out_end = json->at < json->all.size && data[json->at] == ']';
    } else if (!is_first && c == ',') {
        json->at = skip_blanks(json->all, json->at + 1);
        *out_end = false;
    } else if (!is_first && c == ']') {
        *out_end = true;
    } else {
        return memos_fail(err, MEMOS_INVALID, "the JSON has no %s at byte %zu",
            is_first ? "array" : "comma or end of the array", json->at);
    }
    if (*out_end && skip_blanks(json->all, json->at + 1) != json->all.size) {
        return memos_fail(
            err, MEMOS_INVALID, "something follows the array at byte %zu", json->at + 1);
    }
    return MEMOS_OK;
}

enum memos_status ctl_import_json_next(
    struct ctl_import_json *json, struct memos_bytes *out, struct memos_error *err)
{
    bool at_end = false;
    size_t end = 0;
    *out = memos_bytes_make(NULL, 0);
    json->at = skip_blanks(json->all, json->at);
    enum memos_status status = MEMOS_OK;
    if (json->in_array) {
        status = next_element(json, &at_end, err);
    }
    if (status != MEMOS_OK || at_end || (!json->in_array && json->at == json->all.size)) {
        return status;
    }
    if (json->at == json->all.size) {
        return memos_fail(err, MEMOS_INVALID, "the JSON ends in the middle of an array");
    }
    status = skip_value(json->all, json->at, &end, err);
    if (status == MEMOS_OK) {
        *out = memos_bytes_make((const uint8_t *)json->all.data + json->at, end - json->at);
        json->at = end;
    }
    return status;
}

struct memos_bytes ctl_import_json_text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_string(value)
               ? memos_bytes_make(json_string_value(value), json_string_length(value))
               : memos_bytes_make(NULL, 0);
}
