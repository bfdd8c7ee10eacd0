"""What `spikerouter status` shows, from what the store knows. Pure."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from router.kinds import extras_of, operator_kind
from router.store.calls import Info, StatusReply, TaskId, TaskStatus, WorkerInfo, unhosted
from router.strays import Stray, strays_of
from topologies.profiles import LIMITS

__all__ = [
    "PlaceRow",
    "RecoveryRow",
    "StatusRows",
    "TaskRow",
    "WorkerRow",
    "is_served",
    "status_rows",
    "task_detail",
    "why_unhosted",
]


_UNBOUNDED = 2**40  # what a worker without a limit tells
_TASK_HEADS = (
    *("task", "kind", "worker", "streams", "lag\nwindows", "lag\nrecords", "saved\nago", "error"),
)


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker over all partitions. `capacity` is in neurons plus synapses."""

    worker: str
    alive: bool
    kinds: tuple[str, ...]
    capacity: int
    load: int
    n_tasks: int


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task. `worker` is "" when it has no owner; counts are None when not known.

    It is `served` once its owner has loaded and tried its operator and restored the checkpoint.
    `unhosted` says why no living worker could take it, "" if one could or has it. If it is not
    `portable`, its bits are the same on one machine and installation only (numerics 18).
    `last_error` is what ended its last owner, "" once one has caught up.
    """

    task: str
    kind: str
    worker: str
    lag_records: int | None
    lag_windows: int | None
    n_streams: int | None
    checkpoint_age_ms: int | None
    error: str
    served: bool
    unhosted: str = ""
    portable: bool = True
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class RecoveryRow:
    """One task that a worker took over lately, and how long each phase lasted, in seconds.

    claim: from the end of the former lease until the task was taken; restore: operator and
    checkpoint were loaded; replay: all that lay in the logs at the claim was applied.
    """

    task: str
    worker: str
    previous: str
    claim_s: float
    restore_s: float
    replay_s: float
    windows_replayed: int


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A partition of a topic that a worker reads, and what is wrong there."""

    topic: str
    partition: int
    worker: str
    fault: str


