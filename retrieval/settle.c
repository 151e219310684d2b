/* From rows to hits: the best by what retrieval_fuse says, then what their versions say.
 *
 * Priority, validity, usefulness and recency are of versions, not of contents, so that they are
 * read for the last few candidates only. They are small beside what words and vectors give (a match
 * is worth 3 to 15): they decide between docs that answer about equally well. Near duplicates of a
 * hit lose, so that the same thing said twice does not take two places. */
#include "memcube/record.h"
#include "retrieval/search_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_TIMES 4      /* candidates for each hit asked for */
#define KEPT_MORE_MAX 200 /* but so many more at most */
#define COMPARED_TIMES 2  /* of them so many, for each hit, are compared by their vectors, */
#define COMPARED_MAX 64   /* but so many at most */

#define RECENCY 0.2            /* of what happens now; */
#define RECENCY_HALF_DAYS 30.0 /* halves in so many days */
#define PRIORITY 0.5           /* of the highest priority; and of full usefulness */
#define PRIORITY_NORMAL 128
#define INVALID 2.0         /* lost by what does not hold now */
#define DUPLICATE 2.0       /* lost by a copy of a better hit; */
#define DUPLICATE_FROM 0.95 /* from this cosine on, rising */

struct kept {
    double score;
    double penalty; /* for what has been chosen so far */
    double parts[RETRIEVAL_PARTS];
    int64_t event_us;
    uint32_t doc, row;
    struct memcube_hash payload;
    const float *vector; /* NULL: none */
    bool chosen;
};

/* Is a worse than b? Of equal scores the older is, then the later doc. */
static bool worse(const struct kept *a, const struct kept *b)
{
    if (a->score != b->score) {
        return a->score < b->score;
    }
    if (a->event_us != b->event_us) {
        return a->event_us < b->event_us;
    }
    return a->doc > b->doc;
}

static int kept_compare(const void *a, const void *b)
{
    return worse(a, b) - worse(b, a);
}

/* ---- the best by what the index knows ------------------------------------------------------ */

/* A heap of the best, the worst of them on top. */
struct heap {
    struct kept *kept;
    size_t count, room;
};

static void heap_sink(struct heap *heap, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap->count) {
            return;
        }
        if (child + 1 < heap->count && worse(&heap->kept[child + 1], &heap->kept[child])) {
            child++;
        }
        if (!worse(&heap->kept[child], &heap->kept[at])) {
            return;
        }
        struct kept moved = heap->kept[at];
        heap->kept[at] = heap->kept[child];
        heap->kept[child] = moved;
        at = child;
    }
}

static void heap_offer(struct heap *heap, const struct kept *entry)
{
    if (heap->count == heap->room) {
        if (worse(&heap->kept[0], entry)) {
            heap->kept[0] = *entry;
            heap_sink(heap, 0);
        }
        return;
    }
    size_t at = heap->count++;
    for (; at > 0 && worse(entry, &heap->kept[(at - 1) / 2]); at = (at - 1) / 2) {
        heap->kept[at] = heap->kept[(at - 1) / 2];
    }
    heap->kept[at] = *entry;
}

/* Is there anything that speaks for the doc? With vectors every doc has some nearness. */
static bool answers(const struct retrieval_fuse_doc *row, double score)
{
    return row->bm25 > 0.0 || !isnan(row->cosine) || score > 0.0;
}

static enum memos_status keep_best(struct searching *s, struct heap *heap, struct memos_error *err)
{
    size_t top_k = s->query->top_k;
    heap->room =
        top_k * KEPT_TIMES < top_k + KEPT_MORE_MAX ? top_k * KEPT_TIMES : top_k + KEPT_MORE_MAX;
    heap->kept = searching_take(s, heap->room, sizeof *heap->kept, err);
    if (!heap->kept) {
        return MEMOS_NO_MEMORY;
    }
    for (size_t i = 0; i < s->docs_count; i++) {
        struct kept entry = {
            .event_us = s->known[i].event_us, .doc = s->docs[i], .row = (uint32_t)i};
        if (!searching_has(&s->wanted, entry.doc)) {
            continue;
        }
        retrieval_fuse(&s->fuse, s->rows, s->relevance, i, entry.parts);
        entry.score = retrieval_fuse_sum(entry.parts);
        if (answers(&s->rows[i], entry.score)) {
            heap_offer(heap, &entry);
        }
    }
    return MEMOS_OK;
}

/* ---- what versions say --------------------------------------------------------------------- */

static double recency(const struct searching *s, int64_t event_us)
{
    double days = (double)(s->query->now_us - event_us) / (double)RETRIEVAL_DAY_US;
    if (s->query->now_us == 0) {
        return 0.0;
    }
    return RECENCY * exp2(-fmax(days, 0.0) / RECENCY_HALF_DAYS);
}

static bool holds(const struct searching *s, const struct memcube_governance *governance)
{
    int64_t now = s->query->now_us;
    return now == 0 || ((governance->valid_from_us == 0 || governance->valid_from_us <= now) &&
                           (governance->valid_to_us == 0 || governance->valid_to_us > now));
}

