/* The lexical index: what goes into its tables and out again, and BM25 over them.
 *
 * If these failed, searches would rank by wrong scores, miss what was written, or find what was
 * taken back; and words of forgotten memories would stay in the files. */
#include "retrieval/lexical.h"
#include "retrieval/lexical_internal.h"
#include "retrieval/rank.h"
#include "tests/memcube/folder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- a database with an index in it -------------------------------------------------------- */

struct fixture {
    char path[FOLDER_PATH_BYTES];
    struct memcube_db *db;
    struct retrieval_lexical *lexical;
    struct memcube_txn *txn; /* the write transaction that the test works in */
    struct memos_arena arena;
};

static const uint8_t secret[32] = {5, 6, 7};

#define OK(call) assert_int_equal(call, MEMOS_OK)

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->path);
    struct memcube_db_options options = {
        .path = f->path, .map_bytes = 256u << 20, .sync_off = true};
    OK(memcube_db_open(&options, &f->db, NULL));
    OK(retrieval_lexical_create(NULL, &f->lexical, NULL));
    struct memcube_index *index = retrieval_lexical_index(f->lexical);
    OK(index->open(index->self, f->db, NULL));
    OK(memcube_txn_write(f->db, &f->txn, NULL));
    memos_arena_init(&f->arena, (size_t)64 << 20);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    memos_arena_finish(&f->arena);
    memcube_txn_abort(&f->txn);
    retrieval_lexical_destroy(&f->lexical);
    memcube_db_close(&f->db);
    folder_remove(f->path);
    free(f);
    return 0;
}

static enum memos_status apply(struct fixture *f,
    enum memos_status (*call)(
        void *, struct memcube_txn *, const struct memcube_index_doc *, struct memos_error *),
    uint32_t space, uint32_t doc, const struct memcube_version *version, const char *text)
{
    struct memcube_index_doc entry = {.space = space,
        .doc = doc,
        .version = version,
        .text = memos_bytes_of(text),
        .secret = secret};
    return call(f->lexical, f->txn, &entry, NULL);
}

static const struct memcube_version nothing_else;

static void add(struct fixture *f, uint32_t space, uint32_t doc, const char *text)
{
    OK(apply(f, f->lexical->index.add, space, doc, &nothing_else, text));
}

static enum memos_status check(struct fixture *f, uint32_t space, uint32_t doc, const char *text)
{
    return apply(f, f->lexical->index.check, space, doc, &nothing_else, text);
}

static void erase(struct fixture *f, uint32_t space, uint32_t doc)
{
    OK(f->lexical->index.erase(f->lexical, f->txn, space, doc, NULL));
}

static size_t table_entries(struct fixture *f, memcube_table table)
{
    struct memcube_cursor *cursor = NULL;
    struct memos_bytes key, value;
    size_t count = 0;
    OK(memcube_cursor_open(f->txn, table, &cursor, NULL));
    enum memos_status status = memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, NULL);
    for (; status == MEMOS_OK; count++) {
        status = memcube_cursor_move(cursor, MEMCUBE_NEXT, &key, &value, NULL);
    }
    assert_int_equal(status, MEMOS_NOT_FOUND);
    memcube_cursor_close(&cursor);
    return count;
}

/* ---- docs ---------------------------------------------------------------------------------- */

static struct memcube_docs docs_make(uint32_t docs_end)
{
    struct memcube_docs docs = {.docs_end = docs_end};
    docs.words = calloc(docs_end / 64 + 1, sizeof *docs.words);
    assert_non_null(docs.words);
    return docs;
}

static void docs_put(struct memcube_docs *docs, uint32_t doc, bool in)
{
    uint64_t bit = UINT64_C(1) << (doc % 64);
    if (((docs->words[doc / 64] & bit) != 0) != in) {
        docs->words[doc / 64] ^= bit;
        docs->count += in ? 1 : UINT32_MAX;
    }
}

static bool docs_in(const struct memcube_docs *docs, uint32_t doc)
{
    return (docs->words[doc / 64] >> (doc % 64) & 1) != 0;
}

