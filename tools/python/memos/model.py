"""What goes to the service and comes back from it, as plain data.

Ids are `uuid.UUID`; times are `datetime` in UTC, None when not given. Where a time is taken, an
int is microseconds since 1970.
"""
from __future__ import annotations

import datetime as _datetime
import enum
import uuid
from dataclasses import dataclass, field
from typing import Iterator, List, Mapping, Optional, Sequence, Union

Time = Union[_datetime.datetime, int]
Content = Union[str, bytes]
Id = Union[uuid.UUID, str, bytes]


class Kind(enum.IntEnum):
    """What a cube's payload is."""

    PLAINTEXT = 1
    ACTIVATION = 2
    PARAMETRIC = 3


class Operation(enum.IntEnum):
    """What made a version, or a log record."""

    CREATE = 1
    UPDATE = 2
    MERGE = 3
    TRANSFORM = 4
    ROLLBACK = 5
    TRANSITION = 6
    FORGET = 7
    IMPORT = 8
    EXPIRE = 9


class State(enum.IntEnum):
    """Where a cube is in its life. GENERATED, ACTIVATED and FROZEN ones are searched."""

    GENERATED = 1
    ACTIVATED = 2
    FROZEN = 3
    MERGED = 4
    ARCHIVED = 5
    EXPIRED = 6
    WITHDRAWN = 7
    FORGOTTEN = 8


@dataclass(frozen=True)
class Ref:
    """One version of one cube."""

    id: uuid.UUID
    number: int


@dataclass(frozen=True)
class Source:
    """Where something was learned: bytes `offset` to `offset + length` of `uri`; length 0: all."""

    type: str
    uri: str
    offset: int = 0
    length: int = 0


@dataclass(frozen=True)
class Draft:
    """What a caller gives to make a cube. The author is who the connection is authenticated as."""

    content: Content
    title: str = ""
    tags: Sequence[str] = ()
    speaker: str = ""
    external_id: str = ""
    event_time: Optional[Time] = None
    language: str = ""
    kind: Kind = Kind.PLAINTEXT
    subtype: str = ""
    codec: str = ""
    model: bytes = b""
    derived_from: Sequence[Ref] = ()
    sources: Sequence[Source] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    readers: Sequence[str] = ()
    valid_from: Optional[Time] = None
    valid_to: Optional[Time] = None
    expires: Optional[Time] = None
    retain_until: Optional[Time] = None
    priority: int = 0
    sensitivity: int = 0


@dataclass(frozen=True)
class Cube:
    """One version of a cube, as it is. `payload` is None unless it was asked for."""

    id: uuid.UUID
    number: int
    parent: int
    equals: int
    operation: int
    kind: int
    state: int
    stale: bool
    subtype: str
    author: str
    reason: str
    model: bytes
    time: Optional[_datetime.datetime]
    seq: int
    derived_from: List[Ref]
    payload_hash: bytes
    payload_bytes: int
    codec: str
    payload: Optional[bytes]
    path: str
    title: str
    language: str
    speaker: str
    external_id: str
    event_time: Optional[_datetime.datetime]
    tags: List[str]
    sources: List[Source]
    attributes: Mapping[str, str]
    readers: List[str]
    valid_from: Optional[_datetime.datetime]
    valid_to: Optional[_datetime.datetime]
    expires: Optional[_datetime.datetime]
    retain_until: Optional[_datetime.datetime]
    priority: int
    sensitivity: int
    reads: int
    last_read: Optional[_datetime.datetime]
    usefulness: float

    @property
    def text(self) -> str:
        """The payload as text; bytes that are not UTF-8 are replaced. Empty without a payload."""
        return (self.payload or b"").decode("utf-8", "replace")

    @property
    def ref(self) -> Ref:
        """This very version."""
        return Ref(self.id, self.number)


@dataclass(frozen=True)
class Filter:
    """Which cubes are meant. Empty means any; of several kinds, states or subtypes one must fit, of
    tags all must. Without `states`, those that are searched."""

    kinds: Sequence[Kind] = ()
    states: Sequence[State] = ()
    subtypes: Sequence[str] = ()
    tags: Sequence[str] = ()
    source: str = ""
    speaker: str = ""
    since: Optional[Time] = None
    until: Optional[Time] = None
    include_stale: bool = False


