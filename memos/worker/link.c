#include "memos/worker/link.h"

#include "memos/worker/reply.h"

#include "proto/log.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONNECT_MS = 1000,
    BEAT_US = 1000000,
    SILENCE_US = 3000000, /* the broker pings every second */
    AGAIN_US = 1000000,   /* what it says of an announcement's predecessor comes within that */
    RETRY_US = 10000,
    DRAIN_WAIT_US = 2000000, /* for the broker's last word, after the last job */
    TABLE_SPARE = 64,        /* jobs that were dropped and have not ended yet */
    WARM_MAX = 64,           /* spaces that a heartbeat names */
    WARM_BYTES_MAX = 1 << 16,
};

/* ---- the table of jobs ---------------------------------------------------------------------- */

static struct worker_job *find(const struct worker_link *link, const ProtobufCBinaryData *ticket)
{
    for (size_t i = 0; i < link->jobs_count; i++) {
        const ProtobufCBinaryData *own = &link->jobs[i]->asked->ticket;
        if (own->len == ticket->len && memcmp(own->data, ticket->data, own->len) == 0) {
            return link->jobs[i];
        }
    }
    return NULL;
}

static void job_end(struct worker *worker, struct worker_job *job)
{
    struct worker_link *link = &worker->link;
    for (size_t i = 0; i < link->jobs_count; i++) {
        if (link->jobs[i] == job) {
            link->jobs[i] = link->jobs[--link->jobs_count];
            break;
        }
    }
    link->empty_us = worker_now_us(worker);
    worker_job_release(worker, job);
}

/* Those that came under an earlier announcement than this one. */
static void drop_before(struct worker *worker, uint64_t announcement)
{
    for (size_t i = 0; i < worker->link.jobs_count; i++) {
        struct worker_job *job = worker->link.jobs[i];
        if (job->announcement < announcement) {
            job->is_dropped = true;
            atomic_store_explicit(&job->cancelled, true, memory_order_relaxed);
        }
    }
}

/* What cannot be told to anybody is not to be made, and kept, for hours. Should the broker still be
 * there, and know the jobs, it hears of their end. */
static void cancel_all(struct worker_link *link)
{
    for (size_t i = 0; i < link->jobs_count; i++) {
        atomic_store_explicit(&link->jobs[i]->cancelled, true, memory_order_relaxed);
    }
}

void worker_link_drop(struct worker *worker)
{
    drop_before(worker, UINT64_MAX);
}

/* ---- to the broker -------------------------------------------------------------------------- */

static enum memos_status send(struct worker_link *link, Memos__Request *request,
    const struct memos_bytes *frame, uint64_t *out_id, struct memos_error *err)
{
    return memos_client_send(link->client, request, frame, frame ? 1 : 0, out_id, err);
}

static void describe(const struct worker_model *model, Memos__WorkerModel *out)
{
    const struct worker_host *host = model->host;
    const struct paramem_engine_stats *stats = &model->stats;
    memos__worker_model__init(out);
    out->name = host->name;
    out->fingerprint.data = (uint8_t *)(uintptr_t)host->info.fingerprint;
    out->fingerprint.len = sizeof host->info.fingerprint;
    out->architecture = (char *)(uintptr_t)host->info.architecture;
    out->weights = (char *)(uintptr_t)host->info.weights;
    out->kv = (char *)(uintptr_t)kern_dtype_name(host->kv);
    out->backend = (char *)(uintptr_t)host->backend;
    out->context = paramem_engine_context(host->engine);
    out->parameters = host->info.parameters;
    out->memory_bytes = stats->weight_bytes + stats->kv_bytes + stats->workspace_bytes;
    out->template_ = (char *)(uintptr_t)(host->chat ? paramem_chat_name(host->chat) : "");
}

