#include "memos/broker/broker.h"

#include "memos/broker/files.h"
#include "memos/broker/state.h"
#include "memos/broker/work.h"
#include "proto/log.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum { FILES_BESIDE = 512 }; /* open files that are no connections */

/* ---- configuration that reloads ---- */

/* Copy the keys that reload; the others are borrowed texts or too late to change. */
static void adopt_keys(struct broker_config *to, const struct broker_config *from)
{
    size_t count;
    const struct broker_config_key *keys = broker_config_keys(&count);
    for (size_t i = 0; i < count; i++) {
        char *target = (char *)to + keys[i].offset;
        const char *source = (const char *)from + keys[i].offset;
        if (!keys[i].reloads) {
            continue;
        }
        bool is_int = keys[i].type == BROKER_CONFIG_LEVEL || keys[i].type == BROKER_CONFIG_FORMAT;
        memcpy(target, source, is_int ? sizeof(int) : sizeof(uint64_t));
    }
}

enum memos_status broker_config_adopt(
    struct broker *broker, const struct broker_config *fresh, struct memos_error *err)
{
    adopt_keys(&broker->config, fresh);
    broker_imports_limit(
        broker->imports, broker->config.imports_max, broker->config.import_bytes_max);
    const struct memos_log_options log = {
        .level = (enum memos_log_level)broker->config.log_level,
        .format = (enum memos_log_format)broker->config.log_format,
    };
    return memos_log_open(&log, err);
}

/* ---- grants and keys ---- */

void broker_access_renew(struct broker *broker)
{
    struct memcube_read *read = NULL;
    struct broker_access *access = NULL;
    struct memos_error err;
    broker_reader_rest(&broker->reader);
    enum memos_status status = memcube_read_begin(broker->store, &read, &err);
    if (status == MEMOS_OK) {
        status = broker_access_load(read, &access, &err);
    }
    if (read) {
        memcube_read_end(&read);
    }
    if (status != MEMOS_OK) {
        memos_log(MEMOS_LOG_ERROR,
            memos_log_event("grants cannot be read: only the owner has rights now"),
            memos_log_error(&err));
        status = broker_access_create(&access, &err);
    }
    if (status != MEMOS_OK) {
        /* Not even memory for an empty table: better nobody is served than somebody wrongly. */
        broker_stop(broker);
        return;
    }
    broker->metrics.access_loads++;
    if (broker->zap) {
        broker_zap_allow(broker->zap, access);
    }
    broker_events_review(broker->events, access);
    broker_access_drop(&broker->access);
    broker->access = access;
    broker_work_review(broker->work);
}

/* ---- creation ---- */

static void raise_file_limit(uint64_t connections_max)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)connections_max + FILES_BESIDE;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return;
    }
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
        memos_log(MEMOS_LOG_WARNING, memos_log_event("fewer connections than configured"),
            memos_log_uint("open files", limit.rlim_cur), memos_log_uint("wanted", wanted));
    }
}

static enum memos_status path_in(
    const struct broker *broker, const char *name, char out[PATH_MAX], struct memos_error *err)
{
    int length = snprintf(out, PATH_MAX, "%s/%s", broker->options.config->data_dir, name);
    return length > 0 && length < PATH_MAX ? MEMOS_OK
                                           : memos_fail(err, MEMOS_INVALID, "data_dir is too long");
}

static enum memos_status create_retrieval(struct broker *broker, struct memos_error *err)
{
    const struct broker_config *config = broker->options.config;
    char folder[PATH_MAX];
    bool known = true;
    enum memos_status status = path_in(broker, "vectors", folder, err);
    if (status == MEMOS_OK) {
        status = broker_folder_make(folder, err);
    }
    struct retrieval_vectors_options options = {
        .folder = strcmp(config->vector_index, "none") == 0 ? NULL : folder,
        .codes = kern_dtype_of(memos_bytes_of(config->vector_codes)),
        .cache_bytes_max = config->vector_cache_bytes,
        .exact_rows_max = config->vector_index_from,
    };
    if (status == MEMOS_OK && options.codes == 0) {
        return memos_fail(err, MEMOS_INVALID,
            "vector_codes is e4m3, e5m2, int8, f16 or f32, not %.40s", config->vector_codes);
    }
    if (status == MEMOS_OK && options.folder) {
        options.ann = retrieval_ann_type_of(memos_bytes_of(config->vector_index), &known);
    }
    if (!known) {
        return memos_fail(err, MEMOS_INVALID,
            "vector_index is auto, none, hnsw, ivf-flat, ivf-sq8 or ivf-pq, not %.40s",
            config->vector_index);
    }
    return status == MEMOS_OK ? retrieval_create(&options, &broker->retrieval, err) : status;
}

