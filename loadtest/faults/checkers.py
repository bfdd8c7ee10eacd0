"""Judges a history of a run under faults. Pure; `judge` runs them all.

Each checker looks for one way to break a promise, and returns a sentence per find. What a fault may
excuse is decided in one place, `excuse_of`: damage to the store, and combinations that leave nobody
who remembers a stream, may end it with a named error.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from loadtest.faults.history import End, History, Injected, Sent, TaskView
from router.client import partition_of

__all__ = [
    "CHECKERS",
    "Finding",
    "divergent",
    "duplicated",
    "excuse_of",
    "grown",
    "judge",
    "lost",
    "regressed",
    "stale",
    "stopped",
    "stuck",
    "unexcused",
    "unready",
]

FORGETFUL: Final = ("fail-over", "wipe-store", "evict-store")
"""Kinds of faults after which the store lacks what it had acknowledged."""
DAMAGING: Final = ("damage-store", "evict-store")
"""Kinds after which a checkpoint may be damaged; who finds that falls back, later on too."""
_MEMORY_LOST: Final = ("kill-worker", "kill-workers", "pause-worker", "scale", "stop-worker")
"""Kinds after which a worker's own memory may be gone, or be another's."""
_FORGOTTEN: Final = ("DeadlineMissed:", "EraLost:", "InputLost:")
"""What a stream ends with that nobody remembers; no loss of memory excuses any other error."""
_EXCUSED_FOR_S: Final = 40.0  # a progress deadline and its way through the log
_TOGETHER_S: Final = 6.0  # two faults so near have not been recovered from one by one
_LEASE_S: Final = 2.5  # for a lease to run out and a new owner to be seen
_OWNERLESS_S: Final = 1.5  # a task that changes hands in good order has no owner for a moment
_STUCK_S: Final = 45.0
_GROWTH: Final = 1.3
_GROWTH_BYTES: Final = 48 * 1024 * 1024
_LIFE_S: Final = 60.0  # a younger process is still filling its caches


class Finding(NamedTuple):
    """A promise that was broken: which checker found it, and what."""

    checker: str
    text: str


# ---- results ----------------------------------------------------------------------------------


def lost(history: History) -> Iterator[str]:
    """Streams that were sent to their end, and of which the sink never heard the end, or not all.

    A stream that ended with an error is not lost: `unexcused` judges that.
    """
    ended = {(e.network, e.stream): e for e in history.ends}
    once = {(e.network, e.stream, e.ordinal) for e in history.emissions}  # a repeat fills no gap
    heard = Counter((network, stream) for network, stream, _ in once)
    for last in _closed(history):
        for network in last.networks:
            end = ended.get((network, last.stream))
            wanted = len(history.expected[last.content][network])
            if end is None:
                yield f"stream {last.stream} in {network}: its end never came"
            elif not end.error and heard[network, last.stream] < wanted:
                n = heard[network, last.stream]
                yield f"stream {last.stream} in {network}: {n} of {wanted} emissions came"


def duplicated(history: History) -> Iterator[str]:
    """Emissions, or ends, that the sink was given twice."""
    given = Counter((e.network, e.stream, e.ordinal) for e in history.emissions)
    for (network, stream, ordinal), n in given.items():
        if n > 1:
            yield f"emission {ordinal} of stream {stream} in {network} came {n} times"
    for (network, stream), n in Counter((e.network, e.stream) for e in history.ends).items():
        if n > 1:
            yield f"stream {stream} in {network} ended {n} times"


def divergent(history: History) -> Iterator[str]:
    """Emissions with other bits than the undisturbed run, repeats that differ, and no frames."""
    if history.n_unreadable:
        yield f"{history.n_unreadable} records of results topics are no frames"
    content = {sent.stream: sent.content for sent in history.sent}
    for e in history.emissions:
        wanted = history.expected[content[e.stream]][e.network]
        if e.ordinal >= len(wanted) or wanted[e.ordinal] != e.digest:
            yield f"emission {e.ordinal} of stream {e.stream} in {e.network} has other bits"
    seen: dict[tuple[object, ...], bytes] = {}
    for w in history.wire:
        key = (w.network, w.partition, w.era, w.number, w.window)
        if w.digest and seen.setdefault(key, w.digest) != w.digest:
            where = f"stream {w.era}/{w.number} in {w.network}"
            yield f"window {w.window} of {where} was written again with other bits"


def regressed(history: History) -> Iterator[str]:
    """Windows that were skipped in a results topic, and new ones after the end."""
    due: dict[tuple[object, ...], int] = defaultdict(int)
    over: dict[tuple[object, ...], int] = {}
    for w in history.wire:
        key = (w.network, w.partition, w.era, w.number)
        where = f"stream {w.era}/{w.number} in {w.network}, partition {w.partition}"
        if not w.digest:  # an abort stands in place of any window
            continue
        if w.window > due[key]:
            yield f"{where}: window {w.window} came where {due[key]} was due"
        if key in over and w.window > over[key]:
            yield f"{where}: window {w.window} came after its end at window {over[key]}"
        due[key] = max(due[key], w.window + 1)
        if w.final:
            over.setdefault(key, w.window)


def stuck(history: History, limit_s: float = _STUCK_S) -> Iterator[str]:
    """Records whose emission, or whose stream's end, took longer than `limit_s`, and records that
    were never acknowledged: the publisher gave up.
    """
    for sent in history.unsent:
        yield f"record {sent.ordinal} of stream {sent.stream} was never acknowledged"
    came = {(e.network, e.stream, e.ordinal): e.at for e in history.emissions}
    ended = {(e.network, e.stream): e.at for e in history.ends}
    for sent in history.sent:
        for network in sent.networks:
            at = came.get((network, sent.stream, sent.ordinal))
            if at is None and sent.last:
                at = ended.get((network, sent.stream))
            if at is not None and at - sent.at > limit_s:
                yield (
                    f"record {sent.ordinal} of stream {sent.stream} in {network} was answered after"
                    f" {at - sent.at:.1f} s"
                )


def unexcused(history: History) -> Iterator[str]:
    """Streams that ended with an error which no combination of faults made necessary."""
    for end in history.ends:
        if end.error and excuse_of(history, end) is None:
            yield f"stream {end.stream} in {end.network} ended with: {end.error[:200]}"


def excuse_of(history: History, end: End) -> tuple[Injected, ...] | None:
    """The fault that alone may end a stream of its partition with this error; or two faults that,
    coming together, left nobody who remembered the stream; else None.

    Two are needed where the store forgot writes that it had acknowledged: the worker that still
    knew was lost.
    """
    lately = [
        f for f in history.disturbances if end.at - _EXCUSED_FOR_S <= f.over and f.began <= end.at
    ]
    for fault in lately:
        if _excuses_alone(history, fault, end):
            return (fault,)
    if not any(word in end.error for word in _FORGOTTEN):
        return None
    for forgot in lately:
        if forgot.kind not in FORGETFUL:
            continue
        for other in lately:
            if other.kind in _MEMORY_LOST and _are_together(forgot, other):
                return forgot, other
    return None


def _excuses_alone(history: History, fault: Injected, end: End) -> bool:
    place = partition_of(end.stream, history.partitions)
    return fault.partition in (None, place) and any(f"{e}:" in end.error for e in fault.excuses)


def _are_together(one: Injected, other: Injected) -> bool:
    return one.began <= other.over + _TOGETHER_S and other.began <= one.over + _TOGETHER_S


def _closed(history: History) -> Iterator[Sent]:
    return (sent for sent in history.sent if sent.last)


# ---- tasks ------------------------------------------------------------------------------------


def stale(history: History) -> Iterator[str]:
    """Checkpoints whose number or read positions went backwards, while the store kept its data."""
    resets = [
        (f.began, f.over + _EXCUSED_FOR_S * (f.kind in DAMAGING))
        for f in history.disturbances
        if f.kind in (*FORGETFUL, *DAMAGING)
    ]
    last: dict[str, tuple[float, TaskView]] = {}
    for sample in history.samples:
        for task, view in sample.tasks.items():
            at, before = last.get(task, (sample.at, view))
            last[task] = (sample.at, view)
            if any(at <= over and began <= sample.at for began, over in resets):
                continue
            if view.number < before.number:
                yield f"task {task}: checkpoint {view.number} followed {before.number}"
            for topic, offset in before.positions.items():
                if view.positions.get(topic, 0) < offset:
                    now = view.positions.get(topic, 0)
                    yield f"task {task}: position {now} of {topic} followed {offset}"


def stopped(history: History) -> Iterator[str]:
    """Tasks that had no owner for a while, although no fault hit the one they had."""
    owner: dict[str, str] = {}
    since: dict[str, float] = {}
    told: set[tuple[str, float]] = set()
    for sample in history.samples:
        for task, view in sample.tasks.items():
            if view.worker:
                owner[task] = view.worker
                since.pop(task, None)
                continue
            began = since.setdefault(task, sample.at)
            is_long = sample.at - began > _OWNERLESS_S and task in owner
            if is_long and (task, began) not in told and not _is_hit(history, owner[task], began):
                told.add((task, began))
                yield (
                    f"task {task} of {owner[task]} had no owner for {sample.at - began:.1f} s from"
                    f" {began:.1f} s on, and nothing had hit that worker"
                )


def _is_hit(history: History, worker: str, at: float) -> bool:
    """Whether a fault hit the worker about then, or the one that a child of its own belongs to."""
    names = {worker, worker.rpartition("-")[0], "*"}  # a child is named <worker>-<process id> (28)
    return any(
        not names.isdisjoint(f.hit) and f.began - _LEASE_S <= at <= f.over + _LEASE_S
        for f in history.disturbances
    )


def unready(history: History) -> Iterator[str]:
    """A stack that did not serve everything again when all faults were over."""
    if history.unready:
        yield history.unready


def grown(history: History) -> Iterator[str]:
    """Processes whose memory grew over their life: its last quarter against its second one."""
    lives: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    for size in history.sizes:
        lives[size.process, size.pid].append((size.at, size.n_bytes))
    for (process, pid), sizes in lives.items():
        began, over = sizes[0][0], sizes[-1][0]
        if over - began < _LIFE_S:
            continue
        early = _in(sizes, began + (over - began) / 4, began + (over - began) / 2)
        late = _in(sizes, over - (over - began) / 4, over)
        if late > _GROWTH * early and late - early > _GROWTH_BYTES:
            yield (
                f"process {pid} ({process}) grew from {early / 1e6:.0f} to {late / 1e6:.0f} MB in"
                f" {over - began:.0f} s"
            )


def _in(sizes: Sequence[tuple[float, int]], low: float, high: float) -> float:
    return median(n for at, n in sizes if low <= at <= high)


# ---- all of them ------------------------------------------------------------------------------

CHECKERS: Final[Mapping[str, Callable[[History], Iterable[str]]]] = {
    "lost": lost,
    "duplicated at the sink": duplicated,
    "different bits": divergent,
    "window regression": regressed,
    "stuck stream": stuck,
    "unexcused error": unexcused,
    "stale checkpoint": stale,
    "unrelated task stopped": stopped,
    "not ready at the end": unready,
    "memory growth": grown,
}


def judge(history: History) -> list[Finding]:
    """Everything that is wrong with a history."""
    return [Finding(name, text) for name, check in CHECKERS.items() for text in check(history)]
