"""Windows of one stream that are stepped one after the other in one piece of work."""

import struct
from collections.abc import Iterable

import pytest

from loadtest.simulation.numbers import FakeCompute
from loadtest.simulation.shapes import build, layout
from router.topics import spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.reading import Record
from workers.spec import TaskSpec
from workers.task import Task
from workers.tenant import Limits
from workers.turns import SHARED_BATCH
from workers.windows import Outcome, Work

_SPECS = tuple(layout(build("shared", 4), ("n", "m"), 1).specs.values())
_SHARED = next(s for s in _SPECS if isinstance(s, TaskSpec) and s.places[0].networks == {"n", "m"})


class _Failing(FakeCompute):
    """Cannot compute window 2."""

    def run(self, work: Work) -> list[Outcome]:
        found: list[Outcome] = list(super().run(work))
        return [
            ArithmeticError("no") if w.window == 2 else f
            for w, f in zip(work.windows, found, strict=True)
        ]


def _task(
    spec: TaskSpec, limits: Limits, streams: Iterable[tuple[int, str, int]], *, fails: bool = False
) -> Task:
    """A task that has been told windows of streams (number, network, how many)."""
    kind = _Failing if fails else FakeCompute
    task = Task(spec, kind(spec, False, None, frozenset()), limits)
    (source, *_) = spec.places[0].sources
    batches = [
        Batch(
            source.node,
            StreamId(100, number),
            f"s{number}",
            (network,),
            0,
            w,
            w,
            w + 1,
            kind=Kind.SPIKES,
            end=w == n - 1,
            payload=struct.pack("<I", 7 * w + number),
        )
        for number, network, n in streams
        for w in range(n)
    ]
    value = encode_frame(Frame(source.operator, source.group.index, batches))
    assert task.receive(Record(spec.topics[0], 0, 0, None, value))
    return task


def _emitted(task: Task) -> tuple[list[tuple[int, int, Kind, bytes]], int]:
    """All batches by stream and window, and in how many pieces of work they came."""
    n_works = 0
    while (work := task.work()) is not None:
        task.apply(work, task.compute(work))
        n_works += 1
    topic = spikes_topic(task.spec.operator)
    frames = [decode_frame(o.value) for o in task.take_outputs() if o.topic == topic]
    found = [b for f in frames for b in f.batches if b.kind in (Kind.SPIKES, Kind.ABORT)]
    return sorted((b.stream.number, b.window, b.kind, bytes(b.payload)) for b in found), n_works


def test_windows_that_wait_are_stepped_in_one_piece_of_work_with_equal_bits() -> None:
    streams = [(0, "n", 5), (1, "n", 3)]
    at_once, n_works = _emitted(_task(_SHARED, Limits(), streams))
    one_by_one, n_single = _emitted(_task(_SHARED, Limits(most_ahead=0), streams))
    assert at_once == one_by_one
    assert (n_works, n_single) == (1, 5)


def test_a_window_that_cannot_be_computed_ends_its_stream_and_no_other() -> None:
    found, _ = _emitted(_task(_SHARED, Limits(), [(0, "n", 5), (1, "n", 2)], fails=True))
    told = [(number, window, kind) for number, window, kind, _ in found]
    assert told == [
        (0, 0, Kind.SPIKES), (0, 1, Kind.SPIKES), (0, 2, Kind.ABORT),
        (1, 0, Kind.SPIKES), (1, 1, Kind.SPIKES),
    ]  # fmt: skip


@pytest.mark.parametrize(("n", "n_rounds"), [(5, 4), (100, SHARED_BATCH - 1)])
def test_work_of_a_shared_task_stays_small(n: int, n_rounds: int) -> None:
    work = _task(_SHARED, Limits(), [(0, "n", n)]).work()
    assert work is not None
    assert len(work.later) == n_rounds


def test_a_stream_that_catches_up_does_not_make_its_neighbour_wait() -> None:
    work = _task(_SHARED, Limits(), [(0, "n", 9), (1, "m", 1)]).work()
    assert work is not None
    assert {w.stream.routes for w in work.windows} == {("n",), ("m",)}
    assert work.later == ()


def test_a_suspicious_owner_steps_one_window_at_a_time() -> None:
    limits = Limits(max_batch=1, most_ahead=0)
    work = _task(_SHARED, limits, [(0, "n", 9), (1, "n", 9)]).work()
    assert work is not None
    assert [w.window for each in work.rounds for w in each.windows] == [0]


def test_the_parties_of_work_share_it_by_all_their_windows() -> None:
    work = _task(_SHARED, Limits(), [(0, "n", 3), (1, "n", 2)]).work()
    assert work is not None
    assert work.shares == {("n",): 5}
