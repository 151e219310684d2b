/* What a worker is made of, and whose each part is. */
#ifndef MEMOS_WORKER_STATE_H
#define MEMOS_WORKER_STATE_H

#include "memos/worker/job.h"
#include "memos/worker/worker.h"
#include "proto/clock.h"

#define WORKER_FETCHERS_MAX 16
#define WORKER_DROPS_MAX 64

/* A model, and the thread that its engine belongs to. */
struct worker_model {
    struct worker *worker;
    const struct worker_host *host;
    struct worker_queue queue;
    pthread_t thread;
    bool has_thread;

    /* its thread's own */
    struct worker_job **running; /* in the engine; (jobs_table_max) */
    size_t running_count;
    struct worker_job *pieces, **pieces_tail; /* scores and captures: a piece between two steps */

    pthread_mutex_t lock;              /* Sync: of all below */
    struct paramem_engine_stats stats; /* of the last step */
    uint64_t drops[WORKER_DROPS_MAX];  /* owners that the engine is to drop */
    size_t drops_count;
};

struct worker_fetcher {
    struct worker *worker;
    struct memos_client *client; /* its thread's own */
    pthread_t thread;
    bool has_thread;
};

/* The link thread's own. */
struct worker_link {
    struct memos_client *client;
    uint8_t instance[16];
    uint64_t announce_id, before_id; /* of the last announcement, and of the one before; 0: none */
    uint64_t announcements;          /* counted */
    bool is_taken;                   /* the broker has answered it */
    bool is_waiting;                 /* it could not be sent */
    int64_t announced_us, heard_us, beat_us;
    struct worker_job **jobs; /* (jobs_table_max) */
    size_t jobs_count;
    struct worker_out *unsent, **unsent_tail; /* in order */
    bool is_ready, is_draining, is_told_to_stop;
    uint64_t drain_id;         /* of our WorkerDrain; 0: none was sent */
    bool is_drained;           /* the broker has answered it: no job is on its way */
    int64_t drain_us;          /* when draining began */
    int64_t empty_us;          /* when a job ended last */
    enum memos_status refused; /* OK: not */
    struct memos_error refusal;
};

struct worker {
    struct worker_options options;
    char name[128];
    struct memos_clock clock;
    size_t jobs_table_max;
    bool same_host; /* as the broker */
    struct worker_memory *memory;
    struct worker_model models[WORKER_MODELS_MAX];
    size_t models_count;
    struct worker_queue fetch_queue;
    struct worker_fetcher fetchers[WORKER_FETCHERS_MAX];
    size_t fetchers_count;
    struct worker_outbox outbox;
    atomic_bool is_stopped, is_drained;
    pthread_mutex_t lost_lock;
    struct memos_error lost; /* status OK: no device has failed; under lost_lock */
    struct worker_link link;
};

static inline int64_t worker_now_us(const struct worker *worker)
{
    return worker->clock.mono_us(worker->clock.self);
}

/* Give back what a job holds, and the job. Link thread, or when all threads have ended. */
void worker_job_release(struct worker *worker, struct worker_job *job);

/* A device failed: worker_run is to end. */
void worker_lose(struct worker *worker, const struct memos_error *err);

/* model.c: the engine is to keep nothing of this owner (0: of anybody). Any thread. */
void worker_model_drop(struct worker_model *model, uint64_t owner);

/* model.c, fetch.c: the threads' bodies. */
void *worker_model_main(void *self); /* struct worker_model */
void *worker_fetch_main(void *self); /* struct worker_fetcher */

#endif
