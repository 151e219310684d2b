#include "paramem/config.h"

#include "paramem/files.h"
#include "paramem/json.h"

#include <stdlib.h>
#include <string.h>

static const char *const file_names[PARAMEM_CONFIG_FILES] = {
    [PARAMEM_CONFIG_NETWORK] = "config.json",
    [PARAMEM_CONFIG_MODULES] = "modules.json",
    [PARAMEM_CONFIG_POOLING] = "pooling's config.json",
    [PARAMEM_CONFIG_LENGTH] = "sentence_bert_config.json",
    [PARAMEM_CONFIG_PROMPTS] = "config_sentence_transformers.json",
    [PARAMEM_CONFIG_TOKENIZER] = "tokenizer_config.json",
};

/* ---- config.json --------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum kern_activation act;
} activations[] = {
    {"gelu", KERN_GELU},
    {"gelu_new", KERN_GELU_TANH},
    {"gelu_pytorch_tanh", KERN_GELU_TANH},
    {"relu", KERN_RELU},
    {"silu", KERN_SILU},
    {"swish", KERN_SILU},
};

static void activation_read(struct paramem_keys *keys, struct paramem_config *out)
{
    const char *name = paramem_keys_text_or(keys, "hidden_act", "gelu");
    for (size_t i = 0; i < sizeof activations / sizeof activations[0]; i++) {
        if (strcmp(name, activations[i].name) == 0) {
            out->act = activations[i].act;
            return;
        }
    }
    paramem_keys_fail(keys, MEMOS_UNSUPPORTED,
        "hidden_act \"%.40s\"; gelu, gelu_new, gelu_pytorch_tanh, relu, silu work", name);
}

/* Only BERT's own encoder: its relatives number positions or share layers in other ways. */
static void architecture_check(struct paramem_keys *keys)
{
    const json_t *list = paramem_keys_tree(keys, "architectures", JSON_ARRAY);
    const char *named = json_string_value(json_array_get(list, 0));
    const char *type = paramem_keys_text_or(keys, "model_type", NULL);
    bool bert = type ? strcmp(type, "bert") == 0 : named && strncmp(named, "Bert", 4) == 0;

    if (!bert) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED,
            "the architecture %.60s (model_type \"%.40s\"); BertModel (model_type \"bert\") works",
            named ? named : "(none)", type ? type : "");
    }
    const char *position = paramem_keys_text_or(keys, "position_embedding_type", "absolute");
    if (strcmp(position, "absolute") != 0) {
        paramem_keys_fail(
            keys, MEMOS_UNSUPPORTED, "position_embedding_type \"%.40s\"; absolute works", position);
    }
    if (paramem_keys_bool_or(keys, "is_decoder", false) ||
        paramem_keys_bool_or(keys, "add_cross_attention", false)) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED, "a decoder; encoders work");
    }
    if (paramem_keys_tree(keys, "quantization_config", JSON_OBJECT)) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED, "quantized weights; F32, F16 and BF16 work");
    }
}

static void network_read(struct paramem_keys *keys, struct paramem_config *out)
{
    architecture_check(keys);
    activation_read(keys, out);
    out->layers = paramem_keys_count(keys, "num_hidden_layers", 1, 1024);
    out->hidden = paramem_keys_count(keys, "hidden_size", 1, 16384);
    out->heads = paramem_keys_count(keys, "num_attention_heads", 1, 1024);
    out->intermediate = paramem_keys_count(keys, "intermediate_size", 1, 65536);
    out->vocab = paramem_keys_count(keys, "vocab_size", 1, (uint64_t)1 << 22);
    out->positions = paramem_keys_count(keys, "max_position_embeddings", 3, 65536);
    out->types = paramem_keys_count_or(keys, "type_vocab_size", 1, 1024, 2);
    out->eps = (float)paramem_keys_real_or(keys, "layer_norm_eps", 0.0, 1.0, 1e-12);
    if (keys->status == MEMOS_OK && out->hidden % out->heads != 0) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "hidden_size %zu is no multiple of %zu heads",
            out->hidden, out->heads);
    }
    out->tokens_max = out->positions;
}

/* ---- modules.json and what it names -------------------------------------------------------- */

/* "sentence_transformers.models.Pooling", and the same class under its newer names. */
static bool module_is(const char *type, const char *class)
{
    const char *dot = strrchr(type, '.');
    return strncmp(type, "sentence_transformers.", 22) == 0 && strcmp(dot + 1, class) == 0;
}

