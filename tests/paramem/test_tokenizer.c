/* Tokenizers of host models against the tokenizers library.
 *
 * If these failed, a model would be given other tokens than it was taught on, silently and for some
 * texts only; a stream would show broken characters; a hostile file or text would take the process
 * down. */
#include "paramem/tokenizer.h"

#include "paramem/gguf.h"
#include "paramem/json.h"
#include "paramem/tokenizer_internal.h"
#include "tests/memcube/folder.h"
#include "tests/paramem/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include <cmocka.h>

static const char *const families[] = {"gpt2", "smollm", "llama3", "llama4", "qwen2", "deepseek",
    "tekken", "llama2", "mistral", "parts", "metaspace", "unknown"};
#define FAMILIES (sizeof families / sizeof families[0])

static struct paramem_tokenizer *parse(struct memos_bytes json)
{
    struct paramem_tokenizer *made = NULL;
    struct paramem_tokenizer_files files = {.json = json};
    struct memos_error err = {0};
    if (paramem_tokenizer_parse(&files, &made, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return made;
}

static struct paramem_tokenizer *family(const char *name)
{
    char file[64];
    (void)snprintf(file, sizeof file, "bpe/%s.json", name);
    struct memos_buffer json = golden_read(file);
    struct paramem_tokenizer *made = parse(memos_buffer_view(&json));
    memos_buffer_free(&json);
    return made;
}

/* Of a copy of exactly the size, so that a sanitizer sees a read past the end. */
static struct paramem_ids encode(
    const struct paramem_tokenizer *with, struct memos_bytes text, unsigned flags)
{
    struct paramem_ids ids = {0};
    struct memos_error err = {0};
    void *copy = malloc(text.size + !text.size);
    assert_non_null(copy);
    memcpy(copy, text.size ? text.data : "", text.size);
    enum memos_status status =
        paramem_tokenizer_encode(with, memos_bytes_make(copy, text.size), flags, &ids, &err);
    free(copy);
    if (status != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return ids;
}

/* ---- goldens ------------------------------------------------------------------------------- */

/* What is streamed is what is decoded, and each piece is whole characters. */
static void check_stream(const struct paramem_tokenizer *with, const struct paramem_ids *ids,
    bool skip_special, const struct memos_buffer *decoded)
{
    struct memos_buffer all = memos_buffer_make(1 << 22), piece = memos_buffer_make(1 << 22);
    struct paramem_stream stream = paramem_stream_of(with, skip_special);
    for (size_t i = 0; i < ids->count; i++) {
        memos_buffer_reset(&piece);
        assert_int_equal(paramem_stream_next(&stream, ids->ids[i], &piece, NULL), MEMOS_OK);
        for (size_t j = 0; j < piece.size;) {
            size_t size =
                piece.data[j] == 0
                    ? 1
                    : memos_bytes_utf8_sequence(memos_bytes_make(piece.data + j, piece.size - j));
            assert_true(size > 0);
            j += size;
        }
        memos_buffer_bytes(&all, piece.data, piece.size);
    }
    assert_int_equal(paramem_stream_end(&stream, &all, NULL), MEMOS_OK);
    assert_true(memos_bytes_equal(memos_buffer_view(&all), memos_buffer_view(decoded)));
    memos_buffer_free(&all);
    memos_buffer_free(&piece);
}

static void check_hard(const struct paramem_tokenizer *with, const char *name,
    struct memos_bytes text, unsigned special, struct memos_reader *golden)
{
    static const unsigned flags[3] = {0, PARAMEM_ADD_SPECIAL, PARAMEM_PLAIN_TEXT};
    struct paramem_ids ids = encode(with, text, flags[special]);
    struct memos_buffer decoded = memos_buffer_make(1 << 22);
    uint32_t count = memos_read_u32(golden), hash = memos_read_u32(golden);
    uint32_t decoded_hash = memos_read_u32(golden);
    int shown = text.size < 60 ? (int)text.size : 60;
    for (uint32_t i = 0; i < count && i < 24; i++) {
        uint32_t id = memos_read_u32(golden);
        if (i >= ids.count || ids.ids[i] != id) {
            fail_msg("%s, %u: \"%.*s\": token %u is %u, not %u", name, special, shown,
                (const char *)text.data, i, i < ids.count ? ids.ids[i] : 0, id);
        }
    }
    if (ids.count != count || golden_fnv(GOLDEN_FNV, ids.ids, 4 * ids.count) != hash) {
        fail_msg("%s, %u: \"%.*s\": %zu tokens, not the %u", name, special, shown,
            (const char *)text.data, ids.count, count);
    }
    assert_int_equal(
        paramem_tokenizer_decode(with, ids.ids, ids.count, special == 1, &decoded, NULL), MEMOS_OK);
    if (golden_fnv(GOLDEN_FNV, decoded.data, decoded.size) != decoded_hash) {
        fail_msg("%s, %u: \"%.*s\" decodes to \"%.*s\"", name, special, shown,
            (const char *)text.data, (int)decoded.size, (const char *)decoded.data);
    }
    check_stream(with, &ids, special == 1, &decoded);
    memos_buffer_free(&decoded);
    free(ids.ids);
}

static void check_all_hard(
    const struct paramem_tokenizer *with, const char *name, struct memos_buffer golden)
{
    struct memos_buffer texts = golden_read("bpe/texts.bin");
    struct memos_reader reader = memos_reader_of(memos_buffer_view(&texts));
    struct memos_reader wanted = memos_reader_of(memos_buffer_view(&golden));
    size_t count = 0;
    for (; reader.left > 0; count++) {
        struct memos_bytes text = memos_read_sized(&reader, SIZE_MAX);
        for (unsigned special = 0; special < 3; special++) {
            check_hard(with, name, text, special, &wanted);
        }
    }
    assert_true(count > 90 && memos_reader_done(&wanted));
    memos_buffer_free(&texts);
    memos_buffer_free(&golden);
}

static void hard_texts_have_the_librarys_ids_and_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILIES; i++) {
        char file[64];
        struct paramem_tokenizer *with = family(families[i]);
        (void)snprintf(file, sizeof file, "bpe/%s.hard", families[i]);
        check_all_hard(with, families[i], golden_read(file));
        paramem_tokenizer_close(&with);
    }
}

/* Hashes of ids, a group of 32 texts each. */
struct hashes {
    struct memos_reader reader;
    uint32_t state;
    size_t parts;
};

static void hashes_check(struct hashes *hashes)
{
    if (memos_read_u32(&hashes->reader) != hashes->state || hashes->reader.failed) {
        fail_msg("differs among the 32 texts before text %zu", hashes->parts);
    }
    hashes->state = GOLDEN_FNV;
}

static void hashes_add(
    struct hashes *hashes, const struct paramem_tokenizer *with, struct memos_bytes text)
{
    struct paramem_ids ids = encode(with, text, 0);
    hashes->state = golden_fnv(hashes->state, ids.ids, ids.count * sizeof *ids.ids);
    free(ids.ids);
    if (++hashes->parts % 32 == 0) {
        hashes_check(hashes);
    }
}

static void add_lines(
    struct hashes *hashes, const struct paramem_tokenizer *with, const struct memos_buffer *file)
{
    const char *at = (const char *)file->data, *end = at + file->size;
    for (bool more = true; more;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        more = stop != NULL;
        stop = stop ? stop : end;
        hashes_add(hashes, with, memos_bytes_make(at, (size_t)(stop - at)));
        at = stop + 1;
    }
}

/* As random_texts of tools/golden/make_tokens.py. */
static void add_random(struct hashes *hashes, const struct paramem_tokenizer *with)
{
    static const uint32_t ranges[][2] = {{0, 0x7F}, {0x80, 0x24F}, {0x300, 0x36F}, {0x370, 0x5FF},
        {0x1100, 0x11FF}, {0xAC00, 0xAD00}, {0x1E00, 0x1EFF}, {0x302A, 0x302F}, {0x1D165, 0x1D172},
        {0x4E00, 0x4E40}, {0xF900, 0xFA20}, {0x200B, 0x200F}, {0x1F600, 0x1F64F}, {0x391, 0x3C9},
        {0, 0x10FFFF}};
    uint64_t random = 1;
    for (size_t i = 0; i < 4096; i++) {
        uint8_t text[128];
        size_t size = 0;
        for (size_t length = 1 + golden_random(&random) % 24; length > 0; length--) {
            const uint32_t *range =
                ranges[golden_random(&random) % (sizeof ranges / sizeof ranges[0])];
            uint32_t code =
                range[0] + (uint32_t)(golden_random(&random) % (range[1] - range[0] + 1));
            code = code >= 0xD800 && code < 0xE000 ? 0xFFFD : code;
            size += (size_t)utf8proc_encode_char((utf8proc_int32_t)code, text + size);
        }
        hashes_add(hashes, with, memos_bytes_make(text, size));
    }
}

/* False: the data is not there. */
static bool check_lines(const struct paramem_tokenizer *with, struct memos_buffer golden)
{
    static const char *const files[] = {"banking77/train.tsv", "clinc150/train.tsv",
        "locomo/turns.jsonl", "stsb/train.tsv", "scifact/claims.jsonl",
        "books/pride_and_prejudice.txt", "memorybank/users.jsonl"};
    struct hashes hashes = {
        .reader = memos_reader_of(memos_buffer_view(&golden)), .state = GOLDEN_FNV};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[GOLDEN_PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s", GOLDEN_DATA, files[i]);
        FILE *there = fopen(path, "rb");
        if (!there) {
            print_message("skipped: no %s\n", path);
            memos_buffer_free(&golden);
            return false;
        }
        (void)fclose(there);
        struct memos_buffer file = golden_file(path);
        add_lines(&hashes, with, &file);
        memos_buffer_free(&file);
    }
    add_random(&hashes, with);
    if (hashes.parts % 32 != 0) {
        hashes_check(&hashes);
    }
    assert_true(hashes.parts > 40000 && memos_reader_done(&hashes.reader));
    memos_buffer_free(&golden);
    return true;
}

static void real_lines_have_the_librarys_ids(void **state)
{
    (void)state;
    for (size_t i = 0; i < FAMILIES; i++) {
        char file[64];
        struct paramem_tokenizer *with = family(families[i]);
        (void)snprintf(file, sizeof file, "bpe/%s.u32", families[i]);
        bool there = check_lines(with, golden_read(file));
        paramem_tokenizer_close(&with);
        if (!there) {
            skip();
            return;
        }
    }
}

/* Real vocabularies, where somebody has them: $MEMOS_TOKENIZERS/NAME with a tokenizer.json, and
 * golden.hard and golden.u32 of tools/golden/make_bpe.py. */
static void real_vocabularies_have_the_librarys_ids(void **state)
{
    (void)state;
    static const char *const names[] = {
        "llama3", "llama4", "qwen2", "deepseek", "tekken", "mistral1", "mistral7"};
    const char *folder = getenv("MEMOS_TOKENIZERS");
    if (!folder) {
        print_message("skipped: no $MEMOS_TOKENIZERS\n");
        skip();
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[GOLDEN_PATH_BYTES];
        struct paramem_tokenizer *with = NULL;
        struct memos_error err = {0};
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (paramem_tokenizer_open(path, &with, &err) != MEMOS_OK) {
            fail_msg("%s: %s", names[i], err.text);
        }
        (void)snprintf(path, sizeof path, "%s/%s/golden.hard", folder, names[i]);
        check_all_hard(with, names[i], golden_file(path));
        (void)snprintf(path, sizeof path, "%s/%s/golden.u32", folder, names[i]);
        (void)check_lines(with, golden_file(path));
        paramem_tokenizer_close(&with);
    }
}

/* ---- GGUF ---------------------------------------------------------------------------------- */

static void put_key(struct memos_buffer *out, const char *key, uint32_t type)
{
    memos_buffer_u64(out, strlen(key));
    memos_buffer_bytes(out, key, strlen(key));
    memos_buffer_u32(out, type);
}

static void put_text(struct memos_buffer *out, struct memos_bytes text)
{
    memos_buffer_u64(out, text.size);
    memos_buffer_bytes(out, text.data, text.size);
}

static void put_array(struct memos_buffer *out, const char *key, uint32_t type, size_t items)
{
    put_key(out, key, 9);
    memos_buffer_u32(out, type);
    memos_buffer_u64(out, items);
}

/* The tokens of a tokenizer.json by id; types: as GGUF has them. */
struct vocabulary {
    json_t *json;
    const char **tokens;
    uint32_t *types;
    size_t count;
};

static struct vocabulary vocabulary_of(const char *name)
{
    char file[64];
    struct vocabulary made = {0};
    const char *key;
    json_t *id;
    size_t i;
    (void)snprintf(file, sizeof file, "bpe/%s.json", name);
    struct memos_buffer text = golden_read(file);
    made.json = json_loadb((const char *)text.data, text.size, 0, NULL);
    memos_buffer_free(&text);
    assert_non_null(made.json);
    json_t *vocab = json_object_get(json_object_get(made.json, "model"), "vocab");
    json_t *added = json_object_get(made.json, "added_tokens");
    size_t most = json_object_size(vocab) + json_array_size(added);
    made.tokens = calloc(most, sizeof *made.tokens);
    made.types = calloc(most, sizeof *made.types);
    assert_true(made.tokens && made.types);
    json_object_foreach(vocab, key, id)
    {
        size_t at = (size_t)json_integer_value(id);
        made.tokens[at] = key;
        made.types[at] = strncmp(key, "<0x", 3) == 0 ? 6 : 1;
        made.count = at >= made.count ? at + 1 : made.count;
    }
    json_array_foreach(added, i, id)
    {
        size_t at = (size_t)json_integer_value(json_object_get(id, "id"));
        made.tokens[at] = json_string_value(json_object_get(id, "content"));
        made.types[at] = json_is_true(json_object_get(id, "special")) ? 3 : 4;
        made.count = at >= made.count ? at + 1 : made.count;
    }
    return made;
}

static void vocabulary_free(struct vocabulary *vocabulary)
{
    json_decref(vocabulary->json);
    free(vocabulary->tokens);
    free(vocabulary->types);
}

/* pre NULL: SentencePiece, with scores from the ranks of merges. */
static struct memos_buffer gguf_of(const struct vocabulary *from, const char *pre)
{
    struct memos_buffer out = memos_buffer_make(1 << 24);
    json_t *merges = json_object_get(json_object_get(from->json, "model"), "merges"), *merge;
    size_t i;
    memos_buffer_bytes(&out, "GGUF", 4);
    memos_buffer_u32(&out, 3);
    memos_buffer_u64(&out, 0);
    memos_buffer_u64(&out, 5);
    put_key(&out, "tokenizer.ggml.model", 8);
    put_text(&out, memos_bytes_of(pre ? "gpt2" : "llama"));
    put_key(&out, "tokenizer.ggml.pre", 8);
    put_text(&out, memos_bytes_of(pre ? pre : "default"));
    put_array(&out, "tokenizer.ggml.tokens", 8, from->count);
    for (i = 0; i < from->count; i++) {
        put_text(&out, memos_bytes_of(from->tokens[i]));
    }
    put_array(&out, "tokenizer.ggml.token_type", 5, from->count);
    for (i = 0; i < from->count; i++) {
        memos_buffer_u32(&out, from->types[i]);
    }
    if (pre) {
        put_array(&out, "tokenizer.ggml.merges", 8, json_array_size(merges));
        json_array_foreach(merges, i, merge)
        {
            char text[512];
            (void)snprintf(text, sizeof text, "%s %s", json_string_value(json_array_get(merge, 0)),
                json_string_value(json_array_get(merge, 1)));
            put_text(&out, memos_bytes_of(text));
        }
    } else {
        put_array(&out, "tokenizer.ggml.scores", 6, from->count);
        for (i = 0; i < from->count; i++) {
            float score = -(float)i; /* ids are in the order of merges */
            memos_buffer_bytes(&out, &score, sizeof score);
        }
    }
    return out;
}

static void gguf_gives_the_ids_of_tokenizer_json(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"gpt2", "gpt-2"}, {"smollm", "smollm"},
        {"llama3", "llama-bpe"}, {"qwen2", "qwen2"}, {"tekken", "tekken"},
        {"deepseek", "deepseek-v3"}, {"llama2", NULL}};
    struct memos_buffer texts = golden_read("bpe/texts.bin");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct paramem_tokenizer *json = family(cases[i][0]), *made = NULL;
        struct vocabulary vocabulary = vocabulary_of(cases[i][0]);
        struct memos_buffer bytes = gguf_of(&vocabulary, cases[i][1]);
        struct paramem_gguf *gguf = NULL;
        struct memos_error err = {0};
        if (paramem_gguf_parse(memos_buffer_view(&bytes), "test", &gguf, &err) != MEMOS_OK ||
            paramem_tokenizer_of_gguf(gguf, &made, &err) != MEMOS_OK) {
            fail_msg("%s: %s", cases[i][0], err.text);
        }
        struct memos_reader reader = memos_reader_of(memos_buffer_view(&texts));
        while (reader.left > 0) {
            struct memos_bytes text = memos_read_sized(&reader, SIZE_MAX);
            struct paramem_ids a = encode(json, text, 0), b = encode(made, text, 0);
            if (a.count != b.count || (a.count && memcmp(a.ids, b.ids, 4 * a.count) != 0)) {
                fail_msg("%s: \"%.60s\"", cases[i][0], (const char *)text.data);
            }
            free(a.ids);
            free(b.ids);
        }
        paramem_tokenizer_close(&made);
        paramem_tokenizer_close(&json);
        paramem_gguf_close(&gguf);
        memos_buffer_free(&bytes);
        vocabulary_free(&vocabulary);
    }
    memos_buffer_free(&texts);
}

