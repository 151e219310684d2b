/* A host model's configuration out of GGUF metadata, under the names that llama.cpp writes. */
#include "paramem/decoder_config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define KEY_BYTES 128

static const struct {
    const char *name;
    enum paramem_architecture architecture;
} architectures[] = {
    {"llama", PARAMEM_LLAMA},
    {"qwen2", PARAMEM_QWEN2},
    {"qwen3", PARAMEM_QWEN3},
};

/* Looks into the metadata, as paramem_keys into JSON: the first failure stays, and looks after it
 * give their fallback. */
struct looks {
    const struct paramem_gguf *gguf;
    const char *prefix;
    enum memos_status status;
    struct memos_error *err;
};

static void text_put(struct memos_bytes text, char *out, size_t size)
{
    size_t length = text.size < size - 1 ? text.size : size - 1;
    memcpy(out, text.data ? text.data : "", length);
    out[length] = '\0';
}

/* PREFIX.name; NULL: absent, or something has failed. */
static const struct paramem_gguf_value *look(
    struct looks *looks, const char *name, char out_key[KEY_BYTES])
{
    int size = snprintf(out_key, KEY_BYTES, "%s.%s", looks->prefix, name);
    memos_assert(size > 0 && size < KEY_BYTES);
    return looks->status == MEMOS_OK ? paramem_gguf_find(looks->gguf, out_key) : NULL;
}

static uint64_t count_or(
    struct looks *looks, const char *name, uint64_t low, uint64_t high, uint64_t fallback)
{
    char key[KEY_BYTES];
    const struct paramem_gguf_value *value = look(looks, name, key);
    if (!value) {
        return fallback;
    }
    if (value->type == PARAMEM_GGUF_ARRAY) {
        looks->status = memos_fail(
            looks->err, MEMOS_UNSUPPORTED, "%s differs among layers: one number works", key);
        return fallback;
    }
    if (value->type != PARAMEM_GGUF_COUNT || value->count < low || value->count > high) {
        looks->status = memos_fail(looks->err, MEMOS_CORRUPT,
            "%s must be a whole number from %" PRIu64 " to %" PRIu64, key, low, high);
        return fallback;
    }
    return value->count;
}

static uint64_t count(struct looks *looks, const char *name, uint64_t high)
{
    char key[KEY_BYTES];
    if (!look(looks, name, key) && looks->status == MEMOS_OK) {
        looks->status = memos_fail(looks->err, MEMOS_CORRUPT, "%s is missing", key);
    }
    return count_or(looks, name, 1, high, 1);
}

static double real_or(
    struct looks *looks, const char *name, double low, double high, double fallback)
{
    char key[KEY_BYTES];
    const struct paramem_gguf_value *value = look(looks, name, key);
    if (!value) {
        return fallback;
    }
    bool number = value->type == PARAMEM_GGUF_REAL || value->type == PARAMEM_GGUF_COUNT;
    if (!number || !(value->real >= low && value->real <= high)) {
        looks->status = memos_fail(
            looks->err, MEMOS_CORRUPT, "%s must be a number from %g to %g", key, low, high);
        return fallback;
    }
    return value->real;
}

static bool there(struct looks *looks, const char *tensor)
{
    return paramem_gguf_tensor_find(looks->gguf, tensor) != NULL;
}

/* ---- parts --------------------------------------------------------------------------------- */

static enum memos_status architecture_read(const struct paramem_gguf *gguf,
    struct paramem_decoder_config *out, const char **out_prefix, struct memos_error *err)
{
    const struct paramem_gguf_value *value = paramem_gguf_find(gguf, "general.architecture");
    const struct paramem_gguf_value *split = paramem_gguf_find(gguf, "split.count");
    char name[64];

    text_put(value ? value->text : memos_bytes_make(NULL, 0), name, sizeof name);
    if (split && split->count > 1) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "one of %" PRIu64 " files of a model: join them (llama-gguf-split --merge)",
            split->count);
    }
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
        if (strcmp(name, architectures[i].name) == 0) {
            out->architecture = architectures[i].architecture;
            *out_prefix = architectures[i].name;
            return MEMOS_OK;
        }
    }
    return memos_fail(err, MEMOS_UNSUPPORTED,
        "the architecture \"%s\" of a GGUF file; llama, qwen2 and qwen3 work", name);
}

static void numbers_read(struct looks *looks, struct paramem_decoder_config *out)
{
    const struct paramem_gguf_tensor *table =
        paramem_gguf_tensor_find(looks->gguf, "token_embd.weight");

    out->hidden = count(looks, "embedding_length", PARAMEM_HIDDEN_MAX);
    out->inner = count(looks, "feed_forward_length", PARAMEM_INNER_MAX);
    out->layers = count(looks, "block_count", PARAMEM_LAYERS_MAX);
    out->heads = count(looks, "attention.head_count", PARAMEM_HEADS_MAX);
    out->kv_heads = count_or(looks, "attention.head_count_kv", 1, PARAMEM_HEADS_MAX, out->heads);
    out->head_dim =
        count_or(looks, "attention.key_length", 1, PARAMEM_HIDDEN_MAX, out->hidden / out->heads);
    out->positions_max = count(looks, "context_length", PARAMEM_POSITIONS_MAX);
    out->norm_eps = real_or(looks, "attention.layer_norm_rms_epsilon", 0.0, 1.0, 1e-5);
    out->window = count_or(looks, "attention.sliding_window", 0, PARAMEM_POSITIONS_MAX, 0);
    uint64_t value =
        count_or(looks, "attention.value_length", 1, PARAMEM_HIDDEN_MAX, out->head_dim);
    uint64_t turning =
        count_or(looks, "rope.dimension_count", 1, PARAMEM_HIDDEN_MAX, out->head_dim);
    if (looks->status != MEMOS_OK) {
        return;
    }
    if (value != out->head_dim || turning != out->head_dim) {
        looks->status = memos_fail(looks->err, MEMOS_UNSUPPORTED,
            "heads of %zu numbers with values of %" PRIu64 ", of which %" PRIu64
            " turn; all the same works",
            out->head_dim, value, turning);
    } else if (count_or(looks, "expert_count", 0, UINT32_MAX, 0) > 0) {
        looks->status = memos_fail(looks->err, MEMOS_UNSUPPORTED, "a mixture of experts");
    } else if (!table || table->rank != 2 || table->shape[0] > PARAMEM_VOCAB_MAX) {
        looks->status = memos_fail(looks->err, MEMOS_CORRUPT,
            "the tensor token_embd.weight is missing, or has an impossible shape");
    } else {
        out->vocab = table->shape[0];
    }
}

