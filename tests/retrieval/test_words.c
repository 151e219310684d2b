/* How texts are cut into words, folded and stemmed.
 *
 * If these failed, a memory would be there and not be found: because it was written with an accent,
 * in Japanese, with a curly apostrophe, or in bytes that are not quite UTF-8. */
#include "retrieval/terms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* All words of a text, each followed by '|'. */
static char *cut(struct memos_bytes text, const char *language)
{
    struct memos_buffer out = memos_buffer_make(SIZE_MAX);
    struct retrieval_words words;
    struct retrieval_word word;

    retrieval_words_init(&words, text, retrieval_language_of(memos_bytes_of(language)));
    while (retrieval_words_next(&words, &word)) {
        assert_in_range(word.size, 1, RETRIEVAL_WORD_BYTES_MAX);
        memos_buffer_bytes(&out, word.bytes, word.size);
        memos_buffer_u8(&out, '|');
    }
    memos_buffer_u8(&out, 0);
    assert_false(out.failed);
    return (char *)out.data;
}

struct golden {
    const char *language, *text, *words;
};

static void expect(const struct golden *cases, size_t cases_count)
{
    for (size_t i = 0; i < cases_count; i++) {
        char *found = cut(memos_bytes_of(cases[i].text), cases[i].language);
        if (strcmp(found, cases[i].words) != 0) {
            fail_msg("\"%s\" gave \"%s\", not \"%s\"", cases[i].text, found, cases[i].words);
        }
        free(found);
    }
}

#define EXPECT(cases) expect(cases, sizeof(cases) / sizeof(cases)[0])

static void plain_words(void **state)
{
    static const struct golden cases[] = {
        {"en", "", ""},
        {"en", " \t\r\n.,;:!?-()[]{}\"'_", ""},
        {"en", "Hello, World!", "hello|world|"},
        {"en", "one-two three/four", "one|two|three|four|"},
        {"en", "end.Next example.com e.g. a:b", "end|next|example|com|e|g|a|b|"},
        {"en", "snake_case _private trailing_ a__b", "snake_case|private|trailing|a|b|"},
        {"en", "mail@host #tag C++", "mail|host|tag|c|"},
        {"en", "tail", "tail|"},
    };
    (void)state;
    EXPECT(cases);
}

static void apostrophes(void **state)
{
    static const struct golden cases[] = {
        {"en", "don't 'quoted' rock 'n' roll", "don't|quoted|rock|n|roll|"},
        {"en", "Caroline\u2019s \u2018so\u2019 it\uFF07s it\u02BCs", "caroline's|so|it's|it's|"},
        {"en", "dogs' o''clock 5'9", "dogs|o|clock|5|9|"},
        {"fr", "L\u2019homme d'aujourd'hui", "l|homme|d|aujourd|hui|"},
        {"ca", "col\u00B7lecci\u00F3 l'aigua", "col\u00B7lecci\u00F3|l|aigua|"},
        {"en", "a'\u0301b", "a'b|"},
    };
    (void)state;
    EXPECT(cases);
}

static void numbers(void **state)
{
    static const struct golden cases[] = {
        {"en", "1,000.50 3.14. 10:30 2023-05-08", "1,000.50|3.14|10|30|2023|05|08|"},
        {"en", "4th 10am v2.0 3,word", "4th|10am|v2.0|3|word|"},
        {"en", "\uFF11\uFF12\uFF0C\uFF13 x\u00B2 \u00BD", "12,3|x2|1\u20442|"},
        {"ar", "\u0661\u066B\u0665", "\u0661\u066B\u0665|"},
    };
    (void)state;
    EXPECT(cases);
}

