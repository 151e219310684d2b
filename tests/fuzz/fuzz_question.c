/* Any bytes, taken for a text and for a question: shares lie between 0 and 1, no more words than
 * bytes, names sorted and bounded. */
#include "retrieval/question.h"
#include "retrieval/statement.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[RETRIEVAL_NAME_KEY_BYTES] = {3};
    static struct retrieval_statements *statements;
    static struct retrieval_questions *questions;
    static uint32_t names[RETRIEVAL_QUESTION_WORDS_MAX * RETRIEVAL_QUESTION_NAME_MAX];
    struct memos_bytes text = memos_bytes_make(data, size);
    struct retrieval_question question;

    if (!statements && retrieval_statements_create(&statements, NULL) != MEMOS_OK) {
        return 0;
    }
    if (!questions && retrieval_questions_create(&questions, NULL) != MEMOS_OK) {
        return 0;
    }
    struct retrieval_traits traits = retrieval_traits_of(statements, text);
    memos_assert(traits.words <= size);
    memos_assert(traits.question >= 0.0f && traits.question <= 1.0f);
    memos_assert(traits.statement >= 0.0f && traits.statement <= 1.0f);
    retrieval_question_read(questions, text, 1, &question);
    memos_assert(question.asking >= 0.0 && question.asking <= 1.0);
    memos_assert(question.dates_count <= RETRIEVAL_QUESTION_DATES_MAX);
    size_t count = retrieval_question_names(text, key, names);
    memos_assert(count <= sizeof names / sizeof names[0]);
    for (size_t i = 1; i < count; i++) {
        memos_assert(names[i] > names[i - 1]);
    }
    return 0;
}
