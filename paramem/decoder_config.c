#include "paramem/decoder_config.h"

#include "paramem/files.h"
#include "paramem/json.h"
#include "paramem/rope.h"

#include <string.h>

static const char *const config_name = "config.json";
static const char *const generation_name = "generation_config.json";

#define FACTOR_MAX 65536.0
#define THETA_MAX 1e12

/* ---- the architecture ---------------------------------------------------------------------- */

static const struct {
    const char *name, *type; /* "architectures", "model_type" */
    enum paramem_architecture architecture;
} architectures[] = {
    {"LlamaForCausalLM", "llama", PARAMEM_LLAMA},
    {"MistralForCausalLM", "mistral", PARAMEM_MISTRAL},
    {"Qwen2ForCausalLM", "qwen2", PARAMEM_QWEN2},
    {"Qwen3ForCausalLM", "qwen3", PARAMEM_QWEN3},
};
#define ARCHITECTURES_COUNT (sizeof architectures / sizeof architectures[0])

const char *paramem_architecture_name(enum paramem_architecture architecture)
{
    for (size_t i = 0; i < ARCHITECTURES_COUNT; i++) {
        if (architectures[i].architecture == architecture) {
            return architectures[i].name;
        }
    }
    return "(none)";
}

static void architecture_read(struct paramem_keys *keys, struct paramem_decoder_config *out)
{
    const json_t *list = paramem_keys_tree(keys, "architectures", JSON_ARRAY);
    const char *name = json_string_value(json_array_get(list, 0));
    const char *type = paramem_keys_text_or(keys, "model_type", NULL);

    for (size_t i = 0; i < ARCHITECTURES_COUNT; i++) {
        if ((name || type) && (!name || strcmp(name, architectures[i].name) == 0) &&
            (!type || strcmp(type, architectures[i].type) == 0)) {
            out->architecture = architectures[i].architecture;
            return;
        }
    }
    paramem_keys_fail(keys, MEMOS_UNSUPPORTED,
        "the architecture %.60s (model_type \"%.30s\"); LlamaForCausalLM (SmolLM too), "
        "MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM work",
        name ? name : "(none)", type ? type : "");
}

/* What transformers would do and this does not. */
static void refuse(struct paramem_keys *keys)
{
    const char *act = paramem_keys_text_or(keys, "hidden_act", "silu");
    const json_t *quantized = paramem_keys_tree(keys, "quantization_config", JSON_OBJECT);
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED, "hidden_act \"%.40s\"; silu works", act);
    }
    if (quantized) {
        const char *method = json_string_value(json_object_get(quantized, "quant_method"));
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED,
            "quantization_config (%.40s); F32, F16 and BF16 work, and GGUF's Q8_0, Q4_0, Q4_K and "
            "Q6_K",
            method ? method : "of no name");
    }
    if (paramem_keys_bool_or(keys, "use_mrope", false)) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED, "use_mrope true");
    }
}

/* ---- rotary positions ---------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum paramem_rope_scaling scaling;
} scalings[] = {
    {"default", PARAMEM_ROPE_DEFAULT},
    {"linear", PARAMEM_ROPE_LINEAR},
    {"dynamic", PARAMEM_ROPE_DYNAMIC},
    {"llama3", PARAMEM_ROPE_LLAMA3},
    {"yarn", PARAMEM_ROPE_YARN},
};

static void scaling_read(struct paramem_keys *keys, struct paramem_rope_config *out)
{
    const char *name =
        paramem_keys_text_or(keys, "rope_type", paramem_keys_text_or(keys, "type", "default"));
    for (size_t i = 0; i < sizeof scalings / sizeof scalings[0]; i++) {
        if (strcmp(name, scalings[i].name) == 0) {
            out->scaling = scalings[i].scaling;
            return;
        }
    }
    paramem_keys_fail(keys, MEMOS_UNSUPPORTED,
        "rope_type \"%.40s\"; default, linear, dynamic, llama3 and yarn work", name);
}

/* A factor that the kind cannot do without. */
static double factor_read(struct paramem_keys *keys, const char *key, bool needed)
{
    double value = paramem_keys_real_or(keys, key, 1e-6, FACTOR_MAX, 0.0);
    if (keys->status == MEMOS_OK && needed && value == 0.0) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "rope_parameters: %s is missing", key);
    }
    return value;
}

