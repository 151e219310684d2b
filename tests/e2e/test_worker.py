"""A host model behind a broker: answers, memory as text and as captures, damaged or withdrawn.

If this failed, somebody would be answered from a memory that is not his, that he took back, or that
was damaged; or get another answer because his text was not read but loaded.
"""
import os
import random
import subprocess
import unittest
import uuid

import harness
import workers
from harness import FIELD_PAYLOAD, OK, Wire, pb
from workers import (ACTIVATION, ALWAYS, AS_CAPTURE, AS_TEXT, INDEPENDENT, IN_CAPTURE, LENGTH,
                     NEVER, PLAINTEXT, STOP, Told, random_host, say, wait_for)

SPACE = "worker/memory"
WORDS = ("lake", "bicycle", "Lisbon", "violin", "invoice", "greyhound", "boiler", "sofa", "bread",
         "river", "sister", "train", "garden", "winter", "letter", "orange", "window", "market")
QUESTION = "What was said? "
ACTIVATED, ARCHIVED = 2, 5  # enum memcube_state
AS_KV = {AS_CAPTURE, IN_CAPTURE}


def story(draw: random.Random, words: int = 60) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words)) + "."


class Answers(workers.WorkerTest):
    def test_an_answer_is_that_of_the_engine(self) -> None:
        """What comes through broker and worker is what memosctl's own engine says."""
        draw = harness.seeded()
        for _ in range(5):
            prompt = story(draw, 20)
            told = say(self.wire, prompt, max_tokens=24)
            # a model of random weights may end by itself, too: as its engine does, see below
            ends = told.generated.finish == STOP and len(told.ids) < 24
            self.assertEqual((told.generated.tokens, told.generated.finish),
                             (len(told.ids), STOP) if ends else (24, LENGTH))
            # texts on their way have no NUL, which this model may well say
            self.assertEqual(told.text, told.whole.replace("\0", "\ufffd"))
            direct = subprocess.run(
                [os.environ["MEMOSCTL"], "generate", "--raw", "--model", str(self.model),
                 "--backend", "cpu", "--max-tokens", "24", "--temperature", "0", prompt],
                capture_output=True, check=True, timeout=60 * harness.SLOWER)
            end = "" if told.whole.endswith("\n") else "\n"
            self.assertEqual(direct.stdout.decode(), told.whole + end)

    def test_what_it_is_asked_for(self) -> None:
        """Stops, alternatives, seeds, a biased token, a chat."""
        told = say(self.wire, "once upon", max_tokens=8, top_logprobs=3)
        again = workers.gather(self.wire, workers.send(
            self.wire, "once upon", max_tokens=8, stops=[told.whole[4:10]]))
        self.assertEqual(again.status, OK)
        self.assertTrue(told.whole.startswith(again.whole))
        self.assertLess(len(again.whole), len(told.whole))
        self.assertEqual(again.generated.stop_string, told.whole[4:10])
        forbidden = pb.Sampling(biases=[pb.TokenBias(id=told.ids[0], bias=float("-inf"))])
        other = say(self.wire, "once upon", max_tokens=8, sampling=forbidden)
        self.assertNotIn(told.ids[0], other.ids)
        warm = [say(self.wire, "once upon", max_tokens=16,
                    sampling=pb.Sampling(temperature=1.5, seed=seed)).ids for seed in (1, 1, 2)]
        self.assertEqual(warm[0], warm[1])
        self.assertNotEqual(warm[0], warm[2])
        answer = self.wire.ask([b"who are you?"], generate=pb.Generate(
            messages=[pb.ChatMessage(role="user", frame=1)], max_tokens=5))
        self.assertEqual((answer.status, answer.reply.generated.tokens), (OK, 5), answer.reply)

    def test_several_at_once_are_answered_as_alone(self) -> None:
        draw = harness.seeded()
        prompts = [story(draw, draw.randrange(1, 60)) for _ in range(24)]
        alone = [say(self.wire, prompt).ids for prompt in prompts]
        sent = {workers.send(self.wire, prompt): i for i, prompt in enumerate(prompts)}
        together: dict[int, list[int]] = {i: [] for i in range(len(prompts))}
        left = len(prompts)
        while left:
            answer = self.wire.receive()
            self.assertEqual(answer.status, OK, answer.reply)
            together[sent[answer.reply.id]] += [t.id for t in answer.reply.tokens.tokens]
            left -= not answer.reply.more
        self.assertEqual([together[i] for i in range(len(prompts))], alone)

    def test_a_cancelled_answer_ends(self) -> None:
        request = workers.send(self.wire, "and so on", max_tokens=4000)
        self.assertTrue(self.wire.receive().reply.more)
        with Wire(self.broker.address) as other:
            self.assertEqual(len(say(other, "meanwhile", max_tokens=3).ids), 3)
        cancel = self.wire.send(cancel=pb.Cancel(request_id=request))
        ends = {}
        while len(ends) < 2:
            answer = self.wire.receive()
            if not answer.reply.more:
                ends[answer.reply.id] = answer
        self.assertEqual(ends[cancel].status, OK)
        self.assertEqual(ends[request].status, workers.CANCELLED, ends[request].reply)
        self.worker_lives()

    def test_who_asks_for_what_is_not_there(self) -> None:
        for model in ("nobody", "00000000"):
            told = workers.gather(self.wire, workers.send(self.wire, "x", model=model))
            self.assertIn(told.status, (harness.NOT_FOUND, workers.UNAVAILABLE))
            self.assertIn(model, told.last.reply.message)
        memory = pb.Memory(cubes=[pb.Ref(id=uuid.uuid4().bytes)])
        told = workers.gather(self.wire, workers.send(self.wire, "x", space="nowhere",
                                                      memory=memory))
        self.assertIn(told.status, (harness.NOT_FOUND, harness.DENIED))
        told = workers.gather(self.wire, workers.send(self.wire, "x " * 30000))
        self.assertEqual(told.status, harness.TOO_LARGE, told.last.reply)
        self.worker_lives()

    def test_what_is_known_of_it(self) -> None:
        [info] = workers.infos(self.wire).workers
        self.assertEqual(info.announced.name, self.running[0].name)
        [model] = info.announced.models
        self.assertEqual((model.name, model.context, len(model.fingerprint)), ("tiny", 4096, 32))
        told = say(self.wire, "by its fingerprint", model=model.fingerprint.hex()[:12])
        self.assertEqual(told.generated.receipt.fingerprint, model.fingerprint)

        def heard() -> bool:
            last = workers.infos(self.wire).workers[0].last
            return last.tokens >= 16 and last.pages_total > 0

        wait_for("a heartbeat that tells of it", heard)
        answer = self.wire.ask(worker_drain=pb.WorkerDrain(id=info.id))
        self.assertEqual(answer.status, OK, answer.reply)
        worker = self.running[0].process
        assert worker
        self.assertEqual(worker.wait(timeout=20 * harness.SLOWER), 0)

    def test_scores(self) -> None:
        """Choices are scored alone after the prompt; the engine's own memosctl agrees."""
        frames = [b"the lake is", b" cold", b" a very long winter"]
        answer = self.wire.ask(frames, score=pb.Score(prompt_frame=1, frames=[2, 3],
                                                      logprobs=True))
        self.assertEqual(answer.status, OK, answer.reply)
        texts = answer.reply.scored.texts
        self.assertEqual(len(texts), 2)
        for text in texts:
            self.assertAlmostEqual(sum(text.logprobs), text.logprob, places=3)
            self.assertLess(text.logprob, 0)
        alone = self.wire.ask(frames[::2], score=pb.Score(prompt_frame=1, frames=[2]))
        self.assertAlmostEqual(alone.reply.scored.texts[0].logprob, texts[1].logprob, places=3)


