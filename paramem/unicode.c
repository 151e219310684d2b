#include "paramem/unicode.h"

#include "paramem/text.h"
#include "paramem/wordpiece_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* PARAMEM_CHAR_* of a character. */
static uint8_t bits_of(uint32_t code)
{
    size_t low = 0, high = paramem_char_ranges_count; /* low begins at or before code */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (paramem_char_ranges[middle] >> 8 <= code) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return (uint8_t)paramem_char_ranges[low];
}

/* ---- lower case ---------------------------------------------------------------------------- */

/* utf8proc's simple mapping but for what is newer than it. */
size_t paramem_char_lower(uint32_t code, uint32_t out[2])
{
    static const struct {
        uint32_t first, last, lower;
    } newer[] = {
        {0x1C89, 0x1C89, 0x1C8A},
        {0xA7CB, 0xA7CB, 0x0264},
        {0xA7CC, 0xA7CC, 0xA7CD},
        {0xA7CE, 0xA7CE, 0xA7CF},
        {0xA7D2, 0xA7D2, 0xA7D3},
        {0xA7D4, 0xA7D4, 0xA7D5},
        {0xA7DA, 0xA7DA, 0xA7DB},
        {0xA7DC, 0xA7DC, 0x019B},
        {0x10D50, 0x10D65, 0x10D70},
        {0x16EA0, 0x16EB8, 0x16EBB},
    };
    if (code == 0x130) { /* the only one that becomes two */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
    for (size_t i = 0; out[0] == code && i < sizeof newer / sizeof newer[0]; i++) {
        if (code >= newer[i].first && code <= newer[i].last) {
            out[0] = newer[i].lower + (code - newer[i].first);
        }
    }
    return 1;
}

void paramem_text_lower(struct memos_bytes text, struct memos_buffer *out)
{
    const uint8_t *at = text.data, *end = at + text.size;
    while (at < end) {
        uint32_t code, lower[2];
        at += paramem_char_read(memos_bytes_make(at, (size_t)(end - at)), &code);
        size_t count = paramem_char_lower(code, lower);
        for (size_t i = 0; i < count; i++) {
            paramem_char_write(lower[i], out);
        }
    }
}

/* ---- normal forms -------------------------------------------------------------------------- */

bool paramem_text_normal(struct memos_bytes text)
{
    const uint8_t *at = text.data;
    for (size_t i = 0; i < text.size; i++) {
        if (at[i] >= 0xC2) { /* U+0080 and above */
            return false;
        }
    }
    return true;
}

/* A character and its canonical class: sorted within runs of those whose class is not 0. */
struct mark {
    uint32_t code, class;
};

/* Characters that wait for what follows: a starter and what may change it. */
struct segment {
    struct mark *marks;
    size_t count, capacity;
    bool no_memory;
};

static void segment_add(struct segment *segment, uint32_t code)
{
    uint32_t class = 0;
    if (bits_of(code) & PARAMEM_CHAR_ORDERED) {
        class = (uint32_t)utf8proc_get_property((utf8proc_int32_t)code)->combining_class & 0xFF;
    }
    if (segment->count == segment->capacity) {
        size_t capacity = segment->capacity ? 2 * segment->capacity : 64;
        struct mark *grown = realloc(segment->marks, capacity * sizeof *grown);
        if (!grown) {
            segment->no_memory = true;
            return;
        }
        segment->marks = grown;
        segment->capacity = capacity;
    }
    segment->marks[segment->count++] = (struct mark){code, class};
}

/* Has it a compatibility decomposition that is newer than the library's tables (Unicode 9)? */
static bool compatible_later(uint32_t code)
{
    return code == 0x32FF;
}

static void decompose(struct segment *segment, uint32_t code, bool compatible)
{
    utf8proc_int32_t parts[32];
    int last = UTF8PROC_BOUNDCLASS_START;
    bool canonical = (bits_of(code) & PARAMEM_CHAR_DECOMPOSES) != 0;
    if (!canonical && (!compatible || compatible_later(code))) {
        segment_add(segment, code);
        return;
    }
    utf8proc_option_t options =
        compatible ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
    utf8proc_ssize_t count = utf8proc_decompose_char((utf8proc_int32_t)code, parts,
        (utf8proc_ssize_t)(sizeof parts / sizeof parts[0]), options, &last);
    memos_assert(count >= 1 && count <= (utf8proc_ssize_t)(sizeof parts / sizeof parts[0]));
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        segment_add(segment, (uint32_t)parts[i]);
    }
}

