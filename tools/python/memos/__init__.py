"""A client of memosd, the memory service.

    import memos

    with memos.Client() as c:                      # the user's own broker
        made = c.put("acme/alice", "Alice moved to Lisbon in May.", tags=["home"])
        for hit in c.search("acme/alice", "where does Alice live?"):
            print(hit.score, hit.cube.text)

`Client` is synchronous, `AsyncClient` has the same methods for asyncio. What the broker refuses
becomes an exception named after the status: `NotFound`, `Denied`, `Conflict` and so on, all of them
`Error`.
"""
from .aio import AsyncClient, AsyncWatch
from .client import Client, Watch
from .errors import (
    Busy, Cancelled, Conflict, Corrupt, Deadline, Denied, Error, Exists, Forgotten, Frozen,
    Internal, Invalid, IOFailed, NoMemory, NoSpace, NotFound, Stale, Status, TooLarge,
    Unavailable, Unsupported)
from .model import (
    ArchiveSummary, Checkpoint, Classification, Cube, Draft, EncoderInfo, Event, Filter, FsckReport,
    Grant, Hit, HitPart, Hits, Key, Kind, Label, Log, LogEntry, LogRecord, Method, Metric, Mode,
    Operation, Outcome, Page, Query, Ref, RollbackItem, Source, SpaceInfo, State, TreeChild,
    TreeNode, Verification, Welcome)

__version__ = "0.1.0"

__all__ = [
    "ArchiveSummary", "AsyncClient", "AsyncWatch", "Busy", "Cancelled", "Checkpoint",
    "Classification", "Client", "Conflict", "Corrupt", "Cube", "Deadline", "Denied", "Draft",
    "EncoderInfo", "Error", "Event", "Exists", "Filter", "Forgotten", "Frozen", "FsckReport",
    "Grant", "Hit", "HitPart", "Hits", "IOFailed", "Internal", "Invalid", "Key", "Kind", "Label",
    "Log", "LogEntry", "LogRecord", "Method", "Metric", "Mode", "NoMemory", "NoSpace", "NotFound",
    "Operation", "Outcome", "Page", "Query", "Ref", "RollbackItem", "Source", "SpaceInfo", "Stale",
    "State", "Status", "TooLarge", "TreeChild", "TreeNode", "Unavailable", "Unsupported",
    "Verification", "Watch", "Welcome",
]
