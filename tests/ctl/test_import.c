/* The readers of what others wrote. If this failed, a conversation would go in with words missing,
 * under the wrong name, or not at all. */
#include "tools/memosctl/import.h"
#include "tools/memosctl/import_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Everything that a reader gave, as lines of text. */
struct record {
    struct memos_buffer text;
    size_t items, bad;
    bool stops; /* at the first bad one */
};

static void add_part(struct memos_buffer *out, const char *name, struct memos_bytes value)
{
    if (value.size > 0) {
        memos_buffer_printf(out, " %s=%.*s", name, (int)value.size, (const char *)value.data);
    }
}

static enum memos_status take(
    void *self, const struct ctl_import_item *item, struct memos_error *err)
{
    struct record *record = self;
    struct memos_buffer *out = &record->text;
    (void)err;
    record->items++;
    memos_buffer_printf(out, "%llu:", (unsigned long long)item->line);
    add_part(out, "space", item->space);
    add_part(out, "speaker", item->speaker);
    add_part(out, "id", item->id);
    add_part(out, "title", item->title);
    add_part(out, "uri", item->source_uri);
    if (item->length) {
        memos_buffer_printf(out, " at=%llu+%llu", (unsigned long long)item->offset,
            (unsigned long long)item->length);
    }
    if (item->event_us) {
        memos_buffer_printf(out, " us=%lld", (long long)item->event_us);
    }
    for (size_t i = 0; i < item->pairs_count; i++) {
        memos_buffer_printf(
            out, " %.*s", (int)item->pairs[i].name.size, (const char *)item->pairs[i].name.data);
        add_part(out, "", item->pairs[i].value);
    }
    for (size_t i = 0; i < item->tags_count; i++) {
        add_part(out, "tag", item->tags[i]);
    }
    add_part(out, "text", item->text);
    memos_buffer_printf(out, "\n");
    return MEMOS_OK;
}

static enum memos_status bad(void *self, uint64_t line, const char *why, struct memos_error *err)
{
    struct record *record = self;
    record->bad++;
    memos_buffer_printf(&record->text, "%llu: BAD %s\n", (unsigned long long)line, why);
    return record->stops ? memos_fail(err, MEMOS_INVALID, "%s", why) : MEMOS_OK;
}

static struct record read_with(enum ctl_import_format format, struct memos_bytes bytes,
    const char *map, size_t chunk_bytes, enum memos_status wanted)
{
    static struct ctl_import_map names;
    struct record record = {.text = memos_buffer_make(1 << 22)};
    struct ctl_import_sink sink = {take, bad, &record};
    struct ctl_import_options options = {"file", &names, chunk_bytes};
    struct memos_error err = {0};
    memset(&names, 0, sizeof names);
    if (map) {
        assert_int_equal(ctl_import_map_parse(map, &names, &err), MEMOS_OK);
    }
    assert_int_equal(ctl_import_read(format, bytes, &options, &sink, &err), wanted);
    memos_buffer_u8(&record.text, 0);
    assert_false(record.text.failed);
    return record;
}

static void check(
    enum ctl_import_format format, const char *given, const char *map, const char *wanted)
{
    struct record record = read_with(format, memos_bytes_of(given), map, 0, MEMOS_OK);
    assert_string_equal((const char *)record.text.data, wanted);
    memos_buffer_free(&record.text);
}

/* ---- JSON lines ---- */

static void test_lines(void **state)
{
    (void)state;
    check(CTL_IMPORT_JSONL,
        "{\"session\": \"s1\", \"time\": \"2023-05-08T13:56:00Z\", \"speaker\": \"Ada\", "
        "\"text\": \"hello\", \"id\": \"a1\", \"mood\": \"glad\", \"n\": 3, \"nothing\": null}\r\n"
        "\n"
        "{\"text\": \"alone\", \"tags\": [\"x\", \"y\"]}",
        NULL,
        "1: speaker=Ada id=a1 uri=s1/a1 us=1683554160000000 mood =glad n =3 session =s1 "
        "text=hello\n"
        "3: uri=file session =file tag=x tag=y text=alone\n");
}

