/* A request is looked at, copied, and put at the end of the queue. */
#include "paramem/engine_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 4096 /* that are made beforehand for text that is held back */
#define TEXT_BYTES_MAX (1u << 20)

/* ---- checks -------------------------------------------------------------------------------- */

static enum memos_status ids_check(const struct paramem_engine *engine, const char *what,
    const uint32_t *ids, size_t count, struct memos_error *err)
{
    size_t vocab = engine->model->config.vocab;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= vocab) {
            return memos_fail(err, MEMOS_INVALID, "%s %zu is %u; the model has %zu tokens", what, i,
                ids[i], vocab);
        }
    }
    return MEMOS_OK;
}

/* Comparisons are written so that NaN fails them. */
static enum memos_status sampling_check(
    const struct paramem_engine *engine, const struct paramem_sampling *s, struct memos_error *err)
{
    if (!(s->temperature >= 0 && isfinite(s->temperature))) {
        return memos_fail(
            err, MEMOS_INVALID, "temperature %g must be 0 or more", (double)s->temperature);
    } else if (!(s->top_p >= 0 && s->top_p <= 1)) {
        return memos_fail(err, MEMOS_INVALID, "top_p %g must be from 0 to 1", (double)s->top_p);
    } else if (!(s->min_p >= 0 && s->min_p <= 1)) {
        return memos_fail(err, MEMOS_INVALID, "min_p %g must be from 0 to 1", (double)s->min_p);
    } else if (!(s->repetition >= 0 && isfinite(s->repetition))) {
        return memos_fail(
            err, MEMOS_INVALID, "the repetition penalty %g must be above 0", (double)s->repetition);
    }
    for (size_t i = 0; i < s->biases_count; i++) {
        enum memos_status status = ids_check(engine, "the token of bias", &s->biases[i].id, 1, err);
        if (status != MEMOS_OK) {
            return status;
        } else if (isnan(s->biases[i].bias) || s->biases[i].bias == INFINITY) {
            return memos_fail(err, MEMOS_INVALID,
                "the bias of token %u must be finite, or minus "
                "infinity",
                s->biases[i].id);
        }
    }
    return MEMOS_OK;
}

static enum memos_status stops_check(const struct paramem_engine *engine,
    const struct paramem_request *request, struct memos_error *err)
{
    if (request->stops_count > PARAMEM_STOPS_MAX) {
        return memos_fail(err, MEMOS_INVALID, "%zu stop strings; at most %d", request->stops_count,
            PARAMEM_STOPS_MAX);
    } else if (request->stops_count > 0 && !engine->model->tokenizer) {
        return memos_fail(err, MEMOS_INVALID, "stop strings, but the model has no tokenizer");
    }
    for (size_t i = 0; i < request->stops_count; i++) {
        size_t size = strlen(request->stops[i]);
        if (size == 0 || size > PARAMEM_STOP_BYTES) {
            return memos_fail(err, MEMOS_INVALID, "stop string %zu has %zu bytes; 1 to %d are good",
                i, size, PARAMEM_STOP_BYTES);
        }
    }
    return ids_check(engine, "stop token", request->stop_ids, request->stop_ids_count, err);
}

static enum memos_status request_check(
    struct paramem_engine *engine, const struct paramem_request *request, struct memos_error *err)
{
    size_t vocab = engine->model->config.vocab;
    size_t top_most = vocab < KERN_TOP_MAX ? vocab : KERN_TOP_MAX;

    memos_assert(request->on_token && request->on_done);
    if (engine->closing) {
        return memos_fail(err, MEMOS_CANCELLED, "the engine is being destroyed");
    } else if (engine->lost) {
        return memos_fail(err, MEMOS_IO, "the device failed; make model and engine anew");
    } else if (request->prompt_count == 0) {
        return memos_fail(err, MEMOS_INVALID, "the prompt has no tokens");
    } else if (request->top > top_most) {
        return memos_fail(err, MEMOS_INVALID, "logprobs of %zu alternatives; at most %zu",
            request->top, top_most);
    }
    enum memos_status status =
        ids_check(engine, "token", request->prompt, request->prompt_count, err);
    if (status == MEMOS_OK) {
        status = sampling_check(engine, &request->sampling, err);
    }
    if (status == MEMOS_OK) {
        status = stops_check(engine, request, err);
    }
    if (status == MEMOS_OK && engine->waiting_count >= engine->requests_max) {
        status = memos_fail(
            err, MEMOS_BUSY, "%zu requests wait already, the most", engine->waiting_count);
    }
    if (status == MEMOS_OK) {
        status = engine_placed_check(engine, request, err);
    }
    return status;
}