static void announce(struct worker *worker)
{
    static const char *const kinds[] = {"text", "kv", "kv-independent"};
    struct worker_link *link = &worker->link;
    struct memos_error err;
    Memos__WorkerModel models[WORKER_MODELS_MAX], *list[WORKER_MODELS_MAX];
    Memos__WorkerAnnounce body = MEMOS__WORKER_ANNOUNCE__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    for (size_t i = 0; i < worker->models_count; i++) {
        (void)pthread_mutex_lock(&worker->models[i].lock);
        describe(&worker->models[i], &models[i]);
        (void)pthread_mutex_unlock(&worker->models[i].lock);
        list[i] = &models[i];
    }
    body.name = worker->name;
    body.version = (char *)(uintptr_t)WORKER_VERSION;
    body.models = list;
    body.n_models = worker->models_count;
    body.kinds = (char **)(uintptr_t)kinds;
    body.n_kinds = sizeof kinds / sizeof kinds[0];
    body.jobs_max = (uint32_t)worker->options.jobs_max;
    body.instance.data = link->instance;
    body.instance.len = sizeof link->instance;
    request.body_case = MEMOS__REQUEST__BODY_WORKER_ANNOUNCE;
    request.worker_announce = &body;
    int64_t now_us = worker_now_us(worker);
    link->is_taken = false;
    link->announcements++;
    link->before_id = link->announce_id;
    link->announced_us = link->heard_us = now_us;
    enum memos_status status = send(link, &request, NULL, &link->announce_id, &err);
    if (status == MEMOS_DENIED || status == MEMOS_INVALID) {
        link->refused = status;
        link->refusal = err;
    } else if (status != MEMOS_OK) {
        cancel_all(link);
    }
    if (status != MEMOS_OK && !link->is_waiting) {
        memos_log(
            MEMOS_LOG_WARNING, memos_log_event("waiting for the broker"), memos_log_error(&err));
    }
    link->is_waiting = status != MEMOS_OK;
}

static void beat(struct worker *worker)
{
    struct worker_link *link = &worker->link;
    struct worker_memory_stats memory;
    struct memos_error err;
    uint64_t unused;
    Memos__WorkerHeartbeat body = MEMOS__WORKER_HEARTBEAT__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    for (size_t i = 0; i < worker->models_count; i++) {
        struct worker_model *model = &worker->models[i];
        (void)pthread_mutex_lock(&model->lock);
        const struct paramem_engine_stats stats = model->stats;
        (void)pthread_mutex_unlock(&model->lock);
        body.running += (uint32_t)stats.running;
        body.steps += stats.steps;
        body.prompt_tokens += stats.prompt_tokens;
        body.cached_tokens += stats.cached_tokens;
        body.tokens += stats.tokens;
        body.pages_total += stats.pages_total;
        body.pages_used += stats.pages_used;
    }
    worker_memory_stats(worker->memory, &memory);
    body.waiting = link->jobs_count > body.running ? (uint32_t)link->jobs_count - body.running : 0;
    body.captures_loaded = memory.loaded;
    body.captures_bytes = memory.bytes_held;
    body.fetched_bytes = memory.bytes_fetched;
    body.instance.data = link->instance;
    body.instance.len = sizeof link->instance;
    struct memos_buffer names = memos_buffer_make(WARM_BYTES_MAX);
    char *warm[WARM_MAX];
    body.warm = warm;
    body.n_warm = worker_memory_warm(worker->memory, WARM_MAX, &names);
    char *name = (char *)names.data;
    for (size_t i = 0; i < body.n_warm; i++) {
        warm[i] = name;
        name += strlen(name) + 1;
    }
    request.body_case = MEMOS__REQUEST__BODY_WORKER_HEARTBEAT;
    request.worker_heartbeat = &body;
    enum memos_status status = send(link, &request, NULL, &unused, &err);
    memos_buffer_free(&names);
    if (status != MEMOS_OK) {
        memos_log(
            MEMOS_LOG_DEBUG, memos_log_event("a heartbeat was not sent"), memos_log_error(&err));
    }
}

