/* The files of a host model, opened: what they say it is, and where each of its tensors lies.
 *
 * All tensors are found and their shapes and types checked at open, before a number of them is
 * read. Numbers are then checked (and hashed) a unit at a time: unit 0 is what belongs to no layer
 * (the table of embeddings, the last norm, the head), unit i + 1 is layer i. A unit's pages may be
 * given back as soon as it is packed, so that a model is never in memory twice.
 *
 * Threads: one at a time. */
#ifndef PARAMEM_MODEL_FILES_H
#define PARAMEM_MODEL_FILES_H

#include "paramem/decoder_config.h"
#include "paramem/tokenizer.h"
#include "paramem/weights.h"

/* The tensors of a layer. */
enum paramem_model_part {
    PARAMEM_ATTENTION_NORM,
    PARAMEM_QUERY,
    PARAMEM_KEY,
    PARAMEM_VALUE,
    PARAMEM_OUT,
    PARAMEM_FFN_NORM,
    PARAMEM_GATE,
    PARAMEM_UP,
    PARAMEM_DOWN,
    PARAMEM_QUERY_BIAS,
    PARAMEM_KEY_BIAS,
    PARAMEM_VALUE_BIAS,
    PARAMEM_OUT_BIAS,
    PARAMEM_GATE_BIAS,
    PARAMEM_UP_BIAS,
    PARAMEM_DOWN_BIAS,
    PARAMEM_QUERY_NORM,
    PARAMEM_KEY_NORM,
    PARAMEM_PARTS,
};

struct paramem_layer_files {
    const struct paramem_weight *parts[PARAMEM_PARTS]; /* NULL: this model has none */
    size_t end; /* of the loader's tensors, those of this layer are before it */
};

struct paramem_model_files {
    struct paramem_tensors *tensors; /* of a folder, or */
    struct paramem_gguf *gguf;
    struct paramem_decoder_config config;
    struct paramem_loader loader;
    const struct paramem_weight *table, *final_norm;
    const struct paramem_weight *head;    /* NULL: tied */
    const struct paramem_weight *factors; /* GGUF's rope_freqs, or NULL */
    size_t loose_end;                     /* as layers' end, of unit 0 */
    struct paramem_layer_files *layers;
    uint64_t parameters, bytes; /* of all tensors that are used, as stored */
    uint64_t checked_bytes;
};

/* Errors: as paramem_model_open. The pieces of files that outlive this: none. */
MEMOS_MUST_USE enum memos_status paramem_model_files_open(
    const char *path, struct paramem_model_files **out, struct memos_error *err);
void paramem_model_files_close(struct paramem_model_files **files); /* takes NULL */

/* Is the order of a head's rows llama.cpp's: row 2 j + p for row p * D / 2 + j of Hugging Face's?
 */
bool paramem_model_files_turned(const struct paramem_model_files *files);

/* Check the numbers of the next unit: 0, then 1 .. layers. CORRUPT: NaN, infinity. */
MEMOS_MUST_USE enum memos_status paramem_model_files_check(
    struct paramem_model_files *files, struct kern_ctx *ctx, size_t unit, struct memos_error *err);

/* Give the pages of a tensor back: it is read from the file again when it is touched. */
void paramem_model_files_release(const struct paramem_weight *weight);

MEMOS_MUST_USE enum memos_status paramem_model_files_tokenizer(
    const struct paramem_model_files *files, const char *path, struct paramem_tokenizer **out,
    struct memos_error *err);

/* The model's fingerprint, once all units were checked; tokenizer NULL: of a model of ids only. */
void paramem_model_files_fingerprint(const struct paramem_model_files *files,
    const struct paramem_tokenizer *tokenizer, uint8_t out[32]);

#endif
