/* Group commit.
 *
 * If these failed, a write could be acknowledged before it is durable, one bad request could take
 * its neighbours' writes with it, or a store could stop at the size that it was opened with. */
#include "memcube/writer.h"
#include "tests/fault/fault_inject.h"
#include "tests/memcube/folder.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SPACE "test/writer"

struct fixture {
    char path[FOLDER_PATH_BYTES];
    struct memcube_store *store;
    struct memcube_writer *writer;
};

static void open_all(struct fixture *f, uint64_t map_bytes, uint64_t map_bytes_max,
    const struct memcube_writer_options *options)
{
    const struct memcube_store_options store_options = {
        .path = f->path,
        .map_bytes = map_bytes,
        .map_bytes_max = map_bytes_max,
        .clock = memos_clock_system(),
    };
    struct memos_error err = { 0 };
    if (memcube_store_open(&store_options, &f->store, &err) != MEMOS_OK ||
        memcube_writer_create(f->store, options, &f->writer, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
}

static void close_all(struct fixture *f)
{
    memcube_writer_destroy(&f->writer);
    memcube_store_close(&f->store);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    folder_make(f->path);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    (void)fault_plan(NULL);
    close_all(f);
    folder_remove(f->path);
    free(f);
    return 0;
}

/* ---- a job that makes one cube ---- */

struct making {
    struct memcube_writer_job job;
    const char *text;
    size_t payload_bytes; /* when not 0: a payload of this size instead of the text */
    bool fail;            /* refuse, without having changed anything */
    struct memos_id id;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool ended;
    enum memos_status status;
    char error[MEMOS_ERROR_TEXT_BYTES];
};

static enum memos_status making_run(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct making *making = self;
    const struct memcube_change change = {
        .space = memos_bytes_of(SPACE), .author = memos_bytes_of("tester")
    };
    struct memcube_draft draft = {
        .kind = MEMCUBE_PLAINTEXT,
        .subtype = memos_bytes_of("fact"),
        .codec = memos_bytes_of("text/plain; charset=utf-8"),
        .payload = memos_bytes_of(making->text),
    };
    struct memcube_outcome outcome;
    char *large = NULL;

    if (making->fail) {
        return memos_fail(err, MEMOS_CONFLICT, "this job refuses");
    }
    if (making->payload_bytes > 0) {
        large = malloc(making->payload_bytes);
        assert_non_null(large);
        memset(large, 'x', making->payload_bytes);
        draft.payload = memos_bytes_make(large, making->payload_bytes);
    }
    const enum memos_status status = memcube_create(write, &change, &draft, 1, &outcome, err);
    if (status == MEMOS_OK) {
        making->id = outcome.refs[0].id;
    }
    free(large);
    return status;
}

static void making_done(void *self, enum memos_status status, const struct memos_error *err)
{
    struct making *making = self;
    pthread_mutex_lock(&making->mutex);
    making->status = status;
    (void)snprintf(making->error, sizeof making->error, "%s", err ? err->text : "");
    making->ended = true;
    pthread_cond_signal(&making->changed);
    pthread_mutex_unlock(&making->mutex);
}

static void making_init(struct making *making, const char *text)
{
    *making = (struct making){
        .job = { .run = making_run, .done = making_done, .self = making },
        .text = text,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
    };
}

static void making_wait(struct making *making)
{
    pthread_mutex_lock(&making->mutex);
    while (!making->ended) {
        pthread_cond_wait(&making->changed, &making->mutex);
    }
    pthread_mutex_unlock(&making->mutex);
}

/* ---- a job that keeps the writer busy until it is told ---- */

struct gate {
    struct memcube_writer_job job;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool entered, open, ended;
};

static enum memos_status gate_run(void *self, struct memcube_write *write, struct memos_error *err)
{
    struct gate *gate = self;
    (void)write;
    (void)err;
    pthread_mutex_lock(&gate->mutex);
    gate->entered = true;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open) {
        pthread_cond_wait(&gate->changed, &gate->mutex);
    }
    pthread_mutex_unlock(&gate->mutex);
    return MEMOS_OK;
}

static void gate_done(void *self, enum memos_status status, const struct memos_error *err)
{
    struct gate *gate = self;
    (void)status;
    (void)err;
    pthread_mutex_lock(&gate->mutex);
    gate->ended = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

/* Hand the gate in and wait until the writer stands in it. */
static void gate_close(struct gate *gate, struct memcube_writer *writer)
{
    *gate = (struct gate){
        .job = { .run = gate_run, .done = gate_done, .self = gate },
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
    };
    assert_int_equal(memcube_writer_submit(writer, &gate->job, NULL), MEMOS_OK);
    pthread_mutex_lock(&gate->mutex);
    while (!gate->entered) {
        pthread_cond_wait(&gate->changed, &gate->mutex);
    }
    pthread_mutex_unlock(&gate->mutex);
}

/* Let the writer go on, and wait until the gate's own job has ended. */
static void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->open = true;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->ended) {
        pthread_cond_wait(&gate->changed, &gate->mutex);
    }
    pthread_mutex_unlock(&gate->mutex);
}