static void send_drain(struct worker *worker)
{
    struct worker_link *link = &worker->link;
    struct memos_error err;
    Memos__WorkerDrain body = MEMOS__WORKER_DRAIN__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    body.id.data = link->instance;
    body.id.len = sizeof link->instance;
    request.body_case = MEMOS__REQUEST__BODY_WORKER_DRAIN;
    request.worker_drain = &body;
    if (send(link, &request, NULL, &link->drain_id, &err) != MEMOS_OK) {
        memos_log(MEMOS_LOG_DEBUG, memos_log_event("a drain was not sent"), memos_log_error(&err));
    }
}

/* A status for a ticket that has no job here. If it cannot go now, the broker's deadline says it.
 */
static void refuse(
    struct worker *worker, const Memos__Job *job, enum memos_status status, const char *text)
{
    struct memos_error err;
    uint64_t unused;
    Memos__Reply reply = MEMOS__REPLY__INIT;
    Memos__JobUpdate update = MEMOS__JOB_UPDATE__INIT;
    Memos__JobOver over = MEMOS__JOB_OVER__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    reply.status = status;
    reply.message = (char *)(uintptr_t)text;
    reply.hint = (char *)(uintptr_t)memos_status_hint(status);
    update.ticket = over.ticket = job->ticket;
    update.reply = &reply;
    request.body_case = MEMOS__REQUEST__BODY_JOB_UPDATE;
    request.job_update = &update;
    enum memos_status sent = send(&worker->link, &request, NULL, &unused, &err);
    request.body_case = MEMOS__REQUEST__BODY_JOB_OVER;
    request.job_over = &over;
    if (sent == MEMOS_OK) {
        sent = send(&worker->link, &request, NULL, &unused, &err);
    }
    if (sent != MEMOS_OK) {
        memos_log(
            MEMOS_LOG_WARNING, memos_log_event("a job was not refused"), memos_log_error(&err));
    }
}

static enum memos_status send_out(
    struct worker_link *link, struct worker_out *out, struct memos_error *err)
{
    uint64_t unused;
    Memos__JobUpdate update = MEMOS__JOB_UPDATE__INIT;
    Memos__JobOver over = MEMOS__JOB_OVER__INIT;
    Memos__Request request = MEMOS__REQUEST__INIT;
    if (out->is_over) {
        over.ticket = out->job->asked->ticket;
        request.body_case = MEMOS__REQUEST__BODY_JOB_OVER;
        request.job_over = &over;
    } else {
        update.ticket = out->job->asked->ticket;
        update.reply = &out->reply;
        request.body_case = MEMOS__REQUEST__BODY_JOB_UPDATE;
        request.job_update = &update;
    }
    return send(link, &request, out->frame.data ? &out->frame : NULL, &unused, err);
}

/* An envelope that is too large, or no memory to pack it: the client is told that instead. */
static void make_short(struct worker_out *out, const struct memos_error *err)
{
    struct worker_job *job = out->job;
    memos_log(MEMOS_LOG_WARNING, memos_log_event("a reply was not sent"), memos_log_error(err));
    (void)worker_text_clean(memos_bytes_of(err->text), job->last_words);
    out->reply.body_case = MEMOS__REPLY__BODY__NOT_SET;
    out->reply.status = err->status;
    out->reply.message = job->last_words;
    out->frame = memos_bytes_make(NULL, 0);
}

