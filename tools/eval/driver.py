"""What the drivers share: a broker to ask, files to read, texts to put, questions to ask."""
from __future__ import annotations

import asyncio
import contextlib
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator, Sequence, TypeVar, Union

sys.dont_write_bytecode = True  # nothing is left in the tree
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "python"))

import memos  # noqa: E402

T = TypeVar("T")
DRAFTS_MAX = 200         # of one put
BYTES_MAX = 4 << 20
SEARCHES_MAX = 64        # of one message
AHEAD = 4                # messages on their way at once
TIMEOUT = 1200.0
BUSY_WAIT = 0.05


def program(variable: str, built: str) -> str:
    """A program from the environment, else from the build folder."""
    return os.environ.get(variable, str(ROOT / "build" / built))


MEMOSCTL = program("MEMOSCTL", "tools/memosctl")
MEMOSD = program("MEMOSD", "memos/memosd")


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, or of a .jsonl.xz one beside it."""
    packed = path.with_name(path.name + ".xz")
    opened = lzma.open(packed, "rt", encoding="utf-8") if packed.exists() else open(
        path, encoding="utf-8")
    with opened as file:
        return [json.loads(line) for line in file if line.strip()]


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a .tsv file with a header."""
    with open(path, encoding="utf-8") as file:
        names = file.readline().rstrip("\n").split("\t")
        return [dict(zip(names, line.rstrip("\n").split("\t"))) for line in file if line.strip()]


def spread(items: Sequence[T], count: int) -> list[T]:
    """So many of the items, at even distances; all of them when there are no more."""
    if count <= 0 or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def memosctl(address: str, *arguments: str) -> str:
    """Run memosctl; what it prints."""
    result = subprocess.run([MEMOSCTL, *arguments], stdout=subprocess.PIPE, text=True, check=False,
                            env={**os.environ, "MEMOS_ADDRESS": address})
    if result.returncode != 0:
        raise SystemExit(f"memosctl {' '.join(arguments)}: exit status {result.returncode}")
    return result.stdout


@contextlib.contextmanager
def broker(address: str | None, encoder: str | None = None) -> Iterator[str]:
    """The address of a running broker: the given one, or one that lives as long as this block."""
    if address:
        yield address
        return
    with tempfile.TemporaryDirectory(prefix="memos-") as folder:
        own, store = f"ipc://{folder}/b.sock", f"--data-dir={folder}/data"
        config = Path(folder, "memosd.conf")
        config.write_text(f'encoder = "{encoder}"\n' if encoder else "", encoding="utf-8")
        memosctl(own, "up", "--memosd", MEMOSD, store, "--listen", own, "--config", str(config),
                 "--log-file", f"{folder}/log", "--quiet")
        try:
            yield own
        finally:
            memosctl(own, "down", store, "--quiet")


def store_bytes(address: str) -> int | None:
    """Bytes of a broker's store on disk, when it is one of ours."""
    data = Path(address.removeprefix("ipc://")).parent / "data"
    if not address.startswith("ipc://") or not data.is_dir():
        return None
    return sum(path.stat().st_blocks * 512 for path in data.rglob("*") if path.is_file())


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Do it again as long as the broker has too much to do."""
    while True:
        try:
            return await call()
        except memos.Busy:
            await asyncio.sleep(BUSY_WAIT)


def parts_of(drafts: Sequence[memos.Draft]) -> Iterator[list[memos.Draft]]:
    """In order, as many at a time as go into one put."""
    part: list[memos.Draft] = []
    size = 0
    for draft in drafts:
        bytes_of = 4 * len(draft.content)
        if part and (len(part) == DRAFTS_MAX or size + bytes_of > BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(draft)
        size += bytes_of
    if part:
        yield part


async def _run_all(address: str, jobs: Sequence[Callable[[memos.AsyncClient], Awaitable[T]]]
                   ) -> list[T]:
    room = asyncio.Semaphore(AHEAD)

    async def one(client: memos.AsyncClient, job: Callable[..., Awaitable[T]]) -> T:
        async with room:
            return await job(client)

    async with memos.AsyncClient(address, timeout=TIMEOUT) as client:
        return await asyncio.gather(*(one(client, job) for job in jobs))


def put_all(address: str, spaces: dict[str, Sequence[memos.Draft]], in_order: bool = True) -> float:
    """Put drafts into spaces, several puts on their way at once; in_order: those of one space one
    after the other. Returns the seconds it took, until every text can be found by its meaning."""
    total, done, begun = sum(map(len, spaces.values())), 0, time.monotonic()
    shown = begun

    async def put(client: memos.AsyncClient, space: str,
                  parts: Sequence[Sequence[memos.Draft]]) -> None:
        nonlocal done, shown
        for part in parts:
            await patiently(lambda part=part: client.put_many(space, part))
            done += len(part)
            now = time.monotonic()
            if now - shown > 10:
                say(f"  {done} of {total} texts, {done / (now - begun):.0f} a second")
                shown = now

    jobs = []
    for space, drafts in spaces.items():
        parts = list(parts_of(drafts))
        for some in [parts] if in_order else [[part] for part in parts]:
            jobs.append(lambda client, space=space, some=some: put(client, space, some))
    asyncio.run(_run_all(address, jobs))
    wait_for_vectors(address)
    seconds = time.monotonic() - begun
    say(f"  {total} texts in {seconds:.1f} s, {total / max(seconds, 1e-9):.0f} a second")
    return seconds


def encoder_of(address: str) -> str:
    """What makes vectors there: its name; "none"."""
    with memos.Client(address, timeout=TIMEOUT) as client:
        try:
            return client.encoder_status().name or "none"
        except (memos.Unsupported, memos.NotFound):
            return "none"


def wait_for_vectors(address: str) -> None:
    """Until no cube waits for its vector."""
    with memos.Client(address, timeout=TIMEOUT) as client:
        while True:
            try:
                status = client.encoder_status()
            except (memos.Unsupported, memos.NotFound):
                return
            if status.waiting == 0 or not status.name:
                return
            if status.error:
                raise SystemExit(f"no vectors: {status.error}")
            time.sleep(0.1)


Found = list[str]


def ask_all(address: str, queries: Sequence[memos.Query]) -> list[Found]:
    """The external ids that each query finds, best first."""

    async def ask(client: memos.AsyncClient, some: Sequence[memos.Query]) -> list[Found]:
        answers: list[Union[memos.Hits, memos.Error]] = await patiently(
            lambda: client.search_many(some))
        for answer in answers:
            if isinstance(answer, memos.Error):
                raise answer
        return [[hit.cube.external_id for hit in answer] for answer in answers]

    batches = [queries[i:i + SEARCHES_MAX] for i in range(0, len(queries), SEARCHES_MAX)]
    jobs = [lambda client, some=some: ask(client, some) for some in batches]
    return [found for batch in asyncio.run(_run_all(address, jobs)) for found in batch]
