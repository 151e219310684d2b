/* The last changes of entries (vectors_internal.h says what a change is).
 *
 * A change is remembered before its write commits. When the write is not committed, the next one
 * counts the same number again: then everything from that number on was of a write that never was,
 * and is dropped. */
#include "retrieval/vectors_internal.h"

#include <stdlib.h>

#define CHANGES_MAX 65536u

void retrieval_vec_changes_init(struct retrieval_vec_changes *changes)
{
    *changes = (struct retrieval_vec_changes){.count = 0};
    (void)pthread_mutex_init(&changes->lock, NULL);
}

void retrieval_vec_changes_finish(struct retrieval_vec_changes *changes)
{
    free(changes->list);
    (void)pthread_mutex_destroy(&changes->lock);
}

/* Room for one more at the end: more memory, or the older half goes. */
static bool room_make(struct retrieval_vec_changes *changes)
{
    if (changes->count < changes->max) {
        return true;
    }
    if (changes->max < CHANGES_MAX) {
        const size_t most = changes->max ? changes->max * 2 : 64;
        struct retrieval_vec_change *list = realloc(changes->list, most * sizeof *list);
        if (!list) {
            return false;
        }
        changes->list = list;
        changes->max = most;
        return true;
    }
    const size_t half = changes->count / 2;
    memmove(changes->list, changes->list + half, (changes->count - half) * sizeof *changes->list);
    changes->count -= half;
    return true;
}

enum memos_status retrieval_vec_change_make(struct retrieval_vec_changes *changes,
    const struct retrieval_vec_tables *tables, struct memcube_txn *txn, uint32_t space,
    uint32_t doc, bool erased, struct memos_error *err)
{
    uint64_t number;

    enum memos_status status = retrieval_vec_change_get(tables, txn, &number, err);
    if (status == MEMOS_OK) {
        status = retrieval_vec_change_put(tables, txn, ++number, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    (void)pthread_mutex_lock(&changes->lock);
    while (changes->count > 0 && changes->list[changes->count - 1].number >= number) {
        changes->count--;
    }
    /* Numbers without gaps, or nothing before the gap counts. */
    if (changes->count > 0 && changes->list[changes->count - 1].number != number - 1) {
        changes->count = 0;
    }
    if (room_make(changes)) {
        changes->list[changes->count++] = (struct retrieval_vec_change){
            .number = number, .space = space, .doc = doc, .erased = erased};
    } else {
        status = memos_fail(err, MEMOS_NO_MEMORY, "no memory to remember a change of vectors");
    }
    (void)pthread_mutex_unlock(&changes->lock);
    return status;
}

void retrieval_vec_changes_between(struct retrieval_vec_changes *changes, uint32_t space,
    uint64_t after, uint64_t through, uint32_t **out_docs, size_t *out_count, bool *out_known)
{
    *out_docs = NULL;
    *out_count = 0;
    (void)pthread_mutex_lock(&changes->lock);
    const struct retrieval_vec_change *list = changes->list;
    *out_known = changes->count > 0 && list[0].number <= after + 1 &&
                 list[changes->count - 1].number >= through;
    if (*out_known) {
        const size_t first = (size_t)(after + 1 - list[0].number);
        const size_t end = (size_t)(through + 1 - list[0].number);
        *out_docs = malloc((end - first + 1) * sizeof **out_docs);
        *out_known = *out_docs != NULL;
        for (size_t i = first; *out_known && i < end; i++) {
            if (list[i].space == space) {
                (*out_docs)[(*out_count)++] = list[i].doc;
            }
        }
    }
    (void)pthread_mutex_unlock(&changes->lock);
}

bool retrieval_vec_changes_erased(
    struct retrieval_vec_changes *changes, uint32_t space, uint64_t after)
{
    bool erased = false;

    (void)pthread_mutex_lock(&changes->lock);
    if (changes->count > 0 && changes->list[0].number > after + 1) {
        erased = true; /* perhaps */
    }
    for (size_t i = changes->count; i > 0 && !erased; i--) {
        const struct retrieval_vec_change *change = &changes->list[i - 1];
        if (change->number <= after) {
            break;
        }
        erased = change->erased && change->space == space;
    }
    (void)pthread_mutex_unlock(&changes->lock);
    return erased;
}