static struct memcube_docs docs_all(uint32_t docs_end)
{
    struct memcube_docs docs = docs_make(docs_end);
    for (uint32_t doc = 1; doc < docs_end; doc++) {
        docs_put(&docs, doc, true);
    }
    return docs;
}

static size_t rank(struct fixture *f, uint32_t space, const char *question,
    const struct memcube_docs *live, const struct memcube_docs *wanted, size_t top_k,
    bool exhaustive, struct retrieval_hit *out, struct retrieval_rank_work *work)
{
    struct retrieval_rank_query query = {.space = space,
        .live = live,
        .wanted = wanted,
        .k1 = 1.2,
        .b = 0.75,
        .top_k = top_k,
        .exhaustive = exhaustive};
    struct retrieval_terms *terms;
    struct memos_error err = {0};
    uint32_t length;
    size_t count = 0;

    OK(retrieval_terms_take(&f->lexical->pool, &terms, NULL));
    retrieval_terms_begin(terms, secret, memos_bytes_of("en"), true);
    OK(retrieval_terms_add(terms, memos_bytes_of(question), NULL));
    query.terms = retrieval_terms_finish(terms, &query.terms_count, &length);
    enum memos_status status =
        retrieval_rank(&f->lexical->tables, f->txn, &query, &f->arena, out, &count, work, &err);
    if (status != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    retrieval_terms_give(&f->lexical->pool, terms);
    memos_arena_reset(&f->arena);
    return count;
}

/* ---- what is found ------------------------------------------------------------------------- */

static void the_right_doc_comes_first(void **state)
{
    struct fixture *f = *state;
    struct memcube_docs all = docs_all(5);
    struct retrieval_hit hits[10];
    add(f, 1, 1, "I went to a support group yesterday and it was so powerful.");
    add(f, 1, 2, "The support that you give me is great.");
    add(f, 1, 3, "Nothing of interest.");
    add(f, 1, 4, "GROUPS of people come and go in this town all day and every day.");
    assert_int_equal(
        rank(f, 1, "which support group did you visit?", &all, &all, 10, false, hits, NULL), 3);
    assert_int_equal(hits[0].doc, 1);
    assert_int_equal(rank(f, 1, "groups", &all, &all, 1, false, hits, NULL), 1);
    assert_int_equal(hits[0].doc, 1); /* the shorter of two with the word */
    assert_int_equal(rank(f, 1, "unheard interests", &all, &all, 10, false, hits, NULL), 1);
    assert_int_equal(hits[0].doc, 3);
    assert_int_equal(rank(f, 1, "", &all, &all, 10, false, hits, NULL), 0);
    assert_int_equal(rank(f, 1, "zebra", &all, &all, 10, false, hits, NULL), 0);
    free(all.words);
}

static void all_fields_count(void **state)
{
    struct fixture *f = *state;
    struct memcube_docs all = docs_all(3);
    struct memcube_attribute attributes[] = {
        {memos_bytes_of("camera"), memos_bytes_of("Leica")},
        {memos_bytes_of("caption"), memos_bytes_of("a painting of a sunrise")},
    };
    struct memcube_version version = {
        .description = {
            .title = memos_bytes_of("Holidays"),
            .speaker = memos_bytes_of("Melanie"),
            .language = memos_bytes_of("en"),
            .event_us = INT64_C(1683554160000000), /* 2023-05-08T13:56:00Z */
            .attributes = attributes,
            .attributes_count = 2,
        }};
    static const char *const found[] = {"holiday", "melanie's", "May", "2023", "sunrise", "look"};
    static const char *const lost[] = {"leica", "camera", "caption", "June"};
    struct retrieval_hit hits[2];

    OK(apply(f, f->lexical->index.add, 1, 1, &version, "Take a look at this"));
    for (size_t i = 0; i < sizeof found / sizeof found[0]; i++) {
        assert_int_equal(rank(f, 1, found[i], &all, &all, 2, false, hits, NULL), 1);
    }
    for (size_t i = 0; i < sizeof lost / sizeof lost[0]; i++) {
        assert_int_equal(rank(f, 1, lost[i], &all, &all, 2, false, hits, NULL), 0);
    }
    OK(apply(f, f->lexical->index.check, 1, 1, &version, "Take a look at this"));
    version.description.event_us = INT64_C(-1); /* the last second of 1969 */
    OK(apply(f, f->lexical->index.add, 1, 2, &version, ""));
    assert_int_equal(rank(f, 1, "1969", &all, &all, 2, false, hits, NULL), 1);
    version.description.event_us = INT64_MIN;
    OK(apply(f, f->lexical->index.add, 2, 1, &version, ""));
    free(all.words);
}

static void spaces_are_apart(void **state)
{
    struct fixture *f = *state;
    struct memcube_docs all = docs_all(2);
    struct retrieval_hit hits[2];
    add(f, 1, 1, "alpha");
    add(f, 2, 1, "beta");
    add(f, 256, 1, "alpha gamma");
    assert_int_equal(rank(f, 1, "alpha beta gamma", &all, &all, 2, false, hits, NULL), 1);
    float alone = hits[0].score;
    add(f, 3, 1, "alpha");
    erase(f, 2, 1);
    assert_int_equal(rank(f, 1, "alpha beta gamma", &all, &all, 2, false, hits, NULL), 1);
    assert_true(hits[0].score == alone);
    assert_int_equal(rank(f, 2, "alpha beta gamma", &all, &all, 2, false, hits, NULL), 0);
    free(all.words);
}

/* ---- against a count by hand --------------------------------------------------------------- */

static uint64_t random_state;

static uint32_t random_below(uint32_t end)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 33) % end;
}

