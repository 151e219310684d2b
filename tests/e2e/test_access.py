"""Who may do what, tried from outside with real keys: every request, every wrong grant, wrong space
and wrong id.

If this failed, one person could read another's memories, or learn that they exist.
"""
import os
import socket
import statistics
import time
import unittest

import zmq
from zmq.utils import z85

import harness
from harness import DENIED, NOT_FOUND, OK, Wire, pb

RANKS = {"": 0, "read": 1, "write": 2, "admin": 3}

ALICE, BOB, NOWHERE, SYSTEM = "acme/alice", "acme/bob", "acme/nowhere", "_system"
SPACES = (ALICE, BOB, NOWHERE, SYSTEM)

# principal: its grants. `nobody` has a key and no grant.
PRINCIPALS = {
    "reader": {ALICE: "read"},
    "writer": {ALICE: "write"},
    "admin": {ALICE: "admin"},
    "neighbour": {BOB: "admin"},
    "auditor": {"acme/*": "read"},
    "nobody": {},
}

SECRET = "the blue suitcase is under the stairs"

# name: (the right that it needs, the request for a space and a cube of it)
REQUESTS = {
    "put": ("write", lambda s, i: dict(put=pb.Put(space=s, drafts=[pb.Draft(frame=1)]))),
    "update": ("write", lambda s, i: dict(update=pb.Update(space=s, changes=[
        pb.Change(id=i, tags_add=["seen"])]))),
    "get": ("read", lambda s, i: dict(get=pb.Get(space=s, ids=[i]))),
    "get by prefix": ("read", lambda s, i: dict(get=pb.Get(space=s, id_prefix=i.hex()[:12]))),
    "get by external id": ("read", lambda s, i: dict(get=pb.Get(space=s, external_id="turn-1"))),
    "list": ("read", lambda s, i: dict(list=pb.List(space=s, payload=True))),
    "search": ("read", lambda s, i: dict(search=pb.Search(space=s, text="suitcase"))),
    "log": ("read", lambda s, i: dict(log=pb.Log(space=s))),
    "history": ("read", lambda s, i: dict(history=pb.History(space=s, id=i, payload=True))),
    "merge": ("write", lambda s, i: dict(merge=pb.Merge(space=s, sources=[i, b"y" * 16],
                                                        draft=pb.Draft(frame=1)))),
    "transition": ("write", lambda s, i: dict(transition=pb.Transition(
        space=s, ids=[i], state=2))),
    "rollback a cube": ("write", lambda s, i: dict(rollback=pb.Rollback(
        space=s, ids=[i], to_version=1, dry_run=True))),
    "rollback a space": ("admin", lambda s, i: dict(rollback=pb.Rollback(
        space=s, to=pb.AsOf(seq=1), dry_run=True))),
    "forget": ("admin", lambda s, i: dict(forget=pb.Forget(space=s, ids=[i], dry_run=True))),
    "verify": ("read", lambda s, i: dict(verify=pb.Verify(space=s))),
    "checkpoint": ("admin", lambda s, i: dict(checkpoint=pb.Checkpoint(space=s))),
    "checkpoints": ("read", lambda s, i: dict(checkpoint=pb.Checkpoint(space=s, list=True))),
    "export a cube": ("read", lambda s, i: dict(export=pb.Export(space=s, id=i))),
    "export a space": ("admin", lambda s, i: dict(export=pb.Export(space=s))),
    "import": ("write", lambda s, i: dict(**{"import": pb.Import(
        space=s, begin=True, bytes_total=100)})),
    "watch": ("read", lambda s, i: dict(watch=pb.Watch(space=s))),
    "feedback": ("write", lambda s, i: dict(feedback=pb.Feedback(
        space=s, id=i, usefulness=1.0))),
}

