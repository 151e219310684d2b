#include "retrieval/rank.h"

#include "retrieval/merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a light term weighs beside others. Measured on questions of four kinds: README.md. */
#define LIGHT_WEIGHT 0.25

/* Bounds are sums in another order than scores: leave room for what rounding does. */
#define BOUND_SLACK (1.0 + 1e-9)

#define DOC_END UINT32_MAX

#define LONG_LIST 2048u /* postings: so many are counted by what is not live, */
#define GONE_PART 8u    /* when that is at most so small a part of them */

/* ---- lengths ------------------------------------------------------------------------------- */

struct lengths {
    const uint8_t **chunks; /* views of lex.len; NULL where there is none */
    size_t chunks_count;
};

static bool docs_has(const struct memcube_docs *docs, uint32_t doc)
{
    return doc < docs->docs_end && (docs->words[doc / 64] >> (doc % 64) & 1) != 0;
}

/* The first of some docs from `doc` on; DOC_END: there is none. */
static uint32_t docs_next(const struct memcube_docs *docs, uint32_t doc)
{
    if (doc >= docs->docs_end) {
        return DOC_END;
    }
    const uint32_t words = (docs->docs_end + 63) / 64;
    uint32_t word = doc / 64;
    uint64_t bits = docs->words[word] & (~UINT64_C(0) << (doc % 64));
    while (bits == 0 && ++word < words) {
        bits = docs->words[word];
    }
    return bits == 0 ? DOC_END : word * 64 + (uint32_t)__builtin_ctzll(bits);
}

static uint32_t length_of(const struct lengths *lengths, uint32_t doc)
{
    size_t chunk = doc / RETRIEVAL_CHUNK_DOCS;
    if (chunk >= lengths->chunks_count || !lengths->chunks[chunk]) {
        return 0;
    }
    const uint8_t *at = lengths->chunks[chunk] + (doc % RETRIEVAL_CHUNK_DOCS) * 2;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static enum memos_status lengths_load(struct lengths *lengths, memcube_table table,
    struct memcube_txn *txn, uint32_t space, uint32_t docs_end, struct memos_arena *arena,
    struct memos_error *err)
{
    struct memcube_cursor *cursor = NULL;
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES];
    struct memos_bytes key = retrieval_doc_key(key_bytes, space, 0), value;
    enum memcube_move move = MEMCUBE_AT_OR_AFTER;

    lengths->chunks_count = docs_end / RETRIEVAL_CHUNK_DOCS + 1;
    lengths->chunks = memos_arena_take(arena, lengths->chunks_count, sizeof *lengths->chunks);
    if (!lengths->chunks) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to search %u docs", docs_end);
    }
    memset(lengths->chunks, 0, lengths->chunks_count * sizeof *lengths->chunks);
    enum memos_status status = memcube_cursor_open(txn, table, &cursor, err);
    while (status == MEMOS_OK) {
        status = memcube_cursor_move(cursor, move, &key, &value, err);
        struct memos_reader reader = memos_reader_of(key);
        if (status != MEMOS_OK || memos_read_u32_be(&reader) != space) {
            break;
        }
        uint32_t chunk = memos_read_u32_be(&reader);
        if (chunk >= lengths->chunks_count) {
            break;
        }
        if (!memos_reader_done(&reader) || value.size != RETRIEVAL_CHUNK_BYTES) {
            status = memos_fail(err, MEMOS_CORRUPT, "lexical index: a chunk of lengths is broken");
            break;
        }
        lengths->chunks[chunk] = value.data;
        move = MEMCUBE_NEXT;
    }
    memcube_cursor_close(&cursor);
    return status == MEMOS_NOT_FOUND ? MEMOS_OK : status;
}

/* Add 64 docs' lengths, which lie side by side, to what is measured. */
static void lengths_add_word(const uint8_t *at, uint64_t *total, uint32_t *least)
{
    uint32_t sum = 0;
    uint16_t low = UINT16_MAX;
    for (size_t i = 0; i < 64; i++) {
        const uint16_t length = (uint16_t)(at[2 * i] | at[2 * i + 1] << 8);
        sum += length;
        low = length < low ? length : low;
    }
    *total += sum;
    *least = low < *least ? low : *least;
}

