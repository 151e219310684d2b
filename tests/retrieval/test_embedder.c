/* One encoder shared by many threads.
 *
 * If these failed, a question would wait behind an import, a search would be given the vector of
 * another text, a broken endpoint would stop the broker, or its end would hang. */
#include "retrieval/embedder.h"
#include "tests/retrieval/fake_paramem.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct retrieval_embedder *make(struct retrieval_embedder_options options)
{
    struct retrieval_encoder *encoder = fake_encoder();
    struct retrieval_embedder *embedder = NULL;
    struct memos_error err = {0};
    options.clock = options.clock.mono_us ? options.clock : memos_clock_system();
    assert_int_equal(retrieval_embedder_create(&encoder, &options, &embedder, &err), MEMOS_OK);
    assert_null(encoder);
    return embedder;
}

/* ---- jobs of a test ------------------------------------------------------------------------- */

enum { TEXTS_MAX = 64 };

struct asked {
    struct memos_bytes texts[TEXTS_MAX];
    struct retrieval_embedder_job job;
    float out[TEXTS_MAX * FAKE_DIMS];
    pthread_mutex_t lock;
    pthread_cond_t ended;
    int calls;
    enum memos_status status;
    struct memos_error err;
};

static void on_end(void *self, enum memos_status status, const struct memos_error *err)
{
    struct asked *asked = self;
    (void)pthread_mutex_lock(&asked->lock);
    asked->calls++;
    asked->status = status;
    asked->err = err ? *err : (struct memos_error){0};
    (void)pthread_cond_signal(&asked->ended);
    (void)pthread_mutex_unlock(&asked->lock);
}

/* words: texts parted by blanks. */
static void ask_init(struct asked *asked, enum paramem_role role, const char *words)
{
    *asked = (struct asked){.calls = 0};
    (void)pthread_mutex_init(&asked->lock, NULL);
    (void)pthread_cond_init(&asked->ended, NULL);
    asked->job = (struct retrieval_embedder_job){
        .texts = asked->texts, .role = role, .out = asked->out, .done = on_end, .self = asked};
    for (const char *at = words; *at; at += at[0] == ' ') {
        size_t size = strcspn(at, " ");
        asked->texts[asked->job.count++] = memos_bytes_make(at, size);
        at += size;
    }
}

static enum memos_status wait_end(struct asked *asked)
{
    (void)pthread_mutex_lock(&asked->lock);
    while (asked->calls == 0) {
        (void)pthread_cond_wait(&asked->ended, &asked->lock);
    }
    assert_int_equal(asked->calls, 1);
    (void)pthread_mutex_unlock(&asked->lock);
    return asked->status;
}

static void submit(struct retrieval_embedder *embedder, struct asked *asked)
{
    struct memos_error err = {0};
    assert_int_equal(retrieval_embedder_submit(embedder, &asked->job, &err), MEMOS_OK);
}

static void expect_vectors(const struct asked *asked)
{
    float wanted[FAKE_DIMS];
    for (size_t i = 0; i < asked->job.count; i++) {
        fake_vector(asked->texts[i], asked->job.role, wanted);
        assert_memory_equal(asked->out + i * FAKE_DIMS, wanted, sizeof wanted);
    }
}

static struct retrieval_embedder_stats stats_of(struct retrieval_embedder *embedder)
{
    struct retrieval_embedder_stats stats;
    retrieval_embedder_stats(embedder, &stats);
    return stats;
}

/* ---- order --------------------------------------------------------------------------------- */