static void yarn_read(struct paramem_keys *keys, size_t positions, struct paramem_rope_config *out)
{
    out->attention_factor = factor_read(keys, "attention_factor", false);
    out->mscale = paramem_keys_real_or(keys, "mscale", 0.0, FACTOR_MAX, 0.0);
    out->mscale_all_dim = paramem_keys_real_or(keys, "mscale_all_dim", 0.0, FACTOR_MAX, 0.0);
    out->beta_fast = paramem_keys_real_or(keys, "beta_fast", 0.0, FACTOR_MAX, 0.0);
    out->beta_slow = paramem_keys_real_or(keys, "beta_slow", 0.0, FACTOR_MAX, 0.0);
    out->beta_fast = out->beta_fast > 0.0 ? out->beta_fast : 32.0;
    out->beta_slow = out->beta_slow > 0.0 ? out->beta_slow : 1.0;
    out->truncate = paramem_keys_bool_or(keys, "truncate", true);
    if (out->factor == 0.0) {
        out->factor = (double)positions / (double)out->original_positions;
    }
}

/* Numbers of a head that do not turn; it may be said in two places. */
static void partial_refuse(struct paramem_keys *keys)
{
    double partial = paramem_keys_real_or(keys, "partial_rotary_factor", 0.0, 1.0, 1.0);
    if (partial != 1.0) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED, "partial_rotary_factor %g; 1 works", partial);
    }
}

/* rope_scaling, or under its new name rope_parameters; both may be absent. */
static void rope_read(struct paramem_keys *keys, struct paramem_decoder_config *config)
{
    struct paramem_rope_config *out = &config->rope;
    const json_t *tree = paramem_keys_tree(keys, "rope_scaling", JSON_OBJECT);
    uint64_t original = paramem_keys_count_or(
        keys, "original_max_position_embeddings", 1, PARAMEM_POSITIONS_MAX, 0);

    if (!tree || json_object_size(tree) == 0) {
        tree = paramem_keys_tree(keys, "rope_parameters", JSON_OBJECT);
    }
    out->theta = paramem_keys_real_or(keys, "rope_theta", 1.0, THETA_MAX, 10000.0);
    out->rotary = config->head_dim;
    out->original_positions = config->positions_max;
    out->factor = 1.0; /* in the fingerprint: the same whether the files say it or not */
    partial_refuse(keys);
    if (keys->status != MEMOS_OK || !tree) {
        return;
    }
    struct paramem_keys inner = paramem_keys_of(tree, keys->name, keys->err);
    if (json_object_get(tree, "full_attention") || json_object_get(tree, "sliding_attention")) {
        paramem_keys_fail(&inner, MEMOS_UNSUPPORTED, "rope_parameters that differ among layers");
    }
    out->theta = paramem_keys_real_or(&inner, "rope_theta", 1.0, THETA_MAX, out->theta);
    partial_refuse(&inner);
    scaling_read(&inner, out);
    if (out->scaling != PARAMEM_ROPE_DEFAULT) {
        out->factor = factor_read(&inner, "factor", out->scaling != PARAMEM_ROPE_YARN);
    }
    if (out->scaling == PARAMEM_ROPE_LLAMA3 || out->scaling == PARAMEM_ROPE_YARN) {
        uint64_t own = paramem_keys_count_or(&inner, "original_max_position_embeddings", 1,
            PARAMEM_POSITIONS_MAX, config->positions_max);
        out->original_positions = original ? original : own;
    }
    if (out->scaling == PARAMEM_ROPE_LLAMA3) {
        out->low_freq_factor = factor_read(&inner, "low_freq_factor", true);
        out->high_freq_factor = factor_read(&inner, "high_freq_factor", true);
    } else if (out->scaling == PARAMEM_ROPE_YARN) {
        yarn_read(&inner, config->positions_max, out);
    }
    keys->status = inner.status;
}

