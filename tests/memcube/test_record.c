/* The bytes that are hashed.
 *
 * If these failed, a store could not prove its own history, or a damaged or hostile archive could
 * take the reader down. */
#include "memcube/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t salt[MEMCUBE_SALT_BYTES] = {1, 2, 3};

static struct memos_bytes text(const char *words)
{
    return memos_bytes_of(words);
}

static struct memos_id id_of(uint8_t last)
{
    return (struct memos_id){.bytes = {[0] = 1, [15] = last}};
}

static struct memcube_ref derived[] = {{{{9}}, 3}, {{{8}}, 1}};

static struct memcube_version sample_version(void)
{
    struct memcube_version v = {
        .id = id_of(7),
        .number = 4,
        .parent = 3,
        .equals = 2,
        .operation = MEMCUBE_OP_ROLLBACK,
        .kind = MEMCUBE_PLAINTEXT,
        .state = MEMCUBE_STATE_ACTIVATED,
        .subtype = text("fact"),
        .author = text("alice"),
        .reason = text("because"),
        .model = text("m1"),
        .time_us = 1767225600000000,
        .governance = {.valid_from_us = -5,
            .valid_to_us = 6,
            .expires_us = 7,
            .retain_until_us = 8,
            .priority = 128,
            .sensitivity = 2},
        .derived_from = derived,
        .derived_count = 2,
        .payload_bytes = 1234,
        .codec = text("text/plain; charset=utf-8"),
    };
    memset(v.payload_hash.bytes, 0xAA, MEMCUBE_HASH_BYTES);
    memset(v.description_hash.bytes, 0xBB, MEMCUBE_HASH_BYTES);
    return v;
}

static void hashes_are_blake2b_256(void **state)
{
    /* BLAKE2b-256 of "abc", from Python: hashlib.blake2b(b"abc", digest_size=32). */
    static const uint8_t abc[] = {0xbd, 0xdd, 0x81, 0x3c, 0x63, 0x42, 0x39, 0x72, 0x31, 0x71, 0xef,
        0x3f, 0xee, 0x98, 0x57, 0x9b, 0x94, 0x96, 0x4e, 0x3b, 0xb1, 0xcb, 0x3e, 0x42, 0x72, 0x62,
        0xc8, 0xc0, 0x68, 0xd5, 0x23, 0x19};
    struct memcube_hash whole = memcube_hash_of(text("abc"));
    struct memcube_hasher hasher;
    (void)state;
    assert_memory_equal(whole.bytes, abc, sizeof abc);
    memcube_hasher_begin(&hasher);
    memcube_hasher_add(&hasher, text("a"));
    memcube_hasher_add(&hasher, text(""));
    memcube_hasher_add(&hasher, text("bc"));
    struct memcube_hash pieces = memcube_hasher_end(&hasher);
    assert_true(memcube_hash_equal(&whole, &pieces));
    pieces.bytes[31] ^= 1;
    assert_false(memcube_hash_equal(&whole, &pieces));
}

/* Every cut and every changed byte of good bytes: either refused, or the value encodes to exactly
 * those bytes again (one value has one encoding). */
typedef bool round_trip_fn(
    struct memos_bytes bytes, struct memos_arena *arena, struct memos_buffer *again);

static void try_damage(struct memos_bytes good, round_trip_fn *round_trip)
{
    struct memos_arena arena;
    struct memos_buffer again = memos_buffer_make(1 << 20);
    size_t refused = 0;
    memos_arena_init(&arena, 1 << 20);
    assert_true(round_trip(good, &arena, &again));
    assert_true(memos_bytes_equal(good, memos_buffer_view(&again)));
    for (size_t i = 0; i < good.size * 9; i++) {
        size_t at = i % good.size;
        size_t size = i < good.size ? at : good.size;
        uint8_t *copy = malloc(size + 1); /* exact, so that a sanitizer sees a read past it */
        assert_non_null(copy);
        uint8_t *exact = realloc(copy, size ? size : 1);
        assert_non_null(exact);
        memcpy(exact, good.data, size);
        if (i >= good.size) {
            exact[at] ^= (uint8_t)(1u << (i / good.size - 1));
        }
        memos_arena_reset(&arena);
        memos_buffer_reset(&again);
        struct memos_bytes damaged = memos_bytes_make(exact, size);
        if (round_trip(damaged, &arena, &again)) {
            assert_true(memos_bytes_equal(damaged, memos_buffer_view(&again)));
            assert_true(i >= good.size); /* no cut is a value */
        } else {
            refused++;
        }
        free(exact);
    }
    assert_true(refused > good.size);
    memos_buffer_free(&again);
    memos_arena_finish(&arena);
}

