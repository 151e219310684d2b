/* From a question's words to hits. */
#include "retrieval/lexical.h"

#include "retrieval/lexical_internal.h"
#include "retrieval/rank.h"

/* Does the filter leave every doc that is searched by default? */
static bool filter_is_plain(const struct memcube_filter *filter)
{
    return filter->kinds == 0 && filter->states == 0 && filter->subtypes_count == 0 &&
           filter->tags_count == 0 && filter->source.size == 0 && filter->speaker.size == 0 &&
           filter->from_us == 0 && filter->to_us == 0 && !filter->include_stale;
}

/* Statistics are of what the viewer finds without a filter: so a filter never changes a score, and
 * no score tells of docs that the viewer may not see. */
static enum memos_status search_terms(struct retrieval_lexical *lexical,
    struct retrieval_terms *terms, struct memcube_read *read, const struct memcube_space *space,
    const struct retrieval_query *query, struct retrieval_hit *out, size_t *out_count,
    struct memos_error *err)
{
    struct memcube_filter plain = {.viewer = query->filter.viewer};
    struct memcube_docs live, wanted;
    struct retrieval_rank_query rank = {
        .space = space->number,
        .live = &live,
        .wanted = &live,
        .k1 = lexical->k1,
        .b = lexical->b,
        .top_k = query->top_k,
    };
    uint32_t length;

    retrieval_terms_begin(terms, space->secret, query->language, true);
    enum memos_status status = retrieval_terms_add(terms, query->text, err);
    if (status != MEMOS_OK) {
        return status;
    }
    rank.terms = retrieval_terms_finish(terms, &rank.terms_count, &length);
    if (rank.terms_count == 0) {
        *out_count = 0;
        return MEMOS_OK;
    }
    status = memcube_docs_select(read, space, &plain, &query->as_of, &live, err);
    if (status == MEMOS_OK && !filter_is_plain(&query->filter)) {
        status = memcube_docs_select(read, space, &query->filter, &query->as_of, &wanted, err);
        rank.wanted = &wanted;
    }
    if (status != MEMOS_OK) {
        return status;
    }
    return retrieval_rank(&lexical->tables, memcube_read_txn(read), &rank, memcube_read_arena(read),
        out, out_count, NULL, err);
}

enum memos_status retrieval_lexical_search(struct retrieval_lexical *lexical,
    struct memcube_read *read, const struct memcube_space *space,
    const struct retrieval_query *query, struct retrieval_hit *out, size_t *out_count,
    struct memos_error *err)
{
    struct retrieval_terms *terms;

    if (query->top_k == 0 || query->top_k > RETRIEVAL_TOP_K_MAX) {
        return memos_fail(err, MEMOS_INVALID, "a search gives 1 to %d hits, not %zu",
            RETRIEVAL_TOP_K_MAX, query->top_k);
    }
    enum memos_status status = retrieval_terms_take(&lexical->pool, &terms, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = search_terms(lexical, terms, read, space, query, out, out_count, err);
    retrieval_terms_give(&lexical->pool, terms);
    return status;
}
