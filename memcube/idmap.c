#include "memcube/idmap.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN 64

_Static_assert(crypto_shorthash_KEYBYTES == sizeof((struct memcube_idmap *)0)->secret,
    "the secret is a key of SipHash");

void memcube_idmap_init(struct memcube_idmap *map, size_t keys_max)
{
    *map = (struct memcube_idmap){ .keys_max = keys_max };
    randombytes_buf(map->secret, sizeof map->secret);
}

void memcube_idmap_finish(struct memcube_idmap *map)
{
    free(map->slots);
    *map = (struct memcube_idmap){ 0 };
}

void memcube_idmap_clear(struct memcube_idmap *map)
{
    map->count = 0;
    if (map->slots) {
        memset(map->slots, 0, map->slots_count * sizeof *map->slots);
    }
}

/* Where key lies, or the free slot where it would. There is always a free one. */
static struct memcube_idmap_slot *slot_of(const struct memcube_idmap *map, const uint8_t *key)
{
    uint64_t hash = 0;
    (void)crypto_shorthash((unsigned char *)&hash, key, MEMCUBE_IDMAP_KEY_BYTES, map->secret);
    size_t mask = map->slots_count - 1;
    size_t at = (size_t)hash & mask;
    while (map->slots[at].value != 0 &&
           memcmp(map->slots[at].key, key, MEMCUBE_IDMAP_KEY_BYTES) != 0) {
        at = (at + 1) & mask;
    }
    return &map->slots[at];
}

uint64_t *memcube_idmap_find(const struct memcube_idmap *map, const uint8_t *key)
{
    if (!map->slots) {
        return NULL;
    }
    struct memcube_idmap_slot *slot = slot_of(map, key);
    return slot->value != 0 ? &slot->value : NULL;
}

static enum memos_status grow(struct memcube_idmap *map, struct memos_error *err)
{
    struct memcube_idmap old = *map;
    size_t slots_count = old.slots_count ? old.slots_count * 2 : SLOTS_MIN;
    struct memcube_idmap_slot *slots = calloc(slots_count, sizeof *slots);
    if (!slots) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a table of %zu keys", slots_count);
    }
    map->slots = slots;
    map->slots_count = slots_count;
    for (size_t i = 0; i < old.slots_count; i++) {
        if (old.slots[i].value != 0) {
            *slot_of(map, old.slots[i].key) = old.slots[i];
        }
    }
    free(old.slots);
    return MEMOS_OK;
}

enum memos_status memcube_idmap_add(struct memcube_idmap *map, const uint8_t *key, uint64_t value,
    uint64_t **out_value, struct memos_error *err)
{
    memos_assert(value != 0);
    uint64_t *found = memcube_idmap_find(map, key);
    if (found) {
        *out_value = found;
        return MEMOS_OK;
    }
    if (map->count >= map->keys_max) {
        return memos_fail(err, MEMOS_TOO_LARGE, "more than %zu keys", map->keys_max);
    }
    if (map->count >= map->slots_count / 2) {
        enum memos_status status = grow(map, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    struct memcube_idmap_slot *slot = slot_of(map, key);
    memcpy(slot->key, key, MEMCUBE_IDMAP_KEY_BYTES);
    slot->value = value;
    map->count++;
    *out_value = &slot->value;
    return MEMOS_OK;
}

bool memcube_idmap_next(
    const struct memcube_idmap *map, size_t *position, struct memcube_idmap_slot *out)
{
    while (*position < map->slots_count) {
        const struct memcube_idmap_slot *slot = &map->slots[(*position)++];
        if (slot->value != 0) {
            *out = *slot;
            return true;
        }
    }
    return false;
}
