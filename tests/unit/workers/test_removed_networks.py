"""Streams of a network that was removed end quietly, and others never notice (31)."""

import struct
from collections.abc import Iterable

import pytest

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import Data, Era, Route, encode_record
from router.topics import in_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.snapshot import Snapshot, Stored
from workers.spec import IngestSpec, TaskSpec
from workers.task import Task
from workers.tenant import Limits, Tenant

ERA = 100
SHAPE = build("shared", 4)
BOTH = layout(SHAPE, ("n", "m"), 1).specs
LEFT = layout(SHAPE, ("n",), 1, ("m",)).specs
INGEST = next(key for key, spec in BOTH.items() if isinstance(spec, IngestSpec))


def _shared_operator() -> tuple[str, int, int]:
    """The operator after ingest, which both networks have."""
    for key, spec in BOTH.items():
        if isinstance(spec, TaskSpec) and spec.places[0].networks == {"n", "m"}:
            return key
    raise LookupError(BOTH)


OPERATOR = _shared_operator()


def spec_of_ingest(specs: object) -> IngestSpec:
    assert isinstance(specs, IngestSpec)
    return specs


def spec_of_task(specs: object) -> TaskSpec:
    assert isinstance(specs, TaskSpec)
    return specs


@pytest.fixture
def ingest() -> Ingest:
    """An ingest whose era and routes are known."""
    made = Ingest(spec_of_ingest(BOTH[INGEST]), FakeEncode(), Limits(), Fresh(ERA, 0, 0))
    read(made, [Era(ERA, 0, ("n", "m"))])
    made.take_seeks()
    return made


def record(offset: int, said: Data | Era | Route) -> Record:
    key = said.name.encode() if isinstance(said, Data) else None
    return Record(in_topic("x"), offset, 0, key, encode_record(said))


def read(ingest: Ingest, said: Iterable[Data | Era | Route]) -> None:
    for each in said:
        assert ingest.receive(record(ingest.reading.offset(in_topic("x")), each))


def sample(name: str, *networks: str, end: bool = False) -> Data:
    return Data(name, networks, payload=b"1", dtype="uint8", shape=(1,), end=end)


def sent(tenant: Tenant) -> list[Batch]:
    """The windows that leave."""
    while (work := tenant.work()) is not None:
        tenant.apply(work, tenant.compute(work))
    frames = [o.value for o in tenant.take_outputs() if o.topic.startswith("snn.spikes.")]
    batches = [b for value in frames for b in decode_frame(value).batches]
    return [b for b in batches if b.kind is Kind.SPIKES]


def test_stream_of_the_removed_network_alone_is_mute_until_the_log_ends_it(ingest: Ingest) -> None:
    read(ingest, [sample("a", "m"), sample("b", "n")])
    ingest.update(spec_of_ingest(LEFT[INGEST]))
    assert ingest.open_streams() == {"n": 1}
    read(ingest, [sample("a", end=True)])
    assert [(b.name, b.networks) for b in sent(ingest)] == [("b", ("n",))]
    assert ingest.n_streams == 1


def test_stream_goes_on_in_the_networks_that_stay(ingest: Ingest) -> None:
    read(ingest, [sample("a", "m", "n")])
    ingest.update(spec_of_ingest(LEFT[INGEST]))
    read(ingest, [sample("a", "m", "n", end=True)])
    assert [(b.window, b.networks) for b in sent(ingest)] == [(0, ("n",)), (1, ("n",))]


def control(tenant: Tenant) -> list[tuple[str, Kind, tuple[str, ...], str]]:
    """(topic, kind, networks, name of the error) of the batches that end streams."""
    frames = [o for o in tenant.take_outputs() if o.topic.startswith(("snn.spikes.", "snn.out."))]
    batches = [(o.topic, b) for o in frames for b in decode_frame(o.value).batches]
    return [
        ("results" if topic.startswith("snn.out.") else "spikes", b.kind, b.networks,
         b.error.partition(":")[0])
        for topic, b in batches if b.kind in (Kind.KILL, Kind.ABORT)
    ]  # fmt: skip


def test_open_streams_end_loudly_where_their_network_is_removed_by_force(ingest: Ingest) -> None:
    read(ingest, [sample("a", "m"), sample("b", "n")])
    sent(ingest)
    read(ingest, [Route(("n",), ends=("m",))])
    assert control(ingest) == [
        ("spikes", Kind.KILL, ("m",), "NetworkRemoved"),
        ("results", Kind.ABORT, ("m",), "NetworkRemoved"),
    ]
    assert ingest.open_streams() == {"n": 1}


