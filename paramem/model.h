/* A host model: a decoder of the Llama and Qwen families, from the files that people have.
 *
 * A path is a Hugging Face folder (config.json, generation_config.json, model.safetensors or shards
 * with their index, tokenizer files) or a GGUF file. Architectures: LlamaForCausalLM (SmolLM too),
 * MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM; in GGUF "llama",
 * "qwen2", "qwen3". Another is refused by name with the list of those that work.
 *
 * Weights are mapped, checked (presence, shape, dtype, finite) and packed once for the context's
 * products, layer by layer; the pages of what was packed are given back, so that a model is in
 * memory once. Embeddings are read in place from the map on a CPU, which stays open for them.
 *
 * As stored means: BF16, Q8_0, Q4_0, Q4_K, Q6_K and F32 as they are; F16 as F32, since no product
 * here has f16 factors and bf16 would lose three of its bits. Query, key and value are one matrix,
 * gate and up another: where a file gives their parts several types (Q4_K_M has every second
 * layer's value in Q6_K), blocks become Q8_0 (the finest, whose rounding is far below that of what
 * it holds), others F32.
 *
 * Threads: read-only after open; used by one engine at a time, on its kern_ctx.
 *
 * Errors: NOT_FOUND (which file), CORRUPT (file, tensor or key, and what was expected), UNSUPPORTED
 * (architecture or feature by name, with what works), NO_MEMORY (how much was needed), CANCELLED.
 */
#ifndef PARAMEM_MODEL_H
#define PARAMEM_MODEL_H

#include "kernels/decoder.h"

enum paramem_architecture {
    PARAMEM_LLAMA = 1,
    PARAMEM_MISTRAL,
    PARAMEM_QWEN2,
    PARAMEM_QWEN3,
};

enum paramem_rope_scaling {
    PARAMEM_ROPE_DEFAULT,
    PARAMEM_ROPE_LINEAR,
    PARAMEM_ROPE_DYNAMIC,
    PARAMEM_ROPE_LLAMA3,
    PARAMEM_ROPE_YARN,
};

struct paramem_rope_config {
    enum paramem_rope_scaling scaling;
    double theta, factor;
    double low_freq_factor, high_freq_factor;      /* llama3 */
    double beta_fast, beta_slow, attention_factor; /* yarn; attention_factor 0: derived */
    double mscale, mscale_all_dim;                 /* yarn */
    bool truncate;                                 /* yarn */
    size_t original_positions;                     /* llama3, yarn, dynamic */
    size_t rotary;                                 /* numbers of a head that turn */
};

#define PARAMEM_STOP_IDS_MAX 16

struct paramem_decoder_config {
    enum paramem_architecture architecture;
    size_t hidden, inner, layers, heads, kv_heads, head_dim, vocab, positions_max;
    size_t window;      /* sliding window in tokens; 0: none */
    size_t window_from; /* layers from this one on have it */
    double norm_eps;
    struct paramem_rope_config rope;
    bool tied; /* the head is the table of embeddings */
    bool qkv_bias, out_bias, ffn_bias, qk_norm;
    /* generation_config.json, for who asks for nothing else; UINT32_MAX: none */
    uint32_t bos_id, pad_id, stop_ids[PARAMEM_STOP_IDS_MAX];
    size_t stop_count;
    double temperature, top_p, min_p, repetition;
    size_t top_k;
};

/* What a loader tells every now and then; false: stop (CANCELLED). */
typedef bool paramem_progress(void *self, uint64_t done_bytes, uint64_t total_bytes);

struct paramem_model_options {
    const char *path;
    struct kern_ctx *ctx;       /* borrowed for as long as the model lives */
    enum kern_dtype weights;    /* 0: as stored (F16 as F32); else F32, BF16, I8, Q8_0, Q4_0 */
    size_t context_max;         /* positions that rotary tables are made for; 0: the model's own */
    bool ids_only;              /* no tokenizer is opened: for tests and benchmarks */
    paramem_progress *progress; /* or NULL; told after every layer */
    void *self;
};

struct paramem_model;

MEMOS_MUST_USE enum memos_status paramem_model_open(const struct paramem_model_options *options,
    struct paramem_model **out_model, struct memos_error *err);
void paramem_model_close(struct paramem_model **model); /* takes NULL */

struct paramem_model_info {
    const char *architecture;  /* "LlamaForCausalLM" */
    const char *format;        /* "safetensors", "gguf" */
    const char *weights;       /* "bf16", "q4_0"; of the largest part */
    const char *chat_template; /* NULL: the files have none */
    const struct paramem_decoder_config *config;
    size_t context_max;
    uint64_t parameters;     /* tied ones once */
    uint64_t weight_bytes;   /* of all in memory, and of the table of embeddings where it lies */
    uint8_t fingerprint[32]; /* BLAKE2b-256 over architecture, its numbers, weights as stored and
                                tokenizer: what is bound to a model carries it */
};
/* Texts live as long as the model. */
void paramem_model_describe(const struct paramem_model *model, struct paramem_model_info *out);

/* The 32 bytes of info.fingerprint, from the files alone: every weight is read and checked, nothing
 * is packed. progress may be NULL. */
MEMOS_MUST_USE enum memos_status paramem_model_fingerprint(const char *path,
    paramem_progress *progress, void *self, uint8_t out[32], struct memos_error *err);

/* Read the configuration alone, nothing mapped but headers: for `model show` and for planning. */
struct paramem_model_summary {
    struct paramem_decoder_config config;
    uint64_t parameters, file_bytes;
    char architecture[64], format[16], weights[16];
};
MEMOS_MUST_USE enum memos_status paramem_model_inspect(
    const char *path, struct paramem_model_summary *out, struct memos_error *err);

#endif
