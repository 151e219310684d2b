/* If this failed, a client would wait for an answer that nobody makes, hear another one's, or be
 * starved by somebody who asks a lot; and a worker that dies would take its jobs with it. */
#include "tests/broker/fake_worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct wish plain = {.model = "m"};

static int start_with(void **state, const char *settings)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture_start(fixture, settings);
    *state = fixture;
    return 0;
}

static int start(void **state)
{
    return start_with(state, "worker_timeout = \"60s\"\nworker_queue_max = 1200\n");
}

/* Workers that say nothing are given up soon. */
static int start_strict(void **state)
{
    return start_with(state, "worker_timeout = \"500ms\"\n");
}

static int end(void **state)
{
    fixture_end(*state);
    free(*state);
    return 0;
}

static void assert_text(struct memos_bytes bytes, const char *text)
{
    assert_true(memos_bytes_equal(bytes, memos_bytes_of(text)));
}

static void expect_last(struct memos_client *client, uint64_t id, enum memos_status status)
{
    struct answer answer = expect(client, id, status);
    assert_false(answer.reply->more);
    answer_free(&answer);
}

/* The last reply, and what it says. */
static void expect_words(
    struct memos_client *client, uint64_t id, enum memos_status status, const char *words)
{
    struct answer answer = expect(client, id, status);
    if (!strstr(answer.reply->message, words)) {
        fail_msg("'%s' does not say '%s'", answer.reply->message, words);
    }
    answer_free(&answer);
}

static void expect_token(struct memos_client *client, uint64_t id, const char *text)
{
    struct answer answer = expect(client, id, MEMOS_OK);
    assert_true(answer.reply->more);
    assert_int_equal(answer.reply->body_case, MEMOS__REPLY__BODY_TOKENS);
    assert_string_equal(answer.reply->tokens->text, text);
    answer_free(&answer);
}

/* Do a job to its end. */
static void job_do(struct fake_worker *worker)
{
    struct fake_job job = job_take(worker);
    job_finish(worker, job.job, MEMOS_OK, "done");
    job_over(worker, job.job);
    job_free(&job);
}

static double metric(struct fixture *fixture, const char *name)
{
    Memos__Stats body = MEMOS__STATS__INIT;
    Memos__Request request;
    double value = -1;
    REQUEST(request, STATS, stats, body);
    struct answer answer = ask(fixture->owner, &request, NULL);
    for (size_t i = 0; i < answer.reply->stats_result->n_metrics; i++) {
        const Memos__Metric *metric = answer.reply->stats_result->metrics[i];
        value = strcmp(metric->name, name) == 0 ? metric->value : value;
    }
    answer_free(&answer);
    return value;
}

/* ---- a job, from one end to the other ---- */

static void test_a_job(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    struct answer answer;
    const struct wish wish = {.prompt = "Once upon", .deadline_ms = 60000};
    worker_plain(fixture, &worker, 1);

    uint64_t id = generate(fixture->owner, &wish);
    struct fake_job job = job_take(&worker);
    assert_string_equal(job.job->principal, "owner");
    assert_int_equal(job.job->attempt, 1);
    assert_true(job.job->deadline_ms > 50000 && job.job->deadline_ms <= 60000);
    assert_int_equal(job.job->body_case, MEMOS__JOB__BODY_GENERATE);
    assert_string_equal(job.job->generate->model, "m"); /* which "" meant */
    assert_text(memos_message_frame(job.message, job.job->generate->prompt_frame), "Once upon");

    job_token(&worker, job.job, " a");
    job_token(&worker, job.job, " time");
    job_finish(&worker, job.job, MEMOS_OK, " a time");
    job_over(&worker, job.job);
    expect_token(fixture->owner, id, " a");
    expect_token(fixture->owner, id, " time");
    answer = expect(fixture->owner, id, MEMOS_OK);
    assert_false(answer.reply->more);
    assert_text(memos_message_frame(answer.message, answer.reply->generated->frame), " a time");
    answer_free(&answer);
    job_free(&job);
    settle(worker.client);
    assert_int_equal((int)metric(fixture, "memos_worker_tokens_total"), 2);
    assert_int_equal((int)metric(fixture, "memos_worker_jobs_done_total"), 1);
    assert_int_equal((int)metric(fixture, "memos_worker_jobs_running"), 0);
    worker_end(&worker);
}

