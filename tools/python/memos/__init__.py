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
from .aio import AsyncClient, AsyncGeneration, AsyncWatch
from .client import Client, Generation, Watch
from .errors import (
    Busy, Cancelled, Conflict, Corrupt, Deadline, Denied, Error, Exists, Forgotten, Frozen,
    Internal, Invalid, IOFailed, NoMemory, NoSpace, NotFound, Stale, Status, TooLarge,
    Unavailable, Unsupported)
from .model import (
    Answer, ArchiveSummary, CaptureMade, Captures, Checkpoint, Classification, Cube, Draft,
    EncoderInfo, Event, Filter, Finish, FsckReport, Grant, Hit, HitPart, Hits, Key, Kind, Label,
    Log, LogEntry, LogRecord, Memory, Message, Method, Metric, Mode, Operation, Outcome, Page,
    Query, Receipt, ReceiptItem, Ref, RollbackItem, Sampling, Source, SpaceInfo, State,
    TextScore, TreeChild, TreeNode, UsedAs, Verification, Welcome, Worker, WorkerModel)

__version__ = "0.1.0"

__all__ = [
    "Answer", "ArchiveSummary", "AsyncClient", "AsyncGeneration", "AsyncWatch", "Busy",
    "Cancelled", "CaptureMade", "Captures", "Checkpoint", "Classification", "Client",
    "Conflict", "Corrupt", "Cube", "Deadline", "Denied", "Draft", "EncoderInfo", "Error",
    "Event", "Exists", "Filter", "Finish", "Forgotten", "Frozen", "FsckReport", "Generation",
    "Grant", "Hit", "HitPart", "Hits", "IOFailed", "Internal", "Invalid", "Key", "Kind",
    "Label", "Log", "LogEntry", "LogRecord", "Memory", "Message", "Method", "Metric", "Mode",
    "NoMemory", "NoSpace", "NotFound", "Operation", "Outcome", "Page", "Query", "Receipt",
    "ReceiptItem", "Ref", "RollbackItem", "Sampling", "Source", "SpaceInfo", "Stale", "State",
    "Status", "TextScore", "TooLarge", "TreeChild", "TreeNode", "Unavailable", "Unsupported",
    "UsedAs", "Verification", "Watch", "Welcome", "Worker", "WorkerModel",
]