/* ---- hostile files ------------------------------------------------------------------------- */

static enum memos_status status_of(const char *json)
{
    struct paramem_tokenizer *made = NULL;
    struct paramem_tokenizer_files files = {.json = memos_bytes_of(json)};
    enum memos_status status = paramem_tokenizer_parse(&files, &made, NULL);
    assert_true((status == MEMOS_OK) == (made != NULL));
    paramem_tokenizer_close(&made);
    return status;
}

#define MODEL(vocab, merges)                                                                       \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}}"
#define SPLIT(pattern)                                                                             \
    "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern                     \
    "\"},\"behavior\":\"Isolated\",\"invert\":false},\"model\":{\"vocab\":{\"a\":0},\"merges\":[]" \
    "}}"

static void hostile_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum memos_status status;
        const char *json;
    } cases[] = {
        {MEMOS_OK, MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"]")},
        {MEMOS_OK, MODEL("{\"a\":0,\"b\":7,\"ab\":2}", "[[\"a\",\"b\"]]")},
        {MEMOS_CORRUPT, ""},
        {MEMOS_CORRUPT, "{}"},
        {MEMOS_CORRUPT, "{\"model\":3}"},
        {MEMOS_CORRUPT, MODEL("{}", "[]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":0,\"a\":1}", "[]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":0,\"b\":0}", "[]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":-1}", "[]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":4194304}", "[]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":4000000}", "[]")}, /* a gap as large as memory */
        {MEMOS_CORRUPT, MODEL("{\"a\":\"b\"}", "[]")},
        {MEMOS_CORRUPT, MODEL("{\"a\\ud800\":0}", "[]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":0,\"b\":1}", "[\"a b\"]")}, /* makes no token */
        {MEMOS_CORRUPT, MODEL("{\"a\":0,\"ab\":1}", "[\"a b\"]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":0,\"\":1}", "[[\"\",\"a\"]]")}, /* makes itself, for ever */
        {MEMOS_CORRUPT, MODEL("{\"a\":0,\"\":1}", "[[\"a\",\"\"]]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":0}", "[\"a\"]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":0}", "[\"a a a\"]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":0}", "[3]")},
        {MEMOS_CORRUPT, MODEL("{\"a\":0}", "[\"a")},
        {MEMOS_UNSUPPORTED, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[],\"unk_id\":0}}"},
        {MEMOS_OK, SPLIT("\\\\p{L}+")},
        {MEMOS_CORRUPT, SPLIT("(")},
        {MEMOS_CORRUPT, SPLIT("[a")},
        {MEMOS_CORRUPT, SPLIT("a{65536}")},
        {MEMOS_CORRUPT, SPLIT("(((((a{1000}){1000}){1000}){1000}){1000})")},
        {MEMOS_UNSUPPORTED, SPLIT("\\\\w+")},
        {MEMOS_UNSUPPORTED, SPLIT("[a[b]]")},
        {MEMOS_UNSUPPORTED, SPLIT("(*ACCEPT)")},
        {MEMOS_UNSUPPORTED, SPLIT("(?R)")},
        {MEMOS_UNSUPPORTED, SPLIT("a{1,3}+")},
        {MEMOS_UNSUPPORTED, SPLIT("\\\\p{Klingon}")},
        {MEMOS_UNSUPPORTED, "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"vocab\":"
                            "{\"a\":0},\"merges\":[]}}"},
        {MEMOS_UNSUPPORTED, "{\"normalizer\":{\"type\":\"Precompiled\"},\"model\":{\"vocab\":"
                            "{\"a\":0},\"merges\":[]}}"},
        {MEMOS_UNSUPPORTED, "{\"decoder\":{\"type\":\"CTC\"},\"model\":{\"vocab\":"
                            "{\"a\":0},\"merges\":[]}}"},
        {MEMOS_CORRUPT, "{\"added_tokens\":[{\"id\":4000000,\"content\":\"x\"}],\"model\":"
                        "{\"vocab\":{\"a\":0},\"merges\":[]}}"},
        {MEMOS_CORRUPT, "{\"added_tokens\":[{\"id\":1,\"content\":\"\"}],\"model\":"
                        "{\"vocab\":{\"a\":0},\"merges\":[]}}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum memos_status status = status_of(cases[i].json);
        if (status != cases[i].status) {
            fail_msg("%s: %s, not %s", cases[i].json, memos_status_name(status),
                memos_status_name(cases[i].status));
        }
    }
}

