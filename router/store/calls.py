"""The store's calls as values: what to send, and what the reply means.

Nothing here does I/O. A `Call` names a Lua script of `router/store/scripts`, its keys and
arguments, and how to read the reply; `RedisStore` and `SimulatedStore` execute the same calls
with the same script text. A `Query` is the same for plain read commands.

All keys of partition p begin with `snn:{p<p>}:`, one Redis Cluster hash tag, so that a script
touches a single slot. Times are milliseconds on the *server's* clock; no caller's clock enters.
Numbers in brackets are the rules of docs/protocol.md.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, NamedTuple, TypeAlias, TypeVar

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
    "blob_calls",
    "claim",
    "commit",
    "create_task",
    "fail_task",
    "hand",
    "leave",
    "load_blobs",
    "load_references",
    "prefix",
    "release",
    "remove_task",
    "renew",
    "status",
    "unhosted",
    "want",
]

T = TypeVar("T")
Arg: TypeAlias = bytes | str | int
Reply: TypeAlias = "bytes | str | int | Sequence[Reply] | Mapping[bytes, bytes] | None"
Info: TypeAlias = str | int | float | bool | None

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
    (at least 1).
    """

    task: TaskId
    kind: str
    cost: int


class Lease(NamedTuple):
    """A task and the token drawn at its claim."""

    task: TaskId
    token: str


class Position(NamedTuple):
    """The next offset to read of one topic, and an opaque mark of the log's incarnation (30)."""

    offset: int
    mark: str = ""


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


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself with each renewal.

    `capacity` is the whole of it, not what is free; `elsewhere` the cost of the leases it holds
    in other partitions. `details` is shown by `status` as it is.
    """

    capacity: int
    kinds: tuple[str, ...]
    elsewhere: int = 0
    details: Mapping[str, Info] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One run of one script. `parse` turns the server's reply into a value."""

    script: str
    keys: tuple[str, ...]
    args: tuple[Arg, ...]
    parse: Callable[[Reply], T]


@dataclass(frozen=True, slots=True)
class Query(Generic[T]):
    """Plain read commands, sent together. `parse` takes their replies in order."""

    commands: tuple[tuple[Arg, ...], ...]
    parse: Callable[[Sequence[Reply]], T]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task now leased to the caller.

    `claims` counts claims since the last checkpoint, this one included; from 3 on the owner is
    suspicious (28): it runs the task alone, calls `hand` before each step, and clears it after.
    `number` is that of the last checkpoint, 0 when there is none. `hand_last` is what the last
    suspicious owner had in hand when it vanished, `hand_count` by how many of them in a row: at 2
    its stream is killed, by whoever reads this. `previous` is the worker that held the task
    before ("" for none) and `idle_ms` how long its lease had been over.
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


@dataclass(frozen=True, slots=True)
class ClaimReply:
    """`suspicious` tasks wait for a process of their own, which the caller is to start.

    While `settling_ms` is above 0 the store refuses claims (26); try again after it.
    """

    claimed: tuple[Claimed, ...]
    suspicious: tuple[TaskId, ...]
    settling_ms: int


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

    TOKEN: drop the task. NUMBER: make the next checkpoint full. BACKWARDS: a cursor or a
    position is below the stored one. BLOB_MISSING: a blob is gone or was never written, or a
    kept reference is absent; write everything again, full and without `keep`.
    """

    OK = 0
    TOKEN = 1
    NUMBER = 2
    BACKWARDS = 3
    BLOB_MISSING = 4


class StreamReference(NamedTuple):
    """Where a stream's state lies; `previous` is "" for a stream written once."""

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
    """One task record. `lease_ms` is what is left of its lease, 0 or less when it is free;
    `checkpoint_age_ms` is None before the first checkpoint."""

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


def prefix(partition: int) -> str:
    """What every key of this partition begins with."""
    if partition < 0:
        raise StoreCallError(f"Partition {partition} is negative; partitions count from 0.")
    return f"snn:{{p{partition}}}:"


def create_task(spec: TaskSpec, *, settle_ms: int) -> Call[bool]:
    """Write a task record unless it is there; True when it was new. Only deploy calls this (27).

    A record that is there stays as it is, but for its error, which is cleared: deploying again
    gives a failed task another chance. On a store that holds nothing of this partition,
    `settle_ms` decides when the first claim may come: 0 where nobody can hold a task yet (a
    first start), else one time to live, so that owners who outlived the store's data come
    before others (26). The likely mistake: 0 when redeploying after the data was lost.
    """
    if spec.cost < 1:
        raise StoreCallError(f"Task {spec.task} costs {spec.cost}; a cost is at least 1.")
    args = (str(spec.task), spec.task.operator, spec.task.group, spec.kind, spec.cost)
    return _call(
        "create_task", spec.task.partition, (*args, spec.task.generation, settle_ms), _flag
    )


