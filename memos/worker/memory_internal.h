/* What the files behind memory.h share. */
#ifndef MEMOS_WORKER_MEMORY_INTERNAL_H
#define MEMOS_WORKER_MEMORY_INTERNAL_H

#include "memos/worker/cache.h"
#include "memos/worker/catalogue.h"
#include "memos/worker/cost.h"
#include "memos/worker/prompt.h"

#include <pthread.h>

enum { WORKER_MODELS_MAX = 16, WORKER_USES_PLACES = 4096, WORKER_REFUSED_MAX = 64 };

/* How often captures of the same cubes in the same place were used. */
struct worker_uses {
    uint64_t key[WORKER_USES_PLACES];
    uint32_t count[WORKER_USES_PLACES];
};

/* Payloads that were refused, and why: they are not fetched again. */
struct worker_refused {
    uint8_t hash[WORKER_REFUSED_MAX][MEMCUBE_HASH_BYTES];
    struct memos_error why[WORKER_REFUSED_MAX];
    size_t count; /* ever; the newest replaces the oldest */
};

struct worker_memory {
    struct memos_clock clock;
    size_t hot_uses;
    struct worker_cache *cache;
    struct worker_catalogue *catalogue;
    pthread_mutex_t lock; /* Sync: of all below */
    struct worker_cost costs[WORKER_MODELS_MAX];
    uint8_t models[WORKER_MODELS_MAX][32];
    size_t models_count;
    struct worker_uses uses;
    struct worker_refused refused;
    struct worker_memory_stats stats; /* without bytes_held */
    uint64_t message_bytes_max;       /* that the broker takes; 0: not asked yet */
};

/* A capture that a prompt may take. */
struct worker_part {
    const struct worker_kept *kept; /* held */
    struct memcube_ref ref;
    size_t at;     /* where its first token stands; independent: not set */
    size_t tokens; /* of it that the prompt has */
    size_t placed; /* independent: of which cube of the layout */
    enum worker_source source;
    uint64_t bytes, load_us; /* fetched for this prompt */
};

/* Captures of the prompt's beginning, each of which continues the one before. */
struct worker_chain {
    struct worker_part parts[WORKER_CHAIN_MAX];
    size_t count;
    size_t tokens; /* of all */
};

struct worker_prompt_private {
    char *space; /* in the arena; "": none */
    bool wants_capture, is_independent;
    enum kern_dtype dtype; /* of what is captured */
    unsigned captures;     /* as Memory.captures */
    size_t recompute;
    struct worker_notes notes;
    struct worker_texts texts;
    struct worker_layout layout;
    size_t covered;          /* tokens that captures hold which are not stale, loaded or not */
    struct worker_base base; /* that a capture of all of the memory may continue; tokens 0: none */
    struct worker_chain prefix; /* count 0: none */
    struct paramem_attached attached[WORKER_CHAIN_MAX];
    uint64_t attach_us[WORKER_CHAIN_MAX];
    size_t attached_count, attached_tokens;
    struct worker_known later[WORKER_CHAIN_MAX]; /* ref, hash and bytes of captures that are worth
                                                    having here */
    size_t later_count;
    struct worker_part *apart; /* (layout.placed_count) in the arena */
    size_t apart_count;
    struct paramem_placed *placed;        /* what of them the engine is given */
    const struct worker_part **placed_of; /* each one's part */
};

/* The costs of this model. Under the lock. */
struct worker_cost *worker_memory_cost(
    struct worker_memory *memory, const struct worker_host *host);

/* Find and fetch what captures hold of the prompt (fusion.c). Never fails: notes say what was not
 * possible. */
void worker_fusion_find(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_fetch *fetch, struct worker_prompt *prompt);
void worker_fusion_release(struct worker_memory *memory, struct worker_prompt *prompt);

/* Is this capture of the model that runs, and of its shape? STALE, CORRUPT. */
MEMOS_MUST_USE enum memos_status worker_fusion_check(
    const struct worker_host *host, const struct paramem_kv_cube *cube, struct memos_error *err);

/* How often a capture of the prompt's first `cubes` cubes was used; `add`: once more. */
uint32_t worker_memory_uses(struct worker_memory *memory, const struct worker_host *host,
    const struct worker_prompt *prompt, size_t cubes, bool add);

/* Everything that the cube will say. On the heap: it outlives the prompt. */
struct worker_capture_private {
    struct memos_arena arena;
    struct worker_memory *memory;
    struct kern_ctx *ctx; /* that `memory` of the capture is from */
    char *space, *reason;
    struct memcube_ref *sources;           /* the last one the base, if there is one */
    uint8_t (*hashes)[MEMCUBE_HASH_BYTES]; /* of the sources' payloads */
    size_t sources_count;
    char **readers;
    size_t readers_count;
    bool is_independent;
    uint32_t *ids;
};

/* ---- between capture_plan.c and capture.c ---- */

MEMOS_MUST_USE enum memos_status worker_capture_full(struct memos_error *err); /* NO_MEMORY */
/* Begin to tell of a capture: where it is. */
MEMOS_MUST_USE enum memos_status worker_capture_ref(struct memos_arena *arena,
    const struct memcube_ref *ref, Memos__CaptureMade *out, struct memos_error *err);

/* ---- receipts ---- */

/* The receipt's beginning, and its end (receipt.c). */
MEMOS_MUST_USE enum memos_status worker_receipt_begin(const struct worker_memory *memory,
    const struct worker_host *host, const struct worker_fetch *fetch, struct worker_prompt *prompt,
    struct memos_error *err);
void worker_receipt_end(const struct worker_memory *memory, struct worker_prompt *prompt,
    const struct paramem_result *result, const uint32_t *answer, size_t answer_count);

/* The type that a number of the wire means (Memory.capture_dtype); 0: none. */
enum kern_dtype worker_dtype_of(uint32_t number, const struct worker_host *host);

#endif
