"""A broker in a thread, with one worker and spaces of its own: as much of both as these tests need.

What a "model" says is a function of the request. Cubes are kept as the real broker keeps them, as
far as versions, hashes, forgetting and the log go.
"""
from __future__ import annotations

import hashlib
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
OK, INVALID, NOT_FOUND, EXISTS, CONFLICT, FORGOTTEN, DENIED, TOO_LARGE = 0, 2, 3, 4, 5, 7, 8, 9
DEADLINE, CANCELLED, CORRUPT, UNSUPPORTED, UNAVAILABLE = 11, 12, 16, 17, 18
STOP, LENGTH, CUT_SHORT = 1, 2, 4  # of enum paramem_finish
FORGOTTEN_STATE, PRINT = 8, bytes(range(32))


def hash_of(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"\0".join(parts), digest_size=32).digest()


class Version:
    def __init__(self, number: int, seq: int, text: bytes, draft: pb.Draft, state: int = 1):
        self.number, self.seq, self.text, self.draft = number, seq, text, draft
        self.state = state


class Space:
    """Cubes and records of one space."""

    def __init__(self) -> None:
        self.cubes: dict[bytes, list[Version]] = {}
        self.forgotten: set[bytes] = set()
        self.heads: list[bytes] = []

    def record(self, *what: bytes) -> int:
        self.heads.append(hash_of(self.heads[-1] if self.heads else b"", *what))
        return len(self.heads)

    def put(self, text: bytes, draft: pb.Draft | None = None) -> bytes:
        cube = uuid.uuid4().bytes
        seq = self.record(b"put", cube, text)
        self.cubes[cube] = [Version(1, seq, text, draft or pb.Draft())]
        return cube

    def update(self, cube: bytes, text: bytes) -> Version:
        versions = self.cubes[cube]
        seq = self.record(b"update", cube, text)
        versions.append(Version(versions[-1].number + 1, seq, text, versions[-1].draft))
        return versions[-1]

    def forget(self, cube: bytes) -> list[bytes]:
        """It and what was derived from it."""
        gone = [cube] + [other for other, versions in self.cubes.items()
                         if cube in [ref.id for ref in versions[-1].draft.derived_from]]
        self.forgotten.update(gone)
        seq = self.record(b"forget", *gone)
        for one in gone:
            last = self.cubes[one][-1]
            for version in self.cubes[one]:
                version.state = FORGOTTEN_STATE
            self.cubes[one].append(Version(last.number + 1, seq, b"", last.draft, FORGOTTEN_STATE))
        return gone

    def message(self, cube: bytes, version: Version, frame: int = 0) -> pb.Cube:
        return pb.Cube(id=cube, number=version.number, seq=version.seq, frame=frame, kind=1,
                       state=version.state, codec="text/plain",
                       payload_hash=hash_of(version.text), speaker=version.draft.speaker,
                       event_us=version.draft.event_us, time_us=1)


def item_of(space: Space, cube: bytes, mark: str = "[1]", **fields) -> pb.ReceiptItem:
    version = space.cubes[cube][-1]
    values = dict(used_as=1, first_token=9, tokens=12, bytes=len(version.text), micros=1500,
                  score=0.5, mark=mark)
    return pb.ReceiptItem(ref=pb.Ref(id=cube, number=version.number),
                          payload_hash=hash_of(version.text), **{**values, **fields})


def receipt_of(name: str, space: Space, *items: pb.ReceiptItem, **fields) -> pb.Receipt:
    values = dict(id=bytes(16), space=name, seq=len(space.heads), time_us=1_700_000_000_000_000,
                  head=space.heads[-1] if space.heads else b"", principal="owner", model="tiny",
                  fingerprint=PRINT, prompt_hash=bytes(32), answer_hash=bytes(range(32, 64)),
                  worker="w1", items=items)
    return pb.Receipt(**{**values, **fields})


