#!/usr/bin/env python3
"""What torch and transformers compute where kernels/decoder.h defines something.

usage: make_decoder.py FILE

FILE becomes float32, little-endian, one array after the other, as
tests/kernels/test_decoder_golden.c reads them."""
import sys

import torch
from transformers import LlamaConfig
from transformers.generation import logits_process
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 16
LENGTH, ROWS = 300, 7
WIDTH, POSITIONS, VOCAB = 40, 64, 50
WINDOWS = [0, 20]
# temperature, top_k, top_p, min_p, repetition penalty
SAMPLINGS = [
    (1.0, 0, 1.0, 0.0, 1.0),
    (0.7, 5, 1.0, 0.0, 1.0),
    (1.3, 0, 0.8, 0.0, 1.0),
    (1.0, 12, 0.6, 0.0, 1.3),
    (1.5, 0, 1.0, 0.1, 1.0),
    (0.9, 20, 0.9, 0.05, 1.2),
]
SEEN = [3, 7, 11, 30]


def attention():
    q = torch.randn(ROWS, HEADS, HEAD_DIM)
    k, v = torch.randn(2, LENGTH, KV_HEADS, HEAD_DIM)
    yield from (q, k, v)
    row = torch.arange(LENGTH - ROWS, LENGTH)[:, None]
    token = torch.arange(LENGTH)[None, :]
    for window in WINDOWS:
        seen = token <= row
        if window:
            seen &= token > row - window
        out = torch.nn.functional.scaled_dot_product_attention(
            q.double().transpose(0, 1),
            k.double().transpose(0, 1).repeat_interleave(HEADS // KV_HEADS, 0),
            v.double().transpose(0, 1).repeat_interleave(HEADS // KV_HEADS, 0),
            attn_mask=seen)
        yield out.transpose(0, 1)


def rows():
    x, gamma = torch.randn(ROWS, WIDTH), torch.randn(WIDTH)
    yield from (x, gamma)
    yield torch.nn.functional.rms_norm(x.double(), (WIDTH,), gamma.double(), eps=1e-5)
    gate_up = torch.randn(ROWS, 2 * WIDTH)
    yield gate_up
    yield torch.nn.functional.silu(gate_up[:, :WIDTH].double()) * gate_up[:, WIDTH:].double()


def rotary():
    config = LlamaConfig(hidden_size=HEADS * HEAD_DIM, num_attention_heads=HEADS)
    rope = LlamaRotaryEmbedding(config)
    x = torch.randn(ROWS, HEADS, HEAD_DIM)
    cos, sin = rope(x, torch.arange(POSITIONS)[None])
    yield cos[0, :, :HEAD_DIM // 2]
    yield sin[0, :, :HEAD_DIM // 2]
    positions = torch.randint(0, POSITIONS, (1, ROWS))
    yield positions
    yield x
    cos, sin = rope(x, positions)
    rotated, _ = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cos, sin)
    yield rotated[0].transpose(0, 1)


def sampling():
    logits = 2 * torch.randn(1, VOCAB)
    yield logits
    for temperature, top_k, top_p, min_p, repetition in SAMPLINGS:
        yield torch.tensor([temperature, top_k, top_p, min_p, repetition])
        scores = logits.double()
        ids = torch.tensor([SEEN])
        if repetition != 1:
            scores = logits_process.RepetitionPenaltyLogitsProcessor(repetition)(ids, scores)
        steps = [logits_process.TemperatureLogitsWarper(temperature)] if temperature != 1 else []
        steps += [logits_process.TopKLogitsWarper(top_k)] if top_k else []
        steps += [logits_process.TopPLogitsWarper(top_p)] if top_p < 1 else []
        steps += [logits_process.MinPLogitsWarper(min_p)] if min_p else []
        for step in steps:
            scores = step(ids, scores)
        yield scores.softmax(-1)


torch.manual_seed(20261127)
with open(sys.argv[1], 'wb') as file:
    for part in (attention, rows, rotary, sampling):
        for array in part():
            file.write(array.detach().numpy().astype('<f4').tobytes())
