#include "retrieval/question.h"

#include "retrieval/words.h"

#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define QUESTION_BYTES_MAX ((size_t)4096)
#define NAME_BYTES_MAX ((size_t)RETRIEVAL_QUESTION_NAME_MAX * (RETRIEVAL_WORD_BYTES_MAX + 1))

enum { WHEN, ADVICE, OWN, RECALL };

struct retrieval_questions {
    struct retrieval_phrases *phrases;
};

static const char when_text[] =
    "when|what (year|month|date|day|time)|which (year|month|day|date)"
    "|how (long|many (days|weeks|months|years|hours)|often|recently|old)";

#define RECOMMEND "recommend|recomend|reccommend|reccomend"
#define RECOMMENDS "recommend~|recomend~|reccommend~|reccomend~"
#define RECOMMENDED "recommended|recomended|reccommended|reccomended"
#define RECOMMENDATION                                                                             \
    "recommendation|recommendations|recomendation|recomendations|reccommendation|"                 \
    "reccommendations|reccomendation|reccomendations"

/* Words of advice, */
static const char advice_text[] =
    "(can|could|would|will|do|should|did) you (please|have|also)? _? (" RECOMMENDS
    "|suggest~|advise~|propose~|help~|give~|provide~|share~|create~|plan~|pick~|any~)"
    "|(you|you'd|you would) (" RECOMMEND "|suggest|advise)"
    "|(any|some|your) _{0,2} (idea|ideas|tip|tips|advice|suggestion|suggestions|" RECOMMENDATION
    "|option|options|thoughts|resources|way|ways)"
    "|(what|where|which|how|who) _{0,4} (should|could|can|might|do) (i|we)"
    "|what are (some|good)"
    "|need _{0,2} (" RECOMMENDATION "|suggestion|suggestions|idea|ideas|advice|tip|tips)"
    "|should (i|we)|(i|we) should|help me"
    "|(i'm|i am) _? (looking|considering|planning|thinking|trying|interested|hoping|in need)"
    "|(what|what is|what are|what would be) (the|a|some)? _{0,2} (best|good|great|better|fun|"
    "popular|effective|efficient|ideal|must-~|way|ways|options|things)"
    "|could there be a reason";

/* of the asker's own affairs, */
static const char own_text[] =
    "i|me|my|we|us|our|myself|i'm|i'll|i've|i'd|we're|we'll|we've|we'd|can you|could you|would you|"
    "you'd|you (recommend|suggest)|what are (some|good)";

/* not of what was said or done before. */
static const char recall_text[] =
    "remind|remember"
    "|you _? (" RECOMMENDED "|suggested|mentioned|told|said|gave|provided|listed|advised)"
    "|(previous|last|earlier|past) (chat|conversation|discussion|session|time)"
    "|(did|have|had|do|does|was|were|am) i|did (we|he|she|they)|how (many|much|long)";

enum memos_status retrieval_questions_create(
    struct retrieval_questions **out_questions, struct memos_error *err)
{
    static const struct retrieval_pattern patterns[] = {
        {WHEN, when_text},
        {ADVICE, advice_text},
        {OWN, own_text},
        {RECALL, recall_text},
    };
    struct retrieval_questions *questions = calloc(1, sizeof *questions);
    if (sodium_init() < 0 || !questions) {
        free(questions);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a lexicon");
    }
    enum memos_status status = retrieval_phrases_create(
        patterns, sizeof patterns / sizeof patterns[0], &questions->phrases, err);
    if (status != MEMOS_OK) {
        free(questions);
        return status;
    }
    *out_questions = questions;
    return MEMOS_OK;
}

void retrieval_questions_destroy(struct retrieval_questions **questions_in)
{
    struct retrieval_questions *questions = *questions_in;
    *questions_in = NULL;
    if (questions) {
        retrieval_phrases_destroy(&questions->phrases);
        free(questions);
    }
}

/* How much of the question asks, counted while its tokens go by. */
struct asking {
    uint32_t words_before; /* before the running sentence */
    uint32_t marked;       /* words in sentences with a question mark, so far */
    uint32_t words;        /* that ask */
    bool open;             /* the sentence has not said yet whether it is a command */
    bool command;
};

/* Does a word begin a command, or a question that may lack its mark? */
static bool is_command(const struct retrieval_token *token)
{
    static const char *const words[] = {"tell", "give", "list", "show", "describe", "summarise",
        "summarize", "explain", "name", "find", "recommend", "suggest", "help", "remind", "what",
        "who", "whom", "whose", "when", "where", "which", "why", "how"};
    size_t size = 0;
    while (size < token->size && size < RETRIEVAL_TOKEN_BYTES_MAX && token->bytes[size] != '\'') {
        size++;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strlen(words[i]) == size && memcmp(words[i], token->bytes, size) == 0) {
            return true;
        }
    }
    return false;
}

static void asking_end(struct asking *asking, const struct retrieval_sentences *sentences)
{
    if (asking->command || sentences->words_asking > asking->marked) {
        asking->words += sentences->words - asking->words_before;
    }
    asking->words_before = sentences->words;
    asking->marked = sentences->words_asking;
    asking->open = true;
    asking->command = false;
}

static void asking_step(struct asking *asking, const struct retrieval_sentences *sentences,
    const struct retrieval_token *token)
{
    if (token->word) {
        bool please = token->size == 6 && memcmp(token->bytes, "please", 6) == 0;
        asking->command = asking->command || (asking->open && is_command(token));
        asking->open = asking->open && please;
    } else if (!sentences->sentence_begun) {
        asking_end(asking, sentences);
    } else {
        asking->open = asking->open && (token->sign == '"' || token->sign == '\'');
    }
}

