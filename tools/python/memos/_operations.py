"""What can be asked of the broker, as generators (see _wire.Operation)."""
from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

from . import _convert as convert
from . import model
from ._schema import pb
from ._wire import Answer, Call, Operation
from .errors import Corrupt, Error, NotFound

BATCH_MAX = 1000
SEARCHES_MAX = 256
TEXTS_MAX = 256
PART_BYTES = 1 << 20


def key_of(key: Union[str, bytes, None]) -> bytes:
    """An idempotency key as bytes; none is empty."""
    return key.encode() if isinstance(key, str) else key or b""


def change(body: str, message: Any, frames: Sequence[bytes],
           key: Union[str, bytes, None]) -> Operation[model.Outcome]:
    """Any request that is answered with an outcome."""
    answer = yield Call(body, message, frames, key_of(key))
    return convert.outcome(answer.body("outcome"))


# ---- changing


def put(space: str, drafts: Sequence[Union[model.Draft, str, bytes]], reason: str,
        key: Union[str, bytes, None]) -> Operation[model.Outcome]:
    """Make cubes."""
    payloads = convert.Payloads()
    messages = [convert.draft(d if isinstance(d, model.Draft) else model.Draft(d), payloads)
                for d in drafts]
    return change("put", pb.Put(space=space, reason=reason, drafts=messages), payloads.frames, key)


# Keyword of update: the bits of enum memcube_field that it sets.
FIELDS = {
    "content": 1 << 0, "codec": 1 << 0, "title": 1 << 1, "tags": 1 << 2, "sources": 1 << 3,
    "language": 1 << 4, "speaker": 1 << 5, "event_time": 1 << 6, "valid_from": 1 << 7,
    "valid_to": 1 << 7, "expires": 1 << 8, "retain_until": 1 << 9, "priority": 1 << 10,
    "sensitivity": 1 << 11, "readers": 1 << 12, "attributes": 1 << 13, "derived_from": 1 << 14,
    "model": 1 << 14, "subtype": 1 << 15,
}


def update(space: str, cube: model.Id, values: Dict[str, Any], expected: int,
           tags_add: Sequence[str], tags_remove: Sequence[str], transform: bool, reason: str,
           key: Union[str, bytes, None]) -> Operation[model.Outcome]:
    """Change what `values` names of one cube."""
    payloads = convert.Payloads()
    bits = 0
    for name in values:
        bits |= FIELDS[name]
    if "codec" in values and "content" not in values:
        raise TypeError("a codec is changed together with the content")
    given = {name: value for name, value in values.items() if value is not None}
    message = convert.draft(model.Draft(**{"content": b"", **given}), payloads)
    if "content" not in values:
        message.frame = 0
        payloads.frames.clear()
    changed = pb.Change(id=convert.to_id(cube), expected=expected, fields=bits, draft=message,
                        tags_add=tags_add, tags_remove=tags_remove, transform=transform)
    return change("update", pb.Update(space=space, reason=reason, changes=[changed]),
                  payloads.frames, key)


def merge(space: str, sources: Sequence[model.Id], draft: model.Draft, reason: str,
          key: Union[str, bytes, None]) -> Operation[model.Outcome]:
    """Join cubes."""
    payloads = convert.Payloads()
    message = pb.Merge(space=space, reason=reason, sources=convert.ids_of(sources),
                       draft=convert.draft(draft, payloads))
    return change("merge", message, payloads.frames, key)


