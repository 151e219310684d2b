"""From the plain data of model.py to the messages of the schema, and back."""
from __future__ import annotations

import datetime
import random
import uuid
from typing import Any, Dict, List, Optional, Sequence, Union

from . import model
from ._schema import pb
from .errors import Corrupt, Error, Invalid, error_of

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND = datetime.timedelta(microseconds=1)
_LAST = datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)
_FIRST = datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)


class Payloads:
    """The payload frames of a request in the making."""

    def __init__(self) -> None:
        self.frames: List[bytes] = []

    def add(self, content: model.Content) -> int:
        """Append content; its frame's number."""
        if isinstance(content, str):
            content = content.encode()
        elif not isinstance(content, (bytes, bytearray, memoryview)):
            raise TypeError(f"content is str or bytes, not {type(content).__name__}")
        self.frames.append(bytes(content))
        return len(self.frames)


# ---- times and ids


def to_us(value: Optional[model.Time]) -> int:
    """Microseconds since 1970; 0 for None. A datetime has to say its zone."""
    if value is None:
        return 0
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs a zone: datetime.now(timezone.utc), not datetime.now()")
        return (value - _EPOCH) // _MICROSECOND
    return int(value)


def to_time(us: int) -> Optional[datetime.datetime]:
    """The UTC time; None for 0. What a datetime cannot hold becomes its first or last moment."""
    if us == 0:
        return None
    try:
        return _EPOCH + us * _MICROSECOND
    except OverflowError:
        return _LAST if us > 0 else _FIRST


def to_id(value: model.Id) -> bytes:
    """The 16 bytes of an id."""
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, bytes):
        if len(value) != 16:
            raise Invalid(f"an id has 16 bytes, not {len(value)}")
        return value
    try:
        return uuid.UUID(value).bytes
    except ValueError:
        raise Invalid(f"'{value}' is not an id") from None


def from_id(data: bytes) -> uuid.UUID:
    """The id of 16 bytes from the broker."""
    if len(data) != 16:
        raise Corrupt(f"the broker sent an id of {len(data)} bytes")
    return uuid.UUID(bytes=data)


def ids_of(values: Union[model.Id, Sequence[model.Id]]) -> List[bytes]:
    """One id or several, as several."""
    if isinstance(values, (uuid.UUID, str, bytes)):
        return [to_id(values)]
    return [to_id(value) for value in values]


def as_of(value: Optional[Union[int, datetime.datetime]]) -> Any:
    """A sequence number or a time as a point in the history."""
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        return pb.AsOf(time_us=to_us(value))
    return pb.AsOf(seq=value)


# ---- to the broker


def draft(value: model.Draft, payloads: Payloads) -> Any:
    """A draft whose content is a payload frame."""
    return pb.Draft(
        kind=value.kind, subtype=value.subtype, codec=value.codec,
        frame=payloads.add(value.content), model=value.model,
        derived_from=[pb.Ref(id=to_id(ref.id), number=ref.number) for ref in value.derived_from],
        title=value.title, language=value.language, speaker=value.speaker,
        external_id=value.external_id, event_us=to_us(value.event_time), tags=value.tags,
        sources=[source_out(source) for source in value.sources],
        attributes=[pb.Attribute(name=name, value=text)
                    for name, text in value.attributes.items()],
        readers=value.readers, valid_from_us=to_us(value.valid_from),
        valid_to_us=to_us(value.valid_to), expires_us=to_us(value.expires),
        retain_until_us=to_us(value.retain_until), priority=value.priority,
        sensitivity=value.sensitivity)


def source_out(value: model.Source) -> Any:
    """A source for the broker."""
    return pb.Source(type=value.type, uri=value.uri, offset=value.offset, length=value.length)


def filter_out(value: Optional[model.Filter]) -> Any:
    """A filter for the broker; None is none."""
    if value is None:
        return None
    return pb.Filter(
        kinds=value.kinds, states=value.states, subtypes=value.subtypes, tags=value.tags,
        source=value.source, speaker=value.speaker, from_us=to_us(value.since),
        to_us=to_us(value.until), include_stale=value.include_stale)


def search(value: model.Query) -> Any:
    """A search for the broker."""
    return pb.Search(
        space=value.space, text=value.text, language=value.language,
        filter=filter_out(value.filter), as_of=as_of(value.as_of), top_k=value.top_k,
        no_payload=not value.payload, ids_only=value.ids_only, mode=value.mode,
        without=value.without, explain=value.explain, neighbours=value.neighbours,
        now_us=to_us(value.now))


def checkpoint_out(value: model.Checkpoint) -> Any:
    """A checkpoint for the broker to check."""
    return pb.CheckpointInfo(
        space_id=value.space_id.bytes, seq=value.seq, head=value.head, time_us=value.time_us,
        public_key=value.public_key, signature=value.signature)


# ---- from the broker


def ref(msg: Any) -> model.Ref:
    """A version of a cube."""
    return model.Ref(from_id(msg.id), msg.number)


