/* A normalised text into words. */
#include "paramem/text.h"
#include "paramem/tokenizer_internal.h"

#include <string.h>

static enum memos_status step(
    struct paramem_encoding *encoding, size_t index, struct memos_bytes text, bool at_start);

/* Spans on their way to the next step: what the behaviours do, in one pass. */
struct spans {
    struct paramem_encoding *encoding;
    const struct paramem_split *split;
    size_t next; /* step */
    struct memos_bytes text;
    bool at_start;
    bool waiting, previous; /* is there a span that may grow; was the last one a match */
    size_t begin, end;      /* of the span that waits */
};

static enum memos_status span_out(struct spans *spans, size_t begin, size_t end)
{
    if (begin == end) {
        return MEMOS_OK;
    }
    return step(spans->encoding, spans->next,
        memos_bytes_make((const uint8_t *)spans->text.data + begin, end - begin),
        spans->at_start && begin == 0);
}

static enum memos_status span_flush(struct spans *spans)
{
    bool waiting = spans->waiting;
    spans->waiting = false;
    return waiting ? span_out(spans, spans->begin, spans->end) : MEMOS_OK;
}

static enum memos_status span_wait(struct spans *spans, size_t begin, size_t end)
{
    enum memos_status status = span_flush(spans);
    spans->waiting = true;
    spans->begin = begin;
    spans->end = end;
    return status;
}

static enum memos_status span_add(struct spans *spans, size_t begin, size_t end, bool match)
{
    bool previous = spans->previous, grows = false;
    match = match != spans->split->invert;
    spans->previous = match;
    switch (spans->split->behavior) {
    case PARAMEM_SPLIT_ISOLATED:
        return span_out(spans, begin, end);
    case PARAMEM_SPLIT_REMOVED:
        return match ? MEMOS_OK : span_out(spans, begin, end);
    case PARAMEM_SPLIT_CONTIGUOUS:
        grows = match == previous;
        break;
    case PARAMEM_SPLIT_WITH_PREVIOUS:
        grows = match && !previous;
        break;
    case PARAMEM_SPLIT_WITH_NEXT:
        grows = !match && previous;
        break;
    }
    if (grows && spans->waiting) {
        spans->end = end;
        return MEMOS_OK;
    }
    return span_wait(spans, begin, end);
}

static enum memos_status by_pattern(struct spans *spans)
{
    struct paramem_pattern_walk walk = {.pattern = spans->split->pattern,
        .room = spans->encoding->pattern_room,
        .text = spans->text};
    size_t at = 0;
    bool found = false;
    enum memos_status status = paramem_pattern_next(&walk, &found, spans->encoding->err);
    while (status == MEMOS_OK && found) {
        if (walk.begin > at) {
            status = span_add(spans, at, walk.begin, false);
        }
        if (status == MEMOS_OK) {
            status = span_add(spans, walk.begin, walk.end, true);
        }
        at = walk.end;
        if (status == MEMOS_OK) {
            status = paramem_pattern_next(&walk, &found, spans->encoding->err);
        }
    }
    if (status == MEMOS_OK && at < spans->text.size) {
        status = span_add(spans, at, spans->text.size, false);
    }
    return status == MEMOS_OK ? span_flush(spans) : status;
}

static enum memos_status scratch_full(const struct paramem_encoding *encoding)
{
    return memos_fail(encoding->err, MEMOS_TOO_LARGE, "a text grows too large in its tokenizer");
}

/* Blanks become the mark, and it comes before what has none. */
static enum memos_status by_metaspace(struct spans *spans)
{
    struct paramem_encoding *encoding = spans->encoding;
    struct memos_buffer *room = &encoding->scratch[spans->next - 1];
    struct memos_bytes mark = spans->split->text;
    const char *at = spans->text.data, *end = at + spans->text.size;
    bool begins = spans->text.size >= mark.size && memcmp(at, mark.data, mark.size) == 0;
    bool wanted = spans->split->scheme == PARAMEM_PREPEND_ALWAYS ||
                  (spans->split->scheme == PARAMEM_PREPEND_FIRST && spans->at_start);
    memos_buffer_reset(room);
    if (wanted && !begins && *at != ' ') {
        memos_buffer_bytes(room, mark.data, mark.size);
    }
    while (at < end) {
        const char *blank = memchr(at, ' ', (size_t)(end - at));
        memos_buffer_bytes(room, at, (size_t)((blank ? blank : end) - at));
        if (blank) {
            memos_buffer_bytes(room, mark.data, mark.size);
        }
        at = blank ? blank + 1 : end;
    }
    if (room->failed) {
        return scratch_full(encoding);
    }
    spans->text = memos_buffer_view(room);
    return spans->split->pattern ? by_pattern(spans) : span_out(spans, 0, spans->text.size);
}

static enum memos_status by_prefix_space(struct spans *spans)
{
    struct paramem_encoding *encoding = spans->encoding;
    struct memos_buffer *room = &encoding->scratch[spans->next - 1];
    if (*(const char *)spans->text.data != ' ') {
        memos_buffer_reset(room);
        memos_buffer_u8(room, ' ');
        memos_buffer_bytes(room, spans->text.data, spans->text.size);
        if (room->failed) {
            return scratch_full(encoding);
        }
        spans->text = memos_buffer_view(room);
    }
    return span_out(spans, 0, spans->text.size);
}

/* No token that merges make has the mark behind another character, so that no merge crosses what
 * is cut here, and the words are short. */
static enum memos_status by_mark(struct paramem_encoding *encoding, struct memos_bytes text)
{
    struct memos_bytes mark = encoding->tokenizer->mark;
    const uint8_t *begin = text.data, *end = begin + text.size, *at = begin;
    while (at < end) {
        const uint8_t *stop = at;
        while (stop < end && (size_t)(end - stop) >= mark.size &&
               memcmp(stop, mark.data, mark.size) == 0) {
            stop += mark.size;
        }
        const uint8_t *next =
            stop < end ? memmem(stop, (size_t)(end - stop), mark.data, mark.size) : NULL;
        next = next ? next : end;
        enum memos_status status =
            paramem_bpe_word(&encoding->tokenizer->bpe, memos_bytes_make(at, (size_t)(next - at)),
                &encoding->bpe_room, &encoding->ids, encoding->err);
        if (status != MEMOS_OK) {
            return status;
        }
        at = next;
    }
    return MEMOS_OK;
}

/* Step `index` of the text, which is not empty; after the last, it is a word. */
static enum memos_status step(
    struct paramem_encoding *encoding, size_t index, struct memos_bytes text, bool at_start)
{
    const struct paramem_tokenizer *tokenizer = encoding->tokenizer;
    if (index == tokenizer->splits_count) {
        if (tokenizer->mark.size > 0) {
            return by_mark(encoding, text);
        }
        return paramem_bpe_word(
            &tokenizer->bpe, text, &encoding->bpe_room, &encoding->ids, encoding->err);
    }
    struct spans spans = {.encoding = encoding,
        .split = &tokenizer->splits[index],
        .next = index + 1,
        .text = text,
        .at_start = at_start};
    switch (spans.split->kind) {
    case PARAMEM_SPLIT_METASPACE:
        return by_metaspace(&spans);
    case PARAMEM_SPLIT_PREFIX_SPACE:
        return by_prefix_space(&spans);
    case PARAMEM_SPLIT_PATTERN:
        break;
    }
    return by_pattern(&spans);
}

enum memos_status paramem_split_words(
    struct paramem_encoding *encoding, struct memos_bytes text, bool at_start)
{
    return text.size > 0 ? step(encoding, 0, text, at_start) : MEMOS_OK;
}
