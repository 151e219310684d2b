/* If these failed, an export could lose or change a memory on its way to another store, or a
 * damaged or forged file could get in. */
#include "tests/memcube/history.h"

#include "memcube/archive.h"

#include <stdlib.h>
#include <string.h>

/* An archive in memory. */
struct file {
    struct memos_buffer bytes;
    struct memcube_archive_summary summary;
};

static enum memos_status file_write(void *self, struct memos_bytes bytes, struct memos_error *err)
{
    struct file *file = self;
    (void)err;
    memos_buffer_bytes(&file->bytes, bytes.data, bytes.size);
    assert_false(file->bytes.failed);
    return MEMOS_OK;
}

static struct file export_of(struct fixture *f, const char *space, const struct memos_id *id)
{
    struct file file = { .bytes = memos_buffer_make((size_t)1 << 30) };
    struct file *self = &file;
    const struct memcube_sink sink = { file_write, self };
    assert_ok(memcube_archive_export(
        f->store, text_of(space), id, &sink, &file.summary, fixture_error()));
    assert_int_equal(file.bytes.size, file.summary.bytes);
    struct memcube_archive_summary checked;
    assert_ok(memcube_archive_check(memos_buffer_view(&file.bytes), &checked, fixture_error()));
    assert_int_equal(checked.records, file.summary.records);
    assert_int_equal(checked.cubes, file.summary.cubes);
    assert_int_equal(checked.versions, file.summary.versions);
    assert_int_equal(checked.payloads, file.summary.payloads);
    assert_memory_equal(&checked.head, &file.summary.head, sizeof checked.head);
    return file;
}

static enum memos_status import_try(struct fixture *f, const char *space, struct memos_bytes bytes,
    struct memcube_archive_summary *out, struct memcube_outcome *outcome)
{
    const struct memcube_change change = change_of(space);
    f->now_us += 1000000;
    enum memos_status status = memcube_archive_import(
        fixture_write(f), &change, bytes, out, outcome, fixture_error());
    if (status == MEMOS_OK) {
        fixture_commit(f);
    } else {
        memcube_write_abort(&f->write);
    }
    return status;
}

static uint64_t import_ok(struct fixture *f, const char *space, const struct file *file)
{
    struct memcube_archive_summary summary;
    struct memcube_outcome outcome;
    assert_ok(import_try(f, space, memos_buffer_view(&file->bytes), &summary, &outcome));
    return summary.added;
}

static void assert_sound(struct fixture *f, const char *space)
{
    struct memcube_verify_result verified;
    struct memcube_fsck_result checked;
    assert_ok(memcube_verify(
        f->store, text_of(space), 0, NULL, NULL, &verified, fixture_error()));
    if (!verified.intact) {
        fail_msg("record %llu: %s", (unsigned long long)verified.bad_seq, verified.what);
    }
    assert_ok(memcube_fsck(f->store, false, NULL, NULL, NULL, &checked, fixture_error()));
    if (checked.problems != 0) {
        fail_msg("fsck: %s", checked.first);
    }
}

static void assert_heads_equal(struct fixture *a, const char *space_a, struct fixture *b,
    const char *space_b, const struct memcube_ref *ref)
{
    struct memcube_version x = fixture_get(a, space_a, &ref->id, 0);
    struct memcube_version y = fixture_get(b, space_b, &ref->id, 0);
    assert_int_equal(x.number, y.number);
    assert_int_equal(x.state, y.state);
    assert_int_equal(x.stale, y.stale);
    assert_memory_equal(&x.payload_hash, &y.payload_hash, sizeof x.payload_hash);
    assert_memory_equal(&x.description_hash, &y.description_hash, sizeof x.description_hash);
}

/* ---- tests --------------------------------------------------------------------------------- */

