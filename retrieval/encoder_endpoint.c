/* An OpenAI-compatible /v1/embeddings endpoint.
 *
 * Nothing that is sent, and nothing that comes back, stands in an error or a log: neither the key
 * nor the texts, which an endpoint may repeat in its own messages. Redirects are not followed,
 * since they would carry the key and the texts to somebody else. */
#include "retrieval/encoder_internal.h"

#include <curl/curl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    BATCH_USUAL = 32,
    TRIES_USUAL = 3,
    TRIES_MAX = 16,
    TIMEOUT_USUAL_MS = 10000,
    CONNECT_TIMEOUT_MS = 5000,
    BACKOFF_MS = 100,      /* before the second try; doubled before each later one */
    BACKOFF_MAX_MS = 5000, /* an endpoint that asks for more is not waited for longer */
    NAME_BYTES = 160,
};

/* Of one text this much is sent: more than models read (8,192 tokens are some 32 KiB). */
#define TEXT_BYTES_MAX ((size_t)64 << 10)
/* One request; a text that is larger by itself cannot be. */
#define BATCH_BYTES_MAX ((size_t)1 << 20)
#define LOOK_MS 200 /* so often whether it is time to stop; an interrupt wakes at once */
#define REQUEST_BYTES_MAX (BATCH_BYTES_MAX * 8) /* each byte may become six */

struct retrieval_endpoint {
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    char *url, *model;
    char host[96]; /* "http://127.0.0.1:8080": what errors name */
    char name[NAME_BYTES];
    size_t dims, batch_max;
    int64_t timeout_ms;
    unsigned tries_max;
    struct memos_buffer request, answer;
    atomic_bool interrupted;
    const atomic_bool *stop; /* the caller's; NULL: there is none */
};

/* What one try came to. */
struct outcome {
    CURLcode code;
    long http;
    curl_off_t retry_after_s;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;

static void curl_begin(void)
{
    curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* ---- making -------------------------------------------------------------------------------- */

/* Is the URL one that we speak to? Sets `host` from it. */
static enum memos_status check_url(
    struct retrieval_endpoint *endpoint, const char *url, struct memos_error *err)
{
    char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL;
    CURLU *parts = curl_url();
    enum memos_status status = MEMOS_OK;

    if (!parts || curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
        (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0)) {
        status = memos_fail(
            err, MEMOS_INVALID, "an encoder's URL looks like http://127.0.0.1:8080/v1/embeddings");
    } else if (curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_OK) {
        status = memos_fail(err, MEMOS_INVALID,
            "an encoder's URL holds no user and password: give the key by itself");
    } else {
        snprintf(endpoint->host, sizeof endpoint->host, "%s://%s:%s", scheme, host, port);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(user);
    curl_url_cleanup(parts);
    return status;
}

/* Take every byte until there are too many. */
static size_t on_bytes(char *data, size_t size, size_t count, void *self)
{
    struct retrieval_endpoint *endpoint = self;
    memos_buffer_bytes(&endpoint->answer, data, size * count);
    return endpoint->answer.failed ? 0 : count;
}

static bool add_header(struct retrieval_endpoint *endpoint, const char *line)
{
    struct curl_slist *longer = curl_slist_append(endpoint->headers, line);
    endpoint->headers = longer ? longer : endpoint->headers;
    return longer != NULL;
}

static enum memos_status set_headers(
    struct retrieval_endpoint *endpoint, const char *key, struct memos_error *err)
{
    char line[1024] = "";
    for (const char *at = key; at && *at; at++) {
        if (*at <= ' ' || *at > '~') {
            return memos_fail(err, MEMOS_INVALID, "the key of the endpoint has odd characters");
        }
    }
    if (key && snprintf(line, sizeof line, "Authorization: Bearer %s", key) >= (int)sizeof line) {
        sodium_memzero(line, sizeof line);
        return memos_fail(err, MEMOS_INVALID, "the key of the endpoint is too long");
    }
    /* without the second one curl would wait for "100 Continue" before a long request */
    bool added = add_header(endpoint, "Content-Type: application/json") &&
                 add_header(endpoint, "Expect:") && (line[0] == '\0' || add_header(endpoint, line));
    sodium_memzero(line, sizeof line);
    return added ? MEMOS_OK : memos_fail(err, MEMOS_NO_MEMORY, "no memory for an endpoint");
}

static bool set_options(struct retrieval_endpoint *endpoint)
{
    CURL *easy = endpoint->easy;
    long timeout_ms = (long)endpoint->timeout_ms;
    long connect_ms = timeout_ms < CONNECT_TIMEOUT_MS ? timeout_ms : CONNECT_TIMEOUT_MS;
    return curl_easy_setopt(easy, CURLOPT_URL, endpoint->url) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HTTPHEADER, endpoint->headers) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_USERAGENT, "memos") == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_WRITEDATA, endpoint) == CURLE_OK;
}

