/* The tokenizer from its files: tokenizer.json, or vocab.txt and tokenizer_config.json. */
#include "paramem/files.h"
#include "paramem/json.h"
#include "paramem/wordpiece_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static const char json_name[] = "tokenizer.json";
static const char vocab_name[] = "vocab.txt";

static const struct paramem_json_limits tokenizer_limits = {
    .bytes_max = PARAMEM_VOCAB_BYTES_MAX, .depth_max = 32, .values_max = (size_t)1 << 23};

#define ID_MAX (((uint32_t)1 << 22) - 1)
#define CHARS_MAX 65536
#define ADDED_MAX 4096

/* What is read, before it is built. */
struct plan {
    struct paramem_wordpiece *made;
    struct paramem_token *tokens;
    size_t count;
    const char *prefix; /* of pieces inside a word */
};

/* ---- building ------------------------------------------------------------------------------ */

static int compare_tokens(const void *a, const void *b)
{
    const struct paramem_token *left = a, *right = b;
    if (left->id != right->id) {
        return left->id < right->id ? -1 : 1;
    }
    return memos_bytes_compare(left->text, right->text);
}

static void hash_u32(crypto_generichash_state *state, uint32_t value)
{
    uint8_t bytes[4] = {
        (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    (void)crypto_generichash_update(state, bytes, sizeof bytes);
}

static void hash_token(crypto_generichash_state *state, const void *text, size_t size, uint32_t id)
{
    hash_u32(state, id);
    hash_u32(state, (uint32_t)size);
    (void)crypto_generichash_update(state, text, size);
}

static void digest_make(const struct plan *plan)
{
    struct paramem_wordpiece *made = plan->made;
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, NULL, 0, sizeof made->digest);
    hash_u32(&state, 1); /* of this digest's layout */
    hash_u32(&state, (uint32_t)(made->clean | made->chinese_chars << 1 | made->strip_accents << 2 |
                                made->lowercase << 3));
    hash_u32(&state, (uint32_t)made->chars_max);
    hash_u32(&state, made->cls);
    hash_u32(&state, made->sep);
    hash_u32(&state, made->unk);
    hash_token(&state, plan->prefix, strlen(plan->prefix), 0);
    for (size_t i = 0; i < plan->count; i++) {
        hash_token(
            &state, plan->tokens[i].text.data, plan->tokens[i].text.size, plan->tokens[i].id);
    }
    hash_u32(&state, UINT32_MAX);
    for (size_t i = 0; i < made->added_count; i++) {
        hash_token(&state, made->added[i].text, made->added[i].size, made->added[i].id);
    }
    (void)crypto_generichash_final(&state, made->digest, sizeof made->digest);
}

/* Ids are in order so that one vocabulary has one digest and one trie. */
static enum memos_status vocab_build(struct plan *plan, struct memos_error *err)
{
    struct paramem_wordpiece *made = plan->made;
    size_t total = 0;

    qsort(plan->tokens, plan->count, sizeof *plan->tokens, compare_tokens);
    for (size_t i = 0; i < plan->count; i++) {
        total += plan->tokens[i].text.size;
    }
    memos_assert(total <= PARAMEM_VOCAB_BYTES_MAX); /* they are parts of a file that small */
    enum memos_status status = paramem_vocab_init(&made->vocab, total, err);
    if (status != MEMOS_OK) {
        return status;
    }
    for (size_t i = 0; i < plan->count; i++) {
        struct paramem_token token = plan->tokens[i];
        made->ids_end = token.id >= made->ids_end ? (size_t)token.id + 1 : made->ids_end;
        if (token.text.size > 0) {
            paramem_vocab_add(&made->vocab, token.text, token.id);
        }
    }
    made->after = paramem_vocab_walk(&made->vocab, 0, memos_bytes_of(plan->prefix));
    return MEMOS_OK;
}

static enum memos_status added_add(
    struct paramem_wordpiece *made, const char *text, uint32_t id, struct memos_error *err)
{
    struct paramem_added *grown =
        realloc(made->added, (made->added_count + 1) * sizeof *made->added);
    if (grown) {
        made->added = grown;
        grown[made->added_count] = (struct paramem_added){strdup(text), strlen(text), id};
    }
    if (!grown || !grown[made->added_count].text) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the token %.40s", text);
    }
    made->added_count++;
    made->ids_end = id >= made->ids_end ? (size_t)id + 1 : made->ids_end;
    return MEMOS_OK;
}

