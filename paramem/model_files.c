#include "paramem/model_files.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- names and shapes ---------------------------------------------------------------------- */

static const struct {
    const char *folder, *gguf;
} names[PARAMEM_PARTS] = {
    [PARAMEM_ATTENTION_NORM] = {"model.layers.%zu.input_layernorm.weight",
        "blk.%zu.attn_norm.weight"},
    [PARAMEM_QUERY] = {"model.layers.%zu.self_attn.q_proj.weight", "blk.%zu.attn_q.weight"},
    [PARAMEM_KEY] = {"model.layers.%zu.self_attn.k_proj.weight", "blk.%zu.attn_k.weight"},
    [PARAMEM_VALUE] = {"model.layers.%zu.self_attn.v_proj.weight", "blk.%zu.attn_v.weight"},
    [PARAMEM_OUT] = {"model.layers.%zu.self_attn.o_proj.weight", "blk.%zu.attn_output.weight"},
    [PARAMEM_FFN_NORM] = {"model.layers.%zu.post_attention_layernorm.weight",
        "blk.%zu.ffn_norm.weight"},
    [PARAMEM_GATE] = {"model.layers.%zu.mlp.gate_proj.weight", "blk.%zu.ffn_gate.weight"},
    [PARAMEM_UP] = {"model.layers.%zu.mlp.up_proj.weight", "blk.%zu.ffn_up.weight"},
    [PARAMEM_DOWN] = {"model.layers.%zu.mlp.down_proj.weight", "blk.%zu.ffn_down.weight"},
    [PARAMEM_QUERY_BIAS] = {"model.layers.%zu.self_attn.q_proj.bias", "blk.%zu.attn_q.bias"},
    [PARAMEM_KEY_BIAS] = {"model.layers.%zu.self_attn.k_proj.bias", "blk.%zu.attn_k.bias"},
    [PARAMEM_VALUE_BIAS] = {"model.layers.%zu.self_attn.v_proj.bias", "blk.%zu.attn_v.bias"},
    [PARAMEM_OUT_BIAS] = {"model.layers.%zu.self_attn.o_proj.bias", "blk.%zu.attn_output.bias"},
    [PARAMEM_GATE_BIAS] = {"model.layers.%zu.mlp.gate_proj.bias", "blk.%zu.ffn_gate.bias"},
    [PARAMEM_UP_BIAS] = {"model.layers.%zu.mlp.up_proj.bias", "blk.%zu.ffn_up.bias"},
    [PARAMEM_DOWN_BIAS] = {"model.layers.%zu.mlp.down_proj.bias", "blk.%zu.ffn_down.bias"},
    [PARAMEM_QUERY_NORM] = {"model.layers.%zu.self_attn.q_norm.weight",
        "blk.%zu.attn_q_norm.weight"},
    [PARAMEM_KEY_NORM] = {"model.layers.%zu.self_attn.k_norm.weight", "blk.%zu.attn_k_norm.weight"},
};

/* Does a model of this configuration have the part? Rows 0: a vector. */
static bool shape_of(const struct paramem_decoder_config *config, enum paramem_model_part part,
    size_t *rows, size_t *columns)
{
    size_t hidden = config->hidden, inner = config->inner, head = config->head_dim;
    size_t query = config->heads * head, key = config->kv_heads * head;
    const struct {
        bool there;
        size_t rows, columns;
    } shapes[PARAMEM_PARTS] = {
        [PARAMEM_ATTENTION_NORM] = {true, 0, hidden},
        [PARAMEM_QUERY] = {true, query, hidden},
        [PARAMEM_KEY] = {true, key, hidden},
        [PARAMEM_VALUE] = {true, key, hidden},
        [PARAMEM_OUT] = {true, hidden, query},
        [PARAMEM_FFN_NORM] = {true, 0, hidden},
        [PARAMEM_GATE] = {true, inner, hidden},
        [PARAMEM_UP] = {true, inner, hidden},
        [PARAMEM_DOWN] = {true, hidden, inner},
        [PARAMEM_QUERY_BIAS] = {config->qkv_bias, 0, query},
        [PARAMEM_KEY_BIAS] = {config->qkv_bias, 0, key},
        [PARAMEM_VALUE_BIAS] = {config->qkv_bias, 0, key},
        [PARAMEM_OUT_BIAS] = {config->out_bias, 0, hidden},
        [PARAMEM_GATE_BIAS] = {config->ffn_bias, 0, inner},
        [PARAMEM_UP_BIAS] = {config->ffn_bias, 0, inner},
        [PARAMEM_DOWN_BIAS] = {config->ffn_bias, 0, hidden},
        [PARAMEM_QUERY_NORM] = {config->qk_norm, 0, head},
        [PARAMEM_KEY_NORM] = {config->qk_norm, 0, head},
    };
    *rows = shapes[part].rows;
    *columns = shapes[part].columns;
    return shapes[part].there;
}