/* Ask for one vector, to learn how long vectors are. */
static enum memos_status probe(struct retrieval_endpoint *endpoint, struct memos_error *err)
{
    struct memos_bytes text = memos_bytes_of("memos");
    float *vector = malloc(RETRIEVAL_DIMS_MAX * sizeof *vector);
    if (!vector) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an endpoint");
    }
    enum memos_status status = retrieval_endpoint_encode(endpoint, &text, 1, vector, err);
    free(vector);
    return status;
}

static enum memos_status prepare(struct retrieval_endpoint *endpoint,
    const struct retrieval_encoder_options *options, struct memos_error *err)
{
    const char *model = options->endpoint.model;
    if (!options->endpoint.url || !model || !model[0] || !memos_bytes_utf8(memos_bytes_of(model))) {
        return memos_fail(err, MEMOS_INVALID, "an endpoint needs a URL and a model's name");
    } else if (options->endpoint.dims > RETRIEVAL_DIMS_MAX) {
        return memos_fail(err, MEMOS_INVALID, "vectors have at most %zu dimensions, not %zu",
            RETRIEVAL_DIMS_MAX, options->endpoint.dims);
    }
    enum memos_status status = check_url(endpoint, options->endpoint.url, err);
    if (status == MEMOS_OK) {
        status = set_headers(endpoint, options->endpoint.key, err);
    }
    if (status != MEMOS_OK) {
        return status;
    }
    endpoint->url = strdup(options->endpoint.url);
    endpoint->model = strdup(model);
    endpoint->easy = curl_easy_init();
    endpoint->multi = curl_multi_init();
    if (!endpoint->url || !endpoint->model || !endpoint->easy || !endpoint->multi ||
        !set_options(endpoint)) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an endpoint");
    }
    snprintf(endpoint->name, sizeof endpoint->name, "%.60s at %s", model, endpoint->host);
    endpoint->dims = options->endpoint.dims;
    return endpoint->dims > 0 ? MEMOS_OK : probe(endpoint, err);
}

enum memos_status retrieval_endpoint_create(const struct retrieval_encoder_options *options,
    struct retrieval_endpoint **out_endpoint, struct memos_error *err)
{
    (void)pthread_once(&curl_once, curl_begin);
    if (curl_ready != CURLE_OK) {
        return memos_fail_foreign(
            err, MEMOS_NO_MEMORY, (int)curl_ready, "libcurl cannot be made ready");
    }
    struct retrieval_endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (!endpoint) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory for an endpoint");
    }
    size_t batch_max = options->endpoint.batch_max;
    unsigned tries = options->endpoint.tries_max;
    endpoint->batch_max = batch_max > 0 ? batch_max : BATCH_USUAL;
    endpoint->tries_max = tries == 0 ? TRIES_USUAL : tries < TRIES_MAX ? tries : TRIES_MAX;
    endpoint->timeout_ms =
        options->endpoint.timeout_ms > 0 ? options->endpoint.timeout_ms : TIMEOUT_USUAL_MS;
    endpoint->request = memos_buffer_make(REQUEST_BYTES_MAX);
    endpoint->answer = memos_buffer_make(RETRIEVAL_ANSWER_BYTES_MAX);
    endpoint->stop = options->endpoint.stop;
    atomic_init(&endpoint->interrupted, false);
    enum memos_status status = prepare(endpoint, options, err);
    if (status != MEMOS_OK) {
        retrieval_endpoint_destroy(&endpoint);
        return status;
    }
    *out_endpoint = endpoint;
    return MEMOS_OK;
}

void retrieval_endpoint_destroy(struct retrieval_endpoint **endpoint)
{
    struct retrieval_endpoint *dead = *endpoint;
    if (!dead) {
        return;
    }
    curl_easy_cleanup(dead->easy);
    (void)curl_multi_cleanup(dead->multi);
    for (struct curl_slist *line = dead->headers; line; line = line->next) {
        sodium_memzero(line->data, strlen(line->data)); /* one of them is the key */
    }
    curl_slist_free_all(dead->headers);
    memos_buffer_free(&dead->request);
    memos_buffer_free(&dead->answer);
    free(dead->url);
    free(dead->model);
    free(dead);
    *endpoint = NULL;
}

