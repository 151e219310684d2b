/* The text that is encoded for a version.
 *
 * If these failed, vectors would stand for other words than the memory's: turns would be taken for
 * another speaker's, or the end of a long text could never be found. */
#include "retrieval/vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct memos_arena arena;

static int setup(void **state)
{
    (void)state;
    memos_arena_init(&arena, (size_t)16 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    memos_arena_finish(&arena);
    return 0;
}

static struct retrieval_spans make(
    const struct memcube_description *description, struct memos_bytes payload)
{
    struct retrieval_spans spans;
    struct memos_error err;
    assert_int_equal(
        retrieval_spans_make(MEMCUBE_PLAINTEXT, description, payload, &arena, &spans, &err),
        MEMOS_OK);
    return spans;
}

static void assert_span(const struct retrieval_spans *spans, size_t i, const char *text)
{
    assert_true(i < spans->count);
    if (!memos_bytes_equal(spans->texts[i], memos_bytes_of(text))) {
        fail_msg("\"%.*s\", not \"%s\"", (int)spans->texts[i].size,
            (const char *)spans->texts[i].data, text);
    }
}

static void short_texts_are_one_span(void **state)
{
    struct memcube_attribute attributes[] = {
        {memos_bytes_of("caption"), memos_bytes_of(" a dog on a beach ")},
        {memos_bytes_of("other"), memos_bytes_of("not this")}};
    struct memcube_description d = {.event_us = 1};
    (void)state;
    struct retrieval_spans spans = make(&d, memos_bytes_of("  Hello there.\n"));
    assert_int_equal(spans.count, 1);
    assert_span(&spans, 0, "Hello there.");
    d.speaker = memos_bytes_of("Caroline");
    spans = make(&d, memos_bytes_of("Hello there."));
    assert_span(&spans, 0, "Caroline: Hello there.");
    d.title = memos_bytes_of("A walk");
    d.attributes = attributes;
    d.attributes_count = 2;
    spans = make(&d, memos_bytes_of("Hello there."));
    assert_span(&spans, 0, "Caroline: A walk. Hello there. (a dog on a beach)");
    d.speaker = memos_bytes_of("Assistant");
    spans = make(&d, memos_bytes_of("Hello there."));
    assert_span(&spans, 0, "A walk. Hello there. (a dog on a beach)");
    spans = make(&d, memos_bytes_of("a dog on a beach"));
    assert_span(&spans, 0, "A walk. a dog on a beach");
    spans = make(&d, memos_bytes_of(""));
    assert_span(&spans, 0, "A walk. (a dog on a beach)");
}

static void nothing_to_say_is_no_span(void **state)
{
    const struct memcube_description none = {.event_us = 1};
    const struct memcube_description speaker = {.speaker = memos_bytes_of("Ann")};
    const struct memcube_description title = {.title = memos_bytes_of("Only a title")};
    struct retrieval_spans spans = make(&none, memos_bytes_of(" \n\t "));
    (void)state;
    assert_int_equal(spans.count, 0);
    assert_int_equal(make(&speaker, memos_bytes_of("")).count, 0);
    spans = make(&title, memos_bytes_of(""));
    assert_int_equal(spans.count, 1);
    assert_span(&spans, 0, "Only a title.");
    assert_int_equal(
        retrieval_spans_make(MEMCUBE_ACTIVATION, &title, memos_bytes_of("x"), &arena, &spans, NULL),
        MEMOS_OK);
    assert_int_equal(spans.count, 0);
}

/* Every byte of a text that is not blank lies in exactly one span, in order. */
static void assert_covers(const char *text, size_t count_least)
{
    const struct memcube_description none = {.event_us = 1};
    const struct retrieval_spans spans = make(&none, memos_bytes_of(text));
    const char *at = text;
    assert_true(spans.count >= count_least);
    for (size_t i = 0; i < spans.count; i++) {
        const struct memos_bytes span = spans.texts[i];
        assert_true(span.size > 0 && span.size <= RETRIEVAL_SPAN_BYTES);
        assert_true(memos_bytes_utf8(span));
        at += strspn(at, " \n");
        assert_memory_equal(at, span.data, span.size);
        at += span.size;
    }
    at += strspn(at, " \n");
    assert_int_equal(*at, 0);
}

static void long_texts_are_cut_where_it_hurts_least(void **state)
{
    char *text = calloc(1, 20001);
    const struct memcube_description named = {
        .speaker = memos_bytes_of("Bob"), .title = memos_bytes_of("Tale")};
    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < 20000; i++) {
        text[i] = "One sentence of it. "[i % 20];
    }
    assert_covers(text, 20);
    struct retrieval_spans spans = make(&named, memos_bytes_of(text));
    for (size_t i = 0; i < spans.count; i++) {
        const char *span = spans.texts[i].data;
        assert_memory_equal(span, "Bob: Tale. One", 14);
        assert_true(span[spans.texts[i].size - 1] == '.');
    }
    for (size_t i = 0; i < 20000; i++) { /* words without sentences */
        text[i] = "words "[i % 6];
    }
    assert_covers(text, 20);
    memset(text, 'x', 20000); /* one word */
    assert_covers(text, 20);
    for (size_t i = 0; i + 3 <= 19998; i += 3) { /* characters of three bytes */
        memcpy(text + i, "\xe2\x82\xac", 3);
    }
    text[19998] = 0;
    assert_covers(text, 20);
    free(text);
}

static void there_are_never_too_many(void **state)
{
    const size_t size = (size_t)4 << 20;
    char *text = malloc(size + 1);
    const struct memcube_description none = {.event_us = 1};
    (void)state;
    assert_non_null(text);
    memset(text, 'x', size);
    text[size] = 0;
    assert_int_equal(make(&none, memos_bytes_of(text)).count, RETRIEVAL_SPANS_MAX);
    for (size_t i = 0; i < size; i++) {
        text[i] = "a. "[i % 3];
    }
    const struct retrieval_spans spans = make(&none, memos_bytes_of(text));
    assert_true(spans.count <= RETRIEVAL_SPANS_MAX && spans.count > RETRIEVAL_SPANS_MAX / 2);
    free(text);
}

static void hashes_tell_texts_apart(void **state)
{
    const struct memcube_description none = {.event_us = 1};
    const struct memcube_description ann = {.speaker = memos_bytes_of("Ann")};
    (void)state;
    struct retrieval_spans a = make(&none, memos_bytes_of("the words"));
    struct retrieval_spans b = make(&none, memos_bytes_of("the words "));
    struct retrieval_spans c = make(&none, memos_bytes_of("the word"));
    struct retrieval_spans d = make(&ann, memos_bytes_of("the words"));
    assert_memory_equal(a.hash, b.hash, sizeof a.hash);
    assert_memory_not_equal(a.hash, c.hash, sizeof a.hash);
    assert_memory_not_equal(a.hash, d.hash, sizeof a.hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(short_texts_are_one_span, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_to_say_is_no_span, setup, teardown),
        cmocka_unit_test_setup_teardown(long_texts_are_cut_where_it_hurts_least, setup, teardown),
        cmocka_unit_test_setup_teardown(there_are_never_too_many, setup, teardown),
        cmocka_unit_test_setup_teardown(hashes_tell_texts_apart, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
