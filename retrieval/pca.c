#include "retrieval/pca.h"

#include <cblas.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "memospca"
#define MAGIC_BYTES 8u
#define VERSION 1u
#define HASH_BYTES 32u
#define DIMS_MAX 4096u
#define ROWS_A_TIME 256u

struct retrieval_pca {
    size_t dims, kept;
    float explained;
    float *mean;       /* (dims) */
    float *components; /* (kept, dims), orthonormal, by variance */
};

/* LAPACK, from OpenBLAS: all eigenvalues and eigenvectors of a symmetric matrix. Debian's package
 * has no header for it. */
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
    double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_size,
    size_t uplo_size);

static enum memos_status no_memory(struct memos_error *err)
{
    return memos_fail(err, MEMOS_NO_MEMORY, "no memory for principal components");
}

static struct retrieval_pca *pca_alloc(size_t dims, size_t kept)
{
    struct retrieval_pca *pca = calloc(1, sizeof *pca);
    if (!pca) {
        return NULL;
    }
    pca->dims = dims;
    pca->kept = kept;
    pca->mean = calloc(dims, sizeof *pca->mean);
    pca->components = calloc(kept * dims, sizeof *pca->components);
    if (!pca->mean || !pca->components) {
        retrieval_pca_free(&pca);
    }
    return pca;
}

void retrieval_pca_free(struct retrieval_pca **pca_in)
{
    struct retrieval_pca *pca = *pca_in;
    *pca_in = NULL;
    if (pca) {
        free(pca->mean);
        free(pca->components);
        free(pca);
    }
}

size_t retrieval_pca_dims(const struct retrieval_pca *pca)
{
    return pca->dims;
}

size_t retrieval_pca_kept(const struct retrieval_pca *pca)
{
    return pca->kept;
}

float retrieval_pca_explained(const struct retrieval_pca *pca)
{
    return pca->explained;
}

/* ---- fitting ------------------------------------------------------------------------------- */

/* The mean; false when a value is not finite. */
static bool mean_of(const float *sample, size_t count, size_t dims, double *out)
{
    memset(out, 0, dims * sizeof *out);
    for (size_t n = 0; n < count; n++) {
        for (size_t i = 0; i < dims; i++) {
            out[i] += (double)sample[n * dims + i];
        }
    }
    bool finite = true;
    for (size_t i = 0; i < dims; i++) {
        out[i] /= (double)count;
        finite &= isfinite(out[i]) != 0;
    }
    return finite;
}

/* The sum of (x - mean)(x - mean)^T, its upper triangle, into out (dims, dims). rows: room for
 * ROWS_A_TIME vectors. */
static void covariance_of(
    const float *sample, size_t count, size_t dims, const double *mean, double *rows, double *out)
{
    memset(out, 0, dims * dims * sizeof *out);
    for (size_t first = 0; first < count; first += ROWS_A_TIME) {
        const size_t some = count - first < ROWS_A_TIME ? count - first : ROWS_A_TIME;
        for (size_t n = 0; n < some; n++) {
            for (size_t i = 0; i < dims; i++) {
                rows[n * dims + i] = (double)sample[(first + n) * dims + i] - mean[i];
            }
        }
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)dims, (int)some, 1.0, rows,
            (int)dims, 1.0, out, (int)dims);
    }
}

/* Eigenvalues in ascending order into values; eigenvectors in the rows of matrix (dims, dims). */
static enum memos_status eigen(double *matrix, size_t dims, double *values, struct memos_error *err)
{
    const int n = (int)dims;
    int info = 0, ints = 0, ask = -1;
    double room = 0.0;

    /* Row-major's upper triangle is column-major's lower one. */
    dsyevd_("V", "L", &n, matrix, &n, values, &room, &ask, &ints, &ask, &info, 1, 1);
    const int doubles = (int)room;
    double *work = malloc((size_t)doubles * sizeof *work);
    int *iwork = malloc((size_t)ints * sizeof *iwork);
    enum memos_status status = work && iwork ? MEMOS_OK : no_memory(err);
    if (status == MEMOS_OK) {
        dsyevd_("V", "L", &n, matrix, &n, values, work, &doubles, iwork, &ints, &info, 1, 1);
        if (info != 0) {
            status = memos_fail_foreign(err, MEMOS_INTERNAL, info,
                "the eigenvalues of a covariance cannot be found (dsyevd %d)", info);
        }
    }
    free(work);
    free(iwork);
    return status;
}