static enum memos_status open_store(struct broker *broker, struct memos_error *err)
{
    const struct broker_config *config = broker->options.config;
    char path[PATH_MAX];
    enum memos_status status = broker_folder_make(config->data_dir, err);
    if (status == MEMOS_OK) {
        status = path_in(broker, "store", path, err);
    }
    if (status == MEMOS_OK) {
        status = create_retrieval(broker, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    size_t indexes_count;
    struct memcube_index *const *indexes = retrieval_indexes(broker->retrieval, &indexes_count);
    const struct memcube_store_options options = {
        .path = path,
        .map_bytes = config->map_bytes,
        .map_bytes_max = config->map_bytes_max,
        /* readers, jobs, the front thread twice, two in the background, and room for tools */
        .readers_max = (unsigned)(config->reader_threads + config->job_threads * 2 + 16),
        .inline_bytes_max = config->inline_bytes,
        .payload_bytes_max = config->payload_bytes_max,
        .clock = broker->clock,
        .indexes = indexes,
        .indexes_count = indexes_count,
        .sync_off = broker->options.sync_off,
    };
    return memcube_store_open(&options, &broker->store, err);
}

/* The Ed25519 pair that signs checkpoints, made at the first start. */
static enum memos_status load_signing_key(struct broker *broker, struct memos_error *err)
{
    char path[PATH_MAX];
    enum memos_status status = path_in(broker, "sign.key", path, err);
    if (status == MEMOS_OK) {
        status = broker_secret_read(path, broker->sign_secret, sizeof broker->sign_secret, err);
    }
    if (status == MEMOS_NOT_FOUND) {
        (void)crypto_sign_keypair(broker->sign_public, broker->sign_secret);
        status = broker_secret_write(path, broker->sign_secret, sizeof broker->sign_secret, err);
    }
    if (status == MEMOS_OK) {
        (void)crypto_sign_ed25519_sk_to_pk(broker->sign_public, broker->sign_secret);
    }
    return status;
}

/* The CURVE pair, made at the first start that wants one. */
static enum memos_status load_curve_key(struct broker *broker, struct memos_error *err)
{
    char path[PATH_MAX];
    if (!broker->options.config->curve) {
        return MEMOS_OK;
    }
    if (!zmq_has("curve")) {
        return memos_fail(err, MEMOS_UNSUPPORTED, "this libzmq was built without CURVE");
    }
    enum memos_status status = path_in(broker, "curve.key", path, err);
    if (status == MEMOS_OK) {
        status = memos_key_pair_read(path, &broker->keys, err);
    }
    if (status == MEMOS_NOT_FOUND) {
        status = memos_key_pair_new(&broker->keys, err);
        if (status == MEMOS_OK) {
            status = memos_key_pair_write(path, &broker->keys, err);
        }
    }
    return status;
}

static enum memos_status start_writer(struct broker *broker, struct memos_error *err)
{
    const struct broker_config *config = broker->options.config;
    const struct memcube_writer_options options = {
        .queue_max = config->write_queue_max,
        .group_max = config->write_group_max,
        .sweep_every_us = config->sweep_interval_ms * 1000,
    };
    return memcube_writer_create(broker->store, &options, &broker->writer, err);
}

static enum memos_status start_sockets(struct broker *broker, struct memos_error *err)
{
    enum memos_status status = MEMOS_OK;
    broker->context = zmq_ctx_new();
    broker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!broker->context || broker->wake_fd < 0) {
        return memos_fail_errno(err, errno, "cannot make the broker's sockets");
    }
    /* ZeroMQ's thread must not take the processor from the one that wakes it: so more lies there
     * for it when it runs. */
    (void)zmq_ctx_set(broker->context, ZMQ_THREAD_SCHED_POLICY, SCHED_BATCH);
    if (broker->keys.public_key[0]) {
        status = broker_zap_create(broker->context, &broker->zap, err);
    }
    if (status == MEMOS_OK) {
        status = broker_events_create(&broker->events, err);
    }
    if (status == MEMOS_OK) {
        status = broker_imports_create(broker->options.config->data_dir, &broker->imports, err);
    }
    if (status == MEMOS_OK) {
        broker_access_renew(broker);
        broker_imports_limit(
            broker->imports, broker->config.imports_max, broker->config.import_bytes_max);
        status = broker_pools_create(broker, err);
    }
    return status == MEMOS_OK ? broker_listen(broker, err) : status;
}

enum memos_status broker_create(
    const struct broker_options *options, struct broker **out_broker, struct memos_error *err)
{
    struct broker *broker = calloc(1, sizeof *broker);
    if (!broker || sodium_init() < 0) {
        free(broker);
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for a broker");
    }
    broker->options = *options;
    broker->clock = memos_clock_system();
    broker->wake_fd = -1;
    broker->message_bytes_max = options->config->message_bytes_max;
    adopt_keys(&broker->config, options->config);
    (void)pthread_mutex_init(&broker->finished_lock, NULL);
    broker->finished_tail = &broker->finished;
    broker->unsent_tail = &broker->unsent;
    broker->reader.broker = broker;
    raise_file_limit(options->config->connections_max);

    enum memos_status status = open_store(broker, err);
    if (status == MEMOS_OK) {
        status = load_signing_key(broker, err);
    }
    if (status == MEMOS_OK) {
        status = load_curve_key(broker, err);
    }
    if (status == MEMOS_OK) {
        status = start_writer(broker, err);
    }
    if (status == MEMOS_OK) {
        status = broker_meaning_create(broker, &broker->meaning, err);
    }
    if (status == MEMOS_OK) {
        status = broker_work_create(broker, &broker->work, err);
    }
    if (status == MEMOS_OK) {
        status = start_sockets(broker, err);
    }
    if (status != MEMOS_OK) {
        broker_destroy(&broker);
        return status;
    }
    *out_broker = broker;
    return MEMOS_OK;
}

/* ---- destruction ---- */

/* Replies that nobody sends any more; with the last one of a request goes the request. */
static void replies_free(struct broker_reply *reply)
{
    while (reply) {
        struct broker_reply *next = reply->next;
        if (reply->last) {
            struct broker_request *rq = reply->request;
            broker_session_leave(rq);
            broker_request_destroy(&rq);
        } else {
            memos_frames_free(&reply->frames);
            free(reply);
        }
        reply = next;
    }
}

static void requests_free(struct broker *broker)
{
    replies_free(broker->unsent);
    replies_free(broker->finished);
    while (broker->spare) {
        struct broker_request *rq = broker->spare;
        broker->spare = rq->next;
        broker_request_destroy(&rq);
    }
    broker_sessions_free(broker);
}

void broker_destroy(struct broker **broker)
{
    struct broker *it = *broker;
    *broker = NULL;
    if (!it) {
        return;
    }
    atomic_store(&it->stopping, true);
    broker_meaning_stop(it->meaning); /* what waits for vectors goes on to readers and writer */
    broker_pool_destroy(&it->readers);
    broker_pool_destroy(&it->jobs);
    broker_meaning_end(it->meaning); /* its background hands in to the writer, too */
    memcube_writer_destroy(&it->writer);
    broker_work_destroy(&it->work);
    requests_free(it);
    broker_hang_up(it);
    broker_zap_destroy(&it->zap);
    if (it->context) {
        (void)zmq_ctx_term(it->context);
    }
    broker_events_destroy(&it->events);
    broker_imports_destroy(&it->imports);
    broker_access_drop(&it->access);
    broker_meaning_destroy(&it->meaning);
    memcube_store_close(&it->store);
    retrieval_destroy(&it->retrieval);
    if (it->wake_fd >= 0) {
        (void)close(it->wake_fd);
    }
    (void)pthread_mutex_destroy(&it->finished_lock);
    sodium_memzero(it->sign_secret, sizeof it->sign_secret);
    sodium_memzero(&it->keys, sizeof it->keys);
    free(it);
}

const char *broker_address(const struct broker *broker, size_t index)
{
    return index < broker->addresses_count ? broker->addresses[index] : NULL;
}

const char *broker_public_key(const struct broker *broker)
{
    return broker->keys.public_key[0] ? broker->keys.public_key : NULL;
}
