"""The evaluation drivers count right.

If this failed, a change that makes search worse could be praised for making it better.
"""
import importlib.machinery
import importlib.util
import json
import lzma
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EVAL = ROOT / "tools" / "eval"
sys.path.insert(0, str(EVAL))

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




def write_lines(path: Path, objects) -> None:
    """A .jsonl file, packed when its name says so."""
    path.parent.mkdir(exist_ok=True)
    packed = path.suffix == ".xz"
    with (lzma.open(path, "wt", encoding="utf-8") if packed
          else open(path, "w", encoding="utf-8")) as file:
        for one in objects:
            print(json.dumps(one), file=file)


def write_table(path: Path, *rows) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def write_locomo(folder: Path) -> None:
    turns = []
    for name, speaker, text, caption in TURNS:
        turn = {"conv": "c-1", "session": 1, "date_time": "1:56 pm on 8 May, 2023",
                "dia_id": name, "speaker": speaker, "text": text}
        turns.append({**turn, "image_caption": caption} if caption else turn)
    write_lines(folder / "turns.jsonl", turns)
    write_lines(folder / "qa.jsonl", [
        {"qid": f"c-1/q{number}", "conv": "c-1", "category": category, "question": question,
         "evidence": evidence, **({"audit": {"type": "HALLUCINATION"}} if number == 1 else {})}
        for number, (category, question, evidence) in enumerate(QUESTIONS)])


def write_longmemeval(folder: Path) -> None:
    texts = {"s0": "My sister plays the violin.", "s1": "The boiler was repaired on Tuesday.",
             "s2": "We adopted a greyhound."}
    write_lines(folder / "s_sample.jsonl.xz", [{
        "question_id": "q1", "question": "Who repaired the boiler?", "abstention": False,
        "question_date": "2023/11/10 (Fri) 04:20", "answer_session_ids": ["s1", "s9"],
        "sessions": [{"session_id": name, "date": "2023/05/11 (Thu) 02:02", "turns": [
            {"role": "user", "content": text}, {"role": "assistant", "content": "I see."}]}
            for name, text in texts.items()]}])


def write_others(folder: Path) -> None:
    """The sets that are not conversations of one user."""
    write_lines(folder / "prefeval" / "preferences.jsonl", [
        {"id": "food/0", "topic": "food", "preference": "I never eat mushrooms.",
         "question": "Which mushrooms should I eat?"},
        {"id": "rooms/0", "topic": "rooms", "preference": "I sleep badly near lifts.",
         "question": "Which room near the lifts?"}])
    write_lines(folder / "scifact" / "corpus.jsonl.xz", [
        {"doc_id": 4, "title": "Zinc", "sentences": ["Zinc shortens colds.", "By a day."]},
        {"doc_id": 5, "title": "Sleep", "sentences": ["Sleep helps memory."]}])
    write_lines(folder / "scifact" / "claims.jsonl", [{"id": 1, "claim": "Zinc shortens colds."},
                                                      {"id": 2, "claim": "Nobody judged this."}])
    write_table(folder / "scifact" / "qrels.tsv", ("query_id", "doc_id", "relevance"),
                ("1", "4", "1"))
    write_lines(folder / "squad" / "paragraphs.jsonl.xz", [
        {"pid": "Delft/0", "title": "Delft", "split": "val", "text": "Its potters glaze tiles."},
        {"pid": "Gouda/0", "title": "Gouda", "split": "fit", "text": "Its farmers sell cheese."}])
    write_lines(folder / "squad" / "questions.jsonl.xz", [
        {"pid": "Delft/0", "q": "Who glaze tiles in Delft?", "a": "potters"},
        {"pid": "Gouda/0", "q": "Who sell cheese?", "a": "farmers"}])
    write_lines(folder / "qmsum" / "meetings.jsonl.xz", [{
        "meeting": "m1", "turns": [["A", "Shall we order?"], ["B", "The budget is spent."],
                                   ["A", "The remote control needs rubber."]],
        "specific": [{"query": "What about the remote control?", "answer": "",
                      "spans": [[2, 2]]}]}])
    write_lines(folder / "msc" / "session3.jsonl.xz", [
        {"id": "d1", "sessions": [{"turns": ["I breed llamas.", "Great!"]},
                                  {"turns": ["The llamas are shorn."]},
                                  {"turns": ["How are the llamas?"]}]},
        {"id": "d2", "sessions": [{"turns": ["I row at dawn."]}, {"turns": ["The river froze."]},
                                  {"turns": ["Do you still row at dawn?"]}]}])


def write_intents(folder: Path) -> None:
    """Two labels that are known and one that is new, in words that they do not share."""
    texts = {"card": "my bank card was stolen in {}", "rate": "exchange rate of the euro in {}",
             "alarm": "wake me up with an alarm in {}"}
    places = ("paris", "oslo", "rome", "cairo", "lima", "quito")
    for split, some in (("train", places[:4]), ("val", places[4:])):
        write_table(folder / f"{split}.tsv", ("label", "text"), *(
            (label, text.format(place)) for label, text in texts.items() for place in some))
    write_table(folder / "ocrr_novel_classes.tsv", ("seed", "class"), ("0", "alarm"))