def payload(number: int, frames: Sequence[bytes]) -> Optional[bytes]:
    """The payload frame of a number; None for 0."""
    if number == 0:
        return None
    if number > len(frames):
        raise Corrupt(f"the broker names payload frame {number} and sent {len(frames)}")
    return frames[number - 1]


def cube(msg: Any, frames: Sequence[bytes]) -> model.Cube:
    """A version of a cube with its payload."""
    return model.Cube(
        id=from_id(msg.id), number=msg.number, parent=msg.parent, equals=msg.equals,
        operation=msg.operation, kind=msg.kind, state=msg.state, stale=msg.stale,
        subtype=msg.subtype, author=msg.author, reason=msg.reason, model=msg.model,
        time=to_time(msg.time_us), seq=msg.seq, derived_from=[ref(r) for r in msg.derived_from],
        payload_hash=msg.payload_hash, payload_bytes=msg.payload_bytes, codec=msg.codec,
        payload=payload(msg.frame, frames), path=msg.path, title=msg.title,
        language=msg.language, speaker=msg.speaker, external_id=msg.external_id,
        event_time=to_time(msg.event_us), tags=list(msg.tags),
        sources=[model.Source(s.type, s.uri, s.offset, s.length) for s in msg.sources],
        attributes={a.name: a.value for a in msg.attributes}, readers=list(msg.readers),
        valid_from=to_time(msg.valid_from_us), valid_to=to_time(msg.valid_to_us),
        expires=to_time(msg.expires_us), retain_until=to_time(msg.retain_until_us),
        priority=msg.priority, sensitivity=msg.sensitivity, reads=msg.reads,
        last_read=to_time(msg.last_read_us), usefulness=msg.usefulness)


def outcome(msg: Any) -> model.Outcome:
    """What a change did."""
    return model.Outcome(
        space=msg.space, seq=msg.seq, time=to_time(msg.time_us), head=msg.head,
        refs=[ref(r) for r in msg.refs], affected=[from_id(i) for i in msg.affected],
        repeated_request=msg.repeated_request,
        rollback=[model.RollbackItem(from_id(item.id), getattr(item, "from"), item.to, item.made,
                                     item.status) for item in msg.rollback],
        forgotten=[from_id(i) for i in msg.forgotten],
        payloads_destroyed=msg.payloads_destroyed, payloads_shared=msg.payloads_shared,
        gone=msg.gone, archive=archive(msg.archive) if msg.HasField("archive") else None)


def archive(msg: Any) -> model.ArchiveSummary:
    """What is in an archive."""
    return model.ArchiveSummary(
        space_id=from_id(msg.space_id), single_cube=msg.single_cube, records=msg.records,
        cubes=msg.cubes, versions=msg.versions, payloads=msg.payloads, size=msg.bytes,
        added=msg.added, seq=msg.seq, head=msg.head)


def hits(msg: Any, frames: Sequence[bytes]) -> model.Hits:
    """What a search found."""
    return model.Hits([hit_of(hit, frames) for hit in msg.hits], msg.seq, msg.micros, msg.encoder,
                      msg.missing, list(msg.notes))


def hit_of(msg: Any, frames: Sequence[bytes]) -> model.Hit:
    """One of them."""
    return model.Hit(cube(msg.cube, frames), msg.score,
                     [model.HitPart(p.name, p.value, p.note) for p in msg.parts],
                     [cube(c, frames) for c in msg.before], [cube(c, frames) for c in msg.after])


def hits_or_error(msg: Any, frames: Sequence[bytes]) -> Union[model.Hits, Error]:
    """What one search of many found, or why it was refused."""
    if msg.status != 0:
        return error_of(msg.status, msg.message)
    return hits(msg.hits, frames)


def classification(msg: Any) -> model.Classification:
    """What the examples say of one text."""
    return model.Classification([model.Label(label.name, label.weight) for label in msg.labels],
                                msg.best_cosine, [ref(r) for r in msg.examples])


def tree_node(msg: Any, frames: Sequence[bytes]) -> model.TreeNode:
    """A node of a tree, with its children."""
    children = [model.TreeChild(c.number, c.cubes, list(c.words),
                                [cube(e, frames) for e in c.examples], c.leaf)
                for c in msg.children]
    return model.TreeNode(ref(msg.tree) if msg.HasField("tree") else None, list(msg.path),
                          msg.cubes, children, msg.levels, msg.branching)


def log_record(msg: Any) -> model.LogRecord:
    """One change of a history."""
    return model.LogRecord(
        seq=msg.seq, time=to_time(msg.time_us), operation=msg.operation, author=msg.author,
        reason=msg.reason, previous=msg.previous, hash=msg.hash,
        entries=[model.LogEntry(from_id(e.id), e.number, e.version_hash) for e in msg.entries],
        entries_total=msg.entries_total, affected=[from_id(i) for i in msg.affected],
        rollback_to=msg.rollback_to - 1 if msg.rollback_to else None)


def verification(msg: Any) -> model.Verification:
    """What a check of the chain found."""
    return model.Verification(
        intact=msg.intact, records=msg.records, versions=msg.versions, payloads=msg.payloads,
        forgotten=msg.forgotten, seq=msg.seq, head=msg.head, bad_seq=msg.bad_seq,
        bad_ref=ref(msg.bad_ref) if msg.HasField("bad_ref") else None, what=msg.what)


