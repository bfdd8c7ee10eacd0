"""A checkpoint that is cut at any byte, or has any bit turned, is never taken for a whole one."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.simulation.numbers import FakeCompute
from loadtest.simulation.shapes import build, layout
from router.records import Kill, parse_record
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.reading import Record
from workers.snapshot import Snapshot, SnapshotCorruptError, Stored, open_sealed, seal
from workers.spec import TaskSpec
from workers.task import Task
from workers.tenant import Limits

ERA = 100
SPEC = next(
    spec
    for spec in layout(build("self-loop", 4), ("n",), 1).specs.values()
    if isinstance(spec, TaskSpec) and len(spec.places[0].sources) == 2
)
(TOPIC,) = (t for t in SPEC.topics if SPEC.operator not in t)
N_WINDOWS = 4


def task(stored: Stored | None = None) -> Task:
    return Task(SPEC, FakeCompute(SPEC, False, None, frozenset()), Limits(), stored)


def record(window: int) -> Record:
    source = SPEC.places[0].sources[0]
    batch = Batch(
        node=source.node, stream=StreamId(ERA, 0), name="s", networks=("n",), seed=0,
        window=window, start=window, stop=window + 1, kind=Kind.SPIKES, end=False,
        payload=struct.pack("<I", window), error="",
    )  # fmt: skip
    return Record(TOPIC, window, 0, None, encode_frame(Frame(source.operator, 0, [batch])))


def run(running: Task, first: int, stop: int = N_WINDOWS) -> list[tuple[int, bytes]]:
    """Read records [first, stop); gives the windows that leave, with their bits."""
    for window in range(first, stop):
        running.receive(record(window))
    while (work := running.work()) is not None:
        running.apply(work, running.compute(work))
    frames = [decode_frame(o.value) for o in running.take_outputs() if "spikes" in o.topic]
    batches = [b for f in frames for b in f.batches if b.kind is Kind.SPIKES]
    return [(b.window, bytes(b.payload)) for b in batches]


def snapshot(running: Task) -> Snapshot:
    taken = running.snapshot(full=True)
    assert taken is not None
    running.committed(taken)
    return taken


def history() -> tuple[Snapshot, Snapshot, list[tuple[int, bytes]]]:
    """Two checkpoints, after windows 0 and 1, and the undisturbed run."""
    running = task()
    windows = run(running, 0, 1)
    old = snapshot(running)
    windows += run(running, 1, 2)
    new = snapshot(running)
    return old, new, windows + run(running, 2)


OLD, NEW, UNDISTURBED = history()
((FIELD, CURSOR, BLOB),) = NEW.changed
OLDER = OLD.changed[0][2]


def stored(head: bytes, blob: bytes) -> Stored:
    return Stored(2, (head, OLD.head), {FIELD: (blob, OLDER)}, dict(NEW.positions), {FIELD: CURSOR})


def resumed(damaged: Stored) -> list[tuple[int, bytes]]:
    restored = task(damaged)
    return run(restored, restored.start()[TOPIC])


@pytest.mark.parametrize("n_bytes", range(len(BLOB)))
def test_stream_cut_at_any_byte_is_restored_from_its_older_version(n_bytes: int) -> None:
    assert resumed(stored(NEW.head, BLOB[:n_bytes])) == UNDISTURBED[1:]


@pytest.mark.parametrize("n_bytes", range(len(NEW.head)))
def test_head_cut_at_any_byte_falls_back_on_the_older_one(n_bytes: int) -> None:
    assert resumed(stored(NEW.head[:n_bytes], BLOB)) == UNDISTURBED[2:]


@pytest.mark.parametrize("contents", [None, 3, "text", [], [1, 2], {}, [None] * 11])
def test_whole_bytes_with_wrong_contents_are_damage_like_any_other(contents: object) -> None:
    assert resumed(stored(NEW.head, seal(contents))) == UNDISTURBED[1:]
    assert resumed(stored(seal(contents), BLOB)) == UNDISTURBED[2:]


def test_stream_without_a_readable_version_is_killed_and_the_task_goes_on() -> None:
    wrong = seal(["no stream"])
    restored = task(Stored(2, (NEW.head, OLD.head), {FIELD: (wrong, wrong), "?": (BLOB, None)}))
    (output,) = restored.take_outputs()
    kill = parse_record(output.key, output.value, 0, 0)
    assert isinstance(kill, Kill)
    assert kill.error.startswith("SnapshotCorrupt")
    assert restored.n_streams == 0


def test_whole_checkpoint_is_restored_as_it_is() -> None:
    assert resumed(stored(NEW.head, BLOB)) == UNDISTURBED[2:]


@given(st.integers(0, 8 * len(BLOB) - 1))
def test_stream_with_any_bit_turned_is_restored_from_its_older_version(bit: int) -> None:
    turned = bytearray(BLOB)
    turned[bit // 8] ^= 1 << bit % 8
    assert resumed(stored(NEW.head, bytes(turned))) == UNDISTURBED[1:]


@given(st.binary(max_size=200))
def test_foreign_bytes_are_never_opened(data: bytes) -> None:
    with pytest.raises(SnapshotCorruptError, match="what"):
        open_sealed(data, "what")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_sealed_value_is_opened_as_it_was(value: object) -> None:
    assert open_sealed(seal(value), "what") == value
