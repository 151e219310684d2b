/* Text into token ids, as BERT's tokenizer of the tokenizers library does it, id for id.
 *
 *     text -> added tokens cut out -> normalised -> cut at white space and punctuation
 *          -> WordPiece (greedy, longest first) -> [CLS] ... [SEP]
 *
 * Normalised (each by a switch): control characters dropped and white space made plain, blanks put
 * around Chinese characters, canonical decomposition and its accents dropped, lower case.
 *
 * Ill-formed UTF-8 is read as U+FFFD, one for each maximal part of a character (Unicode, 3.9).
 *
 * Sources: Devlin et al., arXiv 1810.04805; Schuster and Nakajima, "Japanese and Korean voice
 * search", 2012 (WordPiece); Hugging Face tokenizers 0.23.3, whose tables of characters
 * wordpiece_ranges.c holds.
 *
 * Threads: one tokenizer belongs to one thread at a time (it has room of its own). */
#ifndef PARAMEM_WORDPIECE_H
#define PARAMEM_WORDPIECE_H

#include "paramem/config.h"

struct paramem_wordpiece;

/* From the folder's tokenizer.json, else from vocab.txt and what config says. NOT_FOUND, CORRUPT,
 * TOO_LARGE, UNSUPPORTED (another kind of tokenizer: says which part), NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_wordpiece_open(const char *folder,
    const struct paramem_config *config, struct paramem_wordpiece **out, struct memos_error *err);

/* From the text of tokenizer.json. */
MEMOS_MUST_USE enum memos_status paramem_wordpiece_parse(
    struct memos_bytes json, struct paramem_wordpiece **out, struct memos_error *err);

/* From the text of vocab.txt: a token a line, the first is 0. */
MEMOS_MUST_USE enum memos_status paramem_wordpiece_vocab(struct memos_bytes text,
    const struct paramem_config *config, struct paramem_wordpiece **out, struct memos_error *err);

void paramem_wordpiece_close(struct paramem_wordpiece **wordpiece); /* takes NULL */

/* One more than the largest id. */
size_t paramem_wordpiece_ids_end(const struct paramem_wordpiece *wordpiece);

/* BLAKE2b-256 over all that ids depend on. */
void paramem_wordpiece_digest(const struct paramem_wordpiece *wordpiece, uint8_t out[32]);

/* Tokens of prefix and text joined, at most ids_max (2 or more) of them: [CLS] first, [SEP] last
 * also where the text is cut. Returns how many; *out_cut (may be NULL) says whether more would have
 * come. Stops reading where it cuts. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_wordpiece_encode(struct paramem_wordpiece *wordpiece,
    struct memos_bytes prefix, struct memos_bytes text, uint32_t *ids, size_t ids_max,
    size_t *out_count, bool *out_cut, struct memos_error *err);

/* The words that WordPiece would be given, each with a line feed after it, appended to out: for
 * tests. */
MEMOS_MUST_USE enum memos_status paramem_wordpiece_words(struct paramem_wordpiece *wordpiece,
    struct memos_bytes text, struct memos_buffer *out, struct memos_error *err);

#endif
