/* If these failed, somebody could change what was remembered, or a disk could, and verify would
 * still say that the history is intact; or it would name the wrong place. */
#include "tests/memcube/damage.h"
#include "tests/memcube/history.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct memcube_verify_result verify(struct fixture *f, const char *space)
{
    struct memcube_verify_result result;
    assert_ok(memcube_verify(f->store, text_of(space), 0, NULL, NULL, &result, fixture_error()));
    return result;
}

static void assert_intact(struct fixture *f, const char *space)
{
    struct memcube_verify_result result = verify(f, space);
    if (!result.intact) {
        fail_msg("record %llu: %s", (unsigned long long)result.bad_seq, result.what);
    }
    assert_int_equal(result.bad_seq, 0);
}

/* Change byte `at` of an entry, verify, put it back. */
static struct memcube_verify_result verify_flipped(
    struct fixture *f, memcube_table table, struct damage_entry *entry, size_t at)
{
    const uint8_t flip = (uint8_t)(1u << (at % 8));
    entry->value[at] ^= flip;
    damage_put(f, table, entry);
    struct memcube_verify_result result = verify(f, "s");
    entry->value[at] ^= flip;
    damage_put(f, table, entry);
    return result;
}

/* ---- what is intact ------------------------------------------------------------------------ */

static void test_counts_what_it_checked(void **state)
{
    struct fixture f;
    (void)state;
    fixture_make(&f);
    struct history h = history_make(&f, "s");
    struct memcube_space space = fixture_space(&f, "s");
    struct memcube_verify_result result = verify(&f, "s");
    assert_true(result.intact);
    assert_int_equal(result.records, space.seq);
    assert_int_equal(result.versions, space.versions);
    assert_int_equal(result.seq, space.seq);
    assert_memory_equal(&result.head, &space.head, sizeof space.head);
    /* Of the forgotten: one cube with three versions and their words, one with its one. */
    uint64_t words = fixture_get(&f, "s", &h.forgotten.id, 0).number +
                     fixture_get(&f, "s", &h.forgotten_derived.id, 0).number - 2;
    assert_int_equal(result.forgotten, words);
    assert_int_equal(result.payloads, space.versions - words - 2);

    /* From the middle on: the beginning is not looked at. */
    struct damage_entry first;
    assert_true(damage_entry_at(&f, f.store->tables.log, 0, &first));
    damage_remove(&f, f.store->tables.log, false, &first);
    assert_ok(memcube_verify(
        f.store, text_of("s"), space.seq, NULL, NULL, &result, fixture_error()));
    assert_true(result.intact);
    assert_int_equal(result.records, 1);
    assert_int_equal(verify(&f, "s").bad_seq, 1);
    fixture_drop(&f);
}

static bool stop_at_once(void *self, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    ++*(int *)self;
    return false;
}

static void test_stops_when_told(void **state)
{
    struct fixture f;
    struct memcube_verify_result result;
    int calls = 0;
    (void)state;
    fixture_make(&f);
    (void)fixture_put(&f, "s", "tea");
    assert_int_equal(memcube_verify(f.store, text_of("s"), 0, stop_at_once, &calls, &result,
                         fixture_error()),
        MEMOS_CANCELLED);
    assert_int_equal(calls, 1);
    assert_int_equal(memcube_verify(f.store, text_of("none"), 0, NULL, NULL, &result,
                         fixture_error()),
        MEMOS_NOT_FOUND);
    fixture_drop(&f);
}

/* ---- single values ------------------------------------------------------------------------- */

static void test_every_byte_of_every_record(void **state)
{
    struct fixture f;
    struct damage_entry entry;
    (void)state;
    fixture_make(&f);
    (void)history_make(&f, "s");
    for (size_t n = 0; damage_entry_at(&f, f.store->tables.log, n, &entry); n++) {
        for (size_t at = 0; at < entry.value_size; at++) {
            struct memcube_verify_result result =
                verify_flipped(&f, f.store->tables.log, &entry, at);
            if (result.intact || result.bad_seq != n + 1) {
                fail_msg("record %zu, byte %zu: verify says %llu: %s", n + 1, at,
                    (unsigned long long)result.bad_seq, result.what);
            }
        }
    }
    assert_intact(&f, "s");
    fixture_drop(&f);
}

/* What of a row's value verify vouches for: not the doc, which is fsck's; and of a forgotten cube's
 * version its seq and its header alone. */
static bool vouched_for(const struct memcube_row *row, size_t at, bool forgotten)
{
    const size_t doc_at = 8, seq_at = 12, header_at = 24;
    const size_t header_end = header_at + row->header.size;
    if (at >= doc_at && at < seq_at) {
        return false;
    }
    return !forgotten || (at >= seq_at && at < header_end);
}

