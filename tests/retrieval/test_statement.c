/* What kind of thing a text says: questions, times, requests, and what somebody says of himself to
 * last.
 *
 * If these failed, "suggest a restaurant" would not find that the user eats no meat. */
#include "retrieval/statement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct text {
    const char *text;
    const char *traits; /* t: time, a: asks, S: surely a statement, s: maybe */
};

/* As the reference in Python judges them. */
static const struct text texts[] = {
    {"I prefer tea.", "S"},
    {"I really do not like crowded beaches.", "S"},
    {"I can't stand fish.", "S"},
    {"I can't come.", "s"},
    {"I have always hated jazz.", "S"},
    {"I'm allergic to nuts.", "S"},
    {"I am a strict vegetarian.", "S"},
    {"We are on a low-carb diet.", "S"},
    {"I\xE2\x80\x99m not a fan of musicals.", "S"},
    {"I've a strong aversion to loud places.", "S"},
    {"I have a deep fear of heights.", "S"},
    {"My personal preference is the window.", "S"},
    {"Horror films make me uncomfortable.", "S"},
    {"That doesn't interest me.", "S"},
    {"I find long meetings with slides boring.", "S"},
    {"I only buy second-hand.", "S"},
    {"I steer clear of sugar.", "S"},
    {"I love dogs.", "s"},
    {"I usually get up at six.", "s"},
    {"I'm a big fan of hers.", "s"},
    {"My favourite colour is blue.", "s"},
    {"I have an interest in trains.", "s"},
    {"She prefers tea.", ""},
    {"The house is white.", ""},
    {"They love dogs, I think.", ""},
    {"I saw him, prefer as he may to hide.", ""},
    {"We met yesterday.", "t"},
    {"It was last week.", "t"},
    {"That was two weeks ago.", "t"},
    {"a few days later", "t"},
    {"For the past three years it rained.", "t"},
    {"It opened in may.", "t"},
    {"On 27 May we left.", "t"},
    {"It was May 2023.", "t"},
    {"since 2016", "t"},
    {"in the year 1815", ""},
    {"On Friday, perhaps.", "t"},
    {"the other day", "t"},
    {"I just got home.", "t"},
    {"Last week's scrimmage was fine.", "t"},
    {"You may go.", ""},
    {"Could you help?", "a"},
    {"How does it work, then?", "a"},
    {"What's up with you?", "a"},
    {"What a day! Is it late?", ""},
    {"Tell me more.", "a"},
    {"He said: tell me more.", ""},
    {"I need some time.", "as"},
    {"Do you have any ideas?", "a"},
    {"I'm looking for a book.", "a"},
    {"", ""},
};

static const struct retrieval_statements *lexicon(void)
{
    static struct retrieval_statements *statements;
    struct memos_error err = {0};
    if (!statements && retrieval_statements_create(&statements, &err) != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return statements;
}

static void texts_are_judged(void **state)
{
    (void)state;
    size_t bad = 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char found[8] = "";
        struct retrieval_traits traits =
            retrieval_traits_of(lexicon(), memos_bytes_of(texts[i].text));
        (void)snprintf(found, sizeof found, "%s%s%s", traits.time ? "t" : "", traits.ask ? "a" : "",
            traits.statement == 1.0f ? "S"
            : traits.statement > 0   ? "s"
                                     : "");
        if (strcmp(found, texts[i].traits) != 0) {
            print_message("\"%s\": \"%s\", not \"%s\"\n", texts[i].text, found, texts[i].traits);
            bad++;
        }
    }
    assert_int_equal(bad, 0);
}

