/* Plain text and Markdown: cut at headings and between paragraphs, into pieces of bounded length.
 */
#include "tools/memosctl/import.h"

#include "tools/memosctl/text.h"

#include <stdio.h>
#include <string.h>

enum { CHUNK_BYTES = 1200, LEVELS = 6, HEADING_BYTES_MAX = 160, TITLE_BYTES_MAX = 1000 };

struct reader {
    const struct ctl_import_options *options;
    const struct ctl_import_sink *sink;
    struct memos_bytes all;
    size_t chunk_bytes;
    bool is_markdown;

    char headings[LEVELS][HEADING_BYTES_MAX + 1]; /* the path that we are under */
    size_t begin, end;   /* the piece that is being gathered; empty when equal */
    uint64_t begin_line; /* where it begins */
    size_t fence;        /* ticks or tildes of the code block that we are in; 0: none */
    char fence_mark;
};

struct line {
    size_t begin, end; /* without its newline */
    size_t next;
    uint64_t number;
};

static const char *at(const struct reader *r, size_t offset)
{
    return (const char *)r->all.data + offset;
}

static bool is_blank_line(const struct reader *r, const struct line *line)
{
    for (size_t i = line->begin; i < line->end; i++) {
        if (*at(r, i) != ' ' && *at(r, i) != '\t' && *at(r, i) != '\r') {
            return false;
        }
    }
    return true;
}

/* ---- pieces ---- */

/* "Guide > Setup > Linux", as much as a title takes. */
static struct memos_bytes title_of(const struct reader *r, char out[TITLE_BYTES_MAX + 1])
{
    size_t size = 0;
    for (size_t i = 0; i < LEVELS; i++) {
        if (r->headings[i][0] && size < TITLE_BYTES_MAX) {
            int added = snprintf(
                out + size, TITLE_BYTES_MAX + 1 - size, "%s%s", size ? " > " : "", r->headings[i]);
            size += added > 0 ? (size_t)added : 0;
        }
    }
    return ctl_text_head(memos_bytes_make(out, size), TITLE_BYTES_MAX);
}

static enum memos_status give(struct reader *r, size_t begin, size_t end, struct memos_error *err)
{
    char title[TITLE_BYTES_MAX + 1];
    while (end > begin && strchr(" \t\r\n", *at(r, end - 1)) && *at(r, end - 1)) {
        end--;
    }
    while (begin < end && strchr("\r\n", *at(r, begin)) && *at(r, begin)) {
        begin++;
    }
    if (begin == end) {
        return MEMOS_OK;
    }
    struct ctl_import_item item = {
        .text = memos_bytes_make(at(r, begin), end - begin),
        .title = title_of(r, title),
        .source_type = memos_bytes_of("file"),
        .source_uri = memos_bytes_of(r->options->name),
        .offset = begin,
        .length = end - begin,
        .subtype = "document",
        .line = r->begin_line,
    };
    if (!memos_bytes_utf8(item.text)) {
        return r->sink->bad(r->sink->self, r->begin_line, "the text is not UTF-8", err);
    }
    return r->sink->take(r->sink->self, &item, err);
}

/* Where to cut a text that is too long: after a line, a sentence, a word, a character. */
static size_t cut_of(const struct reader *r, size_t begin, size_t most)
{
    static const char *const ends[] = {"\n", ".!?", " "};
    struct memos_bytes head =
        ctl_text_head(memos_bytes_make(at(r, begin), r->all.size - begin), most);
    for (size_t e = 0; e < sizeof ends / sizeof ends[0]; e++) {
        for (size_t i = head.size; i > head.size / 2; i--) {
            char c = *at(r, begin + i - 1);
            char next = begin + i < r->all.size ? *at(r, begin + i) : '\n';
            bool ends_here = c && strchr(ends[e], c);
            if (ends_here && (e != 1 || next == ' ' || next == '\n' || next == '\r')) {
                return begin + i;
            }
        }
    }
    return begin + (head.size ? head.size : most);
}

/* Give what was gathered, in as many pieces as it takes. */
static enum memos_status flush(struct reader *r, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && r->end - r->begin > r->chunk_bytes) {
        size_t cut = cut_of(r, r->begin, r->chunk_bytes);
        status = give(r, r->begin, cut, err);
        for (size_t i = r->begin; i < cut; i++) {
            r->begin_line += *at(r, i) == '\n';
        }
        r->begin = cut;
    }
    if (status == MEMOS_OK) {
        status = give(r, r->begin, r->end, err);
    }
    r->begin = r->end;
    return status;
}

