/* Behaviour: how often a cube is read and how useful that was.
 *
 * Reading must not write, so reads are counted in memory, in a small table that any thread adds to,
 * and the writer puts the sums into the database with the next sweep. A crash loses the reads since
 * then, which is what they are worth. */
#include "memcube/store_internal.h"

#include <stdlib.h>

enum {
    BEHAVIOURS_MAX = 1 << 14,        /* cubes counted between two sweeps; more are not counted */
    SLOTS = BEHAVIOURS_MAX * 2,      /* open addressing: never more than half full */
    BEHAVIOUR_BYTES = 8 + 8 + 4,     /* reads, last read, usefulness */
};

/* Of old and new feedback the new one counts this much. */
#define FEEDBACK_WEIGHT 0.2f

struct counter {
    struct memos_id id;
    uint32_t space; /* 0: free */
    uint64_t reads;
    int64_t last_read_us;
};

struct memcube_behaviours {
    pthread_mutex_t mutex;
    /* Sync: mutex. */
    size_t count;
    struct counter slots[SLOTS];
};

enum memos_status memcube_behaviours_create(
    struct memcube_behaviours **out, struct memos_error *err)
{
    struct memcube_behaviours *behaviours = calloc(1, sizeof *behaviours);
    if (!behaviours) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to count reads in");
    }
    const int error = pthread_mutex_init(&behaviours->mutex, NULL);
    if (error != 0) {
        free(behaviours);
        return memos_fail_errno(err, error, "making the lock of the read counters");
    }
    *out = behaviours;
    return MEMOS_OK;
}

void memcube_behaviours_destroy(struct memcube_behaviours **behaviours)
{
    if (*behaviours) {
        pthread_mutex_destroy(&(*behaviours)->mutex);
        free(*behaviours);
        *behaviours = NULL;
    }
}

/* The end of an id is random, which makes it a hash. */
static size_t slot_of(uint32_t space, const struct memos_id *id)
{
    uint32_t hash;
    memcpy(&hash, id->bytes + sizeof id->bytes - sizeof hash, sizeof hash);
    return (hash ^ space * UINT32_C(2654435761)) % SLOTS;
}

/* The counter of a cube, or the free one where it belongs. Holds the mutex. */
static struct counter *counter_at(
    struct memcube_behaviours *behaviours, uint32_t space, const struct memos_id *id)
{
    size_t slot = slot_of(space, id);
    for (;; slot = (slot + 1) % SLOTS) {
        struct counter *counter = &behaviours->slots[slot];
        if (counter->space == 0 ||
            (counter->space == space && memos_id_equal(&counter->id, id))) {
            return counter;
        }
    }
}

static void count_reads(struct memcube_behaviours *behaviours, const struct counter *add)
{
    struct counter *counter = counter_at(behaviours, add->space, &add->id);
    if (counter->space == 0) {
        if (behaviours->count == BEHAVIOURS_MAX) {
            return;
        }
        behaviours->count++;
        counter->space = add->space;
        counter->id = add->id;
    }
    counter->reads += add->reads;
    if (add->last_read_us > counter->last_read_us) {
        counter->last_read_us = add->last_read_us;
    }
}

void memcube_behaviour_count(struct memcube_store *store, uint32_t space,
    const struct memos_id *id, int64_t now_us)
{
    const struct counter one = {
        .id = *id, .space = space, .reads = 1, .last_read_us = now_us
    };
    memos_assert(space != 0);
    pthread_mutex_lock(&store->behaviours->mutex);
    count_reads(store->behaviours, &one);
    pthread_mutex_unlock(&store->behaviours->mutex);
}

/* ---- the table ---- */

static enum memos_status behaviour_read(struct memcube_read *read, uint32_t space,
    const struct memos_id *id, struct memcube_behaviour *out, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_id(space, id);
    struct memos_bytes value;

    *out = (struct memcube_behaviour){ 0 };
    const enum memos_status status = memcube_get(
        read->txn, read->store->tables.behave, memcube_key_view(&key), &value, err);
    if (status == MEMOS_NOT_FOUND) {
        return MEMOS_OK;
    }
    if (status != MEMOS_OK) {
        return status;
    }
    struct memos_reader r = memos_reader_of(value);
    out->reads = memos_read_u64(&r);
    out->last_read_us = (int64_t)memos_read_u64(&r);
    const uint32_t bits = memos_read_u32(&r);
    memcpy(&out->usefulness, &bits, sizeof bits);
    if (!memos_reader_done(&r)) {
        return memos_fail(err, MEMOS_CORRUPT, "the read counters of a cube are damaged");
    }
    return MEMOS_OK;
}

static enum memos_status behaviour_write(struct memcube_write *write, uint32_t space,
    const struct memos_id *id, const struct memcube_behaviour *behaviour, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_id(space, id);
    uint8_t room[BEHAVIOUR_BYTES];
    struct memos_buffer value = {
        .data = room, .capacity = sizeof room, .size_max = sizeof room
    };
    uint32_t bits;

    memcpy(&bits, &behaviour->usefulness, sizeof bits);
    memos_buffer_u64(&value, behaviour->reads);
    memos_buffer_u64(&value, (uint64_t)behaviour->last_read_us);
    memos_buffer_u32(&value, bits);
    memos_assert(!value.failed);
    return memcube_put(write->read.txn, write->store->tables.behave, memcube_key_view(&key),
        memos_buffer_view(&value), err);
}

