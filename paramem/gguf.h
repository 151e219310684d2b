/* Files of the GGUF format: metadata and tensors, where they lie.
 *
 * Versions 2 and 3, little-endian. Everything is checked before the first view is given: counts
 * against the bytes that are left, strings, types, alignment, that each tensor lies inside the file
 * and shares no byte with another, that its row is whole blocks.
 *
 * Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * Threads: read-only after open, may be shared. Views live as long as the file. */
#ifndef PARAMEM_GGUF_H
#define PARAMEM_GGUF_H

#include "kernels/kern.h"

struct paramem_gguf;

/* CORRUPT, UNSUPPORTED (a version), TOO_LARGE, NO_MEMORY; open also NOT_FOUND, DENIED, IO. parse:
 * the memory outlives the result; `name` is for errors. */
MEMOS_MUST_USE enum memos_status paramem_gguf_open(
    const char *path, struct paramem_gguf **out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status paramem_gguf_parse(
    struct memos_bytes bytes, const char *name, struct paramem_gguf **out, struct memos_error *err);
void paramem_gguf_close(struct paramem_gguf **gguf); /* takes NULL */

enum paramem_gguf_type {
    PARAMEM_GGUF_COUNT = 1, /* any whole number, not negative */
    PARAMEM_GGUF_INTEGER,   /* any whole number below 0; item_type: of signed numbers */
    PARAMEM_GGUF_REAL,
    PARAMEM_GGUF_BOOL,
    PARAMEM_GGUF_TEXT,
    PARAMEM_GGUF_ARRAY,
};

struct paramem_gguf_value {
    struct memos_bytes key;
    enum paramem_gguf_type type, item_type; /* item_type: of an array (arrays of arrays: refused) */
    uint64_t count;                         /* COUNT's value; BOOL's 0, 1 */
    int64_t integer;
    double real;
    struct memos_bytes text;
    size_t items; /* of an array */
    const void *own;
};

/* NULL: there is none. */
const struct paramem_gguf_value *paramem_gguf_find(
    const struct paramem_gguf *gguf, const char *key);
/* Item `index` < items of an array of texts, or of numbers (bools are 0 and 1); the text is empty
 * and the number 0 when it is of another type. Numbers are exact below 2^53. Constant time. */
struct memos_bytes paramem_gguf_text_at(const struct paramem_gguf_value *array, size_t index);
double paramem_gguf_real_at(const struct paramem_gguf_value *array, size_t index);

struct paramem_gguf_tensor {
    struct memos_bytes name;
    enum kern_dtype dtype; /* 0: a type that is not known here; type_number says which */
    uint32_t type_number;
    size_t rank, shape[4]; /* row-major: shape[rank - 1] is next to itself */
    size_t count, bytes;
    const void *data;
};
/* "Q5_K", also of types that cannot be used; static. */
const char *paramem_gguf_type_name(uint32_t type_number);
size_t paramem_gguf_tensors(const struct paramem_gguf *gguf);
const struct paramem_gguf_tensor *paramem_gguf_tensor_at(
    const struct paramem_gguf *gguf, size_t index);
const struct paramem_gguf_tensor *paramem_gguf_tensor_find(
    const struct paramem_gguf *gguf, const char *name);

#endif
