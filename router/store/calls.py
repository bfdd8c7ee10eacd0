"""The store's calls as values: what to send, and what the reply means.

Nothing here does I/O. A `Call` names a Lua script of `router/store/scripts`, its keys and
arguments, and how to read the reply; `RedisStore` and `SimulatedStore` execute the same calls
with the same script text. A `Query` is the same for plain read commands.

All keys of partition p begin with `snn:{p<p>}:`, one Redis Cluster hash tag, so that a script
touches a single slot. Times are milliseconds on the *server's* clock; no caller's clock enters.
Numbers in brackets are the rules of docs/protocol.md.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from router.store import replies
from router.store.errors import StoreCallError
from router.store.marks import mark
from router.store.values import (
    Arg,
    BlobWrite,
    Call,
    Change,
    Claimed,
    ClaimReply,
    CommitOutcome,
    Info,
    Lease,
    Position,
    Query,
    References,
    RenewOutcome,
    Reply,
    StatusReply,
    StoredCheckpoint,
    StoredStream,
    StreamReference,
    TaskId,
    TaskSpec,
    TaskStatus,
    WorkerInfo,
    WorkerStatus,
)

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
    "blame",
    "blob_calls",
    "claim",
    "commit",
    "committed_offsets",
    "create_task",
    "fail_task",
    "hand",
    "leave",
    "load_blobs",
    "load_references",
    "mend_task",
    "prefix",
    "release",
    "released_channel",
    "remove_task",
    "renew",
    "status",
    "unhosted",
    "want",
    "write",
]

T = TypeVar("T")


@cache
def prefix(partition: int) -> str:
    """What every key of this partition begins with."""
    if partition < 0:
        raise StoreCallError(f"Partition {partition} is negative; partitions count from 0.")
    return f"snn:{{p{partition}}}:"


def released_channel(partition: int) -> str:
    """Where the store tells of tasks of a partition that are given back."""
    return f"{prefix(partition)}released"


def create_task(spec: TaskSpec, *, settle_ms: int) -> Call[bool]:
    """Write a task record unless it is there; True when it was new. Only deploy calls this (27).

    A record that is there keeps its lease and its checkpoint. Its error is cleared: deploying again
    gives a failed task another chance. What deployment knows of it is written anew.

    On a store that holds nothing of this partition, or that lost this record, `settle_ms` decides
    when the first claim may come: 0 where nobody can hold a task yet (a first start), else one time
    to live, so that owners who outlived the store's data come before others (26). The likely
    mistake: 0 when redeploying after the data was lost.
    """
    if spec.cost < 1:
        raise StoreCallError(f"Task {spec.task} costs {spec.cost}; a cost is at least 1.")
    return _create(spec, settle_ms, mend=False)


def mend_task(spec: TaskSpec, *, settle_ms: int) -> Call[bool]:
    """Write anew what never changes of a task record, and what is missing of it. Where all of it
    is, nobody claims for `settle_ms`: its owner comes first (26).

    Anybody may who knows the task's network: a task that the store does not know stays unknown, for
    it may have been removed (27). True when nothing of the record was left.
    """
    return _create(spec, settle_ms, mend=True)


def _create(spec: TaskSpec, settle_ms: int, *, mend: bool) -> Call[bool]:
    task = spec.task
    args = (str(task), task.operator, task.group, spec.kind, spec.cost, task.generation)
    needs = " ".join(map(str, spec.needs))
    return _call("create_task", task.partition, (*args, settle_ms, needs, int(mend)), replies.flag)


def remove_task(task: TaskId) -> Call[bool]:
    """Delete a task's record and checkpoint; False when there was none (31)."""
    return _call("remove_task", task.partition, (str(task),), replies.flag)


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
    limits: Sequence[int | None] = (),
) -> Call[ClaimReply]:
    """Lease up to `limit` free tasks of these kinds whose cost fits the *free* `capacity`.

    `limits` are the most of each of a task's needs; with any, tasks of unknown needs do not fit.
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
    rest: tuple[Arg, ...] = (_limits(limits), len(kinds), *names)
    return _call("claim", partition, (*args, *rest), replies.claim_reply(token))


def renew(
    partition: int, worker: str, ttl_ms: int, info: WorkerInfo, leases: Sequence[Lease]
) -> Call[dict[TaskId, RenewOutcome]]:
    """Prolong leases and refresh the worker's record; an expired lease nobody took is renewed."""
    _positive("time to live", ttl_ms)
    _named("worker", worker)
    tasks = [lease.task for lease in leases]
    args: list[Arg] = [worker, ttl_ms, info.elsewhere, info.text]
    for lease in leases:
        args += [str(lease.task), lease.token]

    def parse(reply: Reply) -> dict[TaskId, RenewOutcome]:
        outcomes = [RenewOutcome(replies.integer(code)) for code in replies.items_of(reply)]
        return dict(zip(tasks, outcomes, strict=True))

    return _call("renew", partition, args, parse)