/* A folder of one name, inside the model's. */
static bool inside(const char *path)
{
    return path[0] != '.' && path[0] != '\0' && !strchr(path, '/') && strlen(path) < 200;
}

/* A module path that reads the pooling's file; `out_path` gets 200 bytes. */
static void module_read(struct paramem_keys *keys, const json_t *module, size_t index,
    struct paramem_config *out, char *out_path)
{
    struct paramem_keys inner = paramem_keys_of(module, keys->name, keys->err);
    const char *type = paramem_keys_text_or(&inner, "type", "");
    const char *path = paramem_keys_text_or(&inner, "path", "");

    if (inner.status != MEMOS_OK) {
        keys->status = inner.status;
    } else if (index == 0 && module_is(type, "Transformer") && path[0] == '\0') {
        return;
    } else if (index == 1 && module_is(type, "Pooling")) {
        if (!inside(path)) {
            paramem_keys_fail(keys, MEMOS_CORRUPT, "\"%.60s\" is no folder of the model", path);
            return;
        }
        memcpy(out_path, path, strlen(path) + 1);
    } else if (index == 2 && module_is(type, "Normalize")) {
        out->normalize = true;
    } else {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED,
            "module %zu is \"%.80s\"; Transformer, Pooling, Normalize work, in this order", index,
            type);
    }
}

static enum memos_status modules_read(
    const json_t *json, struct paramem_config *out, char *out_path, struct memos_error *err)
{
    struct paramem_keys keys = {
        .name = file_names[PARAMEM_CONFIG_MODULES], .status = MEMOS_OK, .err = err};
    size_t count = json_array_size(json);

    out->normalize = false;
    if (count == 0 || count > 3) {
        paramem_keys_fail(&keys, MEMOS_CORRUPT, "a list of one to three modules was expected");
    }
    for (size_t i = 0; i < count && keys.status == MEMOS_OK; i++) {
        module_read(&keys, json_array_get(json, i), i, out, out_path);
    }
    if (keys.status == MEMOS_OK && count < 2) {
        paramem_keys_fail(&keys, MEMOS_UNSUPPORTED, "no pooling; a vector for each token");
    }
    return keys.status;
}

static const struct {
    const char *key, *name;
    enum paramem_pooling pooling; /* 0: not supported */
} poolings[] = {
    {"pooling_mode_mean_tokens", "mean", PARAMEM_POOL_MEAN},
    {"pooling_mode_cls_token", "cls", PARAMEM_POOL_CLS},
    {"pooling_mode_max_tokens", "max", 0},
    {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", 0},
    {"pooling_mode_weightedmean_tokens", "weightedmean", 0},
    {"pooling_mode_lasttoken", "lasttoken", 0},
};
#define POOLINGS_COUNT (sizeof poolings / sizeof poolings[0])

/* Newer files name one mode, older ones have a switch for each. */
static void pooling_read(struct paramem_keys *keys, struct paramem_config *out)
{
    const char *name = paramem_keys_text_or(keys, "pooling_mode", NULL);
    size_t found = 0, which = 0;

    for (size_t i = 0; i < POOLINGS_COUNT; i++) {
        bool on = name ? strcmp(name, poolings[i].name) == 0
                       : paramem_keys_bool_or(keys, poolings[i].key, false);
        if (on) {
            found++;
            which = i;
        }
    }
    if (found != 1 || !poolings[which].pooling) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED, "pooling \"%.40s\"; one of mean, cls works",
            found > 1    ? "several together"
            : found == 1 ? poolings[which].name
            : name       ? name
                         : "");
    }
    out->pooling = poolings[which].pooling;
    uint64_t dims = paramem_keys_count_or(keys, "word_embedding_dimension", 1, 16384, out->hidden);
    dims = paramem_keys_count_or(keys, "embedding_dimension", 1, 16384, dims);
    if (keys->status == MEMOS_OK && dims != out->hidden) {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "pools vectors of %zu, the model has %zu",
            (size_t)dims, out->hidden);
    }
    if (!paramem_keys_bool_or(keys, "include_prompt", true)) {
        paramem_keys_fail(keys, MEMOS_UNSUPPORTED, "include_prompt false");
    }
}

/* ---- lengths, prompts, the tokenizer ------------------------------------------------------- */

static void length_read(struct paramem_keys *keys, struct paramem_config *out, bool *found)
{
    uint64_t most = paramem_keys_count_or(keys, "max_seq_length", 1, (uint64_t)1 << 31, 0);
    *found = most != 0;
    if (*found) {
        out->tokens_max = most < out->positions ? most : out->positions;
    }
}