class MemoryTest(workers.WorkerTest):
    """Float32 weights and cache: loaded and read give the same, to the bit."""

    worker_flags = ("--weights", "f32")

    def setUp(self) -> None:
        super().setUp()
        self.draw = harness.seeded()
        self.texts = [story(self.draw) for _ in range(3)]
        self.refs = self.wire.put(SPACE, *self.texts)

    def memory(self, **more) -> pb.Memory:
        """The three texts, named."""
        return pb.Memory(cubes=[pb.Ref(id=ref.id) for ref in self.refs], **more)

    def told(self, captures: int = ALWAYS, model: str = "", **more) -> Told:
        return say(self.wire, QUESTION, space=SPACE, model=model,
                   memory=self.memory(captures=captures, **more))

    def captures(self) -> list[pb.Cube]:
        answer = self.wire.ask(list=pb.List(space=SPACE, filter=pb.Filter(
            kinds=[ACTIVATION], subtypes=["kv"], include_stale=True)))
        self.assertEqual(answer.status, OK, answer.reply)
        return list(answer.reply.cubes.cubes)

    def capture(self, **more) -> pb.Cube:
        """Have one made of the prompt's beginning."""
        self.told(capture=True, **more)
        return wait_for("a capture", self.captures)[0]

    def read_anew(self, captures: int = ALWAYS) -> Told:
        """The same by a worker that has nothing in its cache."""
        self.restart_worker()
        return self.told(captures)

    def assert_loaded(self, told: Told, plain: Told) -> None:
        self.assertEqual(told.ids, plain.ids)
        self.assertTrue(AS_KV & set(told.used_as()), told.generated.receipt)
        self.assertGreater(told.generated.cached_tokens, 0)

    def assert_read(self, told: Told, plain: Told) -> None:
        """As text, computed, and nothing loaded."""
        self.assertEqual(told.ids, plain.ids)
        self.assertFalse(AS_KV & set(told.used_as()), told.generated.receipt)
        self.assertEqual(told.generated.cached_tokens, 0)

    def update(self, ref: bytes, payload: bytes) -> None:
        answer = self.wire.ask([payload], update=pb.Update(space=SPACE, changes=[
            pb.Change(id=ref, fields=FIELD_PAYLOAD, draft=pb.Draft(frame=1))]))
        self.assertEqual(answer.status, OK, answer.reply)

    def roll_back(self, ref: bytes, version: int = 1) -> None:
        answer = self.wire.ask(rollback=pb.Rollback(space=SPACE, ids=[ref], to_version=version))
        self.assertEqual(answer.status, OK, answer.reply)


