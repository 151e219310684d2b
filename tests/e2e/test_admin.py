"""An administrator's afternoon, with memosctl: twenty facts change, a rollback to a moment, the
difference, the undoing of it, the proof.

If this failed, nobody could put right what an assistant learned wrong.
"""
import datetime
import unittest
from pathlib import Path

import harness
from harness import OK, pb

SAMPLE = Path(__file__).resolve().parents[2] / "tools" / "sample" / "conversation.jsonl"
SPACE = "team/nora"
CHANGED = 20
EPOCH = datetime.datetime(1970, 1, 1)


class Admin(harness.BrokerTest):
    def ctl(self, *arguments: str) -> str:
        return harness.ctl(self.broker, *arguments).stdout

    def texts(self, as_of: pb.AsOf | None = None) -> dict[bytes, str]:
        """What every cube of the space says."""
        answer = self.wire.ask(list=pb.List(
            space=SPACE, payload=True, count_max=1000, as_of=as_of))
        self.assertEqual(answer.status, OK, answer.reply)
        return {cube.id: answer.frames[cube.frame - 1].decode()
                for cube in answer.reply.cubes.cubes}

    def seq(self) -> int:
        infos = self.wire.ask(spaces=pb.Spaces()).reply.space_infos.spaces
        return next(info.seq for info in infos if info.name == SPACE)

    def last_time_us(self) -> int:
        log = self.wire.ask(log=pb.Log(space=SPACE, newest_first=True, count_max=1))
        return log.reply.log_records.records[0].time_us

    def test_an_afternoon(self) -> None:
        self.ctl("import", SPACE, str(SAMPLE))
        imported = self.texts()
        self.assertGreaterEqual(len(imported), CHANGED)
        self.ctl("import", SPACE, str(SAMPLE))
        before, moment_us = self.seq(), self.last_time_us()
        self.assertEqual(self.texts(), imported, "the same import changed something")

        cubes = sorted(imported)[:CHANGED]
        for number, cube in enumerate(cubes):
            self.ctl("update", SPACE, cube.hex(), f"Fact {number} is not what it was.",
                     "--reason", "learned wrong")
        changed, after = self.texts(), self.seq()
        self.assertEqual(sum(changed[c] != imported[c] for c in imported), CHANGED)
        self.assertEqual(after, before + CHANGED)

        moment = (EPOCH + datetime.timedelta(microseconds=moment_us)).isoformat() + "Z"
        preview = self.ctl("rollback", SPACE, "--to-time", moment, "--dry-run")
        print(preview)
        self.assertIn(str(CHANGED), preview)
        self.assertEqual((self.seq(), self.texts()), (after, changed), "a dry run is not dry")
        self.ctl("rollback", SPACE, "--to-time", moment, "--yes", "--reason", "all wrong")
        self.assertEqual(self.texts(), imported)
        difference = self.ctl("diff", SPACE, cubes[3].hex())
        print(difference)
        self.assertIn("Fact 3 is not what it was.", difference)
        self.assertIn(imported[cubes[3]], difference)

        self.ctl("rollback", SPACE, "--to", str(after), "--yes", "--reason", "it was right")
        self.assertEqual(self.texts(), changed, "the rollback could not be undone")
        self.assertEqual(self.texts(pb.AsOf(seq=before)), imported, "the past has changed")
        print(self.ctl("verify", SPACE))
        print(self.ctl("log", SPACE, "--limit", "3"))
        self.assert_sound(self.wire, SPACE)


if __name__ == "__main__":
    unittest.main()
