"""The evaluation driver counts right.

If this failed, a change that makes search worse could be praised for making it better.
"""
import json
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TURNS = [
    ("D1:1", "Ada", "I bought a red bicycle in Utrecht.", None),
    ("D1:2", "Ben", "Lovely! How did you get it home?", None),
    ("D1:3", "Ada", "By train, look.", "a photo of a bicycle in a train"),
    ("D1:4", "Ben", "My parrot learned to whistle the anthem.", None),
]

# What it asks, where the answer is, and how much of that can be found (D9:9 does not exist).
QUESTIONS = [
    (1, "Which bicycle did Ada buy?", ["D1:1"]),
    (4, "What can the parrot whistle?", ["D1:4", "D9:9"]),
    (5, "Who stole the bicycle?", ["D1:1"]),  # adversarial: not counted
    (3, "What would Ada like?", []),          # without evidence: not counted
]


class Eval(unittest.TestCase):
    def test_a_small_folder(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with open(Path(folder, "turns.jsonl"), "w", encoding="utf-8") as file:
                for name, speaker, text, caption in TURNS:
                    turn = {"conv": "c-1", "session": 1, "date_time": "1:56 pm on 8 May, 2023",
                            "dia_id": name, "speaker": speaker, "text": text}
                    if caption:
                        turn["image_caption"] = caption
                    print(json.dumps(turn), file=file)
            with open(Path(folder, "qa.jsonl"), "w", encoding="utf-8") as file:
                for number, (category, question, evidence) in enumerate(QUESTIONS):
                    print(json.dumps({"qid": f"c-1/q{number}", "conv": "c-1", "category": category,
                                      "question": question, "evidence": evidence}), file=file)
            result = subprocess.run([str(ROOT / "tools" / "eval" / "locomo"), folder],
                                    capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(result.returncode, 0, result.stderr)
        print(result.stdout)
        self.assertEqual(json.loads(result.stdout.splitlines()[-1]),
                         {"eval": "locomo", "n": 2, "R@5": 75.0, "R@10": 75.0, "R@20": 75.0})


if __name__ == "__main__":
    unittest.main()
