"""Host models with random weights, as Hugging Face folders: in a real one's shape, or tiny.

A model of these has learned nothing and says nothing, but it reads every token of its prompt with
every layer: what it answers changes when anything of that changes.
"""
from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "tests/paramem/golden/bpe/smollm.json"  # small, byte-level, with ChatML's marks
END = "<|im_end|>"
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
          "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
BLOCK_NUMBERS = 4 << 20
ONE = b"\x80\x3f"  # bfloat16


class Shape(NamedTuple):
    """What config.json says. sharp: weights are 4^sharp times as large as those that training
    begins with; a tiny model needs it for its attention to look anywhere."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    sharp: int = 0


SHAPES = {
    "llama1b": Shape(2048, 8192, 16, 32, 8, 64, 128256, 8192),  # Llama-3.2-1B's
    "qwen06b": Shape(1024, 3072, 28, 16, 8, 128, 151936, 8192),  # as Llama computes
    "small": Shape(512, 1536, 8, 8, 2, 64, 1280, 8192, 1),
    "tiny": Shape(64, 128, 2, 4, 2, 16, 1280, 4096, 2),
}


def block_of(numbers: int, seed: int, sharp: int) -> bytes:
    """Random bfloat16 of either sign between 2^-7 and 2^-5, times 4^sharp."""
    draw = random.Random(seed)
    low = draw.randbytes(numbers)
    # the upper byte: sign and most of the exponent; the exponent's last bit is in the lower one
    exponent = 0x3c + sharp
    high = draw.randbytes(numbers).translate(
        bytes(exponent if byte < 128 else exponent | 0x80 for byte in range(256)))
    block = bytearray(2 * numbers)
    block[0::2] = low
    block[1::2] = high
    return bytes(block)


def tensors_of(shape: Shape) -> Iterator[Tuple[str, Sequence[int]]]:
    """Names and shapes, in the file's order."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocab, shape.hidden)
    for number in range(shape.layers):
        layer = f"model.layers.{number}."
        yield layer + "input_layernorm.weight", (shape.hidden,)
        yield layer + "self_attn.q_proj.weight", (wide, shape.hidden)
        yield layer + "self_attn.k_proj.weight", (narrow, shape.hidden)
        yield layer + "self_attn.v_proj.weight", (narrow, shape.hidden)
        yield layer + "self_attn.o_proj.weight", (shape.hidden, wide)
        yield layer + "post_attention_layernorm.weight", (shape.hidden,)
        yield layer + "mlp.gate_proj.weight", (shape.inner, shape.hidden)
        yield layer + "mlp.up_proj.weight", (shape.inner, shape.hidden)
        yield layer + "mlp.down_proj.weight", (shape.hidden, shape.inner)
    yield "model.norm.weight", (shape.hidden,)


def count_of(sizes: Sequence[int]) -> int:
    """Numbers of a tensor."""
    return sizes[0] * (sizes[1] if len(sizes) > 1 else 1)


def write_weights(path: Path, shape: Shape, seed: int) -> None:
    """Every matrix is cut from one block of random numbers, at a place of its own."""
    header: Dict[str, Any] = {}
    at = 0
    for name, sizes in tensors_of(shape):
        size = 2 * count_of(sizes)
        header[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = random.Random(seed + 1)
    block = block_of(min(BLOCK_NUMBERS, max(1 << 16, at // 4)), seed, shape.sharp)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, sizes in tensors_of(shape):
            left = 2 * count_of(sizes)
            if len(sizes) == 1:
                file.write(ONE * sizes[0])
                continue
            start = 2 * draw.randrange(len(block) // 2)
            while left > 0:
                part = block[start:start + left]
                file.write(part)
                left -= len(part)
                start = 0


def write_tokenizer(folder: Path, vocab: int) -> None:
    """The small tokenizer, with words that no text is cut into up to the model's vocabulary."""
    tokenizer = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    taken = set(words.values()) | {added["id"] for added in tokenizer["added_tokens"]}
    for token in range(vocab):
        if token not in taken:
            words[f"\u0120w{token}"] = token
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": END, "chat_template": CHATML}), encoding="utf-8")


def write_model(folder: Path, shape: Shape, seed: int = 1) -> Path:
    """Make the folder of a model that never ends its answer by itself."""
    folder.mkdir(parents=True)
    write_weights(folder / "model.safetensors", shape, seed)
    write_tokenizer(folder, shape.vocab)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": shape.hidden, "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "vocab_size": shape.vocab, "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16"}), encoding="utf-8")
    return folder
