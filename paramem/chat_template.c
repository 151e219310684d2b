/* A chat template's Jinja text as what it means: the tokens that Jinja's lexer makes of it, with
 * the blanks taken away that it takes away (trim_blocks and lstrip_blocks, as transformers sets
 * them).
 *
 * Two templates with the same tokens render the same. So a template is known when the digest of its
 * tokens is, and whoever changed a word of one has made another one, which is refused. Spelling
 * does not count: line feeds between tags, kinds of quotes, escapes, comments, message.role for
 * message['role']. What Jinja has and no template of the families uses (raw blocks, rare escapes)
 * is a failure or a token that no digest covers: refused, too.
 *
 * Source: jinja2 3.1.6, lexer.py. */
#include "paramem/chat_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static const char turn_begin[] = "<|im_start|>system\n", turn_end[] = "<|im_end|>\n";

struct lexer {
    const char *at, *end;
    bool line_starts; /* what was read last ended with a line feed */
    bool failed;
    char *system;                   /* the default system prompt, once it was seen */
    struct memos_buffer data, text; /* template text that waits for its end; a string's value */
    struct memos_buffer *out;
};

static bool is_blank(char c)
{
    return c != '\0' && strchr(" \t\n\r\v\f\x1c\x1d\x1e\x1f", c) != NULL;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool begins(const struct lexer *lexer, const char *text)
{
    size_t size = strlen(text);
    return (size_t)(lexer->end - lexer->at) >= size && memcmp(lexer->at, text, size) == 0;
}

static bool take(struct lexer *lexer, const char *text)
{
    bool there = begins(lexer, text);
    lexer->at += there ? strlen(text) : 0;
    return there;
}

static void skip_blanks(struct lexer *lexer)
{
    while (lexer->at < lexer->end && is_blank(*lexer->at)) {
        lexer->at++;
    }
}

/* ---- tokens -------------------------------------------------------------------------------- */

/* Kind and size go before the text, so that no text can look like another token. */
static void token_put(struct lexer *lexer, char kind, const void *text, size_t size)
{
    memos_buffer_printf(lexer->out, "%c%zu:", kind, size);
    memos_buffer_bytes(lexer->out, text, size);
}

static void operator_put(struct lexer *lexer, const char *text)
{
    token_put(lexer, 'o', text, strlen(text));
}

static void data_flush(struct lexer *lexer)
{
    if (lexer->data.size > 0) {
        token_put(lexer, 't', lexer->data.data, lexer->data.size);
    }
    memos_buffer_reset(&lexer->data);
}

/* The prompt of a turn of ChatML's that a text is as a whole; empty: it is none. */
static struct memos_bytes prompt_of(struct memos_bytes text)
{
    size_t before = sizeof turn_begin - 1, after = sizeof turn_end - 1;
    const char *at = text.data;
    if (text.size <= before + after || memcmp(at, turn_begin, before) != 0 ||
        memcmp(at + text.size - after, turn_end, after) != 0) {
        return memos_bytes_make("", 0);
    }
    return memos_bytes_make(at + before, text.size - before - after);
}

/* The default system prompt is the one thing that may differ: its first place says what it is. */
static void string_put(struct lexer *lexer)
{
    struct memos_bytes text = memos_buffer_view(&lexer->text), prompt = prompt_of(text);
    if (!lexer->system && prompt.size > 0) {
        lexer->system = strndup(prompt.data, prompt.size);
        lexer->failed = lexer->failed || !lexer->system;
    }
    struct memos_bytes system = memos_bytes_of(lexer->system);
    if (system.size > 0 && memos_bytes_equal(prompt, system)) {
        token_put(lexer, 's', "turn", 4);
    } else if (system.size > 0 && memos_bytes_equal(text, system)) {
        token_put(lexer, 's', "prompt", 6);
    } else {
        token_put(lexer, '"', text.data, text.size);
    }
}

static void string_read(struct lexer *lexer)
{
    static const char from[] = "nrt\\'\"", to[] = "\n\r\t\\'\"";
    char quote = *lexer->at++;
    memos_buffer_reset(&lexer->text);
    while (lexer->at < lexer->end && *lexer->at != quote) {
        char c = *lexer->at++;
        if (c == '\\') {
            const char *found = lexer->at < lexer->end ? strchr(from, *lexer->at++) : NULL;
            lexer->failed = lexer->failed || !found;
            c = found ? to[found - from] : c;
        }
        memos_buffer_u8(&lexer->text, (uint8_t)c);
    }
    lexer->failed = lexer->failed || lexer->at == lexer->end || lexer->text.failed;
    if (!lexer->failed) {
        lexer->at++;
        string_put(lexer);
    }
}

static struct memos_bytes word_read(struct lexer *lexer)
{
    const char *word = lexer->at;
    while (lexer->at < lexer->end && is_word(*lexer->at)) {
        lexer->at++;
    }
    return memos_bytes_make(word, (size_t)(lexer->at - word));
}

/* Behind a dot: a key, unless it is called. */
static void member_read(struct lexer *lexer)
{
    skip_blanks(lexer);
    struct memos_bytes word = word_read(lexer);
    const char *after = lexer->at;
    skip_blanks(lexer);
    if (word.size == 0 || (lexer->at < lexer->end && *lexer->at == '(')) {
        operator_put(lexer, ".");
        token_put(lexer, 'w', word.data, word.size);
    } else {
        operator_put(lexer, "[");
        token_put(lexer, '"', word.data, word.size);
        operator_put(lexer, "]");
    }
    lexer->at = after; /* blanks belong to the end mark's rules */
}

/* *depth: brackets that are open. */
static void operator_read(struct lexer *lexer, size_t *depth)
{
    static const char *const doubles[] = {"==", "!=", ">=", "<=", "**", "//"};
    for (size_t i = 0; i < sizeof doubles / sizeof doubles[0]; i++) {
        if (take(lexer, doubles[i])) {
            operator_put(lexer, doubles[i]);
            return;
        }
    }
    char c = *lexer->at++;
    if (c == '.') {
        member_read(lexer);
        return;
    }
    bool opens = c == '(' || c == '[' || c == '{', closes = c == ')' || c == ']' || c == '}';
    lexer->failed =
        lexer->failed || c == '\0' || !strchr("+-/*%~[](){}<>=:|,", c) || (closes && *depth == 0);
    *depth += opens;
    *depth -= closes && *depth > 0;
    token_put(lexer, 'o', &c, 1);
}

/* ---- tags ---------------------------------------------------------------------------------- */

/* The end of a tag, `mark`, with what it says of the blanks behind it. */
static bool end_take(struct lexer *lexer, const char *mark, bool trims)
{
    char minus[4] = "-", plus[4] = "+";
    memcpy(minus + 1, mark, 3);
    memcpy(plus + 1, mark, 3);
    if (take(lexer, minus)) {
        skip_blanks(lexer);
        lexer->line_starts = lexer->at[-1] == '\n';
        return true;
    }
    bool there = trims && take(lexer, plus);
    if (!there && take(lexer, mark)) {
        there = true;
        lexer->line_starts = trims && lexer->at < lexer->end && *lexer->at == '\n';
        lexer->at += lexer->line_starts;
    } else if (there) {
        lexer->line_starts = false;
    }
    return there;
}

/* {% ... %} or {{ ... }}, from behind its first mark. */
static void tag_read(struct lexer *lexer, bool is_block)
{
    size_t depth = 0;
    data_flush(lexer);
    operator_put(lexer, is_block ? "{%" : "{{");
    while (!lexer->failed && (depth > 0 || !end_take(lexer, is_block ? "%}" : "}}", is_block))) {
        if (lexer->at == lexer->end) {
            lexer->failed = true;
        } else if (is_blank(*lexer->at)) {
            lexer->at++;
        } else if (*lexer->at == '\'' || *lexer->at == '"') {
            string_read(lexer);
        } else if (is_word(*lexer->at)) {
            struct memos_bytes word = word_read(lexer);
            token_put(lexer, 'w', word.data, word.size);
        } else {
            operator_read(lexer, &depth);
        }
    }
    operator_put(lexer, "}");
}

static void comment_read(struct lexer *lexer)
{
    while (!end_take(lexer, "#}", true)) {
        if (lexer->at == lexer->end) {
            lexer->failed = true;
            return;
        }
        lexer->at++;
    }
}

/* Template text up to a tag: what the tag leaves of it. mark: the tag's second letter. */
static void data_add(struct lexer *lexer, const char *text, const char *tag, char mark)
{
    char sign = tag + 2 < lexer->end ? tag[2] : '\0';
    const char *stop = tag;
    if (sign == '-') {
        while (stop > text && is_blank(stop[-1])) {
            stop--;
        }
    } else if (sign != '+' && mark != '{') {
        const char *line = tag;
        while (line > text && is_blank(line[-1]) && line[-1] != '\n') {
            line--;
        }
        bool starts = line > text ? line[-1] == '\n' : lexer->line_starts;
        stop = starts ? line : tag;
    }
    memos_buffer_bytes(&lexer->data, text, (size_t)(stop - text));
}

static const char *tag_find(const struct lexer *lexer)
{
    for (const char *at = lexer->at; at + 1 < lexer->end; at++) {
        if (*at == '{' && (at[1] == '%' || at[1] == '{' || at[1] == '#')) {
            return at;
        }
    }
    return NULL;
}

static void template_read(struct lexer *lexer)
{
    for (const char *tag; !lexer->failed && (tag = tag_find(lexer)) != NULL;) {
        char mark = tag[1];
        data_add(lexer, lexer->at, tag, mark);
        lexer->at = tag + 2;
        lexer->at += lexer->at < lexer->end && (*lexer->at == '-' || *lexer->at == '+');
        if (mark == '#') {
            comment_read(lexer);
        } else {
            tag_read(lexer, mark == '%');
        }
    }
    memos_buffer_bytes(&lexer->data, lexer->at, (size_t)(lexer->end - lexer->at));
    data_flush(lexer);
}

/* Line feeds of all kinds as one, and one at the end as none. */
static void lines_read(struct memos_bytes jinja, struct memos_buffer *out)
{
    const char *at = jinja.data, *end = at + jinja.size;
    for (; at < end; at++) {
        bool pair = at[0] == '\r' && at + 1 < end && at[1] == '\n';
        if (!pair) {
            memos_buffer_u8(out, at[0] == '\r' ? '\n' : (uint8_t)at[0]);
        }
    }
    out->size -= out->size > 0 && out->data[out->size - 1] == '\n';
}

bool paramem_chat_digest(
    struct memos_bytes jinja, char out_hex[PARAMEM_CHAT_DIGEST_BYTES], char **out_system)
{
    struct memos_buffer lines = memos_buffer_make(jinja.size + 1);
    struct memos_buffer tokens = memos_buffer_make(16 * jinja.size + 64);
    uint8_t digest[(PARAMEM_CHAT_DIGEST_BYTES - 1) / 2];
    memos_assert(sodium_init() >= 0);
    lines_read(jinja, &lines);
    const char *at = lines.data ? (const char *)lines.data : "";
    struct lexer lexer = {.at = at,
        .end = at + lines.size,
        .line_starts = true,
        .data = memos_buffer_make(jinja.size),
        .text = memos_buffer_make(jinja.size),
        .out = &tokens};
    template_read(&lexer);
    bool good = !lexer.failed && !lines.failed && !tokens.failed && !lexer.data.failed;
    if (good) {
        (void)crypto_generichash(digest, sizeof digest, tokens.data, tokens.size, NULL, 0);
        (void)sodium_bin2hex(out_hex, PARAMEM_CHAT_DIGEST_BYTES, digest, sizeof digest);
        *out_system = lexer.system;
    } else {
        free(lexer.system);
    }
    memos_buffer_free(&lines);
    memos_buffer_free(&tokens);
    memos_buffer_free(&lexer.data);
    memos_buffer_free(&lexer.text);
    return good;
}
