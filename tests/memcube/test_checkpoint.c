/* If these failed, a history could be rewritten from its beginning, and nobody who kept an old
 * checkpoint could prove it. */
#include "tests/memcube/damage.h"
#include "tests/memcube/history.h"

#include <sodium.h>
#include <string.h>

struct keys {
    uint8_t public_key[32], secret_key[64];
};

static struct keys keys_make(void)
{
    struct keys keys;
    assert_true(sodium_init() >= 0);
    assert_int_equal(crypto_sign_ed25519_keypair(keys.public_key, keys.secret_key), 0);
    return keys;
}

static struct memcube_checkpoint make(
    struct fixture *f, const char *space, const struct keys *keys)
{
    struct memcube_checkpoint made;
    f->now_us += 1000000;
    assert_ok(memcube_checkpoint_make(
        fixture_write(f), text_of(space), keys->secret_key, &made, fixture_error()));
    fixture_commit(f);
    return made;
}

static enum memos_status check(
    struct fixture *f, const char *space, const struct memcube_checkpoint *checkpoint)
{
    struct memcube_space found = fixture_space(f, space);
    return memcube_checkpoint_check(f->read, &found, checkpoint, fixture_error());
}

static void test_holds_while_the_history_grows(void **state)
{
    struct fixture f;
    struct keys keys = keys_make();
    (void)state;
    fixture_make(&f);
    struct memcube_ref tea = fixture_put(&f, "s", "tea");
    struct memcube_checkpoint first = make(&f, "s", &keys);
    assert_int_equal(first.seq, 1);
    assert_memory_equal(first.public_key, keys.public_key, sizeof keys.public_key);
    assert_ok(check(&f, "s", &first));
    (void)fixture_update(&f, "s", &tea.id, "mate");
    struct memcube_checkpoint second = make(&f, "s", &keys);
    assert_ok(check(&f, "s", &first));
    assert_ok(check(&f, "s", &second));

    fixture_reopen(&f);
    struct memcube_checkpoint list[4];
    size_t count = 0;
    struct memcube_space space = fixture_space(&f, "s");
    assert_ok(memcube_checkpoint_list(f.read, &space, list, 4, &count, fixture_error()));
    assert_int_equal(count, 2); /* newest first */
    assert_memory_equal(&list[0], &second, sizeof second);
    assert_memory_equal(&list[1], &first, sizeof first);
    assert_ok(memcube_checkpoint_list(f.read, &space, list, 1, &count, fixture_error()));
    assert_int_equal(count, 1);
    fixture_drop(&f);
}

static void test_several_people_sign_one_head(void **state)
{
    struct fixture f;
    struct keys ann = keys_make(), bob = keys_make();
    struct memcube_checkpoint list[4];
    size_t count = 0;
    (void)state;
    fixture_make(&f);
    (void)fixture_put(&f, "s", "tea");
    (void)make(&f, "s", &ann);
    (void)make(&f, "s", &bob);
    struct memcube_space space = fixture_space(&f, "s");
    assert_ok(memcube_checkpoint_list(f.read, &space, list, 4, &count, fixture_error()));
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++) {
        assert_ok(check(&f, "s", &list[i]));
    }
    fixture_drop(&f);
}

static void test_nothing_to_vouch_for(void **state)
{
    struct fixture f;
    struct keys keys = keys_make();
    struct memcube_checkpoint made;
    (void)state;
    fixture_make(&f);
    assert_int_equal(memcube_checkpoint_make(fixture_write(&f), text_of("s"), keys.secret_key,
                         &made, fixture_error()),
        MEMOS_NOT_FOUND);
    fixture_drop(&f);
}

static void test_changed_checkpoint_is_refused(void **state)
{
    struct fixture f;
    struct keys keys = keys_make();
    (void)state;
    fixture_make(&f);
    (void)fixture_put(&f, "s", "tea");
    (void)fixture_put(&f, "other", "tea");
    struct memcube_checkpoint good = make(&f, "s", &keys);
    struct memcube_checkpoint bad = good;
    bad.seq++;
    assert_int_equal(check(&f, "s", &bad), MEMOS_CORRUPT);
    bad = good;
    bad.time_us++;
    assert_int_equal(check(&f, "s", &bad), MEMOS_CORRUPT);
    for (size_t i = 0; i < 64; i++) {
        bad = good;
        bad.signature[i] ^= 1;
        assert_int_equal(check(&f, "s", &bad), MEMOS_CORRUPT);
    }
    for (size_t i = 0; i < 32; i++) {
        bad = good;
        bad.head.bytes[i] ^= 1;
        assert_int_equal(check(&f, "s", &bad), MEMOS_CORRUPT);
        bad = good;
        bad.public_key[i] ^= 1;
        assert_int_equal(check(&f, "s", &bad), MEMOS_CORRUPT);
    }
    assert_int_equal(check(&f, "other", &good), MEMOS_CONFLICT);
    assert_ok(check(&f, "s", &good));
    fixture_drop(&f);
}

/* Two stores begin alike and go apart: what one signed is refused by the other. */
static void test_rewritten_history_is_refused(void **state)
{
    struct fixture f;
    struct keys keys = keys_make();
    struct memcube_verify_result verified;
    (void)state;
    fixture_make(&f);
    struct memcube_ref tea = fixture_put(&f, "s", "tea");
    (void)fixture_update(&f, "s", &tea.id, "mate");
    struct memcube_checkpoint good = make(&f, "s", &keys);

    /* A forger drops the last record and lets the space end with the one before. */
    struct damage_entry record, entry;
    assert_true(damage_entry_at(&f, f.store->tables.log, 0, &entry));
    assert_true(damage_entry_at(&f, f.store->tables.log, 1, &record));
    damage_remove(&f, f.store->tables.log, false, &record);
    struct memcube_hash head = memcube_hash_of(memos_bytes_make(entry.value, entry.value_size));
    assert_true(damage_entry_at(&f, f.store->tables.space, 0, &entry));
    entry.value[4 + 16] = 1; /* its seq, then its head: memcube/README.md */
    memcpy(entry.value + 4 + 16 + 8, head.bytes, sizeof head.bytes);
    damage_put(&f, f.store->tables.space, &entry);
    assert_int_equal(check(&f, "s", &good), MEMOS_CONFLICT);

    /* The checkpoint in the store gives it away, too. */
    assert_ok(memcube_verify(f.store, text_of("s"), 0, NULL, NULL, &verified, fixture_error()));
    assert_false(verified.intact);
    assert_int_equal(verified.bad_seq, 2);
    fixture_drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_holds_while_the_history_grows),
        cmocka_unit_test(test_several_people_sign_one_head),
        cmocka_unit_test(test_nothing_to_vouch_for),
        cmocka_unit_test(test_changed_checkpoint_is_refused),
        cmocka_unit_test(test_rewritten_history_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
