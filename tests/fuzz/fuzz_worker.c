/* Any bytes as a job with its payload frames, up to the request that the engine would get: what is
 * let through must point into the message and lie within the bounds of memos/worker/asked.h.
 *
 * Input: one byte, how many payload frames (at most 3); for each two bytes, its size, and its
 * bytes; then the envelope, a Reply. */
#include "memos/worker/asked.h"
#include "memos/worker/reply.h"
#include "proto/envelope.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void look_at_frame(const struct worker_frames *frames, uint32_t number)
{
    must(number <= frames->count && memos_bytes_utf8(worker_frame(frames, number)));
}

static void look_at_generate(const Memos__Generate *generate, const struct worker_frames *frames)
{
    const struct paramem_decoder_config own = {.temperature = 0.5, .repetition = 1.0};
    struct memos_arena arena;
    struct paramem_request request;
    must((generate->prompt_frame != 0) != (generate->n_messages > 0));
    look_at_frame(frames, generate->prompt_frame);
    for (size_t i = 0; i < generate->n_messages; i++) {
        look_at_frame(frames, generate->messages[i]->frame);
        must(generate->messages[i]->role[0] != '\0');
    }
    memos_arena_init(&arena, (size_t)16 << 20);
    if (worker_asked_request(generate, &own, &arena, &request, NULL) == MEMOS_OK) {
        must(request.top <= KERN_TOP_MAX && request.stops_count <= PARAMEM_STOPS_MAX);
        for (size_t i = 0; i < request.stops_count; i++) {
            size_t bytes = strlen(request.stops[i]);
            must(bytes >= 1 && bytes <= PARAMEM_STOP_BYTES);
        }
        for (size_t i = 1; i < request.sampling.biases_count; i++) {
            must(request.sampling.biases[i - 1].id < request.sampling.biases[i].id);
        }
    }
    memos_arena_finish(&arena);
}

static void look_at_job(const Memos__Job *job, const struct worker_frames *frames)
{
    must(job->ticket.len == WORKER_TICKET_BYTES);
    must(memos_bytes_utf8(memos_bytes_of(worker_asked_space(job))));
    switch (job->body_case) {
    case MEMOS__JOB__BODY_GENERATE:
        look_at_generate(job->generate, frames);
        break;
    case MEMOS__JOB__BODY_SCORE:
        must(job->score->n_frames > 0);
        look_at_frame(frames, job->score->prompt_frame);
        for (size_t i = 0; i < job->score->n_frames; i++) {
            look_at_frame(frames, job->score->frames[i]);
            must(worker_frame(frames, job->score->frames[i]).size > 0);
        }
        break;
    case MEMOS__JOB__BODY_CAPTURE:
        must(job->capture->space[0] != '\0');
        for (size_t i = 0; i < job->capture->n_ids; i++) {
            must(job->capture->ids[i].len == 16);
        }
        break;
    default:
        must(false);
    }
}

/* What a token's bytes become on the wire is text, whatever they are. */
static void look_at_text(struct memos_bytes bytes)
{
    char *text = malloc(3 * bytes.size + 1);
    must(text != NULL);
    size_t size = worker_text_clean(bytes, text);
    must(size == strlen(text) && memos_bytes_utf8(memos_bytes_make(text, size)));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct worker_frames frames;
    struct memos_reader reader = memos_reader_of(memos_bytes_make(data, size));
    struct memos_arena arena;
    Memos__Reply *reply = NULL;
    frames.count = memos_read_u8(&reader) % 4;
    for (size_t i = 0; i < frames.count; i++) {
        frames.frames[i] = memos_read_bytes(&reader, memos_read_u16(&reader));
        look_at_text(frames.frames[i]);
    }
    struct memos_bytes rest = memos_read_bytes(&reader, reader.left);
    memos_arena_init(&arena, memos_envelope_memory(rest.size));
    if (memos_reply_unpack(rest, &arena, &reply, NULL) == MEMOS_OK &&
        reply->body_case == MEMOS__REPLY__BODY_JOB &&
        worker_asked_check(reply->job, &frames, NULL) == MEMOS_OK) {
        look_at_job(reply->job, &frames);
    }
    memos_arena_finish(&arena);
    return 0;
}