/* ---- tokenizer.json ------------------------------------------------------------------------ */

/* The object `key`, whose "type" must be `type`. */
static struct paramem_keys part_of(
    struct paramem_keys *root, const char *key, const char *type, struct memos_error *err)
{
    const json_t *tree = paramem_keys_tree(root, key, JSON_OBJECT);
    const char *found = json_string_value(json_object_get(tree, "type"));
    if (root->status == MEMOS_OK && (!tree || !found || strcmp(found, type) != 0)) {
        paramem_keys_fail(
            root, MEMOS_UNSUPPORTED, "%s \"%.40s\"; %s works", key, found ? found : "(none)", type);
    }
    struct paramem_keys keys = {
        .object = tree, .name = root->name, .status = root->status, .err = err};
    return keys;
}

static void normalizer_read(
    struct paramem_keys *root, struct paramem_wordpiece *made, struct memos_error *err)
{
    struct paramem_keys keys = part_of(root, "normalizer", "BertNormalizer", err);
    made->clean = paramem_keys_bool_or(&keys, "clean_text", true);
    made->chinese_chars = paramem_keys_bool_or(&keys, "handle_chinese_chars", true);
    made->lowercase = paramem_keys_bool_or(&keys, "lowercase", true);
    made->strip_accents = paramem_keys_bool_or(&keys, "strip_accents", made->lowercase);
    root->status = keys.status;
    keys = part_of(root, "pre_tokenizer", "BertPreTokenizer", err);
    root->status = keys.status;
}

static bool id_of(const json_t *json, uint32_t *out)
{
    json_int_t id = json_is_integer(json) ? json_integer_value(json) : -1;
    if (id < 0 || id > (json_int_t)ID_MAX) {
        return false;
    }
    *out = (uint32_t)id;
    return true;
}

static void model_read(struct paramem_keys *root, struct plan *plan, struct memos_error *err)
{
    struct paramem_keys keys = part_of(root, "model", "WordPiece", err);
    const json_t *vocab = paramem_keys_tree(&keys, "vocab", JSON_OBJECT);
    const char *unk = paramem_keys_text_or(&keys, "unk_token", "[UNK]"), *token;
    json_t *id;

    plan->prefix = paramem_keys_text_or(&keys, "continuing_subword_prefix", "##");
    plan->made->chars_max =
        paramem_keys_count_or(&keys, "max_input_chars_per_word", 1, CHARS_MAX, 100);
    if (keys.status == MEMOS_OK && plan->prefix[0] == '\0') {
        paramem_keys_fail(&keys, MEMOS_UNSUPPORTED, "an empty continuing_subword_prefix");
    }
    if (keys.status == MEMOS_OK && !id_of(json_object_get(vocab, unk), &plan->made->unk)) {
        paramem_keys_fail(&keys, MEMOS_CORRUPT, "unk_token %.40s is not in the vocabulary", unk);
    }
    plan->tokens = calloc(json_object_size(vocab) + 1, sizeof *plan->tokens);
    if (keys.status == MEMOS_OK && !plan->tokens) {
        paramem_keys_fail(&keys, MEMOS_NO_MEMORY, "no memory for the vocabulary");
    }
    json_object_foreach((json_t *)(uintptr_t)vocab, token, id)
    {
        if (keys.status != MEMOS_OK) {
            break;
        }
        plan->tokens[plan->count].text = memos_bytes_of(token);
        if (!id_of(id, &plan->tokens[plan->count++].id)) {
            paramem_keys_fail(
                &keys, MEMOS_CORRUPT, "the id of %.40s is not from 0 to %u", token, ID_MAX);
        }
    }
    root->status = keys.status;
}

static void added_read(
    struct paramem_keys *root, struct paramem_wordpiece *made, struct memos_error *err)
{
    const json_t *list = paramem_keys_tree(root, "added_tokens", JSON_ARRAY);
    const json_t *entry;
    size_t i;

