#include "tools/memosctl/diff.h"

#include "tools/memosctl/json.h"
#include "tools/memosctl/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokens ---- */

static size_t line_size(const uint8_t *at, size_t left)
{
    const uint8_t *end = memchr(at, '\n', left);
    return end ? (size_t)(end - at) + 1 : left;
}

static int class_of(uint8_t c)
{
    if (c == ' ' || c == '\t') {
        return 0;
    }
    bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    return is_letter || c >= 0x80 || c == '_' || c == '\'' ? 1 : 2;
}

static size_t word_size(const uint8_t *at, size_t left)
{
    size_t size = 1;
    while (class_of(at[0]) != 2 && size < left && class_of(at[size]) == class_of(at[0])) {
        size++;
    }
    return size;
}

static enum memos_status split(struct memos_bytes text, bool by_words, struct memos_bytes **out,
    size_t *out_count, struct memos_error *err)
{
    size_t count = 0, capacity = 0;
    struct memos_bytes *tokens = NULL;
    const uint8_t *at = text.data;
    size_t left = text.size;
    while (left > 0) {
        if (count == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            struct memos_bytes *more = reallocarray(tokens, capacity, sizeof *tokens);
            if (!more || count >= CTL_DIFF_TOKENS_MAX) {
                free(more ? more : tokens);
                return more ? memos_fail(err, MEMOS_TOO_LARGE,
                                  "a text of more than %d pieces is not compared",
                                  CTL_DIFF_TOKENS_MAX)
                            : memos_fail(err, MEMOS_NO_MEMORY, "no memory to compare texts");
            }
            tokens = more;
        }
        size_t size = by_words ? word_size(at, left) : line_size(at, left);
        tokens[count++] = memos_bytes_make(at, size);
        at += size;
        left -= size;
    }
    *out = tokens;
    *out_count = count;
    return MEMOS_OK;
}

/* ---- the algorithm ---- */

static enum memos_status add_run(struct ctl_diff *diff, enum ctl_diff_kind kind, size_t a, size_t b,
    size_t count, struct memos_error *err)
{
    struct ctl_diff_run *last = diff->runs_count ? &diff->runs[diff->runs_count - 1] : NULL;
    if (count == 0) {
        return MEMOS_OK;
    }
    if (last && last->kind == kind) {
        last->count += count;
        return MEMOS_OK;
    }
    if (diff->runs_count == diff->runs_capacity) {
        size_t capacity = diff->runs_capacity ? diff->runs_capacity * 2 : 16;
        struct ctl_diff_run *runs = reallocarray(diff->runs, capacity, sizeof *runs);
        if (!runs) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory to compare texts");
        }
        diff->runs = runs;
        diff->runs_capacity = capacity;
    }
    diff->runs[diff->runs_count++] = (struct ctl_diff_run){kind, a, b, count};
    return MEMOS_OK;
}

/* The furthest x that d edits reach on each diagonal k = x - y, for every d: row d has d + 1
 * entries, for k = -d, -d + 2 ... d. */
struct trace {
    uint32_t *reach;
    size_t edits_max;
};

static size_t row_of(size_t d)
{
    return d * (d + 1) / 2;
}

static uint32_t *reach_at(const struct trace *trace, size_t d, long k)
{
    return &trace->reach[row_of(d) + (size_t)((k + (long)d) / 2)];
}

/* Where d edits come from to diagonal k, before running along what is the same: a step down (from
 * k + 1, a token of b added) or to the right (from k - 1, a token of a removed). */
static bool came_down(const struct trace *trace, size_t d, long k)
{
    return k == -(long)d ||
           (k != (long)d && *reach_at(trace, d - 1, k - 1) < *reach_at(trace, d - 1, k + 1));
}

/* Fill the rows; the number of edits needed, or SIZE_MAX when it is more than edits_max. */
static size_t find_edits(struct trace *trace, const struct memos_bytes *a, size_t a_count,
    const struct memos_bytes *b, size_t b_count)
{
    for (size_t d = 0; d <= trace->edits_max; d++) {
        for (long k = -(long)d; k <= (long)d; k += 2) {
            long x = 0;
            if (d > 0) {
                x = came_down(trace, d, k) ? (long)*reach_at(trace, d - 1, k + 1)
                                           : (long)*reach_at(trace, d - 1, k - 1) + 1;
            }
            long y = x - k;
            /* a diagonal that has left the field is kept at its edge, where nothing follows */
            while (x >= 0 && y >= 0 && x < (long)a_count && y < (long)b_count &&
                   memos_bytes_equal(a[x], b[y])) {
                x++;
                y++;
            }
            *reach_at(trace, d, k) = (uint32_t)x;
            if (x >= (long)a_count && y >= (long)b_count) {
                return d;
            }
        }
    }
    return SIZE_MAX;
}