static void what_waits_is_joined_questions_first(void **state)
{
    struct retrieval_embedder *embedder =
        make((struct retrieval_embedder_options){.piece_texts = 3});
    struct asked first, bulk, later, small, one, two;
    (void)state;

    fake_reset();
    fake_hold();
    ask_init(&first, PARAMEM_PASSAGE, "first");
    ask_init(&bulk, PARAMEM_PASSAGE, "b1 b2 b3 b4 b5");
    ask_init(&later, PARAMEM_PASSAGE, "later");
    later.job.has_time = true;
    ask_init(&small, PARAMEM_PASSAGE, "small");
    ask_init(&one, PARAMEM_QUERY, "one");
    ask_init(&two, PARAMEM_QUERY, "two");
    submit(embedder, &first);
    fake_wait_held();
    submit(embedder, &later);
    submit(embedder, &bulk);
    submit(embedder, &small);
    submit(embedder, &one);
    fake_step(); /* "first" ends; "one" begins */
    fake_wait_held();
    fake_step(); /* "one" ends; the bulk begins */
    fake_wait_held();
    submit(embedder, &two); /* and goes between its pieces */
    fake_release();
    assert_int_equal(wait_end(&first), MEMOS_OK);
    assert_int_equal(wait_end(&one), MEMOS_OK);
    assert_int_equal(wait_end(&two), MEMOS_OK);
    assert_int_equal(wait_end(&bulk), MEMOS_OK);
    assert_int_equal(wait_end(&small), MEMOS_OK);
    assert_int_equal(wait_end(&later), MEMOS_OK);
    assert_string_equal(fake_log(), "p:first|q:one|p:b1 b2 b3|q:two|p:b4 b5 small|p:later|");
    expect_vectors(&bulk);
    expect_vectors(&small);
    expect_vectors(&two);
    struct retrieval_embedder_stats stats = stats_of(embedder);
    assert_int_equal(stats.pieces, 6);
    assert_int_equal(stats.joined, 1);
    assert_int_equal(stats.texts, 10);
    assert_int_equal(stats.jobs, 6);
    assert_int_equal(stats.jobs_now + stats.texts_now + stats.bytes_now, 0);
    retrieval_embedder_destroy(&embedder);
}

static void a_piece_is_bounded_in_bytes(void **state)
{
    struct retrieval_embedder *embedder =
        make((struct retrieval_embedder_options){.piece_bytes = 10});
    struct asked asked;
    (void)state;

    fake_reset();
    ask_init(&asked, PARAMEM_PASSAGE, "aaaa bbbb cccc a-very-long-one dddd eeee");
    submit(embedder, &asked);
    assert_int_equal(wait_end(&asked), MEMOS_OK);
    assert_string_equal(fake_log(), "p:aaaa bbbb|p:cccc|p:a-very-long-one|p:dddd eeee|");
    expect_vectors(&asked);
    retrieval_embedder_destroy(&embedder);
}

/* Questions that never end do not starve what has time. */
static void nothing_waits_for_ever(void **state)
{
    enum { QUESTIONS = 40 };
    struct retrieval_embedder *embedder =
        make((struct retrieval_embedder_options){.piece_texts = 1});
    struct asked first, later, *questions = calloc(QUESTIONS, sizeof *questions);
    char names[QUESTIONS][8];
    (void)state;

    fake_reset();
    fake_hold();
    ask_init(&first, PARAMEM_PASSAGE, "first");
    ask_init(&later, PARAMEM_PASSAGE, "later");
    later.job.has_time = true;
    submit(embedder, &first);
    fake_wait_held();
    submit(embedder, &later);
    for (int i = 0; i < QUESTIONS; i++) {
        snprintf(names[i], sizeof names[i], "q%d", i);
        ask_init(&questions[i], PARAMEM_QUERY, names[i]);
        submit(embedder, &questions[i]);
    }
    fake_release();
    for (int i = 0; i < QUESTIONS; i++) {
        assert_int_equal(wait_end(&questions[i]), MEMOS_OK);
    }
    assert_int_equal(wait_end(&later), MEMOS_OK);
    assert_non_null(strstr(fake_log(), "q:q15|p:later|q:q16|"));
    retrieval_embedder_destroy(&embedder);
    free(questions);
}

/* ---- memory -------------------------------------------------------------------------------- */

