/* A tokenizer from tokenizer.json and what lies beside it. */
#include "paramem/json.h"
#include "paramem/json_scan.h"
#include "paramem/text.h"
#include "paramem/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

static const char json_name[] = "tokenizer.json";

/* Of what is left when vocabulary and merges are taken out, and of the other files. */
static const struct paramem_json_limits part_limits = {
    .bytes_max = (size_t)1 << 25, .depth_max = 32, .values_max = (size_t)1 << 20};

/* While a file is read: the first failure stays in keys of the part. */
struct load {
    struct paramem_tokenizer *made;
    struct memos_error *err;
    bool byte_level; /* the last split is ByteLevel */
};

static const char *type_of(const json_t *tree)
{
    const char *type = json_string_value(json_object_get(tree, "type"));
    return type ? type : "(none)";
}

static enum memos_status unsupported(struct load *load, const char *part, const json_t *tree)
{
    return memos_fail(
        load->err, MEMOS_UNSUPPORTED, "%s: %s \"%.60s\"", json_name, part, type_of(tree));
}

static enum memos_status corrupt(struct load *load, const char *what)
{
    return memos_fail(load->err, MEMOS_CORRUPT, "%s: %s", json_name, what);
}

/* A text that is kept. data is NULL when json is no string or too long. */
static struct memos_bytes text_keep(struct load *load, const json_t *json, size_t size_max)
{
    struct memos_bytes text = memos_bytes_make(json_string_value(json), json_string_length(json));
    if (!text.data || text.size > size_max) {
        return memos_bytes_make(NULL, 0);
    }
    text.data = memos_arena_copy(&load->made->texts, text);
    return text;
}

/* Apply `read` to a part, or, when it is a Sequence, to each part of it. */
typedef enum memos_status reader(struct load *load, const json_t *tree);

static enum memos_status each(struct load *load, const json_t *tree, const char *list, reader *read)
{
    if (json_is_null(tree) || !tree) {
        return MEMOS_OK;
    } else if (strcmp(type_of(tree), "Sequence") != 0) {
        return read(load, tree);
    }
    const json_t *parts = json_object_get(tree, list), *part;
    enum memos_status status = MEMOS_OK;
    size_t i;
    json_array_foreach(parts, i, part)
    {
        if (status == MEMOS_OK) {
            status = each(load, part, list, read);
        }
    }
    return status;
}

static void part_hash(struct load *load, const char *name, const json_t *tree)
{
    char *text = json_dumps(tree, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY);
    paramem_tokenizer_hash(load->made, name, memos_bytes_of(text));
    free(text);
}

/* {"String": "..."} or {"Regex": "..."}: a text, or a pattern. */
static enum memos_status pattern_read(struct load *load, const json_t *json,
    struct memos_bytes *out_text, struct paramem_pattern **out)
{
    const json_t *literal = json_object_get(json, "String");
    const json_t *regex = json_object_get(json, "Regex");
    *out_text = text_keep(load, literal ? literal : regex, PARAMEM_PATTERN_MAX);
    if (!out_text->data || out_text->size == 0) {
        return corrupt(load, "a pattern that is neither a String nor a Regex");
    }
    return literal ? MEMOS_OK : paramem_pattern_open(*out_text, out, load->err);
}

/* ---- normalisers --------------------------------------------------------------------------- */

static enum memos_status replace_read(
    struct load *load, const json_t *tree, struct paramem_normal *normal)
{
    normal->kind = PARAMEM_NORMAL_REPLACE;
    normal->with = text_keep(load, json_object_get(tree, "content"), PARAMEM_STEP_TEXT_MAX);
    if (!normal->with.data) {
        return corrupt(load, "a Replace without content");
    }
    return pattern_read(load, json_object_get(tree, "pattern"), &normal->text, &normal->pattern);
}

