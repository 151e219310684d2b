/* If this failed, somebody would not find what was just acknowledged, would be shown what is hidden
 * from him through its neighbours or its labels, or would lose his searches to a change of the
 * encoder, or to one that does not answer. */
#include "memcube/store.h"
#include "tests/broker/fixture.h"

#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int start(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture_start(fixture, "");
    *state = fixture;
    return 0;
}

static int end(void **state)
{
    fixture_end(*state);
    free(*state);
    return 0;
}

/* ---- putting and asking ---- */

struct said {
    const char *space, *text, *session, *tag, *reader;
};

static struct memos_id say(struct memos_client *client, const struct said *said)
{
    Memos__Draft draft = MEMOS__DRAFT__INIT, *drafts[] = {&draft};
    Memos__Attribute session = MEMOS__ATTRIBUTE__INIT, *attributes[] = {&session};
    Memos__Put body = MEMOS__PUT__INIT;
    Memos__Request request;
    struct memos_id id;
    char *tags[] = {(char *)(uintptr_t)said->tag}, *readers[] = {(char *)(uintptr_t)said->reader};

    session.name = (char *)(uintptr_t) "session";
    session.value = (char *)(uintptr_t)said->session;
    draft.frame = 1;
    draft.attributes = attributes;
    draft.n_attributes = said->session ? 1 : 0;
    draft.tags = tags;
    draft.n_tags = said->tag ? 1 : 0;
    draft.readers = readers;
    draft.n_readers = said->reader ? 1 : 0;
    body.space = (char *)(uintptr_t)said->space;
    body.drafts = drafts;
    body.n_drafts = 1;
    REQUEST(request, PUT, put, body);
    struct answer answer = ask(client, &request, said->text);
    if (answer.status != MEMOS_OK) {
        fail_msg("put: %s", answer.reply->message);
    }
    memcpy(id.bytes, answer.reply->outcome->refs[0]->id.data, sizeof id.bytes);
    answer_free(&answer);
    return id;
}

static struct answer search(struct memos_client *client, Memos__Search *body)
{
    Memos__Request request;
    REQUEST(request, SEARCH, search, *body);
    return ask(client, &request, NULL);
}

static Memos__Search search_for(const char *space, const char *text)
{
    Memos__Search body = MEMOS__SEARCH__INIT;
    body.space = (char *)(uintptr_t)space;
    body.text = (char *)(uintptr_t)text;
    return body;
}

static bool is_id(ProtobufCBinaryData data, const struct memos_id *id)
{
    return data.len == sizeof id->bytes && memcmp(data.data, id->bytes, data.len) == 0;
}

/* Wait until nothing is to be done in the background; the number that was done. */
static uint64_t wait_for_vectors(struct memos_client *client, uint64_t at_least)
{
    Memos__EncoderStatus body = MEMOS__ENCODER_STATUS__INIT;
    Memos__Request request;
    for (;;) { /* meson ends it when it never comes */
        REQUEST(request, ENCODER_STATUS, encoder_status, body);
        struct answer answer = ask(client, &request, NULL);
        assert_int_equal(answer.status, MEMOS_OK);
        uint64_t waiting = answer.reply->encoder_info->waiting;
        uint64_t done = answer.reply->encoder_info->done;
        answer_free(&answer);
        if (waiting == 0 && done >= at_least) {
            return done;
        }
        (void)poll(NULL, 0, 20);
    }
}

/* ---- searching ---- */

static void test_what_is_acknowledged_is_found_with_its_vector(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 40; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "the lighthouse keeper number%d sings", i);
        const struct memos_id id = put_text(fixture->owner, "a/b", text, NULL);
        (void)snprintf(text, sizeof text, "number%d keepers", i);
        Memos__Search body = search_for("a/b", text);
        body.explain = true;
        struct answer answer = search(fixture->owner, &body);
        assert_int_equal(answer.status, MEMOS_OK);
        const Memos__Hits *hits = answer.reply->hits;
        assert_true(strlen(hits->encoder) > 0);
        assert_int_equal(hits->missing, 0);
        assert_true(hits->n_hits > 0 && is_id(hits->hits[0]->cube->id, &id));
        float sum = 0;
        for (size_t p = 0; p < hits->hits[0]->n_parts; p++) {
            sum += hits->hits[0]->parts[p]->value;
        }
        assert_true(hits->hits[0]->n_parts >= 2 && fabsf(sum - hits->hits[0]->score) < 1e-3f);
        answer_free(&answer);
    }
}

