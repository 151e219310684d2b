/* What forget leaves in the files of the store: no readable byte.
 *
 * If these failed, somebody who holds the disk could read what a user asked to forget. */
#include "memcube/vault.h"
#include "tests/memcube/store_fixture.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MOST 4096

/* One word for each place where words can lie. */
static const char *const words[] = {
    "zebrapayloadfirst",
    "zebrapayloadsecond",
    "zebratitle",
    "zebratagone",
    "zebratagtwo",
    "zebraspeaker",
    "zebraexternal",
    "zebrauri",
    "zebraattributename",
    "zebraattributevalue",
    "zebrareader",
    "zebraderived",
    "zebrablob",
    "zebralanguage",
};
#define WORDS (sizeof words / sizeof words[0])

static size_t scan(const struct fixture *f, const char *word)
{
    return folder_scan(f->path, memos_bytes_of(word));
}

/* The keys of the vault, from a handle of our own: zeros for the destroyed. */
static size_t keys_read(const struct fixture *f, uint8_t keys[SLOTS_MOST][32])
{
    struct memcube_vault *vault = NULL;
    assert_ok(memcube_vault_open(f->path, true, &vault, fixture_error()));
    size_t count = 0;
    for (; count < SLOTS_MOST; count++) {
        enum memos_status status = memcube_vault_key(vault, count + 1, keys[count], NULL);
        assert_true(status == MEMOS_OK || status == MEMOS_FORGOTTEN);
    }
    memcube_vault_close(&vault);
    return count;
}

/* How many keys were destroyed between; each of them must be in no file any more. */
static size_t keys_gone(
    const struct fixture *f, uint8_t before[SLOTS_MOST][32], uint8_t after[SLOTS_MOST][32])
{
    static const uint8_t zeros[32];
    size_t gone = 0;
    for (size_t i = 0; i < SLOTS_MOST; i++) {
        if (memcmp(before[i], after[i], 32) != 0) {
            assert_memory_equal(after[i], zeros, 32);
            assert_int_equal(folder_scan(f->path, memos_bytes_make(before[i], 32)), 0);
            assert_int_equal(folder_scan(f->path, memos_bytes_make(before[i] + 8, 16)), 0);
            gone++;
        }
    }
    return gone;
}

static struct memcube_ref put_everything(struct fixture *f)
{
    struct memos_bytes tags[] = {text_of("zebratagone"), text_of("zebratagtwo")};
    struct memos_bytes readers[] = {text_of("zebrareader")};
    struct memcube_source sources[] = {{text_of("file"), text_of("/home/zebrauri"), 0, 0}};
    struct memcube_attribute attributes[] = {
        {text_of("zebraattributename"), text_of("zebraattributevalue")}};
    struct memcube_draft draft = draft_of("the zebrapayloadfirst is under the tile");
    draft.description = (struct memcube_description){
        .title = text_of("about zebratitle"),
        .language = text_of("zebralanguage"),
        .speaker = text_of("zebraspeaker"),
        .external_id = text_of("zebraexternal"),
        .tags = tags,
        .tags_count = 2,
        .sources = sources,
        .sources_count = 1,
        .attributes = attributes,
        .attributes_count = 1,
        .readers = readers,
        .readers_count = 1,
    };
    return fixture_put_draft(f, "home", &draft);
}

static struct memcube_forgotten forget(struct fixture *f, const struct memos_id *id)
{
    const struct memcube_change change = change_of("home");
    struct memcube_outcome outcome;
    struct memcube_forgotten forgotten;
    assert_ok(memcube_forget(
        fixture_write(f), &change, id, 1, false, false, &outcome, &forgotten, fixture_error()));
    fixture_commit(f);
    return forgotten;
}

static void back_to_the_first(struct fixture *f, const struct memos_id *id)
{
    const struct memcube_change change = change_of("home");
    const struct memcube_rollback rollback = {.ids = id, .ids_count = 1, .to_version = 1};
    struct memcube_outcome outcome;
    struct memcube_rollback_item *items = NULL;
    size_t count = 0;
    assert_ok(memcube_rollback(
        fixture_write(f), &change, &rollback, &outcome, &items, &count, fixture_error()));
    fixture_commit(f);
}

static char *blob_text(void)
{
    char *text = calloc(1, 10001);
    assert_non_null(text);
    for (size_t i = 0; i < 10000; i++) {
        text[i] = "zebrablob "[i % 10];
    }
    return text;
}

