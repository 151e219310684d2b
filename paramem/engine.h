/* Generation with a host model: requests come and go, all that run share each forward pass.
 *
 * A step is one forward pass over a batch: every sequence that decodes gives one token, and what is
 * left of tokens_step is filled with chunks of prompts that still have to be read, the oldest
 * request's first (Agrawal et al., arXiv 2308.16369). Keys and values are kept in pages of
 * KERN_PAGE_TOKENS tokens (Kwon et al., arXiv 2309.06180). Whole pages are kept by the hash of what
 * they hold and all before it, so that a common beginning is computed once and lies once; pages
 * that nobody uses go by age. When there is no page for a token, the youngest request gives its
 * pages back, waits, and is read again with the tokens that it has: these do not change.
 *
 * The same seed gives the same tokens, alone or in a batch, whatever the chunks: sums of a row do
 * not depend on other rows, and the draw of token i is a function of the seed and i. On cuda sums
 * do depend on the number of rows in the last bits, so that there it holds but for near ties.
 *
 * Memory: all that a step needs is made at create; submit makes what its request needs; a step
 * allocates nothing (but for what the tokenizer puts a token's text together in).
 *
 * Threads: an engine belongs to one thread at a time; paramem_engine_cancel may be called by any
 * thread. Callbacks run inside paramem_engine_step (and destroy), on its thread; they may submit
 * and cancel, and nothing else.
 *
 * Errors: INVALID (a token out of range, sampling out of range), TOO_LARGE (prompt and max_tokens
 * exceed the context, and the request's policy is to refuse), BUSY (the queue is full), NO_MEMORY
 * (says what was needed), IO (the device failed and lost the weights: every request ends as FAILED,
 * and more are refused; destroy engine and model, call kern_reset, open the model again). */
#ifndef PARAMEM_ENGINE_H
#define PARAMEM_ENGINE_H

#include "paramem/kv_cube.h"
#include "paramem/model.h"
#include "paramem/tokenizer.h"
#include "proto/clock.h"

struct paramem_engine;

struct paramem_engine_options {
    struct paramem_model *model; /* borrowed; one engine at a time */
    enum kern_dtype kv;          /* F32, F16, BF16, E4M3; 0: F32 on float32 weights, else BF16 */
    size_t kv_bytes;             /* of pages; 0: as many as sequences_max contexts need, at most a
                                    quarter of the free memory. A request's context is at most what
                                    they hold */
    size_t sequences_max;        /* that run at once; 0: 16 */
    size_t tokens_step;          /* of one forward pass; 0: 512 */
    size_t requests_max;         /* that wait; 0: 1,024 */
    bool no_prefix_cache;
    const struct memos_clock *clock; /* copied; NULL: the system's */
};

enum paramem_finish {
    PARAMEM_FINISH_STOP = 1, /* a stop id, or a stop string */
    PARAMEM_FINISH_LENGTH,   /* max_tokens */
    PARAMEM_FINISH_CONTEXT,  /* the context is full */
    PARAMEM_FINISH_CANCELLED,
    PARAMEM_FINISH_DEADLINE,
    PARAMEM_FINISH_FAILED, /* see err */
};

/* When prompt and max_tokens do not fit the context. */
enum paramem_overflow {
    PARAMEM_OVERFLOW_REFUSE,   /* TOO_LARGE at submit */
    PARAMEM_OVERFLOW_CUT_FRONT /* the prompt's first tokens are dropped (a bos stays) until they do;
                                  of max_tokens 0, until a quarter of the context is left. Told in
                                  the result. TOO_LARGE when max_tokens leaves no prompt */
};

struct paramem_bias {
    uint32_t id;
    float bias;
};

struct paramem_sampling {
    float temperature;  /* 0: greedy */
    float top_p, min_p; /* 0 is taken as "no limit" for top_p */
    size_t top_k;       /* 0: no limit */
    float repetition;   /* 0 or 1: none; over prompt and answer */
    uint64_t seed;
    const struct paramem_bias *biases; /* added to logits; an id stands once; -INFINITY forbids */
    size_t biases_count;
};

/* A stop id is told too, as the last token: with its logprob, and with no text of its own. */
struct paramem_token {
    uint32_t id;
    struct memos_bytes text; /* what it completes: whole characters that no stop string can take
                                back; may be empty. With a request's last token comes what was held
                                back, if it ended by itself */
    float logprob;
    size_t top_count;
    const uint32_t *top_ids; /* largest first */
    const float *top_logprobs;
};

