#include "memos/worker/prompt.h"

#include "memos/worker/conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_BYTES_MAX = 1 << 26, ANSWER_MIN = 256 };

#define CUT_WORDS " [...]"

/* ---- a cube's piece -------------------------------------------------------------------------- */

static struct memos_bytes trimmed(struct memos_bytes text)
{
    const char *data = text.data;
    size_t begin = 0, end = text.size;
    while (begin < end && strchr(" \t\r\n\v\f", data[begin])) {
        begin++;
    }
    while (end > begin && strchr(" \t\r\n\v\f", data[end - 1])) {
        end--;
    }
    return memos_bytes_make(end > 0 ? data + begin : NULL, end - begin);
}

/* Line feeds of any kind become one and two blanks; other control characters a blank. */
static void append_words(struct memos_buffer *out, struct memos_bytes words)
{
    const uint8_t *bytes = words.data;
    for (size_t i = 0; i < words.size; i++) {
        if (bytes[i] == '\n') {
            memos_buffer_bytes(out, "\n  ", 3);
        } else if (bytes[i] == '\r' && i + 1 < words.size && bytes[i + 1] == '\n') {
            continue;
        } else if (bytes[i] < ' ' && bytes[i] != '\t') {
            memos_buffer_u8(out, ' ');
        } else {
            memos_buffer_u8(out, bytes[i]);
        }
    }
}

static void append_body(
    const struct worker_recalled *text, struct memos_bytes words, struct memos_buffer *out)
{
    char when[MEMOS_TIME_TEXT_BYTES];
    const struct memos_bytes speaker = trimmed(text->speaker);
    (void)memos_time_format(text->event_us, when);
    memos_buffer_printf(out, " %.10s %.5s", when, when + 11); /* of 2023-05-08T13:56:00Z */
    if (speaker.size > 0) {
        memos_buffer_bytes(out, ", ", 2);
        append_words(out, speaker);
    }
    memos_buffer_bytes(out, ": ", 2);
    append_words(out, words);
}

void worker_prompt_body(const struct worker_recalled *text, struct memos_buffer *out)
{
    append_body(text, trimmed(text->words), out);
}

static enum memos_status encode_plain(const struct worker_host *host, struct memos_bytes text,
    struct paramem_ids *out, struct memos_error *err)
{
    return paramem_tokenizer_encode(host->tokenizer, text, PARAMEM_PLAIN_TEXT, out, err);
}

static enum memos_status body_ids(const struct worker_host *host,
    const struct worker_recalled *text, struct memos_bytes words, const char *behind,
    struct paramem_ids *out, struct memos_error *err)
{
    struct memos_buffer body = memos_buffer_make(BODY_BYTES_MAX);
    append_body(text, words, &body);
    memos_buffer_bytes(&body, behind, strlen(behind));
    enum memos_status status = body.failed
                                   ? memos_fail(err, MEMOS_NO_MEMORY,
                                         "no memory for %zu bytes of a cube", text->words.size)
                                   : encode_plain(host, memos_buffer_view(&body), out, err);
    memos_buffer_free(&body);
    return status;
}

enum memos_status worker_prompt_body_ids(const struct worker_host *host,
    const struct worker_recalled *text, struct paramem_ids *out, struct memos_error *err)
{
    return body_ids(host, text, trimmed(text->words), "", out, err);
}

/* ---- which cubes ----------------------------------------------------------------------------- */

/* A cube that may be placed, with its body's ids (on the heap). */
struct chosen {
    const struct worker_recalled *text;
    struct paramem_ids body;
    bool is_cut;
};

struct choosing {
    const struct worker_prompt_input *in;
    struct worker_notes *notes;
    struct chosen *items;
    size_t count;
    size_t budget, used; /* tokens */
    size_t mark;         /* tokens of the longest mark */
};

static void chosen_free(struct choosing *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->items[i].body.ids);
    }
}

static enum memos_status mark_ids(
    const struct worker_host *host, size_t number, struct paramem_ids *out, struct memos_error *err)
{
    char mark[32];
    (void)snprintf(mark, sizeof mark, "\n[%zu]", number);
    return encode_plain(host, memos_bytes_of(mark), out, err);
}

