/* A prompt with memory in it, byte for byte the same for the same memory and words.
 *
 *     what stands before          a template's beginning and the system message, or bos
 *     "\n\n"                      only when the system message is not empty
 *     WORKER_PROMPT_SENTENCE
 *     "\n[1]" " 2023-05-08 13:56, Lea: words"     for each cube: its mark, its body
 *     "\n[2]" ...
 *     what stands behind          the template's rest; with a bare text "\n\n" and the text
 *
 * Each of these pieces becomes ids by itself and tokens do not reach across: so a body's ids do not
 * depend on its mark or on what stands before it, a cube's place is known exactly, and the
 * beginning up to the end of the memory does not depend on the question. Line feeds in words are
 * followed by two blanks, so that no words can begin a line as a mark does. Pieces of cubes are
 * plain text to the tokenizer: what they write out is never a special token.
 *
 * Which cubes: named ones all, then found ones by score, each if it still fits the budget; a found
 * one alone that does not fit is cut. Their order: named ones as named, then found ones by event
 * time, then id.
 *
 * Threads: no state. */
#ifndef MEMOS_WORKER_PROMPT_H
#define MEMOS_WORKER_PROMPT_H

#include "memos/worker/texts.h"

#define WORKER_PROMPT_SENTENCE                                                                     \
    "What you remember follows. When your answer uses a memory, name its mark, as in [1]."

/* A cube in a prompt. Numbers are tokens of the prompt. */
struct worker_placed {
    const struct worker_recalled *text;
    size_t first; /* of its mark */
    size_t body;  /* of its body */
    size_t end;   /* one past its last */
    char mark[24];
    bool is_cut;
};

struct worker_layout {
    struct paramem_ids ids;       /* on the heap */
    size_t memory_first;          /* where the sentence begins */
    size_t memory_tokens;         /* the prompt up to the end of its memory; 0: it has none */
    struct worker_placed *placed; /* in the arena, in the order of the prompt */
    size_t placed_count;
};

struct worker_prompt_input {
    const struct worker_host *host;
    const Memos__Generate *generate;  /* messages or prompt_frame; template, tools_json, ... */
    const struct memos_bytes *frames; /* by number, from 1 */
    size_t frames_count;
    const struct worker_recalled *texts;
    size_t texts_count;
    size_t budget;      /* of memory in tokens */
    size_t context;     /* of prompt and answer; 0: no bound */
    bool no_generation; /* the prompt ends with its last message */
};

/* INVALID: neither messages nor prompt, or what the template refuses. UNSUPPORTED: no template.
 * TOO_LARGE: named cubes exceed the budget, or leave no room for prompt and answer. A prompt that
 * is an empty frame gives the ids of the memory alone, which may be none. Free out->ids.ids with
 * free, after failure too (NULL). */
MEMOS_MUST_USE enum memos_status worker_prompt_make(const struct worker_prompt_input *input,
    struct memos_arena *arena, struct worker_notes *notes, struct worker_layout *out,
    struct memos_error *err);

/* A cube's body: what stands behind its mark. Appended to out. */
void worker_prompt_body(const struct worker_recalled *text, struct memos_buffer *out);
/* Its ids, by themselves. Free ids with free. */
MEMOS_MUST_USE enum memos_status worker_prompt_body_ids(const struct worker_host *host,
    const struct worker_recalled *text, struct paramem_ids *out, struct memos_error *err);

/* What was asked last: the last user message, else the prompt; with a NUL in the arena. "" when
 * there is none. */
const char *worker_prompt_question(const Memos__Generate *generate,
    const struct memos_bytes *frames, size_t frames_count, struct memos_arena *arena);

#endif