static void forgotten_words_are_in_no_file(void **state)
{
    static uint8_t before[SLOTS_MOST][32], after[SLOTS_MOST][32];
    struct fixture fixture, *f = &fixture;
    char *blob = blob_text();
    (void)state;
    fixture_make(f);
    struct memcube_ref kept = fixture_put(f, "home", "an ordinary memory");
    struct memcube_ref ref = put_everything(f);
    (void)fixture_update(f, "home", &ref.id, "the zebrapayloadsecond is in the attic");
    assert_int_equal(fixture_transition(f, "home", &ref.id, MEMCUBE_STATE_ARCHIVED), MEMOS_OK);
    assert_int_equal(fixture_transition(f, "home", &ref.id, MEMCUBE_STATE_ACTIVATED), MEMOS_OK);
    back_to_the_first(f, &ref.id);
    struct memcube_ref last = fixture_update(f, "home", &ref.id, blob);
    (void)fixture_derive(f, "home", "it follows that zebraderived", last);

    for (size_t i = 0; i < WORDS; i++) { /* in the clear only as a file of its own */
        assert_int_equal(scan(f, words[i]) > 0, strcmp(words[i], "zebrablob") == 0);
    }
    keys_read(f, before);
    struct memcube_forgotten forgotten = forget(f, &ref.id);
    assert_int_equal(forgotten.ids_count, 2);
    assert_int_equal(forgotten.payloads_destroyed, 4);
    assert_int_equal(forgotten.payloads_shared, 0);
    keys_read(f, after);
    /* Three payloads in the database, and the descriptions of two cubes. */
    assert_int_equal(keys_gone(f, before, after), 5);
    for (int reopened = 0; reopened < 2; reopened++) {
        for (size_t i = 0; i < WORDS; i++) {
            assert_int_equal(scan(f, words[i]), 0);
        }
        assert_int_equal(fixture_get(f, "home", &ref.id, 0).state, MEMCUBE_STATE_FORGOTTEN);
        assert_int_equal(fixture_get(f, "home", &ref.id, 1).description.title.size, 0);
        assert_text(f, "home", &kept.id, 0, "an ordinary memory");
        fixture_reopen(f);
    }
    fixture_drop(f);
    free(blob);
}

static void the_same_words_of_others_stay(void **state)
{
    struct fixture fixture, *f = &fixture;
    char *blob = blob_text();
    (void)state;
    fixture_make(f);
    struct memcube_ref mine = fixture_put(f, "home", "we all said zebrashared");
    struct memcube_ref yours = fixture_put(f, "home", "we all said zebrashared");
    struct memcube_ref theirs = fixture_put(f, "away", "we all said zebrashared");
    struct memcube_ref here = fixture_put(f, "home", blob);
    struct memcube_ref there = fixture_put(f, "away", blob);
    size_t scanned = scan(f, "zebrablob");
    struct memcube_forgotten forgotten = forget(f, &mine.id);
    assert_int_equal(forgotten.payloads_destroyed, 0);
    assert_int_equal(forgotten.payloads_shared, 1);
    forgotten = forget(f, &here.id);
    assert_int_equal(forgotten.payloads_destroyed, 1);
    assert_int_equal(scan(f, "zebrablob"), scanned / 2); /* each space has its own file */
    assert_text(f, "home", &yours.id, 0, "we all said zebrashared");
    assert_text(f, "away", &theirs.id, 0, "we all said zebrashared");
    assert_text(f, "away", &there.id, 0, blob);
    forgotten = forget(f, &yours.id);
    assert_int_equal(forgotten.payloads_destroyed, 1);
    assert_text(f, "away", &theirs.id, 0, "we all said zebrashared");
    fixture_drop(f);
    free(blob);
}

/* What was never committed leaves nothing in the clear either. */
static void abandoned_words_are_in_no_file(void **state)
{
    struct fixture fixture, *f = &fixture;
    char *blob = blob_text();
    (void)state;
    fixture_make(f);
    const struct memcube_change change = change_of("home");
    struct memcube_draft drafts[] = {draft_of("zebraabandoned"), draft_of(blob)};
    struct memcube_outcome outcome;
    assert_ok(memcube_create(fixture_write(f), &change, drafts, 2, &outcome, fixture_error()));
    memcube_write_abort(&f->write);
    assert_int_equal(scan(f, "zebraabandoned"), 0);
    assert_int_equal(scan(f, "zebrablob"), 0);
    fixture_drop(f);
    free(blob);
}

/* ---- what an index keeps ------------------------------------------------------------------- */

/* An index as careless as can be: it keeps a doc's text under the doc's key, and erases nothing. */
static memcube_table kept_table;

static struct memos_bytes kept_key(uint8_t out[8], uint32_t space, uint32_t doc)
{
    const uint32_t be[] = {htobe32(space), htobe32(doc)};
    memcpy(out, be, sizeof be);
    return memos_bytes_make(out, sizeof be);
}

static enum memos_status kept_open(void *self, struct memcube_db *db, struct memos_error *err)
{
    (void)self;
    return memcube_db_table(db, "kept", MEMCUBE_TABLE_MAP, &kept_table, err);
}

