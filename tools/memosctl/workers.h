/* Workers that were started by this program: a small file for each, beside the broker's usual
 * socket, so that they can be found and ended again.
 *
 * A file is believed only as far as its process is a memos-worker of the same user.
 *
 * Threads: one. */
#ifndef TOOLS_MEMOSCTL_WORKERS_H
#define TOOLS_MEMOSCTL_WORKERS_H

#include "tools/memosctl/ctl.h"

#include <limits.h>
#include <sys/types.h>

#define CTL_WORKER_PROGRAM "memos-worker"

struct ctl_worker {
    pid_t pid;
    const char *name, *address, *log; /* from the arena */
    const char *path;                 /* of the file */
};

/* Where the broker is that is meant: --address, $MEMOS_ADDRESS, or one's own. */
MEMOS_MUST_USE enum memos_status ctl_broker_address(
    const struct ctl *ctl, char *out, size_t size, struct memos_error *err);

/* Keep one (its path is made). */
MEMOS_MUST_USE enum memos_status ctl_worker_keep(
    struct ctl *ctl, struct ctl_worker *worker, struct memos_error *err);

/* Those of the broker at an address (NULL: of all) that run, by name; files of others that ended
 * are removed. None when there is no folder. */
MEMOS_MUST_USE enum memos_status ctl_workers_kept(struct ctl *ctl, const char *address,
    struct ctl_worker **out, size_t *out_count, struct memos_error *err);

/* End it: SIGTERM, and a wait. Its file goes with it. */
MEMOS_MUST_USE enum memos_status ctl_worker_end(
    const struct ctl_worker *worker, int64_t wait_ms, struct memos_error *err);

#endif