/* False: the socket takes no more. */
static bool send_all(struct worker *worker)
{
    struct worker_link *link = &worker->link;
    *link->unsent_tail = worker_outbox_take(&worker->outbox);
    while (*link->unsent_tail) {
        link->unsent_tail = &(*link->unsent_tail)->next;
    }
    while (link->unsent) {
        struct memos_error err;
        struct worker_out *out = link->unsent;
        struct worker_job *job = out->job;
        enum memos_status status = job->is_dropped ? MEMOS_OK : send_out(link, out, &err);
        if (status == MEMOS_BUSY || status == MEMOS_UNAVAILABLE) {
            return false;
        } else if (status != MEMOS_OK && !out->reply.more && !out->is_over &&
                   out->reply.body_case != MEMOS__REPLY__BODY__NOT_SET) {
            make_short(out, &err);
            continue;
        } else if (status != MEMOS_OK) {
            memos_log(
                MEMOS_LOG_WARNING, memos_log_event("a message was lost"), memos_log_error(&err));
        }
        bool is_over = out->is_over;
        link->unsent = out->next;
        link->unsent_tail = link->unsent ? link->unsent_tail : &link->unsent;
        worker_out_free(out);
        if (is_over) {
            job_end(worker, job);
        }
    }
    return true;
}

/* ---- from the broker ------------------------------------------------------------------------ */

static bool is_prefix_hex(const char *text, const uint8_t *bytes, size_t size)
{
    size_t length = strlen(text);
    if (length < 8 || length > 2 * size) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        unsigned digit = i % 2 == 0 ? bytes[i / 2] >> 4 : bytes[i / 2] & 15;
        char shown = "0123456789abcdef"[digit];
        char given = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] + 32) : text[i];
        if (given != shown) {
            return false;
        }
    }
    return true;
}

/* The broker has chosen us for a model that we have; which one is it? */
static struct worker_model *model_of(struct worker *worker, const char *name)
{
    struct worker_model *first = worker->models;
    for (size_t i = 0; i < worker->models_count; i++) {
        if (strcmp(worker->models[i].host->name, name) == 0) {
            return &worker->models[i];
        }
    }
    for (size_t i = 0; i < worker->models_count; i++) {
        const struct paramem_model_info *info = &worker->models[i].host->info;
        if (is_prefix_hex(name, info->fingerprint, sizeof info->fingerprint)) {
            return &worker->models[i];
        }
    }
    return !name[0] && worker->models_count == 1 ? first : NULL;
}

/* Takes the message. */
static void take_job(struct worker *worker, struct memos_message *message)
{
    struct worker_link *link = &worker->link;
    struct worker_job *job = NULL;
    struct memos_error err;
    const Memos__Job *asked = memos_message_reply(message)->job;
    if (asked->ticket.len != WORKER_TICKET_BYTES || find(link, &asked->ticket)) {
        memos_log(MEMOS_LOG_WARNING, memos_log_event("a job without a ticket of its own"));
        memos_message_free(&message);
        return;
    } else if (link->jobs_count == worker->jobs_table_max) {
        refuse(worker, asked, MEMOS_BUSY, "the worker has more jobs than it said that it takes");
        memos_message_free(&message);
        return;
    }
    enum memos_status status = worker_job_make(message, worker_now_us(worker), &job, &err);
    if (!job) {
        memos_log(MEMOS_LOG_WARNING, memos_log_event("a job was not taken"), memos_log_error(&err));
        return;
    }
    link->jobs[link->jobs_count++] = job;
    job->announcement = link->announcements;
    job->worker = worker;
    job->model = model_of(worker, worker_asked_model(job->asked));
    if (status == MEMOS_OK && !job->model) {
        status = memos_fail(&err, MEMOS_NOT_FOUND, "this worker has no model '%.80s'",
            worker_asked_model(job->asked));
    }
    if (status != MEMOS_OK) {
        worker_job_fail(job, &err);
    } else {
        worker_queue_put(&worker->fetch_queue, job, false);
    }
}

/* The broker does not know us (any more). What it says of an announcement's predecessor may come
 * after that announcement was sent. */
static void take_unknown(struct worker *worker)
{
    struct worker_link *link = &worker->link;
    if (worker_now_us(worker) - link->announced_us > AGAIN_US) {
        memos_log(MEMOS_LOG_INFO, memos_log_event("the broker does not know this worker"));
        worker_link_drop(worker);
        announce(worker);
    } else {
        drop_before(worker, link->announcements);
    }
}