static void test_space_goes_to_another_store_and_back(void **state)
{
    struct fixture a, b;
    (void)state;
    fixture_make(&a);
    fixture_make(&b);
    struct history h = history_make(&a, "acme/ann");
    assert_sound(&a, "acme/ann");
    struct file file = export_of(&a, "acme/ann", NULL);
    assert_int_equal(import_ok(&b, "kept/ann", &file), file.summary.records);
    assert_sound(&b, "kept/ann");

    struct memcube_space x = fixture_space(&a, "acme/ann"), y = fixture_space(&b, "kept/ann");
    assert_memory_equal(&x.id, &y.id, sizeof x.id);
    assert_memory_equal(&x.head, &y.head, sizeof x.head);
    assert_int_equal(x.seq, y.seq);
    assert_int_equal(x.cubes, y.cubes);
    assert_int_equal(x.versions, y.versions);
    assert_int_equal(x.payload_bytes, y.payload_bytes);
    const struct memcube_ref *refs[] = { &h.tea, &h.coffee, &h.blob, &h.shared, &h.derived };
    for (size_t i = 0; i < sizeof refs / sizeof refs[0]; i++) {
        assert_heads_equal(&a, "acme/ann", &b, "kept/ann", refs[i]);
    }
    assert_text(&b, "kept/ann", &h.tea.id, 2, "Ann likes mate");
    assert_text(&b, "kept/ann", &h.blob.id, 0, history_large_text());
    assert_int_equal(fixture_get(&b, "kept/ann", &h.forgotten.id, 0).state,
        MEMCUBE_STATE_FORGOTTEN);
    assert_int_equal(folder_scan(b.path, text_of("secret of Ann")), 0);

    /* The same file again changes nothing; and what comes back is the file that went out. */
    assert_int_equal(import_ok(&b, "kept/ann", &file), 0);
    struct file back = export_of(&b, "kept/ann", NULL);
    assert_int_equal(back.bytes.size, file.bytes.size);
    assert_memory_equal(back.bytes.data, file.bytes.data, file.bytes.size);
    memos_buffer_free(&back.bytes);
    memos_buffer_free(&file.bytes);
    fixture_drop(&b);
    fixture_drop(&a);
}

static void test_newer_file_appends_what_is_missing(void **state)
{
    struct fixture a, b;
    (void)state;
    fixture_make(&a);
    fixture_make(&b);
    struct memcube_ref tea = fixture_put(&a, "s", "Ann likes tea");
    struct memcube_ref secret = fixture_put(&a, "s", "a secret of Ann");
    struct memcube_ref derived = fixture_derive(&a, "s", "derived of the secret", secret);
    struct file older = export_of(&a, "s", NULL);
    assert_int_equal(import_ok(&b, "s", &older), 3);
    assert_text(&b, "s", &secret.id, 0, "a secret of Ann");

    (void)fixture_update(&a, "s", &tea.id, "Ann likes mate");
    (void)fixture_update(&a, "s", &secret.id, "a changed secret");
    history_forget(&a, "s", &secret.id);
    struct file newer = export_of(&a, "s", NULL);
    assert_int_equal(import_ok(&b, "s", &newer), 3);
    assert_sound(&b, "s");
    assert_text(&b, "s", &tea.id, 0, "Ann likes mate");
    assert_int_equal(fixture_get(&b, "s", &secret.id, 1).state, MEMCUBE_STATE_FORGOTTEN);
    assert_int_equal(fixture_get(&b, "s", &derived.id, 1).state, MEMCUBE_STATE_FORGOTTEN);

    /* The older file is a beginning of what is here by now: nothing to do, nothing comes back. */
    assert_int_equal(import_ok(&b, "s", &older), 0);
    assert_int_equal(fixture_get(&b, "s", &secret.id, 1).state, MEMCUBE_STATE_FORGOTTEN);
    memos_buffer_free(&older.bytes);
    memos_buffer_free(&newer.bytes);
    fixture_drop(&b);
    fixture_drop(&a);
}

