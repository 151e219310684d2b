#include "memos/worker/asked.h"

#include <stdlib.h>
#include <string.h>

enum { CAPTURES_MAX = 2, INDEPENDENT_MAX = 1, DTYPE_MAX = 4, TOP_K_MAX = 1000 };

void worker_frames_of(const struct memos_message *message, struct worker_frames *out)
{
    out->count = memos_message_frames_count(message);
    memos_assert(out->count <= MEMOS_FRAMES_MAX);
    for (size_t i = 0; i < out->count; i++) {
        out->frames[i] = memos_message_frame(message, (uint32_t)i + 1);
    }
}

struct memos_bytes worker_frame(const struct worker_frames *frames, uint32_t number)
{
    bool is_there = number > 0 && number <= frames->count;
    return is_there ? frames->frames[number - 1] : memos_bytes_make(NULL, 0);
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* A field of an envelope: protobuf does not look. */
static enum memos_status check_string(const char *what, const char *text, struct memos_error *err)
{
    return memos_bytes_utf8(memos_bytes_of(text))
               ? MEMOS_OK
               : memos_fail(err, MEMOS_INVALID, "%s is no UTF-8", what);
}

static enum memos_status check_frame(
    const char *what, uint32_t number, const struct worker_frames *frames, struct memos_error *err)
{
    if (number > frames->count) {
        return memos_fail(
            err, MEMOS_INVALID, "%s is in frame %u, of %zu", what, (unsigned)number, frames->count);
    }
    return memos_bytes_utf8(worker_frame(frames, number))
               ? MEMOS_OK
               : memos_fail(err, MEMOS_INVALID, "%s is no UTF-8", what);
}

static enum memos_status check_number(
    const char *what, uint64_t number, uint64_t most, struct memos_error *err)
{
    return number <= most ? MEMOS_OK
                          : memos_fail(err, MEMOS_INVALID, "%s is %llu; at most %llu", what,
                                (unsigned long long)number, (unsigned long long)most);
}

static enum memos_status check_id(const ProtobufCBinaryData *id, struct memos_error *err)
{
    return id->len == 16
               ? MEMOS_OK
               : memos_fail(err, MEMOS_INVALID, "an id of %zu bytes; they have 16", id->len);
}

static enum memos_status check_message(
    const Memos__ChatMessage *message, const struct worker_frames *frames, struct memos_error *err)
{
    size_t role = strlen(message->role);
    enum memos_status status = MEMOS_OK;
    if (role == 0 || role > WORKER_ROLE_BYTES_MAX) {
        return memos_fail(err, MEMOS_INVALID, "a message's role has %zu bytes; 1 to %d are good",
            role, WORKER_ROLE_BYTES_MAX);
    }
    const struct {
        const char *what, *text;
    } strings[] = {
        {"a message's role", message->role},
        {"a message's name", message->name},
        {"a message's tool_call_id", message->tool_call_id},
        {"a message's tool_calls_json", message->tool_calls_json},
    };
    for (size_t i = 0; status == MEMOS_OK && i < sizeof strings / sizeof strings[0]; i++) {
        status = check_string(strings[i].what, strings[i].text, err);
    }
    return status == MEMOS_OK ? check_frame("a message", message->frame, frames, err) : status;
}

static enum memos_status check_messages(Memos__ChatMessage *const *messages, size_t count,
    const struct worker_frames *frames, struct memos_error *err)
{
    enum memos_status status = check_number("the number of messages", count, MEMOS_FRAMES_MAX, err);
    for (size_t i = 0; status == MEMOS_OK && i < count; i++) {
        status = check_message(messages[i], frames, err);
    }
    return status;
}

bool worker_asked_memory(const Memos__Memory *memory)
{
    return memory && (memory->search || memory->n_cubes > 0 || memory->capture);
}

static enum memos_status check_memory(
    const Memos__Memory *memory, const char *space, struct memos_error *err)
{
    if (!memory) {
        return MEMOS_OK;
    } else if (worker_asked_memory(memory) && !space[0]) {
        return memos_fail(err, MEMOS_INVALID, "memory without a space that it is in");
    }
    enum memos_status status = check_string("the query", memory->query, err);
    const struct {
        const char *what;
        uint64_t number, most;
    } numbers[] = {
        {"memory.top_k", memory->top_k, TOP_K_MAX},
        {"memory.captures", memory->captures, CAPTURES_MAX},
        {"memory.independent", memory->independent, INDEPENDENT_MAX},
        {"memory.capture_dtype", memory->capture_dtype, DTYPE_MAX},
        {"the number of named cubes", memory->n_cubes, WORKER_CUBES_MAX},
    };
    for (size_t i = 0; status == MEMOS_OK && i < sizeof numbers / sizeof numbers[0]; i++) {
        status = check_number(numbers[i].what, numbers[i].number, numbers[i].most, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < memory->n_cubes; i++) {
        status = check_id(&memory->cubes[i]->id, err);
    }
    if (status == MEMOS_OK) {
        status =
            check_number("the number of cubes left out", memory->n_without, WORKER_CUBES_MAX, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < memory->n_without; i++) {
        status = check_id(&memory->without[i], err);
    }
    return status;
}

/* ---- the bodies ----------------------------------------------------------------------------- */

static enum memos_status check_stops(const Memos__Generate *generate, struct memos_error *err)
{
    enum memos_status status =
        check_number("the number of stop texts", generate->n_stops, PARAMEM_STOPS_MAX, err);
    for (size_t i = 0; status == MEMOS_OK && i < generate->n_stops; i++) {
        size_t size = strlen(generate->stops[i]);
        status = check_string("a stop text", generate->stops[i], err);
        if (status == MEMOS_OK && (size == 0 || size > PARAMEM_STOP_BYTES)) {
            status = memos_fail(err, MEMOS_INVALID, "stop text %zu has %zu bytes; 1 to %d are good",
                i, size, PARAMEM_STOP_BYTES);
        }
    }
    return status;
}

static enum memos_status check_generate(
    const Memos__Generate *generate, const struct worker_frames *frames, struct memos_error *err)
{
    bool has_prompt = generate->prompt_frame != 0;
    if (has_prompt == (generate->n_messages > 0)) {
        return memos_fail(err, MEMOS_INVALID,
            has_prompt ? "messages and a prompt: one of them is to be answered"
                       : "there are no messages and no prompt to answer");
    } else if (generate->keep_receipt && !generate->space[0]) {
        return memos_fail(err, MEMOS_INVALID, "a receipt is kept in a space, and none is named");
    }
    enum memos_status status = check_frame("the prompt", generate->prompt_frame, frames, err);
    if (status == MEMOS_OK) {
        status = check_messages(generate->messages, generate->n_messages, frames, err);
    }
    if (status == MEMOS_OK) {
        status = check_string("the template's name", generate->template_, err);
    }
    if (status == MEMOS_OK) {
        status = check_string("tools_json", generate->tools_json, err);
    }
    if (status == MEMOS_OK) {
        status = check_stops(generate, err);
    }
    if (status == MEMOS_OK) {
        status = check_number("top_logprobs", generate->top_logprobs, KERN_TOP_MAX, err);
    }
    if (status == MEMOS_OK && generate->sampling) {
        status = check_number(
            "the number of biases", generate->sampling->n_biases, WORKER_BIASES_MAX, err);
    }
    return status == MEMOS_OK ? check_memory(generate->memory, generate->space, err) : status;
}

static enum memos_status check_score(
    const Memos__Score *score, const struct worker_frames *frames, struct memos_error *err)
{
    if (score->n_frames == 0) {
        return memos_fail(err, MEMOS_INVALID, "there is no text to score");
    }
    enum memos_status status =
        check_number("the number of texts", score->n_frames, MEMOS_FRAMES_MAX, err);
    if (status == MEMOS_OK) {
        status = check_frame("the prompt", score->prompt_frame, frames, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < score->n_frames; i++) {
        status = check_frame("a text", score->frames[i], frames, err);
        if (status == MEMOS_OK && worker_frame(frames, score->frames[i]).size == 0) {
            status = memos_fail(err, MEMOS_INVALID, "text %zu is empty", i);
        }
    }
    return status == MEMOS_OK ? check_memory(score->memory, score->space, err) : status;
}

static enum memos_status check_capture(
    const Memos__Capture *capture, const struct worker_frames *frames, struct memos_error *err)
{
    if (!capture->space[0]) {
        return memos_fail(err, MEMOS_INVALID, "a capture is kept in a space, and none is named");
    } else if (capture->n_ids == 0 && capture->n_messages == 0) {
        return memos_fail(err, MEMOS_INVALID, "there are no cubes and no messages to capture");
    }
    enum memos_status status =
        check_number("the number of cubes", capture->n_ids, WORKER_CUBES_MAX, err);
    for (size_t i = 0; status == MEMOS_OK && i < capture->n_ids; i++) {
        status = check_id(&capture->ids[i], err);
    }
    if (status == MEMOS_OK) {
        status = check_messages(capture->messages, capture->n_messages, frames, err);
    }
    if (status == MEMOS_OK) {
        status = check_number("dtype", capture->dtype, DTYPE_MAX, err);
    }
    if (status == MEMOS_OK) {
        status = check_string("the reason", capture->reason, err);
    }
    return status == MEMOS_OK ? check_string("the template's name", capture->template_, err)
                              : status;
}

enum memos_status worker_asked_check(
    const Memos__Job *job, const struct worker_frames *frames, struct memos_error *err)
{
    if (job->ticket.len != WORKER_TICKET_BYTES) {
        return memos_fail(err, MEMOS_INVALID, "a ticket of %zu bytes", job->ticket.len);
    }
    enum memos_status status = check_string("the space", worker_asked_space(job), err);
    if (status != MEMOS_OK) {
        return status;
    }
    switch (job->body_case) {
    case MEMOS__JOB__BODY_GENERATE:
        return check_generate(job->generate, frames, err);
    case MEMOS__JOB__BODY_SCORE:
        return check_score(job->score, frames, err);
    case MEMOS__JOB__BODY_CAPTURE:
        return check_capture(job->capture, frames, err);
    default:
        return memos_fail(err, MEMOS_UNSUPPORTED, "a job that this worker does not know");
    }
}

const char *worker_asked_space(const Memos__Job *job)
{
    switch (job->body_case) {
    case MEMOS__JOB__BODY_GENERATE:
        return job->generate->space;
    case MEMOS__JOB__BODY_SCORE:
        return job->score->space;
    case MEMOS__JOB__BODY_CAPTURE:
        return job->capture->space;
    default:
        return "";
    }
}

const char *worker_asked_model(const Memos__Job *job)
{
    switch (job->body_case) {
    case MEMOS__JOB__BODY_GENERATE:
        return job->generate->model;
    case MEMOS__JOB__BODY_SCORE:
        return job->score->model;
    case MEMOS__JOB__BODY_CAPTURE:
        return job->capture->model;
    default:
        return "";
    }
}

/* ---- for the engine ------------------------------------------------------------------------- */

static int compare_ids(const void *left, const void *right)
{
    uint32_t a = ((const struct paramem_bias *)left)->id;
    uint32_t b = ((const struct paramem_bias *)right)->id;
    return (a > b) - (a < b);
}

/* The engine adds each once and does not look for a second one. */
static enum memos_status take_biases(const Memos__Sampling *sampling, struct memos_arena *arena,
    struct paramem_sampling *out, struct memos_error *err)
{
    size_t count = sampling->n_biases;
    struct paramem_bias *biases = memos_arena_take(arena, count + 1, sizeof *biases);
    if (!biases) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for %zu biases", count);
    }
    for (size_t i = 0; i < count; i++) {
        biases[i] = (struct paramem_bias){sampling->biases[i]->id, sampling->biases[i]->bias};
    }
    qsort(biases, count, sizeof *biases, compare_ids);
    for (size_t i = 1; i < count; i++) {
        if (biases[i].id == biases[i - 1].id) {
            return memos_fail(
                err, MEMOS_INVALID, "two biases for token %u", (unsigned)biases[i].id);
        }
    }
    out->biases = biases;
    out->biases_count = count;
    return MEMOS_OK;
}

/* Bits of Sampling.own. */
enum { OWN_TEMPERATURE = 1, OWN_TOP_P = 2, OWN_MIN_P = 4, OWN_TOP_K = 8, OWN_REPETITION = 16 };

static void take_own(
    const struct paramem_decoder_config *own, uint32_t bits, struct paramem_sampling *out)
{
    out->temperature = bits & OWN_TEMPERATURE ? (float)own->temperature : out->temperature;
    out->top_p = bits & OWN_TOP_P ? (float)own->top_p : out->top_p;
    out->min_p = bits & OWN_MIN_P ? (float)own->min_p : out->min_p;
    out->top_k = bits & OWN_TOP_K ? own->top_k : out->top_k;
    out->repetition = bits & OWN_REPETITION ? (float)own->repetition : out->repetition;
}

enum memos_status worker_asked_request(const Memos__Generate *generate,
    const struct paramem_decoder_config *own, struct memos_arena *arena,
    struct paramem_request *out, struct memos_error *err)
{
    const Memos__Sampling *sampling = generate->sampling;
    *out = (struct paramem_request){
        .max_tokens = generate->max_tokens,
        .stops = (const char *const *)generate->stops,
        .stops_count = generate->n_stops,
        .top = generate->top_logprobs,
        .overflow = generate->cut_front ? PARAMEM_OVERFLOW_CUT_FRONT : PARAMEM_OVERFLOW_REFUSE,
    };
    if (!sampling) {
        take_own(own, UINT32_MAX, &out->sampling);
        return MEMOS_OK;
    }
    out->sampling = (struct paramem_sampling){
        .temperature = sampling->temperature,
        .top_p = sampling->top_p,
        .min_p = sampling->min_p,
        .top_k = sampling->top_k,
        .repetition = sampling->repetition,
        .seed = sampling->seed,
    };
    take_own(own, sampling->own, &out->sampling);
    return take_biases(sampling, arena, &out->sampling, err);
}
