"""If this failed, tasks of one event loop would get each other's answers, or wait for ever."""
import asyncio
import tempfile
import unittest
import uuid
from pathlib import Path

import memos
from memos._schema import pb

from fake_broker import PROTOCOL, FakeBroker

ID = uuid.UUID("01923456-789a-7bcd-8ef0-123456789abc")


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.address = f"ipc://{self.folder.name}/b.sock"
        self.held = []
        self.kinds = []
        broker = FakeBroker(self.address, self.handle)
        self.addCleanup(broker.close)

    def handle(self, request):
        self.kinds.append(request.kind)
        if request.kind == "cancel":
            self.cancelled = request.body.request_id
        elif request.kind == "export":
            request.reply(b"ab", more=True, export_part=pb.ExportPart(offset=0, frame=1))
            request.reply(export_part=pb.ExportPart(
                offset=2, summary=pb.ArchiveSummary(space_id=ID.bytes)))
        elif request.kind == "stats":  # lets those go that were held, the last first
            for held in reversed(self.held):
                held.reply(verify_result=pb.VerifyResult(what=held.body.space))
            self.held.clear()
            request.reply(stats_result=pb.StatsResult())
        elif request.kind == "generate":
            request.reply(more=True, tokens=pb.Tokens(text="half"))
        elif request.body.space == "garbage":
            request.raw(PROTOCOL, b"\xff\xff")
        elif request.body.space == "refused":
            request.reply(status=8, message="no")
        elif request.body.space == "late":
            pass
        else:
            self.held.append(request)

    async def test_many_calls_at_once_each_get_their_own(self):
        async with memos.AsyncClient(self.address) as client:
            calls = [asyncio.ensure_future(client.verify(f"s{n}")) for n in range(200)]
            while len(self.held) < 200:
                await asyncio.wait(calls, timeout=0.01)
            await client.stats()
            for number, result in enumerate(await asyncio.gather(*calls)):
                self.assertEqual(result.what, f"s{number}")

    async def test_refusals_and_deadlines_are_exceptions(self):
        async with memos.AsyncClient(self.address, timeout=0.1) as client:
            with self.assertRaises(memos.Deadline):
                await client.verify("late")
        async with memos.AsyncClient(self.address) as client:
            with self.assertRaises(memos.Denied):
                await client.verify("refused")
            with self.assertRaises(memos.Corrupt):
                await client.verify("garbage")
            await client.stats()

    async def test_a_cancelled_call_is_cancelled_at_the_broker(self):
        async with memos.AsyncClient(self.address) as client:
            call = asyncio.ensure_future(client.verify("late"))
            while not self.kinds:
                await asyncio.wait([call], timeout=0.01)
            call.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await call
            await client.stats()
            self.assertEqual(self.kinds, ["verify", "cancel", "stats"])
            self.assertEqual(self.cancelled, 1)

    async def test_an_export_goes_to_its_file(self):
        target = Path(self.folder.name) / "x"
        async with memos.AsyncClient(self.address) as client:
            self.assertEqual((await client.export("s", target)).space_id, ID)
        self.assertEqual(target.read_bytes(), b"ab")

    async def test_closing_ends_what_waits(self):
        client = memos.AsyncClient(self.address)
        call = asyncio.ensure_future(client.verify("late"))
        while not self.kinds:
            await asyncio.wait([call], timeout=0.01)
        await client.close()
        with self.assertRaises(memos.Unavailable):
            await call

    async def test_what_waits_ends_with_its_connection(self):
        address = f"ipc://{self.folder.name}/lost.sock"
        async with memos.AsyncClient(address, timeout=60) as client:
            broker = FakeBroker(address, self.handle)
            calls = [asyncio.ensure_future(client.verify("late")) for _ in range(3)]
            answer = client.generate("Once", timeout=60)
            self.assertEqual(await answer.__anext__(), "half")
            calls.append(asyncio.ensure_future(answer.result()))
            while len(self.kinds) < 4:
                await asyncio.wait(calls, timeout=0.01)
            await asyncio.to_thread(broker.close)
            for call in calls:
                with self.assertRaisesRegex(memos.Deadline, "may have been done"):
                    await asyncio.wait_for(call, 30)
            with FakeBroker(address, self.handle):
                await asyncio.wait_for(client.stats(), 30)

    async def test_no_broker_is_said_at_once(self):
        async with memos.AsyncClient(f"ipc://{self.folder.name}/none", timeout=60) as client:
            with self.assertRaisesRegex(memos.Unavailable, "memosctl up"):
                await asyncio.wait_for(client.stats(), 30)


if __name__ == "__main__":
    unittest.main()
