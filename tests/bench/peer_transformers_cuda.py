#!/usr/bin/env python3
"""Time transformers on a GPU, in the shape of a real Llama with random weights made there.

    peer_transformers_cuda.py [llama8b|llama1b] [--batches 1,16,64] [--no-compile] > peers

Prints lines for bench_inference --peers: bf16, a static cache, the decoding step compiled with
torch.compile (CUDA graphs), greedy. Prompts are of 512 tokens; reading is timed at 512 and 4,096.
Made for transformers 5.24.

Takes about three minutes for all of it, most of them torch.compile's: once --seconds have passed,
the batches that are left run as they are, and their lines say so.
"""
from __future__ import annotations

import argparse
import json
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

SHAPES = {  # layers, hidden, inner, heads, heads of keys, head_dim, vocabulary, tied
    "llama1b": (16, 2048, 8192, 32, 8, 64, 128256, True),
    "llama8b": (32, 4096, 14336, 32, 8, 128, 128256, False),
}
PROMPT, STEPS, WARM_STEPS = 512, 64, 8


def say(text: str) -> None:
    print(f"[{time.perf_counter():.0f} s] {text}", file=sys.stderr, flush=True)


def make_model(shape: str) -> LlamaForCausalLM:
    layers, hidden, inner, heads, kv_heads, head_dim, vocab, tied = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim,
        vocab_size=vocab, tie_word_embeddings=tied, max_position_embeddings=8192,
        attn_implementation="sdpa")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        return LlamaForCausalLM(config).eval()


def timed(work) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def ids(vocab: int, batch: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, vocab, (batch, tokens), device="cuda")


def time_prefill(model: LlamaForCausalLM, tokens: int) -> float:
    """Tokens a second of reading one prompt; nothing compiled, as is usual for it."""
    vocab = model.config.vocab_size

    def read() -> None:
        model(ids(vocab, 1, tokens), use_cache=True, logits_to_keep=1)

    read()
    return tokens / min(timed(read) for _ in range(3))


def time_decode(model: LlamaForCausalLM, step, batch: int) -> float:
    """Tokens a second of `batch` sequences after their prompts."""
    cache = StaticCache(config=model.config, max_cache_len=PROMPT + STEPS + 2 * WARM_STEPS)
    vocab = model.config.vocab_size
    for _ in range(4):  # in pieces, so that scores stay small
        model(ids(vocab, batch, PROMPT // 4), cache=cache, use_cache=True, logits_to_keep=1)
    last, at = ids(vocab, batch, 1), torch.full((batch, 1), PROMPT, device="cuda")

    def run(count: int) -> None:
        nonlocal last, at
        for _ in range(count):
            logits = step(last, cache=cache, use_cache=True, position_ids=at).logits
            last = logits[:, -1].argmax(-1, keepdim=True).clone()
            at = at + 1

    run(WARM_STEPS)
    return batch * STEPS / timed(lambda: run(STEPS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", nargs="?", default="llama8b", choices=SHAPES)
    parser.add_argument("--batches", default="1,16,64")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--seconds", type=float, default=150)
    options = parser.parse_args()
    begin = time.perf_counter()
    line = {"peer": "transformers", "shape": options.shape, "weights": "bf16",
            "device": torch.cuda.get_device_name()}
    with torch.inference_mode():
        model = make_model(options.shape)
        say(f"{options.shape} made")
        for tokens in (512, 4096):
            rate = time_prefill(model, tokens)
            print(json.dumps({**line, "prefill_tokens": tokens,
                              "prefill_tokens_per_s": round(rate, 1)}), flush=True)
        say("prompts read")
        torch._dynamo.config.automatic_dynamic_shapes = False  # each batch has a graph of its own
        fast = torch.compile(model.forward, mode="reduce-overhead")
        for batch in map(int, options.batches.split(",")):
            compiled = not options.no_compile and time.perf_counter() - begin < options.seconds
            try:
                rate = time_decode(model, fast if compiled else model.forward, batch)
            except Exception as error:  # pylint: disable=broad-except
                # a compiler that fails must not cost what was measured before
                say(f"batch {batch}, compiled: {type(error).__name__}: {str(error)[:200]}")
                compiled = False
                rate = time_decode(model, model.forward, batch)
            print(json.dumps({**line, "batch": batch, "compiled": compiled,
                              "decode_tokens_per_s": round(rate, 2)}), flush=True)
            say(f"batch {batch}")


if __name__ == "__main__":
    main()
