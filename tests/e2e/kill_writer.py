"""One client of test_kill.py: writes as fast as it is answered, and notes what was acknowledged.

usage: kill_writer.py ADDRESS SPACE NOTES SEED

Runs until it is terminated. Every change has an idempotency key and is sent again, the same, until
an answer comes: brokers come and go. What has been answered OK is a line of JSON in NOTES:
["put"|"update", id, number, text] or ["forget", id]; before a forget is sent, ["forgetting", id].
"""
from __future__ import annotations

import json
import random
import sys

import zmq

import harness
from harness import OK, Wire, pb

IN_FLIGHT = 8
PATIENCE_MS = 300 * harness.SLOWER


class Writer:
    def __init__(self, address: str, space: str, notes: str, seed: int):
        self.wire = Wire(address)
        self.wire.socket.rcvtimeo = PATIENCE_MS
        self.space = space
        self.notes = open(notes, "a", encoding="utf-8")
        self.random = random.Random(seed)
        self.prefix = f"{seed:x}"
        self.count = 0
        self.heads: list[bytes] = []  # cubes that may be changed: nobody else is changing them
        self.waiting: dict[int, tuple[list, bytes, dict, bytes]] = {}

    def next_change(self) -> tuple[list, dict, bytes]:
        """What will be noted, the body of the request, its payload."""
        self.count += 1
        text = f"{self.prefix} sentence {self.count} " + "x" * self.random.randrange(600)
        draw = self.random.random()
        if self.heads and draw < 0.3:
            cube = self.heads.pop(self.random.randrange(len(self.heads)))
            if draw < 0.04:
                self.note(["forgetting", cube.hex()])
                return ["forget", cube.hex()], {"forget": pb.Forget(
                    space=self.space, ids=[cube])}, b""
            change = pb.Change(id=cube, fields=harness.FIELD_PAYLOAD, draft=pb.Draft(frame=1))
            return ["update", cube.hex(), 0, text], {"update": pb.Update(
                space=self.space, changes=[change])}, text.encode()
        return ["put", "", 0, text], {"put": pb.Put(
            space=self.space, drafts=[pb.Draft(frame=1)])}, text.encode()

    def note(self, note: list) -> None:
        self.notes.write(json.dumps(note) + "\n")
        self.notes.flush()

    def send(self, note: list, key: bytes, body: dict, payload: bytes) -> None:
        frames = [payload] if payload else []
        self.waiting[self.wire.send(frames, key=key, **body)] = (note, key, body, payload)

    def settle(self, answer: harness.Answer) -> None:
        if answer.reply.id not in self.waiting:
            return  # an answer to something that was sent again since
        if answer.reply.status in (harness.BUSY, harness.DEADLINE):
            self.send(*self.waiting.pop(answer.reply.id))
            return
        note, *_ = self.waiting.pop(answer.reply.id)
        if answer.status != OK:
            raise SystemExit(f"{note[:2]}: {answer.reply}")
        if note[0] != "forget":
            ref = answer.reply.outcome.refs[0]
            note[1], note[2] = ref.id.hex(), ref.number
            self.heads.append(ref.id)
        self.note(note)

    def run(self) -> None:
        while True:
            while len(self.waiting) < IN_FLIGHT:
                note, body, payload = self.next_change()
                key = f"{self.prefix}-{self.count}".encode()
                self.send(note, key, body, payload)
            try:
                self.settle(self.wire.receive())
            except zmq.Again:
                # The broker was killed: what has not been answered may or may not be written.
                for request in list(self.waiting):
                    self.send(*self.waiting.pop(request))


if __name__ == "__main__":
    Writer(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])).run()
