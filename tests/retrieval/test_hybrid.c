/* Searching by words and meaning together, through the store.
 *
 * If these failed, a user would not find what he said in other words, would find what was taken
 * back, or would learn from a score or a neighbour of what is hidden from him. */
#include "tests/retrieval/hybrid_fixture.h"

#include "retrieval/calendar.h"

#include <math.h>
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

static struct hybrid_found ask(struct hybrid *h, const char *text)
{
    return hybrid_ask(h, text, NULL, false);
}

static struct hybrid_found ask_without(struct hybrid *h, const char *text, enum retrieval_part part)
{
    const struct retrieval_query query = {.without = 1u << part};
    return hybrid_ask(h, text, &query, false);
}

/* Each hit's parts sum to its score, scores fall, and no doc comes twice. */
static void assert_sound(const struct hybrid_found *found)
{
    for (size_t i = 0; i < found->count; i++) {
        float sum = 0.0f;
        for (int part = 0; part < RETRIEVAL_PARTS; part++) {
            sum += found->hits[i].parts[part];
        }
        assert_true(fabsf(sum - found->hits[i].score) <= 1e-4f);
        assert_true(i == 0 || found->hits[i].score <= found->hits[i - 1].score);
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(found->hits[k].doc, found->hits[i].doc);
        }
    }
}

/* Some talk of other things. */
static void fill(struct hybrid *h, int count)
{
    static const char *const texts[] = {"The train was late again, all of us stood and waited.",
        "Her garden is full of roses this year, red and white.",
        "We painted the fence green and the gate white.",
        "His brother repairs clocks in a small workshop."};
    for (int i = 0; i < count; i++) {
        char text[128], session[16];
        (void)snprintf(text, sizeof text, "%s Number %d.", texts[i % 4], i);
        (void)snprintf(session, sizeof session, "fill%d", i / 8);
        (void)PUT(h, session, i % 2 ? "Bob" : "Ann", text);
    }
}

static void meaning_is_found_without_words(void **state)
{
    struct hybrid *h = *state;
    fill(h, 24);
    struct memcube_ref ref = PUT(h, "s", "Ann", "My puppy chewed up both of my slippers.");
    struct hybrid_found found = ask(h, "terrier");
    assert_sound(&found);
    assert_int_equal(hybrid_place(&found, ref), 0);
    assert_true(isnan(found.hits[0].bm25) && found.hits[0].cosine > 0.5f);
    assert_true(found.hits[0].parts[RETRIEVAL_PART_WORDS] == 0.0f);
    assert_true(found.hits[0].parts[RETRIEVAL_PART_VECTORS] > 1.0f);
    assert_true(found.report.vectors && found.report.missing == 0);

    const struct retrieval_query alone = {.mode = RETRIEVAL_VECTORS, .top_k = 3};
    found = hybrid_ask(h, "terrier", &alone, false);
    assert_sound(&found);
    assert_int_equal(found.count, 3);
    assert_int_equal(hybrid_place(&found, ref), 0);
    assert_true(found.hits[0].score == found.hits[0].cosine);
    assert_int_equal(hybrid_ask(h, "terrier", &alone, true).count, 0);
}

static void words_are_enough(void **state)
{
    struct hybrid *h = *state;
    h->silent = true;
    fill(h, 8);
    struct memcube_ref ref = PUT(h, "s", "Ann", "The plumber comes on Thursday at nine.");
    struct hybrid_found found = ask(h, "when does the plumber come");
    assert_sound(&found);
    assert_int_equal(hybrid_place(&found, ref), 0);
    assert_int_equal(found.report.missing, 9);
    assert_true(isnan(found.hits[0].cosine));
    assert_int_equal(ask(h, "xylophone").count, 0);
    assert_int_equal(hybrid_ask(h, "?!", NULL, true).count, 0);

    const struct retrieval_query words = {.mode = RETRIEVAL_WORDS};
    found = hybrid_ask(h, "plumber", &words, false);
    assert_int_equal(found.count, 1);
    assert_true(found.hits[0].score == found.hits[0].bm25);
    assert_true(found.hits[0].parts[RETRIEVAL_PART_WORDS] == found.hits[0].score);
}

