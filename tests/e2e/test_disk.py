"""The disk is full, or fails, while the broker runs; the broker must say so and lose nothing.

If this failed, a full disk would take the memories with it that were there before, or somebody
would be told "it is remembered" when the disk had refused.

tests/fault is preloaded into memosd; what it lets fail is changed while the broker runs.
"""
import os
import unittest

import zmq

import harness
from harness import IO, NO_SPACE, OK, Wire, pb


class Disk(harness.BrokerTest):
    flags = ("--map-bytes", "1M")  # so that growing the map is part of it

    def setUp(self) -> None:
        self.random = harness.seeded()
        self.acknowledged: list[tuple[bytes, str]] = []
        super().setUp()

    def make_broker(self) -> harness.Broker:
        self.plan_path = self.folder / "plan"
        self.plan("")
        return harness.Broker(self.folder, *self.flags, environment={
            "LD_PRELOAD": os.environ["MEMOS_FAULT_LIB"], "MEMOS_FAULT_FILE": str(self.plan_path)})

    def plan(self, plan: str, where: str = "/data/") -> None:
        """What fails from now on, in the store (tests/fault/fault_inject.h)."""
        fresh = self.plan_path.with_suffix(".new")
        fresh.write_text(f"{plan} {where}\n" if plan else "\n", encoding="ascii")
        fresh.rename(self.plan_path)

    def put(self, text: str) -> int:
        answer = self.wire.ask([text.encode()], put=pb.Put(
            space="disk", drafts=[pb.Draft(frame=1)]))
        if answer.status == OK:
            self.acknowledged.append((answer.reply.outcome.refs[0].id, text))
        return answer.status

    def check_acknowledged(self, wire: Wire) -> None:
        for cube, text in self.acknowledged:
            self.assertEqual(wire.text("disk", cube), text)

    def restart_and_check(self) -> None:
        """Nothing that was acknowledged is gone, nor half of what was not there."""
        self.plan("")
        self.wire.close()
        self.broker.kill()
        self.broker.start()
        self.wire = Wire(self.broker.address)
        self.addCleanup(self.wire.close)
        self.check_acknowledged(self.wire)
        self.assert_sound(self.wire, "disk")

    def test_a_full_disk(self) -> None:
        """Writes are refused, reads are served, and when there is room it goes on by itself."""
        for number in range(30):
            self.assertEqual(self.put(f"before {number}"), OK)
        self.plan("ENOSPC write,sync,truncate 0 0")
        for number in range(5):
            self.assertEqual(self.put(f"refused {number}"), NO_SPACE)
        self.check_acknowledged(self.wire)
        found = self.wire.ask(search=pb.Search(space="disk", text="before 7"))
        self.assertEqual(found.status, OK, found.reply)
        self.assertTrue(found.reply.hits.hits)
        self.plan("")
        self.assertEqual(self.put("after"), OK, "it did not recover")
        self.assert_sound(self.wire, "disk")
        self.restart_and_check()

    def test_a_full_disk_and_a_large_payload(self) -> None:
        self.assertEqual(self.put("small"), OK)
        self.plan("ENOSPC write,sync,truncate 0 0", "/blobs/")
        self.assertEqual(self.put("x" * 300_000), NO_SPACE)
        self.assertEqual(self.put("also small"), OK)
        self.plan("")
        self.assertEqual(self.put("y" * 300_000), OK)
        self.restart_and_check()

    def test_a_failing_disk(self) -> None:
        """After EIO the broker may give up, but never an acknowledged write."""
        for number in range(20):
            self.assertEqual(self.put(f"before {number}"), OK)
        self.plan("EIO write,sync 0 3")
        self.assertEqual(self.put("refused"), IO)
        self.restart_and_check()
        self.assertEqual(self.put("after"), OK)

    def test_each_call_fails_once(self) -> None:
        """The first, the second, ... call fails, once: the answer is an error or the truth."""
        refused = 0
        self.assertEqual(self.put("so that there is a space"), OK)
        for error in ("ENOSPC", "EIO"):
            for skip in range(12 if harness.SANITIZED else 25):
                self.plan(f"{error} all {skip} 1")
                for number in range(6):
                    size = self.random.choice([20, 2000, 90_000])
                    try:
                        status = self.put(f"{error} {skip} {number} " + "z" * size)
                    except zmq.Again:
                        self.assertFalse(self.broker.running(), "it hangs")
                        break
                    self.assertIn(status, (OK, NO_SPACE, IO))
                    refused += status != OK
                self.restart_and_check()
        print(f"{refused} writes refused, {len(self.acknowledged)} acknowledged")
        self.assertGreater(refused, 10, "nothing failed: this tested nothing")


if __name__ == "__main__":
    unittest.main()
