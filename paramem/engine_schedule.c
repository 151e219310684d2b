/* Who computes what in a step, and in which pages. */
#include "paramem/engine_internal.h"

#include <string.h>

/* ---- pages --------------------------------------------------------------------------------- */

void engine_pages_release(struct paramem_engine *engine, struct engine_sequence *sequence)
{
    while (sequence->pages_count > 0) {
        paramem_kv_release(engine->cache, sequence->pages[--sequence->pages_count]);
    }
    sequence->computed = 0;
    sequence->keyed = paramem_kv_root(engine->cache);
}

void engine_preempt(struct paramem_engine *engine)
{
    memos_assert(engine->running_count > 0);
    struct engine_sequence *youngest = engine->running[--engine->running_count];
    engine_pages_release(engine, youngest);
    if (youngest->count == youngest->prompt_count) {
        youngest->cached = youngest->put = 0;
    }
    youngest->next = engine->waiting;
    engine->waiting = youngest;
    if (!youngest->next) {
        engine->waiting_end = &youngest->next;
    }
    engine->waiting_count++;
    engine->stats.preempted++;
}

/* The tokens up to `computed` are there with the pass that is being made: let others find the pages
 * that this makes whole, in the same pass too, for they read each layer of it after it is written.
 * Go on to the next token that has to be computed: what stands in ranges between has been put. */
static void advance(
    struct paramem_engine *engine, struct engine_sequence *sequence, size_t computed)
{
    const struct engine_placed *placed = engine_placed_from(sequence, computed);
    while (placed && placed->from <= computed) {
        computed = placed->end;
        placed = engine_placed_from(sequence, computed);
    }
    size_t whole = sequence->computed / KERN_PAGE_TOKENS;
    for (; engine->prefix_cache && whole < computed / KERN_PAGE_TOKENS; whole++) {
        sequence->keyed = engine_placed_key(sequence, &sequence->keyed, whole);
        paramem_kv_name(
            engine->cache, sequence->pages[whole], &sequence->keyed, sequence->request.owner);
    }
    sequence->computed = computed;
}

/* Take over pages that hold what comes next, in place of the sequence's own where it has some. The
 * last token is computed always, for its logits. */
static void reuse(struct paramem_engine *engine, struct engine_sequence *sequence)
{
    while (engine->prefix_cache && sequence->computed % KERN_PAGE_TOKENS == 0 &&
           sequence->count - sequence->computed > KERN_PAGE_TOKENS) {
        size_t from = sequence->computed, index = from / KERN_PAGE_TOKENS, put = 0;
        struct paramem_key key = engine_placed_key(sequence, &sequence->keyed, index);
        uint32_t page = 0;
        if (!paramem_kv_find(engine->cache, &key, &page)) {
            return;
        }
        if (index < sequence->pages_count) {
            paramem_kv_release(engine->cache, sequence->pages[index]);
            put = engine_placed_between(sequence, from, from + KERN_PAGE_TOKENS);
        } else {
            sequence->pages_count++;
        }
        sequence->pages[index] = page;
        sequence->keyed = key;
        sequence->computed += KERN_PAGE_TOKENS;
        engine->stats.cached_tokens += KERN_PAGE_TOKENS;
        /* What it finds after it has begun to answer was perhaps its own. */
        if (sequence->count == sequence->prompt_count) {
            sequence->cached += KERN_PAGE_TOKENS;
            sequence->put -= put;
        }
    }
}

/* ---- the pass ------------------------------------------------------------------------------ */

/* Put the sequence's next `rows` tokens into the pass, as one more run of rows. Their pages are
 * there. */
static void pass_add(struct paramem_engine *engine, struct engine_sequence *sequence, size_t rows)
{
    struct paramem_pass *pass = &engine->pass;
    size_t b = pass->sequences++, from = sequence->computed;

    memos_assert(from + rows <= sequence->pages_count * KERN_PAGE_TOKENS);
    memcpy(engine->ids + pass->rows, sequence->ids + from, rows * sizeof *engine->ids);
    for (size_t i = 0; i < rows; i++) {
        size_t at = from + i;
        engine->positions[pass->rows + i] = (uint32_t)at;
        engine->slots[pass->rows + i] = sequence->pages[at / KERN_PAGE_TOKENS] * KERN_PAGE_TOKENS +
                                        (uint32_t)(at % KERN_PAGE_TOKENS);
    }
    pass->rows += rows;
    engine->starts[b + 1] = (uint32_t)pass->rows;
    engine->lengths[b] = (uint32_t)(from + rows);
    engine->tables[b] = sequence->pages;
    sequence->rows += rows;
    if (from + rows == sequence->count) {
        engine->logits_rows[pass->logits_count] = (uint32_t)pass->rows - 1;
        engine->sampling[pass->logits_count++] = sequence;
    }
    advance(engine, sequence, from + rows);
}

static size_t left_of(const struct engine_sequence *sequence)
{
    return sequence->count - sequence->computed;
}

