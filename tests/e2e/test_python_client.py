"""The Python client, every call of it, and libmemos' example against a real memosd.

If this failed, a program that was written after the manual would not work.
"""
import asyncio
import datetime
import os
import subprocess
import sys
import unittest
import uuid
from pathlib import Path

from harness import Broker, BrokerTest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "python"))
import memos  # noqa: E402  (found by the line above)

UTC = datetime.timezone.utc
SPACE = "acme/alice"


class ClientTest(BrokerTest):
    """With a client of a broker."""

    def setUp(self):
        super().setUp()
        self.client = memos.Client(self.broker.address, timeout=60)
        self.addCleanup(self.client.close)

    def put(self, text="some words", **fields):
        return self.client.put(SPACE, text, **fields)


class Cubes(ClientTest):
    def test_every_field_comes_back(self):
        when = datetime.datetime(2026, 5, 1, 12, 30, 0, 123456, UTC)
        source = self.put("what was said").refs[0]
        fields = dict(title="A title", tags=["b", "a"], speaker="Ann", external_id="x-1",
                      event_time=when, language="en", subtype="fact", codec="text/markdown",
                      model=b"m", derived_from=[source],
                      sources=[memos.Source("message", "m:1", 5, 6)], attributes={"k": "v"},
                      readers=["bob"], valid_from=when, valid_to=when + datetime.timedelta(1),
                      expires=datetime.datetime(2200, 1, 1, tzinfo=UTC),
                      retain_until=datetime.datetime(2026, 1, 1, tzinfo=UTC), priority=200,
                      sensitivity=3)
        made = self.put("naïve *words*", reason="told so", **fields)
        cube = self.client.get(SPACE, made.id)
        for name, value in fields.items():
            got = getattr(cube, name)
            self.assertEqual(sorted(got) if name == "tags" else got,
                             sorted(value) if name == "tags" else value, name)
        self.assertEqual((cube.text, cube.number, cube.operation, cube.state, cube.kind),
                         ("naïve *words*", 1, memos.Operation.CREATE, memos.State.GENERATED,
                          memos.Kind.PLAINTEXT))
        self.assertEqual((cube.seq, cube.reason, cube.payload_bytes), (2, "told so", 14))
        self.assertEqual(cube.author, self.client.hello().principal)
        self.assertEqual(cube.time, made.time)

    def test_a_cube_is_found_by_all_its_names(self):
        made = self.put("first", external_id="x-1")
        self.client.update(SPACE, made.id, "second")
        self.assertEqual(self.client.get(SPACE, external_id="x-1").text, "second")
        self.assertEqual(self.client.get(SPACE, str(made.id)[:30]).text, "second")
        self.assertEqual(self.client.get(SPACE, made.id, version=1).text, "first")
        self.assertEqual(self.client.get(SPACE, made.id, as_of=made.seq).text, "first")
        self.assertEqual(self.client.get(SPACE, made.id, as_of=made.time).text, "first")
        self.assertIsNone(self.client.get(SPACE, made.id, payload=False).payload)
        with self.assertRaises(memos.NotFound):
            self.client.get(SPACE, uuid.uuid4())
        with self.assertRaises(memos.NotFound):
            self.client.get("acme/nobody", made.id)

    def test_large_payloads_and_batches(self):
        large = os.urandom(3_000_000)
        made = self.client.put_many(
            SPACE, [memos.Draft(large, codec="application/octet-stream"), "small"])
        cubes = self.client.get_many(SPACE, [ref.id for ref in made.refs])
        self.assertEqual([cube.payload for cube in cubes], [large, b"small"])
        more = self.client.put_many(SPACE, [f"word{n}" for n in range(500)])
        self.assertEqual(len(more.refs), 500)
        self.assertEqual(len(self.client.list_all(SPACE)), 502)
        page = self.client.list(SPACE, count=7, oldest_first=True, payload=True)
        self.assertEqual((len(page), page.cubes[1].text), (7, "small"))
        after = self.client.list(SPACE, count=7, oldest_first=True, cursor=page.next)
        self.assertFalse({c.id for c in page} & {c.id for c in after})
        path = self.client.get(SPACE, made.refs[0].id, path=True)
        self.assertTrue(path.path and path.payload is None or path.payload == large)

    def test_updates(self):
        made = self.put("words", title="old", tags=["a", "b"])
        out = self.client.update(SPACE, made.id, title="new", tags_add=["c"], tags_remove=["a"],
                                 expected=1, priority=9)
        self.assertEqual(out.refs, [memos.Ref(made.id, 2)])
        cube = self.client.get(SPACE, made.id)
        self.assertEqual((cube.title, sorted(cube.tags), cube.text, cube.priority),
                         ("new", ["b", "c"], "words", 9))
        self.client.update(SPACE, made.id, title=None, tags=None)
        cube = self.client.get(SPACE, made.id)
        self.assertEqual((cube.title, cube.tags, cube.text), ("", [], "words"))
        with self.assertRaises(memos.Conflict):
            self.client.update(SPACE, made.id, "late", expected=1)
        self.assertEqual([cube.number for cube in self.client.history(SPACE, made.id)], [1, 2, 3])
        self.assertEqual(self.client.history(SPACE, made.id, payload=True)[0].text, "words")

    def test_a_key_makes_a_change_happen_once(self):
        first = self.put("once", key="k1")
        second = self.put("once", key="k1")
        self.assertFalse(first.repeated_request)
        self.assertTrue(second.repeated_request)
        self.assertEqual((second.refs, second.seq), (first.refs, first.seq))
        self.assertEqual(len(self.client.list(SPACE)), 1)