# What needs a right on everything, or on the broker itself.
BROKER_REQUESTS = {
    "stats": dict(stats=pb.Stats()),
    "fsck": dict(fsck=pb.Fsck()),
    "grant": dict(grant_set=pb.GrantSet(principal="nobody", spaces="*", rights="admin")),
    "grants": dict(grant_list=pb.GrantList()),
    "key": dict(key_set=pb.KeySet(public_key="x" * 40, principal="admin")),
    "keys": dict(key_list=pb.KeyList()),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def right_on(principal: str, space: str) -> int:
    """The table that a person would draw up."""
    if space.startswith("_"):
        return 0
    return max([RANKS[right] for pattern, right in PRINCIPALS[principal].items()
                if pattern == space or (pattern.endswith("/*") and
                                        space.startswith(pattern[:-1]))], default=0)


class Access(harness.BrokerTest):
    starts = False

    def setUp(self) -> None:
        super().setUp()
        self.port, self.events_port = free_port(), free_port()
        self.broker.flags = [
            "--listen", f"{self.broker.address},tcp://127.0.0.1:{self.port}",
            "--events", f"{self.broker.address}.events,tcp://127.0.0.1:{self.events_port}"]
        self.broker.environment = {"MEMOS_CURVE": "true"}
        self.broker.start()
        self.owner = self.closing(Wire(self.broker.address))
        self.server_key = self.owner.ask(hello=pb.Hello()).reply.welcome.server_key
        self.assertTrue(self.server_key)
        self.cubes = {space: self.owner.put(space, SECRET, external_id="turn-1")[0].id
                      for space in (ALICE, BOB)}
        self.cubes[NOWHERE] = self.cubes[SYSTEM] = self.cubes[BOB]
        self.keys = {name: zmq.curve_keypair() for name in PRINCIPALS}
        for name, grants in PRINCIPALS.items():
            self.done(key_set=pb.KeySet(public_key=self.keys[name][0].decode(), principal=name))
            for spaces, rights in grants.items():
                self.done(grant_set=pb.GrantSet(principal=name, spaces=spaces, rights=rights))
        self.wires = {name: self.closing(self.connect(keys)) for name, keys in self.keys.items()}

    def closing(self, wire: Wire) -> Wire:
        self.addCleanup(wire.close)
        return wire

    def done(self, **request) -> None:
        answer = self.owner.ask(**request)
        self.assertEqual(answer.status, OK, answer.reply)

    def curve_key(self) -> bytes:
        """The broker's public key in Z85, whichever form it comes in."""
        key = bytes(self.server_key)
        return z85.encode(key) if len(key) == 32 else key

    def connect(self, keys: tuple[bytes, bytes]) -> Wire:
        return Wire(f"tcp://127.0.0.1:{self.port}", (self.curve_key(), *keys))

    def ask(self, principal: str, name: str, space: str, cube: bytes) -> harness.Answer:
        _, make = REQUESTS[name]
        return self.wires[principal].ask([b"a text"], **make(space, cube))

    def test_the_whole_matrix(self) -> None:
        tried = 0
        for principal in PRINCIPALS:
            for name, (needs, _) in REQUESTS.items():
                for space in SPACES:
                    with self.subTest(principal=principal, request=name, space=space):
                        answer = self.ask(principal, name, space, self.cubes[space])
                        tried += 1
                        if right_on(principal, space) >= RANKS[needs]:
                            self.assertNotEqual(answer.status, DENIED, answer.reply)
                        else:
                            self.assert_gives_nothing_away(answer)
        print(f"{tried} requests tried")

    def assert_gives_nothing_away(self, answer: harness.Answer) -> None:
        self.assertEqual(answer.status, DENIED, answer.reply)
        self.assertEqual(answer.frames, [])
        self.assertIsNone(answer.reply.WhichOneof("body"))
        self.assertNotIn("suitcase", str(answer.reply))

    def test_denied_looks_the_same_whether_it_is_there_or_not(self) -> None:
        for name, (needs, _) in REQUESTS.items():
            with self.subTest(name):
                there = self.ask("nobody", name, BOB, self.cubes[BOB]).reply
                not_there = self.ask("nobody", name, NOWHERE, self.cubes[BOB]).reply
                there.id = not_there.id = 0
                self.assertEqual(str(there).replace(BOB, "SPACE"),
                                 str(not_there).replace(NOWHERE, "SPACE"))

    def test_denied_takes_the_same_time_whether_it_is_there_or_not(self) -> None:
        times: dict[str, list[float]] = {BOB: [], NOWHERE: []}
        for _ in range(300):
            for space, own in times.items():
                begun = time.perf_counter()
                self.ask("nobody", "search", space, self.cubes[BOB])
                own.append(time.perf_counter() - begun)
        there, not_there = (statistics.median(own) for own in times.values())
        print(f"denied in {there * 1e6:.0f} us (there), {not_there * 1e6:.0f} us (not there)")
        self.assertLess(max(there, not_there) / min(there, not_there), 1.5)

    def test_another_space_s_cube_is_not_there(self) -> None:
        """An id of a space that one may not see is like an id that nobody ever gave."""
        unknown = os.urandom(16)
        for name in ("get", "history", "update", "merge", "transition", "rollback a cube",
                     "forget", "export a cube", "feedback"):
            with self.subTest(name):
                theirs = self.ask("admin", name, ALICE, self.cubes[BOB])
                nobodys = self.ask("admin", name, ALICE, unknown)
                self.assertEqual(theirs.status, NOT_FOUND, theirs.reply)
                self.assertEqual(nobodys.status, NOT_FOUND, nobodys.reply)
                self.assertEqual(theirs.frames, [])

    def test_the_broker_itself_is_its_owner_s(self) -> None:
        for principal in PRINCIPALS:
            for name, request in BROKER_REQUESTS.items():
                with self.subTest(principal=principal, request=name):
                    answer = self.wires[principal].ask(**request)
                    self.assertEqual(answer.status, DENIED, answer.reply)
                    self.assertIsNone(answer.reply.WhichOneof("body"))
        grants = self.owner.ask(grant_list=pb.GrantList()).reply.grants.grants
        self.assertEqual(sorted((g.principal, g.spaces, g.rights) for g in grants),
                         sorted((name, spaces, rights) for name, own in PRINCIPALS.items()
                                for spaces, rights in own.items()))

    def test_spaces_lists_only_one_s_own(self) -> None:
        for principal in PRINCIPALS:
            listed = self.wires[principal].ask(spaces=pb.Spaces()).reply.space_infos.spaces
            expected = sorted(s for s in (ALICE, BOB) if right_on(principal, s))
            self.assertEqual([info.name for info in listed], expected, principal)

    def test_many_searches_are_checked_one_by_one(self) -> None:
        searches = [pb.Search(space=space, text="suitcase") for space in SPACES]
        answer = self.wires["reader"].ask(search_many=pb.SearchMany(searches=searches))
        self.assertEqual(answer.status, OK, answer.reply)
        statuses = [result.status for result in answer.reply.hits_many.results]
        self.assertEqual(statuses, [OK, DENIED, DENIED, DENIED])
        self.assertEqual(len(answer.reply.hits_many.results[0].hits.hits), 1)
        self.assertEqual(len(answer.frames), 1)

    def test_the_author_is_who_the_key_says(self) -> None:
        [ref] = self.wires["writer"].put(ALICE, "signed by nobody in particular")
        cube = self.owner.ask(get=pb.Get(space=ALICE, ids=[ref.id])).reply.cubes.cubes[0]
        self.assertEqual(cube.author, "writer")

    def test_a_stranger_s_key_opens_nothing(self) -> None:
        stranger = self.closing(self.connect(zmq.curve_keypair()))
        stranger.socket.rcvtimeo = 500 * harness.SLOWER
        stranger.send(list=pb.List(space=ALICE))
        try:
            self.assertEqual(stranger.receive().status, DENIED)
        except zmq.Again:
            pass  # not even an answer
        plain = self.closing(Wire(f"tcp://127.0.0.1:{self.port}"))
        plain.socket.rcvtimeo = 500 * harness.SLOWER
        plain.send(hello=pb.Hello())
        self.assertRaises(zmq.Again, plain.receive)
        self.good_client_is_served()

    def test_what_is_revoked_is_gone_at_once(self) -> None:
        self.assertEqual(self.ask("reader", "get", ALICE, self.cubes[ALICE]).status, OK)
        self.done(grant_set=pb.GrantSet(principal="reader", spaces=ALICE, rights=""))
        self.assertEqual(self.ask("reader", "get", ALICE, self.cubes[ALICE]).status, DENIED)
        self.assertEqual(self.ask("writer", "get", ALICE, self.cubes[ALICE]).status, OK)
        self.done(key_set=pb.KeySet(public_key=self.keys["writer"][0].decode(), principal=""))
        self.wires["writer"].socket.rcvtimeo = 500 * harness.SLOWER
        try:
            answer = self.ask("writer", "get", ALICE, self.cubes[ALICE])
            self.assertEqual(answer.status, DENIED)
        except zmq.Again:
            pass  # not even an answer

    def test_grants_are_part_of_the_history(self) -> None:
        log = self.owner.ask(log=pb.Log(space=SYSTEM, count_max=100)).reply.log_records
        self.assertGreaterEqual(len(log.records), len(PRINCIPALS))
        self.assert_sound(self.owner, SYSTEM)

    def subscriber(self, keys: tuple[bytes, bytes]) -> zmq.Socket:
        sub = zmq.Context.instance().socket(zmq.SUB)
        self.addCleanup(sub.close)
        sub.linger = 0
        sub.curve_serverkey = self.curve_key()
        sub.curve_publickey, sub.curve_secretkey = keys
        sub.connect(f"tcp://127.0.0.1:{self.events_port}")
        return sub

    def test_events_need_a_token(self) -> None:
        """Subscribing to everything gives nothing; a token gives its one space."""
        nosy = self.subscriber(self.keys["nobody"])
        nosy.subscribe(b"")
        token = self.wires["reader"].ask(watch=pb.Watch(space=ALICE)).reply.watch_token.token
        self.assertGreaterEqual(len(token), 16)
        reader = self.subscriber(self.keys["reader"])
        reader.subscribe(token)
        reader.rcvtimeo = 200 * harness.SLOWER
        for number in range(100):
            self.owner.put(BOB, f"bob {number}")
            self.owner.put(ALICE, f"alice {number}")
            try:
                topic, _, body = reader.recv_multipart()
                break
            except zmq.Again:
                continue  # the subscription has not arrived yet
        event = pb.Event.FromString(body)
        self.assertEqual((topic, event.space), (token, ALICE))
        self.assertNotIn(b"alice", body.replace(ALICE.encode(), b""))
        nosy.rcvtimeo = 200 * harness.SLOWER
        self.assertRaises(zmq.Again, nosy.recv_multipart)


if __name__ == "__main__":
    unittest.main()
