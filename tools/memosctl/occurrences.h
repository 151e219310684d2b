/* How often something has been seen, by its hash: makes "ok", said three times, three memories.
 *
 * 64 bits of a keyed-by-content hash tell things apart; memory grows with what was seen, up to a
 * bound. */
#ifndef TOOLS_MEMOSCTL_OCCURRENCES_H
#define TOOLS_MEMOSCTL_OCCURRENCES_H

#include "proto/bytes.h"

enum { CTL_OCCURRENCES_MAX = 32 * 1024 * 1024 };

struct ctl_occurrences {
    struct {
        uint64_t hash; /* 0: free */
        uint32_t count;
    } * slots;
    size_t slots_count, used;
};

/* Count one more; *out_before is how often it was seen before. TOO_LARGE, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status ctl_occurrences_count(
    struct ctl_occurrences *seen, uint64_t hash, uint32_t *out_before, struct memos_error *err);
void ctl_occurrences_free(struct ctl_occurrences *seen);

#endif
