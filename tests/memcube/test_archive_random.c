/* Random histories on their way to other stores, whole, piece by piece, and cube by cube.
 *
 * If this failed, some history that people can make could not be moved, or would be another one
 * where it arrives, or would leave indexes there that do not say what its versions say.
 *
 * MEMOS_TEST_SEED=n repeats a run, MEMOS_TEST_STEPS=n sets its length. */
#include "tests/memcube/history.h"

#include "memcube/archive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    STEPS = 400,
    EXPORT_EVERY = 57,
    CUBES_MAX = 1024,
    TEXTS = 12,
};

static struct fixture from, follower, fresh, cubes;
static struct memcube_ref made[CUBES_MAX];
static size_t made_count;
static uint64_t rng;

/* splitmix64 (Steele, Lea, Flood, 2014) */
static uint64_t random_u64(void)
{
    uint64_t z = rng += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static size_t below(size_t limit)
{
    return (size_t)(random_u64() % limit);
}

static const struct memos_id *random_id(void)
{
    return &made[below(made_count)].id;
}

/* Some of the texts are files of their own. */
static struct memos_bytes random_text(void)
{
    static char text[8192];
    size_t n = below(TEXTS), size = n < 3 ? sizeof text - n : 16;
    memset(text, 'a' + (int)n, size);
    return memos_bytes_make(text, size);
}

/* ---- steps --------------------------------------------------------------------------------- */

/* What random steps ask for may be refused (frozen, forgotten, no such transition): then nothing
 * happens. Anything but a refusal is a failure. */
static void end_step(enum memos_status status)
{
    switch (status) {
    case MEMOS_OK:
        fixture_commit(&from);
        return;
    case MEMOS_NOT_FOUND:
    case MEMOS_CONFLICT:
    case MEMOS_FROZEN:
    case MEMOS_FORGOTTEN:
    case MEMOS_INVALID:
        assert_false(memcube_write_broken(from.write));
        memcube_write_abort(&from.write);
        return;
    default:
        fail_msg("%s", fixture_error()->text);
    }
}

static void step_create(const struct memcube_change *change)
{
    struct memcube_draft draft = draft_of("");
    struct memcube_outcome outcome;
    struct memcube_ref source;
    struct memos_bytes tag = text_of(below(2) ? "one" : "other");
    char external_id[16];
    draft.payload = random_text();
    if (made_count > 0 && below(3) == 0) {
        source = (struct memcube_ref){ *random_id(), 1 };
        draft.derived_from = &source;
        draft.derived_count = 1;
    }
    draft.description.tags = &tag;
    draft.description.tags_count = below(2);
    (void)snprintf(external_id, sizeof external_id, "x%zu", below(40));
    draft.description.external_id = below(4) ? text_of("") : text_of(external_id);
    draft.governance.expires_us = below(5) ? 0 : from.now_us + (int64_t)below(400000000);
    enum memos_status status =
        memcube_create(fixture_write(&from), change, &draft, 1, &outcome, fixture_error());
    if (status == MEMOS_OK && made_count < CUBES_MAX) {
        made[made_count++] = outcome.refs[0];
    }
    end_step(status);
}

static void step_update(const struct memcube_change *change)
{
    struct memcube_outcome outcome;
    struct memcube_update update = { .id = *random_id(), .draft = draft_of("") };
    struct memos_bytes tag = text_of("added");
    if (below(3) > 0) {
        update.fields = MEMCUBE_FIELD_PAYLOAD;
        update.draft.payload = random_text();
    } else {
        update.tags_add = &tag;
        update.tags_add_count = 1;
    }
    end_step(memcube_update(
        fixture_write(&from), change, &update, 1, &outcome, fixture_error()));
}

static void step_merge(const struct memcube_change *change)
{
    struct memcube_outcome outcome;
    struct memcube_draft draft = draft_of("");
    const struct memos_id ids[2] = { *random_id(), *random_id() };
    draft.payload = random_text();
    enum memos_status status = memcube_merge(
        fixture_write(&from), change, ids, 2, &draft, &outcome, fixture_error());
    if (status == MEMOS_OK && made_count < CUBES_MAX && outcome.refs_count > 0) {
        struct memcube_ref *refs = outcome.refs;
        for (size_t i = 0; i < outcome.refs_count; i++) {
            if (refs[i].number == 1) {
                made[made_count++] = refs[i];
                break;
            }
        }
    }
    end_step(status);
}

static void step_rollback(const struct memcube_change *change)
{
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items;
    size_t items_count;
    const struct memos_id ids[2] = { *random_id(), *random_id() };
    struct memcube_rollback rollback = { .include_frozen = below(2) == 0 };
    uint64_t seq = fixture_space(&from, "s").seq;
    rollback.to.seq = 1 + below((size_t)seq);
    rollback.to_beginning = below(12) == 0;
    rollback.ids = ids;
    rollback.ids_count = below(3) ? 1 : 0;
    end_step(memcube_rollback(fixture_write(&from), change, &rollback, &outcome, &items,
        &items_count, fixture_error()));
}

static void step_random(void)
{
    const struct memcube_change change = change_of("s");
    const size_t dice = below(100);
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    size_t count = 0;
    bool more = false;

    from.now_us += 1 + (int64_t)below(2000000);
    if (dice < 40 || made_count < 3) {
        step_create(&change);
    } else if (dice < 70) {
        step_update(&change);
    } else if (dice < 80) {
        end_step(memcube_transition(fixture_write(&from), &change, random_id(), 1,
            (enum memcube_state)(1 + below(6)), &outcome, fixture_error()));
    } else if (dice < 84) {
        step_merge(&change);
    } else if (dice < 94) {
        step_rollback(&change);
    } else if (dice < 96) {
        end_step(memcube_forget(fixture_write(&from), &change, random_id(), 1, false, false,
            &outcome, &forgotten, fixture_error()));
    } else {
        end_step(memcube_sweep(fixture_write(&from), 8, &count, &more, fixture_error()));
    }
}

/* ---- archives ------------------------------------------------------------------------------ */

static enum memos_status gather(void *self, struct memos_bytes bytes, struct memos_error *err)
{
    (void)err;
    memos_buffer_bytes(self, bytes.data, bytes.size);
    return MEMOS_OK;
}

static struct memos_buffer export_of(
    struct fixture *f, const struct memos_id *id, struct memcube_archive_summary *out)
{
    struct memos_buffer bytes = memos_buffer_make((size_t)1 << 30);
    const struct memcube_sink sink = { gather, &bytes };
    memcube_read_end(&f->read);
    assert_ok(
        memcube_archive_export(f->store, text_of("s"), id, &sink, out, fixture_error()));
    assert_false(bytes.failed);
    return bytes;
}

static uint64_t import_into(struct fixture *f, const struct memos_buffer *bytes)
{
    const struct memcube_change change = change_of("s");
    struct memcube_archive_summary summary;
    struct memcube_outcome outcome;
    f->now_us = from.now_us;
    assert_ok(memcube_archive_import(fixture_write(f), &change, memos_buffer_view(bytes),
        &summary, &outcome, fixture_error()));
    fixture_commit(f);
    return summary.added;
}

static void assert_sound(struct fixture *f, const char *which)
{
    struct memcube_fsck_result result;
    memcube_read_end(&f->read);
    assert_ok(memcube_fsck(f->store, false, NULL, NULL, NULL, &result, fixture_error()));
    if (result.problems != 0) {
        fail_msg("%s: %s", which, result.first);
    }
}

static void follow(void)
{
    struct memcube_archive_summary summary;
    struct memos_buffer file = export_of(&from, NULL, &summary);
    (void)import_into(&follower, &file);
    assert_int_equal(import_into(&follower, &file), 0);
    assert_sound(&follower, "the follower");
    struct memos_buffer back = export_of(&follower, NULL, &summary);
    assert_int_equal(back.size, file.size);
    assert_memory_equal(back.data, file.data, file.size);
    memos_buffer_free(&back);
    memos_buffer_free(&file);
}

/* A fresh store gets the last state at once; another gets the cubes alone, in any order. */
static void arrive(void)
{
    struct memcube_archive_summary summary;
    struct memos_buffer file = export_of(&from, NULL, &summary);
    assert_int_equal(import_into(&fresh, &file), summary.records);
    assert_sound(&fresh, "the fresh store");
    memos_buffer_free(&file);
    for (size_t i = made_count; i > 1; i--) {
        size_t other = below(i);
        struct memcube_ref swap = made[i - 1];
        made[i - 1] = made[other];
        made[other] = swap;
    }
    for (size_t i = 0; i < made_count; i++) {
        file = export_of(&from, &made[i].id, &summary);
        (void)import_into(&cubes, &file);
        assert_int_equal(import_into(&cubes, &file), 0);
        memos_buffer_free(&file);
    }
    assert_sound(&cubes, "the cubes alone");
}

static void test_random_histories_arrive(void **state)
{
    const char *seed = getenv("MEMOS_TEST_SEED");
    const char *steps = getenv("MEMOS_TEST_STEPS");
    struct timespec now;
    (void)state;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    rng = seed ? strtoull(seed, NULL, 10) : (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec;
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)rng);
    fixture_make(&from);
    fixture_make(&follower);
    fixture_make(&fresh);
    fixture_make(&cubes);
    size_t count = steps ? (size_t)strtoull(steps, NULL, 10) : STEPS;
    for (size_t i = 1; i <= count; i++) {
        step_random();
        if (i % EXPORT_EVERY == 0) {
            follow();
        }
    }
    assert_sound(&from, "the store itself");
    follow();
    arrive();
    fixture_drop(&from);
    fixture_drop(&follower);
    fixture_drop(&fresh);
    fixture_drop(&cubes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_histories_arrive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