static void a_text_asked_again_costs_nothing(void **state)
{
    struct retrieval_embedder *embedder = make((struct retrieval_embedder_options){.jobs_max = 0});
    struct memos_bytes texts[2] = {memos_bytes_of("one"), memos_bytes_of("two")};
    float out[2 * FAKE_DIMS], wanted[FAKE_DIMS];
    struct asked asked;
    (void)state;

    fake_reset();
    assert_false(retrieval_embedder_remembered(embedder, texts, 2, PARAMEM_QUERY, out));
    assert_int_equal(
        retrieval_embedder_run(embedder, texts, 2, PARAMEM_QUERY, out, NULL), MEMOS_OK);
    memset(out, 0, sizeof out);
    assert_int_equal(
        retrieval_embedder_run(embedder, texts, 2, PARAMEM_QUERY, out, NULL), MEMOS_OK);
    fake_vector(texts[1], PARAMEM_QUERY, wanted);
    assert_memory_equal(out + FAKE_DIMS, wanted, sizeof wanted);
    assert_string_equal(fake_log(), "q:one two|");
    /* as a passage it is another vector */
    assert_int_equal(
        retrieval_embedder_run(embedder, texts, 1, PARAMEM_PASSAGE, out, NULL), MEMOS_OK);
    assert_string_equal(fake_log(), "q:one two|p:one|");
    /* in the midst of others */
    ask_init(&asked, PARAMEM_QUERY, "zero one two three");
    submit(embedder, &asked);
    assert_int_equal(wait_end(&asked), MEMOS_OK);
    expect_vectors(&asked);
    ask_init(&asked, PARAMEM_QUERY, "two one");
    submit(embedder, &asked);
    assert_int_equal(wait_end(&asked), MEMOS_OK);
    expect_vectors(&asked);
    assert_string_equal(fake_log(), "q:one two|p:one|q:zero three|");
    assert_int_equal(stats_of(embedder).remembered, 6);
    retrieval_embedder_destroy(&embedder);

    embedder = make((struct retrieval_embedder_options){.forgets = true});
    fake_reset();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            retrieval_embedder_run(embedder, texts, 1, PARAMEM_QUERY, out, NULL), MEMOS_OK);
    }
    assert_string_equal(fake_log(), "q:one|q:one|");
    assert_int_equal(stats_of(embedder).cache_count, 0);
    retrieval_embedder_destroy(&embedder);
}

/* ---- bounds -------------------------------------------------------------------------------- */

static void what_waits_is_bounded(void **state)
{
    struct retrieval_embedder *embedder =
        make((struct retrieval_embedder_options){.jobs_max = 3, .texts_max = 6, .bytes_max = 400});
    struct asked asked[4], long_one;
    struct memos_error err = {0};
    char text[300];
    (void)state;

    fake_reset();
    fake_hold();
    ask_init(&asked[0], PARAMEM_PASSAGE, "a");
    submit(embedder, &asked[0]);
    fake_wait_held();
    ask_init(&asked[1], PARAMEM_PASSAGE, "b c d");
    submit(embedder, &asked[1]);
    /* too many texts, too many bytes */
    ask_init(&asked[2], PARAMEM_PASSAGE, "e f g");
    assert_int_equal(retrieval_embedder_submit(embedder, &asked[2].job, &err), MEMOS_BUSY);
    memset(text, 'x', sizeof text);
    ask_init(&long_one, PARAMEM_QUERY, "long");
    long_one.texts[0] = memos_bytes_make(text, sizeof text);
    assert_int_equal(retrieval_embedder_submit(embedder, &long_one.job, &err), MEMOS_BUSY);
    /* one more job, then too many jobs */
    ask_init(&asked[2], PARAMEM_PASSAGE, "e");
    submit(embedder, &asked[2]);
    ask_init(&asked[3], PARAMEM_QUERY, "f");
    assert_int_equal(retrieval_embedder_submit(embedder, &asked[3].job, &err), MEMOS_BUSY);
    /* never */
    ask_init(&asked[3], PARAMEM_QUERY, "1 2 3 4 5 6 7");
    assert_int_equal(retrieval_embedder_submit(embedder, &asked[3].job, &err), MEMOS_TOO_LARGE);
    long_one.texts[0] = memos_bytes_make(text, SIZE_MAX - 8);
    assert_int_equal(retrieval_embedder_submit(embedder, &long_one.job, &err), MEMOS_TOO_LARGE);
    struct retrieval_embedder_stats stats = stats_of(embedder);
    assert_int_equal(stats.refused, 5);
    assert_int_equal(stats.jobs_now, 3);
    assert_int_equal(stats.texts_now, 5);
    fake_release();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(wait_end(&asked[i]), MEMOS_OK);
    }
    /* there is room again */
    long_one.texts[0] = memos_bytes_make(text, sizeof text);
    submit(embedder, &long_one);
    assert_int_equal(wait_end(&long_one), MEMOS_OK);
    retrieval_embedder_destroy(&embedder);
}