/* A page for the token that sequence `index` decodes; false: it was the youngest, and waits. */
static bool page_ready(struct paramem_engine *engine, size_t index)
{
    struct engine_sequence *sequence = engine->running[index];
    if (sequence->computed < sequence->pages_count * KERN_PAGE_TOKENS) {
        return true;
    }
    while (paramem_kv_available(engine->cache) == 0) {
        engine_preempt(engine);
        if (engine->running_count == index) {
            return false;
        }
    }
    sequence->pages[sequence->pages_count++] = paramem_kv_take(engine->cache);
    return true;
}

/* Every sequence that decodes, the oldest first, who may take the pages of those after them. */
static void add_decoding(struct paramem_engine *engine)
{
    for (size_t i = 0; i < engine->running_count; i++) {
        if (left_of(engine->running[i]) == 1 && page_ready(engine, i)) {
            pass_add(engine, engine->running[i], 1);
        }
    }
}

static bool room_in_pass(const struct paramem_engine *engine)
{
    return engine->pass.rows < engine->tokens_step && engine->pass.sequences < engine->segments_max;
}

static void add_chunk(struct paramem_engine *engine, struct engine_sequence *sequence)
{
    reuse(engine, sequence);
    advance(engine, sequence, sequence->computed);
    while (left_of(sequence) > 0 && room_in_pass(engine)) {
        const struct engine_placed *placed = engine_placed_from(sequence, sequence->computed);
        size_t budget = engine->tokens_step - engine->pass.rows;
        size_t end = placed ? placed->from : sequence->count;
        size_t left = end - sequence->computed, rows = left < budget ? left : budget;
        engine->stats.prompt_tokens += rows;
        pass_add(engine, sequence, rows);
    }
}

/* ---- admission ----------------------------------------------------------------------------- */

/* Would it find too few pages again? Looking for its beginning in the cache is not for nothing. */
static bool blocked(const struct paramem_engine *engine, const struct engine_sequence *sequence)
{
    return engine->blocked.id == sequence->id &&
           paramem_kv_available(engine->cache) <= engine->blocked.available &&
           engine->running_count >= engine->blocked.running;
}

/* Pages for all that it has to read, at once, so that reading never waits for pages. Beside others
 * it needs one more for each of them, lest it be sent back for the first page that one asks for. */
static bool pages_ready(struct paramem_engine *engine, struct engine_sequence *sequence)
{
    size_t available = paramem_kv_available(engine->cache);
    if (blocked(engine, sequence)) {
        return false;
    }
    reuse(engine, sequence);
    size_t need = engine_pages_of(sequence->count) - sequence->pages_count;
    if (need + engine->running_count > paramem_kv_available(engine->cache)) {
        engine->stats.cached_tokens -= sequence->computed;
        sequence->cached = sequence->count > sequence->prompt_count ? sequence->cached : 0;
        engine_pages_release(engine, sequence);
        engine->blocked.id = sequence->id;
        engine->blocked.available = available;
        engine->blocked.running = engine->running_count;
        return false;
    }
    for (; need > 0; need--) {
        sequence->pages[sequence->pages_count++] = paramem_kv_take(engine->cache);
    }
    return true;
}

/* It has its pages: what comes out of captures goes there. */
static enum memos_status put_placed(
    struct paramem_engine *engine, struct engine_sequence *sequence, struct memos_error *err)
{
    size_t put = engine_placed_between(sequence, sequence->computed, sequence->count);
    enum memos_status status = engine_placed_put(engine, sequence, err);
    engine->stats.placed_tokens += put;
    sequence->put = sequence->count == sequence->prompt_count ? put : sequence->put;
    return status;
}

static enum memos_status admit(struct paramem_engine *engine, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    while (status == MEMOS_OK && engine->waiting && room_in_pass(engine) &&
           engine->running_count < engine->sequences_max && pages_ready(engine, engine->waiting)) {
        struct engine_sequence *sequence = engine->waiting;
        engine->waiting = sequence->next;
        if (!engine->waiting) {
            engine->waiting_end = &engine->waiting;
        }
        engine->waiting_count--;
        sequence->next = NULL;
        engine->running[engine->running_count++] = sequence;
        if (sequence->began_us == 0) {
            sequence->began_us = engine->clock.mono_us(engine->clock.self);
        }
        status = put_placed(engine, sequence, err);
        if (status == MEMOS_OK) {
            add_chunk(engine, sequence);
        }
    }
    return status;
}

enum memos_status engine_schedule(struct paramem_engine *engine, struct memos_error *err)
{
    engine->pass = (struct paramem_pass){.ids = engine->ids,
        .positions = engine->positions,
        .slots = engine->slots,
        .starts = engine->starts,
        .lengths = engine->lengths,
        .tables = engine->tables,
        .logits_rows = engine->logits_rows};
    engine->starts[0] = 0;
    for (size_t i = 0; i < engine->running_count; i++) {
        engine->running[i]->rows = 0;
    }
    add_decoding(engine);
    for (size_t i = 0; i < engine->running_count && room_in_pass(engine); i++) {
        if (engine->running[i]->rows == 0) {
            add_chunk(engine, engine->running[i]);
        }
    }
    return admit(engine, err);
}
