/* Ranges of a prompt that come out of captures made elsewhere.
 *
 * A capture's keys are not turned, so that they can be turned to any place: token i of the capture
 * to where the prompt has it. Where blocks and pages do not begin at the same token, a block is
 * read whole and each of its tokens goes to its own slot, or nowhere. All ranges of a prompt are
 * put when it has got its pages, before its first pass; the pass then leaves their rows out, so
 * that what it computes of the prompt is several runs of rows, each of which sees all that stands
 * before it.
 *
 * Pages from the first such token on have keys that the captures enter: two requests share them
 * only when all that is in them is the same. */
#include "paramem/engine_internal.h"

#include <sodium.h>
#include <string.h>

/* ---- at submit ----------------------------------------------------------------------------- */

static enum memos_status ids_compare(
    const struct paramem_placed *placed, const uint32_t *prompt, size_t i, struct memos_error *err)
{
    for (size_t t = 0; t < placed->tokens; t++) {
        uint32_t id, wanted = prompt[placed->at + t];
        paramem_kv_cube_ids(placed->cube, placed->first_in_cube + t, 1, &id);
        if (id != wanted) {
            return memos_fail(err, MEMOS_INVALID,
                "placed capture %zu: its token %zu is %u, token %zu of the prompt is %u", i,
                placed->first_in_cube + t, id, placed->at + t, wanted);
        }
    }
    return MEMOS_OK;
}

