#include "paramem/safetensors.h"

#include "paramem/files.h"
#include "paramem/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The header is at most 100 MB, says the format; a tree of it is bounded by its values. */
static const struct paramem_json_limits header_limits = {
    .bytes_max = 100000000, .depth_max = 4, .values_max = (size_t)1 << 21};

#define TENSORS_MAX 100000
#define HEAD_BYTES 8

struct paramem_safetensors {
    struct paramem_map map; /* closed when the bytes are somebody else's */
    json_t *header;         /* keeps the names */
    struct paramem_tensor *tensors;
    size_t count;
};

/* ---- dtypes -------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [PARAMEM_BOOL] = {"BOOL", 1},
    [PARAMEM_U8] = {"U8", 1},
    [PARAMEM_I8] = {"I8", 1},
    [PARAMEM_E5M2] = {"F8_E5M2", 1},
    [PARAMEM_E4M3] = {"F8_E4M3", 1},
    [PARAMEM_U16] = {"U16", 2},
    [PARAMEM_I16] = {"I16", 2},
    [PARAMEM_F16] = {"F16", 2},
    [PARAMEM_BF16] = {"BF16", 2},
    [PARAMEM_U32] = {"U32", 4},
    [PARAMEM_I32] = {"I32", 4},
    [PARAMEM_F32] = {"F32", 4},
    [PARAMEM_U64] = {"U64", 8},
    [PARAMEM_I64] = {"I64", 8},
    [PARAMEM_F64] = {"F64", 8},
};
#define DTYPES_END (sizeof dtypes / sizeof dtypes[0])

size_t paramem_dtype_bytes(enum paramem_dtype dtype)
{
    memos_assert(dtype > 0 && dtype < DTYPES_END);
    return dtypes[dtype].bytes;
}

const char *paramem_dtype_name(enum paramem_dtype dtype)
{
    memos_assert(dtype > 0 && dtype < DTYPES_END);
    return dtypes[dtype].name;
}

/* 0: no such name. */
static enum paramem_dtype dtype_of(const char *name)
{
    for (size_t i = 1; i < DTYPES_END; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            return (enum paramem_dtype)i;
        }
    }
    return 0;
}

/* ---- the header ---------------------------------------------------------------------------- */

/* A whole number that a size may have. */
static bool size_of(const json_t *json, size_t *out)
{
    if (!json_is_integer(json) || json_integer_value(json) < 0) {
        return false;
    }
    *out = (size_t)json_integer_value(json);
    return true;
}

/* Shape, and the count that follows from it. */
static void shape_read(struct paramem_keys *keys, struct paramem_tensor *tensor)
{
    const json_t *shape = paramem_keys_tree(keys, "shape", JSON_ARRAY);
    size_t rank = json_array_size(shape);

    if (!shape) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%.60s: no shape", tensor->name);
        return;
    }
    if (rank > PARAMEM_RANK_MAX) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED, "%.60s: %zu dimensions", tensor->name, rank);
        return;
    }
    tensor->rank = rank;
    tensor->count = 1;
    for (size_t i = 0; i < rank; i++) {
        if (!size_of(json_array_get(shape, i), &tensor->shape[i]) ||
            __builtin_mul_overflow(tensor->count, tensor->shape[i], &tensor->count)) {
            paramem_keys_fail(keys, MEMOS_CORRUPT, "%.60s: an impossible shape", tensor->name);
            return;
        }
    }
}

/* Where the tensor lies in the data. */
static void offsets_read(
    struct paramem_keys *keys, struct memos_bytes data, struct paramem_tensor *tensor)
{
    const json_t *offsets = paramem_keys_tree(keys, "data_offsets", JSON_ARRAY);
    size_t begin = 0, end = 0, bytes = 0, element = paramem_dtype_bytes(tensor->dtype);

