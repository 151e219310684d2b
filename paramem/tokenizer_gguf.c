#include "paramem/gguf.h"
#include "paramem/tokenizer_internal.h"

enum memos_status paramem_tokenizer_of_gguf(
    const struct paramem_gguf *gguf, struct paramem_tokenizer **out, struct memos_error *err)
{
    (void)gguf;
    (void)out;
    return memos_fail(err, MEMOS_UNSUPPORTED, "tokenizers from GGUF");
}