static void words_are_counted(void **state)
{
    static const struct {
        const char *text;
        unsigned words;
        double question;
    } counts[] = {
        {"", 0, 0.0},
        {"one", 1, 0.0},
        {"one two?", 2, 1.0},
        {"One two. Three four?", 4, 0.5},
        {"Really?! Yes", 2, 0.0},
        {"Really!? Yes", 2, 0.5},
        {"is it\nyes it is?", 5, 0.6},
        {"don't well-known snake_case 3.5", 7, 0.0},
        {"It\xE2\x80\x99s caf\xC3\xA9 \xE2\x80\x93 dash", 3, 0.0},
        {"\xFF\xFE ok \xE2\x80", 1, 0.0},
        {"???", 0, 0.0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct retrieval_traits traits =
            retrieval_traits_of(lexicon(), memos_bytes_of(counts[i].text));
        if (traits.words != counts[i].words ||
            (double)traits.question < counts[i].question - 1e-6 ||
            (double)traits.question > counts[i].question + 1e-6) {
            fail_msg("\"%s\": %u words, %f", counts[i].text, traits.words, (double)traits.question);
        }
    }
}

/* What comes late in a text is no statement of it, but its words count. */
static void long_texts(void **state)
{
    enum { BYTES = 300000 };
    static char text[BYTES];
    (void)state;
    for (size_t i = 0; i < BYTES; i++) {
        text[i] = i % 5 == 4 ? ' ' : 'w';
    }
    memcpy(text + 2000, " I hate it. ", 12);
    struct retrieval_traits traits = retrieval_traits_of(lexicon(), memos_bytes_make(text, BYTES));
    assert_true(traits.statement == 0.0f);
    assert_true(traits.words > 10000 && traits.words < BYTES / 5);
    memcpy(text + 500, " I hate it. ", 12);
    traits = retrieval_traits_of(lexicon(), memos_bytes_make(text, BYTES));
    assert_true(traits.statement == 1.0f);
}

static unsigned steps(const struct retrieval_phrases *phrases, const char *text)
{
    struct retrieval_sentences sentences;
    struct retrieval_phrase_walk walk;
    struct retrieval_token token;
    unsigned found = 0;
    retrieval_sentences_init(&sentences, memos_bytes_of(text));
    retrieval_phrases_begin(phrases, &walk);
    while (retrieval_sentences_next(&sentences, &token)) {
        found |= retrieval_phrases_step(&walk, &token);
    }
    return found;
}

/* The language of patterns, one thing at a time. */
static void patterns_match(void **state)
{
    static const struct {
        const char *pattern, *yes, *no;
    } cases[] = {
        {"a b", "x a b x", "a x b"},
        {"a b", "A  B", "a, b"},
        {"a|b c", "b c", "b d"},
        {"(a|b) c", "a c", "a"},
        {"a? b c", "b c", "a c"},
        {"a b* c", "a b b b c", "a d c"},
        {"a _{0,2} b", "a x y b", "a x y z b"},
        {"a _{2,3} b", "a x y b", "a x b"},
        {"a (b c){1,2} d", "a b c b c d", "a d"},
        {"a _ b", "a x b", "a x's b"},
        {"a <any> b", "a x's b", "a b"},
        {"sug~", "suggestion", "su"},
        {"~ly", "quickly", "ly"},
        {"<year> x", "2020 x", "3020 x"},
        {"<short> x", "1234 x", "12345 x"},
        {"<ordinal> x", "27th x", "127 x"},
        {"<number>", "12345678901234567890123456789", "12a"},
        {"what <any>* <?>", "what is it?", "what is it. is?"},
        {"<start> a", "a b", "b a"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct retrieval_pattern pattern = {3, cases[i].pattern};
        struct retrieval_phrases *phrases;
        assert_int_equal(retrieval_phrases_create(&pattern, 1, &phrases, NULL), MEMOS_OK);
        if (steps(phrases, cases[i].yes) != 8 || steps(phrases, cases[i].no) != 0) {
            fail_msg("\"%s\": \"%s\" %u, \"%s\" %u", cases[i].pattern, cases[i].yes,
                steps(phrases, cases[i].yes), cases[i].no, steps(phrases, cases[i].no));
        }
        retrieval_phrases_destroy(&phrases);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_judged),
        cmocka_unit_test(words_are_counted),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(patterns_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
