/* Token ids, and the words before them, against the tokenizers library.
 *
 * If these failed, the model would be given other tokens than it was trained on: vectors would be
 * wrong, silently, for some texts. */
#include "paramem/wordpiece.h"

#include "tests/paramem/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include <cmocka.h>

#define IDS_MAX 100000

static const struct paramem_config uncased = {.lowercase = true,
    .chinese_chars = true,
    .strip_accents = true,
    .cls = "[CLS]",
    .sep = "[SEP]",
    .unk = "[UNK]",
    .pad = "[PAD]",
    .mask = "[MASK]"};

static struct paramem_wordpiece *wordpiece; /* of golden/vocab.txt */
static uint32_t *ids;

static int setup(void **state)
{
    (void)state;
    struct memos_buffer vocab = golden_read("vocab.txt");
    ids = calloc(IDS_MAX, sizeof *ids);
    int bad = !ids || paramem_wordpiece_vocab(
                          memos_buffer_view(&vocab), &uncased, &wordpiece, NULL) != MEMOS_OK;
    memos_buffer_free(&vocab);
    return bad;
}

static int teardown(void **state)
{
    (void)state;
    paramem_wordpiece_close(&wordpiece);
    free(ids);
    return 0;
}

/* A copy of exactly the size, so that a sanitizer sees a read past the end. */
static size_t encode(struct paramem_wordpiece *with, struct memos_bytes text, size_t most)
{
    size_t count = 0;
    void *copy = malloc(text.size + !text.size);
    assert_non_null(copy);
    memcpy(copy, text.size ? text.data : "", text.size);
    enum memos_status status = paramem_wordpiece_encode(with, memos_bytes_make(NULL, 0),
        memos_bytes_make(copy, text.size), ids, most, &count, NULL, NULL);
    free(copy);
    assert_int_equal(status, MEMOS_OK);
    return count;
}

/* ---- goldens ------------------------------------------------------------------------------- */

static void hard_texts_have_the_librarys_ids(void **state)
{
    (void)state;
    struct memos_buffer file = golden_read("hard.bin");
    struct memos_reader reader = memos_reader_of(memos_buffer_view(&file));
    size_t texts = 0;
    for (; reader.left > 0; texts++) {
        struct memos_bytes text = memos_read_sized(&reader, SIZE_MAX);
        size_t wanted = memos_read_u32(&reader), count = encode(wordpiece, text, IDS_MAX);
        for (size_t i = 0; i < wanted; i++) {
            uint32_t id = memos_read_u32(&reader);
            if (i < count && ids[i] != id) {
                fail_msg("text %zu \"%.*s\": token %zu is %u, not %u", texts, (int)text.size,
                    (const char *)text.data, i, ids[i], id);
            }
        }
        assert_false(reader.failed);
        assert_int_equal(count, wanted);
    }
    assert_true(texts > 50);
    memos_buffer_free(&file);
}

/* Compares what was hashed with the goldens, one after the other. */
struct hashes {
    struct memos_buffer file;
    struct memos_reader reader;
    uint32_t state;
    size_t parts, group; /* a hash is of so many parts */
};

static struct hashes hashes_of(const char *name, size_t group)
{
    struct hashes hashes = {.file = golden_read(name), .state = GOLDEN_FNV, .group = group};
    hashes.reader = memos_reader_of(memos_buffer_view(&hashes.file));
    return hashes;
}

static void hashes_add(struct hashes *hashes, const void *data, size_t size, bool last)
{
    hashes->state = golden_fnv(hashes->state, data, size);
    hashes->parts++;
    if (hashes->parts % hashes->group == 0 || last) {
        if (memos_read_u32(&hashes->reader) != hashes->state || hashes->reader.failed) {
            fail_msg("differs among the %zu parts before part %zu", hashes->group, hashes->parts);
        }
        hashes->state = GOLDEN_FNV;
    }
}

static void hashes_end(struct hashes *hashes)
{
    assert_true(memos_reader_done(&hashes->reader));
    memos_buffer_free(&hashes->file);
}

