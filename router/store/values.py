"""What goes to the store and what comes back, as values.

Times are milliseconds on the *server's* clock; no caller's clock enters. Numbers in brackets are
the rules of docs/protocol.md.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from router.store.errors import StoreCallError, StoreReplyError

__all__ = [
    "Arg",
    "BlobWrite",
    "Call",
    "Change",
    "ClaimReply",
    "Claimed",
    "CommitOutcome",
    "Info",
    "Lease",
    "Position",
    "Query",
    "References",
    "RenewOutcome",
    "Reply",
    "StatusReply",
    "StoredCheckpoint",
    "StoredStream",
    "StreamReference",
    "TaskId",
    "TaskSpec",
    "TaskStatus",
    "WorkerInfo",
    "WorkerStatus",
]

T = TypeVar("T")
Arg: TypeAlias = bytes | str | int
Reply: TypeAlias = "bytes | str | int | Sequence[Reply] | Mapping[bytes, bytes] | None"
Info: TypeAlias = str | int | float | bool | None

_to_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_TASK = re.compile(r"([A-Za-z0-9._-]{1,100})/(\d+)/(\d+)@(\d+)")


class TaskId(NamedTuple):
    """One synapse group of one operator on one partition; `str()` is its name in the store."""

    operator: str
    group: int
    partition: int
    generation: int = 0

    def __str__(self) -> str:
        return f"{self.operator}/{self.group}/{self.partition}@{self.generation}"

    @classmethod
    def parse(cls, text: str) -> "TaskId":
        """Read `<operator>/<group>/<partition>@<generation>`; raise StoreCallError otherwise."""
        match = _TASK.fullmatch(text)
        if match is None:
            raise StoreCallError(
                f"{text!r} is no task; a task is written "
                "<operator>/<group>/<partition>@<generation>."
            )
        operator, *numbers = match.groups()
        return cls(operator, *map(int, numbers))


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What deploy writes once per task (27).

    `kind` is the operator's kind a worker must support, `cost` its load in the capacity's unit
    (at least 1). `needs` are what a node's limits are compared with, one by one, () if not known.
    """

    task: TaskId
    kind: str
    cost: int
    needs: tuple[int, ...] = ()


class Lease(NamedTuple):
    """A task and the token drawn at its claim."""

    task: TaskId
    token: str


class Position(NamedTuple):
    """The next offset to read of one topic."""

    offset: int


class Change(NamedTuple):
    """One stream written by a checkpoint: its field, its cursor, the key of its new blob."""

    field: str
    cursor: int
    blob: str


class BlobWrite(NamedTuple):
    """`SET key data PX ttl_ms`: lives that long unless a commit makes it persistent (22)."""

    key: str
    data: bytes
    ttl_ms: int


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself with each renewal.

    `capacity` is the whole of it, not what is free; `elsewhere` the load of the leases it holds
    in other partitions, as `want` weighs it. `limits` are the most of each need of a task, () for
    a node without limits. `details` is shown by `status` as it is.
    """

    capacity: int
    kinds: tuple[str, ...]
    elsewhere: int = 0
    details: Mapping[str, Info] = field(default_factory=dict)
    limits: tuple[int | None, ...] = ()

    @cached_property
    def text(self) -> str:
        """The worker's record in the store."""
        return _to_json({
            "capacity": self.capacity, "kinds": list(self.kinds), "elsewhere": self.elsewhere,
            "details": dict(self.details), "limits": list(self.limits),
        })  # fmt: skip

    def holds(self, task: "TaskStatus") -> bool:
        """Whether the worker could host the task, were it empty."""
        within = not self.limits or (
            bool(task.needs)
            and all(
                most is None or need <= most
                for need, most in zip(task.needs, self.limits, strict=False)
            )
        )
        return within and task.kind in self.kinds and task.cost <= self.capacity


