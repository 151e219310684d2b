/* Tables for people: columns that are as wide as they need to be, and together no wider than the
 * paper; colours only where they are wanted.
 *
 * Threads: none of its own. */
#ifndef TOOLS_MEMOSCTL_TABLE_H
#define TOOLS_MEMOSCTL_TABLE_H

#include "proto/bytes.h"

#include <stdio.h>

/* Where it is printed. */
struct ctl_paper {
    FILE *out;
    size_t columns; /* 0: as wide as it takes */
    bool is_terminal;
    bool is_coloured;
};

enum ctl_style {
    CTL_PLAIN,
    CTL_BOLD,
    CTL_DIM,
    CTL_RED,
    CTL_GREEN,
    CTL_YELLOW,
    CTL_BLUE,
};

/* The sequence that turns a style on, and the one that turns all off; "" without colours. */
const char *ctl_style_on(const struct ctl_paper *paper, enum ctl_style style);
const char *ctl_style_off(const struct ctl_paper *paper);

/* A file's width ($COLUMNS, the terminal's, none for a pipe) and whether it takes colours: when is
 * "auto", "always" or "never". */
MEMOS_MUST_USE enum memos_status ctl_paper_init(
    struct ctl_paper *paper, FILE *out, const char *when, struct memos_error *err);

enum { CTL_COLUMNS_MAX = 12 };

struct ctl_column {
    const char *title;
    bool to_right;
    bool gives_way; /* is cut when the paper is too narrow */
};

/* Cells are given one by one, row after row. Zero-initialise with ctl_table_make. */
struct ctl_table {
    const struct ctl_column *columns;
    size_t columns_count;
    struct memos_buffer text; /* all cells */
    struct ctl_cell *cells;
    size_t cells_count, cells_capacity;
    bool failed;
};

struct ctl_table ctl_table_make(const struct ctl_column *columns, size_t count);

/* Drop all cells; the table may be filled again. */
void ctl_table_free(struct ctl_table *table);

/* The next cell: any text, made safe here. */
void ctl_table_cell(struct ctl_table *table, enum ctl_style style, struct memos_bytes text);
__attribute__((format(printf, 3, 4))) void ctl_table_printf(
    struct ctl_table *table, enum ctl_style style, const char *format, ...);

/* Print title and rows; a table without rows prints nothing. NO_MEMORY: cells were lost. */
MEMOS_MUST_USE enum memos_status ctl_table_print(
    const struct ctl_table *table, const struct ctl_paper *paper, struct memos_error *err);

/* Print text made safe with its lines kept, ending with a newline; each line begins with `indent`
 * blanks. */
void ctl_paper_text(const struct ctl_paper *paper, struct memos_bytes text, int indent);

/* "name  value" lines of a description; nothing for an empty value. */
void ctl_paper_field(const struct ctl_paper *paper, const char *name, struct memos_bytes value);
__attribute__((format(printf, 3, 4))) void ctl_paper_fieldf(
    const struct ctl_paper *paper, const char *name, const char *format, ...);

#endif
