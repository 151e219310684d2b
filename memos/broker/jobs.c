/* Requests that take long: on threads of their own, so that they keep nobody waiting. */
#include "memos/broker/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    PROGRESS_EVERY_US = 500000,
    EXPORT_PART_BYTES = 1 << 20,
    EXPORT_PARTS_MAX = 4,         /* that the client has not taken yet */
    EXPORT_STALLED_US = 30000000, /* a client that takes nothing for so long is given up */
    FSCK_TEXTS_MAX = 100,
};

static int64_t now_us(struct broker_request *rq)
{
    return rq->broker->clock.mono_us(rq->broker->clock.self);
}

/* ---- progress ---- */

struct broker_progress broker_progress_begin(struct broker_request *rq)
{
    return (struct broker_progress){rq, now_us(rq) + PROGRESS_EVERY_US};
}

bool broker_progress_tell(void *self, uint64_t done, uint64_t total)
{
    struct broker_progress *progress = self;
    struct broker_request *rq = progress->rq;
    Memos__Progress body = MEMOS__PROGRESS__INIT;
    struct broker_reply *reply = NULL;

    if (broker_request_check(rq, NULL) != MEMOS_OK) {
        return false;
    }
    if (now_us(rq) < progress->next_us) {
        return true;
    }
    progress->next_us = now_us(rq) + PROGRESS_EVERY_US;
    body.done = done;
    body.total = total;
    rq->reply.body_case = MEMOS__REPLY__BODY_PROGRESS;
    rq->reply.progress = &body;
    if (broker_request_more(rq, NULL, NULL, &reply, NULL) == MEMOS_OK) {
        broker_reply_push(rq->broker, reply);
    }
    memos__reply__init(&rq->reply);
    return true;
}

enum memos_status broker_progress_stopped(
    struct broker_request *rq, enum memos_status status, struct memos_error *err)
{
    if (status != MEMOS_CANCELLED) {
        return status;
    }
    enum memos_status why = broker_request_check(rq, err);
    return why == MEMOS_OK ? status : why;
}

/* ---- verify ---- */

static enum memos_status verify_reply(
    struct broker_request *rq, const struct memcube_verify_result *result, struct memos_error *err)
{
    Memos__VerifyResult *out = memos_arena_take(&rq->work, 1, sizeof *out);
    const struct memos_bytes head = {result->head.bytes, sizeof result->head.bytes};
    const struct memcube_ref *bad = &result->bad_ref;
    enum memos_status status = MEMOS_OK;
    void *copy = memos_arena_copy(&rq->work, head);
    if (!out || !copy) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    memos__verify_result__init(out);
    out->intact = result->intact;
    out->records = result->records;
    out->versions = result->versions;
    out->payloads = result->payloads;
    out->forgotten = result->forgotten;
    out->seq = result->seq;
    out->head = (ProtobufCBinaryData){.len = head.size, .data = copy};
    out->bad_seq = result->bad_seq;
    if (bad->number > 0) {
        Memos__Ref **refs = NULL;
        status = broker_refs_make(&rq->work, bad, 1, &refs, err);
        out->bad_ref = status == MEMOS_OK ? refs[0] : NULL;
    }
    if (status == MEMOS_OK) {
        status = broker_text_make(&rq->work, memos_bytes_of(result->what), &out->what, err);
    }
    rq->reply.body_case = MEMOS__REPLY__BODY_VERIFY_RESULT;
    rq->reply.verify_result = out;
    return status;
}

enum memos_status broker_verify(struct broker_request *rq, struct memos_error *err)
{
    struct broker_progress progress = broker_progress_begin(rq);
    struct memcube_verify_result result = {0};
    enum memos_status status = memcube_verify(rq->broker->store, rq->call.space,
        rq->envelope->verify->from, broker_progress_tell, &progress, &result, err);
    return status == MEMOS_OK ? verify_reply(rq, &result, err)
                              : broker_progress_stopped(rq, status, err);
}

/* ---- fsck ---- */

struct fsck {
    struct broker_progress
        progress; /* first: what memcube_fsck's `self` is to broker_progress_tell */
    Memos__FsckResult *out;
};

static bool fsck_progress(void *self, uint64_t done, uint64_t total)
{
    return broker_progress_tell(&((struct fsck *)self)->progress, done, total);
}

static void fsck_problem(void *self, const char *problem)
{
    struct fsck *fsck = self;
    Memos__FsckResult *out = fsck->out;
    if (out->n_first < FSCK_TEXTS_MAX &&
        broker_text_make(&fsck->progress.rq->work, memos_bytes_of(problem),
            &out->first[out->n_first], NULL) == MEMOS_OK) {
        out->n_first++;
    }
}

