/* A worker whose broker says what it likes: jobs that are none, the same twice, silence, nothing
 * known any more; and how a worker ends.
 *
 * If this failed, a user would wait for an answer that never comes, or a worker would die of
 * somebody's nonsense and take everybody's answers with it. */
#include "tests/worker/desk.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct scene {
    struct tiny_host tiny;
    struct worker_host *host;
    struct desk desk;
    struct running running;
};

enum { LONG = 1 << 16 /* tokens: more than are made while a test looks elsewhere */ };

static void scene_begin(struct scene *scene)
{
    const struct tiny_host_options options = {.context = LONG};
    memset(scene, 0, sizeof *scene);
    tiny_host_make(&scene->tiny, &options);
    desk_open(&scene->desk, scene->tiny.folder);
    scene->host = &scene->tiny.host;
    const struct worker_options worker = {
        .client.address = scene->desk.address,
        .name = "test",
        .hosts = &scene->host,
        .hosts_count = 1,
        .jobs_max = 4,
        .signal_fd = -1,
    };
    running_start(&scene->running, &worker);
    desk_welcome(&scene->desk);
}

static void scene_end(struct scene *scene)
{
    worker_stop(scene->running.worker);
    assert_int_equal(running_end(&scene->running), MEMOS_OK);
    desk_close(&scene->desk);
    tiny_host_free(&scene->tiny);
}

/* A Generate of the text in frame 1. */
struct generate_job {
    uint8_t ticket[16];
    Memos__Job job;
    Memos__Generate generate;
    Memos__Sampling sampling;
    Memos__TokenBias bias, *biases[1];
};

static void job_make(struct generate_job *out, uint8_t number, uint32_t tokens)
{
    memset(out->ticket, number, sizeof out->ticket);
    memos__job__init(&out->job);
    memos__generate__init(&out->generate);
    out->job.ticket.data = out->ticket;
    out->job.ticket.len = sizeof out->ticket;
    out->job.attempt = 1;
    out->job.body_case = MEMOS__JOB__BODY_GENERATE;
    out->job.generate = &out->generate;
    out->generate.prompt_frame = 1;
    out->generate.max_tokens = tokens;
    memos__sampling__init(&out->sampling); /* greedy, and the model's own stop is never taken */
    memos__token_bias__init(&out->bias);
    out->bias.id = 2;
    out->bias.bias = -INFINITY;
    out->biases[0] = &out->bias;
    out->sampling.biases = out->biases;
    out->sampling.n_biases = 1;
    out->generate.sampling = &out->sampling;
}

static void give(struct scene *scene, struct generate_job *job, const char *text)
{
    const struct memos_bytes frame = memos_bytes_of(text);
    desk_give(&scene->desk, &job->job, &frame, text ? 1 : 0);
}

/* The job is refused with a status and a word, and given back; the worker lives. */
static void assert_refused(struct scene *scene, const struct generate_job *job, uint32_t status)
{
    const Memos__Reply *reply = desk_last(&scene->desk, job->ticket, NULL);
    assert_int_equal(reply->status, status);
    assert_true(reply->message[0] != '\0');
    desk_over(&scene->desk, job->ticket);
}

static void assert_answers(struct scene *scene, uint8_t number)
{
    struct desk_heard heard = {.text = memos_buffer_make(1 << 16)};
    struct generate_job job;
    job_make(&job, number, 5);
    give(scene, &job, "a text");
    const Memos__Reply *reply = desk_last(&scene->desk, job.ticket, &heard);
    assert_int_equal(reply->status, MEMOS_OK);
    assert_int_equal(reply->generated->tokens, heard.count);
    desk_over(&scene->desk, job.ticket);
    memos_buffer_free(&heard.text);
}

/* ---- what is announced ---------------------------------------------------------------------- */

static void it_says_what_it_is(void **unused)
{
    (void)unused;
    struct scene scene;
    scene_begin(&scene);
    const Memos__Request *beat = desk_take(&scene.desk, MEMOS__REQUEST__BODY_WORKER_HEARTBEAT);
    assert_int_equal(beat->worker_heartbeat->instance.len, 16);
    assert_true(beat->worker_heartbeat->pages_total > 0);
    assert_answers(&scene, 1);
    scene_end(&scene);
}

/* ---- jobs that are none --------------------------------------------------------------------- */

