/* What the files of the engine share. */
#ifndef PARAMEM_ENGINE_INTERNAL_H
#define PARAMEM_ENGINE_INTERNAL_H

#include "paramem/engine.h"
#include "paramem/forward.h"
#include "paramem/kv_cache.h"
#include "proto/arena.h"

#include <stdatomic.h>

/* The bit of a slot's id that says that the request was cancelled. */
#define ENGINE_CANCELLED ((uint64_t)1 << 63)

struct engine_stops {
    const char **texts;
    size_t *sizes;
    size_t count;
};

/* Tokens from .. end - 1 of a prompt, whose keys and values come out of a capture. */
struct engine_placed {
    struct paramem_kv_cube cube;
    bool pinned;
    size_t from, end, first; /* `from` is token `first` of the cube */
    struct paramem_key salt; /* says which, and where */
};

/* A request from submit to its end.
 *
 * ids[0..count) are its prompt and what was sampled; keys and values of the first `computed` are in
 * its pages when the pass that is being made is done; there are at least as many pages as these
 * need. `keyed` is the key of the computed / KERN_PAGE_TOKENS whole pages. What waits has no pages.
 * Tokens in ranges of `placed` (by place, none in another, none the prompt's last) are put into
 * pages when these are taken: `computed` does not rest in one. */
struct engine_sequence {
    struct engine_sequence *next; /* that waits behind it */
    uint64_t id;
    size_t slot;
    struct paramem_request request; /* its pointers lead into the arena */
    struct memos_arena arena;

    uint32_t *ids;
    size_t prompt_count, count, count_max, cut;
    bool to_context; /* count_max is the context's */

    uint32_t *pages;
    size_t pages_count, computed, cached, put;
    struct paramem_key keyed;
    size_t rows; /* in this step */

    struct engine_placed *placed;
    size_t placed_count;

    struct kern_adjust *adjusts; /* sorted by id */
    size_t adjusts_count;

    struct engine_stops stops;
    struct paramem_stream stream;
    struct memos_buffer text; /* that a stop string may take back */

    enum paramem_finish finish; /* 0: it goes on */
    const char *stop_string;
    int64_t submitted_us, began_us, first_us; /* 0: not yet */
};

/* What sampling works in: on the device and, to be copied there and back, on the host. */
struct engine_sampler {
    float *logits; /* of the step, (rows, V), on the device */
    void *device, *host;
    size_t rows_max, adjusts_max;
    size_t adjusts_at, out_at, workspace_at, bytes; /* in both, but for the workspace */
};

/* The tokens that a step gave, row by row, in sampler.host. */
struct engine_sampled {
    const uint32_t *ids;
    const float *logprobs;
    const uint32_t *top_ids; /* (rows, top) */
    const float *top_logprobs;
    size_t top;
};

#define ENGINE_WORDS 3

/* What captures and attaching work in, made when first used. On the way between host and device a
 * ring of pieces on both sides; `key` and `value` are float32 of one piece. */
struct engine_staging {
    void *device, *host; /* the ring; host memory only for cubes that are not pinned */
    size_t ring_bytes;
    void *numbers; /* on the device: (tokens_max, G, D) keys, then values */
    size_t tokens_max;
    void *words;          /* on the device: ENGINE_WORDS arrays of `words_count` */
    uint32_t *words_host; /* the same */
    size_t words_count;
    struct paramem_key *keys; /* of a cube's blocks in this cache */
    uint32_t *blocks;         /* those that have to be put somewhere */
};

struct paramem_engine {
    struct paramem_model *model;
    struct paramem_kv_cache *cache;
    struct paramem_forward *forward;
    struct memos_clock clock;
    size_t sequences_max, tokens_step, requests_max, context, score_rows;
    size_t segments_max; /* of a pass: runs of rows that are neighbours */
    bool prefix_cache;
    enum kern_dtype kv;
    uint64_t kv_bytes;

