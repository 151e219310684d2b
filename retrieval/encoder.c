#include "retrieval/encoder.h"

#include "retrieval/encoder_internal.h"

#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct retrieval_encoder {
    struct paramem_encoder *folder; /* one of the three, by info.source */
    struct retrieval_endpoint *endpoint;
    struct retrieval_ngrams *ngrams;
    bool is_raw; /* the folder's vectors have lengths of their own */
    struct retrieval_encoder_info info;
    char name[160];
    atomic_bool interrupted;
};

/* The last part of a path, without slashes at its end. */
static struct memos_bytes base_of(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    return memos_bytes_make(path + begin, end - begin);
}

static enum memos_status open_folder(struct retrieval_encoder *encoder,
    const struct retrieval_encoder_options *options, struct memos_error *err)
{
    struct paramem_encoder_info info;
    enum memos_status status = paramem_encoder_open(&options->folder, &encoder->folder, err);
    if (status != MEMOS_OK) {
        return status;
    }
    paramem_encoder_describe(encoder->folder, &info);
    struct memos_bytes base = base_of(options->folder.path);
    snprintf(encoder->name, sizeof encoder->name, "%.*s (%s, %s)",
        (int)(base.size < 80 ? base.size : 80), (const char *)base.data,
        kern_dtype_name(info.weights), info.kern);
    encoder->is_raw = !info.normalized;
    encoder->info.dims = info.dims;
    encoder->info.tokens_max = info.tokens_max;
    encoder->info.semantic = true;
    memcpy(encoder->info.fingerprint, info.fingerprint, sizeof info.fingerprint);
    return MEMOS_OK;
}

static enum memos_status open_endpoint(struct retrieval_encoder *encoder,
    const struct retrieval_encoder_options *options, struct memos_error *err)
{
    enum memos_status status = retrieval_endpoint_create(options, &encoder->endpoint, err);
    if (status == MEMOS_OK) {
        snprintf(
            encoder->name, sizeof encoder->name, "%s", retrieval_endpoint_name(encoder->endpoint));
        encoder->info.dims = retrieval_endpoint_dims(encoder->endpoint);
        encoder->info.semantic = true;
        retrieval_endpoint_fingerprint(encoder->endpoint, encoder->info.fingerprint);
    }
    return status;
}

static enum memos_status open_ngrams(struct retrieval_encoder *encoder, struct memos_error *err)
{
    enum memos_status status = retrieval_ngrams_create(&encoder->ngrams, err);
    if (status == MEMOS_OK) {
        snprintf(encoder->name, sizeof encoder->name, "hashed n-grams");
        encoder->info.dims = RETRIEVAL_NGRAMS_DIMS;
        retrieval_ngrams_fingerprint(encoder->info.fingerprint);
    }
    return status;
}

enum memos_status retrieval_encoder_open(const struct retrieval_encoder_options *options,
    struct retrieval_encoder **out_encoder, struct memos_error *err)
{
    struct retrieval_encoder *encoder = calloc(1, sizeof *encoder);
    enum memos_status status = MEMOS_OK;
    if (!encoder || sodium_init() < 0) {
        free(encoder);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an encoder");
    }
    encoder->info.source = options->source;
    encoder->info.name = encoder->name;
    atomic_init(&encoder->interrupted, false);
    switch (options->source) {
    case RETRIEVAL_ENCODER_FOLDER:
        status = open_folder(encoder, options, err);
        break;
    case RETRIEVAL_ENCODER_ENDPOINT:
        status = open_endpoint(encoder, options, err);
        break;
    case RETRIEVAL_ENCODER_NGRAMS:
        status = open_ngrams(encoder, err);
        break;
    default:
        memos_assert(!"a source of vectors");
    }
    if (status != MEMOS_OK) {
        retrieval_encoder_close(&encoder);
        return status;
    }
    *out_encoder = encoder;
    return MEMOS_OK;
}

void retrieval_encoder_close(struct retrieval_encoder **encoder)
{
    if (*encoder) {
        paramem_encoder_close(&(*encoder)->folder);
        retrieval_endpoint_destroy(&(*encoder)->endpoint);
        retrieval_ngrams_destroy(&(*encoder)->ngrams);
        free(*encoder);
        *encoder = NULL;
    }
}

void retrieval_encoder_describe(
    const struct retrieval_encoder *encoder, struct retrieval_encoder_info *out)
{
    *out = encoder->info;
}

/* Each vector to length 1; zeros stay. */
static void normalize(float *vectors, size_t count, size_t dims)
{
    for (float *at = vectors; at < vectors + count * dims; at += dims) {
        double squares = 0.0;
        for (size_t i = 0; i < dims; i++) {
            squares += (double)at[i] * (double)at[i];
        }
        double scale = squares > 0.0 ? 1.0 / sqrt(squares) : 0.0;
        for (size_t i = 0; i < dims; i++) {
            at[i] = (float)((double)at[i] * scale);
        }
    }
}

enum memos_status retrieval_encoder_encode(struct retrieval_encoder *encoder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    if (atomic_load(&encoder->interrupted)) {
        return memos_fail(err, MEMOS_CANCELLED, "the encoder was told to stop");
    } else if (encoder->folder) {
        status = paramem_encoder_encode(encoder->folder, texts, count, role, out, err);
        if (status == MEMOS_OK && encoder->is_raw) {
            normalize(out, count, encoder->info.dims);
        }
        return status;
    } else if (encoder->endpoint) {
        return retrieval_endpoint_encode(encoder->endpoint, texts, count, out, err);
    }
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = retrieval_ngrams_encode(
            encoder->ngrams, texts[i], out + i * RETRIEVAL_NGRAMS_DIMS, err);
    }
    return status;
}

void retrieval_encoder_interrupt(struct retrieval_encoder *encoder)
{
    atomic_store(&encoder->interrupted, true);
    if (encoder->endpoint) {
        retrieval_endpoint_interrupt(encoder->endpoint);
    }
}