def leave(partition: int, worker: str) -> Call[bool]:
    """Delete the worker's record: it stops politely and holds no lease here any more."""
    return _call("leave", partition, (worker,), replies.flag)


def release(task: TaskId, token: str) -> Call[bool]:
    """Give a lease back after a last checkpoint; False when it was no longer the caller's.

    Clears the counters of rule 28: who leaves politely was not killed by its task.
    """
    return _call("release", task.partition, (str(task), token), replies.flag)


def want(
    partition: int,
    worker: str,
    ttl_ms: int,
    *,
    kinds: Collection[str],
    capacity: int,
    elsewhere: int = 0,
    overhead: int = 0,
    limits: Sequence[int | None] = (),
) -> Call[TaskId | None]:
    """Ask the most loaded worker for one task, if it stays at least as loaded as the caller (29).

    The giver learns of it at its next renewal; until one time to live is over only `worker` may
    claim the task. None when all is fair, or a move is under way already. `capacity` is what is
    free, `overhead` what every task loads a worker with beside its cost, `elsewhere` the load of
    the caller's leases in other partitions.
    """
    _positive("time to live", ttl_ms)
    numbers: tuple[Arg, ...] = (capacity, elsewhere, overhead)
    args: tuple[Arg, ...] = (worker, ttl_ms, *numbers, _limits(limits), *sorted(kinds))
    return _call("want", partition, args, lambda reply: replies.task_id(reply) if reply else None)


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
    caught_up: bool = True,
    mends: bool = False,
    entries: int | None = None,
) -> Call[CommitOutcome]:
    """Make checkpoint `number` (the first is 1) the task's state, all of it or nothing (22).

    `head` and the blobs of `changed` are keys written with `blob_calls` before. `deleted`
    streams have ended. A full checkpoint drops every other stream but those in `keep`, whose
    references stay as they are. Topics that `positions` does not name keep their position. Only
    with `caught_up`, when the owner has applied all that lay in the log at its claim, are the
    claims forgotten that led to it (28). Who `mends` has found something of the stored checkpoint
    damaged: no stored cursor or position is a floor for it, and it must be full. `entries` is how
    many streams the store should hold before: if it holds others it has lost some, and the answer
    is NUMBER, so that the next checkpoint writes all of them.
    """
    _positive("checkpoint number", number)
    _named("token", token)
    _named("head blob", head)
    written = [change.field for change in changed]
    _distinct([*written, *deleted, *keep])
    for topic, at in positions.items():
        if at.offset < 0:
            raise _negative(f"Position {at.offset} of {topic!r}")
    for change in changed:
        if change.cursor < 0:
            raise _negative(f"Cursor {change.cursor} of stream {change.field!r}")
        if not change.blob:
            _named(f"blob of stream {change.field!r}", "")
    if mends and not full:
        raise StoreCallError("`mends` is for full checkpoints; others leave what is damaged.")
    if keep and not full:
        raise StoreCallError("`keep` is for full checkpoints; others leave the rest as it is.")
    args: list[Arg] = [str(task), token, number, int(full), format_version, head]
    args += [len(positions), len(changed), len(deleted), len(keep), int(caught_up)]
    args += [int(mends), "" if entries is None else entries]
    for topic, at in positions.items():
        args += [topic, at.offset, mark(task, topic, at.offset)]
    for change in changed:
        args += [change.field, change.cursor, change.blob]
    args += [*deleted, *keep]
    return _call(
        "commit", task.partition, args, lambda reply: CommitOutcome(replies.integer(reply))
    )


def write(writes: Sequence[BlobWrite]) -> Call[int]:
    """Write at least one blob of one partition, all with the time to live of the first; how many.

    A command per blob would cost the caller four times the work.
    """
    base, _, _ = writes[0].key.partition("blob:")
    keys = (base, *(each.key for each in writes))
    data = (each.data for each in writes)
    return Call("write", keys, (writes[0].ttl_ms, *data), replies.integer)


def hand(task: TaskId, token: str, value: str) -> Call[bool]:
    """Record what a suspicious owner is about to step, `<stream field>#<window>` (28).

    "" when nothing is in hand: an owner that dies then accuses no stream. False when the lease
    is another's: do not step.
    """
    return _call("hand", task.partition, (str(task), token, value), replies.flag)


