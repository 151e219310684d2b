/* Any bytes, cut into words in a language that the first byte picks: words must be well-formed,
 * bounded, and never more than the bytes can hold. */
#include "retrieval/terms.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const tags[] = {"en", "fr", "ru", "ar", "hi", "zh", "tr", "ta"};
    static const uint8_t secret[32] = {7};
    struct memos_bytes language = memos_bytes_of(size > 0 ? tags[data[0] % 8] : "");
    struct memos_bytes text = memos_bytes_make(data, size);
    struct retrieval_words words;
    struct retrieval_word word;
    struct retrieval_terms *terms = NULL;
    size_t count = 0, terms_count;
    uint32_t length;

    retrieval_words_init(&words, text, retrieval_language_of(language));
    while (retrieval_words_next(&words, &word)) {
        memos_assert(word.size > 0 && word.size <= RETRIEVAL_WORD_BYTES_MAX);
        memos_assert(memos_bytes_utf8(memos_bytes_make(word.bytes, word.size)));
        count++;
    }
    memos_assert(count <= 2 * size);
    if (retrieval_terms_create(&terms, NULL) != MEMOS_OK) {
        return 0;
    }
    retrieval_terms_begin(terms, secret, language, size % 2 == 0);
    if (retrieval_terms_add(terms, text, NULL) == MEMOS_OK) {
        (void)retrieval_terms_finish(terms, &terms_count, &length);
        memos_assert(length == count && terms_count <= count);
    }
    retrieval_terms_destroy(&terms);
    return 0;
}
