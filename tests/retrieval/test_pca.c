/* Principal components: what is kept is what varies, and a map that is read back is the same map.
 *
 * If these failed, half of the dims would lose more than half of what vectors mean, or questions
 * would be mapped otherwise than documents were. */
#include "retrieval/pca.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DIMS 48
#define COUNT 600

static uint64_t drawn = 7;

static double draw(void)
{
    drawn += 0x9e3779b97f4a7c15u;
    uint64_t z = drawn;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53 - 0.5;
}

/* Vectors around a mean, in `rank` random directions of falling weight and a little noise. */
static float *sample_make(size_t rank, double noise)
{
    static double directions[DIMS][DIMS], mean[DIMS];
    float *sample = calloc((size_t)COUNT * DIMS, sizeof *sample);
    assert_non_null(sample);
    for (size_t k = 0; k < DIMS; k++) {
        mean[k] = draw();
        for (size_t i = 0; i < DIMS; i++) {
            directions[k][i] = draw();
        }
    }
    for (size_t n = 0; n < COUNT; n++) {
        double x[DIMS];
        for (size_t i = 0; i < DIMS; i++) {
            x[i] = 2.0 * mean[i] + noise * draw();
        }
        for (size_t k = 0; k < rank; k++) {
            const double weight = draw() / (double)(k + 1);
            for (size_t i = 0; i < DIMS; i++) {
                x[i] += weight * directions[k][i];
            }
        }
        for (size_t i = 0; i < DIMS; i++) {
            sample[n * DIMS + i] = (float)x[i];
        }
    }
    return sample;
}

static struct retrieval_pca *fit(const float *sample, size_t kept)
{
    struct retrieval_pca *pca = NULL;
    struct memos_error err;
    const enum memos_status status = retrieval_pca_fit(sample, COUNT, DIMS, kept, &pca, &err);
    if (status != MEMOS_OK) {
        fail_msg("%s", err.text);
    }
    return pca;
}

/* The mean squared distance between vectors and what comes back of them. */
static double loss(const struct retrieval_pca *pca, const float *sample)
{
    double sum = 0.0;
    for (size_t n = 0; n < COUNT; n++) {
        float projected[DIMS], back[DIMS];
        retrieval_pca_project(pca, sample + n * DIMS, projected);
        retrieval_pca_unproject(pca, projected, back);
        for (size_t i = 0; i < DIMS; i++) {
            const double d = (double)back[i] - (double)sample[n * DIMS + i];
            sum += d * d;
        }
    }
    return sum / COUNT;
}

static void what_varies_is_kept(void **state)
{
    float *sample = sample_make(6, 1e-3);
    struct retrieval_pca *whole = fit(sample, 6), *half = fit(sample, 3);
    (void)state;
    assert_true(retrieval_pca_explained(whole) > 0.9999f);
    assert_true(loss(whole, sample) < 1e-4);
    assert_true(retrieval_pca_explained(half) < retrieval_pca_explained(whole));
    assert_true(loss(half, sample) > 10 * loss(whole, sample));
    /* No other map to three dims loses less; drop the most important one, say. */
    double variances[3] = {0.0}, means[3] = {0.0};
    for (size_t n = 0; n < COUNT; n++) {
        float projected[DIMS];
        retrieval_pca_project(half, sample + n * DIMS, projected);
        for (size_t k = 0; k < 3; k++) {
            means[k] += (double)projected[k] / COUNT;
            variances[k] += (double)projected[k] * (double)projected[k] / COUNT;
        }
    }
    for (size_t k = 0; k < 3; k++) {
        assert_true(fabs(means[k]) < 1e-4); /* centred */
        assert_true(k == 0 || variances[k] <= variances[k - 1]);
    }
    retrieval_pca_free(&whole);
    retrieval_pca_free(&half);
    free(sample);
}

static void all_dims_lose_nothing(void **state)
{
    float *sample = sample_make(DIMS, 0.1);
    struct retrieval_pca *pca = fit(sample, DIMS);
    (void)state;
    assert_true(loss(pca, sample) < 1e-8);
    assert_true(fabsf(retrieval_pca_explained(pca) - 1.0f) < 1e-5f);
    /* A rotation: distances stay. */
    float a[DIMS], b[DIMS];
    double before = 0.0, after = 0.0;
    retrieval_pca_project(pca, sample, a);
    retrieval_pca_project(pca, sample + DIMS, b);
    for (size_t i = 0; i < DIMS; i++) {
        const double x = (double)sample[i] - (double)sample[DIMS + i];
        const double y = (double)a[i] - (double)b[i];
        before += x * x;
        after += y * y;
    }
    assert_true(fabs(before - after) < 1e-4 * before);
    retrieval_pca_free(&pca);
    free(sample);
}

