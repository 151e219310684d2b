/* What a job's client is told, on its way to the link thread.
 *
 * Threads: whose the job is. After worker_reply_over a job is nobody's but the link thread's. */
#ifndef MEMOS_WORKER_REPLY_H
#define MEMOS_WORKER_REPLY_H

#include "memos/worker/state.h"

/* Tokens that were heard since the last time, as one reply to be put into the outbox; forgets them.
 * NULL: there were none, or (job->failed says so) there is no memory. */
struct worker_out *worker_reply_tokens(struct worker_job *job);

/* How far a long job is; dropped without memory. */
void worker_reply_progress(struct worker_job *job, uint64_t done, uint64_t total);

/* The last reply: what was generated, scored, captured. err: why there is no more than that; NULL:
 * it went well. Does not allocate. */
void worker_reply_generated(struct worker_job *job, const struct memos_error *err);
void worker_reply_scored(struct worker_job *job);
void worker_reply_captured(struct worker_job *job);
void worker_reply_failed(struct worker_job *job, const struct memos_error *err);

/* The ticket is given back. */
void worker_reply_over(struct worker_job *job);

/* worker_reply_failed and worker_reply_over. */
void worker_job_fail(struct worker_job *job, const struct memos_error *err);

/* Bytes as UTF-8 without NUL: what is neither becomes U+FFFD. out has 3 size + 1 bytes; returns how
 * many were written, without the NUL at the end. */
size_t worker_text_clean(struct memos_bytes bytes, char *out);

#endif
