"""Host models with memosctl: named, shown, asked, scored, taken away; without a broker.

The model of these tests is made here and knows the alphabet: its layers add nothing, and its head
says after each letter the next one, after z the end of a turn. So what it says, and how likely a
text is to it, is known.

If this failed, somebody would ask a model and get an answer that is not its own, or none.
"""
from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

MEMOSCTL = os.environ["MEMOSCTL"]
SLOWER = 10 if os.environ.get("MEMOS_SANITIZED") == "1" else 1
INVALID, NOT_FOUND, EXISTS, TOO_LARGE, CANCELLED, CORRUPT, UNSUPPORTED = 2, 3, 4, 9, 12, 16, 17

SPECIAL = ["<|im_start|>", "<|im_end|>"]
START, END = 256, 257
VOCAB, HIDDEN, INNER, HEADS, HEAD_DIM, CONTEXT = 258, 288, 32, 2, 16, 4096
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
          "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def byte_names() -> list[str]:
    """How GPT-2 writes each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, free = [], 256
    for byte in range(256):
        names.append(chr(byte if byte in shown else free))
        free += byte not in shown
    return names


def follows(token: int) -> int:
    """What the model says next."""
    if token == ord("z"):
        return END
    if ord("a") <= token < ord("z"):
        return token + 1
    return ord("o")


def bf16(number: float) -> bytes:
    return struct.pack("<f", number)[2:]


def one_hot(rows: list[int]) -> bytes:
    """A matrix with a 1 in each row."""
    zero, one = bf16(0.0), bf16(1.0)
    return b"".join(zero * column + one + zero * (HIDDEN - column - 1) for column in rows)


def make_tensors() -> dict[str, tuple[list[int], bytes]]:
    """By their names in a Hugging Face file: shape, and values in bfloat16."""
    draw = random.Random(5)
    # the head's row of a token has a 1 for each that it follows
    head = [bytearray(HIDDEN * 2) for _ in range(VOCAB)]
    for token in range(VOCAB):
        head[follows(token)][2 * token:2 * token + 2] = bf16(1.0)

    def noise(rows: int) -> bytes:
        return b"".join(bf16(draw.uniform(-0.1, 0.1)) for _ in range(rows * HIDDEN))

    ones = bf16(1.0) * HIDDEN
    layer = "model.layers.0."
    return {
        "model.embed_tokens.weight": ([VOCAB, HIDDEN], one_hot(list(range(VOCAB)))),
        "lm_head.weight": ([VOCAB, HIDDEN], b"".join(head)),
        "model.norm.weight": ([HIDDEN], ones),
        layer + "input_layernorm.weight": ([HIDDEN], ones),
        layer + "post_attention_layernorm.weight": ([HIDDEN], ones),
        layer + "self_attn.q_proj.weight": ([HEADS * HEAD_DIM, HIDDEN], noise(HEADS * HEAD_DIM)),
        layer + "self_attn.k_proj.weight": ([HEAD_DIM, HIDDEN], noise(HEAD_DIM)),
        layer + "self_attn.v_proj.weight": ([HEAD_DIM, HIDDEN], noise(HEAD_DIM)),
        layer + "self_attn.o_proj.weight": ([HIDDEN, HEADS * HEAD_DIM],
                                            bf16(0.0) * (HIDDEN * HEADS * HEAD_DIM)),
        layer + "mlp.gate_proj.weight": ([INNER, HIDDEN], noise(INNER)),
        layer + "mlp.up_proj.weight": ([INNER, HIDDEN], noise(INNER)),
        layer + "mlp.down_proj.weight": ([HIDDEN, INNER], bf16(0.0) * (HIDDEN * INNER)),
    }


def write_weights(path: Path) -> None:
    header, data = {}, b""
    for name, (shape, values) in make_tensors().items():
        header[name] = {"dtype": "BF16", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_tokenizer(folder: Path) -> None:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}
    vocab = {name: byte for byte, name in enumerate(byte_names())}
    added = [{"id": START + i, "content": text, "special": True, "single_word": False,
              "lstrip": False, "rstrip": False, "normalized": False}
             for i, text in enumerate(SPECIAL)]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "vocab": vocab, "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"eos_token": SPECIAL[1], "chat_template": CHATML}))


def write_model(folder: Path, **changes) -> Path:
    """The alphabet's model as a Hugging Face folder; changes: of its configuration."""
    folder.mkdir(parents=True)
    write_weights(folder / "model.safetensors")
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 1,
        "num_attention_heads": HEADS, "num_key_value_heads": 1, "head_dim": HEAD_DIM,
        "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "eos_token_id": END, **changes}))
    return folder


GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
    "input_layernorm": "blk.0.attn_norm", "post_attention_layernorm": "blk.0.ffn_norm",
    "self_attn.q_proj": "blk.0.attn_q", "self_attn.k_proj": "blk.0.attn_k",
    "self_attn.v_proj": "blk.0.attn_v", "self_attn.o_proj": "blk.0.attn_output",
    "mlp.gate_proj": "blk.0.ffn_gate", "mlp.up_proj": "blk.0.ffn_up",
    "mlp.down_proj": "blk.0.ffn_down",
}


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value) -> bytes:
    """Its type and itself."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_text(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    items = b"".join(gguf_value(item)[4:] for item in value)
    kind = 8 if not value or isinstance(value[0], str) else 4
    return struct.pack("<IIQ", 9, kind, len(value)) + items


def write_gguf(path: Path) -> Path:
    """The same model as a GGUF file; norms are float32 there."""
    values = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.context_length": CONTEXT,
        "llama.embedding_length": HIDDEN, "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS, "llama.attention.head_count_kv": 1,
        "llama.attention.key_length": HEAD_DIM, "llama.attention.value_length": HEAD_DIM,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": HEAD_DIM, "llama.vocab_size": VOCAB,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": byte_names() + SPECIAL,
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(SPECIAL), "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": END, "tokenizer.chat_template": CHATML,
    }
    infos, data = b"", b""
    tensors = make_tensors()
    for name, (shape, numbers) in tensors.items():
        if len(shape) == 1:
            numbers = b"".join(b"\0\0" + numbers[i:i + 2] for i in range(0, len(numbers), 2))
        known = GGUF_NAMES[name.removesuffix(".weight").removeprefix("model.layers.0.")]
        infos += gguf_text(known + ".weight") + struct.pack("<I", len(shape))
        infos += b"".join(struct.pack("<Q", size) for size in reversed(shape))
        infos += struct.pack("<IQ", 30 if len(shape) == 2 else 0, len(data))
        data += numbers + b"\0" * (-len(numbers) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(gguf_text(key) + gguf_value(value) for key, value in values.items()) + infos
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return path


class HostTest(unittest.TestCase):
    made: tempfile.TemporaryDirectory[str]
    model: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.made = tempfile.TemporaryDirectory(prefix="memos-host-")
        cls.addClassCleanup(cls.made.cleanup)
        cls.model = write_model(Path(cls.made.name) / "alphabet")

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="memos-host-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.registry = self.folder / "memos/models"
        self.environment = {**os.environ, "XDG_DATA_HOME": str(self.folder)}

    def ctl(self, *arguments: str, code: int = 0,
            given: str | bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run memosctl, which must end with this status."""
        given = given.encode() if isinstance(given, str) else given
        run = subprocess.run([MEMOSCTL, *arguments], capture_output=True, check=False, input=given,
                             env=self.environment, timeout=60 * SLOWER)
        shown = subprocess.CompletedProcess(run.args, run.returncode, run.stdout.decode(),
                                            run.stderr.decode())
        self.assertEqual(run.returncode, code, f"{arguments}\n{shown.stdout}{shown.stderr}")
        return shown

    def json(self, *arguments: str, given: str | None = None):
        return json.loads(self.ctl(*arguments, "--json", given=given).stdout)

    def say(self, *arguments: str, **more) -> str:
        """What the model says after a text as it is."""
        return self.ctl("generate", "--model", str(self.model), "--raw", *arguments, **more).stdout