/* ---- the context --------------------------------------------------------------------------- */

/* How many tokens of the prompt go, and where: *out_keep at its front stay. */
static enum memos_status cut_of(const struct paramem_engine *engine,
    const struct paramem_request *request, size_t *out_keep, size_t *out_cut,
    struct memos_error *err)
{
    size_t context = engine->context, prompt = request->prompt_count;
    size_t answer = request->max_tokens > 0 ? request->max_tokens : 1;

    *out_keep = *out_cut = 0;
    if (answer < context && prompt <= context - answer) {
        return MEMOS_OK;
    } else if (request->overflow == PARAMEM_OVERFLOW_REFUSE || request->placed_count > 0) {
        return memos_fail(err, MEMOS_TOO_LARGE,
            "a prompt of %zu tokens and an answer of %zu do not fit the context of %zu", prompt,
            answer, context);
    }
    answer = request->max_tokens > 0 ? answer : (context + 3) / 4;
    *out_keep = request->prompt[0] == engine->model->config.bos_id ? 1 : 0;
    if (answer >= context || context - answer <= *out_keep) {
        return memos_fail(err, MEMOS_TOO_LARGE,
            "an answer of %zu tokens leaves no prompt in the context of %zu", answer, context);
    }
    *out_cut = prompt - (context - answer);
    return MEMOS_OK;
}

static size_t count_max_of(
    const struct paramem_engine *engine, const struct paramem_request *request, size_t prompt)
{
    return request->max_tokens > 0 ? prompt + request->max_tokens : engine->context;
}

/* ---- the copy ------------------------------------------------------------------------------ */

static void *copy(struct memos_arena *arena, const void *from, size_t count, size_t size)
{
    void *to = memos_arena_take(arena, count > 0 ? count : 1, size);
    if (to && count > 0) {
        memcpy(to, from, count * size);
    }
    return to;
}

static bool copy_stops(struct engine_sequence *sequence, const struct paramem_request *request)
{
    struct engine_stops *stops = &sequence->stops;
    size_t count = request->stops_count;
    stops->texts = memos_arena_take(&sequence->arena, count + 1, sizeof *stops->texts);
    stops->sizes = memos_arena_take(&sequence->arena, count + 1, sizeof *stops->sizes);
    for (size_t i = 0; stops->texts && stops->sizes && i < count; i++) {
        stops->sizes[i] = strlen(request->stops[i]);
        stops->texts[i] = copy(&sequence->arena, request->stops[i], stops->sizes[i] + 1, 1);
        if (!stops->texts[i]) {
            return false;
        }
    }
    stops->count = count;
    return stops->texts && stops->sizes;
}

/* All the memory that the request will need, the largest piece first. */
static bool copy_all(struct engine_sequence *sequence, const struct paramem_engine *engine,
    const struct paramem_request *request, size_t keep)
{
    struct memos_arena *arena = &sequence->arena;
    size_t adjusts = engine_adjusts_most(sequence, engine->model->config.vocab);

    sequence->adjusts = memos_arena_take(arena, adjusts + 1, sizeof *sequence->adjusts);
    sequence->ids = memos_arena_take(arena, sequence->count_max, sizeof *sequence->ids);
    sequence->pages =
        memos_arena_take(arena, engine_pages_of(sequence->count_max), sizeof *sequence->pages);
    struct paramem_request *own = &sequence->request;
    own->stop_ids =
        copy(arena, request->stop_ids, request->stop_ids_count, sizeof *request->stop_ids);
    own->sampling.biases = copy(arena, request->sampling.biases, request->sampling.biases_count,
        sizeof *request->sampling.biases);
    if (!sequence->adjusts || !sequence->ids || !sequence->pages || !own->stop_ids ||
        !own->sampling.biases || !copy_stops(sequence, request) ||
        !engine_placed_copy(sequence, request) || !memos_buffer_take(&sequence->text, TEXT_BYTES)) {
        return false;
    }
    memos_buffer_reset(&sequence->text);
    size_t rest = sequence->prompt_count - keep;
    memcpy(sequence->ids, request->prompt, keep * sizeof *sequence->ids);
    memcpy(sequence->ids + keep, request->prompt + request->prompt_count - rest,
        rest * sizeof *sequence->ids);
    own->prompt = sequence->ids;
    own->stops = NULL;
    own->placed = NULL;
    return true;
}