static enum memos_status normal_read(struct load *load, const json_t *tree)
{
    static const char *const names[] = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"};
    const char *type = type_of(tree);
    if (load->made->normals_count == PARAMEM_STEPS_MAX) {
        return memos_fail(
            load->err, MEMOS_TOO_LARGE, "more than %d normalisers", PARAMEM_STEPS_MAX);
    }
    struct paramem_normal *normal = &load->made->normals[load->made->normals_count++];
    part_hash(load, "normal", tree);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(type, names[i]) == 0) {
            normal->kind = (enum paramem_normal_kind)i;
            return MEMOS_OK;
        }
    }
    if (strcmp(type, "Prepend") == 0) {
        normal->kind = PARAMEM_NORMAL_PREPEND;
        normal->text = text_keep(load, json_object_get(tree, "prepend"), PARAMEM_STEP_TEXT_MAX);
        return normal->text.data ? MEMOS_OK : corrupt(load, "a Prepend without a text");
    } else if (strcmp(type, "Strip") == 0) {
        normal->kind = PARAMEM_NORMAL_STRIP;
        normal->left = json_is_true(json_object_get(tree, "strip_left"));
        normal->right = json_is_true(json_object_get(tree, "strip_right"));
        return MEMOS_OK;
    } else if (strcmp(type, "Replace") == 0) {
        return replace_read(load, tree, normal);
    }
    return unsupported(load, "normalizer", tree);
}

/* ---- splits -------------------------------------------------------------------------------- */

static struct paramem_split *split_new(struct load *load)
{
    if (load->made->splits_count == PARAMEM_STEPS_MAX) {
        return NULL;
    }
    return &load->made->splits[load->made->splits_count++];
}

static enum memos_status too_many(struct load *load)
{
    return memos_fail(load->err, MEMOS_TOO_LARGE, "more than %d pre-tokenizers", PARAMEM_STEPS_MAX);
}

static enum memos_status byte_level_read(struct load *load, const json_t *tree)
{
    load->byte_level = true;
    /* Absent means true, as in the library. */
    if (!json_is_false(json_object_get(tree, "add_prefix_space"))) {
        struct paramem_split *split = split_new(load);
        if (!split) {
            return too_many(load);
        }
        split->kind = PARAMEM_SPLIT_PREFIX_SPACE;
    }
    if (!json_is_false(json_object_get(tree, "use_regex"))) {
        return paramem_tokenizer_split(
            load->made, paramem_pattern_gpt2, PARAMEM_SPLIT_ISOLATED, load->err);
    }
    return MEMOS_OK;
}

static enum memos_status metaspace_read(
    struct load *load, const json_t *tree, struct paramem_split *split)
{
    const char *scheme = json_string_value(json_object_get(tree, "prepend_scheme"));
    split->kind = PARAMEM_SPLIT_METASPACE;
    split->behavior = PARAMEM_SPLIT_WITH_NEXT;
    split->text = text_keep(load, json_object_get(tree, "replacement"), 4);
    if (!split->text.data || split->text.size == 0) {
        return corrupt(load, "a Metaspace without replacement");
    }
    if (!scheme) { /* files of old */
        scheme = json_is_false(json_object_get(tree, "add_prefix_space")) ? "never" : "always";
    }
    split->scheme = strcmp(scheme, "always") == 0  ? PARAMEM_PREPEND_ALWAYS
                    : strcmp(scheme, "first") == 0 ? PARAMEM_PREPEND_FIRST
                                                   : PARAMEM_PREPEND_NEVER;
    if (split->scheme == PARAMEM_PREPEND_NEVER && strcmp(scheme, "never") != 0) {
        return corrupt(load, "a Metaspace with another prepend_scheme");
    }
    return json_is_false(json_object_get(tree, "split"))
               ? MEMOS_OK
               : paramem_pattern_literal(split->text, &split->pattern, load->err);
}

static enum memos_status pattern_split_read(
    struct load *load, const json_t *tree, struct paramem_split *split)
{
    static const char *const names[] = {
        "Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"};
    const char *behavior = json_string_value(json_object_get(tree, "behavior"));
    size_t i = 0;
    while (i < 5 && behavior && strcmp(behavior, names[i]) != 0) {
        i++;
    }
    if (!behavior || i == 5) {
        return corrupt(load, "a Split with another behavior");
    }
    split->behavior = (enum paramem_split_behavior)i;
    split->invert = json_is_true(json_object_get(tree, "invert"));
    enum memos_status status =
        pattern_read(load, json_object_get(tree, "pattern"), &split->text, &split->pattern);
    if (status == MEMOS_OK && !split->pattern) {
        status = paramem_pattern_literal(split->text, &split->pattern, load->err);
    }
    return status;
}

