/* Words that carry a question's grammar, not its subject.
 *
 * They are rare in some texts (few chat turns hold "which"), so that their rarity alone would make
 * them weigh as much as a name does. English's closed classes: pronouns, auxiliaries, articles,
 * prepositions, conjunctions, question words. "may" is not among them, as it is a month as well.
 * retrieval/README.md has the measurements. */
#include "retrieval/terms.h"

#include <stdlib.h>
#include <string.h>

#define LIGHT_BYTES_MAX 10

/* Sorted, for the search below. */
static const char light[][LIGHT_BYTES_MAX + 1] = {"a", "about", "above", "after", "again",
    "against", "all", "am", "an", "and", "any", "are", "aren't", "as", "at", "be", "because",
    "been", "before", "being", "below", "between", "both", "but", "by", "can", "can't", "could",
    "couldn't", "did", "didn't", "do", "does", "doesn't", "doing", "don't", "done", "down",
    "during", "each", "few", "for", "from", "further", "had", "hadn't", "has", "hasn't", "have",
    "haven't", "having", "he", "he's", "her", "here", "hers", "herself", "him", "himself", "his",
    "how", "how's", "i", "i'd", "i'll", "i'm", "i've", "if", "in", "into", "is", "isn't", "it",
    "it's", "its", "itself", "let's", "me", "might", "more", "most", "must", "my", "myself", "no",
    "nor", "not", "of", "off", "on", "once", "only", "or", "other", "ought", "our", "ours",
    "ourselves", "out", "over", "own", "same", "shall", "she", "she's", "should", "shouldn't", "so",
    "some", "such", "than", "that", "that's", "the", "their", "theirs", "them", "themselves",
    "then", "there", "there's", "these", "they", "they'll", "they're", "they've", "this", "those",
    "through", "to", "too", "under", "until", "up", "us", "very", "was", "wasn't", "we", "we'll",
    "we're", "we've", "were", "weren't", "what", "what's", "when", "when's", "where", "where's",
    "which", "while", "who", "who's", "whom", "whose", "why", "will", "with", "won't", "would",
    "wouldn't", "you", "you'd", "you'll", "you're", "you've", "your", "yours", "yourself",
    "yourselves"};

static int light_compare(const void *key, const void *element)
{
    const struct retrieval_word *word = key;
    const char *other = element;
    return memos_bytes_compare(memos_bytes_make(word->bytes, word->size), memos_bytes_of(other));
}

bool retrieval_word_light(const struct retrieval_word *word)
{
    return word->size <= LIGHT_BYTES_MAX &&
           bsearch(word, light, sizeof light / sizeof light[0], sizeof light[0], light_compare);
}
