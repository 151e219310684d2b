/* If this failed, a grant could reach further than it was written, or a broken one could open a
 * door. */
#include "memos/broker/access.h"
#include "memos/broker/convert.h"
#include "tests/memcube/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_what_a_pattern_covers(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *space;
        bool covers;
    } cases[] = {
        {"acme", "acme", true},
        {"acme", "acme/alice", false},
        {"acme", "acmeX", false},
        {"acme/*", "acme/alice", true},
        {"acme/*", "acme/alice/notes", true},
        {"acme/*", "acme", false},
        {"acme/*", "acme/", false},
        {"acme/*", "acmeX/alice", false},
        {"acme/*", "acm", false},
        {"acme/a", "acme/alice", false},
        {"*", "acme", true},
        {"*", "acme/alice", true},
        {"*", "_system", false},
        {"*", "_other/x", false},
        {"*", "", false},
        {"_system", "_system", true},
        {"_other/*", "_other/x", false},
        {"", "acme", false},
        {"", "", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (broker_pattern_covers(memos_bytes_of(cases[i].pattern),
                memos_bytes_of(cases[i].space)) != cases[i].covers) {
            fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].space);
        }
    }
}

static void add(struct broker_access *access, const char *principal, const char *spaces,
    enum broker_right right)
{
    const struct broker_grant grant = {memos_bytes_of(principal), memos_bytes_of(spaces), right, 0};
    assert_int_equal(broker_access_add_grant(access, &grant, NULL), MEMOS_OK);
}