    if (json_array_size(list) > ADDED_MAX) {
        paramem_keys_fail(root, MEMOS_TOO_LARGE, "more than %d added tokens", ADDED_MAX);
        return;
    }
    json_array_foreach(list, i, entry)
    {
        struct paramem_keys keys = paramem_keys_of(entry, root->name, err);
        const char *text = paramem_keys_text_or(&keys, "content", "");
        uint32_t id = (uint32_t)paramem_keys_count(&keys, "id", 0, ID_MAX);
        bool plain = !paramem_keys_bool_or(&keys, "single_word", false) &&
                     !paramem_keys_bool_or(&keys, "lstrip", false) &&
                     !paramem_keys_bool_or(&keys, "rstrip", false) &&
                     !paramem_keys_bool_or(&keys, "normalized", false);
        if (keys.status == MEMOS_OK && text[0] == '\0') {
            paramem_keys_fail(&keys, MEMOS_CORRUPT, "an added token without content");
        } else if (keys.status == MEMOS_OK && !plain) {
            paramem_keys_fail(&keys, MEMOS_UNSUPPORTED,
                "added token %.40s: single_word, lstrip, rstrip, normalized must be false", text);
        }
        root->status = keys.status;
        if (root->status == MEMOS_OK) {
            root->status = added_add(made, text, id, err);
        }
        if (root->status != MEMOS_OK) {
            return;
        }
    }
}

/* The id of entry `index` of the template for one text. */
static bool template_id(const json_t *template, size_t index, const json_t *tokens, uint32_t *out)
{
    const json_t *special = json_object_get(json_array_get(template, index), "SpecialToken");
    const char *name = json_string_value(json_object_get(special, "id"));
    const json_t *ids = name ? json_object_get(json_object_get(tokens, name), "ids") : NULL;
    return json_array_size(ids) == 1 && id_of(json_array_get(ids, 0), out);
}

/* One special token before the text and one after it. */
static void processor_read(struct paramem_keys *root, struct paramem_wordpiece *made)
{
    const json_t *tree = paramem_keys_tree(root, "post_processor", JSON_OBJECT);
    const char *type = json_string_value(json_object_get(tree, "type"));
    bool good = false;

    if (type && strcmp(type, "BertProcessing") == 0) {
        good = id_of(json_array_get(json_object_get(tree, "cls"), 1), &made->cls) &&
               id_of(json_array_get(json_object_get(tree, "sep"), 1), &made->sep);
    } else if (type && strcmp(type, "TemplateProcessing") == 0) {
        const json_t *single = json_object_get(tree, "single");
        const json_t *tokens = json_object_get(tree, "special_tokens");
        const json_t *text = json_object_get(json_array_get(single, 1), "Sequence");
        good = json_array_size(single) == 3 && json_is_object(text) &&
               template_id(single, 0, tokens, &made->cls) &&
               template_id(single, 2, tokens, &made->sep);
    }
    if (!good) {
        paramem_keys_fail(root, MEMOS_UNSUPPORTED,
            "post_processor \"%.40s\"; one token before and one after a text works",
            type ? type : "(none)");
    }
    size_t last = made->cls > made->sep ? made->cls : made->sep;
    made->ids_end = last >= made->ids_end ? last + 1 : made->ids_end;
}

static enum memos_status json_plan(struct plan *plan, const json_t *json, struct memos_error *err)
{
    struct paramem_keys root = paramem_keys_of(json, json_name, err);
    normalizer_read(&root, plan->made, err);
    model_read(&root, plan, err);
    added_read(&root, plan->made, err);
    if (root.status == MEMOS_OK) {
        processor_read(&root, plan->made);
    }
    return root.status;
}

/* ---- vocab.txt ----------------------------------------------------------------------------- */

/* Lines become tokens; a carriage return before the line feed is not part of one. */
static enum memos_status lines_read(
    struct plan *plan, struct memos_bytes text, struct memos_error *err)
{
    const char *at = text.data, *end = at ? at + text.size : at;
    size_t lines = 1;

    if (!memos_bytes_utf8(text)) {
        return memos_fail(err, MEMOS_CORRUPT, "%s is not UTF-8", vocab_name);
    }
    for (const char *c = at; c < end; c++) {
        lines += *c == '\n';
    }
    if (lines > (size_t)ID_MAX + 1) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%s has %zu lines", vocab_name, lines);
    }
    plan->tokens = calloc(lines, sizeof *plan->tokens);
    if (!plan->tokens) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu tokens", lines);
    }
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at);
        size_t kept = size > 0 && at[size - 1] == '\r' ? size - 1 : size;
        plan->tokens[plan->count] =
            (struct paramem_token){memos_bytes_make(at, kept), (uint32_t)plan->count};
        plan->count++;
        at += size + (stop != NULL);
    }
    return MEMOS_OK;
}

/* The special tokens of config, by their ids in the vocabulary; those that pad and mask may be
 * missing. */