static bool header_round_trip(
    struct memos_bytes bytes, struct memos_arena *arena, struct memos_buffer *again)
{
    struct memcube_version v;
    struct memos_error err;
    enum memos_status status = memcube_header_decode(bytes, arena, &v, &err);
    if (status != MEMOS_OK) {
        assert_int_equal(status, MEMOS_CORRUPT);
        return false;
    }
    memcube_header_encode(&v, again);
    return true;
}

static void headers_come_back_whole(void **state)
{
    struct memcube_version v = sample_version(), back;
    struct memos_buffer out = memos_buffer_make(4096);
    struct memos_arena arena;
    (void)state;
    memos_arena_init(&arena, 4096);
    memcube_header_encode(&v, &out);
    assert_int_equal(memcube_header_decode(memos_buffer_view(&out), &arena, &back, NULL), MEMOS_OK);
    assert_true(memos_id_equal(&v.id, &back.id));
    assert_int_equal(back.number, 4);
    assert_int_equal(back.parent, 3);
    assert_int_equal(back.equals, 2);
    assert_int_equal(back.operation, MEMCUBE_OP_ROLLBACK);
    assert_int_equal(back.state, MEMCUBE_STATE_ACTIVATED);
    assert_true(memos_bytes_equal(back.author, v.author));
    assert_true(memos_bytes_equal(back.codec, v.codec));
    assert_int_equal(back.governance.valid_from_us, -5);
    assert_int_equal(back.governance.retain_until_us, 8);
    assert_int_equal(back.derived_count, 2);
    assert_int_equal(back.derived_from[0].number, 3);
    assert_int_equal(back.payload_bytes, 1234);
    assert_true(memcube_hash_equal(&back.description_hash, &v.description_hash));
    try_damage(memos_buffer_view(&out), header_round_trip);
    memos_arena_finish(&arena);
    memos_buffer_free(&out);
}

static void headers_with_wrong_numbers_are_refused(void **state)
{
    struct memcube_version wrong[7];
    struct memos_arena arena;
    (void)state;
    memos_arena_init(&arena, 1 << 16);
    for (size_t i = 0; i < 7; i++) {
        wrong[i] = sample_version();
    }
    wrong[0].operation = 10;
    wrong[1].kind = 0;
    wrong[2].state = 9;
    wrong[3].parent = 4;
    wrong[4].author = text("");
    wrong[5].governance.sensitivity = 5;
    wrong[6].reason = text("\xFF\xFE");
    for (size_t i = 0; i < 7; i++) {
        struct memos_buffer out = memos_buffer_make(4096);
        struct memcube_version back;
        struct memos_error err = {0};
        memcube_header_encode(&wrong[i], &out);
        assert_int_equal(
            memcube_header_decode(memos_buffer_view(&out), &arena, &back, &err), MEMOS_CORRUPT);
        assert_non_null(strstr(err.text, "header"));
        memos_buffer_free(&out);
    }
    memos_arena_finish(&arena);
}

static bool description_round_trip(
    struct memos_bytes bytes, struct memos_arena *arena, struct memos_buffer *again)
{
    struct memcube_description d;
    if (memcube_description_decode(bytes, arena, &d, NULL) != MEMOS_OK) {
        return false;
    }
    memcube_description_encode(&d, (const uint8_t *)bytes.data + 1, again);
    return true;
}

static void descriptions_come_back_whole(void **state)
{
    struct memos_bytes tags[] = {text("tea"), text("drinks")};
    struct memos_bytes readers[] = {text("bob")};
    struct memcube_source sources[] = {{text("file"), text("/a/b"), 10, 20}};
    struct memcube_attribute attributes[] = {{text("mood"), text("calm")}};
    struct memcube_description d = {
        .title = text("Tea"),
        .language = text("en"),
        .speaker = text("Alice"),
        .external_id = text("x1"),
        .event_us = -1,
        .tags = tags,
        .tags_count = 2,
        .sources = sources,
        .sources_count = 1,
        .attributes = attributes,
        .attributes_count = 1,
        .readers = readers,
        .readers_count = 1,
    };
    struct memcube_description back;
    struct memos_buffer out = memos_buffer_make(4096);
    struct memos_arena arena;
    (void)state;
    memos_arena_init(&arena, 4096);
    memcube_description_encode(&d, salt, &out);
    assert_int_equal(
        memcube_description_decode(memos_buffer_view(&out), &arena, &back, NULL), MEMOS_OK);
    assert_true(memos_bytes_equal(back.title, d.title));
    assert_true(memos_bytes_equal(back.external_id, d.external_id));
    assert_int_equal(back.event_us, -1);
    assert_int_equal(back.tags_count, 2);
    assert_true(memos_bytes_equal(back.tags[1], tags[1]));
    assert_int_equal(back.sources[0].length, 20);
    assert_true(memos_bytes_equal(back.attributes[0].value, text("calm")));
    assert_true(memos_bytes_equal(back.readers[0], text("bob")));
    try_damage(memos_buffer_view(&out), description_round_trip);
    memos_arena_finish(&arena);
    memos_buffer_free(&out);
}

