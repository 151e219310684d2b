/* Searching a store: what is written, changed, taken back, archived or forgotten is found, or not,
 * by the very next search, now and as of then.
 *
 * If these failed, a user would be told what he took back, or not be told what he just said; or
 * would be shown what is not his to see. */
#include "retrieval/lexical.h"
#include "retrieval/lexical_internal.h"
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

#define DAY_US INT64_C(86400000000)
#define START_US INT64_C(1767225600000000) /* 2026-01-01 */

struct fixture {
    char path[FOLDER_PATH_BYTES];
    int64_t now_us;
    struct retrieval_lexical *lexical;
    struct memcube_store *store;
    struct memcube_write *write;
};

#define BYTES(text) memos_bytes_of(text)

static void must(enum memos_status status, const struct memos_error *err)
{
    if (status != MEMOS_OK) {
        fail_msg("%s: %s", memos_status_name(status), err->text);
    }
}

static void open_store(struct fixture *f)
{
    struct memos_error err = {0};
    must(retrieval_lexical_create(NULL, &f->lexical, &err), &err);
    struct memcube_index *index = retrieval_lexical_index(f->lexical);
    struct memcube_store_options options = {.path = f->path,
        .clock = memos_clock_fixed(&f->now_us),
        .indexes = &index,
        .indexes_count = 1,
        .sync_off = true};
    must(memcube_store_open(&options, &f->store, &err), &err);
}

static void close_store(struct fixture *f)
{
    memcube_store_close(&f->store);
    retrieval_lexical_destroy(&f->lexical);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->path);
    f->now_us = START_US;
    open_store(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->write) {
        memcube_write_abort(&f->write);
    }
    close_store(f);
    folder_remove(f->path);
    free(f);
    return 0;
}

static struct memcube_change change(void)
{
    return (struct memcube_change){.space = BYTES("test"), .author = BYTES("tester")};
}

static void begin(struct fixture *f)
{
    struct memos_error err = {0};
    must(memcube_write_begin(f->store, &f->write, &err), &err);
}

/* Commit; each commit is a day later than the one before. */
static void commit(struct fixture *f)
{
    struct memos_error err = {0};
    must(memcube_write_commit(&f->write, &err), &err);
    f->now_us += DAY_US;
}

static struct memcube_draft draft(const char *text)
{
    return (struct memcube_draft){.kind = MEMCUBE_PLAINTEXT, .payload = BYTES(text)};
}

/* Make a cube in the open write. */
static struct memos_id make(struct fixture *f, const struct memcube_draft *draft_in)
{
    struct memos_error err = {0};
    struct memcube_change by = change();
    struct memcube_outcome outcome;
    must(memcube_create(f->write, &by, draft_in, 1, &outcome, &err), &err);
    assert_int_equal(outcome.refs_count, 1);
    return outcome.refs[0].id;
}

static struct memos_id put(struct fixture *f, const char *text)
{
    struct memcube_draft one = draft(text);
    begin(f);
    struct memos_id id = make(f, &one);
    commit(f);
    return id;
}

static uint64_t update(
    struct fixture *f, struct memos_id id, unsigned fields, const struct memcube_draft *to)
{
    struct memos_error err = {0};
    struct memcube_change by = change();
    struct memcube_update one = {.id = id, .fields = fields, .draft = *to};
    struct memcube_outcome outcome;
    begin(f);
    must(memcube_update(f->write, &by, &one, 1, &outcome, &err), &err);
    uint64_t seq = outcome.seq;
    commit(f);
    return seq;
}

static void transition(struct fixture *f, struct memos_id id, enum memcube_state to)
{
    struct memos_error err = {0};
    struct memcube_change by = change();
    struct memcube_outcome outcome;
    begin(f);
    must(memcube_transition(f->write, &by, &id, 1, to, &outcome, &err), &err);
    commit(f);
}

