/* Search in a space: which cubes answer this question, best first.
 *
 * Words (BM25) and meaning (vectors) each give scores; these are made comparable and joined, and
 * what else is known of a cube is weighed in: its neighbours in the conversation, who said it and
 * who is asked about, when it was said and which dates it and the question name, whether it states
 * something lasting about the user, how recent, valid, important and useful it is. Filters hold
 * before all that. retrieval/README.md has the formulas, and what each part is worth.
 *
 * Threads: a retrieval may be shared; a search runs on the caller's snapshot. */
#ifndef RETRIEVAL_SEARCH_H
#define RETRIEVAL_SEARCH_H

#include "memcube/store.h"

enum {
    RETRIEVAL_TOP_K_MAX = 1000,
    RETRIEVAL_NEIGHBOURS_MAX = 8,
    RETRIEVAL_NOTES_MAX = 8,
    RETRIEVAL_NOTE_BYTES = 96,
};

enum retrieval_mode {
    RETRIEVAL_HYBRID = 0,
    RETRIEVAL_WORDS = 1,
    RETRIEVAL_VECTORS = 2,
};

/* X(NAME, "name"): the parts that a score is the sum of, and that can be left out. */
#define RETRIEVAL_PART_TABLE(X)                                                                    \
    X(WORDS, "words")                                                                              \
    X(VECTORS, "vectors")                                                                          \
    X(NEIGHBOURS, "neighbours")                                                                    \
    X(SPEAKER, "speaker")                                                                          \
    X(DATES, "dates")                                                                              \
    X(STATEMENT, "statement")                                                                      \
    X(FORM, "form")                                                                                \
    X(RECENCY, "recency")                                                                          \
    X(PRIORITY, "priority")                                                                        \
    X(DIVERSITY, "diversity")

enum retrieval_part {
#define X(name, text) RETRIEVAL_PART_##name,
    RETRIEVAL_PART_TABLE(X)
#undef X
        RETRIEVAL_PARTS,
};

/* "words"; static. RETRIEVAL_PARTS for a name that is none. */
const char *retrieval_part_name(enum retrieval_part part);
enum retrieval_part retrieval_part_of(struct memos_bytes name);

struct retrieval_query {
    struct memos_bytes text;     /* UTF-8; the question */
    struct memos_bytes language; /* of the question, for the stemmer; empty: English rules */
    struct memcube_filter filter;
    struct memcube_as_of as_of;
    size_t top_k; /* 1..RETRIEVAL_TOP_K_MAX */
    enum retrieval_mode mode;
    unsigned without;           /* bits 1 << enum retrieval_part */
    const float *vector;        /* of the question, unit length; NULL: words alone */
    size_t dims;                /* of vector */
    const uint8_t *fingerprint; /* 32 bytes: of the encoder that made it */
    int64_t now_us;             /* what "last week" starts from, and what recency counts from */
};

struct retrieval_hit {
    uint32_t doc;
    float score;                  /* larger is better; of one search only are they comparable */
    float parts[RETRIEVAL_PARTS]; /* sum to the score */
    float bm25, cosine;           /* what words and vectors gave; NaN: nothing */
};

/* Of a search as a whole. */
struct retrieval_report {
    uint32_t missing; /* docs that could be found but have no vector of this encoder yet */
    bool vectors;     /* vectors were searched */
    char notes[RETRIEVAL_NOTES_MAX][RETRIEVAL_NOTE_BYTES]; /* how the question was understood */
    size_t notes_count;
};

/* The indexes of one store, together. */
struct retrieval;
struct retrieval_vectors_options;
struct retrieval_vectors;

MEMOS_MUST_USE enum memos_status retrieval_create(const struct retrieval_vectors_options *vectors,
    struct retrieval **out_retrieval, struct memos_error *err);
void retrieval_destroy(struct retrieval **retrieval);

/* What to hand to memcube_store_open; lives as long as the retrieval. */
struct memcube_index *const *retrieval_indexes(struct retrieval *retrieval, size_t *out_count);

/* The vector index among them. */
struct retrieval_vectors *retrieval_vectors_of(struct retrieval *retrieval);

/* Hits sorted by score (of equal ones the newer first, then by doc); at most query->top_k of them
 * into out. OK with *out_count 0 when nothing matches. `report` may be NULL. Modes WORDS and
 * VECTORS give BM25 and cosines alone, as scores; HYBRID without a vector does without that part.
 * INVALID: top_k, dims or mode out of range. */
MEMOS_MUST_USE enum memos_status retrieval_search(struct retrieval *retrieval,
    struct memcube_read *read, const struct memcube_space *space,
    const struct retrieval_query *query, struct retrieval_hit *out, size_t *out_count,
    struct retrieval_report *report, struct memos_error *err);

/* The docs before (and after) a doc in its conversation that are in `visible`, nearest first, at
 * most count_max each way. */
MEMOS_MUST_USE enum memos_status retrieval_neighbours(struct retrieval *retrieval,
    struct memcube_read *read, const struct memcube_space *space, uint32_t doc,
    const struct memcube_docs *visible, size_t count_max, uint32_t *out_before,
    size_t *out_before_count, uint32_t *out_after, size_t *out_after_count,
    struct memos_error *err);

#endif
