"""A broker in a thread that answers as a test wants: also late, wrongly, or not at all."""
from __future__ import annotations

import threading
from typing import Any, Callable, List

import zmq

from memos._schema import pb

PROTOCOL = b"MEMOS\x01"


class Request:
    """One request, on the broker's thread."""

    def __init__(self, broker: FakeBroker, parts: List[bytes]):
        self.broker = broker
        self.peer = parts[0]
        self.message = pb.Request.FromString(parts[2])
        self.frames = parts[3:]

    @property
    def kind(self) -> str:
        """Which body it has."""
        return self.message.WhichOneof("body")

    @property
    def body(self) -> Any:
        """That body."""
        return getattr(self.message, self.kind)

    def reply(self, *frames: bytes, **fields: Any) -> None:
        """Answer; the id is the request's unless it is given."""
        fields.setdefault("id", self.message.id)
        self.raw(PROTOCOL, pb.Reply(**fields).SerializeToString(), *frames)

    def raw(self, *frames: bytes) -> None:
        """Send these frames to whom asked."""
        self.broker.router.send_multipart([self.peer, *frames])


class FakeBroker:
    """Serves `handle` on address from when it is made to when it is closed."""

    def __init__(self, address: str, handle: Callable[[Request], None], events: str = "",
                 secret: bytes = b""):
        self.context = zmq.Context()
        self.handle = handle
        self.router = self._socket(zmq.ROUTER, address, secret)
        self.publisher = self._socket(zmq.PUB, events, secret) if events else None
        self.stop = self._socket(zmq.PAIR, "inproc://stop", b"")
        self.stop_end = self.context.socket(zmq.PAIR)
        self.stop_end.connect("inproc://stop")
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def __enter__(self) -> FakeBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; the address is free afterwards."""
        self.stop_end.send(b"")
        self.thread.join()
        self.context.destroy(linger=0)

    def _socket(self, kind: int, address: str, secret: bytes) -> Any:
        socket = self.context.socket(kind)
        socket.linger = 0
        socket.sndhwm = 0
        if secret:
            socket.curve_server = 1
            socket.curve_secretkey = secret
        socket.bind(address)
        return socket

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self.router, zmq.POLLIN)
        poller.register(self.stop, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self.stop in ready:
                return
            self.handle(Request(self, self.router.recv_multipart()))
