"""A chat with a real broker and a real worker, over conversations with everything ended in between.

If this failed, what somebody told a model would not be there the next day; or it would be there
although he has forgotten or corrected it. The model is that of test_generate.py: it says the
alphabet, so that what it says is known, and what it remembers is seen in its receipts.
"""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from test_generate import CONTEXT, MEMOSCTL, SLOWER, write_model

OK, FORGOTTEN, CANCELLED, UNAVAILABLE = 0, 7, 12, 18
SAID = "opqrstuvwxyz"


class ChatTest(unittest.TestCase):
    made: tempfile.TemporaryDirectory[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.made = tempfile.TemporaryDirectory(prefix="memos-host-")
        cls.addClassCleanup(cls.made.cleanup)
        cls.model = write_model(Path(cls.made.name) / "alphabet")
        # it never ends by itself
        cls.endless = write_model(Path(cls.made.name) / "endless", eos_token_id=None,
                                  max_position_embeddings=1 << 16)
        settings = cls.endless / "tokenizer_config.json"
        settings.write_text(json.dumps({"chat_template": json.loads(settings.read_text())
                                        ["chat_template"]}))

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="memos-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.environment = {
            **os.environ, "XDG_RUNTIME_DIR": str(self.folder), "COLUMNS": "200",
            **{f"XDG_{name}_HOME": str(self.folder / name.lower())
               for name in ("STATE", "DATA", "CONFIG")}}
        for name in ("MEMOS_ADDRESS", "MEMOS_SPACE"):
            self.environment.pop(name, None)
        self.addCleanup(self.down)
        self.up()

    def ctl(self, *arguments: str, code: int | None = OK, given: str = ""
            ) -> subprocess.CompletedProcess[str]:
        run = subprocess.run([MEMOSCTL, *arguments], capture_output=True, text=True, check=False,
                             input=given, env=self.environment, timeout=60 * SLOWER)
        if code is not None:
            self.assertEqual(run.returncode, code,
                             f"{arguments}\n{run.stdout}{run.stderr}{self.logs()}")
        return run

    def logs(self) -> str:
        return "".join(f"\n== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
                       for path in (self.folder / "state").rglob("*.log"))

    def up(self, model: Path | None = None) -> None:
        self.ctl("up")
        self.worker(model or self.model)

    def worker(self, model: Path, *options: str) -> int:
        """Starts one; returns its process."""
        started = self.ctl("worker", "start", "--model", str(model), "--threads", "2",
                           "--backend", "cpu", "--json", *options)
        return json.loads(started.stdout)["pid"]

    def down(self) -> None:
        self.ctl("down", "--timeout", "30s", code=None)

    def chat(self, *lines: str, code: int = OK, options=()) -> list[dict]:
        """A conversation, as its events."""
        shown = self.ctl("chat", "me", "--json", *options, code=code,
                         given="".join(line + "\n" for line in lines))
        return [json.loads(line) for line in shown.stdout.splitlines()]

    def of(self, events: list[dict], kind: str) -> list[dict]:
        return [event for event in events if event["event"] == kind]

    def verify(self, answer: dict, code: int = OK) -> None:
        """Its receipt holds, or does not any more."""
        path = self.folder / "receipt.json"
        path.write_text(json.dumps(answer))
        self.ctl("receipt", "verify", str(path), code=code)


