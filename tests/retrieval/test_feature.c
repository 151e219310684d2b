/* What is kept of each doc beside its words, through the store: who spoke before and after, in this
 * conversation and in no other, now and then; and that forgetting leaves nothing of it.
 *
 * If these failed, an answer would be shown amid somebody else's conversation, or what was
 * forgotten would still show in the order of what was said. */
#include "retrieval/feature.h"
#include "tests/retrieval/hybrid_fixture.h"

#include "retrieval/search_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    struct hybrid *h = calloc(1, sizeof *h);
    assert_non_null(h);
    hybrid_make(h);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    hybrid_drop(*state);
    free(*state);
    return 0;
}

static struct retrieval_feature feature_of(struct hybrid *h, struct memcube_ref ref)
{
    struct retrieval_features_view view;
    struct retrieval_feature feature;
    struct memcube_version version = fixture_get(&h->f, HYBRID_SPACE, &ref.id, 0);
    struct memcube_space space = fixture_space(&h->f, HYBRID_SPACE);
    struct memcube_read *read = fixture_read(&h->f);
    assert_ok(retrieval_features_load(h->retrieval->features, memcube_read_txn(read), space.number,
        space.docs + 1, memcube_read_arena(read), &view, fixture_error()));
    (void)retrieval_feature_get(&view, version.doc, &feature);
    return feature;
}

static uint64_t fsck(struct hybrid *h, bool repair)
{
    struct memcube_fsck_result result;
    hybrid_reopen(h); /* no snapshot may be open */
    assert_ok(memcube_fsck(h->f.store, repair, NULL, NULL, NULL, &result, fixture_error()));
    if (result.problems > 0 && !repair) {
        print_message("fsck: %s\n", result.first);
    }
    return result.problems;
}

/* Two conversations that are written turn by turn about. */
static void conversations_are_kept_apart(void **state)
{
    struct hybrid *h = *state;
    struct memcube_ref a[4], b[4], alone;
    for (int i = 0; i < 4; i++) {
        char text[8];
        (void)snprintf(text, sizeof text, "a%d", i);
        a[i] = PUT(h, "monday", "Ann", text);
        (void)snprintf(text, sizeof text, "b%d", i);
        b[i] = PUT(h, "tuesday", "Bob", text);
    }
    alone = PUT(h, NULL, "Ann", "c0");
    assert_string_equal(hybrid_beside(h, a[0], NULL, NULL), "| a1 a2");
    assert_string_equal(hybrid_beside(h, a[1], NULL, NULL), "a0 | a2 a3");
    assert_string_equal(hybrid_beside(h, a[2], NULL, NULL), "a0 a1 | a3");
    assert_string_equal(hybrid_beside(h, b[3], NULL, NULL), "b1 b2 |");
    assert_string_equal(hybrid_beside(h, alone, NULL, NULL), "|");
    hybrid_reopen(h);
    assert_string_equal(hybrid_beside(h, b[2], NULL, NULL), "b0 b1 | b3");
    assert_int_equal(fsck(h, false), 0);
}

/* An edited turn keeps its place, now; then, the old words had it; and a rollback gives it back. */
static void edits_keep_their_place(void **state)
{
    struct hybrid *h = *state;
    struct memcube_ref turns[3] = {
        PUT(h, "s", "Ann", "a0"), PUT(h, "s", "Bob", "a1"), PUT(h, "s", "Ann", "a2")};
    uint64_t seq = hybrid_seq(h);
    const struct memcube_as_of then = {.seq = seq};
    (void)hybrid_edit(h, &turns[1].id, "a1-new");
    (void)PUT(h, "s", "Bob", "a3");
    (void)hybrid_edit(h, &turns[1].id, "a1-newer");
    assert_string_equal(hybrid_beside(h, turns[0], NULL, NULL), "| a1-newer a2");
    assert_string_equal(hybrid_beside(h, turns[1], NULL, NULL), "a0 | a2 a3");
    assert_string_equal(hybrid_beside(h, turns[2], NULL, NULL), "a0 a1-newer | a3");
    assert_string_equal(hybrid_beside(h, turns[2], NULL, &then), "a0 a1 |");
    assert_int_equal(fsck(h, false), 0);
    hybrid_rollback(h, seq);
    assert_string_equal(hybrid_beside(h, turns[0], NULL, NULL), "| a1 a2");
    assert_string_equal(hybrid_beside(h, turns[1], NULL, NULL), "a0 | a2");
    assert_int_equal(fsck(h, false), 0);
}

/* The last turn edited, and then the conversation goes on. */
static void edits_of_the_last(void **state)
{
    struct hybrid *h = *state;
    struct memcube_ref first = PUT(h, "s", "Ann", "a0"), last = PUT(h, "s", "Bob", "a1");
    (void)hybrid_edit(h, &last.id, "a1-new");
    (void)PUT(h, "s", "Ann", "a2");
    assert_string_equal(hybrid_beside(h, first, NULL, NULL), "| a1-new a2");
    assert_string_equal(hybrid_beside(h, last, NULL, NULL), "a0 | a2");
    assert_int_equal(fsck(h, false), 0);
}