static void tensors_look(struct looks *looks, struct paramem_decoder_config *out)
{
    out->tied = !there(looks, "output.weight");
    out->qkv_bias = there(looks, "blk.0.attn_q.bias");
    out->out_bias = there(looks, "blk.0.attn_output.bias");
    out->ffn_bias = there(looks, "blk.0.ffn_gate.bias");
    out->qk_norm = out->architecture == PARAMEM_QWEN3;
}

static void rope_read(struct looks *looks, struct paramem_decoder_config *config)
{
    struct paramem_rope_config *out = &config->rope;
    char key[KEY_BYTES], name[32] = "none";
    const struct paramem_gguf_value *type = look(looks, "rope.scaling.type", key);

    if (type) {
        text_put(type->text, name, sizeof name);
    }
    out->theta = real_or(looks, "rope.freq_base", 1.0, 1e12, 10000.0);
    out->rotary = config->head_dim;
    out->factor = real_or(looks, "rope.scaling.factor", 1e-6, 65536.0, 1.0);
    out->original_positions = count_or(looks, "rope.scaling.original_context_length", 1,
        PARAMEM_POSITIONS_MAX, config->positions_max);
    out->scaling = PARAMEM_ROPE_DEFAULT;
    if (strcmp(name, "linear") == 0) {
        out->scaling = PARAMEM_ROPE_LINEAR;
    } else if (strcmp(name, "yarn") == 0) {
        out->scaling = PARAMEM_ROPE_YARN;
        out->beta_fast = real_or(looks, "rope.scaling.yarn_beta_fast", 1e-6, 65536.0, 32.0);
        out->beta_slow = real_or(looks, "rope.scaling.yarn_beta_slow", 1e-6, 65536.0, 1.0);
        out->truncate = true;
        /* llama.cpp multiplies what follows from the factor by this. */
        double more = real_or(looks, "rope.scaling.attn_factor", 1e-6, 65536.0, 1.0);
        if (more != 1.0) {
            out->attention_factor = more * (1.0 + 0.1 * log(fmax(out->factor, 1.0)));
        }
    } else if (strcmp(name, "none") != 0 && looks->status == MEMOS_OK) {
        looks->status = memos_fail(
            looks->err, MEMOS_UNSUPPORTED, "%s \"%s\"; none, linear and yarn work", key, name);
    }
    if (out->scaling == PARAMEM_ROPE_DEFAULT) {
        out->factor = 1.0;
    }
}

/* The ids under "tokenizer.ggml."; what is past the vocabulary is none. */
static uint32_t id_or_none(
    const struct paramem_gguf *gguf, const char *key, const struct paramem_decoder_config *config)
{
    const struct paramem_gguf_value *value = paramem_gguf_find(gguf, key);
    return value && value->type == PARAMEM_GGUF_COUNT && value->count < config->vocab
               ? (uint32_t)value->count
               : UINT32_MAX;
}

static void ids_read(const struct paramem_gguf *gguf, struct paramem_decoder_config *out)
{
    static const char *const stops[] = {"tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    out->bos_id = id_or_none(gguf, "tokenizer.ggml.bos_token_id", out);
    out->pad_id = id_or_none(gguf, "tokenizer.ggml.padding_token_id", out);
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        uint32_t id = id_or_none(gguf, stops[i], out);
        bool known = id == UINT32_MAX;
        for (size_t j = 0; j < out->stop_count; j++) {
            known = known || out->stop_ids[j] == id;
        }
        if (!known) {
            out->stop_ids[out->stop_count++] = id;
        }
    }
}

enum memos_status paramem_decoder_config_of_gguf(
    const struct paramem_gguf *gguf, struct paramem_decoder_config *out, struct memos_error *err)
{
    struct paramem_decoder_config config = {.top_p = 1.0, .repetition = 1.0};
    struct looks looks = {.gguf = gguf, .status = MEMOS_OK, .err = err};
    looks.status = architecture_read(gguf, &config, &looks.prefix, err);
    if (looks.status != MEMOS_OK) {
        return looks.status;
    }
    numbers_read(&looks, &config);
    rope_read(&looks, &config);
    if (looks.status != MEMOS_OK) {
        return looks.status;
    }
    tensors_look(&looks, &config);
    ids_read(gguf, &config);
    enum memos_status status = paramem_decoder_config_check(&config, "GGUF metadata", err);
    if (status == MEMOS_OK) {
        *out = config;
    }
    return status;
}