/* Steps are counted, not time, so that the answer does not depend on the machine's load. The
 * expression has to end in a class: a letter that every match needs is looked for first, and where
 * the text has none there is nothing to explode (the second expression). */
static void an_expression_that_explodes_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        enum memos_status status;
    } cases[] = {{SPLIT("(a+)+[bc]"), MEMOS_TOO_LARGE}, {SPLIT("(a+)+b"), MEMOS_OK}};
    char text[4096];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct paramem_tokenizer *with = parse(memos_bytes_of(cases[i].json));
        for (size_t size = 64; size <= sizeof text; size *= 8) {
            struct paramem_ids ids = {0};
            assert_int_equal(
                paramem_tokenizer_encode(with, memos_bytes_make(text, size), 0, &ids, NULL),
                cases[i].status);
            assert_int_equal(ids.count, cases[i].status == MEMOS_OK ? size : 0);
            free(ids.ids);
        }
        paramem_tokenizer_close(&with);
    }
}

/* ---- properties ---------------------------------------------------------------------------- */

static void ill_formed_bytes_are_replacement_characters(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"a\xff"
                                            "b",
                                               "a\xef\xbf\xbd"
                                               "b"},
        {"\xe2\x82", "\xef\xbf\xbd"}, {"\xf0\x90\x80z", "\xef\xbf\xbdz"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}};
    struct paramem_tokenizer *with = family("llama3");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct paramem_ids a = encode(with, memos_bytes_of(cases[i][0]), 0);
        struct paramem_ids b = encode(with, memos_bytes_of(cases[i][1]), 0);
        assert_int_equal(a.count, b.count);
        assert_memory_equal(a.ids, b.ids, 4 * a.count);
        free(a.ids);
        free(b.ids);
    }
    paramem_tokenizer_close(&with);
}