static void text_copy(struct paramem_keys *keys, const char *text, char *out, size_t size)
{
    if (strlen(text) >= size) {
        paramem_keys_fail(
            keys, MEMOS_TOO_LARGE, "\"%.40s...\" has more than %zu bytes", text, size - 1);
        return;
    }
    memcpy(out, text, strlen(text) + 1);
}

/* Questions take the prompt "query"; passages the first of "document", "passage" and "corpus" that
 * says something, since sentence-transformers writes empty ones. */
static void prompts_read(struct paramem_keys *keys, struct paramem_config *out)
{
    static const char *const names[] = {"document", "passage", "corpus"};
    const json_t *tree = paramem_keys_tree(keys, "prompts", JSON_OBJECT);
    const char *passage = "";
    if (keys->status != MEMOS_OK || !tree) {
        return;
    }
    struct paramem_keys prompts = paramem_keys_of(tree, keys->name, keys->err);
    const char *query = paramem_keys_text_or(&prompts, "query", "");
    for (size_t i = 0; i < sizeof names / sizeof names[0] && passage[0] == '\0'; i++) {
        passage = paramem_keys_text_or(&prompts, names[i], "");
    }
    keys->status = prompts.status;
    text_copy(keys, query, out->query_prefix, sizeof out->query_prefix);
    text_copy(keys, passage, out->passage_prefix, sizeof out->passage_prefix);
}

/* A special token: a string, or an object with its content. */
static void special_read(
    struct paramem_keys *keys, const char *key, const char *fallback, char *out)
{
    const json_t *value = json_object_get(keys->object, key);
    const char *text = fallback;
    if (json_is_object(value)) {
        text = json_string_value(json_object_get(value, "content"));
    } else if (value && !json_is_null(value)) {
        text = json_string_value(value);
    }
    if (!text || text[0] == '\0') {
        paramem_keys_fail(keys, MEMOS_CORRUPT, "%s must be a token", key);
        return;
    }
    text_copy(keys, text, out, PARAMEM_NAME_BYTES);
}

static void tokenizer_read(struct paramem_keys *keys, struct paramem_config *out, bool length_known)
{
    if (!length_known) {
        /* Some say 10^30 for "no limit": not a count, but no mistake. */
        double most = paramem_keys_real_or(keys, "model_max_length", 1.0, 1e40, 1e40);
        out->tokens_max = most < (double)out->positions ? (size_t)most : out->positions;
    }
    out->lowercase = paramem_keys_bool_or(keys, "do_lower_case", true);
    out->chinese_chars = paramem_keys_bool_or(keys, "tokenize_chinese_chars", true);
    out->strip_accents = paramem_keys_bool_or(keys, "strip_accents", out->lowercase);
    special_read(keys, "cls_token", "[CLS]", out->cls);
    special_read(keys, "sep_token", "[SEP]", out->sep);
    special_read(keys, "unk_token", "[UNK]", out->unk);
    special_read(keys, "pad_token", "[PAD]", out->pad);
    special_read(keys, "mask_token", "[MASK]", out->mask);
}

/* ---- all of them --------------------------------------------------------------------------- */

/* Texts by file; the pooling's is asked for once its folder is known. */
struct source {
    enum memos_status (*get)(const struct source *source, enum paramem_config_file file,
        const char *folder, struct memos_buffer *out, bool *out_there, struct memos_error *err);
    const char *folder;
    const struct memos_bytes *texts;
};

static enum memos_status json_get(const struct source *source, enum paramem_config_file file,
    const char *folder, json_t **out, struct memos_error *err)
{
    struct memos_buffer text = {0};
    bool there = false;
    *out = NULL;
    enum memos_status status = source->get(source, file, folder, &text, &there, err);
    if (status == MEMOS_OK && there) {
        status = paramem_json_parse(
            memos_buffer_view(&text), &paramem_json_config, file_names[file], out, err);
    }
    memos_buffer_free(&text);
    return status;
}