static void test_lines_mapped(void **state)
{
    (void)state;
    check(CTL_IMPORT_JSONL,
        "{\"conv\": \"c-1\", \"session\": 2, \"date_time\": \"1:56 pm on 8 May, 2023\", "
        "\"dia_id\": "
        "\"D1:1\", \"speaker\": \"Mel\", \"text\": \"Look!\", \"image_caption\": \"a dog\", "
        "\"vector\": [1, 2]}\n"
        "{\"conv\": \"c-1\", \"session\": 2, \"text\": \"\", \"image_caption\": \"a cat\"}\n",
        "time=date_time,id=dia_id,space=conv,caption=image_caption,ignore=vector",
        "1: space=c-1 speaker=Mel id=D1:1 uri=2/D1:1 us=1683554160000000 caption =a dog session =2 "
        "text=Look!\n"
        "2: space=c-1 uri=2 session =2 text=a cat\n");
}

static void test_bad_lines(void **state)
{
    (void)state;
    struct record record = read_with(CTL_IMPORT_JSONL,
        memos_bytes_of("not json\n[1]\n{\"speaker\": \"x\"}\n{\"text\": \"t\", \"time\": "
                       "\"whenever\"}\n{\"text\": \"good\"}\n{\"text\": \"half"),
        NULL, 0, MEMOS_OK);
    assert_int_equal(record.items, 1);
    assert_int_equal(record.bad, 5);
    const char *text = (const char *)record.text.data;
    assert_non_null(strstr(text, "2: BAD it is no JSON object"));
    assert_non_null(strstr(text, "3: BAD it has no text"));
    assert_non_null(strstr(text, "4: BAD its time is not understood"));
    assert_non_null(strstr(text, "5: uri=file session =file text=good"));
    memos_buffer_free(&record.text);
}

static void test_line_with_too_much(void **state)
{
    (void)state;
    struct memos_buffer line = memos_buffer_make(1 << 20);
    memos_buffer_printf(&line, "{\"text\": \"x\", \"big\": \"");
    for (int i = 0; i < 5000; i++) {
        memos_buffer_u8(&line, 'y');
    }
    memos_buffer_printf(&line, "\"}\n{\"text\": \"x\"");
    for (int i = 0; i < 70; i++) {
        memos_buffer_printf(&line, ", \"f%d\": 1", i);
    }
    memos_buffer_printf(&line, "}\n");
    struct record record = read_with(CTL_IMPORT_JSONL, memos_buffer_view(&line), NULL, 0, MEMOS_OK);
    assert_non_null(strstr((const char *)record.text.data, "1: BAD a field is longer than 4096"));
    assert_non_null(strstr((const char *)record.text.data, "2: BAD more than 64 fields"));
    memos_buffer_free(&record.text);
    memos_buffer_free(&line);
}

static void test_map(void **state)
{
    (void)state;
    static const char *const wrong[] = {"time", "when=x",
        "time=", "text=0123456789012345678901234567890123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct ctl_import_map map = {0};
        assert_int_equal(ctl_import_map_parse(wrong[i], &map, NULL), MEMOS_INVALID);
    }
}

/* ---- messages ---- */

static void test_messages(void **state)
{
    (void)state;
    check(CTL_IMPORT_MESSAGES,
        "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
        "[{\"type\": \"text\", \"text\": \"Hello.\"}, {\"type\": \"image_url\"}, {\"type\": "
        "\"text\", \"text\": \"Yes?\"}]}, {\"role\": \"assistant\", \"content\": null}, "
        "{\"role\": \"user\", \"name\": \"Ada\", \"content\": \"x\", \"timestamp\": 1683554160}]",
        NULL,
        "1: speaker=user uri=file session =file text=Hi\n"
        "2: speaker=assistant uri=file session =file text=Hello.\nYes?\n"
        "4: speaker=Ada uri=file us=1683554160000000 session =file text=x\n");
}

static void test_several_conversations(void **state)
{
    (void)state;
    check(CTL_IMPORT_MESSAGES,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n"
        "{\"id\": \"c2\", \"title\": \"T\", \"messages\": [{\"role\": \"user\", \"content\": "
        "\"b\"}]}\n"
        "[[{\"role\": \"user\", \"content\": \"c\"}], [{\"content\": \"d\"}]]",
        NULL,
        "1: speaker=user uri=file session =file text=a\n"
        "2: speaker=user title=T uri=c2 session =c2 text=b\n"
        "3: speaker=user uri=file 3 session =file 3 text=c\n"
        "4: BAD a message without a role\n");
}

/* ---- ChatGPT ---- */

#define NODE(id, parent, role, text)                                                               \
    "\"" id "\": {\"id\": \"" id "\", \"parent\": " parent ", \"children\": [], \"message\": "     \
    "{\"id\": \"m" id "\", \"author\": {\"role\": \"" role "\"}, \"create_time\": 1683554160.0, "  \
    "\"content\": {\"content_type\": \"text\", \"parts\": [\"" text "\"]}, \"metadata\": "         \
    "{\"model_slug\": \"m1\"}}}"

