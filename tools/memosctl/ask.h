/* Asking a worker, by way of the broker: for as long as it takes, with what is said on the way.
 *
 * A worker is not named but found: the broker gives a request to one that has the model. What there
 * is is asked for first, so that what cannot be answered is refused with what there is.
 *
 * Threads: one; Ctrl-C is caught while an answer is waited for (ctl_stopped). */
#ifndef TOOLS_MEMOSCTL_ASK_H
#define TOOLS_MEMOSCTL_ASK_H

#include "tools/memosctl/answer.h"

/* Is this run's request one for a worker (--worker, or --space of a command that runs a model)? */
bool ctl_asks_worker(const struct ctl *ctl);

/* Refuse options that are for the other way to run a model: those of memory and workers without a
 * worker, those of a model in this process with one. */
MEMOS_MUST_USE enum memos_status ctl_ask_check(struct ctl *ctl, struct memos_error *err);

/* A model that workers run; from the arena. */
struct ctl_ask_model {
    const char *name;     /* as workers announce it */
    const char *template; /* of its conversations; "": it has none that is known */
    uint64_t context;
    ProtobufCBinaryData fingerprint;
    const char *print; /* the same in hexadecimal, as cubes have it */
};

/* The model that --model means, or the only one. UNAVAILABLE: nobody runs any. NOT_FOUND: not this
 * one. INVALID: several, and none was named; a path. Each says which there are. */
MEMOS_MUST_USE enum memos_status ctl_ask_model(
    struct ctl *ctl, struct ctl_ask_model *out, struct memos_error *err);

struct ctl_ask {
    Memos__Request *request; /* borrowed, as all here */
    const struct memos_bytes *frames;
    size_t frames_count;
    int want;                      /* the last reply's body, of enum Memos__Reply__BodyCase */
    memos_client_more_fn *on_more; /* replies on the way; NULL: dropped */
    void *self;
};

/* Send, and wait for the last reply. Ctrl-C cancels the request, whose end is then waited for, for
 * some seconds. *out is given whenever a last reply came, whatever its status; free it with
 * memos_message_free. UNAVAILABLE: also when the connection is lost. CANCELLED: stopped. Sets
 * ctl->hint. */
MEMOS_MUST_USE enum memos_status ctl_ask_call(struct ctl *ctl, const struct ctl_ask *ask,
    struct memos_message **out, struct memos_error *err);

/* What a sequence may remember, as the options say; points into itself and into the arena. */
struct ctl_ask_memory {
    Memos__Memory memory;
    Memos__Filter filter;
    Memos__AsOf as_of;
};
/* space: where the cubes of --cube are. */
MEMOS_MUST_USE enum memos_status ctl_ask_memory(
    struct ctl *ctl, const char *space, struct ctl_ask_memory *out, struct memos_error *err);

/* --dtype and its kin as numbers of Memory.capture_dtype; 0 without one. */
MEMOS_MUST_USE enum memos_status ctl_ask_dtype(
    const struct ctl *ctl, enum ctl_option option, uint32_t *out, struct memos_error *err);

/* ---- what asks (ask_generate.c) ------------------------------------------------------------ */

/* Let a worker's model answer a text, as `generate` does. */
MEMOS_MUST_USE enum memos_status ctl_generate_asked(
    struct ctl *ctl, struct memos_bytes text, struct memos_error *err);

/* The options of an answer, which `chat` has too: how it draws, where it stops, how long it may be
 * (a wish, unless --max-tokens was given). *sampling and what it points to lie in the arena. */
MEMOS_MUST_USE enum memos_status ctl_generate_options(
    struct ctl *ctl, Memos__Generate *out, struct memos_error *err);

/* Give some of an answer, as it came, to answer. */
void ctl_generate_tokens(struct ctl_answer *answer, const Memos__Tokens *tokens);

/* ---- how likely a text is (cmd_score.c, ask_score.c) ---------------------------------------- */

struct ctl_score {
    size_t tokens, scored, bytes; /* bytes: of the tokens that were scored */
    double logprob;               /* their sum, natural */
    int64_t took_us;
    const char *model, *where; /* what scored it, and on what */
    size_t context, overlap;
    const Memos__Receipt *receipt; /* NULL: there is none */
};
MEMOS_MUST_USE enum memos_status ctl_score_print(
    struct ctl *ctl, const struct ctl_score *score, struct memos_error *err);

/* Let a worker's model score a file's text, as `score` does. */
MEMOS_MUST_USE enum memos_status ctl_score_asked(
    struct ctl *ctl, struct memos_bytes text, struct memos_error *err);

/* Write a receipt to a file, or to standard output ("-"). */
MEMOS_MUST_USE enum memos_status ctl_receipt_write(
    const char *path, const Memos__Receipt *receipt, struct memos_error *err);

#endif
