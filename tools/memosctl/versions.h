/* Reading versions, and showing how two of them differ. */
#ifndef TOOLS_MEMOSCTL_VERSIONS_H
#define TOOLS_MEMOSCTL_VERSIONS_H

#include "tools/memosctl/ctl.h"

/* One version with its payload: number 0 is the head, of now or as of a point (NULL: now). Not
 * counted as a read. *out_cube views *out_reply; free that with memos_message_free. */
MEMOS_MUST_USE enum memos_status ctl_version_get(struct ctl *ctl, const struct memos_id *id,
    uint32_t number, Memos__AsOf *as_of, struct memos_message **out_reply,
    const Memos__Cube **out_cube, struct memos_error *err);

/* How version b of a cube differs from a (NULL: from nothing): its state and what is known about it
 * line by line, its text as --words and --context say. */
MEMOS_MUST_USE enum memos_status ctl_versions_diff(struct ctl *ctl, const Memos__Cube *a,
    struct memos_bytes a_payload, const Memos__Cube *b, struct memos_bytes b_payload,
    struct memos_error *err);

/* The same as {"fields": [{"name", "from", "to"}], "text": [...]}. */
json_t *ctl_versions_diff_json(const struct ctl *ctl, const Memos__Cube *a,
    struct memos_bytes a_payload, const Memos__Cube *b, struct memos_bytes b_payload);

#endif