/* Any ids at all: a stream never tells a part of a character. For byte-level it tells what decode
 * does; a run of byte tokens that is no text is told as it comes, and by decode all at once. */
static void random_ids_stream_as_whole_characters(void **state)
{
    (void)state;
    uint64_t seed = golden_seed();
    static const char *const names[] = {"llama3", "gpt2", "metaspace", "unknown"};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        struct paramem_tokenizer *with = family(names[n]);
        struct paramem_tokenizer_info info;
        paramem_tokenizer_describe(with, &info);
        for (size_t round = 0; round < 300; round++) {
            uint32_t list[40];
            struct paramem_ids ids = {list, golden_random(&seed) % 40};
            struct memos_buffer decoded = memos_buffer_make(1 << 20);
            for (size_t i = 0; i < ids.count; i++) {
                list[i] = (uint32_t)(golden_random(&seed) % info.vocab);
            }
            assert_int_equal(
                paramem_tokenizer_decode(with, list, ids.count, false, &decoded, NULL), MEMOS_OK);
            check_stream(with, &ids, false, &decoded);
            memos_buffer_free(&decoded);
        }
        uint32_t beyond = (uint32_t)info.vocab;
        struct memos_buffer none = memos_buffer_make(64);
        struct paramem_stream stream = paramem_stream_of(with, false);
        assert_int_equal(
            paramem_tokenizer_decode(with, &beyond, 1, false, &none, NULL), MEMOS_INVALID);
        assert_int_equal(paramem_stream_next(&stream, beyond, &none, NULL), MEMOS_INVALID);
        assert_null(paramem_tokenizer_bytes(with, beyond).data);
        paramem_tokenizer_close(&with);
    }
}

