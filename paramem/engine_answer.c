/* Tokens become an answer: text, its end, and what is told about it. */
#include "paramem/engine_internal.h"

#include <string.h>

/* ---- stop strings -------------------------------------------------------------------------- */

bool engine_stops_find(const struct engine_stops *stops, struct memos_bytes text, size_t *out_at,
    size_t *out_which, size_t *out_hold)
{
    const char *data = text.data;
    *out_hold = 0;
    for (size_t at = 0; at < text.size; at++) {
        size_t left = text.size - at;
        for (size_t i = 0; i < stops->count; i++) {
            size_t size = stops->sizes[i];
            if (data[at] != stops->texts[i][0] ||
                memcmp(data + at, stops->texts[i], size < left ? size : left) != 0) {
                continue;
            } else if (size <= left) {
                *out_at = at;
                *out_which = i;
                return true;
            } else if (*out_hold == 0) {
                *out_hold = left;
            }
        }
    }
    return false;
}

/* ---- a token ------------------------------------------------------------------------------- */

static bool is_stop_id(
    const struct paramem_engine *engine, const struct engine_sequence *sequence, uint32_t id)
{
    const struct paramem_decoder_config *config = &engine->model->config;
    const struct paramem_request *request = &sequence->request;
    for (size_t i = 0; !request->no_model_stops && i < config->stop_count; i++) {
        if (config->stop_ids[i] == id) {
            return true;
        }
    }
    for (size_t i = 0; i < request->stop_ids_count; i++) {
        if (request->stop_ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* Does the answer end with this token, whatever its text? */
static enum paramem_finish finish_of(
    const struct paramem_engine *engine, const struct engine_sequence *sequence, uint32_t id)
{
    if (is_stop_id(engine, sequence, id)) {
        return PARAMEM_FINISH_STOP;
    } else if (sequence->count == sequence->count_max) {
        return sequence->to_context ? PARAMEM_FINISH_CONTEXT : PARAMEM_FINISH_LENGTH;
    }
    return (enum paramem_finish)0;
}

/* Put the token's text behind what is held back; *out_told: how many bytes can be told now. */
static enum memos_status text_add(struct paramem_engine *engine, struct engine_sequence *sequence,
    uint32_t id, size_t *out_told, struct memos_error *err)
{
    size_t at = 0, which = 0, hold = 0;
    enum memos_status status = MEMOS_OK;

    /* A model may have more ids than its tokenizer (rows that fill a table up): no text is theirs.
     */
    bool known = paramem_tokenizer_bytes(engine->model->tokenizer, id).data != NULL;
    if (known && !is_stop_id(engine, sequence, id)) {
        status = paramem_stream_next(&sequence->stream, id, &sequence->text, err);
    }
    if (status == MEMOS_OK && sequence->finish) {
        status = paramem_stream_end(&sequence->stream, &sequence->text, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    struct memos_bytes text = memos_buffer_view(&sequence->text);
    if (engine_stops_find(&sequence->stops, text, &at, &which, &hold)) {
        sequence->finish = PARAMEM_FINISH_STOP;
        sequence->stop_string = sequence->stops.texts[which];
        *out_told = at;
    } else {
        *out_told = sequence->finish ? text.size : text.size - hold;
    }
    return MEMOS_OK;
}

static void text_drop(struct memos_buffer *text, size_t told)
{
    size_t left = text->size - told;
    if (left > 0) {
        memmove(text->data, text->data + told, left);
    }
    text->size = left;
}

enum memos_status engine_answer(struct paramem_engine *engine, struct engine_sequence *sequence,
    const struct engine_sampled *sampled, size_t row, struct memos_error *err)
{
    uint32_t id = sampled->ids[row];
    size_t told = 0, top = sampled->top;
    enum memos_status status = MEMOS_OK;

    memos_assert(sequence->count < sequence->count_max && id < engine->model->config.vocab);
    sequence->ids[sequence->count++] = id;
    engine_adjusts_add(sequence, id);
    engine->stats.tokens++;
    sequence->finish = finish_of(engine, sequence, id);
    if (engine->model->tokenizer) {
        status = text_add(engine, sequence, id, &told, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    struct paramem_token token = {.id = id,
        .text = memos_bytes_make(sequence->text.data, told),
        .logprob = sampled->logprobs[row],
        .top_count = sequence->request.top,
        .top_ids = sampled->top_ids + row * top,
        .top_logprobs = sampled->top_logprobs + row * top};
    sequence->request.on_token(sequence->request.self, &token);
    text_drop(&sequence->text, told);
    return MEMOS_OK;
}