/* Mean and least length of some docs (1 when there are none). */
static void lengths_measure(const struct lengths *lengths, const struct memcube_docs *docs,
    double *out_mean, uint32_t *out_least)
{
    uint64_t total = 0, count = 0;
    uint32_t least = UINT32_MAX;
    for (uint32_t at = 0; at < docs->docs_end; at += 64) {
        const size_t chunk = at / RETRIEVAL_CHUNK_DOCS;
        uint64_t bits = docs->words[at / 64];
        if (bits == UINT64_MAX && chunk < lengths->chunks_count && lengths->chunks[chunk]) {
            lengths_add_word(
                lengths->chunks[chunk] + (at % RETRIEVAL_CHUNK_DOCS) * 2, &total, &least);
            count += 64;
            continue;
        }
        for (; bits != 0; bits &= bits - 1) {
            uint32_t length = length_of(lengths, at + (uint32_t)__builtin_ctzll(bits));
            total += length;
            count++;
            least = length < least ? length : least;
        }
    }
    *out_mean = total > 0 ? (double)total / (double)count : 1.0;
    *out_least = count > 0 ? least : 1;
}

/* ---- one term's postings ------------------------------------------------------------------- */

struct list {
    struct memcube_cursor *cursor;     /* NULL: the term has no merged postings */
    const struct retrieval_tail *tail; /* those after them */
    bool tail_seen;                    /* the piece in view is the tail */
    const uint8_t *at, *end;           /* what is left of the piece in view */
    uint32_t doc, count;               /* current posting; doc DOC_END: after the last */
    double weight;                     /* w(t) idf(t) (k1 + 1) */
    double bound;                      /* no doc gets more from this term */
    double bounds;                     /* and none more from it and all lists before it */
    double score;                      /* what the candidate gets from it */
};

struct retrieval_ranking {
    struct retrieval_rank_query query;
    const struct memcube_docs *wanted; /* of the pass that is made */
    struct memcube_docs gone;          /* docs that are not live */
    struct lengths lengths;
    double mean;
    double ideal;   /* the score of a doc of mean length with every term once */
    uint32_t least; /* length of the shortest wanted doc */
    struct list *lists;
    size_t lists_count;
    size_t essential; /* lists from here on bring docs in */
    struct best {
        double score;
        uint32_t doc;
    } * best; /* a heap, the worst on top */
    size_t best_count, top_k;
    bool exhaustive;
    struct retrieval_rank_work work;
};

/* k1 (1 - b + b |d| / avg) */
static double damping(const struct retrieval_ranking *ranking, uint32_t length)
{
    const struct retrieval_rank_query *query = &ranking->query;
    return query->k1 * (1.0 - query->b + query->b * (double)length / ranking->mean);
}

/* View the next piece of a list, or its first; the tail comes last. at == end after it. */
static enum memos_status list_piece(struct list *list, bool first, struct memos_error *err)
{
    struct memos_bytes piece = memos_bytes_make(list->tail->postings, list->tail->postings_bytes);
    list->tail_seen = list->tail_seen && !first;
    if (list->tail_seen) {
        list->at = list->end;
        return MEMOS_OK;
    }
    enum memos_status status = MEMOS_NOT_FOUND;
    if (list->cursor) {
        status = memcube_cursor_values(list->cursor, first, &piece, err);
    }
    list->tail_seen = status == MEMOS_NOT_FOUND;
    if (status != MEMOS_OK && status != MEMOS_NOT_FOUND) {
        return status;
    } else if (piece.size % RETRIEVAL_POSTING_BYTES != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "lexical index: a posting is broken");
    }
    list->at = piece.data;
    list->end = list->at + piece.size;
    return MEMOS_OK;
}

/* Step within the piece to the first posting at or after `doc`; the last one is known to be.
 * Gallops, since the next candidate is mostly near. */
static void list_gallop(struct list *list, uint32_t doc)
{
    size_t low = 0, high = (size_t)(list->end - list->at) / RETRIEVAL_POSTING_BYTES, step = 1;
    const uint8_t *at = list->at;
    while (step < high && retrieval_posting_read(at + step * RETRIEVAL_POSTING_BYTES).doc < doc) {
        low = step;
        step *= 2;
    }
    high = step < high ? step : high;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (retrieval_posting_read(at + middle * RETRIEVAL_POSTING_BYTES).doc < doc) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    list->at += low * RETRIEVAL_POSTING_BYTES;
}

/* Go to the first wanted posting at or after `doc`. What is wanted and what the list has take turns
 * in naming the next place, so that the rarer of the two says how many steps it takes. */