static void lines_of_real_texts_have_the_librarys_ids(void **state)
{
    (void)state;
    static const char *const files[] = {"banking77/train.tsv", "clinc150/train.tsv",
        "locomo/turns.jsonl", "stsb/train.tsv", "scifact/claims.jsonl",
        "books/pride_and_prejudice.txt", "memorybank/users.jsonl"};
    size_t count = sizeof files / sizeof files[0];
    struct hashes hashes = hashes_of("lines.u32", 4);
    for (size_t i = 0; i < count; i++) {
        char path[GOLDEN_PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s", GOLDEN_DATA, files[i]);
        FILE *there = fopen(path, "rb");
        if (!there) {
            print_message("skipped: no %s\n", path);
            memos_buffer_free(&hashes.file);
            skip();
            return;
        }
        (void)fclose(there);
        struct memos_buffer text = golden_file(path);
        const char *at = (const char *)text.data, *end = at + text.size;
        for (bool more = true; more;) {
            const char *stop = memchr(at, '\n', (size_t)(end - at));
            more = stop != NULL;
            stop = stop ? stop : end;
            size_t tokens = encode(wordpiece, memos_bytes_make(at, (size_t)(stop - at)), IDS_MAX);
            hashes_add(&hashes, ids, tokens * sizeof *ids, !more && i + 1 == count);
            at = stop + 1;
        }
        memos_buffer_free(&text);
    }
    assert_true(hashes.parts > 40000);
    hashes_end(&hashes);
}

static size_t utf8_of(uint32_t code, uint8_t *out)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)code, out);
}

static void random_texts_have_the_librarys_words(void **state)
{
    (void)state;
    static const uint32_t ranges[][2] = {{0, 0x7F}, {0x80, 0x24F}, {0x300, 0x36F}, {0x370, 0x5FF},
        {0x1100, 0x11FF}, {0xAC00, 0xAD00}, {0x1E00, 0x1EFF}, {0x302A, 0x302F}, {0x1D165, 0x1D172},
        {0x4E00, 0x4E40}, {0xF900, 0xFA20}, {0x200B, 0x200F}, {0x1F600, 0x1F64F}, {0x391, 0x3C9},
        {0, 0x10FFFF}};
    struct hashes hashes = hashes_of("random.u32", 16);
    struct memos_buffer words = memos_buffer_make(1 << 20);
    uint64_t random = 1;
    for (size_t i = 0; i < 20480; i++) {
        uint8_t text[128];
        size_t size = 0;
        for (size_t length = 1 + golden_random(&random) % 24; length > 0; length--) {
            const uint32_t *range =
                ranges[golden_random(&random) % (sizeof ranges / sizeof ranges[0])];
            uint32_t code =
                range[0] + (uint32_t)(golden_random(&random) % (range[1] - range[0] + 1));
            code = code >= 0xD800 && code < 0xE000 ? 0xFFFD : code;
            size += utf8_of(code, text + size);
        }
        memos_buffer_reset(&words);
        assert_int_equal(
            paramem_wordpiece_words(wordpiece, memos_bytes_make(text, size), &words, NULL),
            MEMOS_OK);
        hashes_add(&hashes, words.data, words.size, false);
    }
    memos_buffer_free(&words);
    hashes_end(&hashes);
}

/* A tokenizer of three tokens with these switches. */
static struct paramem_wordpiece *switched(bool clean, bool chinese, bool strip, bool lower)
{
    static const char *const names[] = {"false", "true"};
    struct paramem_wordpiece *made = NULL;
    char json[1024];
    int size = snprintf(json, sizeof json,
        "{\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":%s,"
        "\"handle_chinese_chars\":%s,\"strip_accents\":%s,\"lowercase\":%s},"
        "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
        "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",2],"
        "\"cls\":[\"[CLS]\",1]},\"model\":{\"type\":\"WordPiece\",\"vocab\":"
        "{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2}}}",
        names[clean], names[chinese], names[strip], names[lower]);
    assert_int_equal(
        paramem_wordpiece_parse(memos_bytes_make(json, (size_t)size), &made, NULL), MEMOS_OK);
    return made;
}