static void what_is_missing_is_answered(void **unused)
{
    (void)unused;
    struct scene scene;
    struct generate_job job;
    Memos__ChatMessage message = MEMOS__CHAT_MESSAGE__INIT, *messages[] = {&message};
    scene_begin(&scene);

    job_make(&job, 1, 5);
    job.generate.prompt_frame = 7; /* a frame that is not there */
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_INVALID);

    job_make(&job, 2, 5);
    job.generate.prompt_frame = 0; /* nothing to answer */
    give(&scene, &job, NULL);
    assert_refused(&scene, &job, MEMOS_INVALID);

    job_make(&job, 3, 5);
    job.generate.messages = messages; /* both */
    job.generate.n_messages = 1;
    message.role = (char *)(uintptr_t) "user";
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_INVALID);

    job_make(&job, 4, 5);
    give(&scene, &job, "\xff\xfe"); /* no UTF-8 */
    assert_refused(&scene, &job, MEMOS_INVALID);

    assert_answers(&scene, 5);
    scene_end(&scene);
}

static void absurd_numbers_are_answered(void **unused)
{
    (void)unused;
    struct scene scene;
    struct generate_job job;
    Memos__Sampling sampling = MEMOS__SAMPLING__INIT;
    Memos__TokenBias bias = MEMOS__TOKEN_BIAS__INIT, *biases[] = {&bias, &bias};
    char *stops[] = {(char *)(uintptr_t) ""};
    scene_begin(&scene);

    job_make(&job, 5, UINT32_MAX); /* more than the context */
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_TOO_LARGE);

    job_make(&job, 6, 5);
    job.generate.top_logprobs = UINT32_MAX;
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_INVALID);

    job_make(&job, 7, 5);
    job.generate.sampling = &sampling;
    sampling.temperature = -1.0f;
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_INVALID);

    job_make(&job, 8, 5);
    sampling.temperature = 0.0f;
    sampling.biases = biases; /* two for one token */
    sampling.n_biases = 2;
    job.generate.sampling = &sampling;
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_INVALID);

    job_make(&job, 9, 5);
    job.generate.stops = stops; /* a stop of nothing */
    job.generate.n_stops = 1;
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_INVALID);

    job_make(&job, 10, 5);
    job.generate.model = (char *)(uintptr_t) "another";
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_NOT_FOUND);

    job_make(&job, 11, 5);
    job.job.body_case = MEMOS__JOB__BODY__NOT_SET;
    give(&scene, &job, "a");
    assert_refused(&scene, &job, MEMOS_UNSUPPORTED);

    assert_answers(&scene, 12);
    scene_end(&scene);
}

/* Without a ticket of its own nothing can be said about a job, and nothing is. */
static void tickets_are_looked_at(void **unused)
{
    (void)unused;
    struct scene scene;
    struct generate_job job;
    scene_begin(&scene);
    job_make(&job, 1, 5);
    job.job.ticket.len = 15;
    give(&scene, &job, "a");
    job.job.ticket.len = 0;
    give(&scene, &job, "a");
    assert_answers(&scene, 2);
    job_make(&job, 3, 0); /* until the context is full */
    give(&scene, &job, "a");
    give(&scene, &job, "b"); /* the same ticket again */
    desk_cancel(&scene.desk, job.ticket);
    const Memos__Reply *reply = desk_last(&scene.desk, job.ticket, NULL);
    assert_int_equal(reply->status, MEMOS_CANCELLED);
    desk_over(&scene.desk, job.ticket);
    assert_answers(&scene, 4);
    scene_end(&scene);
}

/* More than it said that it takes are refused, not queued without end. */
static void there_is_an_end_to_jobs(void **unused)
{
    (void)unused;
    enum { MANY = 200 };
    struct scene scene;
    struct generate_job job;
    size_t over = 0, busy = 0;
    scene_begin(&scene);
    for (unsigned i = 0; i < MANY; i++) {
        job_make(&job, (uint8_t)i, 0);
        give(&scene, &job, "a");
    }
    for (unsigned i = 0; i < MANY; i++) {
        job_make(&job, (uint8_t)i, 0);
        desk_cancel(&scene.desk, job.ticket);
    }
    while (over < MANY) {
        const Memos__Request *request = NULL;
        do {
            request = desk_any(&scene.desk);
        } while (request->body_case == MEMOS__REQUEST__BODY_WORKER_HEARTBEAT);
        if (request->body_case == MEMOS__REQUEST__BODY_JOB_OVER) {
            over++;
        } else {
            assert_int_equal(request->body_case, MEMOS__REQUEST__BODY_JOB_UPDATE);
            busy += request->job_update->reply->status == MEMOS_BUSY;
        }
    }
    assert_true(busy > 0 && busy < MANY);
    assert_answers(&scene, 1);
    scene_end(&scene);
}

/* ---- the broker forgets, or is silent ------------------------------------------------------- */

static void it_announces_again_when_it_is_not_known(void **unused)
{
    (void)unused;
    struct scene scene;
    struct generate_job job;
    scene_begin(&scene);
    job_make(&job, 1, 0);
    give(&scene, &job, "a");
    (void)desk_take(&scene.desk, MEMOS__REQUEST__BODY_JOB_UPDATE);
    /* said until it is heard: what comes right after an announcement may be about the one before */
    const Memos__Request *request;
    do {
        desk_ping(&scene.desk, true);
        request = desk_any(&scene.desk);
    } while (request->body_case != MEMOS__REQUEST__BODY_WORKER_ANNOUNCE);
    desk_welcome_taken(&scene.desk);
    /* nothing more is said of the job that was before */
    assert_answers(&scene, 2);
    scene_end(&scene);
}

