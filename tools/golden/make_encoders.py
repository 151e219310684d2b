#!/usr/bin/env python3
"""Make two tiny encoders and the vectors of them and of all-MiniLM-L6-v2.

Usage: tools/golden/make_encoders.py MODEL DATA OUT

MODEL is the folder of all-MiniLM-L6-v2, DATA the evaluation data (of which only books in the
public domain are used), OUT tests/paramem/golden. Writes tiny_mean/, tiny_cls/ and minilm.bin;
OUT's README.md says what is in them. Made with sentence-transformers 6.2.0, transformers 5.24.0,
tokenizers 0.23.3 and torch 2.15.0, all in float32.
"""
from __future__ import annotations

import argparse
import json
import shutil
import struct
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import BertConfig, BertForMaskedLM, BertModel

HARD = ["", "a", "The quick brown fox jumps over the lazy dog.", "[CLS] inside [MASK] text [SEP]",
        "Na\u00efve caf\u00e9, \u0130stanbul and Stra\u00dfe",
        "\u6f22\u5b57 \U0001f44d \u05e9\u05dc\u05d5\u05dd",
        "word " * 400, "unaffable " * 90]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": 64, "type_vocab_size": 2}
PROMPTS = {"query": "query: ", "passage": "passage: "}
MODULES = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]


def small_vocab(model: Path) -> list[str]:
    """Special tokens, everything of one character in ASCII, and frequent words and pieces."""
    tokens = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    kept = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    kept += [t for t in tokens if t.isascii() and len(t.removeprefix("##")) == 1]
    kept += [t for t in tokens[1996:2400] if t.isascii() and len(t) > 1]
    kept += [t for t in tokens if t.startswith("##") and t.isascii() and 3 < len(t) < 5][:60]
    return list(dict.fromkeys(kept))


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def modules(out: Path, count: int, pooling: dict[str, object]) -> None:
    write_json(out / "modules.json", [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(MODULES[:count])])
    write_json(out / "1_Pooling/config.json", pooling)
    if count == 3:
        (out / "2_Normalize").mkdir(exist_ok=True)


def randomize(model: torch.nn.Module) -> None:
    """Larger than usual, so that no part of the network can be left out unnoticed."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in model.named_parameters():
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            value.copy_(centre + 0.3 * torch.randn(value.shape, generator=generator))


def tiny_mean(model: Path, out: Path) -> None:
    """float32, one file, tokenizer.json, mean and normalised, old names."""
    vocab = small_vocab(model)
    network = BertModel(BertConfig(vocab_size=len(vocab), hidden_act="gelu", **SHAPE))
    randomize(network)
    network.save_pretrained(out)
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] = {token: i for i, token in enumerate(vocab)}
    for token in tokenizer["added_tokens"]:
        token["id"] = vocab.index(token["content"])
    for token in tokenizer["post_processor"]["special_tokens"].values():
        token["ids"] = [vocab.index(token["id"])]
    tokenizer["truncation"] = tokenizer["padding"] = None
    (out / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    shutil.copyfile(model / "tokenizer_config.json", out / "tokenizer_config.json")
    modules(out, 3, {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True,
                     "pooling_mode_cls_token": False, "pooling_mode_max_tokens": False})
    write_json(out / "sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": False})


def tiny_cls(model: Path, out: Path) -> None:
    """float16, two files and an index, a head, vocab.txt, CLS, not normalised, prompts."""
    vocab = small_vocab(model)
    network = BertForMaskedLM(BertConfig(vocab_size=len(vocab), hidden_act="gelu_new",
                                         layer_norm_eps=1e-6, **SHAPE))
    randomize(network)
    network.half().save_pretrained(out, max_shard_size="60KB")
    (out / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": None,
        "tokenize_chinese_chars": True, "model_max_length": 10**30})
    modules(out, 2, {"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True})
    write_json(out / "config_sentence_transformers.json",
               {"prompts": PROMPTS, "default_prompt_name": None})


def golden(folder: Path, texts: list[str], out: Path) -> None:
    model = SentenceTransformer(str(folder), device="cpu",
                                model_kwargs={"dtype": torch.float32})
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_seq_length)
    jobs = [(text, 0) for text in texts]
    if any(model.prompts.values()):
        jobs += [(text, 1) for text in texts]
    dims = model.encode(["a"]).shape[1]
    data = struct.pack("<II", len(jobs), dims)
    for text, query in jobs:
        # encode_document would take the empty prompt "document" that the library adds itself
        vector = model.encode(text, prompt=model.prompts.get("query" if query else "passage", ""))
        ids = tokenizer.encode(text).ids
        encoded = text.encode()
        data += struct.pack("<II", query, len(encoded)) + encoded
        data += struct.pack(f"<{len(ids) + 1}I", len(ids), *ids) + vector.astype("<f4").tobytes()
    out.write_bytes(data)


def book_texts(data: Path, count: int) -> list[str]:
    """Paragraphs out of books, of all lengths, two that are longer than the model reads."""
    texts: list[str] = []
    for name in ("dracula", "katrine", "devils_dictionary"):
        book = (data / f"books/{name}.txt").read_text(encoding="utf-8")
        paragraphs = [" ".join(p.split()) for p in book.split("\n\n")]
        paragraphs = [p for p in paragraphs if 10 < len(p) < 300]
        texts += paragraphs[60:60 + count // 3]
        texts.append(" ".join(paragraphs[20:32]))
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "data", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, make in (("tiny_mean", tiny_mean), ("tiny_cls", tiny_cls)):
        folder = options.out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(options.model, folder)
        golden(folder, HARD + book_texts(options.data, 30), folder / "golden.bin")
    golden(options.model, HARD + book_texts(options.data, 174), options.out / "minilm.bin")


if __name__ == "__main__":
    main()