/* ---- looking ---- */

static bool is_there(struct fixture *f, const struct memos_id *id, const char *text)
{
    struct memcube_read *read = NULL;
    struct memcube_space space;
    struct memcube_version version;
    struct memos_bytes payload;
    struct memos_error err = { 0 };
    bool there = false;

    assert_int_equal(memcube_read_begin(f->store, &read, &err), MEMOS_OK);
    if (memcube_space_find(read, memos_bytes_of(SPACE), &space, &err) == MEMOS_OK &&
        memcube_version_get(read, &space, id, 0, NULL, &version, &err) == MEMOS_OK &&
        memcube_payload_get(read, &space, &version, true, &payload, &err) == MEMOS_OK) {
        there = memos_bytes_equal(payload, memos_bytes_of(text));
    }
    memcube_read_end(&read);
    return there;
}

static uint64_t seq_of_space(struct fixture *f)
{
    struct memcube_read *read = NULL;
    struct memcube_space space = { 0 };
    struct memos_error err = { 0 };

    assert_int_equal(memcube_read_begin(f->store, &read, &err), MEMOS_OK);
    const enum memos_status status =
        memcube_space_find(read, memos_bytes_of(SPACE), &space, &err);
    assert_true(status == MEMOS_OK || status == MEMOS_NOT_FOUND);
    const uint64_t seq = space.seq;
    memcube_read_end(&read);
    return seq;
}

/* ---- the tests ---- */

/* What waits together is written together, and each is there once it is told so. */
static void test_groups(void **state)
{
    enum { JOBS = 20 };
    struct fixture *f = *state;
    struct gate gate;
    struct making makings[JOBS];
    struct memcube_writer_stats stats;
    const struct memcube_writer_options options = { 0 };

    open_all(f, 0, 0, &options);
    gate_close(&gate, f->writer);
    for (size_t i = 0; i < JOBS; i++) {
        making_init(&makings[i], "a fact that must not be lost");
        assert_int_equal(memcube_writer_submit(f->writer, &makings[i].job, NULL), MEMOS_OK);
    }
    gate_open(&gate);
    for (size_t i = 0; i < JOBS; i++) {
        making_wait(&makings[i]);
        assert_int_equal(makings[i].status, MEMOS_OK);
        assert_true(is_there(f, &makings[i].id, makings[i].text));
    }
    memcube_writer_stats(f->writer, &stats);
    assert_int_equal(stats.jobs, JOBS + 1);
    assert_int_equal(stats.groups, 2);
    assert_int_equal(stats.group_largest, JOBS);
    assert_int_equal(seq_of_space(f), JOBS);
}

/* A job that fails takes nothing from the others of its group. */
static void test_failure_is_alone(void **state)
{
    struct fixture *f = *state;
    struct gate gate;
    struct making makings[3];
    const struct memcube_writer_options options = { 0 };

    open_all(f, 0, 0, &options);
    gate_close(&gate, f->writer);
    for (size_t i = 0; i < 3; i++) {
        making_init(&makings[i], "beside a failure");
        makings[i].fail = i == 1;
        assert_int_equal(memcube_writer_submit(f->writer, &makings[i].job, NULL), MEMOS_OK);
    }
    gate_open(&gate);
    for (size_t i = 0; i < 3; i++) {
        making_wait(&makings[i]);
        assert_int_equal(makings[i].status, i == 1 ? MEMOS_CONFLICT : MEMOS_OK);
    }
    assert_string_equal(makings[1].error, "this job refuses");
    assert_true(is_there(f, &makings[0].id, makings[0].text));
    assert_true(is_there(f, &makings[2].id, makings[2].text));
}

