#include "memos/broker/metrics.h"

#include "memos/broker/state.h"
#include "memos/broker/work.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int64_t us;
    const char *text; /* seconds, as Prometheus writes them */
} buckets[BROKER_LATENCY_BUCKETS] = {
    {100, "0.0001"},
    {1000, "0.001"},
    {10000, "0.01"},
    {100000, "0.1"},
    {1000000, "1"},
    {INT64_MAX, "+Inf"},
};

void broker_metrics_count(struct broker_metrics *metrics, const struct broker_type *type,
    enum memos_status status, int64_t micros)
{
    size_t index = broker_type_index(type), bucket = 0;
    while (micros > buckets[bucket].us) {
        bucket++;
    }
    metrics->requests[index][status]++;
    metrics->latency[index][bucket]++;
    metrics->latency_us[index] += (uint64_t)micros;
}

/* ---- the reply ---- */

enum { METRICS_MAX = 2048 };

struct writer {
    struct broker_request *rq;
    Memos__StatsResult *out;
    enum memos_status status;
    struct memos_error *err;
};

static char *const_text(const char *text)
{
    return (char *)(uintptr_t)text;
}

__attribute__((format(printf, 6, 7))) static void metric(struct writer *to, const char *name,
    const char *type, const char *help, double value, const char *labels, ...)
{
    char text[160];
    va_list values;
    Memos__Metric *metric = NULL;

    va_start(values, labels);
    (void)vsnprintf(text, sizeof text, labels, values);
    va_end(values);
    if (to->status == MEMOS_OK && to->out->n_metrics < METRICS_MAX) {
        metric = memos_arena_take(&to->rq->work, 1, sizeof *metric);
        to->status =
            metric ? MEMOS_OK : memos_fail(to->err, MEMOS_NO_MEMORY, "no memory for metrics");
    }
    if (!metric) {
        return;
    }
    memos__metric__init(metric);
    metric->name = const_text(name);
    metric->type = const_text(type);
    metric->help = const_text(help);
    metric->value = value;
    to->status = broker_text_make(&to->rq->work, memos_bytes_of(text), &metric->labels, to->err);
    to->out->metrics[to->out->n_metrics++] = metric;
}

static const char *type_name(size_t index)
{
    return index < BROKER_TYPES_COUNT ? broker_type_at(index)->name : "unknown";
}

static void request_metrics(struct writer *to, const struct broker_metrics *metrics)
{
    for (size_t i = 0; i <= BROKER_TYPES_COUNT; i++) {
        for (int status = 0; status < BROKER_STATUSES; status++) {
            if (metrics->requests[i][status] > 0) {
                metric(to, "memos_requests_total", "counter", "Requests answered.",
                    (double)metrics->requests[i][status], "type=\"%s\",status=\"%s\"", type_name(i),
                    memos_status_name((enum memos_status)status));
            }
        }
    }
}

static void latency_metrics(struct writer *to, const struct broker_metrics *metrics)
{
    static const char help[] = "Seconds from a request's arrival to its reply.";
    for (size_t i = 0; i <= BROKER_TYPES_COUNT; i++) {
        uint64_t sum = 0;
        for (size_t bucket = 0; bucket < BROKER_LATENCY_BUCKETS; bucket++) {
            sum += metrics->latency[i][bucket];
        }
        if (sum == 0) {
            continue;
        }
        uint64_t below = 0;
        for (size_t bucket = 0; bucket < BROKER_LATENCY_BUCKETS; bucket++) {
            below += metrics->latency[i][bucket];
            metric(to, "memos_request_seconds_bucket", "counter", help, (double)below,
                "type=\"%s\",le=\"%s\"", type_name(i), buckets[bucket].text);
        }
        metric(to, "memos_request_seconds_sum", "counter", help,
            (double)metrics->latency_us[i] / 1e6, "type=\"%s\"", type_name(i));
        metric(to, "memos_request_seconds_count", "counter", help, (double)sum, "type=\"%s\"",
            type_name(i));
    }
}

struct plain {
    const char *name, *type, *help;
    uint64_t value;
};

static void plain_metrics(struct writer *to, const struct plain *plain, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        metric(to, plain[i].name, plain[i].type, plain[i].help, (double)plain[i].value, "%s", "");
    }
}

