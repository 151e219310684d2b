/* The arithmetic of the ranking, against worked examples that its reference in Python made.
 *
 * If these failed, the ranking would not be the one that was measured: what a user looks for would
 * come somewhere, but not first. */
#include "retrieval/fuse.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DOCS_MAX 16
#define RANGES_MAX 8
#define ORDINAL_1970 719163 /* of 1970-01-01 when 0001-01-01 is 1 */
#define TOLERANCE 1e-4

/* One example, as read. */
struct example {
    struct retrieval_fuse_question question;
    struct retrieval_fuse_doc docs[DOCS_MAX];
    struct retrieval_fuse_range ranges[DOCS_MAX][RANGES_MAX];
    double scores[DOCS_MAX];
    long sessions[DOCS_MAX];
    size_t docs_count;
};

static FILE *open_examples(void)
{
    static const char path[] = SOURCE "/tests/retrieval/data/fuse_cases.txt";
    FILE *file = fopen(path, "r");
    if (!file) {
        fail_msg("cannot read %s", path);
    }
    return file;
}

static bool read_line(FILE *file, char *line, size_t room)
{
    while (fgets(line, (int)room, file)) {
        if (line[0] != '#' && line[0] != '\n') {
            return true;
        }
    }
    return false;
}

/* The next number of a line. */
static double number(char **at)
{
    char *end;
    double value = strtod(*at, &end);
    if (end == *at) {
        fail_msg("no number in \"%s\"", *at);
    }
    *at = end;
    return value;
}

static int64_t day(char **at)
{
    double value = number(at);
    return value == 0.0 ? INT64_MIN : (int64_t)value - ORDINAL_1970;
}

static void read_doc(char *at, struct example *out, size_t i, double speaker)
{
    struct retrieval_fuse_doc *doc = &out->docs[i];
    doc->bm25 = number(&at);
    doc->cosine = number(&at);
    out->sessions[i] = (long)number(&at);
    doc->named = number(&at) == speaker && speaker >= 0.0;
    doc->user = number(&at) != 0.0;
    doc->words = number(&at);
    doc->question = number(&at);
    doc->time = number(&at) != 0.0;
    doc->statement = number(&at);
    doc->ask = number(&at) != 0.0;
    doc->event_day = day(&at);
    out->scores[i] = number(&at);
    doc->ranges_count = (size_t)number(&at);
    assert_true(doc->ranges_count <= RANGES_MAX);
    for (size_t r = 0; r < doc->ranges_count; r++) {
        out->ranges[i][r].from_day = day(&at);
        out->ranges[i][r].to_day = day(&at);
    }
    doc->ranges = out->ranges[i];
}

/* The place of the doc `away` places from i, if it is of its session. */
static uint32_t place(const struct example *example, size_t i, long away)
{
    long other = (long)i + away;
    bool there = other >= 0 && other < (long)example->docs_count && example->sessions[i] >= 0 &&
                 example->sessions[other] == example->sessions[i];
    return there ? (uint32_t)other : RETRIEVAL_FUSE_NOBODY;
}

static bool read_example(FILE *file, struct example *out)
{
    char line[4096];
    *out = (struct example){.docs_count = 0};
    if (!read_line(file, line, sizeof line)) {
        return false;
    }
    assert_memory_equal(line, "case", 4);
    char *at = line + 4;
    out->question.ideal = number(&at);
    double speaker = number(&at);
    out->question.when = number(&at) != 0.0;
    out->question.asking = number(&at);
    out->question.advice = number(&at) != 0.0;
    out->question.dates_count = (size_t)number(&at);
    out->docs_count = (size_t)number(&at);
    assert_true(out->docs_count <= DOCS_MAX && out->question.dates_count <= RANGES_MAX);
    for (size_t i = 0; i < out->question.dates_count; i++) {
        assert_true(read_line(file, line, sizeof line));
        at = line + strlen("range");
        out->question.dates[i].from_day = day(&at);
        out->question.dates[i].to_day = day(&at);
    }
    float cosines[DOCS_MAX];
    for (size_t i = 0; i < out->docs_count; i++) {
        assert_true(read_line(file, line, sizeof line));
        read_doc(line, out, i, speaker);
        cosines[i] = (float)out->docs[i].cosine;
        out->question.bm25_max = fmax(out->question.bm25_max, out->docs[i].bm25);
    }
    for (size_t i = 0; i < out->docs_count; i++) {
        for (long distance = 1; distance <= 2; distance++) {
            out->docs[i].before[distance - 1] = place(out, i, -distance);
            out->docs[i].after[distance - 1] = place(out, i, distance);
        }
    }
    out->question.vectors = retrieval_fuse_measure(cosines, out->docs_count,
                                &out->question.cosine_mean, &out->question.cosine_deviation) > 1;
    return true;
}

