#include "kernels/ref/ops.h"

const struct kern_ops kern_ref_ops = {
    .name = "ref",
    .f32 = {1, 1, 1},
    .bf16 = {1, 1, 1},
    .i8 = {1, 1, 1},
    .linear_workspace_bytes = kern_ref_linear_workspace_bytes,
    .linear = kern_ref_linear,
    .pack = kern_ref_pack,
    .encode_attention_workspace_bytes = kern_ref_encode_attention_workspace_bytes,
    .encode_attention = kern_ref_encode_attention,
    .layernorm = kern_ref_layernorm,
    .embed = kern_ref_embed,
    .pool_mean = kern_ref_pool_mean,
    .normalize = kern_ref_normalize,
    .scan = kern_ref_scan,
    .from_f32 = kern_ref_from_f32,
    .to_f32 = kern_ref_to_f32,
};