static void special_tokens_in_plain_text_are_text(void **state)
{
    (void)state;
    struct paramem_tokenizer *with = family("qwen2");
    struct memos_bytes text = memos_bytes_of("<|im_end|>");
    uint32_t end = paramem_tokenizer_id(with, text);
    assert_true(end != UINT32_MAX && paramem_tokenizer_special(with, end));
    struct paramem_ids cut = encode(with, text, 0), plain = encode(with, text, PARAMEM_PLAIN_TEXT);
    assert_int_equal(cut.count, 1);
    assert_int_equal(cut.ids[0], end);
    assert_true(plain.count > 1);
    for (size_t i = 0; i < plain.count; i++) {
        assert_false(paramem_tokenizer_special(with, plain.ids[i]));
    }
    assert_int_equal(paramem_tokenizer_id(with, memos_bytes_of("<|nobody|>")), UINT32_MAX);
    free(cut.ids);
    free(plain.ids);
    paramem_tokenizer_close(&with);
}

static void the_digest_is_of_all_that_changes_ids(void **state)
{
    (void)state;
    static const char *const texts[] = {MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"]"),
        MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[]"), MODEL("{\"a\":1,\"b\":0,\"ab\":2}", "[\"a b\"]"),
        "{\"added_tokens\":[{\"id\":3,\"content\":\"x\"}],\"model\":{\"vocab\":{\"a\":0,\"b\":1,"
        "\"ab\":2},\"merges\":[\"a b\"]}}",
        SPLIT("a"), SPLIT("b")};
    struct paramem_tokenizer_info infos[6], again;
    for (size_t i = 0; i < 6; i++) {
        struct paramem_tokenizer *with = parse(memos_bytes_of(texts[i]));
        paramem_tokenizer_describe(with, &infos[i]);
        paramem_tokenizer_close(&with);
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(infos[i].digest, infos[j].digest, 32);
        }
    }
    /* Spelling is not among it. */
    struct paramem_tokenizer *with = parse(memos_bytes_of(
        " {\"model\": {\"merges\": [[\"\\u0061\", \"b\"]], \"vocab\": {\"ab\": 2, \"b\": 1, "
        "\"a\": 0}, \"type\": \"BPE\"}} "));
    paramem_tokenizer_describe(with, &again);
    assert_memory_equal(again.digest, infos[0].digest, 32);
    paramem_tokenizer_close(&with);
}