static void test_fork_is_refused_and_named(void **state)
{
    struct fixture a, b;
    struct memcube_archive_summary summary;
    struct memcube_outcome outcome;
    (void)state;
    fixture_make(&a);
    fixture_make(&b);
    struct memcube_ref tea = fixture_put(&a, "s", "Ann likes tea");
    struct file common = export_of(&a, "s", NULL);
    assert_int_equal(import_ok(&b, "s", &common), 1);
    (void)fixture_update(&a, "s", &tea.id, "here");
    (void)fixture_update(&b, "s", &tea.id, "there");
    struct file fork = export_of(&a, "s", NULL);
    struct memcube_space before = fixture_space(&b, "s");
    assert_int_equal(import_try(&b, "s", memos_buffer_view(&fork.bytes), &summary, &outcome),
        MEMOS_CONFLICT);
    assert_non_null(strstr(fixture_error()->text, "record 2"));
    struct memcube_space after = fixture_space(&b, "s");
    assert_memory_equal(&before.head, &after.head, sizeof before.head);

    /* Into a space that is another one altogether. */
    (void)fixture_put(&b, "other", "something");
    assert_int_equal(import_try(&b, "other", memos_buffer_view(&fork.bytes), &summary, &outcome),
        MEMOS_CONFLICT);
    assert_sound(&b, "s");
    memos_buffer_free(&common.bytes);
    memos_buffer_free(&fork.bytes);
    fixture_drop(&b);
    fixture_drop(&a);
}

static void test_cube_goes_alone(void **state)
{
    struct fixture a, b;
    (void)state;
    fixture_make(&a);
    fixture_make(&b);
    struct history h = history_make(&a, "s");
    struct file derived = export_of(&a, "s", &h.derived.id);
    struct file tea = export_of(&a, "s", &h.tea.id);
    struct file blob = export_of(&a, "s", &h.blob.id);
    struct file gone = export_of(&a, "s", &h.forgotten.id);
    assert_true(tea.summary.single_cube);
    assert_int_equal(gone.summary.payloads, 0);
    assert_int_equal(import_ok(&b, "t", &derived), derived.summary.versions);
    assert_true(fixture_get(&b, "t", &h.derived.id, 0).stale); /* its source is not here */
    assert_int_equal(import_ok(&b, "t", &tea), tea.summary.versions);
    assert_int_equal(import_ok(&b, "t", &blob), blob.summary.versions);
    assert_int_equal(import_ok(&b, "t", &gone), gone.summary.versions);
    assert_sound(&b, "t");
    assert_heads_equal(&a, "s", &b, "t", &h.tea);
    assert_heads_equal(&a, "s", &b, "t", &h.blob);
    assert_heads_equal(&a, "s", &b, "t", &h.derived);
    assert_text(&b, "t", &h.tea.id, 1, "Ann likes tea");
    assert_int_equal(fixture_get(&b, "t", &h.forgotten.id, 0).state, MEMCUBE_STATE_FORGOTTEN);

    uint64_t seq = fixture_space(&b, "t").seq;
    assert_int_equal(import_ok(&b, "t", &tea), 0);
    assert_int_equal(fixture_space(&b, "t").seq, seq);

    /* A newer one appends; a fork is named. */
    (void)fixture_update(&a, "s", &h.tea.id, "Ann likes soup");
    struct file newer = export_of(&a, "s", &h.tea.id);
    assert_int_equal(import_ok(&b, "t", &newer), 1);
    assert_text(&b, "t", &h.tea.id, 0, "Ann likes soup");
    (void)fixture_update(&a, "s", &h.tea.id, "Ann likes bread");
    (void)fixture_update(&b, "t", &h.tea.id, "Ann likes rice");
    struct file fork = export_of(&a, "s", &h.tea.id);
    struct memcube_archive_summary summary;
    struct memcube_outcome outcome;
    assert_int_equal(import_try(&b, "t", memos_buffer_view(&fork.bytes), &summary, &outcome),
        MEMOS_CONFLICT);
    assert_non_null(strstr(fixture_error()->text, "version"));
    assert_sound(&b, "t");
    struct file *files[] = { &derived, &tea, &blob, &gone, &newer, &fork };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        memos_buffer_free(&files[i]->bytes);
    }
    fixture_drop(&b);
    fixture_drop(&a);
}