/* Frames are passed on as they are, however large. */
static void test_large_frames(void **state)
{
    struct fixture *fixture = *state;
    enum { LARGE = 8 << 20 };
    struct fake_worker worker = {0};
    char *text = malloc(LARGE);
    assert_non_null(text);
    for (size_t i = 0; i < LARGE; i++) {
        text[i] = (char)('a' + i % 23);
    }
    text[LARGE - 1] = '\0';
    worker_plain(fixture, &worker, 1);
    const struct wish wish = {.prompt = text};
    uint64_t id = generate(fixture->owner, &wish);
    struct fake_job job = job_take(&worker);
    assert_text(memos_message_frame(job.message, 1), text);
    job_finish(&worker, job.job, MEMOS_OK, text);
    struct answer answer = expect(fixture->owner, id, MEMOS_OK);
    assert_text(memos_message_frame(answer.message, 1), text);
    answer_free(&answer);
    job_free(&job);
    worker_end(&worker);
    free(text);
}

/* ---- who may be a worker, and what it may say ---- */

static void announce_badly(
    struct fixture *fixture, struct fake_announcement *announcement, enum memos_status expected)
{
    Memos__Request request;
    REQUEST(request, WORKER_ANNOUNCE, worker_announce, announcement->body);
    struct answer answer = ask(fixture->owner, &request, NULL);
    assert_int_equal(answer.status, expected);
    answer_free(&answer);
}

static void test_nonsense_announced(void **state)
{
    struct fixture *fixture = *state;
    const struct fake_model two[] = {{"a", 1}, {"b", 2}};
    const struct fake_worker worker = {.instance = {1}};
    struct fake_announcement good, bad;
    char long_name[1000];
    Memos__WorkerModel *many[100];

    announcement_fill(&good, &worker, two, 2, 4);
    bad = good;
    bad.body.n_models = 0;
    announce_badly(fixture, &bad, MEMOS_INVALID);
    for (size_t i = 0; i < 100; i++) {
        many[i] = &good.models[0];
    }
    bad.body.models = many;
    bad.body.n_models = 100;
    announce_badly(fixture, &bad, MEMOS_INVALID);
    bad.body.n_models = 2; /* of one name */
    announce_badly(fixture, &bad, MEMOS_INVALID);

    good.models[1].fingerprint.len = 31;
    announce_badly(fixture, &good, MEMOS_INVALID);
    announcement_fill(&good, &worker, two, 2, 0);
    announce_badly(fixture, &good, MEMOS_INVALID);
    announcement_fill(&good, &worker, two, 2, 1025);
    announce_badly(fixture, &good, MEMOS_INVALID);
    announcement_fill(&good, &worker, two, 2, UINT32_MAX);
    announce_badly(fixture, &good, MEMOS_INVALID);
    announcement_fill(&good, &worker, two, 2, 4);
    good.body.instance.len = 15;
    announce_badly(fixture, &good, MEMOS_INVALID);
    announcement_fill(&good, &worker, two, 2, 4);
    good.models[0].context = 0;
    announce_badly(fixture, &good, MEMOS_INVALID);
    announcement_fill(&good, &worker, two, 2, 4);
    good.models[0].name = (char[]){"line\nbreak"};
    announce_badly(fixture, &good, MEMOS_INVALID);
    announcement_fill(&good, &worker, two, 2, 4);
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    good.body.name = long_name;
    announce_badly(fixture, &good, MEMOS_TOO_LARGE);

    expect_words(fixture->owner, generate(fixture->owner, &plain), MEMOS_UNAVAILABLE, "no worker");
    assert_int_equal((int)metric(fixture, "memos_workers"), 0);
}

