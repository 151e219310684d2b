/* Answers through broker and worker against the engine asked directly: one, sixteen at once, ended
 * before their time, after a restart.
 *
 * If these failed, a user would get an answer that is not the model's, somebody else's, or none. */
#include "tests/worker/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

enum { LONG = 1 << 16 }; /* a context that is not full while a test looks elsewhere */

static const struct tiny_host_options usual = {.context = 1024, .sequences = 16};
static const struct tiny_host_options lasting = {.context = LONG, .sequences = 4};

/* ---- the same tokens ------------------------------------------------------------------------ */

static void streamed_is_the_engine(void **unused)
{
    (void)unused;
    struct stage stage;
    stage_begin(&stage, &usual);
    for (size_t i = 0; i < 3; i++) {
        static const char *const texts[] = {
            "a", "The cat sat on the mat.", "Grüße, \xF0\x9F\x98\x80!"};
        struct stage_generate generate;
        struct stage_heard heard;
        struct stage_direct direct;
        stage_generate_make(&generate, texts[i], 50);
        stage_ask(stage.broker.owner, &generate, &heard);
        stage_direct(&stage, texts[i], 50, &direct);
        stage_assert_same(&heard, &direct);
        assert_true(heard.updates >= 49); /* streamed, not all at the end */
        const Memos__Generated *made = heard.reply->generated;
        assert_int_equal(made->finish, PARAMEM_FINISH_LENGTH);
        assert_true(made->first_us > 0 && made->first_us <= made->total_us);
        assert_non_null(made->receipt);
        assert_string_equal(made->receipt->model, "tiny");
        assert_string_equal(made->receipt->worker, "stage");
        stage_heard_free(&heard);
        stage_direct_free(&direct);
    }
    stage_end(&stage);
}

static void sixteen_at_once(void **unused)
{
    (void)unused;
    enum { COUNT = 16, TOKENS = 100 };
    struct stage stage;
    struct stage_generate generates[COUNT];
    struct stage_heard heards[COUNT] = {0};
    uint64_t ids[COUNT];
    char texts[COUNT][64];
    size_t ended = 0, overlaps = 0;
    stage_begin(&stage, &usual);
    for (size_t i = 0; i < COUNT; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "text number %zu of many", i * 7919);
        stage_generate_make(&generates[i], texts[i], TOKENS);
        ids[i] = stage_send(stage.broker.owner, &generates[i]);
    }
    while (ended < COUNT) {
        struct memos_message *message = NULL;
        OK(memos_client_receive(stage.broker.owner, 60000, &message, NULL));
        size_t at = 0;
        while (at < COUNT && ids[at] != memos_message_reply(message)->id) {
            at++;
        }
        assert_true(at < COUNT);
        stage_hear(&heards[at], message);
        overlaps += heards[at].count > 0 && !heards[at].reply &&
                    heards[(at + 1) % COUNT].count > 0 && !heards[(at + 1) % COUNT].reply;
        ended += heards[at].reply != NULL;
    }
    assert_true(overlaps > 0); /* they shared steps */
    for (size_t i = 0; i < COUNT; i++) {
        struct stage_direct direct;
        stage_direct(&stage, texts[i], TOKENS, &direct);
        stage_assert_same(&heards[i], &direct);
        stage_heard_free(&heards[i]);
        stage_direct_free(&direct);
    }
    stage_end(&stage);
}

/* ---- what is asked for ---------------------------------------------------------------------- */

static void messages_are_rendered(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard;
    struct stage_direct direct;
    Memos__ChatMessage message = MEMOS__CHAT_MESSAGE__INIT, *messages[] = {&message};
    stage_begin(&stage, &usual);
    stage_generate_make(&generate, "hello", 20);
    generate.generate.prompt_frame = 0;
    generate.generate.messages = messages;
    generate.generate.n_messages = 1;
    message.role = (char *)(uintptr_t) "user";
    message.frame = 1;
    stage_ask(stage.broker.owner, &generate, &heard);
    /* ids of the template's own tokens, as they are written: 257 and 258 */
    struct paramem_ids ids = {0};
    OK(paramem_tokenizer_encode(stage.same.tokenizer,
        memos_bytes_of("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"), 0, &ids,
        NULL));
    assert_int_equal(heard.reply->status, MEMOS_OK);
    assert_int_equal(heard.reply->generated->prompt_tokens, ids.count);
    free(ids.ids);
    stage_heard_free(&heard);
    stage_generate_make(&generate, "hello", 20); /* and a text is no message */
    stage_ask(stage.broker.owner, &generate, &heard);
    stage_direct(&stage, "hello", 20, &direct);
    stage_assert_same(&heard, &direct);
    stage_heard_free(&heard);
    stage_direct_free(&direct);
    stage_end(&stage);
}