static enum memos_status sequence_make(const struct paramem_engine *engine,
    const struct paramem_request *request, size_t keep, size_t cut, struct engine_sequence **out,
    struct memos_error *err)
{
    struct engine_sequence *sequence = calloc(1, sizeof *sequence);
    if (!sequence) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a request");
    }
    memos_arena_init(&sequence->arena, SIZE_MAX / 4);
    sequence->text = memos_buffer_make(TEXT_BYTES_MAX);
    sequence->request = *request;
    sequence->cut = cut;
    sequence->prompt_count = sequence->count = request->prompt_count - cut;
    sequence->count_max = count_max_of(engine, request, sequence->prompt_count);
    sequence->to_context = request->max_tokens == 0;
    if (!copy_all(sequence, engine, request, keep)) {
        size_t tokens = sequence->count_max;
        engine_sequence_free(&sequence);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a request of %zu tokens", tokens);
    }
    if (engine->model->tokenizer) {
        sequence->stream = paramem_stream_of(engine->model->tokenizer, true);
    }
    *out = sequence;
    return MEMOS_OK;
}

void engine_sequence_free(struct engine_sequence **sequence)
{
    struct engine_sequence *old = *sequence;
    if (old) {
        memos_buffer_free(&old->text);
        memos_arena_finish(&old->arena);
        free(old);
        *sequence = NULL;
    }
}

enum memos_status paramem_engine_submit(struct paramem_engine *engine,
    const struct paramem_request *request, uint64_t *out_id, struct memos_error *err)
{
    struct engine_sequence *sequence = NULL;
    size_t keep = 0, cut = 0;
    enum memos_status status = request_check(engine, request, err);
    if (status == MEMOS_OK) {
        status = cut_of(engine, request, &keep, &cut, err);
    }
    if (status == MEMOS_OK) {
        status = sequence_make(engine, request, keep, cut, &sequence, err);
    }
    if (status == MEMOS_OK) {
        status = engine_adjusts_make(sequence, err);
    }
    if (status != MEMOS_OK) {
        engine_sequence_free(&sequence);
        return status;
    }
    memos_assert(engine->slots_free_count > 0);
    sequence->slot = engine->slots_free[--engine->slots_free_count];
    sequence->id = ++engine->serial * engine->slots_count + sequence->slot;
    sequence->keyed = paramem_kv_root(engine->cache);
    sequence->submitted_us = engine->clock.mono_us(engine->clock.self);
    if (request->deadline_us != 0 && request->deadline_us < engine->deadline_next) {
        engine->deadline_next = request->deadline_us;
    }
    atomic_store(&engine->live[sequence->slot], sequence->id);
    *engine->waiting_end = sequence;
    engine->waiting_end = &sequence->next;
    engine->waiting_count++;
    engine->stats.requests++;
    *out_id = sequence->id;
    return MEMOS_OK;
}

void paramem_engine_cancel(struct paramem_engine *engine, uint64_t id)
{
    uint64_t expected = id & ~ENGINE_CANCELLED;
    if (expected != 0 &&
        atomic_compare_exchange_strong(&engine->live[expected % engine->slots_count], &expected,
            expected | ENGINE_CANCELLED)) {
        atomic_store(&engine->cancels, true);
    }
}