/* ---- the window ---------------------------------------------------------------------------- */

/* layer_types: full attention up to a layer, a window from it on. */
static void layer_types_read(
    struct paramem_keys *keys, const json_t *types, struct paramem_decoder_config *out)
{
    size_t from = out->layers;
    if (json_array_size(types) != out->layers) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "layer_types has %zu entries for %zu layers",
            json_array_size(types), out->layers);
        return;
    }
    for (size_t i = 0; i < out->layers; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool sliding = type && strcmp(type, "sliding_attention") == 0;
        if (!sliding && (!type || strcmp(type, "full_attention") != 0 || from < i)) {
            paramem_keys_fail(keys, MEMOS_UNSUPPORTED,
                "layer_types: layer %zu is \"%.40s\"; full_attention, and after the last of it "
                "sliding_attention, work",
                i, type ? type : "(none)");
            return;
        }
        from = sliding && from == out->layers ? i : from;
    }
    if (from < out->layers && out->window == 0) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "layers of sliding_attention, but no window");
    }
    out->window_from = from;
}

static void window_read(struct paramem_keys *keys, struct paramem_decoder_config *out)
{
    bool there = !json_is_null(json_object_get(keys->object, "sliding_window"));
    bool qwen = out->architecture == PARAMEM_QWEN2 || out->architecture == PARAMEM_QWEN3;
    const json_t *types = paramem_keys_tree(keys, "layer_types", JSON_ARRAY);

    if (out->architecture == PARAMEM_LLAMA || !there ||
        (qwen && !paramem_keys_bool_or(keys, "use_sliding_window", false))) {
        out->window = 0;
    } else {
        out->window = paramem_keys_count_or(keys, "sliding_window", 1, PARAMEM_POSITIONS_MAX, 4096);
    }
    if (qwen) {
        out->window_from =
            paramem_keys_count_or(keys, "max_window_layers", 0, PARAMEM_LAYERS_MAX, 28);
        if (types) {
            layer_types_read(keys, types, out);
        }
    }
    if (out->window_from >= out->layers) {
        out->window = 0;
    }
    out->window_from = out->window > 0 ? out->window_from : 0;
}

/* ---- the network --------------------------------------------------------------------------- */

static void numbers_read(struct paramem_keys *keys, struct paramem_decoder_config *out)
{
    out->hidden = paramem_keys_count(keys, "hidden_size", 1, PARAMEM_HIDDEN_MAX);
    out->inner = paramem_keys_count(keys, "intermediate_size", 1, PARAMEM_INNER_MAX);
    out->layers = paramem_keys_count(keys, "num_hidden_layers", 1, PARAMEM_LAYERS_MAX);
    out->heads = paramem_keys_count(keys, "num_attention_heads", 1, PARAMEM_HEADS_MAX);
    out->vocab = paramem_keys_count(keys, "vocab_size", 1, PARAMEM_VOCAB_MAX);
    out->kv_heads =
        paramem_keys_count_or(keys, "num_key_value_heads", 1, PARAMEM_HEADS_MAX, out->heads);
    size_t even = out->architecture == PARAMEM_QWEN3 ? 128 : out->hidden / out->heads;
    out->head_dim = paramem_keys_count_or(keys, "head_dim", 1, PARAMEM_HIDDEN_MAX, even);
    out->positions_max =
        paramem_keys_count_or(keys, "max_position_embeddings", 1, PARAMEM_POSITIONS_MAX,
            out->architecture == PARAMEM_LLAMA     ? 2048
            : out->architecture == PARAMEM_MISTRAL ? 131072
                                                   : 32768);
    out->norm_eps = paramem_keys_real_or(keys, "rms_norm_eps", 0.0, 1.0, 1e-6);
    out->tied = paramem_keys_bool_or(keys, "tie_word_embeddings", false);

    bool biased = paramem_keys_bool_or(keys, "attention_bias", false);
    bool may = out->architecture == PARAMEM_LLAMA || out->architecture == PARAMEM_QWEN3;
    out->qkv_bias = out->architecture == PARAMEM_QWEN2 || (may && biased);
    out->out_bias = may && biased;
    out->ffn_bias =
        out->architecture == PARAMEM_LLAMA && paramem_keys_bool_or(keys, "mlp_bias", false);
    out->qk_norm = out->architecture == PARAMEM_QWEN3;
}

