#!/usr/bin/env python3
"""Make the tokenizer's goldens with the tokenizers library.

Usage: tools/golden/make_tokens.py MODEL DATA OUT

MODEL is the folder of all-MiniLM-L6-v2, DATA the evaluation data, OUT tests/paramem/golden.
Writes vocab.txt, hard.bin, lines.u32, random.u32, chars.u32; OUT's README.md says what is in them.
Made with tokenizers 0.23.3.
"""
from __future__ import annotations

import argparse
import shutil
import struct
from pathlib import Path
from typing import Iterable, Iterator

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

FILES = ["banking77/train.tsv", "clinc150/train.tsv", "locomo/turns.jsonl", "stsb/train.tsv",
         "scifact/claims.jsonl", "books/pride_and_prejudice.txt", "memorybank/users.jsonl"]
LINES_A_HASH = 4
RANDOM_COUNT, RANDOM_A_HASH = 20480, 16
RANGES = [(0x00, 0x7F), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x1100, 0x11FF),
          (0xAC00, 0xAD00), (0x1E00, 0x1EFF), (0x302A, 0x302F), (0x1D165, 0x1D172),
          (0x4E00, 0x4E40), (0xF900, 0xFA20), (0x200B, 0x200F), (0x1F600, 0x1F64F),
          (0x391, 0x3C9), (0x00, 0x10FFFF)]
SWITCHES = ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"]
CASES = [(True, True, True, True), (True, True, False, False), (False, False, False, True),
         (False, True, True, False)]

HARD = [
    "", " ", " \t\r\n ", "\0", "a\0b", "hello world", "Hello, World!", "don't can't o'clock",
    "a" * 99, "a" * 100, "a" * 101, "\u00e9" * 100, "e\u0301" * 100, "e\u0301" * 101,
    "na\u00efve caf\u00e9 r\u00e9sum\u00e9", "\u0130stanbul ISTANBUL \u0131stanbul",
    "Stra\u00dfe STRASSE \u1e9e", "\u03a3\u0391\u03a3 \u03c3\u03b1\u03c2",
    "\ufb01ne o\ufb03ce \u0132",
    "\ud55c\uad6d\uc5b4 \uac01\uac00", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "\u6f22\u5b57 and "
    "\u304b\u306a \u30ab\u30bf\u30ab\u30ca\uff76\uff85", "\u8c48\u66f4\u8eca \uf900\uf901",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "\u2764\ufe0f \U0001f44d\U0001f3fd",
    "a\u0301\u0323 b\u0323\u0301", "\u0301 alone", "x\u302e\u302f\u0301\u302ay",
    "\U0001d165\U0001d16d\U0001d166",
    "\ufeffBOM", "\ufffd x\ufffdy", "\ue000 private \U000f0000",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0650\u0633\u0652\u0645",
    "\u202eoverride\u202c \u200bzero\u200c",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "Ti\u1ebfng Vi\u1ec7t",
    "[CLS] inside [MASK] x[SEP]y [mask] [UNK]", "[MASK", "[[MASK]]", "[PAD][PAD]", "[SEP]ing",
    "\u0301[MASK]\u0301", "##ing # ## #hash", "\u201cquotes\u201d \u2014 dash\u2026",
    "$5.00 50% a+b=c ^_^ `x` ~",
    "\uff46\uff55\uff4c\uff4c \uff11\uff12\uff13\u3002", "\u00bd \u00b2 \u2167 \u20ac \u2122",
    "\x85next\x0bline\x0cfeed\x7f\x01", "\u00a0\u2003\u3000wide", "\u180emongolian\u2028line\u2029",
    "https://example.org/a_b?c=d#e", "user@example.org", "C:\\path\\file.txt", "1,234,567.89",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "e" + "\u0301" * 300,
    "\u1c89 \ua7cb \ua7dc \U00010d50", "\U00011938 \u1715\u0898", "\U0010ffff\ufdd0\uffff",
    "THE THE the",
    "word " * 300,
]


def fnv(data: bytes, state: int = 0x811C9DC5) -> int:
    for byte in data:
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return state


def split_mix(state: int) -> Iterator[int]:
    mask = (1 << 64) - 1
    while True:
        state = state + 0x9E3779B97F4A7C15 & mask
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        yield z ^ z >> 31


def random_texts() -> Iterator[str]:
    numbers = split_mix(1)
    for _ in range(RANDOM_COUNT):
        text = ""
        for _ in range(1 + next(numbers) % 24):
            first, last = RANGES[next(numbers) % len(RANGES)]
            code = first + next(numbers) % (last - first + 1)
            text += chr(0xFFFD if 0xD800 <= code < 0xE000 else code)
        yield text


def words(text: str, normalizer: BertNormalizer, split: BertPreTokenizer) -> bytes:
    pieces = split.pre_tokenize_str(normalizer.normalize_str(text))
    return "".join(piece + "\n" for piece, _ in pieces).encode()


def write(path: Path, hashes: Iterable[int]) -> None:
    values = list(hashes)
    path.write_bytes(struct.pack(f"<{len(values)}I", *values))


def grouped(parts: Iterable[bytes], size: int) -> Iterator[int]:
    """One hash for every `size` parts, the last for what is left."""
    state, count = fnv(b""), 0
    for part in parts:
        state, count = fnv(part, state), count + 1
        if count % size == 0:
            yield state
            state = fnv(b"")
    if count % size:
        yield state


def line_ids(tokenizer: Tokenizer, data: Path) -> Iterator[bytes]:
    for name in FILES:
        for line in (data / name).read_bytes().decode().split("\n"):
            ids = tokenizer.encode(line).ids
            yield struct.pack(f"<{len(ids)}I", *ids)


def char_words() -> Iterator[int]:
    split = BertPreTokenizer()
    for case in CASES:
        normalizer = BertNormalizer(**dict(zip(SWITCHES, case)))
        for block in range(0, 0x110000, 256):
            state = fnv(b"")
            for code in range(block, block + 256):
                if not 0xD800 <= code < 0xE000:
                    state = fnv(words(f"a{chr(code)}b", normalizer, split), state)
            yield state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "data", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    shutil.copyfile(options.model / "vocab.txt", options.out / "vocab.txt")
    hard = b""
    for text in HARD:
        ids = tokenizer.encode(text).ids
        hard += struct.pack("<I", len(text.encode())) + text.encode()
        hard += struct.pack(f"<{len(ids) + 1}I", len(ids), *ids)
    (options.out / "hard.bin").write_bytes(hard)
    write(options.out / "lines.u32", grouped(line_ids(tokenizer, options.data), LINES_A_HASH))
    normalizer, split = BertNormalizer(), BertPreTokenizer()
    write(options.out / "random.u32", grouped(
        (words(text, normalizer, split) for text in random_texts()), RANDOM_A_HASH))
    write(options.out / "chars.u32", char_words())


if __name__ == "__main__":
    main()