static enum memos_status pooling_get(
    const struct source *source, struct paramem_config *out, struct memos_error *err)
{
    char path[256] = "";
    json_t *json = NULL;

    out->pooling = PARAMEM_POOL_MEAN;
    enum memos_status status = json_get(source, PARAMEM_CONFIG_MODULES, "", &json, err);
    if (status != MEMOS_OK || !json) {
        return status;
    }
    status = modules_read(json, out, path, err);
    json_decref(json);
    json = NULL;
    if (status == MEMOS_OK) {
        status = json_get(source, PARAMEM_CONFIG_POOLING, path, &json, err);
    }
    if (status == MEMOS_OK && !json) {
        status = memos_fail(err, MEMOS_NOT_FOUND, "%.60s/config.json is missing", path);
    }
    if (status == MEMOS_OK) {
        struct paramem_keys keys = paramem_keys_of(json, file_names[PARAMEM_CONFIG_POOLING], err);
        pooling_read(&keys, out);
        status = keys.status;
    }
    json_decref(json);
    return status;
}

/* The three small ones; an absent file is an empty object. */
static enum memos_status rest_get(
    const struct source *source, struct paramem_config *out, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    bool length_known = false;

    for (int file = PARAMEM_CONFIG_LENGTH; file < PARAMEM_CONFIG_FILES && status == MEMOS_OK;
         file++) {
        json_t *json = NULL;
        status = json_get(source, file, "", &json, err);
        if (status == MEMOS_OK && !json && !(json = json_object())) {
            status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for %s", file_names[file]);
        }
        if (status != MEMOS_OK) {
            return status;
        }
        struct paramem_keys keys = paramem_keys_of(json, file_names[file], err);
        if (file == PARAMEM_CONFIG_LENGTH) {
            length_read(&keys, out, &length_known);
        } else if (file == PARAMEM_CONFIG_PROMPTS) {
            prompts_read(&keys, out);
        } else {
            tokenizer_read(&keys, out, length_known);
        }
        status = keys.status;
        json_decref(json);
    }
    if (status == MEMOS_OK && out->tokens_max < 3) {
        status = memos_fail(err, MEMOS_CORRUPT, "texts of at most %zu tokens", out->tokens_max);
    }
    return status;
}

static enum memos_status config_get(
    const struct source *source, struct paramem_config *out, struct memos_error *err)
{
    struct paramem_config config = {0};
    json_t *json = NULL;
    enum memos_status status = json_get(source, PARAMEM_CONFIG_NETWORK, "", &json, err);
    if (status == MEMOS_OK && !json) {
        status = memos_fail(err, MEMOS_NOT_FOUND, "config.json is missing");
    }
    if (status == MEMOS_OK) {
        struct paramem_keys keys = paramem_keys_of(json, file_names[PARAMEM_CONFIG_NETWORK], err);
        network_read(&keys, &config);
        status = keys.status;
    }
    json_decref(json);
    if (status == MEMOS_OK) {
        status = pooling_get(source, &config, err);
    }
    if (status == MEMOS_OK) {
        status = rest_get(source, &config, err);
    }
    if (status == MEMOS_OK) {
        *out = config;
    }
    return status;
}

static enum memos_status get_file(const struct source *source, enum paramem_config_file file,
    const char *folder, struct memos_buffer *out, bool *out_there, struct memos_error *err)
{
    char path[PARAMEM_PATH_BYTES];
    const char *name = file == PARAMEM_CONFIG_POOLING ? "config.json" : file_names[file];
    struct memos_error missing;
    enum memos_status status = paramem_path(source->folder, folder, path, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = paramem_file_read(path, name, paramem_json_config.bytes_max, out, &missing);
    *out_there = status == MEMOS_OK;
    if (status == MEMOS_NOT_FOUND && file != PARAMEM_CONFIG_NETWORK) {
        return MEMOS_OK;
    }
    if (status != MEMOS_OK && err) {
        *err = missing;
    }
    return status;
}

static enum memos_status get_text(const struct source *source, enum paramem_config_file file,
    const char *folder, struct memos_buffer *out, bool *out_there, struct memos_error *err)
{
    (void)folder;
    struct memos_bytes text = source->texts[file];
    *out = memos_buffer_make(text.size);
    memos_buffer_bytes(out, text.data, text.size);
    *out_there = text.data != NULL;
    return out->failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for %s", file_names[file])
                       : MEMOS_OK;
}

enum memos_status paramem_config_read(
    const char *folder, struct paramem_config *out, struct memos_error *err)
{
    struct source source = {.get = get_file, .folder = folder};
    return config_get(&source, out, err);
}

enum memos_status paramem_config_parse(const struct memos_bytes texts[PARAMEM_CONFIG_FILES],
    struct paramem_config *out, struct memos_error *err)
{
    struct source source = {.get = get_text, .texts = texts};
    return config_get(&source, out, err);
}
