#include "tests/memcube/store_fixture.h"

#include <string.h>

static struct memos_error last_error;

struct memos_error *fixture_error(void)
{
    return &last_error;
}

struct memos_bytes text_of(const char *text)
{
    return memos_bytes_make(text, strlen(text));
}

void fixture_make(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    folder_make(f->path);
    f->now_us = INT64_C(1767225600000000); /* 2026-01-01 */
    f->options.path = f->path;
    f->options.inline_bytes_max = 4096;
    f->options.sync_off = true;
    f->options.map_bytes = 64 * 1024 * 1024;
    f->options.clock = memos_clock_fixed(&f->now_us);
    fixture_open(f);
}

void fixture_open(struct fixture *f)
{
    assert_ok(memcube_store_open(&f->options, &f->store, &last_error));
}

void fixture_close(struct fixture *f)
{
    memcube_read_end(&f->read);
    memcube_write_abort(&f->write);
    memcube_store_close(&f->store);
}

void fixture_reopen(struct fixture *f)
{
    fixture_close(f);
    fixture_open(f);
}

void fixture_drop(struct fixture *f)
{
    fixture_close(f);
    folder_remove(f->path);
}

struct memcube_draft draft_of(const char *text)
{
    return (struct memcube_draft){
        .kind = MEMCUBE_PLAINTEXT,
        .subtype = text_of("fact"),
        .payload = text_of(text),
    };
}

struct memcube_change change_of(const char *space)
{
    return (struct memcube_change){
        .space = text_of(space), .author = text_of("alice"), .reason = text_of("a test") };
}

struct memcube_write *fixture_write(struct fixture *f)
{
    if (!f->write) {
        memcube_read_end(&f->read);
        assert_ok(memcube_write_begin(f->store, &f->write, &last_error));
    }
    return f->write;
}

void fixture_commit(struct fixture *f)
{
    assert_ok(memcube_write_commit(&f->write, &last_error));
}

struct memcube_read *fixture_read(struct fixture *f)
{
    if (f->write) {
        return memcube_write_read(f->write);
    }
    if (f->read) {
        assert_ok(memcube_read_renew(f->read, &last_error));
    } else {
        assert_ok(memcube_read_begin(f->store, &f->read, &last_error));
    }
    return f->read;
}

struct memcube_space fixture_space(struct fixture *f, const char *space)
{
    struct memcube_space found;
    assert_ok(memcube_space_find(fixture_read(f), text_of(space), &found, &last_error));
    return found;
}

struct memcube_ref fixture_put_draft(
    struct fixture *f, const char *space, const struct memcube_draft *draft)
{
    const struct memcube_change change = change_of(space);
    struct memcube_outcome outcome;

    f->now_us += 1000000;
    assert_ok(memcube_create(fixture_write(f), &change, draft, 1, &outcome, &last_error));
    assert_int_equal(outcome.refs_count, 1);
    const struct memcube_ref ref = outcome.refs[0];
    fixture_commit(f);
    return ref;
}

struct memcube_ref fixture_put(struct fixture *f, const char *space, const char *text)
{
    const struct memcube_draft draft = draft_of(text);
    return fixture_put_draft(f, space, &draft);
}

struct memcube_ref fixture_derive(
    struct fixture *f, const char *space, const char *text, struct memcube_ref source)
{
    struct memcube_draft draft = draft_of(text);
    draft.derived_from = &source;
    draft.derived_count = 1;
    return fixture_put_draft(f, space, &draft);
}

struct memcube_ref fixture_update(
    struct fixture *f, const char *space, const struct memos_id *id, const char *text)
{
    const struct memcube_change change = change_of(space);
    const struct memcube_update update = {
        .id = *id, .fields = MEMCUBE_FIELD_PAYLOAD, .draft = draft_of(text) };
    struct memcube_outcome outcome;

    f->now_us += 1000000;
    assert_ok(memcube_update(fixture_write(f), &change, &update, 1, &outcome, &last_error));
    const struct memcube_ref ref = outcome.refs[0];
    fixture_commit(f);
    return ref;
}

enum memos_status fixture_transition(struct fixture *f, const char *space,
    const struct memos_id *id, enum memcube_state to)
{
    const struct memcube_change change = change_of(space);
    struct memcube_outcome outcome;

    f->now_us += 1000000;
    const enum memos_status status = memcube_transition(
        fixture_write(f), &change, id, 1, to, &outcome, &last_error);
    fixture_commit(f);
    return status;
}

enum memos_status fixture_get_status(
    struct fixture *f, const char *space, const struct memos_id *id, uint32_t number)
{
    const struct memcube_space found = fixture_space(f, space);
    struct memcube_version version;
    return memcube_version_get(f->write ? memcube_write_read(f->write) : f->read, &found, id,
        number, NULL, &version, &last_error);
}

struct memcube_version fixture_get(
    struct fixture *f, const char *space, const struct memos_id *id, uint32_t number)
{
    const struct memcube_space found = fixture_space(f, space);
    struct memcube_version version;
    assert_ok(memcube_version_get(f->write ? memcube_write_read(f->write) : f->read, &found, id,
        number, NULL, &version, &last_error));
    return version;
}

void assert_text(struct fixture *f, const char *space, const struct memos_id *id, uint32_t number,
    const char *text)
{
    const struct memcube_version version = fixture_get(f, space, id, number);
    struct memcube_read *read = f->write ? memcube_write_read(f->write) : f->read;
    struct memcube_space found;
    struct memos_bytes payload;

    assert_ok(memcube_space_find(read, text_of(space), &found, &last_error));
    assert_ok(memcube_payload_get(read, &found, &version, true, &payload, &last_error));
    assert_int_equal(payload.size, strlen(text));
    assert_memory_equal(payload.data, text, payload.size);
}

uint32_t fixture_select(struct fixture *f, const char *space, const struct memcube_filter *filter,
    const struct memcube_as_of *as_of)
{
    const struct memcube_space found = fixture_space(f, space);
    struct memcube_docs docs;
    assert_ok(memcube_docs_select(f->write ? memcube_write_read(f->write) : f->read, &found,
        filter, as_of, &docs, &last_error));
    return docs.count;
}
