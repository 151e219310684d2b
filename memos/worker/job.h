/* A job on its way through the worker, and the queues between the threads that it visits.
 *
 *   Generate   PREPARE (fetch) -> RUN (model) [-> RECEIPT (fetch)] [-> READ (model) -> PUT (fetch)]
 *              [-> LATER (fetch): a capture is brought for the next answer]
 *   Score      PREPARE         -> RUN
 *   Capture    PREPARE         -> READ -> PUT
 *
 * A job belongs to one thread at a time; a queue hands it on. Only `cancelled` and `forgotten` are
 * written by the link thread at any time. The link thread has a table of all jobs: it makes one of
 * a Job, and frees it when `over` has come to it through the outbox, which is the last that anybody
 * does with it. There are never more than jobs_max jobs and a few, so no queue needs a bound of its
 * own.
 *
 * What must not fail has its memory in the job: the last reply and the end. */
#ifndef MEMOS_WORKER_JOB_H
#define MEMOS_WORKER_JOB_H

#include "memos/worker/asked.h"
#include "memos/worker/memory.h"

#include <pthread.h>

struct worker;
struct worker_model;

enum worker_stage {
    WORKER_PREPARE,
    WORKER_RUN,
    WORKER_RECEIPT,
    WORKER_READ,
    WORKER_PUT,
    WORKER_LATER,
};

/* A reply on its way to the broker. */
struct worker_out {
    struct worker_out *next;
    struct worker_job *job;
    bool is_over;    /* no reply: the ticket is given back */
    bool is_the_job; /* part of it, not to be freed */
    Memos__Reply reply;
    struct memos_bytes frame; /* data NULL: none */
};

/* Tokens of a step that were not sent yet: each, then its alternatives. Memory is kept. */
struct worker_heard {
    struct memos_buffer text;
    struct worker_heard_token {
        uint32_t id;
        float logprob;
    } * tokens;
    size_t count, capacity; /* of tokens, alternatives among them */
};

/* One text of a Score. */
struct worker_text {
    uint32_t *ids;       /* freed with the job */
    size_t count, first; /* ids[first..] are told; first at least 1 */
    size_t begin, told;  /* where the next window begins; logprobs[0..told) are there */
    uint64_t bytes;
    float *logprobs; /* (count - 1) */
};

struct worker_job {
    struct worker_job *next; /* in the queue that it is in */
    struct worker *worker;
    struct worker_model *model;
    struct memos_message *message; /* what asked and frames view */
    const Memos__Job *asked;
    struct worker_frames frames;
    struct memos_arena arena;
    enum worker_stage stage;
    int64_t came_us, handed_us; /* to the worker; to the queue that it is in */
    int64_t submitted_us;       /* to the engine */
    int64_t deadline_us;        /* 0: none */
    uint64_t waited_us;         /* in queues */
    atomic_bool cancelled;
    atomic_bool forgotten; /* something of its space was destroyed since it came */
    bool is_dropped;       /* link thread: nobody hears it any more */
    uint64_t announcement; /* link thread: under which it came */
    bool is_answered;      /* its last reply is on its way */

    struct worker_prompt *prompt; /* NULL: it has none */

    /* a Generate */
    struct paramem_request request;
    struct worker_heard heard;
    struct memos_buffer answer;
    struct memos_buffer answer_ids; /* uint32_t each */
    struct paramem_result result;   /* once is_done; its texts are below */
    struct memos_error result_err;
    char stop_string[PARAMEM_STOP_BYTES + 1];
    uint64_t engine_id;
    bool is_done;
    struct memos_error failed;                       /* status OK: nothing failed on this side */
    char last_words[3 * MEMOS_ERROR_TEXT_BYTES + 1]; /* of the last reply, UTF-8 */

    /* a Score */
    struct worker_text *texts;
    size_t texts_count, texts_told;

    /* a Capture, or one that a Generate leaves behind */
    struct worker_capture **captures;
    size_t captures_count, captures_read;
    Memos__CaptureMade *made; /* (captures_count), in arena; of a Capture */
    Memos__CaptureMade **existing;
    size_t existing_count;

    struct worker_out last, over;
    union {
        Memos__Generated generated;
        Memos__Scored scored;
        Memos__Captured captured;
    };
    struct memcube_ref receipt_put; /* number 0: none was */
    Memos__Ref receipt_ref;
};

/* The message is the job's from here on, also when this fails (its ticket is then in *out_ticket if
 * there is one). INVALID, UNSUPPORTED, NO_MEMORY. */
MEMOS_MUST_USE enum memos_status worker_job_make(struct memos_message *message, int64_t now_us,
    struct worker_job **out, struct memos_error *err);
void worker_job_free(struct worker_job **job); /* takes NULL */

/* CANCELLED or DEADLINE when nobody waits for it any more. */
MEMOS_MUST_USE enum memos_status worker_job_wanted(
    const struct worker_job *job, int64_t now_us, struct memos_error *err);

/* The space that it is about; "" for none. */
const char *worker_job_space(const struct worker_job *job);

/* Is it a Generate, so that more than one forward pass goes into it? */
bool worker_job_generates(const struct worker_job *job);

/* ---- queues --------------------------------------------------------------------------------- */

struct worker_queue {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct worker_job *first, **tail;
    size_t count;
    bool is_stopped, is_poked;
};

void worker_queue_init(struct worker_queue *queue);
void worker_queue_finish(struct worker_queue *queue);

/* At the end, or (first) before all others: what somebody has waited for already. */
void worker_queue_put(struct worker_queue *queue, struct worker_job *job, bool first);
/* The next; NULL when there is none and wait is false, or when the queue was stopped or poked. */
struct worker_job *worker_queue_take(struct worker_queue *queue, bool wait);
/* Who waits has something else to look at; if nobody does, who waits next. */
void worker_queue_poke(struct worker_queue *queue);
/* Nobody waits any more; what is inside stays there. */
void worker_queue_stop(struct worker_queue *queue);
size_t worker_queue_count(struct worker_queue *queue);

/* What goes to the link thread, in order. */
struct worker_outbox {
    pthread_mutex_t lock;
    struct worker_out *first, **tail;
    size_t count;
    int event_fd; /* readable when something was put in */
};

MEMOS_MUST_USE enum memos_status worker_outbox_init(
    struct worker_outbox *outbox, struct memos_error *err);
void worker_outbox_finish(struct worker_outbox *outbox); /* frees what is inside */
void worker_outbox_put(
    struct worker_outbox *outbox, struct worker_out *first, struct worker_out *last, size_t count);
/* All that is there, linked by next; NULL: nothing. Clears event_fd. */
struct worker_out *worker_outbox_take(struct worker_outbox *outbox);
void worker_out_free(struct worker_out *out);

#endif