class Conversations(ChatTest):
    def test_it_remembers_corrects_and_forgets(self) -> None:
        # the first conversation
        events = self.chat("My sister Lea is getting married in Porto.", "I have no dress yet.",
                           "/memory")
        [lea, dress] = [event["id"] for event in self.of(events, "user")]
        answers = self.of(events, "answer")
        self.assertEqual([answer["text"] for answer in answers], [SAID, SAID])
        self.assertEqual([answer["finish"] for answer in answers], ["stop", "stop"])
        # what the prompt has, memory does not bring
        self.assertEqual([answer["receipt"]["items"] for answer in answers], [[], []])
        self.assertEqual(self.of(events, "memory")[0]["items"], [])

        self.down()
        self.up()

        # the second one knows of the first
        events = self.chat("Where is Lea getting married?", "/memory")
        [answer] = self.of(events, "answer")
        [items] = [event["items"] for event in self.of(events, "memory")]
        self.assertIn((lea, "My sister Lea is getting married in Porto.", "user"),
                      [(item["id"], item["text"], item["speaker"]) for item in items])
        self.assertNotIn(self.of(events, "user")[0]["id"], [item["id"] for item in items])
        self.assertEqual({item["used_as"] for item in items}, {"text"})
        self.assertLessEqual(sum(item["tokens"] for item in items), CONTEXT // 4)
        self.verify(answer)
        first = answer

        # corrected: it says what is right, and the answer to the old one is not used any more
        events = self.chat("Where does Lea marry?", f"/correct {lea} Lea is getting married in "
                           "Lisbon.", "/new", "Where is Lea getting married?", "/memory")
        self.assertEqual(self.of(events, "corrected")[0]["version"], 2)
        [items] = [event["items"] for event in self.of(events, "memory")]
        self.assertIn((lea, 2, "Lea is getting married in Lisbon."),
                      [(item["id"], item["version"], item["text"]) for item in items])
        self.assertNotIn("Porto", json.dumps(items))
        stale = {answer["id"] for answer in [*answers[:1], first]}
        self.assertFalse(stale & {item["id"] for item in items})
        self.verify(first)  # as of then it was so
        second = self.of(events, "answer")[-1]
        self.verify(second)

        # forgotten: by its number, with the answers that came of it
        number = next(item["number"] for item in items if item["id"] == lea)
        events = self.chat("Where is Lea getting married?", "/memory")
        [items] = [event["items"] for event in self.of(events, "memory")]
        number = next(item["number"] for item in items if item["id"] == lea)
        events = self.chat("Where is Lea getting married?", f"/forget {number}", "/memory",
                           "/new", "Where is Lea getting married?", "/memory")
        [gone] = self.of(events, "forgotten")
        self.assertEqual(gone["ids"][0], lea)
        self.assertTrue({answers[0]["id"], first["id"]} <= set(gone["ids"]))
        self.assertTrue(gone["gone"])
        before, after = [event["items"] for event in self.of(events, "memory")]
        self.assertEqual([item["text"] for item in before if item["id"] == lea], [None])
        self.assertNotIn(lea, [item["id"] for item in after])
        self.assertNotIn("Lisbon", json.dumps(after))
        for version in ("1", "2"):
            got = self.ctl("get", "me", lea, "--version", version, code=None)
            self.assertNotIn("Lea", got.stdout)
        self.ctl("get", "me", lea, code=FORGOTTEN)
        found = json.loads(self.ctl("search", "me", "Porto Lisbon", "--json").stdout)
        self.assertNotIn(lea, [hit["id"] for hit in found["hits"]])
        self.verify(first, code=FORGOTTEN)
        self.verify(second, code=FORGOTTEN)
        self.verify(self.of(events, "answer")[-1])
        self.ctl("verify", "me")

    def test_a_long_conversation_runs_on(self) -> None:
        """Past the context: the front is left to memory, which brings it back."""
        words = " ".join(f"word{n}" for n in range(40))
        lines = ["The password of the cellar is xylophone."]
        lines += [f"{n}: {words}" for n in range(16)]
        events = self.chat(*lines, "What is the password of the cellar?", "/memory",
                           options=["--max-tokens", "20"])
        self.assertEqual(self.of(events, "error"), [])
        answers = self.of(events, "answer")
        self.assertEqual(len(answers), 18)
        for answer in answers:
            self.assertLess(answer["prompt_tokens"], CONTEXT)
        [items] = [event["items"] for event in self.of(events, "memory")]
        self.assertIn("The password of the cellar is xylophone.",
                      [item["text"] for item in items])

    def test_a_receipt_is_kept(self) -> None:
        self.chat("/remember Lea lives in Porto.", "Where does Lea live?",
                  options=["--keep-receipt"])
        listed = json.loads(self.ctl("list", "me", "--subtype", "receipt", "--kind", "activation",
                                     "--json").stdout)["cubes"]
        self.assertEqual(len(listed), 1, self.logs())
        self.ctl("receipt", "verify", "me", listed[0]["id"])
        # receipts are no memory
        events = self.chat("Where does Lea live?", "/memory")
        self.assertNotIn("payload_hash", json.dumps(self.of(events, "memory")))


class Generate(ChatTest):
    def test_the_same_flags_mean_the_same(self) -> None:
        for options in (["hello"], ["--raw", "a"], ["--raw", "a", "--max-tokens", "3"],
                        ["hi", "--system", "abc"], ["--raw", "a", "--stop", "hi"]):
            with self.subTest(options=options):
                here = json.loads(self.ctl("generate", "--model", str(self.model), "--json",
                                           *options).stdout)
                there = json.loads(self.ctl("generate", "--worker", "--json", *options).stdout)
                for key in ("text", "finish", "stop", "prompt_tokens", "answer_tokens",
                            "fingerprint"):
                    self.assertEqual(here[key], there[key], key)
        hot = ("--raw", "a", "--temperature", "50", "--max-tokens", "20", "--seed", "7")
        self.assertEqual(self.ctl("generate", "--model", str(self.model), *hot).stdout,
                         self.ctl("generate", "--worker", *hot).stdout)

    def test_named_cubes_are_placed_and_captured(self) -> None:
        put = json.loads(self.ctl("put", "me", "Lea lives in Porto. " * 8, "--json").stdout)
        cube = put["cubes"][0]["id"]
        ask = ("generate", "--space", "me", "--no-search", "--cube", cube, "Where?", "--json")
        plain = json.loads(self.ctl(*ask, "--captures", "never").stdout)
        self.assertEqual([item["id"] for item in plain["receipt"]["items"]], [cube])
        made = json.loads(self.ctl("capture", "me", cube, "--json").stdout)["captures"]
        self.assertEqual([one["existed"] for one in made], [False])
        again = json.loads(self.ctl("capture", "me", cube, "--json").stdout)["captures"]
        self.assertEqual([one["existed"] for one in again], [True])
        self.down()
        self.up()
        loaded = json.loads(self.ctl(*ask, "--captures", "always").stdout)
        self.assertEqual(loaded["text"], plain["text"])
        self.assertIn("kv", {item["used_as"] for item in loaded["receipt"]["items"]},
                      loaded["receipt"])
        self.assertGreater(loaded["cached_tokens"], 0)
        self.verify(loaded)
        # a source that is updated makes it stale at once
        self.ctl("update", "me", cube, "Lea lives in Lisbon. " * 8)
        after = json.loads(self.ctl(*ask, "--captures", "always").stdout)
        self.assertNotIn("kv", {item["used_as"] for item in after["receipt"]["items"]})
        self.verify(after)
        self.verify(loaded)

    def test_score(self) -> None:
        text = self.folder / "text"
        text.write_text("abcdefghijklmnop")
        here = json.loads(self.ctl("score", "--model", str(self.model), str(text), "--json").stdout)
        there = json.loads(self.ctl("score", "--worker", str(text), "--json").stdout)
        for key in ("scored", "tokens", "bytes", "context"):
            self.assertEqual(here[key], there[key], key)
        self.assertAlmostEqual(here["logprob"], there["logprob"], places=3)
        put = json.loads(self.ctl("put", "me", "Lea lives in Porto.", "--json").stdout)
        scored = json.loads(self.ctl("score", "--space", "me", "--no-search", "--cube",
                                     put["cubes"][0]["id"], str(text), "--json").stdout)
        self.assertEqual([item["id"] for item in scored["receipt"]["items"]],
                         [put["cubes"][0]["id"]])

    def test_workers_are_listed_drained_and_stopped(self) -> None:
        [worker] = json.loads(self.ctl("worker", "list", "--json").stdout)["workers"]
        self.assertEqual((worker["name"], worker["models"][0]["context"],
                          worker["models"][0]["chat_template"]), ("alphabet", CONTEXT, "chatml"))
        self.worker(self.endless)
        self.assertIn("workers have 2 models",
                      self.ctl("generate", "--worker", "hi", code=2).stderr)
        self.ctl("worker", "drain", "endless")
        deadline = time.monotonic() + 30 * SLOWER
        while len(json.loads(self.ctl("worker", "list", "--json").stdout)["workers"]) > 1:
            self.assertLess(time.monotonic(), deadline, self.logs())
        self.assertEqual(self.ctl("generate", "--worker", "hi").stdout, SAID + "\n")
        self.assertEqual(self.ctl("worker", "stop").stdout, "stopped alphabet\n")
        self.assertIn("memosctl worker start",
                      self.ctl("generate", "--worker", "hi", code=UNAVAILABLE).stderr)


class Faults(ChatTest):
    def up(self, model: Path | None = None) -> None:
        self.ctl("up")
        self.pid = self.worker(self.endless)

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """An answer that has begun and does not end."""
        process = subprocess.Popen(
            [MEMOSCTL, "generate", "--worker", "--raw", "a", "--max-tokens", "60000", *arguments],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said = b""
        while len(self.said) < 3:
            piece = os.read(process.stdout.fileno(), 4096)
            self.assertTrue(piece, self.logs())
            self.said += piece
        return process

    def end(self, process: subprocess.Popen[bytes], code: int) -> str:
        began = time.monotonic()
        said, errors = process.communicate(timeout=60 * SLOWER)
        self.assertEqual(process.returncode, code, errors)
        self.assertLess(time.monotonic() - began, 12 * SLOWER)
        self.assertTrue((self.said + said).startswith(b"bcd"))
        self.assertTrue(said.endswith(b"\n"))
        return errors.decode()

    def test_the_worker_is_killed(self) -> None:
        process = self.begin()
        os.kill(self.pid, signal.SIGKILL)
        errors = self.end(process, UNAVAILABLE)
        self.assertIn("hint: ", errors)
        self.assertIn("endless", errors)
        self.worker(self.endless)
        self.end(self.begin_and_stop(), CANCELLED)

    def begin_and_stop(self) -> subprocess.Popen[bytes]:
        process = self.begin()
        process.send_signal(signal.SIGINT)
        return process

    def test_ctrl_c_ends_it_at_the_worker_too(self) -> None:
        errors = self.end(self.begin_and_stop(), CANCELLED)
        self.assertIn("stopped after", errors)
        deadline = time.monotonic() + 20 * SLOWER
        while json.loads(self.ctl("worker", "list", "--json").stdout)["workers"][0]["jobs_running"]:
            self.assertLess(time.monotonic(), deadline)

    def test_the_broker_is_killed(self) -> None:
        broker = json.loads(self.ctl("up", "--json").stdout)["pid"]
        process = self.begin() # last: nobody reads what it says, and a full pipe ends the answer
        os.kill(broker, signal.SIGKILL)
        self.assertIn("connection to the broker was lost", self.end(process, UNAVAILABLE))
        self.ctl("up")
        deadline = time.monotonic() + 30 * SLOWER
        while not json.loads(self.ctl("worker", "list", "--json").stdout)["workers"]:
            self.assertLess(time.monotonic(), deadline, self.logs())
        self.end(self.begin_and_stop(), CANCELLED)


if __name__ == "__main__":
    unittest.main()
