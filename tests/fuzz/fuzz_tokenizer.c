/* Any bytes as tokenizer.json, and after a NUL any bytes as a text. Without a tokenizer in front,
 * the text goes to a small one. Ids are in range, and a text that is cut has the beginning of the
 * ids of the whole. */
#include "paramem/wordpiece.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char small[] =
    "{\"added_tokens\":[{\"id\":1,\"content\":\"[CLS]\"},{\"id\":3,\"content\":\"[C\"}],"
    "\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}"
    ","
    "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",2],\"cls\":[\"[CLS]\",1]},"
    "\"model\":{\"type\":\"WordPiece\",\"max_input_chars_per_word\":9,\"vocab\":{\"[UNK]\":0,"
    "\"[CLS]\":1,\"[SEP]\":2,\"[C\":3,\"a\":4,\"ab\":5,\"##b\":6,\"##ba\":7,\"e\":8,\"##e\":9,"
    "\"\xe6\xbc\xa2\":10,\"!\":11}}}";

static void check_text(struct paramem_wordpiece *wordpiece, struct memos_bytes text)
{
    size_t most = 4 * text.size + 2, count = 0, cut_count = 0;
    uint32_t *ids = calloc(most, sizeof *ids), cut_ids[5];
    bool cut = true;
    memos_assert(ids);
    if (paramem_wordpiece_encode(wordpiece, memos_bytes_make(NULL, 0), text, ids, most, &count,
            &cut, NULL) == MEMOS_OK) {
        /* A character gives at most four characters, and no more words or pieces than those. */
        memos_assert(count >= 2 && count <= most && !cut);
        for (size_t i = 0; i < count; i++) {
            memos_assert(ids[i] < paramem_wordpiece_ids_end(wordpiece));
        }
        memos_assert(paramem_wordpiece_encode(wordpiece, memos_bytes_make(NULL, 0), text, cut_ids,
                         5, &cut_count, &cut, NULL) == MEMOS_OK);
        memos_assert(cut == (count > 5) && cut_count == (cut ? 5 : count));
        memos_assert(memcmp(ids, cut_ids, (cut_count - 1) * sizeof *ids) == 0);
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *stop = size > 0 && data[0] == '{' ? memchr(data, 0, size) : NULL;
    struct memos_bytes json = memos_bytes_of(small), text = memos_bytes_make(data, size);
    struct paramem_wordpiece *wordpiece = NULL;
    uint8_t digest[32];
    if (stop) {
        json = memos_bytes_make(data, (size_t)(stop - data));
        text = memos_bytes_make(stop + 1, size - json.size - 1);
    }
    enum memos_status status = paramem_wordpiece_parse(json, &wordpiece, NULL);
    memos_assert((status == MEMOS_OK) == (wordpiece != NULL));
    if (wordpiece) {
        paramem_wordpiece_digest(wordpiece, digest);
        check_text(wordpiece, text);
    }
    paramem_wordpiece_close(&wordpiece);
    return 0;
}