enum memos_status paramem_decoder_config_check(
    const struct paramem_decoder_config *config, const char *name, struct memos_error *err)
{
    const struct paramem_rope_config *rope = &config->rope;
    if (config->kv_heads > config->heads || config->heads % config->kv_heads != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: %zu heads are no multiple of %zu of keys", name,
            config->heads, config->kv_heads);
    }
    if (config->head_dim == 0 || config->head_dim % 8 != 0 ||
        config->head_dim > PARAMEM_ROTARY_MAX) {
        return memos_fail(err, MEMOS_UNSUPPORTED,
            "%s: heads of %zu numbers; multiples of 8 up to %d work", name, config->head_dim,
            PARAMEM_ROTARY_MAX);
    }
    if (rope->scaling == PARAMEM_ROPE_LLAMA3 && rope->high_freq_factor <= rope->low_freq_factor) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: high_freq_factor %g, low_freq_factor %g", name,
            rope->high_freq_factor, rope->low_freq_factor);
    }
    if (rope->scaling == PARAMEM_ROPE_YARN && rope->theta <= 1.0) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: rope_theta %g", name, rope->theta);
    }
    if (rope->scaling == PARAMEM_ROPE_DYNAMIC && rope->factor < 1.0) {
        return memos_fail(err, MEMOS_CORRUPT, "%s: a dynamic factor of %g", name, rope->factor);
    }
    return MEMOS_OK;
}

/* ---- ids, and how to generate -------------------------------------------------------------- */

/* UINT32_MAX for what is no token's id: some files say -1, or one past the vocabulary, for none. */
static uint32_t id_of(const json_t *json, size_t vocab)
{
    json_int_t id = json_is_integer(json) ? json_integer_value(json) : -1;
    return id >= 0 && (uint64_t)id < vocab ? (uint32_t)id : UINT32_MAX;
}

static void id_read(struct paramem_keys *keys, const char *key, size_t vocab, uint32_t *out)
{
    const json_t *json = json_object_get(keys->object, key);
    if (json) {
        *out = id_of(json, vocab);
    }
}

/* One id, or a list; what is read replaces what was there. */
static void stops_read(struct paramem_keys *keys, struct paramem_decoder_config *out)
{
    const json_t *json = json_object_get(keys->object, "eos_token_id");
    size_t count = json_is_array(json) ? json_array_size(json) : json_is_integer(json);
    if (!json || keys->status != MEMOS_OK) {
        return;
    }
    if (count > PARAMEM_STOP_IDS_MAX) {
        paramem_keys_fail(keys, MEMOS_TOO_LARGE, "eos_token_id: %zu ids, at most %d", count,
            PARAMEM_STOP_IDS_MAX);
        return;
    }
    out->stop_count = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t id = id_of(json_is_array(json) ? json_array_get(json, i) : json, out->vocab);
        if (id != UINT32_MAX) {
            out->stop_ids[out->stop_count++] = id;
        }
    }
}

static void ids_read(struct paramem_keys *keys, struct paramem_decoder_config *out)
{
    id_read(keys, "bos_token_id", out->vocab, &out->bos_id);
    id_read(keys, "pad_token_id", out->vocab, &out->pad_id);
    stops_read(keys, out);
}