#define VOCABULARY 60
#define DOCS_MAX 700
#define WORDS_MAX 40

/* A corpus that the test counts itself: words are "q0" .. "q59", drawn so that some are common. */
struct corpus {
    uint32_t docs_end;
    uint32_t counts[DOCS_MAX][VOCABULARY];
    uint32_t lengths[DOCS_MAX];
};

static uint32_t random_word(void)
{
    uint32_t one = random_below(VOCABULARY), other = random_below(VOCABULARY);
    return one < other ? one : other;
}

static void corpus_doc(struct fixture *f, struct corpus *corpus, uint32_t doc)
{
    struct memos_buffer text = memos_buffer_make(1 << 16);
    uint32_t length = random_below(10) == 0 ? 0 : random_below(WORDS_MAX);
    memset(corpus->counts[doc], 0, sizeof corpus->counts[doc]);
    for (uint32_t i = 0; i < length; i++) {
        uint32_t word = random_word();
        corpus->counts[doc][word]++;
        memos_buffer_printf(&text, "q%u ", word);
    }
    corpus->lengths[doc] = length > 0 ? length : 1;
    memos_buffer_u8(&text, 0);
    add(f, 9, doc, (const char *)text.data);
    memos_buffer_free(&text);
}

static double brute_score(const struct corpus *corpus, const struct memcube_docs *live,
    const uint32_t *question, uint32_t doc)
{
    double total = 0, docs = live->count, score = 0;
    for (uint32_t d = 1; d < corpus->docs_end; d++) {
        total += docs_in(live, d) ? corpus->lengths[d] : 0;
    }
    double mean = total > 0 ? total / docs : 1;
    for (uint32_t word = 0; word < VOCABULARY; word++) {
        double with = 0, count = corpus->counts[doc][word];
        for (uint32_t d = 1; d < corpus->docs_end; d++) {
            with += docs_in(live, d) && corpus->counts[d][word] > 0;
        }
        double idf = log(1 + (docs - with + 0.5) / (with + 0.5));
        score += question[word] * idf * count * 2.2 /
                 (count + 1.2 * (0.25 + 0.75 * corpus->lengths[doc] / mean));
    }
    return score;
}

