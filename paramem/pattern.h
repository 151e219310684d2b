/* Expressions of tokenizers, run by PCRE2.
 *
 * They are written for Oniguruma in Ruby's syntax; here they are translated into PCRE2's and mean
 * the same: white space is Unicode's White_Space, categories are those of Oniguruma's Unicode,
 * scripts are scripts and not their extensions. What means something else in the two languages, or
 * is not used by tokenizers, is UNSUPPORTED by name (\w, \b, classes in classes, names, ...).
 *
 * Threads: read-only after open; a walk belongs to one thread.
 *
 * Errors: CORRUPT (does not compile), UNSUPPORTED, TOO_LARGE (longer than PARAMEM_PATTERN_MAX, or,
 * on a text, more steps, depth or memory than an honest expression takes), NO_MEMORY. */
#ifndef PARAMEM_PATTERN_H
#define PARAMEM_PATTERN_H

#include "proto/bytes.h"

#define PARAMEM_PATTERN_MAX 16384

struct paramem_pattern;

MEMOS_MUST_USE enum memos_status paramem_pattern_open(
    struct memos_bytes text, struct paramem_pattern **out, struct memos_error *err);
/* Matches this very text. */
MEMOS_MUST_USE enum memos_status paramem_pattern_literal(
    struct memos_bytes text, struct paramem_pattern **out, struct memos_error *err);
void paramem_pattern_close(struct paramem_pattern **pattern); /* takes NULL */

/* The translation, for tests. CORRUPT, UNSUPPORTED. */
MEMOS_MUST_USE enum memos_status paramem_pattern_translate(
    struct memos_bytes text, struct memos_buffer *out, struct memos_error *err);

/* Room to match in: made once, used for many texts. NO_MEMORY. */
struct paramem_pattern_room;
MEMOS_MUST_USE enum memos_status paramem_pattern_room_make(
    struct paramem_pattern_room **out, struct memos_error *err);
void paramem_pattern_room_free(struct paramem_pattern_room **room); /* takes NULL */

/* Matches of a pattern in a text (well-formed UTF-8), one after the other. Zero-initialise, then
 * set the first three. */
struct paramem_pattern_walk {
    const struct paramem_pattern *pattern;
    struct paramem_pattern_room *room;
    struct memos_bytes text;
    size_t begin, end; /* of the match */
    size_t at;         /* where the next search begins */
    bool begun;
};

/* The next match, in begin and end; *out_found false when there is none. An empty match where the
 * last one ended is passed over. */
MEMOS_MUST_USE enum memos_status paramem_pattern_next(
    struct paramem_pattern_walk *walk, bool *out_found, struct memos_error *err);

#endif
