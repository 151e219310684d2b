"""What the tests of host models behind a broker share: random models, real memos-workers, and jobs.

Programs come from the environment (MEMOS_WORKER beside MEMOSD), as meson sets it.
"""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Iterator, NamedTuple

import harness
from harness import ANSWER_MS, OK, SLOWER, Answer, Broker, Wire, pb

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "eval"))

import random_host  # noqa: E402

# "cuda" with a memos-worker whose GPU is emulated (tests/cuda).
BACKEND = os.environ.get("MEMOS_TEST_BACKEND", "cpu")

CANCELLED, NO_MEMORY, UNAVAILABLE, STALE = 12, 14, 18, 19

# Numbers of enum paramem_finish.
STOP, LENGTH, CONTEXT = 1, 2, 3

# Memory.captures, and ReceiptItem.used_as.
AUTO, NEVER, ALWAYS = 0, 1, 2
AS_TEXT, AS_CAPTURE, IN_CAPTURE, INDEPENDENT = 1, 2, 3, 4

PLAINTEXT, ACTIVATION = 1, 2  # enum memcube_kind

# A worker that says nothing is given up after this long (memos/README.md), and a little more.
SILENT_S = 5.0 * SLOWER
SOON_S = 4.0 * SLOWER  # "at once", on a machine that does other things too


def wait_for(what: str, condition, seconds: float = ANSWER_MS / 1000):
    """What condition gives once it is true; it asks somebody, so this is no idle waiting."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        os.sched_yield()


class Worker(harness.Program):
    """A memos-worker of one model."""

    number = 0

    def __init__(self, broker: Broker, model: Path, *flags: str,
                 environment: dict[str, str] | None = None):
        Worker.number += 1
        self.name = f"worker{Worker.number}"
        self.broker, self.model, self.flags = broker, model, flags
        self.environment = environment or {}
        self.log = broker.folder / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Worker:
        """Start, and wait until the broker has it."""
        reading, writing = os.pipe()
        command = [os.environ["MEMOS_WORKER"], "--address", self.broker.address, "--name",
                   self.name, "--model", str(self.model), "--backend", BACKEND, "--threads", "2",
                   "--ready-fd", str(writing), *self.flags]
        environment = {**os.environ, "XDG_CONFIG_HOME": str(self.broker.folder / "config"),
                       "XDG_DATA_HOME": str(self.broker.folder / "share"), **self.environment}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment,
                                            pass_fds=[writing])
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            lines = list(self._lines(told))
        if not lines or lines[-1] != b"ready":
            raise AssertionError(f"{command}: {lines[-1:]}\n{self.said()}")
        return self

    @staticmethod
    def _lines(told: IO[bytes]) -> Iterator[bytes]:
        """What it says of itself, as far as "ready"; less when it ends before."""
        for line in told:
            yield line.strip()
            if line.strip() == b"ready":
                return

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


class Told(NamedTuple):
    """All of an answer."""

    last: Answer
    ids: list[int]
    text: str  # as it was streamed

    @property
    def status(self) -> int:
        return self.last.status

    @property
    def generated(self) -> pb.Generated:
        return self.last.reply.generated

    @property
    def whole(self) -> str:
        """The answer as the last reply has it."""
        return self.last.frames[self.generated.frame - 1].decode()

    def used_as(self) -> list[int]:
        return [item.used_as for item in self.generated.receipt.items]


def request_of(prompt: str, space: str = "", max_tokens: int = 16,
               memory: pb.Memory | None = None, **more) -> tuple[pb.Generate, list[bytes]]:
    """A request that continues a text greedily, and its frames."""
    return (pb.Generate(space=space, prompt_frame=1, max_tokens=max_tokens, memory=memory, **more),
            [prompt.encode()])


def send(wire: Wire, prompt: str, deadline_ms: int = 0, **more) -> int:
    """Ask, and do not wait; returns the request's id."""
    request, frames = request_of(prompt, **more)
    return wire.send(frames, deadline_ms=deadline_ms or ANSWER_MS, generate=request)


def gather(wire: Wire, request_id: int) -> Told:
    """All replies to a request that was sent."""
    ids: list[int] = []
    text = b""
    for answer in wire.answers(request_id):
        if answer.reply.WhichOneof("body") == "tokens":
            ids += [token.id for token in answer.reply.tokens.tokens]
            text += answer.reply.tokens.text.encode()
    return Told(answer, ids, text.decode())


def say(wire: Wire, prompt: str, **more) -> Told:
    """Ask, and wait for the end, which must be a good one."""
    told = gather(wire, send(wire, prompt, **more))
    assert told.status == OK, told.last.reply
    return told


def infos(wire: Wire) -> pb.WorkerInfos:
    answer = wire.ask(workers=pb.Workers())
    assert answer.status == OK, answer.reply
    return answer.reply.worker_infos


class WorkerTest(harness.BrokerTest):
    """A test with a broker, and a worker of `shape` unless `workers` says how many."""

    shape = "tiny"
    workers = 1
    worker_flags: tuple[str, ...] = ()
    model: Path

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory(prefix="memos-host-")
        cls.addClassCleanup(folder.cleanup)
        cls.model = random_host.write_model(Path(folder.name) / cls.shape,
                                            random_host.SHAPES[cls.shape])

    def setUp(self) -> None:
        super().setUp()
        self.running: list[Worker] = []
        self.addCleanup(self._end_workers)
        for _ in range(self.workers):
            self.start_worker()

    def start_worker(self, *flags: str, model: Path | None = None, **more) -> Worker:
        worker = Worker(self.broker, model or self.model, *self.worker_flags, *flags, **more)
        self.running.append(worker)
        return worker.start()

    def restart_worker(self) -> Worker:
        """Another one instead of the first: it has nothing in its cache."""
        old = self.running.pop(0)
        old.stop()
        return self.start_worker()

    def _end_workers(self) -> None:
        outcome = getattr(self, "_outcome", None)
        failed = outcome is not None and not outcome.success
        for worker in self.running:
            if worker.running():
                worker.kill()
            if failed:
                sys.stderr.write(f"{worker.name}:\n{worker.said()}")

    def worker_lives(self) -> None:
        """Somebody who did nothing wrong is answered."""
        with Wire(self.broker.address) as wire:
            told = say(wire, "a well behaved prompt", max_tokens=4, model=self.model.name)
            self.assertEqual(len(told.ids), 4)
