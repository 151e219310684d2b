/* A process that writes is killed at random moments, again and again, and its store is opened.
 *
 * If this fails, a power cut or a crash loses memory that was acknowledged, leaves half of a
 * change, or brings forgotten words back.
 *
 * MEMOS_CRASH_ROUNDS=n sets how often (default 8), MEMOS_TEST_SEED=n repeats the dice; the moment
 * of the kill stays the scheduler's. */
#include "memcube/record.h"
#include "memcube/writer.h"
#include "tests/memcube/store_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    ROUNDS = 8,
    ROUNDS_FOLDER = 25, /* then a new store, so that checking stays quick */
    THREADS = 4,
    OWN_MAX = 512,      /* cubes that a thread makes in one life */
    ACKS_MAX = 65536,
    TEXT_BYTES = 6000,  /* of every third text: a blob file */
    KILL_AFTER_ACKS = 60,
    KILL_AFTER_US = 4000,
};

#define SPACE "crash"

enum { OP_CREATE, OP_UPDATE, OP_BACK, OP_FORGET };

/* What the child has been told is done. Small enough to go through a pipe in one piece. */
struct ack {
    struct memos_id id;
    uint32_t number;
    uint32_t round, thread, item, version; /* which text it is */
    uint32_t operation;
};

static struct ack acks[ACKS_MAX];
static size_t acks_count, acks_round; /* the latter: where this round's begin */

/* ---- dice and texts ------------------------------------------------------------------------ */