static void every_character_goes_as_in_the_library(void **state)
{
    (void)state;
    static const bool cases[][4] = {{true, true, true, true}, {true, true, false, false},
        {false, false, false, true}, {false, true, true, false}};
    struct hashes hashes = hashes_of("chars.u32", 1);
    struct memos_buffer words = memos_buffer_make(1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct paramem_wordpiece *made =
            switched(cases[i][0], cases[i][1], cases[i][2], cases[i][3]);
        for (uint32_t block = 0; block < 0x110000; block += 256) {
            memos_buffer_reset(&words);
            for (uint32_t code = block; code < block + 256; code++) {
                uint8_t text[8] = "a";
                size_t size = 1;
                if (code >= 0xD800 && code < 0xE000) {
                    continue;
                }
                size += utf8_of(code, text + size);
                text[size++] = 'b';
                assert_int_equal(
                    paramem_wordpiece_words(made, memos_bytes_make(text, size), &words, NULL),
                    MEMOS_OK);
            }
            hashes_add(&hashes, words.data, words.size, false);
        }
        paramem_wordpiece_close(&made);
    }
    memos_buffer_free(&words);
    hashes_end(&hashes);
}

/* ---- properties ---------------------------------------------------------------------------- */

static void ill_formed_bytes_are_replacement_characters(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *words;
    } cases[] = {
        {"a\xff"
         "b",
            "a\xef\xbf\xbd"
            "b\n"},
        {"\xe2\x82", "\xef\xbf\xbd\n"},                             /* cut off: one part */
        {"\xe2\x28", "\xef\xbf\xbd\n(\n"},                          /* what follows is kept */
        {"\xf0\x90\x80z", "\xef\xbf\xbdz\n"},                       /* three bytes of four */
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd\n"},                 /* overlong: each byte */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\n"}, /* a surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\n"},
    };
    struct paramem_wordpiece *made = switched(false, true, true, true);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct memos_buffer words = memos_buffer_make(1000);
        assert_int_equal(
            paramem_wordpiece_words(made, memos_bytes_of(cases[i].bytes), &words, NULL), MEMOS_OK);
        if (!memos_bytes_equal(memos_buffer_view(&words), memos_bytes_of(cases[i].words))) {
            fail_msg("case %zu: %.*s", i, (int)words.size, (const char *)words.data);
        }
        memos_buffer_free(&words);
    }
    paramem_wordpiece_close(&made);
}

/* The beginning of what the whole text has, and the last token. */
static void a_text_is_cut_at_any_length(void **state)
{
    (void)state;
    struct memos_bytes text = memos_bytes_of("Unaffable giraffes [MASK] embed\xc3\xa9 na\xc3\xafve"
                                             " tokenizers, don't they? \xe6\xbc\xa2\xe5\xad\x97");
    uint32_t whole[64];
    size_t count = encode(wordpiece, text, 64);
    memcpy(whole, ids, count * sizeof *ids);
    assert_in_range(count, 15, 40);
    for (size_t most = 2; most <= count + 1; most++) {
        bool cut = false;
        size_t found = 0;
        assert_int_equal(paramem_wordpiece_encode(wordpiece, memos_bytes_make(NULL, 0), text, ids,
                             most, &found, &cut, NULL),
            MEMOS_OK);
        assert_int_equal(found, most < count ? most : count);
        assert_int_equal(cut, most < count);
        assert_memory_equal(ids, whole, (found - 1) * sizeof *ids);
        assert_int_equal(ids[found - 1], whole[count - 1]);
    }
}