static void accents_and_case(void **state)
{
    static const struct golden cases[] = {
        {"en", "Caf\u00E9 cafe\u0301 CAFE\u0301 na\u00EFve", "cafe|cafe|cafe|naive|"},
        {"en", "Stra\u00DFe STRASSE", "strasse|strasse|"},
        {"en", "\u00D8re \u0141\u00F3d\u017A \u00C6on \u0152uvre \u00DE\u00F3r",
            "ore|lodz|aeon|oeuvre|thor|"},
        {"en", "\uFB01sh \uFF21\uFF22\uFF23 \u2167", "fish|abc|viii|"},
        {"en", "co\u00ADop zero\u200Dwidth\u200Cjoiner two\u200Bwords",
            "coop|zerowidthjoiner|two|words|"},
        {"de", "\u00DCber Gr\u00F6\u00DFe", "\u00FCber|gr\u00F6sse|"},
        {"ru", "\u0401\u043B\u043A\u0430 \u041C\u0410\u0419",
            "\u0451\u043B\u043A\u0430|\u043C\u0430\u0439|"},
        {"en", "\u05E9\u05C1\u05B8\u05DC\u05D5\u05B9\u05DD", "\u05E9\u05DC\u05D5\u05DD|"},
        {"hi", "\u0939\u093F\u0928\u094D\u0926\u0940", "\u0939\u093F\u0928\u094D\u0926\u0940|"},
        {"el", "\u03A3\u03AF\u03C3\u03C5\u03C6\u03BF\u03C2",
            "\u03C3\u03AF\u03C3\u03C5\u03C6\u03BF\u03C3|"},
    };
    (void)state;
    EXPECT(cases);
}

static void scripts_without_blanks(void **state)
{
    static const struct golden cases[] = {
        {"zh", "\u6771\u4EAC\u90FD", "\u6771|\u4EAC|\u6771\u4EAC|\u90FD|\u4EAC\u90FD|"},
        {"zh", "\u6771 \u4EAC\u3002\u90FD", "\u6771|\u4EAC|\u90FD|"},
        {"ja", "iPhone\u3092\u8CB7", "iphone|\u3092|\u8CB7|\u3092\u8CB7|"},
        {"ja", "\uFF76\uFF9E \u30AC \u30AB\u3099", "\u30AC|\u30AC|\u30AC|"},
        {"ja", "2023\u5E74\u30C6", "2023|\u5E74|\u30C6|\u5E74\u30C6|"},
        {"ko", "\uD559\uAD50\uC5D0", "\uD559|\uAD50|\uD559\uAD50|\uC5D0|\uAD50\uC5D0|"},
        {"th", "\u0E01\u0E34\u0E19", "\u0E01\u0E34|\u0E19|\u0E01\u0E34\u0E19|"},
        {"zh", "\U00020000\u9FFF", "\U00020000|\u9FFF|\U00020000\u9FFF|"},
    };
    (void)state;
    EXPECT(cases);
}

static void pictures(void **state)
{
    static const struct golden cases[] = {
        {"en", "pizza\U0001F355!", "pizza|\U0001F355|"},
        {"en", "\U0001F469\u200D\U0001F4BB\U0001F44D\U0001F3FD \u2764\uFE0F",
            "\U0001F469|\U0001F4BB|\U0001F44D|\u2764|"},
        {"en", "\u00A9 \u20AC \u2014 \u2022", ""},
    };
    (void)state;
    EXPECT(cases);
}

/* Bytes that are no text part words and do nothing else. */
static void bad_bytes(void **state)
{
    static const struct {
        const char *text;
        size_t size;
        const char *words;
    } cases[] = {
        {"a\0b\0\0c", 6, "a|b|c|"},
        {"good\xFF"
         "bad\xC3",
            9, "good|bad|"},
        {"x\xC0\xAFy", 4, "x|y|"},         /* overlong */
        {"x\xED\xA0\x80y", 5, "x|y|"},     /* a surrogate */
        {"x\xF4\x90\x80\x80y", 6, "x|y|"}, /* past U+10FFFF */
        {"x\xE2\x82", 3, "x|"},            /* cut off */
        {"\x80\x80\x80word\xF8\x88", 9, "word|"},
        {"\xEF\xBB\xBFmark", 7, "mark|"}, /* a byte order mark */
        {"\xCC\x81\xCC\x81"
         "a",
            5, "a|"}, /* accents on nothing */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *found = cut(memos_bytes_make(cases[i].text, cases[i].size), "en");
        if (strcmp(found, cases[i].words) != 0) {
            fail_msg("case %zu gave \"%s\", not \"%s\"", i, found, cases[i].words);
        }
        free(found);
    }
}