@dataclass(frozen=True, slots=True)
class StatusRows:
    """All workers and tasks, sorted by name."""

    workers: tuple[WorkerRow, ...]
    tasks: tuple[TaskRow, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    """What the workers have counted since each began, such as `late_events_total`; added up."""
    recoveries: tuple[RecoveryRow, ...] = ()
    """The latest tasks that changed hands, as their new owners told, sorted by worker."""
    places: tuple[PlaceRow, ...] = ()
    """Places that cannot be read as they should, as the workers that read them tell."""
    strays: tuple[Stray, ...] = ()
    """Input that nobody reads, since its partition is not deployed."""

    @property
    def unserved(self) -> tuple[TaskRow, ...]:
        """Tasks without an owner that serves them."""
        return tuple(task for task in self.tasks if task.error or not task.served)

    @property
    def ready(self) -> bool:
        """Whether there are tasks and each has an owner that serves it."""
        return bool(self.tasks) and not self.unserved

    def as_json(self) -> dict[str, object]:
        """For `--json`: the rows as lists of objects."""
        return {
            "ready": self.ready,
            "workers": [asdict(row) for row in self.workers],
            "tasks": [asdict(row) for row in self.tasks],
            "counts": dict(self.counts),
            "recoveries": [asdict(row) for row in self.recoveries],
            "places": [asdict(row) for row in self.places],
            "strays": [asdict(row) for row in self.strays],
        }

    def tables(self) -> Mapping[str, Sequence[tuple[str, ...]]]:
        """Title -> rows of text, the first one being the heads of the columns."""
        found: dict[str, Sequence[tuple[str, ...]]] = {}
        if self.strays:
            unread = [(stray.sentence(),) for stray in self.strays]
            found["Input that nobody reads"] = [("what",), *unread]
        found |= {
            "Workers": [
                ("worker", "state", "kinds", "tasks", "load", "capacity"),
                *(_worker_cells(row) for row in self.workers),
            ],
            "Tasks": [
                _TASK_HEADS,
                *(_task_cells(row) for row in self.tasks),
            ],
            "Counts": [
                ("what", "since the workers began"),
                *((name, str(count)) for name, count in self.counts.items()),
            ],
        }
        if self.places:
            heads = ("topic", "partition", "worker", "what is wrong")
            cells = ((row.topic, str(row.partition), row.worker, row.fault) for row in self.places)
            found["Places"] = [heads, *cells]
        return found


def task_detail(task: TaskId, what: str) -> str:
    """The key under which a worker tells something of one of its tasks in its own record.

    `what` is `lag_records`, `lag_windows` or `streams`.
    """
    return f"{task}:{what}"


def is_served(task: TaskStatus, reply: StatusReply) -> bool:
    """Whether the task's owner tells of it: a claim alone serves nobody yet."""
    return _tells(task, _details_of(task, reply))


def _tells(task: TaskStatus, details: Mapping[str, Info]) -> bool:
    return task.lease_ms > 0 and task_detail(task.task, "streams") in details


def why_unhosted(task: TaskStatus, reply: StatusReply) -> str:
    """Why no living worker can host a task of `unhosted`, without a full stop (PROTOCOL 29)."""
    if task.damaged:
        return (
            "its record in the store is damaged; a worker that knows its network writes it anew"
            " within seconds, and deploying the network again does, too"
        )
    alive = [worker.info for worker in reply.workers if worker.alive]
    hosts = [info for info in alive if task.kind in info.kinds]
    if not alive:
        return "no worker is alive"
    if not hosts and any(operator_kind(task.kind) in info.kinds for info in alive):
        extras = " and ".join(extras_of(task.kind))
        return f"no living worker has the extra {extras}: install it where this may run"
    if not hosts:
        return f"no living worker hosts operators of kind {task.kind}"
    if all(task.cost > info.capacity for info in hosts):
        most = max(info.capacity for info in hosts)
        return f"its cost is {task.cost}, the largest capacity of a living worker {most}"
    if not task.needs:
        return "a release that told no needs deployed it, and the living workers are nodes"
    needs = ", ".join(
        f"{n.replace('_', ' ')} {v}" for n, v in zip(LIMITS, task.needs, strict=False)
    )
    return f"it needs {needs}, more than any living node has"


def status_rows(replies: Iterable[StatusReply]) -> StatusRows:
    """Bring the replies of all partitions together."""
    replies = tuple(replies)
    rows = [row for reply in replies for row in _task_rows(reply)]
    infos = {worker.worker: worker.info for reply in replies for worker in reply.workers}
    alive = {worker.worker for reply in replies for worker in reply.workers if worker.alive}
    held = [task for reply in replies for task in reply.tasks if task.lease_ms > 0]
    return StatusRows(
        workers=tuple(
            WorkerRow(
                worker=name,
                alive=name in alive,
                kinds=info.kinds,
                capacity=info.capacity,
                load=sum(task.cost for task in held if task.worker == name),
                n_tasks=sum(task.worker == name for task in held),
            )
            for name, info in sorted(infos.items())
        ),
        tasks=tuple(sorted(rows, key=lambda row: row.task)),
        counts=_counts(infos.values()),
        recoveries=tuple(row for name in sorted(infos) for row in _recoveries(name, infos[name])),
        places=tuple(row for name in sorted(alive) for row in _places(name, infos[name])),
        strays=strays_of(replies),
    )


def _recoveries(worker: str, info: WorkerInfo) -> list[RecoveryRow]:
    """What a worker tells of tasks it took over; times are milliseconds of its own wall clock."""
    return [
        RecoveryRow(
            task=told["task"],
            worker=worker,
            previous=told["previous"],
            claim_s=told["idle_ms"] / 1000,
            restore_s=(told["restored"] - told["claimed"]) / 1000,
            replay_s=(told["caught_up"] - told["restored"]) / 1000,
            windows_replayed=told["windows_replayed"],
        )
        for told in json.loads(str(info.details.get("recoveries", "[]")))
    ]


def _places(worker: str, info: WorkerInfo) -> list[PlaceRow]:
    return [
        PlaceRow(topic, partition, worker, fault)
        for topic, partition, fault in json.loads(str(info.details.get("places", "[]")))
    ]


def _counts(infos: Iterable[WorkerInfo]) -> dict[str, int]:
    """The counts of all workers, by name; each tells its own as JSON."""
    total: Counter[str] = Counter()
    for info in infos:
        told = info.details.get("counts")
        total.update(json.loads(told) if isinstance(told, str) else {})
    return dict(sorted(total.items()))


def _details_of(task: TaskStatus, reply: StatusReply) -> Mapping[str, Info]:
    return next((w.info.details for w in reply.workers if w.worker == task.worker), {})


def _task_rows(reply: StatusReply) -> list[TaskRow]:
    nobodys = {*unhosted(reply)}
    return [
        _task_row(task, reply, why_unhosted(task, reply) if task.task in nobodys else "")
        for task in reply.tasks
    ]


def _task_row(task: TaskStatus, reply: StatusReply, why: str) -> TaskRow:
    owned, details = task.lease_ms > 0, _details_of(task, reply)

    def told(what: str) -> int | None:
        return _whole(details.get(task_detail(task.task, what))) if owned else None

    return TaskRow(
        task=str(task.task),
        kind=task.kind,
        worker=task.worker if owned else "",
        lag_records=told("lag_records"),
        lag_windows=told("lag_windows"),
        n_streams=told("streams"),
        checkpoint_age_ms=task.checkpoint_age_ms,
        error=task.error,
        served=_tells(task, details),
        unhosted=why,
        portable=not extras_of(task.kind),
        last_error=task.last_error,
    )


def _whole(value: Info) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _worker_cells(row: WorkerRow) -> tuple[str, ...]:
    state = "alive" if row.alive else "silent"
    return (
        *(row.worker, state, " ".join(row.kinds)),
        *(str(row.n_tasks), str(row.load)),
        "unbounded" if row.capacity >= _UNBOUNDED else str(row.capacity),
    )


def _task_cells(row: TaskRow) -> tuple[str, ...]:
    age = "never" if row.checkpoint_age_ms is None else f"{row.checkpoint_age_ms / 1000:.1f} s"
    counts = (row.n_streams, row.lag_windows, row.lag_records)
    told = ("?" if count is None else str(count) for count in counts)
    kind = row.kind if row.portable else f"{row.kind}, not portable"
    error = row.error or row.unhosted or row.last_error
    return (_short(row.task), kind, row.worker or "nobody", *told, age, error)


def _short(task: str) -> str:
    """The task with its operator's first 8 digits; `--json` has them all."""
    operator, slash, rest = task.partition("/")
    return operator[:8] + slash + rest
