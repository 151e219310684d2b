/* Entries of vectors, lists of an index's docs and principal components come from files that may be
 * damaged or forged.
 *
 * Input: one byte that says which (0 entry, 1 docs, 2 components), then its bytes. What is accepted
 * must be readable to its last byte, and no entry may open under a key that did not seal it. */
#include "retrieval/pca.h"
#include "retrieval/vectors_table.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void entry(struct memos_bytes bytes)
{
    const uint8_t key[MEMCUBE_DOC_KEY_BYTES] = {1};
    struct retrieval_vec_codes codes = {.spans = 0};
    struct retrieval_vec_entry view;
    struct memos_error err;

    if (retrieval_vec_entry_view(bytes, &view, &err) != MEMOS_OK) {
        return;
    }
    const struct retrieval_vec_encoder encoder = {
        .number = view.encoder, .dims = 8, .codes = KERN_E4M3, .code_bytes = 8};
    memos_assert(view.spans >= 1 && view.spans <= RETRIEVAL_SPANS_MAX);
    memos_assert(retrieval_vec_entry_open(&view, &encoder, key, &codes, &err) == MEMOS_CORRUPT);
    retrieval_vec_codes_finish(&codes);
}

static void docs(struct memos_bytes bytes)
{
    struct retrieval_vec_saved saved;
    struct memos_error err;
    uint64_t sum = 0;

    if (retrieval_vec_saved_decode(bytes, &saved, &err) == MEMOS_OK) {
        for (uint64_t i = 0; i < saved.count; i++) {
            sum += saved.docs[i];
        }
        memos_assert(sum < UINT64_MAX);
    }
    free(saved.docs);
}

static void components(struct memos_bytes bytes)
{
    struct memos_buffer again = memos_buffer_make(SIZE_MAX);
    struct retrieval_pca *pca = NULL;
    struct memos_error err;

    if (retrieval_pca_load(bytes, &pca, &err) == MEMOS_OK) {
        memos_assert(retrieval_pca_save(pca, &again, &err) == MEMOS_OK);
        memos_assert(memos_bytes_equal(memos_buffer_view(&again), bytes));
    }
    retrieval_pca_free(&pca);
    memos_buffer_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const struct memos_bytes bytes = memos_bytes_make(data + 1, size - 1);
    switch (data[0]) {
    case 0:
        entry(bytes);
        break;
    case 1:
        docs(bytes);
        break;
    default:
        components(bytes);
        break;
    }
    return 0;
}
