"""Peers that misbehave: garbage, vanishing, never reading, only sitting there.

If this failed, one bad program on the network could take everybody's memory away, or fill it.
"""
import os
import resource
import socket
import struct
import threading
import unittest

import zmq

import harness
from harness import PROTOCOL, Wire, pb

MEGABYTE = 1 << 20

# ZMTP 3.0: signature, version 3.0, mechanism NULL, as a client; then the READY command of a DEALER.
GREETING = (b"\xff" + struct.pack(">Q", 1) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") +
            b"\0" * 32)
READY_BODY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
READY = b"\x04" + bytes([len(READY_BODY)]) + READY_BODY


def path_of(address: str) -> str:
    return address.removeprefix("ipc://")


class Peers(harness.BrokerTest):
    def make_broker(self) -> harness.Broker:
        # Memory is measured here: allocations must not be filled by who runs the tests.
        return harness.Broker(self.folder, environment={"MALLOC_PERTURB_": "0"})

    def plain_connect(self) -> socket.socket:
        """A connection below ZeroMQ."""
        plain = socket.socket(socket.AF_UNIX)
        plain.connect(path_of(self.broker.address))  # waits while the queue is full
        plain.settimeout(20 * harness.SLOWER)
        return plain

    def test_garbage_below_zeromq(self) -> None:
        random = harness.seeded()
        streams = [b"", b"\0", b"GET / HTTP/1.1\r\nHost: memos\r\n\r\n", GREETING[:30],
                   GREETING + b"\x04\xff", GREETING + READY + b"\x02" + b"\xff" * 8,
                   GREETING + READY + b"\x00\xff" + b"x" * 100, b"\xff" * 5000]
        streams += [random.randbytes(random.randrange(1, 4000)) for _ in range(50)]
        streams += [GREETING + READY + random.randbytes(random.randrange(1, 400))
                    for _ in range(50)]
        for stream in streams:
            plain = self.plain_connect()
            try:
                plain.sendall(stream)
            except OSError:
                pass  # it may hang up on us at any time
            plain.close()
        self.good_client_is_served()
        self.assertTrue(self.broker.running())

    def hostile_messages(self) -> list[list[bytes]]:
        random = harness.seeded()
        good = pb.Request(id=7, get=pb.Get(space="a", ids=[b"x" * 16])).SerializeToString()
        put = pb.Request(id=8, put=pb.Put(space="a", drafts=[
            pb.Draft(frame=1), pb.Draft(frame=1)])).SerializeToString()
        missing = pb.Request(id=9, put=pb.Put(
            space="a", drafts=[pb.Draft(frame=4_000_000_000)])).SerializeToString()
        messages = [[b""], [PROTOCOL], [PROTOCOL, b""], [b"MEMOS\x02", good], [b"memos\x01", good],
                    [b"", PROTOCOL, good], [good, PROTOCOL], [PROTOCOL, good[:-3]],
                    [PROTOCOL, b"\xff" * 64], [PROTOCOL, put, b"one frame for two"],
                    [PROTOCOL, missing, b""], [PROTOCOL, pb.Request(id=10).SerializeToString()],
                    [PROTOCOL, b"\x08\x0b\xfa\x3f\x00"],  # an unknown body, field 1023
                    [PROTOCOL, b"x" * (17 * MEGABYTE)],  # more than an envelope may have
                    [PROTOCOL, good, *[b""] * 5000]]  # more frames than a message may have
        for _ in range(300):
            damaged = bytearray(random.choice([good, put, missing]))
            for _ in range(random.randrange(1, 5)):
                damaged[random.randrange(len(damaged))] = random.randrange(256)
            messages.append([PROTOCOL, bytes(damaged), b"payload"])
        return messages

    def test_garbage_in_messages_is_answered(self) -> None:
        for message in self.hostile_messages():
            with self.subTest(message[1][:40] if len(message) > 1 else message):
                self.wire.socket.send_multipart(message)
                reply = self.wire.receive().reply
                self.assertIn(reply.status, range(20))
                self.assertTrue(reply.status == harness.OK or reply.message)
        self.assertTrue(self.broker.running())
        self.good_client_is_served()

    def test_what_cannot_be_right_is_refused(self) -> None:
        cases = [
            (harness.INVALID, dict(put=pb.Put(space="../etc", drafts=[pb.Draft(frame=1)]))),
            (harness.INVALID, dict(put=pb.Put(space="", drafts=[pb.Draft(frame=1)]))),
            (harness.INVALID, dict(put=pb.Put(space="a"))),
            (harness.INVALID, dict(put=pb.Put(space="a", drafts=[pb.Draft(frame=2)]))),
            (harness.INVALID, dict(put=pb.Put(space="a", drafts=[pb.Draft(frame=1, kind=77)]))),
            (harness.INVALID, dict(get=pb.Get(space="a", ids=[b"short"]))),
            (harness.INVALID, dict(search=pb.Search(space="a", text="x", top_k=1_000_000))),
            (harness.NOT_FOUND, dict(verify=pb.Verify(space="nowhere"))),
        ]
        for status, request in cases:
            with self.subTest(str(request)):
                answer = self.wire.ask([b"text"], **request)
                self.assertEqual(answer.status, status, answer.reply)
                self.assertTrue(answer.reply.message)
        self.good_client_is_served()

    def test_a_client_vanishes_in_the_middle(self) -> None:
        self.wire.put("big", *["z" * MEGABYTE] * 32)
        listing = pb.List(space="big", payload=True, count_max=32)
        before = None
        for turn in range(12):
            wire = Wire(self.broker.address)
            for _ in range(4):
                wire.send(list=listing)
                wire.send([b"q" * MEGABYTE], put=pb.Put(space="big", drafts=[pb.Draft(frame=1)]))
            wire.close()  # without reading one answer
            # half a message, then nothing: the broker must not wait for its end
            plain = self.plain_connect()
            plain.sendall(GREETING + READY + b"\x03" + struct.pack(">Q", MEGABYTE) + b"half")
            plain.close()
            self.good_client_is_served()
            if turn == 3:
                before = self.broker.memory_bytes()
        growth = self.broker.memory_bytes() - before
        print(f"grew by {growth / MEGABYTE:.1f} MB over 8 clients that vanished")
        self.assertLess(growth, 200 * MEGABYTE * harness.SLOWER)

    def test_a_client_that_never_reads(self) -> None:
        self.wire.put("big", *["z" * MEGABYTE] * 32)
        deaf = Wire(self.broker.address)
        deaf.socket.sndtimeo = 2000
        deaf.socket.rcvhwm = 1
        try:
            for _ in range(40 if harness.SANITIZED else 400):  # 32 MB each
                deaf.send(list=pb.List(space="big", payload=True, count_max=32))
        except zmq.Again:
            pass  # nobody takes any more of it: that, too, is a bound
        self.good_client_is_served()
        memory = self.broker.memory_bytes()
        print(f"{memory / MEGABYTE:.0f} MB while a client does not read")
        self.assertLess(memory, 1500 * MEGABYTE)
        deaf.close()
        self.good_client_is_served()

    def test_a_subscriber_that_never_reads(self) -> None:
        events = self.wire.ask(hello=pb.Hello()).reply.welcome.events
        self.assertTrue(events)
        token = self.wire.ask(watch=pb.Watch(space="busy")).reply.watch_token.token
        subscriber = zmq.Context.instance().socket(zmq.SUB)
        self.addCleanup(subscriber.close)
        subscriber.linger = 0
        subscriber.rcvhwm = 1
        subscriber.connect(events)
        subscriber.subscribe(token)
        self.wire.put("busy", "first")
        subscriber.rcvtimeo = 1000 * harness.SLOWER
        while True:  # until the subscription has arrived: then events do
            try:
                subscriber.recv_multipart()
                break
            except zmq.Again:
                self.wire.put("busy", "again")
        before = self.broker.memory_bytes()
        events = 8000
        for number in range(events):
            self.wire.send([b"%d" % number], put=pb.Put(space="busy", drafts=[pb.Draft(frame=1)]))
            if number >= 500:
                self.wire.receive()
        growth = self.broker.memory_bytes() - before
        print(f"grew by {growth / MEGABYTE:.1f} MB over {events} events that nobody took")
        self.assertLess(growth, 64 * MEGABYTE * harness.SLOWER)
        self.good_client_is_served()

    def test_thousands_of_idle_connections(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        wanted = 1000 if harness.SANITIZED else 10_000
        count = wanted if limit == resource.RLIM_INFINITY else min(wanted, limit - 500)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 500, limit)
                                                    if limit != resource.RLIM_INFINITY
                                                    else count + 500, limit))
        before = self.broker.memory_bytes()
        idle = []
        for _ in range(count):
            plain = self.plain_connect()
            plain.sendall(GREETING + READY)
            idle.append(plain)
        # The last one has shaken hands when its READY has come; so have those before it.
        received = b""
        while len(received) < len(GREETING) + 10:
            piece = idle[-1].recv(4096)
            self.assertTrue(piece, "the broker hung up on an idle client")
            received += piece
        each = (self.broker.memory_bytes() - before) / count
        print(f"{count} idle connections, {each / 1024:.1f} KB each")
        self.good_client_is_served()
        self.assertLess(each, 64 * 1024 * harness.SLOWER)
        for plain in idle:
            plain.close()
        self.good_client_is_served()

    def test_many_talk_while_one_talks_nonsense(self) -> None:
        stop = threading.Event()

        def talk_nonsense() -> None:
            with Wire(self.broker.address) as wire:
                while not stop.is_set():
                    wire.socket.send_multipart([PROTOCOL, os.urandom(50)])
                    wire.receive()

        thread = threading.Thread(target=talk_nonsense)
        thread.start()
        try:
            for _ in range(20):
                self.good_client_is_served()
        finally:
            stop.set()
            thread.join()


if __name__ == "__main__":
    unittest.main()