def remove_task(task: TaskId) -> Call[bool]:
    """Delete a task's record and checkpoint; False when there was none (31)."""
    return _call("remove_task", task.partition, (str(task),), _flag)


def claim(
    partition: int,
    worker: str,
    token: str,
    ttl_ms: int,
    *,
    kinds: Collection[str],
    capacity: int,
    limit: int,
    format_version: int = 1,
    alone: TaskId | None = None,
    held: Collection[TaskId] = (),
) -> Call[ClaimReply]:
    """Lease up to `limit` free tasks of these kinds whose cost fits the *free* `capacity`.

    `token` is random and fresh per call (25); all tasks claimed here share it.
    `format_version` is the newest checkpoint format the worker reads: tasks written in a newer
    one are passed over. `alone` is for a process of its own: only that task is considered,
    suspicious or not (28). `held` are tasks whose renewal said VANISHED: they come first, while
    settling too, and without regard to `limit` and `capacity` (26, 27); one that is not in the
    reply is unknown to the store or another worker's, and the next renewal says which.
    """
    _positive("time to live", ttl_ms)
    _named("token", token)
    _named("worker", worker)
    names = (*sorted(kinds), *sorted(map(str, held)))
    args = (worker, token, ttl_ms, capacity, limit, format_version, str(alone) if alone else "")
    return _call("claim", partition, (*args, len(kinds), *names), _claim_reply(token))


def renew(
    partition: int, worker: str, ttl_ms: int, info: WorkerInfo, leases: Sequence[Lease]
) -> Call[dict[TaskId, RenewOutcome]]:
    """Prolong leases and refresh the worker's record; an expired lease nobody took is renewed."""
    _positive("time to live", ttl_ms)
    _named("worker", worker)
    tasks = [lease.task for lease in leases]
    args: list[Arg] = [worker, ttl_ms, info.elsewhere, _encode_info(info)]
    for lease in leases:
        args += [str(lease.task), lease.token]

    def parse(reply: Reply) -> dict[TaskId, RenewOutcome]:
        outcomes = [RenewOutcome(_int(code)) for code in _list(reply)]
        return dict(zip(tasks, outcomes, strict=True))

    return _call("renew", partition, args, parse)


def leave(partition: int, worker: str) -> Call[bool]:
    """Delete the worker's record: it stops politely and holds no lease here any more."""
    return _call("leave", partition, (worker,), _flag)


def release(task: TaskId, token: str) -> Call[bool]:
    """Give a lease back after a last checkpoint; False when it was no longer the caller's.

    Clears the counters of rule 28: who leaves politely was not killed by its task.
    """
    return _call("release", task.partition, (str(task), token), _flag)


def want(
    partition: int,
    worker: str,
    ttl_ms: int,
    *,
    kinds: Collection[str],
    capacity: int,
    elsewhere: int = 0,
) -> Call[TaskId | None]:
    """Ask the most loaded worker for one task, if it stays at least as loaded as the caller (29).

    The giver learns of it at its next renewal; until one time to live is over only `worker` may
    claim the task. None when all is fair, or a move is under way already. `capacity` is what is
    free, `elsewhere` the cost of the caller's leases in other partitions.
    """
    _positive("time to live", ttl_ms)
    args: tuple[Arg, ...] = (worker, ttl_ms, capacity, elsewhere, *sorted(kinds))
    return _call("want", partition, args, lambda reply: _task(reply) if reply else None)