/* A filter is applied before ranking, and changes no score. */
static void filters_change_no_score(void **state)
{
    struct hybrid *h = *state;
    fill(h, 16);
    struct memcube_ref wanted = PUT(h, "s", "Ann", "A beach with white sand.", .tag = "travel");
    for (int i = 0; i < 20; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "The beach was crowded, day %d at the sea.", i);
        (void)PUT(h, "s", "Bob", text);
    }
    struct memos_bytes tag = memos_bytes_of("travel");
    const struct retrieval_query plain = {.without = 1u << RETRIEVAL_PART_DIVERSITY};
    const struct retrieval_query query = {
        .without = plain.without, .top_k = 1, .filter = {.tags = &tag, .tags_count = 1}};
    struct hybrid_found all = hybrid_ask(h, "crowded beach", &plain, false);
    struct hybrid_found some = hybrid_ask(h, "crowded beach", &query, false);
    assert_sound(&all);
    assert_int_equal(some.count, 1);
    assert_int_equal(hybrid_place(&some, wanted), 0);
    int place = hybrid_place(&all, wanted);
    assert_true(place > 0);
    assert_true(fabsf(all.hits[place].score - some.hits[0].score) <= 1e-4f);
}

static void past_and_rollback(void **state)
{
    struct hybrid *h = *state;
    fill(h, 8);
    struct memcube_ref ref = PUT(h, "s", "Ann", "I will buy a vehicle.");
    uint64_t seq = hybrid_seq(h);
    const struct retrieval_query then = {.as_of = {.seq = seq}};
    (void)hybrid_edit(h, &ref.id, "I will learn the piano.");
    (void)PUT(h, "s", "Bob", "Driving is dull.");
    struct hybrid_found found = ask(h, "guitar");
    assert_int_equal(hybrid_place(&found, ref), 0);
    found = hybrid_ask(h, "sedan", &then, false);
    assert_int_equal(found.count, 9);
    assert_int_equal(hybrid_place(&found, ref), 0);
    hybrid_rollback(h, seq);
    found = ask(h, "sedan");
    assert_sound(&found);
    assert_int_equal(found.count, 9);
    assert_int_equal(hybrid_place(&found, ref), 0);
    hybrid_forget(h, &ref.id);
    found = ask(h, "sedan");
    assert_int_equal(hybrid_place(&found, ref), -1);
    hybrid_reopen(h);
    found = ask(h, "sedan");
    assert_int_equal(found.count, 8);
}

static void assert_same(const struct hybrid_found *a, const struct hybrid_found *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        assert_true(memcmp(a->ids[i].bytes, b->ids[i].bytes, sizeof a->ids[i].bytes) == 0);
        assert_true(a->hits[i].score == b->hits[i].score);
    }
    assert_int_equal(a->report.missing, b->report.missing);
    assert_int_equal(a->report.notes_count, b->report.notes_count);
}

/* What is hidden from a viewer leaves no trace in what he gets: not in scores, nor by a neighbour,
 * nor in whom a question names. */
static void hidden_docs_leave_no_trace(void **state)
{
    struct hybrid *h = *state;
    static const char *const questions[] = {
        "What did Zoe say about the dog?", "dog", "What should I cook?", "beach on 8 May 2023"};
    const struct retrieval_query bob = {.filter = {.viewer = memos_bytes_of("bob")}};
    struct hybrid_found before[4];
    fill(h, 12);
    (void)PUT(h, "s", "Ann", "The dog ran along the beach.");
    (void)PUT(h, "s", "Bob", "Did it? I was at the sea on 8 May 2023.");
    for (int i = 0; i < 4; i++) {
        before[i] = hybrid_ask(h, questions[i], &bob, false);
        assert_sound(&before[i]);
    }
    (void)PUT(h, "s", "Zoe", "The dog, the hound and the puppy: my dog!", .reader = "zoe");
    (void)PUT(h, "s", "Zoe", "I hate every meal with fish.", .reader = "zoe");
    (void)PUT(h, "fill0", "Zoe", "Dog dog dog.", .reader = "zoe");
    for (int i = 0; i < 4; i++) {
        struct hybrid_found after = hybrid_ask(h, questions[i], &bob, false);
        assert_same(&after, &before[i]);
    }
    const struct retrieval_query zoe = {.filter = {.viewer = memos_bytes_of("zoe")}};
    assert_int_equal(hybrid_ask(h, "dog", &zoe, false).count, 17);
}

