#include "tests/retrieval/fake_paramem.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct paramem_encoder {
    int unused;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool holding, held;
static unsigned steps;
static struct memos_buffer calls = {.size_max = (size_t)1 << 24};

enum memos_status paramem_encoder_open(const struct paramem_encoder_options *options,
    struct paramem_encoder **out_encoder, struct memos_error *err)
{
    if (strstr(options->path, "broken")) {
        return memos_fail(err, MEMOS_CORRUPT, "%s is broken", options->path);
    }
    *out_encoder = calloc(1, sizeof **out_encoder);
    memos_assert(*out_encoder);
    return MEMOS_OK;
}

void paramem_encoder_close(struct paramem_encoder **encoder)
{
    free(*encoder);
    *encoder = NULL;
}

void paramem_encoder_describe(
    const struct paramem_encoder *encoder, struct paramem_encoder_info *out)
{
    (void)encoder;
    *out = (struct paramem_encoder_info){.architecture = "FakeModel",
        .kern = "none",
        .weights = KERN_F32,
        .dims = FAKE_DIMS,
        .tokens_max = 256,
        .fingerprint = {1, 2, 3},
        .normalized = true};
}

void fake_vector(struct memos_bytes text, enum paramem_role role, float out[FAKE_DIMS])
{
    uint32_t state = role == PARAMEM_QUERY ? 7 : 11;
    double squares = 0.0;
    for (size_t i = 0; i < text.size; i++) {
        state = state * 16777619u ^ ((const uint8_t *)text.data)[i];
    }
    for (size_t i = 0; i < FAKE_DIMS; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (float)(state >> 16) + 1.0f;
        squares += (double)out[i] * (double)out[i];
    }
    for (size_t i = 0; i < FAKE_DIMS; i++) {
        out[i] = (float)((double)out[i] / sqrt(squares));
    }
}

static bool begins(struct memos_bytes text, const char *with)
{
    return text.size >= strlen(with) && memcmp(text.data, with, strlen(with)) == 0;
}

static void note_call(const struct memos_bytes *texts, size_t count, enum paramem_role role)
{
    memos_buffer_printf(&calls, "%c:", role == PARAMEM_QUERY ? 'q' : 'p');
    for (size_t i = 0; i < count; i++) {
        memos_buffer_printf(&calls, "%s%.*s", i > 0 ? " " : "",
            (int)(texts[i].size < 24 ? texts[i].size : 24), (const char *)texts[i].data);
    }
    memos_buffer_u8(&calls, '|');
    held = holding;
    (void)pthread_cond_broadcast(&changed);
    while (holding && steps == 0) {
        (void)pthread_cond_wait(&changed, &lock);
    }
    steps -= steps > 0;
    held = false;
}

enum memos_status paramem_encoder_encode(struct paramem_encoder *encoder,
    const struct memos_bytes *texts, size_t count, enum paramem_role role, float *out,
    struct memos_error *err)
{
    (void)encoder;
    (void)pthread_mutex_lock(&lock);
    note_call(texts, count, role);
    (void)pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < count; i++) {
        if (begins(texts[i], "bad")) {
            return memos_fail(err, MEMOS_CORRUPT, "a bad text");
        } else if (begins(texts[i], "down")) {
            return memos_fail(err, MEMOS_UNAVAILABLE, "the model is down");
        }
        fake_vector(texts[i], role, out + i * FAKE_DIMS);
    }
    return MEMOS_OK;
}

struct retrieval_encoder *fake_encoder(void)
{
    struct retrieval_encoder_options options = {
        .source = RETRIEVAL_ENCODER_FOLDER, .folder.path = "/models/fake"};
    struct retrieval_encoder *encoder = NULL;
    memos_assert(retrieval_encoder_open(&options, &encoder, NULL) == MEMOS_OK);
    return encoder;
}

static void set_holding(bool value)
{
    (void)pthread_mutex_lock(&lock);
    holding = value;
    steps = 0;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
}

void fake_hold(void)
{
    set_holding(true);
}

void fake_release(void)
{
    set_holding(false);
}

void fake_wait_held(void)
{
    (void)pthread_mutex_lock(&lock);
    while (!held) {
        (void)pthread_cond_wait(&changed, &lock);
    }
    (void)pthread_mutex_unlock(&lock);
}

void fake_step(void)
{
    (void)pthread_mutex_lock(&lock);
    while (!held) {
        (void)pthread_cond_wait(&changed, &lock);
    }
    held = false; /* so that the next wait is for the next call */
    steps++;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
}

const char *fake_log(void)
{
    (void)pthread_mutex_lock(&lock);
    memos_buffer_u8(&calls, 0);
    calls.size--;
    (void)pthread_mutex_unlock(&lock);
    return (const char *)calls.data;
}

void fake_reset(void)
{
    set_holding(false);
    (void)pthread_mutex_lock(&lock);
    memos_buffer_free(&calls);
    (void)pthread_mutex_unlock(&lock);
}