/* Take the last `kept` rows, largest variance first. */
static void components_take(
    struct retrieval_pca *pca, const double *mean, const double *vectors, const double *values)
{
    double all = 0.0, some = 0.0;

    for (size_t i = 0; i < pca->dims; i++) {
        pca->mean[i] = (float)mean[i];
        all += fmax(values[i], 0.0);
    }
    for (size_t k = 0; k < pca->kept; k++) {
        const size_t from = pca->dims - 1 - k;
        some += fmax(values[from], 0.0);
        for (size_t i = 0; i < pca->dims; i++) {
            pca->components[k * pca->dims + i] = (float)vectors[from * pca->dims + i];
        }
    }
    pca->explained = all > 0.0 ? (float)(some / all) : 1.0f;
}

enum memos_status retrieval_pca_fit(const float *sample, size_t count, size_t dims, size_t kept,
    struct retrieval_pca **out_pca, struct memos_error *err)
{
    if (dims == 0 || dims > DIMS_MAX || kept == 0 || kept > dims || count <= kept) {
        return memos_fail(err, MEMOS_INVALID,
            "%zu components of %zu dims cannot be fitted to %zu vectors", kept, dims, count);
    }
    struct retrieval_pca *pca = pca_alloc(dims, kept);
    double *mean = malloc(dims * sizeof *mean);
    double *values = malloc(dims * sizeof *values);
    double *rows = malloc(ROWS_A_TIME * dims * sizeof *rows);
    double *matrix = malloc(dims * dims * sizeof *matrix);
    enum memos_status status = pca && mean && values && rows && matrix ? MEMOS_OK : no_memory(err);
    if (status == MEMOS_OK && !mean_of(sample, count, dims, mean)) {
        status = memos_fail(err, MEMOS_INVALID, "a sample with values that are not finite");
    }
    if (status == MEMOS_OK) {
        covariance_of(sample, count, dims, mean, rows, matrix);
        status = eigen(matrix, dims, values, err);
    }
    if (status == MEMOS_OK) {
        components_take(pca, mean, matrix, values);
        *out_pca = pca;
        pca = NULL;
    }
    retrieval_pca_free(&pca);
    free(mean);
    free(values);
    free(rows);
    free(matrix);
    return status;
}

/* ---- applying ------------------------------------------------------------------------------ */

void retrieval_pca_project(const struct retrieval_pca *pca, const float *vector, float *out)
{
    for (size_t k = 0; k < pca->kept; k++) {
        const float *component = pca->components + k * pca->dims;
        float sum = 0.0f;
        for (size_t i = 0; i < pca->dims; i++) {
            sum += component[i] * (vector[i] - pca->mean[i]);
        }
        out[k] = sum;
    }
}

void retrieval_pca_unproject(const struct retrieval_pca *pca, const float *projected, float *out)
{
    memcpy(out, pca->mean, pca->dims * sizeof *out);
    for (size_t k = 0; k < pca->kept; k++) {
        const float *component = pca->components + k * pca->dims;
        for (size_t i = 0; i < pca->dims; i++) {
            out[i] += projected[k] * component[i];
        }
    }
}

void retrieval_pca_apply(
    const struct retrieval_pca *pca, const float *vectors, size_t count, float *out)
{
    for (size_t n = 0; n < count; n++) {
        float *to = out + n * pca->kept;
        double squares = 0.0;
        retrieval_pca_project(pca, vectors + n * pca->dims, to);
        for (size_t k = 0; k < pca->kept; k++) {
            squares += (double)to[k] * (double)to[k];
        }
        const float factor = squares > 0.0 ? (float)(1.0 / sqrt(squares)) : 0.0f;
        for (size_t k = 0; k < pca->kept; k++) {
            to[k] *= factor;
        }
    }
}

/* ---- as bytes ------------------------------------------------------------------------------ */

static void put_floats(struct memos_buffer *out, const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        memos_buffer_u32(out, bits);
    }
}