static bool log_round_trip(
    struct memos_bytes bytes, struct memos_arena *arena, struct memos_buffer *again)
{
    struct memcube_log_record record;
    struct memos_id space;
    if (memcube_log_decode(bytes, arena, &space, &record, NULL) != MEMOS_OK) {
        return false;
    }
    memcube_log_encode(&space, &record, again);
    return true;
}

static void log_records_come_back_whole(void **state)
{
    struct memcube_log_entry entries[] = {{{id_of(1), 1}, {{5}}}, {{id_of(2), 7}, {{6}}}};
    struct memos_id affected[] = {id_of(3)};
    struct memos_id space = id_of(99), space_back;
    struct memcube_log_record record = {
        .seq = 12,
        .time_us = 1767225600000000,
        .operation = MEMCUBE_OP_ROLLBACK,
        .author = text("alice"),
        .reason = text("wrong"),
        .previous = {{3}},
        .entries = entries,
        .entries_count = 2,
        .affected = affected,
        .affected_count = 1,
        .rollback_to = 4,
    };
    struct memcube_log_record back;
    struct memos_buffer out = memos_buffer_make(4096);
    struct memos_arena arena;
    (void)state;
    memos_arena_init(&arena, 4096);
    memcube_log_encode(&space, &record, &out);
    struct memcube_hash hash = memcube_hash_of(memos_buffer_view(&out));
    assert_int_equal(
        memcube_log_decode(memos_buffer_view(&out), &arena, &space_back, &back, NULL), MEMOS_OK);
    assert_true(memos_id_equal(&space, &space_back));
    assert_true(memcube_hash_equal(&hash, &back.hash));
    assert_int_equal(back.seq, 12);
    assert_int_equal(back.rollback_to, 4);
    assert_int_equal(back.entries_count, 2);
    assert_int_equal(back.entries[1].ref.number, 7);
    assert_int_equal(back.entries[1].version_hash.bytes[0], 6);
    assert_true(memos_id_equal(&back.affected[0], &affected[0]));
    try_damage(memos_buffer_view(&out), log_round_trip);
    memos_arena_finish(&arena);
    memos_buffer_free(&out);
}

static void counts_do_not_size_memory(void **state)
{
    struct memcube_log_record record = {.seq = 1, .operation = 1, .author = text("a")};
    struct memos_id space = id_of(1), space_back;
    struct memos_buffer out = memos_buffer_make(4096);
    struct memos_arena arena;
    (void)state;
    memos_arena_init(&arena, 4096);
    memcube_log_encode(&space, &record, &out);
    memset(out.data + out.size - 8, 0xFF, 4); /* entries_count */
    assert_int_equal(
        memcube_log_decode(memos_buffer_view(&out), &arena, &space_back, &record, NULL),
        MEMOS_CORRUPT);
    assert_int_equal(arena.used_most, 0);
    memos_arena_finish(&arena);
    memos_buffer_free(&out);
}

static void checkpoints_encode_every_field(void **state)
{
    struct memcube_checkpoint checkpoint = {.seq = 1};
    struct memos_buffer first = memos_buffer_make(4096), second = memos_buffer_make(4096);
    uint8_t *const fields[] = {checkpoint.space_id.bytes, (uint8_t *)&checkpoint.seq,
        checkpoint.head.bytes, (uint8_t *)&checkpoint.time_us, checkpoint.public_key};
    (void)state;
    memcube_checkpoint_encode(&checkpoint, &first);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        fields[i][0] ^= 1;
        memos_buffer_reset(&second);
        memcube_checkpoint_encode(&checkpoint, &second);
        assert_false(memos_bytes_equal(memos_buffer_view(&first), memos_buffer_view(&second)));
        fields[i][0] ^= 1;
    }
    memos_buffer_free(&first);
    memos_buffer_free(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_blake2b_256),
        cmocka_unit_test(headers_come_back_whole),
        cmocka_unit_test(headers_with_wrong_numbers_are_refused),
        cmocka_unit_test(descriptions_come_back_whole),
        cmocka_unit_test(log_records_come_back_whole),
        cmocka_unit_test(counts_do_not_size_memory),
        cmocka_unit_test(checkpoints_encode_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