static void fuse_all(const struct example *example, double parts[DOCS_MAX][RETRIEVAL_PARTS])
{
    double relevance[DOCS_MAX];
    for (size_t i = 0; i < example->docs_count; i++) {
        retrieval_fuse_relevance(&example->question, &example->docs[i], parts[i]);
        relevance[i] = retrieval_fuse_sum(parts[i]);
    }
    for (size_t i = 0; i < example->docs_count; i++) {
        retrieval_fuse(&example->question, example->docs, relevance, i, parts[i]);
    }
}

static void examples_agree(void **state)
{
    (void)state;
    struct example example;
    double parts[DOCS_MAX][RETRIEVAL_PARTS];
    size_t examples = 0;
    FILE *file = open_examples();
    for (; read_example(file, &example); examples++) {
        fuse_all(&example, parts);
        for (size_t i = 0; i < example.docs_count; i++) {
            double score = retrieval_fuse_sum(parts[i]);
            if (!(fabs(score - example.scores[i]) <= TOLERANCE)) {
                fail_msg("example %zu, doc %zu: %f, not %f", examples, i, score, example.scores[i]);
            }
        }
    }
    (void)fclose(file);
    assert_int_equal(examples, 40);
}

/* A part that is left out is 0, and the others stay as they are: but those that are worth more the
 * better words and vectors fit. */
static void parts_can_be_left_out(void **state)
{
    (void)state;
    struct example example;
    double parts[DOCS_MAX][RETRIEVAL_PARTS], without[DOCS_MAX][RETRIEVAL_PARTS];
    bool changed[RETRIEVAL_PARTS] = {false};
    FILE *file = open_examples();
    while (read_example(file, &example)) {
        example.question.without = 0;
        fuse_all(&example, parts);
        for (int part = 0; part < RETRIEVAL_PARTS; part++) {
            example.question.without = 1u << part;
            fuse_all(&example, without);
            for (size_t i = 0; i < example.docs_count; i++) {
                assert_true(without[i][part] == 0.0);
                changed[part] = changed[part] || parts[i][part] != 0.0;
                for (int other = 0; other < RETRIEVAL_PARTS; other++) {
                    bool same = without[i][other] == parts[i][other];
                    bool relative =
                        other == RETRIEVAL_PART_NEIGHBOURS || other == RETRIEVAL_PART_STATEMENT;
                    assert_true(same || other == part || relative);
                }
            }
        }
    }
    (void)fclose(file);
    for (int part = 0; part < RETRIEVAL_PARTS; part++) {
        bool later = part == RETRIEVAL_PART_RECENCY || part == RETRIEVAL_PART_PRIORITY ||
                     part == RETRIEVAL_PART_DIVERSITY;
        assert_int_equal(changed[part], !later);
    }
}

/* No words, no vectors, one doc: nothing is divided by zero. */
static void nothing_known(void **state)
{
    (void)state;
    struct retrieval_fuse_question question = {.ideal = 0.0};
    struct retrieval_fuse_doc doc = {
        .cosine = NAN,
        .before = {RETRIEVAL_FUSE_NOBODY, RETRIEVAL_FUSE_NOBODY},
        .after = {RETRIEVAL_FUSE_NOBODY, RETRIEVAL_FUSE_NOBODY},
        .event_day = INT64_MIN,
    };
    double parts[RETRIEVAL_PARTS], relevance = 0.0, mean, deviation;
    question.dates[0] = (struct retrieval_fuse_range){INT64_MIN, INT64_MAX};
    retrieval_fuse(&question, &doc, &relevance, 0, parts);
    assert_true(retrieval_fuse_sum(parts) == 0.0);
    float none = NAN;
    assert_int_equal(retrieval_fuse_measure(&none, 1, &mean, &deviation), 0);
    assert_true(mean == 0.0 && deviation == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_agree),
        cmocka_unit_test(parts_can_be_left_out),
        cmocka_unit_test(nothing_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