static void test_every_byte_of_every_row(void **state)
{
    struct fixture f;
    struct damage_entry entry;
    (void)state;
    fixture_make(&f);
    (void)history_make(&f, "s");
    struct memcube_space space = fixture_space(&f, "s");
    for (size_t n = 0; damage_entry_at(&f, f.store->tables.row, n, &entry); n++) {
        struct memcube_version version;
        struct memcube_row row;
        (void)fixture_space(&f, "s");
        assert_ok(memcube_version_at_row(
            f.read, &space, (uint32_t)n + 1, &version, fixture_error()));
        assert_ok(memcube_row_decode((uint32_t)n + 1,
            memos_bytes_make(entry.value, entry.value_size), &row, fixture_error()));
        struct memcube_ref ref = { version.id, version.number };
        uint64_t seq = version.seq;
        bool forgotten = version.state == MEMCUBE_STATE_FORGOTTEN;
        for (size_t at = 0; at < entry.value_size; at++) {
            if (!vouched_for(&row, at, forgotten)) {
                continue;
            }
            struct memcube_verify_result result =
                verify_flipped(&f, f.store->tables.row, &entry, at);
            /* A forgotten cube's last version is looked at for each of the others. */
            bool right = forgotten ? result.bad_seq <= seq
                                   : result.bad_seq == seq && result.bad_ref.number == ref.number;
            if (result.intact || !right || !memos_id_equal(&result.bad_ref.id, &ref.id)) {
                fail_msg("row %zu, byte %zu: verify says %llu: %s", n + 1, at,
                    (unsigned long long)result.bad_seq, result.what);
            }
        }
    }
    assert_intact(&f, "s");
    fixture_drop(&f);
}

static void test_every_byte_of_every_payload(void **state)
{
    struct fixture f;
    struct memcube_payload_tables tables;
    struct damage_entry entry;
    (void)state;
    fixture_make(&f);
    struct history h = history_make(&f, "s");
    memcube_payloads_tables(f.store->payloads, &tables);
    size_t named_tea = 0, n = 0;
    for (; damage_entry_at(&f, tables.data, n, &entry); n++) {
        for (size_t at = 0; at < entry.value_size; at++) {
            struct memcube_verify_result result = verify_flipped(&f, tables.data, &entry, at);
            assert_false(result.intact);
            assert_int_not_equal(result.bad_ref.number, 0);
            assert_non_null(strstr(result.what, "payload"));
            named_tea += memos_id_equal(&result.bad_ref.id, &h.tea.id) && result.bad_seq == 1;
        }
    }
    assert_true(n > 3);
    /* "Ann likes tea" lies there once, with its nonce; the first version that has it is named. */
    assert_int_equal(named_tea, strlen("Ann likes tea") + 8);
    assert_intact(&f, "s");
    fixture_drop(&f);
}

static void test_blob(void **state)
{
    struct fixture f;
    struct memos_bytes path;
    (void)state;
    fixture_make(&f);
    struct history h = history_make(&f, "s");
    struct memcube_version version = fixture_get(&f, "s", &h.blob.id, 1);
    struct memcube_space space = fixture_space(&f, "s");
    assert_ok(memcube_payload_path(f.read, &space, &version, &path, fixture_error()));
    char file[FOLDER_PATH_BYTES + 128];
    (void)snprintf(file, sizeof file, "%.*s", (int)path.size, (const char *)path.data);
    const size_t size = strlen(history_large_text());
    for (size_t at = 0; at < size; at += size / 7) {
        damage_file(file, at);
        struct memcube_verify_result result = verify(&f, "s");
        assert_false(result.intact);
        assert_memory_equal(&result.bad_ref.id, &h.blob.id, sizeof h.blob.id);
        assert_int_equal(result.bad_ref.number, 1);
        damage_file(file, at);
    }
    assert_intact(&f, "s");
    assert_int_equal(unlink(file), 0);
    assert_false(verify(&f, "s").intact);
    fixture_drop(&f);
}

static void test_missing_and_added_entries(void **state)
{
    struct fixture f;
    struct damage_entry entry;
    (void)state;
    fixture_make(&f);
    (void)history_make(&f, "s");
    const uint64_t seq = fixture_space(&f, "s").seq;
    for (size_t n = 0; n < seq; n++) {
        assert_true(damage_entry_at(&f, f.store->tables.log, n, &entry));
        damage_remove(&f, f.store->tables.log, false, &entry);
        assert_int_equal(verify(&f, "s").bad_seq, n + 1);
        damage_put(&f, f.store->tables.log, &entry);
    }
    for (size_t n = 0; damage_entry_at(&f, f.store->tables.row, n, &entry); n++) {
        damage_remove(&f, f.store->tables.row, false, &entry);
        struct memcube_verify_result result = verify(&f, "s");
        assert_false(result.intact);
        assert_int_not_equal(result.bad_ref.number, 0);
        damage_put(&f, f.store->tables.row, &entry);
    }
    assert_intact(&f, "s");
    assert_true(damage_entry_at(&f, f.store->tables.log, seq - 1, &entry));
    entry.key[entry.key_size - 1]++;
    damage_put(&f, f.store->tables.log, &entry);
    assert_int_equal(verify(&f, "s").bad_seq, seq + 1);
    fixture_drop(&f);
}

