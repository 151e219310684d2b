"""Events of one space without gaps, apart from sockets and waiting. How it works: proto/watch.c."""
from __future__ import annotations

import time
from collections import deque
from typing import Any, Deque, Optional, Sequence

from . import _convert as convert
from . import model
from ._operations import log
from ._schema import pb
from ._wire import Call, Operation, unpack_event
from .errors import Corrupt

ASK_FIRST = 0.1  # seconds
LEASE_LEAST = 1.0
CATCH_UP_RECORDS = 1000


class Watching:
    """What is known of a space's history, and what of it is still to be given."""

    def __init__(self, space: str):
        self.space = space
        self.token = b""
        self.seq = 0  # of the last event that was given
        self.seq_known = 0  # how far the history goes, as far as we were told
        self.ask_at = 0.0
        self._gap = 0.0
        self._missed: Deque[model.LogRecord] = deque()

    @property
    def behind(self) -> bool:
        """Is there something in the log that was not published to us?"""
        return bool(self._missed) or self.seq < self.seq_known

    def ask(self) -> Operation[None]:
        """Ask for the events, or for their going on, and where the history stands."""
        first = not self.token
        answer = yield Call("watch", pb.Watch(space=self.space))
        token = answer.body("watch_token")
        if not token.token:
            raise Corrupt("a watch token of no bytes")
        lease = max(token.lease_ms / 1000, LEASE_LEAST)
        self._gap = min(self._gap * 2 if self._gap else ASK_FIRST, lease / 2)
        self.ask_at = time.monotonic() + self._gap
        self.token = token.token
        self.seq_known = max(self.seq_known, token.seq)
        if first:
            self.seq = self.seq_known

    def next_missed(self) -> Operation[Optional[model.Event]]:
        """The next event that the log has; None when nothing was missed."""
        while self.behind:
            while self._missed:
                record = self._missed.popleft()
                if record.seq > self.seq:
                    self.seq = record.seq
                    return convert.event_of_record(self.space, record)
            if self.seq < self.seq_known:
                yield from self._catch_up()
        return None

    def _catch_up(self) -> Operation[None]:
        found = yield from log(self.space, self.seq + 1, False, CATCH_UP_RECORDS)
        if not found.records or found.records[0].seq <= self.seq:
            self.seq = self.seq_known
            raise Corrupt("the log lacks records that were announced")
        self.seq_known = max(self.seq_known, found.head_seq)
        self._missed.extend(found.records)

    def take(self, parts: Sequence[bytes]) -> Optional[model.Event]:
        """The published event, if it is the next; of one further ahead only its number is taken."""
        msg: Any = unpack_event(parts)
        self.seq_known = max(self.seq_known, msg.seq)
        if msg.seq != self.seq + 1:
            return None
        event = convert.event(msg)
        self.seq = msg.seq
        return event