/* Without do_sample transformers takes the likeliest, whatever else the file says. */
static void sampling_read(struct paramem_keys *keys, struct paramem_decoder_config *out)
{
    bool sample = paramem_keys_bool_or(keys, "do_sample", false);
    double temperature = paramem_keys_real_or(keys, "temperature", 0.0, 100.0, 1.0);
    double top_p = paramem_keys_real_or(keys, "top_p", 0.0, 1.0, 1.0);
    double min_p = paramem_keys_real_or(keys, "min_p", 0.0, 1.0, 0.0);
    uint64_t top_k = paramem_keys_count_or(keys, "top_k", 0, PARAMEM_VOCAB_MAX, 50);

    out->repetition = paramem_keys_real_or(keys, "repetition_penalty", 0.01, 100.0, 1.0);
    if (sample) {
        out->temperature = temperature;
        out->top_p = top_p > 0.0 ? top_p : 1.0;
        out->min_p = min_p;
        out->top_k = top_k;
    }
}

/* ---- the two files ------------------------------------------------------------------------- */

static enum memos_status network_of(
    const json_t *json, struct paramem_decoder_config *out, struct memos_error *err)
{
    struct paramem_keys keys = paramem_keys_of(json, config_name, err);
    architecture_read(&keys, out);
    if (keys.status != MEMOS_OK) {
        return keys.status;
    }
    refuse(&keys);
    numbers_read(&keys, out);
    window_read(&keys, out);
    rope_read(&keys, out);
    bool mistral = out->architecture == PARAMEM_MISTRAL || out->architecture == PARAMEM_LLAMA;
    out->bos_id = mistral && out->vocab > 1 ? 1 : UINT32_MAX;
    out->pad_id = UINT32_MAX;
    out->stop_ids[0] = 2;
    out->stop_count = mistral && out->vocab > 2;
    out->top_p = 1.0;
    out->repetition = 1.0;
    ids_read(&keys, out);
    return keys.status == MEMOS_OK ? paramem_decoder_config_check(out, config_name, err)
                                   : keys.status;
}

static enum memos_status generation_of(
    const json_t *json, struct paramem_decoder_config *out, struct memos_error *err)
{
    struct paramem_keys keys = paramem_keys_of(json, generation_name, err);
    ids_read(&keys, out);
    sampling_read(&keys, out);
    return keys.status;
}

enum memos_status paramem_decoder_config_parse(struct memos_bytes config,
    struct memos_bytes generation, struct paramem_decoder_config *out, struct memos_error *err)
{
    struct paramem_decoder_config read = {0};
    json_t *json = NULL;
    enum memos_status status =
        paramem_json_parse(config, &paramem_json_config, config_name, &json, err);
    if (status == MEMOS_OK) {
        status = network_of(json, &read, err);
        json_decref(json);
        json = NULL;
    }
    if (status == MEMOS_OK && generation.size > 0) {
        status = paramem_json_parse(generation, &paramem_json_config, generation_name, &json, err);
        if (status == MEMOS_OK) {
            status = generation_of(json, &read, err);
            json_decref(json);
        }
    }
    if (status == MEMOS_OK) {
        *out = read;
    }
    return status;
}

enum memos_status paramem_decoder_config_read(
    const char *folder, struct paramem_decoder_config *out, struct memos_error *err)
{
    struct memos_buffer config = {0}, generation = {0};
    struct memos_error missing;
    size_t most = paramem_json_config.bytes_max;
    enum memos_status status = paramem_file_read(folder, config_name, most, &config, err);
    if (status == MEMOS_OK) {
        status = paramem_file_read(folder, generation_name, most, &generation, &missing);
        if (status == MEMOS_NOT_FOUND) {
            status = MEMOS_OK;
        } else if (status != MEMOS_OK && err) {
            *err = missing;
        }
    }
    if (status == MEMOS_OK) {
        status = paramem_decoder_config_parse(
            memos_buffer_view(&config), memos_buffer_view(&generation), out, err);
    }
    memos_buffer_free(&config);
    memos_buffer_free(&generation);
    return status;
}