static void roll_back(struct fixture *f, uint64_t seq)
{
    struct memos_error err = {0};
    struct memcube_change by = change();
    struct memcube_rollback rollback = {.to = {.seq = seq}};
    struct memcube_rollback_item *items;
    struct memcube_outcome outcome;
    size_t count;
    begin(f);
    must(memcube_rollback(f->write, &by, &rollback, &outcome, &items, &count, &err), &err);
    commit(f);
}

static void forget(struct fixture *f, struct memos_id id)
{
    struct memos_error err = {0};
    struct memcube_change by = change();
    struct memcube_forgotten forgotten;
    struct memcube_outcome outcome;
    begin(f);
    must(memcube_forget(f->write, &by, &id, 1, false, false, &outcome, &forgotten, &err), &err);
    commit(f);
}

/* ---- what is found ------------------------------------------------------------------------- */

struct found {
    size_t count;
    struct memos_id ids[16];
    float scores[16];
};

static void find_in(
    struct fixture *f, struct memcube_read *read, struct retrieval_query *query, struct found *out)
{
    struct memos_error err = {0};
    struct memcube_space space;
    struct retrieval_hit hits[16];
    query->top_k = 16;
    must(memcube_space_find(read, BYTES("test"), &space, &err), &err);
    must(retrieval_lexical_search(f->lexical, read, &space, query, hits, &out->count, &err), &err);
    for (size_t i = 0; i < out->count; i++) {
        struct memcube_version version;
        must(
            memcube_version_of_doc(read, &space, hits[i].doc, &query->as_of, &version, &err), &err);
        assert_int_equal(version.doc, hits[i].doc);
        out->ids[i] = version.id;
        out->scores[i] = hits[i].score;
    }
}

static struct found find(struct fixture *f, struct retrieval_query query)
{
    struct memos_error err = {0};
    struct memcube_read *read = NULL;
    struct found found = {0};
    must(memcube_read_begin(f->store, &read, &err), &err);
    find_in(f, read, &query, &found);
    memcube_read_end(&read);
    return found;
}

static struct found find_text(struct fixture *f, const char *text)
{
    return find(f, (struct retrieval_query){.text = BYTES(text)});
}

static struct found find_as_of(struct fixture *f, const char *text, uint64_t seq)
{
    return find(f, (struct retrieval_query){.text = BYTES(text), .as_of = {.seq = seq}});
}

static bool same_id(struct memos_id a, struct memos_id b)
{
    return memcmp(a.bytes, b.bytes, sizeof a.bytes) == 0;
}

#define EXPECT_ONE(what, id)                                                                       \
    do {                                                                                           \
        struct found expect_found = (what);                                                        \
        assert_int_equal(expect_found.count, 1);                                                   \
        assert_true(same_id(expect_found.ids[0], id));                                             \
    } while (0)
#define EXPECT_NONE(what) assert_int_equal((what).count, 0)

/* ---- tests --------------------------------------------------------------------------------- */

static void a_put_is_found_at_once(void **state)
{
    struct fixture *f = *state;
    struct memos_id id = put(f, "The plumber comes on Tuesday.");
    EXPECT_ONE(find_text(f, "when do plumbers come?"), id);
    EXPECT_NONE(find_text(f, "electrician"));
    close_store(f);
    open_store(f);
    EXPECT_ONE(find_text(f, "plumber"), id);
}

static void a_write_sees_its_own(void **state)
{
    struct fixture *f = *state;
    struct memcube_draft one = draft("half done");
    struct retrieval_query query = {.text = BYTES("half")};
    struct found found;
    (void)put(f, "something else");
    begin(f);
    struct memos_id id = make(f, &one);
    find_in(f, memcube_write_read(f->write), &query, &found);
    EXPECT_ONE(found, id);
    EXPECT_NONE(find_text(f, "half")); /* others do not */
    memcube_write_abort(&f->write);
    EXPECT_NONE(find_text(f, "half"));
}