/* A letter, `count` times over. */
static struct memos_bytes repeat(const char *letter, size_t count)
{
    size_t size = strlen(letter);
    char *text = malloc(size * count);
    assert_non_null(text);
    for (size_t i = 0; i < count; i++) {
        memcpy(text + i * size, letter, size);
    }
    return memos_bytes_make(text, size * count);
}

static void long_words_are_cut_whole(void **state)
{
    static const char *const letters[] = {"a", "\u00E9", "\u0436", "\uFB01", "\U0001D400", "\uFDFA",
        "\u0301", "a\u0301", "\u0E01\u0E34"};
    (void)state;
    for (size_t i = 0; i < sizeof letters / sizeof letters[0]; i++) {
        struct memos_bytes text = repeat(letters[i], 1 << 20);
        struct retrieval_words words;
        struct retrieval_word word;
        size_t count = 0;

        retrieval_words_init(&words, text, retrieval_language_of(memos_bytes_of("en")));
        while (retrieval_words_next(&words, &word)) {
            count++;
            assert_in_range(word.size, 1, RETRIEVAL_WORD_BYTES_MAX);
            assert_true(memos_bytes_utf8(memos_bytes_make(word.bytes, word.size)));
        }
        bool sign = letters[i][0] == '\xE0';
        assert_int_equal(count, sign ? (2 << 20) - 1 : strcmp(letters[i], "\u0301") != 0);
        free((void *)(uintptr_t)text.data);
    }
}

/* ---- terms --------------------------------------------------------------------------------- */

static const uint8_t secret[32] = {1, 2, 3};

static struct retrieval_terms *terms_make(void)
{
    struct retrieval_terms *terms = NULL;
    assert_int_equal(retrieval_terms_create(&terms, NULL), MEMOS_OK);
    return terms;
}

/* The hash of a text's one term. */
static uint64_t term_of(struct retrieval_terms *terms, const char *language, const char *text)
{
    size_t count;
    uint32_t length;
    retrieval_terms_begin(terms, secret, memos_bytes_of(language), false);
    assert_int_equal(retrieval_terms_add(terms, memos_bytes_of(text), NULL), MEMOS_OK);
    const struct retrieval_term *found = retrieval_terms_finish(terms, &count, &length);
    if (count != 1) {
        fail_msg("\"%s\" has %zu terms", text, count);
    }
    return found->hash;
}

static void stemming_follows_the_language(void **state)
{
    static const struct {
        const char *language, *one, *other;
        bool same;
    } cases[] = {
        {"en", "running", "runs", true},
        {"", "painted", "Paintings", true},
        {"en-GB", "Caroline's", "caroline", true},
        {"en", "Caroline\u2019s", "Caroline", true},
        {"xx", "books", "book", true}, /* an unknown language is read as English */
        {"en", "r\u00E9sum\u00E9s", "resumes", true},
        {"de", "H\u00E4user", "Haus", true},
        {"de-AT", "laufen", "laufe", true},
        {"DE", "laufen", "laufe", true},
        {"en", "laufen", "laufe", false},
        {"fr", "chevaux", "cheval", true},
        {"fr", "continu\u00E9e", "continuer", true},
        {"es", "canciones", "canci\u00F3n", true},
        {"es", "cancion", "canci\u00F3n", true}, /* accents go after stemming, too */
        {"ru", "\u043A\u043D\u0438\u0433\u0430", "\u043A\u043D\u0438\u0433\u0438", true},
        {"sv", "flickorna", "flicka", true},
        {"en", "2023", "2024", false},
        {"en", "went", "go", false},
    };
    struct retrieval_terms *terms = terms_make();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t one = term_of(terms, cases[i].language, cases[i].one);
        uint64_t other = term_of(terms, cases[i].language, cases[i].other);
        if ((one == other) != cases[i].same) {
            fail_msg("%s: \"%s\" and \"%s\"", cases[i].language, cases[i].one, cases[i].other);
        }
    }
    retrieval_terms_destroy(&terms);
    assert_null(terms);
}