    /* Every request has a slot; live[slot] is its id, with ENGINE_CANCELLED when somebody said so.
     * Sync: atomic, the only thing that other threads touch. */
    _Atomic uint64_t *live;
    atomic_bool cancels;
    uint32_t *slots_free;
    size_t slots_count, slots_free_count;
    uint64_t serial;
    uint64_t deadline_next; /* no request has an earlier one */
    bool closing, lost;     /* no more requests */

    /* By age; all that run are older than all that wait. */
    struct engine_sequence **running;
    size_t running_count;
    struct engine_sequence *waiting, **waiting_end;
    size_t waiting_count;
    struct {
        uint64_t id; /* who found too few pages, when there were so many, and so many ran */
        size_t available, running;
    } blocked;

    /* The pass that is being made: its arrays, and whose logits they are. */
    uint32_t *ids, *positions, *slots, *starts, *lengths, *logits_rows;
    const uint32_t **tables;
    struct engine_sequence **sampling;
    struct paramem_pass pass;

    struct engine_sampler sampler;
    struct engine_staging staging;
    uint32_t *score_pages; /* of the text that is scored, captured or attached */
    struct paramem_engine_stats stats;
};

static inline size_t engine_pages_of(size_t tokens)
{
    return (tokens + KERN_PAGE_TOKENS - 1) / KERN_PAGE_TOKENS;
}

/* ---- engine.c ---- */

/* The device failed, and with it went weights and pages: every request ends. */
void engine_fail(struct paramem_engine *engine, const struct memos_error *err);

/* ---- engine_request.c ---- */

/* Give its memory back. It has no slot and no pages. Takes NULL. */
void engine_sequence_free(struct engine_sequence **sequence);

/* ---- engine_schedule.c ---- */

/* Fill engine->pass and ->sampling; without rows there is nothing to compute. IO. */
MEMOS_MUST_USE enum memos_status engine_schedule(
    struct paramem_engine *engine, struct memos_error *err);
/* Let the youngest that runs wait again, without pages. */
void engine_preempt(struct paramem_engine *engine);
void engine_pages_release(struct paramem_engine *engine, struct engine_sequence *sequence);

/* ---- engine_score.c ---- */

/* Pages for `count` pages of a text into score_pages; requests that run give theirs, the youngest
 * first. Back, from the last on. */
void engine_pages_take(struct paramem_engine *engine, size_t count);
void engine_pages_give(struct paramem_engine *engine, size_t count);
/* Queue the rows `from` .. from + rows - 1 of the text that begins at ids, in score_pages. */
void engine_chunk_run(struct paramem_engine *engine, const uint32_t *ids, size_t from, size_t rows,
    const struct paramem_hooks *hooks);
/* INVALID: the model has not all of them. */
MEMOS_MUST_USE enum memos_status engine_ids_check(const struct paramem_engine *engine,
    const uint32_t *ids, size_t count, struct memos_error *err);

/* ---- engine_blocks.c ---- */

/* Blocks of a capture on their way into pages: those that stand in staging.blocks, rising. Where
 * each of their tokens goes say arrays 1 and 2 of words_host: position in the text, slot in the
 * cache, KERN_NO_SLOT for nowhere. */
struct engine_blocks {
    const struct paramem_kv_cube *cube;
    bool pinned;
    size_t count;
    uint64_t bytes_copied;
    /* set by engine_blocks_plan */
    bool in_place;
    size_t piece, ring; /* blocks of a piece; pieces of the ring */
    size_t pieces;      /* that have been on their way */
};

/* Is it this model's? STALE, CORRUPT. */
MEMOS_MUST_USE enum memos_status engine_blocks_check(const struct paramem_engine *engine,
    const struct paramem_kv_cube *cube, struct memos_error *err);
/* Where the blocks are read, and in what pieces; makes the room, the first time. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status engine_blocks_plan(
    struct paramem_engine *engine, struct engine_blocks *blocks, struct memos_error *err);
/* Put them, by pieces of blocks that are neighbours: while one is turned the next is on its way.
 * Done when it returns. IO. */
MEMOS_MUST_USE enum memos_status engine_blocks_put(
    struct paramem_engine *engine, struct engine_blocks *blocks, struct memos_error *err);