class Registry(HostTest):
    def names(self) -> list[str]:
        return [model["name"] for model in self.json("model", "list")["models"]]

    def test_a_name_is_a_link(self) -> None:
        self.assertEqual(self.names(), [])
        added = self.json("model", "add", str(self.model))
        self.assertEqual((added["name"], added["copy"], added["architecture"]),
                         ("alphabet", False, "LlamaForCausalLM"))
        self.assertTrue((self.registry / "alphabet").is_symlink())
        self.assertEqual(self.ctl("generate", "--raw", "--model", "alphabet", "x").stdout, "yz\n")
        self.ctl("model", "add", str(self.model), code=EXISTS)
        self.ctl("model", "remove", "alphabet")
        self.assertTrue((self.model / "config.json").exists())
        self.assertEqual(self.names(), [])

    def test_a_copy_is_whole(self) -> None:
        self.ctl("model", "add", str(self.model), "--name", "mine", "--copy")
        self.assertFalse((self.registry / "mine").is_symlink())
        self.assertEqual(sorted(path.name for path in (self.registry / "mine").iterdir()),
                         sorted(path.name for path in self.model.iterdir()))
        self.assertEqual(self.ctl("generate", "--raw", "--model", "mine", "x").stdout, "yz\n")
        self.ctl("model", "remove", "mine")
        self.assertEqual(list(self.registry.iterdir()), [])

    def test_the_only_one_is_meant(self) -> None:
        self.assertIn("model add", self.ctl("generate", "--raw", "x", code=NOT_FOUND).stderr)
        self.ctl("model", "add", str(self.model))
        self.assertEqual(self.ctl("generate", "--raw", "x").stdout, "yz\n")
        self.ctl("model", "add", str(self.model), "--name", "other")
        self.assertIn("--model", self.ctl("generate", "--raw", "x", code=INVALID).stderr)

    def test_list_says_what_is_missing(self) -> None:
        moved = write_model(self.folder / "there")
        self.ctl("model", "add", str(moved))
        [model] = self.json("model", "list")["models"]
        self.assertEqual((model["error"], model["context"], model["weights"], model["format"]),
                         (None, CONTEXT, "bf16", "safetensors"))
        self.assertIn("LlamaForCausalLM", self.ctl("model", "list").stdout)
        moved.rename(self.folder / "elsewhere")
        self.assertIn("not there", self.json("model", "list")["models"][0]["error"])
        self.assertIn("not there", self.ctl("generate", "--model", "there", "x",
                                            code=NOT_FOUND).stderr)
        self.ctl("model", "remove", "there")
        self.ctl("model", "remove", "there", code=NOT_FOUND)

    def test_show(self) -> None:
        shown = self.json("model", "show", str(self.model))
        self.assertEqual(shown["shape"]["hidden"], HIDDEN)
        self.assertEqual((shown["tokens"], shown["chat_template"]), (VOCAB, "chatml"))
        self.assertEqual(len(shown["fingerprint"]), 64)
        matrices = HIDDEN * (VOCAB + 2 * HEADS * HEAD_DIM + 2 * HEAD_DIM + 3 * INNER)
        self.assertEqual(shown["weight_bytes"]["f32"],
                         4 * matrices + 2 * VOCAB * HIDDEN + 2 * 4 * HIDDEN)
        self.assertEqual(shown["token_bytes"]["bf16"], 2 * 2 * HEAD_DIM)
        self.assertIn("chatml", self.ctl("model", "show", str(self.model)).stdout)
        said = self.json("generate", "--model", str(self.model), "--raw", "x")
        self.assertEqual(said["fingerprint"], shown["fingerprint"])

    def test_what_does_not_work_is_not_added(self) -> None:
        strange = write_model(self.folder / "strange", architectures=["GPT2LMHeadModel"],
                              model_type="gpt2")
        refused = self.ctl("model", "add", str(strange), code=UNSUPPORTED).stderr
        self.assertIn("GPT2LMHeadModel", refused)
        self.assertIn("LlamaForCausalLM", refused)
        self.assertIn("GPT2LMHeadModel", self.ctl("generate", "--model", str(strange), "x",
                                                  code=UNSUPPORTED).stderr)
        self.ctl("model", "add", f"{self.folder}/nothing", code=NOT_FOUND)
        (strange / "config.json").unlink()
        self.ctl("model", "add", str(strange), code=NOT_FOUND)
        self.ctl("model", "add", str(self.model), "--name", "../up", code=INVALID)
        self.assertEqual(self.names(), [])

    def test_a_gguf_file(self) -> None:
        path = write_gguf(self.folder / "small.gguf")
        self.ctl("model", "add", str(path))
        self.ctl("model", "add", str(path), "--copy", "--name", "copied")
        models = {model["name"]: model for model in self.json("model", "list")["models"]}
        self.assertEqual((models["small"]["format"], models["small"]["weights"]), ("gguf", "bf16"))
        self.assertEqual(models["copied"]["path"], str(self.registry / "copied"))
        path.unlink()
        self.assertEqual(self.ctl("generate", "--model", "copied", "--raw", "x").stdout, "yz\n")
        self.assertEqual(self.ctl("generate", "--model", "copied", "hi").stdout, "opqrstuvwxyz\n")
        self.assertEqual(self.json("model", "show", "copied")["chat_template"], "chatml")
        self.assertEqual(self.ctl("tokenize", "--model", "copied", "--ids", "ab").stdout, "97 98\n")
        self.ctl("model", "remove", "copied")
        self.assertEqual([path.name for path in self.registry.iterdir()], ["small"])
        path.write_bytes(b"GGUF" + bytes(20))
        self.ctl("generate", "--model", "small", "x", code=UNSUPPORTED)  # version 0

    def test_broken_files(self) -> None:
        broken = write_model(self.folder / "broken")
        weights = broken / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1000])
        self.ctl("generate", "--model", str(broken), "x", code=CORRUPT)
        weights.unlink()
        self.ctl("generate", "--model", str(broken), "x", code=NOT_FOUND)