/* Range i, which may begin at token `after` or later. */
static enum memos_status range_check(const struct paramem_engine *engine,
    const struct paramem_request *request, size_t i, size_t after, struct memos_error *err)
{
    const struct paramem_placed *placed = &request->placed[i];
    const struct paramem_kv_cube *cube = placed->cube;
    size_t prompt = request->prompt_count, tokens = placed->tokens;

    enum memos_status status = engine_blocks_check(engine, cube, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (tokens == 0 || tokens > cube->tokens || placed->first_in_cube > cube->tokens - tokens ||
        placed->recompute > tokens) {
        return memos_fail(err, MEMOS_INVALID,
            "placed capture %zu: %zu tokens from %zu on, %zu computed; it has %zu", i, tokens,
            placed->first_in_cube, placed->recompute, cube->tokens);
    }
    if (tokens > prompt || placed->at > prompt - tokens || placed->at < after) {
        return memos_fail(err, MEMOS_INVALID,
            "placed capture %zu: %zu tokens at %zu; there is room from %zu to %zu", i, tokens,
            placed->at, after, prompt);
    }
    if (sodium_is_zero(paramem_kv_cube_sum(cube), PARAMEM_KEY_BYTES)) {
        return memos_fail(err, MEMOS_INVALID, "placed capture %zu is not sealed", i);
    }
    return ids_compare(placed, request->prompt, i, err);
}

enum memos_status engine_placed_check(
    struct paramem_engine *engine, const struct paramem_request *request, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    if (request->placed_count > PARAMEM_PLACED_MAX) {
        return memos_fail(err, MEMOS_INVALID, "%zu placed captures; at most %d",
            request->placed_count, PARAMEM_PLACED_MAX);
    }
    size_t after = 0;
    for (size_t i = 0; status == MEMOS_OK && i < request->placed_count; i++) {
        const struct paramem_placed *placed = &request->placed[i];
        struct engine_blocks blocks = {.cube = placed->cube, .pinned = placed->pinned};
        status = range_check(engine, request, i, after, err);
        if (status == MEMOS_OK) {
            status = engine_blocks_plan(engine, &blocks, err);
        }
        after = placed->at + placed->tokens;
    }
    return status;
}

/* The capture by its checksum, which all of its bytes enter; its tokens; their place. */
static struct paramem_key salt_of(const struct engine_placed *placed)
{
    const uint64_t numbers[] = {placed->first, placed->from, placed->end};
    uint8_t text[PARAMEM_KEY_BYTES + sizeof numbers];
    struct paramem_key salt;
    uint8_t *at = text + PARAMEM_KEY_BYTES;

    memcpy(text, paramem_kv_cube_sum(&placed->cube), PARAMEM_KEY_BYTES);
    for (size_t i = 0; i < sizeof numbers; i++) {
        at[i] = (uint8_t)(numbers[i / 8] >> 8 * (i % 8));
    }
    (void)crypto_generichash(salt.bytes, sizeof salt.bytes, text, sizeof text, NULL, 0);
    return salt;
}

bool engine_placed_copy(struct engine_sequence *sequence, const struct paramem_request *request)
{
    size_t last = request->prompt_count - 1;
    sequence->placed =
        memos_arena_take(&sequence->arena, request->placed_count + 1, sizeof *sequence->placed);
    for (size_t i = 0; sequence->placed && i < request->placed_count; i++) {
        const struct paramem_placed *from = &request->placed[i];
        size_t end = from->at + from->tokens;
        struct engine_placed *placed = &sequence->placed[sequence->placed_count];
        *placed = (struct engine_placed){.cube = *from->cube,
            .pinned = from->pinned,
            .from = from->at + from->recompute,
            .end = end < last ? end : last,
            .first = from->first_in_cube + from->recompute};
        placed->salt = salt_of(placed);
        sequence->placed_count += placed->from < placed->end;
    }
    return sequence->placed != NULL;
}

/* ---- in the schedule ----------------------------------------------------------------------- */

const struct engine_placed *engine_placed_from(const struct engine_sequence *sequence, size_t at)
{
    size_t count = sequence->placed_count;
    if (count == 0 || at >= sequence->placed[count - 1].end) {
        return NULL; /* who decodes asks for every token */
    }
    for (size_t i = 0; i < count; i++) {
        if (at < sequence->placed[i].end) {
            return &sequence->placed[i];
        }
    }
    return NULL;
}

size_t engine_placed_between(const struct engine_sequence *sequence, size_t from, size_t end)
{
    size_t tokens = 0;
    for (size_t i = 0; i < sequence->placed_count; i++) {
        const struct engine_placed *placed = &sequence->placed[i];
        size_t first = placed->from > from ? placed->from : from;
        size_t last = placed->end < end ? placed->end : end;
        tokens += first < last ? last - first : 0;
    }
    return tokens;
}

struct paramem_key engine_placed_key(
    const struct engine_sequence *sequence, const struct paramem_key *before, size_t page)
{
    struct paramem_key key = *before;
    for (size_t i = 0; i < sequence->placed_count; i++) {
        if (sequence->placed[i].from / KERN_PAGE_TOKENS == page) {
            key = paramem_kv_key_salted(&key, &sequence->placed[i].salt);
        }
    }
    return paramem_kv_key(&key, sequence->ids + page * KERN_PAGE_TOKENS);
}

/* Put tokens from .. end - 1 of a range. */
static enum memos_status range_put(struct paramem_engine *engine,
    const struct engine_sequence *sequence, const struct engine_placed *placed, size_t from,
    struct memos_error *err)
{
    struct engine_blocks blocks = {.cube = &placed->cube, .pinned = placed->pinned};
    size_t first = placed->first + (from - placed->from), tokens = placed->end - from;
    size_t begin = first / KERN_PAGE_TOKENS, skip = first % KERN_PAGE_TOKENS;
    uint32_t *positions = engine_words_host(engine, 1), *slots = engine_words_host(engine, 2);

    blocks.count = engine_pages_of(skip + tokens);
    for (size_t i = 0; i < blocks.count; i++) {
        engine->staging.blocks[i] = (uint32_t)(begin + i);
    }
    for (size_t i = 0; i < blocks.count * KERN_PAGE_TOKENS; i++) {
        bool in = i >= skip && i - skip < tokens;
        size_t at = in ? from + i - skip : 0;
        positions[i] = (uint32_t)at;
        slots[i] = KERN_NO_SLOT;
        if (in) {
            slots[i] = sequence->pages[at / KERN_PAGE_TOKENS] * KERN_PAGE_TOKENS +
                       (uint32_t)(at % KERN_PAGE_TOKENS);
        }
    }
    enum memos_status status = engine_blocks_plan(engine, &blocks, err); /* the room is there */
    return status == MEMOS_OK ? engine_blocks_put(engine, &blocks, err) : status;
}

enum memos_status engine_placed_put(
    struct paramem_engine *engine, const struct engine_sequence *sequence, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    for (size_t i = 0; status == MEMOS_OK && i < sequence->placed_count; i++) {
        const struct engine_placed *placed = &sequence->placed[i];
        size_t from = placed->from > sequence->computed ? placed->from : sequence->computed;
        if (from < placed->end) {
            status = range_put(engine, sequence, placed, from, err);
        }
    }
    return status;
}
