"""One byte of the data file is changed behind the broker's back.

If this failed, somebody could rewrite what was remembered, and the proof would still say "intact".
"""
import unittest

import harness
from harness import Wire, pb

MARK = b"because-the-doctor-said-so"


class Tamper(harness.BrokerTest):
    def test_verify_names_the_record(self) -> None:
        for number in range(30):
            reason = MARK.decode() if number == 17 else f"reason {number}"
            self.wire.ask([b"fact %d" % number], put=pb.Put(
                space="facts", reason=reason, drafts=[pb.Draft(frame=1)]))
        intact = self.wire.ask(verify=pb.Verify(space="facts")).reply.verify_result
        self.assertTrue(intact.intact)
        self.assertEqual(intact.records, 30)
        self.wire.close()
        self.assertEqual(self.broker.stop(), 0)
        flipped = self.flip()
        print(f"changed {flipped} copies of one byte")
        self.broker.start()
        with Wire(self.broker.address) as wire:
            result = wire.ask(verify=pb.Verify(space="facts")).reply.verify_result
            self.assertFalse(result.intact)
            self.assertEqual(result.bad_seq, 18)
            self.assertTrue(result.what)
            found = wire.ask(fsck=pb.Fsck()).reply.fsck_result
            self.assertGreater(found.problems, 0)
            # what comes before it is still proved, and still served
            self.assertTrue(any("fact 3" == wire.text("facts", cube)
                                for cube in self.cubes(wire)))
        printed = harness.ctl(self.broker, "verify", "facts", check=False)
        self.assertNotEqual(printed.returncode, 0)
        self.assertIn("18", printed.stdout + printed.stderr)

    def flip(self) -> int:
        """Change one byte of the reason wherever the engine keeps a copy of that page."""
        [data] = self.broker.data.rglob("data.mdb")
        content = bytearray(data.read_bytes())
        at, count = content.find(MARK), 0
        while at >= 0:
            content[at + 5] ^= 0x20
            count += 1
            at = content.find(MARK, at + 1)
        self.assertGreater(count, 0, "the reason is not in the data file")
        data.write_bytes(content)
        return count

    @staticmethod
    def cubes(wire: Wire) -> list[bytes]:
        listing = wire.ask(list=pb.List(space="facts", count_max=100))
        return [cube.id for cube in listing.reply.cubes.cubes]


if __name__ == "__main__":
    unittest.main()