static enum memos_status list_seek(
    struct retrieval_ranking *ranking, struct list *list, uint32_t doc, struct memos_error *err)
{
    const struct memcube_docs *wanted = ranking->wanted;
    while (list->at != list->end && doc != DOC_END) {
        /* A piece that ends before doc is passed over without a look at its inside. */
        if (retrieval_posting_read(list->end - RETRIEVAL_POSTING_BYTES).doc < doc) {
            enum memos_status status = list_piece(list, false, err);
            if (status != MEMOS_OK) {
                return status;
            }
            continue;
        }
        list_gallop(list, doc);
        struct retrieval_posting found = retrieval_posting_read(list->at);
        ranking->work.postings++;
        if (docs_has(wanted, found.doc)) {
            list->doc = found.doc;
            list->count = found.count;
            return MEMOS_OK;
        }
        doc = docs_next(wanted, found.doc + 1);
    }
    list->doc = DOC_END;
    return MEMOS_OK;
}

/* Go on from the current posting to the next wanted one. */
static enum memos_status list_next(
    struct retrieval_ranking *ranking, struct list *list, struct memos_error *err)
{
    list->at += RETRIEVAL_POSTING_BYTES;
    if (list->at == list->end) {
        enum memos_status status = list_piece(list, false, err);
        if (status != MEMOS_OK || list->at == list->end) {
            list->doc = DOC_END;
            return status;
        }
    }
    struct retrieval_posting found = retrieval_posting_read(list->at);
    if (!docs_has(ranking->wanted, found.doc)) {
        return list_seek(ranking, list, docs_next(ranking->wanted, found.doc), err);
    }
    ranking->work.postings++;
    list->doc = found.doc;
    list->count = found.count;
    return MEMOS_OK;
}

/* w(t) idf(t) */
static double term_once(const struct retrieval_term *term, double docs, double with)
{
    double share = term->light ? LIGHT_WEIGHT : 1.0;
    return share * (double)term->count * log(1.0 + (docs - with + 0.5) / (with + 0.5));
}

/* Look at all postings of a term once: how many live docs have it, and how often one at most. */
static enum memos_status list_count(struct retrieval_ranking *ranking, struct list *list,
    uint32_t *out_found, uint32_t *out_count_max, struct memos_error *err)
{
    enum memos_status status = list_piece(list, true, err);
    *out_found = *out_count_max = 0;
    while (status == MEMOS_OK && list->at != list->end) {
        ranking->work.postings += (uint64_t)(list->end - list->at) / RETRIEVAL_POSTING_BYTES;
        for (; list->at != list->end; list->at += RETRIEVAL_POSTING_BYTES) {
            struct retrieval_posting posting = retrieval_posting_read(list->at);
            *out_found += docs_has(ranking->query.live, posting.doc);
            *out_count_max = posting.count > *out_count_max ? posting.count : *out_count_max;
        }
        status = list_piece(list, false, err);
    }
    return status;
}

/* As that, of a long list in a space where few docs are not live: only those are looked for in it.
 * How often a doc has the term is then not known. */
static enum memos_status list_count_gone(struct retrieval_ranking *ranking, struct list *list,
    uint64_t postings, uint32_t *out_found, uint32_t *out_count_max, struct memos_error *err)
{
    uint64_t gone = 0;
    ranking->wanted = &ranking->gone;
    enum memos_status status = list_piece(list, true, err);
    if (status == MEMOS_OK) {
        status = list_seek(ranking, list, docs_next(&ranking->gone, 0), err);
    }
    while (status == MEMOS_OK && list->doc != DOC_END) {
        gone++;
        status = list_next(ranking, list, err);
    }
    *out_found = (uint32_t)(postings - gone);
    *out_count_max = RETRIEVAL_COUNT_MAX;
    return status;
}

/* A term's statistics: how many live docs have it, and the most that it can give. */
static enum memos_status list_measure(struct retrieval_ranking *ranking, struct list *list,
    const struct retrieval_term *term, struct memos_error *err)
{
    const struct retrieval_rank_query *query = &ranking->query;
    uint32_t found = 0, count_max = 0;
    uint64_t postings = 0;

    enum memos_status status =
        list->cursor ? memcube_cursor_count(list->cursor, &postings, err) : MEMOS_OK;
    postings += list->tail->postings_bytes / RETRIEVAL_POSTING_BYTES;
    if (status != MEMOS_OK) {
        return status;
    }
    if (postings >= LONG_LIST && (uint64_t)ranking->gone.count * GONE_PART <= postings) {
        status = list_count_gone(ranking, list, postings, &found, &count_max, err);
    } else {
        status = list_count(ranking, list, &found, &count_max, err);
    }
    double docs = (double)query->live->count;
    double with = found < query->live->count ? (double)found : docs;
    double once = term_once(term, docs, with);
    ranking->ideal += once;
    list->weight = once * (query->k1 + 1.0);
    list->bound = list->weight * (double)count_max /
                  ((double)count_max + damping(ranking, ranking->least)) * BOUND_SLACK;
    return status;
}