/* ---- ends that are not good ----------------------------------------------------------------- */

static void a_failure_is_of_its_job_alone(void **state)
{
    struct retrieval_embedder *embedder = make((struct retrieval_embedder_options){.jobs_max = 0});
    struct asked first, good, bad, fine, down;
    (void)state;

    fake_reset();
    fake_hold();
    ask_init(&first, PARAMEM_PASSAGE, "first");
    ask_init(&good, PARAMEM_PASSAGE, "g1 g2");
    ask_init(&bad, PARAMEM_PASSAGE, "b1 bad b3");
    ask_init(&fine, PARAMEM_PASSAGE, "f1");
    ask_init(&down, PARAMEM_QUERY, "down");
    submit(embedder, &first);
    fake_wait_held();
    submit(embedder, &good);
    submit(embedder, &bad);
    submit(embedder, &fine);
    fake_release();
    assert_int_equal(wait_end(&good), MEMOS_OK);
    assert_int_equal(wait_end(&fine), MEMOS_OK);
    assert_int_equal(wait_end(&bad), MEMOS_CORRUPT);
    assert_string_equal(bad.err.text, "a bad text");
    expect_vectors(&good);
    expect_vectors(&fine);
    submit(embedder, &down);
    assert_int_equal(wait_end(&down), MEMOS_UNAVAILABLE);
    assert_int_equal(stats_of(embedder).failed, 2);
    /* it lives */
    ask_init(&good, PARAMEM_QUERY, "again");
    submit(embedder, &good);
    assert_int_equal(wait_end(&good), MEMOS_OK);
    retrieval_embedder_destroy(&embedder);
}

/* A model that is down is not asked again for each job of a piece, and the rest of a long job is
 * not tried. */
static void a_model_that_is_down_is_asked_once(void **state)
{
    struct retrieval_embedder *embedder =
        make((struct retrieval_embedder_options){.piece_texts = 2});
    struct asked first, down, with_it;
    float out[FAKE_DIMS];
    struct memos_bytes text = memos_bytes_of("down");
    struct memos_error err = {0};
    (void)state;

    fake_reset();
    fake_hold();
    ask_init(&first, PARAMEM_PASSAGE, "first");
    ask_init(&with_it, PARAMEM_PASSAGE, "with");
    ask_init(&down, PARAMEM_PASSAGE, "down d2 d3 d4");
    submit(embedder, &first);
    fake_wait_held();
    submit(embedder, &with_it);
    submit(embedder, &down);
    fake_release();
    assert_int_equal(wait_end(&with_it), MEMOS_UNAVAILABLE);
    assert_int_equal(wait_end(&down), MEMOS_UNAVAILABLE);
    assert_string_equal(fake_log(), "p:first|p:with down|");
    assert_int_equal(
        retrieval_embedder_run(embedder, &text, 1, PARAMEM_QUERY, out, &err), MEMOS_UNAVAILABLE);
    assert_string_equal(err.text, "the model is down");
    assert_int_equal(retrieval_embedder_run_later(embedder, &text, 1, PARAMEM_QUERY, out, NULL),
        MEMOS_UNAVAILABLE);
    retrieval_embedder_destroy(&embedder);
}

