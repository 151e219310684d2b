#!/usr/bin/env python3
"""Make the goldens of quantized blocks with the gguf package's numpy code.

Usage: tools/golden/make_blocks.py OUT

OUT is tests/kernels/golden; writes blocks.bin, whose README.md says what is in it.
Made with gguf 0.19.0, numpy 2.4.6.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from gguf.constants import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

NUMBERS = 1024
BLOCKS = {Type.Q8_0: (32, 34), Type.Q4_0: (32, 18), Type.Q4_K: (256, 144), Type.Q6_K: (256, 210)}


def numbers(rng: np.random.Generator) -> np.ndarray:
    """Like weights; then blocks that are hard."""
    x = rng.normal(size=(NUMBERS // 32, 32)).astype(np.float32)
    x *= np.float32(10.0) ** rng.integers(-3, 3, size=(NUMBERS // 32, 1)).astype(np.float32)
    x[0] = 0
    x[1, 3:] = 0
    x[2] = np.where(np.arange(32) % 2, 1.5, -1.5)  # the largest magnitude twice
    x[3] = np.where(np.arange(32) % 2, -1.5, 1.5)
    x[4] = np.arange(32) * 0.5 - 8  # halves between codes
    x[5] = (np.arange(32) - 127.0) / 2
    x[5, 0] = 127
    x[6] = 1e30
    x[7] *= np.float32(1e-9)  # the scale is nothing in f16
    return x.astype(np.float32)


def blocks(rng: np.random.Generator, kind: Type) -> np.ndarray:
    """Any codes, with scales that are finite."""
    count, size = NUMBERS // BLOCKS[kind][0], BLOCKS[kind][1]
    out = rng.integers(0, 256, size=(count, size), dtype=np.uint8)
    scales = [208] if kind == Type.Q6_K else [0, 2]
    for at in scales:
        d = rng.normal(size=count).astype(np.float16)
        out[:, at:at + 2] = d.view(np.uint8).reshape(count, 2)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    rng = np.random.default_rng(1)
    data = b""
    for kind in BLOCKS:
        if kind in (Type.Q8_0, Type.Q4_0):
            x = numbers(rng)
            data += x.tobytes()
            coded = quantize(x, kind)
        else:
            coded = blocks(rng, kind)
        data += coded.tobytes()
        data += dequantize(coded, kind).astype("<f4").tobytes()
    (out / "blocks.bin").write_bytes(data)


if __name__ == "__main__":
    main()