static void forgotten_turns_leave_no_gap(void **state)
{
    struct hybrid *h = *state;
    struct memcube_ref turns[5];
    for (int i = 0; i < 5; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "a%d on 8 May 2023", i);
        turns[i] = PUT(h, "s", "Ann", text);
    }
    uint32_t doc = fixture_get(&h->f, HYBRID_SPACE, &turns[2].id, 0).doc;
    hybrid_forget(h, &turns[2].id);
    hybrid_forget(h, &turns[4].id);
    hybrid_forget(h, &turns[0].id);
    assert_string_equal(hybrid_beside(h, turns[1], NULL, NULL), "| a3 on 8 May 2023");
    (void)PUT(h, "s", "Bob", "a5");
    assert_string_equal(hybrid_beside(h, turns[3], NULL, NULL), "a1 on 8 May 2023 | a5");
    assert_int_equal(fsck(h, false), 0);

    struct retrieval_features_view view;
    struct retrieval_feature feature;
    struct retrieval_fuse_range ranges[RETRIEVAL_FEATURE_RANGES_MAX];
    size_t count;
    struct memcube_space space = fixture_space(&h->f, HYBRID_SPACE);
    struct memcube_read *read = fixture_read(&h->f);
    assert_ok(retrieval_features_load(h->retrieval->features, memcube_read_txn(read), space.number,
        space.docs + 1, memcube_read_arena(read), &view, fixture_error()));
    assert_false(retrieval_feature_get(&view, doc, &feature));
    assert_true(feature.session == 0 && feature.speaker == 0 && feature.words == 0 &&
                feature.event_us == 0 && feature.previous == 0 && feature.next == 0);
    assert_ok(retrieval_features_ranges(h->retrieval->features, memcube_read_txn(read), &space, doc,
        ranges, &count, fixture_error()));
    assert_int_equal(count, 0);
}

/* Whom a turn is hidden from, he sees the conversation as if it had never been said. */
static void hidden_turns_are_passed_over(void **state)
{
    struct hybrid *h = *state;
    struct memcube_ref first = PUT(h, "s", "Ann", "a0");
    struct memcube_ref secret = PUT(h, "s", "Ann", "a1", .reader = "ann");
    struct memcube_ref last = PUT(h, "s", "Ann", "a2");
    assert_string_equal(hybrid_beside(h, first, "bob", NULL), "| a2");
    assert_string_equal(hybrid_beside(h, last, "bob", NULL), "a0 |");
    assert_string_equal(hybrid_beside(h, first, "ann", NULL), "| a1 a2");
    assert_string_equal(hybrid_beside(h, secret, "ann", NULL), "a0 | a2");
}

static void records_say_what_texts_are(void **state)
{
    struct hybrid *h = *state;
    const int64_t event_us = INT64_C(1692198000000000); /* Wednesday, 2023-08-16, 15:00 */
    struct memcube_ref statement = PUT(h, "s", "Ann",
        "I can't stand crowded beaches. We went there last Friday!", .event_us = event_us);
    struct memcube_ref question = PUT(h, "s", "assistant", "Where did you go? Tell me.");
    struct retrieval_feature feature = feature_of(h, statement);
    assert_int_equal(feature.flags, RETRIEVAL_FEATURE_THERE | RETRIEVAL_FEATURE_TIME |
                                        RETRIEVAL_FEATURE_STRONG | RETRIEVAL_FEATURE_DATES);
    assert_int_equal(feature.words, 10);
    assert_int_equal(feature.asking, 0);
    assert_int_equal(feature.event_us, event_us);
    assert_true(feature.speaker != 0);

    struct retrieval_feature asked = feature_of(h, question);
    assert_int_equal(
        asked.flags, RETRIEVAL_FEATURE_THERE | RETRIEVAL_FEATURE_ASK | RETRIEVAL_FEATURE_MACHINE);
    assert_int_equal(asked.speaker, 0); /* a role is no name */
    assert_int_equal(asked.asking, (int)(4.0 / 6.0 * UINT16_MAX + 0.5));
    assert_true(asked.session == feature.session && asked.session != 0);
    assert_int_equal(asked.previous, fixture_get(&h->f, HYBRID_SPACE, &statement.id, 0).doc);

    struct retrieval_fuse_range ranges[RETRIEVAL_FEATURE_RANGES_MAX];
    size_t count;
    struct memcube_space space = fixture_space(&h->f, HYBRID_SPACE);
    struct memcube_read *read = fixture_read(&h->f);
    assert_ok(retrieval_features_ranges(h->retrieval->features, memcube_read_txn(read), &space,
        asked.previous, ranges, &count, fixture_error()));
    int64_t today = retrieval_day_of_us(event_us);
    assert_int_equal(count, 1);
    assert_true(ranges[0].from_day == ranges[0].to_day && ranges[0].to_day < today);
    assert_int_equal(retrieval_weekday_of(ranges[0].from_day), 4);
}

