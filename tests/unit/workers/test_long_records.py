"""Records that say thousands of windows at once: cheap to cut, to keep, and to encode (4)."""

import numpy as np
import pytest

from router.payload import EMPTY, pack, unpack
from router.records import SPIKES, Data, encode_record
from router.wire import Kind, decode_frame
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.model import Input, Layer, Network, Output, Source
from topologies.stages.base import Array
from topologies.stages.encoder import Events
from workers.compute import EncoderEncode
from workers.eras import Fresh
from workers.flow import Flow
from workers.ingest import Ingest
from workers.reading import Record
from workers.snapshot import Snapshot, Stored, seal
from workers.spec import MOST_WINDOWS, ingest_spec
from workers.tenant import Limits

N = 5
HIGH = 3


def network() -> CompiledNetwork:
    return compile_network(
        Network(
            "n",
            Input("x", (N,), "events", params={"high": HIGH}),
            (
                Layer("fc", "linear", (Source("input"),), arrays={"weight": np.ones((2, N))}),
                Layer("cells", "lif", (Source("fc"),), {"tau": 2.0}),
                Layer("head", "linear", (Source("cells"),), arrays={"weight": np.ones((2, 2))}),
            ),
            Output("count", "head"),
        ),
        bits=8,
    )


NETWORK = network()
SPEC = ingest_spec({"n": NETWORK}, NETWORK.nodes[NETWORK.input.node].operator, 0)
LONGEST = SPEC.input.longest_window
ENCODE = EncoderEncode(SPEC, Events(shape=(N,), high=HIGH))


def ingest(stored: Stored | None = None, limits: Limits | None = None) -> Ingest:
    return Ingest(SPEC, ENCODE, limits or Limits(), Fresh(100, 0, 0), stored)


def read(into: Ingest, at: int, *said: Data) -> None:
    for offset, data in enumerate(said, at):
        key, value = data.name.encode(), encode_record(data)
        assert into.receive(Record(SPEC.in_topic, offset, 0, key, value))


def serving(limits: Limits | None = None) -> Ingest:
    """An ingest that has its era, at offset 1."""
    found = ingest(limits=limits)
    (era,) = [o.value for o in found.take_outputs()]
    assert found.receive(Record(SPEC.in_topic, 0, 0, None, era))
    return found


def sent(by: Ingest) -> list[Array]:
    """Steps of the windows that it sends now, in their order."""
    while (work := by.work()) is not None:
        by.apply(work, by.compute(work))
    frames = [decode_frame(o.value) for o in by.take_outputs() if o.topic.startswith("snn.spikes")]
    batches = [b for f in frames for b in f.batches if b.kind is Kind.SPIKES]
    return [unpack([b.payload], b.stop - b.start, N, 0, HIGH)[0] for b in batches]


def steps(n_steps: int, density: float) -> Array:
    rng = np.random.default_rng(7)
    values: Array = rng.integers(1, HIGH + 1, (n_steps, N)) * (rng.random((n_steps, N)) < density)
    return values


def dense(values: Array) -> Data:
    return Data("s", payload=values.astype("u1").tobytes(), dtype="uint8", shape=values.shape)


@pytest.mark.parametrize("density", [0, 0.02, 0.4, 1])
@pytest.mark.parametrize("packed", [True, False], ids=["spikes", "values"])
def test_windows_of_a_long_record_hold_its_steps(density: float, packed: bool) -> None:
    n_steps = 40 * LONGEST + 1
    values = steps(n_steps, density)
    running = serving()
    if packed:
        data = Data("s", payload=pack(values[None], 0, HIGH)[0], dtype=SPIKES, steps=n_steps)
    else:
        data = dense(values)
    read(running, 1, data)
    windows = sent(running)
    assert len(windows) == 41
    assert np.array_equal(np.concatenate(windows), values)


def test_checkpoint_of_a_long_record_holds_it_once_and_goes_on_with_the_same_bits() -> None:
    n_steps = 300 * LONGEST
    values = steps(n_steps, 0.5)
    running = serving(Limits(stream_windows=2))
    read(running, 1, dense(values))
    first = sent(running)
    snapshot = running.snapshot(full=True)
    assert isinstance(snapshot, Snapshot)
    assert sum(len(blob) for _, _, blob in snapshot.changed) < 2 * values.size
    blobs = {field: (blob, None) for field, _, blob in snapshot.changed}
    again = ingest(Stored(1, (snapshot.head, None), blobs, snapshot.positions))
    windows = np.concatenate([*first, *sent(again)])
    assert len(windows) > 10 * LONGEST
    assert np.array_equal(windows, values[: len(windows)])


class Step(int):
    """A step that counts how often it is looked at."""

    n_looks = 0

    def __eq__(self, other: object) -> bool:
        Step.n_looks += 1
        return int(self) == other

    def __lt__(self, other: int) -> bool:
        Step.n_looks += 1
        return int(self) < other

    __hash__ = int.__hash__


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "backwards"])
def test_events_are_not_searched_anew_for_each_window(order: int) -> None:
    n_windows = 1000
    events = tuple((Step(i), 0, 1) for i in range(4 * n_windows))[::order]
    flow = Flow(0, "s", frozenset({"n"}), 0)
    content = flow.read(Data("s", events=events, end=True), 0, None)
    Step.n_looks = 0
    flow.add(content, end=True)
    cuts = flow.cut(4)
    assert [len(c.events) for c in cuts] == [4] * n_windows
    assert Step.n_looks < 100 * len(events)


def test_short_payload_that_claims_countless_steps_is_refused_before_it_is_unpacked() -> None:
    data = Data("s", payload=EMPTY, dtype=SPIKES, steps=2**32 - 1)
    with pytest.raises(ValueError, match=rf"at most {MOST_WINDOWS * LONGEST} are legal"):
        ENCODE.check(data)


def test_stream_holds_a_bounded_number_of_events_of_a_step_that_never_ends() -> None:
    running = serving(Limits(uncommitted_bytes=10_000_000))
    many = tuple((9, i % N, 1) for i in range(40_000))
    read(running, 1, Data("s", events=many), Data("s", events=many))
    read(running, 3, Data("s", until=10), Data("s", events=((11, 0, 1),), end=True))
    assert running.counts["dead_letters_total"] == 1
    windows = np.concatenate(sent(running))
    assert windows.sum() == N + 1
    assert len(windows) == 12


def test_frozen_flow_of_many_pieces_is_thawed_as_it_was() -> None:
    flow = Flow(3, "s", frozenset({"n"}), 9)
    for start in range(3):
        data = Data("s", payload=bytes([start]) * 10, dtype="uint8", shape=(10,))
        flow.add(flow.read(data, 10, None), end=False)
        flow.cut(4)
    frozen = flow.freeze()
    assert seal(Flow.thaw(3, frozen, 0).freeze()) == seal(frozen)
    assert [[p.start for p in c.pieces] for c in flow.cuts] == [[0], [0], [0], [10], [10], [10],
                                                                [20], [20], [20]]  # fmt: skip