static void an_update_is_found_by_its_new_words(void **state)
{
    struct fixture *f = *state;
    struct memcube_draft to = draft("lives in Hamburg");
    struct memos_id id = put(f, "lives in Munich");
    uint64_t seq = update(f, id, MEMCUBE_FIELD_PAYLOAD, &to);
    EXPECT_ONE(find_text(f, "Hamburg"), id);
    EXPECT_NONE(find_text(f, "Munich"));
    EXPECT_ONE(find_as_of(f, "Munich", seq - 1), id);
    EXPECT_NONE(find_as_of(f, "Hamburg", seq - 1));
    EXPECT_ONE(find(f, (struct retrieval_query){.text = BYTES("Munich"),
                           .as_of = {.time_us = START_US + DAY_US / 2}}),
        id);
    EXPECT_NONE(find(
        f, (struct retrieval_query){.text = BYTES("Munich"), .as_of = {.time_us = START_US - 1}}));
}

/* What is searched beside the payload changes like the payload. */
static void descriptions_are_words_too(void **state)
{
    struct fixture *f = *state;
    struct memcube_attribute caption = {BYTES("caption"), BYTES("a lighthouse at dusk")};
    struct memcube_draft one = draft("look at this");
    one.description.speaker = BYTES("Melanie");
    one.description.title = BYTES("Holidays");
    one.description.event_us = INT64_C(1683504000000000); /* 2023-05-08 */
    begin(f);
    struct memos_id id = make(f, &one);
    commit(f);
    EXPECT_ONE(find_text(f, "melanie"), id);
    EXPECT_ONE(find_text(f, "holiday"), id);
    EXPECT_ONE(find_text(f, "2023"), id);
    EXPECT_NONE(find_text(f, "lighthouse"));
    one.description.attributes = &caption;
    one.description.attributes_count = 1;
    uint64_t seq = update(f, id, MEMCUBE_FIELD_ATTRIBUTES, &one);
    EXPECT_ONE(find_text(f, "lighthouse"), id);
    EXPECT_NONE(find_as_of(f, "lighthouse", seq - 1));
    one.description.event_us = INT64_C(1720396800000000); /* 2024-07-08 */
    (void)update(f, id, MEMCUBE_FIELD_EVENT_TIME, &one);
    EXPECT_NONE(find_text(f, "2023"));
    EXPECT_ONE(find_text(f, "July 2024"), id);
    EXPECT_ONE(find_text(f, "lighthouse"), id);
}

static void a_rollback_is_a_search_of_then(void **state)
{
    struct fixture *f = *state;
    struct memcube_draft to = draft("likes tea");
    struct memos_id first = put(f, "likes coffee");
    uint64_t seq = update(f, first, MEMCUBE_FIELD_PAYLOAD, &to) - 1;
    struct memos_id second = put(f, "hates coffee");
    struct found before = find_as_of(f, "coffee", seq);
    EXPECT_ONE(find_text(f, "coffee"), second);
    EXPECT_ONE(find_text(f, "tea"), first);

    roll_back(f, seq);
    struct found after = find_text(f, "coffee");
    EXPECT_ONE(after, first);
    EXPECT_ONE(before, first);
    assert_true(before.scores[0] == after.scores[0]); /* statistics of then, too */
    EXPECT_NONE(find_text(f, "tea"));

    roll_back(f, seq + 2); /* and back again */
    EXPECT_ONE(find_text(f, "coffee"), second);
    EXPECT_ONE(find_text(f, "tea"), first);
}

static void forgotten_words_find_nothing(void **state)
{
    struct fixture *f = *state;
    struct memcube_draft to = draft("the safe opens with 5678");
    struct memos_id kept = put(f, "the safe is heavy");
    struct memos_id id = put(f, "the safe opens with 1234");
    uint64_t seq = update(f, id, MEMCUBE_FIELD_PAYLOAD, &to);
    forget(f, id);
    EXPECT_ONE(find_text(f, "safe opens"), kept);
    EXPECT_NONE(find_text(f, "1234"));
    EXPECT_NONE(find_text(f, "5678"));
    EXPECT_NONE(find_as_of(f, "1234", seq - 1));
    EXPECT_NONE(find_as_of(f, "5678", seq));
}