static void expect_brute(const struct corpus *corpus, const struct memcube_docs *live,
    const struct memcube_docs *wanted, const uint32_t *question, size_t top_k,
    const struct retrieval_hit *hits, size_t hits_count)
{
    double scores[DOCS_MAX] = {0};
    size_t matches = 0;
    for (uint32_t doc = 1; doc < corpus->docs_end; doc++) {
        if (docs_in(wanted, doc)) {
            scores[doc] = brute_score(corpus, live, question, doc);
            matches += scores[doc] > 0;
        }
    }
    assert_int_equal(hits_count, matches < top_k ? matches : top_k);
    for (size_t i = 0; i < hits_count; i++) {
        /* the best that is left; of equals the lower doc */
        uint32_t best = 0;
        for (uint32_t doc = 1; doc < corpus->docs_end; doc++) {
            best = scores[doc] > scores[best] * (1 + 1e-12) ? doc : best;
        }
        if (hits[i].doc != best || fabs((double)hits[i].score / scores[best] - 1) > 1e-5) {
            fail_msg("hit %zu is doc %u with %g, not doc %u with %.9g", i, hits[i].doc,
                (double)hits[i].score, best, scores[best]);
        }
        scores[best] = 0;
    }
}

static void random_question(uint32_t *question, char *text, size_t text_size)
{
    size_t used = 0;
    memset(question, 0, VOCABULARY * sizeof *question);
    for (uint32_t i = random_below(9); i < 10; i++) {
        uint32_t word = random_word();
        question[word]++;
        used += (size_t)snprintf(text + used, text_size - used, "q%u ", word);
    }
}

/* Scores and order are BM25's, whatever is live, wanted, erased, or pruned. */
static void ranking_is_bm25(void **state)
{
    struct fixture *f = *state;
    struct corpus *corpus = calloc(1, sizeof *corpus);
    const char *seed = getenv("MEMOS_TEST_SEED");
    assert_non_null(corpus);
    random_state = seed ? strtoull(seed, NULL, 10) : 20231;
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)random_state);
    random_state = random_state * 2 + 1;
    corpus->docs_end = 2;
    corpus_doc(f, corpus, 1);
    for (int round = 0; round < 60; round++) {
        for (uint32_t i = random_below(20); i > 0 && corpus->docs_end < DOCS_MAX; i--) {
            corpus_doc(f, corpus, corpus->docs_end++);
        }
        if (random_below(2) == 0) {
            uint32_t doc = 1 + random_below(corpus->docs_end - 1);
            erase(f, 9, doc);
            memset(corpus->counts[doc], 0, sizeof corpus->counts[doc]);
            corpus->lengths[doc] = 0;
        }
        struct memcube_docs live = docs_make(corpus->docs_end);
        struct memcube_docs wanted = docs_make(corpus->docs_end);
        uint32_t live_in = 1 + random_below(4), wanted_in = random_below(3);
        for (uint32_t doc = 1; doc < corpus->docs_end; doc++) {
            /* as the store does: what is erased is in no selection */
            docs_put(&live, doc, random_below(live_in) == 0 && corpus->lengths[doc] > 0);
            docs_put(&wanted, doc,
                corpus->lengths[doc] > 0 &&
                    (wanted_in == 0 ? docs_in(&live, doc) : random_below(wanted_in) == 0));
        }
        for (int i = 0; i < 4; i++) {
            uint32_t question[VOCABULARY];
            char text[400];
            struct retrieval_hit hits[DOCS_MAX], all[DOCS_MAX];
            size_t top_k = random_below(3) == 0 ? DOCS_MAX : 1 + random_below(12);
            random_question(question, text, sizeof text);
            size_t count = rank(f, 9, text, &live, &wanted, top_k, false, hits, NULL);
            expect_brute(corpus, &live, &wanted, question, top_k, hits, count);
            assert_int_equal(rank(f, 9, text, &live, &wanted, top_k, true, all, NULL), count);
            assert_memory_equal(hits, all, count * sizeof *hits);
        }
        free(live.words);
        free(wanted.words);
    }
    free(corpus);
}

