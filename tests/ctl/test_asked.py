"""generate, score and capture by way of the broker: what is sent, what is shown, and what is said
when it goes wrong.

If this failed, a model would remember something else than it was told to, or somebody would not
learn why there is no answer. The broker and its worker are fakes.
"""
import json
import signal
import subprocess
import time
import unittest
import uuid

from fake_space import (
    CANCELLED, CORRUPT, CUT_SHORT, DEADLINE, INVALID, MEMOSCTL, NOT_FOUND, OK, PRINT, TOO_LARGE,
    UNAVAILABLE, UNSUPPORTED, FakeTest, item_of, pb)

BUSY = 10


class Generate(FakeTest):
    items: list = []

    def answer(self, request):
        return "fine, thanks", self.items

    def say(self, *arguments: str, **more) -> subprocess.CompletedProcess:
        return self.ctl("generate", *arguments, **more)

    def asked(self) -> pb.Generate:
        return self.of_kind("generate")[-1].body

    def test_a_worker_answers(self) -> None:
        shown = self.say("--worker", "How are you?")
        self.assertEqual(shown.stdout, "fine, thanks\n")
        self.assertIn("end: stop", shown.stderr)
        self.assertIn("4 of them not computed", shown.stderr)
        asked = self.asked()
        self.assertEqual((asked.space, asked.model, asked.prompt_frame), ("", "tiny", 0))
        self.assertFalse(asked.HasField("memory"))
        self.assertEqual([m.role for m in asked.messages], ["user"])
        self.assertEqual((asked.max_tokens, asked.fit_tokens), (1024, True))
        self.assertEqual(asked.sampling.own, 31)
        self.assertNotIn("seed", shown.stderr.split("end:")[0])

    def test_options_become_fields(self) -> None:
        space = self.space("me")
        cube, other = space.put(b"one"), space.put(b"two")
        self.say("--space", "me", "hi", "--cube", str(uuid.UUID(bytes=cube)), "--cube",
                 f"{other.hex()[:12]}@3", "--query", "what", "--hits", "5", "--budget", "77",
                 "--captures", "never", "--independent", "--recompute", "2", "--capture",
                 "--keep-receipt", "--as-of", "2", "--tag", "a", "--speaker", "Nora",
                 "--subtype", "fact", "--since", "@5", "--until", "@9", "--source", "x",
                 "--system", "Be kind.", "--temperature", "0.5", "--top-k", "7", "--seed", "9",
                 "--max-tokens", "5", "--stop", "a", "--stop", "b", "--no-thinking",
                 "--template", "chatml", "--timeout", "9s")
        asked = self.asked()
        self.assertEqual(asked.memory, pb.Memory(
            search=True, query="what", top_k=5, budget_tokens=77, captures=1, independent=1,
            recompute_tokens=2, capture=True, as_of=pb.AsOf(seq=2),
            cubes=[pb.Ref(id=cube), pb.Ref(id=other, number=3)],
            filter=pb.Filter(tags=["a"], speaker="Nora", subtypes=["fact"], from_us=5000000,
                             to_us=9000000, source="x")))
        self.assertEqual(asked.sampling, pb.Sampling(temperature=0.5, top_k=7, seed=9, own=22))
        self.assertEqual((asked.max_tokens, asked.fit_tokens, list(asked.stops)),
                         (5, False, ["a", "b"]))
        self.assertTrue(asked.keep_receipt and asked.no_thinking)
        self.assertEqual(self.of_kind("generate")[-1].frames, [b"Be kind.", b"hi"])
        self.assertEqual(self.of_kind("generate")[-1].message.deadline_ms, 9000)

    def test_searching_can_be_left_out(self) -> None:
        self.say("--space", "me", "hi", "--no-search")
        self.assertEqual(self.asked().memory, pb.Memory(filter=pb.Filter()))
        self.say("--space", "me", "hi", "--no-search", "--query", "x", code=INVALID)

    def test_a_text_as_it_is(self) -> None:
        self.say("--worker", "--raw", "Once")
        self.assertEqual((self.asked().prompt_frame, len(self.asked().messages)), (1, 0))
        self.models[0].template = ""
        self.say("--worker", "Once")
        self.assertEqual(self.asked().prompt_frame, 1)
        self.say("--worker", "--template", "chatml", "Once")
        self.assertEqual(len(self.asked().messages), 1)
        self.say("--worker", "--raw", "--system", "x", "Once", code=INVALID)
        self.say("--worker", "", code=INVALID)

    def test_options_of_the_other_way(self) -> None:
        for wrong in (("--cube", "01"), ("--budget", "9"), ("--receipt", "x"), ("--tag", "a"),
                      ("--capture",), ("--worker", "--query", "x"), ("--worker", "--as-of", "1"),
                      ("--worker", "--weights", "f32"), ("--space", "me", "--threads", "2"),
                      ("--space", "me", "--context", "9"), ("--space", "me", "--recompute", "3"),
                      ("--space", "me", "--captures", "often"), ("--space", "me", "--budget", "0"),
                      ("--worker", "--model", "./tiny")):
            with self.subTest(wrong=wrong):
                self.assertIn("hint: ", self.say("hi", *wrong, code=INVALID).stderr)
        self.assertEqual(self.of_kind("generate"), [])

    def test_json(self) -> None:
        cube = self.space("me").put(b"one")
        self.items = [item_of(self.space("me"), cube)]
        said = json.loads(self.say("--space", "me", "hi", "--json").stdout)
        self.assertEqual((said["text"], said["finish"], said["model"], said["worker"]),
                         ("fine, thanks", "stop", "tiny", "w1"))
        self.assertEqual((said["cached_tokens"], said["space"]), (4, "me"))
        self.assertEqual(said["fingerprint"], PRINT.hex())
        [item] = said["receipt"]["items"]
        self.assertEqual((item["id"], item["used_as"]), (str(uuid.UUID(bytes=cube)), "text"))
        # such an answer is a receipt
        path = self.folder / "answer.json"
        path.write_text(json.dumps(said))
        self.ctl("receipt", "verify", str(path))

    def test_a_receipt_is_written(self) -> None:
        cube = self.space("me").put(b"one")
        self.items = [item_of(self.space("me"), cube, approximate=True, used_as=4)]
        path = self.folder / "receipt.json"
        shown = self.say("--space", "me", "hi", "--receipt", str(path))
        self.assertIn("memory: 1 cube, 12 tokens, some of it approximate", shown.stderr)
        receipt = json.loads(path.read_text())
        self.assertEqual(receipt["items"][0]["used_as"], "kv-independent")
        self.assertEqual(list(self.folder.glob("*.part")), [])
        both = self.say("--space", "me", "hi", "--receipt", "-").stdout
        self.assertEqual(both.split("\n", 1)[0], "fine, thanks")
        self.assertEqual(json.loads(both.split("\n", 1)[1])["space"], "me")

    def test_logprobs(self) -> None:
        def generate(request):
            request.reply(more=True, tokens=pb.Tokens(
                text="ab", tokens=[pb.TokenLogprob(id=5, text="a", logprob=-0.5),
                                   pb.TokenLogprob(id=6, text="b\x1b", logprob=-1.5)],
                top=[pb.TokenLogprob(id=i, text=str(i), logprob=-2) for i in range(4)]))
            request.reply(b"ab", generated=pb.Generated(finish=1, tokens=2))
        self.handle_generate = generate
        lines = self.say("--worker", "hi", "--logprobs", "2").stdout.splitlines()
        self.assertEqual([" ".join(line.split()) for line in lines],
                         ['-0.5000 "a" | -2.0000 "0" -2.0000 "1"',
                          '-1.5000 "b\\x1b" | -2.0000 "2" -2.0000 "3"'])
        self.assertEqual(self.asked().top_logprobs, 2)
        said = json.loads(self.say("--worker", "hi", "--logprobs", "0", "--json").stdout)
        self.assertEqual([(t["id"], t["piece"], t["top"]) for t in said["tokens"]],
                         [(5, "a", []), (6, "b\x1b", [])])
        self.assertEqual(self.asked().top_logprobs, 1)  # else no pieces would come

    # ---- which model

    def test_several_models(self) -> None:
        self.models.append(pb.WorkerModel(name="other", fingerprint=b"\xab" * 32, context=9))
        refused = self.say("--worker", "hi", code=INVALID).stderr
        self.assertIn("workers have 2 models: tiny, other", refused)
        self.assertIn("--model says which", refused)
        self.say("--worker", "hi", "--model", "other", "--raw")
        self.assertEqual(self.asked().model, "other")
        self.say("--worker", "hi", "--model", "abababab", "--raw")
        self.assertEqual(self.asked().model, "other")
        refused = self.say("--worker", "hi", "--model", "third", code=NOT_FOUND).stderr
        self.assertIn("no worker has the model 'third'; there are: tiny, other", refused)

    def test_no_worker(self) -> None:
        self.models.clear()
        self.workers = lambda: []
        for command in (("generate", "--worker", "hi"), ("chat", "me"), ("score", "--worker", "-"),
                        ("capture", "me", "--system", "x")):
            with self.subTest(command=command):
                refused = self.ctl(*command, code=UNAVAILABLE, given="some text").stderr
                self.assertIn("no worker runs a model", refused)
                self.assertIn("memosctl worker start", refused)

    def test_all_workers_end(self) -> None:
        here = FakeTest.workers

        def draining():
            [one] = here(self)
            one.draining = True
            return [one]
        self.workers = draining
        self.assertIn("1 of 1 end when their jobs have",
                      self.say("--worker", "hi", code=UNAVAILABLE).stderr)

    def test_no_broker(self) -> None:
        self.stop()
        refused = self.say("--worker", "hi", code=UNAVAILABLE).stderr
        self.assertIn("memosctl up starts your broker", refused)

    # ---- what goes wrong

    def test_a_worker_is_lost_in_the_middle(self) -> None:
        def generate(request):
            request.reply(more=True, tokens=pb.Tokens(text="half an ans"))
            request.reply(status=UNAVAILABLE, message="the worker w1 is gone, after 3 tokens")
        self.handle_generate = generate
        shown = self.say("--worker", "hi", code=UNAVAILABLE)
        self.assertEqual(shown.stdout, "half an ans\n")
        self.assertIn("the worker w1 is gone, after 3 tokens", shown.stderr)
        self.assertIn("memosctl worker list shows who is left", shown.stderr)
        said = json.loads(self.say("--worker", "hi", "--json", code=UNAVAILABLE).stdout)
        self.assertEqual((said["text"], said["finish"], said["error"]),
                         ("half an ans", "failed", "the worker w1 is gone, after 3 tokens"))

    def test_the_broker_is_lost_in_the_middle(self) -> None:
        self.handle_generate = lambda request: request.reply(more=True,
                                                             tokens=pb.Tokens(text="half"))
        process = subprocess.Popen([MEMOSCTL, "generate", "--worker", "hi"], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=self.environment)
        self.assertEqual(process.stdout.read(4), "half")
        self.stop()
        began = time.monotonic()
        shown, errors = process.communicate(timeout=30)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual((shown, process.returncode), ("\n", UNAVAILABLE))
        self.assertIn("lost in the middle of the answer", errors)

    def test_ctrl_c_cancels_and_keeps_what_was_said(self) -> None:
        def cancelled(request):
            [first] = self.of_kind("generate")
            self.assertEqual(request.body.request_id, first.message.id)
            request.reply()
            first.reply(b"on and on", id=first.message.id, generated=pb.Generated(
                finish=CUT_SHORT, frame=1, tokens=3, prompt_tokens=2))
        self.handle_cancel = cancelled
        self.handle_generate = lambda request: request.reply(more=True,
                                                             tokens=pb.Tokens(text="on and on"))
        process = subprocess.Popen([MEMOSCTL, "generate", "--worker", "hi"], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=self.environment)
        self.assertEqual(process.stdout.read(9), "on and on")
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=30)
        self.assertEqual((shown, process.returncode), ("\n", CANCELLED))
        self.assertIn("stopped after 3 tokens", errors)

    def test_nobody_answers_a_cancellation(self) -> None:
        self.handle_generate = lambda request: request.reply(more=True,
                                                             tokens=pb.Tokens(text="on"))
        self.handle_cancel = lambda request: None
        process = subprocess.Popen([MEMOSCTL, "generate", "--worker", "hi"], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=self.environment)
        self.assertEqual(process.stdout.read(2), "on")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, CANCELLED)
        self.assertIn("without word of the worker", errors)

    def test_busy_is_asked_again(self) -> None:
        def generate(request):
            if len(self.of_kind("generate")) < 4:
                request.reply(status=BUSY, message="1000 jobs wait")
            else:
                FakeTest.handle_generate(self, request)
        self.handle_generate = generate
        self.assertEqual(self.say("--worker", "hi").stdout, "fine, thanks\n")

    def test_refusals_come_with_advice(self) -> None:
        for status, advice in ((TOO_LARGE, "--budget"), (UNSUPPORTED, "--template"),
                               (14, "smaller model"), (DEADLINE, "longer deadline")):
            with self.subTest(status=status):
                self.handle_generate = lambda request, status=status: request.reply(
                    status=status, message="no")
                self.assertIn(advice, self.say("--worker", "hi", code=status).stderr)
        self.handle_generate = lambda request: request.reply(status=TOO_LARGE, message="no",
                                                             hint="eat less")
        self.assertIn("hint: eat less", self.say("--worker", "hi", code=TOO_LARGE).stderr)
        self.handle_generate = lambda request: request.reply(welcome=pb.Welcome())
        self.say("--worker", "hi", code=CORRUPT)
        self.handle_generate = lambda request: None
        self.say("--worker", "hi", "--timeout", "300ms", code=DEADLINE)


