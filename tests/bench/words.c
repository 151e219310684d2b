/* Texts for the benchmarks: Zipf's law over a made-up vocabulary, and questions about it. */
#include "tests/bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BYTES 24

struct bench_words {
    size_t count;
    char (*texts)[WORD_BYTES];
    double *sums; /* sums[i]: weight of words 0..i; the last is the whole */
};

/* The commonest words of English talk hold the commonest ranks. */
static const char *const function_words[] = {"the", "i", "to", "and", "a", "you", "it", "that",
    "of", "is", "in", "was", "for", "my", "so", "have", "with", "but", "on", "be", "me", "we", "do",
    "this", "are", "not", "what", "at", "your", "he", "she", "they", "just", "about", "like", "all",
    "there", "out", "when", "go", "can", "did", "had", "how", "get", "been", "some", "her", "him",
    "really"};

static const char *const syllables[] = {"ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu",
    "na", "pe", "ri", "so", "tu", "va", "we", "xi", "yo", "zu", "bran", "cles", "drim", "flot",
    "grun", "stal", "ther", "plin"};

static const char *const questions[] = {"When did %s go to the %s?", "What does %s think about %s?",
    "Where did %s buy the %s %s?", "How many %s did %s have in %s?",
    "Why was %s so happy with the %s?", "Which %s would %s like to see again?",
    "Who told %s about the %s and the %s?", "Has %s been to the %s before?"};

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

struct bench_words *bench_words_make(size_t words_count)
{
    struct bench_words *words = bench_memory(1, sizeof *words);
    double sum = 0;

    words->count = words_count;
    words->texts = bench_memory(words_count, sizeof *words->texts);
    words->sums = bench_memory(words_count, sizeof *words->sums);
    for (size_t i = 0; i < words_count; i++) {
        if (i < COUNT_OF(function_words)) {
            (void)snprintf(words->texts[i], WORD_BYTES, "%s", function_words[i]);
        } else {
            /* the digits of i in base 28, so that no two words are alike */
            size_t used = 0;
            for (size_t left = i; left > 0; left /= COUNT_OF(syllables)) {
                used += (size_t)snprintf(words->texts[i] + used, WORD_BYTES - used, "%s",
                    syllables[left % COUNT_OF(syllables)]);
            }
        }
        sum += 1 / pow((double)i + 2.7, 1.07); /* Mandelbrot's form */
        words->sums[i] = sum;
    }
    return words;
}

void bench_words_free(struct bench_words **words)
{
    if (*words) {
        free((*words)->texts);
        free((*words)->sums);
        free(*words);
        *words = NULL;
    }
}

/* The rank of a word, drawn by its weight. */
static size_t draw(const struct bench_words *words, uint64_t *state)
{
    double at = (double)(bench_next(state) >> 11) * 0x1p-53 * words->sums[words->count - 1];
    size_t low = 0;
    size_t high = words->count - 1;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (words->sums[middle] < at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

size_t bench_words_text(
    const struct bench_words *words, uint64_t *state, size_t size_min, char *out, size_t room)
{
    size_t size = 0;

    while (size < size_min && room - size > WORD_BYTES + 1) {
        size += (size_t)snprintf(
            out + size, room - size, "%s%s", size ? " " : "", words->texts[draw(words, state)]);
    }
    return size;
}

/* Somebody asks about what is neither in every text nor in none: skip the function words. */
static const char *draw_subject(const struct bench_words *words, uint64_t *state)
{
    size_t rank;

    do {
        rank = draw(words, state);
    } while (rank < COUNT_OF(function_words));
    return words->texts[rank];
}

size_t bench_words_question(
    const struct bench_words *words, uint64_t *state, char *out, size_t room)
{
    const char *pattern = questions[bench_next(state) % COUNT_OF(questions)];
    size_t size = 0;

    for (; *pattern && room - size > WORD_BYTES; pattern++) {
        if (pattern[0] == '%' && pattern[1] == 's') {
            size += (size_t)snprintf(out + size, room - size, "%s", draw_subject(words, state));
            pattern++;
        } else {
            out[size++] = *pattern;
        }
    }
    return size;
}
