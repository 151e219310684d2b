"""tools/eval/remember on a conversation of its own, and on one of LoCoMo's where that is there.

If this failed, a model could go on with what somebody corrected, forget what he took back, or keep
receipts that nobody can verify; or the driver could praise what does not happen.
"""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import harness

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "tools" / "eval" / "remember"
LOCOMO = ROOT / ".." / "shared" / "data" / "locomo"

# session, time, then who said what
SESSIONS = [
    ("1:56 pm on 8 May, 2023", [
        ("Ada", "I bought a red bicycle in Utrecht."),
        ("Ben", "Lovely! How did you get it home?"),
        ("Ada", "By train, it had a carriage for bicycles."),
        ("Ben", "My parrot learned to whistle the anthem.")]),
    ("9:10 am on 2 June, 2023", [
        ("Ada", "My sister Eva plays the violin in the city's orchestra now."),
        ("Ben", "The boiler was repaired on Tuesday, at last it is warm."),
        ("Ada", "We adopted a greyhound, her name is Comet."),
        ("Ben", "I moved to Lisbon for the winter.")]),
]
QUESTIONS = [("Which bicycle did Ada buy?", "D1:1"), ("What can the parrot whistle?", "D1:4"),
             ("Who plays the violin?", "D2:1")]


def write_conversation(folder: Path) -> None:
    turns = []
    for session, (when, said) in enumerate(SESSIONS, 1):
        turns += [{"conv": "c-1", "session": session, "date_time": when,
                   "dia_id": f"D{session}:{at}", "speaker": who, "text": text}
                  for at, (who, text) in enumerate(said, 1)]
    questions = [{"qid": f"c-1/q{at}", "conv": "c-1", "category": 4, "question": text,
                  "evidence": [where]} for at, (text, where) in enumerate(QUESTIONS)]
    for name, lines in (("turns", turns), ("qa", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines),
                                              encoding="utf-8")


class Remember(unittest.TestCase):
    def run_driver(self, data: Path, *arguments: str) -> dict:
        """All steps with a tiny model in float32; what must hold of any of them is held here."""
        run = subprocess.run(
            [str(DRIVER), "--shape", "tiny", "--encoder", "ngrams", "--threads", "2", *arguments,
             str(data), "--", "--weights", "f32", "--backend", "cpu"],
            capture_output=True, text=True, check=False, timeout=150 * harness.SLOWER,
            env={**os.environ, "XDG_DATA_HOME": str(data / "share")})
        print(run.stdout)
        self.assertEqual(run.returncode, 0, run.stderr)
        result = json.loads(run.stdout.splitlines()[-1])
        n = result["n"]
        self.assertGreater(result["tokens"], 0)
        for name in ("loaded", "same", "updated_unused", "rolled_back_loaded", "rolled_back_same"):
            self.assertEqual(result[name], n, (name, result))
        self.assertGreaterEqual(result["captures"], 1)
        self.assertEqual(result["stale"], result["captures"])
        self.assertEqual(result["stale_after_rollback"], 0)
        self.assertEqual((result["receipts"], result["verified"], result["verified_at_the_end"]),
                         (4 * n, 4 * n, 4 * n))
        return result

    def test_a_small_conversation(self) -> None:
        with tempfile.TemporaryDirectory(prefix="memos-") as folder:
            write_conversation(Path(folder))
            result = self.run_driver(Path(folder), "--conversation", "c-1", "--questions", "3")
            self.assertEqual((result["n"], result["evidence"]), (3, 100.0))

    def test_one_of_locomo(self) -> None:
        if not LOCOMO.is_dir():
            self.skipTest("LoCoMo is not there")
        with tempfile.TemporaryDirectory(prefix="memos-") as folder:
            for name in ("turns.jsonl", "qa.jsonl"):
                (Path(folder) / name).symlink_to((LOCOMO / name).resolve())
            self.run_driver(Path(folder), "--questions", "4", "--budget", "600")


if __name__ == "__main__":
    unittest.main()