static uint64_t roll(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static struct memos_bytes text_fill(const struct ack *ack, char out[TEXT_BYTES])
{
    const int length = snprintf(out, TEXT_BYTES, "word-%u-%u-%u-%u-end ", ack->round, ack->thread,
        ack->item, ack->version);
    if (ack->item % 3 != 0) {
        return memos_bytes_make(out, (size_t)length);
    }
    for (size_t at = (size_t)length; at < TEXT_BYTES; at++) {
        out[at] = out[at - (size_t)length];
    }
    return memos_bytes_make(out, TEXT_BYTES);
}

/* ---- the child ----------------------------------------------------------------------------- */

struct life {
    struct memcube_writer *writer;
    int pipe;
    uint32_t round, thread;
    uint64_t dice;
    struct ack own[OWN_MAX]; /* as last acknowledged */
    size_t own_count;
    struct ack doing;
};

static enum memos_status life_change(
    struct life *life, struct memcube_write *write, struct memcube_outcome *outcome,
    struct memos_error *err)
{
    static _Thread_local char text[TEXT_BYTES];
    const struct memcube_change change = change_of(SPACE);
    const struct ack *doing = &life->doing;
    struct memcube_draft draft = draft_of("");
    const struct memcube_rollback rollback = {
        .ids = &doing->id, .ids_count = 1, .to_version = 1 };
    struct memcube_rollback_item *items = NULL;
    struct memcube_forgotten forgotten;
    size_t count = 0;

    draft.payload = text_fill(doing, text);
    draft.description.title = memos_bytes_make(text, 12);
    const struct memcube_update update = {
        .id = doing->id, .fields = MEMCUBE_FIELD_PAYLOAD, .draft = draft };
    switch (doing->operation) {
    case OP_CREATE:
        return memcube_create(write, &change, &draft, 1, outcome, err);
    case OP_UPDATE:
        return memcube_update(write, &change, &update, 1, outcome, err);
    case OP_BACK:
        return memcube_rollback(write, &change, &rollback, outcome, &items, &count, err);
    default:
        return memcube_forget(
            write, &change, &doing->id, 1, false, false, outcome, &forgotten, err);
    }
}

static enum memos_status life_run(void *self, struct memcube_write *write, struct memos_error *err)
{
    struct life *life = self;
    struct memcube_outcome outcome;

    const enum memos_status status = life_change(life, write, &outcome, err);
    if (status == MEMOS_OK && outcome.refs_count == 1) {
        life->doing.id = outcome.refs[0].id;
        life->doing.number = outcome.refs[0].number;
    }
    return status;
}

/* Choose what to do next, and to which cube. */
static struct ack *life_choose(struct life *life)
{
    const uint64_t dice = roll(&life->dice) % 100;
    struct ack *own =
        life->own_count > 0 ? &life->own[roll(&life->dice) % life->own_count] : NULL;

    if (life->own_count < OWN_MAX && (dice < 50 || !own || own->operation == OP_FORGET)) {
        own = &life->own[life->own_count];
        *own = (struct ack){ .round = life->round, .thread = life->thread,
            .item = (uint32_t)life->own_count, .version = 1, .operation = OP_CREATE };
        life->doing = *own;
        return own;
    }
    life->doing = *own;
    life->doing.operation = dice < 75 ? OP_UPDATE : dice < 85 ? OP_BACK : OP_FORGET;
    life->doing.version = life->doing.operation == OP_BACK ? 1 : own->number + 1;
    return own;
}

static void *life_thread(void *self)
{
    struct life *life = self;

    for (;;) {
        struct ack *own = life_choose(life);
        if (own->operation == OP_FORGET) {
            continue;
        }
        if (memcube_writer_run(life->writer, life_run, life, NULL) != MEMOS_OK) {
            _exit(2);
        }
        if (life->doing.operation == OP_CREATE) {
            life->own_count++;
        }
        *own = life->doing;
        if (write(life->pipe, own, sizeof *own) != sizeof *own) {
            _exit(3);
        }
    }
    return NULL;
}

static void child_live(const struct fixture *f, int pipe, uint32_t round, uint64_t dice)
{
    static struct life lives[THREADS];
    const struct memcube_writer_options options = { .sweep_every_us = 5000 };
    struct memcube_store_options store_options = f->options;
    struct memcube_store *store = NULL;
    struct memcube_writer *writer = NULL;
    pthread_t threads[THREADS];

    store_options.clock = memos_clock_system();
    if (memcube_store_open(&store_options, &store, NULL) != MEMOS_OK ||
        memcube_writer_create(store, &options, &writer, NULL) != MEMOS_OK) {
        _exit(4);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        lives[i] = (struct life){ .writer = writer, .pipe = pipe, .round = round, .thread = i,
            .dice = dice + i };
        if (pthread_create(&threads[i], NULL, life_thread, &lives[i]) != 0) {
            _exit(5);
        }
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    _exit(6);
}

/* ---- the parent ---------------------------------------------------------------------------- */

static int64_t mono_us(void)
{
    const struct memos_clock clock = memos_clock_system();
    return clock.mono_us(clock.self);
}

/* Read one acknowledgement; false when there is none until `until_us`, or the child is gone. */
static bool ack_read(int pipe, int64_t until_us)
{
    struct pollfd poll_fd = { .fd = pipe, .events = POLLIN };
    const int64_t left_us = until_us - mono_us();
    const struct timespec timeout = {
        .tv_sec = left_us > 0 ? left_us / 1000000 : 0,
        .tv_nsec = left_us > 0 ? left_us % 1000000 * 1000 : 0 };

    if (acks_count == ACKS_MAX || ppoll(&poll_fd, 1, &timeout, NULL) != 1) {
        return false;
    }
    const ssize_t size = read(pipe, &acks[acks_count], sizeof acks[0]);
    assert_true(size == 0 || size == (ssize_t)sizeof acks[0]);
    acks_count += size > 0;
    return size > 0;
}

/* Let a child live until it has acknowledged some changes and a moment more; kill it. */
static void life_and_death(struct fixture *f, uint32_t round, uint64_t *dice)
{
    const size_t wanted = roll(dice) % KILL_AFTER_ACKS;
    const int64_t more_us = (int64_t)(roll(dice) % KILL_AFTER_US);
    const uint64_t child_dice = roll(dice);
    int ends[2];
    int status = 0;

    acks_round = acks_count;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        child_live(f, ends[1], round, child_dice);
    }
    close(ends[1]);
    const int64_t patience_us = mono_us() + INT64_C(60000000);
    while (acks_count - acks_round < wanted && ack_read(ends[0], patience_us)) {
    }
    const int64_t until_us = mono_us() + more_us;
    while (mono_us() < until_us && ack_read(ends[0], until_us)) {
    }
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status)); /* it ended by itself: something failed in it */
    while (ack_read(ends[0], 0)) {
    }
    close(ends[0]);
    assert_true(acks_count - acks_round >= wanted);
}