/* Shorter and shorter, at the ends of words, until it fits `tokens`; none when nothing does. */
static enum memos_status cut_to_fit(const struct worker_prompt_input *in,
    const struct worker_recalled *text, size_t tokens, struct paramem_ids *body,
    struct memos_error *err)
{
    struct memos_bytes words = trimmed(text->words);
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && body->count > tokens && words.size > 0) {
        const char *data = words.data;
        size_t size = (size_t)((double)words.size * (double)tokens / (double)body->count * 0.98);
        size = size < words.size ? size : words.size - 1;
        const size_t wanted = size;
        while (size > 0 && data[size] != ' ' && wanted - size < 64) {
            size--;
        }
        while (size > 0 && ((uint8_t)data[size] & 0xc0) == 0x80) {
            size--;
        }
        words = trimmed(memos_bytes_make(data, size));
        free(body->ids);
        *body = (struct paramem_ids){0};
        status = body_ids(in->host, text, words, CUT_WORDS, body, err);
    }
    if (status == MEMOS_OK && words.size == 0) {
        free(body->ids);
        *body = (struct paramem_ids){0};
    }
    return status;
}

static void take(struct choosing *c, const struct worker_recalled *text, struct paramem_ids *body)
{
    c->items[c->count++] = (struct chosen){.text = text, .body = *body};
    c->used += c->mark + body->count;
    *body = (struct paramem_ids){0};
}

static enum memos_status choose_named(struct choosing *c, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < c->in->texts_count && status == MEMOS_OK; i++) {
        struct paramem_ids body = {0};
        if (!c->in->texts[i].is_named) {
            continue;
        }
        status = worker_prompt_body_ids(c->in->host, &c->in->texts[i], &body, err);
        if (status == MEMOS_OK) {
            take(c, &c->in->texts[i], &body);
        }
    }
    if (status == MEMOS_OK && c->count > 0 && c->used > c->budget) {
        return memos_fail(err, MEMOS_TOO_LARGE,
            "the named cubes are %zu tokens; there is room for %zu", c->used, c->budget);
    }
    return status;
}

static enum memos_status choose_found(struct choosing *c, struct memos_error *err)
{
    char ref[WORKER_REF_TEXT_BYTES];
    const struct worker_recalled *best = NULL;
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; i < c->in->texts_count && status == MEMOS_OK; i++) {
        const struct worker_recalled *text = &c->in->texts[i];
        struct paramem_ids body = {0};
        if (text->is_named || trimmed(text->words).size == 0) {
            continue;
        }
        status = worker_prompt_body_ids(c->in->host, text, &body, err);
        if (status == MEMOS_OK && c->used + c->mark + body.count <= c->budget) {
            take(c, text, &body);
        } else if (status == MEMOS_OK) {
            best = best ? best : text;
            worker_note(c->notes, "%s was left out: %zu tokens, %zu of the budget of %zu were left",
                worker_ref_text(&text->ref, ref), body.count + c->mark,
                c->budget > c->used ? c->budget - c->used : 0, c->budget);
        }
        free(body.ids);
    }
    if (status == MEMOS_OK && c->count == 0 && best && c->used + c->mark < c->budget) {
        struct paramem_ids body = {0};
        status = worker_prompt_body_ids(c->in->host, best, &body, err);
        if (status == MEMOS_OK) {
            status = cut_to_fit(c->in, best, c->budget - c->used - c->mark, &body, err);
        }
        if (status == MEMOS_OK && body.count > 0) {
            const size_t count = body.count;
            take(c, best, &body);
            c->items[0].is_cut = true;
            worker_note(
                c->notes, "%s was cut to %zu tokens", worker_ref_text(&best->ref, ref), count);
        }
        free(body.ids);
    }
    return status;
}

/* Named ones keep their places; found ones by time, then id. */
static int by_place(const void *a, const void *b)
{
    const struct worker_recalled *x = ((const struct chosen *)a)->text;
    const struct worker_recalled *y = ((const struct chosen *)b)->text;
    if (x->is_named || y->is_named) {
        return x->is_named && y->is_named ? (x > y) - (x < y) : (int)y->is_named - x->is_named;
    }
    if (x->event_us != y->event_us) {
        return x->event_us < y->event_us ? -1 : 1;
    }
    return memcmp(x->ref.id.bytes, y->ref.id.bytes, sizeof x->ref.id.bytes);
}

/* ---- the ids --------------------------------------------------------------------------------- */

static enum memos_status append(
    struct paramem_ids *to, struct paramem_ids piece, struct memos_error *err)
{
    if (piece.count == 0) {
        return MEMOS_OK;
    }
    uint32_t *grown = realloc(to->ids, (to->count + piece.count) * sizeof *grown);
    if (!grown) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the ids of a prompt");
    }
    memcpy(grown + to->count, piece.ids, piece.count * sizeof *grown);
    to->ids = grown;
    to->count += piece.count;
    return MEMOS_OK;
}

