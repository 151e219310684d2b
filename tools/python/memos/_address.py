"""Where brokers are, and the keys to them. The rules are those of proto/client.h."""
from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import NamedTuple, Optional, Union

import zmq
import zmq.utils.z85

from .errors import Denied, Invalid, NotFound, Unavailable

SOCKET_PATH_BYTES_MAX = 107
KEY_FILE_BYTES_MAX = 4096


class KeyPair(NamedTuple):
    """A CURVE key pair in Z85."""

    public: bytes
    secret: bytes


def ipc_path(address: str) -> Optional[str]:
    """The path of an ipc address; None of another."""
    return address[6:] if address.startswith("ipc://") else None


def check_address(address: str) -> str:
    """The address, when a client can connect to it."""
    path = ipc_path(address)
    if path is not None:
        size = len(os.fsencode(path))
        if not 0 < size <= SOCKET_PATH_BYTES_MAX:
            raise Invalid(f"the socket's path has {size} bytes, and the system takes 1 to "
                          f"{SOCKET_PATH_BYTES_MAX}: {path}")
    elif not address.startswith("tcp://"):
        raise Invalid(f"'{address}' is no address: give ipc:///path/of/memosd.sock or "
                      "tcp://host:port")
    return address


def reachable(bound: str, own: str) -> str:
    """The address to connect to for one that the broker bound: where it listens on all of its
    host's addresses, the host is the one that this client reached it by."""
    for anywhere in ("tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:"):
        if bound.startswith(anywhere) and own.startswith("tcp://"):
            bound = f"{own.rpartition(':')[0]}:{bound[len(anywhere):]}"
    return check_address(bound)


def default_address() -> str:
    """Where the user's own broker listens."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        folder = f"{runtime}/memos"
    else:
        folder = f"/tmp/memos-{os.geteuid()}"
        try:
            info = os.lstat(folder)
        except OSError:
            info = None
        # Anybody can make a folder in /tmp: one that is not ours may hold another's socket.
        if info and not (stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()):
            raise Denied(f"'{folder}' is not a folder of yours",
                         "set XDG_RUNTIME_DIR, or give an address")
    return check_address(f"ipc://{folder}/memosd.sock")


def probe(address: str) -> None:
    """Raise when a connection cannot come about; return when it may."""
    path = ipc_path(address)
    if path is None or path.startswith("@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.setblocking(False)
        why = peer.connect_ex(path)
    if why in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
        raise Unavailable(f"no broker listens at {path}", "start one with `memosctl up`")
    if why in (errno.EACCES, errno.EPERM):
        raise Denied(f"the broker's socket {path} belongs to somebody else")


def _check_key(key: bytes) -> bool:
    try:
        return len(key) == 40 and len(zmq.utils.z85.decode(key)) == 32
    except (ValueError, KeyError, OverflowError):
        return False


def server_key_of(text: Union[str, bytes]) -> bytes:
    """A broker's public key, checked."""
    key = text.encode("ascii", "replace") if isinstance(text, str) else text
    if not _check_key(key):
        raise Invalid("the broker's public key has 40 characters of Z85")
    return key


def read_key_pair(path: Union[str, Path]) -> KeyPair:
    """Read a file of `memosctl key new`. One that others can read is refused."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFound(f"cannot open the key file '{path}': {error.strerror}") from None
    except PermissionError as error:
        raise Denied(f"cannot open the key file '{path}': {error.strerror}") from None
    try:
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode):
            raise Invalid(f"the key file '{path}' is not a regular file")
        if info.st_mode & 0o077:
            raise Denied(f"the key file '{path}' is open to others", f"chmod 600 '{path}'")
        if info.st_uid not in (os.geteuid(), 0):
            raise Denied(f"the key file '{path}' belongs to another user")
        text = os.read(file, KEY_FILE_BYTES_MAX)
    finally:
        os.close(file)
    found = {}
    for line in text.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            found[name.strip()] = value.strip()
    pair = KeyPair(found.get(b"public", b""), found.get(b"secret", b""))
    if not (_check_key(pair.public) and _check_key(pair.secret)):
        raise Invalid(f"'{path}' is not a key file: it needs the lines 'public = KEY' and "
                      "'secret = KEY'")
    if zmq.curve_public(pair.secret) != pair.public:
        raise Invalid(f"the public key in '{path}' does not belong to the secret one")
    return pair