static enum memos_status split_read(struct load *load, const json_t *tree)
{
    const char *type = type_of(tree);
    part_hash(load, "split", tree);
    if (load->byte_level) { /* it makes letters of bytes, which no other part may see */
        return unsupported(load, "pre_tokenizer behind ByteLevel:", tree);
    } else if (strcmp(type, "ByteLevel") == 0) {
        return byte_level_read(load, tree);
    } else if (strcmp(type, "Digits") == 0) {
        bool each_digit = json_is_true(json_object_get(tree, "individual_digits"));
        return paramem_tokenizer_split(load->made, PARAMEM_PATTERN_DIGIT,
            each_digit ? PARAMEM_SPLIT_ISOLATED : PARAMEM_SPLIT_CONTIGUOUS, load->err);
    }
    struct paramem_split *split = split_new(load);
    if (!split) {
        return too_many(load);
    } else if (strcmp(type, "Split") == 0) {
        return pattern_split_read(load, tree, split);
    } else if (strcmp(type, "Metaspace") == 0) {
        return metaspace_read(load, tree, split);
    }
    return unsupported(load, "pre_tokenizer", tree);
}

/* ---- post-processors ----------------------------------------------------------------------- */

static bool id_of(const json_t *json, uint32_t *out)
{
    json_int_t id = json_is_integer(json) ? json_integer_value(json) : -1;
    if (id < 0 || id > (json_int_t)PARAMEM_TOKEN_ID_MAX) {
        return false;
    }
    *out = (uint32_t)id;
    return true;
}

/* The ids of one special token of a template, appended. */
static bool around_add(const json_t *piece, const json_t *tokens, uint32_t *ids, size_t *count)
{
    const json_t *special = json_object_get(piece, "SpecialToken"), *id;
    const char *name = json_string_value(json_object_get(special, "id"));
    const json_t *list = name ? json_object_get(json_object_get(tokens, name), "ids") : NULL;
    size_t i;
    json_array_foreach(list, i, id)
    {
        if (*count == PARAMEM_AROUND_MAX || !id_of(id, &ids[*count])) {
            return false;
        }
        ++*count;
    }
    return json_array_size(list) > 0;
}

static enum memos_status processor_read(struct load *load, const json_t *tree)
{
    struct paramem_tokenizer *made = load->made;
    const json_t *single = json_object_get(tree, "single"), *piece;
    const json_t *tokens = json_object_get(tree, "special_tokens");
    size_t sequences = 0, i;
    if (strcmp(type_of(tree), "ByteLevel") == 0) {
        return MEMOS_OK; /* of offsets only */
    } else if (strcmp(type_of(tree), "TemplateProcessing") != 0) {
        return unsupported(load, "post_processor", tree);
    }
    json_array_foreach(single, i, piece)
    {
        if (json_object_get(piece, "Sequence")) {
            sequences++;
        } else if (!around_add(piece, tokens, sequences ? made->after : made->before,
                       sequences ? &made->after_count : &made->before_count)) {
            return corrupt(load, "a template of special tokens that it does not list");
        }
    }
    return sequences == 1 ? MEMOS_OK : corrupt(load, "a template without its one text");
}

/* ---- decoders ------------------------------------------------------------------------------ */

static bool is_text(const json_t *json, const char *text)
{
    const char *value = json_string_value(json);
    return value && strcmp(value, text) == 0;
}

static enum memos_status blank_set(struct load *load, const json_t *json)
{
    struct memos_bytes blank = text_keep(load, json, PARAMEM_STEP_TEXT_MAX);
    if (!blank.data || blank.size == 0 || load->made->blank.size > 0) {
        return corrupt(load, "a decoder that replaces nothing, or twice");
    }
    load->made->blank = blank;
    return MEMOS_OK;
}

static enum memos_status decoder_read(struct load *load, const json_t *tree)
{
    struct paramem_tokenizer *made = load->made;
    const char *type = type_of(tree);
    bool first = made->decoder == PARAMEM_DECODE_JOINED;
    if (strcmp(type, "ByteLevel") == 0 && first) {
        made->decoder = PARAMEM_DECODE_BYTES;
        return MEMOS_OK;
    } else if (made->decoder == PARAMEM_DECODE_BYTES) {
        return unsupported(load, "decoder beside ByteLevel:", tree);
    }
    made->decoder = PARAMEM_DECODE_PIECES;
    if (strcmp(type, "Fuse") == 0) {
        return MEMOS_OK;
    } else if (strcmp(type, "ByteFallback") == 0) {
        made->byte_tokens = true;
        return MEMOS_OK;
    } else if (strcmp(type, "Replace") == 0 && is_text(json_object_get(tree, "content"), " ")) {
        return blank_set(load, json_object_get(json_object_get(tree, "pattern"), "String"));
    } else if (strcmp(type, "Metaspace") == 0) {
        const json_t *scheme = json_object_get(tree, "prepend_scheme");
        made->drop_first = scheme ? !is_text(scheme, "never")
                                  : !json_is_false(json_object_get(tree, "add_prefix_space"));
        return blank_set(load, json_object_get(tree, "replacement"));
    } else if (strcmp(type, "Strip") == 0 && is_text(json_object_get(tree, "content"), " ") &&
               json_integer_value(json_object_get(tree, "stop")) == 0 &&
               json_integer_value(json_object_get(tree, "start")) <= 1) {
        made->strip_count = json_integer_value(json_object_get(tree, "start")) == 1;
        return MEMOS_OK;
    }
    return unsupported(load, "decoder", tree);
}