class Generate(HostTest):
    def test_it_says_what_comes_next(self) -> None:
        self.assertEqual(self.say("a"), "bcdefghijklmnopqrstuvwxyz\n")
        self.assertEqual(self.say("-", given="uv"), "wxyz\n")
        said = self.ctl("generate", "--model", str(self.model), "--raw", "a", "--max-tokens", "3")
        self.assertEqual(said.stdout, "bcd\n")
        self.assertIn("end: length", said.stderr)
        self.assertEqual(self.ctl("generate", "--model", str(self.model), "--raw", "a", "-q",
                                  "--max-tokens", "3").stderr, "")

    def test_json(self) -> None:
        said = self.json("generate", "--model", str(self.model), "--raw", "v", "--logprobs", "2")
        self.assertEqual((said["text"], said["finish"], said["prompt_tokens"]), ("wxyz", "stop", 1))
        self.assertEqual([token["id"] for token in said["tokens"]], [*b"wxyz", END])
        self.assertEqual([token["top"][0]["piece"] for token in said["tokens"]][:4], [*"wxyz"])
        for token in said["tokens"]:
            self.assertEqual(len(token["top"]), 2)
            self.assertAlmostEqual(token["logprob"], 0.0, places=3)
        lines = self.say("v", "--logprobs", "1").splitlines()
        self.assertEqual(len(lines), 5)
        self.assertIn('"w"', lines[0])

    def test_stops(self) -> None:
        self.assertEqual(self.say("a", "--stop", "hi", "--stop", "xyz"), "bcdefg\n")
        self.assertEqual(self.json("generate", "--model", str(self.model), "--raw", "a", "--stop",
                                   "fg")["stop"], "fg")

    def test_weights_and_backends_agree(self) -> None:
        for weights in ("f32", "bf16", "i8", "q8_0", "q4_0"):
            for backend in ("cpu", "ref"):
                with self.subTest(weights=weights, backend=backend):
                    self.assertEqual(self.say("p", "--weights", weights, "--backend", backend,
                                              "--threads", "2"), "qrstuvwxyz\n")
        for kv in ("f32", "f16", "bf16", "e4m3"):
            self.assertEqual(self.say("p", "--kv", kv), "qrstuvwxyz\n")

    def test_draws(self) -> None:
        hot = ("a", "--temperature", "50", "--max-tokens", "20")
        told = self.json("generate", "--model", str(self.model), "--raw", *hot)
        again = self.json("generate", "--model", str(self.model), "--raw", *hot, "--seed",
                          str(told["seed"]))
        self.assertEqual(told["text"], again["text"])
        others = {self.say(*hot, "--seed", str(seed)) for seed in range(4)}
        self.assertEqual(len(others), 4)
        self.assertEqual(self.say(*hot, "--top-k", "1"), "bcdefghijklmnopqrstu\n")
        self.assertEqual(self.say("a", "--temperature", "1", "--top-p", "0.5", "--max-tokens", "3"),
                         "bcd\n")

    def test_a_conversation(self) -> None:
        # the template ends with a line's end, after which it says o
        chat = ("generate", "--model", str(self.model), "-q")
        self.assertEqual(self.ctl(*chat, "hello").stdout, "opqrstuvwxyz\n")
        said = self.json(*chat, "hi", "--system", "abc")
        self.assertEqual(said["prompt_tokens"],
                         len("system\nabc\nuser\nhi\nassistant\n") + 5)
        self.assertEqual(self.json(*chat, "hi")["prompt_tokens"],
                         len("user\nhi\nassistant\n") + 3)
        # what somebody writes ends no turn
        self.assertEqual(self.json(*chat, "<|im_end|>")["prompt_tokens"],
                         len("user\n<|im_end|>\nassistant\n") + 3)
        self.assertEqual(self.ctl(*chat, "hi", "--template", "chatml").stdout, "opqrstuvwxyz\n")
        self.ctl(*chat, "hi", "--template", "klingon", code=UNSUPPORTED)
        self.ctl(*chat, "hi", "--raw", "--chat", code=INVALID)
        self.ctl(*chat, "-", given=b"\xff", code=INVALID)

    def test_the_context_is_full(self) -> None:
        refused = self.ctl("generate", "--model", str(self.model), "--raw", "a" * 40, "--context",
                           "32", code=TOO_LARGE)
        self.assertIn("--context", refused.stderr)
        self.ctl("generate", "--model", str(self.model), "--raw", "a", "--context", "32",
                 "--max-tokens", "64", code=TOO_LARGE)
        # without --max-tokens it writes what the context holds
        said = self.json("generate", "--model", str(self.model), "--raw", "abc", "--context", "8")
        self.assertEqual((said["text"], said["answer_tokens"]), ("defgh", 5))

    def test_what_makes_no_sense(self) -> None:
        for wrong in (("--weights", "f64"), ("--kv", "int8"), ("--temperature", "-1"),
                      ("--top-p", "2"), ("--max-tokens", "0"), ("--logprobs", "21"),
                      ("--stop", ""), ("--threads", "0")):
            with self.subTest(wrong=wrong):
                self.ctl("generate", "--model", str(self.model), "--raw", "a", *wrong,
                         code=INVALID)
        self.ctl("generate", "--model", str(self.model), "--raw", "", code=INVALID)
        self.ctl("generate", "--model", str(self.model), "--raw", "a", "--backend", "abacus",
                 code=UNSUPPORTED)

    def test_ctrl_c_keeps_what_was_said(self) -> None:
        endless = write_model(self.folder / "endless", eos_token_id=None,
                              max_position_embeddings=1 << 20)
        (endless / "tokenizer_config.json").unlink()
        command = [MEMOSCTL, "generate", "--model", str(endless), "--raw", "a", "--temperature",
                   "50", "--max-tokens", "1000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=self.environment) as run:
            first = run.stdout.read(8)
            run.send_signal(signal.SIGINT)
            rest, told = run.communicate(timeout=60 * SLOWER)
        self.assertEqual(len(first), 8)
        self.assertEqual(run.returncode, CANCELLED, told)
        self.assertTrue(rest.endswith(b"\n"))
        self.assertIn(b"end: cancelled", told)
        self.assertIn(b"stopped after", told)


class Score(HostTest):
    def score(self, text: str, *more: str):
        return self.json("score", "--model", str(self.model), "-", *more, given=text)

    def test_perplexity(self) -> None:
        sure = self.score("abcdefghij")
        self.assertAlmostEqual(sure["perplexity"], 1.0, places=3)
        self.assertEqual((sure["tokens"], sure["scored"], sure["bytes"]), (10, 9, 9))
        # after "a" all but "b" are equally unlikely: e^-17 of what "b" has (RMSNorm of a single 1)
        scale = 1 / math.sqrt(1 / HIDDEN + 1e-5)
        unlikely = -scale - math.log1p((VOCAB - 1) * math.exp(-scale))
        odd = self.score("ad")
        self.assertAlmostEqual(odd["logprob"] / unlikely, 1.0, places=2)
        self.assertAlmostEqual(odd["bits_per_byte"], -odd["logprob"] / math.log(2), places=3)
        self.assertAlmostEqual(odd["perplexity"] / math.exp(-odd["logprob"]), 1.0, places=3)
        self.assertIn("perplexity", self.ctl("score", "--model", str(self.model), "-",
                                             given="abc").stdout)

    def test_longer_than_the_context(self) -> None:
        text = "abcdefghijklmnopqrstuvwxy" * 8
        whole = self.score(text)
        cut = self.score(text, "--context", "64", "--overlap", "16")
        self.assertEqual((cut["scored"], cut["context"]), (whole["scored"], 64))
        self.assertAlmostEqual(cut["logprob"] / whole["logprob"], 1.0, places=3)

    def test_choices(self) -> None:
        lines = [{"id": "one", "prompt": "ab", "choices": ["xy", "cd"], "answer": 1},
                 {"prompt": "q", "choices": ["rst", "a", "r"], "answer": 2}]
        path = self.folder / "choices.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
        run = self.ctl("score", "--model", str(self.model), "--choices", str(path), "--json")
        told = [json.loads(line) for line in run.stdout.splitlines()]
        self.assertEqual([line["best"] for line in told], [1, told[1]["best"]])
        self.assertIn(told[1]["best"], (0, 2))
        self.assertEqual((told[0]["id"], told[0]["answer"], told[0]["line"]), ("one", 1, 1))
        # log P(choice | prompt) is what the choice adds to the score of the prompt
        joined = self.score("abxy")["logprob"] - self.score("ab")["logprob"]
        self.assertAlmostEqual(told[0]["logprobs"][0] / joined, 1.0, places=3)
        self.assertIn("1: 1", self.ctl("score", "--model", str(self.model), "--choices",
                                       str(path)).stdout)

    def test_what_cannot_be_scored(self) -> None:
        self.ctl("score", "--model", str(self.model), "-", given="", code=INVALID)
        self.ctl("score", "--model", str(self.model), "-", given="a", code=INVALID)
        self.ctl("score", "--model", str(self.model), "/nowhere", code=NOT_FOUND)
        for line in ("{", "[]", '{"prompt": "a"}', '{"prompt": "a", "choices": ["b"]}',
                     '{"prompt": "a", "choices": ["b", ""]}',
                     '{"prompt": "a", "choices": ["b", "c"], "answer": 2}'):
            refused = self.ctl("score", "--model", str(self.model), "--choices", "-",
                               given="\n" + line, code=INVALID)
            self.assertIn("line 2", refused.stderr)


class Tokenize(HostTest):
    def tokenize(self, *arguments: str, **more):
        return self.ctl("tokenize", "--model", str(self.model), *arguments, **more)

    def test_there_and_back(self) -> None:
        text = "Grüße, 你好\n<|im_end|>"
        ids = self.tokenize("--ids", text).stdout
        self.assertEqual([int(word) for word in ids.split()],
                         [*text.removesuffix(SPECIAL[1]).encode(), END])
        self.assertEqual(self.tokenize("--decode", ids).stdout, text)
        self.assertEqual(self.tokenize("--decode", "--plain", ids).stdout,
                         text.removesuffix(SPECIAL[1]))
        self.assertEqual(self.tokenize("--decode", "-", given="[97, 98]").stdout, "ab")
        plain = json.loads(self.tokenize("--plain", "--json", SPECIAL[0]).stdout)
        self.assertEqual((plain["count"], plain["bytes"]), (len(SPECIAL[0]), len(SPECIAL[0])))

    def test_pieces_are_seen(self) -> None:
        shown = self.tokenize("a \n\x1b").stdout.splitlines()
        self.assertEqual([line.split(maxsplit=1)[1] for line in shown],
                         ['"a"', '" "', r'"\x0a"', r'"\x1b"'])

    def test_what_is_no_id(self) -> None:
        self.tokenize("--decode", "97 x", code=INVALID)
        self.tokenize("--decode", str(VOCAB), code=INVALID)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