/* Room: words for all tokens of a context, numbers of a piece; the ring, with `host` before it. */
MEMOS_MUST_USE enum memos_status engine_room_make(
    struct paramem_engine *engine, struct memos_error *err);
MEMOS_MUST_USE enum memos_status engine_ring_make(
    struct paramem_engine *engine, bool host, struct memos_error *err);
void engine_staging_release(struct paramem_engine *engine);

bool engine_on_host(const struct paramem_engine *engine);
/* Array `index` of words, on the device and on the host. */
uint32_t *engine_words(const struct paramem_engine *engine, size_t index);
uint32_t *engine_words_host(const struct paramem_engine *engine, size_t index);
/* One layer's pages among blocks that hold those of all layers: slots count the pages of all. */
struct kern_kv engine_blocks_layer(const struct paramem_engine *engine, enum kern_dtype dtype,
    uint8_t *blocks, size_t blocks_count, size_t layer);
/* The slot of a token in the first layer of such blocks. */
uint32_t engine_blocks_slot(const struct paramem_engine *engine, size_t token);

/* ---- engine_placed.c ---- */

/* Look at a request's ranges: INVALID, STALE, CORRUPT; make the room that putting them needs. */
MEMOS_MUST_USE enum memos_status engine_placed_check(
    struct paramem_engine *engine, const struct paramem_request *request, struct memos_error *err);
/* Take them over; those of which nothing is left are dropped. false: no memory. */
bool engine_placed_copy(struct engine_sequence *sequence, const struct paramem_request *request);
/* The range that token `at` or the first behind it stands in; NULL: none. */
const struct engine_placed *engine_placed_from(const struct engine_sequence *sequence, size_t at);
/* How many tokens from `from` up to `end` stand in ranges. */
size_t engine_placed_between(const struct engine_sequence *sequence, size_t from, size_t end);
/* The key of page `page` of the sequence, whose key before is `before`. */
struct paramem_key engine_placed_key(
    const struct engine_sequence *sequence, const struct paramem_key *before, size_t page);
/* Put the tokens of all ranges that are not before `computed` into the sequence's pages. IO. */
MEMOS_MUST_USE enum memos_status engine_placed_put(
    struct paramem_engine *engine, const struct engine_sequence *sequence, struct memos_error *err);

/* ---- engine_sample.c ---- */

MEMOS_MUST_USE enum memos_status engine_sampler_create(
    struct paramem_engine *engine, struct memos_error *err);
void engine_sampler_destroy(struct paramem_engine *engine);

/* Put the biases and, with a repetition penalty, the prompt into `adjusts`. INVALID: two biases of
 * one token. NO_MEMORY. */
MEMOS_MUST_USE enum memos_status engine_adjusts_make(
    struct engine_sequence *sequence, struct memos_error *err);
/* The token has been taken. */
void engine_adjusts_add(struct engine_sequence *sequence, uint32_t id);
/* How many adjusts the sequence can come to have. */
size_t engine_adjusts_most(const struct engine_sequence *sequence, size_t vocab);

/* Of sequences engine->sampling[first..], as many as fit: sample from rows first.. of logits. */
MEMOS_MUST_USE enum memos_status engine_sample(struct paramem_engine *engine, size_t first,
    size_t *out_count, struct engine_sampled *out, struct memos_error *err);

/* The number in [0, 1) that token `index` of an answer is drawn with: splitmix64 of the mixed seed
 * (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014). */
float engine_draw(uint64_t seed, uint64_t index);

/* ---- engine_answer.c ---- */

/* Take sampled token `row` of `sampled`, tell it, and set finish when it is the last. */
MEMOS_MUST_USE enum memos_status engine_answer(struct paramem_engine *engine,
    struct engine_sequence *sequence, const struct engine_sampled *sampled, size_t row,
    struct memos_error *err);

/* Where the first stop string in text begins (*out_which), else false and *out_hold: how many bytes
 * at the end may be a stop string's beginning. */
bool engine_stops_find(const struct engine_stops *stops, struct memos_bytes text, size_t *out_at,
    size_t *out_which, size_t *out_hold);

#endif