static void neighbours_lift_a_turn(void **state)
{
    struct hybrid *h = *state;
    fill(h, 24);
    (void)PUT(h, "s", "Ann", "What do you think about the clinic and the physician there?");
    struct memcube_ref answer = PUT(h, "s", "Bob",
        "Excellent, everybody took plenty of time for each of us, and nobody had to wait at all.");
    (void)PUT(h, "s", "Ann", "So I will go to that hospital and see the doctor, then.");
    struct hybrid_found with = ask(h, "Who goes to a doctor in the hospital?");
    struct hybrid_found without =
        ask_without(h, "Who goes to a doctor in the hospital?", RETRIEVAL_PART_NEIGHBOURS);
    assert_sound(&with);
    assert_sound(&without);
    assert_int_equal(hybrid_place(&with, answer), 2);
    assert_true(with.hits[2].parts[RETRIEVAL_PART_NEIGHBOURS] > 2.0f);
    assert_true(hybrid_place(&without, answer) == -1 || hybrid_place(&without, answer) > 2);
}

static void speakers_and_dates_matter(void **state)
{
    struct hybrid *h = *state;
    const int64_t may = retrieval_days_of(2023, 5, 8) * HYBRID_DAY_US;
    fill(h, 8);
    struct memcube_ref ann = PUT(h, "x", "Ann", "The concert was too loud.", .event_us = may);
    struct memcube_ref eve = PUT(
        h, "y", "Eve Stone", "The concert was too short.", .event_us = may + 200 * HYBRID_DAY_US);
    struct hybrid_found found = ask(h, "How did Ann like the concert?");
    assert_sound(&found);
    assert_int_equal(hybrid_place(&found, ann), 0);
    assert_true(found.hits[0].parts[RETRIEVAL_PART_SPEAKER] > 0.0f);
    assert_int_equal(found.report.notes_count, 1);
    found = ask(h, "How did Eve Stone's friends like the concert?");
    assert_int_equal(hybrid_place(&found, eve), 0);
    found = ask(h, "What did Ann and Eve Stone say of the concert?"); /* two: neither */
    assert_true(found.hits[0].parts[RETRIEVAL_PART_SPEAKER] == 0.0f);
    found = ask_without(h, "How did Ann like the concert?", RETRIEVAL_PART_SPEAKER);
    assert_true(found.hits[0].parts[RETRIEVAL_PART_SPEAKER] == 0.0f);

    found = ask(h, "concert in May 2023");
    int place = hybrid_place(&found, ann);
    assert_int_equal(place, 0);
    assert_true(found.hits[place].parts[RETRIEVAL_PART_DATES] == 2.0f);
    assert_true(found.hits[hybrid_place(&found, eve)].parts[RETRIEVAL_PART_DATES] == 0.0f);
    found = ask_without(h, "concert in May 2023", RETRIEVAL_PART_DATES);
    assert_true(found.hits[hybrid_place(&found, ann)].parts[RETRIEVAL_PART_DATES] == 0.0f);
    const struct retrieval_query now = {.now_us = may + 7 * HYBRID_DAY_US};
    found = hybrid_ask(h, "the concert last week", &now, false);
    assert_true(found.hits[hybrid_place(&found, ann)].parts[RETRIEVAL_PART_DATES] == 2.0f);
}

