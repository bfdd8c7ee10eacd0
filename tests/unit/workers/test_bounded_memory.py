"""What is remembered grows with open streams, and not with all that there ever were (7)."""

import struct
from typing import Any

import pytest

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import Data, Kill, encode_record, record_key
from router.topics import in_topic, out_topic, spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.spec import IngestSpec, TaskSpec
from workers.task import Task
from workers.tenant import Limits, Tenant

ERA = 100
N_STREAMS = 100_000
STEP = 400
LIMITS = Limits(remembered_names=256, deadline_s=30.0, uncommitted_bytes=10**12)
SHARED = layout(build("shared", 4), ("m", "n"), 1).specs.values()
INGEST = next(s for s in SHARED if isinstance(s, IngestSpec))
OF_M = next(
    s for s in SHARED
    if isinstance(s, TaskSpec) and s.networks == {"m"} and not s.places[0].readout_of
)  # fmt: skip
PLACE = OF_M.places[0]
SOURCE = PLACE.sources[0]
REQUESTS = [encode_record(Data("s0000000", (n,), request=True, until=1)) for n in ("m", "n")]


def say(tenant: Tenant, topic: str, key: bytes | None, value: bytes) -> None:
    assert tenant.receive(Record(topic, tenant.reading.offset(topic), 0, key, value))


def batch(number: int, kind: Kind = Kind.SPIKES, **more: Any) -> Batch:
    """The only window of a stream."""
    whole = Batch(
        node=SOURCE.node, stream=StreamId(ERA, number), name=f"s{number}", networks=("m",), seed=0,
        window=0, start=0, stop=1, kind=kind, end=True,
        payload=struct.pack("<I", 1) if kind is Kind.SPIKES else b"",
    )  # fmt: skip
    return whole._replace(**more)


def head_bytes(tenant: Tenant) -> int:
    taken = tenant.snapshot(full=False)
    assert taken is not None
    tenant.committed(taken)
    return len(taken.head)


def serving() -> Ingest:
    ingest = Ingest(INGEST, FakeEncode(), LIMITS, Fresh(ERA, 0, 0))
    (era,) = ingest.take_outputs()
    say(ingest, INGEST.in_topic, None, era.value)
    ingest.tick(1.0)
    return ingest


def final(ingest: Ingest, first: int, stop: int) -> None:
    """The results of these streams, of two networks in turn."""
    for network, parity in (("m", 0), ("n", 1)):
        found = [batch(n, networks=(network,)) for n in range(first, stop) if n % 2 == parity]
        value = encode_frame(Frame(INGEST.operator, 0, found))
        say(ingest, out_topic(network), None, value)


def through(ingest: Ingest, first: int, n: int) -> list[Batch]:
    """Streams that go to two networks in turn; each tenth is killed as well. What is told."""
    for number in range(first, first + n):
        value = REQUESTS[number % 2].replace(b"0000000", b"%07d" % number)
        say(ingest, INGEST.in_topic, None, value)
    while (work := ingest.work()) is not None:
        ingest.apply(work, ingest.compute(work))
    final(ingest, first, first + n)
    for number in range(first, first + n, 10):
        kill = Kill(StreamId(ERA, number), f"s{number}", ("m", "n"), "again", if_final=True)
        say(ingest, INGEST.in_topic, record_key(kill), encode_record(kill))
    return controls_of(ingest)


def controls_of(ingest: Ingest) -> list[Batch]:
    frames = [decode_frame(o.value) for o in ingest.take_outputs() if "spikes" in o.topic]
    return [b for f in frames for b in f.batches if b.kind is not Kind.SPIKES]


@pytest.mark.timeout(600)
def test_heads_stay_small_while_a_hundred_thousand_streams_go_through() -> None:
    """The ingest's, and that of a task that hears of every second stream only; one stays open."""
    ingest, task = serving(), Task(OF_M, FakeCompute(OF_M, False, None, frozenset()), LIMITS)
    first = Data("open", ("m",), until=1)
    say(ingest, INGEST.in_topic, b"open", encode_record(first))
    sizes = []
    for number in range(1, N_STREAMS, STEP):
        controls = through(ingest, number, STEP)
        ingest.tick(1.0 + number / 10)
        controls += controls_of(ingest)
        mine = [batch(n) for n in range(number, number + STEP) if n % 2 == 0]
        for said in (mine, [b._replace(node=SOURCE.node) for b in controls]):
            frame = encode_frame(Frame(SOURCE.operator, 0, said))
            say(task, spikes_topic(SOURCE.operator), None, frame)
            while (work := task.work()) is not None:
                task.apply(work, task.compute(work))
        task.take_outputs()
        sizes.append((head_bytes(ingest), head_bytes(task)))
    assert max(size for pair in sizes for size in pair) < 2000
    assert ingest.n_streams == 1
    assert task.n_streams == 0


def over(lo: int, hi: int) -> Batch:
    return batch(lo, Kind.ERA, start=lo, stop=hi, end=False, name="", networks=("m",))


def task_with(*batches: Batch) -> Task:
    task = Task(OF_M, FakeCompute(OF_M, False, None, frozenset()), LIMITS)
    for each in batches:
        hear(task, each)
    return task


def hear(task: Task, said: Batch) -> list[tuple[Kind, int, int]]:
    """What it passes on: kind, start, stop."""
    frame = encode_frame(Frame(SOURCE.operator, 0, [said]))
    say(task, spikes_topic(SOURCE.operator), None, frame)
    frames = [decode_frame(o.value) for o in task.take_outputs() if o.topic != in_topic("x")]
    return [(b.kind, b.start, b.stop) for f in frames for b in f.batches]


def test_stream_that_waits_in_vain_is_gone_when_its_number_is_told_to_be_over() -> None:
    task = task_with(batch(3, end=False), batch(5, end=False))
    hear(task, over(2, 5))
    assert task.n_streams == 1
    assert hear(task, batch(3, end=True)) == []
    assert task.n_streams == 1


def test_numbers_that_are_over_are_passed_on_once() -> None:
    task = task_with(over(0, 5))
    assert hear(task, over(1, 4)) == []
    assert hear(task, over(1, 6)) == [(Kind.ERA, 1, 6)]


def test_kill_that_comes_round_a_loop_is_known_though_its_number_is_over() -> None:
    task = task_with(over(0, 5))
    kill = batch(3, Kind.KILL, error="AlreadyFinal: s3", end=False)
    assert (Kind.KILL, 0, 0) in hear(task, kill)
    assert hear(task, kill) == []


@pytest.mark.parametrize("era", [ERA - 1, ERA + 1])
def test_numbers_of_another_era_are_not_over(era: int) -> None:
    task = task_with(batch(3, end=False))
    hear(task, over(0, 5)._replace(stream=StreamId(era, 0)))
    assert (StreamId(ERA, 3) in {s.id for s in task._streams.values()}) == (era < ERA)
    hear(task, batch(3, stream=StreamId(max(era, ERA), 9), end=False))
    assert task.n_streams == 1 + (era < ERA)


def test_ingest_tells_only_what_is_new_and_never_an_open_number() -> None:
    ingest = serving()
    say(ingest, INGEST.in_topic, b"open", encode_record(Data("open", ("m",), until=1)))
    through(ingest, 1, 10)
    told = []
    for now in (20.0, 32.0, 64.0):
        ingest.tick(now)
        told.append([(b.start, b.stop) for b in controls_of(ingest)])
    assert told == [[], [(1, 11)], []]