/* ---- model and added tokens ---------------------------------------------------------------- */

static bool is_empty(const json_t *json)
{
    return !json || json_is_null(json) || json_string_length(json) == 0;
}

/* The switches of the model, whose tokens are there. */
static enum memos_status model_read(struct load *load, const json_t *model)
{
    struct paramem_bpe *bpe = &load->made->bpe;
    const char *type = json_string_value(json_object_get(model, "type"));
    const json_t *dropout = json_object_get(model, "dropout");
    const json_t *unknown = json_object_get(model, "unk_token");
    if (type && strcmp(type, "BPE") != 0) {
        return unsupported(load, "model", model);
    } else if (!is_empty(json_object_get(model, "continuing_subword_prefix")) ||
               !is_empty(json_object_get(model, "end_of_word_suffix")) ||
               (json_is_number(dropout) && json_number_value(dropout) != 0)) {
        return memos_fail(load->err, MEMOS_UNSUPPORTED,
            "%s: model: dropout, continuing_subword_prefix or end_of_word_suffix", json_name);
    }
    bpe->fallback = json_is_true(json_object_get(model, "byte_fallback"));
    bpe->fuse = json_is_true(json_object_get(model, "fuse_unk"));
    bpe->whole = json_is_true(json_object_get(model, "ignore_merges"));
    if (!is_empty(unknown)) {
        struct memos_bytes text =
            memos_bytes_make(json_string_value(unknown), json_string_length(unknown));
        bpe->unknown = paramem_lexicon_find_written(&load->made->lexicon, text, load->made->bytes);
        if (bpe->unknown == PARAMEM_TOKEN_NONE) {
            return corrupt(load, "unk_token is not in the vocabulary");
        }
    }
    uint32_t words[4] = {bpe->fallback, bpe->fuse, bpe->whole, bpe->unknown};
    paramem_tokenizer_hash(load->made, "model", memos_bytes_make(words, sizeof words));
    return MEMOS_OK;
}

static enum memos_status added_read(struct load *load, const json_t *list)
{
    enum memos_status status = MEMOS_OK;
    const json_t *entry;
    size_t i;
    json_array_foreach(list, i, entry)
    {
        const json_t *content = json_object_get(entry, "content");
        struct paramem_added_token added = {
            .text = memos_bytes_make(json_string_value(content), json_string_length(content)),
            .lstrip = json_is_true(json_object_get(entry, "lstrip")),
            .rstrip = json_is_true(json_object_get(entry, "rstrip")),
            .single_word = json_is_true(json_object_get(entry, "single_word")),
            .normalized = json_is_true(json_object_get(entry, "normalized")),
            .special = json_is_true(json_object_get(entry, "special")),
        };
        if (!id_of(json_object_get(entry, "id"), &added.id) || added.text.size == 0) {
            return corrupt(load, "an added token without id or content");
        }
        status = paramem_tokenizer_add(load->made, added, load->err);
        if (status != MEMOS_OK) {
            break;
        }
    }
    return status;
}

/* ---- the files beside it ------------------------------------------------------------------- */

/* A token as a string, or as an object with its content. */
static const json_t *token_text(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    return json_is_object(value) ? json_object_get(value, "content") : value;
}

static void specials_find(struct paramem_tokenizer *made, const json_t *config)
{
    const struct {
        const char *key;
        uint32_t *id;
    } specials[] = {{"bos_token", &made->bos}, {"eos_token", &made->eos}, {"unk_token", &made->unk},
        {"pad_token", &made->pad}};
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++) {
        const json_t *text = token_text(config, specials[i].key);
        if (*specials[i].id == PARAMEM_TOKEN_NONE && json_is_string(text)) {
            *specials[i].id = paramem_tokenizer_id(
                made, memos_bytes_make(json_string_value(text), json_string_length(text)));
        }
    }
}

