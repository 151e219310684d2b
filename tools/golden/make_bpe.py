#!/usr/bin/env python3
"""Make the goldens of host models' tokenizers with the tokenizers library.

Usage: tools/golden/make_bpe.py DATA OUT [NAME=FOLDER ...]

DATA is the evaluation data, OUT tests/paramem/golden/bpe. For each family a small tokenizer is
trained on DATA with the family's exact pipeline: NAME.json is its tokenizer.json, NAME.hard its ids
of the hard strings in texts.bin, NAME.u32 hashes of its ids over lines of DATA and random strings.
A FOLDER with a real tokenizer.json gets golden.hard and golden.u32 (not committed; the test takes
them when $MEMOS_TOKENIZERS names the folder of folders).
Made with tokenizers 0.23.3.
"""
from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any, Iterator

from make_tokens import FILES, HARD, fnv, grouped, random_texts, write
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

VOCAB, LINES_A_HASH, FIRST_IDS = 1000, 32, 24

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES = dict(GPT2, use_regex=False)
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA4 = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
          r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
            "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")
MARK = "\u2581"
PIECES = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "},
          {"type": "ByteFallback"}, {"type": "Fuse"}]


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def sequence(kind: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", kind: list(parts)}


def begins_with(token: str, id_: int) -> dict[str, Any]:
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": token, "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [id_], "tokens": [token]}}}