static void test_chatgpt(void **state)
{
    (void)state;
    /* the branch of c was abandoned for the one of d */
    check(CTL_IMPORT_CHATGPT,
        "[{\"title\": \"Trip\", \"create_time\": 1683554000, \"conversation_id\": \"k\", "
        "\"current_node\": \"d\", \"mapping\": {\"r\": {\"id\": \"r\", \"message\": null, "
        "\"parent\": null}, " NODE("s", "\"r\"", "system", "hidden") ", " NODE(
            "a", "\"s\"", "user", "Where to?") ", " NODE("c", "\"a\"", "assistant",
            "Rome") ", " NODE("d", "\"a\"", "assistant", "Porto") "}}]",
        NULL,
        "1: speaker=user id=ma title=Trip uri=k us=1683554160000000 session =k model =m1 "
        "text=Where to?\n"
        "1: speaker=assistant id=md title=Trip uri=k us=1683554160000000 session =k model =m1 "
        "text=Porto\n");
}

static void test_chatgpt_hostile(void **state)
{
    (void)state;
    /* a circle, a parent that is not there, no mapping, and no current_node */
    check(CTL_IMPORT_CHATGPT,
        "[{\"id\": \"k\", \"current_node\": \"a\", \"mapping\": {" NODE(
            "a", "\"b\"", "user", "one") ", " NODE("b", "\"a\"", "user",
            "two") "}}, "
                   "{\"id\": \"l\", \"current_node\": \"a\", \"mapping\": {" NODE(
                       "a", "\"gone\"", "user", "three") "}}, {\"id\": \"m\"}, 7, "
                                                         "{\"id\": \"n\", \"mapping\": {" NODE(
                                                             "a", "null", "user", "four") "}}]",
        NULL,
        "1: speaker=user id=mb uri=k us=1683554160000000 session =k model =m1 text=two\n"
        "1: speaker=user id=ma uri=k us=1683554160000000 session =k model =m1 text=one\n"
        "2: speaker=user id=ma uri=l us=1683554160000000 session =l model =m1 text=three\n"
        "3: BAD a conversation without a mapping\n"
        "4: BAD a conversation without a mapping\n"
        "5: speaker=user id=ma uri=n us=1683554160000000 session =n model =m1 text=four\n");
    struct record record =
        read_with(CTL_IMPORT_CHATGPT, memos_bytes_of("[{\"id\": 1}, "), NULL, 0, MEMOS_INVALID);
    memos_buffer_free(&record.text);
}

/* ---- text ---- */

static void test_markdown(void **state)
{
    (void)state;
    check(CTL_IMPORT_MARKDOWN,
        "Before.\n\n# Guide #\n\nOne.\n\nTwo.\n## Setup\r\n\r\nThree.\r\n```\n# no "
        "heading\n\nx\n```\n"
        "# Next\n####### none\n",
        NULL,
        "1: uri=file at=0+7 text=Before.\n"
        "5: title=Guide uri=file at=20+10 text=One.\n\nTwo.\n"
        "10: title=Guide > Setup uri=file at=43+31 text=Three.\r\n```\n# no heading\n\nx\n```\n"
        "17: title=Next uri=file at=82+12 text=####### none\n");
}

/* Pieces are bounded, in order, whole characters, and nothing but blanks lies between them. */
static void test_long_text(void **state)
{
    (void)state;
    enum { CHUNK = 100 };
    struct memos_buffer text = memos_buffer_make(1 << 20);
    for (int i = 0; i < 300; i++) {
        memos_buffer_printf(&text,
            i % 37 == 36   ? "\n\n"
            : i % 11 == 10 ? "%d. "
                           : "w\xc3\xb6rt%d ",
            i);
    }
    for (int i = 0; i < 300; i++) {
        memos_buffer_printf(&text, "\xf0\x9f\x98\x80"); /* no place to cut well */
    }
    struct record record =
        read_with(CTL_IMPORT_TEXT, memos_buffer_view(&text), NULL, CHUNK, MEMOS_OK);
    assert_int_equal(record.bad, 0);
    assert_true(record.items > 20);
    uint64_t end = 0;
    const char *at = (const char *)record.text.data;
    while ((at = strstr(at, " at="))) {
        char *plus, *after;
        uint64_t offset = strtoull(at + 4, &plus, 10), length = strtoull(plus + 1, &after, 10);
        assert_true(length > 0 && length <= CHUNK);
        assert_true(offset >= end);
        for (uint64_t i = end; i < offset; i++) {
            assert_non_null(strchr(" \n", text.data[i]));
        }
        assert_true(memos_bytes_utf8(memos_bytes_make(text.data + offset, length)));
        end = offset + length;
        at = after;
    }
    assert_int_equal(end, text.size);
    memos_buffer_free(&record.text);
    memos_buffer_free(&text);
}