def blame(task: TaskId, token: str, error: str) -> Call[bool]:
    """Say what ends this owner, whose lease is left to run out; False when it was another's (28).

    The claims go on being counted, and `status` shows the error until an owner has caught up.
    """
    _named("error", error)
    return _call("blame", task.partition, (str(task), token, error), replies.flag)


def fail_task(task: TaskId, token: str, error: str) -> Call[bool]:
    """Give a lease back with an error (LogReplaced, say): nobody claims it until a deployment."""
    _named("error", error)
    return _call("fail_task", task.partition, (str(task), token, error), replies.flag)


def status(partition: int) -> Call[StatusReply]:
    """All workers and tasks of a partition."""

    def parse(reply: Reply) -> StatusReply:
        now, settling, workers, tasks = replies.items_of(reply)
        return StatusReply(
            partition=partition,
            now_ms=replies.integer(now),
            settling_ms=replies.integer(settling),
            workers=tuple(replies.worker_status(row) for row in replies.items_of(workers)),
            tasks=tuple(replies.task_status(row) for row in replies.task_rows(tasks)),
        )

    return _call("status", partition, (), parse)


def unhosted(reply: StatusReply) -> tuple[TaskId, ...]:
    """Free tasks that no living worker could host, however empty it were (29)."""
    alive = [worker.info for worker in reply.workers if worker.alive]
    return tuple(
        task.task
        for task in reply.tasks
        if task.lease_ms <= 0 and (task.damaged or not any(info.holds(task) for info in alive))
    )


def blob_calls(
    partition: int, nonce: str, blobs: Sequence[bytes], ttl_ms: int
) -> tuple[BlobWrite, ...]:
    """Blobs under fresh keys; `nonce` is random and never used twice (22)."""
    _named("nonce", nonce)
    if "|" in nonce:
        raise StoreCallError(f"The nonce {nonce!r} holds '|', which separates stored blob keys.")
    _positive("time to live", ttl_ms)
    base = f"{prefix(partition)}blob:{nonce}:"
    return tuple(BlobWrite(f"{base}{i}", data, ttl_ms) for i, data in enumerate(blobs))


def load_references(task: TaskId) -> Query[References | None]:
    """First half of a load: None when the task never committed.

    What is damaged is left out, and whoever opens the blobs notices what it misses (24): also where
    the record is new and the head gone, since what is left would refuse all that begins anew.
    """
    base = prefix(task.partition)

    def parse(given: Sequence[Reply]) -> References | None:
        record, head, positions, streams = given
        number, version = map(replies.loose, replies.items_of(record or (None, None)))
        current, previous = map(replies.loose, replies.items_of(head or (None, None)))
        has_number = number.isdecimal() and int(number) > 0
        if not (current or previous or has_number or positions or streams):
            return None
        return References(
            number=int(number) if number.isdecimal() else 0,
            format_version=replies.format_version(version),
            positions=replies.marked(task, positions),
            head_current=current,
            head_previous=previous,
            streams={replies.loose(k): replies.reference(v) for k, v in replies.pairs(streams)},
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


def committed_offsets(tasks: Iterable[TaskId]) -> Query[list[dict[str, int]]]:
    """The next offset by topic of each of these tasks, as of its last checkpoint.

    What is damaged is left out.
    """

    def parse(given: Sequence[Reply]) -> list[dict[str, int]]:
        return [
            {topic: at.offset for topic, at in replies.marked(task, stored).items()}
            for task, stored in zip(asked, given, strict=True)
        ]

    asked = tuple(tasks)
    return Query(tuple(("HGETALL", f"{prefix(t.partition)}pos:{t}") for t in asked), parse)


def load_blobs(references: References) -> Query[StoredCheckpoint]:
    """Second half of a load: the blobs that `references` names."""
    keys = [references.head_current, references.head_previous]
    for stream in references.streams.values():
        keys += [stream.current, stream.previous]
    named = tuple(dict.fromkeys(key for key in keys if key))

    def parse(given: Sequence[Reply]) -> StoredCheckpoint:
        blobs = {key: replies.blob(reply) for key, reply in zip(named, given, strict=True)}
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


def _negative(what: str) -> StoreCallError:
    return StoreCallError(f"{what} is negative; it counts from 0.")


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


def _limits(limits: Sequence[int | None]) -> str:
    return " ".join("-" if most is None else str(most) for most in limits)
