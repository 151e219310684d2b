/* What an endpoint is sent, and what is believed of its answers.
 *
 * If these failed, a text would be given another text's vector, an endpoint that answers nonsense
 * would fill the index with it, or one that answers too much would take the broker's memory. */
#include "retrieval/encoder_internal.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect_request(const struct memos_bytes *texts, size_t count, const char *wanted)
{
    struct memos_buffer out = memos_buffer_make(1 << 20);
    retrieval_request_write(&out, "a \"model\"", texts, count);
    memos_buffer_u8(&out, 0);
    assert_string_equal((const char *)out.data, wanted);
    memos_buffer_free(&out);
}

static void requests(void **state)
{
    struct memos_bytes texts[] = {
        memos_bytes_of("plain"),
        memos_bytes_of("a \"quote\", a \\ and\na line\x7F"),
        memos_bytes_make("\0\xFF\xC3\xA9\xE2\x82", 6),
        memos_bytes_of(""),
    };
    (void)state;
    expect_request(texts, 1,
        "{\"model\":\"a \\\"model\\\"\",\"encoding_format\":\"float\",\"input\":[\"plain\"]}");
    expect_request(texts, 4,
        "{\"model\":\"a \\\"model\\\"\",\"encoding_format\":\"float\",\"input\":[\"plain\","
        "\"a \\\"quote\\\", a \\\\ and\\u000aa line\x7F\","
        "\"\uFFFD\uFFFD\u00E9\uFFFD\uFFFD\",\" \"]}");
}

#define ITEM(index, numbers) "{\"index\":" index ",\"embedding\":[" numbers "]}"
#define DATA(items) "{\"object\":\"list\",\"data\":[" items "],\"usage\":{\"total_tokens\":3}}"

static void vectors_come_in_order_and_normalised(void **state)
{
    const char *json = DATA(ITEM("1", "0, -2") "," ITEM("0", "3, 4e0"));
    float out[4];
    size_t dims = 0;
    (void)state;
    assert_int_equal(retrieval_answer_read(memos_bytes_of(json), 2, &dims, out, 4, NULL), MEMOS_OK);
    assert_int_equal(dims, 2);
    assert_true(fabsf(out[0] - 0.6f) < 1e-6f && fabsf(out[1] - 0.8f) < 1e-6f);
    assert_true(out[2] == 0.0f && out[3] == -1.0f);
    /* without indices they are as they stand */
    json = DATA("{\"embedding\":[1,0]},{\"embedding\":[0,1]}");
    assert_int_equal(retrieval_answer_read(memos_bytes_of(json), 2, &dims, out, 4, NULL), MEMOS_OK);
    assert_true(out[0] == 1.0f && out[3] == 1.0f);
}

static void expect_refused(const char *json, size_t count, size_t dims, const char *why)
{
    float out[64];
    struct memos_error err = {0};
    enum memos_status status =
        retrieval_answer_read(memos_bytes_of(json), count, &dims, out, 64, &err);
    assert_int_equal(status, MEMOS_CORRUPT);
    if (!strstr(err.text, why)) {
        fail_msg("'%s' does not say '%s'", err.text, why);
    }
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    expect_refused("", 1, 2, "no JSON");
    expect_refused("<html>busy</html>", 1, 2, "no JSON");
    expect_refused("[]", 1, 2, "0 vectors for 1 texts");
    expect_refused("{\"data\":{}}", 1, 2, "0 vectors for 1 texts");
    expect_refused(DATA(ITEM("0", "1,2")), 2, 2, "1 vectors for 2 texts");
    expect_refused(DATA(ITEM("0", "1,2") "," ITEM("1", "1,2")), 1, 2, "2 vectors for 1 texts");
    expect_refused(DATA(ITEM("0", "1,2,3")), 1, 2, "3 dimensions instead of 2");
    expect_refused(
        DATA(ITEM("0", "1,2") "," ITEM("1", "1,2,3")), 2, 0, "3 dimensions instead of 2");
    expect_refused(DATA(ITEM("0", "")), 1, 0, "0 dimensions");
    expect_refused(DATA("{\"index\":0,\"embedding\":\"AACAPw==\"}"), 1, 2, "0 dimensions");
    expect_refused(DATA("{\"index\":0}"), 1, 2, "0 dimensions");
    expect_refused(DATA("7"), 1, 2, "0 dimensions");
    expect_refused(DATA(ITEM("0", "1,2") "," ITEM("0", "1,2")), 2, 2, "unwanted or twice");
    expect_refused(DATA(ITEM("1", "1,2")), 1, 2, "unwanted or twice");
    expect_refused(DATA(ITEM("-1", "1,2")), 1, 2, "unwanted or twice");
    expect_refused(DATA(ITEM("9223372036854775807", "1,2")), 1, 2, "unwanted or twice");
    expect_refused(DATA(ITEM("\"0\"", "1,2")), 1, 2, "odd index");
    expect_refused(DATA(ITEM("0", "1,NaN")), 1, 2, "no JSON");
    expect_refused(DATA(ITEM("0", "1,1e999")), 1, 2, "no JSON");
    expect_refused(DATA(ITEM("0", "1,1e39")), 1, 2, "no finite number at 1");
    expect_refused(DATA(ITEM("0", "1,null")), 1, 2, "no finite number at 1");
    expect_refused(DATA(ITEM("0", "0,-0.0")), 1, 2, "cannot be normalised");
    expect_refused("{\"data\":[{\"index\":0,\"embedding\":[1,2", 1, 2, "no JSON");
}

static void memory_is_bounded_by_what_was_asked(void **state)
{
    struct memos_buffer json = memos_buffer_make(1 << 24);
    float out[2];
    size_t dims = 2;
    struct memos_error err = {0};
    (void)state;
    memos_buffer_printf(&json, "{\"data\":[{\"embedding\":[1");
    for (int i = 0; i < 2000000; i++) {
        memos_buffer_bytes(&json, ",1", 2);
    }
    memos_buffer_printf(&json, "]}]}");
    assert_int_equal(
        retrieval_answer_read(memos_buffer_view(&json), 1, &dims, out, 2, &err), MEMOS_CORRUPT);
    assert_non_null(strstr(err.text, "too large"));
    memos_buffer_reset(&json);
    for (int i = 0; i < 1000000; i++) {
        memos_buffer_u8(&json, '[');
    }
    assert_int_equal(
        retrieval_answer_read(memos_buffer_view(&json), 1, &dims, out, 2, &err), MEMOS_CORRUPT);
    memos_buffer_free(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests),
        cmocka_unit_test(vectors_come_in_order_and_normalised),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(memory_is_bounded_by_what_was_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