static void test_rights(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    struct fake_announcement announcement;
    struct memos_client *stranger = fixture_client(fixture, NULL); /* "loopback" */
    Memos__WorkerDrain drain = MEMOS__WORKER_DRAIN__INIT;
    Memos__Workers workers = MEMOS__WORKERS__INIT;
    Memos__Request request;

    worker_plain(fixture, &worker, 1);
    announcement_fill(&announcement, &worker, &(const struct fake_model){"m", 1}, 1, 1);
    REQUEST(request, WORKER_ANNOUNCE, worker_announce, announcement.body);
    struct answer answer = ask(stranger, &request, NULL);
    assert_int_equal(answer.status, MEMOS_DENIED);
    answer_free(&answer);

    drain.id = (ProtobufCBinaryData){.len = 4, .data = worker.instance};
    REQUEST(request, WORKER_DRAIN, worker_drain, drain);
    answer = ask(stranger, &request, NULL);
    assert_int_equal(answer.status, MEMOS_DENIED);
    answer_free(&answer);

    /* Everybody sees models; who runs them is for administrators. */
    REQUEST(request, WORKERS, workers, workers);
    answer = ask(stranger, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    assert_int_equal(answer.reply->worker_infos->n_workers, 1);
    assert_int_equal(answer.reply->worker_infos->workers[0]->id.len, 0);
    assert_string_equal(answer.reply->worker_infos->workers[0]->announced->name, "");
    assert_string_equal(answer.reply->worker_infos->workers[0]->announced->models[0]->name, "m");
    answer_free(&answer);
    answer = ask(fixture->owner, &request, NULL);
    assert_memory_equal(
        answer.reply->worker_infos->workers[0]->id.data, worker.instance, sizeof worker.instance);
    answer_free(&answer);

    /* Without a space anybody may generate; a space needs the right to read it, or to write. */
    const struct wish in_space = {.space = "s"};
    (void)put_text(fixture->owner, "s", "a cube", NULL);
    expect_last(stranger, generate(stranger, &in_space), MEMOS_DENIED);
    grant(fixture, "loopback", "s", "read");
    uint64_t id = generate(stranger, &in_space);
    struct fake_job job = job_take(&worker);
    assert_string_equal(job.job->principal, "loopback");
    job_finish(&worker, job.job, MEMOS_OK, "x");
    job_over(&worker, job.job);
    expect_last(stranger, id, MEMOS_OK);
    job_free(&job);
    Memos__Generate keeping = MEMOS__GENERATE__INIT;
    keeping.space = (char[]){"s"};
    keeping.prompt_frame = 1;
    keeping.keep_receipt = 1;
    REQUEST(request, GENERATE, generate, keeping);
    answer = ask(stranger, &request, "x");
    assert_int_equal(answer.status, MEMOS_DENIED);
    answer_free(&answer);
    worker_end(&worker);
    memos_client_close(&stranger);
}

/* Who may not be a worker any more is none from the moment on that the change is acknowledged. */
static void test_right_taken(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {.client = fixture_client(fixture, NULL)};
    grant(fixture, "loopback", "_workers", "admin");
    worker_plain(fixture, &worker, 1);
    uint64_t id = generate(fixture->owner, &plain);
    struct fake_job job = job_take(&worker);
    grant(fixture, "loopback", "_workers", "");
    expect_last(fixture->owner, id, MEMOS_UNAVAILABLE);
    job_token(&worker, job.job, "late");
    expect_last(worker.client, worker.announced, MEMOS_UNAVAILABLE);
    expect_last(worker.client, 0, MEMOS_DENIED);
    expect_silence(fixture->owner, 50);
    job_free(&job);
    worker_end(&worker);
}

/* ---- which model ---- */

static void test_models(void **state)
{
    struct fixture *fixture = *state;
    struct memos_client *client = fixture->owner;
    struct fake_worker first = {0}, second = {0};
    const struct fake_model one[] = {{"alpha", 0xA1}, {"beta", 0xB2}}, other = {"gamma", 0xA1};

    struct answer none = expect(client, generate(client, &plain), MEMOS_UNAVAILABLE);
    assert_non_null(strstr(none.reply->hint, "memosctl worker start"));
    answer_free(&none);
    worker_begin(fixture, &first, one, 2, 4);
    expect_words(client, generate(client, &plain), MEMOS_NOT_FOUND, "alpha, beta");
    expect_words(client, generate(client, &(const struct wish){.prompt = "x"}), MEMOS_INVALID,
        "alpha, beta");
    uint64_t id = generate(client, &(const struct wish){.model = "b2111111"});
    struct fake_job job = job_take(&first);
    assert_string_equal(job.job->generate->model, "beta");
    job_finish(&first, job.job, MEMOS_OK, "x");
    job_over(&first, job.job);
    expect_last(client, id, MEMOS_OK);
    job_free(&job);
    /* Seven digits could be a name. */
    expect_last(
        client, generate(client, &(const struct wish){.model = "b211111"}), MEMOS_NOT_FOUND);

    /* One model under two names: the fingerprint means both workers. */
    worker_begin(fixture, &second, &other, 1, 4);
    const struct wish by_print = {.model = "A1111111"};
    (void)generate(client, &by_print);
    (void)generate(client, &by_print);
    job = job_take(&first);
    assert_string_equal(job.job->generate->model, "alpha");
    job_free(&job);
    job = job_take(&second);
    assert_string_equal(job.job->generate->model, "gamma");
    job_free(&job);
    worker_end(&first);
    worker_end(&second);
}

/* ---- waiting ---- */

static void test_queue_bound(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    struct memos_client *second = another(fixture);
    worker_plain(fixture, &worker, 1);
    (void)generate(fixture->owner, &plain);
    struct fake_job job = job_take(&worker);
    for (int i = 0; i < 1000; i++) {
        (void)generate(fixture->owner, &plain);
    }
    assert_int_equal((int)metric(fixture, "memos_worker_jobs_waiting"), 1000);
    for (int i = 0; i < 200; i++) {
        (void)generate(second, &plain);
    }
    expect_words(second, generate(second, &plain), MEMOS_BUSY, "1200 jobs");
    assert_int_equal((int)metric(fixture, "memos_worker_jobs_waiting"), 1200);
    worker_has_nothing(&worker, 50); /* it said that it takes one */
    job_free(&job);
    worker_end(&worker);
    memos_client_close(&second);
}

static void test_deadline(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    worker_plain(fixture, &worker, 1);
    (void)generate(fixture->owner, &plain);
    struct fake_job job = job_take(&worker);
    uint64_t id = generate(fixture->owner, &(const struct wish){.deadline_ms = 30});
    expect_last(fixture->owner, id, MEMOS_DEADLINE);

    /* One that a worker sits on ends, too; the worker is told, and keeps its place until it is
     * over with it. */
    job_finish(&worker, job.job, MEMOS_OK, "x");
    job_over(&worker, job.job);
    expect_last(fixture->owner, 0, MEMOS_OK);
    job_free(&job);
    id = generate(fixture->owner, &(const struct wish){.deadline_ms = 30});
    job = job_take(&worker);
    uint64_t next = generate(fixture->owner, &plain);
    for (bool ended = false; !ended;) {
        struct memos_message *message = NULL;
        struct memos_error err;
        ended = memos_client_receive(fixture->owner, 50, &message, &err) == MEMOS_OK;
        if (ended) {
            assert_int_equal(memos_message_reply(message)->id, id);
            assert_int_equal(memos_message_reply(message)->status, MEMOS_DEADLINE);
        }
        memos_message_free(&message);
    }
    struct memos_message *told = worker_next(&worker);
    assert_int_equal(memos_message_reply(told)->body_case, MEMOS__REPLY__BODY_JOB_CANCEL);
    memos_message_free(&told);
    job_token(&worker, job.job, "late");
    worker_has_nothing(&worker, 30);
    expect_silence(fixture->owner, 0);
    job_over(&worker, job.job);
    job_free(&job);
    job_do(&worker);
    expect_last(fixture->owner, next, MEMOS_OK);
    worker_end(&worker);
}

static void test_cancel(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    worker_plain(fixture, &worker, 1);
    uint64_t running = generate(fixture->owner, &plain), waiting = generate(fixture->owner, &plain);
    struct fake_job job = job_take(&worker);
    cancel(fixture->owner, waiting);
    expect_last(fixture->owner, waiting, MEMOS_CANCELLED);
    job_token(&worker, job.job, "a");
    expect_token(fixture->owner, running, "a");
    cancel(fixture->owner, running);
    struct memos_message *told = worker_next(&worker);
    assert_int_equal(memos_message_reply(told)->body_case, MEMOS__REPLY__BODY_JOB_CANCEL);
    assert_memory_equal(
        memos_message_reply(told)->job_cancel->ticket.data, job.job->ticket.data, 16);
    memos_message_free(&told);
    job_token(&worker, job.job, "b"); /* not wanted any more */
    job_finish(&worker, job.job, MEMOS_CANCELLED, "stopped by the worker");
    job_over(&worker, job.job);
    expect_words(fixture->owner, running, MEMOS_CANCELLED, "stopped by the worker");
    job_free(&job);

    /* A worker that does not listen does not keep the client waiting. */
    running = generate(fixture->owner, &plain);
    job = job_take(&worker);
    cancel(fixture->owner, running);
    for (int i = 0; i < 30; i++) {
        struct memos_message *message = NULL;
        struct memos_error err;
        if (memos_client_receive(fixture->owner, 100, &message, &err) == MEMOS_OK) {
            assert_int_equal(memos_message_reply(message)->status, MEMOS_CANCELLED);
            running = 0;
        }
        memos_message_free(&message);
    }
    assert_int_equal(running, 0);
    job_free(&job);
    worker_end(&worker);
}

/* A client with a thousand jobs holds up another one's for one. */
static void test_fair(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    struct memos_client *greedy = another(fixture), *modest = another(fixture);
    worker_plain(fixture, &worker, 1);
    for (int i = 0; i < 1000; i++) {
        (void)generate(greedy, &(const struct wish){.priority = 255, .prompt = "greedy"});
    }
    struct fake_job job = job_take(&worker);
    (void)generate(modest, &(const struct wish){.priority = 1, .prompt = "modest"});
    (void)generate(modest, &(const struct wish){.priority = 9, .prompt = "first"});
    settle(greedy);
    settle(modest);
    int before = 0;
    for (bool served = false; !served; before++) {
        job_finish(&worker, job.job, MEMOS_OK, "x");
        job_over(&worker, job.job);
        job_free(&job);
        job = job_take(&worker);
        struct memos_bytes prompt = memos_message_frame(job.message, 1);
        served = !memos_bytes_equal(prompt, memos_bytes_of("greedy"));
        if (served) {
            assert_text(prompt, "first"); /* its own more urgent one */
        }
    }
    assert_true(before <= 2);
    job_free(&job);
    worker_end(&worker);
    memos_client_close(&greedy);
    memos_client_close(&modest);
}

static void test_priority(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    worker_plain(fixture, &worker, 1);
    (void)generate(fixture->owner, &plain);
    (void)generate(fixture->owner, &(const struct wish){.prompt = "third"});
    (void)generate(fixture->owner, &(const struct wish){.prompt = "fourth", .priority = 1});
    (void)generate(fixture->owner, &(const struct wish){.prompt = "first", .priority = 200});
    (void)generate(fixture->owner, &(const struct wish){.prompt = "second", .priority = 200});
    assert_int_equal((int)metric(fixture, "memos_worker_jobs_waiting"), 4);
    job_do(&worker);
    static const char *const order[] = {"first", "second", "third", "fourth"};
    for (size_t i = 0; i < 4; i++) {
        struct fake_job job = job_take(&worker);
        assert_text(memos_message_frame(job.message, 1), order[i]);
        job_finish(&worker, job.job, MEMOS_OK, "x");
        job_over(&worker, job.job);
        job_free(&job);
    }
    worker_end(&worker);
}

/* ---- whom it goes to ---- */

/* A worker hears of what is forgotten, before who asked for it does, and of nothing else. */
static void test_forgotten(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    const struct memos_id id = put_text(fixture->owner, "mine", "Bo eats no nuts.", NULL);
    ProtobufCBinaryData own = {.len = 16, .data = (uint8_t *)(uintptr_t)id.bytes};
    Memos__Forget body = MEMOS__FORGET__INIT;
    Memos__Request request;
    worker_plain(fixture, &worker, 1);
    body.space = (char[]){"mine"};
    body.ids = &own;
    body.n_ids = 1;
    for (int dry = 1; dry >= 0; dry--) {
        body.dry_run = dry;
        REQUEST(request, FORGET, forget, body);
        struct answer answer = ask(fixture->owner, &request, NULL);
        assert_int_equal(answer.status, MEMOS_OK);
        answer_free(&answer);
        if (dry) {
            worker_has_nothing(&worker, 30);
        }
    }
    struct memos_message *told = worker_next(&worker);
    assert_int_equal(memos_message_reply(told)->body_case, MEMOS__REPLY__BODY_WORKER_FORGET);
    assert_string_equal(memos_message_reply(told)->worker_forget->space, "mine");
    memos_message_free(&told);
    worker_end(&worker);
}

static void test_warm(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker first = {0}, second = {0};
    struct fake_job job;
    const struct wish in_a = {.space = "a"}, in_b = {.space = "b"};
    worker_plain(fixture, &first, 8);
    worker_plain(fixture, &second, 8);
    (void)generate(fixture->owner, &plain);
    (void)generate(fixture->owner, &plain); /* the less loaded one gets it */
    job = job_take(&first);
    job_free(&job);
    job = job_take(&second);
    job_free(&job);

    worker_heartbeat(&second, "a");
    settle(second.client);
    for (int i = 0; i < 3; i++) {
        (void)generate(fixture->owner, &in_a);
        job = job_take(&second);
        job_free(&job);
    }
    /* Who has worked for a space once gets it again, although others have less to do. */
    (void)generate(fixture->owner, &in_b);
    job = job_take(&first);
    job_free(&job);
    (void)generate(fixture->owner, &in_b);
    job = job_take(&first);
    job_free(&job);
    worker_end(&first);
    worker_end(&second);
}

/* ---- losing workers ---- */

static void test_lost_untold(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker first = {0}, second = {0};
    worker_plain(fixture, &first, 1);
    uint64_t id = generate(fixture->owner, &plain);
    struct fake_job job = job_take(&first);
    worker_plain(fixture, &second, 1);
    worker_end(&first);
    job_free(&job);
    job = job_take(&second);
    assert_int_equal(job.job->attempt, 2);
    job_finish(&second, job.job, MEMOS_OK, "x");
    expect_last(fixture->owner, id, MEMOS_OK);
    assert_int_equal((int)metric(fixture, "memos_worker_jobs_retried_total"), 1);
    job_free(&job);
    worker_end(&second);
}

static void test_lost_told(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker first = {0}, second = {0};
    worker_plain(fixture, &first, 1);
    uint64_t id = generate(fixture->owner, &plain);
    struct fake_job job = job_take(&first);
    worker_plain(fixture, &second, 1);
    job_token(&first, job.job, "a");
    job_token(&first, job.job, "b");
    expect_token(fixture->owner, id, "a");
    expect_token(fixture->owner, id, "b");
    worker_end(&first);
    expect_words(fixture->owner, id, MEMOS_UNAVAILABLE, "fake/1 was lost after 2 tokens");
    worker_has_nothing(&second, 50);
    job_free(&job);
    worker_end(&second);
}

/* The last worker that has the model takes what waits with it. */
static void test_lost_last(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    worker_plain(fixture, &worker, 1);
    uint64_t id = generate(fixture->owner, &plain);
    uint64_t waiting = generate(fixture->owner, &plain);
    struct fake_job job = job_take(&worker);
    settle(fixture->owner);
    worker_end(&worker);
    expect_words(fixture->owner, id, MEMOS_UNAVAILABLE, "before its first token");
    expect_words(fixture->owner, waiting, MEMOS_UNAVAILABLE, "has gone");
    job_free(&job);
}

static void test_lost_thrice(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker workers[4] = {{0}};
    uint64_t id = 0;
    for (size_t i = 0; i < 4; i++) {
        worker_plain(fixture, &workers[i], 1);
    }
    id = generate(fixture->owner, &plain);
    for (size_t lost = 0; lost < 3; lost++) {
        bool taken = false;
        for (size_t i = 0; !taken; i = (i + 1) % 4) {
            struct memos_message *message = NULL;
            struct memos_error err;
            if (workers[i].client &&
                memos_client_receive(workers[i].client, 10, &message, &err) == MEMOS_OK) {
                taken = memos_message_reply(message)->body_case == MEMOS__REPLY__BODY_JOB;
            }
            memos_message_free(&message);
            if (taken) {
                worker_end(&workers[i]);
            }
        }
    }
    expect_words(fixture->owner, id, MEMOS_UNAVAILABLE, "3 workers were lost");
    for (size_t i = 0; i < 4; i++) {
        worker_end(&workers[i]);
    }
}

/* A worker that is there and says nothing is none. When it comes to, it is told to announce itself
 * again. */
static void test_silent(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    worker_plain(fixture, &worker, 1);
    uint64_t id = generate(fixture->owner, &plain);
    struct fake_job job = job_take(&worker);
    expect_last(fixture->owner, id, MEMOS_UNAVAILABLE);
    struct memos_message *told = worker_next(&worker);
    assert_int_equal(memos_message_reply(told)->id, worker.announced);
    assert_int_equal(memos_message_reply(told)->status, MEMOS_UNAVAILABLE);
    memos_message_free(&told);
    job_token(&worker, job.job, "late");
    expect_last(worker.client, 0, MEMOS_UNAVAILABLE);
    worker_heartbeat(&worker, NULL);
    told = worker_next(&worker);
    assert_int_equal(memos_message_reply(told)->body_case, MEMOS__REPLY__BODY_WORKER_PING);
    assert_true(memos_message_reply(told)->worker_ping->announce_again);
    memos_message_free(&told);
    job_free(&job);
    worker_plain(fixture, &worker, 1);
    id = generate(fixture->owner, &plain);
    job_do(&worker);
    expect_last(fixture->owner, id, MEMOS_OK);
    worker_end(&worker);
}

/* Announcing again begins anew: what it had is taken from it. */
static void test_announced_again(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    worker_plain(fixture, &worker, 2);
    uint64_t told = generate(fixture->owner, &plain), untold = generate(fixture->owner, &plain);
    struct fake_job first = job_take(&worker), second = job_take(&worker);
    job_token(&worker, first.job, "a");
    expect_token(fixture->owner, told, "a");
    struct fake_worker again = {0};
    memcpy(again.instance, worker.instance, sizeof again.instance);
    worker_plain(fixture, &again, 2);
    expect_words(fixture->owner, told, MEMOS_UNAVAILABLE, "after 1 tokens");
    for (int i = 0; i < 2; i++) {
        struct memos_message *message = worker_next(&again);
        const Memos__Reply *reply = memos_message_reply(message);
        assert_int_equal(reply->body_case, MEMOS__REPLY__BODY_JOB_CANCEL);
        assert_true(memcmp(reply->job_cancel->ticket.data, first.job->ticket.data, 16) == 0 ||
                    memcmp(reply->job_cancel->ticket.data, second.job->ticket.data, 16) == 0);
        memos_message_free(&message);
    }
    struct fake_job job = job_take(&again);
    assert_int_equal(job.job->attempt, 2);
    job_finish(&again, second.job, MEMOS_OK, "of the old ticket");
    expect_last(again.client, 0, MEMOS_DENIED);
    job_finish(&again, job.job, MEMOS_OK, "x");
    expect_last(fixture->owner, untold, MEMOS_OK);
    assert_int_equal((int)metric(fixture, "memos_workers"), 1);
    job_free(&first);
    job_free(&second);
    job_free(&job);
    worker_end(&worker);
    worker_end(&again);
}

static void test_restart(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    struct memos_client *client = another(fixture);
    worker_plain(fixture, &worker, 1);
    uint64_t running = generate(client, &plain), waiting = generate(client, &plain);
    struct fake_job job = job_take(&worker);
    settle(client);
    fixture_stop(fixture);
    for (int i = 0; i < 2; i++) {
        struct answer answer = expect(client, 0, MEMOS_UNAVAILABLE);
        assert_true(answer.reply->id == running || answer.reply->id == waiting);
        assert_non_null(strstr(answer.reply->message, "going down"));
        answer_free(&answer);
    }
    bool ended = false;
    while (!ended) {
        struct memos_message *message = worker_next(&worker);
        ended = memos_message_reply(message)->status == MEMOS_UNAVAILABLE;
        memos_message_free(&message);
    }
    fixture_start(fixture, "");
    struct memos_message *message = NULL;
    for (int i = 0; !message && i < 100; i++) { /* until it is connected again */
        struct memos_error err;
        Memos__WorkerHeartbeat body = MEMOS__WORKER_HEARTBEAT__INIT;
        Memos__Request request;
        uint64_t id;
        body.instance.data = worker.instance;
        body.instance.len = sizeof worker.instance;
        REQUEST(request, WORKER_HEARTBEAT, worker_heartbeat, body);
        (void)(memos_client_send(worker.client, &request, NULL, 0, &id, &err) == MEMOS_OK);
        (void)(memos_client_receive(worker.client, 50, &message, &err) == MEMOS_OK);
    }
    assert_non_null(message);
    assert_true(memos_message_reply(message)->worker_ping->announce_again);
    memos_message_free(&message);
    job_free(&job);
    worker_end(&worker);
    memos_client_close(&client);
}

/* ---- draining ---- */

static void test_drain(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    Memos__WorkerDrain body = MEMOS__WORKER_DRAIN__INIT;
    Memos__Request request;
    struct memos_client *client = another(fixture);
    worker_plain(fixture, &worker, 1);
    uint64_t running = generate(client, &plain), waiting = generate(client, &plain);
    struct fake_job job = job_take(&worker);

    body.id = (ProtobufCBinaryData){.len = 3, .data = (uint8_t[]){1, 2, 3}};
    REQUEST(request, WORKER_DRAIN, worker_drain, body);
    struct answer answer = ask(fixture->owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_NOT_FOUND);
    answer_free(&answer);
    body.id = (ProtobufCBinaryData){.len = 3, .data = worker.instance};
    REQUEST(request, WORKER_DRAIN, worker_drain, body);
    answer = ask(fixture->owner, &request, NULL);
    assert_int_equal(answer.status, MEMOS_OK);
    answer_free(&answer);
    expect_last(client, waiting, MEMOS_UNAVAILABLE);
    expect_words(client, generate(client, &plain), MEMOS_UNAVAILABLE, "drained");
    job_finish(&worker, job.job, MEMOS_OK, "x");
    expect_last(client, running, MEMOS_OK);
    worker_has_nothing(&worker, 20); /* it may still write */
    job_over(&worker, job.job);
    struct memos_message *told = worker_next(&worker);
    assert_int_equal(memos_message_reply(told)->body_case, MEMOS__REPLY__BODY_WORKER_STOP);
    memos_message_free(&told);
    job_free(&job);
    worker_end(&worker);
    memos_client_close(&client);
}

/* ---- what workers say of jobs ---- */

static void expect_refused(struct fake_worker *worker, const Memos__Job *job, Memos__Reply *reply,
    enum memos_status status)
{
    job_update(worker, job, reply, memos_bytes_make(NULL, 0));
    struct memos_message *told = worker_next(worker);
    assert_int_equal(memos_message_reply(told)->status, status);
    memos_message_free(&told);
}

static void test_nonsense_told(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker first = {0}, second = {0};
    Memos__Cubes cubes = MEMOS__CUBES__INIT;
    Memos__Generated generated = MEMOS__GENERATED__INIT;
    Memos__Reply good = MEMOS__REPLY__INIT, reply;
    worker_plain(fixture, &first, 2);
    uint64_t id = generate(fixture->owner, &plain);
    struct fake_job job = job_take(&first);
    worker_plain(fixture, &second, 2);

    expect_refused(&second, job.job, &good, MEMOS_DENIED); /* another worker's */
    Memos__Job invented = *job.job;
    uint8_t ticket[16] = {1, 2, 3};
    invented.ticket.data = ticket;
    expect_refused(&first, &invented, &good, MEMOS_DENIED);
    invented.ticket.len = 5;
    expect_refused(&first, &invented, &good, MEMOS_INVALID);
    expect_refused(&first, job.job, &good, MEMOS_INVALID); /* an end that says nothing */
    reply = good;
    reply.status = 999;
    expect_refused(&first, job.job, &reply, MEMOS_INVALID);
    reply = good;
    reply.body_case = MEMOS__REPLY__BODY_CUBES;
    reply.cubes = &cubes;
    expect_refused(&first, job.job, &reply, MEMOS_INVALID);
    reply.body_case = MEMOS__REPLY__BODY_GENERATED;
    reply.generated = &generated;
    reply.more = 1;
    expect_refused(&first, job.job, &reply, MEMOS_INVALID);
    reply.more = 0;
    generated.frame = 7; /* none came */
    expect_refused(&first, job.job, &reply, MEMOS_INVALID);

    job_finish(&first, job.job, MEMOS_OK, "x");
    expect_last(fixture->owner, id, MEMOS_OK);
    reply.body_case = MEMOS__REPLY__BODY__NOT_SET;
    reply.status = MEMOS_INTERNAL;
    expect_refused(&first, job.job, &reply, MEMOS_CONFLICT); /* it has ended */
    job_over(&first, job.job);
    expect_refused(&first, job.job, &reply, MEMOS_DENIED);
    expect_silence(fixture->owner, 20);

    /* A job that its worker lets go without a word. */
    worker_end(&second);
    job_free(&job);
    id = generate(fixture->owner, &plain);
    job = job_take(&first);
    job_over(&first, job.job);
    expect_words(fixture->owner, id, MEMOS_INTERNAL, "without an answer");
    job_free(&job);
    worker_end(&first);
}

/* ---- clients that are gone, or do not listen ---- */

static void test_client_gone(void **state)
{
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    struct memos_client *client = another(fixture);
    worker_plain(fixture, &worker, 1);
    uint64_t id = generate(client, &plain);
    struct fake_job job = job_take(&worker);
    job_token(&worker, job.job, "a");
    expect_token(client, id, "a");
    memos_client_close(&client);
    struct memos_message *told = NULL;
    for (int i = 0; !told && i < 500; i++) {
        struct memos_error err;
        job_token(&worker, job.job, "b");
        if (memos_client_receive(worker.client, 10, &told, &err) == MEMOS_OK &&
            memos_message_reply(told)->body_case == MEMOS__REPLY__BODY_WORKER_PING) {
            memos_message_free(&told);
        }
    }
    assert_non_null(told);
    assert_int_equal(memos_message_reply(told)->body_case, MEMOS__REPLY__BODY_JOB_CANCEL);
    memos_message_free(&told);
    job_finish(&worker, job.job, MEMOS_CANCELLED, "cancelled");
    job_over(&worker, job.job);
    settle(worker.client);
    assert_int_equal((int)metric(fixture, "memos_worker_jobs_running"), 0);
    job_free(&job);
    worker_end(&worker);
}

/* Tokens for a client that stops reading do not pile up: its job is cancelled. */
static void test_client_stuck(void **state)
{
    enum { TOKEN = 4000, TOKENS_MAX = 20000 };
    struct fixture *fixture = *state;
    struct fake_worker worker = {0};
    struct memos_client *client = another(fixture);
    char text[TOKEN + 1];
    memset(text, 'x', TOKEN);
    text[TOKEN] = '\0';
    worker_plain(fixture, &worker, 1);
    uint64_t id = generate(client, &plain);
    struct fake_job job = job_take(&worker);
    bool cancelled = false;
    for (int i = 0; !cancelled && i < TOKENS_MAX; i++) {
        struct memos_message *message = NULL;
        struct memos_error err;
        job_token(&worker, job.job, text);
        if (memos_client_receive(worker.client, i % 100 == 0 ? 1 : 0, &message, &err) == MEMOS_OK) {
            cancelled = memos_message_reply(message)->body_case == MEMOS__REPLY__BODY_JOB_CANCEL;
        }
        memos_message_free(&message);
    }
    assert_true(cancelled);
    job_finish(&worker, job.job, MEMOS_CANCELLED, "its client did not listen");
    job_over(&worker, job.job);
    /* When it reads again it gets what had been sent, and how it ended. */
    for (bool more = true; more;) {
        struct answer answer = {.message = next_message(client)};
        answer.reply = memos_message_reply(answer.message);
        assert_int_equal(answer.reply->id, id);
        more = answer.reply->more;
        assert_true(more || answer.reply->status == MEMOS_CANCELLED);
        answer_free(&answer);
    }
    job_free(&job);
    worker_end(&worker);
    memos_client_close(&client);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_a_job),
        CASE(test_large_frames),
        CASE(test_nonsense_announced),
        CASE(test_rights),
        CASE(test_right_taken),
        CASE(test_models),
        CASE(test_queue_bound),
        CASE(test_deadline),
        CASE(test_cancel),
        CASE(test_fair),
        CASE(test_priority),
        CASE(test_forgotten),
        CASE(test_warm),
        CASE(test_lost_untold),
        CASE(test_lost_told),
        CASE(test_lost_last),
        CASE(test_lost_thrice),
        cmocka_unit_test_setup_teardown(test_silent, start_strict, end),
        CASE(test_announced_again),
        CASE(test_restart),
        CASE(test_drain),
        CASE(test_nonsense_told),
        CASE(test_client_gone),
        CASE(test_client_stuck),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