static enum memos_status kept_add(void *self, struct memcube_txn *txn,
    const struct memcube_index_doc *doc, struct memos_error *err)
{
    uint8_t key[8], nonce[8];
    void *room = NULL;
    (void)self;
    enum memos_status status = memcube_put_room(txn, kept_table,
        kept_key(key, doc->space, doc->doc), sizeof nonce + doc->text.size, &room, err);
    if (status == MEMOS_OK) {
        randombytes_buf(nonce, sizeof nonce);
        memcpy(room, nonce, sizeof nonce);
        (void)crypto_stream_chacha20_xor((uint8_t *)room + sizeof nonce, doc->text.data,
            doc->text.size, nonce, doc->key);
    }
    return status;
}

static enum memos_status kept_erase(
    void *self, struct memcube_txn *txn, uint32_t space, uint32_t doc, struct memos_error *err)
{
    (void)self, (void)txn, (void)space, (void)doc, (void)err;
    return MEMOS_OK;
}

static struct memcube_index kept = {
    .name = "kept", .open = kept_open, .add = kept_add, .erase = kept_erase};
static struct memcube_index *const kept_indexes[] = {&kept};

/* Does the entry of a doc read as this text under this key? */
static bool kept_reads(struct fixture *f, uint32_t space, uint32_t doc,
    const uint8_t doc_key[MEMCUBE_DOC_KEY_BYTES], const char *text)
{
    struct memos_bytes entry;
    uint8_t key[8], plain[256];
    assert_ok(memcube_get(memcube_read_txn(fixture_read(f)), kept_table, kept_key(key, space, doc),
        &entry, fixture_error()));
    const size_t size = entry.size - 8;
    assert_true(entry.size > 8 && size <= sizeof plain);
    const uint8_t *bytes = entry.data;
    (void)crypto_stream_chacha20_xor(plain, bytes + 8, size, bytes, doc_key);
    return memos_bytes_equal(memos_bytes_make(plain, size), text_of(text));
}

static void what_an_index_keeps_cannot_be_read_after_forget(void **state)
{
    struct fixture fixture, *f = &fixture;
    struct memcube_doc_key keys[8], first, later[8];
    size_t count = 0;
    (void)state;
    fixture_make(f);
    f->options.indexes = kept_indexes;
    f->options.indexes_count = 1;
    fixture_reopen(f);
    struct memcube_ref ref = fixture_put(f, "home", "zebrakeptfirst");
    struct memcube_ref other = fixture_put(f, "home", "zebrakeptother");
    (void)fixture_update(f, "home", &ref.id, "zebrakeptsecond");
    const uint32_t space = fixture_space(f, "home").number;

    assert_ok(memcube_doc_keys(fixture_read(f), space, 1, keys, 8, &count, fixture_error()));
    assert_int_equal(count, 3);
    assert_true(kept_reads(f, space, 1, keys[0].key, "zebrakeptfirst"));
    assert_true(kept_reads(f, space, 2, keys[1].key, "zebrakeptother"));
    assert_true(kept_reads(f, space, 3, keys[2].key, "zebrakeptsecond"));
    assert_false(kept_reads(f, space, 3, keys[0].key, "zebrakeptsecond"));
    assert_memory_equal(keys[2].cube.bytes, ref.id.bytes, sizeof ref.id.bytes);
    assert_ok(memcube_doc_key(fixture_read(f), space, 3, first.key, fixture_error()));
    assert_memory_equal(first.key, keys[2].key, sizeof first.key);
    assert_ok(memcube_doc_keys(fixture_read(f), space, 2, later, 1, &count, fixture_error()));
    assert_true(count == 1 && later[0].doc == 2);
    assert_false(memcube_read_inside_write(fixture_read(f)));
    assert_true(memcube_read_inside_write(memcube_write_read(fixture_write(f))));
    memcube_write_abort(&f->write);
    assert_int_equal(
        memcube_doc_key(fixture_read(f), space, 4, first.key, NULL), MEMOS_NOT_FOUND);

    struct memcube_forgotten forgotten = forget(f, &ref.id);
    assert_int_equal(forgotten.ids_count, 1);
    for (int reopened = 0; reopened < 2; reopened++) {
        assert_int_equal(
            memcube_doc_key(fixture_read(f), space, 1, first.key, NULL), MEMOS_FORGOTTEN);
        assert_int_equal(
            memcube_doc_key(fixture_read(f), space, 3, first.key, NULL), MEMOS_FORGOTTEN);
        assert_ok(memcube_doc_keys(fixture_read(f), space, 1, later, 8, &count, fixture_error()));
        assert_true(count == 1 && later[0].doc == 2);
        assert_true(kept_reads(f, space, 2, later[0].key, "zebrakeptother"));
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(
                folder_scan(f->path, memos_bytes_make(keys[i].key, sizeof keys[i].key)), 0);
        }
        assert_int_equal(scan(f, "zebrakept"), 0);
        fixture_reopen(f);
    }
    assert_text(f, "home", &other.id, 0, "zebrakeptother");
    fixture_drop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forgotten_words_are_in_no_file),
        cmocka_unit_test(the_same_words_of_others_stay),
        cmocka_unit_test(abandoned_words_are_in_no_file),
        cmocka_unit_test(what_an_index_keeps_cannot_be_read_after_forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