static void test_an_updated_text_has_its_vector_at_once(void **state)
{
    struct fixture *fixture = *state;
    const struct said first = {"a/b", "We meet on Monday.", "s1", NULL, NULL};
    struct memos_id id = say(fixture->owner, &first);
    Memos__Draft draft = MEMOS__DRAFT__INIT;
    Memos__Change change = MEMOS__CHANGE__INIT, *changes[] = {&change};
    Memos__Update body = MEMOS__UPDATE__INIT;
    Memos__Request request;
    draft.frame = 1;
    draft.title = (char *)(uintptr_t) "The meeting";
    change.id = (ProtobufCBinaryData){.len = sizeof id.bytes, .data = id.bytes};
    change.fields = MEMCUBE_FIELD_PAYLOAD;
    change.draft = &draft;
    body.space = (char *)(uintptr_t) "a/b";
    body.changes = changes;
    body.n_changes = 1;
    Memos__Search question = search_for("a/b", "zebras");
    for (int i = 0; i < 2; i++) { /* new words; then a title beside the words that stay */
        REQUEST(request, UPDATE, update, body);
        struct answer answer = ask(fixture->owner, &request, i == 0 ? "We meet the zebra." : NULL);
        assert_int_equal(answer.status, MEMOS_OK);
        answer_free(&answer);
        answer = search(fixture->owner, &question);
        assert_int_equal(answer.reply->hits->missing, 0);
        assert_int_equal(answer.reply->hits->n_hits, 1);
        answer_free(&answer);
        change.fields = MEMCUBE_FIELD_TITLE;
        draft.frame = 0;
    }
}

static void test_modes_and_parts_are_checked(void **state)
{
    struct fixture *fixture = *state;
    char *unknown[] = {(char *)(uintptr_t) "magic"}, *known[] = {(char *)(uintptr_t) "neighbours"};
    (void)put_text(fixture->owner, "a/b", "a tent by the lake", NULL);

    Memos__Search words = search_for("a/b", "tents");
    words.mode = 1;
    words.without = known;
    words.n_without = 1;
    struct answer answer = search(fixture->owner, &words);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->hits->n_hits, 1);
    assert_string_equal(answer.reply->hits->encoder, "");
    answer_free(&answer);

    words.without = unknown;
    answer = search(fixture->owner, &words);
    assert_int_equal(answer.status, MEMOS_INVALID);
    assert_non_null(strstr(answer.reply->message, "magic"));
    answer_free(&answer);

    Memos__Search wrong = search_for("a/b", "tents");
    wrong.mode = 9;
    answer = search(fixture->owner, &wrong);
    assert_int_equal(answer.status, MEMOS_INVALID);
    answer_free(&answer);
    wrong.mode = 0;
    wrong.neighbours = 9;
    answer = search(fixture->owner, &wrong);
    assert_int_equal(answer.status, MEMOS_TOO_LARGE);
    answer_free(&answer);
}

static void test_one_bad_space_does_not_refuse_the_others(void **state)
{
    struct fixture *fixture = *state;
    (void)put_text(fixture->owner, "a/b", "a tent by the lake", NULL);
    Memos__Search good = search_for("a/b", "tent"), bad = search_for("a//b", "tent");
    Memos__Search *searches[] = {&bad, &good};
    Memos__SearchMany body = MEMOS__SEARCH_MANY__INIT;
    Memos__Request request;
    body.searches = searches;
    body.n_searches = 2;
    REQUEST(request, SEARCH_MANY, search_many, body);
    struct answer answer = ask(fixture->owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->hits_many->results[0]->status, MEMOS_INVALID);
    assert_int_equal(answer.reply->hits_many->results[1]->status, MEMOS_OK);
    assert_int_equal(answer.reply->hits_many->results[1]->hits->n_hits, 1);
    answer_free(&answer);
}

