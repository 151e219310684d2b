/* How likely texts are to a model: a Score, a window at a time.
 *
 * Texts that stand alone may be longer than the context: windows of its length are read, each
 * beginning `overlap` tokens before the end of the one before, and what is told is to the bit what
 * paramem_engine_score says of the whole. A window is read between two steps of what generates.
 *
 * After a prompt, the tokens of a text are those that both together have and the prompt alone has
 * not, as `memosctl score --choices` counts; after a prompt with memory (or
 * memory alone), the text's own. Captures that were turned to their places stand for their texts
 * there, too, when that is asked for. */
#ifndef MEMOS_WORKER_SCORE_H
#define MEMOS_WORKER_SCORE_H

#include "memos/worker/job.h"

/* The ids of all texts. INVALID: a text of one token with nothing before it; an overlap that is not
 * less than the context. TOO_LARGE: more than the context after a prompt. */
MEMOS_MUST_USE enum memos_status worker_score_prepare(
    struct worker_job *job, struct memos_error *err);

/* On the model's thread: read one window. *out_more: there are others. */
MEMOS_MUST_USE enum memos_status worker_score_window(
    struct worker_job *job, bool *out_more, struct memos_error *err);

#endif