static void layer_find(struct paramem_model_files *files, size_t index)
{
    struct paramem_layer_files *layer = &files->layers[index];
    size_t rows, columns;
    for (int part = 0; part < PARAMEM_PARTS; part++) {
        if (shape_of(&files->config, (enum paramem_model_part)part, &rows, &columns)) {
            layer->parts[part] = paramem_loader_get(&files->loader,
                files->gguf ? names[part].gguf : names[part].folder, index, rows, columns);
        }
    }
    layer->end = files->loader.used_count;
}

/* Every tensor of the model, in the order of the fingerprint. */
static enum memos_status tensors_find(struct paramem_model_files *files, struct memos_error *err)
{
    const struct paramem_decoder_config *config = &files->config;
    size_t layers = config->layers;
    bool gguf = files->gguf != NULL;

    files->layers = calloc(layers, sizeof *files->layers);
    files->loader = paramem_loader_make(gguf ? paramem_weight_of_gguf : paramem_weight_of_tensors,
        gguf ? (const void *)files->gguf : (const void *)files->tensors, 4 + layers * PARAMEM_PARTS,
        err);
    if (!files->layers && files->loader.status == MEMOS_OK) {
        files->loader.status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu layers", layers);
    }
    struct paramem_loader *loader = &files->loader;
    files->table = paramem_loader_get(loader,
        gguf ? "token_embd.weight" : "model.embed_tokens.weight", 0, config->vocab, config->hidden);
    files->final_norm = paramem_loader_get(
        loader, gguf ? "output_norm.weight" : "model.norm.weight", 0, 0, config->hidden);
    if (!config->tied) {
        files->head = paramem_loader_get(
            loader, gguf ? "output.weight" : "lm_head.weight", 0, config->vocab, config->hidden);
    }
    if (gguf && paramem_loader_has(loader, "rope_freqs.weight")) {
        files->factors =
            paramem_loader_get(loader, "rope_freqs.weight", 0, 0, config->rope.rotary / 2);
    }
    files->loose_end = loader->used_count;
    for (size_t i = 0; i < layers && loader->status == MEMOS_OK; i++) {
        layer_find(files, i);
    }
    for (size_t i = 0; i < loader->used_count; i++) {
        files->parameters += loader->used[i].count;
        files->bytes += loader->used[i].bytes;
    }
    return loader->status;
}

/* ---- open ---------------------------------------------------------------------------------- */

static enum memos_status files_fill(
    struct paramem_model_files *files, const char *path, struct memos_error *err)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        return memos_fail_errno(err, errno, "cannot look at %s", path);
    }
    enum memos_status status;
    if (S_ISDIR(about.st_mode)) {
        status = paramem_decoder_config_read(path, &files->config, err);
        if (status == MEMOS_OK) {
            status = paramem_tensors_open(path, &files->tensors, err);
        }
    } else {
        status = paramem_gguf_open(path, &files->gguf, err);
        if (status == MEMOS_OK) {
            status = paramem_decoder_config_of_gguf(files->gguf, &files->config, err);
        }
    }
    return status == MEMOS_OK ? tensors_find(files, err) : status;
}

enum memos_status paramem_model_files_open(
    const char *path, struct paramem_model_files **out, struct memos_error *err)
{
    struct paramem_model_files *files = calloc(1, sizeof *files);
    if (!files) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %s", path);
    }
    enum memos_status status = files_fill(files, path, err);
    if (status != MEMOS_OK) {
        paramem_model_files_close(&files);
        return status;
    }
    files->loader.err = NULL; /* the caller's is not ours any more */
    *out = files;
    return MEMOS_OK;
}

void paramem_model_files_close(struct paramem_model_files **files)
{
    if (!*files) {
        return;
    }
    paramem_loader_finish(&(*files)->loader);
    free((*files)->layers);
    paramem_tensors_close(&(*files)->tensors);
    paramem_gguf_close(&(*files)->gguf);
    free(*files);
    *files = NULL;
}

bool paramem_model_files_turned(const struct paramem_model_files *files)
{
    return files->gguf && files->config.architecture == PARAMEM_LLAMA;
}

/* ---- numbers ------------------------------------------------------------------------------- */