/* Open the list of a term; one that nobody has gives no list. */
static enum memos_status list_open(struct retrieval_ranking *ranking,
    const struct retrieval_tables *tables, struct memcube_txn *txn,
    const struct retrieval_term *term, const struct retrieval_tail *tail, struct memos_error *err)
{
    struct list *list = &ranking->lists[ranking->lists_count];
    uint8_t key_bytes[RETRIEVAL_TERM_KEY_BYTES];
    struct memos_bytes key = retrieval_term_key(key_bytes, ranking->query.space, term->hash);
    struct memos_bytes value;

    *list = (struct list){.tail = tail, .doc = DOC_END};
    enum memos_status status = memcube_cursor_open(txn, tables->post, &list->cursor, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = memcube_cursor_move(list->cursor, MEMCUBE_AT, &key, &value, err);
    if (status == MEMOS_NOT_FOUND) {
        memcube_cursor_close(&list->cursor);
        if (tail->postings_bytes == 0) {
            ranking->ideal += term_once(term, (double)ranking->query.live->count, 0.0);
            return MEMOS_OK;
        }
        status = MEMOS_OK;
    }
    ranking->lists_count++; /* from here on it is closed with the others */
    if (status == MEMOS_OK) {
        status = list_measure(ranking, list, term, err);
    }
    return status;
}

/* Put every list at its first wanted doc. */
static enum memos_status lists_rewind(
    struct retrieval_ranking *ranking, const struct memcube_docs *wanted, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    ranking->wanted = wanted;
    ranking->essential = 0;
    for (size_t i = 0; i < ranking->lists_count && status == MEMOS_OK; i++) {
        struct list *list = &ranking->lists[i];
        status = list_piece(list, true, err);
        if (status == MEMOS_OK) {
            status = list_seek(ranking, list, 0, err);
        }
    }
    return status;
}

static int list_compare(const void *a, const void *b)
{
    const struct list *left = a, *right = b;
    return (left->bound > right->bound) - (left->bound < right->bound);
}

/* ---- the best so far ----------------------------------------------------------------------- */

/* Is a worse than b? Of equal scores the later doc is the worse. */
static bool worse(struct best a, struct best b)
{
    return a.score < b.score || (a.score == b.score && a.doc > b.doc);
}

static void best_sift(struct best *best, size_t count, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            return;
        }
        if (child + 1 < count && worse(best[child + 1], best[child])) {
            child++;
        }
        if (!worse(best[child], best[at])) {
            return;
        }
        struct best moved = best[at];
        best[at] = best[child];
        best[child] = moved;
        at = child;
    }
}

static bool best_full(const struct retrieval_ranking *ranking)
{
    return ranking->best_count == ranking->top_k;
}

/* Can a score enter? Docs come in rising order, so that an equal score is too late. */
static bool best_takes(const struct retrieval_ranking *ranking, double score)
{
    return !best_full(ranking) || score > ranking->best[0].score;
}

static void best_add(struct retrieval_ranking *ranking, struct best entry)
{
    struct best *best = ranking->best;
    if (best_full(ranking)) {
        best[0] = entry;
        best_sift(best, ranking->best_count, 0);
        return;
    }
    size_t at = ranking->best_count++;
    for (; at > 0 && worse(entry, best[(at - 1) / 2]); at = (at - 1) / 2) {
        best[at] = best[(at - 1) / 2];
    }
    best[at] = entry;
}

static int best_compare(const void *a, const void *b)
{
    const struct best *left = a, *right = b;
    return worse(*left, *right) - worse(*right, *left);
}

/* ---- MaxScore ------------------------------------------------------------------------------ */

static void list_score(struct list *list, double damped)
{
    double count = (double)list->count;
    list->score = list->weight * count / (count + damped);
}

/* Score doc, which some essential list brought in, and step those lists on. */
static enum memos_status score_doc(
    struct retrieval_ranking *ranking, uint32_t doc, struct memos_error *err)
{
    double damped = damping(ranking, length_of(&ranking->lengths, doc));
    double sum = 0.0;
    enum memos_status status = MEMOS_OK;