struct paramem_result {
    enum paramem_finish finish;
    size_t prompt_tokens; /* after the cut */
    size_t cached_tokens; /* of these, found in the cache */
    size_t placed_tokens; /* of these, put there from captures; the others were computed */
    size_t cut_tokens, tokens;
    const char *stop_string;                /* which, or NULL */
    uint64_t queued_us, first_us, total_us; /* waiting, to the first token, all */
    enum memos_status status;
    const struct memos_error *err; /* FAILED only */
};

/* A range of a prompt whose keys and values are taken out of a capture instead of being computed:
 * those of tokens that stood elsewhere when they were read, turned to where they stand now. Of what
 * stands before them in this prompt they know nothing (but what stood before them in the capture):
 * an approximation, measured in paramem/README.md ("Blocks beside each other"), which is only made
 * where it is asked for. The tokens that are computed see all tokens before them, these too. */
struct paramem_placed {
    /* Sealed, of any type and backend; checked, if from outside. The struct is copied; its bytes
     * must stay as they are until on_done, for who loses its pages needs them again. `pinned`: they
     * are memory of kern_host_alloc. */
    const struct paramem_kv_cube *cube;
    bool pinned;
    size_t first_in_cube, tokens; /* which of its tokens */
    size_t at;        /* where the first of them stands in the prompt, which has the same ids */
    size_t recompute; /* how many of them, from the first on, are computed after all (Hu et al.,
                         arXiv 2410.15332); at most tokens */
};

#define PARAMEM_PLACED_MAX 1024
#define PARAMEM_STOPS_MAX 64
#define PARAMEM_STOP_BYTES 1024

struct paramem_request {
    const uint32_t *prompt; /* copied by submit, as is all below */
    size_t prompt_count;    /* at least 1 */
    size_t max_tokens;      /* 0: what the context holds */
    struct paramem_sampling sampling;
    const uint32_t *stop_ids; /* beside the model's own, unless no_model_stops */
    size_t stop_ids_count;
    bool no_model_stops;
    const char *const *stops; /* strings of 1 to PARAMEM_STOP_BYTES; the answer ends before them */
    size_t stops_count;       /* at most PARAMEM_STOPS_MAX */
    size_t top; /* logprobs of so many alternatives, at most KERN_TOP_MAX, and vocab */
    enum paramem_overflow overflow;
    uint64_t deadline_us; /* on the clock's mono_us; 0: none */
    /* Ranges of the prompt that come out of captures, at most PARAMEM_PLACED_MAX, by place, none in
     * another. The prompt's last token is computed in any case. What stands before the first of
     * them is exact, and shared as ever; from there on pages are found only by requests with the
     * same captures in the same places. */
    const struct paramem_placed *placed;
    size_t placed_count;
    uint64_t owner; /* whose text it is, for paramem_engine_drop; 0: nobody's */
    /* Each token, then once the end. Views die on return. */
    void (*on_token)(void *self, const struct paramem_token *token);
    void (*on_done)(void *self, const struct paramem_result *result);
    void *self;
};

MEMOS_MUST_USE enum memos_status paramem_engine_create(const struct paramem_engine_options *options,
    struct paramem_engine **out, struct memos_error *err);
/* Ends what runs as CANCELLED. Takes NULL. */
void paramem_engine_destroy(struct paramem_engine **engine);

/* With placed captures also INVALID (a range that the prompt or the capture has not, other ids, out
 * of order, not sealed), STALE (another model's), CORRUPT (this model's, with another shape),
 * TOO_LARGE (the prompt is never cut), NO_MEMORY (of the device, the first time). */
MEMOS_MUST_USE enum memos_status paramem_engine_submit(struct paramem_engine *engine,
    const struct paramem_request *request, uint64_t *out_id, struct memos_error *err);
/* Takes effect before the next step; any thread; unknown ids are ignored. */
void paramem_engine_cancel(struct paramem_engine *engine, uint64_t id);

/* One forward pass. *out_more: something still runs or waits. */
MEMOS_MUST_USE enum memos_status paramem_engine_step(
    struct paramem_engine *engine, bool *out_more, struct memos_error *err);

/* Log probabilities of ids[1..] given what stands before each: out (count - 1) float32 in host
 * memory; count at least 2. When ids are more than the context, windows of its length are read,
 * each beginning `overlap` tokens (less than the context) before the end of the one before: a token
 * is told by the first window that can, with at least overlap + 1 tokens before it (all of them in
 * the first window). Runs at once, whatever else is queued; requests may lose their pages to it, as
 * to one another. */
MEMOS_MUST_USE enum memos_status paramem_engine_score(struct paramem_engine *engine,
    const uint32_t *ids, size_t count, size_t overlap, float *out, struct memos_error *err);