static void without_a_template_there_are_texts(void **unused)
{
    (void)unused;
    const struct tiny_host_options bare = {.context = 1024, .is_bare = true};
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard;
    Memos__ChatMessage message = MEMOS__CHAT_MESSAGE__INIT, *messages[] = {&message};
    stage_begin(&stage, &bare);
    stage_generate_make(&generate, "hello", 20);
    generate.generate.prompt_frame = 0;
    generate.generate.messages = messages;
    generate.generate.n_messages = 1;
    message.role = (char *)(uintptr_t) "user";
    message.frame = 1;
    stage_ask(stage.broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_UNSUPPORTED);
    assert_true(heard.reply->hint[0] != '\0');
    stage_heard_free(&heard);
    generate.generate.template_ = (char *)(uintptr_t) "chatml";
    stage_ask(stage.broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_OK);
    stage_heard_free(&heard);
    stage_end(&stage);
}

static void alternatives_stops_and_cuts_are_told(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard, first;
    char text[1200], stop[8] = "";
    char *stops[] = {stop};
    stage_begin(&stage, &usual);
    stage_generate_make(&generate, "a text", 30);
    generate.generate.top_logprobs = 3;
    stage_ask(stage.broker.owner, &generate, &first);
    assert_int_equal(first.reply->status, MEMOS_OK);
    assert_int_equal(first.top_count, 3 * first.count);

    /* some of what it said as a text that ends it: ASCII, so that it is one */
    const char *said = (const char *)first.text.data;
    for (size_t i = 8; i + 2 < first.text.size && !stop[0]; i++) {
        bool is_plain = said[i] > ' ' && said[i] < 127 && said[i + 1] > ' ' && said[i + 1] < 127;
        (void)snprintf(stop, sizeof stop, "%.*s", is_plain ? 2 : 0, said + i);
    }
    if (stop[0]) {
        stage_generate_make(&generate, "a text", 30);
        generate.generate.stops = stops;
        generate.generate.n_stops = 1;
        stage_ask(stage.broker.owner, &generate, &heard);
        assert_int_equal(heard.reply->generated->finish, PARAMEM_FINISH_STOP);
        assert_string_equal(heard.reply->generated->stop_string, stop);
        stage_heard_free(&heard);
    }
    stage_heard_free(&first);

    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    stage_generate_make(&generate, text, 30);
    stage_ask(stage.broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_TOO_LARGE);
    stage_heard_free(&heard);
    generate.generate.cut_front = true;
    stage_ask(stage.broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_OK);
    assert_int_equal(heard.reply->generated->cut_tokens, 1199 + 30 - 1024);
    stage_heard_free(&heard);

    text[1000] = '\0';
    stage_generate_make(&generate, text, 100);
    generate.generate.fit_tokens = true;
    stage_ask(stage.broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_OK);
    assert_int_equal(heard.reply->generated->tokens, 24);
    stage_heard_free(&heard);
    stage_end(&stage);
}

/* ---- ended before their time ---------------------------------------------------------------- */

/* Wait for the first token. */
static void await_first(struct memos_client *client, struct stage_heard *heard)
{
    while (heard->count == 0) {
        struct memos_message *message = NULL;
        OK(memos_client_receive(client, 60000, &message, NULL));
        stage_hear(heard, message);
        assert_null(heard->reply);
    }
}

static void cancelled_in_the_middle(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard = {0};
    stage_begin(&stage, &lasting);
    stage_generate_make(&generate, "a", 0);
    uint64_t id = stage_send(stage.broker.owner, &generate);
    await_first(stage.broker.owner, &heard);
    stage_cancel(stage.broker.owner, id, &heard);
    assert_int_equal(heard.reply->status, MEMOS_CANCELLED);
    stage_heard_free(&heard);
    stage_generate_make(&generate, "a", 5);
    stage_ask(stage.broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_OK);
    stage_heard_free(&heard);
    stage_end(&stage);
}

static const char long_text[] = " is how this text begins, which fills pages of the cache";

static bool is_cached(struct stage *stage, const char *text, char first, const char *space)
{
    struct stage_generate generate;
    struct stage_heard heard;
    char own[128];
    (void)snprintf(own, sizeof own, "%c%s", first, text);
    stage_generate_make(&generate, own, 3);
    generate.generate.space = (char *)(uintptr_t)space;
    stage_ask(stage->broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_OK);
    const bool is = heard.reply->generated->cached_tokens > 0;
    stage_heard_free(&heard);
    return is;
}

/* When something of a space is forgotten, nothing that a model made of its texts is kept: not what
 * answers left, nor what one that still runs has left when it ends. Other spaces keep theirs. */
