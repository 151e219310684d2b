/* Tensors in files of the safetensors format, by name, where they lie.
 *
 * The file: the header's length (8 bytes), the header (JSON: name -> dtype, shape, begin and end in
 * the rest), the rest. Everything is checked before the first view is given: the header's bounds,
 * names that stand twice, dtypes, that the product of a shape does not overflow and fits begin and
 * end, that the tensors fill the rest without holes and without sharing a byte (the format demands
 * both), and that each lies at a multiple of its element's size. What the numbers are is not looked
 * at: whoever uses them does (paramem/bert.h).
 *
 * A model may be in several files: paramem_tensors_open takes a folder with model.safetensors, or
 * with model.safetensors.index.json that names the files.
 *
 * Source: https://github.com/huggingface/safetensors, README, "Format".
 * Departure: tensors that do not lie at a multiple of their element's size are refused
 * (UNSUPPORTED), for they could not be used in place. What the library has written since 2023 is
 * aligned.
 *
 * Threads: read-only after open, may be shared. Views live as long as what they come from. */
#ifndef PARAMEM_SAFETENSORS_H
#define PARAMEM_SAFETENSORS_H

#include "proto/bytes.h"

enum paramem_dtype {
    PARAMEM_BOOL = 1,
    PARAMEM_U8,
    PARAMEM_I8,
    PARAMEM_E5M2,
    PARAMEM_E4M3,
    PARAMEM_U16,
    PARAMEM_I16,
    PARAMEM_F16,
    PARAMEM_BF16,
    PARAMEM_U32,
    PARAMEM_I32,
    PARAMEM_F32,
    PARAMEM_U64,
    PARAMEM_I64,
    PARAMEM_F64,
};

size_t paramem_dtype_bytes(enum paramem_dtype dtype);
const char *paramem_dtype_name(enum paramem_dtype dtype); /* as in the file; static */

#define PARAMEM_RANK_MAX 8

struct paramem_tensor {
    const char *name;
    enum paramem_dtype dtype;
    size_t rank; /* 0: a scalar */
    size_t shape[PARAMEM_RANK_MAX];
    size_t count; /* of elements */
    size_t bytes;
    const void *data; /* little-endian, row-major */
};

struct paramem_safetensors;

/* Read the format from memory that outlives the result. `name` is for errors. CORRUPT, UNSUPPORTED
 * (a dtype that is not in the table, a rank over PARAMEM_RANK_MAX, misaligned), TOO_LARGE,
 * NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_safetensors_parse(struct memos_bytes bytes,
    const char *name, struct paramem_safetensors **out, struct memos_error *err);

/* Map a file and read it. Also NOT_FOUND, IO. */
MEMOS_MUST_USE enum memos_status paramem_safetensors_open(
    const char *path, struct paramem_safetensors **out, struct memos_error *err);
void paramem_safetensors_close(struct paramem_safetensors **file); /* takes NULL */

/* Sorted by name. */
size_t paramem_safetensors_count(const struct paramem_safetensors *file);
const struct paramem_tensor *paramem_safetensors_at(
    const struct paramem_safetensors *file, size_t index);
/* NULL when there is none. */
const struct paramem_tensor *paramem_safetensors_find(
    const struct paramem_safetensors *file, const char *name);

/* ---- all files of a folder ----------------------------------------------------------------- */

struct paramem_tensors;

/* NOT_FOUND when the folder has neither model.safetensors nor an index, or lacks a file of the
 * index. CORRUPT also when the index names a file outside the folder, or a tensor is not in the
 * file that the index says. */
MEMOS_MUST_USE enum memos_status paramem_tensors_open(
    const char *folder, struct paramem_tensors **out, struct memos_error *err);
void paramem_tensors_close(struct paramem_tensors **tensors); /* takes NULL */
const struct paramem_tensor *paramem_tensors_find(
    const struct paramem_tensors *tensors, const char *name);

#endif