class Score(FakeTest):
    def handle_score(self, request) -> None:
        request.reply(scored=pb.Scored(
            texts=[pb.TextScore(tokens=4, bytes=10, logprob=-float(len(request.frames[f - 1])))
                   for f in request.body.frames]))

    def test_a_text(self) -> None:
        said = json.loads(self.ctl("score", "--worker", "-", "--json", given="abcdefgh").stdout)
        self.assertEqual((said["scored"], said["bytes"], said["logprob"], said["model"]),
                         (4, 10, -8.0, "tiny"))
        [request] = self.of_kind("score")
        self.assertEqual((list(request.body.frames), request.body.prompt_frame, request.frames),
                         ([1], 0, [b"abcdefgh"]))
        self.assertEqual(request.body.overlap, 2048)
        self.assertIn("perplexity", self.ctl("score", "--worker", "-", given="ab").stdout)
        self.ctl("score", "--worker", "-", given="", code=INVALID)

    def test_choices_with_memory(self) -> None:
        cube = self.space("me").put(b"one")
        lines = "".join(json.dumps({"id": n, "prompt": "Q", "choices": ["long one", "no"],
                                    "answer": 1}) + "\n" for n in range(2))
        shown = self.ctl("score", "--space", "me", "--choices", "-", "--json", "--cube",
                         cube.hex(), given=lines)
        self.assertEqual([json.loads(line)["best"] for line in shown.stdout.splitlines()], [1, 1])
        self.assertIn("2 of 2 right", shown.stderr)
        request = self.of_kind("score")[-1]
        self.assertEqual((request.body.prompt_frame, list(request.body.frames), request.frames),
                         (1, [2, 3], [b"Q", b"long one", b"no"]))
        self.assertEqual(request.body.memory.cubes[0].id, cube)

    def test_another_number_of_scores(self) -> None:
        self.handle_score = lambda request: request.reply(scored=pb.Scored())
        self.ctl("score", "--worker", "-", given="ab", code=CORRUPT)