/* A light word counts a quarter, and pruning looks at fewer docs for the same answer. */
static void light_words_weigh_less(void **state)
{
    struct fixture *f = *state;
    struct memcube_docs all = docs_all(4);
    struct retrieval_hit hits[4];
    add(f, 1, 1, "which");
    add(f, 1, 2, "brook");
    add(f, 1, 3, "stone");
    assert_int_equal(rank(f, 1, "which brook", &all, &all, 4, false, hits, NULL), 2);
    assert_int_equal(hits[0].doc, 2);
    assert_true(fabsf(hits[0].score / hits[1].score - 4.0f) < 1e-5f);
    free(all.words);
}

static void pruning_saves_work(void **state)
{
    struct fixture *f = *state;
    enum { DOCS = 20000 };
    struct memcube_docs all = docs_all(DOCS);
    struct retrieval_hit hits[10], exact[10];
    struct retrieval_rank_work work, exact_work;
    random_state = 99;
    for (uint32_t doc = 1; doc < DOCS; doc++) {
        char text[200];
        (void)snprintf(text, sizeof text, "the story of r%u and the s%u that t%u told",
            random_below(400), random_below(40), random_below(4));
        add(f, 1, doc, text);
    }
    const char *question = "what is the story that t1 told of r77 and s8";
    size_t count = rank(f, 1, question, &all, &all, 10, false, hits, &work);
    assert_int_equal(rank(f, 1, question, &all, &all, 10, true, exact, &exact_work), count);
    assert_int_equal(count, 10);
    assert_memory_equal(hits, exact, sizeof hits);
    assert_true(exact_work.scored == DOCS - 1);
    assert_in_range(work.scored, 10, exact_work.scored / 4);
    free(all.words);
}

/* Words that most docs have are counted by the docs that are not live: a doc that is hidden counts
 * as little as one that was never written. */
static void hidden_docs_do_not_count(void **state)
{
    struct fixture *f = *state;
    enum { DOCS = 6000, EACH = 37 };
    struct memcube_docs live = docs_all(DOCS);
    struct retrieval_hit hidden[20], erased[20];
    for (uint32_t doc = 1; doc < DOCS; doc++) {
        char text[64];
        (void)snprintf(
            text, sizeof text, "harbour %s r%u", doc % 2 ? "lantern lantern" : "rope", doc % 50);
        add(f, 1, doc, text);
        docs_put(&live, doc, doc % EACH != 0);
    }
    const char *question = "harbour lantern r7";
    assert_int_equal(rank(f, 1, question, &live, &live, 20, false, hidden, NULL), 20);
    for (uint32_t doc = EACH; doc < DOCS; doc += EACH) {
        erase(f, 1, doc);
    }
    assert_int_equal(rank(f, 1, question, &live, &live, 20, false, erased, NULL), 20);
    assert_memory_equal(hidden, erased, sizeof hidden);
    free(live.words);
}

/* ---- what is kept -------------------------------------------------------------------------- */

static void erase_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct memcube_docs all = docs_all(1000);
    struct retrieval_hit hits[4];
    add(f, 1, 1, "to be or not to be");
    add(f, 1, 2, "that is the question");
    size_t postings = table_entries(f, f->lexical->tables.post);
    add(f, 1, 999, "to be or not to be, that is another"); /* merges part of the words */
    assert_true(table_entries(f, f->lexical->tables.post) > postings);
    erase(f, 1, 999);
    erase(f, 1, 999); /* twice is as good as once */
    erase(f, 7, 1);
    assert_int_equal(table_entries(f, f->lexical->tables.doc), 2);
    assert_int_equal(rank(f, 1, "another", &all, &all, 4, false, hits, NULL), 0);
    assert_int_equal(rank(f, 1, "be", &all, &all, 4, false, hits, NULL), 1);
    erase(f, 1, 1);
    erase(f, 1, 2);
    assert_int_equal(table_entries(f, f->lexical->tables.post), 0);
    assert_int_equal(table_entries(f, f->lexical->tables.doc), 0);
    add(f, 1, 1, "to be or not to be"); /* as a repair does */
    OK(check(f, 1, 1, "to be or not to be"));
    assert_int_equal(rank(f, 1, "be", &all, &all, 4, false, hits, NULL), 1);
    free(all.words);
}

