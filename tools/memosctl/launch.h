/* Programs of the service, started in the background: found, given a log, and waited for until they
 * say that they are ready, or why they are not.
 *
 * A program gets a descriptor (3) to which it writes lines: "loading WHAT DONE TOTAL" (bytes) while
 * it loads something, then "ready". It runs in a session of its own and reads nothing.
 *
 * Threads: one. */
#ifndef TOOLS_MEMOSCTL_LAUNCH_H
#define TOOLS_MEMOSCTL_LAUNCH_H

#include "tools/memosctl/ctl.h"

#include <limits.h>
#include <sys/types.h>

enum { CTL_LAUNCH_ARGUMENTS_MAX = 128 };

struct ctl_launch {
    const char *name; /* "memosd", "memos-worker": of the program's file, and of its process */
    const char *kind; /* "broker", "worker" */
    const char *arguments[CTL_LAUNCH_ARGUMENTS_MAX + 1];
    size_t arguments_count;
    char program[PATH_MAX], log[PATH_MAX];
    int log_file, ready[2];
    off_t log_begin;
    pid_t pid;
};

/* Ready for arguments; `--ready-fd 3` is among them. */
void ctl_launch_init(struct ctl_launch *launch, const char *name, const char *kind);
void ctl_launch_finish(struct ctl_launch *launch); /* what was started runs on */

/* Two arguments, the second only where it is not NULL; both are borrowed. What is too much is
 * dropped: ctl_launch_start refuses then. */
void ctl_launch_add(struct ctl_launch *launch, const char *option, const char *value);

/* Its program: as `option` says, or what lies beside this program, or where the build puts it, or
 * whatever PATH has. */
void ctl_launch_find(const struct ctl *ctl, enum ctl_option option, struct ctl_launch *launch);

/* Start it with its log (launch->log, appended to) and wait, showing what it loads. On failure the
 * end of its log is printed, and the status is the one that it ended with. CANCELLED: stopped
 * (where stops are caught); DEADLINE; both end it. Sets ctl->hint. */
MEMOS_MUST_USE enum memos_status ctl_launch_start(
    struct ctl *ctl, struct ctl_launch *launch, struct memos_error *err);

/* ---- places --------------------------------------------------------------------------------- */

/* $VARIABLE/NAME, or $HOME/USUAL/NAME. INVALID without both. */
MEMOS_MUST_USE enum memos_status ctl_xdg_path(const char *variable, const char *usual,
    const char *name, char out[PATH_MAX], struct memos_error *err);

/* The folders above a file. */
MEMOS_MUST_USE enum memos_status ctl_make_folders(const char *path, struct memos_error *err);

/* The value of the option, else $XDG_STATE_HOME/memos/NAME. */
MEMOS_MUST_USE enum memos_status ctl_log_path(const struct ctl *ctl, enum ctl_option option,
    const char *name, char out[PATH_MAX], struct memos_error *err);

/* ---- processes ------------------------------------------------------------------------------ */

/* Is this process one of ours with this name, and alive? A number may be of one that ended. */
bool ctl_process_is(pid_t pid, const char *name);

/* Ask it to end (SIGTERM) and wait. OK also when it is not there any more; DENIED: it is another;
 * DEADLINE. */
MEMOS_MUST_USE enum memos_status ctl_process_stop(
    pid_t pid, const char *name, int64_t wait_ms, struct memos_error *err);

#endif
