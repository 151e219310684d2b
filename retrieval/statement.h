/* What kind of thing a text says, judged by its phrases: how much of it asks, whether it names a
 * time, and whether its author states something lasting about himself (a taste, a need, a limit).
 *
 * The lexicons are English, and were chosen on LoCoMo and PrefEval (retrieval/README.md): in other
 * languages a text has its length and its share of questions, and no more.
 *
 * Threads: a lexicon may be shared. */
#ifndef RETRIEVAL_STATEMENT_H
#define RETRIEVAL_STATEMENT_H

#include "retrieval/phrases.h"

/* Of a text longer than this only so much is looked at. */
#define RETRIEVAL_TRAITS_BYTES_MAX ((size_t)64 << 10)

struct retrieval_traits {
    uint32_t words;
    float question;  /* share of the words that stand in questions, 0..1 */
    bool time;       /* has an expression of time: "last week", "2022", "on Friday" */
    bool ask;        /* asks for something: "could you ...", "how ...?", "give me ..." */
    float statement; /* 1: surely states something lasting of its author; 0.25: maybe; 0 */
};

struct retrieval_statements;

MEMOS_MUST_USE enum memos_status retrieval_statements_create(
    struct retrieval_statements **out_statements, struct memos_error *err);
void retrieval_statements_destroy(struct retrieval_statements **statements); /* takes NULL */

/* Any bytes; linear in them. */
struct retrieval_traits retrieval_traits_of(
    const struct retrieval_statements *statements, struct memos_bytes text);

#endif