def import_(space: str, path: Union[str, Path], reason: str,
            key: Union[str, bytes, None]) -> Operation[model.Outcome]:
    """Send an archive in parts."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        answer = yield Call("import", pb.Import(space=space, reason=reason, begin=True,
                                                bytes_total=size))
        token = answer.body("import_ready").token
        offset = 0
        while True:
            part = file.read(PART_BYTES)
            if not part:
                break
            answer = yield Call("import", pb.Import(space=space, reason=reason, token=token,
                                                    offset=offset, frame=1), [part])
            offset += len(part)
            if answer.body("import_ready").offset != offset:
                raise Corrupt("the broker has received another amount than was sent")
    outcome = yield from change(
        "import", pb.Import(space=space, reason=reason, token=token, offset=offset, commit=True),
        (), key)
    return outcome


# ---- reading


def get(message: Any) -> Operation[List[model.Cube]]:
    """Read cubes."""
    answer = yield Call("get", message)
    return [convert.cube(cube, answer.frames) for cube in answer.body("cubes").cubes]


def get_one(message: Any) -> Operation[model.Cube]:
    """Read the one cube that was named."""
    cubes = yield from get(message)
    if not cubes:
        raise NotFound("there is no such cube")
    return cubes[0]


def get_many(space: str, ids: Sequence[model.Id], fields: Dict[str, Any]
             ) -> Operation[List[model.Cube]]:
    """Read any number of cubes."""
    raw = convert.ids_of(ids)
    cubes: List[model.Cube] = []
    for start in range(0, len(raw), BATCH_MAX):
        cubes += yield from get(pb.Get(space=space, ids=raw[start:start + BATCH_MAX], **fields))
    return cubes


def page(message: Any) -> Operation[model.Page]:
    """One page of a list."""
    answer = yield Call("list", message)
    body = answer.body("cubes")
    return model.Page([convert.cube(cube, answer.frames) for cube in body.cubes], body.next)


def pages(message: Any) -> Operation[List[model.Cube]]:
    """All pages of a list."""
    cubes: List[model.Cube] = []
    message.count_max = BATCH_MAX
    while True:
        part = yield from page(message)
        cubes += part.cubes
        if part.next in (0, message.cursor):
            return cubes
        message.cursor = part.next


def search(query: model.Query) -> Operation[model.Hits]:
    """One search."""
    answer = yield Call("search", convert.search(query))
    return convert.hits(answer.body("hits"), answer.frames)


def search_many(queries: Sequence[model.Query]) -> Operation[List[Union[model.Hits, Error]]]:
    """Any number of searches."""
    results: List[Union[model.Hits, Error]] = []
    for start in range(0, len(queries), SEARCHES_MAX):
        some = [convert.search(query) for query in queries[start:start + SEARCHES_MAX]]
        answer = yield Call("search_many", pb.SearchMany(searches=some))
        body = answer.body("hits_many")
        if len(body.results) != len(some):
            raise Corrupt(f"{len(some)} searches got {len(body.results)} answers")
        results += [convert.hits_or_error(result, answer.frames) for result in body.results]
    return results


def classify(texts: Sequence[str], fields: Dict[str, Any]
             ) -> Operation[List[model.Classification]]:
    """Any number of texts."""
    results: List[model.Classification] = []
    for start in range(0, len(texts), TEXTS_MAX):
        some = texts[start:start + TEXTS_MAX]
        answer = yield Call("classify", pb.Classify(texts=some, **fields))
        body = answer.body("classified")
        if len(body.results) != len(some):
            raise Corrupt(f"{len(some)} texts got {len(body.results)} answers")
        results += [convert.classification(result) for result in body.results]
    return results


def tree(message: Any) -> Operation[model.TreeNode]:
    """A node of a space's tree."""
    answer = yield Call("tree", message)
    return convert.tree_node(answer.body("tree_nodes"), answer.frames)


def log(space: str, start: int, newest_first: bool, count: int) -> Operation[model.Log]:
    """Records of a history."""
    answer = yield Call("log", pb.Log(space=space, newest_first=newest_first, count_max=count,
                                      **{"from": start}))
    body = answer.body("log_records")
    return model.Log([convert.log_record(record) for record in body.records], body.head_seq)


def history(message: Any) -> Operation[List[model.Cube]]:
    """Versions of a cube."""
    answer = yield Call("history", message)
    return [convert.cube(cube, answer.frames) for cube in answer.body("cubes").cubes]


def verify(space: str, start: int) -> Operation[model.Verification]:
    """Walk the chain."""
    answer = yield Call("verify", pb.Verify(space=space, **{"from": start}))
    return convert.verification(answer.body("verify_result"))


def checkpoints(message: Any) -> Operation[List[model.Checkpoint]]:
    """Make, list or check checkpoints."""
    answer = yield Call("checkpoint", message)
    return [convert.checkpoint(one) for one in answer.body("checkpoints").checkpoints]


def checkpoint(message: Any) -> Operation[model.Checkpoint]:
    """Make or check one checkpoint."""
    some = yield from checkpoints(message)
    if len(some) != 1:
        raise Corrupt(f"one checkpoint was asked for, and {len(some)} came")
    return some[0]


