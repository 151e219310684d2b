"""memosctl asks for words, meaning, labels and trees as it was told to, and shows what comes back.

If this failed, somebody who asks why a memory was found would get no answer, or a wrong one; or a
text from a memory would reach his terminal as it is. The broker is one that answers as a test
wants.
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from fake_broker import FakeBroker, pb  # noqa: E402

MEMOSCTL = os.environ["MEMOSCTL"]
ID = uuid.UUID("01923456-789a-7bcd-8ef0-123456789abc")
OTHER = uuid.UUID("01923456-789a-7bcd-8ef0-123456789abd")
OK, INVALID, CORRUPT = 0, 2, 16


class Meaning(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="memos-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.address = f"ipc://{folder.name}/b.sock"
        self.seen = []
        self.answer = {"hits": pb.Hits(encoder="e")}
        self.frames = ()
        broker = FakeBroker(self.address, self.handle)
        self.addCleanup(broker.close)

    def handle(self, request) -> None:
        self.seen.append(request)
        request.reply(*self.frames, **self.answer)

    def ctl(self, *arguments: str, code: int = OK, given: str = "") -> subprocess.CompletedProcess:
        result = subprocess.run(
            [MEMOSCTL, *arguments], capture_output=True, text=True, check=False, input=given,
            env={**os.environ, "MEMOS_ADDRESS": self.address, "COLUMNS": "100"}, timeout=60)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def json(self, *arguments: str):
        return json.loads(self.ctl(*arguments, "--json").stdout)

    # ---- search

    def test_options_become_fields(self) -> None:
        self.ctl("search", "me", "a", "b")
        self.assertEqual(self.seen[-1].body, pb.Search(space="me", text="a b", top_k=10,
                                                       filter=pb.Filter()))
        self.ctl("search", "me", "a", "--words", "--explain", "--neighbours", "2", "--without",
                 "dates,form", "--without=speaker", "--now", "@5")
        self.assertEqual(self.seen[-1].body, pb.Search(
            space="me", text="a", top_k=10, filter=pb.Filter(), mode=1, explain=True, neighbours=2,
            without=["dates", "form", "speaker"], now_us=5000000))
        self.ctl("search", "me", "a", "--vectors")
        self.assertEqual(self.seen[-1].body.mode, 2)
        count = len(self.seen)
        for wrong in (("--words", "--vectors"), ("--neighbours", "9"), ("--now", "soon")):
            self.ctl("search", "me", "a", *wrong, code=INVALID)
        self.assertEqual(len(self.seen), count)

    def found(self) -> None:
        hit = pb.Hit(
            cube=pb.Cube(id=ID.bytes, number=1, frame=1, speaker="Ada", event_us=5, codec="t"),
            score=0.93, before=[pb.Cube(id=OTHER.bytes, frame=2, speaker="Ben")],
            after=[pb.Cube(id=OTHER.bytes, frame=3)],
            parts=[pb.HitPart(name="words", value=0.5, note="BM25 7.31\x1b[2J"),
                   pb.HitPart(name="dates", value=0.43)])
        self.frames = (b"A red\nbicycle\x1b[2J.", b"What was it?", b"Lovely.")
        self.answer = {"hits": pb.Hits(hits=[hit], encoder="e", missing=3, notes=["dates: May"])}

    def test_a_hit_explains_itself(self) -> None:
        self.found()
        shown = self.ctl("search", "me", "a", "--explain", "--neighbours", "1")
        lines = shown.stdout.splitlines()
        self.assertEqual(lines[0], f"0.93  {ID}  1970-01-01")
        self.assertEqual([line.strip() for line in lines[1:]], [
            "Ben: What was it?", "> Ada: A red bicycle\\x1b[2J.", "Lovely.",
            "= words 0.50 (BM25 7.31\\x1b[2J), dates 0.43"])
        self.assertIn("dates: May", shown.stderr)
        self.assertIn("3 cubes have no vector yet", shown.stderr)
        narrow = self.ctl("search", "me", "a", "--explain", "--quiet")
        self.assertTrue(all(len(line) <= 100 for line in narrow.stdout.splitlines()))
        self.assertEqual(narrow.stderr, "")

    def test_json_has_all_of_it(self) -> None:
        self.found()
        result = self.json("search", "me", "a", "--explain")
        self.assertEqual((result["encoder"], result["missing"], result["notes"]),
                         ("e", 3, ["dates: May"]))
        [hit] = result["hits"]
        self.assertEqual([part["name"] for part in hit["parts"]], ["words", "dates"])
        self.assertEqual(hit["parts"][1], {"name": "dates", "note": "",
                                           "value": hit["parts"][1]["value"]})
        self.assertAlmostEqual(hit["parts"][1]["value"], 0.43, places=5)
        self.assertEqual([c["text"] for c in hit["before"] + hit["after"]],
                         ["What was it?", "Lovely."])
        [short] = self.json("search", "me", "a", "--explain", "--ids-only")["hits"]
        self.assertEqual(set(short), {"id", "version", "external_id", "score", "parts"})

    def test_words_alone_are_said_once(self) -> None:
        self.answer = {"hits": pb.Hits()}
        self.assertIn("words alone", self.ctl("search", "me", "a").stderr)
        self.assertNotIn("words alone", self.ctl("search", "me", "a", "--words").stderr)
        self.answer = {"hits_many": pb.HitsMany(results=[pb.HitsOrError(hits=pb.Hits())] * 2)}
        asked = self.ctl("search", "me", "--queries", "-", "--json", "--without", "form",
                         given='{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n')
        self.assertEqual(asked.stderr.count("words alone"), 1)
        self.assertEqual([line["encoder"] for line in map(json.loads, asked.stdout.splitlines())],
                         ["", ""])
        self.assertEqual([list(s.without) for s in self.seen[-1].body.searches], [["form"]] * 2)

    # ---- labels

    def test_classify(self) -> None:
        self.answer = {"classified": pb.Classified(micros=7, results=[
            pb.Classification(labels=[pb.Label(name="travel", weight=0.75),
                                      pb.Label(name="b\x1bank", weight=0.25)],
                              best_cosine=0.5, examples=[pb.Ref(id=ID.bytes, number=1)])])}
        shown = self.ctl("classify", "me", "a text", "--top-k", "7", "--margin", "0.25",
                         "--method", "interpolation", "--temperature", "0.5",
                         "--speaker", "Ada")
        self.assertEqual(self.seen[-1].body, pb.Classify(
            space="me", texts=["a text"], tag_prefix="label:", top_k=7, margin=0.25, method=2,
            temperature=0.5, filter=pb.Filter(speaker="Ada")))
        self.assertEqual([line.split() for line in shown.stdout.splitlines()[1:]],
                         [["0.75", "travel"], ["0.25", "b\\x1bank"]])
        self.assertIn("1 examples, the nearest at cosine 0.50", shown.stderr)
        result = self.json("classify", "me", "a text", "--prefix", "")
        self.assertEqual(self.seen[-1].body.tag_prefix, "")
        self.assertEqual(result["micros"], 7)
        self.assertEqual(result["results"], [{
            "text": "a text", "best_cosine": 0.5, "examples": [{"id": str(ID), "version": 1}],
            "labels": [{"name": "travel", "weight": 0.75}, {"name": "b\x1bank", "weight": 0.25}]}])
        self.ctl("classify", "me", "one", "two", code=CORRUPT)
        for wrong in (("--margin", "-1"), ("--margin", "x"), ("--temperature", "0"),
                      ("--top-k", "0"), ("--method", "guess")):
            self.ctl("classify", "me", "a", *wrong, code=INVALID)

    def test_correct(self) -> None:
        self.answer = {"outcome": pb.Outcome(space="me", seq=4, refs=[pb.Ref(id=ID.bytes,
                                                                             number=1)])}
        shown = self.ctl("correct", "me", "-", "travel", "--reason", "it is", given="fly me")
        self.assertEqual(self.seen[-1].body, pb.Put(
            space="me", reason="it is", drafts=[pb.Draft(frame=1, tags=["label:travel"])]))
        self.assertEqual(self.seen[-1].frames, [b"fly me"])
        self.assertIn("learned: record 4", shown.stdout)
        self.ctl("correct", "me", "a", "travel", "--prefix", "", "--idempotency-key", "k")
        self.assertEqual(list(self.seen[-1].body.drafts[0].tags), ["travel"])
        self.assertEqual(self.seen[-1].message.idempotency_key, b"k")

    # ---- the tree, and the encoder

    def test_tree(self) -> None:
        child = pb.TreeChild(number=4, cubes=5, words=["tea", "cup"],
                             examples=[pb.Cube(id=ID.bytes, frame=1, speaker="Ada")])
        leaf = pb.TreeChild(number=5, cubes=1, words=["car"], leaf=True)
        self.frames = (b"Tea for two.",)
        self.answer = {"tree_nodes": pb.TreeNodes(
            tree=pb.Ref(id=ID.bytes, number=3), path=[2, 0], cubes=6, children=[child, leaf],
            levels=3, branching=8)}
        shown = self.ctl("tree", "me", "2/0", "--build", "--examples", "1")
        self.assertEqual(self.seen[-1].body, pb.Tree(space="me", path=[2, 0], build=True,
                                                     examples=1))
        table = [line.split() for line in shown.stdout.splitlines()[-3:]]
        self.assertEqual(table, [["2/0/4/", "5", "tea,", "cup"], ["Ada:", "Tea", "for", "two."],
                                 ["2/0/5", "1", "car"]])
        result = self.json("tree", "me", "--text", "tea")
        self.assertEqual(self.seen[-1].body, pb.Tree(space="me", text="tea", examples=3))
        self.assertEqual((result["tree"], result["path"], result["levels"], result["branching"]),
                         ({"id": str(ID), "version": 3}, [2, 0], 3, 8))
        self.assertEqual([(c["number"], c["cubes"], c["words"], c["leaf"])
                          for c in result["children"]],
                         [(4, 5, ["tea", "cup"], False), (5, 1, ["car"], True)])
        self.assertEqual(result["children"][0]["examples"][0]["text"], "Tea for two.")
        for wrong in (("x",), ("1//2",), ("-1",), ("1", "--text", "a"), ("4294967296",)):
            self.ctl("tree", "me", *wrong, code=INVALID)

    def test_encoder_status(self) -> None:
        self.answer = {"encoder_info": pb.EncoderInfo(
            name="m", source="folder", dims=384, fingerprint=b"\x0f", semantic=True, codes="e4m3",
            waiting=4, done=5, per_second=2.5, error="no\x1b")}
        shown = self.ctl("encoder", "status").stdout
        for piece in ("384 dimensions, stored as e4m3", "0f", "4 cubes", "no\\x1b"):
            self.assertIn(piece, shown)
        self.assertEqual(self.json("encoder", "status"), {
            "name": "m", "source": "folder", "dims": 384, "fingerprint": "0f", "semantic": True,
            "codes": "e4m3", "waiting": 4, "done": 5, "per_second": 2.5, "error": "no\x1b"})


if __name__ == "__main__":
    unittest.main()