/* Walk the rows back from the end; steps come out last first. */
static enum memos_status walk_back(struct ctl_diff *diff, const struct trace *trace, size_t edits,
    size_t offset, size_t a_count, size_t b_count, struct memos_error *err)
{
    uint8_t *steps = malloc(a_count + b_count + 1);
    size_t steps_count = 0;
    long x = (long)a_count, y = (long)b_count;
    if (!steps) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to compare texts");
    }
    for (size_t d = edits; x > 0 || y > 0; d--) {
        long k = x - y;
        bool down = d > 0 && came_down(trace, d, k);
        long from = d == 0 ? 0 : (long)*reach_at(trace, d - 1, down ? k + 1 : k - 1);
        long begin = d == 0 ? 0 : from + !down; /* where the run of sames begins */
        for (; x > begin; x--, y--) {
            steps[steps_count++] = CTL_DIFF_SAME;
        }
        if (d == 0) {
            break;
        }
        steps[steps_count++] = down ? CTL_DIFF_ADDED : CTL_DIFF_REMOVED;
        x -= !down;
        y -= down;
    }
    enum memos_status status = MEMOS_OK;
    size_t a = offset, b = offset;
    while (steps_count-- > 0 && status == MEMOS_OK) {
        enum ctl_diff_kind kind = (enum ctl_diff_kind)steps[steps_count];
        status = add_run(diff, kind, a, b, 1, err);
        a += kind != CTL_DIFF_ADDED;
        b += kind != CTL_DIFF_REMOVED;
    }
    free(steps);
    return status;
}

/* The part between the common ends: a_count tokens of a and b_count of b, from `offset` on. */
static enum memos_status compare_middle(
    struct ctl_diff *diff, size_t offset, size_t a_count, size_t b_count, struct memos_error *err)
{
    struct trace trace = {NULL, a_count + b_count};
    size_t edits = SIZE_MAX;
    if (trace.edits_max > CTL_DIFF_EDITS_MAX) {
        trace.edits_max = CTL_DIFF_EDITS_MAX;
    }
    if (a_count > 0 && b_count > 0) {
        trace.reach = reallocarray(NULL, row_of(trace.edits_max + 1), sizeof *trace.reach);
        if (!trace.reach) {
            return memos_fail(err, MEMOS_NO_MEMORY, "no memory to compare texts");
        }
        edits = find_edits(&trace, diff->a + offset, a_count, diff->b + offset, b_count);
    }
    enum memos_status status;
    if (edits != SIZE_MAX) {
        status = walk_back(diff, &trace, edits, offset, a_count, b_count, err);
    } else {
        status = add_run(diff, CTL_DIFF_REMOVED, offset, offset, a_count, err);
        if (status == MEMOS_OK) {
            status = add_run(diff, CTL_DIFF_ADDED, offset + a_count, offset, b_count, err);
        }
    }
    free(trace.reach);
    return status;
}

enum memos_status ctl_diff_make(struct memos_bytes a, struct memos_bytes b, bool by_words,
    struct ctl_diff *out, struct memos_error *err)
{
    *out = (struct ctl_diff){0};
    enum memos_status status = split(a, by_words, &out->a, &out->a_count, err);
    if (status == MEMOS_OK) {
        status = split(b, by_words, &out->b, &out->b_count, err);
    }
    size_t least = out->a_count < out->b_count ? out->a_count : out->b_count;
    size_t head = 0, tail = 0;
    while (head < least && memos_bytes_equal(out->a[head], out->b[head])) {
        head++;
    }
    while (tail < least - head &&
           memos_bytes_equal(out->a[out->a_count - 1 - tail], out->b[out->b_count - 1 - tail])) {
        tail++;
    }
    if (status == MEMOS_OK) {
        status = add_run(out, CTL_DIFF_SAME, 0, 0, head, err);
    }
    if (status == MEMOS_OK) {
        status =
            compare_middle(out, head, out->a_count - head - tail, out->b_count - head - tail, err);
    }
    if (status == MEMOS_OK) {
        status = add_run(out, CTL_DIFF_SAME, out->a_count - tail, out->b_count - tail, tail, err);
    }
    if (status != MEMOS_OK) {
        ctl_diff_free(out);
    }
    return status;
}

void ctl_diff_free(struct ctl_diff *diff)
{
    free(diff->a);
    free(diff->b);
    free(diff->runs);
    *diff = (struct ctl_diff){0};
}

bool ctl_diff_differs(const struct ctl_diff *diff)
{
    for (size_t i = 0; i < diff->runs_count; i++) {
        if (diff->runs[i].kind != CTL_DIFF_SAME) {
            return true;
        }
    }
    return false;
}

/* ---- showing ---- */