class Lives(ClientTest):
    def test_merge_and_transition(self):
        one, two = self.put("tea").id, self.put("milk").id
        merged = self.client.merge(SPACE, [one, two], memos.Draft("tea with milk"), reason="r")
        [new] = [ref.id for ref in merged.refs if ref.id not in (one, two)]
        cube = self.client.get(SPACE, new)
        self.assertEqual({ref.id for ref in cube.derived_from}, {one, two})
        self.assertEqual(self.client.get(SPACE, one).state, memos.State.MERGED)
        self.client.transition(SPACE, new, memos.State.FROZEN, reason="keep")
        with self.assertRaises(memos.Frozen):
            self.client.update(SPACE, new, "coffee")
        with self.assertRaises(memos.Frozen):
            self.client.transition(SPACE, new, memos.State.EXPIRED)
        self.client.transition(SPACE, [new], memos.State.ACTIVATED)
        self.client.update(SPACE, new, "coffee")
        self.assertEqual(self.client.get(SPACE, new).text, "coffee")

    def test_rollback_and_its_undoing(self):
        made = self.put("Lisbon")
        self.client.update(SPACE, made.id, "Porto")
        late = self.put("only later")
        plan = self.client.rollback(SPACE, to=made.seq, dry_run=True)
        self.assertEqual(plan.seq, 0)
        self.assertEqual({(item.id, item.from_number, item.to_number) for item in plan.rollback},
                         {(made.id, 2, 1), (late.id, 1, 0)})
        back = self.client.rollback(SPACE, to=made.seq, reason="it was Lisbon")
        self.assertEqual(self.client.get(SPACE, made.id).text, "Lisbon")
        self.assertEqual(self.client.get(SPACE, made.id).equals, 1)
        record = self.client.log(SPACE, newest_first=True, count=1).records[0]
        self.assertEqual((record.operation, record.rollback_to, record.reason),
                         (memos.Operation.ROLLBACK, made.seq, "it was Lisbon"))
        self.client.rollback(SPACE, to=back.seq - 1)
        self.assertEqual(self.client.get(SPACE, made.id).text, "Porto")
        self.assertEqual(self.client.get(SPACE, late.id).text, "only later")
        self.client.rollback(SPACE, made.id, version=1)
        self.assertEqual(self.client.get(SPACE, made.id).text, "Lisbon")
        self.assertTrue(self.client.verify(SPACE).intact)

    def test_forget(self):
        made = self.put("the secret word is xyzzy")
        plan = self.client.forget(SPACE, made.id, dry_run=True)
        self.assertEqual(plan.seq, 0)
        out = self.client.forget(SPACE, made.id, reason="asked to")
        self.assertEqual(out.forgotten, [made.id])
        self.assertEqual(out.payloads_destroyed, 1)
        self.assertEqual(len(self.client.search(SPACE, "xyzzy")), 0)
        try:
            self.assertIsNone(self.client.get(SPACE, made.id).payload)
        except (memos.Forgotten, memos.NotFound):
            pass
        self.assertTrue(self.client.verify(SPACE).intact)

    def test_feedback_is_counted_outside_the_history(self):
        made = self.put()
        self.client.feedback(SPACE, made.id, 1.0)
        cube = self.client.get(SPACE, made.id, behaviour=True)
        self.assertGreater(cube.usefulness, 0)
        self.assertEqual(len(self.client.log(SPACE)), 1)
        with self.assertRaises(memos.Invalid):
            self.client.feedback(SPACE, made.id, 7.0)


