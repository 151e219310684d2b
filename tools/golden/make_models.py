#!/usr/bin/env python3
"""Make tiny host models of every family, with the logits that transformers computes for them.

Usage: tools/golden/make_models.py OUT

OUT is tests/paramem/golden/models; the README.md beside it says what is in it. Made with the
versions that are printed, all in float32. Weights are random, with few bits, so that they are the
same numbers in float32, bfloat16 and float16.
"""
from __future__ import annotations

import argparse
import copy
import json
import shutil
import struct
from pathlib import Path

import gguf
import numpy
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB, PROMPT, GREEDY = 160, 40, 64
GAP = 2e-3  # of the logits' spread: the least lead of a greedy token over the next
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "vocab_size": VOCAB, "max_position_embeddings": 256,
         "head_dim": 8, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}

# name: (model_type, what differs from SMALL, dtype of the file, largest shard or None)
MODELS = {
    "llama2": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-6}, "float32", "50KB"),
    "llama3": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True,
                         "rope_theta": 100.0, "rope_scaling": LLAMA3}, "bfloat16", None),
    "mistral": ("mistral", {"num_key_value_heads": 2, "sliding_window": 16}, "bfloat16", None),
    "qwen2": ("qwen2", {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 24,
                        "max_window_layers": 1, "rope_theta": 1000000.0}, "bfloat16", None),
    "qwen2_yarn": ("qwen2", {"num_key_value_heads": 2, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
        "bfloat16", None),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True,
                        "rope_theta": 1000000.0}, "float16", None),
    "smollm": ("llama", {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1,
                         "intermediate_size": 40, "tie_word_embeddings": True, "bos_token_id": 0,
                         "eos_token_id": 0}, "bfloat16", None),
    "biased": ("llama", {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True,
                         "num_hidden_layers": 1}, "bfloat16", None),
}
# Over the weights of llama3: only the configuration differs.
ROPES = {
    "default": {},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 8.0},
                "max_position_embeddings": 24},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0,
                              "original_max_position_embeddings": 16}},
    "yarn_mscale": {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "mscale": 1.0,
                                     "mscale_all_dim": 0.5, "truncate": False,
                                     "original_max_position_embeddings": 16}, "rope_theta": 20.0},
}
PARTS = [("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"),
         ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"),
         ("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"),
         ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"),
         ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")]


def config_make(kind: str, differs: dict):
    values = SMALL | {"model_type": kind} | differs
    return AutoConfig.for_model(values.pop("model_type"), **values)


def few_bits(values: torch.Tensor) -> torch.Tensor:
    """The same number in bfloat16 and in float16."""
    rounded = values.to(torch.bfloat16).to(torch.float32)
    return torch.where(rounded.abs() < 2.0 ** -12, torch.zeros_like(rounded), rounded)


def weights_draw(model, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                drawn = 1.0 + 0.2 * drawn
            elif name.endswith("bias"):
                drawn = 0.3 * drawn
            elif "embed_tokens" in name or "lm_head" in name:
                drawn = drawn * 0.5
            else:
                drawn = drawn * 1.3 / parameter.shape[1] ** 0.5
            parameter.copy_(few_bits(drawn))


def fresh(model):
    """The same weights in a new module: dynamic RoPE remembers what it has seen."""
    other = AutoModelForCausalLM.from_config(
        copy.deepcopy(model.config), dtype=torch.float32, attn_implementation="eager")
    other.load_state_dict(model.state_dict())
    return other.eval()


def answer(model, prompt: list[int]):
    """Logits after each token of the prompt, and greedy tokens; their least lead."""
    stepwise = model.config.rope_parameters["rope_type"] == "dynamic"
    model, cache, logits, ids, lead = fresh(model), None, [], list(prompt), float("inf")
    with torch.no_grad():
        steps = [[i] for i in prompt] if stepwise else [prompt]
        for step in steps:
            out = model(torch.tensor([step]), cache=cache, use_cache=True)
            cache = out.cache
            logits.append(out.logits[0])
        logits = torch.cat(logits)
        last = logits[-1]
        for _ in range(GREEDY):
            top = last.topk(2)
            lead = min(lead, float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
            out = model(torch.tensor([ids[-1:]]), cache=cache, use_cache=True)
            cache, last = out.cache, out.logits[0, -1]
    return logits, ids[len(prompt):], lead / float(logits.std())


def golden_write(path: Path, model, prompt: list[int]) -> float:
    logits, greedy, lead = answer(model, prompt)
    head = struct.pack("<4I", 0x4C4F4731, len(prompt), len(greedy), logits.shape[1])
    ids = struct.pack(f"<{len(prompt) + len(greedy)}I", *prompt, *greedy)
    path.write_bytes(head + ids + logits.numpy().astype("<f4").tobytes())
    print(f"{path.name}: lead {lead:.4f}, {len(set(greedy))} different greedy tokens")
    return lead


def prompt_of(seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randint(3, VOCAB, (PROMPT,), generator=generator).tolist()


def model_make(config, wanted: list) -> tuple:
    """Weights whose greedy tokens lead clearly under every configuration that shares them."""
    for seed in range(1, 400):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        weights_draw(model, seed)
        leads = []
        for other in [config, *wanted]:
            twin = AutoModelForCausalLM.from_config(other, attn_implementation="eager")
            twin.load_state_dict(model.state_dict())
            leads.append(answer(twin, prompt_of(seed))[2])
            if leads[-1] < GAP:
                break
        if min(leads) >= GAP:
            return model.eval(), seed
    raise RuntimeError("no seed leads clearly")


def folder_write(folder: Path, model, dtype: str, shard: str | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    saved = fresh(model).to(getattr(torch, dtype))
    saved.save_pretrained(folder, max_shard_size=shard or "1GB")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


# ---- GGUF --------------------------------------------------------------------------------------


def turned(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of query and key as llama.cpp's converter orders them for the architecture "llama"."""
    shape = weight.shape
    return (weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
            .swapaxes(1, 2).reshape(shape))


def metadata_write(writer: gguf.GGUFWriter, config) -> None:
    rope = config.rope_parameters
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def llama3_divisors(config) -> numpy.ndarray:
    """What llama.cpp's converter writes as rope_freqs for RoPE of kind llama3."""
    rope, dim = config.rope_parameters, config.head_dim
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    out = []
    for freq in 1.0 / rope["rope_theta"] ** (numpy.arange(0, dim, 2) / dim):
        wave = 2 * numpy.pi / freq
        if wave < high:
            out.append(1.0)
        elif wave > low:
            out.append(rope["factor"])
        else:
            smooth = ((rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"])
                      / (rope["high_freq_factor"] - rope["low_freq_factor"]))
            out.append(1.0 / ((1.0 - smooth) / rope["factor"] + smooth))
    return numpy.array(out, dtype=numpy.float32)


def blocks_draw(shape: tuple, kind: Type, scale: float, random) -> numpy.ndarray:
    """Blocks of a kind that the package cannot make: random codes and scales."""
    count = shape[0] * shape[1] // 256
    if kind == Type.Q4_K:
        d = (scale / 180 * random.uniform(0.8, 1.2, (count, 1))).astype("<f2")
        low = (scale / 24 * random.uniform(0.8, 1.2, (count, 1))).astype("<f2")
        rest = random.integers(0, 256, (count, 140), dtype=numpy.uint8)
        rest[:, 4:8] = rest[:, 4:8] & 0xDF | 0x10  # minima near the middle of the codes
        blocks = numpy.concatenate([d.view("u1"), low.view("u1"), rest], axis=1)
    else:
        rest = random.integers(0, 256, (count, 208), dtype=numpy.uint8)
        d = (scale / 1000 * random.uniform(0.8, 1.2, (count, 1))).astype("<f2")
        blocks = numpy.concatenate([rest, d.view("u1")], axis=1)
    return blocks.reshape(shape[0], -1)


def gguf_write(path: Path, arch: str, model, kinds, seed: int = 0):
    """The model as a GGUF file, kinds(name) the type of each matrix; the numbers that it holds, as
    a model of transformers."""
    config, state = model.config, {k: v.clone() for k, v in model.state_dict().items()}
    writer, random = gguf.GGUFWriter(path, arch), numpy.random.default_rng(seed)
    metadata_write(writer, config)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight":
             "output_norm.weight", "lm_head.weight": "output.weight"}
    for i in range(config.num_hidden_layers):
        for ours, theirs in PARTS:
            for end in ("weight", "bias"):
                names[f"model.layers.{i}.{ours}.{end}"] = f"blk.{i}.{theirs}.{end}"
    for name, tensor in state.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        out, values = names[name], tensor.numpy().astype(numpy.float32)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        heads = heads.get(out.split(".")[-2]) if arch == "llama" else None
        values = turned(values, heads) if heads else values
        kind = kinds(out) if values.ndim == 2 else Type.F32
        if kind in (Type.Q4_K, Type.Q6_K):
            data = blocks_draw(values.shape, kind, 1.3 * float(values.std()), random)
        else:
            data = gguf.quants.quantize(values, kind)
        writer.add_tensor(out, data, raw_dtype=kind)
        back = gguf.quants.dequantize(data, kind).reshape(values.shape)
        if heads:
            shape = back.shape
            back = (back.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
                    .swapaxes(1, 2).reshape(shape))
        state[name] = torch.from_numpy(numpy.ascontiguousarray(back))
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    twin = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    twin.load_state_dict(state)
    return twin.eval()


def mixed(name: str) -> Type:
    """As Q4_K_M mixes them."""
    six = ("blk.0.attn_v", "blk.0.ffn_down", "token_embd")
    return Type.Q6_K if name.startswith(six) else Type.Q4_K


def ggufs_make(out: Path, models: dict) -> None:
    for name, kind in [("f32", Type.F32), ("f16", Type.F16), ("bf16", Type.BF16),
                       ("q8_0", Type.Q8_0), ("q4_0", Type.Q4_0)]:
        model, seed = models["llama3"]
        twin = gguf_write(out / f"llama3_{name}.gguf", "llama", model, lambda _, k=kind: k)
        if kind in (Type.Q8_0, Type.Q4_0):
            golden_write(out / f"llama3_{name}.golden", twin, prompt_of(seed))
    for name, arch, kind in [("qwen2_yarn", "qwen2", Type.F16), ("qwen3", "qwen3", Type.BF16),
                             ("biased", "llama", Type.BF16)]:
        model, seed = models[name]
        gguf_write(out / f"{name}.gguf", arch, model, lambda _, k=kind: k)
    config = config_make("qwen2", {"hidden_size": 256, "num_attention_heads": 4, "head_dim": 64,
                                   "num_key_value_heads": 1, "intermediate_size": 256,
                                   "tie_word_embeddings": True})
    for seed in range(1, 100):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        weights_draw(model, seed)
        twin = gguf_write(out / "kquants.gguf", "qwen2", model, mixed, seed)
        if answer(twin, prompt_of(seed))[2] >= GAP:
            golden_write(out / "kquants.golden", twin, prompt_of(seed))
            return
    raise RuntimeError("no seed leads clearly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    models = {}
    for name, (kind, differs, dtype, shard) in MODELS.items():
        ropes = {}
        if name == "llama3":
            ropes = {r: config_make(kind, {k: v for k, v in differs.items() if k != "rope_scaling"}
                                    | change) for r, change in ROPES.items()}
        models[name] = model_make(config_make(kind, differs), list(ropes.values()))
        model, seed = models[name]
        folder_write(out / name, model, dtype, shard)
        golden_write(out / f"{name}.golden", model, prompt_of(seed))
        for rope, config in ropes.items():
            twin = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
            twin.load_state_dict(model.state_dict())
            text = json.dumps(json.loads(config.to_json_string()) | {"architectures":
                              ["LlamaForCausalLM"]}, indent=1, sort_keys=True)
            (out / f"rope_{rope}.json").write_text(text + "\n")
            golden_write(out / f"rope_{rope}.golden", twin, prompt_of(seed))
    ggufs_make(out, models)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, "
          f"gguf {__import__('importlib.metadata').metadata.version('gguf')}")


if __name__ == "__main__":
    main()
