/* What a user would lose: receipts that cannot be read again, or that say less than was written. */
#include "memos/worker/receipt_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OK(call) assert_int_equal(call, MEMOS_OK)

struct made {
    uint8_t hash[32], id[16];
    Memos__Receipt receipt;
    Memos__ReceiptItem items[2], *pointers[2];
    Memos__Ref refs[2];
    char *notes[2];
};

static void receipt_make(struct made *m)
{
    memset(m->hash, 0xa7, sizeof m->hash);
    memset(m->id, 0x19, sizeof m->id);
    const ProtobufCBinaryData hash = {.len = 32, .data = m->hash};
    const ProtobufCBinaryData id = {.len = 16, .data = m->id};
    memos__receipt__init(&m->receipt);
    m->receipt.id = id;
    m->receipt.space = (char *)(uintptr_t) "acme/alice";
    m->receipt.seq = 41;
    m->receipt.head = hash;
    m->receipt.time_us = INT64_C(1767225600123456);
    m->receipt.principal = (char *)(uintptr_t) "alice";
    m->receipt.model = (char *)(uintptr_t) "tiny \"q\"";
    m->receipt.fingerprint = hash;
    m->receipt.prompt_hash = hash;
    m->receipt.answer_hash = hash;
    m->receipt.worker = (char *)(uintptr_t) "host/1";
    for (size_t i = 0; i < 2; i++) {
        memos__receipt_item__init(&m->items[i]);
        memos__ref__init(&m->refs[i]);
        m->refs[i].id = id;
        m->refs[i].number = 3 + (uint32_t)i;
        m->items[i].ref = &m->refs[i];
        m->items[i].payload_hash = hash;
        m->items[i].used_as = 1 + 3 * (uint32_t)i;
        m->items[i].first_token = 7;
        m->items[i].tokens = 9;
        m->items[i].bytes = UINT64_C(1) << 40;
        m->items[i].micros = 11;
        m->items[i].score = 0.625f;
        m->items[i].mark = (char *)(uintptr_t) "[1]";
        m->items[i].approximate = i == 1;
        m->pointers[i] = &m->items[i];
    }
    m->receipt.items = m->pointers;
    m->receipt.n_items = 2;
    m->notes[0] = (char *)(uintptr_t) "capture x is stale";
    m->notes[1] = (char *)(uintptr_t) "ünïcode";
    m->receipt.notes = m->notes;
    m->receipt.n_notes = 2;
}

static void written_and_read_it_is_the_same(void **state)
{
    (void)state;
    struct made m;
    struct memos_buffer first = memos_buffer_make(1 << 20), second = memos_buffer_make(1 << 20);
    struct memos_arena arena;
    Memos__Receipt *read = NULL;
    struct memos_error err = {0};
    receipt_make(&m);
    memos_arena_init(&arena, 1 << 20);
    OK(worker_receipt_write(&m.receipt, &first, &err));
    if (worker_receipt_read(memos_buffer_view(&first), &arena, &read, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    OK(worker_receipt_write(read, &second, NULL));
    assert_true(memos_bytes_equal(memos_buffer_view(&first), memos_buffer_view(&second)));
    /* and it is the same message, field for field */
    uint8_t packed[2048], again[2048];
    const size_t size = memos__receipt__get_packed_size(&m.receipt);
    assert_true(size <= sizeof packed);
    assert_int_equal(memos__receipt__get_packed_size(read), size);
    (void)memos__receipt__pack(&m.receipt, packed);
    (void)memos__receipt__pack(read, again);
    assert_memory_equal(packed, again, size);
    memos_buffer_free(&first);
    memos_buffer_free(&second);
    memos_arena_finish(&arena);
}

static void what_is_none_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "{", "[]", "{}",
        "{\"id\":\"\",\"space\":\"s\",\"seq\":1}",
        "{\"id\":\"zz\",\"space\":\"s\",\"seq\":1,\"items\":[]}",
        "{\"id\":\"\",\"space\":\"s\",\"seq\":-1,\"items\":[]}",
        "{\"id\":\"\",\"space\":7,\"seq\":1,\"items\":[]}",
        "{\"id\":\"\",\"space\":\"s\",\"seq\":1,\"items\":[7]}",
        "{\"id\":\"\",\"space\":\"s\",\"seq\":1,\"items\":[{}]}",
        "{\"id\":\"\",\"space\":\"s\",\"seq\":1,\"items\":[],\"notes\":[1]}",
        "{\"id\":\"\",\"space\":\"s\",\"seq\":1,\"items\":[],\"time\":\"soon\"}",
        "{\"id\":\"\",\"id\":\"\",\"space\":\"s\",\"seq\":1,\"items\":[]}",
        "{\"id\":\"\",\"space\":\"s\",\"seq\":1,\"items\":[{\"id\":\"1\",\"version\":1,"
        "\"used_as\":\"kv\"}]}",
        "{\"id\":\"\",\"space\":\"s\",\"seq\":1,\"items\":[{\"id\":"
        "\"01923456-789a-7bcd-8ef0-123456789abc\",\"version\":1,\"used_as\":\"magic\"}]}"};
    struct memos_arena arena;
    memos_arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        Memos__Receipt *read = NULL;
        struct memos_error err = {0};
        assert_int_equal(
            worker_receipt_read(memos_bytes_of(wrong[i]), &arena, &read, &err), MEMOS_INVALID);
        assert_null(read);
        assert_true(err.text[0]);
    }
    memos_arena_finish(&arena);
}

static void little_is_enough(void **state)
{
    (void)state;
    struct memos_arena arena;
    Memos__Receipt *read = NULL;
    memos_arena_init(&arena, 1 << 16);
    OK(worker_receipt_read(memos_bytes_of("{\"space\":\"s\",\"seq\":0,\"items\":[],\"later\":{}}"),
        &arena, &read, NULL));
    assert_string_equal(read->space, "s");
    assert_string_equal(read->worker, "");
    memos_arena_finish(&arena);
    memos_arena_init(&arena, 64);
    assert_int_equal(worker_receipt_read(memos_bytes_of("{\"space\":\"s\",\"seq\":0,\"items\":[]}"),
                         &arena, &read, NULL),
        MEMOS_NO_MEMORY);
    memos_arena_finish(&arena);
}

static void names_of_uses(void **state)
{
    (void)state;
    assert_string_equal(worker_used_as_text(0), "?");
    assert_string_equal(worker_used_as_text(2), "kv");
    assert_string_equal(worker_used_as_text(5), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_and_read_it_is_the_same),
        cmocka_unit_test(what_is_none_is_refused),
        cmocka_unit_test(little_is_enough),
        cmocka_unit_test(names_of_uses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