/* What frequencies are divided by must not be 0. */
static enum memos_status factors_check(
    const struct paramem_model_files *files, struct memos_error *err)
{
    float factors[256];
    if (!files->factors) {
        return MEMOS_OK;
    }
    memos_assert(files->factors->count <= sizeof factors / sizeof factors[0]);
    kern_to_f32(files->factors->dtype, files->factors->data, factors, files->factors->count);
    for (size_t i = 0; i < files->factors->count; i++) {
        if (!(factors[i] > 0.0f)) {
            return memos_fail(err, MEMOS_CORRUPT, "rope_freqs.weight holds %g", (double)factors[i]);
        }
    }
    return MEMOS_OK;
}

/* Whole pages of a tensor only: others may have something else as well. */
static void advise(const struct paramem_weight *weight, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)weight->data;
    uintptr_t begin = (at + page - 1) / page * page, end = (at + weight->bytes) / page * page;
    if (end > begin) {
        (void)madvise((void *)begin, end - begin, advice);
    }
}

void paramem_model_files_release(const struct paramem_weight *weight)
{
    advise(weight, MADV_DONTNEED);
}

enum memos_status paramem_model_files_check(
    struct paramem_model_files *files, struct kern_ctx *ctx, size_t unit, struct memos_error *err)
{
    struct paramem_loader *loader = &files->loader;
    size_t first = loader->checked_count;
    size_t end = unit == 0 ? files->loose_end : files->layers[unit - 1].end;
    size_t next = unit < files->config.layers ? files->layers[unit].end : end;

    for (size_t i = end; i < next; i++) {
        advise(&loader->used[i], MADV_WILLNEED); /* the disk reads on while we compute */
    }
    loader->err = err;
    enum memos_status status = paramem_loader_check(loader, ctx, end);
    loader->err = NULL;
    for (size_t i = first; i < end; i++) {
        files->checked_bytes += loader->used[i].bytes;
    }
    if (status == MEMOS_OK && unit == 0) {
        status = factors_check(files, err);
    }
    return status;
}

/* ---- the fingerprint ----------------------------------------------------------------------- */

enum memos_status paramem_model_files_tokenizer(const struct paramem_model_files *files,
    const char *path, struct paramem_tokenizer **out, struct memos_error *err)
{
    return files->gguf ? paramem_tokenizer_of_gguf(files->gguf, out, err)
                       : paramem_tokenizer_open(path, out, err);
}

static void hash_count(crypto_generichash_state *state, uint64_t value)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
    (void)crypto_generichash_update(state, bytes, sizeof bytes);
}

static void hash_real(crypto_generichash_state *state, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    hash_count(state, bits);
}

/* What changes a logit; not how tokens are chosen, nor how long a text may be. */
static void hash_config(
    crypto_generichash_state *state, const struct paramem_decoder_config *config)
{
    const struct paramem_rope_config *rope = &config->rope;
    bool scaled = rope->scaling != PARAMEM_ROPE_DEFAULT && rope->scaling != PARAMEM_ROPE_LINEAR;
    const uint64_t counts[] = {config->architecture, config->hidden, config->inner, config->layers,
        config->heads, config->kv_heads, config->head_dim, config->vocab, config->window,
        config->window_from, config->tied, config->qkv_bias, config->out_bias, config->ffn_bias,
        config->qk_norm, rope->scaling, rope->truncate, scaled ? rope->original_positions : 0,
        rope->rotary};
    const double reals[] = {config->norm_eps, rope->theta, rope->factor, rope->low_freq_factor,
        rope->high_freq_factor, rope->beta_fast, rope->beta_slow, rope->attention_factor,
        rope->mscale, rope->mscale_all_dim};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        hash_count(state, counts[i]);
    }
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        hash_real(state, reals[i]);
    }
}

void paramem_model_files_fingerprint(const struct paramem_model_files *files,
    const struct paramem_tokenizer *tokenizer, uint8_t out[32])
{
    static const uint8_t domain[] = "memos host model 1";
    crypto_generichash_state state;
    uint8_t weights[32];
    struct paramem_tokenizer_info info = {.vocab = 0};

    if (tokenizer) {
        paramem_tokenizer_describe(tokenizer, &info);
    }
    paramem_loader_digest(&files->loader, weights);
    (void)crypto_generichash_init(&state, NULL, 0, 32);
    (void)crypto_generichash_update(&state, domain, sizeof domain);
    hash_config(&state, &files->config);
    (void)crypto_generichash_update(&state, weights, sizeof weights);
    (void)crypto_generichash_update(&state, info.digest, sizeof info.digest);
    (void)crypto_generichash_final(&state, out, 32);
}