class Mode(enum.IntEnum):
    """What a search goes by: words and meaning, or one of them."""

    HYBRID = 0
    WORDS = 1
    VECTORS = 2


class Method(enum.IntEnum):
    """How the nearest examples of a classification decide."""

    WEIGHTED = 0
    VOTE = 1
    INTERPOLATION = 2


@dataclass(frozen=True)
class Query:
    """One search of many. The fields are those of `Client.search`."""

    space: str
    text: str
    top_k: int = 10
    language: str = ""
    filter: Optional[Filter] = None
    as_of: Optional[Union[int, _datetime.datetime]] = None
    payload: bool = True
    ids_only: bool = False
    mode: Mode = Mode.HYBRID
    without: Sequence[str] = ()
    explain: bool = False
    neighbours: int = 0
    now: Optional[Time] = None


@dataclass(frozen=True)
class RollbackItem:
    """What a rollback does, or would do, with one cube: from its head, back to a version (0: it did
    not exist), by making one (0: a dry run, or skipped; `status` says why)."""

    id: uuid.UUID
    from_number: int
    to_number: int
    made: int
    status: int


@dataclass(frozen=True)
class ArchiveSummary:
    """What is in an archive, and how much of it an import added."""

    space_id: uuid.UUID
    single_cube: bool
    records: int
    cubes: int
    versions: int
    payloads: int
    size: int
    added: int
    seq: int
    head: bytes


@dataclass(frozen=True)
class Outcome:
    """What a change did. seq 0: nothing was changed."""

    space: str
    seq: int
    time: Optional[_datetime.datetime]
    head: bytes
    refs: List[Ref]
    affected: List[uuid.UUID]
    repeated_request: bool
    rollback: List[RollbackItem]
    forgotten: List[uuid.UUID]
    payloads_destroyed: int
    payloads_shared: int
    gone: bool
    archive: Optional[ArchiveSummary]

    @property
    def id(self) -> uuid.UUID:
        """The cube that was made or changed, when it was one."""
        if len(self.refs) != 1:
            raise ValueError(f"this outcome has {len(self.refs)} cubes, not one")
        return self.refs[0].id


@dataclass(frozen=True)
class Page:
    """Some cubes of a list; `next` is the cursor of the next page, 0 at the end."""

    cubes: List[Cube]
    next: int

    def __iter__(self) -> Iterator[Cube]:
        return iter(self.cubes)

    def __len__(self) -> int:
        return len(self.cubes)


@dataclass(frozen=True)
class HitPart:
    """What one part of the ranking ("words", "vectors" ...) added to a score, and from what."""

    name: str
    value: float
    note: str


@dataclass(frozen=True)
class Hit:
    """A cube that was found, and how well it fits. parts, which sum to the score, when they were
    asked for; before and after: its neighbours in the conversation, in order."""

    cube: Cube
    score: float
    parts: List[HitPart] = field(default_factory=list)
    before: List[Cube] = field(default_factory=list)
    after: List[Cube] = field(default_factory=list)


@dataclass(frozen=True)
class Hits:
    """What a search found, best first; seq is the space's history as it was searched. encoder made
    the question's vector (empty: words alone were searched); missing: cubes that have no vector yet
    and were found by their words alone; notes: how the question was understood."""

    hits: List[Hit]
    seq: int
    micros: int
    encoder: str = ""
    missing: int = 0
    notes: List[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, index: int) -> Hit:
        return self.hits[index]


@dataclass(frozen=True)
class Label:
    """A label, and its share of the vote."""

    name: str
    weight: float


@dataclass(frozen=True)
class Classification:
    """What the nearest examples say of a text: labels, the winner first (none: there is no
    example); best_cosine is that of the nearest example, examples are those that voted."""

    labels: List[Label]
    best_cosine: float
    examples: List[Ref]

    @property
    def label(self) -> str:
        """The winner; empty when there is none."""
        return self.labels[0].name if self.labels else ""


