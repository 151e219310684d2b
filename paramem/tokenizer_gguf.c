/* A tokenizer out of a GGUF file's metadata.
 *
 * "gpt2" is byte-level BPE with merges, "llama" SentencePiece's with scores; tokenizer.ggml.pre
 * names what text is split by. The names are llama.cpp's; what they mean here is what the family's
 * tokenizer.json says. */
#include "paramem/gguf.h"
#include "paramem/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

#define PIECE_MAX 512 /* longer pieces are never made: no real one is near */

#define LLAMA3                                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"                       \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2                                                                                      \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"                            \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN                                                                                     \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"    \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"   \
    "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK3                                                                                  \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"           \
    "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What a name of tokenizer.ggml.pre stands for. */
static const struct pre {
    const char *name, *patterns[4];
    bool whole, bos, nfc;
} all_pre[] = {
    {"llama-bpe", {LLAMA3}, true, true, false},
    {"llama3", {LLAMA3}, true, true, false},
    {"llama-v3", {LLAMA3}, true, true, false},
    {"qwen2", {QWEN2}, false, false, true},
    {"deepseek-r1-qwen", {QWEN2}, false, false, true},
    {"smollm", {PARAMEM_PATTERN_DIGIT, paramem_pattern_gpt2}, false, false, false},
    {"gpt-2", {paramem_pattern_gpt2}, false, false, false},
    {"tekken", {TEKKEN}, true, true, false},
    {"deepseek-v3",
        {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+", DEEPSEEK3},
        false, true, false},
    {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", paramem_pattern_gpt2, "\\p{N}+", "[0-9][0-9][0-9]"},
        false, false, false},
};

struct load {
    struct paramem_tokenizer *made;
    const struct paramem_gguf *gguf;
    const struct paramem_gguf_value *tokens, *types, *scores, *merges; /* types, scores: or NULL */
    const struct pre *pre;                                             /* NULL: SentencePiece */
    struct memos_error *err;
};

static enum memos_status corrupt(struct load *load, const char *what)
{
    return memos_fail(load->err, MEMOS_CORRUPT, "GGUF: tokenizer.ggml.%s", what);
}

static const struct paramem_gguf_value *find(
    const struct load *load, const char *key, enum paramem_gguf_type type)
{
    const struct paramem_gguf_value *value = paramem_gguf_find(load->gguf, key);
    return value && value->type == type ? value : NULL;
}

static bool switch_of(const struct load *load, const char *key, bool fallback)
{
    const struct paramem_gguf_value *value = find(load, key, PARAMEM_GGUF_BOOL);
    return value ? value->count != 0 : fallback;
}

static uint32_t id_of(const struct load *load, const char *key)
{
    const struct paramem_gguf_value *value = find(load, key, PARAMEM_GGUF_COUNT);
    return value && value->count < load->tokens->items ? (uint32_t)value->count
                                                       : PARAMEM_TOKEN_NONE;
}

static int type_at(const struct load *load, size_t id)
{
    double type = load->types ? paramem_gguf_real_at(load->types, id) : TYPE_NORMAL;
    return type >= TYPE_NORMAL && type <= TYPE_BYTE ? (int)type : TYPE_NORMAL;
}

/* ---- tokens -------------------------------------------------------------------------------- */

static enum memos_status tokens_read(struct load *load)
{
    struct paramem_lexicon *lexicon = &load->made->lexicon;
    size_t count = load->tokens->items;
    struct paramem_entry *entries = calloc(count, sizeof *entries);
    bool kept = entries != NULL;
    paramem_lexicon_init(lexicon, PARAMEM_POOL_MAX);
    for (size_t i = 0; i < count && kept; i++) {
        entries[i].id = (uint32_t)i;
        kept = paramem_lexicon_keep(
            lexicon, paramem_gguf_text_at(load->tokens, i), &entries[i].written);
    }
    enum memos_status status =
        kept ? paramem_tokenizer_tokens(load->made, entries, count, load->err)
             : memos_fail(load->err, MEMOS_NO_MEMORY, "no memory for %zu tokens", count);
    free(entries);
    return status;
}

/* Tokens of control and of users are cut out of the text. */
static enum memos_status added_read(struct load *load)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < load->tokens->items && status == MEMOS_OK; i++) {
        int type = type_at(load, i);
        struct paramem_added_token added = {.text = paramem_gguf_text_at(load->tokens, i),
            .id = (uint32_t)i,
            .special = type != TYPE_USER};
        if ((type == TYPE_CONTROL || type == TYPE_USER || type == TYPE_UNKNOWN) &&
            added.text.size > 0) {
            status = paramem_tokenizer_add(load->made, added, load->err);
        }
    }
    return status;
}