static bool forgotten_later(size_t at)
{
    for (size_t i = at; i < acks_count; i++) {
        if (acks[i].operation == OP_FORGET && memos_id_equal(&acks[i].id, &acks[at].id)) {
            return true;
        }
    }
    return false;
}

/* What was acknowledged is there. A thread has at most one change under way, which may be there,
 * too: so a cube may have been forgotten without our having heard of it. */
static void ack_check(struct fixture *f, const struct memcube_space *space, size_t at)
{
    static char text[TEXT_BYTES];
    const struct ack *ack = &acks[at];
    struct memcube_version version;
    struct memos_bytes payload;

    assert_ok(memcube_version_get(
        f->read, space, &ack->id, ack->number, NULL, &version, fixture_error()));
    if (version.state == MEMCUBE_STATE_FORGOTTEN) {
        return;
    }
    assert_false(forgotten_later(at));
    assert_ok(memcube_payload_get(f->read, space, &version, true, &payload, fixture_error()));
    assert_true(memos_bytes_equal(payload, text_fill(ack, text)));
}

/* Nothing that is forgotten, acknowledged or not, lies in any file. Only blobs lie in the clear. */
static void forgotten_check(struct fixture *f, const struct memcube_space *space)
{
    static char text[TEXT_BYTES];

    for (size_t i = acks_round; i < acks_count; i++) {
        struct memcube_version head;
        if (acks[i].item % 3 != 0) {
            continue;
        }
        assert_ok(memcube_version_get(
            f->read, space, &acks[i].id, 0, NULL, &head, fixture_error()));
        if (head.state == MEMCUBE_STATE_FORGOTTEN) {
            const int length = snprintf(text, sizeof text, "word-%u-%u-%u-", acks[i].round,
                acks[i].thread, acks[i].item);
            assert_int_equal(
                folder_scan(f->path, memos_bytes_make(text, (size_t)length)), 0);
        }
    }
}

static void problem_print(void *self, const char *problem)
{
    (void)self;
    print_error("fsck: %s\n", problem);
}

static void after_death(struct fixture *f, bool all)
{
    struct memcube_fsck_result fsck;

    fixture_open(f);
    assert_ok(memcube_fsck(f->store, false, NULL, problem_print, NULL, &fsck, fixture_error()));
    assert_int_equal(fsck.problems, 0);
    if (acks_count > acks_round || all) {
        const struct memcube_space space = fixture_space(f, SPACE);
        for (size_t i = all ? 0 : acks_round; i < acks_count; i++) {
            ack_check(f, &space, i);
        }
        forgotten_check(f, &space);
    }
    fixture_close(f);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && text[0] != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static void test_kills_lose_nothing(void **state)
{
    const uint64_t rounds = number_of("MEMOS_CRASH_ROUNDS", ROUNDS);
    static struct fixture f;
    uint64_t dice = 0;
    uint64_t total = 0;

    (void)state;
    assert_true(sodium_init() >= 0);
    randombytes_buf(&dice, sizeof dice);
    dice = number_of("MEMOS_TEST_SEED", dice >> 32);
    print_message("MEMOS_TEST_SEED=%llu\n", (unsigned long long)dice);
    for (uint64_t round = 0; round < rounds; round++) {
        if (round % ROUNDS_FOLDER == 0) {
            if (round > 0) {
                folder_remove(f.path);
            }
            acks_count = 0;
            fixture_make(&f);
            f.options.sync_off = false;
            fixture_close(&f);
        }
        life_and_death(&f, (uint32_t)round, &dice);
        total += acks_count - acks_round;
        const bool last = round + 1 == rounds || (round + 1) % ROUNDS_FOLDER == 0;
        after_death(&f, last && acks_count > 0);
    }
    folder_remove(f.path);
    print_message("%llu kills, %llu changes acknowledged, 0 lost\n", (unsigned long long)rounds,
        (unsigned long long)total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kills_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
