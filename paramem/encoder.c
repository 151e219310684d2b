#include "paramem/encoder.h"

#include "paramem/bert.h"
#include "paramem/wordpiece.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Enough rows that the weights, which are read once a batch, cost nothing beside the products; few
 * enough that what is between two products (3 MB for MiniLM) stays in the third cache. */
#define BATCH_TOKENS 512

static const char architecture[] = "BertModel";

struct paramem_encoder {
    struct kern_ctx *ctx;
    struct paramem_config config;
    struct paramem_tensors *tensors;
    struct paramem_wordpiece *wordpiece;
    struct paramem_bert *bert;
    enum kern_dtype weights;
    uint8_t fingerprint[32];

    /* The batch that is being filled: text i has ids[starts[i]] .. ids[starts[i+1] - 1]. */
    size_t batch_max;
    uint32_t *ids;    /* batch_max + tokens_max: a text is put behind before it is seen to fit */
    uint32_t *starts; /* batch_max / 2 + 1: no text has fewer than two tokens */
    size_t sequences;
};

/* ---- open ---------------------------------------------------------------------------------- */

static const char *pooling_name(enum paramem_pooling pooling)
{
    return pooling == PARAMEM_POOL_MEAN ? "mean" : "cls";
}

static enum memos_status prefix_take(
    char out[PARAMEM_PROMPT_BYTES], const char *prefix, struct memos_error *err)
{
    if (!prefix) {
        return MEMOS_OK;
    }
    if (strlen(prefix) >= PARAMEM_PROMPT_BYTES || !memos_bytes_utf8(memos_bytes_of(prefix))) {
        return memos_fail(err, MEMOS_INVALID, "a prefix must be UTF-8 of fewer than %d bytes",
            PARAMEM_PROMPT_BYTES);
    }
    memcpy(out, prefix, strlen(prefix) + 1);
    return MEMOS_OK;
}

/* The folder's configuration with what the caller wants otherwise. */
static enum memos_status config_take(struct paramem_encoder *encoder,
    const struct paramem_encoder_options *options, struct memos_error *err)
{
    struct paramem_config *config = &encoder->config;
    enum memos_status status = paramem_config_read(options->path, config, err);
    if (status == MEMOS_OK) {
        status = prefix_take(config->query_prefix, options->query_prefix, err);
    }
    if (status == MEMOS_OK) {
        status = prefix_take(config->passage_prefix, options->passage_prefix, err);
    }
    if (status != MEMOS_OK || options->tokens_max == 0) {
        return status;
    }
    if (options->tokens_max < 3 || options->tokens_max > config->positions) {
        return memos_fail(err, MEMOS_INVALID, "tokens_max %zu must be from 3 to %zu, the model's",
            options->tokens_max, config->positions);
    }
    config->tokens_max = options->tokens_max;
    return MEMOS_OK;
}

static void hash_sized(crypto_generichash_state *state, const void *data, size_t size)
{
    uint8_t head[4] = {
        (uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16), (uint8_t)(size >> 24)};
    (void)crypto_generichash_update(state, head, sizeof head);
    (void)crypto_generichash_update(state, data, size);
}

static void hash_text(crypto_generichash_state *state, const char *text)
{
    hash_sized(state, text, strlen(text));
}

/* Everything that a vector depends on but the arithmetic: see paramem_encoder_info. */
static void fingerprint_make(struct paramem_encoder *encoder)
{
    const struct paramem_config *config = &encoder->config;
    crypto_generichash_state state;
    uint8_t digest[32];
    char shape[256];

    int size = snprintf(shape, sizeof shape,
        "layers %zu hidden %zu heads %zu intermediate %zu act %d eps %a pooling %s normalize %d "
        "tokens_max %zu",
        config->layers, config->hidden, config->heads, config->intermediate, (int)config->act,
        (double)config->eps, pooling_name(config->pooling), config->normalize, config->tokens_max);
    memos_assert(size > 0 && (size_t)size < sizeof shape);
    (void)crypto_generichash_init(&state, NULL, 0, sizeof encoder->fingerprint);
    hash_text(&state, "memos encoder 1");
    hash_text(&state, architecture);
    hash_text(&state, shape);
    hash_text(&state, config->query_prefix);
    hash_text(&state, config->passage_prefix);
    paramem_wordpiece_digest(encoder->wordpiece, digest);
    hash_sized(&state, digest, sizeof digest);
    paramem_bert_digest(encoder->bert, digest);
    hash_sized(&state, digest, sizeof digest);
    (void)crypto_generichash_final(&state, encoder->fingerprint, sizeof encoder->fingerprint);
}

static enum memos_status batch_make(struct paramem_encoder *encoder, struct memos_error *err)
{
    size_t most = encoder->config.tokens_max;
    encoder->batch_max = most > BATCH_TOKENS ? most : BATCH_TOKENS;
    encoder->ids = calloc(encoder->batch_max + most, sizeof *encoder->ids);
    encoder->starts = calloc(encoder->batch_max / 2 + 1, sizeof *encoder->starts);
    return encoder->ids && encoder->starts
               ? MEMOS_OK
               : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a batch of tokens");
}

static enum memos_status bert_make(struct paramem_encoder *encoder,
    const struct paramem_encoder_options *options, struct memos_error *err)
{
    size_t ids_end = paramem_wordpiece_ids_end(encoder->wordpiece);
    if (ids_end > encoder->config.vocab) {
        return memos_fail(err, MEMOS_CORRUPT, "the tokenizer has ids up to %zu, the model %zu",
            ids_end - 1, encoder->config.vocab - 1);
    }
    enum memos_status status = paramem_tensors_open(options->path, &encoder->tensors, err);
    if (status != MEMOS_OK) {
        return status;
    }
    struct paramem_bert_options bert = {.ctx = encoder->ctx,
        .config = &encoder->config,
        .tensors = encoder->tensors,
        .weights = encoder->weights,
        .tokens_max = encoder->batch_max,
        .text_max = encoder->config.tokens_max};
    return paramem_bert_load(&bert, &encoder->bert, err);
}

