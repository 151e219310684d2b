"""If this failed, a Python program could take another request's answer for its own, lose a part
of what it read, or get something else than an exception from a broken broker."""
import contextlib
import datetime
import os
import stat
import tempfile
import threading
import time
import unittest
import uuid
from pathlib import Path
from unittest import mock

import zmq

import memos
from memos import _address, _convert
from memos._schema import pb

from fake_broker import PROTOCOL, FakeBroker

UTC = datetime.timezone.utc
ID = uuid.UUID("01923456-789a-7bcd-8ef0-123456789abc")
OTHER = uuid.UUID("01923456-789a-7bcd-8ef0-123456789abd")
GARBAGE = [[b""], [b"MEMOS\x02", b""], [PROTOCOL], [PROTOCOL, b"\xff\xff"], [b"", PROTOCOL, b""],
           [PROTOCOL, b"\x1a\x01\xff"]]


class Case(unittest.TestCase):
    """With a folder, and a client of a fake broker that calls self.handle."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name)
        self.address = f"ipc://{self.path}/b.sock"
        self.seen = []
        broker = FakeBroker(self.address, self.handle)
        self.addCleanup(broker.close)
        self.client = memos.Client(self.address)
        self.addCleanup(self.client.close)

    def handle(self, request):
        """Keep the request and answer with an empty reply of the kind that it wants."""
        self.seen.append(request)
        request.reply(outcome=pb.Outcome())


class Requests(Case):
    """What goes out."""

    def last(self):
        return self.seen[-1].body, self.seen[-1].frames

    def test_put_sends_every_field(self):
        when = datetime.datetime(2026, 5, 1, 12, 30, 0, 123456, UTC)
        self.client.put(
            "acme/alice", "naïve", title="t", tags=["a", "b"], speaker="Ann", external_id="x1",
            event_time=when, language="en", kind=memos.Kind.ACTIVATION, subtype="kv", codec="c",
            model=b"m", derived_from=[memos.Ref(ID, 3)],
            sources=[memos.Source("message", "m:1", 5, 6)], attributes={"k": "v"}, readers=["bob"],
            valid_from=1, valid_to=2, expires=3, retain_until=4, priority=200, sensitivity=3,
            reason="why", key="once")
        body, frames = self.last()
        self.assertEqual(self.seen[-1].message.idempotency_key, b"once")
        self.assertEqual(self.seen[-1].message.deadline_ms, 10000)
        self.assertEqual(frames, ["naïve".encode()])
        self.assertEqual(body, pb.Put(space="acme/alice", reason="why", drafts=[pb.Draft(
            kind=2, subtype="kv", codec="c", frame=1, model=b"m",
            derived_from=[pb.Ref(id=ID.bytes, number=3)], title="t", language="en", speaker="Ann",
            external_id="x1", event_us=1777638600123456, tags=["a", "b"],
            sources=[pb.Source(type="message", uri="m:1", offset=5, length=6)],
            attributes=[pb.Attribute(name="k", value="v")], readers=["bob"], valid_from_us=1,
            valid_to_us=2, expires_us=3, retain_until_us=4, priority=200, sensitivity=3)]))

    def test_put_many_numbers_its_frames(self):
        self.client.put_many("s", ["one", b"\xff", memos.Draft("three", title="t")])
        body, frames = self.last()
        self.assertEqual(frames, [b"one", b"\xff", b"three"])
        self.assertEqual([draft.frame for draft in body.drafts], [1, 2, 3])

    def test_update_names_only_what_is_given(self):
        self.client.update("s", ID, title="new", tags=None, expected=4, tags_add=["x"])
        body, frames = self.last()
        self.assertEqual(frames, [])
        change = body.changes[0]
        self.assertEqual((change.fields, change.expected), (1 << 1 | 1 << 2, 4))
        self.assertEqual((change.draft.title, list(change.draft.tags), change.draft.frame),
                         ("new", [], 0))
        self.assertEqual(list(change.tags_add), ["x"])
        self.client.update("s", ID, "words", transform=True)
        body, frames = self.last()
        self.assertEqual((body.changes[0].fields, frames), (1, [b"words"]))
        self.assertTrue(body.changes[0].transform)
        self.client.update("s", ID, tags_remove=["x"])
        self.assertEqual(self.last()[0].changes[0].fields, 0)
        with self.assertRaises(TypeError):
            self.client.update("s", ID, codec="c")

    def test_other_changes(self):
        self.client.merge("s", [ID, str(OTHER)], "both", reason="r")
        body, frames = self.last()
        self.assertEqual((list(body.sources), body.draft.frame, frames),
                         ([ID.bytes, OTHER.bytes], 1, [b"both"]))
        self.client.transition("s", ID, memos.State.FROZEN)
        self.assertEqual(self.last()[0], pb.Transition(space="s", ids=[ID.bytes], state=3))
        self.client.forget("s", [ID], force=True, dry_run=True)
        self.assertEqual(self.last()[0],
                         pb.Forget(space="s", ids=[ID.bytes], force=True, dry_run=True))
        self.client.grant("bob", "acme/*", "read")
        self.assertEqual(self.last()[0], pb.GrantSet(principal="bob", spaces="acme/*",
                                                     rights="read"))
        self.client.revoke("bob", "acme/*")
        self.assertEqual(self.last()[0], pb.GrantSet(principal="bob", spaces="acme/*"))
        self.client.allow_key("k", "bob")
        self.assertEqual(self.last()[0], pb.KeySet(public_key="k", principal="bob"))
        self.client.revoke_key("k")
        self.assertEqual(self.last()[0], pb.KeySet(public_key="k"))

    def test_rollback_goes_to_one_of_three(self):
        self.client.rollback("s", to=7)
        self.assertEqual(self.last()[0], pb.Rollback(space="s", to=pb.AsOf(seq=7)))
        self.client.rollback("s", ID, version=2, dry_run=True)
        self.assertEqual(self.last()[0], pb.Rollback(space="s", ids=[ID.bytes], to_version=2,
                                                     dry_run=True))
        self.client.rollback("s", [ID], to=datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
                             include_frozen=True)
        self.assertEqual(self.last()[0], pb.Rollback(
            space="s", ids=[ID.bytes], to=pb.AsOf(time_us=1000000), include_frozen=True))
        self.client.rollback("s", beginning=True)
        self.assertEqual(self.last()[0], pb.Rollback(space="s", to_beginning=True))

    def test_what_makes_no_sense_is_never_sent(self):
        for wrong in (lambda: self.client.put("s", 5),
                      lambda: self.client.put("s", "x", event_time=datetime.datetime(2026, 1, 1)),
                      lambda: self.client.forget("s", "not an id"),
                      lambda: self.client.forget("s", b"short"),
                      lambda: self.client.put("s", "x", priority=-1)):
            with self.assertRaises((memos.Invalid, TypeError, ValueError)):
                wrong()
        self.assertEqual(self.seen, [])


class Reads(Case):
    """What comes back."""

    def handle(self, request):
        self.seen.append(request)
        body = request.body
        cube = pb.Cube(id=ID.bytes, number=2, frame=1, time_us=5, tags=["a"],
                       attributes=[pb.Attribute(name="k", value="v")],
                       derived_from=[pb.Ref(id=OTHER.bytes, number=1)],
                       sources=[pb.Source(type="file", uri="f", offset=1, length=2)])
        if request.kind == "get" and body.id_prefix == "none":
            request.reply(cubes=pb.Cubes())
        elif request.kind == "get":
            cubes = [pb.Cube(id=raw, number=1) for raw in body.ids] if len(body.ids) > 1 else [cube]
            request.reply(b"the words", cubes=pb.Cubes(cubes=cubes))
        elif request.kind == "history":
            request.reply(b"x", cubes=pb.Cubes(cubes=[cube]))
        elif request.kind == "list":
            page = [pb.Cube(id=ID.bytes, number=body.cursor + 1)]
            request.reply(cubes=pb.Cubes(cubes=page, next=(body.cursor + 1) % 3))
        elif request.kind == "search":
            hit = pb.Hit(cube=cube, score=1.5)
            if body.explain:
                hit.parts.append(pb.HitPart(name="words", value=1.5, note="BM25 7.31"))
            if body.neighbours:
                hit.before.append(pb.Cube(id=OTHER.bytes, frame=2))
                hit.after.append(pb.Cube(id=OTHER.bytes, frame=3))
            request.reply(b"the words", b"before", b"after", hits=pb.Hits(
                hits=[hit], seq=9, micros=3, encoder="e", missing=2, notes=["dates"]))
        elif request.kind == "search_many":
            hits = pb.HitsOrError(hits=pb.Hits(seq=len(body.searches)))
            bad = pb.HitsOrError(status=3, message="no such space")
            request.reply(hits_many=pb.HitsMany(
                results=[bad if s.space == "none" else hits for s in body.searches]))
        elif request.kind == "log":
            request.reply(log_records=pb.LogRecords(head_seq=9, records=[pb.LogRecord(
                seq=9, operation=5, rollback_to=1, entries=[pb.LogEntry(id=ID.bytes, number=1)])]))
        elif request.kind == "spaces":
            names = [name for name in ("a", "b", "c") if name > body.after]
            request.reply(space_infos=pb.SpaceInfos(
                spaces=[pb.SpaceInfo(name=names[0], id=ID.bytes)], more=len(names) > 1))
        else:
            self.answer_rest(request)

    def answer_rest(self, request):
        body = request.body
        point = pb.CheckpointInfo(space_id=ID.bytes, seq=4, head=b"h", time_us=1, public_key=b"p",
                                  signature=b"s")
        if request.kind == "verify":
            request.reply(verify_result=pb.VerifyResult(bad_seq=3, what="hash",
                                                        bad_ref=pb.Ref(id=ID.bytes, number=1)))
        elif request.kind == "checkpoint":
            request.reply(checkpoints=pb.Checkpoints(checkpoints=[point] * (2 if body.list else 1)))
        elif request.kind == "stats":
            request.reply(stats_result=pb.StatsResult(metrics=[pb.Metric(name="n", value=2)]))
        elif request.kind == "fsck":
            request.reply(fsck_result=pb.FsckResult(problems=1, first=["p"]))
        elif request.kind == "grant_list":
            request.reply(grants=pb.Grants(grants=[pb.Grant(principal="bob", rights="read")]))
        elif request.kind == "key_list":
            request.reply(keys=pb.Keys(keys=[pb.Key(public_key="k", principal="bob")]))
        elif request.kind == "hello":
            request.reply(welcome=pb.Welcome(version="1", protocol=1, principal="me"))
        elif request.kind == "feedback":
            request.reply()
        else:
            self.answer_meaning(request)

    def answer_meaning(self, request):
        body = request.body
        if request.kind == "classify":
            results = [pb.Classification(
                labels=[pb.Label(name=text, weight=0.75), pb.Label(name="else", weight=0.25)],
                best_cosine=0.5, examples=[pb.Ref(id=ID.bytes, number=1)])
                for text in body.texts if text not in ("nothing", "few")]
            results += [pb.Classification()] * (body.texts[0] in ("nothing", "few"))
            request.reply(classified=pb.Classified(results=results))
        elif request.kind == "tree":
            child = pb.TreeChild(number=4, cubes=5, words=["tea", "cup"], leaf=True,
                                 examples=[pb.Cube(id=ID.bytes, frame=1)])
            request.reply(b"the words", tree_nodes=pb.TreeNodes(
                tree=pb.Ref(id=ID.bytes, number=3), path=body.path, cubes=9, children=[child],
                levels=2, branching=8))
        elif request.kind == "encoder_status":
            request.reply(encoder_info=pb.EncoderInfo(
                name="m", source="folder", dims=384, fingerprint=b"f", semantic=True, codes="e4m3",
                waiting=4, done=5, per_second=2.5))

    def test_get(self):
        cube = self.client.get("s", ID)
        self.assertEqual((cube.id, cube.number, cube.payload, cube.text),
                         (ID, 2, b"the words", "the words"))
        self.assertEqual(cube.time, datetime.datetime(1970, 1, 1, 0, 0, 0, 5, UTC))
        self.assertIsNone(cube.event_time)
        self.assertEqual(cube.attributes, {"k": "v"})
        self.assertEqual(cube.derived_from, [memos.Ref(OTHER, 1)])
        self.assertEqual(cube.sources, [memos.Source("file", "f", 1, 2)])
        self.assertEqual(cube.ref, memos.Ref(ID, 2))
        self.client.get("s", "0192", peek=True, as_of=4, payload=False)
        self.assertEqual(self.seen[-1].body, pb.Get(space="s", id_prefix="0192", peek=True,
                                                    as_of=pb.AsOf(seq=4), no_payload=True))
        self.client.get("s", str(ID))
        self.assertEqual(list(self.seen[-1].body.ids), [ID.bytes])
        self.client.get("s", external_id="x", version=3)
        self.assertEqual(self.seen[-1].body, pb.Get(space="s", external_id="x", number=3))
        with self.assertRaises(memos.NotFound):
            self.client.get("s", "none")

    def test_get_many_asks_in_batches(self):
        ids = [uuid.UUID(int=n) for n in range(2500)]
        self.assertEqual([cube.id for cube in self.client.get_many("s", ids)], ids)
        self.assertEqual([len(r.body.ids) for r in self.seen], [1000, 1000, 500])

    def test_lists(self):
        page = self.client.list("s", memos.Filter(tags=["a"], since=1, states=[memos.State.FROZEN]),
                                count=5)
        self.assertEqual((len(page), page.next), (1, 1))
        self.assertEqual(self.seen[-1].body.filter, pb.Filter(tags=["a"], from_us=1, states=[3]))
        self.assertEqual([cube.number for cube in self.client.list_all("s")], [1, 2, 3])

    def test_search(self):
        hits = self.client.search("s", "words", top_k=3)
        self.assertEqual((len(hits), hits.seq, hits[0].score, hits[0].cube.text),
                         (1, 9, 1.5, "the words"))
        queries = [memos.Query("none" if n == 3 else "s", "w") for n in range(300)]
        results = self.client.search_many(queries)
        self.assertEqual([len(r.body.searches) for r in self.seen[1:]], [256, 44])
        self.assertIsInstance(results[3], memos.NotFound)
        self.assertEqual(results[299].seq, 44)

    def test_search_explains_itself(self):
        when = datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        hits = self.client.search("s", "w", mode=memos.Mode.VECTORS, without=["dates", "form"],
                                  explain=True, neighbours=1, now=when)
        self.assertEqual(self.seen[-1].body, pb.Search(
            space="s", text="w", top_k=10, mode=2, without=["dates", "form"], explain=True,
            neighbours=1, now_us=1000000))
        self.assertEqual((hits.encoder, hits.missing, hits.notes), ("e", 2, ["dates"]))
        self.assertEqual(hits[0].parts, [memos.HitPart("words", 1.5, "BM25 7.31")])
        self.assertEqual([c.text for c in hits[0].before + hits[0].after], ["before", "after"])
        plain = self.client.search("s", "w")
        self.assertEqual((plain[0].parts, plain[0].before, plain[0].after), ([], [], []))
        self.client.search_many([memos.Query("s", "w", mode=memos.Mode.WORDS, now=5)])
        self.assertEqual(self.seen[-1].body.searches[0], pb.Search(
            space="s", text="w", top_k=10, mode=1, now_us=5))

    def test_classify_asks_in_batches(self):
        answers = self.client.classify(
            "s", [f"t{n}" for n in range(300)], tag_prefix="label:", top_k=7, margin=0.25,
            method=memos.Method.INTERPOLATION, temperature=0.5, as_of=4)
        self.assertEqual([answer.label for answer in answers], [f"t{n}" for n in range(300)])
        self.assertEqual([len(r.body.texts) for r in self.seen], [256, 44])
        self.assertEqual(self.seen[1].body, pb.Classify(
            space="s", texts=[f"t{n}" for n in range(256, 300)], tag_prefix="label:", top_k=7,
            margin=0.25, method=2, temperature=0.5, as_of=pb.AsOf(seq=4)))
        self.assertEqual(answers[0].labels, [memos.Label("t0", 0.75), memos.Label("else", 0.25)])
        self.assertEqual((answers[0].best_cosine, answers[0].examples),
                         (0.5, [memos.Ref(ID, 1)]))
        [one] = self.client.classify("s", "nothing")
        self.assertEqual((one.label, one.labels, one.examples), ("", [], []))
        with self.assertRaises(memos.Corrupt):
            self.client.classify("s", ["few", "few"])

    def test_tree_and_encoder(self):
        node = self.client.tree("s", [1, 0], examples=2)
        self.assertEqual(self.seen[-1].body, pb.Tree(space="s", path=[1, 0], examples=2))
        self.assertEqual((node.tree, node.path, node.cubes, node.levels, node.branching),
                         (memos.Ref(ID, 3), [1, 0], 9, 2, 8))
        child = node.children[0]
        self.assertEqual((child.number, child.cubes, child.words, child.leaf),
                         (4, 5, ["tea", "cup"], True))
        self.assertEqual(child.examples[0].text, "the words")
        self.client.tree("s", text="w", build=True)
        self.assertEqual(self.seen[-1].body, pb.Tree(space="s", text="w", build=True))
        status = self.client.encoder_status()
        self.assertEqual(status, memos.EncoderInfo("m", "folder", 384, b"f", True, "e4m3", 4, 5,
                                                   2.5, ""))

    def test_the_rest(self):
        log = self.client.log("s", start=9)
        self.assertEqual((log.head_seq, log.records[0].rollback_to), (9, 0))
        self.assertEqual(log.records[0].entries[0].id, ID)
        self.assertEqual(self.client.history("s", ID, payload=True)[0].text, "x")
        self.assertEqual([space.name for space in self.client.spaces()], ["a", "b", "c"])
        bad = self.client.verify("s")
        self.assertEqual((bad.intact, bad.bad_seq, bad.bad_ref), (False, 3, memos.Ref(ID, 1)))
        point = self.client.checkpoint("s")
        self.assertEqual(point, memos.Checkpoint(ID, 4, b"h", 1, b"p", b"s"))
        self.assertEqual(len(self.client.checkpoints("s")), 2)
        self.client.check("s", point)
        self.assertEqual(self.seen[-1].body.check.signature, b"s")
        self.assertEqual(self.client.stats()[0].value, 2)
        self.assertEqual(self.client.fsck(repair=True).first, ["p"])
        self.assertEqual(self.client.grants()[0].rights, "read")
        self.assertEqual(self.client.keys()[0].principal, "bob")
        self.assertEqual(self.client.hello().principal, "me")
        self.assertIsNone(self.client.feedback("s", ID, 0.5))


class Archives(Case):
    """Files in parts."""

    SUMMARY = pb.ArchiveSummary(space_id=ID.bytes, records=3)

    def handle(self, request):
        self.seen.append(request)
        body = request.body
        if request.kind == "export" and body.space == "gap":
            request.reply(b"ab", more=True, export_part=pb.ExportPart(offset=0, frame=1))
            request.reply(b"cd", more=True, export_part=pb.ExportPart(offset=3, frame=1))
            request.reply(export_part=pb.ExportPart(offset=5, summary=self.SUMMARY))
        elif request.kind == "export" and body.space == "fails":
            request.reply(b"ab", more=True, export_part=pb.ExportPart(offset=0, frame=1))
            request.reply(status=15, message="disk")
        elif request.kind == "export":
            request.reply(more=True, progress=pb.Progress(done=1, total=2))
            request.reply(b"ab", more=True, export_part=pb.ExportPart(offset=0, frame=1))
            request.reply(b"cde", more=True, export_part=pb.ExportPart(offset=2, frame=1))
            request.reply(export_part=pb.ExportPart(offset=5, summary=self.SUMMARY))
        elif body.begin:
            self.received = b""
            request.reply(import_ready=pb.ImportReady(token=b"t"))
        elif body.commit:
            request.reply(outcome=pb.Outcome(seq=3, archive=self.SUMMARY))
        else:
            self.received += request.frames[body.frame - 1]
            request.reply(import_ready=pb.ImportReady(token=b"t", offset=len(self.received)))

    def test_an_export_is_whole_or_not_there(self):
        target = self.path / "space.memos"
        target.write_bytes(b"an older one")
        for space in ("gap", "fails"):
            with self.assertRaises(memos.Error):
                self.client.export(space, target)
            self.assertEqual(target.read_bytes(), b"an older one")
        summary = self.client.export("s", target, ID)
        self.assertEqual((summary.records, summary.space_id), (3, ID))
        self.assertEqual(target.read_bytes(), b"abcde")
        self.assertEqual(stat.S_IMODE(target.stat().st_mode), 0o600)
        self.assertEqual(self.seen[-1].body.id, ID.bytes)
        self.assertEqual(sorted(p.name for p in self.path.iterdir()), ["b.sock", "space.memos"])

    def test_an_import_arrives_as_it_is(self):
        source = self.path / "space.memos"
        content = os.urandom(2_500_000)
        source.write_bytes(content)
        outcome = self.client.import_("s", source, reason="r", key="k")
        self.assertEqual((outcome.seq, outcome.archive.records), (3, 3))
        self.assertEqual(self.received, content)
        self.assertEqual(self.seen[0].body.bytes_total, len(content))
        self.assertEqual(self.seen[-1].message.idempotency_key, b"k")


class Trouble(Case):
    """A broker that is late, wrong, broken or away."""

    late = None

    def handle(self, request):
        how = request.body.space
        if how == "late":
            self.late = request
        elif how.startswith("garbage"):
            request.raw(*GARBAGE[int(how[7:])])
        elif how == "status":
            request.reply(status=5, message="at version 7", hint="read it")
        elif how == "unknown status":
            request.reply(status=77, message="new")
        elif how == "unread":
            request.reply(id=0, status=17, message="protocol 9")
        elif how == "other body":
            request.reply(cubes=pb.Cubes())
        elif how == "bad frame":
            request.reply(b"one", cubes=pb.Cubes(cubes=[pb.Cube(id=ID.bytes, frame=2)]))
        elif how == "bad id":
            request.reply(cubes=pb.Cubes(cubes=[pb.Cube(id=b"short")]))
        else:
            if self.late:
                self.late.reply(verify_result=pb.VerifyResult(what="late"))
            for wrong in (0, 12345, 2 ** 64 - 1):
                request.reply(id=wrong, verify_result=pb.VerifyResult(what="wrong"))
            request.reply(verify_result=pb.VerifyResult(what="right"))

    def good(self):
        self.assertEqual(self.client.verify("good").what, "right")

    def test_late_and_foreign_replies_answer_nobody(self):
        with memos.Client(self.address, timeout=0.05) as client:
            with self.assertRaises(memos.Deadline) as caught:
                client.verify("late")
            self.assertIsInstance(caught.exception, TimeoutError)
            client._options.timeout = 10
            self.assertEqual(client.verify("good").what, "right")

    def test_a_status_becomes_an_exception(self):
        with self.assertRaises(memos.Conflict) as caught:
            self.client.verify("status")
        self.assertEqual((caught.exception.message, caught.exception.hint),
                         ("at version 7", "read it"))
        with self.assertRaises(memos.Internal):
            self.client.verify("unknown status")
        with self.assertRaises(memos.Unsupported):
            self.client.verify("unread")
        self.good()

    def test_garbage_is_corrupt_and_the_next_call_works(self):
        for number in range(len(GARBAGE)):
            with self.assertRaises(memos.Corrupt, msg=GARBAGE[number]):
                self.client.verify(f"garbage{number}")
            self.good()
        for how in ("bad frame", "bad id"):
            with self.assertRaises(memos.Corrupt):
                self.client.get(how, ID)
        with self.assertRaises(memos.Corrupt):
            self.client.verify("other body")
        self.good()

    def test_no_broker_is_said_at_once(self):
        path = self.path / "none.sock"
        begin = time.monotonic()
        for stale in (False, True):
            if stale:
                path.write_bytes(b"")
            with memos.Client(f"ipc://{path}", timeout=60) as client:
                with self.assertRaises(memos.Unavailable) as caught:
                    client.verify("s")
            self.assertIn("memosctl up", str(caught.exception))
            self.assertIsInstance(caught.exception, ConnectionError)
        self.assertLess(time.monotonic() - begin, 30)
        with memos.Client("tcp://127.0.0.1:1", timeout=0.05) as client:
            with self.assertRaises(memos.Unavailable):
                client.verify("s")


class Losses(unittest.TestCase):
    """A broker that goes while somebody waits for it: nobody waits on."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.address = f"ipc://{self.folder.name}/b.sock"
        self.client = memos.Client(self.address, timeout=60)
        self.addCleanup(self.client.close)
        self.begin = time.monotonic()
        self.asked = threading.Event()

    def handle(self, request):
        if request.kind == "verify" and request.body.space == "good":
            request.reply(verify_result=pb.VerifyResult(what="right"))
        elif request.kind == "verify":
            self.asked.set()
        else:
            request.reply(more=True, tokens=pb.Tokens(text="half"))

    @contextlib.contextmanager
    def lost(self):
        """What is done inside ends because the broker goes."""
        broker = FakeBroker(self.address, self.handle)
        self.assertEqual(self.client.verify("good").what, "right")
        going = threading.Thread(target=lambda: self.asked.wait() and broker.close())
        going.start()
        with self.assertRaisesRegex(memos.Deadline, "may have been done"):
            yield
        going.join()
        self.assertLess(time.monotonic() - self.begin, 30)

    def test_a_call_ends_with_its_connection(self):
        with self.lost():
            self.client.verify("silent")
        with FakeBroker(self.address, self.handle):
            self.assertEqual(self.client.verify("good").what, "right")

    def test_an_answer_ends_with_its_connection(self):
        said = []
        with self.lost(), self.client.generate("Once", timeout=60) as answer:
            for piece in answer:
                said.append(piece)
                self.asked.set()
        self.assertEqual(said, ["half"])