static void it_announces_again_when_nothing_is_heard(void **unused)
{
    (void)unused;
    struct scene scene;
    scene_begin(&scene);
    desk_welcome(&scene.desk); /* takes the next announcement */
    assert_answers(&scene, 1);
    scene_end(&scene);
}

static void jobs_of_before_are_dropped_when_denied(void **unused)
{
    (void)unused;
    struct scene scene;
    struct generate_job job;
    const Memos__Request *request;
    scene_begin(&scene);
    job_make(&job, 1, 0);
    give(&scene, &job, "a");
    do { /* silence: the job goes on meanwhile, and the worker announces itself again */
        request = desk_any(&scene.desk);
    } while (request->body_case != MEMOS__REQUEST__BODY_WORKER_ANNOUNCE);
    desk_welcome_taken(&scene.desk);
    Memos__Reply denied = MEMOS__REPLY__INIT;
    denied.status = MEMOS_DENIED;
    desk_say_last(&scene.desk, &denied, 2); /* of some update */
    do {
        request = desk_any(&scene.desk);
    } while (request->body_case == MEMOS__REQUEST__BODY_JOB_UPDATE);
    assert_int_equal(request->body_case, MEMOS__REQUEST__BODY_WORKER_HEARTBEAT);
    assert_answers(&scene, 2);
    scene_end(&scene);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void a_refusal_ends_it(void **unused)
{
    (void)unused;
    struct scene scene;
    const struct tiny_host_options options = {.context = LONG};
    memset(&scene, 0, sizeof scene);
    tiny_host_make(&scene.tiny, &options);
    desk_open(&scene.desk, scene.tiny.folder);
    scene.host = &scene.tiny.host;
    const struct worker_options worker = {.client.address = scene.desk.address,
        .hosts = &scene.host,
        .hosts_count = 1,
        .signal_fd = -1};
    running_start(&scene.running, &worker);
    const Memos__Request *request = desk_take(&scene.desk, MEMOS__REQUEST__BODY_WORKER_ANNOUNCE);
    assert_int_equal(request->worker_announce->n_models, 1);
    assert_string_equal(request->worker_announce->models[0]->name, "tiny");
    assert_string_equal(request->worker_announce->models[0]->kv, "f32");
    assert_string_equal(request->worker_announce->models[0]->template_, "chatml");
    assert_int_equal(request->worker_announce->models[0]->context, LONG);
    Memos__Reply denied = MEMOS__REPLY__INIT;
    denied.status = MEMOS_DENIED;
    denied.message = (char *)(uintptr_t) "no admin on _workers";
    desk_say_last(&scene.desk, &denied, request->id);
    assert_int_equal(running_end(&scene.running), MEMOS_DENIED);
    assert_non_null(strstr(scene.running.err.text, "no admin on _workers"));
    desk_close(&scene.desk);
    tiny_host_free(&scene.tiny);
}

/* Drained: what it has is finished, and only then it goes. */
static void draining_finishes_jobs(void **unused)
{
    (void)unused;
    struct scene scene;
    struct generate_job job;
    scene_begin(&scene);
    job_make(&job, 1, 40);
    give(&scene, &job, "a text");
    (void)desk_take(&scene.desk, MEMOS__REQUEST__BODY_JOB_UPDATE);
    worker_drain(scene.running.worker);
    bool is_last = false;
    while (!is_last) {
        const Memos__Request *request = desk_any(&scene.desk);
        is_last = request->body_case == MEMOS__REQUEST__BODY_JOB_UPDATE &&
                  !request->job_update->reply->more;
        if (is_last) {
            assert_int_equal(request->job_update->reply->status, MEMOS_OK);
        }
    }
    desk_stop(&scene.desk);
    assert_int_equal(running_end(&scene.running), MEMOS_OK);
    desk_close(&scene.desk);
    tiny_host_free(&scene.tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_it_is),
        cmocka_unit_test(what_is_missing_is_answered),
        cmocka_unit_test(absurd_numbers_are_answered),
        cmocka_unit_test(tickets_are_looked_at),
        cmocka_unit_test(there_is_an_end_to_jobs),
        cmocka_unit_test(it_announces_again_when_it_is_not_known),
        cmocka_unit_test(it_announces_again_when_nothing_is_heard),
        cmocka_unit_test(jobs_of_before_are_dropped_when_denied),
        cmocka_unit_test(a_refusal_ends_it),
        cmocka_unit_test(draining_finishes_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
