#include "paramem/gguf.h"

#include "paramem/files.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Far above every real file: bounds on what a hostile one can make us allocate are the bytes of the
 * file itself, for each entry below takes some. */
#define VALUES_MAX 65536
#define TENSORS_MAX 100000
#define KEY_BYTES_MAX 65535
#define TEXTS_MAX ((size_t)1 << 24)
#define ALIGNMENT_DEFAULT 32
#define ALIGNMENT_MAX ((uint64_t)1 << 20)

/* The numbers of value types in the format. */
enum {
    RAW_U8,
    RAW_I8,
    RAW_U16,
    RAW_I16,
    RAW_U32,
    RAW_I32,
    RAW_F32,
    RAW_BOOL,
    RAW_TEXT,
    RAW_ARRAY,
    RAW_U64,
    RAW_I64,
    RAW_F64,
    RAW_END,
};

static const uint8_t raw_bytes[RAW_END] = {[RAW_U8] = 1,
    [RAW_I8] = 1,
    [RAW_U16] = 2,
    [RAW_I16] = 2,
    [RAW_U32] = 4,
    [RAW_I32] = 4,
    [RAW_F32] = 4,
    [RAW_BOOL] = 1,
    [RAW_U64] = 8,
    [RAW_I64] = 8,
    [RAW_F64] = 8};

/* Tensor types, by their number. dtype 0: known by name only. */
static const struct {
    const char *name;
    enum kern_dtype dtype;
} types[] = {
    [0] = {"F32", KERN_F32},
    [1] = {"F16", KERN_F16},
    [2] = {"Q4_0", KERN_Q4_0},
    [3] = {"Q4_1", 0},
    [6] = {"Q5_0", 0},
    [7] = {"Q5_1", 0},
    [8] = {"Q8_0", KERN_Q8_0},
    [9] = {"Q8_1", 0},
    [10] = {"Q2_K", 0},
    [11] = {"Q3_K", 0},
    [12] = {"Q4_K", KERN_Q4_K},
    [13] = {"Q5_K", 0},
    [14] = {"Q6_K", KERN_Q6_K},
    [15] = {"Q8_K", 0},
    [16] = {"IQ2_XXS", 0},
    [17] = {"IQ2_XS", 0},
    [18] = {"IQ3_XXS", 0},
    [19] = {"IQ1_S", 0},
    [20] = {"IQ4_NL", 0},
    [21] = {"IQ3_S", 0},
    [22] = {"IQ2_S", 0},
    [23] = {"IQ4_XS", 0},
    [24] = {"I8", 0},
    [25] = {"I16", 0},
    [26] = {"I32", 0},
    [27] = {"I64", 0},
    [28] = {"F64", 0},
    [29] = {"IQ1_M", 0},
    [30] = {"BF16", KERN_BF16},
    [34] = {"TQ1_0", 0},
    [35] = {"TQ2_0", 0},
    [39] = {"MXFP4", 0},
};
#define TYPES_END (sizeof types / sizeof types[0])

/* An array's items: texts as views, the rest where they lie. */
struct array {
    uint32_t raw;
    const uint8_t *data;
    struct memos_bytes *texts;
};

struct paramem_gguf {
    struct paramem_map map;            /* closed when the bytes are somebody else's */
    struct paramem_gguf_value *values; /* sorted by key */
    struct array *arrays;              /* of value i, in the order of the file */
    size_t values_count;
    struct paramem_gguf_tensor *tensors; /* in the order of the file */
    const struct paramem_gguf_tensor **by_name;
    size_t tensors_count;
};

/* What is being read. */
struct source {
    struct memos_reader reader;
    struct memos_bytes bytes;
    const char *name;
    struct memos_error *err;
};

const char *paramem_gguf_type_name(uint32_t type_number)
{
    const char *name = type_number < TYPES_END ? types[type_number].name : NULL;
    return name ? name : "of no known type";
}

static enum memos_status cut(const struct source *source)
{
    return memos_fail(source->err, MEMOS_CORRUPT, "%s: %zu bytes end inside the header",
        source->name, source->bytes.size);
}