    if (keys->status != MEMOS_OK) {
        return;
    }
    if (json_array_size(offsets) != 2 || !size_of(json_array_get(offsets, 0), &begin) ||
        !size_of(json_array_get(offsets, 1), &end) || begin > end || end > data.size) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%.60s: offsets outside the %zu bytes of data",
            tensor->name, data.size);
        return;
    }
    if (__builtin_mul_overflow(tensor->count, element, &bytes) || bytes != end - begin) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%.60s: %zu bytes for %zu elements of %s",
            tensor->name, end - begin, tensor->count, paramem_dtype_name(tensor->dtype));
        return;
    }
    tensor->bytes = bytes;
    tensor->data = (const uint8_t *)data.data + begin;
    if ((uintptr_t)tensor->data % element != 0) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED,
            "%.60s does not lie at a multiple of %zu bytes: save the model again", tensor->name,
            element);
    }
}

static enum memos_status tensor_read(const json_t *json, const char *file, struct memos_bytes data,
    struct paramem_tensor *tensor, struct memos_error *err)
{
    struct paramem_keys keys = paramem_keys_of(json, file, err);
    const char *dtype = paramem_keys_text_or(&keys, "dtype", "");

    tensor->dtype = dtype_of(dtype);
    if (!tensor->dtype) {
        paramem_keys_fail(&keys, MEMOS_UNSUPPORTED, "%.60s: dtype \"%.20s\"", tensor->name, dtype);
        return keys.status;
    }
    shape_read(&keys, tensor);
    offsets_read(&keys, data, tensor);
    return keys.status;
}

static int compare_data(const void *a, const void *b)
{
    const struct paramem_tensor *left = a, *right = b;
    if (left->data != right->data) {
        return (uintptr_t)left->data < (uintptr_t)right->data ? -1 : 1;
    }
    return (left->bytes > right->bytes) - (left->bytes < right->bytes); /* empty ones first */
}

static int compare_names(const void *a, const void *b)
{
    const struct paramem_tensor *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* Do the tensors, sorted by where they lie, fill the data exactly? */
static enum memos_status check_cover(const struct paramem_safetensors *file,
    struct memos_bytes data, const char *name, struct memos_error *err)
{
    const uint8_t *at = data.data;
    for (size_t i = 0; i < file->count; i++) {
        const struct paramem_tensor *tensor = &file->tensors[i];
        if ((const uint8_t *)tensor->data != at) {
            return memos_fail(err, MEMOS_CORRUPT, "%s: %.60s %s", name, tensor->name,
                (uintptr_t)tensor->data < (uintptr_t)at ? "overlaps another tensor"
                                                        : "has a hole before it");
        }
        at += tensor->bytes;
    }
    size_t left = data.size - (size_t)(at - (const uint8_t *)data.data);
    if (left != 0) {
        return memos_fail(
            err, MEMOS_CORRUPT, "%s: %zu bytes at the end belong to no tensor", name, left);
    }
    return MEMOS_OK;
}

static enum memos_status check_metadata(
    const json_t *metadata, const char *name, struct memos_error *err)
{
    const char *key;
    json_t *value;
    bool good = json_is_object(metadata);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        good = good && json_is_string(value);
    }
    return good ? MEMOS_OK
                : memos_fail(err, MEMOS_CORRUPT, "%s: __metadata__ must hold strings", name);
}

static enum memos_status header_read(struct paramem_safetensors *file, struct memos_bytes data,
    const char *name, struct memos_error *err)
{
    const char *key;
    json_t *value;
    size_t count = json_object_size(file->header);

    if (!json_is_object(file->header) || count > TENSORS_MAX) {
        return memos_fail(err, MEMOS_CORRUPT,
            "%s: the header must be an object of at most %d tensors", name, TENSORS_MAX);
    }
    file->tensors = calloc(count + 1, sizeof *file->tensors);
    if (!file->tensors) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu tensors", count);
    }
    json_object_foreach(file->header, key, value)
    {
        enum memos_status status;
        if (strcmp(key, "__metadata__") == 0) {
            status = check_metadata(value, name, err);
        } else {
            struct paramem_tensor *tensor = &file->tensors[file->count++];
            tensor->name = key;
            status = tensor_read(value, name, data, tensor, err);
        }
        if (status != MEMOS_OK) {
            return status;
        }
    }
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_data);
    enum memos_status status = check_cover(file, data, name, err);
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_names);
    return status;
}