static const struct {
    char mark;
    enum ctl_style style;
    const char *word, *open, *close;
} looks[] = {
    [CTL_DIFF_SAME] = {' ', CTL_PLAIN, "same", "", ""},
    [CTL_DIFF_REMOVED] = {'-', CTL_RED, "removed", "[-", "-]"},
    [CTL_DIFF_ADDED] = {'+', CTL_GREEN, "added", "{+", "+}"},
};

static struct memos_bytes token_of(
    const struct ctl_diff *diff, const struct ctl_diff_run *run, size_t i)
{
    return run->kind == CTL_DIFF_ADDED ? diff->b[run->b + i] : diff->a[run->a + i];
}

/* The text of a run in one piece: its tokens lie side by side. */
static struct memos_bytes text_of(const struct ctl_diff *diff, const struct ctl_diff_run *run)
{
    struct memos_bytes first = token_of(diff, run, 0), last = token_of(diff, run, run->count - 1);
    const uint8_t *begin = first.data, *end = (const uint8_t *)last.data + last.size;
    return memos_bytes_make(begin, (size_t)(end - begin));
}

static void print_lines(const struct ctl_diff *diff, const struct ctl_diff_run *run, size_t from,
    size_t to, const struct ctl_paper *paper)
{
    struct memos_buffer line = memos_buffer_make(SIZE_MAX);
    for (size_t i = from; i < to; i++) {
        struct memos_bytes text = token_of(diff, run, i);
        bool ends = text.size > 0 && ((const char *)text.data)[text.size - 1] == '\n';
        memos_buffer_reset(&line);
        ctl_text_clean(&line, memos_bytes_make(text.data, text.size - ends), true);
        fprintf(paper->out, "%s%c%.*s%s\n", ctl_style_on(paper, looks[run->kind].style),
            looks[run->kind].mark, (int)line.size, (const char *)line.data,
            looks[run->kind].style ? ctl_style_off(paper) : "");
        if (!ends && run->kind != CTL_DIFF_SAME) {
            fputs("\\ no newline at the end\n", paper->out);
        }
    }
    memos_buffer_free(&line);
}

static void print_by_lines(
    const struct ctl_diff *diff, size_t context, const struct ctl_paper *paper)
{
    for (size_t r = 0; r < diff->runs_count; r++) {
        const struct ctl_diff_run *run = &diff->runs[r];
        bool is_first = r == 0, is_last = r + 1 == diff->runs_count;
        size_t before = is_first ? 0 : context, after = is_last ? 0 : context;
        if (run->kind != CTL_DIFF_SAME) {
            print_lines(diff, run, 0, run->count, paper);
        } else if (run->count <= before + after) {
            print_lines(diff, run, 0, run->count, paper);
        } else {
            print_lines(diff, run, 0, before, paper);
            size_t next = run->count - after;
            if (!is_last) {
                fprintf(paper->out, "%s@@ -%zu +%zu @@%s\n", ctl_style_on(paper, CTL_DIM),
                    run->a + next + 1, run->b + next + 1, ctl_style_off(paper));
            }
            print_lines(diff, run, next, run->count, paper);
        }
    }
}

static void print_by_words(const struct ctl_diff *diff, const struct ctl_paper *paper)
{
    struct memos_buffer text = memos_buffer_make(SIZE_MAX);
    bool ends = true;
    for (size_t r = 0; r < diff->runs_count; r++) {
        const struct ctl_diff_run *run = &diff->runs[r];
        memos_buffer_reset(&text);
        ctl_text_clean(&text, text_of(diff, run), true);
        const char *open = paper->is_coloured ? "" : looks[run->kind].open;
        const char *close = paper->is_coloured ? "" : looks[run->kind].close;
        fprintf(paper->out, "%s%s%.*s%s%s", ctl_style_on(paper, looks[run->kind].style), open,
            (int)text.size, (const char *)text.data, close,
            looks[run->kind].style ? ctl_style_off(paper) : "");
        ends = close[0] == '\0' && text.size > 0 && text.data[text.size - 1] == '\n';
    }
    fputs(ends ? "" : "\n", paper->out);
    memos_buffer_free(&text);
}

void ctl_diff_print(
    const struct ctl_diff *diff, bool by_words, size_t context, const struct ctl_paper *paper)
{
    if (by_words) {
        print_by_words(diff, paper);
    } else if (ctl_diff_differs(diff)) {
        print_by_lines(diff, context, paper);
    }
}

json_t *ctl_diff_json(const struct ctl_diff *diff)
{
    json_t *array = json_array();
    for (size_t i = 0; i < diff->runs_count; i++) {
        json_array_append_new(array, json_pack("{ss,so}", "op", looks[diff->runs[i].kind].word,
                                         "text", ctl_json_text(text_of(diff, &diff->runs[i]))));
    }
    return array;
}