def token(content: str, special: bool = True, **flags: bool) -> dict[str, Any]:
    return dict({"content": content, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": not special, "special": special}, **flags)


def family(**parts: Any) -> dict[str, Any]:
    return dict({"normalizer": None, "post_processor": None, "decoder": GPT2, "model": {},
                 "first": [], "added": [], "bos": None}, **parts)


CHAT = [token("<|im_start|>"), token("<|im_end|>")]
FAMILIES = {
    "gpt2": family(pre_tokenizer=GPT2, first=[token("<|endoftext|>")], post_processor=GPT2),
    "smollm": family(
        pre_tokenizer=sequence("pretokenizers", {"type": "Digits", "individual_digits": True},
                               GPT2),
        first=[token("<|endoftext|>"), *CHAT]),
    "llama3": family(
        pre_tokenizer=sequence("pretokenizers", split(LLAMA3), BYTES),
        model={"ignore_merges": True},
        added=[token("<|begin_of_text|>"), token("<|eot_id|>"), token("<|start_header_id|>")],
        bos="<|begin_of_text|>"),
    "llama4": family(
        pre_tokenizer=sequence("pretokenizers", split(LLAMA4), BYTES),
        model={"ignore_merges": True},
        added=[token("<|begin_of_text|>"), token("<|eot|>")], bos="<|begin_of_text|>"),
    "qwen2": family(
        normalizer={"type": "NFC"},
        pre_tokenizer=sequence("pretokenizers", split(QWEN2), BYTES),
        added=[token("<|endoftext|>"), *CHAT, token("<tool_call>", False, normalized=False),
               token("<think>", False, normalized=False)]),
    "deepseek": family(
        normalizer=sequence("normalizers"),
        pre_tokenizer=sequence("pretokenizers", split(r"\p{N}{1,3}"),
                               split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                               split(DEEPSEEK), BYTES),
        first=[token("<\uff5cbegin\u2581of\u2581sentence\uff5c>")],
        added=[token("<\uff5cUser\uff5c>", False, normalized=False)],
        bos="<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
    "tekken": family(
        pre_tokenizer=sequence("pretokenizers", split(TEKKEN), BYTES),
        model={"ignore_merges": True},
        first=[token("<unk>"), token("<s>"), token("</s>"), token("[INST]"), token("[/INST]")],
        bos="<s>"),
    "llama2": family(
        normalizer=sequence("normalizers", {"type": "Prepend", "prepend": MARK},
                            {"type": "Replace", "pattern": {"String": " "}, "content": MARK}),
        pre_tokenizer=None, decoder=sequence("decoders", *PIECES, {"type": "Strip", "content": " ",
                                                                   "start": 1, "stop": 0}),
        model={"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"},
        first=[token("<unk>"), token("<s>"), token("</s>")], bos="<s>"),
    "mistral": family(
        pre_tokenizer={"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first",
                       "split": False},
        decoder=sequence("decoders", *PIECES,
                         {"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        model={"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"},
        first=[token("<unk>"), token("<s>"), token("</s>"), token("[INST]"), token("[/INST]")],
        bos="<s>"),
    # No model has these together; each is a part that some have.
    "parts": family(
        normalizer=sequence(
            "normalizers", {"type": "Strip", "strip_left": True, "strip_right": False},
            {"type": "NFKC"}, {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"Regex": r"(?:q|Q)+\d"}, "content": "zz"}),
        pre_tokenizer=sequence(
            "pretokenizers", split(r"\s+", "Removed"), split(r"[,;]", "MergedWithPrevious"),
            split(r"[(\[]", "MergedWithNext"), split(r"\p{L}+|\p{N}+", "Removed", True),
            split("x+", "Contiguous"), {"type": "Digits", "individual_digits": False},
            dict(GPT2, add_prefix_space=True)),
        first=[token("<unk>")], model={"unk_token": "<unk>"},
        added=[token("<l>", lstrip=True), token("<r>", rstrip=True), token("word", False,
               single_word=True), token("Caf\u00c9", False), token(" mid ", False, lstrip=True)]),
    "metaspace": family(
        pre_tokenizer={"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always",
                       "split": True},
        decoder={"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always",
                 "split": True},
        first=[token("<unk>")], model={"unk_token": "<unk>", "fuse_unk": False},
        added=[token("</s>")]),
    "unknown": family(
        pre_tokenizer=split(r"\s", "MergedWithNext"), decoder=None,
        first=[token("<unk>")], model={"unk_token": "<unk>", "fuse_unk": True}),
}

TEXTS = HARD + [
    "a\r\nb\r\n\r\nc\r", "\n\n\n", "   lead and trail   ", "tab\tand  two", "x   \n   y", " \n ",
    "1234567890", "12 345 6789 \u0661\u0662\u0663 \u00bd\u00b2 \u2167\u4e00", "3.14159e-10",
    "I'M you'LL he'S it\u2019s we'\u017f", "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "<|begin_of_text|><|eot_id|>x<|start_header_id|>", "<s>[INST] Hi [/INST] ok</s>",
    "<s> a </s>  b<s>", "<tool_call>{\"a\":1}</tool_call><think>", "<unk>x", "  <l>  <r>  x <l>",
    "word sword word's a word", "caf\u00e9 CAFE\u0301 Caf\u00c9", "x mid y  mid  z", "qQ1 qqq22",
    "\u2581\u2581a \u2581b", "a\u2581b", " \u2581",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01 \u3053\u3093\u306b\u3061\u306f \uc548\ub155",
    "def f(x):\n    return x**2  # \u2192 ok\n\tpass\n", "[a,(b;c],d)", "xxaxx;y,, z",
    "\u01c5 \u02b0 \u0300a A\u0300", "Z\u0351\u036b\u0343a\u0348lg\u0322o",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e007f \U0001f1e9\U0001f1ea",
    "\ufb03 \u2460 \ufdfa \u32ff \u33ff", "a" * 5000, "\u4e00" * 400, " " * 700, "\n" * 300,
    "ab" * 600 + " " * 40 + "!" * 300, "\u2028\u2029\u0085\u180e\u200b\u00a0 x\u180e y",
    "\u0130\u0131 \u1e9e \u212a'\u017f", "\uac00\u11a8 \u1100\u1161\u11a8 \u0958 \u0344",
]


def lines(data: Path) -> Iterator[str]:
    for name in FILES:
        yield from (data / name).read_bytes().decode().split("\n")
    for count, text in enumerate(random_texts()):
        if count < 4096:
            yield text


def trained(spec: dict[str, Any], data: Path) -> dict[str, Any]:
    """Train on the splits of the pipeline, then put the family's parts around the tokens."""
    pieces = "ByteLevel" not in json.dumps(spec["pre_tokenizer"])
    first = [added["content"] for added in spec["first"]]
    if spec["model"].get("byte_fallback"):
        first += [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE())
    if pieces:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        parts = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
        if spec is FAMILIES["llama3"] or spec is FAMILIES["qwen2"]:
            parts = [pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    alphabet = [] if pieces or spec is FAMILIES["parts"] else pre_tokenizers.ByteLevel.alphabet()
    more = ("\u4f60\u597d \u4e16\u754c \u3053\u3093\u306b\u3061\u306f 100 200 123 "
            "\n\n    ")
    texts = [line for line in lines(data)][:30000:5] + [more] * 20
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB + 256, special_tokens=first, initial_alphabet=alphabet, limit_alphabet=300,
        show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    model.update(spec["model"])
    ids, added = dict(model["vocab"]), []
    for entry in spec["first"] + spec["added"]:
        id_ = ids.setdefault(entry["content"], len(ids))
        added.append(dict({"id": id_}, **entry))
    post = spec["post_processor"]
    if spec["bos"]:
        post = begins_with(spec["bos"], ids[spec["bos"]])
        if not pieces:
            post = sequence("processors", GPT2, post)
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": spec["normalizer"], "pre_tokenizer": spec["pre_tokenizer"],
            "post_processor": post, "decoder": spec["decoder"], "model": model}


def goldens(tokenizer: Tokenizer, data: Path, out: Path, name: str) -> None:
    """Of each text, under each switch: how many ids, their hash, the hash of what they decode to,
    and the first ids themselves."""
    hard = b""
    for text in TEXTS:
        for special in (0, 1, 2):
            tokenizer.encode_special_tokens = special == 2
            ids = tokenizer.encode(text, add_special_tokens=special == 1).ids
            back = tokenizer.decode(ids, skip_special_tokens=special == 1).encode()
            packed = struct.pack(f"<{len(ids)}I", *ids)
            hard += struct.pack("<3I", len(ids), fnv(packed), fnv(back)) + packed[:4 * FIRST_IDS]
    tokenizer.encode_special_tokens = False
    (out / f"{name}.hard").write_bytes(hard)
    ids = (tokenizer.encode(line, add_special_tokens=False).ids for line in lines(data))
    write(out / f"{name}.u32", grouped((struct.pack(f"<{len(i)}I", *i) for i in ids), LINES_A_HASH))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("real", nargs="*", help="NAME=FOLDER")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    if not options.real:
        raw = (text.encode() for text in TEXTS)
        (options.out / "texts.bin").write_bytes(
            b"".join(struct.pack("<I", len(text)) + text for text in raw))
    for real in options.real:
        name, folder = real.split("=", 1)
        tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
        goldens(tokenizer, options.data, Path(folder), "golden")
    for name, spec in FAMILIES.items() if not options.real else []:
        text = json.dumps(trained(spec, options.data), ensure_ascii=False, separators=(",", ":"))
        (options.out / f"{name}.json").write_text(text)
        goldens(Tokenizer.from_str(text), options.data, options.out, name)


if __name__ == "__main__":
    main()
