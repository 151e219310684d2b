"""The client for asyncio. It has the methods of `Client`; each gives an awaitable."""
from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Union

import zmq

from . import _address, _wire, model
from . import _convert as convert
from ._api import Api
from ._operations import generate, hello
from ._schema import pb
from ._watching import Watching
from ._wire import Answer, Call, Operation
from .errors import Cancelled, Deadline, Error, Unavailable, Unsupported, error_of
from .model import Memory, Message, Sampling


TURN_MESSAGES_MAX = 100


class _Pump:
    """A socket in the running event loop.

    ZeroMQ's descriptor tells of changes, not of states, and any use of the socket may be what takes
    the news: so every use is followed by a turn, which looks at everything there is.
    """

    def __init__(self, socket: Any, take: Callable[[List[bytes]], None],
                 lose: Callable[[], None]):
        self._socket = socket
        self._take, self._lose = take, lose
        self._losses, self._count = _wire.Losses(socket), 0
        self.is_lost = False  # the connection, and was not made again yet
        self._loop = asyncio.get_running_loop()
        self._writable = asyncio.Event()
        self._descriptor = socket.FD
        self._monitor_descriptor = self._losses.monitor.FD
        self._loop.add_reader(self._descriptor, self._turn)
        self._loop.add_reader(self._monitor_descriptor, self.look)
        self._loop.call_soon(self._turn)

    def close(self) -> None:
        """Close the socket. What was not received is lost."""
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_reader(self._monitor_descriptor)
        self._losses.close()
        self._socket.close()

    def look(self) -> None:
        """Tell when the connection was lost."""
        before, self._count = self._count, self._losses.count()
        was_lost, self.is_lost = self.is_lost, self._losses.is_lost()
        if self._count != before:
            self._turn()  # what came before it is taken
            self._lose()
        if was_lost and not self.is_lost:
            self._loop.call_soon(self._turn)

    def send_now(self, parts: List[bytes]) -> bool:
        """Send, when it can be done at once."""
        self.look()
        try:
            if self.is_lost:  # what the socket takes before it knows is lost too
                raise zmq.Again
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            self._writable.clear()
            return False
        finally:
            self._loop.call_soon(self._turn)
        return True

    async def send(self, parts: List[bytes], timeout: float) -> bool:
        """Send, waiting at most timeout seconds until it can be done."""
        deadline = time.monotonic() + timeout
        while not self.send_now(parts):
            try:
                await asyncio.wait_for(self._writable.wait(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                return False
        return True

    def _turn(self) -> None:
        if self._socket.closed:
            return
        for _ in range(TURN_MESSAGES_MAX):
            # Here libzmq takes notice of a lost connection. It does so at every hundredth part
            # too, and ends the process where that is in the middle of a message.
            if not self._socket.EVENTS & zmq.POLLIN:
                break
            self._take(self._socket.recv_multipart(zmq.NOBLOCK))
        events = self._socket.EVENTS  # this too may take the news of a message
        if events & zmq.POLLIN:
            self._loop.call_soon(self._turn)
        if events & zmq.POLLOUT and not self.is_lost:
            self._writable.set()


class AsyncClient(Api):
    """One connection to a broker, for the tasks of one event loop: as many calls at once as there
    are tasks. An asynchronous context manager; the arguments are those of `Client`.

    A call whose task is cancelled is cancelled at the broker too. Files (`export`, `import_`) are
    read and written in the loop's thread.
    """

    def __init__(self, address: Optional[str] = None, server_key: Union[str, bytes, None] = None,
                 key_file: Union[str, Path, None] = None, timeout: float = _wire.TIMEOUT):
        self._options = _wire.Options(address, server_key, key_file, timeout)
        self._last_id = 0
        self._waiting: Dict[int, asyncio.Queue[Any]] = {}
        self._sent: Set[int] = set()  # those of them that went over the connection there is
        self._pump: Optional[_Pump] = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def address(self) -> str:
        """Where this client connects to."""
        return self._options.address

    async def close(self) -> None:
        """Give the connection up. Calls that wait end with Unavailable."""
        if self._pump:
            self._pump.close()
            self._pump = None
        self._tell_all(Unavailable("the client was closed"))

    def watch(self, space: str) -> AsyncWatch:
        """The changes of a space from the first `next` on: `async for event in
        client.watch(...)`."""
        return AsyncWatch(self, space)

    def generate(self, prompt: Union[str, Sequence[Message]], *, space: str = "",
                 memory: Optional[Memory] = None, model: str = "",
                 sampling: Sampling = Sampling(), max_tokens: int = 0, stops: Sequence[str] = (),
                 template: str = "", no_thinking: bool = False, cut_front: bool = False,
                 keep_receipt: bool = False, timeout: float = 3600.0) -> AsyncGeneration:
        """As `Client.generate`: `async for piece in client.generate(...)`, and `await
        generation.result()`."""
        fields = dict(model=model, max_tokens=max_tokens, stops=stops, template=template,
                      no_thinking=no_thinking, cut_front=cut_front, keep_receipt=keep_receipt)
        call = generate(space, prompt, memory or (Memory() if space else None), sampling, fields)
        return AsyncGeneration(self, call, timeout)

    def _open_socket(self, kind: int, address: str) -> Any:
        socket: Any = zmq.Context.instance().socket(kind)
        try:
            self._options.apply(socket)
            socket.connect(address)
        except BaseException:
            socket.close()
            raise
        return socket

    async def _run(self, operation: Operation[Any]) -> Any:  # type: ignore[override]
        try:
            call = next(operation)
            while True:
                try:
                    answer = await self._call(call)
                except BaseException as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(answer)
        except StopIteration as done:
            return done.value

    async def _call(self, call: Call) -> Answer:
        pump = self._open_pump()
        answers: asyncio.Queue[Any] = asyncio.Queue()
        request_id = self._listen(answers)
        try:
            await self._send(pump, request_id,
                             _wire.pack(call, request_id, self._options.timeout))
            return await self._await_answer(call, answers)
        except asyncio.CancelledError:
            self._cancel(request_id)
            raise
        finally:
            self._unlisten(request_id)

    def _open_pump(self) -> _Pump:
        if self._pump is None:
            self._pump = _Pump(self._open_socket(zmq.DEALER, self._options.address), self._take,
                               self._lose)
        return self._pump

    def _listen(self, answers: asyncio.Queue[Any]) -> int:
        """The id of a new request, whose answers go there."""
        self._last_id += 1
        self._waiting[self._last_id] = answers
        return self._last_id

    def _unlisten(self, request_id: int) -> None:
        self._waiting.pop(request_id, None)
        self._sent.discard(request_id)

    async def _send(self, pump: _Pump, request_id: int, parts: List[bytes]) -> None:
        deadline = time.monotonic() + self._options.timeout
        wait = _wire.CONNECT_FAIR
        while not await pump.send(parts, wait):
            _address.probe(self.address)
            wait = min(_wire.LOOK, deadline - time.monotonic())
            if wait <= 0:
                raise Unavailable(self._options.no_broker())
        pump.look()  # one that was made again since may have been the one before
        self._sent.add(request_id)
        if pump.is_lost:
            self._lose()

    async def _await_answer(self, call: Call, answers: asyncio.Queue[Any]) -> Answer:
        timeout = self._options.timeout
        while True:
            try:
                answer = await asyncio.wait_for(answers.get(), timeout)
            except asyncio.TimeoutError:
                raise Deadline(f"no reply from {self.address} within {timeout:g} s") from None
            if isinstance(answer, Error):
                raise answer
            if not answer.reply.more:
                return _wire.check(answer)
            if call.on_more:
                call.on_more(answer)

    def _cancel(self, request_id: int) -> None:
        """Tell the broker, if it can be done at once. Its answer finds nobody."""
        self._last_id += 1
        call = Call("cancel", pb.Cancel(request_id=request_id))
        if self._pump:
            self._pump.send_now(_wire.pack(call, self._last_id, self._options.timeout))

    def _take(self, parts: List[bytes]) -> None:
        try:
            answer = _wire.unpack(parts)
        except Error as error:
            self._tell_all(error)  # it may have been anybody's
            return
        if answer.reply.id == 0 and answer.reply.status != 0:
            self._tell_all(
                error_of(answer.reply.status, answer.reply.message, answer.reply.hint))
        elif answer.reply.id in self._waiting:
            self._waiting[answer.reply.id].put_nowait(answer)

    def _lose(self) -> None:
        for request_id in self._sent:
            self._waiting[request_id].put_nowait(Deadline(self._options.lost()))
        self._sent.clear()

    def _tell_all(self, error: Error) -> None:
        for answers in self._waiting.values():
            answers.put_nowait(error)


class AsyncGeneration:
    """An answer while it is made: an asynchronous iterator of text, and a context manager; see
    `Generation`. It is asked for with the first `async for`, `async with` or `result`."""

    def __init__(self, client: AsyncClient, call: Call, timeout: float):
        self._client, self._call, self._timeout = client, call, timeout
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._id = 0
        self._over = False
        self._result: Optional[model.Answer] = None

    async def __aenter__(self) -> AsyncGeneration:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncGeneration:
        return self

    async def __anext__(self) -> str:
        await self._begin()
        while not self._over:
            answer = await self._next_answer()
            if not answer.reply.more:
                self._end()
                self._result = convert.answer(_wire.check(answer).body("generated"),
                                              answer.frames)
            elif answer.reply.WhichOneof("body") == "tokens" and answer.reply.tokens.text:
                return str(answer.reply.tokens.text)
        raise StopAsyncIteration

    async def result(self) -> model.Answer:
        """The whole answer; what has not been iterated over yet is waited for."""
        async for _ in self:
            pass
        if self._result is None:
            raise Cancelled("the answer was left, or failed")
        return self._result

    def close(self) -> None:
        """Want no more of it."""
        if self._id and not self._over:
            self._client._cancel(self._id)
        self._end()

    def _end(self) -> None:
        self._over = True
        self._client._unlisten(self._id)

    async def _begin(self) -> None:
        if self._id or self._over:
            return
        client = self._client
        self._id = client._listen(self._answers)
        try:
            await client._send(client._open_pump(), self._id,
                               _wire.pack(self._call, self._id, self._timeout))
        except BaseException:
            self._end()
            raise

    async def _next_answer(self) -> Answer:
        try:
            answer = await asyncio.wait_for(self._answers.get(), self._timeout)
        except asyncio.TimeoutError:
            self.close()
            raise Deadline(f"no word from {self._client.address} within "
                           f"{self._timeout:g} s") from None
        except asyncio.CancelledError:
            self.close()
            raise
        if isinstance(answer, Error):
            self._end()
            raise answer
        taken: Answer = answer
        return taken


class AsyncWatch:
    """The changes of one space, each once and in order. An asynchronous iterator and context
    manager; see `Watch`."""

    def __init__(self, client: AsyncClient, space: str):
        self._client = client
        self._state = Watching(space)
        self._subscribed = b""
        self._socket: Any = None

    async def __aenter__(self) -> AsyncWatch:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more."""
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket.FD)
            self._socket.close()
            self._socket = None

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> model.Event:
        event = await self.next()
        assert event is not None
        return event

    async def next(self, timeout: Optional[float] = None) -> Optional[model.Event]:
        """The next change; None when none came within timeout seconds (None: wait for ever)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        await self._open()
        while True:
            event = await self._next_now()
            if event is not None:
                return event
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return None
            until = self._state.ask_at if deadline is None else min(self._state.ask_at, deadline)
            await self._wait(max(0.0, until - now))

    async def _wait(self, seconds: float) -> None:
        """Wait until something may have been published. The descriptor stays readable until the
        socket is used, so that it is watched for one piece of news at a time."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._socket.FD, ready.set)
        try:
            if not self._socket.EVENTS & zmq.POLLIN:
                await asyncio.wait_for(ready.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            if self._socket:
                loop.remove_reader(self._socket.FD)

    async def _open(self) -> None:
        if self._socket:
            return
        events = (await self._client._run(hello())).events
        if not events:
            raise Unsupported("the broker gives no events on this connection")
        self._socket = self._client._open_socket(
            zmq.SUB, _address.reachable(events, self._client.address))
        try:
            await self._ask()
        except BaseException:
            self.close()
            raise

    async def _next_now(self) -> Optional[model.Event]:
        state = self._state
        while True:
            if time.monotonic() >= state.ask_at:
                await self._ask()
            event = await self._client._run(state.next_missed())
            while event is None and not state.behind:
                try:
                    parts = self._socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    return None
                event = state.take(parts)
            if event is not None:
                return event

    async def _ask(self) -> None:
        await self._client._run(self._state.ask())
        if self._state.token != self._subscribed:
            self._socket.subscribe(self._state.token)
            if self._subscribed:
                self._socket.unsubscribe(self._subscribed)
            self._subscribed = self._state.token