static void test_neighbours_come_in_order_and_only_to_who_may_see_them(void **state)
{
    struct fixture *fixture = *state;
    const struct said before = {"a/b", "We were talking about boats.", "s1", NULL, NULL};
    const struct said other = {"a/b", "Somebody else was speaking of trains.", "s2", NULL, NULL};
    const struct said hidden = {"a/b", "The code of the safe is 1234.", "s1", NULL, "alice"};
    const struct said hit = {"a/b", "My zebra likes carrots.", "s1", NULL, NULL};
    const struct said after = {"a/b", "How nice of it.", "s1", NULL, NULL};
    const struct memos_id first = say(fixture->owner, &before);
    (void)say(fixture->owner, &other);
    const struct memos_id secret = say(fixture->owner, &hidden);
    const struct memos_id zebra = say(fixture->owner, &hit);
    const struct memos_id last = say(fixture->owner, &after);
    grant(fixture, "loopback", "a/b", "read");
    struct memos_client *guest = fixture_client(fixture, NULL);

    Memos__Search body = search_for("a/b", "zebra carrots");
    body.neighbours = 2;
    body.top_k = 1;
    struct answer answer = search(guest, &body);
    assert_int_equal(answer.status, MEMOS_OK);
    const Memos__Hit *one = answer.reply->hits->hits[0];
    assert_true(is_id(one->cube->id, &zebra));
    assert_int_equal(one->n_before, 1);
    assert_true(is_id(one->before[0]->id, &first));
    assert_int_equal(one->n_after, 1);
    assert_true(is_id(one->after[0]->id, &last));
    answer_free(&answer);

    answer = search(fixture->owner, &body);
    one = answer.reply->hits->hits[0];
    assert_int_equal(one->n_before, 2);
    assert_true(is_id(one->before[0]->id, &first) && is_id(one->before[1]->id, &secret));
    answer_free(&answer);
    memos_client_close(&guest);
}

/* ---- classifying ---- */

static struct answer classify(struct memos_client *client, const char *text)
{
    Memos__Classify body = MEMOS__CLASSIFY__INIT;
    Memos__Request request;
    char *texts[] = {(char *)(uintptr_t)text};
    body.space = (char *)(uintptr_t) "a/labels";
    body.texts = texts;
    body.n_texts = 1;
    body.tag_prefix = (char *)(uintptr_t) "label:";
    REQUEST(request, CLASSIFY, classify, body);
    return ask(client, &request, NULL);
}

static const char *winner(const struct answer *answer)
{
    const Memos__Classification *one = answer->reply->classified->results[0];
    return one->n_labels > 0 ? one->labels[0]->name : "";
}

static void test_a_correction_counts_from_the_next_question_on(void **state)
{
    struct fixture *fixture = *state;
    const struct said card = {"a/labels", "my card was stolen", NULL, "label:card", NULL};
    const struct said cash = {"a/labels", "where can I get cash", NULL, "label:cash", NULL};
    const struct said plain = {"a/labels", "a pin was stolen", NULL, "pinned", NULL};
    (void)say(fixture->owner, &card);
    (void)say(fixture->owner, &cash);
    (void)say(fixture->owner, &plain); /* no label of these: it has no voice */
    struct answer answer = classify(fixture->owner, "a pin was stolen from my card");
    assert_int_equal(answer.status, MEMOS_OK);
    assert_string_equal(winner(&answer), "card");
    answer_free(&answer);

    const struct said taught = {
        "a/labels", "a pin was stolen from my card", NULL, "label:pin", NULL};
    (void)say(fixture->owner, &taught);
    answer = classify(fixture->owner, "a pin was stolen from my card");
    assert_string_equal(winner(&answer), "pin");
    assert_true(answer.reply->classified->results[0]->best_cosine > 0.99f);
    answer_free(&answer);
    answer = classify(fixture->owner, "where do I get cash");
    assert_string_equal(winner(&answer), "cash");
    answer_free(&answer);
}

/* ---- browsing ---- */

static struct answer look(struct memos_client *client, Memos__Tree *body)
{
    Memos__Request request;
    body->space = (char *)(uintptr_t) "a/tree";
    REQUEST(request, TREE, tree, *body);
    return ask(client, &request, NULL);
}

