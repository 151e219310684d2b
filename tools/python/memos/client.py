"""The synchronous client."""
from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence, Union

import zmq

from . import _address, _wire, model
from . import _convert as convert
from ._api import Api
from ._operations import generate, hello
from ._schema import pb
from ._watching import Watching
from ._wire import Answer, Call, Operation, T
from .errors import Cancelled, Deadline, Unavailable, Unsupported
from .model import Memory, Message, Sampling


class Client(Api):
    """One connection to a broker, for one thread at a time. A context manager.

    address: "ipc:///path/memosd.sock" or "tcp://host:port"; None: $MEMOS_ADDRESS, else the user's
    own broker. server_key: the broker's CURVE public key (Z85); None: $MEMOS_SERVER_KEY, else no
    encryption. key_file: the caller's key pair (memosctl key new); None: $MEMOS_KEY_FILE, else
    one is made up. timeout: seconds to wait for an answer, counted from the last sign of life.
    """

    def __init__(self, address: Optional[str] = None, server_key: Union[str, bytes, None] = None,
                 key_file: Union[str, Path, None] = None, timeout: float = _wire.TIMEOUT):
        self._options = _wire.Options(address, server_key, key_file, timeout)
        self._last_id = 0
        self._socket = self._open_socket(zmq.DEALER, self._options.address)
        self._losses = _wire.Losses(self._socket)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where this client connects to."""
        return self._options.address

    def close(self) -> None:
        """Give the connection up."""
        if not self._socket.closed:
            self._losses.close()
            self._socket.close()

    def watch(self, space: str) -> Watch:
        """The changes of a space from now on: iterate over it, or call its `next`."""
        return Watch(self, space)

    def generate(self, prompt: Union[str, Sequence[Message]], *, space: str = "",
                 memory: Optional[Memory] = None, model: str = "",
                 sampling: Sampling = Sampling(), max_tokens: int = 0, stops: Sequence[str] = (),
                 template: str = "", no_thinking: bool = False, cut_front: bool = False,
                 keep_receipt: bool = False, timeout: float = 3600.0) -> Generation:
        """Let a worker's model answer a conversation, or go on with a text (str): iterate over it
        for pieces of text as they come; its `result` is the whole. space: whose memory it has, as
        `memory` says (None: what a search finds). Leaving it early (`close`, or its `with` block)
        cancels it. While it runs, the client is asked for nothing else. timeout: seconds without a
        word."""
        fields = dict(model=model, max_tokens=max_tokens, stops=stops, template=template,
                      no_thinking=no_thinking, cut_front=cut_front, keep_receipt=keep_receipt)
        call = generate(space, prompt, memory or (Memory() if space else None), sampling, fields)
        return Generation(self, call, timeout)

    def _open_socket(self, kind: int, address: str) -> Any:
        socket: Any = zmq.Context.instance().socket(kind)
        try:
            self._options.apply(socket)
            socket.connect(address)
        except BaseException:
            socket.close()
            raise
        return socket

    def _run(self, operation: Operation[T]) -> T:
        try:
            call = next(operation)
            while True:
                try:
                    answer = self._call(call)
                except BaseException as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    def _call(self, call: Call) -> Answer:
        timeout = self._options.timeout
        deadline = time.monotonic() + timeout
        self._last_id += 1
        request_id = self._last_id
        losses = self._send(_wire.pack(call, request_id, timeout), deadline)
        while True:
            if not self._await_message(losses, deadline):
                raise Deadline(f"no reply from {self.address} within {timeout:g} s")
            answer = _wire.unpack(self._socket.recv_multipart())
            if answer.reply.id == 0 and answer.reply.status != 0:
                return _wire.check(answer)  # the broker could not read the request
            if answer.reply.id != request_id:
                continue  # to a request that did not wait for it
            if not answer.reply.more:
                return _wire.check(answer)
            if call.on_more:
                call.on_more(answer)
            deadline = time.monotonic() + timeout

    def _send(self, parts: List[bytes], deadline: float) -> int:
        """Send once there is a connection; returns how many were lost before this one."""
        look = time.monotonic() + _wire.CONNECT_FAIR
        while not self._await_connection(min(deadline, look)):
            _address.probe(self.address)
            if time.monotonic() >= deadline:
                raise Unavailable(self._options.no_broker())
            look = time.monotonic() + _wire.LOOK
        self._socket.send_multipart(parts)
        return self._losses.count()

    def _await_connection(self, deadline: float) -> bool:
        while self._losses.is_lost():
            if not self._losses.monitor.poll(_wire.milliseconds_to(deadline)):
                return False
        return bool(self._socket.poll(_wire.milliseconds_to(deadline), zmq.POLLOUT))

    def _await_message(self, losses: int, deadline: float) -> bool:
        """Wait until one is there; false past the deadline."""
        while not self._socket.EVENTS & zmq.POLLIN:
            # one that was made again since the request was sent may have been the one before it
            if self._losses.is_lost() or self._losses.count() != losses:
                raise Deadline(self._options.lost())
            if time.monotonic() >= deadline:
                return False
            zmq.zmq_poll([(self._socket, zmq.POLLIN), (self._losses.monitor, zmq.POLLIN)],
                         _wire.milliseconds_to(deadline))
        return True


class Generation:
    """An answer while it is made: an iterator of text, and a context manager."""

    def __init__(self, client: Client, call: Call, timeout: float):
        self._client, self._timeout = client, timeout
        self._result: Optional[model.Answer] = None
        client._last_id += 1
        self._id = client._last_id
        self._over = False
        self._losses = client._send(_wire.pack(call, self._id, timeout),
                                    time.monotonic() + client._options.timeout)

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._over:
            answer = self._next_answer()
            if not answer.reply.more:
                self._over = True
                self._result = convert.answer(_wire.check(answer).body("generated"),
                                              answer.frames)
            elif answer.reply.WhichOneof("body") == "tokens" and answer.reply.tokens.text:
                return str(answer.reply.tokens.text)
        raise StopIteration

    @property
    def result(self) -> model.Answer:
        """The whole answer; what has not been iterated over yet is waited for."""
        for _ in self:
            pass
        if self._result is None:
            raise Cancelled("the answer was left, or failed")
        return self._result

    def close(self) -> None:
        """Want no more of it."""
        if not self._over:
            self._over = True
            self._client._last_id += 1
            cancel = Call("cancel", pb.Cancel(request_id=self._id))
            parts = _wire.pack(cancel, self._client._last_id, self._client._options.timeout)
            try:
                self._client._socket.send_multipart(parts, zmq.NOBLOCK)
            except zmq.Again:
                pass  # there is no connection: the broker has cancelled it already

    def _next_answer(self) -> Answer:
        client = self._client
        deadline = time.monotonic() + self._timeout
        while client._await_message(self._losses, deadline):
            answer = _wire.unpack(client._socket.recv_multipart())
            if answer.reply.id == self._id or (answer.reply.id == 0 and answer.reply.status != 0):
                return answer
        self.close()
        raise Deadline(f"no word from {client.address} within {self._timeout:g} s")


class Watch:
    """The changes of one space, each once and in order. An iterator and a context manager.

    What the broker's PUB socket loses is read from the log. It asks through its client, so that
    both belong to one thread, and is closed before it.
    """

    def __init__(self, client: Client, space: str):
        self._client = client
        self._state = Watching(space)
        self._subscribed = b""
        events = client._run(hello()).events
        if not events:
            raise Unsupported("the broker gives no events on this connection")
        self._socket = client._open_socket(zmq.SUB, _address.reachable(events, client.address))
        try:
            self._ask()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more."""
        self._socket.close()

    def __iter__(self) -> Iterator[model.Event]:
        return self

    def __next__(self) -> model.Event:
        event = self.next()
        assert event is not None
        return event

    def next(self, timeout: Optional[float] = None) -> Optional[model.Event]:
        """The next change; None when none came within timeout seconds (None: wait for ever).
        After an exception the watch can be used on, and still misses nothing."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            event = self._next_now()
            if event is not None:
                return event
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return None
            until = self._state.ask_at if deadline is None else min(self._state.ask_at, deadline)
            self._socket.poll(int(max(0.0, until - now) * 1000) + 1, zmq.POLLIN)

    def _next_now(self) -> Optional[model.Event]:
        state = self._state
        while True:
            if time.monotonic() >= state.ask_at:
                self._ask()
            event = self._client._run(state.next_missed())
            while event is None and not state.behind:
                try:
                    parts = self._socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    return None
                event = state.take(parts)
            if event is not None:
                return event

    def _ask(self) -> None:
        self._client._run(self._state.ask())
        if self._state.token != self._subscribed:
            self._socket.subscribe(self._state.token)
            if self._subscribed:
                self._socket.unsubscribe(self._subscribed)
            self._subscribed = self._state.token