enum memos_status broker_fsck(struct broker_request *rq, struct memos_error *err)
{
    Memos__FsckResult *out = memos_arena_take(&rq->work, 1, sizeof *out);
    char **first = memos_arena_take(&rq->work, FSCK_TEXTS_MAX, sizeof *first);
    struct fsck fsck = {{rq, now_us(rq) + PROGRESS_EVERY_US}, out};
    struct memcube_fsck_result result = {0};

    if (!out || !first) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    memos__fsck_result__init(out);
    out->first = first;
    enum memos_status status = memcube_fsck(rq->broker->store, rq->envelope->fsck->repair,
        fsck_progress, fsck_problem, &fsck, &result, err);
    if (status != MEMOS_OK) {
        return broker_progress_stopped(rq, status, err);
    }
    out->spaces = result.spaces;
    out->cubes = result.cubes;
    out->versions = result.versions;
    out->docs = result.docs;
    out->payloads = result.payloads;
    out->blobs = result.blobs;
    out->problems = result.problems;
    out->repaired = result.repaired;
    rq->reply.body_case = MEMOS__REPLY__BODY_FSCK_RESULT;
    rq->reply.fsck_result = out;
    return MEMOS_OK;
}

/* ---- export ---- */

/* How many parts are on their way. ZeroMQ may keep the last ones longer than the job lives, so that
 * this is counted. */
struct flow {
    pthread_mutex_t lock;
    pthread_cond_t less;
    unsigned references, outstanding; /* under lock */
};

struct part {
    struct flow *flow;
    uint8_t data[];
};

static void flow_drop(struct flow *flow, bool was_part)
{
    (void)pthread_mutex_lock(&flow->lock);
    unsigned left = --flow->references;
    if (was_part) {
        flow->outstanding--;
        (void)pthread_cond_signal(&flow->less);
    }
    (void)pthread_mutex_unlock(&flow->lock);
    if (left == 0) {
        (void)pthread_cond_destroy(&flow->less);
        (void)pthread_mutex_destroy(&flow->lock);
        free(flow);
    }
}

/* ZeroMQ has sent a part, or dropped it. */
static void part_release(void *data, void *hint)
{
    struct part *part = hint;
    struct flow *flow = part->flow;
    (void)data;
    free(part);
    flow_drop(flow, true);
}

/* An export is written to a file first: the archive is made from a snapshot, and no snapshot may
 * wait for a client. */
struct spool {
    struct broker_request *rq;
    struct flow *flow;
    int fd;
    uint64_t bytes, sent;
};

static enum memos_status spool_write(void *self, struct memos_bytes bytes, struct memos_error *err)
{
    struct spool *spool = self;
    const char *at = bytes.data;
    size_t left = bytes.size;

    while (left > 0) {
        ssize_t put = write(spool->fd, at, left);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return memos_fail_errno(err, errno, "cannot keep an export until it is sent");
        }
        at += put;
        left -= (size_t)put;
        spool->bytes += (uint64_t)put;
    }
    return broker_request_check(spool->rq, err);
}

/* Wait until there is room for one more part. CANCELLED when the client takes none. */
static enum memos_status flow_wait(struct spool *spool, struct memos_error *err)
{
    struct flow *flow = spool->flow;
    int64_t until_us = now_us(spool->rq) + EXPORT_STALLED_US;
    enum memos_status status = MEMOS_OK;

    (void)pthread_mutex_lock(&flow->lock);
    while (status == MEMOS_OK && flow->outstanding >= EXPORT_PARTS_MAX) {
        struct timespec wake;
        (void)clock_gettime(CLOCK_MONOTONIC, &wake);
        wake.tv_nsec += 100000000;
        wake.tv_sec += wake.tv_nsec / 1000000000;
        wake.tv_nsec %= 1000000000;
        (void)pthread_cond_timedwait(&flow->less, &flow->lock, &wake);
        status = broker_request_check(spool->rq, err);
        if (status == MEMOS_OK && now_us(spool->rq) > until_us) {
            status = memos_fail(err, MEMOS_CANCELLED, "the client takes no more of the export");
        }
    }
    if (status == MEMOS_OK) {
        flow->outstanding++;
        flow->references++;
    }
    (void)pthread_mutex_unlock(&flow->lock);
    return status;
}

/* Read the next part; the caller has counted it in. */
static enum memos_status part_read(
    struct spool *spool, struct part **out_part, size_t *out_size, struct memos_error *err)
{
    uint64_t left = spool->bytes - spool->sent;
    size_t size = left < EXPORT_PART_BYTES ? (size_t)left : EXPORT_PART_BYTES;
    struct part *part = malloc(sizeof *part + size);
    if (!part) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a part of an export");
    }
    part->flow = spool->flow;
    for (size_t done = 0; done < size;) {
        off_t offset = (off_t)(spool->sent + done);
        ssize_t got = pread(spool->fd, part->data + done, size - done, offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            free(part);
            return memos_fail_errno(err, got < 0 ? errno : EIO, "cannot read an export back");
        }
        done += (size_t)got;
    }
    *out_part = part;
    *out_size = size;
    return MEMOS_OK;
}