static void states_decide_what_is_searched(void **state)
{
    struct fixture *f = *state;
    struct memos_id id = put(f, "an old recipe");
    (void)put(f, "another recipe for something");
    float score = find_text(f, "old").scores[0];
    transition(f, id, MEMCUBE_STATE_ARCHIVED);
    EXPECT_NONE(find_text(f, "old"));
    struct retrieval_query query = {
        .text = BYTES("old recipe"), .filter = {.states = 1u << MEMCUBE_STATE_ARCHIVED}};
    EXPECT_ONE(find(f, query), id);
    transition(f, id, MEMCUBE_STATE_ACTIVATED);
    EXPECT_NONE(find(f, query));
    struct found found = find_text(f, "old");
    EXPECT_ONE(found, id);
    assert_true(found.scores[0] == score);
}

/* A filter takes docs away and leaves the scores of the others alone. */
static void filters_come_before_ranking(void **state)
{
    struct fixture *f = *state;
    struct memos_bytes tag = BYTES("garden");
    struct memos_id tagged = {0};
    begin(f);
    for (int i = 0; i < 40; i++) {
        char text[64];
        struct memcube_draft one;
        (void)snprintf(text, sizeof text, "roses %d%s", i, i % 3 ? " roses" : " and so on");
        one = draft(text);
        one.description.event_us = START_US + i;
        one.description.speaker = i % 2 ? BYTES("Ann") : BYTES("Bob");
        if (i == 33) {
            one.description.tags = &tag;
            one.description.tags_count = 1;
        }
        struct memos_id id = make(f, &one);
        tagged = i == 33 ? id : tagged;
    }
    commit(f);
    struct found all = find_text(f, "roses");
    assert_int_equal(all.count, 16);
    for (size_t i = 0; i < all.count; i++) {
        assert_false(same_id(all.ids[i], tagged)); /* one of the worst: not in the best 16 */
    }
    struct found found = find(f, (struct retrieval_query){.text = BYTES("roses"),
                                     .filter = {.tags = &tag, .tags_count = 1}});
    EXPECT_ONE(found, tagged);
    found = find(f, (struct retrieval_query){.text = BYTES("roses"),
                        .filter = {.from_us = START_US + 33, .to_us = START_US + 34}});
    EXPECT_ONE(found, tagged);
    found = find(f, (struct retrieval_query){.text = BYTES("roses"),
                        .filter = {.speaker = BYTES("Ann"), .from_us = START_US + 30}});
    assert_int_equal(found.count, 5);
    for (size_t i = 0; i + 1 < all.count; i++) {
        struct found one = find(f,
            (struct retrieval_query){.text = BYTES("roses"), .filter = {.speaker = BYTES("Bob")}});
        for (size_t j = 0; j < one.count; j++) {
            if (same_id(one.ids[j], all.ids[i])) {
                assert_true(one.scores[j] == all.scores[i]);
            }
        }
    }
}

/* Who may not see a cube does not find it, and cannot tell from a score that it is there. */
static void readers_see_what_is_theirs(void **state)
{
    struct fixture *f = *state;
    struct memos_bytes reader = BYTES("alice");
    struct memos_id open_id = put(f, "the merger is a topic");
    struct retrieval_query alice = {.text = BYTES("merger"), .filter = {.viewer = BYTES("alice")}};
    struct retrieval_query bob = {.text = BYTES("merger"), .filter = {.viewer = BYTES("bob")}};
    float before = find(f, bob).scores[0];
    struct memcube_draft one = draft("the merger is off");
    one.description.readers = &reader;
    one.description.readers_count = 1;
    begin(f);
    (void)make(f, &one);
    commit(f);
    assert_int_equal(find(f, alice).count, 2);
    assert_int_equal(find_text(f, "merger").count, 2); /* an administrator */
    struct found found = find(f, bob);
    EXPECT_ONE(found, open_id);
    assert_true(found.scores[0] == before);
}