class Call(NamedTuple, Generic[T]):
    """One run of one script. `parse` turns the server's reply into a value; ask `read` for it."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Arg, ...]
    parse: Callable[[Reply], T]

    def read(self, reply: Reply) -> T:
        """The reply as a value; raises StoreReplyError for what no script writes."""
        try:
            return self.parse(reply)
        except ValueError as error:
            raise _unwritten(self.script, reply, error) from error


class Query(NamedTuple, Generic[T]):
    """Plain read commands, sent together. `parse` takes their replies in order, as does `read`."""

    commands: tuple[tuple[Arg, ...], ...]
    parse: Callable[[Sequence[Reply]], T]

    def read(self, replies: Sequence[Reply]) -> T:
        """The replies as a value; raises StoreReplyError for what no script writes."""
        try:
            return self.parse(replies)
        except ValueError as error:
            raise _unwritten("load", replies, error) from error


_SEVERAL: Final = "*"
"""A hand that names no stream."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task now leased to the caller.

    `claims` counts claims since the last checkpoint of an owner that had caught up, this one
    included; from 3 on the owner is suspicious (28): it runs the task alone, and calls `hand`
    before a step with what `shown` gives, unless that was the last it showed. `number` is that of
    the last checkpoint, 0 when there is none. `hand_last` is what the last suspicious owner had in
    hand when it vanished, `hand_count` by how many of them in a row: at 2 its stream is killed, by
    whoever reads this. `previous` is the worker that held the task before ("" for none) and
    `idle_ms` how long its lease had been over.
    """

    task: TaskId
    token: str
    kind: str
    cost: int
    claims: int
    number: int
    hand_last: str
    hand_count: int
    previous: str
    idle_ms: int

    @property
    def suspicious(self) -> bool:
        """Whether this owner must step the task alone and name what it has in hand (28)."""
        return self.claims > 2

    @property
    def one_by_one(self) -> bool:
        """Whether this owner may step one stream at a time only: one that ran alone died, too."""
        return self.suspicious and self.hand_last != ""

    def shown(self, hand: str) -> str:
        """What a suspicious owner shows that is about to step `hand`, perhaps with others."""
        return hand if self.one_by_one else _SEVERAL


@dataclass(frozen=True, slots=True)
class ClaimReply:
    """`suspicious` tasks wait for a process of their own, which the caller is to start.

    While `settling_ms` is above 0 the store refuses claims (26); try again after it. In
    `expiry_ms` the first of the leases that others hold runs out, unless it is renewed; None
    when none is held, or it was not looked for.
    """

    claimed: tuple[Claimed, ...]
    suspicious: tuple[TaskId, ...]
    settling_ms: int
    expiry_ms: int | None = None


class RenewOutcome(Enum):
    """What became of one lease.

    OK: yours for another time to live. WANTED: yours, and another worker should have it:
    checkpoint, then release. LOST: another worker's; drop the task. VANISHED: the store does
    not know of your claim and nobody holds the task; claim it again with `held`, keep its
    state, and write a full checkpoint (27).
    """

    OK = 0
    WANTED = 1
    LOST = 2
    VANISHED = 3


class CommitOutcome(Enum):
    """OK, or why the whole checkpoint was refused (22); nothing was changed then.

    TOKEN: drop the task (23). NUMBER: make the next checkpoint full (23). BACKWARDS: a cursor or
    a position is below the stored one. BLOB_MISSING: a blob is gone or was never written, or a
    kept reference is absent; write everything again, full and without `keep`.
    """

    OK = 0
    TOKEN = 1
    NUMBER = 2
    BACKWARDS = 3
    BLOB_MISSING = 4


class StreamReference(NamedTuple):
    """Where a stream's state lies; `previous` is "" for a stream written once.

    A cursor of -1 is damaged.
    """

    cursor: int
    current: str
    previous: str


@dataclass(frozen=True, slots=True)
class References:
    """A checkpoint without its blobs; `head_*` are keys, "" for none."""

    number: int
    format_version: int
    positions: dict[str, Position]
    head_current: str
    head_previous: str
    streams: dict[str, StreamReference]


class StoredStream(NamedTuple):
    """A stream's cursor and both versions of its blob; None where a blob is gone."""

    cursor: int
    current: bytes | None
    previous: bytes | None


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """What a new owner restores from."""

    number: int
    format_version: int
    positions: dict[str, Position]
    head_current: bytes | None
    head_previous: bytes | None
    streams: dict[str, StoredStream]


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task record; `damaged` when nobody can claim it as it is.

    `lease_ms` is what is left of its lease, 0 or less when it is free; `checkpoint_age_ms` is None
    before the first checkpoint. `error` keeps the task from being claimed; `last_error` is what
    ended its last owner, "" once one has caught up (28).
    """

    task: TaskId
    kind: str
    cost: int
    worker: str
    lease_ms: int
    claims: int
    number: int
    checkpoint_age_ms: int | None
    hand: str
    wanted_by: str
    error: str
    needs: tuple[int, ...] = ()
    last_error: str = ""
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker record; `alive` while its last renewal is younger than its time to live."""

    worker: str
    alive: bool
    info: WorkerInfo


@dataclass(frozen=True, slots=True)
class StatusReply:
    """Everything the store knows of one partition, of one instant, sorted by name."""

    partition: int
    now_ms: int
    settling_ms: int
    workers: tuple[WorkerStatus, ...]
    tasks: tuple[TaskStatus, ...]


def _unwritten(what: str, reply: Reply, error: ValueError) -> StoreReplyError:
    return StoreReplyError(
        f"The store answered {what!r} with {reply!r}, which no version of it writes ({error})."
    )