/* Hand one part to the front thread; takes it in every case. */
static enum memos_status part_push(
    struct spool *spool, struct part *part, size_t size, struct memos_error *err)
{
    struct broker_request *rq = spool->rq;
    Memos__ExportPart body = MEMOS__EXPORT_PART__INIT;
    struct broker_reply *reply = NULL;

    broker_request_begin(rq);
    enum memos_status status =
        broker_request_payload(rq, memos_bytes_make(part->data, size), &body.frame, err);
    if (status == MEMOS_OK) {
        body.offset = spool->sent;
        rq->reply.body_case = MEMOS__REPLY__BODY_EXPORT_PART;
        rq->reply.export_part = &body;
        status = broker_request_more(rq, part_release, part, &reply, err);
    }
    if (status == MEMOS_OK) {
        broker_reply_push(rq->broker, reply);
    } else {
        part_release(NULL, part);
    }
    broker_request_begin(rq);
    return status;
}

static enum memos_status spool_send(struct spool *spool, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    while (spool->sent < spool->bytes && status == MEMOS_OK) {
        struct part *part = NULL;
        size_t size = 0;
        status = flow_wait(spool, err);
        if (status != MEMOS_OK) {
            break;
        }
        status = part_read(spool, &part, &size, err);
        if (status != MEMOS_OK) {
            flow_drop(spool->flow, true);
            break;
        }
        status = part_push(spool, part, size, err);
        spool->sent += size;
    }
    return status;
}

static struct flow *flow_make(void)
{
    struct flow *flow = calloc(1, sizeof *flow);
    if (flow) {
        pthread_condattr_t clock;
        (void)pthread_condattr_init(&clock);
        (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
        (void)pthread_mutex_init(&flow->lock, NULL);
        (void)pthread_cond_init(&flow->less, &clock);
        (void)pthread_condattr_destroy(&clock);
        flow->references = 1;
    }
    return flow;
}

static enum memos_status spool_open(struct spool *spool, struct memos_error *err)
{
    const char *folder = spool->rq->broker->options.config->data_dir;
    spool->flow = flow_make();
    if (!spool->flow) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an export");
    }
    spool->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return spool->fd >= 0 ? MEMOS_OK
                          : memos_fail_errno(err, errno, "cannot make a file in %s", folder);
}

static void spool_close(struct spool *spool)
{
    if (spool->fd >= 0) {
        (void)close(spool->fd);
    }
    if (spool->flow) {
        flow_drop(spool->flow, false);
    }
}

static enum memos_status spool_finish(
    struct spool *spool, const struct memcube_archive_summary *summary, struct memos_error *err)
{
    struct broker_request *rq = spool->rq;
    Memos__ExportPart *out = memos_arena_take(&rq->work, 1, sizeof *out);
    if (!out) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    memos__export_part__init(out);
    out->offset = spool->sent;
    rq->reply.body_case = MEMOS__REPLY__BODY_EXPORT_PART;
    rq->reply.export_part = out;
    return broker_summary_make(&rq->work, summary, &out->summary, err);
}

/* May this cube be exported to whom asks? A space has been decided with the rights. */
static enum memos_status export_check(struct broker_request *rq, struct memos_error *err)
{
    struct memcube_read *read = NULL;
    struct memcube_space space;
    if (!rq->call.export.single_cube || !rq->viewer.data) {
        return MEMOS_OK;
    }
    enum memos_status status = memcube_read_begin(rq->broker->store, &read, err);
    if (status == MEMOS_OK) {
        status = memcube_space_find(read, rq->call.space, &space, err);
    }
    if (status == MEMOS_OK) {
        status = broker_request_sees(rq, read, &space, &rq->call.export.id, err);
    }
    if (read) {
        memcube_read_end(&read);
    }
    return status;
}

enum memos_status broker_export(struct broker_request *rq, struct memos_error *err)
{
    struct spool spool = {.rq = rq, .fd = -1};
    struct memcube_sink sink = {spool_write, &spool};
    struct memcube_archive_summary summary = {0};

    enum memos_status status = spool_open(&spool, err);
    if (status == MEMOS_OK) {
        status = export_check(rq, err);
    }
    if (status == MEMOS_OK) {
        const struct memos_id *id = rq->call.export.single_cube ? &rq->call.export.id : NULL;
        status =
            memcube_archive_export(rq->broker->store, rq->call.space, id, &sink, &summary, err);
    }
    if (status == MEMOS_OK) {
        status = spool_send(&spool, err);
    }
    if (status == MEMOS_OK) {
        status = spool_finish(&spool, &summary, err);
    }
    spool_close(&spool);
    return status;
}