static uint64_t fsck(struct fixture *f, bool repair)
{
    struct memos_error err = {0};
    struct memcube_fsck_result result = {0};
    must(memcube_fsck(f->store, repair, NULL, NULL, NULL, &result, &err), &err);
    if (result.problems > 0) {
        print_message("%s\n", result.first);
    }
    return result.problems;
}

/* fsck agrees with what many changes made of the index, sees what is broken, and mends it. */
static void fsck_keeps_the_index(void **state)
{
    struct fixture *f = *state;
    struct memos_error err = {0};
    struct memos_id ids[150];
    begin(f);
    for (int i = 0; i < 150; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "note %d of the %dth book", i, i % 10);
        struct memcube_draft one = draft(text);
        ids[i] = make(f, &one);
    }
    commit(f);
    struct memcube_draft to = draft("something else entirely");
    uint64_t seq = update(f, ids[3], MEMCUBE_FIELD_PAYLOAD, &to) - 1;
    to.description.title = BYTES("a title");
    (void)update(f, ids[4], MEMCUBE_FIELD_TITLE, &to);
    forget(f, ids[5]);
    roll_back(f, seq);
    assert_int_equal(fsck(f, false), 0);

    const struct retrieval_tables *tables = &f->lexical->tables;
    struct memcube_txn *txn = NULL;
    uint8_t key[RETRIEVAL_DOC_KEY_BYTES];
    must(memcube_txn_write(memcube_store_db(f->store), &txn, &err), &err);
    must(memcube_delete(
             txn, tables->doc, retrieval_doc_key(key, 1, 8), memos_bytes_make(NULL, 0), &err),
        &err);
    must(memcube_put(txn, tables->doc, retrieval_doc_key(key, 1, 9),
             memos_bytes_make("\1\0\0\0half a t", 12), &err),
        &err);
    must(memcube_txn_commit(&txn, &err), &err);
    assert_int_equal(fsck(f, false), 2);
    assert_int_equal(fsck(f, true), 2);
    assert_int_equal(fsck(f, false), 0);
    EXPECT_ONE(find_text(f, "7"), ids[7]);
    EXPECT_NONE(find_text(f, "title"));
}

static void bad_questions_are_refused(void **state)
{
    struct fixture *f = *state;
    struct memos_error err = {0};
    struct memcube_read *read = NULL;
    struct memcube_space space;
    struct retrieval_query query = {.text = BYTES("word")};
    struct retrieval_hit hit;
    size_t count;
    (void)put(f, "word");
    must(memcube_read_begin(f->store, &read, &err), &err);
    must(memcube_space_find(read, BYTES("test"), &space, &err), &err);
    assert_int_equal(retrieval_lexical_search(f->lexical, read, &space, &query, &hit, &count, &err),
        MEMOS_INVALID);
    query.top_k = RETRIEVAL_TOP_K_MAX + 1;
    assert_int_equal(retrieval_lexical_search(f->lexical, read, &space, &query, &hit, &count, &err),
        MEMOS_INVALID);
    query.top_k = 1;
    query.text = BYTES("");
    must(retrieval_lexical_search(f->lexical, read, &space, &query, &hit, &count, &err), &err);
    assert_int_equal(count, 0);
    memcube_read_end(&read);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_put_is_found_at_once),
        TEST(a_write_sees_its_own),
        TEST(an_update_is_found_by_its_new_words),
        TEST(descriptions_are_words_too),
        TEST(a_rollback_is_a_search_of_then),
        TEST(forgotten_words_find_nothing),
        TEST(states_decide_what_is_searched),
        TEST(filters_come_before_ranking),
        TEST(readers_see_what_is_theirs),
        TEST(fsck_keeps_the_index),
        TEST(bad_questions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
