"""Requests and replies as frames, and what both clients do with them.

An operation is a generator: it yields `Call`s, is sent the `Answer`s, and returns its result. It
knows no socket, so that the synchronous and the asynchronous client drive the same ones.
"""
from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Generator, List, NamedTuple, Optional, Sequence, TypeVar, Union

import zmq

from . import _address
from ._schema import pb
from .errors import Corrupt, Invalid, error_of

PROTOCOL = b"MEMOS\x01"
TIMEOUT = 10.0
QUEUE_MESSAGES_MAX = 1000
FRAME_BYTES_MAX = 1 << 30
HEARTBEAT_MS = 10_000
CONNECT_FAIR = 0.02  # seconds in which a broker that is there has taken the connection
LOOK = 1.0  # seconds between two looks whether one is there at all


class Answer(NamedTuple):
    """A reply and its payload frames."""

    reply: Any
    frames: Sequence[bytes]

    def body(self, name: str) -> Any:
        """The body, which has to be the one of this name."""
        if self.reply.WhichOneof("body") != name:
            raise Corrupt(f"the broker answered with '{self.reply.WhichOneof('body')}' where "
                          f"'{name}' was expected")
        return getattr(self.reply, name)


class Call(NamedTuple):
    """One request. on_more gets the answers before the last."""

    body: str
    message: Any
    frames: Sequence[bytes] = ()
    key: bytes = b""
    on_more: Optional[Callable[[Answer], None]] = None


T = TypeVar("T")
Operation = Generator[Call, Answer, T]


def pack(call: Call, request_id: int, timeout: float) -> List[bytes]:
    """The frames of a request."""
    deadline_ms = max(1, min(int(timeout * 1000), 0xFFFFFFFF))
    request = pb.Request(id=request_id, deadline_ms=deadline_ms, idempotency_key=call.key,
                         **{call.body: call.message})
    return [PROTOCOL, request.SerializeToString(), *call.frames]


def unpack(parts: Sequence[bytes]) -> Answer:
    """The reply in frames."""
    if len(parts) < 2 or parts[0] != PROTOCOL:
        raise Corrupt("what the broker sent is no reply of protocol version 1")
    try:
        return Answer(pb.Reply.FromString(parts[1]), parts[2:])
    except Exception as error:  # protobuf's DecodeError, and UnicodeDecodeError of some versions
        raise Corrupt(f"what the broker sent is no reply: {error}") from None


def unpack_event(parts: Sequence[bytes]) -> Any:
    """The event in frames of the PUB socket."""
    if len(parts) != 3 or parts[1] != PROTOCOL:
        raise Corrupt("what the broker published is no event of protocol version 1")
    try:
        return pb.Event.FromString(parts[2])
    except Exception as error:
        raise Corrupt(f"what the broker published is no event: {error}") from None


def check(answer: Answer) -> Answer:
    """The answer, when its status is OK."""
    reply = answer.reply
    if reply.status != 0:
        raise error_of(reply.status, reply.message, reply.hint)
    return answer


def milliseconds_to(deadline: float) -> int:
    """How long to wait for a time of time.monotonic()."""
    return int(max(0.0, deadline - time.monotonic()) * 1000) + 1


class Losses:
    """How often the connection of a socket was lost. What was asked over it before is not answered
    any more, although the socket connects again by itself; and what is sent before it has is lost
    too."""

    def __init__(self, socket: Any):
        self._socket = socket
        self.monitor: Any = socket.get_monitor_socket(
            zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._count = 0
        self._is_lost = False

    def count(self) -> int:
        """Until now."""
        while True:
            try:
                parts = self.monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return self._count
            # the first part begins with the number of the event
            self._is_lost = int.from_bytes(parts[0][:2], sys.byteorder) == zmq.EVENT_DISCONNECTED
            self._count += self._is_lost

    def is_lost(self) -> bool:
        """It was, and was not made again yet."""
        self.count()
        return self._is_lost

    def close(self) -> None:
        """Before the socket is closed."""
        self._socket.disable_monitor()
        self.monitor.close(linger=0)


class Options:
    """Where to connect, and as whom. Arguments that are None come from the environment."""

    def __init__(self, address: Optional[str], server_key: Union[str, bytes, None],
                 key_file: Union[str, Path, None], timeout: float):
        if not 0 < timeout <= 4_000_000:
            raise Invalid(f"a timeout of {timeout} seconds")
        given = address or os.environ.get("MEMOS_ADDRESS")
        self.address = _address.check_address(given) if given else _address.default_address()
        self.timeout = timeout
        self.server_key: Optional[bytes] = None
        self.pair: Optional[_address.KeyPair] = None
        server_key = server_key or os.environ.get("MEMOS_SERVER_KEY")
        key_file = key_file or os.environ.get("MEMOS_KEY_FILE")
        if server_key:
            self.server_key = _address.server_key_of(server_key)
            self.pair = (_address.read_key_pair(key_file) if key_file
                         else _address.KeyPair(*zmq.curve_keypair()))

    def apply(self, socket: Any) -> None:
        """Set the limits and the keys of a socket."""
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = QUEUE_MESSAGES_MAX
        # A request waits where its timeout is seen, not for a broker that comes back. What a
        # broker published before it went is of use.
        socket.immediate = int(socket.type == zmq.DEALER)
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 1000
        socket.maxmsgsize = FRAME_BYTES_MAX
        socket.ipv6 = 1
        if _address.ipc_path(self.address) is None:
            socket.heartbeat_ivl = HEARTBEAT_MS
        if self.server_key and self.pair:
            socket.curve_serverkey = self.server_key
            socket.curve_publickey, socket.curve_secretkey = self.pair

    def lost(self) -> str:
        """What to say when the connection went behind a request."""
        return (f"the connection to {self.address} was lost before it answered; "
                "it may have been done")

    def no_broker(self) -> str:
        """What to say when no connection came about."""
        doubt = ", or it does not know this key" if self.server_key else ""
        return f"no broker takes requests at {self.address}{doubt}"