static void every_language_has_its_stemmer(void **state)
{
    static const char *const tags[] = {"ar", "ca", "da", "de", "el", "en", "es", "eu", "fi", "fr",
        "ga", "hi", "hu", "hy", "id", "it", "lt", "nb", "ne", "nl", "nn", "no", "pt", "ro", "ru",
        "sr", "sv", "ta", "tr", "yi"};
    struct retrieval_terms *terms = terms_make();
    (void)state;
    assert_int_equal(retrieval_language_count(), sizeof tags / sizeof tags[0]);
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        const struct retrieval_language *language = retrieval_language_of(memos_bytes_of(tags[i]));
        assert_string_equal(language->tag, tags[i]);
        assert_int_equal(retrieval_language_number(language), i);
        (void)term_of(terms, tags[i], "word"); /* fails without the algorithm */
    }
    retrieval_terms_destroy(&terms);
}

static void terms_are_counted_and_sorted(void **state)
{
    struct retrieval_terms *terms = terms_make();
    size_t count;
    uint32_t length;
    (void)state;
    for (int round = 0; round < 3; round++) { /* the same terms serve one text after the other */
        retrieval_terms_begin(terms, secret, memos_bytes_of("en"), false);
        assert_int_equal(
            retrieval_terms_add(terms, memos_bytes_of("A dog, two dogs and a cat"), NULL), 0);
        assert_int_equal(retrieval_terms_add(terms, memos_bytes_of("cats"), NULL), 0);
        const struct retrieval_term *found = retrieval_terms_finish(terms, &count, &length);
        assert_int_equal(length, 8);
        assert_int_equal(count, 5); /* a dog two and cat */
        uint32_t sum = 0;
        for (size_t i = 0; i < count; i++) {
            assert_true(i == 0 || found[i - 1].hash < found[i].hash);
            assert_false(found[i].light);
            sum += found[i].count;
        }
        assert_int_equal(sum, 8);
    }
    retrieval_terms_destroy(&terms);
}

static void secrets_part_terms(void **state)
{
    static const uint8_t other[32] = {3, 2, 1};
    struct retrieval_terms *terms = terms_make();
    size_t count;
    uint32_t length;
    (void)state;
    uint64_t mine = term_of(terms, "en", "word");
    retrieval_terms_begin(terms, other, memos_bytes_of("en"), false);
    assert_int_equal(retrieval_terms_add(terms, memos_bytes_of("word"), NULL), MEMOS_OK);
    assert_true(retrieval_terms_finish(terms, &count, &length)->hash != mine);
    retrieval_terms_destroy(&terms);
}

/* How many light terms a question has. */
static size_t light_count(struct retrieval_terms *terms, const char *language, const char *text)
{
    size_t count, light = 0;
    uint32_t length;
    retrieval_terms_begin(terms, secret, memos_bytes_of(language), true);
    assert_int_equal(retrieval_terms_add(terms, memos_bytes_of(text), NULL), MEMOS_OK);
    const struct retrieval_term *found = retrieval_terms_finish(terms, &count, &length);
    for (size_t i = 0; i < count; i++) {
        light += found[i].light;
    }
    return light;
}

static void question_words_are_light(void **state)
{
    struct retrieval_terms *terms = terms_make();
    (void)state;
    assert_int_equal(light_count(terms, "en", "When did Caroline go to the support group?"), 4);
    assert_int_equal(light_count(terms, "", "What's your mother\u2019s name"), 2);
    assert_int_equal(light_count(terms, "de", "What did the fox say"), 0);
    assert_int_equal(light_count(terms, "en", "May 2023"), 0);
    assert_int_equal(light_count(terms, "en", "a yourselves zebra aardvark i"), 3);
    retrieval_terms_destroy(&terms);
}

/* A text of many different words costs bounded memory, and the next text nothing. */
static void many_words_are_bounded(void **state)
{
    struct retrieval_terms *terms = terms_make();
    struct memos_buffer text = memos_buffer_make(SIZE_MAX);
    size_t count;
    uint32_t length;
    (void)state;
    for (int i = 0; i < 200000; i++) {
        memos_buffer_printf(&text, "w%d ", i);
    }
    retrieval_terms_begin(terms, secret, memos_bytes_of("en"), false);
    assert_int_equal(retrieval_terms_add(terms, memos_buffer_view(&text), NULL), MEMOS_OK);
    (void)retrieval_terms_finish(terms, &count, &length);
    assert_int_equal(count, RETRIEVAL_TERMS_MAX);
    assert_int_equal(length, 200000);

    retrieval_terms_begin(terms, secret, memos_bytes_of("en"), true);
    assert_int_equal(retrieval_terms_add(terms, memos_buffer_view(&text), NULL), MEMOS_OK);
    (void)retrieval_terms_finish(terms, &count, &length);
    assert_int_equal(count, RETRIEVAL_QUESTION_TERMS_MAX);
    assert_int_equal(light_count(terms, "en", "the end"), 1);
    memos_buffer_free(&text);
    retrieval_terms_destroy(&terms);
}

