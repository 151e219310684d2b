#include "tools/memosctl/table.h"

#include "tools/memosctl/args.h"
#include "tools/memosctl/text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { GAP = 2, GIVE_WAY_MIN = 8, GIVE_WAY_MAX = 200, CELL_BYTES_MAX = 2048, FIELD_COLUMNS = 14 };
#define TABLE_BYTES_MAX ((size_t)256 * 1024 * 1024)

struct ctl_cell {
    size_t offset, size, width;
    enum ctl_style style;
};

/* ---- paper ---- */

const char *ctl_style_on(const struct ctl_paper *paper, enum ctl_style style)
{
    static const char *const on[] = {
        [CTL_PLAIN] = "",
        [CTL_BOLD] = "\x1b[1m",
        [CTL_DIM] = "\x1b[2m",
        [CTL_RED] = "\x1b[31m",
        [CTL_GREEN] = "\x1b[32m",
        [CTL_YELLOW] = "\x1b[33m",
        [CTL_BLUE] = "\x1b[34m",
    };
    return paper->is_coloured ? on[style] : "";
}

const char *ctl_style_off(const struct ctl_paper *paper)
{
    return paper->is_coloured ? "\x1b[0m" : "";
}

static size_t columns_of(FILE *out, bool is_terminal)
{
    uint64_t given;
    const char *text = getenv("COLUMNS");
    if (text && ctl_number_parse(text, 10000, &given) && given >= 20) {
        return (size_t)given;
    }
    struct winsize size;
    if (is_terminal && ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) {
        return size.ws_col;
    }
    return is_terminal ? 80 : 0;
}

enum memos_status ctl_paper_init(
    struct ctl_paper *paper, FILE *out, const char *when, struct memos_error *err)
{
    const char *no = getenv("NO_COLOR"), *kind = getenv("TERM");
    bool is_terminal = isatty(fileno(out)) == 1;
    *paper = (struct ctl_paper){out, columns_of(out, is_terminal), is_terminal, false};
    if (strcmp(when, "always") == 0) {
        paper->is_coloured = true;
    } else if (strcmp(when, "auto") == 0) {
        paper->is_coloured = is_terminal && !(no && no[0]) && !(kind && strcmp(kind, "dumb") == 0);
    } else if (strcmp(when, "never") != 0) {
        return memos_fail(
            err, MEMOS_INVALID, "--color takes auto, always or never, not '%s'", when);
    }
    return MEMOS_OK;
}

void ctl_paper_text(const struct ctl_paper *paper, struct memos_bytes text, int indent)
{
    struct memos_buffer clean = memos_buffer_make(TABLE_BYTES_MAX);
    ctl_text_clean(&clean, text, true);
    const char *at = (const char *)clean.data;
    size_t left = clean.size;
    while (left > 0) {
        const char *end = memchr(at, '\n', left);
        size_t size = end ? (size_t)(end - at) : left;
        fprintf(paper->out, "%*s%.*s\n", size ? indent : 0, "", (int)size, at);
        size += end != NULL;
        at += size;
        left -= size;
    }
    memos_buffer_free(&clean);
}

void ctl_paper_field(const struct ctl_paper *paper, const char *name, struct memos_bytes value)
{
    if (value.size == 0) {
        return;
    }
    struct memos_buffer clean = memos_buffer_make(TABLE_BYTES_MAX);
    ctl_text_clean(&clean, value, false);
    fprintf(paper->out, "%s%-*s%s %.*s\n", ctl_style_on(paper, CTL_DIM), FIELD_COLUMNS, name,
        ctl_style_off(paper), (int)clean.size, (const char *)clean.data);
    memos_buffer_free(&clean);
}

void ctl_paper_fieldf(const struct ctl_paper *paper, const char *name, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ctl_paper_field(paper, name, memos_bytes_of(text));
}

/* ---- tables ---- */

struct ctl_table ctl_table_make(const struct ctl_column *columns, size_t count)
{
    return (struct ctl_table){
        .columns = columns, .columns_count = count, .text = memos_buffer_make(TABLE_BYTES_MAX)};
}

void ctl_table_free(struct ctl_table *table)
{
    memos_buffer_free(&table->text);
    free(table->cells);
    table->failed = false;
    table->cells = NULL;
    table->cells_count = table->cells_capacity = 0;
}