static void a_prefix_is_as_if_written_before_the_text(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "query",
        "\xcc\x81"
        "accent",
        "ing", "[MASK]"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char joined[64];
        uint32_t apart[64];
        size_t count = 0;
        (void)snprintf(joined, sizeof joined, "Query: e%s", texts[i]);
        assert_int_equal(paramem_wordpiece_encode(wordpiece, memos_bytes_of("Query: e"),
                             memos_bytes_of(texts[i]), apart, 64, &count, NULL, NULL),
            MEMOS_OK);
        assert_int_equal(encode(wordpiece, memos_bytes_of(joined), 64), count);
        assert_memory_equal(ids, apart, count * sizeof *ids);
    }
}

/* Words that were seen before are remembered: that must not be seen in the ids. */
static void ids_do_not_depend_on_what_came_before(void **state)
{
    (void)state;
    uint64_t random = golden_seed();
    struct memos_buffer vocab = golden_read("vocab.txt");
    struct paramem_wordpiece *fresh = NULL;
    for (size_t round = 0; round < 40; round++) {
        char text[400];
        uint32_t first[512];
        size_t size = golden_random(&random) % sizeof text;
        for (size_t i = 0; i < size; i++) {
            text[i] = "abcdeinorst \xc3\xa9-ABE"[golden_random(&random) % 18];
        }
        size_t count = encode(wordpiece, memos_bytes_make(text, size), 512);
        memcpy(first, ids, count * sizeof *ids);
        assert_int_equal(
            paramem_wordpiece_vocab(memos_buffer_view(&vocab), &uncased, &fresh, NULL), MEMOS_OK);
        assert_int_equal(encode(fresh, memos_bytes_make(text, size), 512), count);
        assert_memory_equal(ids, first, count * sizeof *ids);
        paramem_wordpiece_close(&fresh);
    }
    memos_buffer_free(&vocab);
}

/* ---- files --------------------------------------------------------------------------------- */

static void both_kinds_of_files_are_read(void **state)
{
    (void)state;
    char path[GOLDEN_PATH_BYTES];
    struct paramem_config config;
    struct paramem_wordpiece *made = NULL;
    uint8_t a[32], b[32];
    assert_int_equal(paramem_config_read(golden_path("tiny_mean", path), &config, NULL), MEMOS_OK);
    assert_int_equal(paramem_wordpiece_open(path, &config, &made, NULL), MEMOS_OK);
    paramem_wordpiece_digest(made, a);
    paramem_wordpiece_close(&made);
    assert_int_equal(paramem_config_read(golden_path("tiny_cls", path), &config, NULL), MEMOS_OK);
    assert_int_equal(paramem_wordpiece_open(path, &config, &made, NULL), MEMOS_OK);
    paramem_wordpiece_digest(made, b);
    assert_int_equal(paramem_wordpiece_ids_end(made), config.vocab);
    paramem_wordpiece_close(&made);
    assert_memory_not_equal(a, b, sizeof a); /* one lowers, the other does not */
}

static void other_tokenizers_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *text;
        enum memos_status status;
    } cases[] = {
        {"BertNormalizer", "NFC", "normalizer \"NFC\"", MEMOS_UNSUPPORTED},
        {"BertPreTokenizer", "ByteLevel", "ByteLevel", MEMOS_UNSUPPORTED},
        {"\"WordPiece\", \"unk", "\"Unigram\", \"unk", "Unigram", MEMOS_UNSUPPORTED},
        {"TemplateProcessing", "RobertaProcessing", "RobertaProcessing", MEMOS_UNSUPPORTED},
        {"\"lstrip\": false", "\"lstrip\": true", "lstrip", MEMOS_UNSUPPORTED},
        {"\"unk_token\": \"[UNK]\"", "\"unk_token\": \"<unk>\"", "<unk>", MEMOS_CORRUPT},
        {"\"!\": 5", "\"!\": -5", "!", MEMOS_CORRUPT},
        {"\"!\": 5", "\"!\": 4194304", "!", MEMOS_CORRUPT},
        {"\"!\": 5", "\"!\": \"5\"", "!", MEMOS_CORRUPT},
        {"\"!\": 5", "\"!\": 5, \"!\": 5", "duplicate", MEMOS_CORRUPT},
        {"_word\": 100", "_word\": 0", "max_input_chars_per_word", MEMOS_CORRUPT},
        {"_prefix\": \"##\"", "_prefix\": \"\"", "continuing_subword_prefix", MEMOS_UNSUPPORTED},
    };
    struct memos_buffer json = golden_read("tiny_mean/tokenizer.json");
    memos_buffer_u8(&json, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct memos_buffer changed = memos_buffer_make(1 << 20);
        struct paramem_wordpiece *made = NULL;
        struct memos_error err;
        const char *text = (const char *)json.data, *found = strstr(text, cases[i].from);
        assert_non_null(found);
        memos_buffer_bytes(&changed, text, (size_t)(found - text));
        memos_buffer_printf(&changed, "%s%s", cases[i].to, found + strlen(cases[i].from));
        enum memos_status status =
            paramem_wordpiece_parse(memos_buffer_view(&changed), &made, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].text)) {
            fail_msg("case %zu: %s: %s", i, memos_status_name(status), err.text);
        }
        memos_buffer_free(&changed);
    }
    memos_buffer_free(&json);
}

