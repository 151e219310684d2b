/* Which functions a level has on this processor. */
#include "kernels/cpu/ops.h"

#include <pthread.h>

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From asm/prctl.h of Linux 5.16. */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

struct leaf {
    unsigned a, b, c, d;
};

static struct leaf leaf_of(unsigned number)
{
    struct leaf leaf = {0, 0, 0, 0};
    (void)__get_cpuid_count(number, 0, &leaf.a, &leaf.b, &leaf.c, &leaf.d);
    return leaf;
}

/* __builtin_cpu_supports also asks whether the system saves the registers; clang's does not know
 * f16c. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           (leaf_of(1).c & bit_F16C) != 0;
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* Are the tiles there, and does the system let this process use them? */
static bool has_amx(void)
{
    const unsigned bf16 = 1U << 22, tile = 1U << 24, int8 = 1U << 25;
    return (leaf_of(7).d & (bf16 | tile | int8)) == (bf16 | tile | int8) &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static struct kern_ops avx2 = {
    .name = "cpu/avx2",
    .tiles = {&kern_cpu_f32_avx2, &kern_cpu_bf16_avx2, &kern_cpu_i8_avx2},
    .blocks = {&kern_cpu_q8_0_avx2, &kern_cpu_q4_0_avx2, &kern_cpu_q4_k_avx2, &kern_cpu_q6_k_avx2},
    .linear_workspace_bytes = kern_cpu_linear_workspace_bytes,
    .linear = kern_cpu_linear,
    .pack = kern_cpu_pack,
    .encode_attention_workspace_bytes = kern_cpu_encode_attention_workspace_bytes,
    .encode_attention = kern_cpu_encode_attention,
    .layernorm = kern_cpu_layernorm,
    .embed = kern_cpu_embed,
    .pool_mean = kern_cpu_pool_mean,
    .normalize = kern_cpu_normalize,
    .scan = kern_cpu_scan,
    .attention_tiles = &kern_cpu_attention_avx2,
    .gather = kern_cpu_gather,
    .rmsnorm = kern_cpu_rmsnorm,
    .silu_mul = kern_cpu_silu_mul,
    .rotate = kern_cpu_rotate,
    .kv_write = kern_cpu_kv_write,
    .kv_read = kern_cpu_kv_read,
    .kv_shift = kern_cpu_kv_shift,
    .attention_workspace_bytes = kern_cpu_attention_workspace_bytes,
    .attention = kern_cpu_attention,
    .sample_workspace_bytes = kern_cpu_sample_workspace_bytes,
    .sample = kern_cpu_sample,
    .logprobs = kern_cpu_logprobs,
    .from_f32 = kern_cpu_from_f32,
    .to_f32 = kern_cpu_to_f32,
};
static struct kern_ops avx512, amx;
static bool offered[KERN_AMX + 1];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void set_layouts(struct kern_ops *ops)
{
    ops->f32 = ops->tiles[0]->layout;
    ops->bf16 = ops->tiles[1]->layout;
    ops->i8 = ops->tiles[2]->layout;
}

static void fill(void)
{
    __builtin_cpu_init();
    offered[KERN_AVX2] = has_avx2();
    offered[KERN_AVX512] = has_avx512();
    offered[KERN_AMX] = offered[KERN_AVX512] && has_amx();
    set_layouts(&avx2);
    avx512 = avx2;
    avx512.name = "cpu/avx512";
    avx512.scan = kern_cpu_scan_avx512;
    avx512.tiles[0] = &kern_cpu_f32_avx512;
    if (__builtin_cpu_supports("avx512bf16")) {
        avx512.tiles[1] = &kern_cpu_bf16_avx512;
    }
    if (__builtin_cpu_supports("avx512vnni")) {
        avx512.tiles[2] = &kern_cpu_i8_avx512;
        avx512.blocks[0] = &kern_cpu_q8_0_avx512;
        avx512.blocks[1] = &kern_cpu_q4_0_avx512;
        avx512.blocks[2] = &kern_cpu_q4_k_avx512;
        avx512.blocks[3] = &kern_cpu_q6_k_avx512;
    }
    set_layouts(&avx512);
    amx = avx512;
    amx.name = "cpu/amx";
    amx.tiles[1] = &kern_cpu_bf16_amx;
    amx.tiles[2] = &kern_cpu_i8_amx;
    if (amx.blocks[0] == &kern_cpu_q8_0_avx512) {
        amx.wide_blocks[0] = &kern_cpu_q8_0_amx;
        amx.wide_blocks[1] = &kern_cpu_q4_0_amx;
        amx.wide_blocks[2] = &kern_cpu_q4_k_amx;
    }
    set_layouts(&amx);
}

const struct kern_ops *kern_cpu_ops(enum kern_level level)
{
    static const struct kern_ops *const tables[] = {NULL, &avx2, &avx512, &amx};
    (void)pthread_once(&once, fill);
    return offered[level] ? tables[level] : NULL;
}

#else

const struct kern_ops *kern_cpu_ops(enum kern_level level)
{
    (void)level;
    return NULL;
}

#endif