/* ---- import ---- */

struct commit {
    struct broker_request *rq;
    struct memos_bytes archive;
    bool single_cube;
};

/* In the writer: as with put, the arena of the reply is begun anew each time. */
static enum memos_status commit_run(
    void *self, struct memcube_write *write, struct memos_error *err)
{
    struct commit *commit = self;
    struct broker_request *rq = commit->rq;
    struct memcube_archive_summary summary = {0};
    struct memcube_outcome outcome = {0};
    Memos__Outcome *out;

    broker_request_begin(rq);
    out = memos_arena_take(&rq->work, 1, sizeof *out);
    if (!out) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    if (rq->right != BROKER_RIGHT_ADMIN) { /* a cube, into a space that must be there */
        struct memcube_space space;
        enum memos_status found =
            memcube_space_find(memcube_write_read(write), rq->call.space, &space, err);
        if (found != MEMOS_OK) {
            return found == MEMOS_NOT_FOUND
                       ? broker_request_denied(rq, BROKER_RIGHT_ADMIN, rq->call.space, err)
                       : found;
        }
    }
    enum memos_status status =
        memcube_archive_import(write, &rq->call.change, commit->archive, &summary, &outcome, err);
    memos__outcome__init(out);
    if (status == MEMOS_OK) {
        status = broker_outcome_make(&rq->work, rq->call.space, &outcome, out, err);
    }
    if (status == MEMOS_OK) {
        status = broker_summary_make(&rq->work, &summary, &out->archive, err);
    }
    rq->reply.body_case = MEMOS__REPLY__BODY_OUTCOME;
    rq->reply.outcome = out;
    return status;
}

static enum memos_status import_commit(
    struct broker_request *rq, struct broker_import *import, struct memos_error *err)
{
    struct memcube_archive_summary summary = {0};
    if (import->bytes != import->bytes_total) {
        return memos_fail(err, MEMOS_INVALID, "%llu of %llu bytes have come",
            (unsigned long long)import->bytes, (unsigned long long)import->bytes_total);
    }
    void *map = mmap(NULL, (size_t)import->bytes, PROT_READ, MAP_SHARED, import->fd, 0);
    if (map == MAP_FAILED) {
        return memos_fail_errno(err, errno, "cannot map an import");
    }
    struct commit commit = {.rq = rq, .archive = {map, (size_t)import->bytes}};
    enum memos_status status = memcube_archive_check(commit.archive, &summary, err);
    if (status == MEMOS_OK && !summary.single_cube && rq->right != BROKER_RIGHT_ADMIN) {
        status = broker_request_denied(rq, BROKER_RIGHT_ADMIN, rq->call.space, err);
    }
    if (status == MEMOS_OK) {
        status = memcube_writer_run(rq->broker->writer, commit_run, &commit, err);
    }
    (void)munmap(map, (size_t)import->bytes);
    return status;
}

static enum memos_status import_ready(
    struct broker_request *rq, const struct broker_import *import, struct memos_error *err)
{
    const struct memos_bytes token = {import->token, sizeof import->token};
    Memos__ImportReady *out = memos_arena_take(&rq->work, 1, sizeof *out);
    void *copy = memos_arena_copy(&rq->work, token);
    if (!out || !copy) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a reply");
    }
    memos__import_ready__init(out);
    out->token = (ProtobufCBinaryData){.len = token.size, .data = copy};
    out->offset = import->bytes;
    rq->reply.body_case = MEMOS__REPLY__BODY_IMPORT_READY;
    rq->reply.import_ready = out;
    return MEMOS_OK;
}

enum memos_status broker_import(struct broker_request *rq, struct memos_error *err)
{
    struct broker_imports *imports = rq->broker->imports;
    const struct broker_call_import *call = &rq->call.import;
    struct broker_import *import = NULL;

    enum memos_status status =
        call->begin ? broker_imports_begin(imports, rq, call->bytes_total, now_us(rq), &import, err)
                    : broker_imports_take(imports, rq, call->token, &import, err);
    if (status != MEMOS_OK) {
        return status;
    }
    if (call->part.size > 0) {
        status = broker_import_append(import, call->offset, call->part, err);
    }
    if (status == MEMOS_OK && call->commit) {
        status = import_commit(rq, import, err);
        broker_imports_end(imports, &import);
        return status;
    }
    /* After a CONFLICT the client sees where it stands, too. */
    enum memos_status answered =
        status == MEMOS_OK || status == MEMOS_CONFLICT ? import_ready(rq, import, err) : status;
    broker_imports_give_back(imports, import, now_us(rq));
    return status == MEMOS_OK ? answered : status;
}