/* A text says of itself which day it means. */
static void days_in_texts_matter(void **state)
{
    struct hybrid *h = *state;
    const int64_t june = retrieval_days_of(2023, 6, 20) * HYBRID_DAY_US;
    fill(h, 8);
    struct memcube_ref then = PUT(
        h, "x", "Ann", "The concert a month ago was good.", .event_us = june + 60 * HYBRID_DAY_US);
    struct memcube_ref other =
        PUT(h, "y", "Ann", "The concert was good, too.", .event_us = june + 60 * HYBRID_DAY_US);
    struct hybrid_found found = ask(h, "the concert in July 2023");
    assert_true(found.hits[hybrid_place(&found, then)].parts[RETRIEVAL_PART_DATES] == 2.0f);
    assert_true(found.hits[hybrid_place(&found, other)].parts[RETRIEVAL_PART_DATES] < 2.0f);
}

static void statements_answer_for_advice(void **state)
{
    struct hybrid *h = *state;
    fill(h, 16);
    struct memcube_ref statement = PUT(h, NULL, "user", "I can't stand fish for dinner.");
    struct memcube_ref machine =
        PUT(h, NULL, "assistant", "I never eat fish for dinner, being a machine.");
    struct hybrid_found found = ask(h, "Can you recommend a recipe with fish?");
    assert_sound(&found);
    assert_int_equal(hybrid_place(&found, statement), 0);
    assert_true(found.hits[0].parts[RETRIEVAL_PART_STATEMENT] == 4.0f);
    int place = hybrid_place(&found, machine);
    assert_true(place > 0 && found.hits[place].parts[RETRIEVAL_PART_STATEMENT] == 0.0f);
    found = ask(h, "fish on the table");
    assert_true(found.hits[hybrid_place(&found, statement)].parts[RETRIEVAL_PART_STATEMENT] == 0);
    found = ask_without(h, "Can you recommend a recipe with fish?", RETRIEVAL_PART_STATEMENT);
    assert_true(found.hits[hybrid_place(&found, statement)].parts[RETRIEVAL_PART_STATEMENT] == 0);
}

static void form_matters(void **state)
{
    struct hybrid *h = *state;
    fill(h, 8);
    struct memcube_ref question = PUT(h, "s", "Ann", "Was the guitar out of tune?");
    (void)PUT(h, "s", "Bob", "It was.");
    struct hybrid_found found = ask(h, "Which guitar?");
    int place = hybrid_place(&found, question);
    assert_true(found.hits[place].parts[RETRIEVAL_PART_FORM] < -1.5f);
    found = ask_without(h, "Which guitar?", RETRIEVAL_PART_FORM);
    place = hybrid_place(&found, question);
    assert_true(found.hits[place].parts[RETRIEVAL_PART_FORM] == 0.0f);
}

/* Of texts that answer alike: the important, the useful, the valid and the recent come first. */
static void versions_decide(void **state)
{
    struct hybrid *h = *state;
    const int64_t now = retrieval_days_of(2026, 3, 1) * HYBRID_DAY_US;
    const int64_t old = now - 200 * HYBRID_DAY_US;
    const struct retrieval_query query = {.now_us = now};
    fill(h, 8);
    struct memcube_ref plain = PUT(h, NULL, "Ann", "My salary one.", .event_us = old);
    struct memcube_ref high =
        PUT(h, NULL, "Ann", "My salary two.", .event_us = old, .priority = 255);
    struct memcube_ref recent = PUT(h, NULL, "Ann", "My salary six.", .event_us = now);
    struct memcube_ref later = PUT(
        h, NULL, "Ann", "My salary ten.", .event_us = old, .valid_from_us = now + HYBRID_DAY_US);
    struct hybrid_found found = hybrid_ask(h, "salary", &query, false);
    assert_sound(&found);
    int at_plain = hybrid_place(&found, plain), at_later = hybrid_place(&found, later);
    assert_true(found.hits[hybrid_place(&found, high)].parts[RETRIEVAL_PART_PRIORITY] == 0.5f);
    assert_true(found.hits[at_plain].parts[RETRIEVAL_PART_PRIORITY] == 0.0f);
    assert_true(found.hits[at_later].parts[RETRIEVAL_PART_PRIORITY] == -2.0f);
    assert_true(found.hits[hybrid_place(&found, recent)].parts[RETRIEVAL_PART_RECENCY] == 0.2f);
    assert_true(found.hits[at_plain].parts[RETRIEVAL_PART_RECENCY] < 0.01f);

    assert_ok(memcube_behaviour_feedback(
        fixture_write(&h->f), memos_bytes_of(HYBRID_SPACE), &plain.id, 1.0f, fixture_error()));
    fixture_commit(&h->f);
    found = hybrid_ask(h, "salary", &query, false);
    assert_true(found.hits[hybrid_place(&found, plain)].parts[RETRIEVAL_PART_PRIORITY] > 0.0f);
    const struct retrieval_query without = {
        .now_us = now, .without = 1u << RETRIEVAL_PART_PRIORITY | 1u << RETRIEVAL_PART_RECENCY};
    found = hybrid_ask(h, "salary", &without, false);
    at_later = hybrid_place(&found, later);
    assert_true(found.hits[at_later].parts[RETRIEVAL_PART_PRIORITY] == 0.0f);
    assert_true(found.hits[at_later].parts[RETRIEVAL_PART_RECENCY] == 0.0f);
}