static void front_metrics(struct writer *to, struct broker *broker)
{
    const struct broker_metrics *metrics = &broker->metrics;
    struct broker_events_stats events;
    broker_events_stats(broker->events, &events);
    const struct plain plain[] = {
        {"memos_bytes_received_total", "counter", "Bytes of messages taken in.", metrics->bytes_in},
        {"memos_bytes_sent_total", "counter", "Bytes of messages handed out.", metrics->bytes_out},
        {"memos_messages_malformed_total", "counter", "Messages that were none of ours.",
            metrics->malformed},
        {"memos_replies_dropped_total", "counter", "Replies that a slow client did not take.",
            metrics->replies_dropped},
        {"memos_replies_unreachable_total", "counter", "Replies to clients that had gone.",
            metrics->clients_gone},
        {"memos_reads_inline_total", "counter", "Reads run by the front thread itself.",
            metrics->inline_reads},
        {"memos_access_loads_total", "counter", "How often grants and keys were read.",
            metrics->access_loads},
        {"memos_events_closed_total", "counter", "Events' sockets that a peer broke.",
            metrics->events_closed},
        {"memos_requests_inside", "gauge", "Requests that wait or run.", broker->requests_inside},
        {"memos_request_bytes_inside", "gauge", "Bytes of the requests that wait or run.",
            broker->bytes_inside},
        {"memos_read_queue", "gauge", "Reads that wait for a thread.",
            broker_pool_waiting(broker->readers)},
        {"memos_job_queue", "gauge", "Long requests that wait for a thread.",
            broker_pool_waiting(broker->jobs)},
        {"memos_spaces_watched", "gauge", "Spaces with a live watch token.", events.spaces},
        {"memos_events_published_total", "counter", "Events handed to subscribers.",
            events.published},
        {"memos_events_dropped_total", "counter", "Events that could not be published.",
            events.dropped},
        {"memos_subscriptions_total", "counter", "Subscriptions taken.", events.subscriptions},
        {"memos_subscriptions_refused_total", "counter", "Subscriptions to no live token.",
            events.refused},
    };
    plain_metrics(to, plain, sizeof plain / sizeof plain[0]);
}

static void work_metrics(struct writer *to, struct broker *broker)
{
    struct broker_work_stats work;
    broker_work_stats(broker->work, &work);
    const struct plain plain[] = {
        {"memos_workers", "gauge", "Workers that have announced themselves.", work.workers},
        {"memos_worker_jobs_waiting", "gauge", "Jobs that wait for a worker.", work.waiting},
        {"memos_worker_jobs_running", "gauge", "Jobs that a worker has.", work.running},
        {"memos_worker_jobs_ending", "gauge", "Jobs that are answered and not over.",
            work.lingering},
        {"memos_worker_jobs_done_total", "counter", "Jobs answered well.", work.done},
        {"memos_worker_jobs_failed_total", "counter", "Jobs that failed.", work.failed},
        {"memos_worker_jobs_cancelled_total", "counter", "Jobs that were cancelled.",
            work.cancelled},
        {"memos_worker_jobs_lost_total", "counter", "Jobs whose worker was lost.", work.lost_tasks},
        {"memos_worker_jobs_retried_total", "counter", "Of these, given to another worker.",
            work.retried},
        {"memos_workers_lost_total", "counter", "Workers that were lost.", work.lost_workers},
        {"memos_worker_tokens_total", "counter", "Tokens passed on to clients.", work.tokens},
        {"memos_worker_updates_refused_total", "counter",
            "Updates of no job, or that no client can be told.", work.updates_refused},
        {"memos_tickets_refused_total", "counter", "Requests with a ticket that were refused.",
            work.tickets_refused},
    };
    plain_metrics(to, plain, sizeof plain / sizeof plain[0]);
}