/* The text of a doc: some words that its number decides. */
static char *text_of(uint32_t doc, char text[64])
{
    (void)snprintf(text, 64, "m%u m%u m%u all", doc % 7, doc % 91 + 100, doc % 1000 + 1000);
    return text;
}

static size_t docs_with(uint32_t docs_end, const uint8_t *gone, uint32_t modulus, uint32_t rest)
{
    size_t count = 0;
    for (uint32_t doc = 1; doc < docs_end; doc++) {
        count += !gone[doc] && doc % modulus == rest;
    }
    return count;
}

/* Whatever was merged when, and erased, and written anew: every doc has its words, once. */
static void merging_loses_nothing(void **state)
{
    struct fixture *f = *state;
    enum { END = 5200 };
    struct memcube_docs all = docs_all(END);
    struct retrieval_hit *hits = calloc(END, sizeof *hits);
    uint8_t *gone = calloc(END, 1);
    char text[64];
    assert_non_null(hits);
    assert_non_null(gone);
    random_state = 4711;
    for (uint32_t doc = 1; doc < END; doc++) {
        gone[doc] = random_below(50) == 0 || (doc > 700 && doc < 1200); /* numbers never added */
        if (!gone[doc]) {
            add(f, 1, doc, text_of(doc, text));
        }
        uint32_t old = 1 + random_below(doc);
        if (random_below(20) == 0 && !gone[old]) {
            erase(f, 1, old);
            gone[old] = random_below(2) == 0;
            if (!gone[old]) {
                add(f, 1, old, text_of(old, text));
            }
        }
        if (doc % 650 == 0) {
            assert_int_equal(rank(f, 1, "m3", &all, &all, END, false, hits, NULL),
                docs_with(doc + 1, gone, 7, 3));
        }
    }
    size_t tail =
        table_entries(f, f->lexical->tables.doc) * 4 - table_entries(f, f->lexical->tables.post);
    assert_in_range(tail, 1, (RETRIEVAL_TAIL_DOCS + 1) * 4);
    for (uint32_t doc = 1; doc < END; doc++) {
        assert_int_equal(
            check(f, 1, doc, text_of(doc, text)), gone[doc] ? MEMOS_CORRUPT : MEMOS_OK);
    }
    assert_int_equal(
        rank(f, 1, "all", &all, &all, END, true, hits, NULL), docs_with(END, gone, 1, 0));
    assert_int_equal(
        rank(f, 1, "m150", &all, &all, END, false, hits, NULL), docs_with(END, gone, 91, 50));
    assert_int_equal(
        rank(f, 1, "m1999", &all, &all, END, false, hits, NULL), docs_with(END, gone, 1000, 999));
    free(gone);
    free(hits);
    free(all.words);
}

/* The hash of a word. */
static uint64_t term_of(struct fixture *f, const char *word)
{
    struct retrieval_terms *terms;
    size_t count;
    uint32_t length;
    OK(retrieval_terms_take(&f->lexical->pool, &terms, NULL));
    retrieval_terms_begin(terms, secret, memos_bytes_of("en"), false);
    OK(retrieval_terms_add(terms, memos_bytes_of(word), NULL));
    uint64_t hash = retrieval_terms_finish(terms, &count, &length)->hash;
    assert_int_equal(count, 1);
    retrieval_terms_give(&f->lexical->pool, terms);
    return hash;
}