static void applied_vectors_are_unit_vectors(void **state)
{
    float *sample = sample_make(10, 0.01);
    struct retrieval_pca *pca = fit(sample, 5);
    float out[2 * 5];
    (void)state;
    assert_int_equal(retrieval_pca_dims(pca), DIMS);
    assert_int_equal(retrieval_pca_kept(pca), 5);
    retrieval_pca_apply(pca, sample, 2, out);
    for (size_t n = 0; n < 2; n++) {
        float projected[5], squares = 0.0f, dot = 0.0f, length = 0.0f;
        retrieval_pca_project(pca, sample + n * DIMS, projected);
        for (size_t k = 0; k < 5; k++) {
            squares += out[n * 5 + k] * out[n * 5 + k];
            dot += out[n * 5 + k] * projected[k];
            length += projected[k] * projected[k];
        }
        assert_true(fabsf(squares - 1.0f) < 1e-5f);
        assert_true(fabsf(dot - sqrtf(length)) < 1e-4f * dot);
    }
    retrieval_pca_free(&pca);
    free(sample);
}

static void what_is_saved_is_loaded(void **state)
{
    float *sample = sample_make(10, 0.01);
    struct retrieval_pca *pca = fit(sample, 7), *loaded = NULL;
    struct memos_buffer bytes = memos_buffer_make(SIZE_MAX);
    struct memos_error err;
    uint8_t encoder[32] = {3}, first[32], second[32];
    (void)state;
    assert_int_equal(retrieval_pca_save(pca, &bytes, &err), MEMOS_OK);
    assert_int_equal(retrieval_pca_load(memos_buffer_view(&bytes), &loaded, &err), MEMOS_OK);
    retrieval_pca_fingerprint(pca, encoder, first);
    retrieval_pca_fingerprint(loaded, encoder, second);
    assert_memory_equal(first, second, sizeof first);
    float a[7], b[7];
    retrieval_pca_project(pca, sample, a);
    retrieval_pca_project(loaded, sample, b);
    assert_memory_equal(a, b, sizeof a);
    assert_true(retrieval_pca_explained(loaded) == retrieval_pca_explained(pca));
    encoder[0] = 4;
    retrieval_pca_fingerprint(pca, encoder, second);
    assert_memory_not_equal(first, second, sizeof first);
    retrieval_pca_free(&loaded);
    for (size_t i = 0; i < bytes.size; i += 41) { /* no byte may be another */
        bytes.data[i] ^= 1;
        const enum memos_status status =
            retrieval_pca_load(memos_buffer_view(&bytes), &loaded, &err);
        assert_true(status == MEMOS_CORRUPT || (status == MEMOS_UNSUPPORTED && i >= 8 && i < 12));
        bytes.data[i] ^= 1;
        assert_int_equal(
            retrieval_pca_load(memos_bytes_make(bytes.data, i), &loaded, &err), MEMOS_CORRUPT);
    }
    memos_buffer_free(&bytes);
    retrieval_pca_free(&pca);
    free(sample);
}

static void what_cannot_be_fitted_is_refused(void **state)
{
    float *sample = sample_make(3, 0.1);
    struct retrieval_pca *pca = NULL;
    (void)state;
    assert_int_equal(retrieval_pca_fit(sample, 10, DIMS, 10, &pca, NULL), MEMOS_INVALID);
    assert_int_equal(retrieval_pca_fit(sample, COUNT, DIMS, DIMS + 1, &pca, NULL), MEMOS_INVALID);
    assert_int_equal(retrieval_pca_fit(sample, COUNT, DIMS, 0, &pca, NULL), MEMOS_INVALID);
    assert_int_equal(retrieval_pca_fit(sample, COUNT, 5000, 10, &pca, NULL), MEMOS_INVALID);
    sample[100] = NAN;
    assert_int_equal(retrieval_pca_fit(sample, COUNT, DIMS, 10, &pca, NULL), MEMOS_INVALID);
    /* All the same vector: nothing varies, and nothing breaks. */
    for (size_t i = 0; i < (size_t)COUNT * DIMS; i++) {
        sample[i] = 0.5f;
    }
    pca = fit(sample, 4);
    float out[4];
    retrieval_pca_apply(pca, sample, 1, out);
    for (size_t k = 0; k < 4; k++) {
        assert_true(isfinite(out[k]));
    }
    retrieval_pca_free(&pca);
    free(sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_varies_is_kept),
        cmocka_unit_test(all_dims_lose_nothing),
        cmocka_unit_test(applied_vectors_are_unit_vectors),
        cmocka_unit_test(what_is_saved_is_loaded),
        cmocka_unit_test(what_cannot_be_fitted_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