@dataclass(frozen=True)
class TreeChild:
    """A part of a space: how many cubes, the words that set it apart, and those nearest to its
    centre."""

    number: int
    cubes: int
    words: List[str]
    examples: List[Cube]
    leaf: bool


@dataclass(frozen=True)
class TreeNode:
    """A node of a space's cluster tree, and its children. tree: the cube that the tree is."""

    tree: Optional[Ref]
    path: List[int]
    cubes: int
    children: List[TreeChild]
    levels: int
    branching: int


@dataclass(frozen=True)
class EncoderInfo:
    """What makes vectors at a broker (source: "folder", "endpoint", "ngrams"), how many cubes wait
    for one (waiting), and why none can be made now (error; empty: they can)."""

    name: str
    source: str
    dims: int
    fingerprint: bytes
    semantic: bool
    codes: str
    waiting: int
    done: int
    per_second: float
    error: str


@dataclass(frozen=True)
class LogEntry:
    """A version that a log record made."""

    id: uuid.UUID
    number: int
    version_hash: bytes


@dataclass(frozen=True)
class LogRecord:
    """One change in a space's history. rollback_to is None unless it was a rollback."""

    seq: int
    time: Optional[_datetime.datetime]
    operation: int
    author: str
    reason: str
    previous: bytes
    hash: bytes
    entries: List[LogEntry]
    entries_total: int
    affected: List[uuid.UUID]
    rollback_to: Optional[int]


@dataclass(frozen=True)
class Log:
    """Records of a history that goes up to head_seq."""

    records: List[LogRecord]
    head_seq: int

    def __iter__(self) -> Iterator[LogRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True)
class Verification:
    """What walking a space's chain found. When it is not intact, bad_seq and `what` say where."""

    intact: bool
    records: int
    versions: int
    payloads: int
    forgotten: int
    seq: int
    head: bytes
    bad_seq: int
    bad_ref: Optional[Ref]
    what: str


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement of where a space's history stood."""

    space_id: uuid.UUID
    seq: int
    head: bytes
    time_us: int
    public_key: bytes
    signature: bytes


@dataclass(frozen=True)
class SpaceInfo:
    """A space, and what the caller may do in it."""

    name: str
    id: uuid.UUID
    seq: int
    head: bytes
    created: Optional[_datetime.datetime]
    changed: Optional[_datetime.datetime]
    cubes: int
    versions: int
    payload_bytes: int
    rights: str


@dataclass(frozen=True)
class Metric:
    """A counter or gauge of the broker; labels as `type="put",status="OK"`."""

    name: str
    labels: str
    help: str
    type: str
    value: float


@dataclass(frozen=True)
class Event:
    """A change in a watched space: what changed, never its content. refs has at most 256 of
    refs_total."""

    space: str
    seq: int
    time: Optional[_datetime.datetime]
    operation: int
    author: str
    refs: List[Ref]
    refs_total: int
    affected: List[uuid.UUID]


@dataclass(frozen=True)
class Grant:
    """What a principal may do in a space, in all below one (`acme/*`), or in all (`*`)."""

    principal: str
    spaces: str
    rights: str
    since: Optional[_datetime.datetime]


@dataclass(frozen=True)
class Key:
    """A public key that stands for a principal."""

    public_key: str
    principal: str
    since: Optional[_datetime.datetime]


@dataclass(frozen=True)
class FsckReport:
    """What a check of the whole store found; the first problems in words."""

    spaces: int
    cubes: int
    versions: int
    docs: int
    payloads: int
    blobs: int
    problems: int
    repaired: int
    first: List[str]


@dataclass(frozen=True)
class Welcome:
    """Who the broker is, and who it takes the caller for."""

    version: str
    protocol: int
    principal: str
    events: str
    message_bytes_max: int
    server_key: bytes
    administrator: bool


# ---- models


class Captures(enum.IntEnum):
    """When captures are loaded instead of reading the text."""

    AUTO = 0  # where that is quicker
    NEVER = 1
    ALWAYS = 2


