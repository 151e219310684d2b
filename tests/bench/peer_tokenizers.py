#!/usr/bin/env python3
"""Time Hugging Face's tokenizers: peer_tokenizers.py TOKENIZER.json TURNS.jsonl; a JSON line.

Only for --peers of bench_encoder and bench_inference; nothing else needs it or the library.
"""
from __future__ import annotations

import json
import sys
import time

from tokenizers import Tokenizer


def main() -> None:
    tokenizer = Tokenizer.from_file(sys.argv[1])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    with open(sys.argv[2], encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    size = sum(len(text.encode()) for text in texts)
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        tokenizer.encode_batch_fast(texts)
        times.append(time.perf_counter() - begin)
    print(json.dumps({"peer": "tokenizers", "mb_per_s": round(size / sorted(times)[4] / 1e6, 3)}))


if __name__ == "__main__":
    main()
