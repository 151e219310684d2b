/* Counters, as Prometheus has them. The front thread's; others' counters are asked for when read.
 */
#ifndef MEMOS_BROKER_METRICS_H
#define MEMOS_BROKER_METRICS_H

#include "memos/broker/dispatch.h"

enum { BROKER_STATUSES = MEMOS_STALE + 1, BROKER_LATENCY_BUCKETS = 6 };

struct broker_metrics {
    /* by type; the last one is for requests whose type is not known */
    uint64_t requests[BROKER_TYPES_COUNT + 1][BROKER_STATUSES];
    uint64_t latency[BROKER_TYPES_COUNT + 1][BROKER_LATENCY_BUCKETS]; /* not summed up */
    uint64_t latency_us[BROKER_TYPES_COUNT + 1];
    uint64_t bytes_in, bytes_out;
    uint64_t malformed;       /* messages that were none of ours */
    uint64_t replies_dropped; /* the client did not take its replies */
    uint64_t clients_gone;    /* replies for clients that had gone */
    uint64_t inline_reads;    /* reads that the front thread ran itself */
    uint64_t access_loads;
    uint64_t events_closed; /* sockets that a peer made unsafe to read from */
};

/* A request has been answered. type NULL: not known. */
void broker_metrics_count(struct broker_metrics *metrics, const struct broker_type *type,
    enum memos_status status, int64_t micros);

/* All metrics of a broker into the reply of rq. */
MEMOS_MUST_USE enum memos_status broker_metrics_make(
    struct broker_request *rq, Memos__StatsResult *out, struct memos_error *err);

#endif