static void jobs_are_taken_back(void **state)
{
    struct retrieval_embedder *embedder =
        make((struct retrieval_embedder_options){.piece_texts = 2});
    struct asked running, waiting, last;
    (void)state;

    fake_reset();
    fake_hold();
    ask_init(&running, PARAMEM_PASSAGE, "r1 r2 r3 r4");
    ask_init(&waiting, PARAMEM_PASSAGE, "w1");
    ask_init(&last, PARAMEM_PASSAGE, "l1");
    submit(embedder, &running);
    fake_wait_held();
    submit(embedder, &waiting);
    submit(embedder, &last);
    assert_true(retrieval_embedder_cancel(embedder, &waiting.job));
    assert_false(retrieval_embedder_cancel(embedder, &waiting.job));
    assert_false(retrieval_embedder_cancel(embedder, &running.job));
    fake_release();
    assert_int_equal(wait_end(&running), MEMOS_CANCELLED);
    assert_int_equal(wait_end(&last), MEMOS_OK);
    assert_int_equal(waiting.calls, 0);
    assert_string_equal(fake_log(), "p:r1 r2|p:l1|");
    assert_int_equal(stats_of(embedder).cancelled, 2);
    assert_int_equal(stats_of(embedder).failed, 0);
    retrieval_embedder_destroy(&embedder);
}

/* A clock that the test moves while the encoder is held. */
static _Atomic int64_t now_us;
static int64_t read_clock(void *self)
{
    (void)self;
    return now_us;
}

static void what_is_too_late_is_not_begun(void **state)
{
    struct memos_clock clock = {read_clock, read_clock, NULL};
    struct retrieval_embedder *embedder = make((struct retrieval_embedder_options){.clock = clock});
    struct asked first, late, timely;
    (void)state;

    fake_reset();
    fake_hold();
    now_us = 1000;
    ask_init(&first, PARAMEM_PASSAGE, "first");
    ask_init(&late, PARAMEM_QUERY, "late");
    ask_init(&timely, PARAMEM_QUERY, "timely");
    late.job.deadline_us = 2000;
    timely.job.deadline_us = 3000;
    submit(embedder, &first);
    fake_wait_held();
    submit(embedder, &late);
    submit(embedder, &timely);
    now_us = 2000;
    fake_release();
    assert_int_equal(wait_end(&late), MEMOS_DEADLINE);
    assert_int_equal(wait_end(&timely), MEMOS_OK);
    assert_string_equal(fake_log(), "p:first|q:timely|");
    retrieval_embedder_destroy(&embedder);
}

static void *run_one(void *self)
{
    struct asked *asked = self;
    struct retrieval_embedder *embedder = asked->job.self;
    asked->status = retrieval_embedder_run(
        embedder, asked->texts, asked->job.count, asked->job.role, asked->out, &asked->err);
    return NULL;
}

/* The end of an embedder with a call in the encoder, jobs waiting, and a caller of run waiting. */
static void it_ends_with_jobs_inside(void **state)
{
    struct retrieval_embedder *embedder = make((struct retrieval_embedder_options){.jobs_max = 0});
    struct asked held, waiting, runner, after;
    pthread_t thread;
    (void)state;

    fake_reset();
    fake_hold();
    ask_init(&held, PARAMEM_QUERY, "held");
    ask_init(&waiting, PARAMEM_PASSAGE, "waiting");
    ask_init(&runner, PARAMEM_PASSAGE, "runner");
    ask_init(&after, PARAMEM_PASSAGE, "after");
    submit(embedder, &held);
    fake_wait_held();
    submit(embedder, &waiting);
    runner.job.self = embedder;
    assert_int_equal(pthread_create(&thread, NULL, run_one, &runner), 0);
    while (stats_of(embedder).jobs_now < 3) {
        (void)sched_yield();
    }
    fake_release();
    retrieval_embedder_stop(embedder);
    /* what was with the encoder may have ended well, and what waited may have come before the end
     */
    assert_int_equal(wait_end(&held), MEMOS_OK);
    enum memos_status status = wait_end(&waiting);
    assert_true(status == MEMOS_OK || status == MEMOS_CANCELLED);
    (void)pthread_join(thread, NULL);
    assert_true(runner.status == MEMOS_OK || runner.status == MEMOS_CANCELLED);
    assert_int_equal(retrieval_embedder_submit(embedder, &after.job, NULL), MEMOS_CANCELLED);
    assert_int_equal(stats_of(embedder).jobs_now, 0);
    retrieval_embedder_destroy(&embedder);
    assert_null(embedder);
    retrieval_embedder_destroy(&embedder);
}

