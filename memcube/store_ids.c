/* Sets of ids: an array in the order of adding, and an open-addressing table over it. */
#include "memcube/store_internal.h"

#include <sodium.h>

static size_t id_hash(const struct memcube_ids *set, const struct memos_id *id)
{
    uint64_t hash = 0;

    _Static_assert(sizeof hash == crypto_shorthash_BYTES &&
                       sizeof set->secret == crypto_shorthash_KEYBYTES,
        "SipHash-2-4");
    crypto_shorthash((unsigned char *)&hash, id->bytes, sizeof id->bytes, set->secret);
    return (size_t)hash;
}

static size_t slot_of(const struct memcube_ids *set, const struct memos_id *id)
{
    const size_t mask = set->slots_count - 1;
    size_t slot = id_hash(set, id) & mask;
    while (set->slots[slot] != 0 && !memos_id_equal(&set->ids[set->slots[slot] - 1], id)) {
        slot = (slot + 1) & mask;
    }
    return slot;
}

static enum memos_status ids_grow(
    struct memcube_ids *set, struct memos_arena *arena, struct memos_error *err)
{
    const size_t capacity = set->capacity ? set->capacity * 2 : 16;
    struct memcube_ids larger = { .capacity = capacity, .slots_count = capacity * 2 };

    randombytes_buf(larger.secret, sizeof larger.secret);
    larger.ids = memos_arena_take(arena, capacity, sizeof *larger.ids);
    larger.slots = memos_arena_take(arena, larger.slots_count, sizeof *larger.slots);
    if (!larger.ids || !larger.slots || capacity > UINT32_MAX / 4) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a set of %zu cubes", capacity);
    }
    memset(larger.slots, 0, larger.slots_count * sizeof *larger.slots);
    for (size_t i = 0; i < set->count; i++) {
        larger.ids[i] = set->ids[i];
        larger.slots[slot_of(&larger, &set->ids[i])] = (uint32_t)i + 1;
    }
    larger.count = set->count;
    *set = larger;
    return MEMOS_OK;
}

enum memos_status memcube_ids_add(struct memcube_ids *set, struct memos_arena *arena,
    const struct memos_id *id, size_t *out_index, bool *out_added, struct memos_error *err)
{
    if (set->count == set->capacity) {
        const enum memos_status status = ids_grow(set, arena, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    const size_t slot = slot_of(set, id);
    const bool added = set->slots[slot] == 0;
    if (added) {
        set->ids[set->count++] = *id;
        set->slots[slot] = (uint32_t)set->count;
    }
    if (out_index) {
        *out_index = set->slots[slot] - 1;
    }
    if (out_added) {
        *out_added = added;
    }
    return MEMOS_OK;
}

bool memcube_ids_find(const struct memcube_ids *set, const struct memos_id *id, size_t *out_index)
{
    if (set->count == 0) {
        return false;
    }
    const uint32_t found = set->slots[slot_of(set, id)];
    if (found != 0 && out_index) {
        *out_index = found - 1;
    }
    return found != 0;
}
