"""memosctl and a broker that it starts itself: every command, as text and as JSON, with its exit
status.

If this failed, the administrator's hand would not do what its manual says.
"""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

MEMOSCTL, MEMOSD = os.environ["MEMOSCTL"], os.environ["MEMOSD"]
SLOWER = 10 if os.environ.get("MEMOS_SANITIZED") == "1" else 1

OK, INVALID, NOT_FOUND, EXISTS, CONFLICT, FROZEN, FORGOTTEN = 0, 2, 3, 4, 5, 6, 7
CANCELLED, CORRUPT, UNAVAILABLE = 12, 16, 18

HITS = {"hits", "seq", "micros", "encoder", "missing", "notes"}
CUBE = {"id", "version", "parent", "equals", "seq", "kind", "subtype", "state", "stale",
        "operation", "author", "reason", "time", "event_time", "title", "language", "speaker",
        "external_id", "tags", "sources", "attributes", "readers", "derived_from", "model",
        "payload_hash", "payload_bytes", "codec", "valid_from", "valid_to", "expires",
        "retain_until", "priority", "sensitivity", "reads", "last_read", "usefulness", "text"}
OUTCOME = {"space", "seq", "time", "head", "cubes", "affected", "repeated", "rollback",
           "forgotten", "payloads_destroyed", "payloads_shared", "gone", "archive"}
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Result:
    def __init__(self, done: subprocess.CompletedProcess[bytes]):
        self.code = done.returncode
        self.raw = done.stdout
        self.out = done.stdout.decode(errors="replace")
        self.err = done.stderr.decode(errors="replace")

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self) -> list:
        return [json.loads(line) for line in self.out.splitlines()]


def environment_of(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMOS_")}
    places = {f"XDG_{name}_HOME": str(folder / name.lower())
              for name in ("DATA", "STATE", "CONFIG")}
    return {**kept, **places, "XDG_RUNTIME_DIR": str(folder / "run"), "HOME": str(folder)}


def ctl(folder: Path, *arguments: str, given: str = "", **environment: str) -> Result:
    return Result(subprocess.run(
        [MEMOSCTL, *arguments], input=given.encode(), capture_output=True, check=False,
        env={**environment_of(folder), **environment}, timeout=60 * SLOWER))


def make_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="memos-"))
    (folder / "run").mkdir(mode=0o700)
    return folder


class Service(unittest.TestCase):
    """up, down and status; each test has a folder of its own."""

    def setUp(self) -> None:
        self.folder = make_folder()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(ctl, self.folder, "down")

    def ctl(self, *arguments: str, code: int = OK, **environment: str) -> Result:
        result = ctl(self.folder, *arguments, **environment)
        self.assertEqual(result.code, code, result.out + result.err)
        return result

    def test_up_and_down(self) -> None:
        self.assertIn("memosctl up", self.ctl("status", code=UNAVAILABLE).err)
        first = self.ctl("up", "--memosd", MEMOSD, "--json").json
        self.assertEqual(set(first), {"started", "address", "pid", "version", "data_dir", "log"})
        self.assertTrue(first["started"])
        self.assertTrue(Path(first["log"]).exists())
        self.assertTrue(Path(first["data_dir"]).is_dir())
        again = self.ctl("up", "--memosd", MEMOSD, "--json").json
        self.assertEqual((again["started"], again["pid"]), (False, first["pid"]))
        self.assertIn("runs already", self.ctl("up", "--memosd", MEMOSD).out)

        status = self.ctl("status", "--json").json
        self.assertEqual(set(status), {
            "version", "protocol", "principal", "administrator", "events", "message_bytes_max",
            "server_key", "spaces", "cubes", "versions", "payload_bytes"})
        self.assertTrue(status["administrator"])
        self.assertIn("memosd", self.ctl("status").out)

        down = self.ctl("down", "--json").json
        self.assertEqual(down, {"stopped": True, "pid": first["pid"], "workers": 0})
        self.assertEqual(self.ctl("down", "--json").json,
                         {"stopped": False, "pid": 0, "workers": 0})
        self.ctl("status", code=UNAVAILABLE)

    def test_what_was_put_is_there_after_a_restart(self) -> None:
        self.ctl("up", "--memosd", MEMOSD)
        self.ctl("put", "me", "it stays")
        self.ctl("down")
        self.ctl("up", "--memosd", MEMOSD)
        self.assertIn("it stays", self.ctl("list", "me").out)

    def test_at_another_address(self) -> None:
        address = f"ipc://{self.folder}/elsewhere.sock"
        self.ctl("--address", address, "up", "--memosd", MEMOSD)
        self.addCleanup(ctl, self.folder, "--address", address, "down")
        self.ctl("status", MEMOS_ADDRESS=address)
        self.ctl("status", code=UNAVAILABLE)
        self.assertEqual(self.ctl("--address", address, "down").out, "stopped\n")

    def test_a_folder_by_its_lock(self) -> None:
        data = str(self.folder / "elsewhere")
        self.ctl("up", "--memosd", MEMOSD, "--data-dir", data)
        self.assertEqual(self.ctl("down", "--data-dir", str(self.folder / "none")).out,
                         "nothing was running\n")
        self.assertEqual(self.ctl("down", "--data-dir", data).out, "stopped\n")
        # The lock still names a process; it may have been given to another program since.
        self.assertEqual(self.ctl("down", "--data-dir", data).out, "nothing was running\n")
        (Path(data) / "store" / "memos.lock").write_text(f"{os.getpid()}\n", encoding="ascii")
        self.assertEqual(self.ctl("down", "--data-dir", data).out, "nothing was running\n")

    def test_a_broker_that_does_not_start(self) -> None:
        config = self.folder / "broken.conf"
        config.write_text("no such key = 1\n", encoding="ascii")
        result = ctl(self.folder, "up", "--memosd", MEMOSD, "--config", str(config))
        self.assertNotEqual(result.code, OK)
        self.assertIn("broken.conf", result.err)
        self.assertIn("did not start", result.err)
        self.ctl("up", "--memosd", str(self.folder / "nothing"), code=NOT_FOUND)


    def test_what_is_too_large_for_one_reply(self) -> None:
        """Pages become smaller, and what does not fit alone is shown without its text."""
        config = self.folder / "small.conf"
        config.write_text(
            'message_bytes_max = "1M"\npayload_bytes_max = "512K"\n', encoding="ascii")
        self.ctl("up", "--memosd", MEMOSD, "--config", str(config))
        path = self.folder / "large"
        for n in range(6):
            path.write_text(f"{n}" * 400_000, encoding="ascii")
            self.ctl("put", "me", f"@{path}", "--title", f"large {n}", "--kind", "activation")
        listed = self.ctl("list", "me", "--json").json["cubes"]
        self.assertEqual([len(cube["text"]) for cube in listed], [400_000] * 6)
        self.assertEqual(len(self.ctl("list", "me").out.splitlines()), 7)
        found = self.ctl("search", "me", "large", "--words", "--json")
        self.assertEqual(len(found.json["hits"]), 6)
        self.assertIn("left out", found.err)
        cube = listed[0]["id"]
        self.ctl("update", "me", cube, f"@{path}", "--title", "again")
        self.ctl("update", "me", cube, "--title", "and again")
        self.assertEqual(len(self.ctl("history", "me", cube, "--json").json["versions"]), 3)