static enum memos_status place_one(
    struct choosing *c, size_t index, struct worker_layout *out, struct memos_error *err)
{
    const struct chosen *chosen = &c->items[index];
    struct worker_placed *placed = &out->placed[index];
    struct paramem_ids mark = {0};
    *placed = (struct worker_placed){
        .text = chosen->text, .first = out->ids.count, .is_cut = chosen->is_cut};
    (void)snprintf(placed->mark, sizeof placed->mark, "[%zu]", index + 1);
    enum memos_status status = mark_ids(c->in->host, index + 1, &mark, err);
    if (status == MEMOS_OK) {
        status = append(&out->ids, mark, err);
        placed->body = out->ids.count;
    }
    if (status == MEMOS_OK) {
        status = append(&out->ids, chosen->body, err);
        placed->end = out->ids.count;
    }
    free(mark.ids);
    return status;
}

static enum memos_status assemble(struct choosing *c, const struct worker_conversation *around,
    struct paramem_ids sentence, struct memos_arena *arena, struct worker_layout *out,
    struct memos_error *err)
{
    enum memos_status status = append(&out->ids, around->before, err);
    out->placed = memos_arena_take(arena, c->count + 1, sizeof *out->placed);
    if (status == MEMOS_OK && !out->placed) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for the places of cubes");
    }
    out->memory_first = out->ids.count;
    if (status == MEMOS_OK && c->count > 0) {
        status = append(&out->ids, sentence, err);
    }
    for (size_t i = 0; i < c->count && status == MEMOS_OK; i++) {
        status = place_one(c, i, out, err);
    }
    out->placed_count = c->count;
    out->memory_tokens = c->count > 0 ? out->ids.count : 0;
    return status == MEMOS_OK ? append(&out->ids, around->behind, err) : status;
}

/* What prompt and answer leave of the context. */
static size_t room_of(
    const struct worker_prompt_input *in, const struct worker_conversation *around)
{
    const size_t asked = in->generate->max_tokens, eighth = in->context / 8;
    const size_t least = eighth < ANSWER_MIN ? eighth : ANSWER_MIN;
    const size_t taken = around->before.count + around->behind.count + (asked ? asked : least);
    if (in->context == 0) {
        return in->budget;
    }
    const size_t room = in->context > taken ? in->context - taken : 0;
    return room < in->budget ? room : in->budget;
}

static enum memos_status with_memory(struct choosing *c, struct worker_conversation *around,
    struct memos_arena *arena, struct worker_layout *out, struct memos_error *err)
{
    const struct worker_prompt_input *in = c->in;
    struct paramem_ids sentence = {0}, mark = {0};
    char text[sizeof WORKER_PROMPT_SENTENCE + 2];
    (void)snprintf(
        text, sizeof text, "%s%s", around->is_after_words ? "\n\n" : "", WORKER_PROMPT_SENTENCE);
    enum memos_status status = encode_plain(in->host, memos_bytes_of(text), &sentence, err);
    if (status == MEMOS_OK) {
        status = mark_ids(in->host, in->texts_count, &mark, err);
    }
    if (status == MEMOS_OK) {
        c->budget = room_of(in, around);
        c->used = sentence.count;
        c->mark = mark.count;
        status = choose_named(c, err);
    }
    if (status == MEMOS_OK) {
        status = choose_found(c, err);
    }
    if (status == MEMOS_OK) {
        qsort(c->items, c->count, sizeof *c->items, by_place);
        status = assemble(c, around, sentence, arena, out, err);
    }
    free(sentence.ids);
    free(mark.ids);
    return status;
}

enum memos_status worker_prompt_make(const struct worker_prompt_input *input,
    struct memos_arena *arena, struct worker_notes *notes, struct worker_layout *out,
    struct memos_error *err)
{
    struct choosing c = {.in = input, .notes = notes};
    struct worker_conversation around = {0};
    *out = (struct worker_layout){0};
    enum memos_status status = worker_conversation_encode(input, arena, &around, err);
    if (status == MEMOS_OK && input->texts_count > 0) {
        c.items = memos_arena_take(arena, input->texts_count, sizeof *c.items);
        status = c.items ? with_memory(&c, &around, arena, out, err)
                         : memos_fail(err, MEMOS_NO_MEMORY, "no memory to choose cubes in");
    } else if (status == MEMOS_OK) {
        status = assemble(&c, &around, (struct paramem_ids){0}, arena, out, err);
    }
    if (status == MEMOS_OK && out->memory_tokens == 0) {
        /* no cut where nothing stands: these are the ids of the text as a whole */
        struct paramem_ids whole = {0};
        status = worker_conversation_whole(input, arena, &whole, err);
        if (status == MEMOS_OK) {
            free(out->ids.ids);
            out->ids = whole;
        }
    }
    if (status != MEMOS_OK) {
        free(out->ids.ids);
        *out = (struct worker_layout){0};
    }
    chosen_free(&c);
    worker_conversation_free(&around);
    return status;
}