static enum memos_status specials_find(
    struct paramem_wordpiece *made, const struct paramem_config *config, struct memos_error *err)
{
    const struct {
        const char *text;
        uint32_t *id; /* NULL: may be missing */
    } specials[] = {
        {config->cls, &made->cls},
        {config->sep, &made->sep},
        {config->unk, &made->unk},
        {config->pad, NULL},
        {config->mask, NULL},
    };
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < sizeof specials / sizeof specials[0] && status == MEMOS_OK; i++) {
        uint32_t id = paramem_vocab_find(&made->vocab, memos_bytes_of(specials[i].text));
        if (id != PARAMEM_NO_ID) {
            status = added_add(made, specials[i].text, id, err);
        } else if (specials[i].id) {
            status =
                memos_fail(err, MEMOS_CORRUPT, "%s: no %s in it", vocab_name, specials[i].text);
        }
        if (specials[i].id) {
            *specials[i].id = id;
        }
    }
    return status;
}

/* ---- the whole ----------------------------------------------------------------------------- */

/* Build what is planned; config is of vocab.txt, and NULL for tokenizer.json. */
static enum memos_status plan_build(
    struct plan *plan, const struct paramem_config *config, struct memos_error *err)
{
    enum memos_status status = vocab_build(plan, err);
    if (status == MEMOS_OK && config) {
        status = specials_find(plan->made, config, err);
    }
    if (status == MEMOS_OK) {
        status = paramem_wordpiece_prepare(plan->made, err);
    }
    if (status == MEMOS_OK) {
        digest_make(plan);
    }
    return status;
}

static enum memos_status plan_end(
    struct plan *plan, enum memos_status status, struct paramem_wordpiece **out)
{
    free(plan->tokens);
    if (status == MEMOS_OK) {
        *out = plan->made;
    } else {
        paramem_wordpiece_close(&plan->made);
    }
    return status;
}

static enum memos_status plan_begin(struct plan *plan, struct memos_error *err)
{
    memos_assert(sodium_init() >= 0);
    *plan = (struct plan){.made = calloc(1, sizeof *plan->made), .prefix = "##"};
    return plan->made ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a tokenizer");
}

enum memos_status paramem_wordpiece_parse(
    struct memos_bytes text, struct paramem_wordpiece **out, struct memos_error *err)
{
    struct plan plan;
    json_t *json = NULL;
    enum memos_status status = paramem_json_parse(text, &tokenizer_limits, json_name, &json, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = plan_begin(&plan, err);
    if (status == MEMOS_OK) {
        status = json_plan(&plan, json, err);
    }
    if (status == MEMOS_OK) {
        status = plan_build(&plan, NULL, err);
    }
    status = plan_end(&plan, status, out);
    json_decref(json);
    return status;
}

enum memos_status paramem_wordpiece_vocab(struct memos_bytes text,
    const struct paramem_config *config, struct paramem_wordpiece **out, struct memos_error *err)
{
    struct plan plan;
    if (text.size > PARAMEM_VOCAB_BYTES_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "%s has %zu bytes", vocab_name, text.size);
    }
    enum memos_status status = plan_begin(&plan, err);
    if (status != MEMOS_OK) {
        return status;
    }
    plan.made->clean = true;
    plan.made->chinese_chars = config->chinese_chars;
    plan.made->strip_accents = config->strip_accents;
    plan.made->lowercase = config->lowercase;
    plan.made->chars_max = 100;
    status = lines_read(&plan, text, err);
    if (status == MEMOS_OK) {
        status = plan_build(&plan, config, err);
    }
    return plan_end(&plan, status, out);
}

enum memos_status paramem_wordpiece_open(const char *folder, const struct paramem_config *config,
    struct paramem_wordpiece **out, struct memos_error *err)
{
    struct memos_buffer text;
    enum memos_status status =
        paramem_file_read(folder, json_name, tokenizer_limits.bytes_max, &text, err);
    if (status == MEMOS_OK) {
        status = paramem_wordpiece_parse(memos_buffer_view(&text), out, err);
    } else if (status == MEMOS_NOT_FOUND) {
        status = paramem_file_read(folder, vocab_name, PARAMEM_VOCAB_BYTES_MAX, &text, err);
        if (status == MEMOS_OK) {
            status = paramem_wordpiece_vocab(memos_buffer_view(&text), config, out, err);
        }
    }
    memos_buffer_free(&text);
    return status;
}
