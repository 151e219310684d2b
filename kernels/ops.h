/* What the files of kernels share: the table of operations, matrices as they are packed, and how
 * the cpu backend's products are put together.
 *
 * A backend is one `const struct kern_ops`. Its functions get what kern.h says, checked; a slot
 * that is NULL is taken from ref's table when the table is registered (kern_ops_of), so that
 * callers never look.
 *
 * Threads: tables do not change after they are registered. */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include "kernels/decoder.h"
#include "kernels/pool.h"

#define KERN_NAME_BYTES 64

/* The next multiple of unit. */
static inline size_t kern_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* How W (N, K) is laid out: in panels of `width` rows, in which `group` numbers of K of one row lie
 * together: element (n, k) is at
 *     n / width * width * K' + k / group * width * group + n % width * group + k % group
 * where K' is K rounded up to `pad`, a multiple of group. Row-major is width 1, group 1. What pads
 * is zero. Blocks lie in panels of their own (kernels/cpu/panels.h), or as in a file where width is
 * 1. */
struct kern_layout {
    size_t width, group, pad;
    size_t bytes; /* of pad numbers of width rows; 0: as many as their type has */
};

/* Rows n .. n + count - 1 of a matrix in the making, n a multiple of KERN_PANEL. */
#define KERN_PANEL 16
struct kern_strip {
    size_t n, count;
    const void *rows[KERN_PANEL];
    enum kern_dtype from[KERN_PANEL];
};

struct kern_matrix {
    const struct kern_ops *ops; /* which multiplies by it, whatever the context's is */
    enum kern_dtype dtype;
    size_t n, k, k_padded;
    size_t panel_bytes;
    size_t bytes;   /* of all, this struct included */
    bool row_major; /* data is what kern_matrix_rows gives */
    void *data;     /* 64-byte aligned */
    float *scales;  /* (N) I8 only, as is sums */
    int32_t *sums;  /* (N) of each row's codes: for products whose other side is offset */
};

/* The sums of one tile: x (rows, K') . panels^T. The sums are float32 or int32 and lie row-major,
 * 16 * KERN_TILE_PANELS apart. Of weights in blocks they are float32 with all scales in them. */
#define KERN_TILE_PANELS 2
#define KERN_TILE_COLUMNS (KERN_PANEL * KERN_TILE_PANELS)

struct kern_tile {
    const void *x;      /* as the kernel's `form` says */
    size_t x_bytes;     /* from row to row */
    const void *w;      /* the first panel */
    size_t panel_bytes; /* to the second */
    size_t k;           /* a multiple of the layout's pad */
    size_t rows;        /* 1..rows_max */
    size_t panels;      /* 1..panels_max */
    void *sums;         /* written, or added to: K may come in several calls */
    bool add;
    /* Blocks only: scales and sums of x's codes (Q6_K: sums of 16, else of 32), scales x_groups
     * apart from row to row. */
    const float *x_scales;
    const int32_t *x_sums;
    size_t x_groups;
    /* What of W comes after this call, as many panels and numbers: to be asked for. NULL: nothing.
     */
    const void *next;
};

/* What a product makes of x (T, K) before its tiles: */
enum kern_form {
    KERN_FORM_PLAIN,   /* nothing */
    KERN_FORM_ROUNDED, /* float32, rounded to bf16 */
    KERN_FORM_BF16,
    KERN_FORM_I16, /* int8 codes, widened */
    KERN_FORM_U8,  /* int8 codes + 128 */
    KERN_FORM_I8,
    /* Of 16 rows by 64 bytes of K, which lie together; all of a cut of K before the next cut, in it
     * one row of tiles after the other, so that what a call reads is one run of memory. x_bytes is
     * that of 16 rows of a cut. */
    KERN_FORM_BF16_TILES,
    KERN_FORM_I8_TILES,
    KERN_FORM_I8_HALF_TILES, /* 32 bytes of K, a group of weights in blocks */
};

struct kern_tiles {
    void (*run)(const struct kern_tile *tile);
    enum kern_form form;
    struct kern_layout layout;
    size_t rows_max, panels_max;
    size_t block_rows;  /* rows of x that a piece of work has at most; at least rows_max */
    size_t block_bytes; /* that x may have of the cache */
};

struct kern_ops {
    const char *name;                   /* as in kern_ctx_name: "ref", "cpu/avx2" */
    struct kern_layout f32, bf16, i8;   /* mandatory, as are the two of linear */
    const struct kern_tiles *tiles[3];  /* cpu's linear only: f32, bf16, i8 */
    const struct kern_tiles *blocks[4]; /* Q8_0, Q4_0, Q4_K, Q6_K; NULL: as in a file, for ref */
    /* For 16 rows of x and more: the same layout of W and to the bit the same sums; NULL: none. */
    const struct kern_tiles *wide_blocks[4];
    size_t (*linear_workspace_bytes)(const struct kern_matrix *w, size_t t);
    void (*linear)(struct kern_ctx *ctx, const struct kern_linear *a);
    /* Write these rows, and what pads them, where they belong. Any thread. */
    void (*pack)(struct kern_matrix *w, const struct kern_strip *strip);

    /* The attention slots come together or not at all. */
    size_t (*encode_attention_workspace_bytes)(
        const struct kern_ctx *ctx, size_t longest, size_t head_dim);
    void (*encode_attention)(struct kern_ctx *ctx, const struct kern_encode_attention *a);
    void (*layernorm)(struct kern_ctx *ctx, const float *x, const float *gamma, const float *beta,
        float eps, float *y, size_t t, size_t k);
    void (*embed)(struct kern_ctx *ctx, const float *const *tables, const uint32_t *const *ids,
        size_t tables_count, float *y, size_t t, size_t k);
    void (*pool_mean)(struct kern_ctx *ctx, const float *x, const uint32_t *starts,
        size_t sequences, float *out, size_t k);
    void (*normalize)(struct kern_ctx *ctx, float *x, size_t rows, size_t k);

