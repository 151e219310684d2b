#include "memos/worker/link.h"
#include "memos/worker/reply.h"

#include "proto/client_internal.h"
#include "proto/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { JOBS_USUAL = 32, FETCHERS_USUAL = 2, DRAIN_MS_USUAL = 30000, LOST_WAIT_US = 2000000 };

/* ---- making --------------------------------------------------------------------------------- */

static enum memos_status take_options(
    struct worker *worker, const struct worker_options *options, struct memos_error *err)
{
    char host[64] = "";
    memos_assert(options->hosts_count >= 1 && options->hosts_count <= WORKER_MODELS_MAX);
    worker->options = *options;
    struct worker_options *own = &worker->options;
    own->jobs_max = own->jobs_max > 0 ? own->jobs_max : JOBS_USUAL;
    own->fetch_threads = own->fetch_threads > 0 ? own->fetch_threads : FETCHERS_USUAL;
    own->drain_timeout_ms = own->drain_timeout_ms > 0 ? own->drain_timeout_ms : DRAIN_MS_USUAL;
    if (own->jobs_max > WORKER_JOBS_MAX || own->fetch_threads > WORKER_FETCHERS_MAX) {
        return memos_fail(err, MEMOS_INVALID, "%zu jobs at once and %zu threads; at most %d and %d",
            own->jobs_max, own->fetch_threads, WORKER_JOBS_MAX, WORKER_FETCHERS_MAX);
    }
    (void)gethostname(host, sizeof host - 1);
    if (own->name) {
        (void)snprintf(worker->name, sizeof worker->name, "%s", own->name);
    } else {
        (void)snprintf(worker->name, sizeof worker->name, "%s/%ld", host, (long)getpid());
    }
    return MEMOS_OK;
}

static enum memos_status start_model(struct worker *worker, size_t index, struct memos_error *err)
{
    struct worker_model *model = &worker->models[index];
    *model = (struct worker_model){.worker = worker, .host = worker->options.hosts[index]};
    model->pieces_tail = &model->pieces;
    worker_queue_init(&model->queue);
    (void)pthread_mutex_init(&model->lock, NULL);
    worker->models_count = index + 1;
    paramem_engine_stats(model->host->engine, &model->stats);
    model->running = calloc(worker->jobs_table_max, sizeof(void *));
    if (!model->running) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a table of jobs");
    }
    int failed = pthread_create(&model->thread, NULL, worker_model_main, model);
    model->has_thread = failed == 0;
    if (failed) {
        return memos_fail_errno(err, failed, "cannot start a model's thread");
    }
    (void)pthread_setname_np(model->thread, "model");
    return MEMOS_OK;
}

static enum memos_status start_fetcher(struct worker *worker, size_t index, struct memos_error *err)
{
    struct worker_fetcher *fetcher = &worker->fetchers[index];
    *fetcher = (struct worker_fetcher){.worker = worker};
    worker->fetchers_count = index + 1;
    enum memos_status status = memos_client_open(&worker->options.client, &fetcher->client, err);
    if (status != MEMOS_OK) {
        return status;
    }
    int failed = pthread_create(&fetcher->thread, NULL, worker_fetch_main, fetcher);
    fetcher->has_thread = failed == 0;
    if (failed) {
        return memos_fail_errno(err, failed, "cannot start a fetching thread");
    }
    (void)pthread_setname_np(fetcher->thread, "fetch");
    return MEMOS_OK;
}

static enum memos_status start(struct worker *worker, struct memos_error *err)
{
    const struct worker_memory_options memory = {
        .cache_bytes = worker->options.captures_bytes, .clock = worker->clock};
    enum memos_status status = worker_outbox_init(&worker->outbox, err);
    if (status == MEMOS_OK) {
        status = worker_link_open(worker, err);
    }
    if (status == MEMOS_OK) {
        const char *address = memos_client_address(worker->link.client);
        worker->same_host =
            memos_address_ipc_path(address) != NULL && !worker->options.maps_nothing;
        status = worker_memory_create(&memory, &worker->memory, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < worker->options.hosts_count; i++) {
        status = start_model(worker, i, err);
    }
    for (size_t i = 0; status == MEMOS_OK && i < worker->options.fetch_threads; i++) {
        status = start_fetcher(worker, i, err);
    }
    return status;
}

enum memos_status worker_create(
    const struct worker_options *options, struct worker **out, struct memos_error *err)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a worker");
    }
    worker->outbox.event_fd = -1;
    worker->clock = memos_clock_system();
    worker->link.unsent_tail = &worker->link.unsent;
    worker_queue_init(&worker->fetch_queue);
    (void)pthread_mutex_init(&worker->lost_lock, NULL);
    atomic_init(&worker->is_stopped, false);
    atomic_init(&worker->is_drained, false);
    enum memos_status status = take_options(worker, options, err);
    if (status == MEMOS_OK) {
        status = start(worker, err);
    }
    if (status != MEMOS_OK) {
        worker_destroy(&worker);
        return status;
    }
    *out = worker;
    return MEMOS_OK;
}