/* What is counted but not written yet, added to what the table says. */
static void behaviour_add_pending(
    struct memcube_store *store, uint32_t space, const struct memos_id *id,
    struct memcube_behaviour *behaviour)
{
    pthread_mutex_lock(&store->behaviours->mutex);
    const struct counter *counter = counter_at(store->behaviours, space, id);
    if (counter->space != 0) {
        behaviour->reads += counter->reads;
        behaviour->last_read_us = counter->last_read_us;
    }
    pthread_mutex_unlock(&store->behaviours->mutex);
}

enum memos_status memcube_behaviour_get(struct memcube_read *read, uint32_t space,
    const struct memos_id *id, struct memcube_behaviour *out, struct memos_error *err)
{
    const enum memos_status status = behaviour_read(read, space, id, out, err);
    if (status == MEMOS_OK) {
        behaviour_add_pending(read->store, space, id, out);
    }
    return status;
}

enum memos_status memcube_behaviour_feedback(struct memcube_write *write, struct memos_bytes space,
    const struct memos_id *id, float usefulness, struct memos_error *err)
{
    struct memcube_space_state *state = NULL;
    struct memcube_behaviour behaviour;
    struct memcube_cube cube;

    if (!(usefulness >= -1.0f && usefulness <= 1.0f)) { /* a NaN is not */
        return memos_fail(err, MEMOS_INVALID, "usefulness lies between -1 and 1");
    }
    enum memos_status status = memcube_space_state_find(write, space, &state, err);
    if (status == MEMOS_OK) {
        status = memcube_cube_read(&write->read, state->space.number, id, &cube, err);
    }
    if (status == MEMOS_OK && cube.state == MEMCUBE_STATE_FORGOTTEN) {
        status = memos_fail(err, MEMOS_FORGOTTEN, "the cube was forgotten");
    }
    if (status == MEMOS_OK) {
        status = behaviour_read(&write->read, state->space.number, id, &behaviour, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    behaviour.usefulness += FEEDBACK_WEIGHT * (usefulness - behaviour.usefulness);
    return behaviour_write(write, state->space.number, id, &behaviour, err);
}

/* ---- writing what was counted ---- */

/* A cube that was forgotten since it was read leaves no counter behind. */
static enum memos_status counter_flush(
    struct memcube_write *write, const struct counter *counter, struct memos_error *err)
{
    struct memcube_behaviour behaviour;
    struct memcube_cube cube;

    enum memos_status status =
        memcube_cube_read(&write->read, counter->space, &counter->id, &cube, err);
    if (status == MEMOS_NOT_FOUND ||
        (status == MEMOS_OK && cube.state == MEMCUBE_STATE_FORGOTTEN)) {
        return MEMOS_OK;
    }
    if (status == MEMOS_OK) {
        status = behaviour_read(&write->read, counter->space, &counter->id, &behaviour, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    behaviour.reads += counter->reads;
    behaviour.last_read_us = counter->last_read_us;
    return behaviour_write(write, counter->space, &counter->id, &behaviour, err);
}

static int counter_compare(const void *a, const void *b)
{
    const struct counter *x = a, *y = b;
    if (x->space != y->space) {
        return x->space < y->space ? -1 : 1;
    }
    return memcmp(x->id.bytes, y->id.bytes, sizeof x->id.bytes);
}

/* Take all counters out, in the order of their keys; NULL when there are none or no memory (they
 * stay then). */
static struct counter *counters_take(struct memcube_behaviours *behaviours, size_t *out_count)
{
    struct counter *taken = NULL;
    size_t count = 0;

    pthread_mutex_lock(&behaviours->mutex);
    if (behaviours->count > 0) {
        taken = malloc(behaviours->count * sizeof *taken);
    }
    for (size_t i = 0; taken && i < SLOTS; i++) {
        if (behaviours->slots[i].space != 0) {
            taken[count++] = behaviours->slots[i];
            behaviours->slots[i] = (struct counter){ .space = 0 };
        }
    }
    behaviours->count -= count;
    pthread_mutex_unlock(&behaviours->mutex);
    if (taken) {
        qsort(taken, count, sizeof *taken, counter_compare);
    }
    *out_count = count;
    return taken;
}

enum memos_status memcube_behaviours_flush(struct memcube_write *write, struct memos_error *err)
{
    size_t count = 0;
    enum memos_status status = MEMOS_OK;
    struct counter *taken = counters_take(write->store->behaviours, &count);

    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        status = counter_flush(write, &taken[i], err);
    }
    free(taken);
    return status;
}

enum memos_status memcube_behaviour_erase(struct memcube_write *write, uint32_t space,
    const struct memos_id *id, struct memos_error *err)
{
    const struct memcube_key key = memcube_key_of_id(space, id);
    const enum memos_status status = memcube_delete(write->read.txn, write->store->tables.behave,
        memcube_key_view(&key), memos_bytes_make(NULL, 0), err);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}
