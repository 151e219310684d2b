/* What is said on standard input, a line at a time, beside the signals that stop a command.
 *
 * Threads: one; others must have SIGINT and SIGTERM blocked. */
#ifndef TOOLS_MEMOSCTL_LINES_H
#define TOOLS_MEMOSCTL_LINES_H

#include "proto/bytes.h"

#include <stdbool.h>

/* From now on Ctrl-C and SIGTERM end nothing; ctl_stopped says that one came. A second one ends the
 * process. */
void ctl_catch_stops(void);
bool ctl_stopped(void);

/* A Ctrl-C that came is dealt with: the next is the first again. SIGTERM stays: who sends it wants
 * the process to end. */
void ctl_stops_forget(void);

/* What was read of standard input and not given out yet; zero-initialise. Whoever reads lines reads
 * nothing there otherwise. */
struct ctl_lines {
    size_t at, size;
    char bytes[4096];
};

enum ctl_line {
    CTL_LINE,
    CTL_LINE_END,     /* the input is over, an error of it included, or SIGTERM came */
    CTL_LINE_STOPPED, /* by Ctrl-C, or it came before: ctl_stopped */
};

/* Append the next line to *out, without its end; also what there was before an end or a stop. */
enum ctl_line ctl_line_read(struct ctl_lines *lines, struct memos_buffer *out);

#endif