/* ---- ending --------------------------------------------------------------------------------- */

static void wake(struct worker *worker)
{
    (void)eventfd_write(worker->outbox.event_fd, 1);
}

void worker_stop(struct worker *worker)
{
    atomic_store(&worker->is_stopped, true);
    wake(worker);
}

void worker_drain(struct worker *worker)
{
    atomic_store(&worker->is_drained, true);
    wake(worker);
}

void worker_lose(struct worker *worker, const struct memos_error *err)
{
    (void)pthread_mutex_lock(&worker->lost_lock);
    worker->lost = worker->lost.status == MEMOS_OK ? *err : worker->lost;
    (void)pthread_mutex_unlock(&worker->lost_lock);
    wake(worker);
}

void worker_job_release(struct worker *worker, struct worker_job *job)
{
    for (size_t i = 0; i < job->captures_count; i++) {
        worker_capture_free(&job->captures[i]);
    }
    free(job->captures);
    job->captures = NULL;
    worker_prompt_free(worker->memory, &job->prompt);
    worker_job_free(&job);
}

void worker_destroy(struct worker **worker)
{
    struct worker *it = *worker;
    *worker = NULL;
    if (!it) {
        return;
    }
    atomic_store(&it->is_stopped, true);
    worker_link_drop(it);
    worker_queue_stop(&it->fetch_queue);
    for (size_t i = 0; i < it->models_count; i++) {
        worker_queue_stop(&it->models[i].queue);
    }
    for (size_t i = 0; i < it->fetchers_count; i++) {
        if (it->fetchers[i].has_thread) {
            (void)pthread_join(it->fetchers[i].thread, NULL);
        }
        memos_client_close(&it->fetchers[i].client);
    }
    for (size_t i = 0; i < it->models_count; i++) {
        struct worker_model *model = &it->models[i];
        if (model->has_thread) {
            (void)pthread_join(model->thread, NULL);
        }
        free(model->running);
        worker_queue_finish(&model->queue);
        (void)pthread_mutex_destroy(&model->lock);
    }
    worker_outbox_finish(&it->outbox);
    worker_link_close(it);
    worker_queue_finish(&it->fetch_queue);
    worker_memory_destroy(&it->memory);
    (void)pthread_mutex_destroy(&it->lost_lock);
    free(it);
}

/* ---- running -------------------------------------------------------------------------------- */

/* SIGTERM drains, a second one stops; SIGHUP has no meaning here. */
static void read_signals(struct worker *worker)
{
    struct signalfd_siginfo info;
    while (read(worker->options.signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        bool ends = info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT;
        if (ends && worker->link.is_draining) {
            atomic_store(&worker->is_stopped, true);
        } else if (ends) {
            atomic_store(&worker->is_drained, true);
            worker_link_drain(worker);
        }
    }
}

static void wait_for_news(struct worker *worker)
{
    int64_t left_us = worker_link_due_us(worker) - worker_now_us(worker);
    struct pollfd fds[] = {
        {.fd = worker->outbox.event_fd, .events = POLLIN},
        {.fd = memos_client_fd(worker->link.client), .events = POLLIN},
        {.fd = worker->options.signal_fd, .events = POLLIN}, /* -1 is passed over */
    };
    if (left_us > 0) {
        (void)poll(fds, sizeof fds / sizeof fds[0], (int)((left_us + 999) / 1000));
    }
}

static enum memos_status lost(struct worker *worker, struct memos_error *err)
{
    (void)pthread_mutex_lock(&worker->lost_lock);
    enum memos_status status = worker->lost.status;
    if (status != MEMOS_OK && err) {
        *err = worker->lost;
    }
    (void)pthread_mutex_unlock(&worker->lost_lock);
    return status;
}

/* Jobs that the device took with it are told so, before the process goes. */
static enum memos_status end_lost(struct worker *worker, struct memos_error *err)
{
    int64_t until_us = worker_now_us(worker) + LOST_WAIT_US;
    while (worker->link.jobs_count > 0 && worker_now_us(worker) < until_us) {
        worker_link_turn(worker);
        wait_for_news(worker);
    }
    return lost(worker, err);
}

enum memos_status worker_run(struct worker *worker, struct memos_error *err)
{
    struct worker_link *link = &worker->link;
    int64_t drain_us = worker->options.drain_timeout_ms * 1000;
    while (!atomic_load(&worker->is_stopped)) {
        if (worker->options.signal_fd >= 0) {
            read_signals(worker);
        }
        if (atomic_load(&worker->is_drained) || link->is_told_to_stop) {
            worker_link_drain(worker);
        }
        worker_link_turn(worker);
        if (link->refused != MEMOS_OK) {
            *err = link->refusal;
            return link->refused;
        } else if (lost(worker, NULL) != MEMOS_OK) {
            return end_lost(worker, err);
        } else if (link->is_draining && (worker_link_drained(worker) ||
                                            worker_now_us(worker) - link->drain_us > drain_us)) {
            break;
        }
        wait_for_news(worker);
    }
    worker_link_drop(worker);
    return MEMOS_OK;
}
