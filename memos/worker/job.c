#include "memos/worker/job.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define ANSWER_BYTES_MAX ((size_t)256 << 20)
#define STEP_BYTES_MAX ((size_t)1 << 20)

/* ---- a job ---------------------------------------------------------------------------------- */

enum memos_status worker_job_make(
    struct memos_message *message, int64_t now_us, struct worker_job **out, struct memos_error *err)
{
    struct worker_job *job = calloc(1, sizeof *job);
    if (!job) {
        memos_message_free(&message);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a job");
    }
    job->message = message;
    job->asked = memos_message_reply(message)->job;
    worker_frames_of(message, &job->frames);
    memos_arena_init(&job->arena, ARENA_BYTES_MAX);
    job->came_us = job->handed_us = now_us;
    job->deadline_us =
        job->asked->deadline_ms > 0 ? now_us + (int64_t)job->asked->deadline_ms * 1000 : 0;
    atomic_init(&job->cancelled, false);
    atomic_init(&job->forgotten, false);
    job->heard.text = memos_buffer_make(STEP_BYTES_MAX);
    job->answer = memos_buffer_make(ANSWER_BYTES_MAX);
    job->answer_ids = memos_buffer_make(ANSWER_BYTES_MAX);
    job->last = (struct worker_out){.job = job, .is_the_job = true};
    job->over = (struct worker_out){.job = job, .is_the_job = true, .is_over = true};
    memos__reply__init(&job->last.reply);
    *out = job;
    return worker_asked_check(job->asked, &job->frames, err);
}

void worker_job_free(struct worker_job **job)
{
    struct worker_job *it = *job;
    *job = NULL;
    if (!it) {
        return;
    }
    memos_assert(!it->prompt && !it->captures); /* who has the memory gives them back */
    for (size_t i = 0; i < it->texts_count; i++) {
        free(it->texts[i].ids);
        free(it->texts[i].logprobs);
    }
    free(it->texts);
    free(it->heard.tokens);
    memos_buffer_free(&it->heard.text);
    memos_buffer_free(&it->answer);
    memos_buffer_free(&it->answer_ids);
    memos_arena_finish(&it->arena);
    memos_message_free(&it->message);
    free(it);
}

enum memos_status worker_job_wanted(
    const struct worker_job *job, int64_t now_us, struct memos_error *err)
{
    if (atomic_load_explicit(&job->cancelled, memory_order_relaxed)) {
        return memos_fail(err, MEMOS_CANCELLED, "cancelled");
    } else if (job->deadline_us != 0 && now_us >= job->deadline_us) {
        return memos_fail(err, MEMOS_DEADLINE, "the deadline passed in the worker");
    }
    return MEMOS_OK;
}

const char *worker_job_space(const struct worker_job *job)
{
    switch (job->asked->body_case) {
    case MEMOS__JOB__BODY_GENERATE:
        return job->asked->generate->space;
    case MEMOS__JOB__BODY_SCORE:
        return job->asked->score->space;
    case MEMOS__JOB__BODY_CAPTURE:
        return job->asked->capture->space;
    default:
        return "";
    }
}

bool worker_job_generates(const struct worker_job *job)
{
    return job->asked->body_case == MEMOS__JOB__BODY_GENERATE;
}

/* ---- queues --------------------------------------------------------------------------------- */

void worker_queue_init(struct worker_queue *queue)
{
    *queue = (struct worker_queue){.tail = NULL};
    queue->tail = &queue->first;
    (void)pthread_mutex_init(&queue->lock, NULL);
    (void)pthread_cond_init(&queue->wake, NULL);
}

void worker_queue_finish(struct worker_queue *queue)
{
    (void)pthread_cond_destroy(&queue->wake);
    (void)pthread_mutex_destroy(&queue->lock);
}

void worker_queue_put(struct worker_queue *queue, struct worker_job *job, bool first)
{
    (void)pthread_mutex_lock(&queue->lock);
    job->next = first ? queue->first : NULL;
    if (first) {
        queue->tail = queue->first ? queue->tail : &job->next;
        queue->first = job;
    } else {
        *queue->tail = job;
        queue->tail = &job->next;
    }
    queue->count++;
    (void)pthread_cond_signal(&queue->wake);
    (void)pthread_mutex_unlock(&queue->lock);
}

struct worker_job *worker_queue_take(struct worker_queue *queue, bool wait)
{
    (void)pthread_mutex_lock(&queue->lock);
    while (wait && !queue->first && !queue->is_stopped && !queue->is_poked) {
        (void)pthread_cond_wait(&queue->wake, &queue->lock);
    }
    queue->is_poked = queue->is_poked && !wait;
    struct worker_job *job = queue->is_stopped ? NULL : queue->first;
    if (job) {
        queue->first = job->next;
        queue->tail = queue->first ? queue->tail : &queue->first;
        queue->count--;
        job->next = NULL;
    }
    (void)pthread_mutex_unlock(&queue->lock);
    return job;
}

void worker_queue_poke(struct worker_queue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    queue->is_poked = true;
    (void)pthread_cond_signal(&queue->wake);
    (void)pthread_mutex_unlock(&queue->lock);
}

void worker_queue_stop(struct worker_queue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    queue->is_stopped = true;
    (void)pthread_cond_broadcast(&queue->wake);
    (void)pthread_mutex_unlock(&queue->lock);
}

size_t worker_queue_count(struct worker_queue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    size_t count = queue->count;
    (void)pthread_mutex_unlock(&queue->lock);
    return count;
}

enum memos_status worker_outbox_init(struct worker_outbox *outbox, struct memos_error *err)
{
    *outbox = (struct worker_outbox){.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    outbox->tail = &outbox->first;
    (void)pthread_mutex_init(&outbox->lock, NULL);
    return outbox->event_fd >= 0 ? MEMOS_OK : memos_fail_errno(err, errno, "making an eventfd");
}

void worker_out_free(struct worker_out *out)
{
    if (!out->is_the_job) {
        free(out);
    }
}

void worker_outbox_finish(struct worker_outbox *outbox)
{
    while (outbox->first) {
        struct worker_out *out = outbox->first;
        outbox->first = out->next;
        worker_out_free(out);
    }
    (void)pthread_mutex_destroy(&outbox->lock);
    if (outbox->event_fd >= 0) {
        (void)close(outbox->event_fd);
    }
}

void worker_outbox_put(
    struct worker_outbox *outbox, struct worker_out *first, struct worker_out *last, size_t count)
{
    last->next = NULL;
    (void)pthread_mutex_lock(&outbox->lock);
    bool was_empty = !outbox->first;
    *outbox->tail = first;
    outbox->tail = &last->next;
    outbox->count += count;
    (void)pthread_mutex_unlock(&outbox->lock);
    if (was_empty) {
        (void)eventfd_write(outbox->event_fd, 1);
    }
}

struct worker_out *worker_outbox_take(struct worker_outbox *outbox)
{
    eventfd_t unused;
    (void)eventfd_read(outbox->event_fd, &unused); /* before: what comes later says so again */
    (void)pthread_mutex_lock(&outbox->lock);
    struct worker_out *first = outbox->first;
    outbox->first = NULL;
    outbox->tail = &outbox->first;
    outbox->count = 0;
    (void)pthread_mutex_unlock(&outbox->lock);
    return first;
}