/* ---- merges -------------------------------------------------------------------------------- */

static enum memos_status merges_read(struct load *load)
{
    struct memos_buffer texts = memos_buffer_make((size_t)1 << 20);
    size_t count = load->merges ? load->merges->items : 0;
    struct paramem_merges merges = paramem_merges_of(load->made);
    enum memos_status status = paramem_tokenizer_merges(load->made, count, load->err);
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        struct memos_bytes merge = paramem_gguf_text_at(load->merges, i);
        const uint8_t *at = merge.data;
        const uint8_t *blank = merge.size > 1 ? memchr(at + 1, ' ', merge.size - 1) : NULL;
        size_t left = blank ? (size_t)(blank - at) : 0;
        memos_buffer_reset(&texts);
        memos_buffer_bytes(&texts, at, left);
        memos_buffer_bytes(
            &texts, at + left + (blank != NULL), merge.size - left - (blank != NULL));
        status =
            left == 0 || left == texts.size || texts.failed
                ? memos_fail(load->err, MEMOS_CORRUPT, "GGUF: merge %zu is no pair of texts", i)
                : paramem_merges_add(&merges, memos_buffer_view(&texts), left, load->err);
    }
    if (status == MEMOS_OK) {
        status = paramem_merges_flush(&merges, load->err);
    }
    paramem_merges_free(&merges);
    memos_buffer_free(&texts);
    return status;
}

/* A token and its score: merges that make the token of the highest score come first. */
struct scored {
    double score;
    uint32_t id;
};

static int higher_first(const void *a, const void *b)
{
    const struct scored *left = a, *right = b;
    if (left->score != right->score) {
        return left->score > right->score ? -1 : 1;
    }
    return (left->id > right->id) - (left->id < right->id);
}

/* All ways to make a token of two; add: they become merges. Returns how many. */
static size_t halves(struct load *load, uint32_t id, uint32_t rank, bool add)
{
    const struct paramem_lexicon *lexicon = &load->made->lexicon;
    struct memos_bytes text = paramem_lexicon_view(lexicon, lexicon->tokens[id].key);
    const uint8_t *at = text.data;
    size_t count = 0;
    if (text.size > PIECE_MAX) { /* each cut of it is hashed */
        return 0;
    }
    for (size_t cut = 1; cut < text.size; cut++) {
        if ((at[cut] & 0xC0) == 0x80) {
            continue;
        }
        uint32_t left = paramem_lexicon_find(lexicon, memos_bytes_make(at, cut), false);
        uint32_t right =
            left == PARAMEM_TOKEN_NONE
                ? PARAMEM_TOKEN_NONE
                : paramem_lexicon_find(lexicon, memos_bytes_make(at + cut, text.size - cut), false);
        if (right != PARAMEM_TOKEN_NONE) {
            count++;
            if (add) {
                paramem_bpe_pair(&load->made->bpe, left, right, rank, id);
            }
        }
    }
    return count;
}

/* SentencePiece has no list of merges: two pieces become one that is a token, the one with the
 * highest score first. So a merge's rank is its score's. */