void ctl_table_cell(struct ctl_table *table, enum ctl_style style, struct memos_bytes text)
{
    if (table->cells_count == table->cells_capacity) {
        size_t capacity = table->cells_capacity ? table->cells_capacity * 2 : 64;
        struct ctl_cell *cells = reallocarray(table->cells, capacity, sizeof *cells);
        if (!cells) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->cells_capacity = capacity;
    }
    struct ctl_cell cell = {.offset = table->text.size, .style = style};
    ctl_text_clean(&table->text, ctl_text_head(text, CELL_BYTES_MAX), false);
    if (table->text.failed) {
        table->failed = true;
        return;
    }
    cell.size = table->text.size - cell.offset;
    cell.width = ctl_text_width(memos_bytes_make(table->text.data + cell.offset, cell.size));
    table->cells[table->cells_count++] = cell;
}

void ctl_table_printf(struct ctl_table *table, enum ctl_style style, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ctl_table_cell(table, style, memos_bytes_of(text));
}

/* Take columns from those that give way, from the widest first, until all fit. */
static void shrink(const struct ctl_table *table, size_t columns, size_t widths[])
{
    size_t sum = (table->columns_count - 1) * GAP;
    for (size_t i = 0; i < table->columns_count; i++) {
        sum += widths[i];
    }
    while (sum > columns) {
        size_t widest = SIZE_MAX;
        for (size_t i = 0; i < table->columns_count; i++) {
            if (table->columns[i].gives_way && widths[i] > GIVE_WAY_MIN &&
                (widest == SIZE_MAX || widths[i] > widths[widest])) {
                widest = i;
            }
        }
        if (widest == SIZE_MAX) {
            return;
        }
        widths[widest]--;
        sum--;
    }
}

static void print_cell(const struct ctl_table *table, const struct ctl_paper *paper, size_t column,
    const struct ctl_cell *cell, size_t width)
{
    struct memos_bytes text = memos_bytes_make(table->text.data + cell->offset, cell->size);
    struct memos_buffer fitted = memos_buffer_make(CELL_BYTES_MAX * 16);
    size_t used = ctl_text_fit(&fitted, text, width);
    int blanks = (int)(width - used);
    bool is_last = column + 1 == table->columns_count;
    bool to_right = table->columns[column].to_right;
    fprintf(paper->out, "%*s%s%.*s%s%*s", to_right ? blanks : 0, "",
        ctl_style_on(paper, cell->style), (int)fitted.size, (const char *)fitted.data,
        cell->style == CTL_PLAIN ? "" : ctl_style_off(paper),
        is_last ? 0 : (to_right ? 0 : blanks) + GAP, "");
    memos_buffer_free(&fitted);
}

static void print_titles(
    const struct ctl_table *table, const struct ctl_paper *paper, const size_t widths[])
{
    fputs(ctl_style_on(paper, CTL_BOLD), paper->out);
    for (size_t i = 0; i < table->columns_count; i++) {
        bool is_last = i + 1 == table->columns_count;
        int width = is_last && !table->columns[i].to_right ? 0 : (int)widths[i];
        fprintf(paper->out, "%*s%*s", table->columns[i].to_right ? width : -width,
            table->columns[i].title, is_last ? 0 : GAP, "");
    }
    fprintf(paper->out, "%s\n", ctl_style_off(paper));
}

enum memos_status ctl_table_print(
    const struct ctl_table *table, const struct ctl_paper *paper, struct memos_error *err)
{
    size_t widths[CTL_COLUMNS_MAX];
    size_t rows = table->cells_count / table->columns_count;
    if (table->failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a table of %zu rows", rows);
    }
    if (rows == 0) {
        return MEMOS_OK;
    }
    for (size_t i = 0; i < table->columns_count; i++) {
        widths[i] = ctl_text_width(memos_bytes_of(table->columns[i].title));
    }
    for (size_t i = 0; i < table->cells_count; i++) {
        size_t column = i % table->columns_count, width = table->cells[i].width;
        widths[column] = width > widths[column] ? width : widths[column];
    }
    for (size_t i = 0; i < table->columns_count; i++) {
        bool is_long = table->columns[i].gives_way && widths[i] > GIVE_WAY_MAX;
        widths[i] = is_long ? GIVE_WAY_MAX : widths[i];
    }
    if (paper->columns > 0) {
        shrink(table, paper->columns, widths);
    }
    print_titles(table, paper, widths);
    for (size_t i = 0; i < rows * table->columns_count; i++) {
        size_t column = i % table->columns_count;
        print_cell(table, paper, column, &table->cells[i], widths[column]);
        if (column + 1 == table->columns_count) {
            fputc('\n', paper->out);
        }
    }
    return MEMOS_OK;
}