static void a_cut_tokenizer_is_refused(void **state)
{
    (void)state;
    struct memos_buffer json = golden_read("tiny_mean/tokenizer.json");
    for (size_t size = 0; size < json.size; size += size < 200 ? 1 : 97) {
        struct paramem_wordpiece *made = NULL;
        void *copy = malloc(size + !size);
        assert_non_null(copy);
        memcpy(copy, json.data, size);
        assert_int_equal(
            paramem_wordpiece_parse(memos_bytes_make(copy, size), &made, NULL), MEMOS_CORRUPT);
        free(copy);
    }
    memos_buffer_free(&json);
}

static void a_bad_vocabulary_is_refused(void **state)
{
    (void)state;
    struct paramem_wordpiece *made = NULL;
    struct memos_error err;
    assert_int_equal(
        paramem_wordpiece_vocab(memos_bytes_of("[UNK]\n[CLS]\nword\n"), &uncased, &made, &err),
        MEMOS_CORRUPT);
    assert_non_null(strstr(err.text, "[SEP]"));
    assert_int_equal(paramem_wordpiece_vocab(
                         memos_bytes_of("[UNK]\n[CLS]\n[SEP]\n\xff\n"), &uncased, &made, &err),
        MEMOS_CORRUPT);
    assert_int_equal(
        paramem_wordpiece_vocab(memos_bytes_make(NULL, 0), &uncased, &made, &err), MEMOS_CORRUPT);
    /* Carriage returns are no part of tokens, a line that ends the file needs no feed. */
    assert_int_equal(paramem_wordpiece_vocab(
                         memos_bytes_of("[UNK]\r\n[CLS]\r\n[SEP]\r\nword"), &uncased, &made, &err),
        MEMOS_OK);
    assert_int_equal(encode(made, memos_bytes_of("Word x"), 10), 4);
    assert_int_equal(ids[1], 3);
    assert_int_equal(ids[2], 0);
    paramem_wordpiece_close(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hard_texts_have_the_librarys_ids),
        cmocka_unit_test(lines_of_real_texts_have_the_librarys_ids),
        cmocka_unit_test(random_texts_have_the_librarys_words),
        cmocka_unit_test(every_character_goes_as_in_the_library),
        cmocka_unit_test(ill_formed_bytes_are_replacement_characters),
        cmocka_unit_test(a_text_is_cut_at_any_length),
        cmocka_unit_test(a_prefix_is_as_if_written_before_the_text),
        cmocka_unit_test(ids_do_not_depend_on_what_came_before),
        cmocka_unit_test(both_kinds_of_files_are_read),
        cmocka_unit_test(other_tokenizers_are_refused_by_name),
        cmocka_unit_test(a_cut_tokenizer_is_refused),
        cmocka_unit_test(a_bad_vocabulary_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