/* The same said twice takes one place at the top. */
static void copies_lose(void **state)
{
    struct hybrid *h = *state;
    fill(h, 16);
    struct memcube_ref first = PUT(h, NULL, "Ann", "The income of the shop fell by half.");
    struct memcube_ref copy = PUT(h, NULL, "Ann", "The income of the shop fell by half.");
    struct memcube_ref other = PUT(h, NULL, "Ann", "That shop earns no income at all in winter.");
    struct hybrid_found found = ask(h, "income of the shop");
    assert_sound(&found);
    int at_first = hybrid_place(&found, first), at_copy = hybrid_place(&found, copy);
    assert_true((at_first == 0) != (at_copy == 0));
    int worse = at_first > at_copy ? at_first : at_copy;
    assert_true(found.hits[worse].parts[RETRIEVAL_PART_DIVERSITY] == -2.0f);
    found = ask_without(h, "income of the shop", RETRIEVAL_PART_DIVERSITY);
    assert_int_equal(hybrid_place(&found, other), 2);
}

/* Beyond some thousands of docs only candidates are looked at: the same are found, with the same
 * scores but for how cosines are measured. */
static void large_spaces(void **state)
{
    enum { DOCS = 9000 };
    struct hybrid *h = *state;
    static char texts[DOCS][96];
    static struct memcube_draft drafts[DOCS];
    static struct memcube_attribute sessions[DOCS];
    static char names[DOCS][16];
    struct memcube_outcome outcome;
    const struct memcube_change change = change_of(HYBRID_SPACE);
    for (int i = 0; i < DOCS; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "Talk %d of %s and w%d, w%d", i,
            i % 3 ? "roses" : "clocks", i % 97, i % 89);
        (void)snprintf(names[i], sizeof names[i], "s%d", i / 20);
        sessions[i] =
            (struct memcube_attribute){memos_bytes_of("session"), memos_bytes_of(names[i])};
        drafts[i] = draft_of(texts[i]);
        drafts[i].description.attributes = &sessions[i];
        drafts[i].description.attributes_count = 1;
    }
    for (int i = 0; i < DOCS; i += 500) {
        assert_ok(memcube_create(
            fixture_write(&h->f), &change, &drafts[i], 500, &outcome, fixture_error()));
        fixture_commit(&h->f);
    }
    (void)PUT(h, "s", "Ann", "Where do you take the dog?");
    struct memcube_ref answer = PUT(h, "s", "Bob",
        "Mostly we walk around the old mill and back along the river, which takes an hour.");
    struct memcube_ref dog = PUT(h, "s", "Ann", "A lucky puppy it is, to have such walks.");
    struct memcube_ref taste = PUT(h, NULL, "user", "I never use leads made of leather.");
    struct hybrid_found found = ask(h, "Where are the walks with the hound?");
    assert_sound(&found);
    assert_true(hybrid_place(&found, dog) >= 0 && hybrid_place(&found, dog) <= 1);
    assert_true(hybrid_place(&found, answer) >= 0 && hybrid_place(&found, answer) <= 3);
    assert_int_equal(found.report.missing, DOCS);
    found = ask(h, "What should I give my terrier?");
    assert_true(hybrid_place(&found, taste) >= 0 && hybrid_place(&found, taste) <= 3);
    /* Whom it names is known, of those who spoke long ago and of who has just come. */
    found = ask(h, "Where does Bob walk his dog?");
    assert_true(found.hits[hybrid_place(&found, answer)].parts[RETRIEVAL_PART_SPEAKER] == 2.0f);
    struct memcube_ref late = PUT(h, "s", "Zoe", "My dog walks to the mill.");
    found = ask(h, "Where does Zoe walk her dog?");
    assert_true(found.hits[hybrid_place(&found, late)].parts[RETRIEVAL_PART_SPEAKER] == 2.0f);
    found = ask(h, "Where do Bob and Zoe walk their dog?");
    assert_true(found.hits[hybrid_place(&found, late)].parts[RETRIEVAL_PART_SPEAKER] == 0.0f);
    found = hybrid_ask(h, "w96 w88 clocks", NULL, true);
    assert_sound(&found);
    assert_true(found.hits[0].bm25 > 0.0f);
}