class Memory(MemoryTest):
    def test_texts_are_fused_and_told(self) -> None:
        bare = say(self.wire, QUESTION)
        told = self.told()
        self.assertNotEqual(told.ids, bare.ids)
        self.assertGreater(told.generated.prompt_tokens, bare.generated.prompt_tokens + 100)
        receipt = told.generated.receipt
        self.assertEqual(told.used_as(), [AS_TEXT] * 3)
        self.assertEqual([(item.ref.id, item.ref.number) for item in receipt.items],
                         [(ref.id, 1) for ref in self.refs])
        self.assertEqual((receipt.space, receipt.principal, len(receipt.prompt_hash)),
                         (SPACE, "owner", 32))
        for item in receipt.items:
            self.assertGreater(item.tokens, 20)
            self.assertTrue(item.mark)

    def test_found_by_the_question(self) -> None:
        [ref] = self.wire.put(SPACE, "The parrot of Ada learned to whistle the anthem.")
        found = say(self.wire, "What does the parrot whistle?", space=SPACE,
                    memory=pb.Memory(search=True, top_k=1))
        [item] = found.generated.receipt.items
        self.assertEqual(item.ref.id, ref.id)
        self.assertGreater(item.score, 0)
        nothing = say(self.wire, "What does the parrot whistle?", space=SPACE,
                      memory=pb.Memory(search=True, top_k=20, budget_tokens=1))
        self.assertEqual(len(nothing.generated.receipt.items), 0)

    def test_named_cubes_that_do_not_fit(self) -> None:
        request = workers.send(self.wire, QUESTION, space=SPACE,
                               memory=self.memory(budget_tokens=40))
        self.assertEqual(workers.gather(self.wire, request).status, harness.TOO_LARGE)

    def test_a_receipt_is_kept(self) -> None:
        told = say(self.wire, QUESTION, space=SPACE, memory=self.memory(), keep_receipt=True)
        kept = self.wire.ask(get=pb.Get(space=SPACE, ids=[told.generated.receipt_ref.id]))
        self.assertEqual(kept.status, OK, kept.reply)
        self.assertEqual(kept.reply.cubes.cubes[0].subtype, "receipt")
        # what memory found is not found as memory
        again = say(self.wire, QUESTION, space=SPACE, memory=pb.Memory(search=True, query="story"))
        self.assertNotIn(told.generated.receipt_ref.id,
                         [item.ref.id for item in again.generated.receipt.items])