static enum memos_status scores_read(struct load *load)
{
    size_t count = 0, pairs = 0;
    struct scored *scored = calloc(load->tokens->items, sizeof *scored);
    enum memos_status status = MEMOS_OK;
    if (!scored) {
        return memos_fail(load->err, MEMOS_NO_MEMORY, "no memory for a tokenizer");
    }
    for (size_t i = 0; i < load->tokens->items; i++) {
        int type = type_at(load, i);
        double score = paramem_gguf_real_at(load->scores, i);
        if (type == TYPE_NORMAL || type == TYPE_USER || type == TYPE_UNUSED) {
            scored[count++] = (struct scored){score == score ? score : 0, (uint32_t)i};
            pairs += halves(load, (uint32_t)i, 0, false);
        }
        paramem_tokenizer_hash(load->made, "", memos_bytes_make(&score, sizeof score));
    }
    qsort(scored, count, sizeof *scored, higher_first);
    status = paramem_tokenizer_merges(load->made, pairs, load->err);
    for (size_t i = 0, rank = 0; i < count && status == MEMOS_OK; i++) {
        rank = i > 0 && scored[i].score == scored[i - 1].score ? rank : i;
        (void)halves(load, scored[i].id, (uint32_t)rank, true);
    }
    free(scored);
    return status;
}

/* ---- the kinds ----------------------------------------------------------------------------- */

static void normal_add(struct paramem_tokenizer *made, struct paramem_normal normal)
{
    made->normals[made->normals_count++] = normal;
}

static enum memos_status byte_level(struct load *load)
{
    struct paramem_tokenizer *made = load->made;
    made->bytes = true;
    made->decoder = PARAMEM_DECODE_BYTES;
    paramem_tokenizer_hash(made, "pre", memos_bytes_of(load->pre->name));
    if (load->pre->nfc) {
        normal_add(made, (struct paramem_normal){.kind = PARAMEM_NORMAL_NFC});
    }
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < 4 && load->pre->patterns[i] && status == MEMOS_OK; i++) {
        status = paramem_tokenizer_split(
            made, load->pre->patterns[i], PARAMEM_SPLIT_ISOLATED, load->err);
    }
    if (status == MEMOS_OK) {
        status = tokens_read(load);
    }
    if (status == MEMOS_OK) {
        status = merges_read(load);
    }
    made->bpe.whole = load->pre->whole;
    return status;
}

static enum memos_status pieces(struct load *load)
{
    struct paramem_tokenizer *made = load->made;
    static const char mark[] = "\xE2\x96\x81";
    bool prefix = switch_of(load, "tokenizer.ggml.add_space_prefix", true);
    paramem_tokenizer_hash(made, prefix ? "pieces, prefix" : "pieces", memos_bytes_make(NULL, 0));
    if (!load->scores || load->scores->items != load->tokens->items) {
        return corrupt(load, "scores: not one for each token");
    }
    made->decoder = PARAMEM_DECODE_PIECES;
    made->blank = memos_bytes_of(mark);
    made->byte_tokens = true;
    made->strip_count = prefix;
    if (prefix) {
        normal_add(made,
            (struct paramem_normal){.kind = PARAMEM_NORMAL_PREPEND, .text = memos_bytes_of(mark)});
    }
    normal_add(made, (struct paramem_normal){.kind = PARAMEM_NORMAL_REPLACE,
                         .text = memos_bytes_of(" "),
                         .with = memos_bytes_of(mark)});
    enum memos_status status = tokens_read(load);
    if (status == MEMOS_OK) {
        status = scores_read(load);
    }
    made->bpe.fallback = made->bpe.fuse = true;
    uint32_t unknown = id_of(load, "tokenizer.ggml.unknown_token_id");
    made->bpe.unknown = unknown == PARAMEM_TOKEN_NONE ? 0 : unknown;
    return status;
}