static void test_text_that_is_none(void **state)
{
    (void)state;
    check(CTL_IMPORT_TEXT, "good\n\n\n", NULL, "1: uri=file at=0+4 text=good\n");
    check(CTL_IMPORT_TEXT, "a\xff", NULL, "1: BAD the text is not UTF-8\n");
    check(CTL_IMPORT_TEXT, "\n \n\t\n", NULL, "");
}

/* ---- JSON ---- */

static void test_json_limits(void **state)
{
    (void)state;
    json_t *value = NULL;
    char deep[512];
    struct memos_buffer wide = memos_buffer_make(1 << 24);
    memset(deep, '[', sizeof deep);
    assert_int_equal(
        ctl_import_json_parse(memos_bytes_make(deep, sizeof deep), &value, NULL), MEMOS_TOO_LARGE);
    memos_buffer_printf(&wide, "[0");
    for (int i = 0; i <= CTL_IMPORT_JSON_VALUES_MAX; i++) {
        memos_buffer_bytes(&wide, ",0", 2);
    }
    memos_buffer_printf(&wide, "]");
    assert_int_equal(
        ctl_import_json_parse(memos_buffer_view(&wide), &value, NULL), MEMOS_TOO_LARGE);
    memos_buffer_free(&wide);
    static const char *const wrong[] = {
        "", " ", "{", "\"", "[1,]", "{} {}", "]", "nul", "{\"a\"}", "\"\xff\"", "[1}", "1 2"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct memos_error err = {0};
        if (ctl_import_json_parse(memos_bytes_of(wrong[i]), &value, &err) != MEMOS_INVALID) {
            fail_msg("'%s' was taken", wrong[i]);
        }
        assert_null(value);
    }
}

static void test_detect(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        enum ctl_import_format format;
    } cases[] = {
        {"x.md", "{}", CTL_IMPORT_MARKDOWN},
        {"x.txt", "[]", CTL_IMPORT_TEXT},
        {"x.json", " [{\"mapping\": {}}]", CTL_IMPORT_CHATGPT},
        {"x.json", "[{\"role\": \"user\"}]", CTL_IMPORT_MESSAGES},
        {"x", "{\"messages\": []}", CTL_IMPORT_MESSAGES},
        {"x", "{\"text\": \"a\"}\n{\"text\": \"b\"}", CTL_IMPORT_JSONL},
        {"x.jsonl", "broken\n", CTL_IMPORT_JSONL},
        {"x.jsonl", "{broken\n", CTL_IMPORT_JSONL},
        {"x", "memosarc\1\0\0", CTL_IMPORT_ARCHIVE},
        {"x", "what is this", CTL_IMPORT_UNKNOWN},
        {"x", "", CTL_IMPORT_UNKNOWN},
        {"x.json", "[1, 2]", CTL_IMPORT_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(
            ctl_import_detect(memos_bytes_of(cases[i].text), cases[i].name), cases[i].format);
    }
}

/* A sink that does not want to go on is not asked again. */
static void test_stop(void **state)
{
    (void)state;
    struct record record = {.text = memos_buffer_make(1 << 16), .stops = true};
    struct ctl_import_sink sink = {take, bad, &record};
    struct ctl_import_map map = {0};
    struct ctl_import_options options = {"file", &map, 0};
    struct memos_error err = {0};
    assert_int_equal(ctl_import_read(CTL_IMPORT_JSONL, memos_bytes_of("x\ny\n{\"text\":\"z\"}\n"),
                         &options, &sink, &err),
        MEMOS_INVALID);
    assert_int_equal(record.bad, 1);
    assert_int_equal(record.items, 0);
    memos_buffer_free(&record.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_lines_mapped),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_line_with_too_much),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_several_conversations),
        cmocka_unit_test(test_chatgpt),
        cmocka_unit_test(test_chatgpt_hostile),
        cmocka_unit_test(test_markdown),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_text_that_is_none),
        cmocka_unit_test(test_json_limits),
        cmocka_unit_test(test_detect),
        cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