/* Something of a space was destroyed; NULL: perhaps, of any. Jobs that are here may have been asked
 * with it. */
static void take_forget(struct worker *worker, const char *space)
{
    for (size_t i = 0; i < worker->link.jobs_count; i++) {
        struct worker_job *job = worker->link.jobs[i];
        if (!space || strcmp(worker_job_space(job), space) == 0) {
            atomic_store_explicit(&job->forgotten, true, memory_order_relaxed);
        }
    }
    worker_memory_drop(worker->memory, space);
    for (size_t i = 0; i < worker->models_count; i++) {
        worker_model_drop(&worker->models[i], space ? worker_owner_of(space) : 0);
    }
}

static void take_first(struct worker *worker)
{
    struct worker_link *link = &worker->link;
    link->is_taken = true;
    take_forget(worker, NULL); /* while nobody told us what is */
    memos_log(MEMOS_LOG_INFO, memos_log_event("announced"), memos_log_text("name", worker->name));
    if (!link->is_ready && worker->options.on_ready) {
        worker->options.on_ready(worker->options.self);
    }
    link->is_ready = true;
}

static void take_refusal(struct worker *worker, const Memos__Reply *reply)
{
    struct worker_link *link = &worker->link;
    bool is_for_good = reply->status == MEMOS_DENIED || reply->status == MEMOS_INVALID ||
                       reply->status == MEMOS_UNSUPPORTED;
    link->is_taken = false;
    worker_link_drop(worker);
    if (is_for_good) {
        link->refused = (enum memos_status)reply->status;
        (void)memos_fail(
            &link->refusal, link->refused, "the broker refuses this worker: %s", reply->message);
    } else {
        memos_log(MEMOS_LOG_WARNING, memos_log_event("not announced yet"),
            memos_log_text("why", reply->message));
    }
}

/* What the broker tells us as its worker, with `more`. Takes the message. */
static void take_order(struct worker *worker, struct memos_message *message)
{
    struct worker_link *link = &worker->link;
    const Memos__Reply *reply = memos_message_reply(message);
    if (reply->id == link->announce_id && !link->is_taken) {
        take_first(worker);
    }
    if (reply->body_case == MEMOS__REPLY__BODY_JOB) {
        take_job(worker, message);
        return;
    }
    if (reply->body_case == MEMOS__REPLY__BODY_JOB_CANCEL) {
        struct worker_job *job = find(link, &reply->job_cancel->ticket);
        if (job) {
            atomic_store_explicit(&job->cancelled, true, memory_order_relaxed);
        }
    } else if (reply->body_case == MEMOS__REPLY__BODY_WORKER_PING &&
               reply->worker_ping->announce_again) {
        take_unknown(worker);
    } else if (reply->body_case == MEMOS__REPLY__BODY_WORKER_FORGET) {
        take_forget(worker, reply->worker_forget->space);
    } else if (reply->body_case == MEMOS__REPLY__BODY_WORKER_STOP) {
        link->is_told_to_stop = true;
    }
    memos_message_free(&message);
}

/* Takes the message. */
static void take(struct worker *worker, struct memos_message *message)
{
    struct worker_link *link = &worker->link;
    const Memos__Reply *reply = memos_message_reply(message);
    bool is_own = link->announce_id != 0 && reply->id == link->announce_id;
    bool is_before = link->before_id != 0 && reply->id == link->before_id;
    link->heard_us = worker_now_us(worker);
    if ((is_own || is_before) && reply->more && reply->status == MEMOS_OK) {
        take_order(worker, message);
        return;
    }
    if (is_own && !reply->more) {
        take_refusal(worker, reply);
    } else if (link->drain_id != 0 && reply->id == link->drain_id) {
        link->is_drained = true;
    } else if (reply->status == MEMOS_UNAVAILABLE ||
               reply->body_case == MEMOS__REPLY__BODY_WORKER_PING) {
        take_unknown(worker);
    } else if (reply->status == MEMOS_DENIED) {
        drop_before(worker, link->announcements);
    } else if (reply->status != MEMOS_OK) {
        memos_log(MEMOS_LOG_DEBUG, memos_log_event("the broker refuses a message"),
            memos_log_text("why", reply->message));
    }
    memos_message_free(&message);
}

