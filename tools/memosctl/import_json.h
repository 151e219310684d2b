/* JSON from outside, in bounded memory: how deep, how many values and how large one document may be
 * is checked before it is parsed, and long arrays are taken apart without parsing them whole. */
#ifndef TOOLS_MEMOSCTL_IMPORT_JSON_H
#define TOOLS_MEMOSCTL_IMPORT_JSON_H

#include "proto/bytes.h"

#include <jansson.h>

#define CTL_IMPORT_JSON_BYTES_MAX ((size_t)64 * 1024 * 1024)
enum { CTL_IMPORT_JSON_DEPTH_MAX = 64, CTL_IMPORT_JSON_VALUES_MAX = 2 * 1024 * 1024 };

/* The whole of bytes as one value. INVALID says where it breaks; TOO_LARGE. New reference. */
MEMOS_MUST_USE enum memos_status ctl_import_json_parse(
    struct memos_bytes bytes, json_t **out, struct memos_error *err);

/* Values one after the other: of a text that is a sequence of values, or of one array. */
struct ctl_import_json {
    struct memos_bytes all;
    size_t at; /* bytes taken */
    bool in_array;
    bool is_begun;
};

/* in_array: bytes are one array (and blanks), and its elements are wanted. */
struct ctl_import_json ctl_import_json_begin(struct memos_bytes bytes, bool in_array);

/* The next value, unparsed; *out is empty after the last. INVALID, TOO_LARGE. */
MEMOS_MUST_USE enum memos_status ctl_import_json_next(
    struct ctl_import_json *json, struct memos_bytes *out, struct memos_error *err);

/* The member that is a string; empty when it is missing or something else. */
struct memos_bytes ctl_import_json_text(const json_t *object, const char *name);

#endif