static enum memos_status specials_read(struct load *load)
{
    struct paramem_tokenizer *made = load->made;
    const struct paramem_gguf_value *chat =
        find(load, "tokenizer.chat_template", PARAMEM_GGUF_TEXT);
    made->bos = id_of(load, "tokenizer.ggml.bos_token_id");
    made->eos = id_of(load, "tokenizer.ggml.eos_token_id");
    made->unk = id_of(load, "tokenizer.ggml.unknown_token_id");
    made->pad = id_of(load, "tokenizer.ggml.padding_token_id");
    bool bos = switch_of(load, "tokenizer.ggml.add_bos_token", !load->pre || load->pre->bos);
    bool eos = switch_of(load, "tokenizer.ggml.add_eos_token", false);
    made->before_count = bos && made->bos != PARAMEM_TOKEN_NONE;
    made->before[0] = made->bos;
    made->after_count = eos && made->eos != PARAMEM_TOKEN_NONE;
    made->after[0] = made->eos;
    uint32_t around[4] = {
        (uint32_t)made->before_count, made->bos, (uint32_t)made->after_count, made->eos};
    paramem_tokenizer_hash(made, "around", memos_bytes_make(around, sizeof around));
    if (chat) {
        made->chat_template = strndup(chat->text.data ? chat->text.data : "", chat->text.size);
        if (!made->chat_template) {
            return memos_fail(load->err, MEMOS_NO_MEMORY, "no memory for a chat template");
        }
    }
    return MEMOS_OK;
}

/* Find the arrays, and what the names stand for. */
static enum memos_status kind_find(struct load *load)
{
    const struct paramem_gguf_value *model = find(load, "tokenizer.ggml.model", PARAMEM_GGUF_TEXT);
    const struct paramem_gguf_value *name = find(load, "tokenizer.ggml.pre", PARAMEM_GGUF_TEXT);
    struct memos_bytes pre = name ? name->text : memos_bytes_of("default");
    load->tokens = find(load, "tokenizer.ggml.tokens", PARAMEM_GGUF_ARRAY);
    load->types = find(load, "tokenizer.ggml.token_type", PARAMEM_GGUF_ARRAY);
    load->scores = find(load, "tokenizer.ggml.scores", PARAMEM_GGUF_ARRAY);
    load->merges = find(load, "tokenizer.ggml.merges", PARAMEM_GGUF_ARRAY);
    if (!load->tokens || load->tokens->item_type != PARAMEM_GGUF_TEXT || load->tokens->items == 0 ||
        load->tokens->items > PARAMEM_TOKEN_ID_MAX) {
        return corrupt(load, "tokens: missing, or too many");
    } else if (load->types && load->types->items != load->tokens->items) {
        return corrupt(load, "token_type: not one for each token");
    } else if (model && memos_bytes_equal(model->text, memos_bytes_of("llama"))) {
        return MEMOS_OK;
    } else if (!model || !memos_bytes_equal(model->text, memos_bytes_of("gpt2"))) {
        return memos_fail(load->err, MEMOS_UNSUPPORTED,
            "GGUF: tokenizer.ggml.model \"%.*s\"; gpt2 and llama work",
            model && model->text.size < 40 ? (int)model->text.size : 0,
            model ? (const char *)model->text.data : "");
    }
    for (size_t i = 0; i < sizeof all_pre / sizeof all_pre[0]; i++) {
        if (memos_bytes_equal(pre, memos_bytes_of(all_pre[i].name))) {
            load->pre = &all_pre[i];
            return MEMOS_OK;
        }
    }
    return memos_fail(load->err, MEMOS_UNSUPPORTED, "GGUF: tokenizer.ggml.pre \"%.*s\"",
        pre.size < 40 ? (int)pre.size : 40, (const char *)pre.data);
}

enum memos_status paramem_tokenizer_of_gguf(
    const struct paramem_gguf *gguf, struct paramem_tokenizer **out, struct memos_error *err)
{
    struct load load = {.gguf = gguf, .err = err};
    enum memos_status status = paramem_tokenizer_new(&load.made, err);
    if (status == MEMOS_OK) {
        status = kind_find(&load);
    }
    if (status == MEMOS_OK) {
        status = load.pre ? byte_level(&load) : pieces(&load);
    }
    if (status == MEMOS_OK) {
        status = added_read(&load);
    }
    if (status == MEMOS_OK) {
        status = specials_read(&load);
    }
    if (status == MEMOS_OK) {
        status = paramem_tokenizer_prepare(load.made, err);
    }
    if (status == MEMOS_OK) {
        *out = load.made;
    } else {
        paramem_tokenizer_close(&load.made);
    }
    return status;
}
