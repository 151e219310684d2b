/* Phrases: patterns over the words of a text, all looked for in one pass.
 *
 * A pattern is an expression whose letters are words:
 *
 *   prefer            this word
 *   recommend~  ~ly   a word that begins, that ends so
 *   _                 any word without an apostrophe;  <any>: any word
 *   <number> <year> <short> <ordinal>   digits; 1900 to 2099; 1 to 4 digits; 27, 27th
 *   <?>  <sign>       a question mark; any sign that ends no sentence
 *   <start>           the beginning of the text
 *   a b   a|b   (a)   one after the other, with a blank between; either; together
 *   a?  a*  a{1,3}    at most once; any number of times; one to three times
 *
 * All patterns of a set become one automaton by Glushkov's construction (one state for each word
 * of a pattern), which is run bit-parallel: a word costs one look-up and some ANDs and ORs, however
 * many patterns there are. Patterns are ours: a wrong one fails an assertion.
 *
 * Sources: Glushkov, "The abstract theory of automata", 1961; Navarro and Raffinot, "Compact DFA
 * representation for fast regular expression search", 2001.
 *
 * Threads: a set may be shared once it is made; a walk belongs to one thread. */
#ifndef RETRIEVAL_PHRASES_H
#define RETRIEVAL_PHRASES_H

#include "retrieval/sentences.h"

#define RETRIEVAL_PHRASE_STATES_MAX 1024
#define RETRIEVAL_PHRASE_SETS_MAX 32 /* patterns have numbers below this */

struct retrieval_phrases;

struct retrieval_pattern {
    unsigned number; /* several may share one: either is meant */
    const char *text;
};

/* NO_MEMORY. */
MEMOS_MUST_USE enum memos_status retrieval_phrases_create(const struct retrieval_pattern *patterns,
    size_t count, struct retrieval_phrases **out_phrases, struct memos_error *err);
void retrieval_phrases_destroy(struct retrieval_phrases **phrases); /* takes NULL */

/* Where a walk through a text stands. */
struct retrieval_phrase_walk {
    const struct retrieval_phrases *phrases;
    uint64_t active[RETRIEVAL_PHRASE_STATES_MAX / 64];
};

void retrieval_phrases_begin(
    const struct retrieval_phrases *phrases, struct retrieval_phrase_walk *walk);

/* Step over a token; the patterns (bits 1 << number) that end with it. */
unsigned retrieval_phrases_step(
    struct retrieval_phrase_walk *walk, const struct retrieval_token *token);

#endif