def test_stream_of_a_network_that_is_removed_by_force_goes_on_in_the_others(
    ingest: Ingest,
) -> None:
    read(ingest, [sample("a", "m", "n"), Route(("n",), ends=("m",)), sample("a", end=True)])
    assert [(b.window, b.networks) for b in sent(ingest)] == [(0, ("n",)), (1, ("n",))]


def test_stream_that_was_told_to_end_before_ends_well(ingest: Ingest) -> None:
    read(ingest, [sample("a", "m", end=True), Route(("n",), ends=("m",))])
    assert control(ingest) == []
    assert [(b.window, b.end, b.networks) for b in sent(ingest)] == [(0, True, ("m",))]


def test_replay_of_a_removal_by_force_ends_the_same_streams() -> None:
    said: list[Data | Era | Route] = [Era(ERA, 0, ("n", "m")), sample("a", "m", "n")]
    said += [Route(("n",), ends=("m",)), sample("b", "n"), sample("a", end=True)]
    ingest = Ingest(spec_of_ingest(BOTH[INGEST]), FakeEncode(), Limits(), Fresh(ERA + 1, 0, 5))
    read(ingest, said)
    ingest.take_seeks()
    read(ingest, said)
    found = [(b.name, b.window, b.networks) for b in sent(ingest)]
    assert found == [("a", 0, ("n",)), ("b", 0, ("n",)), ("a", 1, ("n",))]


def test_replay_after_the_removal_gives_the_same_numbers() -> None:
    ingest = Ingest(spec_of_ingest(LEFT[INGEST]), FakeEncode(), Limits(), Fresh(ERA + 1, 0, 3))
    said: list[Data | Era | Route] = [Era(ERA, 0, ("n", "m")), sample("a", "m")]
    said.append(sample("b", "n", end=True))
    read(ingest, said)
    ingest.take_seeks()
    read(ingest, said)
    assert [(b.name, b.stream.number) for b in sent(ingest)] == [("b", 1)]
    assert ingest.open_streams() == {"n": 1}


def task(specs: object, stored: Stored | None = None) -> Task:
    spec = spec_of_task(specs)
    compute = FakeCompute(spec, False, None, frozenset())
    return Task(spec, compute, Limits(), stored)


def window(number: int, at: int, *networks: str) -> Record:
    (source,) = spec_of_task(BOTH[OPERATOR]).places[0].sources
    batch = Batch(
        node=source.node, stream=StreamId(ERA, number), name=f"s{number}", networks=networks,
        seed=0, window=at, start=at, stop=at + 1, kind=Kind.SPIKES, end=False,
        payload=struct.pack("<I", 7), error="",
    )  # fmt: skip
    topic = spec_of_task(BOTH[OPERATOR]).topics[0]
    offset = 10 * number + at
    return Record(topic, offset, 0, None, encode_frame(Frame(source.operator, 0, [batch])))


def test_task_ends_streams_that_are_routed_to_the_removed_network_alone() -> None:
    running = task(BOTH[OPERATOR])
    running.receive(window(0, 0, "m"))
    running.receive(window(1, 0, "m", "n"))
    running.update(spec_of_task(LEFT[OPERATOR]))
    assert running.n_streams == 1
    assert [b.networks for b in sent(running)] == [("n",)]


def test_task_takes_nothing_in_for_the_removed_network() -> None:
    running = task(LEFT[OPERATOR])
    running.receive(window(0, 0, "m"))
    assert running.n_streams == 0


def test_restored_stream_of_the_removed_network_is_ended() -> None:
    before = task(BOTH[OPERATOR])
    before.receive(window(0, 0, "m"))
    before.receive(window(1, 0, "m", "n"))
    assert len(sent(before)) == 2
    restored = task(LEFT[OPERATOR], as_stored(before.snapshot(full=True)))
    assert restored.n_streams == 1
    restored.receive(window(1, 1, "m", "n"))
    assert [(b.window, b.networks) for b in sent(restored)] == [(1, ("n",))]


def as_stored(snapshot: Snapshot | None) -> Stored:
    assert snapshot is not None
    streams = {field: (blob, None) for field, _, blob in snapshot.changed}
    return Stored(1, (snapshot.head, None), streams, snapshot.positions)
