/* What an import has seen, by its hash: makes "ok", said three times, three memories, and finds an
 * id that was given to two things.
 *
 * 64 bits of a hash tell things apart; memory grows with what was seen, up to a bound. */
#ifndef TOOLS_MEMOSCTL_OCCURRENCES_H
#define TOOLS_MEMOSCTL_OCCURRENCES_H

#include "proto/bytes.h"

enum { CTL_OCCURRENCES_MAX = 32 * 1024 * 1024 };

struct ctl_occurrences {
    struct {
        uint64_t hash; /* 0: free */
        uint32_t value;
    } * slots;
    size_t slots_count, used;
};

/* The value kept for a hash, to read and to write; 0 when it has not been seen. Views until the
 * next call. TOO_LARGE, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status ctl_occurrences_find(
    struct ctl_occurrences *seen, uint64_t hash, uint32_t **out_value, struct memos_error *err);
void ctl_occurrences_free(struct ctl_occurrences *seen);

#endif
