"""A GPU that fails under a worker (an emulated one: tests/cuda).

If this failed, one fault of a GPU would end a host model until somebody noticed, or clients would
wait for what never comes.
"""
import time
import unittest

import workers
from harness import OK, Wire
from workers import Told, gather, infos, say, send, wait_for

SERVED_S = 10  # a worker that fails sooner does not begin anew (memos-worker(8))


class LostDevice(workers.WorkerTest):
    workers = 0

    def test_a_worker_outlives_its_gpu(self) -> None:
        """Who was being answered is told; the worker begins anew, as the same process, and answers
        as before."""
        lose = self.broker.folder / "lose"
        worker = self.start_worker(environment={"MEMOS_EMULATE_LOSE": str(lose)})
        began = time.monotonic()
        before = say(self.wire, "by the lake", max_tokens=3)
        wait_for("some time to pass", lambda: time.monotonic() > began + SERVED_S + 1, 60)
        with Wire(self.broker.address) as client:
            request = send(client, "in the middle", max_tokens=4000)
            first = client.receive()
            self.assertTrue(first.reply.more, first.reply)
            lose.touch()
            *_, last = client.answers(request)
        print(f"told: {last.status} {last.reply.message}")
        self.assertNotEqual(last.status, OK)
        self.assertTrue(last.reply.message)
        wait_for("the worker to begin anew", lambda: "beginning anew" in worker.said())
        after = wait_for("an answer", self.answered)
        self.assertEqual(after.ids, before.ids)
        self.assertTrue(worker.running())
        self.assertEqual([info.announced.name for info in infos(self.wire).workers], [worker.name])

    def answered(self) -> Told | None:
        told = gather(self.wire, send(self.wire, "by the lake", max_tokens=3))
        return told if told.status == OK else None


if __name__ == "__main__":
    unittest.main()