/* The template, or of several that which is called "default". */
static enum memos_status template_find(struct load *load, const json_t *config)
{
    const json_t *found = json_object_get(config, "chat_template"), *entry;
    size_t i;
    if (json_is_array(found)) {
        const json_t *list = found;
        found = NULL;
        json_array_foreach(list, i, entry)
        {
            if (is_text(json_object_get(entry, "name"), "default")) {
                found = json_object_get(entry, "template");
            }
        }
    }
    if (json_is_string(found) && !load->made->chat_template) {
        load->made->chat_template = strdup(json_string_value(found));
        if (!load->made->chat_template) {
            return memos_fail(load->err, MEMOS_NO_MEMORY, "no memory for a chat template");
        }
    }
    return MEMOS_OK;
}

/* Llama's tokenizers put bos and eos around a text as tokenizer_config.json says, whatever
 * tokenizer.json does. */
static void around_set(struct paramem_tokenizer *made, const json_t *config)
{
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    const json_t *bos = json_object_get(config, "add_bos_token");
    const json_t *eos = json_object_get(config, "add_eos_token");
    if (!class || (strncmp(class, "LlamaTokenizer", 14) != 0 &&
                      strncmp(class, "CodeLlamaTokenizer", 18) != 0)) {
        return;
    }
    if (json_is_boolean(bos)) {
        made->before_count = json_is_true(bos) && made->bos != PARAMEM_TOKEN_NONE;
        made->before[0] = made->bos;
    }
    if (json_is_boolean(eos)) {
        made->after_count = json_is_true(eos) && made->eos != PARAMEM_TOKEN_NONE;
        made->after[0] = made->eos;
    }
}

/* NULL in *out when the file is not there. */
static enum memos_status beside_read(
    struct load *load, struct memos_bytes text, const char *name, json_t **out)
{
    return text.size == 0 ? MEMOS_OK : paramem_json_parse(text, &part_limits, name, out, load->err);
}

static enum memos_status files_beside(
    struct load *load, const struct paramem_tokenizer_files *files)
{
    json_t *config = NULL, *special = NULL;
    if (files->jinja.size > 0) {
        load->made->chat_template = strndup(files->jinja.data, files->jinja.size);
        if (!load->made->chat_template) {
            return memos_fail(load->err, MEMOS_NO_MEMORY, "no memory for a chat template");
        }
    }
    enum memos_status status = beside_read(load, files->config, "tokenizer_config.json", &config);
    if (status == MEMOS_OK) {
        status = beside_read(load, files->special, "special_tokens_map.json", &special);
    }
    if (status == MEMOS_OK) {
        specials_find(load->made, config);
        specials_find(load->made, special);
        around_set(load->made, config);
        status = template_find(load, config);
    }
    json_decref(config);
    json_decref(special);
    return status;
}

/* What is not read as a tree: views of the text. */
struct tokens {
    struct memos_bytes vocab, merges;
    size_t merges_count;
};

/* ---- the whole ----------------------------------------------------------------------------- */

/* tokenizer.json without the two values that are large: the views are parts of json, which is in
 * that order or the other. */
static enum memos_status rest_parse(struct memos_bytes json, struct memos_bytes first,
    struct memos_bytes second, json_t **out, struct memos_error *err)
{
    struct memos_buffer rest = memos_buffer_make(part_limits.bytes_max + 64);
    const uint8_t *at = json.data, *end = at + json.size;
    if ((const uint8_t *)first.data > (const uint8_t *)second.data) {
        struct memos_bytes swapped = first;
        first = second;
        second = swapped;
    }
    const struct memos_bytes cuts[2] = {first, second};
    for (size_t i = 0; i < 2; i++) {
        if (cuts[i].size > 0) {
            memos_buffer_bytes(&rest, at, (size_t)((const uint8_t *)cuts[i].data - at));
            memos_buffer_u8(&rest, '0');
            at = (const uint8_t *)cuts[i].data + cuts[i].size;
        }
    }
    memos_buffer_bytes(&rest, at, (size_t)(end - at));
    enum memos_status status =
        rest.failed
            ? memos_fail(err, MEMOS_TOO_LARGE, "%s: more than %zu bytes beside the tokens",
                  json_name, part_limits.bytes_max)
            : paramem_json_parse(memos_buffer_view(&rest), &part_limits, json_name, out, err);
    memos_buffer_free(&rest);
    return status;
}