class Captures(MemoryTest):
    def test_loaded_is_as_read(self) -> None:
        plain = self.told(NEVER)
        cube = self.capture()
        self.assertEqual((cube.kind, cube.author, cube.stale), (ACTIVATION, "owner", False))
        self.assertEqual({ref.id for ref in cube.derived_from}, {ref.id for ref in self.refs})
        self.assert_loaded(self.read_anew(), plain)
        self.assert_read(self.read_anew(NEVER), plain)

    def test_the_rest_is_kept(self) -> None:
        """The beginning, then all of it: kept once, answered as if it had been read, and gone with
        its beginning."""
        plain, every = self.told(NEVER), self.refs
        self.refs = every[:2]
        first = self.capture()
        self.refs = every
        self.told(capture=True)
        second = wait_for("the second capture", lambda: self.captures()[1:]) and self.captures()[0]
        self.assertEqual({ref.id for ref in second.derived_from},
                         {first.id, *(ref.id for ref in every)})
        loaded = self.read_anew()
        self.assert_loaded(loaded, plain)
        items = [item for item in loaded.generated.receipt.items
                 if item.used_as == AS_CAPTURE]
        self.assertEqual([item.ref.id for item in items], [first.id, second.id])
        self.assertEqual(items[1].first_token, items[0].tokens)
        self.assertLess(second.payload_bytes, first.payload_bytes)
        answer = self.wire.ask(forget=pb.Forget(space=SPACE, ids=[first.id]))
        self.assertEqual(answer.status, OK, answer.reply)
        self.assertEqual(set(answer.reply.outcome.forgotten), {first.id, second.id})
        self.assert_read(self.read_anew(), plain)

    def test_captured_when_asked(self) -> None:
        """Capture, then a chat about the same cubes."""
        frames = [b"What was said?"]

        def chat(captures: int) -> Told:
            request = pb.Generate(space=SPACE, max_tokens=16, memory=self.memory(captures=captures),
                                  messages=[pb.ChatMessage(role="user", frame=1)])
            told = workers.gather(self.wire, self.wire.send(frames, generate=request))
            self.assertEqual(told.status, OK, told.last.reply)
            return told

        plain = chat(NEVER)
        request = pb.Capture(space=SPACE, ids=[ref.id for ref in self.refs])
        answer = self.wire.ask(capture=request)
        self.assertEqual(answer.status, OK, answer.reply)
        [made] = answer.reply.captured.captures
        self.assertFalse(made.existed)
        self.assertGreater(made.tokens, 100)
        [again] = self.wire.ask(capture=request).reply.captured.captures
        self.assertEqual((again.existed, again.ref), (True, made.ref))
        self.restart_worker()
        self.assert_loaded(chat(ALWAYS), plain)

    def test_withdrawn_is_not_used(self) -> None:
        plain = self.told(NEVER)
        self.capture()
        self.update(self.refs[1].id, story(self.draw).encode())
        self.assertTrue(self.captures()[0].stale)
        changed = self.read_anew()
        self.assertFalse(AS_KV & set(changed.used_as()), changed.generated.receipt)
        self.assertEqual(changed.generated.receipt.items[1].ref.number, 2)
        self.assertNotEqual(changed.generated.receipt.prompt_hash,
                            plain.generated.receipt.prompt_hash)
        self.roll_back(self.refs[1].id)
        self.assertFalse(self.captures()[0].stale)
        self.assert_loaded(self.read_anew(), plain)
        answer = self.wire.ask(forget=pb.Forget(space=SPACE, ids=[self.refs[2].id]))
        self.assertEqual(answer.status, OK, answer.reply)
        gone = workers.gather(self.wire, workers.send(self.wire, QUESTION, space=SPACE,
                                                      memory=self.memory(captures=ALWAYS)))
        self.assertIn(gone.status, (harness.FORGOTTEN, harness.NOT_FOUND))

    def test_damaged_is_not_used(self) -> None:
        """A client that may write puts what it wants where a capture was."""
        plain = self.told(NEVER)
        cube = self.capture()
        answer = self.wire.ask(get=pb.Get(space=SPACE, ids=[cube.id]))
        whole = answer.frames[answer.reply.cubes.cubes[0].frame - 1]
        for what, payload in self.damaged(whole):
            with self.subTest(what):
                self.update(cube.id, payload)
                self.assert_read(self.read_anew(), plain)
                self.assertTrue(self.running[0].running())
        self.roll_back(cube.id)
        self.assert_loaded(self.read_anew(), plain)

    def damaged(self, whole: bytes) -> list[tuple[str, bytes]]:
        flips = []
        for at in (0, 9, 40, 70, 130, len(whole) // 2, len(whole) - 5000):
            flips.append((f"a bit at {at}", whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1:]))
        return [("nothing", b""), ("cut", whole[:-1]), ("half", whole[:len(whole) // 2]),
                ("longer", whole + b"\0"), ("noise", self.draw.randbytes(len(whole))),
                ("another model's", self.of_another_model()),
                ("NaN, sealed", sealed_with_nan(whole)), *flips]

    def of_another_model(self) -> bytes:
        """A good capture of the same texts by a model of the same shape and other weights."""
        space = "worker/other"
        refs = self.wire.put(space, *self.texts)
        folder = self.folder / "other"
        random_host.write_model(folder, random_host.SHAPES[self.shape], seed=77)
        other = self.start_worker(model=folder)
        say(self.wire, QUESTION, space=space, model="other", memory=pb.Memory(
            cubes=[pb.Ref(id=ref.id) for ref in refs], capture=True))

        def made() -> list[bytes]:
            answer = self.wire.ask(list=pb.List(space=space, payload=True,
                                                filter=pb.Filter(subtypes=["kv"])))
            return answer.frames

        [payload] = wait_for("the other model's capture", made)
        self.running.remove(other)
        self.assertEqual(other.stop(), 0)
        return payload

    def test_another_models_capture_is_left_alone(self) -> None:
        """Two models share a space: each has its own."""
        self.capture()
        folder = self.folder / "second"
        random_host.write_model(folder, random_host.SHAPES[self.shape], seed=5)
        self.start_worker(model=folder)
        plain = self.told(NEVER, model="second")
        told = self.told(model="second")
        self.assertEqual(told.ids, plain.ids)
        self.assertFalse(AS_KV & set(told.used_as()), told.generated.receipt)

    def test_a_worker_of_several_models(self) -> None:
        """Each answers as one that has a worker to itself, and loads what is its own."""
        folder = self.folder / "second"
        random_host.write_model(folder, random_host.SHAPES[self.shape], seed=5)
        self.start_worker(model=folder)
        names = ("tiny", "second")
        plain = {name: self.told(NEVER, model=name) for name in names}
        self.assertNotEqual(plain["tiny"].ids, plain["second"].ids)
        for worker in self.running:
            self.assertEqual(worker.stop(), 0)
        self.running = []
        both = self.start_worker("--model", f"second={folder}")
        [info] = [info for info in workers.infos(self.wire).workers
                  if info.announced.name == both.name]
        self.assertEqual([model.name for model in info.announced.models], list(names))
        for name in names:
            made = len(self.captures()) + 1
            self.told(capture=True, model=name)
            wait_for("a capture", lambda: len(self.captures()) == made)
        self.assertEqual(both.stop(), 0)
        both.start()
        asked = {workers.send(self.wire, QUESTION, space=SPACE, model=name,
                              memory=self.memory(captures=ALWAYS)): name for name in names * 4}
        loaded = {name: 0 for name in names}
        ids: dict[int, list[int]] = {request: [] for request in asked}
        left = len(asked)
        while left:
            answer = self.wire.receive()
            self.assertEqual(answer.status, OK, answer.reply)
            ids[answer.reply.id] += [token.id for token in answer.reply.tokens.tokens]
            if not answer.reply.more:
                left -= 1
                receipt = answer.reply.generated.receipt
                loaded[asked[answer.reply.id]] += any(item.used_as in AS_KV
                                                      for item in receipt.items)
        for request, name in asked.items():
            self.assertEqual(ids[request], plain[name].ids, name)
        self.assertEqual(loaded, {name: 4 for name in names})

    def test_independent_only_when_asked(self) -> None:
        """Captures of single cubes stand for their texts anywhere, marked as what they are."""
        answer = self.wire.ask(capture=pb.Capture(
            space=SPACE, ids=[ref.id for ref in self.refs], independent=True))
        self.assertEqual((answer.status, len(answer.reply.captured.captures)), (OK, 3),
                         answer.reply)
        self.restart_worker()
        plain = self.told(NEVER)
        told = self.read_anew()
        self.assertEqual(told.ids, plain.ids)
        self.assertFalse(any(item.approximate for item in told.generated.receipt.items))
        self.assertNotIn(INDEPENDENT, told.used_as())
        self.restart_worker()
        about = self.told(independent=1, recompute_tokens=16)
        self.assertIn(INDEPENDENT, about.used_as(), about.generated.receipt)
        for item in about.generated.receipt.items:
            self.assertEqual(item.approximate, item.used_as in (INDEPENDENT, IN_CAPTURE))
        self.assertEqual(about.generated.receipt.prompt_hash, plain.generated.receipt.prompt_hash)
        # what is approximate stays where it was asked for
        self.assertEqual(self.told(NEVER).ids, plain.ids)
        self.assertEqual(self.told().ids, plain.ids)

    def test_a_space_of_somebody_else(self) -> None:
        """Named cubes of another space are not there, whoever they belong to."""
        request = workers.send(self.wire, QUESTION, space="worker/elsewhere", memory=self.memory())
        self.assertIn(workers.gather(self.wire, request).status,
                      (harness.NOT_FOUND, harness.DENIED))
        kinds = pb.Filter(kinds=[PLAINTEXT])
        self.assertEqual(self.wire.ask(list=pb.List(space=SPACE, filter=kinds)).status, OK)


class Rights(MemoryTest):
    """A client that may only read, in some spaces; its jobs may no more than itself."""

    def setUp(self) -> None:
        super().setUp()
        self.broker.stop()
        port = 20000 + os.getpid() % 20000
        self.broker.flags = ["--listen", f"{self.broker.address},tcp://127.0.0.1:{port}",
                             "--events", f"{self.broker.address}.events,tcp://127.0.0.1:{port + 1}"]
        self.broker.start()
        self.guest = Wire(f"tcp://127.0.0.1:{port}")
        self.addCleanup(self.guest.close)
        wait_for("the worker to come back", lambda: workers.infos(self.wire).workers)
        answer = self.wire.ask(grant_set=pb.GrantSet(principal="loopback", spaces=SPACE,
                                                     rights="read"))
        self.assertEqual(answer.status, OK, answer.reply)

    def asked(self, **more) -> Told:
        return workers.gather(self.guest, workers.send(self.guest, QUESTION, **more))

    def test_it_reads(self) -> None:
        told = self.asked(space=SPACE, memory=self.memory())
        self.assertEqual(told.status, OK, told.last.reply)
        self.assertEqual(told.generated.receipt.principal, "loopback")
        self.assertEqual(told.ids, self.told().ids)

    def test_it_does_not_write(self) -> None:
        """No receipt, no capture; and who only watches the list sees models, nothing else."""
        told = self.asked(space=SPACE, memory=self.memory(), keep_receipt=True)
        self.assertEqual(told.status, harness.DENIED, told.last.reply)
        answer = self.guest.ask(capture=pb.Capture(space=SPACE, ids=[self.refs[0].id]))
        self.assertEqual(answer.status, harness.DENIED, answer.reply)
        self.asked(space=SPACE, memory=self.memory(capture=True))
        self.assertEqual(self.captures(), [])
        [info] = workers.infos(self.guest).workers
        self.assertEqual([model.name for model in info.announced.models], [self.model.name])
        self.assertEqual((info.announced.name, info.jobs_done), ("", 0))

    def test_it_sees_what_it_may(self) -> None:
        """Neither another space, nor cubes that are for others, nor captures made of them."""
        self.wire.put("worker/private", "a secret about the lake")
        for memory in (pb.Memory(search=True), self.memory()):
            self.assertEqual(self.asked(space="worker/private", memory=memory).status,
                             harness.DENIED)
        [hidden] = self.wire.put(SPACE, "the heron of Ada sleeps in the boathouse",
                                 readers=["ada"])
        named = pb.Memory(cubes=[pb.Ref(id=ref.id) for ref in [*self.refs, hidden]], capture=True)
        say(self.wire, QUESTION, space=SPACE, memory=named)
        wait_for("a capture", self.captures)
        named.capture = False
        self.assertEqual(self.asked(space=SPACE, memory=named).status, harness.NOT_FOUND)
        told = self.asked(space=SPACE, memory=pb.Memory(
            search=True, query="the heron of Ada", top_k=50, captures=ALWAYS))
        self.assertEqual(told.status, OK, told.last.reply)
        self.assertNotIn(hidden.id, [item.ref.id for item in told.generated.receipt.items])


class Interleavings(MemoryTest):
    """Whatever came before, an answer rests on what stands now, loaded or read."""

    STEPS = 120

    def setUp(self) -> None:
        super().setUp()
        self.heads = {ref.id: 1 for ref in self.refs}
        # of each version, for a rollback brings the state back, too
        self.archived: dict[tuple[bytes, int], bool] = {}
        self.loaded = 0

    def change(self, ref: bytes) -> None:
        answer = self.wire.ask([story(self.draw, 40).encode()], update=pb.Update(
            space=SPACE, changes=[pb.Change(id=ref, fields=FIELD_PAYLOAD,
                                            draft=pb.Draft(frame=1))]))
        self.note(answer)

    def note(self, answer, archived: bool = False) -> None:
        self.assertEqual(answer.status, OK, answer.reply)
        for ref in answer.reply.outcome.refs:
            if ref.id in self.heads:
                self.heads[ref.id] = ref.number
                self.archived[ref.id, ref.number] = archived

    def hidden(self) -> list[bytes]:
        return [ref for ref, number in self.heads.items() if self.archived.get((ref, number))]

    def step(self) -> None:
        hidden = self.hidden()
        shown = [ref for ref in self.heads if ref not in hidden]
        what = self.draw.choice(("put", "change", "change", "back", "forget", "hide", "show",
                                 *["capture"] * 3, *["ask"] * 5))
        if what == "put" or len(shown) < 2:
            [ref] = self.wire.put(SPACE, story(self.draw, 40))
            self.heads[ref.id] = ref.number
        elif what == "change":
            self.change(self.draw.choice(shown))
        elif what == "back":
            ref = self.draw.choice(shown)
            if self.heads[ref] > 1:
                version = self.draw.randrange(1, self.heads[ref])
                self.note(self.wire.ask(rollback=pb.Rollback(
                    space=SPACE, ids=[ref], to_version=version)),
                    self.archived.get((ref, version), False))
        elif what == "forget" and len(shown) > 3:
            ref = self.draw.choice(shown)
            self.note(self.wire.ask(forget=pb.Forget(space=SPACE, ids=[ref])))
            del self.heads[ref]
        elif what == "hide" and len(shown) > 3:
            self.move(self.draw.choice(shown), ARCHIVED)
        elif what == "show" and hidden:
            self.move(self.draw.choice(hidden), ACTIVATED)
        elif what in ("capture", "ask"):
            self.ask(shown, capture=what == "capture")

    def move(self, ref: bytes, state: int) -> None:
        self.note(self.wire.ask(transition=pb.Transition(space=SPACE, ids=[ref], state=state)),
                  state == ARCHIVED)

    def ask(self, shown: list[bytes], capture: bool) -> None:
        """Named cubes or a search; loading and reading say the same, of what stands now."""
        named = self.draw.random() < 0.7
        chosen = shown[:self.draw.randrange(1, 4)]  # the first ones, so that captures are met again
        memory = pb.Memory(cubes=[pb.Ref(id=ref) for ref in chosen] if named else [],
                           search=not named, query=self.draw.choice(WORDS), top_k=3)
        memory.captures = ALWAYS
        memory.capture = capture
        told = say(self.wire, QUESTION, space=SPACE, memory=memory, max_tokens=4)
        memory.captures = NEVER
        memory.capture = False
        plain = say(self.wire, QUESTION, space=SPACE, memory=memory, max_tokens=4)
        self.assertEqual(told.ids, plain.ids)
        texts = [item for item in told.generated.receipt.items
                 if item.used_as in (AS_TEXT, IN_CAPTURE)]
        if named:
            self.assertEqual([item.ref.id for item in texts], chosen)
        for item in texts:
            self.assertIn(item.ref.id, shown)
            self.assertEqual(item.ref.number, self.heads[item.ref.id])
        for item in told.generated.receipt.items:
            if item.used_as == AS_CAPTURE:
                self.loaded += 1
                answer = self.wire.ask(get=pb.Get(space=SPACE, ids=[item.ref.id], no_payload=True))
                self.assertFalse(answer.reply.cubes.cubes[0].stale, answer.reply)

    def test_any_order(self) -> None:
        for number in range(self.STEPS):
            self.step()
            if number % 20 == 19:
                self.restart_worker()
        print(f"captures were loaded {self.loaded} times")
        self.assertGreater(self.loaded, 0)
        self.assert_sound(self.wire, SPACE)


def sealed_with_nan(whole: bytes) -> bytes:
    """A capture whose checksums are right and whose numbers are not: by who knows the format."""
    import hashlib
    import struct
    data = bytearray(whole)
    layers, heads, head_dim, tokens = struct.unpack_from("<4I", data, 16)
    width = {1: 4, 2: 2, 3: 2}[struct.unpack_from("<I", data, 12)[0]]
    blocks = -(-tokens // 32)
    table = 128 + 128 * blocks
    first = -(-(table + 64 * blocks) // 4096) * 4096
    block_bytes = layers * 2 * heads * 32 * head_dim * width
    assert len(data) == first + blocks * block_bytes, "the format has changed"
    data[first:first + 4] = b"\xff" * 4  # NaN in each of the types
    block = bytes(data[first:first + block_bytes])
    data[table + 32:table + 64] = hashlib.blake2b(block, digest_size=32).digest()
    data[64:96] = bytes(32)
    head = bytes(data[:64]) + bytes(data[96:first])
    data[64:96] = hashlib.blake2b(head, digest_size=32).digest()
    return bytes(data)


if __name__ == "__main__":
    unittest.main()