    for (size_t i = ranking->essential; i < ranking->lists_count; i++) {
        struct list *list = &ranking->lists[i];
        list->score = 0.0;
        if (list->doc == doc) {
            list_score(list, damped);
            sum += list->score;
            status = list_next(ranking, list, err);
            if (status != MEMOS_OK) {
                return status;
            }
        }
    }
    for (size_t i = ranking->essential; i > 0; i--) {
        struct list *list = &ranking->lists[i - 1];
        if (!best_takes(ranking, (sum + list->bounds) * BOUND_SLACK)) {
            return MEMOS_OK;
        }
        list->score = 0.0;
        if (list->doc < doc) {
            status = list_seek(ranking, list, doc, err);
            if (status != MEMOS_OK) {
                return status;
            }
        }
        if (list->doc == doc) {
            list_score(list, damped);
            sum += list->score;
        }
    }
    /* Sum anew in one order, so that equal docs get equal scores whatever was essential. */
    sum = 0.0;
    for (size_t i = 0; i < ranking->lists_count; i++) {
        sum += ranking->lists[i].score;
    }
    ranking->work.scored++;
    if (best_takes(ranking, sum)) {
        best_add(ranking, (struct best){sum, doc});
    }
    return MEMOS_OK;
}

static enum memos_status rank_docs(struct retrieval_ranking *ranking, struct memos_error *err)
{
    double bounds = 0.0;
    for (size_t i = 0; i < ranking->lists_count; i++) {
        bounds += ranking->lists[i].bound;
        ranking->lists[i].bounds = bounds;
    }
    for (;;) {
        uint32_t doc = DOC_END;
        while (!ranking->exhaustive && ranking->essential < ranking->lists_count &&
               !best_takes(ranking, ranking->lists[ranking->essential].bounds * BOUND_SLACK)) {
            ranking->essential++;
        }
        for (size_t i = ranking->essential; i < ranking->lists_count; i++) {
            doc = ranking->lists[i].doc < doc ? ranking->lists[i].doc : doc;
        }
        if (doc == DOC_END) {
            return MEMOS_OK;
        }
        enum memos_status status = score_doc(ranking, doc, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
}

/* Docs that may have postings and are not live. */
static enum memos_status gone_make(struct retrieval_ranking *ranking, uint32_t docs_end,
    struct memos_arena *arena, struct memos_error *err)
{
    const struct memcube_docs *live = ranking->query.live;
    struct memcube_docs *gone = &ranking->gone;
    const size_t words = docs_end / 64 + 1;

    *gone = (struct memcube_docs){.docs_end = docs_end};
    gone->words = memos_arena_take(arena, words, sizeof *gone->words);
    if (!gone->words) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to search %u docs", docs_end);
    }
    for (size_t i = 0; i < words; i++) {
        uint64_t bits = i * 64 < live->docs_end ? ~live->words[i] : ~UINT64_C(0);
        bits &= i == words - 1 ? (UINT64_C(1) << (docs_end % 64)) - 1 : ~UINT64_C(0);
        gone->words[i] = bits;
        gone->count += (uint32_t)__builtin_popcountll(bits);
    }
    return MEMOS_OK;
}

/* Memory, lengths and lists for a query. */
static enum memos_status ranking_begin(struct retrieval_ranking *ranking,
    const struct retrieval_tables *tables, struct memcube_txn *txn, struct memos_arena *arena,
    struct memos_error *err)
{
    const struct retrieval_rank_query *query = &ranking->query;
    const uint32_t live_end = query->live->docs_end, wanted_end = query->wanted->docs_end;
    const uint32_t docs_end = live_end > wanted_end ? live_end : wanted_end;
    struct retrieval_tail *tails;
    uint32_t least;

