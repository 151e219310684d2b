/* The tokenizer of a host model: text into token ids and back, equal to Hugging Face's tokenizers
 * library id for id.
 *
 * From a folder's tokenizer.json (with tokenizer_config.json and special_tokens_map.json), or from
 * a GGUF file's metadata. Kinds: byte-level BPE with a family's own expression (GPT-2, Llama 3,
 * Qwen2 ...; PCRE2), and SentencePiece-style BPE with byte fallback (Llama 2, Mistral).
 * Normalisers, pre-tokenisers, post-processors and decoders are those these families use; another
 * is refused by name.
 *
 * Sources: Sennrich et al., arXiv 1508.07909 (BPE); Kudo and Richardson, arXiv 1808.06226
 * (SentencePiece).
 *
 * Threads: read-only after open, may be shared; encode and decode allocate their own room.
 *
 * Errors: CORRUPT (hostile or broken files: gaps in ids, merges that name no token, an expression
 * that does not compile), UNSUPPORTED (a part by name), NO_MEMORY, TOO_LARGE (also an expression
 * that explodes on a text: PCRE2's match limits). */
#ifndef PARAMEM_TOKENIZER_H
#define PARAMEM_TOKENIZER_H

#include "proto/bytes.h"

struct paramem_tokenizer;
struct paramem_gguf;

MEMOS_MUST_USE enum memos_status paramem_tokenizer_open(
    const char *folder, struct paramem_tokenizer **out, struct memos_error *err);
MEMOS_MUST_USE enum memos_status paramem_tokenizer_of_gguf(
    const struct paramem_gguf *gguf, struct paramem_tokenizer **out, struct memos_error *err);
void paramem_tokenizer_close(struct paramem_tokenizer **tokenizer); /* takes NULL */

struct paramem_tokenizer_info {
    const char *kind;                        /* "byte-level BPE", "SentencePiece BPE" */
    size_t vocab;                            /* the largest id + 1 */
    uint32_t bos_id, eos_id, unk_id, pad_id; /* UINT32_MAX: none */
    const char *chat_template;               /* NULL: none in the files */
    uint8_t digest[32];                      /* over all that changes an id */
};
void paramem_tokenizer_describe(
    const struct paramem_tokenizer *tokenizer, struct paramem_tokenizer_info *out);

/* Ids in one piece of memory that the caller frees (free). */
struct paramem_ids {
    uint32_t *ids;
    size_t count;
};

enum {
    PARAMEM_ADD_SPECIAL = 1, /* what the post-processor adds (bos, eos), as add_special_tokens */
    PARAMEM_PLAIN_TEXT = 2,  /* special tokens written out in the text are read as text: what a
                                user wrote cannot end a turn */
};

/* The ids of a text (UTF-8; what is ill-formed is read as U+FFFD). */
MEMOS_MUST_USE enum memos_status paramem_tokenizer_encode(const struct paramem_tokenizer *tokenizer,
    struct memos_bytes text, unsigned flags, struct paramem_ids *out, struct memos_error *err);

/* The text of ids, appended to out; skip_special leaves special tokens out. INVALID: an id out of
 * range. */
MEMOS_MUST_USE enum memos_status paramem_tokenizer_decode(const struct paramem_tokenizer *tokenizer,
    const uint32_t *ids, size_t count, bool skip_special, struct memos_buffer *out,
    struct memos_error *err);

/* The bytes of one token as they stand in a text ("Ġa" is " a"); NULL data when out of range. */
struct memos_bytes paramem_tokenizer_bytes(const struct paramem_tokenizer *tokenizer, uint32_t id);
bool paramem_tokenizer_special(const struct paramem_tokenizer *tokenizer, uint32_t id);
/* UINT32_MAX: there is no token that is written so ("<|im_end|>"). */
uint32_t paramem_tokenizer_id(const struct paramem_tokenizer *tokenizer, struct memos_bytes token);

/* Decode as tokens come: what is told never ends inside a character, and all pieces together are
 * what paramem_tokenizer_decode gives (but in a run of byte tokens that is no text as a whole,
 * whose characters are told before that is known). `struct` is small and is the caller's. */
struct paramem_stream {
    const struct paramem_tokenizer *tokenizer;
    uint8_t held[16]; /* bytes of a character that is not whole */
    size_t held_count;
    bool begun, skip_special;
};
struct paramem_stream paramem_stream_of(
    const struct paramem_tokenizer *tokenizer, bool skip_special);
/* Append what the next token completes (maybe nothing). */
MEMOS_MUST_USE enum memos_status paramem_stream_next(
    struct paramem_stream *stream, uint32_t id, struct memos_buffer *out, struct memos_error *err);
/* Append what is held back, as U+FFFD when it is no whole character. */
MEMOS_MUST_USE enum memos_status paramem_stream_end(
    struct paramem_stream *stream, struct memos_buffer *out, struct memos_error *err);

#endif