/* A forget while the sink writes: what was written must not become a whole archive. */
struct forgetting {
    struct fixture *fixture;
    struct memos_id id;
    size_t written, forget_at;
};

static enum memos_status forgetting_write(
    void *self_place, struct memos_bytes bytes, struct memos_error *err)
{
    struct forgetting *self = self_place;
    (void)err;
    self->written += bytes.size;
    if (self->written >= self->forget_at && self->forget_at != 0) {
        self->forget_at = 0;
        history_forget(self->fixture, "s", &self->id);
    }
    return MEMOS_OK;
}

static void test_forget_while_exporting(void **state)
{
    struct fixture f;
    struct memcube_archive_summary summary;
    (void)state;
    fixture_make(&f);
    struct memcube_ref early = fixture_put(&f, "s", "an early secret");
    (void)fixture_put(&f, "s", history_large_text());
    struct memcube_ref late = fixture_put(&f, "s", "a late secret");

    /* The early one was written with the first step, together with the blob. */
    struct forgetting self = { &f, early.id, 0, 1 };
    const struct memcube_sink sink = { forgetting_write, &self };
    assert_int_equal(memcube_archive_export(f.store, text_of("s"), NULL, &sink, &summary,
                         fixture_error()),
        MEMOS_CONFLICT);

    /* The late one comes after it: it travels as a header, with the record that forgets it. */
    self = (struct forgetting){ &f, late.id, 0, 1 };
    uint64_t seq = fixture_space(&f, "s").seq;
    assert_ok(memcube_archive_export(f.store, text_of("s"), NULL, &sink, &summary,
        fixture_error()));
    assert_int_equal(summary.seq, seq + 1);
    struct file file = export_of(&f, "s", NULL);
    assert_int_equal(file.summary.bytes, summary.bytes);
    memos_buffer_free(&file.bytes);
    fixture_drop(&f);
}

static void refuse(struct fixture *f, struct memos_bytes bytes)
{
    struct memcube_archive_summary summary;
    struct memcube_outcome outcome;
    enum memos_status status = memcube_archive_check(bytes, &summary, fixture_error());
    assert_true(status == MEMOS_CORRUPT || status == MEMOS_UNSUPPORTED);
    assert_int_equal(import_try(f, "s", bytes, &summary, &outcome), status);
    struct memcube_read *read = fixture_read(f);
    struct memcube_space space;
    assert_int_equal(
        memcube_space_find(read, text_of("s"), &space, fixture_error()), MEMOS_NOT_FOUND);
}

static void test_cut_and_flipped_files_are_refused(void **state)
{
    struct fixture a, b;
    (void)state;
    fixture_make(&a);
    fixture_make(&b);
    struct memcube_ref tea = fixture_put(&a, "s", "Ann likes tea");
    (void)fixture_derive(&a, "s", "derived", tea);
    (void)fixture_update(&a, "s", &tea.id, "Ann likes mate");
    history_forget(&a, "s", &tea.id);
    struct file file = export_of(&a, "s", NULL);
    for (size_t size = 0; size < file.bytes.size; size++) {
        refuse(&b, memos_bytes_make(file.bytes.data, size));
    }
    for (size_t at = 0; at < file.bytes.size; at++) {
        file.bytes.data[at] ^= 0x10;
        refuse(&b, memos_buffer_view(&file.bytes));
        file.bytes.data[at] ^= 0x10;
    }
    assert_int_equal(import_ok(&b, "s", &file), file.summary.records);
    assert_sound(&b, "s");
    memos_buffer_free(&file.bytes);
    fixture_drop(&b);
    fixture_drop(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_space_goes_to_another_store_and_back),
        cmocka_unit_test(test_newer_file_appends_what_is_missing),
        cmocka_unit_test(test_fork_is_refused_and_named),
        cmocka_unit_test(test_cube_goes_alone),
        cmocka_unit_test(test_forget_while_exporting),
        cmocka_unit_test(test_cut_and_flipped_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