static void check_finds_what_is_wrong(void **state)
{
    struct fixture *f = *state;
    const struct retrieval_tables *tables = &f->lexical->tables;
    uint8_t key_bytes[RETRIEVAL_DOC_KEY_BYTES], chunk[RETRIEVAL_CHUNK_BYTES] = {0};
    struct memos_bytes key, value;
    struct memcube_cursor *cursor = NULL;
    uint8_t kept_key[RETRIEVAL_TERM_KEY_BYTES], kept_value[RETRIEVAL_POSTING_BYTES];

    add(f, 1, 5000, "green fields and yellow flowers"); /* so late that all are merged */
    OK(check(f, 1, 5000, "green fields and yellow flowers"));
    assert_int_equal(check(f, 1, 5000, "green fields and red flowers"), MEMOS_CORRUPT);
    assert_int_equal(check(f, 1, 5000, "green fields and yellow yellow flowers"), MEMOS_CORRUPT);
    assert_int_equal(check(f, 1, 5002, ""), MEMOS_CORRUPT);

    /* a posting too few */
    OK(memcube_cursor_open(f->txn, tables->post, &cursor, NULL));
    OK(memcube_cursor_move(cursor, MEMCUBE_FIRST, &key, &value, NULL));
    assert_int_equal(key.size, sizeof kept_key);
    assert_int_equal(value.size, sizeof kept_value);
    memcpy(kept_key, key.data, key.size);
    memcpy(kept_value, value.data, value.size);
    memcube_cursor_close(&cursor);
    key = memos_bytes_make(kept_key, sizeof kept_key);
    value = memos_bytes_make(kept_value, sizeof kept_value);
    OK(memcube_delete(f->txn, tables->post, key, value, NULL));
    assert_int_equal(check(f, 1, 5000, "green fields and yellow flowers"), MEMOS_CORRUPT);

    /* the posting with another count */
    kept_value[4]++;
    OK(memcube_put(f->txn, tables->post, key, value, NULL));
    assert_int_equal(check(f, 1, 5000, "green fields and yellow flowers"), MEMOS_CORRUPT);
    OK(memcube_delete(f->txn, tables->post, key, value, NULL));
    kept_value[4]--;
    OK(memcube_put(f->txn, tables->post, key, value, NULL));
    OK(check(f, 1, 5000, "green fields and yellow flowers"));

    /* a posting too many */
    struct retrieval_posting early = {5001, 1};
    add(f, 1, 5001, "tail");
    OK(check(f, 1, 5001, "tail"));
    OK(memcube_put(f->txn, tables->post, retrieval_term_key(kept_key, 1, term_of(f, "tail")),
        retrieval_posting_write(kept_value, early), NULL));
    assert_int_equal(check(f, 1, 5001, "tail"), MEMOS_CORRUPT);

    /* a wrong length */
    OK(memcube_put(f->txn, tables->len,
        retrieval_doc_key(key_bytes, 1, 5000 / RETRIEVAL_CHUNK_DOCS),
        memos_bytes_make(chunk, sizeof chunk), NULL));
    assert_int_equal(check(f, 1, 5000, "green fields and yellow flowers"), MEMOS_CORRUPT);
}

/* Broken values are refused, not read past their end. */
static void broken_tables_are_refused(void **state)
{
    struct fixture *f = *state;
    const struct retrieval_tables *tables = &f->lexical->tables;
    uint8_t key[RETRIEVAL_DOC_KEY_BYTES];
    struct memcube_docs all = docs_all(2);
    struct retrieval_term term = {.hash = 1, .count = 1};
    struct retrieval_rank_query query = {.space = 1,
        .terms = &term,
        .terms_count = 1,
        .live = &all,
        .wanted = &all,
        .k1 = 1.2,
        .b = 0.75,
        .top_k = 1};
    struct retrieval_hit hit;
    size_t count;

    OK(memcube_put(f->txn, tables->doc, retrieval_doc_key(key, 1, 1),
        memos_bytes_make("\1\0\0\0half a t", 12), NULL));
    assert_int_equal(
        retrieval_rank(tables, f->txn, &query, &f->arena, &hit, &count, NULL, NULL), MEMOS_CORRUPT);
    erase(f, 1, 1);
    OK(memcube_put(
        f->txn, tables->merged, retrieval_space_key(key, 1), memos_bytes_make("short", 5), NULL));
    assert_int_equal(
        retrieval_rank(tables, f->txn, &query, &f->arena, &hit, &count, NULL, NULL), MEMOS_CORRUPT);
    OK(memcube_delete(
        f->txn, tables->merged, retrieval_space_key(key, 1), memos_bytes_make(NULL, 0), NULL));
    OK(memcube_put(
        f->txn, tables->len, retrieval_doc_key(key, 1, 0), memos_bytes_make("short", 5), NULL));
    assert_int_equal(
        retrieval_rank(tables, f->txn, &query, &f->arena, &hit, &count, NULL, NULL), MEMOS_CORRUPT);
    free(all.words);
}

