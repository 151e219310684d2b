#include "paramem/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* An honest expression takes a few steps for each character that it looks at; one match may look at
 * all of a text. */
#define MATCH_STEPS_MAX 10000000u
#define MATCH_DEPTH_MAX 1000000u
#define MATCH_HEAP_KIB_MAX 65536u

struct paramem_pattern {
    pcre2_code *code;
    bool jit;
};

struct paramem_pattern_room {
    pcre2_match_data *data;
    pcre2_match_context *context;
};

/* ---- compile ------------------------------------------------------------------------------- */

static enum memos_status compile(struct memos_bytes text, uint32_t options,
    struct paramem_pattern **out, struct memos_error *err)
{
    PCRE2_UCHAR what[128] = "";
    PCRE2_SIZE at = 0;
    int code = 0;
    struct paramem_pattern *pattern = calloc(1, sizeof *pattern);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (pattern && context) {
        (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        pattern->code = pcre2_compile(text.data, text.size, options, &code, &at, context);
    }
    pcre2_compile_context_free(context);
    if (!pattern || !context) {
        free(pattern);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an expression");
    }
    if (!pattern->code) {
        free(pattern);
        (void)pcre2_get_error_message(code, what, sizeof what);
        return memos_fail_foreign(err,
            code == PCRE2_ERROR_HEAP_FAILED ? MEMOS_NO_MEMORY : MEMOS_CORRUPT, code,
            "an expression does not compile: %s", (const char *)what);
    }
    pattern->jit = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0;
    *out = pattern;
    return MEMOS_OK;
}

enum memos_status paramem_pattern_open(
    struct memos_bytes text, struct paramem_pattern **out, struct memos_error *err)
{
    struct memos_buffer translated = memos_buffer_make((size_t)1 << 24);
    enum memos_status status = paramem_pattern_translate(text, &translated, err);
    if (status == MEMOS_OK) {
        uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK |
                           PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY;
        status = compile(memos_buffer_view(&translated), options, out, err);
    }
    memos_buffer_free(&translated);
    return status;
}

enum memos_status paramem_pattern_literal(
    struct memos_bytes text, struct paramem_pattern **out, struct memos_error *err)
{
    if (text.size > PARAMEM_PATTERN_MAX) {
        return memos_fail(err, MEMOS_TOO_LARGE, "an expression of %zu bytes", text.size);
    }
    return compile(text, PCRE2_UTF | PCRE2_LITERAL | PCRE2_NO_UTF_CHECK, out, err);
}

void paramem_pattern_close(struct paramem_pattern **pattern)
{
    if (*pattern) {
        pcre2_code_free((*pattern)->code);
        free(*pattern);
        *pattern = NULL;
    }
}

/* ---- match --------------------------------------------------------------------------------- */

enum memos_status paramem_pattern_room_make(
    struct paramem_pattern_room **out, struct memos_error *err)
{
    struct paramem_pattern_room *room = calloc(1, sizeof *room);
    if (room) {
        room->data = pcre2_match_data_create(1, NULL);
        room->context = pcre2_match_context_create(NULL);
    }
    if (!room || !room->data || !room->context) {
        paramem_pattern_room_free(&room);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to match an expression");
    }
    (void)pcre2_set_match_limit(room->context, MATCH_STEPS_MAX);
    (void)pcre2_set_depth_limit(room->context, MATCH_DEPTH_MAX);
    (void)pcre2_set_heap_limit(room->context, MATCH_HEAP_KIB_MAX);
    *out = room;
    return MEMOS_OK;
}

void paramem_pattern_room_free(struct paramem_pattern_room **room)
{
    if (*room) {
        pcre2_match_data_free((*room)->data);
        pcre2_match_context_free((*room)->context);
        free(*room);
        *room = NULL;
    }
}

static int search(const struct paramem_pattern_walk *walk)
{
    const struct paramem_pattern *pattern = walk->pattern;
    const uint8_t *text = walk->text.data;
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (pattern->jit) {
        found = pcre2_jit_match(pattern->code, text, walk->text.size, walk->at, 0, walk->room->data,
            walk->room->context);
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) { /* 32 KiB; the interpreter has more room */
        found = pcre2_match(pattern->code, text, walk->text.size, walk->at,
            PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, walk->room->data, walk->room->context);
    }
    return found;
}

static size_t after_char(struct memos_bytes text, size_t at)
{
    const uint8_t *bytes = text.data;
    for (at++; at < text.size && (bytes[at] & 0xC0) == 0x80;) {
        at++;
    }
    return at;
}

enum memos_status paramem_pattern_next(
    struct paramem_pattern_walk *walk, bool *out_found, struct memos_error *err)
{
    *out_found = false;
    while (walk->at <= walk->text.size && walk->text.size > 0) {
        int found = search(walk);
        if (found == PCRE2_ERROR_NOMATCH) {
            return MEMOS_OK;
        } else if (found == PCRE2_ERROR_NOMEMORY) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory to match an expression");
        } else if (found < 0) {
            return memos_fail_foreign(err, MEMOS_TOO_LARGE, found,
                "the tokenizer's expression takes too many steps on this text (%zu bytes)",
                walk->text.size);
        }
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(walk->room->data);
        if (ends[0] == ends[1] && walk->begun && ends[0] == walk->end) {
            walk->at = after_char(walk->text, walk->at);
            continue;
        }
        walk->begin = ends[0];
        walk->end = walk->at = ends[1];
        walk->begun = true;
        *out_found = true;
        return MEMOS_OK;
    }
    return MEMOS_OK;
}
