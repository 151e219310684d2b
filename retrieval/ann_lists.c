#include "retrieval/ann_lists.h"

#include "retrieval/ann_internal.h"
#include "retrieval/faiss_c.h"
#include "retrieval/vector_code.h"

#include <stdlib.h>

/* ---- making -------------------------------------------------------------------------------- */

static enum memos_status centroids_read(
    struct retrieval_ann_lists *lists, FaissIndexIVF *ivf, struct memos_error *err)
{
    const FaissIndex *quantizer = faiss_IndexIVF_quantizer(ivf);
    float *row = malloc(lists->dims * sizeof *row);
    enum memos_status status = MEMOS_OK;

    if (!row) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a centroid");
    }
    for (size_t i = 0; i < lists->count && status == MEMOS_OK; i++) {
        status = retrieval_faiss_status(
            faiss_Index_reconstruct(quantizer, (idx_t)i, row), "read a centroid", err);
        if (status == MEMOS_OK) {
            lists->scales[i] =
                retrieval_code_encode(KERN_E4M3, row, lists->dims, lists->codes + i * lists->dims);
        }
    }
    free(row);
    return status;
}

static enum memos_status labels_read(struct retrieval_ann_lists *lists, const FaissIndexIVF *ivf,
    uint64_t count, struct memos_error *err)
{
    idx_t *ids = malloc(count * sizeof *ids + 1);
    uint64_t used = 0;

    if (!ids) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an index's lists");
    }
    for (size_t i = 0; i < lists->count; i++) {
        const size_t size = faiss_IndexIVF_get_list_size(ivf, i);
        if (size > count - used) {
            free(ids);
            return memos_fail(err, MEMOS_CORRUPT, "an index's lists hold more than it counts");
        }
        faiss_IndexIVF_invlists_get_ids(ivf, i, ids);
        lists->starts[i] = (uint32_t)used;
        for (size_t k = 0; k < size; k++) {
            lists->labels[used++] = (uint32_t)ids[k];
        }
    }
    lists->starts[lists->count] = (uint32_t)used;
    free(ids);
    return MEMOS_OK;
}

enum memos_status retrieval_ann_lists_make(const struct retrieval_ann *ann,
    struct retrieval_ann_lists **out_lists, struct memos_error *err)
{
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(ann->index);

    *out_lists = NULL;
    if (!ivf) {
        return MEMOS_OK;
    }
    struct retrieval_ann_lists *lists = calloc(1, sizeof *lists);
    if (!lists) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an index's lists");
    }
    *lists =
        (struct retrieval_ann_lists){.count = ann->lists, .dims = ann->dims, .effort = ann->effort};
    lists->starts = malloc((lists->count + 1) * sizeof *lists->starts);
    lists->labels = malloc(ann->count * sizeof *lists->labels + 1);
    lists->codes = aligned_alloc(64, (lists->count * lists->dims + 63) / 64 * 64);
    lists->scales = malloc(lists->count * sizeof *lists->scales + 1);
    lists->bytes = sizeof *lists + lists->count * (lists->dims + sizeof(uint32_t) + sizeof(float)) +
                   ann->count * sizeof *lists->labels;
    enum memos_status status = MEMOS_OK;
    if (!lists->starts || !lists->labels || !lists->codes || !lists->scales) {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory for an index's lists");
    }
    if (status == MEMOS_OK) {
        status = centroids_read(lists, ivf, err);
    }
    if (status == MEMOS_OK) {
        status = labels_read(lists, ivf, ann->count, err);
    }
    if (status != MEMOS_OK) {
        retrieval_ann_lists_free(&lists);
    }
    *out_lists = lists;
    return status;
}

void retrieval_ann_lists_free(struct retrieval_ann_lists **lists)
{
    if (*lists) {
        free((*lists)->starts);
        free((*lists)->labels);
        free((*lists)->codes);
        free((*lists)->scales);
        free(*lists);
        *lists = NULL;
    }
}

/* ---- walking ------------------------------------------------------------------------------- */

static bool is_nearer(const struct retrieval_ann_near *a, const struct retrieval_ann_near *b)
{
    return a->score > b->score || (a->score == b->score && a->list < b->list);
}

static void near_sink(struct retrieval_ann_walk *walk, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= walk->left) {
            return;
        }
        if (child + 1 < walk->left && is_nearer(&walk->near[child + 1], &walk->near[child])) {
            child++;
        }
        if (!is_nearer(&walk->near[child], &walk->near[at])) {
            return;
        }
        const struct retrieval_ann_near moved = walk->near[at];
        walk->near[at] = walk->near[child];
        walk->near[child] = moved;
        at = child;
    }
}

enum memos_status retrieval_ann_walk_begin(const struct retrieval_ann_lists *lists,
    const float *query, struct memos_arena *arena, struct retrieval_ann_walk *out,
    struct memos_error *err)
{
    float *scores = memos_arena_take(arena, lists->count, sizeof *scores);
    out->near = memos_arena_take(arena, lists->count, sizeof *out->near);
    out->left = lists->count;
    if (!scores || !out->near) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to search %zu lists", lists->count);
    }
    kern_scan(KERN_E4M3, lists->codes, lists->scales, lists->count, lists->dims, query, scores);
    for (size_t i = 0; i < lists->count; i++) {
        out->near[i] = (struct retrieval_ann_near){scores[i], (uint32_t)i};
    }
    for (size_t i = lists->count / 2; i > 0; i--) {
        near_sink(out, i - 1);
    }
    return MEMOS_OK;
}

bool retrieval_ann_walk_next(struct retrieval_ann_walk *walk, uint32_t *out_list)
{
    if (walk->left == 0) {
        return false;
    }
    *out_list = walk->near[0].list;
    walk->near[0] = walk->near[--walk->left];
    near_sink(walk, 0);
    return true;
}
