#include "tests/memcube/history.h"

#include <stdio.h>
#include <string.h>

char *history_large_text(void)
{
    static char text[300 * 1024 + 17];
    memset(text, 'x', sizeof text - 1);
    memcpy(text + 200000, "a needle", 8);
    return text;
}

void history_roll_back(struct fixture *f, const char *space, uint64_t seq)
{
    const struct memcube_change change = change_of(space);
    const struct memcube_rollback rollback = { .to = { .seq = seq } };
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items;
    size_t items_count;
    f->now_us += 1000000;
    assert_ok(memcube_rollback(
        fixture_write(f), &change, &rollback, &outcome, &items, &items_count, fixture_error()));
    fixture_commit(f);
}

void history_forget(struct fixture *f, const char *space, const struct memos_id *id)
{
    const struct memcube_change change = change_of(space);
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    f->now_us += 1000000;
    assert_ok(memcube_forget(fixture_write(f), &change, id, 1, false, false, &outcome, &forgotten,
        fixture_error()));
    fixture_commit(f);
}

struct history history_make(struct fixture *f, const char *space)
{
    struct history h;
    struct memos_bytes tags[] = { text_of("drink"), text_of("morning") };
    struct memcube_source source = { text_of("message"), text_of("m-17"), 3, 9 };
    struct memcube_draft draft = draft_of("Ann likes coffee");
    draft.description.title = text_of("What Ann drinks");
    draft.description.speaker = text_of("Ann");
    draft.description.external_id = text_of("ext-1");
    draft.description.tags = tags;
    draft.description.tags_count = 2;
    draft.description.sources = &source;
    draft.description.sources_count = 1;
    draft.governance.expires_us = f->now_us + INT64_C(86400000000);

    h.tea = fixture_put(f, space, "Ann likes tea");
    h.coffee = fixture_put_draft(f, space, &draft);
    h.blob = fixture_put(f, space, history_large_text());
    h.shared = fixture_put(f, space, "Ann likes tea");
    h.derived = fixture_derive(f, space, "Ann drinks something", h.tea);
    h.forgotten = fixture_put(f, space, "a secret of Ann");
    h.forgotten_derived = fixture_derive(f, space, "more of the secret", h.forgotten);
    draft = draft_of("Ann is on holiday");
    draft.governance.valid_to_us = f->now_us + INT64_C(86400000000);
    h.expiring = fixture_put_draft(f, space, &draft);
    h.seq_before = fixture_space(f, space).seq;
    (void)fixture_update(f, space, &h.tea.id, "Ann likes mate");
    (void)fixture_update(f, space, &h.forgotten.id, "another secret of Ann");
    assert_ok(fixture_transition(f, space, &h.coffee.id, MEMCUBE_STATE_FROZEN));
    assert_ok(fixture_transition(f, space, &h.shared.id, MEMCUBE_STATE_ARCHIVED));
    history_roll_back(f, space, h.seq_before);
    history_forget(f, space, &h.forgotten.id);
    (void)fixture_update(f, space, &h.tea.id, "Ann likes water");
    return h;
}

/* ---- a writer beside ----------------------------------------------------------------------- */

static enum memos_status write_one(
    struct history_writing *writing, struct memos_id *io_last, size_t n, struct memos_error *err)
{
    const struct memcube_change change = change_of(writing->space);
    struct memcube_write *write = NULL;
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    char text[32];
    (void)snprintf(text, sizeof text, "fact %zu", n);
    const struct memcube_draft draft = draft_of(text);
    enum memos_status status = memcube_write_begin(writing->store, &write, err);
    if (status == MEMOS_OK) {
        status = memcube_create(write, &change, &draft, 1, &outcome, err);
    }
    if (status == MEMOS_OK) {
        struct memos_id made = outcome.refs[0].id;
        if (n % 3 == 2) {
            status = memcube_forget(
                write, &change, io_last, 1, false, false, &outcome, &forgotten, err);
        }
        *io_last = made;
    }
    if (status == MEMOS_OK) {
        return memcube_write_commit(&write, err);
    }
    memcube_write_abort(&write);
    return status;
}

static void *write_many(void *self)
{
    struct history_writing *writing = self;
    struct memos_id last;
    for (size_t n = 0; n < writing->count && writing->status == MEMOS_OK; n++) {
        writing->status = write_one(writing, &last, n, &writing->err);
    }
    atomic_store(&writing->done, true);
    return NULL;
}

void history_writing_begin(struct history_writing *writing, struct memcube_store *store,
    const char *space, size_t count)
{
    *writing = (struct history_writing){ .store = store, .space = space, .count = count };
    assert_int_equal(pthread_create(&writing->thread, NULL, write_many, writing), 0);
}

bool history_writing_done(const struct history_writing *writing)
{
    return atomic_load(&writing->done);
}

void history_writing_end(struct history_writing *writing)
{
    assert_int_equal(pthread_join(writing->thread, NULL), 0);
    if (writing->status != MEMOS_OK) {
        fail_msg("the writer: %s", writing->err.text);
    }
}