static enum memos_status parts_read(
    struct load *load, const json_t *json, const struct tokens *tokens)
{
    struct paramem_tokenizer *made = load->made;
    const json_t *model = json_object_get(json, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type && strcmp(type, "BPE") != 0) {
        return unsupported(load, "model", model);
    }
    enum memos_status status =
        each(load, json_object_get(json, "normalizer"), "normalizers", normal_read);
    if (status == MEMOS_OK) {
        status = each(load, json_object_get(json, "pre_tokenizer"), "pretokenizers", split_read);
    }
    if (status == MEMOS_OK) {
        made->bytes = load->byte_level;
        status = paramem_tokenizer_model(
            made, tokens->vocab, tokens->merges, tokens->merges_count, load->err);
    }
    if (status == MEMOS_OK) {
        status = model_read(load, model);
    }
    if (status == MEMOS_OK) {
        status = added_read(load, json_object_get(json, "added_tokens"));
    }
    if (status == MEMOS_OK) {
        status = each(load, json_object_get(json, "post_processor"), "processors", processor_read);
    }
    if (status == MEMOS_OK) {
        status = each(load, json_object_get(json, "decoder"), "decoders", decoder_read);
    }
    return status;
}

/* Ids that the post-processor adds must be tokens. */
static enum memos_status around_check(struct load *load)
{
    struct paramem_tokenizer *made = load->made;
    uint32_t counts[2] = {(uint32_t)made->before_count, (uint32_t)made->after_count};
    for (size_t i = 0; i < made->before_count + made->after_count; i++) {
        uint32_t id =
            i < made->before_count ? made->before[i] : made->after[i - made->before_count];
        if (id >= made->lexicon.ids_end) {
            return memos_fail(load->err, MEMOS_CORRUPT,
                "%s: post_processor: no token has the id %u", json_name, id);
        }
    }
    paramem_tokenizer_hash(made, "around", memos_bytes_make(counts, sizeof counts));
    paramem_tokenizer_hash(
        made, "", memos_bytes_make(made->before, made->before_count * sizeof *made->before));
    paramem_tokenizer_hash(
        made, "", memos_bytes_make(made->after, made->after_count * sizeof *made->after));
    return MEMOS_OK;
}

/* Where vocabulary and merges lie: empty views when they do not. */
static void model_find(struct memos_bytes json, struct tokens *out)
{
    struct paramem_scan scan = paramem_scan_of(json);
    *out = (struct tokens){.merges_count = 0};
    if (!paramem_scan_enter(&scan, "model") || !paramem_scan_has(&scan, '{')) {
        return;
    }
    while (!scan.failed && paramem_scan_peek(&scan) == '"') {
        struct memos_bytes key = paramem_scan_skip(&scan);
        paramem_scan_expect(&scan, ':');
        struct memos_bytes value = paramem_scan_skip(&scan);
        if (!scan.failed && memos_bytes_equal(key, memos_bytes_of("\"vocab\""))) {
            out->vocab = value;
        } else if (!scan.failed && memos_bytes_equal(key, memos_bytes_of("\"merges\""))) {
            out->merges = value;
            out->merges_count = scan.items;
        }
        if (!paramem_scan_has(&scan, ',')) {
            break;
        }
    }
}

static enum memos_status load_all(struct load *load, const struct paramem_tokenizer_files *files)
{
    struct tokens tokens;
    json_t *json = NULL;
    if (files->json.size == 0 || paramem_text_valid(files->json) != files->json.size) {
        return corrupt(load, "not UTF-8");
    }
    model_find(files->json, &tokens);
    enum memos_status status =
        rest_parse(files->json, tokens.vocab, tokens.merges, &json, load->err);
    if (status == MEMOS_OK) {
        status = parts_read(load, json, &tokens);
    }
    json_decref(json);
    if (status == MEMOS_OK) {
        status = files_beside(load, files);
    }
    if (status == MEMOS_OK) {
        status = around_check(load);
    }
    return status == MEMOS_OK ? paramem_tokenizer_prepare(load->made, load->err) : status;
}

enum memos_status paramem_tokenizer_parse(const struct paramem_tokenizer_files *files,
    struct paramem_tokenizer **out, struct memos_error *err)
{
    struct load load = {.err = err};
    enum memos_status status = paramem_tokenizer_new(&load.made, err);
    if (status == MEMOS_OK) {
        status = load_all(&load, files);
    }
    if (status == MEMOS_OK) {
        *out = load.made;
    } else {
        paramem_tokenizer_close(&load.made);
    }
    return status;
}