def commit(
    task: TaskId,
    token: str,
    number: int,
    *,
    full: bool,
    head: str,
    positions: Mapping[str, Position],
    changed: Sequence[Change] = (),
    deleted: Collection[str] = (),
    keep: Collection[str] = (),
    format_version: int = 1,
) -> Call[CommitOutcome]:
    """Make checkpoint `number` (the first is 1) the task's state, all of it or nothing (22).

    `head` and the blobs of `changed` are keys written with `blob_calls` before. `deleted`
    streams have ended. A full checkpoint drops every other stream but those in `keep`, whose
    references stay as they are. Topics that `positions` does not name keep their position.
    """
    _positive("checkpoint number", number)
    _named("token", token)
    _named("head blob", head)
    written = [change.field for change in changed]
    _distinct([*written, *deleted, *keep])
    if keep and not full:
        raise StoreCallError("`keep` is for full checkpoints; others leave the rest as it is.")
    args: list[Arg] = [str(task), token, number, int(full), format_version, head]
    args += [len(positions), len(changed), len(deleted), len(keep)]
    for topic, at in positions.items():
        args += [topic, at.offset, at.mark]
    for change in changed:
        args += [change.field, change.cursor, change.blob]
    args += [*deleted, *keep]
    return _call("commit", task.partition, args, lambda reply: CommitOutcome(_int(reply)))


def hand(task: TaskId, token: str, value: str) -> Call[bool]:
    """Record what a suspicious owner is about to step, `<stream field>#<window>` (28).

    "" when nothing is in hand: an owner that dies then accuses no stream. False when the lease
    is another's: do not step.
    """
    return _call("hand", task.partition, (str(task), token, value), _flag)


def fail_task(task: TaskId, token: str, error: str) -> Call[bool]:
    """Give a lease back with an error (LogReplaced, say): nobody claims it until a deployment."""
    _named("error", error)
    return _call("fail_task", task.partition, (str(task), token, error), _flag)


def status(partition: int) -> Call[StatusReply]:
    """All workers and tasks of a partition."""

    def parse(reply: Reply) -> StatusReply:
        now, settling, workers, tasks = _list(reply)
        return StatusReply(
            partition=partition,
            now_ms=_int(now),
            settling_ms=_int(settling),
            workers=tuple(_worker_status(row) for row in _list(workers)),
            tasks=tuple(_task_status(row) for row in _list(tasks)),
        )

    return _call("status", partition, (), parse)


def unhosted(reply: StatusReply) -> tuple[TaskId, ...]:
    """Free tasks that no living worker could host, however empty it were (29)."""
    alive = [worker.info for worker in reply.workers if worker.alive]
    return tuple(
        task.task
        for task in reply.tasks
        if task.lease_ms <= 0
        and not any(task.kind in info.kinds and task.cost <= info.capacity for info in alive)
    )


def blob_calls(
    partition: int, nonce: str, blobs: Sequence[bytes], ttl_ms: int
) -> tuple[BlobWrite, ...]:
    """Blobs under fresh keys; `nonce` is random and never used twice (22)."""
    _named("nonce", nonce)
    _positive("time to live", ttl_ms)
    base = f"{prefix(partition)}blob:{nonce}:"
    return tuple(BlobWrite(f"{base}{i}", data, ttl_ms) for i, data in enumerate(blobs))


def load_references(task: TaskId) -> Query[References | None]:
    """First half of a load: None when the task never committed."""
    base = prefix(task.partition)

    def parse(replies: Sequence[Reply]) -> References | None:
        record, head, positions, streams = replies
        number, version = _list(record)
        if not number or _int(number) == 0:
            return None
        current, previous = _list(head)
        return References(
            number=_int(number),
            format_version=_int(version),
            positions={_text(k): _position(v) for k, v in _pairs(positions)},
            head_current=_text(current or b""),
            head_previous=_text(previous or b""),
            streams={_text(k): _reference(v) for k, v in _pairs(streams)},
        )

    return Query(
        (
            ("HMGET", f"{base}task:{task}", "number", "format"),
            ("HMGET", f"{base}head:{task}", "current", "previous"),
            ("HGETALL", f"{base}pos:{task}"),
            ("HGETALL", f"{base}streams:{task}"),
        ),
        parse,
    )


def load_blobs(references: References) -> Query[StoredCheckpoint]:
    """Second half of a load: the blobs that `references` names."""
    keys = [references.head_current, references.head_previous]
    for stream in references.streams.values():
        keys += [stream.current, stream.previous]
    named = tuple(dict.fromkeys(key for key in keys if key))

    def parse(replies: Sequence[Reply]) -> StoredCheckpoint:
        blobs = {key: _blob(reply) for key, reply in zip(named, replies, strict=True)}
        return StoredCheckpoint(
            number=references.number,
            format_version=references.format_version,
            positions=references.positions,
            head_current=blobs.get(references.head_current),
            head_previous=blobs.get(references.head_previous),
            streams={
                name: StoredStream(
                    stream.cursor, blobs.get(stream.current), blobs.get(stream.previous)
                )
                for name, stream in references.streams.items()
            },
        )

    return Query(tuple(("GET", key) for key in named), parse)