static void test_space_record_and_checkpoint(void **state)
{
    struct fixture f;
    struct damage_entry entry;
    struct memcube_checkpoint made;
    uint8_t public_key[32], secret_key[64];
    (void)state;
    fixture_make(&f);
    (void)history_make(&f, "s");
    assert_int_equal(crypto_sign_ed25519_keypair(public_key, secret_key), 0);
    assert_ok(memcube_checkpoint_make(
        fixture_write(&f), text_of("s"), secret_key, &made, fixture_error()));
    fixture_commit(&f);
    (void)fixture_put(&f, "s", "more");
    assert_intact(&f, "s");
    assert_true(damage_entry_at(&f, f.store->tables.checkpoint, 0, &entry));
    for (size_t at = 0; at < entry.value_size; at++) {
        struct memcube_verify_result result =
            verify_flipped(&f, f.store->tables.checkpoint, &entry, at);
        assert_false(result.intact);
        assert_int_equal(result.bad_seq, made.seq);
    }
    /* Number, id, seq and head of the space. */
    assert_true(damage_entry_at(&f, f.store->tables.space, 0, &entry));
    for (size_t at = 0; at < 4 + 16 + 8 + 32; at++) {
        assert_false(verify_flipped(&f, f.store->tables.space, &entry, at).intact);
    }
    assert_intact(&f, "s");
    fixture_drop(&f);
}

/* ---- many records -------------------------------------------------------------------------- */

#define MANY 5000

/* Long enough for several ranges and both threads. */
static void test_seams_of_ranges(void **state)
{
    struct fixture f;
    struct memcube_outcome outcome;
    struct damage_entry entry;
    const struct memcube_change change = change_of("s");
    (void)state;
    fixture_make(&f);
    for (size_t i = 0; i < MANY; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "fact %zu", i);
        const struct memcube_draft draft = draft_of(text);
        assert_ok(memcube_create(
            fixture_write(&f), &change, &draft, 1, &outcome, fixture_error()));
    }
    fixture_commit(&f);
    struct memcube_verify_result result = verify(&f, "s");
    assert_true(result.intact);
    assert_int_equal(result.records, MANY);
    assert_int_equal(result.payloads, MANY);
    const size_t places[] = { 1, 2047, 2048, 2049, 4095, 4096, 4097, MANY - 1, MANY };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        assert_true(damage_entry_at(&f, f.store->tables.log, places[i] - 1, &entry));
        /* Its seq, its time, the hash before, and its author's last letter. */
        const size_t bytes[] = { 18, 26, 34, 74 + 4 + 4 };
        for (size_t b = 0; b < sizeof bytes / sizeof bytes[0]; b++) {
            result = verify_flipped(&f, f.store->tables.log, &entry, bytes[b]);
            assert_false(result.intact);
            assert_int_equal(result.bad_seq, places[i]);
            assert_int_equal(result.seq, places[i] - 1);
        }
    }
    assert_intact(&f, "s");
    fixture_drop(&f);
}

/* ---- beside a writer ----------------------------------------------------------------------- */

#define WRITES 600

static void test_beside_a_writer_that_forgets(void **state)
{
    struct fixture f;
    (void)state;
    fixture_make(&f);
    f.options.clock = memos_clock_system();
    fixture_reopen(&f);
    (void)fixture_put(&f, "s", "the first");
    struct history_writing writing;
    history_writing_begin(&writing, f.store, "s", WRITES);
    size_t rounds = 0;
    while (!history_writing_done(&writing) || rounds == 0) {
        assert_intact(&f, "s");
        rounds++;
    }
    history_writing_end(&writing);
    struct memcube_verify_result result = verify(&f, "s");
    assert_true(result.intact);
    assert_int_equal(result.forgotten, WRITES / 3);
    fixture_drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_what_it_checked),
        cmocka_unit_test(test_stops_when_told),
        cmocka_unit_test(test_every_byte_of_every_record),
        cmocka_unit_test(test_every_byte_of_every_row),
        cmocka_unit_test(test_every_byte_of_every_payload),
        cmocka_unit_test(test_blob),
        cmocka_unit_test(test_missing_and_added_entries),
        cmocka_unit_test(test_space_record_and_checkpoint),
        cmocka_unit_test(test_seams_of_ranges),
        cmocka_unit_test(test_beside_a_writer_that_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
