"""Answers of models that come in parts, scores, captures and workers.

If this failed, a Python program would miss a part of an answer, take another's for its own, or not
learn that there is none.
"""
import asyncio
import tempfile
import unittest
import uuid

import memos
from memos import _convert
from memos._schema import pb

from fake_broker import FakeBroker

ID = uuid.UUID("01923456-789a-7bcd-8ef0-123456789abc")
RECEIPT = pb.Receipt(id=b"i", space="me", seq=7, head=b"h", model="tiny", worker="w1",
                     time_us=5, items=[pb.ReceiptItem(
                         ref=pb.Ref(id=ID.bytes, number=2), payload_hash=b"p", used_as=3,
                         first_token=9, tokens=12, bytes=30, micros=5, score=0.5, mark="[1]")])
SAID = pb.Generated(finish=1, frame=1, prompt_tokens=20, cached_tokens=4, tokens=3,
                    queued_us=1000, first_us=2_000_000, receipt=RECEIPT,
                    receipt_ref=pb.Ref(id=ID.bytes, number=1))


class Played:
    """With a broker that plays a worker, too."""

    def play(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.address = f"ipc://{folder.name}/b.sock"
        self.seen = []
        broker = FakeBroker(self.address, self.handle)
        self.addCleanup(broker.close)

    def last(self, kind):
        return [request for request in self.seen if request.kind == kind][-1]

    def handle(self, request):
        self.seen.append(request)
        getattr(self, "handle_" + request.kind)(request)

    def handle_generate(self, request):
        if request.body.space == "refused":
            request.reply(status=18, message="no worker")
            return
        for piece in ("fine", "", ", thanks"):
            request.reply(more=True, tokens=pb.Tokens(text=piece))
        request.reply(more=True, tokens=pb.Tokens(text="another's"), id=request.message.id + 1000)
        if request.body.space == "lost":
            request.reply(status=18, message="the worker is gone")
        elif request.body.space != "endless":
            request.reply("fine, thanks".encode(), generated=SAID)

    def handle_cancel(self, request):
        request.reply()

    def handle_workers(self, request):
        request.reply(worker_infos=pb.WorkerInfos(workers=[pb.WorkerInfo(
            id=b"a", announced=pb.WorkerAnnounce(name="w1", jobs_max=4, models=[
                pb.WorkerModel(name="tiny", fingerprint=b"f", template="chatml", context=99)]),
            last=pb.WorkerHeartbeat(tokens=5), quiet_ms=1500)]))

    def handle_score(self, request):
        count = 0 if request.body.space == "none" else len(request.body.frames)
        request.reply(scored=pb.Scored(texts=[
            pb.TextScore(tokens=2, bytes=3, logprob=-1.5, logprobs=[-1, -0.5])] * count))

    def handle_capture(self, request):
        request.reply(captured=pb.Captured(captures=[pb.CaptureMade(
            ref=pb.Ref(id=ID.bytes, number=1), tokens=5, bytes=6, read_us=500_000,
            shared_tokens=3)]))


class Synchronous(Played, unittest.TestCase):
    def setUp(self):
        self.play()
        self.client = memos.Client(self.address)
        self.addCleanup(self.client.close)

    def test_an_answer_comes_in_parts(self):
        generation = self.client.generate([memos.Message("user", "How are you?")], space="me")
        self.assertEqual(list(generation), ["fine", ", thanks"])
        answer = generation.result
        self.assertEqual((answer.text, answer.finish, answer.cached_tokens, answer.first),
                         ("fine, thanks", memos.Finish.STOP, 4, 2.0))
        self.assertEqual(answer.receipt_ref, memos.Ref(ID, 1))
        [item] = answer.receipt.items
        self.assertEqual((item.ref, item.used_as, item.size),
                         (memos.Ref(ID, 2), memos.UsedAs.TEXT_IN_KV, 30))
        self.assertEqual(self.client.generate("Once").result.text, "fine, thanks")
        self.assertEqual(self.client.workers()[0].name, "w1")

    def test_fields(self):
        self.client.generate(
            [memos.Message("system", "Be kind."), memos.Message("user", "hi")], space="me",
            model="tiny", memory=memos.Memory(
                query="q", filter=memos.Filter(tags=["a"]), top_k=3, budget=9, as_of=4,
                cubes=[memos.Ref(ID, 0)], captures=memos.Captures.NEVER, independent=True,
                recompute=2, capture=True, without=[ID]),
            sampling=memos.Sampling(temperature=0.0, top_k=5, seed=8), max_tokens=7,
            stops=["a"], template="chatml", no_thinking=True, cut_front=True, keep_receipt=True,
            timeout=5).result
        request = self.last("generate")
        self.assertEqual(request.message.deadline_ms, 5000)
        self.assertEqual(request.frames, [b"Be kind.", b"hi"])
        self.assertEqual(request.body, pb.Generate(
            space="me", model="tiny", template="chatml", no_thinking=True, cut_front=True,
            keep_receipt=True, max_tokens=7, stops=["a"],
            messages=[pb.ChatMessage(role="system", frame=1), pb.ChatMessage(role="user", frame=2)],
            sampling=pb.Sampling(temperature=0, top_k=5, seed=8, own=2 + 4 + 16),
            memory=pb.Memory(search=True, query="q", filter=pb.Filter(tags=["a"]), top_k=3,
                             budget_tokens=9, as_of=pb.AsOf(seq=4),
                             cubes=[pb.Ref(id=ID.bytes)], captures=1, independent=1,
                             recompute_tokens=2, capture=True, without=[ID.bytes])))
        self.client.generate("Once", space="me").result
        self.assertTrue(self.last("generate").body.memory.search)
        self.client.generate("Once").result
        self.assertFalse(self.last("generate").body.HasField("memory"))

    def test_own_ways_are_the_bits_of_the_schema(self):
        self.assertEqual(_convert.sampling(memos.Sampling()).own, 31)

    def test_what_goes_wrong_is_raised(self):
        with self.assertRaises(memos.Unavailable):
            self.client.generate("x", space="refused").result
        generation = self.client.generate("x", space="lost")
        self.assertEqual([next(generation), next(generation)], ["fine", ", thanks"])
        with self.assertRaises(memos.Unavailable):
            next(generation)
        with self.assertRaises(memos.Deadline):
            self.client.generate("x", space="endless", timeout=0.2).result

    def test_leaving_cancels(self):
        with self.client.generate("x", space="endless") as generation:
            self.assertEqual(next(generation), "fine")
        self.client.workers()
        self.assertEqual(self.last("cancel").body.request_id, self.last("generate").message.id)
        with self.assertRaises(memos.Cancelled):
            generation.result

    def test_scores_and_captures(self):
        [one, two] = self.client.score(["abc", "def"], prompt="Q", space="me", logprobs=True,
                                       memory=memos.Memory(search=False, cubes=[memos.Ref(ID, 2)]))
        self.assertEqual((one, two), (memos.TextScore(2, 3, -1.5, [-1.0, -0.5]),) * 2)
        request = self.last("score")
        self.assertEqual((request.body.prompt_frame, list(request.body.frames), request.frames),
                         (1, [2, 3], [b"Q", b"abc", b"def"]))
        with self.assertRaises(memos.Corrupt):
            self.client.score("abc", space="none")
        [made] = self.client.capture("me", [ID], messages=[memos.Message("system", "s")], dtype=3)
        self.assertEqual((made.ref, made.size, made.read), (memos.Ref(ID, 1), 6, 0.5))
        self.assertEqual(self.last("capture").body.ids, [ID.bytes])


class Asynchronous(Played, unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.play()

    async def test_many_answers_at_once(self):
        async with memos.AsyncClient(self.address) as client:
            async def one(number):
                generation = client.generate(str(number), space="me")
                pieces = [piece async for piece in generation]
                return pieces, (await generation.result()).text
            for pieces, text in await asyncio.gather(*[one(n) for n in range(50)]):
                self.assertEqual((pieces, text), (["fine", ", thanks"], "fine, thanks"))
            self.assertEqual((await client.workers())[0].models[0].template, "chatml")

    async def test_what_goes_wrong_and_leaving(self):
        async with memos.AsyncClient(self.address) as client:
            with self.assertRaises(memos.Unavailable):
                await client.generate("x", space="lost").result()
            with self.assertRaises(memos.Deadline):
                await client.generate("x", space="endless", timeout=0.2).result()
            async with client.generate("x", space="endless") as generation:
                async for piece in generation:
                    self.assertEqual(piece, "fine")
                    break
            await client.workers()
            self.assertEqual(self.last("cancel").body.request_id,
                             self.last("generate").message.id)
            self.assertEqual(client._waiting, {})


if __name__ == "__main__":
    unittest.main()
