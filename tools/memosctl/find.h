/* What one search and many share. */
#ifndef TOOLS_MEMOSCTL_FIND_H
#define TOOLS_MEMOSCTL_FIND_H

#include "tools/memosctl/ctl.h"

/* A search as the options say it, without its text; points into itself. */
struct ctl_search {
    Memos__Search search;
    Memos__Filter filter;
    Memos__AsOf as_of;
};
MEMOS_MUST_USE enum memos_status ctl_search_make(
    struct ctl *ctl, struct ctl_search *out, struct memos_error *err);

/* A whole cube with its score; or id, version, external_id and score. New references. */
json_t *ctl_hit_json(const Memos__Hit *hit, bool with_payload, struct memos_bytes payload);
json_t *ctl_hit_short_json(const Memos__Hit *hit);

/* Answer each line of the file of --queries with a line of JSON, in order. */
MEMOS_MUST_USE enum memos_status ctl_queries_answer(
    struct ctl *ctl, const struct ctl_search *preset, struct memos_error *err);

#endif