size_t retrieval_endpoint_dims(const struct retrieval_endpoint *endpoint)
{
    return endpoint->dims;
}

const char *retrieval_endpoint_name(const struct retrieval_endpoint *endpoint)
{
    return endpoint->name;
}

void retrieval_endpoint_fingerprint(const struct retrieval_endpoint *endpoint, uint8_t out[32])
{
    char head[96]; /* with the sizes, so that no two pairs give the same bytes */
    crypto_generichash_state state;
    int size = snprintf(head, sizeof head, "memos endpoint 1: %zu, %zu, %zu\n", endpoint->dims,
        strlen(endpoint->url), strlen(endpoint->model));
    (void)crypto_generichash_init(&state, NULL, 0, 32);
    (void)crypto_generichash_update(&state, (const uint8_t *)head, (size_t)size);
    (void)crypto_generichash_update(&state, (const uint8_t *)endpoint->url, strlen(endpoint->url));
    (void)crypto_generichash_update(
        &state, (const uint8_t *)endpoint->model, strlen(endpoint->model));
    (void)crypto_generichash_final(&state, out, 32);
}

void retrieval_endpoint_interrupt(struct retrieval_endpoint *endpoint)
{
    atomic_store(&endpoint->interrupted, true);
    (void)curl_multi_wakeup(endpoint->multi);
}

/* ---- asking -------------------------------------------------------------------------------- */

static bool interrupted(const struct retrieval_endpoint *endpoint)
{
    return atomic_load(&endpoint->interrupted) || (endpoint->stop && atomic_load(endpoint->stop));
}

static enum memos_status fail_interrupted(struct memos_error *err)
{
    return memos_fail(err, MEMOS_CANCELLED, "the encoder was told to stop");
}

/* Run what was added to multi to its end. */
static CURLcode drive(struct retrieval_endpoint *endpoint)
{
    int running = 1;
    while (running > 0) {
        CURLMcode failed = curl_multi_perform(endpoint->multi, &running);
        if (failed == CURLM_OK && running > 0) {
            failed = curl_multi_poll(endpoint->multi, NULL, 0, LOOK_MS, NULL);
        }
        if (failed != CURLM_OK || interrupted(endpoint)) {
            return CURLE_ABORTED_BY_CALLBACK;
        }
    }
    int left;
    const CURLMsg *message = curl_multi_info_read(endpoint->multi, &left);
    return message && message->msg == CURLMSG_DONE ? message->data.result
                                                   : CURLE_ABORTED_BY_CALLBACK;
}

/* Send the request once. */
static struct outcome try_once(struct retrieval_endpoint *endpoint)
{
    struct outcome outcome = {.code = CURLE_OUT_OF_MEMORY};
    CURL *easy = endpoint->easy;
    memos_buffer_reset(&endpoint->answer);
    if (curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)endpoint->request.size) !=
            CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, endpoint->request.data) != CURLE_OK ||
        curl_multi_add_handle(endpoint->multi, easy) != CURLM_OK) {
        return outcome;
    }
    outcome.code = drive(endpoint);
    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &outcome.http);
    (void)curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &outcome.retry_after_s);
    (void)curl_multi_remove_handle(endpoint->multi, easy);
    return outcome;
}

/* Wait before the try after number `tried` (from 1). CANCELLED. */
static enum memos_status back_off(struct retrieval_endpoint *endpoint,
    const struct outcome *outcome, unsigned tried, struct memos_error *err)
{
    int64_t wait_ms = (int64_t)BACKOFF_MS << (tried < 8 ? tried - 1 : 7);
    if (outcome->retry_after_s > 0) {
        wait_ms = outcome->retry_after_s < BACKOFF_MAX_MS / 1000
                      ? (int64_t)outcome->retry_after_s * 1000
                      : BACKOFF_MAX_MS;
    }
    wait_ms = wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS;
    for (; wait_ms > 0 && !interrupted(endpoint); wait_ms -= LOOK_MS) {
        (void)curl_multi_poll(
            endpoint->multi, NULL, 0, (int)(wait_ms < LOOK_MS ? wait_ms : LOOK_MS), NULL);
    }
    return interrupted(endpoint) ? fail_interrupted(err) : MEMOS_OK;
}