    ranking->lists = memos_arena_take(arena, query->terms_count + 1, sizeof *ranking->lists);
    if (!ranking->lists) {
        return memos_fail(
            err, MEMOS_NO_MEMORY, "no memory to search for %zu terms", query->terms_count);
    }
    enum memos_status status = gone_make(ranking, docs_end, arena, err);
    if (status == MEMOS_OK) {
        status =
            lengths_load(&ranking->lengths, tables->len, txn, query->space, docs_end, arena, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    lengths_measure(&ranking->lengths, query->live, &ranking->mean, &least);
    if (query->wanted != query->live) {
        double mean;
        lengths_measure(&ranking->lengths, query->wanted, &mean, &least);
    }
    ranking->least = least;
    status = retrieval_tails_read(tables, txn, query->space, query->terms, query->terms_count,
        query->live, query->wanted, arena, &tails, err);
    for (size_t i = 0; i < query->terms_count && status == MEMOS_OK; i++) {
        status = list_open(ranking, tables, txn, &query->terms[i], &tails[i], err);
    }
    qsort(ranking->lists, ranking->lists_count, sizeof *ranking->lists, list_compare);
    return status;
}

enum memos_status retrieval_ranking_open(const struct retrieval_tables *tables,
    struct memcube_txn *txn, const struct retrieval_rank_query *query, struct memos_arena *arena,
    struct retrieval_ranking **out_ranking, struct memos_error *err)
{
    struct retrieval_ranking *ranking = memos_arena_take(arena, 1, sizeof *ranking);
    if (!ranking) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a search");
    }
    *ranking = (struct retrieval_ranking){.query = *query};
    enum memos_status status = ranking_begin(ranking, tables, txn, arena, err);
    if (status != MEMOS_OK) {
        retrieval_ranking_close(&ranking);
        return status;
    }
    *out_ranking = ranking;
    return MEMOS_OK;
}

void retrieval_ranking_close(struct retrieval_ranking **ranking_in)
{
    struct retrieval_ranking *ranking = *ranking_in;
    *ranking_in = NULL;
    for (size_t i = 0; ranking && i < ranking->lists_count; i++) {
        memcube_cursor_close(&ranking->lists[i].cursor);
    }
}

double retrieval_ranking_ideal(const struct retrieval_ranking *ranking)
{
    return ranking->ideal;
}

enum memos_status retrieval_ranking_scores(struct retrieval_ranking *ranking,
    const struct memcube_docs *wanted, const uint32_t *docs, float *scores, struct memos_error *err)
{
    enum memos_status status = lists_rewind(ranking, wanted, err);
    for (size_t i = 0; i < ranking->lists_count && status == MEMOS_OK; i++) {
        struct list *list = &ranking->lists[i];
        size_t at = 0;
        while (status == MEMOS_OK && list->doc != DOC_END) {
            list_score(list, damping(ranking, length_of(&ranking->lengths, list->doc)));
            while (docs[at] != list->doc) {
                at++;
            }
            scores[at] += (float)list->score;
            status = list_next(ranking, list, err);
        }
    }
    return status;
}

enum memos_status retrieval_ranking_best(struct retrieval_ranking *ranking,
    const struct memcube_docs *wanted, size_t top_k, bool exhaustive, struct memos_arena *arena,
    struct retrieval_hit *out, size_t *out_count, struct memos_error *err)
{
    memos_assert(top_k > 0);
    ranking->best = memos_arena_take(arena, top_k + 1, sizeof *ranking->best);
    if (!ranking->best) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu hits", top_k);
    }
    ranking->best_count = 0;
    ranking->top_k = top_k;
    ranking->exhaustive = exhaustive;
    enum memos_status status = lists_rewind(ranking, wanted, err);
    if (status == MEMOS_OK) {
        status = rank_docs(ranking, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    qsort(ranking->best, ranking->best_count, sizeof *ranking->best, best_compare);
    for (size_t i = 0; i < ranking->best_count; i++) {
        float score = (float)ranking->best[i].score;
        out[i] = (struct retrieval_hit){
            .doc = ranking->best[i].doc, .score = score, .bm25 = score, .cosine = NAN};
        out[i].parts[RETRIEVAL_PART_WORDS] = score;
    }
    *out_count = ranking->best_count;
    return MEMOS_OK;
}

enum memos_status retrieval_rank(const struct retrieval_tables *tables, struct memcube_txn *txn,
    const struct retrieval_rank_query *query, struct memos_arena *arena, struct retrieval_hit *out,
    size_t *out_count, struct retrieval_rank_work *out_work, struct memos_error *err)
{
    struct retrieval_ranking *ranking;

    enum memos_status status = retrieval_ranking_open(tables, txn, query, arena, &ranking, err);
    if (status != MEMOS_OK) {
        return status;
    }
    status = retrieval_ranking_best(
        ranking, query->wanted, query->top_k, query->exhaustive, arena, out, out_count, err);
    if (status == MEMOS_OK && out_work) {
        *out_work = ranking->work;
    }
    retrieval_ranking_close(&ranking);
    return status;
}