def _call(script: str, partition: int, args: Sequence[Arg], parse: Callable[[Reply], T]) -> Call[T]:
    return Call(script, (prefix(partition),), tuple(args), parse)


def _positive(what: str, value: int) -> None:
    if value < 1:
        raise StoreCallError(f"The {what} is {value}; it must be at least 1.")


def _named(what: str, value: str) -> None:
    if not value:
        raise StoreCallError(f"The {what} is empty; it must not be.")


def _distinct(fields: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in fields:
        if name in seen:
            raise StoreCallError(
                f"Stream {name!r} is named twice; a checkpoint changes, deletes or keeps it."
            )
        seen.add(name)


def _list(reply: Reply) -> Sequence[Reply]:
    if isinstance(reply, Sequence) and not isinstance(reply, bytes | str):
        return reply
    raise StoreReplyError(f"The store answered {reply!r} where a list was expected.")


def _text(reply: Reply) -> str:
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, str):
        return reply
    raise StoreReplyError(f"The store answered {reply!r} where a text was expected.")


def _int(reply: Reply) -> int:
    if isinstance(reply, int):
        return reply
    text = _text(reply)
    try:
        return int(text)
    except ValueError:
        raise StoreReplyError(f"The store answered {text!r} where a number was expected.") from None


def _flag(reply: Reply) -> bool:
    return _int(reply) == 1


def _blob(reply: Reply) -> bytes | None:
    if reply is None or isinstance(reply, bytes):
        return reply
    raise StoreReplyError(f"The store answered {reply!r} where a blob was expected.")


def _task(reply: Reply) -> TaskId:
    return TaskId.parse(_text(reply))


def _pairs(reply: Reply) -> Sequence[tuple[Reply, Reply]]:
    """A hash as the client gives it: a mapping, or a flat list of fields and values."""
    if isinstance(reply, Mapping):
        return list(reply.items())
    flat = _list(reply)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _position(reply: Reply) -> Position:
    offset, _, mark = _text(reply).partition("|")
    return Position(_int(offset), mark)


def _reference(reply: Reply) -> StreamReference:
    cursor, _, blobs = _text(reply).partition("|")
    current, _, previous = blobs.partition("|")
    return StreamReference(_int(cursor), current, previous)


def _claim_reply(token: str) -> Callable[[Reply], ClaimReply]:
    def parse(reply: Reply) -> ClaimReply:
        settling, claimed, suspicious = _list(reply)
        return ClaimReply(
            claimed=tuple(_claimed(token, row) for row in _list(claimed)),
            suspicious=tuple(_task(name) for name in _list(suspicious)),
            settling_ms=_int(settling),
        )

    return parse


def _claimed(token: str, row: Reply) -> Claimed:
    task, kind, cost, claims, number, hand_last, hand_count, previous, idle = _list(row)
    return Claimed(
        task=_task(task),
        token=token,
        kind=_text(kind),
        cost=_int(cost),
        claims=_int(claims),
        number=_int(number),
        hand_last=_text(hand_last),
        hand_count=_int(hand_count),
        previous=_text(previous),
        idle_ms=_int(idle),
    )


def _encode_info(info: WorkerInfo) -> str:
    record = {
        "capacity": info.capacity,
        "kinds": list(info.kinds),
        "elsewhere": info.elsewhere,
        "details": dict(info.details),
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _worker_status(row: Reply) -> WorkerStatus:
    name, alive, text = _list(row)
    try:
        record = json.loads(_text(text))
        info = WorkerInfo(
            capacity=int(record["capacity"]),
            kinds=tuple(record["kinds"]),
            elsewhere=int(record["elsewhere"]),
            details=dict(record["details"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreReplyError(
            f"The record of worker {_text(name)!r} cannot be read ({error}); "
            "it was written by another program or version."
        ) from error
    return WorkerStatus(_text(name), _flag(alive), info)


def _task_status(row: Reply) -> TaskStatus:
    task, kind, cost, worker, lease, claims, number, age, in_hand, wanted, error = _list(row)
    return TaskStatus(
        task=_task(task),
        kind=_text(kind),
        cost=_int(cost),
        worker=_text(worker),
        lease_ms=_int(lease),
        claims=_int(claims),
        number=_int(number),
        checkpoint_age_ms=None if _text(age) == "" else _int(age),
        hand=_text(in_hand),
        wanted_by=_text(wanted),
        error=_text(error),
    )
