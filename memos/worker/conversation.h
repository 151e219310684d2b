/* The ids of what stands around a prompt's memory: a conversation as its template renders it, or a
 * text as it is.
 *
 * A template is rendered with a word where memory will stand that no message has, so that the
 * place is found again whatever the template does to the system message, and rendering does not
 * depend on how much memory there is.
 *
 * Threads: no state. */
#ifndef MEMOS_WORKER_CONVERSATION_H
#define MEMOS_WORKER_CONVERSATION_H

#include "memos/worker/prompt.h"

struct worker_conversation {
    struct paramem_ids before, behind; /* on the heap */
    bool is_after_words;               /* memory comes behind words of the system message */
};
void worker_conversation_free(struct worker_conversation *conversation);

/* Errors: as worker_prompt_make. INVALID, too: the template shows the system message never, or
 * twice, so that memory has no place. */
MEMOS_MUST_USE enum memos_status worker_conversation_encode(const struct worker_prompt_input *input,
    struct memos_arena *arena, struct worker_conversation *out, struct memos_error *err);

/* The ids without memory, as Hugging Face has them. Free ids with free. */
MEMOS_MUST_USE enum memos_status worker_conversation_whole(const struct worker_prompt_input *input,
    struct memos_arena *arena, struct paramem_ids *out, struct memos_error *err);

#endif