def checkpoint(msg: Any) -> model.Checkpoint:
    """A signed head."""
    return model.Checkpoint(from_id(msg.space_id), msg.seq, msg.head, msg.time_us, msg.public_key,
                            msg.signature)


def space_info(msg: Any) -> model.SpaceInfo:
    """A space."""
    return model.SpaceInfo(
        name=msg.name, id=from_id(msg.id), seq=msg.seq, head=msg.head,
        created=to_time(msg.created_us), changed=to_time(msg.changed_us), cubes=msg.cubes,
        versions=msg.versions, payload_bytes=msg.payload_bytes, rights=msg.rights)


def event(msg: Any) -> model.Event:
    """A change that was published."""
    return model.Event(
        space=msg.space, seq=msg.seq, time=to_time(msg.time_us), operation=msg.operation,
        author=msg.author, refs=[ref(r) for r in msg.refs], refs_total=msg.refs_total,
        affected=[from_id(i) for i in msg.affected])


def event_of_record(space: str, record: model.LogRecord) -> model.Event:
    """The event that would have told of a record."""
    refs = [model.Ref(entry.id, entry.number) for entry in record.entries[:256]]
    return model.Event(space, record.seq, record.time, record.operation, record.author, refs,
                       record.entries_total, record.affected[:256])


def welcome(msg: Any) -> model.Welcome:
    """Who the broker is."""
    return model.Welcome(msg.version, msg.protocol, msg.principal, msg.events,
                         msg.message_bytes_max, msg.server_key, msg.administrator)


# ---- models


def receipt(msg: Any) -> model.Receipt:
    """What an answer was made with."""
    items = [model.ReceiptItem(ref(i.ref), i.payload_hash, model.UsedAs(i.used_as), i.first_token,
                               i.tokens, i.bytes, i.micros, i.score, i.mark, i.approximate)
             for i in msg.items]
    return model.Receipt(msg.id, msg.space, msg.seq, msg.head, to_time(msg.time_us), msg.principal,
                         msg.model, msg.fingerprint, msg.prompt_hash, msg.answer_hash, msg.worker,
                         items, list(msg.notes))


def answer(msg: Any, frames: Sequence[bytes]) -> model.Answer:
    """A whole answer."""
    text = (payload(msg.frame, frames) or b"").decode(errors="replace")
    return model.Answer(
        text, model.Finish(msg.finish), msg.prompt_tokens, msg.cached_tokens, msg.cut_tokens,
        msg.tokens, msg.stop_string, msg.queued_us / 1e6, msg.memory_us / 1e6, msg.first_us / 1e6,
        msg.total_us / 1e6, receipt(msg.receipt) if msg.HasField("receipt") else None,
        ref(msg.receipt_ref) if msg.HasField("receipt_ref") else None)


def worker(msg: Any) -> model.Worker:
    """One worker."""
    models = [model.WorkerModel(m.name, m.fingerprint, m.architecture, m.weights, m.kv, m.backend,
                                m.template, m.context, m.parameters, m.memory_bytes)
              for m in msg.announced.models]
    return model.Worker(
        msg.id, msg.announced.name, msg.announced.version, models, msg.announced.jobs_max,
        msg.jobs_running, msg.jobs_done, msg.jobs_failed, msg.last.tokens,
        msg.last.captures_loaded, msg.last.captures_bytes, to_time(msg.since_us),
        msg.quiet_ms / 1e3, msg.draining)


def memory(value: Optional[model.Memory]) -> Any:
    """The message; None for None."""
    if value is None:
        return None
    refs = [pb.Ref(id=to_id(one.id), number=one.number) for one in value.cubes]
    return pb.Memory(
        search=value.search, query=value.query, filter=filter_out(value.filter), top_k=value.top_k,
        budget_tokens=value.budget, cubes=refs, as_of=as_of(value.as_of), captures=value.captures,
        independent=value.independent, recompute_tokens=value.recompute, capture=value.capture,
        without=[to_id(one) for one in value.without])


# The bits of Sampling.own, and the field of each.
OWN = {"temperature": 1, "top_p": 2, "min_p": 4, "top_k": 8, "repetition": 16}


def sampling(value: model.Sampling) -> Any:
    """The message: what is None is the model's own, the seed a new one."""
    seed = value.seed if value.seed is not None else random.SystemRandom().getrandbits(32)
    message = pb.Sampling(seed=seed)
    for name, bit in OWN.items():
        given = getattr(value, name)
        if given is None:
            message.own |= bit
        else:
            setattr(message, name, given)
    return message


def prompt(what: Union[str, Sequence[model.Message]], payloads: Payloads) -> Dict[str, Any]:
    """The fields of a Generate or a Capture: a text as it is, or a conversation."""
    if isinstance(what, str):
        return {"prompt_frame": payloads.add(what)}
    return {"messages": [
        pb.ChatMessage(role=m.role, frame=payloads.add(m.content), name=m.name,
                       tool_call_id=m.tool_call_id, tool_calls_json=m.tool_calls_json)
        for m in what]}