static enum memos_status encoder_fill(struct paramem_encoder *encoder,
    const struct paramem_encoder_options *options, struct memos_error *err)
{
    enum memos_status status = config_take(encoder, options, err);
    if (status == MEMOS_OK) {
        status = paramem_wordpiece_open(options->path, &encoder->config, &encoder->wordpiece, err);
    }
    if (status == MEMOS_OK) {
        status = kern_ctx_create(&options->kern, &encoder->ctx, err);
    }
    if (status == MEMOS_OK) {
        status = batch_make(encoder, err);
    }
    if (status == MEMOS_OK) {
        status = bert_make(encoder, options, err);
    }
    if (status == MEMOS_OK) {
        fingerprint_make(encoder);
    }
    return status;
}

enum memos_status paramem_encoder_open(const struct paramem_encoder_options *options,
    struct paramem_encoder **out_encoder, struct memos_error *err)
{
    enum kern_dtype weights = options->weights ? options->weights : KERN_F32;
    if (weights != KERN_F32 && weights != KERN_BF16 && weights != KERN_I8) {
        return memos_fail(
            err, MEMOS_UNSUPPORTED, "weights in %s; f32, bf16, i8 work", kern_dtype_name(weights));
    }
    memos_assert(sodium_init() >= 0);
    struct paramem_encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an encoder");
    }
    encoder->weights = weights;
    enum memos_status status = encoder_fill(encoder, options, err);
    if (status != MEMOS_OK) {
        paramem_encoder_close(&encoder);
        return status;
    }
    *out_encoder = encoder;
    return MEMOS_OK;
}

void paramem_encoder_close(struct paramem_encoder **encoder)
{
    struct paramem_encoder *old = *encoder;
    if (!old) {
        return;
    }
    paramem_bert_free(&old->bert);
    paramem_tensors_close(&old->tensors);
    paramem_wordpiece_close(&old->wordpiece);
    kern_ctx_destroy(&old->ctx);
    free(old->ids);
    free(old->starts);
    free(old);
    *encoder = NULL;
}

void paramem_encoder_describe(
    const struct paramem_encoder *encoder, struct paramem_encoder_info *out)
{
    const struct paramem_config *config = &encoder->config;
    *out = (struct paramem_encoder_info){.architecture = architecture,
        .pooling = pooling_name(config->pooling),
        .kern = kern_ctx_name(encoder->ctx),
        .weights = encoder->weights,
        .dims = config->hidden,
        .layers = config->layers,
        .tokens_max = config->tokens_max,
        .vocab = config->vocab,
        .weight_bytes = paramem_bert_bytes(encoder->bert),
        .normalized = config->normalize};
    memcpy(out->fingerprint, encoder->fingerprint, sizeof out->fingerprint);
}

/* ---- encode -------------------------------------------------------------------------------- */

/* Encode the batch into the rows at *out, and go past them. */
static void batch_run(struct paramem_encoder *encoder, float **out)
{
    if (encoder->sequences > 0) {
        paramem_bert_encode(encoder->bert, encoder->ids, encoder->starts, encoder->sequences, *out);
        *out += encoder->sequences * encoder->config.hidden;
        encoder->sequences = 0;
    }
}

/* Texts are taken in their order: without padding, what stands beside a text costs it nothing, so
 * that there is nothing to sort for, and nothing to keep but one batch. */
enum memos_status paramem_encoder_encode(struct paramem_encoder *encoder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err)
{
    const struct paramem_config *config = &encoder->config;
    struct memos_bytes prefix =
        memos_bytes_of(role == PARAMEM_QUERY ? config->query_prefix : config->passage_prefix);

    encoder->sequences = 0;
    for (size_t i = 0; i < count; i++) {
        size_t used = encoder->starts[encoder->sequences], tokens = 0;
        enum memos_status status = paramem_wordpiece_encode(encoder->wordpiece, prefix, texts[i],
            encoder->ids + used, config->tokens_max, &tokens, NULL, err);
        if (status != MEMOS_OK) {
            return status;
        }
        if (used + tokens > encoder->batch_max) {
            batch_run(encoder, &out);
            memmove(encoder->ids, encoder->ids + used, tokens * sizeof *encoder->ids);
            used = 0;
        }
        encoder->starts[++encoder->sequences] = (uint32_t)(used + tokens);
    }
    batch_run(encoder, &out);
    return MEMOS_OK;
}

enum memos_status paramem_encoder_tokenize(struct paramem_encoder *encoder, struct memos_bytes text,
    uint32_t *ids, size_t ids_max, size_t *out_count, struct memos_error *err)
{
    size_t most = encoder->config.tokens_max < ids_max ? encoder->config.tokens_max : ids_max;
    return paramem_wordpiece_encode(
        encoder->wordpiece, memos_bytes_make(NULL, 0), text, ids, most, out_count, NULL, err);
}

enum memos_status paramem_encoder_count(struct paramem_encoder *encoder, struct memos_bytes text,
    size_t *out_tokens, struct memos_error *err)
{
    bool cut = false;
    enum memos_status status =
        paramem_wordpiece_encode(encoder->wordpiece, memos_bytes_make(NULL, 0), text, encoder->ids,
            encoder->config.tokens_max, out_tokens, &cut, err);
    if (status == MEMOS_OK) {
        *out_tokens += cut;
    }
    return status;
}