class Connections(unittest.TestCase):
    """Addresses and keys."""

    def test_keys(self):
        public, secret = zmq.curve_keypair()
        mine = zmq.curve_keypair()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "my.key"
            file.write_bytes(b"# comment\npublic = %s\n secret=%s\r\n" % mine)
            file.chmod(0o600)
            address = f"ipc://{folder}/b.sock"

            def handle(request):
                request.reply(verify_result=pb.VerifyResult(what="in"))

            with FakeBroker(address, handle, secret=secret):
                for key_file in (None, file):
                    with memos.Client(address, public.decode(), key_file) as client:
                        self.assertEqual(client.verify("s").what, "in")
                with memos.Client(address, zmq.curve_keypair()[0], timeout=0.1) as client:
                    with self.assertRaisesRegex(memos.Unavailable, "key"):
                        client.verify("s")

    def test_key_files_are_checked(self):
        public, secret = zmq.curve_keypair()
        good = b"public = %s\nsecret = %s\n" % (public, secret)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "k"
            file.write_bytes(good)
            for mode in (0o640, 0o604, 0o620, 0o602):
                file.chmod(mode)
                with self.assertRaises(memos.Denied):
                    _address.read_key_pair(file)
            file.chmod(0o600)
            self.assertEqual(_address.read_key_pair(file), (public, secret))
            other = zmq.curve_keypair()[0]
            for bad in (b"", b"public = x\nsecret = y\n", good.replace(public, other),
                        b"public = " + public, good.replace(secret, b"\xff" * 40)):
                file.write_bytes(bad)
                with self.assertRaises(memos.Invalid, msg=bad):
                    _address.read_key_pair(file)
            with self.assertRaises(memos.NotFound):
                _address.read_key_pair(Path(folder) / "none")
            with self.assertRaises(memos.Invalid):
                _address.read_key_pair(folder)

    def test_addresses(self):
        for wrong in ("ipc://", "memosd.sock", "http://x", "ipc:///" + "x" * 107):
            with self.assertRaises(memos.Invalid):
                memos.Client(wrong)
        self.assertEqual(_address.check_address("ipc:///" + "x" * 106)[:6], "ipc://")
        for wrong in ({"server_key": "short"}, {"timeout": 0}, {"timeout": float("nan")}):
            with self.assertRaises(memos.Invalid):
                memos.Client("ipc:///x", **wrong)
        with mock.patch.dict(os.environ, {"XDG_RUNTIME_DIR": "/run/user/7"}):
            os.environ.pop("MEMOS_ADDRESS", None)
            with memos.Client() as client:
                self.assertEqual(client.address, "ipc:///run/user/7/memos/memosd.sock")
            os.environ["MEMOS_ADDRESS"] = "tcp://127.0.0.1:1"
            with memos.Client() as client:
                self.assertEqual(client.address, "tcp://127.0.0.1:1")

    def test_a_broker_on_all_addresses_is_reached_by_the_known_one(self):
        for bound, own, reachable in (
                ("tcp://0.0.0.0:7078", "tcp://box:7077", "tcp://box:7078"),
                ("tcp://[::]:7078", "tcp://[fe80::1]:7077", "tcp://[fe80::1]:7078"),
                ("tcp://*:7078", "tcp://10.0.0.1:7077", "tcp://10.0.0.1:7078"),
                ("tcp://10.0.0.2:7078", "tcp://10.0.0.1:7077", "tcp://10.0.0.2:7078"),
                ("ipc:///e", "tcp://box:7077", "ipc:///e")):
            self.assertEqual(_address.reachable(bound, own), reachable)
        with self.assertRaises(memos.Invalid):
            _address.reachable("inproc://x", "tcp://box:1")

    def test_times(self):
        east = datetime.timezone(datetime.timedelta(hours=2))
        for us in (1, -1, 1777638600123456, -62135596800000000, 253402300799999999):
            when = _convert.to_time(us)
            self.assertEqual(_convert.to_us(when), us)
            if us == 1777638600123456:
                self.assertEqual(_convert.to_us(when.astimezone(east)), us)
        self.assertIsNone(_convert.to_time(0))
        self.assertEqual(_convert.to_time(2 ** 63 - 1).year, 9999)
        self.assertEqual(_convert.to_time(-2 ** 63).year, 1)


if __name__ == "__main__":
    unittest.main()