class Finish(enum.IntEnum):
    """How an answer ended."""

    STOP = 1
    LENGTH = 2
    CONTEXT = 3
    CANCELLED = 4
    DEADLINE = 5
    FAILED = 6


class UsedAs(enum.IntEnum):
    """As what a cube was used."""

    TEXT = 1
    KV = 2
    TEXT_IN_KV = 3
    KV_INDEPENDENT = 4


@dataclass(frozen=True)
class Message:
    """A message of a conversation; role: "system", "user", "assistant" or "tool"."""

    role: str
    content: str
    name: str = ""
    tool_call_id: str = ""
    tool_calls_json: str = ""


@dataclass(frozen=True)
class Memory:
    """What an answer may remember. search: find cubes, by `query` (empty: the last user message).
    cubes: remember these, whatever they cost; number 0 is the head. budget: tokens of all memory
    (0: a quarter of the context). independent: captures of single cubes may stand for their texts,
    an approximation. capture: keep a capture of what the prompt begins with. without: cubes that a
    search must not bring."""

    search: bool = True
    query: str = ""
    filter: Optional[Filter] = None
    top_k: int = 0
    budget: int = 0
    cubes: Sequence[Ref] = ()
    as_of: Union[int, _datetime.datetime, None] = None
    captures: Captures = Captures.AUTO
    independent: bool = False
    recompute: int = 0
    capture: bool = False
    without: Sequence[Id] = ()


@dataclass(frozen=True)
class Sampling:
    """How a model draws; None: as its files say. temperature 0: always the likeliest token.
    seed None: another each time."""

    temperature: Optional[float] = None
    top_p: Optional[float] = None
    min_p: Optional[float] = None
    top_k: Optional[int] = None
    repetition: Optional[float] = None
    seed: Optional[int] = None


@dataclass(frozen=True)
class ReceiptItem:
    """One cube that an answer was made with; size: bytes that were fetched. score 0: it was
    named."""

    ref: Ref
    payload_hash: bytes
    used_as: UsedAs
    first_token: int
    tokens: int
    size: int
    micros: int
    score: float
    mark: str
    approximate: bool


@dataclass(frozen=True)
class Receipt:
    """What an answer was made with, as of which record of the space's history (seq, head)."""

    id: bytes
    space: str
    seq: int
    head: bytes
    time: Optional[_datetime.datetime]
    principal: str
    model: str
    fingerprint: bytes
    prompt_hash: bytes
    answer_hash: bytes
    worker: str
    items: List[ReceiptItem]
    notes: List[str]


@dataclass(frozen=True)
class Answer:
    """A whole answer. Times are seconds; first counts from the request to the first token."""

    text: str
    finish: Finish
    prompt_tokens: int
    cached_tokens: int
    cut_tokens: int
    tokens: int
    stop: str
    queued: float
    memory: float
    first: float
    total: float
    receipt: Optional[Receipt]
    receipt_ref: Optional[Ref]


@dataclass(frozen=True)
class TextScore:
    """How likely a text of `size` bytes is: the sum of its tokens' log probabilities (natural),
    and each."""

    tokens: int
    size: int
    logprob: float
    logprobs: List[float]


@dataclass(frozen=True)
class CaptureMade:
    """A capture of `size` bytes. existed: there was one already, and it holds. shared_tokens: those
    of its tokens that lie in another capture, which it continues."""

    ref: Ref
    tokens: int
    size: int
    read: float
    store: float
    existed: bool
    shared_tokens: int = 0


@dataclass(frozen=True)
class WorkerModel:
    """A model that a worker runs; template: its chat template's name, "" without one."""

    name: str
    fingerprint: bytes
    architecture: str
    weights: str
    kv: str
    backend: str
    template: str
    context: int
    parameters: int
    memory_bytes: int


@dataclass(frozen=True)
class Worker:
    """A worker as the broker knows it; tokens and captures are as it last said."""

    id: bytes
    name: str
    version: str
    models: List[WorkerModel]
    jobs_max: int
    jobs_running: int
    jobs_done: int
    jobs_failed: int
    tokens: int
    captures: int
    captures_bytes: int
    since: Optional[_datetime.datetime]
    quiet: float
    draining: bool
