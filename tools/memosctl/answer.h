/* An answer of a model as it is shown: while it is made, and as it was in the end. The same for a
 * model in this process and for one that a worker runs.
 *
 * Threads: one. */
#ifndef TOOLS_MEMOSCTL_ANSWER_H
#define TOOLS_MEMOSCTL_ANSWER_H

#include "paramem/engine.h"
#include "tools/memosctl/ctl.h"

struct ctl_answer {
    struct ctl *ctl;
    struct memos_buffer text; /* all of it */
    json_t *tokens;           /* with --logprobs and --json */
    bool tells_logprobs;      /* a line for each token, instead of the text */
    size_t top_max;           /* others to show with each token */
    bool ends_line;           /* what was printed last ended with a newline */
};
void ctl_answer_init(struct ctl_answer *answer, struct ctl *ctl);
void ctl_answer_free(struct ctl_answer *answer);

/* More of the text: kept, and printed unless --json or --logprobs show it otherwise. */
void ctl_answer_text(struct ctl_answer *answer, struct memos_bytes text);

/* A token with what else was likely; only looked at with --logprobs. */
struct ctl_answer_piece {
    uint32_t id;
    struct memos_bytes text;
    float logprob;
};
void ctl_answer_token(struct ctl_answer *answer, const struct ctl_answer_piece *token,
    const struct ctl_answer_piece *top, size_t top_count);

/* Nothing more comes: end the line. */
void ctl_answer_end(struct ctl_answer *answer);

/* "stop", "length" ... of a number of enum paramem_finish; "unknown" for another. */
const char *ctl_finish_name(uint32_t finish);

/* Of `count` in some time, a second; 0 when there was none. */
double ctl_rate(uint64_t count, uint64_t took_us);

/* ---- how it draws, as the options say ------------------------------------------------------ */

enum { CTL_STOPS_MAX = PARAMEM_STOPS_MAX, CTL_TOKENS_USUAL = 1024, CTL_TOKENS_MAX = 1 << 24 };

/* Bits of what no option gave, as Sampling.own has them. */
enum {
    CTL_OWN_HEAT = 1,
    CTL_OWN_TOP_P = 2,
    CTL_OWN_MIN_P = 4,
    CTL_OWN_TOP_K = 8,
    CTL_OWN_REPETITION = 16
};

/* The options over the model's own ways (NULL: not known here; 0 then stands for what was not
 * given). The seed is drawn here when none is given. */
MEMOS_MUST_USE enum memos_status ctl_sampling_take(const struct ctl *ctl,
    const struct paramem_decoder_config *own, struct paramem_sampling *out, uint32_t *out_own,
    struct memos_error *err);

MEMOS_MUST_USE enum memos_status ctl_stops_take(const struct ctl *ctl,
    const char *stops[CTL_STOPS_MAX], size_t *out_count, struct memos_error *err);

/* ---- conversation or text ------------------------------------------------------------------ */

/* *out_chat: the text is a turn of a conversation, because an option says so or (none does) because
 * the model has a template. INVALID: the options contradict one another. */
MEMOS_MUST_USE enum memos_status ctl_is_chat(
    const struct ctl *ctl, bool has_template, bool *out_chat, struct memos_error *err);

/* What --system says; NULL data when it was not given. Free with memos_buffer_free. INVALID: no
 * UTF-8. */
MEMOS_MUST_USE enum memos_status ctl_system_read(
    const struct ctl *ctl, struct memos_buffer *out, bool *out_given, struct memos_error *err);

#endif