class Finding(ClientTest):
    def test_search(self):
        self.client.put_many(SPACE, [
            memos.Draft("Alice moved to Lisbon in May", tags=["home"], speaker="Alice"),
            memos.Draft("The cat sleeps on the sofa", tags=["pet"], speaker="Bob")])
        hits = self.client.search(SPACE, "where did Alice move?", top_k=5)
        self.assertIn("Lisbon", hits[0].cube.text)
        self.assertGreater(hits[0].score, 0)
        self.assertEqual(hits.seq, 1)
        found = self.client.search(SPACE, "cat Lisbon", filter=memos.Filter(tags=["pet"]))
        self.assertEqual([hit.cube.speaker for hit in found], ["Bob"])
        light = self.client.search(SPACE, "cat", ids_only=True)[0].cube
        self.assertEqual((light.payload, light.text), (None, ""))
        words = {"mode": memos.Mode.WORDS}
        queries = [memos.Query(SPACE, "cat", **words), memos.Query("acme/nobody", "cat", **words),
                   memos.Query(SPACE, "zebra", **words)] * 100
        results = self.client.search_many(queries)
        self.assertEqual(len(results), 300)
        for cat, bad, zebra in zip(results[::3], results[1::3], results[2::3]):
            self.assertEqual(len(cat), 1)
            self.assertIsInstance(bad, memos.NotFound)
            self.assertEqual(len(zebra), 0)

    def test_meaning(self):
        """Explained searches, labels and the encoder; hashed n-grams, as there is no model."""
        self.client.put_many(SPACE, [
            memos.Draft("I went swimming in the lake", tags=["label:sport"]),
            memos.Draft("The invoice of the plumber", tags=["label:money", "old"])])
        hits = self.client.search(SPACE, "swimmer lakes", mode=memos.Mode.VECTORS, explain=True)
        self.assertEqual(hits[0].cube.tags, ["label:sport"])
        self.assertAlmostEqual(sum(part.value for part in hits[0].parts), hits[0].score, places=4)
        self.assertTrue(hits.encoder)
        self.assertEqual(hits.missing, 0)
        with self.assertRaises(memos.Invalid):
            self.client.search(SPACE, "x", without=["luck"])
        for method in memos.Method:
            sport, money = self.client.classify(SPACE, ["a lake to swim", "plumbers' invoices"],
                                                tag_prefix="label:", method=method)
            self.assertEqual((sport.label, money.label), ("sport", "money"))
            self.assertEqual(len(sport.examples[:1]), 1)
        status = self.client.encoder_status()
        self.assertEqual((status.source, status.semantic, status.waiting), ("ngrams", False, 0))

    def test_spaces_and_stats(self):
        for name in ("c", "a", "b"):
            self.client.put(name, "x")
        spaces = {space.name: space for space in self.client.spaces()}
        self.assertLessEqual({"a", "b", "c"}, set(spaces))
        self.assertEqual((spaces["a"].cubes, spaces["a"].seq), (1, 1))
        self.assertIn("memos_requests_total", {metric.name for metric in self.client.stats()})


class Proof(ClientTest):
    def test_checkpoints(self):
        made = self.put()
        point = self.client.checkpoint(SPACE)
        self.assertEqual((point.seq, point.head), (made.seq, made.head))
        self.put("more")
        self.assertEqual(self.client.check(SPACE, point).seq, point.seq)
        self.assertIn(point, self.client.checkpoints(SPACE))
        other = memos.Checkpoint(point.space_id, point.seq, bytes(32), point.time_us,
                                 point.public_key, point.signature)
        with self.assertRaises(memos.Corrupt):
            self.client.check(SPACE, other)
        result = self.client.verify(SPACE)
        self.assertEqual((result.intact, result.records, result.seq), (True, 2, 2))
        self.assertEqual(self.client.fsck().problems, 0)

    def test_an_archive_makes_the_journey(self):
        large = os.urandom(2_500_000)
        self.put("words that travel")
        made = self.put(large, codec="application/octet-stream")
        file = self.folder / "space.memos"
        summary = self.client.export(SPACE, file)
        self.assertEqual((summary.records, summary.cubes), (2, 2))
        self.assertEqual(summary.size, file.stat().st_size)
        folder = self.folder / "other"
        folder.mkdir()
        other = Broker(folder).start()
        try:
            with memos.Client(other.address) as client:
                out = client.import_(SPACE, file)
                self.assertEqual((out.archive.cubes, out.seq), (2, 2))
                self.assertEqual(client.get(SPACE, made.id).payload, large)
                again = client.import_(SPACE, file)
                self.assertEqual(again.archive.added, 0)
                self.assertTrue(client.verify(SPACE).intact)
                self.assertEqual(client.search(SPACE, "travel")[0].cube.text,
                                 "words that travel")
        finally:
            other.kill()
        one = self.client.export(SPACE, self.folder / "one.memos", made.id)
        self.assertEqual((one.single_cube, one.cubes), (True, 1))


