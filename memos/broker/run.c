/* Running requests: on readers, on the threads for jobs, and in the writer. */
#include "memos/broker/state.h"

#include <stdlib.h>

enum {
    READER_BYTES_KEPT = 1 << 20
}; /* a snapshot's memory is only given back when it is renewed */

/* ---- snapshots ---- */

enum memos_status broker_reader_renew(struct broker_reader *reader, struct memos_error *err)
{
    bool keep =
        reader->read && reader->keep && memcube_read_arena(reader->read)->used < READER_BYTES_KEPT;
    if (keep) {
        return MEMOS_OK;
    }
    reader->space.name.size = 0;
    if (!reader->read) {
        return memcube_read_begin(reader->broker->store, &reader->read, err);
    }
    enum memos_status status = memcube_read_renew(reader->read, err);
    if (status != MEMOS_OK) {
        memcube_read_end(&reader->read);
    }
    return status;
}

/* A snapshot keeps pages from being used again, and the map from growing. While that waits for the
 * snapshots that there are, new ones wait for it: a thread that has one must not wait for anything,
 * not even for a second one. */
void broker_reader_rest(struct broker_reader *reader)
{
    reader->keep = false;
    reader->space.name.size = 0;
    if (reader->read) {
        memcube_read_end(&reader->read);
    }
}

enum memos_status broker_reader_space(struct broker_reader *reader, struct memos_bytes name,
    struct memcube_space *out, struct memos_error *err)
{
    if (!memos_bytes_equal(reader->space.name, name)) {
        reader->space.name.size = 0;
        enum memos_status status = memcube_space_find(reader->read, name, &reader->space, err);
        if (status != MEMOS_OK) {
            reader->space.name.size = 0;
            return status;
        }
    }
    *out = reader->space;
    return MEMOS_OK;
}

/* ---- reads ---- */

void broker_run_read(struct broker_reader *reader, struct broker_request *rq)
{
    struct memos_error err = {0};
    broker_request_begin(rq);
    enum memos_status status = rq->on_front ? MEMOS_OK : broker_request_check(rq, &err);
    if (status == MEMOS_OK) {
        status = broker_request_convert(rq, &err);
    }
    if (status == MEMOS_OK) {
        status = broker_reader_renew(reader, &err);
    }
    if (status == MEMOS_OK) {
        rq->reader = reader;
        status = rq->type->read(rq, reader->read, &err);
    }
    if (!rq->too_long) {
        broker_request_pack(rq, status, &err);
    }
}

static void *reader_begin(void *self)
{
    struct broker_reader *reader = calloc(1, sizeof *reader);
    if (reader) {
        reader->broker = self;
    }
    return reader;
}

static void reader_idle(void *worker)
{
    if (worker) {
        broker_reader_rest(worker);
    }
}

static void reader_end(void *worker)
{
    reader_idle(worker);
    free(worker);
}

static void fail_without_worker(struct broker_request *rq)
{
    struct memos_error err;
    enum memos_status status = memos_fail(&err, MEMOS_NO_MEMORY, "no memory for a reader");
    broker_request_pack(rq, status, &err);
    broker_reply_push(rq->broker, &rq->answer);
}

/* Questions come back here with their vectors. */
static void read_again(struct broker_request *rq)
{
    rq->next = NULL;
    broker_pool_submit(rq->broker->readers, rq, rq, 1);
}

/* Has somebody else got it, to make vectors of its questions? */
static bool read_waits(struct broker_request *rq)
{
    return !rq->meant && broker_request_check(rq, NULL) == MEMOS_OK &&
           broker_request_convert(rq, NULL) == MEMOS_OK &&
           broker_meaning_prepare(rq, NULL, read_again);
}

/* Large changes are converted here, off the front thread, and then go on to the writer. */
static void reader_run(void *worker, struct broker_request *rq)
{
    if (broker_dispatch_class(rq) == BROKER_WRITE) {
        broker_run_write(rq, worker);
    } else if (read_waits(rq)) {
        return;
    } else if (!worker) {
        fail_without_worker(rq);
    } else {
        broker_run_read(worker, rq);
        broker_reply_push(rq->broker, &rq->answer);
    }
}

/* ---- jobs ---- */

static void *job_begin(void *self)
{
    return self;
}

static void job_run(void *worker, struct broker_request *rq)
{
    struct memos_error err = {0};
    (void)worker;
    broker_request_begin(rq);
    enum memos_status status = broker_request_check(rq, &err);
    if (status == MEMOS_OK) {
        status = broker_request_convert(rq, &err);
    }
    if (status == MEMOS_OK) {
        status = rq->type->job(rq, &err);
    }
    broker_request_pack(rq, status, &err);
    broker_reply_push(rq->broker, &rq->answer);
}

static void job_nothing(void *worker)
{
    (void)worker;
}

/* ---- changes ---- */

/* The writer may run it again: everything it computes is made anew. */
static enum memos_status write_run(void *self, struct memcube_write *write, struct memos_error *err)
{
    struct broker_request *rq = self;
    broker_request_begin(rq);
    enum memos_status status = broker_request_check(rq, err);
    return status == MEMOS_OK ? rq->type->write(rq, write, err) : status;
}

static void write_done(void *self, enum memos_status status, const struct memos_error *err)
{
    struct broker_request *rq = self;
    broker_request_pack(rq, status, err);
    broker_reply_push(rq->broker, &rq->answer);
}

static void write_submit(struct broker_request *rq)
{
    struct memos_error err = {0};
    rq->job = (struct memcube_writer_job){.run = write_run, .done = write_done, .self = rq};
    const enum memos_status status = memcube_writer_submit(rq->broker->writer, &rq->job, &err);
    if (status != MEMOS_OK) {
        broker_request_begin(rq);
        write_done(rq, status, &err);
    }
}

void broker_run_write(struct broker_request *rq, struct broker_reader *reader)
{
    struct memos_error err = {0};
    const enum memos_status status = broker_request_convert(rq, &err);
    if (status != MEMOS_OK) {
        broker_request_begin(rq);
        write_done(rq, status, &err);
    } else if (!broker_meaning_prepare(rq, reader, write_submit)) {
        write_submit(rq);
    }
}

enum memos_status broker_pools_create(struct broker *broker, struct memos_error *err)
{
    const struct broker_pool_options readers = {
        .name = "memosd-read",
        .threads = broker->options.config->reader_threads,
        .run = reader_run,
        .begin = reader_begin,
        .idle = reader_idle,
        .end = reader_end,
        .self = broker,
    };
    const struct broker_pool_options jobs = {
        .name = "memosd-job",
        .threads = broker->options.config->job_threads,
        .run = job_run,
        .begin = job_begin,
        .idle = job_nothing,
        .end = job_nothing,
        .self = broker,
    };
    enum memos_status status = broker_pool_create(&readers, &broker->readers, err);
    return status == MEMOS_OK ? broker_pool_create(&jobs, &broker->jobs, err) : status;
}
