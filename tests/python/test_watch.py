"""If this failed, somebody who follows a space from Python would miss a change, or see one
twice."""
import asyncio
import tempfile
import unittest
import uuid

import memos
from memos._schema import pb

from fake_broker import PROTOCOL, FakeBroker

ID = uuid.UUID("01923456-789a-7bcd-8ef0-123456789abc")


class Space:
    """A space whose puts are published as their reason says, and the broker that has it."""

    def __init__(self, folder):
        self.seq = 0
        self.tokens = 0
        self.moving = False  # every token is another
        self.events = f"ipc://{folder}/b.pub"
        self.address = f"ipc://{folder}/b.sock"
        self.broker = FakeBroker(self.address, self.handle, self.events)

    @property
    def token(self):
        return b"token-%d" % (self.tokens if self.moving else 0)

    def handle(self, request):
        body = request.body
        if request.kind == "hello":
            request.reply(welcome=pb.Welcome(events=self.events))
        elif request.kind == "watch":
            self.tokens += 1
            request.reply(watch_token=pb.WatchToken(token=self.token, lease_ms=1000, seq=self.seq))
        elif request.kind == "log":
            first = getattr(body, "from")
            records = [pb.LogRecord(seq=seq, author="ann", entries_total=1,
                                    entries=[pb.LogEntry(id=ID.bytes, number=seq)])
                       for seq in range(first, min(self.seq, first + 6) + 1)]
            request.reply(log_records=pb.LogRecords(records=records, head_seq=self.seq))
        else:
            self.put(request, body.reason)

    def put(self, request, how):
        if how == "garbage":
            self.broker.publisher.send_multipart([self.token, PROTOCOL, b"\xff"])
        else:
            self.seq += 1
        for seq in {"tell": [self.seq], "twice": [self.seq, self.seq, 1]}.get(how, []):
            event = pb.Event(space="s", seq=seq, author="ann", refs_total=1,
                             refs=[pb.Ref(id=ID.bytes, number=seq)])
            self.broker.publisher.send_multipart([self.token, PROTOCOL, event.SerializeToString()])
        request.reply(outcome=pb.Outcome())


class Watching(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.space = Space(self.folder.name)
        self.addCleanup(self.space.broker.close)
        self.client = memos.Client(self.space.address)
        self.addCleanup(self.client.close)

    def check(self, event, seq):
        self.assertEqual((event.seq, event.space, event.author, event.refs, event.refs_total),
                         (seq, "s", "ann", [memos.Ref(ID, seq)], 1))

    def test_every_change_comes_once_and_in_order(self):
        self.client.put("s", "x", reason="tell")  # before the watch: not one of its events
        with self.client.watch("s") as watch:
            for number in range(50):
                self.client.put("s", "x", reason=("quiet", "tell", "twice")[number % 3])
            for seq in range(2, 52):
                self.check(watch.next(10), seq)
            self.assertIsNone(watch.next(0))

    def test_it_is_an_iterator(self):
        with self.client.watch("s") as watch:
            self.client.put("s", "x", reason="quiet")
            for event in watch:
                self.check(event, 1)
                break

    def test_garbage_is_an_error_and_no_more(self):
        with self.client.watch("s") as watch:
            errors = 0
            for seq in range(1, 20):
                self.client.put("s", "x", reason="garbage")
                self.client.put("s", "x", reason="tell")
                while True:
                    try:
                        self.check(watch.next(10), seq)
                        break
                    except memos.Corrupt:
                        errors += 1
            self.assertLessEqual(errors, 19)

    def test_a_new_token_is_followed(self):
        self.space.moving = True
        with self.client.watch("s") as watch:
            for seq in range(1, 5):
                self.assertIsNone(watch.next(0.15))
                self.client.put("s", "x", reason="tell")
                self.check(watch.next(10), seq)
        self.assertGreater(self.space.tokens, 2)

    def test_a_broker_without_events_says_so(self):
        self.space.events = ""
        with self.assertRaises(memos.Unsupported):
            self.client.watch("s")

    def test_for_asyncio(self):
        async def follow():
            async with memos.AsyncClient(self.space.address) as client:
                async with client.watch("s") as watch:
                    for number in range(20):
                        await client.put("s", "x", reason=("quiet", "twice")[number % 2])
                    for seq in range(1, 21):
                        self.check(await watch.next(10), seq)
                    self.assertIsNone(await watch.next(0))
                    await client.put("s", "x", reason="tell")
                    async for event in watch:
                        self.check(event, 21)
                        break

        asyncio.run(follow())


if __name__ == "__main__":
    unittest.main()
