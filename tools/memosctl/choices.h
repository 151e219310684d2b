/* Which of several answers is the likeliest: questions from a file, answered one after the other by
 * whoever scores them.
 *
 * Threads: one. */
#ifndef TOOLS_MEMOSCTL_CHOICES_H
#define TOOLS_MEMOSCTL_CHOICES_H

#include "tools/memosctl/ctl.h"

enum { CTL_CHOICES_MAX = 64 };

struct ctl_question {
    size_t number; /* of its line */
    const json_t *id, *answer;
    struct memos_bytes prompt, choices[CTL_CHOICES_MAX];
    size_t choices_count;
};

/* log P(choice | prompt) of each choice: their tokens' sums. */
typedef enum memos_status ctl_choices_score(void *self, const struct ctl_question *question,
    double out_sums[CTL_CHOICES_MAX], struct memos_error *err);

/* Answer each line of text, {"id", "prompt", "choices": [...], "answer": N}, with a line of its
 * own, and say in the end how many were right. INVALID names the line. */
MEMOS_MUST_USE enum memos_status ctl_choices_answer(struct ctl *ctl, struct memos_bytes text,
    ctl_choices_score *score, void *self, struct memos_error *err);

/* The next line of text, which it is taken from; without its end. */
struct memos_bytes ctl_line_next(struct memos_bytes *text);

#endif
