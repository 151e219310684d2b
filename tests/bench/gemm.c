#include "tests/bench/gemm.h"

#include "tests/bench/bench.h"

#include <stdlib.h>
#include <string.h>

#ifdef BENCH_OPENBLAS
#include <cblas.h>
#endif
#ifdef BENCH_ONEDNN
#include <dnnl.h>
#endif

struct gemm {
    void (*run)(struct gemm *gemm);
    size_t t, n, k;
    const float *x, *w;
    float *y;
#ifdef BENCH_ONEDNN
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t product;
    dnnl_memory_t memories[3]; /* x, w, y */
#endif
};

void gemm_run(struct gemm *gemm)
{
    gemm->run(gemm);
}

#ifdef BENCH_OPENBLAS

static void run_openblas(struct gemm *g)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)g->t, (int)g->n, (int)g->k, 1.0F,
        g->x, (int)g->k, g->w, (int)g->k, 0.0F, g->y, (int)g->n);
}

struct gemm *gemm_openblas(const float *x, const float *w, size_t t, size_t n, size_t k)
{
    struct gemm *g = bench_memory(1, sizeof *g);
    *g = (struct gemm){.run = run_openblas, .t = t, .n = n, .k = k, .x = x, .w = w};
    g->y = bench_memory(t * n, sizeof *g->y);
    openblas_set_num_threads(2);
    return g;
}

#else

struct gemm *gemm_openblas(const float *x, const float *w, size_t t, size_t n, size_t k)
{
    (void)x, (void)w, (void)t, (void)n, (void)k;
    return NULL;
}

#endif

#ifdef BENCH_ONEDNN

/* From here on a call that fails ends the attempt: this processor does not have the type. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if ((call) != dnnl_success) {                                                              \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

/* Memory of g->engine as `to` says, with what the plain floats of `from` become in it. */
static bool fill_memory(struct gemm *g, const float *from, const dnnl_memory_desc_t *plain,
    const dnnl_memory_desc_t *to, dnnl_memory_t *out)
{
    dnnl_memory_t source = NULL;
    dnnl_primitive_desc_t about = NULL;
    dnnl_primitive_t reorder = NULL;
    TRY(dnnl_memory_create(&source, plain, g->engine, (void *)(uintptr_t)from));
    TRY(dnnl_memory_create(out, to, g->engine, DNNL_MEMORY_ALLOCATE));
    TRY(dnnl_reorder_primitive_desc_create(&about, plain, g->engine, to, g->engine, NULL));
    TRY(dnnl_primitive_create(&reorder, about));
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, *out}};
    TRY(dnnl_primitive_execute(reorder, g->stream, 2, args));
    TRY(dnnl_stream_wait(g->stream));
    (void)dnnl_primitive_destroy(reorder);
    (void)dnnl_primitive_desc_destroy(about);
    (void)dnnl_memory_destroy(source);
    return true;
}

static bool build_onednn(struct gemm *g, enum kern_dtype dtype)
{
    dnnl_data_type_t type = dtype == KERN_F32 ? dnnl_f32 : dtype == KERN_BF16 ? dnnl_bf16 : dnnl_s8;
    dnnl_dims_t x_dims = {(dnnl_dim_t)g->t, (dnnl_dim_t)g->k};
    dnnl_dims_t w_dims = {(dnnl_dim_t)g->k, (dnnl_dim_t)g->n};
    dnnl_dims_t y_dims = {(dnnl_dim_t)g->t, (dnnl_dim_t)g->n};
    dnnl_memory_desc_t x, w, y, x_plain, w_plain;
    dnnl_matmul_desc_t what;
    dnnl_primitive_desc_t about = NULL;
    TRY(dnnl_engine_create(&g->engine, dnnl_cpu, 0));
    TRY(dnnl_stream_create(&g->stream, g->engine, dnnl_stream_default_flags));
    TRY(dnnl_memory_desc_init_by_tag(&x_plain, 2, x_dims, dnnl_f32, dnnl_ab));
    TRY(dnnl_memory_desc_init_by_tag(&w_plain, 2, w_dims, dnnl_f32, dnnl_ba));
    TRY(dnnl_memory_desc_init_by_tag(&x, 2, x_dims, type, dnnl_ab));
    TRY(dnnl_memory_desc_init_by_tag(&w, 2, w_dims, type, dnnl_format_tag_any));
    TRY(dnnl_memory_desc_init_by_tag(&y, 2, y_dims, dnnl_f32, dnnl_ab));
    TRY(dnnl_matmul_desc_init(&what, &x, &w, NULL, &y));
    TRY(dnnl_primitive_desc_create(&about, &what, NULL, g->engine, NULL));
    w = *dnnl_primitive_desc_query_md(about, dnnl_query_weights_md, 0);
    TRY(dnnl_primitive_create(&g->product, about));
    (void)dnnl_primitive_desc_destroy(about);
    TRY(dnnl_memory_create(&g->memories[2], &y, g->engine, DNNL_MEMORY_ALLOCATE));
    return fill_memory(g, g->x, &x_plain, &x, &g->memories[0]) &&
           fill_memory(g, g->w, &w_plain, &w, &g->memories[1]);
}

static void run_onednn(struct gemm *g)
{
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, g->memories[0]},
        {DNNL_ARG_WEIGHTS, g->memories[1]}, {DNNL_ARG_DST, g->memories[2]}};
    if (dnnl_primitive_execute(g->product, g->stream, 3, args) != dnnl_success ||
        dnnl_stream_wait(g->stream) != dnnl_success) {
        bench_fail("oneDNN's product failed");
    }
}

static void free_onednn(struct gemm *g)
{
    for (size_t i = 0; i < 3; i++) {
        (void)dnnl_memory_destroy(g->memories[i]);
    }
    (void)dnnl_primitive_destroy(g->product);
    (void)dnnl_stream_destroy(g->stream);
    (void)dnnl_engine_destroy(g->engine);
}

struct gemm *gemm_onednn(
    enum kern_dtype dtype, const float *x, const float *w, size_t t, size_t n, size_t k)
{
    struct gemm *g = bench_memory(1, sizeof *g);
    *g = (struct gemm){.run = run_onednn, .t = t, .n = n, .k = k, .x = x, .w = w};
    if (!build_onednn(g, dtype)) {
        gemm_free(&g);
    }
    return g;
}

#else

static void free_onednn(struct gemm *g)
{
    (void)g;
}

struct gemm *gemm_onednn(
    enum kern_dtype dtype, const float *x, const float *w, size_t t, size_t n, size_t k)
{
    (void)dtype, (void)x, (void)w, (void)t, (void)n, (void)k;
    return NULL;
}

#endif

void gemm_free(struct gemm **gemm)
{
    if (*gemm) {
        free_onednn(*gemm);
        free((*gemm)->y);
        free(*gemm);
        *gemm = NULL;
    }
}