void retrieval_question_read(const struct retrieval_questions *questions, struct memos_bytes text,
    int64_t now_us, struct retrieval_question *out)
{
    struct asking asking = {.open = true};
    struct retrieval_sentences sentences;
    struct retrieval_phrase_walk walk;
    struct retrieval_token token;
    unsigned found = 0;

    text.size = text.size < QUESTION_BYTES_MAX ? text.size : QUESTION_BYTES_MAX;
    retrieval_sentences_init(&sentences, text);
    retrieval_phrases_begin(questions->phrases, &walk);
    while (retrieval_sentences_next(&sentences, &token)) {
        found |= retrieval_phrases_step(&walk, &token);
        asking_step(&asking, &sentences, &token);
    }
    asking_end(&asking, &sentences);
    out->asking =
        sentences.words > 0 ? fmin(1.0, 2.0 * (double)asking.words / (double)sentences.words) : 0.0;
    out->when = (found >> WHEN & 1) != 0;
    out->advice = asking.words > 0 && (found >> ADVICE & 1) != 0 && (found >> OWN & 1) != 0 &&
                  (found >> RECALL & 1) == 0;
    out->dates_count = retrieval_dates_find(text, now_us, out->dates, RETRIEVAL_QUESTION_DATES_MAX);
}

/* ---- names --------------------------------------------------------------------------------- */

void retrieval_name_key(const uint8_t *secret, uint8_t out[RETRIEVAL_NAME_KEY_BYTES])
{
    static const uint8_t purpose[] = "memos names 1";
    (void)crypto_generichash(
        out, RETRIEVAL_NAME_KEY_BYTES, purpose, sizeof purpose - 1, secret, 32);
}

static bool is_text(struct memos_bytes bytes, const char *text)
{
    size_t size = strlen(text);
    const uint8_t *at = bytes.data;
    for (size_t i = 0; i < bytes.size && i < size; i++) {
        uint8_t byte = at[i] >= 'A' && at[i] <= 'Z' ? at[i] | 0x20 : at[i];
        if (byte != (uint8_t)text[i]) {
            return false;
        }
    }
    return bytes.size == size;
}

bool retrieval_name_is_machine(struct memos_bytes name)
{
    return is_text(name, "assistant") || is_text(name, "system") || is_text(name, "tool");
}

/* The words of a name, joined: what is hashed. Words are folded as the index folds them, so that
 * case and accents do not part a name from the question that says it. */
struct name {
    uint8_t bytes[NAME_BYTES_MAX];
    size_t size;
};

static void name_add(struct name *name, const struct retrieval_word *word)
{
    size_t size = word->size;
    if (size > 2 && word->bytes[size - 2] == '\'' && word->bytes[size - 1] == 's') {
        size -= 2; /* a possessive */
    } else if (size > 1 && word->bytes[size - 1] == '\'') {
        size--;
    }
    if (name->size + size + 1 <= sizeof name->bytes) {
        memcpy(name->bytes + name->size, word->bytes, size);
        name->size += size;
        name->bytes[name->size++] = ' ';
    }
}

static uint32_t name_hash(const struct name *name, const uint8_t *key)
{
    uint8_t hash[crypto_shorthash_BYTES];
    uint32_t value;
    (void)crypto_shorthash(hash, name->bytes, name->size, key);
    memcpy(&value, hash, sizeof value);
    return value ? value : 1;
}

uint32_t retrieval_name_hash(const uint8_t *key, struct memos_bytes text)
{
    struct retrieval_words words;
    struct retrieval_word word;
    struct name name = {.size = 0};

    if (is_text(text, "user") || retrieval_name_is_machine(text)) {
        return 0;
    }
    retrieval_words_init(&words, text, retrieval_language_of(memos_bytes_of("en")));
    while (retrieval_words_next(&words, &word)) {
        name_add(&name, &word);
    }
    return name.size > 0 ? name_hash(&name, key) : 0;
}

static int hash_compare(const void *a, const void *b)
{
    uint32_t left, right;
    memcpy(&left, a, sizeof left);
    memcpy(&right, b, sizeof right);
    return (left > right) - (left < right);
}

size_t retrieval_question_names(struct memos_bytes text, const uint8_t *key, uint32_t *out)
{
    struct retrieval_word last[RETRIEVAL_QUESTION_NAME_MAX]; /* the words before, as a ring */
    struct retrieval_words words;
    size_t count = 0, seen = 0, unique = 0;

    retrieval_words_init(&words, text, retrieval_language_of(memos_bytes_of("en")));
    while (seen < RETRIEVAL_QUESTION_WORDS_MAX &&
           retrieval_words_next(&words, &last[seen % RETRIEVAL_QUESTION_NAME_MAX])) {
        seen++;
        for (size_t size = 1; size <= RETRIEVAL_QUESTION_NAME_MAX && size <= seen; size++) {
            struct name name = {.size = 0};
            for (size_t i = seen - size; i < seen; i++) {
                name_add(&name, &last[i % RETRIEVAL_QUESTION_NAME_MAX]);
            }
            out[count++] = name_hash(&name, key);
        }
    }
    qsort(out, count, sizeof *out, hash_compare);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || out[i] != out[i - 1]) {
            out[unique++] = out[i];
        }
    }
    return unique;
}