static void receive_all(struct worker *worker)
{
    for (;;) {
        struct memos_error err;
        struct memos_message *message = NULL;
        enum memos_status status = memos_client_receive(worker->link.client, 0, &message, &err);
        if (status == MEMOS_OK) {
            take(worker, message);
            continue;
        }
        memos_message_free(&message);
        if (status == MEMOS_DEADLINE || status == MEMOS_NO_MEMORY) {
            return;
        }
        memos_log(
            MEMOS_LOG_WARNING, memos_log_event("what came is no reply"), memos_log_error(&err));
    }
}

/* ---- a turn --------------------------------------------------------------------------------- */

void worker_link_turn(struct worker *worker)
{
    struct worker_link *link = &worker->link;
    int64_t now_us = worker_now_us(worker);
    int64_t silence_us = link->is_taken ? SILENCE_US : AGAIN_US;
    if (link->announced_us == 0 || now_us - link->heard_us > silence_us) {
        announce(worker);
    }
    if (now_us >= link->beat_us) {
        link->beat_us = now_us + BEAT_US;
        if (link->is_taken) {
            beat(worker);
        }
        if (link->is_draining && !link->is_drained && !link->is_told_to_stop) {
            send_drain(worker);
        }
    }
    receive_all(worker);
    if (send_all(worker)) {
        receive_all(worker); /* sending may have taken the news that something came */
    }
}

int64_t worker_link_due_us(const struct worker *worker)
{
    const struct worker_link *link = &worker->link;
    int64_t retry_us = worker_now_us(worker) + RETRY_US;
    return link->unsent && retry_us < link->beat_us ? retry_us : link->beat_us;
}

void worker_link_drain(struct worker *worker)
{
    struct worker_link *link = &worker->link;
    if (!link->is_draining) {
        link->is_draining = true;
        link->drain_us = worker_now_us(worker);
        if (!link->is_told_to_stop) {
            send_drain(worker);
        }
    }
}

/* The broker says when there is nothing more, unless it is not there to say so. */
bool worker_link_drained(const struct worker *worker)
{
    const struct worker_link *link = &worker->link;
    int64_t since_us = link->empty_us > link->drain_us ? link->empty_us : link->drain_us;
    bool is_alone = !link->is_taken || worker_now_us(worker) - since_us > DRAIN_WAIT_US;
    return link->jobs_count == 0 && !link->unsent && (link->is_told_to_stop || is_alone);
}

enum memos_status worker_link_open(struct worker *worker, struct memos_error *err)
{
    struct worker_link *link = &worker->link;
    struct memos_client_options options = worker->options.client;
    options.timeout_ms = CONNECT_MS;
    link->unsent_tail = &link->unsent;
    link->beat_us = worker_now_us(worker);
    randombytes_buf(link->instance, sizeof link->instance);
    worker->jobs_table_max = worker->options.jobs_max + TABLE_SPARE;
    link->jobs = calloc(worker->jobs_table_max, sizeof(void *));
    return link->jobs ? memos_client_open(&options, &link->client, err)
                      : memos_fail(err, MEMOS_NO_MEMORY, "no memory for a table of jobs");
}

void worker_link_close(struct worker *worker)
{
    struct worker_link *link = &worker->link;
    while (link->unsent) {
        struct worker_out *out = link->unsent;
        link->unsent = out->next;
        worker_out_free(out);
    }
    while (link->jobs_count > 0) {
        worker_job_release(worker, link->jobs[--link->jobs_count]);
    }
    free(link->jobs);
    memos_client_close(&link->client);
}
