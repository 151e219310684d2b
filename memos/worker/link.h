/* The link to the broker: the announcement and all that follows from it.
 *
 * The broker keeps the jobs of a worker that announces itself again on the connection that it has,
 * and of no other: when it says that it does not know us, or not our jobs, then those that came
 * before are nobody's any more (it has passed them on, or told their clients), and what we still
 * say of them is not sent.
 *
 * Threads: the link thread, which is worker_run's. */
#ifndef MEMOS_WORKER_LINK_H
#define MEMOS_WORKER_LINK_H

#include "memos/worker/state.h"

MEMOS_MUST_USE enum memos_status worker_link_open(struct worker *worker, struct memos_error *err);
void worker_link_close(struct worker *worker); /* takes one that was not opened */

/* Take what has come, send what is to go, and what is due. Never waits for the broker, but (at most
 * a second) for the first connection. */
void worker_link_turn(struct worker *worker);

/* When worker_link_turn has something to do although nothing came; on the monotonic clock. */
int64_t worker_link_due_us(const struct worker *worker);

/* Begin to drain. */
void worker_link_drain(struct worker *worker);

/* Is there nothing left to do? */
bool worker_link_drained(const struct worker *worker);

/* Nobody hears of the jobs that there are any more. */
void worker_link_drop(struct worker *worker);

#endif