static void files_beside_name_special_tokens(void **state)
{
    char path[FOLDER_PATH_BYTES];
    struct paramem_tokenizer *with = NULL;
    struct paramem_tokenizer_info info;
    (void)state;
    folder_make(path);
    struct memos_buffer json = golden_read("bpe/llama2.json");
    golden_write(path, "tokenizer.json", memos_buffer_view(&json));
    golden_write(path, "tokenizer_config.json",
        memos_bytes_of("{\"tokenizer_class\": \"LlamaTokenizerFast\", \"add_bos_token\": true, "
                       "\"add_eos_token\": true, \"bos_token\": {\"content\": \"<s>\"}, "
                       "\"chat_template\": \"hello\", \"model_max_length\": 1e30}"));
    golden_write(path, "special_tokens_map.json", memos_bytes_of("{\"eos_token\": \"</s>\"}"));
    assert_int_equal(paramem_tokenizer_open(path, &with, NULL), MEMOS_OK);
    paramem_tokenizer_describe(with, &info);
    assert_string_equal(info.kind, "SentencePiece BPE");
    assert_string_equal(info.chat_template, "hello");
    assert_int_equal(info.bos_id, 1);
    assert_int_equal(info.eos_id, 2);
    assert_int_equal(info.pad_id, UINT32_MAX);
    struct paramem_ids ids = encode(with, memos_bytes_of("x"), PARAMEM_ADD_SPECIAL);
    assert_true(ids.count > 2 && ids.ids[0] == 1 && ids.ids[ids.count - 1] == 2);
    free(ids.ids);
    paramem_tokenizer_close(&with);
    memos_buffer_free(&json);
    folder_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hard_texts_have_the_librarys_ids_and_texts),
        cmocka_unit_test(real_lines_have_the_librarys_ids),
        cmocka_unit_test(real_vocabularies_have_the_librarys_ids),
        cmocka_unit_test(gguf_gives_the_ids_of_tokenizer_json),
        cmocka_unit_test(hostile_files_are_refused),
        cmocka_unit_test(an_expression_that_explodes_is_an_error),
        cmocka_unit_test(ill_formed_bytes_are_replacement_characters),
        cmocka_unit_test(random_ids_stream_as_whole_characters),
        cmocka_unit_test(special_tokens_in_plain_text_are_text),
        cmocka_unit_test(the_digest_is_of_all_that_changes_ids),
        cmocka_unit_test(files_beside_name_special_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
