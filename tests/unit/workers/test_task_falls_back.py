"""Falling back on an older head or an older version of a stream (24)."""

import struct

from loadtest.simulation.numbers import FakeCompute
from loadtest.simulation.shapes import build, layout
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.reading import Record
from workers.snapshot import Snapshot, Stored
from workers.spec import TaskSpec
from workers.task import Task
from workers.tenant import Limits

ERA = 100
SPEC = next(
    spec
    for spec in layout(build("chain", 4), ("n",), 1).specs.values()
    if isinstance(spec, TaskSpec)
)
(SOURCE,) = SPEC.places[0].sources
(TOPIC,) = SPEC.topics


def task(stored: Stored | None = None, spec: TaskSpec = SPEC) -> Task:
    return Task(spec, FakeCompute(spec, False, None, frozenset()), Limits(), stored)


def record(window: int, kind: Kind = Kind.SPIKES) -> Record:
    """Window `window` of stream 0, at offset 1 + window; ERA at offset 0."""
    is_era = kind is Kind.ERA
    batch = Batch(
        node=SOURCE.node, stream=StreamId(ERA, 0), name="" if is_era else "s", networks=("n",),
        seed=0, window=max(0, window), start=max(0, window), stop=window + 1, kind=kind, end=False,
        payload=b"" if is_era else struct.pack("<I", window), error="",
    )  # fmt: skip
    frame = encode_frame(Frame(SOURCE.operator, 0, [batch]))
    return Record(TOPIC, 1 + window, 0, None, frame)


HISTORY = [record(-1, Kind.ERA), record(0), record(1), record(2)]


def run(running: Task, records: list[Record]) -> list[int]:
    """Take the records in; gives the windows that leave."""
    for each in records:
        assert running.receive(each)
    while (work := running.work()) is not None:
        running.apply(work, running.compute(work))
    frames = [decode_frame(o.value) for o in running.take_outputs()]
    return [b.window for f in frames for b in f.batches if b.kind is Kind.SPIKES]


def taken(running: Task) -> Snapshot:
    snapshot = running.snapshot(full=False)
    assert snapshot is not None
    running.committed(snapshot)
    return snapshot


def stored(head: tuple[bytes, bytes], of: Snapshot, older: Snapshot | None = None) -> Stored:
    before = {} if older is None else {field: blob for field, _, blob in older.changed}
    return Stored(
        number=2, heads=head, positions=of.positions,
        streams={field: (blob, before.get(field)) for field, _, blob in of.changed},
        cursors={field: cursor for field, cursor, _ in of.changed},
    )  # fmt: skip


def test_stream_of_a_later_era_than_the_older_head_is_replayed_before_it_is_committed() -> None:
    before = task()
    old = before.snapshot(full=True)
    assert old is not None
    before.committed(old)
    run(before, HISTORY[:3])
    new = taken(before)
    restored = task(stored((b"rotten", old.head), new))
    assert restored.start() == {TOPIC: 0}
    assert run(restored, HISTORY[:2]) == [0]
    assert restored.snapshot(full=False) is None  # it is behind what the store knows
    assert run(restored, HISTORY[2:3]) == [1]
    assert [cursor for _, cursor, _ in taken(restored).changed] == [2]


def test_stream_of_the_older_heads_era_goes_on_from_its_own_snapshot() -> None:
    before = task()
    run(before, HISTORY[:2])
    old = taken(before)
    run(before, HISTORY[2:3])
    new = taken(before)
    restored = task(stored((b"rotten", old.head), new))
    assert run(restored, HISTORY[2:]) == [2]


def test_stream_whose_newer_version_rotted_reads_again_and_is_not_committed_meanwhile() -> None:
    before = task()
    run(before, HISTORY[:2])
    old = taken(before)
    run(before, HISTORY[2:3])
    new = taken(before)
    broken = stored((new.head, old.head), new, old)
    streams = {field: (b"rotten", older) for field, (_, older) in broken.streams.items()}
    restored = task(Stored(2, broken.heads, streams, broken.positions, broken.cursors))
    assert restored.start() == {TOPIC: 2}
    ahead = restored.snapshot(full=True)
    assert ahead is not None
    assert not ahead.changed
    assert ahead.keep == tuple(streams)
    assert run(restored, HISTORY[2:]) == [1, 2]
    assert [cursor for _, cursor, _ in taken(restored).changed] == [3]


def test_stream_without_a_readable_version_ends_by_that_name_when_its_next_window_comes() -> None:
    before = task()
    run(before, HISTORY[:2])
    lost = taken(before)
    streams = {field: (b"rotten", None) for field, _, _ in lost.changed}
    restored = task(Stored(2, (lost.head, None), streams, lost.positions))
    assert restored.receive(HISTORY[2])
    outputs = [o for o in restored.take_outputs() if o.topic.startswith("snn.spikes.")]
    (abort,) = [b for o in outputs for b in decode_frame(o.value).batches]
    assert abort.kind is Kind.ABORT
    assert abort.error.startswith("SnapshotCorrupt: stream 0 at node")
    assert restored.n_streams == 0


def test_stream_falls_back_though_a_topic_of_a_removed_network_is_read_no_more() -> None:
    both = build("two-inputs", 4)
    wide = next(s for s in layout(both, ("n", "m"), 1).specs.values() if TOPIC in s.topics)
    narrow = next(s for s in layout(both, ("n",), 1, ("m",)).specs.values() if TOPIC in s.topics)
    assert isinstance(wide, TaskSpec)
    assert isinstance(narrow, TaskSpec)
    assert set(wide.topics) > set(narrow.topics)
    before = task(spec=wide)
    run(before, HISTORY[:2])
    old = taken(before)
    run(before, HISTORY[2:3])
    new = taken(before)
    ((field, blob),) = [(field, blob) for field, _, blob in old.changed]
    kept = Stored(2, (new.head, old.head), {field: (b"rotten", blob)}, new.positions)
    restored = task(kept, narrow)
    assert restored.start() == {TOPIC: 2}
    assert run(restored, HISTORY[2:]) == [1, 2]