def driver(name: str):
    """A driver as a module."""
    loader = importlib.machinery.SourceFileLoader(f"eval_{name}", str(EVAL / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Eval(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="memos-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_driver(self, name: str, *arguments: str) -> dict:
        """The JSON line at the end."""
        result = subprocess.run([str(EVAL / name), *arguments], capture_output=True, text=True,
                                check=False, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        print(result.stdout)
        return json.loads(result.stdout.splitlines()[-1])

    def test_locomo(self) -> None:
        write_locomo(self.folder)
        self.assertEqual(self.run_driver("locomo", str(self.folder)),
                         {"eval": "locomo", "n": 2, "R@5": 75.0, "R@10": 75.0, "R@20": 75.0})

    def test_retrieval(self) -> None:
        (self.folder / "locomo").mkdir()
        write_locomo(self.folder / "locomo")
        write_longmemeval(self.folder / "longmemeval")
        write_others(self.folder)
        result = self.run_driver("retrieval", str(self.folder), "--encoder", "ngrams", "--audit",
                                 "--rows", "words,vectors,rrf,full,without dates")
        self.assertEqual(set(result["rows"]),
                         {"words", "vectors", "rrf", "full", "without dates"})
        self.assertIn("n-grams", result["encoder"])
        whole = {
            "locomo": {"R@5": 75.0, "R@10": 75.0, "R@20": 75.0},
            "locomo-audited": {"R@5": 100.0, "R@10": 100.0, "R@20": 100.0},
            # s9 is nowhere: what is wanted is what is there
            "longmemeval": {"any@5": 100.0, "all@5": 100.0, "any@10": 100.0, "all@10": 100.0},
            "prefeval": {"R@5": 100.0, "R@10": 100.0},
            "scifact": {"nDCG@10": 100.0, "R@100": 100.0},
            "squad": {"R@1": 100.0, "R@5": 100.0, "R@10": 100.0},
            "qmsum": {"R@10": 100.0, "R@20": 100.0, "hit@10": 100.0},
            "msc": {"hit@1": 100.0, "hit@5": 100.0, "hit@10": 100.0}}
        self.assertEqual(result["rows"]["words"], whole)
        self.assertEqual(result["rows"]["rrf"], whole)
        for group, values in whole.items():
            self.assertEqual(set(result[group]), set(values))
        few = self.run_driver("retrieval", str(self.folder), "--only", "squad,msc", "--sample", "1",
                              "--rows", "words", "--encoder", "ngrams")
        self.assertEqual(set(few) - {"eval", "encoder", "rows"}, {"squad", "msc"})

    def test_ocrr(self) -> None:
        write_intents(self.folder / "banking77")
        for extra in ((), ("--mixed", "--method", "vote")):
            result = self.run_driver("ocrr", str(self.folder), "--seeds", "0", "--encoder",
                                     "ngrams", "--policies", "oracle", *extra)
            values = result["banking77"]["oracle"]
            self.assertEqual((values["novel"], values["original"]), (1.0, 1.0))
            self.assertTrue(1 <= values["corrections"] <= 3, values)
            self.assertEqual(values["to_90"], values["corrections"])
            self.assertGreater(values["bytes_each"], 0)

    def test_measures(self) -> None:
        import sets
        wanted = {"a", "b"}
        question = sets.Question("s", "?", wanted)
        self.assertEqual(sets.recalls(1, 3)(question, ["a", "x", "b"]), {"R@1": 0.5, "R@3": 1.0})
        self.assertAlmostEqual(sets.ndcg(wanted, ["a", "b"], 10), 1.0)
        self.assertAlmostEqual(sets.ndcg({"a"}, ["x", "a"], 10), 0.63093, places=5)
        self.assertEqual(sets.ndcg(wanted, ["x"] * 10 + ["a"], 10), 0.0)
        self.assertEqual(sets.firsts(["3:1", "2:0", "3:1"]), ["3:1", "2:0"])
        joined = driver("retrieval").joined
        self.assertEqual(joined(["a", "b", "c"], ["c", "b", "d"]), ["c", "b", "a", "d"])
        loss, error = driver("vectors").paired_loss([1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0])
        self.assertAlmostEqual(loss, 100 / 3, places=4)
        self.assertGreater(error, 0)

    def test_a_session_is_found_where_its_first_turn_is(self) -> None:
        import sets
        write_longmemeval(self.folder)
        task = sets.longmemeval(self.folder, 0)
        [question] = task.questions
        self.assertEqual(question.wanted, {"1"})
        found = ["0:0", "0:1", "2:0", "1:1", "1:0"]
        self.assertEqual(task.judge(question, found)["any@5"], 1.0)
        self.assertEqual(task.judge(question, ["0:0", "2:1"])["any@5"], 0.0)
        both = sets.Question("q1", "?", {"0", "1"})
        self.assertEqual((task.judge(both, ["0:0"])["any@5"], task.judge(both, ["0:0"])["all@5"]),
                         (1.0, 0.0))


if __name__ == "__main__":
    unittest.main()