/* One that is too large for the map that it may have does not keep the others from theirs. */
static void test_broken_write_is_taken_apart(void **state)
{
    enum { JOBS = 5, GUILTY = 2, LARGE = 60 * 1024, MAP = 1024 * 1024 };
    struct fixture *f = *state;
    struct gate gate;
    struct making makings[JOBS], fill[64];
    const struct memcube_writer_options options = { 0 };
    size_t filled = 0;

    /* Fill the map until hardly a small write fits. */
    open_all(f, MAP, MAP, &options);
    for (; filled < 64; filled++) {
        char *text = NULL;
        assert_true(asprintf(&text, "filler %zu", filled) > 0);
        making_init(&fill[filled], text);
        /* Payloads differ by their size, so that each is stored. */
        fill[filled].payload_bytes = LARGE - filled;
        assert_int_equal(memcube_writer_submit(f->writer, &fill[filled].job, NULL), MEMOS_OK);
        making_wait(&fill[filled]);
        free(text);
        if (fill[filled].status != MEMOS_OK) {
            break;
        }
    }
    assert_in_range(filled, 1, 63);
    assert_int_equal(fill[filled].status, MEMOS_NO_SPACE);

    gate_close(&gate, f->writer);
    for (size_t i = 0; i < JOBS; i++) {
        making_init(&makings[i], "small");
        makings[i].payload_bytes = i == GUILTY ? LARGE + 1 : 0;
        assert_int_equal(memcube_writer_submit(f->writer, &makings[i].job, NULL), MEMOS_OK);
    }
    gate_open(&gate);
    for (size_t i = 0; i < JOBS; i++) {
        making_wait(&makings[i]);
        assert_int_equal(makings[i].status, i == GUILTY ? MEMOS_NO_SPACE : MEMOS_OK);
        assert_int_equal(i == GUILTY || is_there(f, &makings[i].id, "small"), true);
    }
}

/* ---- forgetting ---- */

static enum memos_status forget_run(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct making *making = self;
    const struct memcube_change change = {
        .space = memos_bytes_of(SPACE), .author = memos_bytes_of("tester")
    };
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    return memcube_forget(
        write, &change, &making->id, 1, false, false, &outcome, &forgotten, err);
}

/* When the keys cannot be destroyed, who forgot is told so, and nobody else; asked again, it is
 * done. */
static void test_forgetting_is_not_claimed_too_early(void **state)
{
    struct fixture *f = *state;
    struct gate gate;
    struct making put, forget;
    const struct memcube_writer_options options = { 0 };

    open_all(f, 0, 0, &options);
    making_init(&forget, "to be forgotten");
    assert_int_equal(memcube_writer_submit(f->writer, &forget.job, NULL), MEMOS_OK);
    making_wait(&forget);
    assert_int_equal(forget.status, MEMOS_OK);

    forget.job.run = forget_run;
    forget.ended = false;
    making_init(&put, "to be kept");
    gate_close(&gate, f->writer);
    assert_int_equal(memcube_writer_submit(f->writer, &put.job, NULL), MEMOS_OK);
    assert_int_equal(memcube_writer_submit(f->writer, &forget.job, NULL), MEMOS_OK);
    assert_int_equal(fault_plan("EIO write,sync 0 0 vault"), 0);
    gate_open(&gate);
    making_wait(&put);
    making_wait(&forget);
    assert_true(fault_hits() > 0);
    assert_int_equal(fault_plan(NULL), 0);
    assert_int_equal(put.status, MEMOS_OK);
    assert_true(is_there(f, &put.id, "to be kept"));
    assert_int_equal(forget.status, MEMOS_IO);
    assert_non_null(strstr(forget.error, "not destroyed yet"));
    assert_false(is_there(f, &forget.id, "to be forgotten"));

    const uint64_t seq = seq_of_space(f);
    struct memcube_store_stats before, after;
    assert_int_equal(memcube_store_stats(f->store, &before, NULL), MEMOS_OK);
    forget.ended = false;
    assert_int_equal(memcube_writer_submit(f->writer, &forget.job, NULL), MEMOS_OK);
    making_wait(&forget);
    assert_int_equal(forget.status, MEMOS_OK);
    assert_int_equal(seq_of_space(f), seq);
    assert_int_equal(memcube_store_stats(f->store, &after, NULL), MEMOS_OK);
    assert_true(after.payloads_destroyed > before.payloads_destroyed);
}

