/* The text that stands for a version, cut into spans: "Speaker: Title. text (caption)".
 *
 * A span is what one vector takes in: the speaker and the title, so that each span says whose words
 * they are and what they are about, then up to RETRIEVAL_SPAN_BYTES of the text, cut behind a
 * sentence where there is one, else between words. Without the speaker, turns that address a
 * person would win over those that he said (LoCoMo, recall at 10: 33 of 100 instead of 50); "user"
 * and the like are nobody's name. */
#include "retrieval/vectors.h"

#include <endian.h>
#include <sodium.h>
#include <string.h>
#include <strings.h>

#define TITLE_BYTES_MAX 200  /* of a title, in each span */
#define SPEAKER_BYTES_MAX 60 /* likewise */
#define TEXT_BYTES_MAX ((size_t)RETRIEVAL_SPANS_MAX * RETRIEVAL_SPAN_BYTES)

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct memos_bytes trimmed(struct memos_bytes text)
{
    const uint8_t *at = text.data;
    size_t size = text.size;
    while (size > 0 && is_space(at[size - 1])) {
        size--;
    }
    while (size > 0 && is_space(*at)) {
        at++;
        size--;
    }
    return memos_bytes_make(at, size);
}

/* Not more than size_max bytes, and no part of a character at the end. */
static struct memos_bytes shortened(struct memos_bytes text, size_t size_max)
{
    const uint8_t *at = text.data;
    size_t size = text.size;
    if (size > size_max) {
        size = size_max;
        while (size > 0 && (at[size] & 0xC0) == 0x80) {
            size--;
        }
    }
    return memos_bytes_make(at, size);
}

static bool ends_sentence(const uint8_t *at, size_t i)
{
    return at[i] == '\n' || (is_space(at[i]) && i > 0 && strchr(".!?", at[i - 1]) != NULL);
}

/* How much of the text the next span takes. */
static size_t piece_of(struct memos_bytes text)
{
    const uint8_t *at = text.data;
    if (text.size <= RETRIEVAL_SPAN_BYTES) {
        return text.size;
    }
    for (size_t i = RETRIEVAL_SPAN_BYTES - 1; i > RETRIEVAL_SPAN_BYTES / 2; i--) {
        if (ends_sentence(at, i)) {
            return i;
        }
    }
    for (size_t i = RETRIEVAL_SPAN_BYTES - 1; i > RETRIEVAL_SPAN_BYTES / 2; i--) {
        if (is_space(at[i])) {
            return i;
        }
    }
    const size_t size = shortened(text, RETRIEVAL_SPAN_BYTES).size;
    return size > 0 ? size : RETRIEVAL_SPAN_BYTES;
}

/* Is it the name of a part in a talk, and not of somebody? */
static bool is_role(struct memos_bytes speaker)
{
    static const char *const roles[] = {"user", "assistant", "system", "tool", "human", "ai"};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (speaker.size == strlen(roles[i]) &&
            strncasecmp(speaker.data, roles[i], speaker.size) == 0) {
            return true;
        }
    }
    return false;
}

/* The text with its captions in brackets; `payload` itself where there are none. */
static enum memos_status body_make(const struct memcube_description *description,
    struct memos_bytes payload, struct memos_arena *arena, struct memos_bytes *out,
    struct memos_error *err)
{
    struct memos_buffer b = memos_buffer_make(TEXT_BYTES_MAX * 2);
    bool captions = false;

    *out = trimmed(shortened(payload, TEXT_BYTES_MAX));
    memos_buffer_bytes(&b, out->data, out->size);
    for (size_t i = 0; i < description->attributes_count && b.size < TEXT_BYTES_MAX; i++) {
        const struct memcube_attribute *attribute = &description->attributes[i];
        const struct memos_bytes caption = trimmed(attribute->value);
        if (memos_bytes_equal(attribute->name, memos_bytes_of("caption")) && caption.size > 0 &&
            !memos_bytes_equal(caption, *out)) {
            memos_buffer_printf(&b, "%s(%.*s)", b.size > 0 ? " " : "", (int)caption.size,
                (const char *)caption.data);
            captions = true;
        }
    }
    if (captions && !b.failed) {
        const void *copy = memos_arena_copy(arena, memos_buffer_view(&b));
        b.failed = !copy;
        *out = memos_bytes_make(copy, copy ? b.size : 0);
    }
    const bool failed = b.failed;
    memos_buffer_free(&b);
    return failed ? memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text to encode") : MEMOS_OK;
}