/* A paragraph has ended: it joins those before it when all of them fit into one piece. */
static enum memos_status add_paragraph(
    struct reader *r, size_t begin, size_t end, uint64_t line, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    if (r->end > r->begin && end - r->begin > r->chunk_bytes) {
        status = flush(r, err);
    }
    if (r->end == r->begin) {
        r->begin = begin;
        r->begin_line = line;
    }
    r->end = end;
    return status;
}

/* ---- Markdown ---- */

/* The level of an ATX heading and its words; 0 when the line is none. */
static size_t heading_of(
    const struct reader *r, const struct line *line, struct memos_bytes *out_words)
{
    size_t i = line->begin, level = 0;
    while (i < line->end && i - line->begin < 3 && *at(r, i) == ' ') {
        i++;
    }
    while (i < line->end && *at(r, i) == '#') {
        level++;
        i++;
    }
    if (level == 0 || level > LEVELS ||
        (i < line->end && *at(r, i) != ' ' && *at(r, i) != '\t' && *at(r, i) != '\r')) {
        return 0;
    }
    size_t end = line->end;
    while (end > i && strchr(" \t\r#", *at(r, end - 1)) && *at(r, end - 1)) {
        end--;
    }
    while (i < end && (*at(r, i) == ' ' || *at(r, i) == '\t')) {
        i++;
    }
    *out_words = memos_bytes_make(at(r, i), end - i);
    return level;
}

static void enter_heading(struct reader *r, size_t level, struct memos_bytes words)
{
    for (size_t i = level - 1; i < LEVELS; i++) {
        r->headings[i][0] = '\0';
    }
    words = ctl_text_head(words, HEADING_BYTES_MAX);
    if (memos_bytes_utf8(words)) {
        memcpy(r->headings[level - 1], words.data, words.size);
        r->headings[level - 1][words.size] = '\0';
    }
}

/* Does a code block begin or end here? Inside of one, nothing is a heading and
 * no paragraph ends. */
static void follow_fence(struct reader *r, const struct line *line)
{
    size_t i = line->begin, count = 0;
    while (i < line->end && i - line->begin < 3 && *at(r, i) == ' ') {
        i++;
    }
    char mark = i < line->end ? *at(r, i) : '\0';
    if (mark != '`' && mark != '~') {
        return;
    }
    while (i < line->end && *at(r, i) == mark) {
        count++;
        i++;
    }
    if (r->fence == 0 && count >= 3) {
        r->fence = count;
        r->fence_mark = mark;
    } else if (r->fence > 0 && mark == r->fence_mark && count >= r->fence) {
        r->fence = 0;
    }
}

/* ---- all of it ---- */

static bool next_line(const struct reader *r, struct line *line)
{
    line->begin = line->next;
    line->number++;
    if (line->begin >= r->all.size) {
        return false;
    }
    const char *end = memchr(at(r, line->begin), '\n', r->all.size - line->begin);
    line->end = end ? (size_t)(end - at(r, 0)) : r->all.size;
    line->next = line->end + (end != NULL);
    return true;
}

static enum memos_status read_all(struct reader *r, struct memos_error *err)
{
    struct line line = {0};
    size_t begin = 0, end = 0; /* the paragraph so far; empty when equal */
    uint64_t begin_line = 1;
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && next_line(r, &line)) {
        struct memos_bytes words = {NULL, 0};
        bool was_code = r->fence > 0;
        if (r->is_markdown) {
            follow_fence(r, &line);
        }
        bool is_code = was_code || r->fence > 0;
        size_t level = r->is_markdown && !is_code ? heading_of(r, &line, &words) : 0;
        if (level > 0 || (!is_code && is_blank_line(r, &line))) {
            if (end > begin) {
                status = add_paragraph(r, begin, end, begin_line, err);
            }
            begin = end = line.next;
        } else {
            begin_line = end > begin ? begin_line : line.number;
            begin = end > begin ? begin : line.begin;
            end = line.end;
        }
        if (level > 0 && status == MEMOS_OK) {
            status = flush(r, err);
            enter_heading(r, level, words);
        }
    }
    if (status == MEMOS_OK && end > begin) {
        status = add_paragraph(r, begin, end, begin_line, err);
    }
    return status == MEMOS_OK ? flush(r, err) : status;
}

enum memos_status ctl_import_text(struct memos_bytes bytes, bool is_markdown,
    const struct ctl_import_options *options, const struct ctl_import_sink *sink,
    struct memos_error *err)
{
    struct reader reader = {
        .options = options,
        .sink = sink,
        .all = bytes,
        .chunk_bytes = options->chunk_bytes ? options->chunk_bytes : CHUNK_BYTES,
        .is_markdown = is_markdown,
        .begin_line = 1,
    };
    return read_all(&reader, err);
}
