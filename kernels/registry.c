/* The tables, made whole; the first one that is right is the best. */
#include "kernels/cpu/ops.h"
#include "kernels/cuda/ops.h"
#include "kernels/ops.h"
#include "kernels/ref/ops.h"

#include "proto/log.h"

#include <pthread.h>
#include <string.h>

static const char *const level_names[] = {"sse2", "avx2", "avx512", "amx"};

static struct kern_ops ref_table, cpu_tables[KERN_AMX + 1]; /* name NULL: not offered */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Put ref's functions in the empty slots. */
static void complete(struct kern_ops *ops)
{
#define USE_REF(slot) ops->slot = ops->slot ? ops->slot : kern_ref_ops.slot
    memos_assert(!ops->encode_attention == !ops->encode_attention_workspace_bytes);
    USE_REF(pack);
    USE_REF(encode_attention_workspace_bytes);
    USE_REF(encode_attention);
    USE_REF(layernorm);
    USE_REF(embed);
    USE_REF(pool_mean);
    USE_REF(normalize);
    USE_REF(scan);
    USE_REF(from_f32);
    USE_REF(to_f32);
    memos_assert(!ops->attention == !ops->attention_workspace_bytes);
    memos_assert(!ops->sample == !ops->sample_workspace_bytes);
    memos_assert(!ops->side_ffn == !ops->side_ffn_workspace_bytes);
    /* A device's memory cannot be read here: what it lacks stays empty, and asking for it is
     * asserted in decoder.c. */
    if (ops->device) {
        return;
    }
    USE_REF(gather);
    USE_REF(rmsnorm);
    USE_REF(silu_mul);
    USE_REF(rotate);
    USE_REF(kv_write);
    USE_REF(kv_read);
    USE_REF(kv_shift);
    USE_REF(attention_workspace_bytes);
    USE_REF(attention);
    USE_REF(sample_workspace_bytes);
    USE_REF(sample);
    USE_REF(logprobs);
    USE_REF(side_ffn_workspace_bytes);
    USE_REF(side_ffn);
#undef USE_REF
}

static struct kern_ops registered(const struct kern_ops *from, const char *name)
{
    struct kern_ops ops = *from;
    memos_assert(ops.linear && ops.linear_workspace_bytes);
    memos_assert(ops.f32.width > 0 && ops.f32.group > 0 && ops.f32.pad % ops.f32.group == 0);
    memos_assert(ops.bf16.width > 0 && ops.bf16.group > 0 && ops.bf16.pad % ops.bf16.group == 0);
    memos_assert(ops.i8.width > 0 && ops.i8.group > 0 && ops.i8.pad % ops.i8.group == 0);
    ops.name = name;
    complete(&ops);
    return ops;
}

static void fill(void)
{
    ref_table = registered(&kern_ref_ops, kern_ref_ops.name);
    cpu_tables[KERN_SSE2] = registered(&kern_ref_ops, "cpu/sse2");
    for (enum kern_level level = KERN_AVX2; level <= KERN_AMX; level++) {
        const struct kern_ops *ops = kern_cpu_ops(level);
        if (!ops) {
            continue;
        }
        cpu_tables[level] = registered(ops, ops->name);
        /* A level that is wrong on this processor is worse than none. */
        if (!kern_ops_agree(&cpu_tables[level])) {
            memos_log(MEMOS_LOG_DEBUG, memos_log_event("kernels_disagree"),
                memos_log_text("level", ops->name));
            cpu_tables[level].name = NULL;
        }
    }
}

const struct kern_ops *kern_ops_of(const char *backend, const char *level)
{
    int best = KERN_AMX;
    (void)pthread_once(&once, fill);
    if (backend && strcmp(backend, "ref") == 0) {
        return &ref_table;
    } else if (backend && strcmp(backend, "cuda") == 0) {
        return level ? NULL : kern_cuda_ops();
    } else if (backend && strcmp(backend, "cpu") != 0) {
        return NULL;
    }
    for (; level && best >= 0 && strcmp(level, level_names[best]) != 0; best--) {
    }
    for (; best >= 0; best--) {
        if (cpu_tables[best].name) {
            return &cpu_tables[best];
        }
    }
    return NULL;
}