class Watching(ClientTest):
    def test_every_change_is_seen(self):
        self.put("before")
        with self.client.watch(SPACE) as watch:
            made = [self.put(f"word{n}") for n in range(30)]
            self.client.update(SPACE, made[0].id, "changed")
            for out in made:
                event = watch.next(30)
                self.assertEqual((event.seq, event.refs, event.operation),
                                 (out.seq, out.refs, memos.Operation.CREATE))
            self.assertEqual(watch.next(30).operation, memos.Operation.UPDATE)
            self.assertIsNone(watch.next(0))

    def test_asyncio(self):
        async def work():
            async with memos.AsyncClient(self.broker.address, timeout=60) as client:
                async with client.watch(SPACE) as watch:
                    puts = [client.put(SPACE, f"word{n} common") for n in range(100)]
                    outs = await asyncio.gather(*puts)
                    self.assertEqual(sorted(out.seq for out in outs), list(range(1, 101)))
                    for seq in range(1, 101):
                        self.assertEqual((await watch.next(30)).seq, seq)
                    hits, spaces, cube = await asyncio.gather(
                        client.search(SPACE, "common", top_k=100), client.spaces(),
                        client.get(SPACE, outs[7].id))
                    self.assertEqual((len(hits), cube.text), (100, "word7 common"))
                    self.assertIn(SPACE, {space.name for space in spaces})
                    with self.assertRaises(memos.NotFound):
                        await client.get(SPACE, uuid.uuid4())
                    file = self.folder / "async.memos"
                    await client.export(SPACE, file)
                    self.assertEqual((await client.import_(SPACE, file)).archive.added, 0)

        asyncio.run(work())


class Access(BrokerTest):
    """Keys and grants over TCP."""

    starts = False

    def test_a_key_stands_for_a_principal(self):
        port = 20000 + os.getpid() % 20000
        broker = self.broker
        broker.flags = ["--curve", "true", "--listen", broker.address, "--listen",
                        f"tcp://127.0.0.1:{port}"]
        broker.start()
        public, secret = memos.client.zmq.curve_keypair()
        file = self.folder / "bob.key"
        file.write_bytes(b"public = %s\nsecret = %s\n" % (public, secret))
        file.chmod(0o600)
        with memos.Client(broker.address, timeout=60) as owner:
            owner.put(SPACE, "for alice")
            owner.put("acme/bob", "for bob")
            server_key = owner.hello().server_key
            self.assertEqual(len(server_key), 40)
            owner.allow_key(public.decode(), "bob")
            owner.grant("bob", "acme/bob", "write")
            self.assertIn(("bob", "acme/bob", "write"),
                          [(g.principal, g.spaces, g.rights) for g in owner.grants()])
            self.assertIn(public.decode(), [key.public_key for key in owner.keys()])
            address = f"tcp://127.0.0.1:{port}"
            with memos.Client(address, server_key, file, timeout=60) as bob:
                self.assertEqual(bob.hello().principal, "bob")
                self.assertEqual(bob.put("acme/bob", "mine").seq, 2)
                self.assertEqual([space.name for space in bob.spaces()], ["acme/bob"])
                with self.assertRaises((memos.Denied, memos.NotFound)):
                    bob.search(SPACE, "alice")
                with bob.watch("acme/bob") as watch:
                    seen = owner.put("acme/bob", "yours")
                    self.assertEqual(watch.next(30).seq, seen.seq)
                owner.revoke("bob", "acme/bob")
                with self.assertRaises((memos.Denied, memos.NotFound)):
                    bob.put("acme/bob", "no more")
            owner.revoke_key(public.decode())
            with memos.Client(address, server_key, file, timeout=1) as bob:
                with self.assertRaises(memos.Unavailable):
                    bob.hello()


class Example(BrokerTest):
    def test_the_example_of_the_manual_works(self):
        done = subprocess.run(
            [os.environ["MEMOS_EXAMPLE"], "Alice moved to Lisbon in May.", "where is Alice?"],
            env={**os.environ, "MEMOS_ADDRESS": self.broker.address}, capture_output=True,
            text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("Alice moved to Lisbon in May.\n", done.stdout)


if __name__ == "__main__":
    unittest.main()