/* A store grows past the map that it was opened with. */
static void test_grows(void **state)
{
    enum { JOBS = 200 };
    struct fixture *f = *state;
    const struct memcube_writer_options options = { 0 };
    struct memcube_store_stats stats;
    struct memos_error err = { 0 };
    struct making *makings = calloc(JOBS, sizeof *makings);

    open_all(f, 512 * 1024, 0, &options);
    for (size_t i = 0; i < JOBS; i++) {
        making_init(&makings[i], "grow");
        makings[i].payload_bytes = 30000 + i;
        assert_int_equal(memcube_writer_submit(f->writer, &makings[i].job, NULL), MEMOS_OK);
    }
    for (size_t i = 0; i < JOBS; i++) {
        making_wait(&makings[i]);
        if (makings[i].status != MEMOS_OK) {
            fail_msg("job %zu: %s", i, makings[i].error);
        }
    }
    assert_int_equal(memcube_store_stats(f->store, &stats, &err), MEMOS_OK);
    assert_true(stats.map_grown >= 3);
    assert_int_equal(seq_of_space(f), JOBS);
    free(makings);
}

/* A disk that refuses is told to everybody who waited; what was there stays; later writes work. */
static void test_disk_refuses(void **state)
{
    struct fixture *f = *state;
    struct making first, refused, later;
    const struct memcube_writer_options options = { 0 };
    static const char *const plans[] = { "ENOSPC write,sync 0 0", "EIO sync 0 0" };

    open_all(f, 0, 0, &options);
    making_init(&first, "before the disk failed");
    assert_int_equal(memcube_writer_submit(f->writer, &first.job, NULL), MEMOS_OK);
    making_wait(&first);
    assert_int_equal(first.status, MEMOS_OK);
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        assert_int_equal(fault_plan(plans[i]), 0);
        making_init(&refused, "never acknowledged");
        assert_int_equal(memcube_writer_submit(f->writer, &refused.job, NULL), MEMOS_OK);
        making_wait(&refused);
        assert_true(fault_hits() > 0);
        assert_int_equal(refused.status, i == 0 ? MEMOS_NO_SPACE : MEMOS_IO);
        assert_true(is_there(f, &first.id, first.text));
        assert_int_equal(fault_plan(NULL), 0);

        making_init(&later, "after there was room again");
        assert_int_equal(memcube_writer_submit(f->writer, &later.job, NULL), MEMOS_OK);
        making_wait(&later);
        assert_int_equal(later.status, MEMOS_OK);
        assert_true(is_there(f, &later.id, later.text));
    }
    close_all(f);
    open_all(f, 0, 0, &options);
    assert_true(is_there(f, &first.id, first.text));
    assert_true(is_there(f, &later.id, later.text));
    assert_int_equal(seq_of_space(f), 3);
}

/* A full queue answers at once; what was taken is written even when the writer is being ended. */
static void test_bounds_and_end(void **state)
{
    struct fixture *f = *state;
    struct gate gate;
    struct making makings[3];
    struct memcube_writer_stats stats;
    struct memos_error err = { 0 };
    const struct memcube_writer_options options = { .queue_max = 2 };

    open_all(f, 0, 0, &options);
    gate_close(&gate, f->writer);
    for (size_t i = 0; i < 3; i++) {
        making_init(&makings[i], "in the queue");
        assert_int_equal(memcube_writer_submit(f->writer, &makings[i].job, &err),
            i < 2 ? MEMOS_OK : MEMOS_BUSY);
    }
    memcube_writer_stats(f->writer, &stats);
    assert_int_equal(stats.refused, 1);
    assert_int_equal(stats.waiting, 2);
    gate_open(&gate);
    memcube_writer_destroy(&f->writer);
    for (size_t i = 0; i < 2; i++) {
        assert_true(makings[i].ended);
        assert_int_equal(makings[i].status, MEMOS_OK);
        assert_true(is_there(f, &makings[i].id, makings[i].text));
    }
    assert_false(makings[2].ended);
}

static enum memos_status run_and_refuse(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    (void)self;
    (void)write;
    return memos_fail(err, MEMOS_NOT_FOUND, "seen by the one who waits");
}

static void test_run_waits(void **state)
{
    struct fixture *f = *state;
    struct making making;
    struct memos_error err = { 0 };
    const struct memcube_writer_options options = { 0 };

    open_all(f, 0, 0, &options);
    making_init(&making, "waited for");
    assert_int_equal(memcube_writer_run(f->writer, making_run, &making, &err), MEMOS_OK);
    assert_true(is_there(f, &making.id, making.text));
    assert_int_equal(memcube_writer_run(f->writer, run_and_refuse, NULL, &err), MEMOS_NOT_FOUND);
    assert_string_equal(err.text, "seen by the one who waits");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_groups, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure_is_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broken_write_is_taken_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_forgetting_is_not_claimed_too_early, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds_and_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run_waits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