static void store_metrics(struct writer *to, struct broker *broker)
{
    struct memcube_store_stats store = {0};
    struct memcube_writer_stats writer = {0};
    if (to->status == MEMOS_OK) {
        to->status = memcube_store_stats(broker->store, &store, to->err);
    }
    memcube_writer_stats(broker->writer, &writer);
    const struct plain plain[] = {
        {"memos_spaces", "gauge", "Spaces in the store.", store.spaces},
        {"memos_store_map_bytes", "gauge", "Size of the database's map.", store.map_bytes},
        {"memos_store_file_bytes", "gauge", "Size of the database's file.", store.file_bytes},
        {"memos_store_used_bytes", "gauge", "Bytes of the database in use.", store.used_bytes},
        {"memos_store_blobs", "gauge", "Payloads in files of their own.", store.blobs},
        {"memos_store_blob_bytes", "gauge", "Bytes of such payloads.", store.blob_bytes},
        {"memos_store_map_grown_total", "counter", "How often the map was made larger.",
            store.map_grown},
        {"memos_store_commits_total", "counter", "Transactions committed.", store.commits},
        {"memos_store_records_total", "counter", "Log records written.", store.records},
        {"memos_store_versions_total", "counter", "Versions made.", store.versions_made},
        {"memos_store_payloads_destroyed_total", "counter", "Payloads destroyed.",
            store.payloads_destroyed},
        {"memos_writer_jobs_total", "counter", "Changes handed to the writer.", writer.jobs},
        {"memos_writer_groups_total", "counter", "Groups of changes committed.", writer.groups},
        {"memos_writer_group_largest", "gauge", "Changes in the largest group.",
            writer.group_largest},
        {"memos_writer_refused_total", "counter", "Changes refused because the queue was full.",
            writer.refused},
        {"memos_writer_queue", "gauge", "Changes that wait for the writer.", writer.waiting},
    };
    plain_metrics(to, plain, sizeof plain / sizeof plain[0]);
}

static void meaning_metrics(struct writer *to, struct broker *broker)
{
    struct broker_meaning_status meaning;
    struct retrieval_vectors_stats vectors;
    broker_meaning_status(broker->meaning, &meaning);
    retrieval_vectors_stats(retrieval_vectors_of(broker->retrieval), &vectors);
    const struct retrieval_embedder_stats *embedder = &meaning.embedder;
    const struct plain plain[] = {
        {"memos_encoder_texts_total", "counter", "Texts made into vectors.", embedder->texts},
        {"memos_encoder_batches_total", "counter", "Batches of texts encoded.", embedder->pieces},
        {"memos_encoder_joined_total", "counter", "Batches with texts of several requests.",
            embedder->joined},
        {"memos_encoder_remembered_total", "counter", "Texts whose vectors were still known.",
            embedder->remembered},
        {"memos_encoder_failed_total", "counter", "Requests that the encoder failed.",
            embedder->failed},
        {"memos_encoder_refused_total", "counter", "Requests for which its queue was too full.",
            embedder->refused},
        {"memos_encoder_busy_microseconds_total", "counter", "Time spent in the encoder.",
            embedder->busy_us},
        {"memos_encoder_queue", "gauge", "Requests that wait for the encoder.", embedder->jobs_now},
        {"memos_vectors_waiting", "gauge", "Contents that wait for a vector.", meaning.waiting},
        {"memos_vectors_filled_total", "counter", "Vectors made in the background.", meaning.done},
        {"memos_vector_tables", "gauge", "Spaces whose vectors are in memory.", vectors.tables},
        {"memos_vector_table_bytes", "gauge", "Bytes of these.", vectors.table_bytes},
        {"memos_vector_rows", "gauge", "Vectors in memory.", vectors.rows},
        {"memos_vector_loads_total", "counter", "How often a space's vectors were read in.",
            vectors.loads},
        {"memos_vector_indexes", "gauge", "Approximate indexes in use.", vectors.ann_indexes},
        {"memos_vector_index_bytes", "gauge", "Bytes of these.", vectors.ann_bytes},
    };
    plain_metrics(to, plain, sizeof plain / sizeof plain[0]);
}

enum memos_status broker_metrics_make(
    struct broker_request *rq, Memos__StatsResult *out, struct memos_error *err)
{
    struct writer to = {rq, out, MEMOS_OK, err};
    out->metrics = memos_arena_take(&rq->work, METRICS_MAX, sizeof *out->metrics);
    if (!out->metrics) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for metrics");
    }
    request_metrics(&to, &rq->broker->metrics);
    latency_metrics(&to, &rq->broker->metrics);
    front_metrics(&to, rq->broker);
    work_metrics(&to, rq->broker);
    store_metrics(&to, rq->broker);
    meaning_metrics(&to, rq->broker);
    return to.status;
}
