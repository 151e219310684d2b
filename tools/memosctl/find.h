/* What one search and many share. */
#ifndef TOOLS_MEMOSCTL_FIND_H
#define TOOLS_MEMOSCTL_FIND_H

#include "tools/memosctl/ctl.h"

/* Search.mode. */
enum { CTL_MODE_WORDS = 1, CTL_MODE_VECTORS = 2 };

/* A search as the options say it, without its text; points into itself, and into the arena. */
struct ctl_search {
    Memos__Search search;
    Memos__Filter filter;
    Memos__AsOf as_of;
};
MEMOS_MUST_USE enum memos_status ctl_search_make(
    struct ctl *ctl, struct ctl_search *out, struct memos_error *err);

/* {"hits", "seq", "micros", "encoder", "missing", "notes"}. Of a hit: a whole cube with its score,
 * parts and neighbours; short: id, version, external_id and score (and parts when there are any).
 * A new reference. */
json_t *ctl_hits_json(const struct memos_message *reply, const Memos__Hits *hits, bool is_short);

/* One line of a cube for people, any text: who said it, and the beginning of what it says. */
void ctl_cube_words(struct memos_buffer *out, const Memos__Cube *cube, struct memos_bytes payload);

/* Say on standard error when meaning was not searched, or not all of it. */
void ctl_meaning_note(
    struct ctl *ctl, const Memos__Search *search, const char *encoder, uint64_t missing);

/* Print what one search found. */
MEMOS_MUST_USE enum memos_status ctl_hits_print(struct ctl *ctl, const struct memos_message *reply,
    const Memos__Search *search, struct memos_error *err);

/* Answer each line of the file of --queries with a line of JSON, in order. */
MEMOS_MUST_USE enum memos_status ctl_queries_answer(
    struct ctl *ctl, const struct ctl_search *preset, struct memos_error *err);

#endif
