"""What the end-to-end tests share: a real memosd in a folder of its own, and a plain wire to it.

The wire here is pyzmq and the generated schema, nothing else: these tests also send what no client
would. Programs come from the environment (MEMOSD, MEMOSCTL), as meson sets it.
"""
from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import uuid
from pathlib import Path
from typing import Iterator, NamedTuple

import zmq

import memos_pb2 as pb

PROTOCOL = b"MEMOS\x01"
SANITIZED = os.environ.get("MEMOS_SANITIZED") == "1"
# Sanitizers make a program slower and larger by this much; what is waited for, and how much memory
# may grow, is scaled by it.
SLOWER = 10 if SANITIZED else 1
ANSWER_MS = 20_000 * SLOWER

# The numbers of proto/status.h that tests name.
OK, INVALID, NOT_FOUND, CONFLICT, FROZEN, FORGOTTEN, DENIED = 0, 2, 3, 5, 6, 7, 8
TOO_LARGE, BUSY, DEADLINE, NO_SPACE, IO, CORRUPT, UNSUPPORTED = 9, 10, 11, 13, 15, 16, 17

# Bits of enum memcube_field.
FIELD_PAYLOAD = 1 << 0


def seeded() -> random.Random:
    """A generator whose seed is printed, and taken from MEMOS_TEST_SEED when that is set."""
    seed = int(os.environ.get("MEMOS_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"MEMOS_TEST_SEED={seed}", flush=True)
    return random.Random(seed)


class Answer(NamedTuple):
    reply: pb.Reply
    frames: list[bytes]

    @property
    def status(self) -> int:
        return self.reply.status


class Wire:
    """One DEALER connection. Requests are written out by hand: wire.ask(get=pb.Get(...))."""

    def __init__(self, address: str, curve: tuple[bytes, bytes, bytes] | None = None):
        """curve: the broker's public key, one's own public key, and its secret."""
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = ANSWER_MS
        self.socket.reconnect_ivl = 20
        if curve:
            self.socket.curve_serverkey, self.socket.curve_publickey, \
                self.socket.curve_secretkey = curve
        self.socket.connect(address)
        self.last_id = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, frames=(), key: bytes = b"", deadline_ms: int = 0, **body) -> int:
        """Send a request; returns its id."""
        self.last_id += 1
        request = pb.Request(id=self.last_id, idempotency_key=key, deadline_ms=deadline_ms, **body)
        self.socket.send_multipart([PROTOCOL, request.SerializeToString(), *frames])
        return self.last_id

    def receive(self) -> Answer:
        """The next reply, whosever it is; zmq.Again when none comes in time."""
        protocol, envelope, *frames = self.socket.recv_multipart()
        assert protocol == PROTOCOL, protocol
        reply = pb.Reply()
        reply.ParseFromString(envelope)
        return Answer(reply, frames)

    def answers(self, request_id: int) -> Iterator[Answer]:
        """All replies to one request, the last one included."""
        while True:
            answer = self.receive()
            if answer.reply.id == request_id:
                yield answer
                if not answer.reply.more:
                    return

    def ask(self, frames=(), **request) -> Answer:
        """Send, and wait for the last reply."""
        *_, last = self.answers(self.send(frames, **request))
        return last

    def put(self, space: str, *texts: str, **draft) -> list[pb.Ref]:
        """Put texts, which must succeed; returns the versions."""
        drafts = [pb.Draft(frame=i + 1, **draft) for i in range(len(texts))]
        answer = self.ask([text.encode() for text in texts], put=pb.Put(space=space, drafts=drafts))
        assert answer.status == OK, answer.reply
        return list(answer.reply.outcome.refs)

    def text(self, space: str, cube: bytes, number: int = 0) -> str | None:
        """The text of a version (0: the head); None when there is none to be had."""
        answer = self.ask(get=pb.Get(space=space, ids=[cube], number=number))
        if answer.status != OK or not answer.reply.cubes.cubes:
            return None
        frame = answer.reply.cubes.cubes[0].frame
        return answer.frames[frame - 1].decode() if frame else None


class Program:
    """One that runs, and how it ends."""
    process: subprocess.Popen | None = None

    def kill(self) -> None:
        """No warning, no goodbye."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process
        self.process.terminate()
        return self.process.wait(timeout=30 * SLOWER)

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Broker(Program):
    """A memosd with its store in a folder of its own."""

    def __init__(self, folder: Path, *flags: str, environment: dict[str, str] | None = None):
        self.folder = folder
        self.data = folder / "data"
        self.address = f"ipc://{folder}/b.sock"
        self.flags = list(flags)
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "memosd.log"

    def start(self, wait: bool = True) -> Broker:
        command = [os.environ["MEMOSD"], "--data-dir", str(self.data), *self.flags]
        if "--listen" not in self.flags:
            command += ["--listen", self.address]
        # A broker of these tests reads no one's configuration, and no one's models.
        environment = {**os.environ, "XDG_CONFIG_HOME": str(self.folder / "config"),
                       "XDG_DATA_HOME": str(self.folder / "share"),
                       "XDG_RUNTIME_DIR": str(self.folder), **self.environment}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        if wait:
            with Wire(self.address) as wire:
                answer = wire.ask(hello=pb.Hello())
                assert answer.status == OK, answer.reply
        return self

    def memory_bytes(self) -> int:
        """What of it is in memory now."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        for line in status.splitlines():
            # pages of the database's file are the system's to take back
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")


class BrokerTest(unittest.TestCase):
    """A test with a folder and, unless `starts` is False, a broker and a wire to it."""

    flags: tuple[str, ...] = ()
    starts = True

    def setUp(self) -> None:
        # Socket paths are short (108 bytes), so the folder is, too.
        self.folder = Path(tempfile.mkdtemp(prefix="memos-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.broker = self.make_broker()
        self.addCleanup(self._end)
        if self.starts:
            self.broker.start()
            self.wire = Wire(self.broker.address)
            self.addCleanup(self.wire.close)

    def make_broker(self) -> Broker:
        return Broker(self.folder, *self.flags)

    def _end(self) -> None:
        if self.broker.running():
            self.broker.kill()
        outcome = getattr(self, "_outcome", None)
        failed = outcome is not None and not outcome.success
        if failed and self.broker.log.exists():
            sys.stderr.write(self.broker.log.read_text(errors="replace")[-4000:])

    def good_client_is_served(self) -> None:
        """Somebody who did nothing wrong can write and find."""
        with Wire(self.broker.address) as wire:
            word = "w" + uuid.uuid4().hex
            [ref] = wire.put("good/client", f"a well behaved sentence about {word}")
            self.assertEqual(wire.text("good/client", ref.id),
                             f"a well behaved sentence about {word}")
            found = wire.ask(search=pb.Search(space="good/client", text=f"behaved {word}"))
            self.assertEqual(found.status, OK)
            self.assertIn(ref.id, [hit.cube.id for hit in found.reply.hits.hits])

    def assert_sound(self, wire: Wire, *spaces: str) -> None:
        """fsck finds nothing, and the history of each space is intact."""
        wire.socket.rcvtimeo = 600_000
        answer = wire.ask(fsck=pb.Fsck(), deadline_ms=600_000)
        self.assertEqual(answer.status, OK, answer.reply)
        self.assertEqual(list(answer.reply.fsck_result.first), [])
        self.assertEqual(answer.reply.fsck_result.problems, 0)
        for space in spaces:
            answer = wire.ask(verify=pb.Verify(space=space), deadline_ms=600_000)
            self.assertEqual(answer.status, OK, answer.reply)
            self.assertTrue(answer.reply.verify_result.intact, answer.reply.verify_result.what)


def ctl(broker: Broker, *arguments: str, check: bool = True,
        given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run memosctl against a broker; given: its standard input."""
    environment = {**os.environ, "MEMOS_ADDRESS": broker.address,
                   "XDG_CONFIG_HOME": str(broker.folder / "config"),
                   "XDG_RUNTIME_DIR": str(broker.folder)}
    result = subprocess.run([os.environ["MEMOSCTL"], *arguments], capture_output=True, text=True,
                            env=environment, input=given, check=False, timeout=120 * SLOWER)
    if check and result.returncode != 0:
        raise AssertionError(f"memosctl {' '.join(arguments)}: {result.returncode}\n"
                             f"{result.stdout}{result.stderr}")
    return result


def send_signal(broker: Broker, number: signal.Signals) -> None:
    assert broker.process
    broker.process.send_signal(number)