/* Without the attribute, what of a source's uri comes before the last '/' makes the conversation.
 */
static void sources_make_conversations(void **state)
{
    struct hybrid *h = *state;
    static const char *const uris[] = {"chat/7/1", "chat/8/1", "chat/7/2", "plain"};
    struct memcube_ref refs[4];
    for (int i = 0; i < 4; i++) {
        char text[8];
        (void)snprintf(text, sizeof text, "t%d", i);
        struct memcube_draft draft = draft_of(text);
        struct memcube_source source = {.type = text_of("message"), .uri = text_of(uris[i])};
        draft.description.sources = &source;
        draft.description.sources_count = 1;
        refs[i] = fixture_put_draft(&h->f, HYBRID_SPACE, &draft);
    }
    assert_string_equal(hybrid_beside(h, refs[0], NULL, NULL), "| t2");
    assert_string_equal(hybrid_beside(h, refs[1], NULL, NULL), "|");
    assert_string_equal(hybrid_beside(h, refs[3], NULL, NULL), "|");
}

/* What was damaged is found, and mended in its place. */
static void damage_is_mended(void **state)
{
    struct hybrid *h = *state;
    struct memcube_ref turns[5];
    for (int i = 0; i < 5; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "a%d", i);
        turns[i] = PUT(h, "s", "Ann", text);
    }
    uint32_t space = fixture_space(&h->f, HYBRID_SPACE).number;
    uint32_t doc = fixture_get(&h->f, HYBRID_SPACE, &turns[2].id, 0).doc;
    struct memcube_index *index = retrieval_features_index(h->retrieval->features);
    struct memcube_write *write = fixture_write(&h->f);
    assert_ok(index->erase(
        index->self, memcube_read_txn(memcube_write_read(write)), space, doc, fixture_error()));
    fixture_commit(&h->f);
    assert_string_equal(hybrid_beside(h, turns[1], NULL, NULL), "a0 | a3 a4");
    assert_true(fsck(h, true) > 0);
    assert_int_equal(fsck(h, false), 0);
    assert_string_equal(hybrid_beside(h, turns[1], NULL, NULL), "a0 | a2 a3");
    assert_string_equal(hybrid_beside(h, turns[4], NULL, NULL), "a2 a3 |");
}

/* Random conversations, edits and forgetting, against a list in memory. */
static void random_conversations(void **state)
{
    enum { SESSIONS = 3, STEPS = 300 };
    struct hybrid *h = *state;
    static struct memcube_ref lists[SESSIONS][STEPS];
    size_t counts[SESSIONS] = {0};
    const char *given = getenv("MEMOS_TEST_SEED");
    uint32_t seed = given ? (uint32_t)strtoul(given, NULL, 10) : 20230508u;
    print_message("MEMOS_TEST_SEED=%u\n", seed);
    for (int step = 0; step < STEPS; step++) {
        char text[32], session[8];
        seed = seed * 1664525u + 1013904223u;
        size_t s = (seed >> 8) % SESSIONS, what = (seed >> 12) % 8;
        size_t at = counts[s] ? (seed >> 16) % counts[s] : 0;
        (void)snprintf(text, sizeof text, "w%d", step);
        (void)snprintf(session, sizeof session, "s%zu", s);
        if (what < 4 || counts[s] == 0) {
            lists[s][counts[s]++] = PUT(h, session, "Ann", text);
        } else if (what < 7) {
            (void)hybrid_edit(h, &lists[s][at].id, text);
        } else {
            hybrid_forget(h, &lists[s][at].id);
            memmove(&lists[s][at], &lists[s][at + 1], (counts[s] - at - 1) * sizeof lists[s][0]);
            counts[s]--;
        }
    }
    for (size_t s = 0; s < SESSIONS; s++) {
        for (size_t i = 0; i + 1 < counts[s]; i++) {
            uint32_t docs[2];
            char expected[64];
            docs[1] = fixture_get(&h->f, HYBRID_SPACE, &lists[s][i + 1].id, 0).doc;
            (void)snprintf(expected, sizeof expected, "| %s", hybrid_text(h, docs[1]));
            expected[strlen(expected) - 1] = 0;
            const char *found = strchr(hybrid_beside(h, lists[s][i], NULL, NULL), '|');
            assert_non_null(found);
            assert_memory_equal(found, expected, strlen(expected));
        }
    }
    assert_int_equal(fsck(h, false), 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(conversations_are_kept_apart),
        CASE(edits_keep_their_place),
        CASE(edits_of_the_last),
        CASE(forgotten_turns_leave_no_gap),
        CASE(hidden_turns_are_passed_over),
        CASE(records_say_what_texts_are),
        CASE(sources_make_conversations),
        CASE(damage_is_mended),
        CASE(random_conversations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
