"""The statuses of the service, as exceptions. Numbers and names are those of proto/status.h."""
from __future__ import annotations

import enum
from typing import Dict, Type


class Status(enum.IntEnum):
    """What a reply says about its request."""

    OK = 0
    INTERNAL = 1
    INVALID = 2
    NOT_FOUND = 3
    EXISTS = 4
    CONFLICT = 5
    FROZEN = 6
    FORGOTTEN = 7
    DENIED = 8
    TOO_LARGE = 9
    BUSY = 10
    DEADLINE = 11
    CANCELLED = 12
    NO_SPACE = 13
    NO_MEMORY = 14
    IO = 15
    CORRUPT = 16
    UNSUPPORTED = 17
    UNAVAILABLE = 18
    STALE = 19


class Error(Exception):
    """Something that the service, or the way to it, refused.

    `message` says what went wrong, with the values; `hint` what to do about it, when there is
    something to say.
    """

    status = Status.INTERNAL

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Internal(Error):
    """A bug in the service."""

    status = Status.INTERNAL


class Invalid(Error):
    """The request makes no sense."""

    status = Status.INVALID


class NotFound(Error):
    """There is no such space, cube or version, or it is not for the caller to see."""

    status = Status.NOT_FOUND


class Exists(Error):
    """Something of that name or external id is there already."""

    status = Status.EXISTS


class Conflict(Error):
    """The cube is not in the version, or the state, that the request expects."""

    status = Status.CONFLICT


class Frozen(Error):
    """The cube is frozen."""

    status = Status.FROZEN


class Forgotten(Error):
    """The payload was destroyed for good."""

    status = Status.FORGOTTEN


class Denied(Error):
    """The caller may not do this."""

    status = Status.DENIED


class TooLarge(Error):
    """Something exceeds a limit."""

    status = Status.TOO_LARGE


class Busy(Error):
    """The service is overloaded; try again in a moment."""

    status = Status.BUSY


class Deadline(Error, TimeoutError):
    """The request was not done, or not answered, in time. A change may still have happened: with an
    idempotency key it can be sent again safely."""

    status = Status.DEADLINE


class Cancelled(Error):
    """The request was cancelled."""

    status = Status.CANCELLED


class NoSpace(Error):
    """The service's disk is full. Reads still work."""

    status = Status.NO_SPACE


class NoMemory(Error):
    """The service is out of memory."""

    status = Status.NO_MEMORY


class IOFailed(Error):
    """The service could not read or write its files."""

    status = Status.IO


class Corrupt(Error):
    """Data are damaged, or what was received is no reply."""

    status = Status.CORRUPT


class Unsupported(Error):
    """The other side does not know how to do this."""

    status = Status.UNSUPPORTED


class Unavailable(Error, ConnectionError):
    """No broker answers at the address."""

    status = Status.UNAVAILABLE


class Stale(Error):
    """What this was derived from no longer stands."""

    status = Status.STALE


_BY_STATUS: Dict[int, Type[Error]] = {kind.status: kind for kind in Error.__subclasses__()}


def error_of(status: int, message: str = "", hint: str = "") -> Error:
    """The exception for a status that is not OK; one that is not known here is an Internal."""
    kind = _BY_STATUS.get(status)
    if kind is None:
        return Internal(f"status {status}, which this client does not know: {message}", hint)
    return kind(message or kind.status.name.lower().replace("_", " "), hint)