/* What a try came to, as a status; OK: an answer is there, to be read. */
static enum memos_status judge(
    struct retrieval_endpoint *endpoint, const struct outcome *outcome, struct memos_error *err)
{
    const char *host = endpoint->host;
    if (interrupted(endpoint)) {
        return fail_interrupted(err);
    } else if (endpoint->answer.failed) {
        return memos_fail(err, MEMOS_CORRUPT, "%s answers with more than %zu MiB", host,
            RETRIEVAL_ANSWER_BYTES_MAX >> 20);
    } else if (outcome->code == CURLE_OUT_OF_MEMORY) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to ask %s", host);
    } else if (outcome->code != CURLE_OK) {
        return memos_fail_foreign(err, MEMOS_UNAVAILABLE, (int)outcome->code,
            "%s does not answer: %s", host, curl_easy_strerror(outcome->code));
    } else if (outcome->http == 401 || outcome->http == 403) {
        return memos_fail(
            err, MEMOS_DENIED, "%s does not take the key (HTTP status %ld)", host, outcome->http);
    } else if (outcome->http == 408 || outcome->http == 429 || outcome->http >= 500) {
        return memos_fail(
            err, MEMOS_UNAVAILABLE, "%s is not ready (HTTP status %ld)", host, outcome->http);
    } else if (outcome->http != 200) {
        return memos_fail(
            err, MEMOS_CORRUPT, "%s refuses the request (HTTP status %ld)", host, outcome->http);
    }
    return MEMOS_OK;
}

/* Is it of use to try once more? A certificate that is not trusted today is not tomorrow. */
static bool may_pass(enum memos_status status, const struct outcome *outcome)
{
    return status == MEMOS_UNAVAILABLE && outcome->code != CURLE_PEER_FAILED_VERIFICATION &&
           outcome->code != CURLE_UNSUPPORTED_PROTOCOL;
}

static enum memos_status encode_batch(struct retrieval_endpoint *endpoint,
    const struct memos_bytes *texts, size_t count, float *out, struct memos_error *err)
{
    enum memos_status status;
    struct outcome outcome;

    memos_buffer_reset(&endpoint->request);
    retrieval_request_write(&endpoint->request, endpoint->model, texts, count);
    if (endpoint->request.failed) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to send %zu texts", count);
    }
    for (unsigned tried = 1;; tried++) {
        outcome = try_once(endpoint);
        status = judge(endpoint, &outcome, err);
        if (!may_pass(status, &outcome) || tried == endpoint->tries_max) {
            break;
        }
        status = back_off(endpoint, &outcome, tried, err);
        if (status != MEMOS_OK) {
            return status;
        }
    }
    if (status == MEMOS_OK) {
        size_t floats = endpoint->dims > 0 ? count * endpoint->dims : RETRIEVAL_DIMS_MAX;
        status = retrieval_answer_read(
            memos_buffer_view(&endpoint->answer), count, &endpoint->dims, out, floats, err);
    }
    if (endpoint->answer.capacity > (size_t)4 << 20) {
        memos_buffer_free(&endpoint->answer);
    }
    return status;
}

/* A text without what is more than is sent of one, no character cut in two. */
static struct memos_bytes cut_text(struct memos_bytes text)
{
    const uint8_t *bytes = text.data;
    if (text.size > TEXT_BYTES_MAX) {
        text.size = TEXT_BYTES_MAX;
        while (text.size > TEXT_BYTES_MAX - 4 && (bytes[text.size] & 0xC0) == 0x80) {
            text.size--;
        }
    }
    return text;
}

enum memos_status retrieval_endpoint_encode(struct retrieval_endpoint *endpoint,
    const struct memos_bytes *texts, size_t count, float *out, struct memos_error *err)
{
    struct memos_bytes *batch = calloc(endpoint->batch_max, sizeof *batch);
    enum memos_status status = MEMOS_OK;
    if (!batch) {
        return memos_fail(err, MEMOS_NO_MEMORY, "no memory to send %zu texts", count);
    }
    for (size_t done = 0; done < count && status == MEMOS_OK;) {
        size_t taken = 0, bytes = 0;
        while (taken < endpoint->batch_max && done + taken < count) {
            batch[taken] = cut_text(texts[done + taken]);
            bytes += batch[taken].size;
            if (taken > 0 && bytes > BATCH_BYTES_MAX) {
                break;
            }
            taken++;
        }
        status = encode_batch(endpoint, batch, taken, out + done * endpoint->dims, err);
        done += taken;
    }
    free(batch);
    return status;
}
