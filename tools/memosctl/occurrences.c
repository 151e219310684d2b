#include "tools/memosctl/occurrences.h"

#include <stdlib.h>

static size_t place_of(const struct ctl_occurrences *seen, uint64_t hash)
{
    size_t i = (size_t)hash & (seen->slots_count - 1);
    while (seen->slots[i].hash != 0 && seen->slots[i].hash != hash) {
        i = (i + 1) & (seen->slots_count - 1);
    }
    return i;
}

/* Keep at least half of the slots free. */
static enum memos_status make_room(struct ctl_occurrences *seen, struct memos_error *err)
{
    struct ctl_occurrences more = {NULL, seen->slots_count ? seen->slots_count * 2 : 1024, 0};
    if (seen->used < seen->slots_count / 2) {
        return MEMOS_OK;
    }
    if (seen->used >= CTL_OCCURRENCES_MAX) {
        return memos_fail(
            err, MEMOS_TOO_LARGE, "more than %d items in one import", CTL_OCCURRENCES_MAX);
    }
    more.slots = calloc(more.slots_count, sizeof *more.slots);
    if (!more.slots) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu items", seen->used);
    }
    for (size_t i = 0; i < seen->slots_count; i++) {
        if (seen->slots[i].hash != 0) {
            more.slots[place_of(&more, seen->slots[i].hash)] = seen->slots[i];
            more.used++;
        }
    }
    free(seen->slots);
    *seen = more;
    return MEMOS_OK;
}

enum memos_status ctl_occurrences_find(
    struct ctl_occurrences *seen, uint64_t hash, uint32_t **out_value, struct memos_error *err)
{
    enum memos_status status = make_room(seen, err);
    if (status != MEMOS_OK) {
        return status;
    }
    hash = hash ? hash : 1;
    size_t i = place_of(seen, hash);
    seen->used += seen->slots[i].hash == 0;
    seen->slots[i].hash = hash;
    *out_value = &seen->slots[i].value;
    return MEMOS_OK;
}

void ctl_occurrences_free(struct ctl_occurrences *seen)
{
    free(seen->slots);
    *seen = (struct ctl_occurrences){0};
}