static void bad_questions_are_refused(void **state)
{
    struct hybrid *h = *state;
    struct retrieval_hit hit;
    size_t count;
    (void)PUT(h, "s", "Ann", "hello");
    struct memcube_space space = fixture_space(&h->f, HYBRID_SPACE);
    struct memcube_read *read = fixture_read(&h->f);
    struct retrieval_query query = {.text = memos_bytes_of("hello"), .top_k = 0};
    float vector[1] = {1.0f};
    assert_int_equal(retrieval_search(h->retrieval, read, &space, &query, &hit, &count, NULL, NULL),
        MEMOS_INVALID);
    query.top_k = RETRIEVAL_TOP_K_MAX + 1;
    assert_int_equal(retrieval_search(h->retrieval, read, &space, &query, &hit, &count, NULL, NULL),
        MEMOS_INVALID);
    query.top_k = 1;
    query.mode = (enum retrieval_mode)9;
    assert_int_equal(retrieval_search(h->retrieval, read, &space, &query, &hit, &count, NULL, NULL),
        MEMOS_INVALID);
    query.mode = RETRIEVAL_HYBRID;
    query.vector = vector;
    assert_int_equal(retrieval_search(h->retrieval, read, &space, &query, &hit, &count, NULL, NULL),
        MEMOS_INVALID);
    query.vector = NULL;
    assert_ok(
        retrieval_search(h->retrieval, read, &space, &query, &hit, &count, NULL, fixture_error()));
    assert_int_equal(count, 1);
}

static void parts_have_names(void **state)
{
    (void)state;
    for (int part = 0; part < RETRIEVAL_PARTS; part++) {
        const char *name = retrieval_part_name((enum retrieval_part)part);
        assert_int_equal(retrieval_part_of(memos_bytes_of(name)), part);
    }
    assert_int_equal(retrieval_part_of(memos_bytes_of("luck")), RETRIEVAL_PARTS);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(meaning_is_found_without_words),
        CASE(words_are_enough),
        CASE(filters_change_no_score),
        CASE(past_and_rollback),
        CASE(hidden_docs_leave_no_trace),
        CASE(neighbours_lift_a_turn),
        CASE(speakers_and_dates_matter),
        CASE(days_in_texts_matter),
        CASE(statements_answer_for_advice),
        CASE(form_matters),
        CASE(versions_decide),
        CASE(copies_lose),
        CASE(large_spaces),
        CASE(bad_questions_are_refused),
        cmocka_unit_test(parts_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