/* False when one is not finite. */
static bool get_floats(struct memos_reader *r, float *out, size_t count)
{
    bool finite = true;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bits = memos_read_u32(r);
        memcpy(&out[i], &bits, sizeof bits);
        finite &= isfinite(out[i]) != 0;
    }
    return finite;
}

static void content_put(const struct retrieval_pca *pca, struct memos_buffer *out)
{
    memos_buffer_bytes(out, MAGIC, MAGIC_BYTES);
    memos_buffer_u32(out, VERSION);
    memos_buffer_u32(out, (uint32_t)pca->dims);
    memos_buffer_u32(out, (uint32_t)pca->kept);
    put_floats(out, &pca->explained, 1);
    put_floats(out, pca->mean, pca->dims);
    put_floats(out, pca->components, pca->kept * pca->dims);
}

enum memos_status retrieval_pca_save(
    const struct retrieval_pca *pca, struct memos_buffer *out, struct memos_error *err)
{
    uint8_t hash[HASH_BYTES];
    const size_t begin = out->size;

    content_put(pca, out);
    if (!out->failed) {
        (void)crypto_generichash(hash, sizeof hash, out->data + begin, out->size - begin, NULL, 0);
        memos_buffer_bytes(out, hash, sizeof hash);
    }
    return out->failed ? no_memory(err) : MEMOS_OK;
}

enum memos_status retrieval_pca_load(
    struct memos_bytes bytes, struct retrieval_pca **out_pca, struct memos_error *err)
{
    struct memos_reader r = memos_reader_of(bytes);
    char magic[MAGIC_BYTES];
    uint8_t hash[HASH_BYTES];

    memos_read_into(&r, magic, sizeof magic);
    const uint32_t version = memos_read_u32(&r);
    const size_t dims = memos_read_u32(&r), kept = memos_read_u32(&r);
    if (r.failed || memcmp(magic, MAGIC, MAGIC_BYTES) != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "these are no principal components");
    }
    if (version != VERSION) {
        return memos_fail(
            err, MEMOS_UNSUPPORTED, "principal components of version %u", (unsigned)version);
    }
    if (dims == 0 || dims > DIMS_MAX || kept == 0 || kept > dims ||
        r.left != (1 + dims + kept * dims) * sizeof(float) + HASH_BYTES) {
        return memos_fail(err, MEMOS_CORRUPT, "principal components of %zu bytes", bytes.size);
    }
    (void)crypto_generichash(hash, sizeof hash, bytes.data, bytes.size - HASH_BYTES, NULL, 0);
    if (memcmp(hash, (const uint8_t *)bytes.data + bytes.size - HASH_BYTES, HASH_BYTES) != 0) {
        return memos_fail(err, MEMOS_CORRUPT, "principal components were changed");
    }
    struct retrieval_pca *pca = pca_alloc(dims, kept);
    if (!pca) {
        return no_memory(err);
    }
    bool finite = get_floats(&r, &pca->explained, 1);
    finite &= get_floats(&r, pca->mean, dims);
    finite &= get_floats(&r, pca->components, kept * dims);
    if (!finite) {
        retrieval_pca_free(&pca);
        return memos_fail(err, MEMOS_CORRUPT, "principal components that are not finite");
    }
    *out_pca = pca;
    return MEMOS_OK;
}

void retrieval_pca_fingerprint(
    const struct retrieval_pca *pca, const uint8_t encoder[32], uint8_t out[32])
{
    crypto_generichash_state state;
    const uint32_t sizes[] = {VERSION, (uint32_t)pca->dims, (uint32_t)pca->kept};

    (void)crypto_generichash_init(&state, NULL, 0, 32);
    (void)crypto_generichash_update(&state, encoder, 32);
    (void)crypto_generichash_update(&state, (const uint8_t *)sizes, sizeof sizes);
    (void)crypto_generichash_update(
        &state, (const uint8_t *)pca->mean, pca->dims * sizeof *pca->mean);
    (void)crypto_generichash_update(
        &state, (const uint8_t *)pca->components, pca->kept * pca->dims * sizeof *pca->components);
    (void)crypto_generichash_final(&state, out, 32);
}