class Capture(FakeTest):
    def handle_capture(self, request) -> None:
        request.reply(captured=pb.Captured(captures=[
            pb.CaptureMade(ref=pb.Ref(id=bytes(16), number=1), tokens=77, bytes=2048,
                           read_us=1500, store_us=500, shared_tokens=64),
            pb.CaptureMade(ref=pb.Ref(id=bytes(16), number=2), tokens=7, bytes=9, existed=True)]))

    def test_fields_and_result(self) -> None:
        cubes = [self.space("me").put(text) for text in (b"one", b"two")]
        shown = self.ctl("capture", "me", *[cube.hex() for cube in cubes], "--system", "Be kind.",
                         "--dtype", "e4m3", "--independent", "--reason", "hot", "--raw").stdout
        request = self.of_kind("capture")[0]
        self.assertEqual(request.body, pb.Capture(
            space="me", model="tiny", ids=cubes, independent=True, dtype=4, reason="hot", bare=True,
            messages=[pb.ChatMessage(role="system", frame=1)]))
        self.assertEqual(request.frames, [b"Be kind."])
        for word in ("77", "2.0 KB", "1.5", "0.5", "new; 64 tokens lie in another one",
                     "was there, and holds"):
            self.assertIn(word, shown)
        made = json.loads(self.ctl("capture", "me", cubes[0].hex(), "--json").stdout)
        self.assertEqual([one["existed"] for one in made["captures"]], [False, True])
        self.assertEqual([one["shared_tokens"] for one in made["captures"]], [64, 0])

    def test_what_makes_no_sense(self) -> None:
        self.ctl("capture", "me", code=INVALID)
        self.ctl("capture", "me", "zzz", code=INVALID)
        self.ctl("capture", "me", "--system", "x", "--dtype", "int8", code=INVALID)
        self.assertEqual(self.of_kind("capture"), [])


if __name__ == "__main__":
    unittest.main()