static enum memos_status weigh_version(
    struct searching *s, struct kept *kept, struct memos_error *err)
{
    struct memcube_behaviour behaviour = {.reads = 0};
    struct memcube_version version;
    bool has_recency = (s->query->without >> RETRIEVAL_PART_RECENCY & 1) == 0;
    bool has_priority = (s->query->without >> RETRIEVAL_PART_PRIORITY & 1) == 0;

    enum memos_status status =
        memcube_version_of_doc(s->read, s->space, kept->doc, &s->query->as_of, &version, err);
    if (status == MEMOS_OK) {
        status = memcube_behaviour_get(s->read, s->space->number, &version.id, &behaviour, err);
        status = status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
    }
    if (status != MEMOS_OK) {
        return status;
    }
    kept->payload = version.payload_hash;
    if (has_recency) {
        kept->parts[RETRIEVAL_PART_RECENCY] = recency(s, kept->event_us);
    }
    if (has_priority) {
        double priority =
            version.governance.priority ? version.governance.priority : PRIORITY_NORMAL;
        kept->parts[RETRIEVAL_PART_PRIORITY] =
            PRIORITY * (priority - PRIORITY_NORMAL) / (UINT8_MAX - PRIORITY_NORMAL) +
            PRIORITY * (double)behaviour.usefulness -
            (holds(s, &version.governance) ? 0.0 : INVALID);
    }
    kept->score = retrieval_fuse_sum(kept->parts);
    return MEMOS_OK;
}

/* ---- near duplicates ----------------------------------------------------------------------- */

static enum memos_status load_vectors(
    struct searching *s, struct kept *kept, size_t count, struct memos_error *err)
{
    size_t dims = s->query->dims, most = s->query->top_k * COMPARED_TIMES;
    most = most < COMPARED_MAX ? most : COMPARED_MAX;
    for (size_t i = 0; i < count && i < most; i++) {
        size_t spans = 0;
        if (isnan(s->cosines[kept[i].row])) {
            continue;
        }
        float *vector = searching_take(s, dims, sizeof *vector, err);
        if (!vector) {
            return MEMOS_NO_MEMORY;
        }
        enum memos_status status = retrieval_vectors_get(s->retrieval->vectors, s->read, s->space,
            s->query->fingerprint, kept[i].doc, vector, 1, &spans, err);
        if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
            return status;
        }
        kept[i].vector = status == MEMOS_OK && spans == 1 ? vector : NULL;
    }
    return MEMOS_OK;
}

static double likeness(const struct searching *s, const struct kept *a, const struct kept *b)
{
    if (memcube_hash_equal(&a->payload, &b->payload)) {
        return 1.0;
    }
    if (!a->vector || !b->vector) {
        return 0.0;
    }
    float sum = 0.0f;
    for (size_t i = 0; i < s->query->dims; i++) {
        sum += a->vector[i] * b->vector[i];
    }
    return fmin((double)sum, 1.0);
}

/* Choose hits one by one, each the best of what is left when likeness to those before it is taken
 * off. */
static void choose(const struct searching *s, struct kept *kept, size_t count,
    struct retrieval_hit *out, size_t *out_count)
{
    bool diverse = (s->query->without >> RETRIEVAL_PART_DIVERSITY & 1) == 0;
    size_t wanted = count < s->query->top_k ? count : s->query->top_k;
    for (size_t n = 0; n < wanted; n++) {
        struct kept *best = NULL;
        for (size_t i = 0; i < count; i++) {
            bool better = !kept[i].chosen && (!best || worse(best, &kept[i]));
            best = better ? &kept[i] : best;
        }
        best->chosen = true;
        best->parts[RETRIEVAL_PART_DIVERSITY] = -best->penalty;
        const struct retrieval_fuse_doc *row = &s->rows[best->row];
        out[n] = (struct retrieval_hit){.doc = best->doc,
            .score = (float)best->score,
            .bm25 = row->bm25 > 0.0 ? (float)row->bm25 : NAN,
            .cosine = (float)row->cosine};
        for (size_t part = 0; part < RETRIEVAL_PARTS; part++) {
            out[n].parts[part] = (float)best->parts[part];
        }
        for (size_t i = 0; diverse && i < count; i++) {
            double over = (likeness(s, &kept[i], best) - DUPLICATE_FROM) / (1.0 - DUPLICATE_FROM);
            double penalty = DUPLICATE * fmax(over, 0.0);
            if (!kept[i].chosen && penalty > kept[i].penalty) {
                kept[i].score -= penalty - kept[i].penalty;
                kept[i].penalty = penalty;
            }
        }
    }
    *out_count = wanted;
}

enum memos_status searching_settle(
    struct searching *s, struct retrieval_hit *out, size_t *out_count, struct memos_error *err)
{
    struct heap heap = {.count = 0};
    bool diverse = (s->query->without >> RETRIEVAL_PART_DIVERSITY & 1) == 0;

    enum memos_status status = keep_best(s, &heap, err);
    for (size_t i = 0; status == MEMOS_OK && i < heap.count; i++) {
        status = weigh_version(s, &heap.kept[i], err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    qsort(heap.kept, heap.count, sizeof *heap.kept, kept_compare);
    if (s->vectors && diverse) {
        status = load_vectors(s, heap.kept, heap.count, err);
    }
    if (status == MEMOS_OK) {
        choose(s, heap.kept, heap.count, out, out_count);
    }
    return status;
}