/* The same of a text in which ranges come out of captures (paramem_request.placed): count at most
 * the context, and out[i] NaN where token i is in a range and so tells of none. With the errors of
 * submit. */
MEMOS_MUST_USE enum memos_status paramem_engine_score_placed(struct paramem_engine *engine,
    const uint32_t *ids, size_t count, const struct paramem_placed *placed, size_t placed_count,
    float *out, struct memos_error *err);

/* ---- texts read once ----------------------------------------------------------------------- */

/* Bytes of a capture (kv_cube.h) of so many tokens; 0: there is none of that type or length. */
size_t paramem_engine_capture_bytes(
    const struct paramem_engine *engine, size_t tokens, enum kern_dtype dtype);

struct paramem_capture {
    const uint32_t *ids; /* from the beginning of a context; at most paramem_engine_context */
    size_t count;
    size_t first;          /* the first of them that is kept, less than count, a multiple of
                              KERN_PAGE_TOKENS: the blocks before it are in a capture already */
    enum kern_dtype dtype; /* F32, F16, BF16 or E4M3 */
    void *memory;          /* paramem_engine_capture_bytes of count - first, 256-byte aligned; on
                              cuda from kern_host_alloc, or reading waits for every copy */
    uint64_t owner;        /* as of a request */
};

/* Read a text and keep its keys and values. All ids are read, and none is taken out of the cache,
 * for what is there was turned and rounded. *out views `memory`; it has no checksums until
 * paramem_kv_cube_seal. Runs at once, as paramem_engine_score does; what was read is in the cache
 * afterwards. The first call on cuda makes room on the device: NO_MEMORY. */
MEMOS_MUST_USE enum memos_status paramem_engine_capture(struct paramem_engine *engine,
    const struct paramem_capture *capture, struct paramem_kv_cube *out, struct memos_error *err);

struct paramem_attach {
    const struct paramem_kv_cube *cube;   /* of any type and backend; checked, if from outside */
    const struct paramem_attached *after; /* what was told of the capture that it continues, which
                                             was attached up to the block that it names; NULL: it
                                             begins a context */
    size_t tokens_max;                    /* no more of it than these; 0: all */
    bool pinned;                          /* its bytes are memory of kern_host_alloc */
    uint64_t owner;                       /* as of a request */
};

struct paramem_attached {
    size_t at;     /* where its first token stands */
    size_t tokens; /* of its beginning that are in the cache now, whole pages */
    size_t found;  /* of these, that were before */
    uint64_t bytes_copied;
    struct paramem_key key; /* in this cache, of the last of them and all before it */
};

/* Put a capture's whole blocks into the cache, turned to their positions, where every prompt that
 * begins with the same tokens finds them (cached_tokens), as far as it does; they go by age like
 * other pages. As many as there is room for that no request has. The cube's memory is not needed
 * afterwards. A capture as F32 gives what reading the text gives: to the bit where the backend is
 * the same and (kern_linear) sums do not depend on a pass's rows. Others were rounded, and so is
 * then what every such prompt is answered with: see paramem/README.md, "Texts read once".
 *
 * STALE: it is of another model. INVALID: the engine keeps no beginnings; it continues another one
 * and `after` is NULL, or the other way round. CORRUPT: it is of this model, with another shape, or
 * ids that it has not. NO_MEMORY, the first time. IO. */
MEMOS_MUST_USE enum memos_status paramem_engine_attach(struct paramem_engine *engine,
    const struct paramem_attach *attach, struct paramem_attached *out, struct memos_error *err);

/* What was kept for this owner's texts (0: for anybody's) is found by nobody any more: not what
 * requests computed, not what captures left and attached. What uses it now goes on. A beginning
 * that two owners' texts have in common belongs to who was first. */
void paramem_engine_drop(struct paramem_engine *engine, uint64_t owner);

/* Tokens that a request of this engine may have, prompt and answer. */
size_t paramem_engine_context(const struct paramem_engine *engine);
/* The type of its keys and values. */
enum kern_dtype paramem_engine_kv(const struct paramem_engine *engine);

struct paramem_engine_stats {
    uint64_t steps;
    uint64_t prompt_tokens; /* computed, again after a preemption too */
    uint64_t cached_tokens, placed_tokens, tokens, requests, preempted;
    uint64_t cancelled, failed; /* deadlines are among the cancelled */
    size_t running, waiting, pages_total, pages_used, pages_cached;
    uint64_t weight_bytes, kv_bytes, workspace_bytes;
};
void paramem_engine_stats(const struct paramem_engine *engine, struct paramem_engine_stats *out);

#endif
