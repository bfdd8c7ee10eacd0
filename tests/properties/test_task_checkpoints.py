"""Whatever a task has heard, in any order, its checkpoint of any instant goes on as it would."""

import struct
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.simulation.numbers import FakeCompute
from loadtest.simulation.shapes import build, layout
from router.topics import spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.reading import Record
from workers.snapshot import Snapshot, Stored
from workers.spec import TaskSpec
from workers.streams import Stream
from workers.task import Task
from workers.tenant import Limits

ERA = 100
SPEC = next(
    spec
    for spec in layout(build("group-loop", 4), ("n",), 1).specs.values()
    if isinstance(spec, TaskSpec) and len(spec.places[0].sources) == 3
)
SOURCES = SPEC.places[0].sources
LIMITS = Limits(uncommitted_bytes=10**9)

numbers = st.integers(0, 3)
spikes = st.tuples(
    st.sampled_from(range(len(SOURCES))), numbers, st.integers(0, 3), st.booleans(), st.booleans()
)
control = st.tuples(
    st.sampled_from([Kind.ABORT, Kind.KILL, Kind.ERA]), numbers, st.integers(0, 5),
    st.sampled_from([ERA, ERA, ERA, ERA + 1, ERA - 1]),
)  # fmt: skip
actions = st.lists(
    st.one_of(
        *[st.tuples(st.just("hear"), spikes)] * 6,
        st.tuples(st.just("control"), control),
        st.tuples(st.just("step"), st.none()),
        st.tuples(st.just("restore"), st.booleans()),
    ),
    max_size=50,
)


class Run:
    """A task, its inputs, and all that leaves it."""

    def __init__(self) -> None:
        self.number = 0
        self.head = b""
        self.streams: dict[str, bytes] = {}
        self.sent: dict[tuple[str, StreamId], list[Batch | bytes]] = defaultdict(list)
        self.task = self._task(None)

    def _task(self, stored: Stored | None) -> Task:
        return Task(SPEC, FakeCompute(SPEC, False, None, frozenset()), LIMITS, stored)

    def _say(self, source: int, batch: Batch) -> None:
        of = SOURCES[source]
        value = encode_frame(Frame(of.operator, of.group.index, [batch]))
        topic = spikes_topic(of.operator)
        assert self.task.receive(Record(topic, self.task.reading.offset(topic), 5, None, value))

    def hear(self, what: tuple[int, int, int, bool, bool]) -> None:
        """A window of two steps, or of one, the last."""
        source, number, window, is_next, end = what
        stream = StreamId(ERA, number)
        known = self.task._streams.get((SPEC.places[0].node, stream))
        if is_next and known is not None:
            window = known.expect[source]
        stop = 2 * window + (1 if end else 2)
        payload = struct.pack(f"<{stop - 2 * window}I", *range(2 * window, stop))
        self._say(source, Batch(
            node=SOURCES[source].node, stream=stream, name=f"s{number}", networks=("n",), seed=1,
            window=window, start=2 * window, stop=stop, kind=Kind.SPIKES, end=end, payload=payload,
        ))  # fmt: skip

    def control(self, what: tuple[Kind, int, int, int]) -> None:
        kind, number, window, era = what
        stop = number + window if kind is Kind.ERA else number
        self._say(0, Batch(
            node=SOURCES[0].node, stream=StreamId(era, number), name=f"s{number}", networks=("n",),
            seed=1, window=window, start=number, stop=stop, kind=kind, end=False, payload=b"",
            error="" if kind is Kind.ERA else "no more",
        ))  # fmt: skip

    def step(self, _: None) -> None:
        while (work := self.task.work()) is not None:
            self.task.apply(work, self.task.compute(work))

    def restore(self, full: bool) -> None:
        """Another owner goes on from what the store has of this instant."""
        before = self.task
        taken = before.snapshot(full or not self.number)
        self.look()
        if taken is not None:
            self._commit(taken)
            before.committed(taken)
        blobs = {field: (blob, None) for field, blob in self.streams.items()}
        self.task = self._task(Stored(self.number, (self.head, None), blobs))
        assert not self.task.counts
        assert streams(self.task) == streams(before)
        assert frozen(self.task) == frozen(before)

    def _commit(self, taken: Snapshot) -> None:
        self.number += 1
        self.head = taken.head
        if taken.full:
            self.streams.clear()
        for field in taken.deleted:
            self.streams.pop(field, None)
        self.streams.update({field: blob for field, _, blob in taken.changed})

    def look(self) -> None:
        for output in self.task.take_outputs():
            if output.topic.startswith("snn.spikes."):
                for batch in decode_frame(output.value).batches:
                    self.sent[output.topic, batch.stream].append(batch)
            else:
                self.sent[output.topic, StreamId(0, 0)].append(output.value)


def streams(task: Task) -> dict[object, dict[str, Any]]:
    """All that is remembered of the open streams."""
    slots = [name for name in Stream.__slots__ if name != "place"]
    return {key: {s: getattr(stream, s) for s in slots} for key, stream in task._streams.items()}


def frozen(task: Task) -> tuple[bytes, list[tuple[str, int, bytes]]]:
    """All that a checkpoint would hold."""
    taken = task.snapshot(full=True)
    assert taken is not None
    task.refused(taken)
    return taken.head, sorted(taken.changed)


@settings(max_examples=150)
@given(actions)
def test_task_restored_at_any_instant_goes_on_as_if_nothing_had_happened(
    played: list[tuple[str, Any]],
) -> None:
    undisturbed, restored = Run(), Run()
    for kind, what in played:
        for run in (undisturbed, restored):
            if kind != "restore" or run is restored:
                act: Callable[[Any], None] = getattr(run, kind)
                act(what)
    for run in (undisturbed, restored):
        run.step(None)
        run.look()
    assert restored.sent == undisturbed.sent
    assert frozen(restored.task) == frozen(undisturbed.task)
