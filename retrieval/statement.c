#include "retrieval/statement.h"

#include <stdlib.h>

/* Statements and requests come early in a text; what comes later is mostly quoted or pasted. */
#define EARLY_CHARACTERS 1000

enum { TIME, STRONG, WEAK, ASK };

struct retrieval_statements {
    struct retrieval_phrases *phrases;
};

/* ---- expressions of time ------------------------------------------------------------------- */

#define NUMBER                                                                                     \
    "(a|an|one|two|three|four|five|six|seven|eight|nine|ten|few|couple of|several|<number>)"
#define MONTH "(january|february|march|april|june|july|august|september|october|november|december)"
#define WEEKDAY "(monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
#define UNIT                                                                                       \
    "(day|days|night|nights|week|weeks|weekend|weekends|month|months|year|years|summer|summers|"   \
    "winter|winters|spring|springs|fall|falls|autumn|autumns|semester|semesters|season|seasons)"

static const char time_text[] = "yesterday|today|tonight|tomorrow|recently|lately"
                                "|(last|next|this|past) (few|couple of)? (" UNIT "|" WEEKDAY
                                "|" MONTH "|morning|evening|afternoon)"
                                "|(for|since|in) the? (last|past)? " NUMBER " " UNIT "|" NUMBER
                                " " UNIT " (ago|back|before|later|now)"
                                "|" WEEKDAY "|" MONTH "|may <short>|<ordinal> of? may|in may|<year>"
                                "|the other day|a while ago|just (got|finished|started|came)";

/* ---- tastes, needs and limits -------------------------------------------------------------- */

/* What may stand between "I" and what is said of him. */
#define ADVERB                                                                                     \
    "(~ly|also|just|still|only|much|do|would|rather|try to|tend to|have to|need to|get|very|so|"   \
    "quite|deep|no|zero|little|strong|strict|severe|always|never|usually)"
#define STRONG_VERB                                                                                \
    "(prefer|hate|dislike|avoid|detest|despise|loathe|adore|refuse|favor|favour|value|fear|"       \
    "cherish|prioritise|prioritize|oppose|abhor|resent|object to|tolerate|require"                 \
    "|(can't|cannot|can not) (stand|bear|tolerate|eat|drink|consume|wear|use)"                     \
    "|(don't|do not) (like|enjoy|use|wear|watch|eat|drink|consume|buy|read|want|believe|care for|" \
    "support|listen)"                                                                              \
    "|never|exclusively|strictly|only _|stick to|steer clear|stay away|adhere to|follow (a|an)|"   \
    "gravitate|care about|learn best|work best|struggle with|suffer from|believe in|always)"
#define WEAK_VERB                                                                                  \
    "(like|love|enjoy|appreciate|crave|limit|usually|typically|tend to|need|want|don't|do not|"    \
    "won't|can't|cannot|am used to)"
#define STRONG_STATE                                                                               \
    "(allergic|intolerant|vegan|vegetarian|pescatarian|sensitive|afraid|scared|terrified|"         \
    "uncomfortable|averse|opposed|against|uninterested|claustrophobic"                             \
    "|not (a fan|comfortable|fond|interested|into|keen)"                                           \
    "|(a|an) _? (vegan|vegetarian|pescatarian|minimalist|introvert|believer|supporter|advocate|"   \
    "follower|traditionalist|environmentalist)"                                                    \
    "|on (a|an) _* ~diet|on (a|an) _* diet)"
#define WEAK_STATE                                                                                 \
    "(committed|passionate|partial|fascinated|bothered|anxious|drawn to|interested|comfortable|"   \
    "(a|an) _? (fan|lover|enthusiast|person))"
#define STRONG_HAVE                                                                                \
    "(aversion|allergy|allergies|phobia|fear|dislike|distaste|preference|intolerance|hatred|"      \
    "disdain|no interest|little interest|sensitivity|sensitive|tolerance|objection|objections|"    \
    "stance|condition)"
#define WEAK_HAVE "(interest|issue|issues|passion|love)"