class Commands(unittest.TestCase):
    """One broker for all; each test has a space of its own."""

    folder: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = make_folder()
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        started = ctl(cls.folder, "up", "--memosd", MEMOSD)
        if started.code != OK:
            raise AssertionError(started.err)
        cls.addClassCleanup(ctl, cls.folder, "down")

    def setUp(self) -> None:
        self.space = "test/" + self.id().rpartition(".")[2]

    def ctl(self, *arguments: str, code: int = OK, given: str = "", **environment: str) -> Result:
        result = ctl(self.folder, *arguments, given=given, **environment)
        self.assertEqual(result.code, code, result.out + result.err)
        if code != OK:
            self.assertRegex(result.err, r"(^|\n)memosctl: ")
        return result

    def json(self, *arguments: str, code: int = OK, given: str = ""):
        return self.ctl(*arguments, "--json", code=code, given=given).json

    def put(self, text: str, *options: str) -> str:
        outcome = self.json("put", self.space, text, *options)
        self.assertEqual(set(outcome), OUTCOME)
        return outcome["cubes"][0]["id"]

    def text(self, cube: str, *options: str) -> str:
        return self.ctl("get", self.space, cube, *options).out

    def seq(self) -> int:
        return self.json("log", self.space, "-l", "1")["records"][0]["seq"]

    def file(self, name: str, text: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    # ---- put, get, update ----

    def test_put_and_get(self) -> None:
        cube = self.put("Lea in Porto", "--title", "a trip", "-t", "one", "-t", "two",
                        "--speaker", "Nora", "--external-id", "x1", "--event-time", "2026-05-01",
                        "--subtype", "fact", "--attribute", "mood=glad", "--priority", "7",
                        "--source", "file:notes.md#10+20", "--sensitivity", "secret",
                        "--language", "en", "--reason", "she said so", "--model", "m1")
        self.assertRegex(cube, ID)
        got = self.json("get", self.space, cube)
        self.assertEqual(set(got), CUBE)
        self.assertEqual(
            (got["text"], got["title"], got["tags"], got["speaker"], got["external_id"]),
            ("Lea in Porto", "a trip", ["one", "two"], "Nora", "x1"))
        self.assertEqual(got["event_time"], "2026-05-01T00:00:00Z")
        self.assertEqual(got["attributes"], {"mood": "glad"})
        self.assertEqual(got["sources"], [
            {"type": "file", "uri": "notes.md", "offset": 10, "length": 20}])
        self.assertEqual((got["priority"], got["sensitivity"], got["model"], got["reason"]),
                         (7, "secret", "m1", "she said so"))
        self.assertEqual(self.text(cube), "Lea in Porto")
        self.assertEqual(self.text("ext:x1"), "Lea in Porto")
        self.assertIn(cube, self.ctl("put", self.space, "Lea in Rome", "--external-id", "x1").out)

    def test_payload_from_files(self) -> None:
        path = self.file("payload", b"\x00\x01\xff binary\n")
        cube = self.put("@" + path, "--codec", "application/octet-stream")
        self.assertEqual(self.ctl("get", self.space, cube).raw, b"\x00\x01\xff binary\n")
        self.assertEqual(self.json("get", self.space, cube)["data"], "AAH/IGJpbmFyeQo=")
        out = self.folder / "written"
        self.ctl("get", self.space, cube, "-o", str(out))
        self.assertEqual(out.read_bytes(), b"\x00\x01\xff binary\n")
        outcome = self.json("put", self.space, "-", given="from a pipe")
        self.assertEqual(self.text(outcome["cubes"][0]["id"]), "from a pipe")
        self.ctl("put", self.space, "@/nothing/there", code=NOT_FOUND)

    def test_many_at_once(self) -> None:
        cubes = [self.put(f"text {n}") for n in range(3)]
        self.assertEqual([c["text"] for c in self.json("get", self.space, *cubes)],
                         ["text 0", "text 1", "text 2"])
        self.assertEqual(self.ctl("get", self.space, *cubes).out, "text 0\ntext 1\ntext 2\n")

    def test_prefixes(self) -> None:
        cube = self.put("only one")
        self.assertEqual(self.text(cube[:10]), "only one")
        self.assertIn("is no id", self.ctl("get", self.space, "xyz", code=INVALID).err)
        self.ctl("get", self.space, "ffff", code=NOT_FOUND)
        self.put("a second one")
        self.ctl("get", self.space, cube[:1], code=CONFLICT)
        for command in ("show", "history", "diff", "freeze", "thaw", "archive", "restore"):
            self.ctl(command, self.space, cube)

    def test_update(self) -> None:
        cube = self.put("first", "--title", "kept")
        outcome = self.json("update", self.space, cube[:30], "second", "-m", "why", "--expect", "1")
        self.assertEqual(outcome["cubes"], [{"id": cube, "version": 2}])
        got = self.json("get", self.space, cube)
        self.assertEqual((got["text"], got["title"], got["version"]), ("second", "kept", 2))
        self.ctl("update", self.space, cube, "third", "--expect", "1", code=CONFLICT)
        self.json("update", self.space, cube, "--title", "new title", "--transform")
        got = self.json("get", self.space, cube)
        self.assertEqual((got["text"], got["title"]), ("second", "new title"))
        self.assertEqual(got["operation"], "transform")
        self.assertIn("nothing to change", self.ctl("update", self.space, cube, code=INVALID).err)
        self.assertIn("nothing changed", self.ctl("update", self.space, cube, "second").out)
        self.assertEqual(self.text(cube, "--version", "1"), "first")
        self.assertEqual(self.text(cube, "--as-of", "1"), "first")

    def test_idempotency_key(self) -> None:
        first = self.json("put", self.space, "once", "--idempotency-key", "k")
        again = self.json("put", self.space, "once", "--idempotency-key", "k")
        self.assertEqual((again["seq"], again["repeated"]), (first["seq"], True))

    def test_tag(self) -> None:
        cube = self.put("tagged", "-t", "a")
        self.ctl("tag", self.space, cube, "b", "c", "--remove", "a")
        self.assertEqual(sorted(self.json("get", self.space, cube)["tags"]), ["b", "c"])
        self.ctl("tag", self.space, cube, code=INVALID)

    def test_merge_and_what_is_derived(self) -> None:
        a, b = self.put("one half"), self.put("other half")
        joined = self.json("merge", self.space, "the whole", a, b)["cubes"][0]["id"]
        got = self.json("get", self.space, joined)
        self.assertEqual({ref["id"] for ref in got["derived_from"]}, {a, b})
        self.assertEqual(self.json("get", self.space, a)["state"], "merged")
        derived = self.put("from the whole", "--derived-from", joined[:30])
        outcome = self.json("update", self.space, joined, "another whole")
        self.assertEqual(outcome["affected"], [derived])
        self.assertTrue(self.json("get", self.space, derived)["stale"])

    def test_states(self) -> None:
        cube = self.put("moved about")
        self.assertIn("frozen", self.ctl("freeze", self.space, cube).out)
        self.assertIn("frozen", self.ctl("update", self.space, cube, "x", code=FROZEN).err)
        self.ctl("thaw", self.space, cube)
        self.json("archive", self.space, cube, "-m", "old")
        self.assertEqual(self.json("search", self.space, "moved", "--words")["hits"], [])
        self.assertEqual(
            len(self.json("search", self.space, "moved", "--state", "archived")["hits"]), 1)
        self.ctl("restore", self.space, cube)
        self.ctl("state", self.space, "archived", cube)
        self.ctl("state", self.space, "frozen", cube, code=CONFLICT)
        self.ctl("state", self.space, "asleep", cube, code=INVALID)
        self.assertEqual([v["state"] for v in self.json("history", self.space, cube)["versions"]],
                         ["generated", "frozen", "activated", "archived", "activated", "archived"])

    def test_feedback(self) -> None:
        cube = self.put("useful")
        self.ctl("feedback", self.space, cube, "-0.5")
        self.ctl("feedback", self.space, cube, "2", code=INVALID)
        self.ctl("feedback", self.space, cube, "well", code=INVALID)
        self.assertLess(self.json("show", self.space, cube)["usefulness"], 0)

    # ---- finding ----

    def test_list(self) -> None:
        for n in range(5):
            self.put(f"number {n}", "--event-time", f"2026-05-0{n + 1}", "-t", f"t{n % 2}",
                     "--speaker", "Ada" if n else "Bob")
        listed = self.json("list", self.space)
        self.assertEqual(set(listed), {"cubes", "more"})
        self.assertEqual([c["text"] for c in listed["cubes"]],
                         [f"number {n}" for n in (4, 3, 2, 1, 0)])

        def texts(*options: str) -> list[str]:
            return [c["text"][-1] for c in self.json("list", self.space, *options)["cubes"]]
        self.assertEqual(texts("-l", "2"), ["4", "3"])
        self.assertEqual(texts("--oldest-first", "-l", "0"), list("01234"))
        self.assertEqual(texts("-t", "t1"), ["3", "1"])
        self.assertEqual(texts("--speaker", "Bob"), ["0"])
        self.assertEqual(texts("--since", "2026-05-02", "--until", "2026-05-04"), ["2", "1"])
        self.assertEqual(texts("--as-of", "2"), ["1", "0"])
        table = self.ctl("list", self.space, "-l", "2")
        self.assertEqual(len(table.out.splitlines()), 3)
        self.assertIn("there are more", table.err)
        self.ctl("list", "test/nowhere", code=NOT_FOUND)
        self.ctl("list", self.space, "--kind", "liquid", code=INVALID)
        self.ctl("list", self.space, "--since", "yesterday", code=INVALID)

    def test_search(self) -> None:
        wedding = self.put("Lea is getting married in Porto", "--external-id", "w")
        self.put("Nothing of interest")
        found = self.json("search", self.space, "When", "does", "Lea", "marry?")
        self.assertEqual(set(found), HITS)
        self.assertEqual(set(found["hits"][0]), CUBE | {"score", "parts", "before", "after"})
        self.assertEqual(found["hits"][0]["id"], wedding)
        short = self.json("search", self.space, "Porto", "--ids-only")["hits"]
        self.assertEqual(set(short[0]), {"id", "version", "external_id", "score"})
        self.assertIn("Porto", self.ctl("search", self.space, "Porto").out)
        nothing = self.ctl("search", self.space, "zebra", "--words")
        self.assertEqual((nothing.out, "nothing found" in nothing.err), ("", True))
        self.ctl("search", self.space, code=INVALID)
        self.json("update", self.space, wedding, "Lea has called it off")
        self.assertEqual(self.json("search", self.space, "Porto", "--words")["hits"], [])
        past = self.json("search", self.space, "Porto", "--words", "--as-of", "2")["hits"]
        self.assertEqual(past[0]["text"], "Lea is getting married in Porto")

    def test_search_by_meaning(self) -> None:
        """Every cube says what it says in other words; what is nearest is found."""
        for turn, text in enumerate(("Where did you go?", "I went swimming in the lake.",
                                     "Was it cold?")):
            self.put(text, "--speaker", "Ada" if turn % 2 else "Ben", "--attribute", "session=1",
                     "--event-time", f"2026-05-01T12:00:0{turn}Z")
        self.put("The invoice of the plumber", "--event-time", "2026-05-02")
        found = self.json("search", self.space, "swimmer lakes", "--explain", "--neighbours", "1")
        first = found["hits"][0]
        self.assertEqual(first["text"], "I went swimming in the lake.")
        self.assertTrue(found["encoder"])
        self.assertEqual(found["missing"], 0)
        self.assertEqual([cube["text"] for cube in first["before"]], ["Where did you go?"])
        self.assertEqual([cube["text"] for cube in first["after"]], ["Was it cold?"])
        self.assertAlmostEqual(sum(part["value"] for part in first["parts"]), first["score"],
                               places=4)
        self.assertIn("vectors", [part["name"] for part in first["parts"]])
        without = self.json("search", self.space, "swimmer lakes", "--explain", "--without",
                            "vectors,form")["hits"]
        for hit in without:
            self.assertNotIn("vectors", [part["name"] for part in hit["parts"] if part["value"]])
        self.ctl("search", self.space, "x", "--without", "luck", code=INVALID)
        meant = self.json("search", self.space, "swimmer lakes", "--vectors", "-k", "1")["hits"]
        self.assertEqual(meant[0]["id"], first["id"])
        shown = self.ctl("search", self.space, "swimmer lakes", "--explain").out
        self.assertIn("= ", shown)

    def test_labels(self) -> None:
        """A correction holds from the next question on, and can be taken back."""
        for text in ("my bank card was stolen", "somebody took my card", "block the card"):
            self.ctl("correct", self.space, text, "card")
        text = "what is the euro worth in dollars"
        self.assertEqual(self.json("classify", self.space, text)["results"][0]["labels"][0]["name"],
                         "card")
        made = self.json("correct", self.space, text, "exchange rate")
        known = self.json("classify", self.space, text, "the card is gone")["results"]
        self.assertEqual([result["labels"][0]["name"] for result in known],
                         ["exchange rate", "card"])
        self.assertGreater(known[0]["best_cosine"], 0.99)
        self.json("rollback", self.space, "--to", str(made["seq"] - 1), "--yes")
        again = self.json("classify", self.space, text)["results"][0]
        self.assertEqual(again["labels"][0]["name"], "card")
        none = self.json("classify", self.space, text, "--prefix", "mood:")["results"][0]
        self.assertEqual(none["labels"], [])

    def test_encoder_status(self) -> None:
        self.put("something")
        status = self.json("encoder", "status")
        self.assertEqual((status["source"], status["semantic"], status["waiting"], status["error"]),
                         ("ngrams", False, 0, ""))
        self.assertIn("n-grams", self.ctl("encoder", "status").out)

    def test_queries(self) -> None:
        for n in range(20):
            self.put(f"fact number{n} of many", "--external-id", f"e{n}")
        queries = [{"id": f"q{n}", "space": self.space, "text": f"number{n % 20}", "top_k": 1}
                   for n in range(700)]
        path = self.file("queries.jsonl", "\n".join(json.dumps(q) for q in queries) + "\n")
        answers = self.ctl("search", "--queries", path, "--words", "--json").lines
        self.assertEqual([a["id"] for a in answers], [q["id"] for q in queries])
        self.assertEqual([a["hits"][0]["external_id"] for a in answers],
                         [f"e{n % 20}" for n in range(700)])
        self.assertEqual(set(answers[0]), {"id"} | HITS)
        piped = self.ctl("search", self.space, "--queries", "-", "--ids-only", "-k", "3",
                         given='{"id": 1, "text": "fact"}\n\n{"id": 2, "text": "many"}').lines
        self.assertEqual([(a["id"], len(a["hits"])) for a in piped], [(1, 3), (2, 3)])
        missing = ctl(self.folder, "search", "--queries", "-", given=json.dumps(
            {"id": 9, "space": "test/nowhere", "text": "x"}))
        self.assertEqual(missing.code, INVALID)
        self.assertEqual(missing.lines[0]["status"], "NOT_FOUND")
        self.assertIn("line 1", self.ctl("search", "--queries", "-", code=INVALID,
                                         given="nonsense").err)
        self.assertIn("line 1", self.ctl("search", "--queries", "-", code=INVALID,
                                         given='{"text": "in no space"}').err)

    # ---- history ----

    def test_log_and_history(self) -> None:
        cube = self.put("v1", "-m", "first")
        for n in (2, 3):
            self.ctl("update", self.space, cube, f"v{n}", "-m", f"reason {n}")
        log = self.json("log", self.space)
        self.assertEqual(set(log), {"records", "more"})
        self.assertEqual(set(log["records"][0]), {
            "seq", "time", "operation", "author", "reason", "previous", "hash", "entries_total",
            "entries", "affected", "rollback_to"})
        self.assertEqual([r["seq"] for r in log["records"]], [3, 2, 1])
        self.assertEqual(log["records"][0]["previous"], log["records"][1]["hash"])
        older = self.json("log", self.space, "--oldest-first", "--from", "2", "-l", "1")
        self.assertEqual(([r["seq"] for r in older["records"]], older["more"]), ([2], True))
        self.assertIn("reason 3", self.ctl("log", self.space).out)
        versions = self.json("history", self.space, cube)["versions"]
        self.assertEqual([v["text"] for v in versions], ["v1", "v2", "v3"])
        self.assertEqual(len(self.json("history", self.space, cube, "-l", "2")["versions"]), 2)
        shown = self.ctl("show", self.space, cube).out
        for word in (cube, "v3", "first", "reason 2"):
            self.assertIn(word, shown)
        self.assertEqual(set(self.json("show", self.space, cube)), CUBE | {"versions"})
        self.assertEqual(self.json("show", self.space, cube, "-v", "2")["text"], "v2")
        self.assertEqual(self.json("show", self.space, cube, "--as-of", "1")["text"], "v1")

    def test_diff(self) -> None:
        cube = self.put("a\nold\nz\n", "-t", "x")
        self.ctl("update", self.space, cube, "a\nnew\nz\n", "--tag", "y")
        out = self.ctl("diff", self.space, cube).out
        self.assertIn("-old\n+new\n", out)
        self.assertIn('["x"] -> ["y"]', out)
        self.assertIn("[-old-]{+new+}", self.ctl("diff", self.space, cube, "1", "--words").out)
        self.assertIn("+old", self.ctl("diff", self.space, cube, "2", "1").out)
        self.assertIn("-old", self.ctl("diff", self.space, cube, "r1", "r2").out)
        self.assertNotIn("old", self.ctl("diff", self.space, cube, "2", "2").out)
        diff = self.json("diff", self.space, cube)
        self.assertEqual(set(diff), {"id", "from", "to", "fields", "text", "payload_changed"})
        self.assertEqual([part["op"] for part in diff["text"]],
                         ["same", "removed", "added", "same"])
        self.ctl("diff", self.space, cube, "7", code=NOT_FOUND)

    def test_rollback(self) -> None:
        a, b = self.put("a1"), self.put("b1")
        before = self.seq()
        self.ctl("update", self.space, a, "a2")
        self.ctl("update", self.space, b, "b2")
        late = self.put("new")
        dry = self.ctl("rollback", self.space, "--to", str(before), "--dry-run").out
        self.assertIn("-a2", dry)
        self.assertIn("+a1", dry)
        self.assertIn("3 cubes", dry)
        self.assertEqual(self.text(a), "a2")
        items = self.json("rollback", self.space, "--to", str(before), "-n")["rollback"]
        self.assertEqual({item["id"] for item in items}, {a, b, late})
        self.assertEqual(items[0]["diff"]["text"][0]["op"], "removed")
        self.ctl("rollback", self.space, a[:30], "--to-version", "1")
        self.assertEqual((self.text(a), self.text(b)), ("a1", "b2"))
        undo = self.seq()
        done = self.json("rollback", self.space, "--to", str(before), "--yes", "-m", "all of it")
        self.assertEqual(set(done), OUTCOME)
        self.assertEqual((self.text(a), self.text(b)), ("a1", "b1"))
        self.ctl("get", self.space, late, code=NOT_FOUND)
        self.ctl("rollback", self.space, "--to", str(undo), "--yes")
        self.assertEqual((self.text(a), self.text(b), self.text(late)), ("a1", "b2", "new"))
        self.ctl("rollback", self.space, "--to", "0", "--yes")
        self.assertEqual(self.json("list", self.space)["cubes"], [])

    def test_rollback_mistakes(self) -> None:
        a, b = self.put("a"), self.put("b")
        for options in ((), ("--to", "1", "--to-version", "1"), ("--to", "someday")):
            self.ctl("rollback", self.space, a, *options, code=INVALID)
        self.ctl("rollback", self.space, a, b, "--to-version", "1", code=INVALID)
        self.ctl("rollback", self.space, a, "--to-version", "9", code=NOT_FOUND)

    def test_rollback_by_time(self) -> None:
        cube = self.put("then")
        moment = self.json("get", self.space, cube)["time"]
        self.ctl("update", self.space, cube, "now")
        self.ctl("rollback", self.space, "--to", moment, "--yes")
        self.assertEqual(self.text(cube), "then")

    def test_forget(self) -> None:
        cube = self.put("a secret", "--title", "of mine")
        derived = self.put("from the secret", "--derived-from", cube)
        self.ctl("forget", self.space, cube, "--dry-run")
        self.assertEqual(self.text(cube), "a secret")
        outcome = self.json("forget", self.space, cube, "-m", "asked for")
        self.assertEqual(set(outcome["forgotten"]), {cube, derived})
        self.assertTrue(outcome["gone"])
        self.ctl("get", self.space, cube, code=FORGOTTEN)
        self.assertIn("destroyed", self.ctl("show", self.space, cube).out)
        self.assertEqual(self.json("show", self.space, cube)["title"], "")
        kept = self.put("kept", "--retain-until", "2126-01-01")
        self.ctl("forget", self.space, kept, code=CONFLICT)
        self.assertIn("1 payloads destroyed", self.ctl("forget", self.space, kept, "--force").out)

    # ---- proof ----

    def test_verify_and_fsck(self) -> None:
        self.put("proved")
        result = self.json("verify", self.space)
        self.assertEqual(set(result), {"intact", "records", "versions", "payloads", "forgotten",
                                       "seq", "head", "bad_seq", "bad_cube", "what"})
        self.assertEqual((result["intact"], result["records"]), (True, 1))
        self.assertIn("intact", self.ctl("verify", self.space).out)
        self.ctl("verify", "test/nowhere", code=NOT_FOUND)
        found = self.json("fsck")
        self.assertEqual(set(found), {"spaces", "cubes", "versions", "docs", "payloads", "blobs",
                                      "problems", "repaired", "first"})
        self.assertEqual((found["problems"], found["first"]), (0, []))
        self.assertIn("no problems", self.ctl("fsck", "--repair").out)

    def test_checkpoint(self) -> None:
        self.put("signed")
        path = self.folder / "checkpoint.json"
        made = self.json("checkpoint", self.space, "--out", str(path))
        self.assertEqual(json.loads(path.read_text(encoding="utf-8")), made)
        self.assertEqual(self.json("checkpoint", self.space, "--list")["checkpoints"], [made])
        self.assertIn("holds", self.ctl("checkpoint", self.space, "--check", str(path)).out)
        self.ctl("checkpoint", "--check", str(path), "--offline",
                 "--public-key", made["public_key"])
        self.ctl("checkpoint", "--check", str(path), "--offline", "--public-key", "00" * 32,
                 code=CONFLICT)
        forged = self.file("forged.json", json.dumps({**made, "seq": made["seq"] + 1}))
        self.ctl("checkpoint", "--check", forged, "--offline", code=CORRUPT)
        nonsense = self.file("nonsense.json", "{}")
        self.ctl("checkpoint", "--check", nonsense, "--offline", code=INVALID)
        self.ctl("put", "test/other_than_signed", "x")
        self.assertNotEqual(ctl(self.folder, "checkpoint", "test/other_than_signed", "--check",
                                str(path)).code, OK)

    # ---- archives and imports ----

    def test_export_and_import(self) -> None:
        cube = self.put("goes along")
        self.ctl("update", self.space, cube, "goes along, corrected")
        archive = self.folder / "space.memos"
        summary = self.json("export", self.space, "-o", str(archive))
        self.assertEqual((summary["cubes"], summary["versions"]), (1, 2))
        copy = self.space + "_copy"
        self.assertIn("2 of 2 records added", self.ctl("import", copy, str(archive)).out)
        self.assertIn("0 of 2 records added", self.ctl("import", copy, str(archive)).out)
        self.assertEqual(self.json("verify", copy)["head"], self.json("verify", self.space)["head"])
        self.assertEqual(self.ctl("export", self.space, "-o", "-").raw, archive.read_bytes())
        one = self.folder / "cube.memos"
        self.ctl("export", self.space, cube[:30], "--output", str(one))
        self.ctl("import", self.space + "_one", str(one))
        self.assertEqual(self.ctl("get", self.space + "_one", cube).out, "goes along, corrected")
        broken = self.file("broken.memos", archive.read_bytes()[:-40])
        self.ctl("import", self.space + "_broken", broken, code=CORRUPT)
        self.ctl("export", "test/nowhere", "-o", str(self.folder / "none"), code=NOT_FOUND)
        self.assertEqual([p.name for p in self.folder.glob("none*")], [])
        self.ctl("export", self.space, code=INVALID)

    def test_import_turns(self) -> None:
        turns = [{"session": 1, "time": "1:56 pm on 8 May, 2023", "speaker": "Ada",
                  "text": f"turn {n}", "id": f"D{n}", "mood": "glad"} for n in range(450)]
        path = self.file("turns.jsonl", "\n".join(json.dumps(t) for t in turns))
        counts = self.json("import", self.space, path, "-t", "chat")
        self.assertEqual(counts, {"new": 450, "updated": 0, "unchanged": 0, "failed": 0,
                                  "archives": 0, "archive_added": 0, "dry_run": False})
        before = self.seq()
        self.assertEqual(self.ctl("import", self.space, path, "-t", "chat").out,
                         "0 new, 0 updated, 450 unchanged, 0 failed\n")
        self.assertEqual(self.seq(), before)
        got = self.json("get", self.space, "ext:D7")
        self.assertEqual((got["text"], got["speaker"], got["tags"], got["attributes"]),
                         ("turn 7", "Ada", ["chat"], {"mood": "glad", "session": "1"}))
        self.assertEqual(got["event_time"], "2023-05-08T13:56:00Z")
        turns[3]["text"] = "turn 3, corrected"
        turns.append({"text": "without an id"})
        turns.append({"text": "without an id"})
        path = self.file("turns.jsonl", "\n".join(json.dumps(t) for t in turns))
        self.assertEqual(self.ctl("import", self.space, path, "-t", "chat").out,
                         "2 new, 1 updated, 449 unchanged, 0 failed\n")
        self.assertEqual(self.text("ext:D3"), "turn 3, corrected")

    def test_import_into_several_spaces(self) -> None:
        lines = [{"conv": f"c{n % 8}", "dia_id": f"{n}", "text": f"said {n}",
                  "image_caption": "dog"} for n in range(80)]
        path = self.file("several.jsonl", "\n".join(json.dumps(line) for line in lines))
        names = "space=conv,id=dia_id,caption=image_caption"
        self.assertEqual(self.json("import", self.space, path, "--map", names)["new"], 80)
        spaces = [s["name"] for s in self.json("spaces", "-l", "0")["spaces"]]
        self.assertEqual([s for s in spaces if s.startswith(self.space + "/")],
                         [f"{self.space}/c{n}" for n in range(8)])
        self.assertEqual(self.ctl("get", self.space + "/c3", "ext:11").out, "said 11")
        self.assertEqual(len(self.json("search", self.space + "/c3", "dog")["hits"]), 10)
        self.ctl("import", "-", path, code=INVALID)
        self.ctl("import", self.space, path, "--map", "when=x", code=INVALID)

    def test_import_bad_lines(self) -> None:
        path = self.file("bad.jsonl", '{"text": "good"}\nnonsense\n{"text": "also good", "id": "' +
                         "x" * 300 + '"}\n{"text": "fine"}\n')
        refused = self.ctl("import", self.space, path, code=INVALID)
        self.assertIn("bad.jsonl, line 2: not JSON", refused.err)
        self.assertIn("before it: 1 new", refused.err)
        self.assertEqual(len(self.json("list", self.space)["cubes"]), 1)
        skipped = self.ctl("import", self.space, path, "--skip-bad")
        self.assertEqual(skipped.out, "1 new, 0 updated, 1 unchanged, 2 failed\n")
        self.assertIn("line 3: its id is longer", skipped.err)
        self.assertEqual(len(self.json("list", self.space)["cubes"]), 2)

    def test_import_one_id_twice(self) -> None:
        """The same again is nothing new; other words under an id of the same file are refused, or
        a second import would change them back and forth."""
        lines = [{"text": "a", "id": "1"}, {"text": "a", "id": "1"}, {"text": "b", "id": "1"}]
        path = self.file("twice.jsonl", "\n".join(json.dumps(line) for line in lines))
        self.assertIn("line 3: its id came before", self.ctl(
            "import", self.space, path, code=INVALID).err)
        for _ in range(2):
            self.assertEqual(self.ctl("import", self.space, path, "--skip-bad").out,
                             "0 new, 0 updated, 2 unchanged, 1 failed\n")
        self.assertEqual(len(self.json("history", self.space, "ext:1")["versions"]), 1)

    def test_import_what_the_broker_refuses(self) -> None:
        """One draft of a batch is no good: the others get in, and it is named."""
        lines = [{"text": f"line {n}", "id": f"{n}"} for n in range(20)]
        lines[7]["title"] = "x" * 5000
        path = self.file("refused.jsonl", "\n".join(json.dumps(line) for line in lines))
        self.assertIn("line 8", self.ctl("import", self.space, path, code=9).err)
        out = self.ctl("import", self.space, path, "--skip-bad").out
        self.assertRegex(out, r" 1 failed\n$")
        self.assertEqual(len(self.json("list", self.space)["cubes"]), 19)

    def test_import_texts(self) -> None:
        path = self.file("guide.md", "# Guide\n\nRead this.\n\n## Setup\n\nInstall it.\n")
        self.ctl("import", self.space, path)
        got = self.json("search", self.space, "install")["hits"][0]
        self.assertEqual((got["title"], got["text"], got["subtype"]),
                         ("Guide > Setup", "Install it.", "document"))
        self.assertEqual(got["sources"], [
            {"type": "file", "uri": "guide.md", "offset": 31, "length": 11}])
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        moved = shutil.copy(path, elsewhere / "guide.md")
        self.assertEqual(self.json("import", self.space, str(moved))["unchanged"], 2)

    def test_import_chats(self) -> None:
        messages = self.file("chat.json", json.dumps(
            [{"role": "user", "content": "Where to?"},
             {"role": "assistant", "content": [{"type": "text", "text": "To Porto."}]}]))
        export = self.file("conversations.json", json.dumps([{
            "title": "Trip", "conversation_id": "k", "create_time": 1683554160.0,
            "current_node": "b", "mapping": {
                "a": {"id": "a", "parent": None, "message": {
                    "id": "m1", "author": {"role": "user"},
                    "content": {"content_type": "text", "parts": ["By train?"]}}},
                "b": {"id": "b", "parent": "a", "message": {
                    "id": "m2", "author": {"role": "assistant"}, "create_time": 1683554170.0,
                    "content": {"content_type": "text", "parts": ["By boat."]}}}}}]))
        counts = self.json("import", self.space, messages, export)
        self.assertEqual((counts["new"], counts["failed"]), (4, 0))
        self.assertEqual(self.json("import", self.space, messages, export)["unchanged"], 4)
        got = self.json("get", self.space, "ext:m2")
        self.assertEqual((got["text"], got["title"], got["speaker"], got["event_time"]),
                         ("By boat.", "Trip", "assistant", "2023-05-08T13:56:10Z"))
        unknown = self.file("unknown.bin", "what is this?")
        self.assertIn("--format", self.ctl("import", self.space, unknown, code=INVALID).err)
        self.assertEqual(self.json("import", self.space, unknown, "--format", "text", "--dry-run"),
                         {"new": 1, "updated": 0, "unchanged": 0, "failed": 0, "archives": 0,
                          "archive_added": 0, "dry_run": True})

    # ---- spaces, stats, top, watch ----

    def test_spaces_and_stats(self) -> None:
        self.put("counted")
        info = next(s for s in self.json("spaces", "-l", "0")["spaces"] if s["name"] == self.space)
        self.assertEqual((info["cubes"], info["seq"], info["rights"]), (1, 1, "admin"))
        self.assertEqual(set(info), {"name", "id", "seq", "head", "created", "changed", "cubes",
                                     "versions", "payload_bytes", "rights"})
        metrics = self.json("stats")["metrics"]
        self.assertEqual(set(metrics[0]), {"name", "labels", "type", "help", "value"})
        some = self.json("stats", "--filter", "requests_total")["metrics"]
        self.assertTrue(some and all("requests_total" in m["name"] for m in some))
        self.assertIn("memos_requests_total", self.ctl("stats").out)
        prometheus = self.ctl("stats", "--prometheus").out
        self.assertRegex(prometheus, r"(?m)^# TYPE memos_requests_total counter$")
        self.assertRegex(prometheus, r'(?m)^memos_requests_total\{type="put",status="OK"\} \d+$')

    def test_top(self) -> None:
        looks = self.ctl("top", "--count", "2", "--interval", "50ms", "--json").lines
        self.assertEqual([set(look) for look in looks], [{"time", "values", "rates"}] * 2)
        self.assertIn("memos_bytes_received_total", self.ctl("top", "-c", "1", "-i", "50ms").out)

    def test_watch(self) -> None:
        self.put("before")
        with subprocess.Popen([MEMOSCTL, "watch", self.space, "--count", "2", "--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=environment_of(self.folder)) as watch:
            assert watch.stdout and watch.stderr
            self.assertIn("watching", watch.stderr.readline())
            cubes = [self.put("one"), self.put("two")]
            events = [json.loads(watch.stdout.readline()) for _ in cubes]
            self.assertEqual(watch.wait(timeout=30 * SLOWER), 0)
        self.assertEqual([e["cubes"][0]["id"] for e in events], cubes)
        self.assertEqual(set(events[0]), {"space", "seq", "time", "operation", "author", "cubes",
                                          "cubes_total", "affected"})

    # ---- keys and grants ----

    def test_keys_and_grants(self) -> None:
        path = self.folder / "ann.key"
        public = self.ctl("key", "new", str(path)).out.strip()
        self.assertEqual(len(public), 40)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.ctl("key", "new", str(path), code=EXISTS)
        self.ctl("key", "allow", public, "ann")
        self.assertIn({"public_key": public, "principal": "ann"},
                      [{k: key[k] for k in ("public_key", "principal")}
                       for key in self.json("key", "list")["keys"]])
        self.assertIn("ann", self.ctl("key", "list").out)
        self.ctl("key", "revoke", public)
        self.assertNotIn(public, self.ctl("key", "list").out)
        self.ctl("key", "allow", "short", "ann", code=INVALID)

        self.ctl("grant", "add", "ann", "test/*", "read")
        grants = self.json("grant", "list")["grants"]
        self.assertEqual([set(g) for g in grants], [{"principal", "spaces", "rights", "since"}])
        self.assertRegex(self.ctl("grant", "list").out, r"ann +test/\* +read")
        self.ctl("grant", "remove", "ann", "test/*")
        self.assertEqual(self.json("grant", "list")["grants"], [])
        self.ctl("grant", "add", "ann", "test/*", "own", code=INVALID)

    # ---- the program itself ----

    def test_usage(self) -> None:
        self.assertIn("usage: memosctl", self.ctl("--help").out)
        self.assertIn("usage: memosctl put", self.ctl("put", "--help").out)
        self.assertEqual(self.ctl("help", "key", "new").out, self.ctl("key", "new", "-h").out)
        self.assertRegex(self.ctl("version").out, r"^memosctl \d+\.\d+\.\d+\n$")
        self.assertIn("complete -F", self.ctl("completion", "bash").out)
        self.ctl(code=INVALID)
        self.ctl("nonsense", code=INVALID)
        self.ctl("list", "--limit", code=INVALID)
        self.ctl("list", self.space, "--color", "sometimes", code=INVALID)

    def test_space_from_the_environment(self) -> None:
        self.put("found by default")
        self.assertIn("found by default", self.ctl("list", MEMOS_SPACE=self.space).out)
        self.assertIn("found by default", self.ctl("list", "--space", self.space).out)

    def test_colours_and_hostile_text(self) -> None:
        self.put("plain \x1b[2J\x07 text\u202e")
        plain = self.ctl("list", self.space)
        self.assertNotIn("\x1b", plain.out)
        self.assertIn("\\x1b[2J\\x07", plain.out)
        self.assertIn("\x1b[1m", self.ctl("list", self.space, "--color", "always").out)
        self.assertNotIn("\x1b[2J", self.ctl("list", self.space, "--color", "always").out)
        narrow = self.ctl("list", self.space, COLUMNS="90").out.splitlines()
        self.assertLessEqual(max(len(line) for line in narrow), 90)


class Terminal(unittest.TestCase):
    """With somebody who looks, and can be asked."""

    def setUp(self) -> None:
        self.folder = make_folder()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.assertEqual(ctl(self.folder, "up", "--memosd", MEMOSD).code, OK)
        self.addCleanup(ctl, self.folder, "down")
        ctl(self.folder, "put", "me", "hostile \x1b[2J text")

    def run_on_terminal(self, *arguments: str, keys: str = "",
                        after: str = "") -> tuple[int, str]:
        """The exit status and all that was shown; keys are pressed once `after` is to be seen."""
        main, far = os.openpty()
        with subprocess.Popen([MEMOSCTL, *arguments], stdin=far, stdout=far, stderr=far,
                              env={**environment_of(self.folder), "TERM": "xterm",
                                   "COLUMNS": "120"}) as program:
            os.close(far)
            shown, pressed = "", not keys
            while True:
                try:
                    piece = os.read(main, 4096).decode(errors="replace")
                except OSError:
                    break  # nobody has the far end any more
                if not piece:
                    break
                shown += piece
                if not pressed and after in shown:
                    os.write(main, keys.encode())
                    pressed = True
            code = program.wait(timeout=30 * SLOWER)
        os.close(main)
        return code, shown

    def test_text_is_safe_and_coloured(self) -> None:
        cube = ctl(self.folder, "list", "me", "--json").json["cubes"][0]["id"]
        for command in (("list", "me"), ("get", "me", cube), ("show", "me", cube),
                        ("search", "me", "hostile"), ("history", "me", cube)):
            code, shown = self.run_on_terminal(*command)
            self.assertEqual(code, OK)
            self.assertIn("\\x1b[2J", shown)
            self.assertNotIn("\x1b[2J", shown)
        self.assertIn("\x1b[1m", self.run_on_terminal("list", "me")[1])
        self.assertNotIn("\x1b[", self.run_on_terminal("list", "me", "--color", "never")[1])

    def test_it_asks(self) -> None:
        rollback = ("rollback", "me", "--to", "0")
        code, _ = self.run_on_terminal(*rollback, keys="n\n", after="[y/N]")
        self.assertEqual(code, CANCELLED)
        self.assertEqual(len(ctl(self.folder, "list", "me", "--json").json["cubes"]), 1)
        code, _ = self.run_on_terminal(*rollback, keys="y\n", after="[y/N]")
        self.assertEqual(code, OK)
        self.assertEqual(ctl(self.folder, "list", "me", "--json").json["cubes"], [])
        self.assertEqual(self.run_on_terminal("rollback", "me", "--to", "1", "--yes")[0], OK)
        cube = ctl(self.folder, "list", "me", "--json").json["cubes"][0]["id"]
        code, shown = self.run_on_terminal("forget", "me", cube, keys="\n", after="[y/N]")
        self.assertEqual((code, "for ever?" in shown), (CANCELLED, True))

    def test_top_ends_with_q(self) -> None:
        code, shown = self.run_on_terminal("top", "-i", "50ms", keys="q", after="q quits")
        self.assertEqual((code, "METRIC" in shown), (OK, True))

    def test_no_archive_on_a_terminal(self) -> None:
        self.assertEqual(self.run_on_terminal("export", "me", "-o", "-")[0], INVALID)


if __name__ == "__main__":
    unittest.main()