class FakeTest(unittest.TestCase):
    """A test with a fake broker: `handle_KIND` of the test answers first."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="memos-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.address = f"ipc://{folder.name}/b.sock"
        self.spaces: dict[str, Space] = {}
        self.seen: list = []
        self.models = [pb.WorkerModel(name="tiny", fingerprint=PRINT, context=4096, backend="cpu",
                                      template="chatml")]
        self.broker = FakeBroker(self.address, self.handle)
        self.addCleanup(self.stop)
        self.environment = {**os.environ, "MEMOS_ADDRESS": self.address, "COLUMNS": "200",
                            "XDG_RUNTIME_DIR": folder.name, "XDG_STATE_HOME": folder.name,
                            "XDG_DATA_HOME": folder.name}
        self.environment.pop("MEMOS_SPACE", None)

    def stop(self) -> None:
        if self.broker:
            self.broker.close()
            self.broker = None

    # ---- the broker

    def handle(self, request) -> None:
        self.seen.append(request)
        getattr(self, "handle_" + request.kind)(request)

    def of_kind(self, kind: str) -> list:
        return [request for request in self.seen if request.kind == kind]

    def space(self, name: str) -> Space:
        return self.spaces.setdefault(name, Space())

    def handle_hello(self, request) -> None:
        request.reply(welcome=pb.Welcome(version="9", protocol=1, principal="owner"))

    def handle_cancel(self, request) -> None:
        request.reply()

    def workers(self) -> list[pb.WorkerInfo]:
        return [pb.WorkerInfo(id=b"\xab\xcd" + bytes(14), jobs_running=1, jobs_done=7,
                              announced=pb.WorkerAnnounce(name="w1", models=self.models,
                                                          jobs_max=16),
                              last=pb.WorkerHeartbeat(tokens=123, captures_loaded=2,
                                                      captures_bytes=2048))]

    def handle_workers(self, request) -> None:
        request.reply(worker_infos=pb.WorkerInfos(workers=self.workers()))

    def handle_put(self, request) -> None:
        space, refs = self.space(request.body.space), []
        for draft in request.body.drafts:
            cube = space.put(request.frames[draft.frame - 1], draft)
            refs.append(pb.Ref(id=cube, number=1))
        request.reply(outcome=pb.Outcome(space=request.body.space, seq=len(space.heads), refs=refs))

    def handle_update(self, request) -> None:
        space = self.space(request.body.space)
        [change] = request.body.changes
        version = space.update(change.id, request.frames[change.draft.frame - 1])
        request.reply(outcome=pb.Outcome(
            space=request.body.space, seq=len(space.heads), affected=[bytes(16)],
            refs=[pb.Ref(id=change.id, number=version.number)]))

    def handle_forget(self, request) -> None:
        space = self.space(request.body.space)
        gone = [cube for one in request.body.ids for cube in space.forget(one)]
        request.reply(outcome=pb.Outcome(seq=len(space.heads), forgotten=gone, gone=True))

    def handle_get(self, request) -> None:
        body = request.body
        space = self.spaces.get(body.space)
        found = None
        if space and body.id_prefix:
            prefix = body.id_prefix.replace("-", "")
            ids = [cube for cube in space.cubes if cube.hex().startswith(prefix)]
        else:
            ids = list(body.ids)
        if space and ids and ids[0] in space.cubes:
            versions = space.cubes[ids[0]]
            if body.as_of.seq:
                versions = [v for v in versions if v.seq <= body.as_of.seq]
            if body.number:
                versions = [v for v in versions if v.number == body.number]
            found = versions[-1] if versions else None
        if not found:
            request.reply(status=NOT_FOUND, message="there is no such cube")
        elif found.state == FORGOTTEN_STATE and not body.no_payload:
            request.reply(status=FORGOTTEN, message="the payload was destroyed")
        else:
            frame = 0 if body.no_payload or ids[0] in space.forgotten else 1
            request.reply(*[found.text][:frame],
                          cubes=pb.Cubes(cubes=[space.message(ids[0], found, frame)]))

    def handle_log(self, request) -> None:
        space = self.spaces.get(request.body.space)
        start = getattr(request.body, "from")
        if not space:
            request.reply(status=NOT_FOUND, message="there is no such space")
            return
        records = [pb.LogRecord(seq=start, hash=space.heads[start - 1])] \
            if 0 < start <= len(space.heads) else []
        request.reply(log_records=pb.LogRecords(records=records, head_seq=len(space.heads)))

    def handle_generate(self, request) -> None:
        """The model says what the test's `answer` gives, in pieces."""
        text, items = self.answer(request)
        for i in range(0, len(text), 4):
            request.reply(more=True, tokens=pb.Tokens(text=text[i:i + 4]))
        receipt = None
        if request.body.space:
            receipt = receipt_of(request.body.space, self.space(request.body.space), *items)
        request.reply(text.encode(), generated=pb.Generated(
            finish=STOP, frame=1, tokens=len(text), cached_tokens=4,
            prompt_tokens=sum(map(len, request.frames)) // 4 + 1 + sum(i.tokens for i in items),
            queued_us=1000, memory_us=2000, first_us=5000, total_us=25000, receipt=receipt))

    def answer(self, request) -> tuple[str, list]:
        return "fine, thanks", []

    # ---- the program

    def ctl(self, *arguments: str, code: int = OK, given: str = "") -> subprocess.CompletedProcess:
        result = subprocess.run([MEMOSCTL, *arguments], capture_output=True, text=True, check=False,
                                input=given, env=self.environment, timeout=60)
        self.assertEqual(result.returncode, code,
                         f"{arguments}\n{result.stdout}{result.stderr}")
        return result