/* "Speaker: Title. ", or less. */
static void head_make(const struct memcube_description *description, struct memos_buffer *out)
{
    const struct memos_bytes title = shortened(trimmed(description->title), TITLE_BYTES_MAX);
    const struct memos_bytes speaker = shortened(trimmed(description->speaker), SPEAKER_BYTES_MAX);

    if (speaker.size > 0 && !is_role(speaker)) {
        memos_buffer_bytes(out, speaker.data, speaker.size);
        memos_buffer_bytes(out, ": ", 2);
    }
    if (title.size > 0) {
        memos_buffer_bytes(out, title.data, title.size);
        memos_buffer_bytes(out, ". ", 2);
    }
}

/* Head and piece as one text. */
static enum memos_status span_make(struct memos_bytes head, struct memos_bytes piece,
    struct memos_arena *arena, struct memos_bytes *out, struct memos_error *err)
{
    uint8_t *text = memos_arena_take(arena, 1, head.size + piece.size + 1);
    if (!text) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text to encode");
    }
    if (head.size > 0) {
        memcpy(text, head.data, head.size);
    }
    if (piece.size > 0) {
        memcpy(text + head.size, piece.data, piece.size);
    }
    *out = trimmed(memos_bytes_make(text, head.size + piece.size));
    return MEMOS_OK;
}

static void spans_hash(const struct memos_bytes *texts, size_t count, uint8_t out[16])
{
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, NULL, 0, 16);
    for (size_t i = 0; i < count; i++) {
        const uint64_t size = htole64(texts[i].size);
        (void)crypto_generichash_update(&state, (const uint8_t *)&size, sizeof size);
        (void)crypto_generichash_update(&state, texts[i].data, texts[i].size);
    }
    (void)crypto_generichash_final(&state, out, 16);
}

enum memos_status retrieval_spans_make(enum memcube_kind kind,
    const struct memcube_description *description, struct memos_bytes payload,
    struct memos_arena *arena, struct retrieval_spans *out, struct memos_error *err)
{
    struct memos_buffer head = memos_buffer_make(TITLE_BYTES_MAX + SPEAKER_BYTES_MAX + 8);
    struct memos_bytes body;

    *out = (struct retrieval_spans){.count = 0};
    if (kind != MEMCUBE_PLAINTEXT) {
        return MEMOS_OK;
    }
    struct memos_bytes *texts = memos_arena_take(arena, RETRIEVAL_SPANS_MAX, sizeof *texts);
    enum memos_status status = body_make(description, payload, arena, &body, err);
    head_make(description, &head);
    if (status == MEMOS_OK && (!texts || head.failed)) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for a text to encode");
    }
    /* A title alone is a span, too; a speaker who said nothing is none. */
    bool first = trimmed(description->title).size > 0;
    while (status == MEMOS_OK && out->count < RETRIEVAL_SPANS_MAX && (first || body.size > 0)) {
        const size_t size = piece_of(body);
        status = span_make(memos_buffer_view(&head), memos_bytes_make(body.data, size), arena,
            &texts[out->count], err);
        if (status == MEMOS_OK && texts[out->count].size > 0) {
            out->count++;
        }
        body = trimmed(memos_bytes_make((const uint8_t *)body.data + size, body.size - size));
        first = false;
    }
    memos_buffer_free(&head);
    if (status == MEMOS_OK) {
        out->texts = texts;
        spans_hash(texts, out->count, out->hash);
    }
    return status;
}