static void test_the_best_grant_counts(void **state)
{
    (void)state;
    struct broker_access *access = NULL;
    assert_int_equal(broker_access_create(&access, NULL), MEMOS_OK);
    add(access, "bob", "acme/*", BROKER_RIGHT_READ);
    add(access, "alice", "acme/alice", BROKER_RIGHT_ADMIN);
    add(access, "bob", "acme/bob", BROKER_RIGHT_WRITE);
    add(access, "alic", "*", BROKER_RIGHT_ADMIN);
    add(access, "root", "*", BROKER_RIGHT_ADMIN);
    add(access, "keeper", "_system", BROKER_RIGHT_ADMIN);
    broker_access_seal(access);
    static const struct {
        const char *principal, *space;
        enum broker_right right;
    } cases[] = {
        {"bob", "acme/bob", BROKER_RIGHT_WRITE},
        {"bob", "acme/alice", BROKER_RIGHT_READ},
        {"bob", "other", BROKER_RIGHT_NONE},
        {"alice", "acme/alice", BROKER_RIGHT_ADMIN},
        {"alice", "acme/bob", BROKER_RIGHT_NONE},
        {"alicex", "acme/alice", BROKER_RIGHT_NONE},
        {"", "acme/alice", BROKER_RIGHT_NONE},
        {"root", "anything", BROKER_RIGHT_ADMIN},
        {"root", "_system", BROKER_RIGHT_NONE},
        {"keeper", "_system", BROKER_RIGHT_ADMIN},
        {"keeper", "acme", BROKER_RIGHT_NONE},
        {"owner", "_system", BROKER_RIGHT_ADMIN},
        {"owner", "acme", BROKER_RIGHT_ADMIN},
        {"loopback", "acme", BROKER_RIGHT_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (broker_access_right(access, memos_bytes_of(cases[i].principal),
                memos_bytes_of(cases[i].space)) != cases[i].right) {
            fail_msg("%s on %s", cases[i].principal, cases[i].space);
        }
    }
    assert_true(broker_access_global(access, memos_bytes_of("root"), BROKER_RIGHT_ADMIN));
    assert_true(broker_access_global(access, memos_bytes_of("owner"), BROKER_RIGHT_ADMIN));
    assert_false(broker_access_global(access, memos_bytes_of("keeper"), BROKER_RIGHT_READ));
    assert_false(broker_access_global(access, memos_bytes_of("bob"), BROKER_RIGHT_READ));
    broker_access_drop(&access);
}

/* ---- from the store ---- */

struct written {
    const char *subtype, *external_id, *payload;
};

static void write_all(struct memcube_store *store, const struct written *written, size_t count)
{
    const struct memcube_change change = {
        .space = memos_bytes_of("_system"), .author = memos_bytes_of("owner")};
    struct memcube_write *write = NULL;
    struct memcube_outcome outcome;
    assert_int_equal(memcube_write_begin(store, &write, NULL), MEMOS_OK);
    for (size_t i = 0; i < count; i++) {
        const struct memcube_draft draft = {
            .kind = MEMCUBE_PLAINTEXT,
            .subtype = memos_bytes_of(written[i].subtype),
            .codec = memos_bytes_of("application/json"),
            .payload = memos_bytes_of(written[i].payload),
            .description = {.external_id = memos_bytes_of(written[i].external_id)},
        };
        struct memos_error err = {0};
        if (memcube_create(write, &change, &draft, 1, &outcome, &err) != MEMOS_OK) {
            fail_msg("%s", err.text);
        }
    }
    assert_int_equal(memcube_write_commit(&write, NULL), MEMOS_OK);
}

#define KEY "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

static void test_only_good_cubes_grant(void **state)
{
    (void)state;
    static const struct written written[] = {
        {"grant", "1", "{\"principal\":\"bob\",\"spaces\":\"acme/*\",\"rights\":\"write\"}"},
        {"grant", "2", "{\"principal\":\"eve\",\"spaces\":\"acme\",\"rights\":\"everything\"}"},
        {"grant", "3", "{\"principal\":\"eve\",\"spaces\":\"a*\",\"rights\":\"admin\"}"},
        {"grant", "4", "{\"principal\":\"e ve\",\"spaces\":\"*\",\"rights\":\"admin\"}"},
        {"grant", "5", "{\"principal\":\"eve\",\"spaces\":\"*\",\"rights\":\"admin\""},
        {"grant", "6", "[\"eve\",\"*\",\"admin\"]"},
        {"grant", "7", "{\"principal\":[\"eve\"],\"spaces\":\"*\",\"rights\":\"admin\"}"},
        {"grant", "8", ""},
        {"grant", "9",
            "{\"principal\":\"eve\",\"principal\":\"eve\",\"spaces\":\"*\",\"rights\":\"admin\"}"},
        {"note", "10", "{\"principal\":\"eve\",\"spaces\":\"*\",\"rights\":\"admin\"}"},
        {"grant", "11", "{\"principal\":\"bob\",\"spaces\":\"gone\",\"rights\":\"\"}"},
        {"key", "12", "{\"public_key\":\"" KEY "\",\"principal\":\"bob\"}"},
        {"key", "13", "{\"public_key\":\"short\",\"principal\":\"eve\"}"},
    };
    char folder[FOLDER_PATH_BYTES];
    struct memcube_store *store = NULL;
    struct memcube_read *read = NULL;
    struct broker_access *access = NULL;
    size_t grants, keys;

    folder_make(folder);
    const struct memcube_store_options options = {
        .path = folder, .clock = memos_clock_system(), .sync_off = true};
    assert_int_equal(memcube_store_open(&options, &store, NULL), MEMOS_OK);

    assert_int_equal(memcube_read_begin(store, &read, NULL), MEMOS_OK);
    assert_int_equal(broker_access_load(read, &access, NULL), MEMOS_OK); /* no space yet */
    memcube_read_end(&read);
    broker_access_drop(&access);

    write_all(store, written, sizeof written / sizeof written[0]);
    assert_int_equal(memcube_read_begin(store, &read, NULL), MEMOS_OK);
    assert_int_equal(broker_access_load(read, &access, NULL), MEMOS_OK);
    (void)broker_access_grants(access, &grants);
    (void)broker_access_keys(access, &keys);
    assert_int_equal(grants, 1);
    assert_int_equal(keys, 1);
    assert_int_equal(broker_access_right(access, memos_bytes_of("bob"), memos_bytes_of("acme/x")),
        BROKER_RIGHT_WRITE);
    assert_true(memos_bytes_equal(
        broker_access_principal(access, memos_bytes_of(KEY)), memos_bytes_of("bob")));
    assert_int_equal(broker_access_principal(access, memos_bytes_of("short")).size, 0);

    struct broker_access *kept = broker_access_keep(access);
    broker_access_drop(&access);
    assert_null(access);
    (void)broker_access_grants(kept, &grants);
    assert_int_equal(grants, 1);
    broker_access_drop(&kept);
    memcube_read_end(&read);
    memcube_store_close(&store);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_pattern_covers),
        cmocka_unit_test(test_the_best_grant_counts),
        cmocka_unit_test(test_only_good_cubes_grant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
