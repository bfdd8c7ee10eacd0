"""What a damaged index of a checkpoint costs: nothing, or streams that end by that name (24)."""

import struct
from collections.abc import Mapping
from dataclasses import replace

import pytest

from loadtest.simulation.numbers import FakeCompute
from loadtest.simulation.shapes import build, layout
from router.records import Kill, parse_record
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.reading import Record
from workers.snapshot import Snapshot, Stored
from workers.spec import TaskSpec
from workers.task import Task
from workers.tenant import Limits

ERA = 100
N_STREAMS = 3
SPEC = next(
    spec
    for spec in layout(build("chain", 4), ("n",), 1).specs.values()
    if isinstance(spec, TaskSpec)
)
(SOURCE,) = SPEC.places[0].sources
(TOPIC,) = SPEC.topics
NODE = SPEC.places[0].node


def task(stored: Stored | None = None) -> Task:
    return Task(SPEC, FakeCompute(SPEC, False, None, frozenset()), Limits(), stored)


def record(window: int) -> Record:
    """Window `window` of every stream, at offset `window`."""
    batches = [
        Batch(
            node=SOURCE.node, stream=StreamId(ERA, number), name=f"s{number}", networks=("n",),
            seed=0, window=window, start=window, stop=window + 1, kind=Kind.SPIKES, end=False,
            payload=struct.pack("<I", window), error="",
        )
        for number in range(N_STREAMS)
    ]  # fmt: skip
    return Record(TOPIC, window, 0, None, encode_frame(Frame(SOURCE.operator, 0, batches)))


def run(running: Task, *windows: int) -> set[tuple[int, int]]:
    """Take windows in; gives (stream, window) of what leaves."""
    for window in windows:
        assert running.receive(record(window))
    if running.is_held:  # it convicted a stream: that is committed first
        taken(running)
    while (work := running.work()) is not None:
        running.apply(work, running.compute(work))
    frames = [decode_frame(o.value) for o in running.take_outputs() if ".spikes." in o.topic]
    batches = [b for f in frames for b in f.batches if b.kind is Kind.SPIKES]
    return {(b.stream.number, b.window) for b in batches}


def taken(running: Task) -> Snapshot:
    snapshot = running.snapshot(full=True)
    assert snapshot is not None
    running.committed(snapshot)
    return snapshot


def killed(running: Task) -> list[tuple[int, str]]:
    said = [
        parse_record(o.key, o.value, 0, 0)
        for o in running.take_outputs()
        if o.topic.startswith("snn.in.")
    ]
    return [(s.stream.number, s.error.partition(":")[0]) for s in said if isinstance(s, Kill)]


def whole() -> Stored:
    before = task()
    run(before, 0)
    old = taken(before)
    run(before, 1)
    new = taken(before)
    older = {field: blob for field, _, blob in old.changed}
    return Stored(
        number=2, heads=(new.head, old.head), positions=new.positions,
        streams={field: (blob, older[field]) for field, _, blob in new.changed},
        cursors={field: cursor for field, cursor, _ in new.changed},
    )  # fmt: skip


WHOLE = whole()
FIELDS = sorted(WHOLE.streams)
NEXT = {(number, 2) for number in range(N_STREAMS)}


def cursors(**changes: int) -> Mapping[str, int]:
    return {**WHOLE.cursors, FIELDS[1]: changes["to"]}


def test_whole_checkpoint_shows_no_damage() -> None:
    restored = task(WHOLE)
    assert not restored.found_damage
    assert run(restored, 2) == NEXT


@pytest.mark.parametrize("cursor", [0, 1, 3, 9, -1])
def test_damaged_cursor_changes_no_bit_and_is_replaced(cursor: int) -> None:
    restored = task(replace(WHOLE, cursors=cursors(to=cursor)))
    assert restored.found_damage
    assert restored.start() == {TOPIC: 1}
    assert run(restored, 2) == NEXT
    assert {c for _, c, _ in taken(restored).changed} == {3}


@pytest.mark.parametrize("positions", [{}, {TOPIC: 1}])
def test_lost_position_is_that_of_the_head_and_is_replaced(positions: dict[str, int]) -> None:
    restored = task(replace(WHOLE, positions=positions))
    assert restored.found_damage == (not positions)
    assert restored.start() == {TOPIC: 1}
    assert run(restored, 2) == NEXT


def test_lost_entry_ends_its_stream_by_name_and_no_other() -> None:
    streams = {field: WHOLE.streams[field] for field in FIELDS[::2]}
    restored = task(replace(WHOLE, streams=streams))
    assert restored.found_damage
    assert killed(restored) == [(1, "SnapshotCorrupt")]
    assert run(restored, 2) == NEXT - {(1, 2)}


def test_lost_hash_of_streams_ends_all_of_them_by_name() -> None:
    restored = task(replace(WHOLE, streams={}, cursors={}))
    assert killed(restored) == [(number, "SnapshotCorrupt") for number in range(N_STREAMS)]


def test_swapped_entries_end_their_streams_by_name() -> None:
    first, second, third = FIELDS
    streams = {first: WHOLE.streams[second], second: WHOLE.streams[first]}
    restored = task(replace(WHOLE, streams={**streams, third: WHOLE.streams[third]}))
    assert killed(restored) == [(0, "SnapshotCorrupt"), (1, "SnapshotCorrupt")]
    assert run(restored, 2) == {(2, 2)}


def test_swapped_versions_change_no_bit() -> None:
    current, previous = WHOLE.streams[FIELDS[1]]
    streams = {**WHOLE.streams, FIELDS[1]: (previous, current)}
    restored = task(replace(WHOLE, streams=streams))
    assert restored.start() == {TOPIC: 1}
    assert run(restored, 1, 2) == NEXT | {(1, 1)}


def test_swapped_heads_change_no_bit() -> None:
    restored = task(replace(WHOLE, heads=WHOLE.heads[::-1]))
    assert restored.snapshot(full=True) is None  # it is behind what the store knows
    assert run(restored, 1, 2) == NEXT


@pytest.mark.parametrize("field", ["", "n", "n/1", f"{NODE}/{ERA}/9", f"{NODE}/{ERA}/+1", "\ufffd"])
def test_entry_under_a_damaged_name_accuses_nobody_else(field: str) -> None:
    streams = {FIELDS[0]: WHOLE.streams[FIELDS[0]], FIELDS[2]: WHOLE.streams[FIELDS[2]]}
    restored = task(replace(WHOLE, streams={**streams, field: WHOLE.streams[FIELDS[1]]}))
    assert killed(restored) == [(1, "SnapshotCorrupt")]
    assert run(restored, 2) == NEXT - {(1, 2)}