#define SELF(verb, state, have)                                                                    \
    "(i|we) (am|have)? " ADVERB "* " verb                                                          \
    "|(i'm|we'm|(i|we) (am|are|get|feel|became)) _{0,2} " state                                    \
    "|(i've|we've|(i|we) (have|had)) _{0,4} " have

static const char strong_text[] = SELF(STRONG_VERB, STRONG_STATE,
    STRONG_HAVE) "|my _{0,2} "
                 "(preference|preferences|dislike|aversion|allergy|allergies|diet|religion|belief|"
                 "beliefs|phobia|fear|priority)"
                 "|allergic to|can't stand|aversion to|phobia of|not a fan|(turn|turns) me off"
                 "|(bother|bothers) me|(doesn't|don't|do not|does not) interest me"
                 "|(make|makes) me _? (uncomfortable|anxious|sick|nervous|uneasy)"
                 "|(i|we) find <any>{1,8} "
                 "(hard|difficult|boring|dull|distressing|unsettling|uncomfortable|"
                 "unpleasant|ineffective|overwhelming|tedious|distracting|unappealing|offensive|"
                 "stressful|"
                 "disturbing)";

static const char weak_text[] =
    SELF(WEAK_VERB, WEAK_STATE, WEAK_HAVE) "|my _{0,2} (favorite|favorites|favourite|favourites)";

/* ---- requests ------------------------------------------------------------------------------ */

static const char ask_text[] =
    "(can|could|would|will) you"
    "|(what|which|how|where|who|why) (<any>|<sign>)* <?>"
    "|<start> (please|give|write|tell|show|list|explain|describe|make|create|suggest|help|provide|"
    "generate|summarise|summarize|translate|rewrite|do|is|are|should)"
    "|do you have|any (ideas|tips|suggestions|advice|recommendations)"
    "|i'm looking for|i am looking for|help me|i need (some|help|advice)";

enum memos_status retrieval_statements_create(
    struct retrieval_statements **out_statements, struct memos_error *err)
{
    static const struct retrieval_pattern patterns[] = {
        {TIME, time_text},
        {STRONG, strong_text},
        {WEAK, weak_text},
        {ASK, ask_text},
    };
    struct retrieval_statements *statements = calloc(1, sizeof *statements);
    if (!statements) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a lexicon");
    }
    enum memos_status status = retrieval_phrases_create(
        patterns, sizeof patterns / sizeof patterns[0], &statements->phrases, err);
    if (status != MEMOS_OK) {
        free(statements);
        return status;
    }
    *out_statements = statements;
    return MEMOS_OK;
}

void retrieval_statements_destroy(struct retrieval_statements **statements_in)
{
    struct retrieval_statements *statements = *statements_in;
    *statements_in = NULL;
    if (statements) {
        retrieval_phrases_destroy(&statements->phrases);
        free(statements);
    }
}

struct retrieval_traits retrieval_traits_of(
    const struct retrieval_statements *statements, struct memos_bytes text)
{
    struct retrieval_sentences sentences;
    struct retrieval_phrase_walk walk;
    struct retrieval_token token;
    unsigned found = 0;

    text.size = text.size < RETRIEVAL_TRAITS_BYTES_MAX ? text.size : RETRIEVAL_TRAITS_BYTES_MAX;
    retrieval_sentences_init(&sentences, text);
    retrieval_phrases_begin(statements->phrases, &walk);
    while (retrieval_sentences_next(&sentences, &token)) {
        unsigned ends = retrieval_phrases_step(&walk, &token);
        found |= sentences.characters <= EARLY_CHARACTERS ? ends : ends & (1u << TIME);
    }
    return (struct retrieval_traits){
        .words = sentences.words,
        .question =
            sentences.words > 0 ? (float)sentences.words_asking / (float)sentences.words : 0.0f,
        .time = (found >> TIME & 1) != 0,
        .ask = (found >> ASK & 1) != 0,
        .statement = found >> STRONG & 1 ? 1.0f
                     : found >> WEAK & 1 ? 0.25f
                                         : 0.0f,
    };
}