/* Split the bytes into header and data. */
static enum memos_status bytes_split(struct memos_bytes bytes, const char *name,
    struct memos_bytes *header, struct memos_bytes *data, struct memos_error *err)
{
    struct memos_reader reader = memos_reader_of(bytes);
    uint64_t size = memos_read_u64(&reader);

    if (reader.failed || size > reader.left) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: %zu bytes are too few for a header of %" PRIu64,
            name, bytes.size, size);
    }
    if (size > header_limits.bytes_max) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%s: a header of %" PRIu64 " bytes, at most %zu",
            name, size, header_limits.bytes_max);
    }
    *header = memos_read_bytes(&reader, (size_t)size);
    *data = memos_bytes_make(reader.at, reader.left);
    if (size == 0 || *(const char *)header->data != '{') {
        return memos_fail(err, MEMOS_CORRUPT, "%s: the header does not begin with {", name);
    }
    return MEMOS_OK;
}

/* Fill a file that is zero but for its map. */
static enum memos_status file_read(struct paramem_safetensors *file, struct memos_bytes bytes,
    const char *name, struct memos_error *err)
{
    struct memos_bytes header = {NULL, 0}, data = {NULL, 0};
    enum memos_status status = bytes_split(bytes, name, &header, &data, err);
    if (status == MEMOS_OK) {
        status = paramem_json_parse(header, &header_limits, name, &file->header, err);
    }
    if (status == MEMOS_OK) {
        status = header_read(file, data, name, err);
    }
    return status;
}

/* ---- one file ------------------------------------------------------------------------------ */

/* Takes the map, also on failure. */
static enum memos_status file_make(struct memos_bytes bytes, struct paramem_map map,
    const char *name, struct paramem_safetensors **out, struct memos_error *err)
{
    struct paramem_safetensors *file = calloc(1, sizeof *file);
    if (!file) {
        paramem_map_close(&map);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %s", name);
    }
    file->map = map;
    enum memos_status status = file_read(file, bytes, name, err);
    if (status != MEMOS_OK) {
        paramem_safetensors_close(&file);
        return status;
    }
    *out = file;
    return MEMOS_OK;
}

enum memos_status paramem_safetensors_parse(struct memos_bytes bytes, const char *name,
    struct paramem_safetensors **out, struct memos_error *err)
{
    return file_make(bytes, (struct paramem_map){NULL, 0}, name, out, err);
}

enum memos_status paramem_safetensors_open(
    const char *path, struct paramem_safetensors **out, struct memos_error *err)
{
    struct paramem_map map;
    enum memos_status status = paramem_map_open(path, &map, err);
    if (status != MEMOS_OK) {
        return status;
    }
    return file_make(memos_bytes_make(map.data, map.size), map, path, out, err);
}

void paramem_safetensors_close(struct paramem_safetensors **file)
{
    if (!*file) {
        return;
    }
    json_decref((*file)->header);
    free((*file)->tensors);
    paramem_map_close(&(*file)->map);
    free(*file);
    *file = NULL;
}

size_t paramem_safetensors_count(const struct paramem_safetensors *file)
{
    return file->count;
}

const struct paramem_tensor *paramem_safetensors_at(
    const struct paramem_safetensors *file, size_t index)
{
    memos_assert(index < file->count);
    return &file->tensors[index];
}

const struct paramem_tensor *paramem_safetensors_find(
    const struct paramem_safetensors *file, const char *name)
{
    struct paramem_tensor key = {.name = name};
    return file->count == 0 ? NULL
                            : bsearch(&key, file->tensors, file->count, sizeof key, compare_names);
}
