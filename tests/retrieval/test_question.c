/* What a question is after: a time, advice, days, a name.
 *
 * If these failed, "when" would not be answered by a day, and "what did Ann say" by anybody. */
#include "retrieval/question.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *text;
    bool when, advice;
    size_t dates;
    double asking;
} questions[] = {
    {"When did Ann move?", true, false, 0, 1.0},
    {"What year was it?", true, false, 0, 1.0},
    {"Which day suits you?", true, false, 0, 1.0},
    {"How long have they known each other?", true, false, 0, 1.0},
    {"How many weeks did it take?", true, false, 0, 1.0},
    {"How many dogs has she?", false, false, 0, 1.0},
    {"How often does he swim?", true, false, 0, 1.0},
    {"In which month's game did he score?", true, false, 0, 1.0},
    {"What did she paint?", false, false, 0, 1.0},
    {"Can you recommend a hotel?", false, true, 0, 1.0},
    {"Could you please also recomend me a hotel?", false, true, 0, 1.0},
    {"Do you have any tips for my trip to Rome?", false, true, 0, 1.0},
    {"What should I cook tonight?", false, true, 1, 1.0},
    {"How do I get there?", false, false, 0, 1.0}, /* "do I": may be of the past */
    {"Which laptop should we buy?", false, true, 0, 1.0},
    {"Which laptop should she buy?", false, false, 0, 1.0},
    {"What are some good books?", false, true, 0, 1.0},
    {"I'm looking for a plumber.", false, false, 0, 0.0}, /* asks nothing */
    {"I'm looking for a plumber. Any suggestions?", false, true, 0, 4.0 / 7.0},
    {"Can you remind me which hotel you recommended?", false, false, 0, 1.0},
    {"What did I say about the best hotel?", false, false, 0, 1.0},
    {"Tell me about the dog", false, false, 0, 1.0},
    {"Please tell me about the dog.", false, false, 0, 1.0},
    {"\"Who was it", false, false, 0, 1.0},
    {"the dog, tell me", false, false, 0, 0.0},
    {"white dogs", false, false, 0, 0.0},
    {"It rained. Where were you\nand who came", false, false, 0, 0.75},
    {"What did we do last week and on 8 May 2023?", false, false, 2, 1.0},
    {"", false, false, 0, 0.0},
};

static void questions_are_read(void **state)
{
    struct retrieval_questions *lexicon = NULL;
    (void)state;
    assert_int_equal(retrieval_questions_create(&lexicon, NULL), MEMOS_OK);
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        struct retrieval_question found;
        retrieval_question_read(
            lexicon, memos_bytes_of(questions[i].text), INT64_C(1692198000000000), &found);
        if (found.when != questions[i].when || found.advice != questions[i].advice ||
            found.dates_count != questions[i].dates || found.asking < questions[i].asking - 1e-6 ||
            found.asking > questions[i].asking + 1e-6) {
            fail_msg("\"%s\": when %d, advice %d, %zu dates, asking %f", questions[i].text,
                found.when, found.advice, found.dates_count, found.asking);
        }
    }
    retrieval_questions_destroy(&lexicon);
    retrieval_questions_destroy(&lexicon);
}

static bool names(const char *question, const char *name)
{
    static const uint8_t secret[32] = {5};
    static uint32_t hashes[RETRIEVAL_QUESTION_WORDS_MAX * RETRIEVAL_QUESTION_NAME_MAX];
    uint8_t key[RETRIEVAL_NAME_KEY_BYTES];
    retrieval_name_key(secret, key);
    size_t count = retrieval_question_names(memos_bytes_of(question), key, hashes);
    uint32_t wanted = retrieval_name_hash(key, memos_bytes_of(name));
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        assert_true(i == 0 || hashes[i] > hashes[i - 1]);
        found = found || hashes[i] == wanted;
    }
    return found;
}

static void names_are_found(void **state)
{
    (void)state;
    assert_true(names("What did Ann say?", "Ann"));
    assert_true(names("what did ann say?", "Ann"));
    assert_true(names("Where is Ann's dog?", "Ann"));
    assert_true(names("Where is James' dog?", "James"));
    assert_true(names("Where is Ann\xE2\x80\x99s dog?", "Ann"));
    assert_true(names("Was it Eve Stone?", "Eve Stone"));
    assert_true(names("Was it Mary Ann Smith who came?", "Mary Ann Smith"));
    assert_true(names("Does Jos\xC3\xA9 know?", "Jose"));
    assert_false(names("Was it Eve?", "Eve Stone"));
    assert_false(names("Was it Anna?", "Ann"));
    assert_false(names("", "Ann"));
}

static void roles_are_no_names(void **state)
{
    static const uint8_t key[RETRIEVAL_NAME_KEY_BYTES] = {1};
    static const char *const roles[] = {"user", "User", "assistant", "system", "tool", ""};
    (void)state;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        assert_int_equal(retrieval_name_hash(key, memos_bytes_of(roles[i])), 0);
    }
    assert_int_not_equal(retrieval_name_hash(key, memos_bytes_of("users")), 0);
    assert_true(retrieval_name_is_machine(memos_bytes_of("Assistant")));
    assert_false(retrieval_name_is_machine(memos_bytes_of("user")));
    assert_false(retrieval_name_is_machine(memos_bytes_of("Ann")));
}

/* A long text is read as far as its bounds go. */
static void long_questions(void **state)
{
    static char text[100000];
    (void)state;
    memset(text, 'a', sizeof text - 1);
    for (size_t i = 3; i < sizeof text - 1; i += 4) {
        text[i] = ' ';
    }
    assert_true(names(text, "aaa"));
    assert_false(names(text, "aab"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_are_read),
        cmocka_unit_test(names_are_found),
        cmocka_unit_test(roles_are_no_names),
        cmocka_unit_test(long_questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
