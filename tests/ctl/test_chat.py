"""A conversation that is remembered: what is sent, kept, shown, corrected and forgotten.

If this failed, somebody would talk with a model that forgets what it was told, or that cannot
forget what it should. The broker and its worker are fakes; tests/e2e/test_chat.py has real ones.
"""
import json
import os
import pty
import signal
import subprocess
import time
import unittest
import uuid

from fake_space import (
    CUT_SHORT, MEMOSCTL, OK, PRINT, TOO_LARGE, UNAVAILABLE, FakeTest, item_of, pb)


def texts(request) -> list[tuple[str, str]]:
    """The messages of a Generate."""
    return [(m.role, request.frames[m.frame - 1].decode()) for m in request.body.messages]


class Chat(FakeTest):
    used: list = []

    def answer(self, request):
        space = self.space("me")
        return "fine, thanks", [item_of(space, cube, f"[{i + 1}]")
                                for i, cube in enumerate(self.used)]

    def chat(self, *lines: str, options=(), code: int = OK) -> subprocess.CompletedProcess:
        return self.ctl("chat", "--space", "me", *options, code=code,
                        given="".join(line + "\n" for line in lines))

    def events(self, *lines: str, code: int = OK, options=()) -> list[dict]:
        shown = self.chat(*lines, options=("--json", *options), code=code)
        return [json.loads(line) for line in shown.stdout.splitlines()]

    def test_both_sides_are_kept(self) -> None:
        shown = self.chat("My sister is called Lea.", options=["--as", "Nora"])
        self.assertEqual(shown.stdout, "fine, thanks\n")
        question, answer = [request.body.drafts[0] for request in self.of_kind("put")]
        self.assertEqual((question.subtype, question.speaker), ("message", "Nora"))
        self.assertEqual((answer.subtype, answer.speaker, answer.model),
                         ("message", "assistant", PRINT.hex().encode()))
        said = {a.name: a.value for a in question.attributes}
        heard = {a.name: a.value for a in answer.attributes}
        self.assertEqual((said["role"], heard["role"], heard["model"], heard["finish"]),
                         ("user", "assistant", "tiny", "stop"))
        self.assertEqual(said["session"], heard["session"])
        self.assertEqual([question.sources[0].uri, answer.sources[0].uri],
                         [f"chat:{said['session']}/{n}" for n in (1, 2)])
        self.assertGreater(question.event_us, 0)
        first, second = self.space("me").cubes.values()
        self.assertEqual([v.text for v in (first[0], second[0])],
                         [b"My sister is called Lea.", b"fine, thanks"])
        [cube] = [ref.id for ref in answer.derived_from]
        self.assertEqual(self.space("me").cubes[cube][0].text, b"My sister is called Lea.")

    def test_the_prompt_has_the_turns_and_memory_not(self) -> None:
        self.chat("one", "two", options=["--system", "Be kind.", "--budget", "99", "--hits", "3"])
        first, second = self.of_kind("generate")
        self.assertEqual(texts(first), [("system", "Be kind."), ("user", "one")])
        self.assertEqual(texts(second), [("system", "Be kind."), ("user", "one"),
                                         ("assistant", "fine, thanks"), ("user", "two")])
        memory = second.body.memory
        self.assertTrue(memory.search)
        self.assertEqual((memory.budget_tokens, memory.top_k), (99, 3))
        self.assertEqual(set(memory.without), set(list(self.space("me").cubes)[:3]))
        self.assertEqual((first.body.space, first.body.model), ("me", "tiny"))
        self.assertTrue(first.body.fit_tokens)

    def test_a_new_conversation_begins_empty(self) -> None:
        events = self.events("one", "/new", "two")
        self.assertEqual(texts(self.of_kind("generate")[1]), [("user", "two")])
        self.assertEqual(list(self.of_kind("generate")[1].body.memory.without),
                         [list(self.space("me").cubes)[2]])
        sessions = [event["session"] for event in events if event["event"] == "session"]
        self.assertEqual(len(set(sessions)), 2)

    def test_events(self) -> None:
        events = self.events("hello")
        self.assertEqual([event["event"] for event in events],
                         ["session", "user", "token", "token", "token", "answer"])
        self.assertEqual("".join(e["text"] for e in events if e["event"] == "token"),
                         "fine, thanks")
        answer = events[-1]
        self.assertEqual((answer["text"], answer["finish"], answer["prompt_tokens"]),
                         ("fine, thanks", "stop", len("hello") // 4 + 1))
        self.assertIn(uuid.UUID(answer["id"]).bytes, self.space("me").cubes)
        self.assertEqual(answer["receipt"]["space"], "me")

    def test_memory_shows_what_was_used(self) -> None:
        lea = self.space("me").put(b"My sister is\x1b[2J called Lea.",
                                   pb.Draft(speaker="Nora", event_us=86_400_000_000))
        self.used = [lea]
        shown = self.chat("/memory", "Who is Lea?", "/memory").stdout
        self.assertIn("nothing has been answered yet", shown)
        self.assertIn("[1] 1970-01-02  Nora: My sister is\\x1b[2J called Lea.", shown)
        self.assertIn(str(uuid.UUID(bytes=lea)), shown)
        self.assertIn("text, 12 tokens", shown)
        answer = self.of_kind("put")[-1].body.drafts[0]
        self.assertIn(lea, [ref.id for ref in answer.derived_from])
        [items] = [e["items"] for e in self.events("Who?", "/memory") if e["event"] == "memory"]
        self.assertEqual((items[0]["text"], items[0]["speaker"], items[0]["number"]),
                         ("My sister is\x1b[2J called Lea.", "Nora", 1))

    def test_forget(self) -> None:
        lea = self.space("me").put(b"My sister is called Lea.")
        self.used = [lea]
        events = self.events("Who?", "/forget 1", "/memory", "Really?")
        [gone] = [e["ids"] for e in events if e["event"] == "forgotten"]
        self.assertEqual(gone[0], str(uuid.UUID(bytes=lea)))
        self.assertEqual(len(gone), 2)  # and the answer that came of it
        [items] = [e["items"] for e in events if e["event"] == "memory"]
        self.assertTrue(items[0]["forgotten"])
        self.assertIsNone(items[0]["text"])
        # the turn whose answer is gone is in no prompt any more
        self.assertEqual(texts(self.of_kind("generate")[1]), [("user", "Really?")])

    def test_forget_by_id(self) -> None:
        said = self.chat("My PIN is 1234.").stdout
        self.assertEqual(said, "fine, thanks\n")
        cube = next(iter(self.space("me").cubes))
        shown = self.chat(f"/forget {uuid.UUID(bytes=cube)}").stdout
        self.assertIn("forgotten: nobody can read it any more, nor 1 that came of it", shown)
        self.assertIn(cube, self.space("me").forgotten)

    def test_correct(self) -> None:
        lea = self.space("me").put(b"Lea lives in Porto.")
        self.used = [lea]
        events = self.events("Where?", "/correct 1 Lea lives in Lisbon now.")
        self.assertEqual(self.space("me").cubes[lea][-1].text, b"Lea lives in Lisbon now.")
        [corrected] = [e for e in events if e["event"] == "corrected"]
        self.assertEqual((corrected["version"], corrected["stale"]), (2, 1))
        self.assertEqual(self.of_kind("update")[0].body.changes[0].fields, 1)

    def test_what_is_corrected_is_so_in_the_prompt(self) -> None:
        process = subprocess.Popen([MEMOSCTL, "chat", "me", "--json"], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=self.environment)
        with process:
            process.stdin.write("I live in Porto.\n")
            process.stdin.flush()
            while (event := json.loads(process.stdout.readline()))["event"] != "user":
                pass
            process.stdin.write(f"/correct {event['id']} I live in Lisbon.\nWhere?\n")
            process.stdin.close()
            process.stdout.read()
        self.assertEqual(texts(self.of_kind("generate")[1])[0], ("user", "I live in Lisbon."))

    def test_remember(self) -> None:
        self.chat("/remember The wedding is on 14 June.", options=["--as", "Nora"])
        [put] = self.of_kind("put")
        draft = put.body.drafts[0]
        self.assertEqual((draft.subtype, draft.speaker), ("fact", "Nora"))
        self.assertEqual(put.frames, [b"The wedding is on 14 June."])
        self.assertEqual(self.of_kind("generate"), [])

    def test_a_receipt_is_shown_and_written(self) -> None:
        self.used = [self.space("me").put(b"Lea")]
        path = self.folder / "receipt.json"
        shown = self.chat("Who?", "/receipt", f"/receipt {path}").stdout
        self.assertIn("used as".upper(), shown.upper())
        self.assertEqual(json.loads(path.read_text())["space"], "me")

    def test_orders_that_make_no_sense(self) -> None:
        for line in ("/frget 1", "/forget", "/forget 1", "/correct 1", "/remember", "/receipt",
                     "/forget zzz"):
            with self.subTest(line=line):
                process = subprocess.run([MEMOSCTL, "chat", "me"], input=line + "\n", text=True,
                                         capture_output=True, check=False, env=self.environment)
                self.assertNotEqual(process.returncode, 0, process.stdout)
                self.assertIn("memosctl: ", process.stderr)
        self.assertEqual(self.of_kind("generate") + self.of_kind("forget"), [])
        self.assertIn("/correct N|ID TEXT", self.chat("/help", "/quit", "never said").stdout)
        self.assertEqual(self.of_kind("put"), [])

    def test_lines_that_go_on(self) -> None:
        self.chat("one\\", "two", "", "  ")
        self.assertEqual(texts(self.of_kind("generate")[0]), [("user", "one\ntwo")])
        self.assertEqual(len(self.of_kind("generate")), 1)

    def test_a_long_conversation_is_cut_at_the_front(self) -> None:
        self.models[0].context = 400
        shown = self.chat(*[f"{n} " + "word " * 60 for n in range(8)])
        for request in self.of_kind("generate"):
            self.assertLess(sum(len(frame) for frame in request.frames), 400 * 6)
        last = texts(self.of_kind("generate")[-1])
        self.assertEqual(last[-1][1][0], "7")
        self.assertLess(len(last), 15)
        self.assertEqual([role for role, _ in last][::2], ["user"] * ((len(last) + 1) // 2))
        self.assertIn("no more in the prompt", shown.stderr)
        # what was left out may be brought by memory
        self.assertEqual(len(self.of_kind("generate")[-1].body.memory.without), len(last))

    def test_too_large_after_all_is_asked_again_with_less(self) -> None:
        def generate(request):
            if len(request.body.messages) > 3:
                request.reply(status=TOO_LARGE, message="5000 tokens are more than 4096")
            else:
                FakeTest.handle_generate(self, request)
        self.handle_generate = generate
        self.chat(*[str(n) for n in range(5)])
        self.assertEqual([len(r.body.messages) for r in self.of_kind("generate")],
                         [1, 3, 5, 3, 5, 3, 5, 3])
        self.assertEqual(texts(self.of_kind("generate")[-1])[-1], ("user", "4"))

    def test_a_worker_is_lost_in_the_middle(self) -> None:
        def generate(request):
            request.reply(more=True, tokens=pb.Tokens(text="half an ans"))
            request.reply(status=UNAVAILABLE, message="the worker w1 is gone, after 3 tokens")
        self.handle_generate = generate
        shown = self.chat("hello", code=UNAVAILABLE)
        self.assertEqual(shown.stdout, "half an ans\n")
        self.assertIn("the worker w1 is gone, after 3 tokens", shown.stderr)
        self.assertIn("hint: ", shown.stderr)
        kept = self.of_kind("put")[-1]
        self.assertEqual(kept.frames, [b"half an ans"])
        self.assertIn(("finish", "failed"),
                      [(a.name, a.value) for a in kept.body.drafts[0].attributes])

    def test_the_broker_goes_away_in_the_middle(self) -> None:
        process = subprocess.Popen([MEMOSCTL, "chat", "me"], text=True, env=self.environment,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.handle_generate = lambda request: request.reply(more=True,
                                                             tokens=pb.Tokens(text="half"))
        process.stdin.write("hello\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.read(4), "half")
        self.stop()
        began = time.monotonic()
        _, errors = process.communicate(timeout=30)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(process.returncode, UNAVAILABLE)
        self.assertIn("connection to the broker was lost in the middle of the answer", errors)

    def test_a_model_without_a_template(self) -> None:
        self.models[0].template = ""
        shown = self.chat("hello")
        self.assertIn("chatml is used", shown.stderr)
        self.assertEqual(self.of_kind("generate")[0].body.template, "chatml")
        self.chat("hello", options=["--template", "llama3"])
        self.assertEqual(self.of_kind("generate")[1].body.template, "llama3")

    def test_ctrl_c_stops_the_answer_and_not_the_chat(self) -> None:
        def cancelled(request):
            first = self.of_kind("generate")[0]
            first.reply(b"on and on", id=first.message.id, generated=pb.Generated(
                finish=CUT_SHORT, frame=1, tokens=3, prompt_tokens=2))
            request.reply()
        self.handle_cancel = cancelled
        answered = self.handle_generate
        self.handle_generate = lambda request: request.reply(more=True,
                                                             tokens=pb.Tokens(text="on and on"))
        process = subprocess.Popen([MEMOSCTL, "chat", "me"], text=True, env=self.environment,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdin.write("hello\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.read(9), "on and on")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.stdout.readline(), "\n")
        self.handle_generate = answered
        shown, errors = process.communicate("and now?\n", timeout=30)
        self.assertEqual((shown, process.returncode), ("fine, thanks\n", OK))
        self.assertIn("stopped after 3 tokens", errors)
        self.assertEqual(self.of_kind("put")[1].frames, [b"on and on"])

    def test_sigterm_ends_it(self) -> None:
        process = subprocess.Popen([MEMOSCTL, "chat", "me", "--json"], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=self.environment)
        with process:
            self.assertEqual(json.loads(process.stdout.readline())["event"], "session")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=30), OK)

    def test_a_terminal(self) -> None:
        """With prompts, and a question before something is destroyed."""
        cube = self.space("me").put(b"secret")
        master, slave = pty.openpty()
        process = subprocess.Popen([MEMOSCTL, "chat", "me", "--color", "never"], stdin=slave,
                                   stdout=slave, stderr=slave, env=self.environment)
        os.close(slave)
        seen = b""

        def until(what: bytes) -> None:
            nonlocal seen
            while what not in seen:
                seen += os.read(master, 4096)
            seen = seen.split(what, 1)[1]
        until(b"/help lists")
        until(b"> ")
        os.write(master, b"hello\n")
        until(b"fine, thanks")
        until(b"> ")
        for answer, gone in ((b"n\n", False), (b"y\n", True)):
            os.write(master, b"/forget " + str(uuid.UUID(bytes=cube)).encode() + b"\n")
            until(b"[y/N]")
            os.write(master, answer)
            until(b"> ")
            self.assertEqual(cube in self.space("me").forgotten, gone)
        process.send_signal(signal.SIGINT)  # as the terminal would, were it the controlling one
        until(b"(Ctrl-D ends)")
        os.write(master, b"\x04")
        self.assertEqual(process.wait(timeout=30), OK)
        os.close(master)


if __name__ == "__main__":
    unittest.main()