static void what_is_forgotten_leaves_the_engine(void **unused)
{
    (void)unused;
    const char *text = long_text;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard running = {0};
    struct memos_client *other = NULL;
    char lasting_text[128], mine[] = "mine";
    stage_begin(&stage, &lasting);
    struct memos_client *client = stage.broker.owner;
    const struct memos_client_options options = {
        .address = broker_address(stage.broker.broker, 0), .timeout_ms = 10000};
    OK(memos_client_open(&options, &other, NULL));
    const struct memos_id id = put_text(client, mine, "Bo eats no nuts.", NULL);
    (void)snprintf(lasting_text, sizeof lasting_text, "L%s", text);
    stage_generate_make(&generate, lasting_text, 0);
    generate.generate.space = mine;
    const uint64_t lasts = stage_send(other, &generate);
    await_first(other, &running);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(is_cached(&stage, text, 'A', mine), i > 0);
        assert_int_equal(is_cached(&stage, text, 'B', "theirs"), i > 0);
    }
    assert_true(is_cached(&stage, text, 'L', mine));
    forget_text(client, mine, &id);
    assert_false(is_cached(&stage, text, 'A', mine));
    assert_true(is_cached(&stage, text, 'B', "theirs"));
    stage_cancel(other, lasts, &running);
    assert_false(is_cached(&stage, text, 'L', mine));
    stage_heard_free(&running);
    memos_client_close(&other);
    stage_end(&stage);
}

static void late(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard;
    stage_begin(&stage, &lasting);
    stage_generate_make(&generate, "a", 0);
    generate.request.deadline_ms = 300;
    stage_ask(stage.broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_DEADLINE);
    assert_true(heard.count > 0);
    assert_int_equal(heard.reply->body_case, MEMOS__REPLY__BODY_GENERATED); /* by the worker */
    assert_int_equal(heard.reply->generated->tokens, heard.count);
    stage_heard_free(&heard);
    stage_end(&stage);
}

/* ---- comings and goings --------------------------------------------------------------------- */

static void drained_by_an_administrator(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard = {0};
    struct stage_direct direct;
    Memos__WorkerDrain drain = MEMOS__WORKER_DRAIN__INIT;
    Memos__Workers workers = MEMOS__WORKERS__INIT;
    Memos__Request request;
    stage_begin(&stage, &usual);
    stage_generate_make(&generate, "a", 300);
    uint64_t id = stage_send(stage.broker.owner, &generate);
    await_first(stage.broker.owner, &heard);
    REQUEST(request, WORKERS, workers, workers);
    struct answer list = ask(stage.broker.owner, &request, NULL);
    drain.id = list.reply->worker_infos->workers[0]->id;
    REQUEST(request, WORKER_DRAIN, worker_drain, drain);
    struct answer answer = ask(stage.broker.owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    answer_free(&answer);
    answer_free(&list);
    stage_await(stage.broker.owner, id, &heard);
    stage_direct(&stage, "a", 300, &direct);
    stage_assert_same(&heard, &direct); /* what was begun was finished */
    stage_heard_free(&heard);
    stage_direct_free(&direct);
    OK(stage_worker_end(&stage));
    stage_await_workers(&stage, 0);
    stage_ask(stage.broker.owner, &generate, &heard);
    assert_int_equal(heard.reply->status, MEMOS_UNAVAILABLE);
    stage_heard_free(&heard);
    stage_end(&stage);
}

static void drained_by_itself(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard = {0};
    stage_begin(&stage, &usual);
    stage_generate_make(&generate, "a", 300);
    uint64_t id = stage_send(stage.broker.owner, &generate);
    await_first(stage.broker.owner, &heard);
    worker_drain(stage.worker);
    stage_await(stage.broker.owner, id, &heard);
    assert_int_equal(heard.reply->status, MEMOS_OK);
    assert_int_equal(heard.count, 300);
    stage_heard_free(&heard);
    OK(stage_worker_end(&stage));
    stage_end(&stage);
}

static void the_broker_restarts(void **unused)
{
    (void)unused;
    struct stage stage;
    struct stage_generate generate;
    struct stage_heard heard = {0};
    struct stage_direct direct;
    stage_begin(&stage, &lasting);
    (void)is_cached(&stage, long_text, 'A', "mine");
    assert_true(is_cached(&stage, long_text, 'A', "mine"));
    stage_generate_make(&generate, "a", 0); /* one is running */
    (void)stage_send(stage.broker.owner, &generate);
    await_first(stage.broker.owner, &heard);
    stage_heard_free(&heard);
    fixture_stop(&stage.broker);
    fixture_start(&stage.broker, "");
    stage_await_workers(&stage, 1);
    /* what was forgotten meanwhile nobody has told it */
    assert_false(is_cached(&stage, long_text, 'A', "mine"));
    stage_generate_make(&generate, "b", 30);
    stage_ask(stage.broker.owner, &generate, &heard);
    stage_direct(&stage, "b", 30, &direct);
    stage_assert_same(&heard, &direct);
    stage_heard_free(&heard);
    stage_direct_free(&direct);
    stage_end(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streamed_is_the_engine),
        cmocka_unit_test(sixteen_at_once),
        cmocka_unit_test(messages_are_rendered),
        cmocka_unit_test(without_a_template_there_are_texts),
        cmocka_unit_test(alternatives_stops_and_cuts_are_told),
        cmocka_unit_test(cancelled_in_the_middle),
        cmocka_unit_test(what_is_forgotten_leaves_the_engine),
        cmocka_unit_test(late),
        cmocka_unit_test(drained_by_an_administrator),
        cmocka_unit_test(drained_by_itself),
        cmocka_unit_test(the_broker_restarts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