/* What two characters compose to; 0: they do not. */
static uint32_t composed(uint32_t a, uint32_t b)
{
    utf8proc_int32_t pair[2] = {(utf8proc_int32_t)a, (utf8proc_int32_t)b};
    if (a >= 0x1100 && a <= 0x1112 && b >= 0x1161 && b <= 0x1175) {
        return 0xAC00 + ((a - 0x1100) * 21 + (b - 0x1161)) * 28;
    } else if (a >= 0xAC00 && a <= 0xD7A3 && (a - 0xAC00) % 28 == 0 && b > 0x11A7 && b < 0x11C3) {
        return a + (b - 0x11A7);
    }
    utf8proc_ssize_t count = utf8proc_normalize_utf32(pair, 2, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    uint32_t made = count == 1 ? (uint32_t)pair[0] : 0;
    return made != 0 && (bits_of(made) & PARAMEM_CHAR_DECOMPOSES) ? made : 0;
}

static int compare_marks(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return (*left > *right) - (*left < *right);
}

/* Canonical order: each run of marks stable by class. Short runs by insertion; long ones (hostile
 * texts) by a sort of words that hold class, place and character. */
static void order_run(struct segment *segment, size_t begin, size_t end)
{
    struct mark *marks = segment->marks;
    if (end - begin <= 32) {
        for (size_t i = begin + 1; i < end; i++) {
            struct mark moved = marks[i];
            size_t at = i;
            for (; at > begin && marks[at - 1].class > moved.class; at--) {
                marks[at] = marks[at - 1];
            }
            marks[at] = moved;
        }
        return;
    }
    uint64_t *keys = malloc((end - begin) * sizeof *keys);
    if (!keys) {
        segment->no_memory = true;
        return;
    }
    for (size_t i = begin; i < end; i++) {
        keys[i - begin] =
            (uint64_t)marks[i].class << 56 | (uint64_t)(i - begin) << 21 | marks[i].code;
    }
    qsort(keys, end - begin, sizeof *keys, compare_marks);
    for (size_t i = begin; i < end; i++) {
        marks[i].code = (uint32_t)(keys[i - begin] & 0x1FFFFF);
        marks[i].class = (uint32_t)(keys[i - begin] >> 56);
    }
    free(keys);
}

static void order(struct segment *segment)
{
    for (size_t i = 0; i < segment->count; i++) {
        size_t end = i;
        while (end < segment->count && segment->marks[end].class != 0) {
            end++;
        }
        if (end > i + 1) {
            order_run(segment, i, end);
        }
        i = end;
    }
}

/* Each character with the starter before it, unless one of its class or higher stands between. */
static void compose_all(struct segment *segment)
{
    struct mark *marks = segment->marks;
    size_t starter = SIZE_MAX, kept = 0;
    uint32_t last = 0; /* class of what was kept since the starter; 256: another starter */
    for (size_t i = 0; i < segment->count; i++) {
        struct mark mark = marks[i];
        bool blocked = kept > 0 && kept - 1 != starter && last >= mark.class;
        uint32_t made =
            starter == SIZE_MAX || blocked ? 0 : composed(marks[starter].code, mark.code);
        if (made != 0) {
            marks[starter].code = made;
            continue;
        }
        if (mark.class == 0) {
            starter = kept;
        }
        last = mark.class;
        marks[kept++] = mark;
    }
    segment->count = kept;
}

static void segment_end(struct segment *segment, bool compose, struct memos_buffer *out)
{
    order(segment);
    if (compose && !segment->no_memory) {
        compose_all(segment);
    }
    for (size_t i = 0; i < segment->count; i++) {
        paramem_char_write(segment->marks[i].code, out);
    }
    segment->count = 0;
}

/* Starters that compose with one before them. */
static bool joins(uint32_t code)
{
    static const uint16_t others[] = {0x09BE, 0x09D7, 0x0B3E, 0x0B56, 0x0B57, 0x0BBE, 0x0BD7,
        0x0CC2, 0x0CD5, 0x0CD6, 0x0D3E, 0x0D57, 0x0DCF, 0x0DDF, 0x102E, 0x1B35};
    if (code >= 0x1161 && code <= 0x11C2) {
        return true;
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (others[i] == code) {
            return true;
        }
    }
    return code == 0x11127 || code == 0x1133E || code == 0x11357 || code == 0x114B0 ||
           code == 0x114BA || code == 0x114BD || code == 0x115AF || code == 0x11930;
}

enum memos_status paramem_text_compose(struct memos_bytes text, bool compatible, bool compose,
    struct memos_buffer *out, struct memos_error *err)
{
    struct segment segment = {0};
    const uint8_t *at = text.data, *end = at + text.size;
    while (at < end) {
        uint32_t code;
        at += paramem_char_read(memos_bytes_make(at, (size_t)(end - at)), &code);
        bool alone = code < 0xA0 ||
                     ((bits_of(code) & (PARAMEM_CHAR_ORDERED | PARAMEM_CHAR_DECOMPOSES)) == 0 &&
                         !joins(code));
        if (alone && segment.count > 0) {
            segment_end(&segment, compose, out);
        }
        if (code < 0xA0) {
            segment_add(&segment, code);
        } else {
            decompose(&segment, code, compatible);
        }
    }
    segment_end(&segment, compose, out);
    free(segment.marks);
    return segment.no_memory ? memos_fail(err, MEMOS_NO_MEMORY, "no memory to normalise a text")
                             : MEMOS_OK;
}