/* ---- metadata ------------------------------------------------------------------------------ */

/* A 64-bit length, then as many bytes. */
static struct memos_bytes text_read(struct memos_reader *reader)
{
    uint64_t size = memos_read_u64(reader);
    if (size > reader->left) {
        reader->failed = true;
        size = 0;
    }
    return memos_read_bytes(reader, (size_t)size);
}

static void count_set(struct paramem_gguf_value *value, uint64_t count)
{
    value->type = PARAMEM_GGUF_COUNT;
    value->count = count;
    value->integer = count <= INT64_MAX ? (int64_t)count : INT64_MAX;
    value->real = (double)count;
}

static void integer_set(struct paramem_gguf_value *value, int64_t integer)
{
    if (integer >= 0) {
        count_set(value, (uint64_t)integer);
        return;
    }
    value->type = PARAMEM_GGUF_INTEGER;
    value->integer = integer;
    value->real = (double)integer;
}

static void real_set(struct paramem_gguf_value *value, double real)
{
    value->type = PARAMEM_GGUF_REAL;
    value->real = real;
}

static float float_of(uint32_t bits)
{
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static double double_of(uint64_t bits)
{
    double out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* A value that is no array. False: no such type, or a bool that is neither 0 nor 1. */
static bool plain_read(struct memos_reader *reader, uint32_t raw, struct paramem_gguf_value *value)
{
    switch (raw) {
    case RAW_U8:
        count_set(value, memos_read_u8(reader));
        return true;
    case RAW_I8:
        integer_set(value, (int8_t)memos_read_u8(reader));
        return true;
    case RAW_U16:
        count_set(value, memos_read_u16(reader));
        return true;
    case RAW_I16:
        integer_set(value, (int16_t)memos_read_u16(reader));
        return true;
    case RAW_U32:
        count_set(value, memos_read_u32(reader));
        return true;
    case RAW_I32:
        integer_set(value, (int32_t)memos_read_u32(reader));
        return true;
    case RAW_U64:
        count_set(value, memos_read_u64(reader));
        return true;
    case RAW_I64:
        integer_set(value, (int64_t)memos_read_u64(reader));
        return true;
    case RAW_F32:
        real_set(value, (double)float_of(memos_read_u32(reader)));
        return true;
    case RAW_F64:
        real_set(value, double_of(memos_read_u64(reader)));
        return true;
    case RAW_BOOL:
        count_set(value, memos_read_u8(reader));
        value->type = PARAMEM_GGUF_BOOL;
        return value->count <= 1;
    case RAW_TEXT:
        value->type = PARAMEM_GGUF_TEXT;
        value->text = text_read(reader);
        return true;
    default:
        return false;
    }
}

static enum paramem_gguf_type item_type_of(uint32_t raw)
{
    switch (raw) {
    case RAW_TEXT:
        return PARAMEM_GGUF_TEXT;
    case RAW_F32:
    case RAW_F64:
        return PARAMEM_GGUF_REAL;
    case RAW_BOOL:
        return PARAMEM_GGUF_BOOL;
    case RAW_I8:
    case RAW_I16:
    case RAW_I32:
    case RAW_I64:
        return PARAMEM_GGUF_INTEGER;
    default:
        return PARAMEM_GGUF_COUNT;
    }
}

static enum memos_status texts_read(
    struct source *source, struct paramem_gguf_value *value, struct array *array)
{
    /* Each takes 8 bytes of the file at least, so that the views are at most twice the file. */
    if (value->items > source->reader.left / 8 || value->items > TEXTS_MAX) {
        return cut(source);
    }
    array->texts = calloc(value->items + 1, sizeof *array->texts);
    if (!array->texts) {
        return memos_fail(source->err, MEMOS_NO_MEMORY, "no memory for %zu texts", value->items);
    }
    for (size_t i = 0; i < value->items && !source->reader.failed; i++) {
        array->texts[i] = text_read(&source->reader);
    }
    return source->reader.failed ? cut(source) : MEMOS_OK;
}

static enum memos_status array_read(
    struct source *source, struct paramem_gguf_value *value, struct array *array)
{
    uint32_t raw = memos_read_u32(&source->reader);
    uint64_t items = memos_read_u64(&source->reader);

    if (source->reader.failed) {
        return cut(source);
    }
    if (raw >= RAW_END || raw == RAW_ARRAY) {
        return memos_fail(source->err, MEMOS_UNSUPPORTED,
            "%s: %.*s: an array of items of type %" PRIu32, source->name,
            (int)(value->key.size < 60 ? value->key.size : 60), (const char *)value->key.data, raw);
    }
    if (items > source->reader.left) {
        return cut(source);
    }
    value->type = PARAMEM_GGUF_ARRAY;
    value->item_type = item_type_of(raw);
    value->items = (size_t)items;
    value->own = array;
    array->raw = raw;
    if (raw == RAW_TEXT) {
        return texts_read(source, value, array);
    }
    if (value->items > source->reader.left / raw_bytes[raw]) {
        return cut(source);
    }
    array->data = memos_read_bytes(&source->reader, value->items * raw_bytes[raw]).data;
    return MEMOS_OK;
}

static enum memos_status value_read(
    struct source *source, struct paramem_gguf_value *value, struct array *array)
{
    value->key = text_read(&source->reader);
    uint32_t raw = memos_read_u32(&source->reader);
    if (source->reader.failed) {
        return cut(source);
    }
    if (value->key.size == 0 || value->key.size > KEY_BYTES_MAX || !memos_bytes_utf8(value->key)) {
        return memos_fail(source->err, MEMOS_CORRUPT, "%s: a key of %zu bytes that is no text",
            source->name, value->key.size);
    }
    if (raw == RAW_ARRAY) {
        return array_read(source, value, array);
    }
    if (!plain_read(&source->reader, raw, value)) {
        return memos_fail(source->err, MEMOS_CORRUPT, "%s: %.*s: type %" PRIu32 " or its value",
            source->name, (int)(value->key.size < 60 ? value->key.size : 60),
            (const char *)value->key.data, raw);
    }
    return source->reader.failed ? cut(source) : MEMOS_OK;
}

static int compare_keys(const void *a, const void *b)
{
    const struct paramem_gguf_value *left = a, *right = b;
    return memos_bytes_compare(left->key, right->key);
}

static enum memos_status values_read(
    struct source *source, struct paramem_gguf *gguf, uint64_t count)
{
    /* A value takes 8 + 1 + 4 + 1 bytes at least. */
    if (count > VALUES_MAX || count > source->reader.left / 14) {
        return memos_fail(
            source->err, MEMOS_CORRUPT, "%s: %" PRIu64 " values of metadata", source->name, count);
    }
    gguf->values = calloc((size_t)count + 1, sizeof *gguf->values);
    gguf->arrays = calloc((size_t)count + 1, sizeof *gguf->arrays);
    if (!gguf->values || !gguf->arrays) {
        return memos_fail(source->err, MEMOS_NO_MEMORY, "no memory for %" PRIu64 " values", count);
    }
    for (size_t i = 0; i < count; i++) {
        gguf->values_count = i + 1;
        enum memos_status status = value_read(source, &gguf->values[i], &gguf->arrays[i]);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    qsort(gguf->values, gguf->values_count, sizeof *gguf->values, compare_keys);
    for (size_t i = 1; i < gguf->values_count; i++) {
        if (compare_keys(&gguf->values[i - 1], &gguf->values[i]) == 0) {
            return memos_fail(source->err, MEMOS_CORRUPT, "%s: %.*s stands twice", source->name,
                (int)(gguf->values[i].key.size < 60 ? gguf->values[i].key.size : 60),
                (const char *)gguf->values[i].key.data);
        }
    }
    return MEMOS_OK;
}

/* ---- tensors ------------------------------------------------------------------------------- */

static enum memos_status tensor_fail(const struct source *source,
    const struct paramem_gguf_tensor *tensor, enum memos_status status, const char *what)
{
    return memos_fail(source->err, status, "%s: %.*s %s", source->name,
        (int)(tensor->name.size < 80 ? tensor->name.size : 80), (const char *)tensor->name.data,
        what);
}

/* One entry of the table of tensors; its offset is kept in `bytes` until the data's place is known.
 */
static enum memos_status tensor_read(struct source *source, struct paramem_gguf_tensor *tensor)
{
    tensor->name = text_read(&source->reader);
    uint32_t rank = memos_read_u32(&source->reader);
    if (source->reader.failed) {
        return cut(source);
    }
    if (tensor->name.size == 0 || !memos_bytes_utf8(tensor->name)) {
        return memos_fail(source->err, MEMOS_CORRUPT, "%s: a tensor without a name", source->name);
    }
    if (rank == 0 || rank > 4) {
        return tensor_fail(source, tensor, MEMOS_CORRUPT, "has no dimension, or more than 4");
    }
    tensor->rank = rank;
    tensor->count = 1;
    for (size_t i = 0; i < rank; i++) {
        uint64_t size = memos_read_u64(&source->reader);
        tensor->shape[rank - 1 - i] = (size_t)size;
        if (size == 0 || size > INT64_MAX ||
            __builtin_mul_overflow(tensor->count, (size_t)size, &tensor->count)) {
            return source->reader.failed
                       ? cut(source)
                       : tensor_fail(source, tensor, MEMOS_CORRUPT, "has an impossible shape");
        }
    }
    tensor->type_number = memos_read_u32(&source->reader);
    tensor->dtype = tensor->type_number < TYPES_END ? types[tensor->type_number].dtype : 0;
    tensor->bytes = (size_t)memos_read_u64(&source->reader);
    return source->reader.failed ? cut(source) : MEMOS_OK;
}

/* Where the tensor lies in the data, whose size is known now. */
static enum memos_status tensor_place(const struct source *source, struct memos_bytes data,
    size_t alignment, struct paramem_gguf_tensor *tensor)
{
    size_t offset = tensor->bytes, row = tensor->shape[tensor->rank - 1];

    tensor->bytes = 0;
    if (offset > data.size || offset % alignment != 0) {
        return tensor_fail(
            source, tensor, MEMOS_CORRUPT, "lies outside the file or is not aligned");
    }
    tensor->data = (const uint8_t *)data.data + offset;
    if (!tensor->dtype) {
        return MEMOS_OK; /* who wants it is told its type's name */
    }
    if (row % kern_dtype_block(tensor->dtype) != 0) {
        return tensor_fail(source, tensor, MEMOS_CORRUPT, "has rows that are no whole blocks");
    }
    size_t block = kern_dtype_block(tensor->dtype), bytes;
    if (__builtin_mul_overflow(
            tensor->count / block, kern_dtype_row_bytes(tensor->dtype, block), &bytes) ||
        bytes > data.size - offset) {
        return tensor_fail(source, tensor, MEMOS_CORRUPT, "ends outside the file");
    }
    tensor->bytes = bytes;
    return MEMOS_OK;
}

static int compare_data(const void *a, const void *b)
{
    const struct paramem_gguf_tensor *left = *(const struct paramem_gguf_tensor *const *)a;
    const struct paramem_gguf_tensor *right = *(const struct paramem_gguf_tensor *const *)b;
    uintptr_t left_at = (uintptr_t)left->data, right_at = (uintptr_t)right->data;
    if (left_at != right_at) {
        return left_at < right_at ? -1 : 1;
    }
    return (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

static int compare_names(const void *a, const void *b)
{
    const struct paramem_gguf_tensor *left = *(const struct paramem_gguf_tensor *const *)a;
    const struct paramem_gguf_tensor *right = *(const struct paramem_gguf_tensor *const *)b;
    return memos_bytes_compare(left->name, right->name);
}

/* No byte belongs to two tensors, and no name to two. */
static enum memos_status tensors_check(const struct source *source, struct paramem_gguf *gguf)
{
    const uint8_t *end = NULL;
    for (size_t i = 0; i < gguf->tensors_count; i++) {
        gguf->by_name[i] = &gguf->tensors[i];
    }
    qsort(gguf->by_name, gguf->tensors_count, sizeof *gguf->by_name, compare_data);
    for (size_t i = 0; i < gguf->tensors_count; i++) {
        const struct paramem_gguf_tensor *tensor = gguf->by_name[i];
        if (end && (const uint8_t *)tensor->data < end) {
            return tensor_fail(source, tensor, MEMOS_CORRUPT, "overlaps another tensor");
        }
        end = (const uint8_t *)tensor->data + tensor->bytes;
    }
    qsort(gguf->by_name, gguf->tensors_count, sizeof *gguf->by_name, compare_names);
    for (size_t i = 1; i < gguf->tensors_count; i++) {
        if (compare_names(&gguf->by_name[i - 1], &gguf->by_name[i]) == 0) {
            return tensor_fail(source, gguf->by_name[i], MEMOS_CORRUPT, "stands twice");
        }
    }
    return MEMOS_OK;
}

/* The bytes after the header, from the first multiple of the alignment on. */
static enum memos_status data_find(const struct source *source, const struct paramem_gguf *gguf,
    size_t *out_alignment, struct memos_bytes *out_data)
{
    const struct paramem_gguf_value *value = paramem_gguf_find(gguf, "general.alignment");
    uint64_t alignment = value ? value->count : ALIGNMENT_DEFAULT;
    size_t header = source->bytes.size - source->reader.left;

    if ((value && value->type != PARAMEM_GGUF_COUNT) || alignment == 0 || alignment % 8 != 0 ||
        alignment > ALIGNMENT_MAX) {
        return memos_fail(source->err, MEMOS_CORRUPT,
            "%s: general.alignment must be a multiple of 8, not above 1 MiB", source->name);
    }
    size_t pad = (alignment - header % alignment) % alignment;
    pad = pad < source->reader.left ? pad : source->reader.left;
    *out_alignment = (size_t)alignment;
    *out_data = memos_bytes_make(source->reader.at + pad, source->reader.left - pad);
    return MEMOS_OK;
}

static enum memos_status tensors_read(
    struct source *source, struct paramem_gguf *gguf, uint64_t count)
{
    struct memos_bytes data = {NULL, 0};
    size_t alignment = 0;
    /* An entry takes 8 + 1 + 4 + 8 + 4 + 8 bytes at least. */
    if (count > TENSORS_MAX || count > source->reader.left / 33) {
        return memos_fail(
            source->err, MEMOS_CORRUPT, "%s: %" PRIu64 " tensors", source->name, count);
    }
    gguf->tensors = calloc((size_t)count + 1, sizeof *gguf->tensors);
    gguf->by_name = calloc((size_t)count + 1, sizeof *gguf->by_name);
    if (!gguf->tensors || !gguf->by_name) {
        return memos_fail(source->err, MEMOS_NO_MEMORY, "no memory for %" PRIu64 " tensors", count);
    }
    gguf->tensors_count = (size_t)count;
    for (size_t i = 0; i < count; i++) {
        enum memos_status status = tensor_read(source, &gguf->tensors[i]);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    enum memos_status status = data_find(source, gguf, &alignment, &data);
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = tensor_place(source, data, alignment, &gguf->tensors[i]);
    }
    return status == MEMOS_OK ? tensors_check(source, gguf) : status;
}

/* ---- the file ------------------------------------------------------------------------------ */

static enum memos_status file_read(struct source *source, struct paramem_gguf *gguf)
{
    uint32_t magic = memos_read_u32(&source->reader), version = memos_read_u32(&source->reader);
    if (source->reader.failed || magic != 0x46554747u) { /* "GGUF" */
        return memos_fail(source->err, MEMOS_CORRUPT, "%s is no GGUF file", source->name);
    }
    if (version != 2 && version != 3) {
        bool turned = version >= 1u << 24;
        return memos_fail(source->err, MEMOS_UNSUPPORTED,
            "%s: GGUF of version %" PRIu32 "%s; 2 and 3, little-endian, work", source->name,
            turned ? __builtin_bswap32(version) : version, turned ? ", big-endian" : "");
    }
    uint64_t tensors = memos_read_u64(&source->reader), values = memos_read_u64(&source->reader);
    if (source->reader.failed) {
        return cut(source);
    }
    enum memos_status status = values_read(source, gguf, values);
    return status == MEMOS_OK ? tensors_read(source, gguf, tensors) : status;
}

/* Takes the map, also on failure. */
static enum memos_status gguf_make(struct memos_bytes bytes, struct paramem_map map,
    const char *name, struct paramem_gguf **out, struct memos_error *err)
{
    struct source source = {
        .reader = memos_reader_of(bytes), .bytes = bytes, .name = name, .err = err};
    struct paramem_gguf *gguf = calloc(1, sizeof *gguf);
    if (!gguf) {
        paramem_map_close(&map);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %s", name);
    }
    gguf->map = map;
    enum memos_status status = file_read(&source, gguf);
    if (status != MEMOS_OK) {
        paramem_gguf_close(&gguf);
        return status;
    }
    *out = gguf;
    return MEMOS_OK;
}

enum memos_status paramem_gguf_parse(
    struct memos_bytes bytes, const char *name, struct paramem_gguf **out, struct memos_error *err)
{
    return gguf_make(bytes, (struct paramem_map){NULL, 0}, name, out, err);
}

enum memos_status paramem_gguf_open(
    const char *path, struct paramem_gguf **out, struct memos_error *err)
{
    struct paramem_map map;
    enum memos_status status = paramem_map_open(path, &map, err);
    if (status != MEMOS_OK) {
        return status;
    }
    return gguf_make(memos_bytes_make(map.data, map.size), map, path, out, err);
}

void paramem_gguf_close(struct paramem_gguf **gguf)
{
    if (!*gguf) {
        return;
    }
    for (size_t i = 0; (*gguf)->arrays && i < (*gguf)->values_count; i++) {
        free((*gguf)->arrays[i].texts);
    }
    free((*gguf)->arrays);
    free((*gguf)->values);
    free((*gguf)->tensors);
    free((void *)(*gguf)->by_name);
    paramem_map_close(&(*gguf)->map);
    free(*gguf);
    *gguf = NULL;
}

/* ---- looking things up --------------------------------------------------------------------- */

const struct paramem_gguf_value *paramem_gguf_find(const struct paramem_gguf *gguf, const char *key)
{
    struct paramem_gguf_value wanted = {.key = memos_bytes_of(key)};
    return bsearch(&wanted, gguf->values, gguf->values_count, sizeof *gguf->values, compare_keys);
}

struct memos_bytes paramem_gguf_text_at(const struct paramem_gguf_value *array, size_t index)
{
    memos_assert(index < array->items);
    const struct array *own = array->own;
    return own->texts ? own->texts[index] : memos_bytes_make(NULL, 0);
}

double paramem_gguf_real_at(const struct paramem_gguf_value *array, size_t index)
{
    memos_assert(index < array->items);
    const struct array *own = array->own;
    if (own->raw == RAW_TEXT) {
        return 0.0;
    }
    struct paramem_gguf_value value = {0};
    struct memos_reader reader = memos_reader_of(
        memos_bytes_make(own->data + index * raw_bytes[own->raw], raw_bytes[own->raw]));
    (void)plain_read(&reader, own->raw, &value);
    return own->raw == RAW_BOOL ? (double)(value.count != 0) : value.real;
}

size_t paramem_gguf_tensors(const struct paramem_gguf *gguf)
{
    return gguf->tensors_count;
}

const struct paramem_gguf_tensor *paramem_gguf_tensor_at(
    const struct paramem_gguf *gguf, size_t index)
{
    memos_assert(index < gguf->tensors_count);
    return &gguf->tensors[index];
}

const struct paramem_gguf_tensor *paramem_gguf_tensor_find(
    const struct paramem_gguf *gguf, const char *name)
{
    struct paramem_gguf_tensor wanted = {.name = memos_bytes_of(name)};
    const struct paramem_gguf_tensor *key = &wanted;
    const struct paramem_gguf_tensor *const *found =
        bsearch(&key, gguf->by_name, gguf->tensors_count, sizeof *gguf->by_name, compare_names);
    return found ? *found : NULL;
}
