/* Any bytes as config.json and generation_config.json (a NUL between them), or as the metadata of a
 * GGUF file: what is read is within bounds, and a table of rotary positions can be made of it.
 */
#include "paramem/decoder_config.h"
#include "paramem/rope.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kern_ctx *context(void)
{
    static struct kern_ctx *ctx;
    if (!ctx) {
        struct kern_options options = {.backend = "ref", .threads = 1};
        memos_assert(kern_ctx_create(&options, &ctx, NULL) == MEMOS_OK);
    }
    return ctx;
}

static void config_check(const struct paramem_decoder_config *c)
{
    float cos[8 * PARAMEM_ROTARY_MAX / 2], sin[8 * PARAMEM_ROTARY_MAX / 2];
    memos_assert(c->heads % c->kv_heads == 0 && c->head_dim % 8 == 0 && c->head_dim > 0);
    memos_assert(c->head_dim <= PARAMEM_ROTARY_MAX && c->rope.rotary == c->head_dim);
    memos_assert(c->hidden <= PARAMEM_HIDDEN_MAX && c->vocab <= PARAMEM_VOCAB_MAX);
    memos_assert(c->window == 0 || c->window_from < c->layers);
    memos_assert(c->stop_count <= PARAMEM_STOP_IDS_MAX);
    for (size_t i = 0; i < c->stop_count; i++) {
        memos_assert(c->stop_ids[i] < c->vocab);
    }
    paramem_rope_fill(context(), &c->rope, NULL, 8, cos, sin);
    for (size_t i = 0; i < 8 * c->rope.rotary / 2; i++) {
        memos_assert(isfinite(cos[i]) && isfinite(sin[i]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct paramem_decoder_config config;
    struct paramem_gguf *gguf = NULL;
    if (size >= 4 && memcmp(data, "GGUF", 4) == 0) {
        if (paramem_gguf_parse(memos_bytes_make(data, size), "f", &gguf, NULL) == MEMOS_OK &&
            paramem_decoder_config_of_gguf(gguf, &config, NULL) == MEMOS_OK) {
            config_check(&config);
        }
        paramem_gguf_close(&gguf);
        return 0;
    }
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    size_t first = end ? (size_t)(end - data) : size;
    struct memos_bytes generation =
        end ? memos_bytes_make(end + 1, size - first - 1) : memos_bytes_make(NULL, 0);
    if (paramem_decoder_config_parse(memos_bytes_make(data, first), generation, &config, NULL) ==
        MEMOS_OK) {
        config_check(&config);
    }
    return 0;
}
