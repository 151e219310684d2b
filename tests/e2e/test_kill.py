"""The broker is killed (SIGKILL) at random moments while clients write.

If this failed, somebody was told "it is remembered", and it is not; or a change was applied twice,
or by half.

MEMOS_KILL_ROUNDS says how often (default 6). After every kill: fsck is clean, every history
verifies, every acknowledged change of that round is there. At the end: all of them, once each.
"""
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import unittest
from collections import Counter
from pathlib import Path

import harness
from harness import FORGOTTEN, OK, Wire, pb

ROUNDS = int(os.environ.get("MEMOS_KILL_ROUNDS", "6"))
ROUNDS_A_STORE = 25  # then a new one, so that looking at all of it stays quick
WRITERS = 4
SPACES = ("kill/0", "kill/1")  # two writers to each: they share its log
CREATE, UPDATE = 1, 2  # enum memcube_operation


def hash_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=32).digest()


class Notes:
    """What one writer was told."""

    def __init__(self, path: Path, space: str):
        self.path, self.space = path, space
        self.offset = 0
        self.lines: list[list] = []

    def read_on(self) -> list[list]:
        """The acknowledgements since the last call."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[:data.rfind(b"\n") + 1]  # the writer may be in the middle of a line
        self.offset += len(whole)
        fresh = [json.loads(line) for line in whole.splitlines()]
        self.lines += fresh
        return fresh


class Kill(harness.BrokerTest):
    starts = False

    def setUp(self) -> None:
        super().setUp()
        self.random = harness.seeded()
        self.lost = 0

    def begin(self, number: int) -> None:
        """A store of its own for these rounds, and writers on it."""
        self.broker = harness.Broker(self.folder / str(number))
        self.broker.folder.mkdir()
        self.forgetting: set[str] = set()
        self.notes: list[Notes] = []
        self.writers: list[subprocess.Popen[bytes]] = []
        self.broker.start()
        with Wire(self.broker.address) as wire:
            for space in SPACES:
                wire.put(space, f"the first sentence of {space}")
        self.start_writers()

    def start_writers(self) -> None:
        for number in range(WRITERS):
            path = self.broker.folder / f"notes-{number}"
            path.touch()
            space = SPACES[number % len(SPACES)]
            command = [sys.executable, str(Path(__file__).with_name("kill_writer.py")),
                       self.broker.address, space, str(path), str(self.random.randrange(1 << 32))]
            writer = subprocess.Popen(command)
            self.addCleanup(self.end_writer, writer)
            self.writers.append(writer)
            self.notes.append(Notes(path, space))

    @staticmethod
    def end_writer(writer: subprocess.Popen[bytes]) -> None:
        if writer.poll() is None:
            writer.kill()
        writer.wait()

    def check_notes(self, wire: Wire, space: str, notes: list[list], writing: bool) -> None:
        """Each acknowledged version is there with its text's hash; what was forgotten is not.

        writing: the writers live, and what they had asked to forget may be noted later.
        """
        self.forgetting |= {note[1] for note in notes if note[0] == "forgetting"}
        for kind, cube, *rest in notes:
            if kind == "forgetting":
                continue
            number, text = rest if rest else (0, "")
            answer = wire.ask(get=pb.Get(space=space, ids=[bytes.fromhex(cube)], number=number,
                                         peek=True))
            if kind == "forget":
                self.assertEqual(answer.status, FORGOTTEN, "forgotten, and yet to be read")
            elif answer.status == FORGOTTEN and (writing or cube in self.forgetting):
                continue
            elif answer.status != OK or answer.frames != [text.encode()] \
                    or answer.reply.cubes.cubes[0].payload_hash != hash_of(text):
                self.lost += 1
                print(f"LOST: {space} {cube} version {number}: status {answer.status}")

    def check_once(self, wire: Wire, space: str, notes: list[list]) -> None:
        """No text was written twice: keys of repeated requests were known."""
        hashes: Counter[bytes] = Counter()
        cursor = 0
        while True:
            log = wire.ask(log=pb.Log(space=space, **{"from": cursor + 1}, count_max=1000))
            self.assertEqual(log.status, OK, log.reply)
            records = log.reply.log_records.records
            if not records:
                break
            cursor = records[-1].seq
            for record in records:
                for entry in record.entries:
                    got = wire.ask(get=pb.Get(space=space, ids=[entry.id], number=entry.number,
                                              no_payload=True, peek=True))
                    if got.status == OK and record.operation in (CREATE, UPDATE):
                        hashes[got.reply.cubes.cubes[0].payload_hash] += 1
        self.assertEqual([n for n in hashes.values() if n > 1], [])
        acknowledged = {hash_of(note[3]) for note in notes
                        if note[0] in ("put", "update") and note[1] not in self.forgetting}
        self.assertLessEqual(acknowledged, set(hashes))

    def signal_writers(self, number: signal.Signals) -> None:
        for writer in self.writers:
            self.assertIsNone(writer.poll(), "a writer was answered with an error")
            writer.send_signal(number)

    def kill_once(self) -> None:
        # a moment chosen at random is what is waited for
        threading.Event().wait(self.random.uniform(0.03, 0.6) * harness.SLOWER)
        self.broker.kill()
        if self.random.random() < 0.3:  # and once more, while it recovers
            self.broker.start(wait=False)
            threading.Event().wait(self.random.uniform(0, 0.05))
            self.broker.kill()
        self.broker.start()

    def check_round(self) -> int:
        """Look at what is new, while nobody writes; returns how much was acknowledged."""
        total = 0
        self.signal_writers(signal.SIGSTOP)
        fresh = [(notes.space, notes.read_on()) for notes in self.notes]
        with Wire(self.broker.address) as wire:
            for space, lines in fresh:
                total += sum(line[0] != "forgetting" for line in lines)
                self.check_notes(wire, space, lines, writing=True)
            self.assert_sound(wire, *SPACES)
        self.signal_writers(signal.SIGCONT)
        return total

    def check_all(self) -> None:
        with Wire(self.broker.address) as wire:
            for notes in self.notes:
                notes.read_on()
                self.check_notes(wire, notes.space, notes.lines, writing=False)
            for space in SPACES:
                self.check_once(wire, space, [line for notes in self.notes if notes.space == space
                                              for line in notes.lines])
            self.assert_sound(wire, *SPACES)

    def test_every_acknowledged_write_survives(self) -> None:
        total = 0
        for first in range(0, ROUNDS, ROUNDS_A_STORE):
            self.begin(first)
            for number in range(first, min(first + ROUNDS_A_STORE, ROUNDS)):
                self.kill_once()
                total += self.check_round()
                print(f"kill {number + 1}: {total} acknowledged, {self.lost} lost", flush=True)
            for writer in self.writers:
                self.end_writer(writer)
            self.check_all()
            self.broker.kill()
        print(f"{ROUNDS} kills, {total} acknowledged changes, {self.lost} lost")
        self.assertEqual(self.lost, 0)
        self.assertGreater(total, 0, "nothing was acknowledged: this tested nothing")


if __name__ == "__main__":
    unittest.main()
