/* Any bytes as tokenizer.json, and after a NUL any bytes as a text. Without a tokenizer in front,
 * the text goes to small ones. Ids are in range, they decode, and a stream tells whole
 * characters. */
#include "paramem/tokenizer_internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char bytes_json[] =
    "{\"added_tokens\":[{\"id\":9,\"content\":\"<a>\",\"special\":true,\"lstrip\":true},"
    "{\"id\":10,\"content\":\"ab\",\"single_word\":true,\"normalized\":true}],"
    "\"normalizer\":{\"type\":\"NFC\"},"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},"
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"unk_token\":\"?\",\"vocab\":{\"?\":0,"
    "\"a\":1,\"b\":2,\"\xc4\xa0\":3,\"\xc4\xa0"
    "a\":4,\"\xc3\x83\":5,\"aa\":6,\"aaa\":7,\"\xc3\xb0\":8},"
    "\"merges\":[\"a a\",\"aa a\",\"\xc4\xa0 a\"]}}";
static const char pieces_json[] =
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":"
    "\"\xe2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":"
    "\"\xe2\x96\x81\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
    "\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
    "\"model\":{\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"?\",\"vocab\":{\"?\":0,"
    "\"<0xF0>\":1,\"<0x9F>\":2,\"<0x98>\":3,\"<0x80>\":4,\"\xe2\x96\x81\":5,\"a\":6,"
    "\"\xe2\x96\x81"
    "a\":7},\"merges\":[\"\xe2\x96\x81 a\"]}}";

static bool whole_characters(struct memos_bytes text)
{
    const uint8_t *at = text.data;
    for (size_t i = 0; i < text.size;) {
        size_t step = memos_bytes_utf8_sequence(memos_bytes_make(at + i, text.size - i));
        step = at[i] == 0 ? 1 : step;
        if (step == 0) {
            return false;
        }
        i += step;
    }
    return true;
}

static void check_ids(const struct paramem_tokenizer *with, const struct paramem_ids *ids)
{
    struct memos_buffer text = memos_buffer_make((size_t)1 << 26), piece = text;
    struct paramem_stream stream = paramem_stream_of(with, false);
    for (size_t i = 0; i < ids->count; i++) {
        memos_buffer_reset(&piece);
        memos_assert(ids->ids[i] < with->lexicon.ids_end);
        memos_assert(paramem_stream_next(&stream, ids->ids[i], &piece, NULL) == MEMOS_OK);
        memos_assert(whole_characters(memos_buffer_view(&piece)));
    }
    memos_assert(
        paramem_tokenizer_decode(with, ids->ids, ids->count, false, &text, NULL) == MEMOS_OK);
    memos_assert(whole_characters(memos_buffer_view(&text)));
    memos_buffer_free(&text);
    memos_buffer_free(&piece);
}

static struct paramem_tokenizer *parse(struct memos_bytes json)
{
    struct paramem_tokenizer *with = NULL;
    struct paramem_tokenizer_files files = {.json = json};
    enum memos_status status = paramem_tokenizer_parse(&files, &with, NULL);
    memos_assert((status == MEMOS_OK) == (with != NULL));
    return with;
}

static void check(const struct paramem_tokenizer *with, struct memos_bytes text)
{
    for (unsigned flags = 0; with && flags < 4; flags++) {
        struct paramem_ids ids = {0};
        if (paramem_tokenizer_encode(with, text, flags, &ids, NULL) == MEMOS_OK) {
            check_ids(with, &ids);
        }
        free(ids.ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct paramem_tokenizer *small[2]; /* made once: opening is slower than a text */
    const uint8_t *stop = size > 0 && data[0] == '{' ? memchr(data, 0, size) : NULL;
    if (!small[0]) {
        small[0] = parse(memos_bytes_of(bytes_json));
        small[1] = parse(memos_bytes_of(pieces_json));
        memos_assert(small[0] && small[1]);
    }
    if (stop) {
        size_t json = (size_t)(stop - data);
        struct paramem_tokenizer *with = parse(memos_bytes_make(data, json));
        check(with, memos_bytes_make(stop + 1, size - json - 1));
        paramem_tokenizer_close(&with);
    } else {
        check(small[0], memos_bytes_make(data, size));
        check(small[1], memos_bytes_make(data, size));
    }
    return 0;
}
