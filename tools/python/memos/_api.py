"""The methods that both clients have.

`_run` of a client drives an operation: `Client` returns its result, `AsyncClient` an awaitable of
it. The annotations are those of `Client`; those of `AsyncClient` are in aio.pyi, which is made
from here.
"""
from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Union

from . import _convert as convert
from . import _operations as operations
from . import model
from ._schema import pb
from ._wire import Operation, T
from .errors import Error
from .model import (
    Content, Draft, Filter, Id, Kind, Memory, Message, Method, Mode, Query, Ref, Source, State,
    Time)

AsOf = Union[int, datetime.datetime]
IdempotencyKey = Union[str, bytes, None]


class _Unchanged:
    """The type of UNCHANGED: what an update leaves as it is."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Any = _Unchanged()


class Api:
    """Everything that can be asked of a broker. Unless said otherwise a call raises `Error`s:
    what the broker refused, `Unavailable`, or `Deadline`.

    space: "acme/alice". reason: why, kept in the history. key: an idempotency key; a change that
    is sent again with the same key is applied once. as_of: a sequence number (int) or a time
    (datetime) of the history, to read as it was.
    """

    def _run(self, operation: Operation[T]) -> T:
        raise NotImplementedError

    # ---- changing

    def put(self, space: str, content: Content, *, title: str = "", tags: Sequence[str] = (),
            speaker: str = "", external_id: str = "", event_time: Optional[Time] = None,
            language: str = "", kind: Kind = Kind.PLAINTEXT, subtype: str = "", codec: str = "",
            model: bytes = b"", derived_from: Sequence[Ref] = (), sources: Sequence[Source] = (),
            attributes: Optional[Mapping[str, str]] = None, readers: Sequence[str] = (),
            valid_from: Optional[Time] = None, valid_to: Optional[Time] = None,
            expires: Optional[Time] = None, retain_until: Optional[Time] = None,
            priority: int = 0, sensitivity: int = 0, reason: str = "",
            key: IdempotencyKey = None) -> model.Outcome:
        """Make a cube; its id is the outcome's `id`. event_time: when it was said or happened.
        external_id: an id of the caller's, unique in the space. valid_from, valid_to: when the fact
        holds. readers: when given, only these principals may read it. priority: 1 to 255, 128 is
        normal. sensitivity: 1 public, 2 normal, 3 confidential, 4 secret."""
        draft = Draft(content, title, tags, speaker, external_id, event_time, language, kind,
                      subtype, codec, model, derived_from, sources, attributes or {}, readers,
                      valid_from, valid_to, expires, retain_until, priority, sensitivity)
        return self._run(operations.put(space, [draft], reason, key))

    def put_many(self, space: str, drafts: Sequence[Union[Draft, str, bytes]], *,
                 reason: str = "", key: IdempotencyKey = None) -> model.Outcome:
        """Make 1 to 1000 cubes in one change: all or none. The outcome's refs are in the order of
        the drafts."""
        return self._run(operations.put(space, drafts, reason, key))

    def update(self, space: str, id: Id, content: Optional[Content] = UNCHANGED, *,
               expected: int = 0, title: Optional[str] = UNCHANGED,
               tags: Optional[Sequence[str]] = UNCHANGED, tags_add: Sequence[str] = (),
               tags_remove: Sequence[str] = (), speaker: Optional[str] = UNCHANGED,
               event_time: Optional[Time] = UNCHANGED, language: Optional[str] = UNCHANGED,
               subtype: Optional[str] = UNCHANGED, codec: Optional[str] = UNCHANGED,
               model: Optional[bytes] = UNCHANGED,
               derived_from: Optional[Sequence[Ref]] = UNCHANGED,
               sources: Optional[Sequence[Source]] = UNCHANGED,
               attributes: Optional[Mapping[str, str]] = UNCHANGED,
               readers: Optional[Sequence[str]] = UNCHANGED,
               valid_from: Optional[Time] = UNCHANGED, valid_to: Optional[Time] = UNCHANGED,
               expires: Optional[Time] = UNCHANGED, retain_until: Optional[Time] = UNCHANGED,
               priority: Optional[int] = UNCHANGED, sensitivity: Optional[int] = UNCHANGED,
               transform: bool = False, reason: str = "",
               key: IdempotencyKey = None) -> model.Outcome:
        """Make a new version of a cube. What is not given stays; None takes it away. expected: the
        version that the cube must be at, else Conflict (0: any). valid_from and valid_to are set
        together, as are derived_from and model."""
        named = dict(content=content, title=title, tags=tags, speaker=speaker,
                     event_time=event_time, language=language, subtype=subtype, codec=codec,
                     model=model, derived_from=derived_from, sources=sources,
                     attributes=attributes, readers=readers, valid_from=valid_from,
                     valid_to=valid_to, expires=expires, retain_until=retain_until,
                     priority=priority, sensitivity=sensitivity)
        values = {name: value for name, value in named.items() if value is not UNCHANGED}
        return self._run(operations.update(space, id, values, expected, tags_add, tags_remove,
                                           transform, reason, key))

    def merge(self, space: str, sources: Sequence[Id], draft: Union[Draft, str, bytes], *,
              reason: str = "", key: IdempotencyKey = None) -> model.Outcome:
        """Join cubes: a new one from draft, derived from them; they become MERGED."""
        whole = draft if isinstance(draft, Draft) else Draft(draft)
        return self._run(operations.merge(space, sources, whole, reason, key))

    def transition(self, space: str, ids: Union[Id, Sequence[Id]], state: State, *,
                   reason: str = "", key: IdempotencyKey = None) -> model.Outcome:
        """Bring cubes into another state, all or none; Conflict when one may not go there."""
        message = pb.Transition(space=space, reason=reason, ids=convert.ids_of(ids), state=state)
        return self._run(operations.change("transition", message, (), key))

    def rollback(self, space: str, ids: Union[Id, Sequence[Id]] = (), *,
                 to: Optional[AsOf] = None, version: int = 0, beginning: bool = False,
                 include_frozen: bool = False, dry_run: bool = False, reason: str = "",
                 key: IdempotencyKey = None) -> model.Outcome:
        """Take cubes (none: the whole space) back to a point of the history, a cube to one of its
        versions, or to before the beginning: one of the three. New versions are made that equal the
        old ones, so that this can be taken back itself. dry_run: only say what it would do."""
        message = pb.Rollback(space=space, reason=reason, ids=convert.ids_of(ids),
                              to=convert.as_of(to), to_version=version, to_beginning=beginning,
                              include_frozen=include_frozen, dry_run=dry_run)
        return self._run(operations.change("rollback", message, (), key))

    def forget(self, space: str, ids: Union[Id, Sequence[Id]], *, force: bool = False,
               dry_run: bool = False, reason: str = "",
               key: IdempotencyKey = None) -> model.Outcome:
        """Destroy the contents of cubes and of all that was derived from them, for good. force:
        although retain_until lies ahead. dry_run: only say what would go."""
        message = pb.Forget(space=space, reason=reason, ids=convert.ids_of(ids), force=force,
                            dry_run=dry_run)
        return self._run(operations.change("forget", message, (), key))

    def feedback(self, space: str, id: Id, usefulness: float) -> None:
        """Say how useful a cube was: -1 to 1."""
        return self._run(operations.feedback(space, id, usefulness))

    # ---- reading

    def get(self, space: str, id: Union[Id, None] = None, *, external_id: str = "",
            version: int = 0, as_of: Optional[AsOf] = None, payload: bool = True,
            path: bool = False, behaviour: bool = False, peek: bool = False) -> model.Cube:
        """Read a cube by its id, the beginning of its id's text, or its external_id. version 0: the
        head. path: give the payload's file where it has one, not its bytes. behaviour: with reads,
        last_read and usefulness. peek: do not count this as a read."""
        message = pb.Get(space=space, external_id=external_id, number=version,
                         as_of=convert.as_of(as_of), no_payload=not payload, path=path,
                         behaviour=behaviour, peek=peek)
        if isinstance(id, str) and len(id.replace("-", "")) < 32:
            message.id_prefix = id
        elif id is not None:
            message.ids.append(convert.to_id(id))
        return self._run(operations.get_one(message))

    def get_many(self, space: str, ids: Sequence[Id], *, as_of: Optional[AsOf] = None,
                 payload: bool = True, path: bool = False, behaviour: bool = False,
                 peek: bool = False) -> List[model.Cube]:
        """Read cubes by their ids, in their order; NotFound when one is not there."""
        fields = dict(as_of=convert.as_of(as_of), no_payload=not payload, path=path,
                      behaviour=behaviour, peek=peek)
        return self._run(operations.get_many(space, ids, fields))

    def list(self, space: str, filter: Optional[Filter] = None, *, as_of: Optional[AsOf] = None,
             oldest_first: bool = False, count: int = 100, cursor: int = 0,
             payload: bool = False) -> model.Page:
        """One page of a space's cubes, newest first; `cursor` is a former page's `next`."""
        message = pb.List(space=space, filter=convert.filter_out(filter),
                          as_of=convert.as_of(as_of), oldest_first=oldest_first, cursor=cursor,
                          count_max=count, payload=payload)
        return self._run(operations.page(message))

    def list_all(self, space: str, filter: Optional[Filter] = None, *,
                 as_of: Optional[AsOf] = None, oldest_first: bool = False,
                 payload: bool = False) -> List[model.Cube]:
        """All of a space's cubes that fit."""
        message = pb.List(space=space, filter=convert.filter_out(filter),
                          as_of=convert.as_of(as_of), oldest_first=oldest_first, payload=payload)
        return self._run(operations.pages(message))

    def search(self, space: str, text: str, *, top_k: int = 10, language: str = "",
               filter: Optional[Filter] = None, as_of: Optional[AsOf] = None,
               payload: bool = True, ids_only: bool = False, mode: Mode = Mode.HYBRID,
               without: Sequence[str] = (), explain: bool = False, neighbours: int = 0,
               now: Optional[Time] = None) -> model.Hits:
        """The cubes that fit a text best, by words and meaning unless mode says otherwise.
        ids_only: hits have ids, external ids and scores, nothing else. without: parts of the
        ranking to leave out ("speaker", "dates" ...). explain: with each hit's parts, and notes on
        how the text was understood. neighbours: so many turns before and after each hit come with
        it, at most 8. now: what "last week" in the text starts from."""
        return self._run(operations.search(
            Query(space, text, top_k, language, filter, as_of, payload, ids_only, mode, without,
                  explain, neighbours, now)))

    def search_many(self, queries: Sequence[Query]) -> List[Union[model.Hits, Error]]:
        """Many searches in few messages; for each its hits, or the Error that it would have
        raised."""
        return self._run(operations.search_many(queries))

    def classify(self, space: str, texts: Union[str, Sequence[str]], *, tag_prefix: str = "",
                 top_k: int = 0, margin: float = 0.0, method: Method = Method.WEIGHTED,
                 temperature: float = 0.0, filter: Optional[Filter] = None,
                 as_of: Optional[AsOf] = None) -> List[model.Classification]:
        """What label each text has, by the nearest cubes of the space: their tags that begin with
        tag_prefix are labels, without it. A cube put with the right tag corrects from then on.
        method: weighted by nearness, a vote of those whose cosine is within a margin of the best's
        (0: 0.05), or an interpolation over distances at a temperature (0: 0.1). top_k: nearest
        examples that may vote (0: as many as are usual for the method)."""
        fields = dict(space=space, tag_prefix=tag_prefix, top_k=top_k, margin=margin,
                      method=method, temperature=temperature, filter=convert.filter_out(filter),
                      as_of=convert.as_of(as_of))
        return self._run(operations.classify([texts] if isinstance(texts, str) else texts, fields))

    def tree(self, space: str, path: Sequence[int] = (), *, text: str = "", build: bool = False,
             examples: int = 0) -> model.TreeNode:
        """Browse a space by meaning: a node of its cluster tree, by the numbers of children from
        the root, or the one that a text leads to. build: make the tree anew, and store it.
        examples: cubes to give with each child (0: 3)."""
        message = pb.Tree(space=space, path=path, text=text, build=build, examples=examples)
        return self._run(operations.tree(message))

    def log(self, space: str, *, start: int = 0, newest_first: bool = False,
            count: int = 100) -> model.Log:
        """Records of a space's history, from the sequence number `start` on."""
        return self._run(operations.log(space, start, newest_first, count))

    def history(self, space: str, id: Id, *, start: int = 0, count: int = 100,
                payload: bool = False) -> List[model.Cube]:
        """The versions of a cube, from `start` on."""
        message = pb.History(space=space, id=convert.to_id(id), count_max=count, payload=payload,
                             **{"from": start})
        return self._run(operations.history(message))

    def spaces(self) -> List[model.SpaceInfo]:
        """All spaces that the caller may read."""
        return self._run(operations.spaces())

    # ---- proof and transport

    def verify(self, space: str, *, start: int = 0) -> model.Verification:
        """Walk a space's chain and check every hash."""
        return self._run(operations.verify(space, start))

    def checkpoint(self, space: str) -> model.Checkpoint:
        """Sign where a space's history stands."""
        return self._run(operations.checkpoint(pb.Checkpoint(space=space)))

    def checkpoints(self, space: str) -> List[model.Checkpoint]:
        """The checkpoints that were made of a space, newest first."""
        return self._run(operations.checkpoints(pb.Checkpoint(space=space, list=True)))

    def check(self, space: str, checkpoint: model.Checkpoint) -> model.Checkpoint:
        """Does a checkpoint still hold? Corrupt when the history is another now."""
        return self._run(operations.checkpoint(
            pb.Checkpoint(space=space, check=convert.checkpoint_out(checkpoint))))

    def export(self, space: str, path: Union[str, Path],
               id: Optional[Id] = None) -> model.ArchiveSummary:
        """Write a space, or one cube, to a file that proves itself. It appears when it is whole,
        and replaces one of that name."""
        return self._run(operations.export(space, path, id))

    def import_(self, space: str, path: Union[str, Path], *, reason: str = "",
                key: IdempotencyKey = None) -> model.Outcome:
        """Read a file of `export` into a space. The same file twice changes nothing."""
        return self._run(operations.import_(space, path, reason, key))

    # ---- models (`generate` is the clients' own: its answer comes in parts)

    def score(self, texts: Union[str, Sequence[str]], *, prompt: Optional[str] = None,
              space: str = "", memory: Optional[Memory] = None, model: str = "",
              overlap: int = 0, logprobs: bool = False) -> List[model.TextScore]:
        """How likely texts are to a model, each alone after the prompt. logprobs: of each token,
        too. memory stands before the prompt. model: a name that a worker announced, or the
        beginning of its fingerprint in hex; empty: the only one there is."""
        fields = dict(model=model, overlap=overlap, logprobs=logprobs)
        return self._run(operations.score(space, [texts] if isinstance(texts, str) else texts,
                                          prompt, memory, fields))

    def capture(self, space: str, ids: Union[Id, Sequence[Id]] = (), *,
                messages: Sequence[Message] = (), model: str = "", independent: bool = False,
                dtype: int = 0, bare: bool = False, template: str = "", reason: str = ""
                ) -> List[model.CaptureMade]:
        """Keep what a model makes of cubes, in this order, and of messages that stand with them.
        independent: each cube alone, to be turned to any place (approximate). dtype: 0 as the
        worker's cache, 1 f32, 2 f16, 3 bf16, 4 e4m3. bare: as before a bare text."""
        fields = dict(model=model, independent=independent, dtype=dtype, bare=bare,
                      template=template, reason=reason)
        return self._run(operations.capture(space, convert.ids_of(ids), messages, fields))

    def workers(self) -> List[model.Worker]:
        """The workers of the broker, their models and what they do."""
        return self._run(operations.workers())

    # ---- the broker itself

    def hello(self) -> model.Welcome:
        """Who the broker is, and who it takes the caller for."""
        return self._run(operations.hello())

    def stats(self) -> List[model.Metric]:
        """The broker's counters."""
        return self._run(operations.stats())

    def fsck(self, *, repair: bool = False) -> model.FsckReport:
        """Check the whole store."""
        return self._run(operations.fsck(repair))

    def encoder_status(self) -> model.EncoderInfo:
        """What makes vectors at the broker, and how far it is with what is there."""
        return self._run(operations.encoder_status())

    def grants(self) -> List[model.Grant]:
        """Who may do what."""
        return self._run(operations.grants())

    def grant(self, principal: str, spaces: str, rights: str) -> model.Outcome:
        """Let a principal "read", "write" or "admin" a space, all below one ("acme/*"), or all
        ("*")."""
        message = pb.GrantSet(principal=principal, spaces=spaces, rights=rights)
        return self._run(operations.change("grant_set", message, (), None))

    def revoke(self, principal: str, spaces: str) -> model.Outcome:
        """Take a grant back."""
        return self.grant(principal, spaces, "")

    def keys(self) -> List[model.Key]:
        """Which keys stand for whom."""
        return self._run(operations.keys())

    def allow_key(self, public_key: str, principal: str) -> model.Outcome:
        """Let a public key stand for a principal."""
        message = pb.KeySet(public_key=public_key, principal=principal)
        return self._run(operations.change("key_set", message, (), None))

    def revoke_key(self, public_key: str) -> model.Outcome:
        """Let a public key stand for nobody."""
        return self.allow_key(public_key, "")