/* ---- many threads --------------------------------------------------------------------------- */

struct storm {
    struct retrieval_embedder *embedder;
    uint64_t seed;
    size_t wrong;
};

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void storm_round(struct storm *storm)
{
    char bytes[16][12];
    struct memos_bytes texts[16];
    float out[16 * FAKE_DIMS], wanted[FAKE_DIMS];
    size_t count = 1 + next(&storm->seed) % 16;
    enum paramem_role role = next(&storm->seed) % 2 ? PARAMEM_QUERY : PARAMEM_PASSAGE;
    bool fails = false;

    for (size_t i = 0; i < count; i++) {
        unsigned number = (unsigned)(next(&storm->seed) % 2000);
        bool bad = next(&storm->seed) % 200 == 0;
        snprintf(bytes[i], sizeof bytes[i], "%s%u", bad ? "bad" : "t", number);
        texts[i] = memos_bytes_of(bytes[i]);
        fails = fails || bad;
    }
    enum memos_status status =
        next(&storm->seed) % 4 == 0
            ? retrieval_embedder_run_later(storm->embedder, texts, count, role, out, NULL)
            : retrieval_embedder_run(storm->embedder, texts, count, role, out, NULL);
    storm->wrong += status != (fails ? MEMOS_CORRUPT : MEMOS_OK);
    for (size_t i = 0; i < count && status == MEMOS_OK; i++) {
        fake_vector(texts[i], role, wanted);
        storm->wrong += memcmp(out + i * FAKE_DIMS, wanted, sizeof wanted) != 0;
    }
}

static void *storm_run(void *self)
{
    struct storm *storm = self;
    for (int i = 0; i < 400; i++) {
        storm_round(storm);
    }
    return NULL;
}

static void many_threads_get_their_own_vectors(void **state)
{
    enum { THREADS = 8 };
    struct retrieval_embedder *embedder =
        make((struct retrieval_embedder_options){.cache_bytes = 100000});
    struct storm storms[THREADS];
    pthread_t threads[THREADS];
    const char *given = getenv("MEMOS_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 20261;
    (void)state;

    printf("MEMOS_TEST_SEED=%llu\n", (unsigned long long)seed);
    fake_reset();
    for (size_t i = 0; i < THREADS; i++) {
        storms[i] = (struct storm){embedder, seed + i * 7919, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, storm_run, &storms[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(storms[i].wrong, 0);
    }
    struct retrieval_embedder_stats stats = stats_of(embedder);
    assert_int_equal(stats.jobs_now + stats.texts_now + stats.bytes_now, 0);
    assert_true(stats.cache_bytes <= 100000);
    assert_true(stats.remembered > 0);
    retrieval_embedder_destroy(&embedder);
}

static int forget_all(void **state)
{
    (void)state;
    fake_reset();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_waits_is_joined_questions_first),
        cmocka_unit_test(a_piece_is_bounded_in_bytes),
        cmocka_unit_test(nothing_waits_for_ever),
        cmocka_unit_test(a_text_asked_again_costs_nothing),
        cmocka_unit_test(what_waits_is_bounded),
        cmocka_unit_test(a_failure_is_of_its_job_alone),
        cmocka_unit_test(a_model_that_is_down_is_asked_once),
        cmocka_unit_test(jobs_are_taken_back),
        cmocka_unit_test(what_is_too_late_is_not_begun),
        cmocka_unit_test(it_ends_with_jobs_inside),
        cmocka_unit_test(many_threads_get_their_own_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, forget_all);
}
