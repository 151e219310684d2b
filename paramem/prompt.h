/* What a model is given: the ids of a conversation that a chat template rendered.
 *
 * The template's own special tokens are read as such; those that somebody wrote into a message are
 * text, so that nobody ends a turn that is not theirs.
 *
 * Threads: no state. */
#ifndef PARAMEM_PROMPT_H
#define PARAMEM_PROMPT_H

#include "paramem/chat.h"
#include "paramem/tokenizer.h"

/* The ids of `text`, in which `plain` marks what people wrote (paramem_chat_render gives both; in
 * order, apart). When nothing there reads as a special token, they are the ids of the whole text,
 * as Hugging Face has them; else the text is cut at the marks and tokens do not reach across.
 * Nothing is added. Free ids with free. Errors: the tokenizer's. */
MEMOS_MUST_USE enum memos_status paramem_prompt_encode(const struct paramem_tokenizer *tokenizer,
    struct memos_bytes text, const struct paramem_span *plain, size_t plain_count,
    struct paramem_ids *out, struct memos_error *err);

#endif