/* What is past the bound is not read: the count of words tells. */
static void long_texts_are_bounded(void **state)
{
    struct memos_bytes text = repeat("ab cd \xFF\u00E9 ", (RETRIEVAL_TEXT_BYTES_MAX >> 3) + 4096);
    struct retrieval_terms *terms = terms_make();
    size_t count;
    uint32_t length;
    (void)state;
    assert_true(text.size > RETRIEVAL_TEXT_BYTES_MAX);
    retrieval_terms_begin(terms, secret, memos_bytes_of("en"), false);
    assert_int_equal(retrieval_terms_add(terms, text, NULL), MEMOS_OK);
    assert_int_equal(retrieval_terms_add(terms, memos_bytes_of("late"), NULL), MEMOS_OK);
    (void)retrieval_terms_finish(terms, &count, &length);
    assert_int_equal(count, 3);
    assert_in_range(
        length, RETRIEVAL_TEXT_BYTES_MAX / 10 * 3 - 3, RETRIEVAL_TEXT_BYTES_MAX / 10 * 3 + 3);
    free((void *)(uintptr_t)text.data);
    retrieval_terms_destroy(&terms);
}

/* Threads that count words at once get what each would alone. */
struct counting {
    struct retrieval_terms_pool *pool;
    const char *language;
    uint64_t sum;
};

static void *count_often(void *argument)
{
    struct counting *counting = argument;
    for (int i = 0; i < 200; i++) {
        struct retrieval_terms *terms = NULL;
        size_t count;
        uint32_t length;
        if (retrieval_terms_take(counting->pool, &terms, NULL) != MEMOS_OK) {
            return NULL;
        }
        retrieval_terms_begin(terms, secret, memos_bytes_of(counting->language), false);
        if (retrieval_terms_add(terms, memos_bytes_of("die Lieder nationaler caf\u00E9s"), NULL) ==
            MEMOS_OK) {
            const struct retrieval_term *found = retrieval_terms_finish(terms, &count, &length);
            for (size_t j = 0; j < count; j++) {
                counting->sum += found[j].hash;
            }
        }
        retrieval_terms_give(counting->pool, terms);
    }
    return NULL;
}

static void a_pool_serves_threads(void **state)
{
    struct retrieval_terms_pool pool;
    struct counting work[4];
    pthread_t threads[4];
    (void)state;
    assert_int_equal(retrieval_terms_pool_init(&pool, NULL), MEMOS_OK);
    for (size_t i = 0; i < 4; i++) {
        work[i] = (struct counting){&pool, i % 2 ? "de" : "fr", 0};
        assert_int_equal(pthread_create(&threads[i], NULL, count_often, &work[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_true(work[0].sum != 0 && work[0].sum == work[2].sum);
    assert_true(work[1].sum != 0 && work[1].sum == work[3].sum);
    assert_true(work[0].sum != work[1].sum);
    retrieval_terms_pool_finish(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_words),
        cmocka_unit_test(apostrophes),
        cmocka_unit_test(numbers),
        cmocka_unit_test(accents_and_case),
        cmocka_unit_test(scripts_without_blanks),
        cmocka_unit_test(pictures),
        cmocka_unit_test(bad_bytes),
        cmocka_unit_test(long_words_are_cut_whole),
        cmocka_unit_test(stemming_follows_the_language),
        cmocka_unit_test(every_language_has_its_stemmer),
        cmocka_unit_test(terms_are_counted_and_sorted),
        cmocka_unit_test(secrets_part_terms),
        cmocka_unit_test(question_words_are_light),
        cmocka_unit_test(many_words_are_bounded),
        cmocka_unit_test(long_texts_are_bounded),
        cmocka_unit_test(a_pool_serves_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