def export(space: str, path: Union[str, Path], cube: Optional[model.Id]
           ) -> Operation[model.ArchiveSummary]:
    """Write an archive. The file appears under its name when it is whole."""
    path = Path(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    written = 0

    def take(answer: Answer) -> None:
        nonlocal written
        if answer.reply.WhichOneof("body") != "export_part":
            return  # progress
        part = answer.reply.export_part
        if part.offset != written:
            raise Corrupt(f"a part of the archive at {part.offset} where {written} was expected")
        written += file.write(convert.payload(part.frame, answer.frames) or b"")

    message = pb.Export(space=space, id=b"" if cube is None else convert.to_id(cube))
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            answer = yield Call("export", message, on_more=take)
            take(answer)
            file.flush()
            os.fsync(file.fileno())
        summary = convert.archive(answer.body("export_part").summary)
        os.replace(draft, path)
        return summary
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def spaces() -> Operation[List[model.SpaceInfo]]:
    """All spaces that the caller may read."""
    found: List[model.SpaceInfo] = []
    while True:
        after = found[-1].name if found else ""
        answer = yield Call("spaces", pb.Spaces(after=after, count_max=BATCH_MAX))
        body = answer.body("space_infos")
        found += [convert.space_info(info) for info in body.spaces]
        if not body.more or not body.spaces:
            return found


# ---- models


def generate(space: str, what: Union[str, Sequence[model.Message]],
             memory: Optional[model.Memory], sampling: model.Sampling,
             fields: Dict[str, Any]) -> Call:
    """A request whose answer comes in parts (see client.Generation)."""
    payloads = convert.Payloads()
    message = pb.Generate(space=space, memory=convert.memory(memory),
                          sampling=convert.sampling(sampling), **convert.prompt(what, payloads),
                          **fields)
    return Call("generate", message, payloads.frames)


def score(space: str, texts: Sequence[str], prompt: Optional[str],
          memory: Optional[model.Memory], fields: Dict[str, Any]
          ) -> Operation[List[model.TextScore]]:
    """How likely texts are."""
    payloads = convert.Payloads()
    message = pb.Score(space=space, memory=convert.memory(memory), **fields)
    if prompt is not None:
        message.prompt_frame = payloads.add(prompt)
    message.frames.extend(payloads.add(text) for text in texts)
    answer = yield Call("score", message, payloads.frames)
    body = answer.body("scored")
    if len(body.texts) != len(texts):
        raise Corrupt(f"{len(texts)} texts got {len(body.texts)} scores")
    return [model.TextScore(t.tokens, t.bytes, t.logprob, list(t.logprobs)) for t in body.texts]


def capture(space: str, ids: Sequence[bytes], messages: Sequence[model.Message],
            fields: Dict[str, Any]) -> Operation[List[model.CaptureMade]]:
    """Keep what a model makes of cubes."""
    payloads = convert.Payloads()
    message = pb.Capture(space=space, ids=ids, **convert.prompt(messages, payloads), **fields)
    answer = yield Call("capture", message, payloads.frames)
    return [model.CaptureMade(convert.ref(m.ref), m.tokens, m.bytes, m.read_us / 1e6,
                              m.store_us / 1e6, m.existed, m.shared_tokens)
            for m in answer.body("captured").captures]


def workers() -> Operation[List[model.Worker]]:
    """Who runs models."""
    answer = yield Call("workers", pb.Workers())
    return [convert.worker(info) for info in answer.body("worker_infos").workers]


# ---- the broker itself


def stats() -> Operation[List[model.Metric]]:
    """The broker's counters."""
    answer = yield Call("stats", pb.Stats())
    return [model.Metric(m.name, m.labels, m.help, m.type, m.value)
            for m in answer.body("stats_result").metrics]


def fsck(repair: bool) -> Operation[model.FsckReport]:
    """Check the whole store."""
    answer = yield Call("fsck", pb.Fsck(repair=repair))
    r = answer.body("fsck_result")
    return model.FsckReport(r.spaces, r.cubes, r.versions, r.docs, r.payloads, r.blobs, r.problems,
                            r.repaired, list(r.first))


def encoder_status() -> Operation[model.EncoderInfo]:
    """What makes vectors."""
    answer = yield Call("encoder_status", pb.EncoderStatus())
    e = answer.body("encoder_info")
    return model.EncoderInfo(e.name, e.source, e.dims, e.fingerprint, e.semantic, e.codes,
                             e.waiting, e.done, e.per_second, e.error)


def grants() -> Operation[List[model.Grant]]:
    """Who may do what."""
    answer = yield Call("grant_list", pb.GrantList())
    return [model.Grant(g.principal, g.spaces, g.rights, convert.to_time(g.since_us))
            for g in answer.body("grants").grants]


def keys() -> Operation[List[model.Key]]:
    """Which keys stand for whom."""
    answer = yield Call("key_list", pb.KeyList())
    return [model.Key(k.public_key, k.principal, convert.to_time(k.since_us))
            for k in answer.body("keys").keys]


def hello() -> Operation[model.Welcome]:
    """Who the broker is, and who the caller."""
    answer = yield Call("hello", pb.Hello())
    return convert.welcome(answer.body("welcome"))


def feedback(space: str, cube: model.Id, usefulness: float) -> Operation[None]:
    """Say how useful a cube was."""
    yield Call("feedback", pb.Feedback(space=space, id=convert.to_id(cube), usefulness=usefulness))
