/* Readers on their snapshots while a writer changes, goes back, forgets and makes the map grow.
 *
 * If these fail, somebody who only reads sees half of a change, another's words under an id, or is
 * held up or brought down by whoever writes. */
#include "memcube/writer.h"
#include "tests/memcube/store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    READERS = 3,
    CUBES = 24,
    CHANGES = 400,
    TEXT_BYTES = 5000, /* every fourth cube's is a blob file */
};

static struct memcube_store *store;
static struct memos_id ids[CUBES];
static _Atomic bool ended;

/* A text that says which cube and version it is of. */
static struct memos_bytes text_of_version(int cube, uint32_t number, char out[TEXT_BYTES])
{
    const int length = snprintf(out, TEXT_BYTES, "cube %d says %u", cube, number);
    if (cube % 4 != 0) {
        return memos_bytes_make(out, (size_t)length);
    }
    memset(out + length, '.', TEXT_BYTES - (size_t)length);
    return memos_bytes_make(out, TEXT_BYTES);
}

/* ---- a reader ------------------------------------------------------------------------------ */

struct reader {
    const char *wrong; /* what it saw that cannot be; NULL: nothing */
    uint64_t looks;
};

/* Every cube of one snapshot: its head's words are those of the version that they came with. What a
 * forget is destroying at this moment may already be gone. */
static const char *look(struct memcube_read *read)
{
    char text[TEXT_BYTES];
    struct memcube_space space;
    struct memcube_version version;
    struct memos_bytes payload;
    uint64_t seq_most = 0;

    if (memcube_space_find(read, text_of("s"), &space, NULL) != MEMOS_OK) {
        return "the space is gone";
    }
    for (int i = 0; i < CUBES; i++) {
        if (memcube_version_get(read, &space, &ids[i], 0, NULL, &version, NULL) != MEMOS_OK) {
            return "a cube is gone";
        }
        seq_most = version.seq > seq_most ? version.seq : seq_most;
        const enum memos_status status =
            memcube_payload_get(read, &space, &version, true, &payload, NULL);
        if (status == MEMOS_FORGOTTEN) {
            continue;
        }
        const uint32_t says = version.equals ? version.equals : version.number;
        if (status != MEMOS_OK ||
            !memos_bytes_equal(payload, text_of_version(i, says, text))) {
            return "a version has other words";
        }
    }
    return seq_most == space.seq ? NULL : "the newest version is not the newest record's";
}

static void *reader_thread(void *self)
{
    struct reader *reader = self;
    struct memcube_read *read = NULL;

    if (memcube_read_begin(store, &read, NULL) != MEMOS_OK) {
        reader->wrong = "no snapshot";
        return NULL;
    }
    while (!atomic_load(&ended) && !reader->wrong) {
        reader->wrong = look(read);
        reader->looks++;
        if (memcube_read_renew(read, NULL) != MEMOS_OK) {
            reader->wrong = "no newer snapshot";
            break;
        }
    }
    memcube_read_end(&read);
    return NULL;
}

/* ---- the writer ---------------------------------------------------------------------------- */

struct changing_job {
    int cube;
    uint32_t number; /* of the head */
    int what;        /* 0: update; 2: back to the version before; 3: forget */
};

static enum memos_status make_run(void *self, struct memcube_write *write, struct memos_error *err)
{
    static char texts[CUBES][TEXT_BYTES];
    const struct memcube_change change = change_of("s");
    struct memcube_draft drafts[CUBES];
    struct memcube_outcome outcome;

    (void)self;
    for (int i = 0; i < CUBES; i++) {
        drafts[i] = draft_of("");
        drafts[i].payload = text_of_version(i, 1, texts[i]);
    }
    const enum memos_status status =
        memcube_create(write, &change, drafts, CUBES, &outcome, err);
    for (size_t i = 0; status == MEMOS_OK && i < CUBES; i++) {
        ids[i] = outcome.refs[i].id;
    }
    return status;
}

static enum memos_status change_run(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    static char text[TEXT_BYTES];
    const struct changing_job *job = self;
    const struct memcube_change change = change_of("s");
    const struct memos_id *id = &ids[job->cube];
    struct memcube_update update = {
        .id = *id, .fields = MEMCUBE_FIELD_PAYLOAD, .draft = draft_of("") };
    /* To the version before, which was an update or the first. */
    const struct memcube_rollback back = {
        .ids = id, .ids_count = 1, .to_version = job->number - 1 };
    struct memcube_rollback_item *items = NULL;
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    size_t count = 0;

    if (job->what == 3) {
        return memcube_forget(write, &change, id, 1, false, false, &outcome, &forgotten, err);
    }
    if (job->what == 2) {
        return memcube_rollback(write, &change, &back, &outcome, &items, &count, err);
    }
    update.draft.payload = text_of_version(job->cube, job->number + 1, text);
    return memcube_update(write, &change, &update, 1, &outcome, err);
}

static void change_all(struct memcube_writer *writer)
{
    uint32_t numbers[CUBES];
    uint32_t streak[CUBES]; /* so many versions on end have words of their own */
    bool forgotten[CUBES] = { false };

    for (int i = 0; i < CUBES; i++) {
        numbers[i] = 1;
        streak[i] = 1;
    }
    for (int i = 0; i < CHANGES; i++) {
        const int cube = i * 7 % CUBES;
        struct changing_job job = {
            .cube = cube, .number = numbers[cube], .what = i % 40 == 39 ? 3 : i % 5 == 4 ? 2 : 0 };
        if (job.what == 2 && streak[cube] < 2) {
            job.what = 0;
        }
        if (forgotten[cube]) {
            continue;
        }
        assert_ok(memcube_writer_run(writer, change_run, &job, fixture_error()));
        streak[cube] = job.what == 0 ? streak[cube] + 1 : 0;
        forgotten[cube] = job.what == 3;
        numbers[cube]++;
    }
}

static void test_readers_see_whole_changes(void **state)
{
    struct fixture f;
    struct reader readers[READERS] = { { .looks = 0 } };
    pthread_t threads[READERS];
    struct memcube_writer *writer = NULL;
    const struct memcube_writer_options options = { .sweep_every_us = 1000 };
    struct memcube_store_stats stats;

    (void)state;
    fixture_make(&f);
    fixture_close(&f);
    f.options.map_bytes = 1024 * 1024; /* too small: it must grow under the readers */
    f.options.clock = memos_clock_system();
    fixture_open(&f);
    store = f.store;
    assert_ok(memcube_writer_create(store, &options, &writer, fixture_error()));
    assert_ok(memcube_writer_run(writer, make_run, NULL, fixture_error()));
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, reader_thread, &readers[i]), 0);
    }
    change_all(writer);
    atomic_store(&ended, true);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (readers[i].wrong) {
            fail_msg("a reader: %s", readers[i].wrong);
        }
        assert_true(readers[i].looks > 0);
    }
    memcube_writer_destroy(&writer);
    assert_ok(memcube_store_stats(store, &stats, fixture_error()));
    assert_true(stats.map_grown > 0);
    fixture_drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers_see_whole_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