    /* rows_index NULL: rows 0..count-1. */
    void (*scan)(enum kern_dtype dtype, const void *codes, const float *scales,
        const uint32_t *rows_index, size_t count, size_t k, const float *query, float *scores);
    /* A decoder's: kernels/decoder.h. */
    const struct kern_attention_tiles *attention_tiles; /* cpu's attention only */
    void (*gather)(struct kern_ctx *ctx, const struct kern_gather *a);
    void (*rmsnorm)(struct kern_ctx *ctx, const struct kern_rmsnorm *a);
    void (*silu_mul)(struct kern_ctx *ctx, const struct kern_silu_mul *a);
    void (*rotate)(struct kern_ctx *ctx, const struct kern_rotate *a);
    void (*kv_write)(struct kern_ctx *ctx, const struct kern_kv_write *a);
    void (*kv_read)(struct kern_ctx *ctx, const struct kern_kv_read *a);
    void (*kv_shift)(struct kern_ctx *ctx, const struct kern_kv_shift *a);
    size_t (*attention_workspace_bytes)(const struct kern_ctx *ctx, size_t t, size_t sequences,
        size_t heads, size_t kv_heads, size_t head_dim, size_t length_max);
    void (*attention)(struct kern_ctx *ctx, const struct kern_attention *a);
    size_t (*sample_workspace_bytes)(const struct kern_ctx *ctx, size_t rows, size_t vocab);
    void (*sample)(struct kern_ctx *ctx, const struct kern_sample *a);
    void (*logprobs)(struct kern_ctx *ctx, const float *logits, const uint32_t *ids, size_t rows,
        size_t vocab, float *out);
    size_t (*side_ffn_workspace_bytes)(const struct kern_ctx *ctx, const struct kern_side_ffn *a);
    void (*side_ffn)(struct kern_ctx *ctx, const struct kern_side_ffn *a);

    /* Memory and matrices of a device; all NULL: the process's memory (kernels/memory.c). */
    const struct kern_device *device;

    void (*from_f32)(enum kern_dtype to, const float *from, void *out, size_t count);
    void (*to_f32)(enum kern_dtype from, const void *data, float *out, size_t count);
};

/* What a backend with memory of its own has; kern.h says what each does. Complete or not at all.
 * open also writes ctx->name. */
struct kern_device {
    enum memos_status (*open)(struct kern_ctx *ctx, struct memos_error *err);
    void (*close)(struct kern_ctx *ctx);
    enum memos_status (*alloc)(
        struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err);
    void (*release)(struct kern_ctx *ctx, void *memory);
    enum memos_status (*host_alloc)(
        struct kern_ctx *ctx, size_t bytes, void **out_memory, struct memos_error *err);
    void (*host_release)(struct kern_ctx *ctx, void *memory);
    void (*upload)(struct kern_ctx *ctx, void *device, const void *host, size_t bytes);
    void (*fill)(struct kern_ctx *ctx, void *device, int byte, size_t bytes);
    void (*copy)(struct kern_ctx *ctx, void *device_to, const void *device_from, size_t bytes);
    enum memos_status (*download)(struct kern_ctx *ctx, void *host, const void *device,
        size_t bytes, struct memos_error *err);
    enum memos_status (*sync)(struct kern_ctx *ctx, struct memos_error *err);
    enum memos_status (*reset)(struct kern_ctx *ctx, struct memos_error *err);
    void (*memory)(struct kern_ctx *ctx, uint64_t *out_free, uint64_t *out_total);
    void (*upload_beside)(struct kern_ctx *ctx, void *device, const void *host, size_t bytes);
    void (*copies_wait)(struct kern_ctx *ctx);
    void (*download_beside)(struct kern_ctx *ctx, const struct kern_pieces *pieces);
    bool (*graph_begin)(struct kern_ctx *ctx);
    enum memos_status (*graph_end)(
        struct kern_ctx *ctx, struct kern_graph **out_graph, struct memos_error *err);
    void (*graph_run)(struct kern_ctx *ctx, struct kern_graph *graph);
    void (*graph_free)(struct kern_graph *graph);
    enum memos_status (*matrix_pack)(struct kern_ctx *ctx, enum kern_dtype to,
        const struct kern_part *parts, size_t parts_count, size_t k, struct kern_matrix **out,
        struct memos_error *err);
    void (*matrix_free)(struct kern_matrix *matrix);
    enum kern_dtype (*between_dtype)(const struct kern_ctx *ctx, enum kern_dtype weights);
};

/* The beginning of a device's recorded operations. */
struct kern_graph {
    const struct kern_device *device;
};

struct kern_ctx {
    const struct kern_ops *ops;
    void *own; /* the device's */
    struct kern_pool *pool;
    unsigned threads;
    char name[KERN_NAME_BYTES];
};

extern const struct kern_ops kern_ref_ops;

/* The registered table of a backend ("auto" is no backend) at the best level that is at most
 * `level` (both may be NULL: the best cpu). NULL: there is no backend or level of that name, or it
 * was not built. */
const struct kern_ops *kern_ops_of(const char *backend, const char *level);

/* The layout for weights of dtype; width 0 when they cannot be packed as that. */
struct kern_layout kern_ops_layout(const struct kern_ops *ops, enum kern_dtype dtype);

/* Does `ops` agree with ref on small products and scans? Levels above AVX2 are asked before they
 * are used the first time. */
bool kern_ops_agree(const struct kern_ops *ops);

#endif
