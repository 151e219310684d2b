/* The indexes of one store together, and what can be asked of them but a search. */
#include "retrieval/search_internal.h"

#include <stdlib.h>

static const char *const part_names[] = {
#define X(name, text) text,
    RETRIEVAL_PART_TABLE(X)
#undef X
};

const char *retrieval_part_name(enum retrieval_part part)
{
    memos_assert(part < RETRIEVAL_PARTS);
    return part_names[part];
}

enum retrieval_part retrieval_part_of(struct memos_bytes name)
{
    int part = 0;
    while (part < RETRIEVAL_PARTS && !memos_bytes_equal(name, memos_bytes_of(part_names[part]))) {
        part++;
    }
    return (enum retrieval_part)part;
}

enum memos_status retrieval_create(const struct retrieval_vectors_options *vectors,
    struct retrieval **out_retrieval, struct memos_error *err)
{
    struct retrieval *retrieval = calloc(1, sizeof *retrieval);
    if (!retrieval) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for the indexes");
    }
    enum memos_status status = retrieval_lexical_create(NULL, &retrieval->lexical, err);
    if (status == MEMOS_OK) {
        status = retrieval_vectors_create(vectors, &retrieval->vectors, err);
    }
    if (status == MEMOS_OK) {
        status = retrieval_statements_create(&retrieval->statements, err);
    }
    if (status == MEMOS_OK) {
        status = retrieval_questions_create(&retrieval->questions, err);
    }
    if (status == MEMOS_OK) {
        status = retrieval_features_create(retrieval->statements, &retrieval->features, err);
    }
    if (status != MEMOS_OK) {
        retrieval_destroy(&retrieval);
        return status;
    }
    retrieval->indexes[0] = retrieval_lexical_index(retrieval->lexical);
    retrieval->indexes[1] = retrieval_vectors_index(retrieval->vectors);
    retrieval->indexes[2] = retrieval_features_index(retrieval->features);
    *out_retrieval = retrieval;
    return MEMOS_OK;
}

void retrieval_destroy(struct retrieval **retrieval_in)
{
    struct retrieval *retrieval = *retrieval_in;
    *retrieval_in = NULL;
    if (!retrieval) {
        return;
    }
    retrieval_features_destroy(&retrieval->features);
    retrieval_questions_destroy(&retrieval->questions);
    retrieval_statements_destroy(&retrieval->statements);
    retrieval_vectors_destroy(&retrieval->vectors);
    retrieval_lexical_destroy(&retrieval->lexical);
    free(retrieval);
}

struct memcube_index *const *retrieval_indexes(struct retrieval *retrieval, size_t *out_count)
{
    *out_count = sizeof retrieval->indexes / sizeof retrieval->indexes[0];
    return retrieval->indexes;
}

struct retrieval_vectors *retrieval_vectors_of(struct retrieval *retrieval)
{
    return retrieval->vectors;
}

enum memos_status retrieval_neighbours(struct retrieval *retrieval, struct memcube_read *read,
    const struct memcube_space *space, uint32_t doc, const struct memcube_docs *visible,
    size_t count_max, uint32_t *out_before, size_t *out_before_count, uint32_t *out_after,
    size_t *out_after_count, struct memos_error *err)
{
    struct retrieval_features_view view;
    enum memos_status status = retrieval_features_load(retrieval->features, memcube_read_txn(read),
        space->number, visible->docs_end, memcube_read_arena(read), &view, err);
    if (status == MEMOS_OK) {
        *out_before_count =
            retrieval_features_beside(&view, doc, false, visible, count_max, out_before);
        *out_after_count =
            retrieval_features_beside(&view, doc, true, visible, count_max, out_after);
        status = retrieval_features_view_check(&view, err);
    }
    return status;
}