/* Erasing does not need an entry that can be read: nothing may keep forget from its work. */
static void erase_copes_with_damage(void **state)
{
    struct fixture *f = *state;
    const struct retrieval_tables *tables = &f->lexical->tables;
    uint8_t key[RETRIEVAL_TERM_KEY_BYTES], value[RETRIEVAL_POSTING_BYTES];
    add(f, 1, 5000, "red green blue");
    add(f, 1, 9000, "green blue");
    add(f, 2, 5000, "green");
    assert_int_equal(table_entries(f, tables->post), 6);
    OK(memcube_put(f->txn, tables->doc, retrieval_doc_key(key, 1, 5000),
        memos_bytes_make("\1\0\0\0half a t", 12), NULL));
    erase(f, 1, 5000);
    OK(check(f, 1, 9000, "green blue"));
    OK(check(f, 2, 5000, "green"));
    assert_int_equal(table_entries(f, tables->post), 3);

    struct memos_bytes term = retrieval_term_key(key, 2, term_of(f, "green"));
    OK(memcube_delete(f->txn, tables->post, term,
        retrieval_posting_write(value, (struct retrieval_posting){5000, 1}), NULL));
    OK(memcube_put(f->txn, tables->post, term,
        retrieval_posting_write(value, (struct retrieval_posting){5000, 77}), NULL));
    assert_int_equal(check(f, 2, 5000, "green"), MEMOS_CORRUPT);
    erase(f, 2, 5000);
    assert_int_equal(table_entries(f, tables->post), 2);
}

static void a_huge_text_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct memcube_docs all = docs_all(3);
    struct memos_buffer text = memos_buffer_make(SIZE_MAX);
    struct retrieval_hit hits[2];
    for (uint32_t i = 0; text.size < 10u << 20; i++) {
        memos_buffer_printf(&text, "same %s%u ", i % 2 ? "a" : "b", i);
    }
    memos_buffer_u8(&text, 0);
    add(f, 1, 1, (const char *)text.data);
    add(f, 1, 2, "the same in short");
    for (uint32_t doc = 3; doc < 3 + RETRIEVAL_TAIL_DOCS; doc++) {
        add(f, 1, doc, "");
    }
    assert_int_equal(table_entries(f, f->lexical->tables.post), RETRIEVAL_TERMS_MAX + 4);
    assert_int_equal(rank(f, 1, "same", &all, &all, 2, false, hits, NULL), 2);
    assert_int_equal(rank(f, 1, "b0", &all, &all, 2, false, hits, NULL), 1);
    erase(f, 1, 1);
    assert_int_equal(table_entries(f, f->lexical->tables.post), 4);
    memos_buffer_free(&text);
    free(all.words);
}

static void options_are_checked(void **state)
{
    static const struct retrieval_lexical_options bad[] = {
        {-1, 0.5f}, {1, 1.5f}, {NAN, 0.5f}, {1, -0.1f}, {INFINITY, 0}};
    static const struct retrieval_lexical_options good = {0.9f, 0.4f};
    struct retrieval_lexical *lexical = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(retrieval_lexical_create(&bad[i], &lexical, NULL), MEMOS_INVALID);
        assert_null(lexical);
    }
    OK(retrieval_lexical_create(&good, &lexical, NULL));
    retrieval_lexical_destroy(&lexical);
    assert_null(lexical);
    retrieval_lexical_destroy(&lexical);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_right_doc_comes_first),
        TEST(all_fields_count),
        TEST(spaces_are_apart),
        TEST(ranking_is_bm25),
        TEST(light_words_weigh_less),
        TEST(pruning_saves_work),
        TEST(hidden_docs_do_not_count),
        TEST(erase_leaves_nothing),
        TEST(merging_loses_nothing),
        TEST(check_finds_what_is_wrong),
        TEST(broken_tables_are_refused),
        TEST(erase_copes_with_damage),
        TEST(a_huge_text_is_bounded),
        cmocka_unit_test(options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