static void test_a_tree_is_built_kept_and_looked_into(void **state)
{
    struct fixture *fixture = *state;
    static const char *const themes[] = {
        "sailing boats in the harbour, sail", "baking bread in the oven, loaf"};
    for (int i = 0; i < 80; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "%s %d", themes[i % 2], i);
        (void)put_text(fixture->owner, "a/tree", text, i == 3 ? "alice" : NULL);
    }
    grant(fixture, "loopback", "a/tree", "read");
    struct memos_client *guest = fixture_client(fixture, NULL);

    Memos__Tree body = MEMOS__TREE__INIT;
    struct answer answer = look(fixture->owner, &body);
    assert_int_equal(answer.status, MEMOS_CONFLICT); /* there is none yet */
    answer_free(&answer);
    body.build = true;
    answer = look(guest, &body);
    assert_int_equal(answer.status, MEMOS_DENIED);
    answer_free(&answer);
    answer = look(fixture->owner, &body);
    assert_int_equal(answer.status, MEMOS_OK);
    const Memos__TreeNodes *nodes = answer.reply->tree_nodes;
    assert_int_equal(nodes->cubes, 80);
    assert_true(nodes->n_children >= 2);
    uint64_t below = 0;
    for (size_t i = 0; i < nodes->n_children; i++) {
        below += nodes->children[i]->cubes;
        assert_true(nodes->children[i]->cubes == 0 || nodes->children[i]->n_examples > 0);
    }
    assert_int_equal(below, 80);
    answer_free(&answer);

    /* The tree is a cube, and no text that lacks a vector. */
    Memos__Search search_body = search_for("a/tree", "bread");
    answer = search(fixture->owner, &search_body);
    assert_int_equal(answer.reply->hits->missing, 0);
    answer_free(&answer);

    body.build = false;
    answer = look(guest, &body);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->tree_nodes->cubes, 79);
    answer_free(&answer);
    body.text = (char *)(uintptr_t) "bread from the oven";
    answer = look(fixture->owner, &body);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_true(answer.reply->tree_nodes->n_path >= 1);
    assert_int_equal(answer.reply->tree_nodes->n_children, 1); /* a leaf: itself */
    answer_free(&answer);
    uint32_t nowhere[] = {200};
    body.text = (char *)(uintptr_t) "";
    body.path = nowhere;
    body.n_path = 1;
    answer = look(fixture->owner, &body);
    assert_int_equal(answer.status, MEMOS_NOT_FOUND);
    answer_free(&answer);
    memos_client_close(&guest);
}

/* ---- other encoders ---- */

static void test_what_was_written_without_an_encoder_gets_its_vectors_later(void **state)
{
    struct fixture *fixture = *state;
    fixture_stop(fixture);
    fixture_start(fixture, "encoder = \"none\"\n");
    (void)put_text(fixture->owner, "a/b", "a gorilla in the mist", NULL);
    Memos__Search body = search_for("a/b", "gorillas");
    struct answer answer = search(fixture->owner, &body);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->hits->n_hits, 1);
    assert_string_equal(answer.reply->hits->encoder, "");
    answer_free(&answer);
    answer = classify(fixture->owner, "anything");
    assert_int_equal(answer.status, MEMOS_UNSUPPORTED);
    answer_free(&answer);

    fixture_stop(fixture);
    fixture_start(fixture, "");
    assert_true(wait_for_vectors(fixture->owner, 1) >= 1);
    answer = search(fixture->owner, &body);
    assert_int_equal(answer.reply->hits->missing, 0);
    assert_true(strlen(answer.reply->hits->encoder) > 0);
    answer_free(&answer);
}

static void test_an_endpoint_that_is_down_stops_nothing(void **state)
{
    struct fixture *fixture = *state;
    fixture_stop(fixture);
    /* the discard port: nobody listens there */
    fixture_start(fixture, "encoder = \"http://127.0.0.1:9/v1/embeddings#m\"\n");
    (void)put_text(fixture->owner, "a/b", "a gorilla in the mist", NULL);
    Memos__Search body = search_for("a/b", "gorillas");
    struct answer answer = search(fixture->owner, &body);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->hits->n_hits, 1);
    answer_free(&answer);
    Memos__EncoderStatus ask_status = MEMOS__ENCODER_STATUS__INIT;
    Memos__Request request;
    REQUEST(request, ENCODER_STATUS, encoder_status, ask_status);
    answer = ask(fixture->owner, &request, NULL);
    assert_true(strlen(answer.reply->encoder_info->error) > 0);
    answer_free(&answer);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_what_is_acknowledged_is_found_with_its_vector),
        CASE(test_an_updated_text_has_its_vector_at_once),
        CASE(test_modes_and_parts_are_checked),
        CASE(test_one_bad_space_does_not_refuse_the_others),
        CASE(test_neighbours_come_in_order_and_only_to_who_may_see_them),
        CASE(test_a_correction_counts_from_the_next_question_on),
        CASE(test_a_tree_is_built_kept_and_looked_into),
        CASE(test_what_was_written_without_an_encoder_gets_its_vectors_later),
        CASE(test_an_endpoint_that_is_down_stops_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
