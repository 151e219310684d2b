/* The shortest way from one text to another: Myers' algorithm (E. Myers, An O(ND) difference
 * algorithm and its variations, 1986), on lines or on words.
 *
 * Bounded: texts that differ in more than CTL_DIFF_EDITS_MAX places are told apart as "all of the
 * one, then all of the other" in the part between what they have in common at both ends. */
#ifndef TOOLS_MEMOSCTL_DIFF_H
#define TOOLS_MEMOSCTL_DIFF_H

#include "tools/memosctl/table.h"

#include <jansson.h>

enum { CTL_DIFF_EDITS_MAX = 1500, CTL_DIFF_TOKENS_MAX = 4 * 1024 * 1024 };

enum ctl_diff_kind { CTL_DIFF_SAME, CTL_DIFF_REMOVED, CTL_DIFF_ADDED };

/* count tokens that are the same in both (from a and b on), only in a, or only in b. */
struct ctl_diff_run {
    enum ctl_diff_kind kind;
    size_t a, b, count;
};

struct ctl_diff {
    struct memos_bytes *a, *b; /* tokens, views into the texts */
    size_t a_count, b_count;
    struct ctl_diff_run *runs; /* in order; neighbours differ in kind */
    size_t runs_count, runs_capacity;
};

/* Compare texts by lines (each with its newline) or by words (words, runs of blanks, and other
 * characters one by one). Views the texts until ctl_diff_free. NO_MEMORY, TOO_LARGE. */
MEMOS_MUST_USE enum memos_status ctl_diff_make(struct memos_bytes a, struct memos_bytes b,
    bool by_words, struct ctl_diff *out, struct memos_error *err);
void ctl_diff_free(struct ctl_diff *diff);

/* Do the texts differ? */
bool ctl_diff_differs(const struct ctl_diff *diff);

/* Print a diff by lines with `context` lines around each change, and one by words as the whole text
 * with [-what went-]{+what came+}. */
void ctl_diff_print(
    const struct ctl_diff *diff, bool by_words, size_t context, const struct ctl_paper *paper);

/* [{"op": "same" | "removed" | "added", "text": ...}]; new reference. */
json_t *ctl_diff_json(const struct ctl_diff *diff);

#endif
