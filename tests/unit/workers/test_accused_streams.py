"""A stream that two owners in a row held when they died is killed, whenever it is met (28)."""

import struct

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import Data, Era, Kill, encode_record, parse_record
from router.store.calls import Claimed, TaskId
from router.topics import DEAD_LETTER, in_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.snapshot import Snapshot, Stored
from workers.spec import IngestSpec, TaskSpec
from workers.streams import stream_field
from workers.task import Task
from workers.tenancy import Tenancy
from workers.tenant import Limits, Tenant

ERA = 100
SPECS = layout(build("chain", 4), ("n",), 1).specs.values()
SPEC = next(spec for spec in SPECS if isinstance(spec, TaskSpec))
INGEST = next(spec for spec in SPECS if isinstance(spec, IngestSpec))
ERROR = "PoisonBatch: window 0 ended two workers"


def record(offset: int, number: int) -> Record:
    """Window 0 of a stream."""
    (source,) = SPEC.places[0].sources
    batch = Batch(
        node=source.node, stream=StreamId(ERA, number), name=f"s{number}", networks=("n",), seed=0,
        window=0, start=0, stop=1, kind=Kind.SPIKES, end=False, payload=struct.pack("<I", 1),
        error="",
    )  # fmt: skip
    frame = encode_frame(Frame(source.operator, 0, [batch]))
    return Record(SPEC.topics[0], offset, 0, None, frame)


def task() -> Task:
    return Task(SPEC, FakeCompute(SPEC, False, None, frozenset()), Limits(max_batch=1))


def accused(number: int) -> str:
    return stream_field(SPEC.places[0].node, StreamId(ERA, number))


def sent(tenant: Tenant) -> list[tuple[Kind, int, str]]:
    others = (in_topic("x"), DEAD_LETTER)
    frames = [decode_frame(o.value) for o in tenant.take_outputs() if o.topic not in others]
    return [(b.kind, b.stream.number, b.error) for f in frames for b in f.batches]


def committed(tenant: Tenant) -> Snapshot:
    snapshot = tenant.snapshot(full=False)
    assert snapshot is not None
    tenant.committed(snapshot)
    return snapshot


def test_accused_stream_of_the_checkpoint_ends_at_once() -> None:
    running = task()
    running.receive(record(0, 0))
    running.accuse(accused(0), ERROR)
    assert (Kind.ABORT, 0, ERROR) in sent(running)


def test_accused_stream_that_the_replay_brings_ends_when_it_comes() -> None:
    running = task()
    running.accuse(accused(0), ERROR)
    assert sent(running) == []
    running.receive(record(0, 0))
    assert (Kind.ABORT, 0, ERROR) in sent(running)
    assert running.n_streams == 0


def test_nothing_is_applied_before_the_kill_is_committed() -> None:
    running = task()
    for number in (0, 1):
        running.receive(record(number, number))
    running.accuse(accused(0), ERROR)
    assert running.is_held
    assert running.work() is None
    committed(running)
    work = running.work()
    assert work is not None
    assert work.windows[0].stream.id.number == 1


def test_checkpoint_that_was_taken_before_the_kill_does_not_count() -> None:
    running = task()
    running.accuse(accused(0), ERROR)
    running.receive(record(0, 1))
    before = running.snapshot(full=False)
    assert before is not None
    running.receive(record(1, 0))
    running.committed(before)
    assert running.work() is None


def test_neighbours_of_an_accused_stream_go_on() -> None:
    running = task()
    running.accuse(accused(0), ERROR)
    for number in (0, 1):
        running.receive(record(number, number))
    committed(running)
    work = running.work()
    assert work is not None
    running.apply(work, running.compute(work))
    assert (Kind.SPIKES, 1, "") in sent(running)


def test_accused_stream_is_killed_by_its_ingest_when_its_record_comes_again() -> None:
    ingest = Ingest(INGEST, FakeEncode(), Limits(), Fresh(ERA, 0, 0))
    ingest.accuse(stream_field(INGEST.input.node, StreamId(ERA, 0)), ERROR)
    era = encode_record(Era(ERA, 0, ("n",)))
    data = encode_record(Data("s", payload=b"1", dtype="uint8", shape=(1,), end=True))
    ingest.receive(Record(in_topic("x"), 0, 0, None, era))
    ingest.take_seeks()
    ingest.take_outputs()
    ingest.receive(Record(in_topic("x"), 0, 0, None, era))
    ingest.receive(Record(in_topic("x"), 1, 0, b"s", data))
    assert ingest.work() is None
    (kill,) = [o for o in ingest.take_outputs() if o.topic == in_topic("x")]
    said = parse_record(kill.key, kill.value, 0, 2)
    assert isinstance(said, Kill)
    assert (said.stream.number, said.error) == (0, ERROR)


def test_only_a_checkpoint_after_catching_up_ends_the_suspicion() -> None:
    running = task()
    tenancy = Tenancy(TaskId(SPEC.operator, 0, 0), "token", running, 0)
    tenancy.replay_to({SPEC.topics[0]: 2})
    ends = []
    for number in (0, 1):
        running.receive(record(number, number))
        work = running.work()
        assert work is not None
        running.apply(work, running.compute(work))
        for index, _ in tenancy.take_outputs():
            tenancy.acknowledged(index)
        assert tenancy.begin()
        plan = tenancy.plan(f"n{number}")
        assert plan is not None
        ends.append(plan.call.args[10])
        tenancy.finished(plan.call.read(0))
    assert ends == [0, 1]
    assert tenancy.n_commits == 1


def claimed(claims: int, hand_last: str = "") -> Claimed:
    return Claimed(TaskId("a", 0, 0), "token", "synaptic", 1, claims, 0, hand_last, 0, "w", 0)


def test_streams_are_stepped_one_by_one_only_after_an_owner_that_ran_alone_has_died() -> None:
    first, second, third = claimed(2), claimed(3), claimed(4, "*")
    assert [c.suspicious for c in (first, second, third)] == [False, True, True]
    assert [c.one_by_one for c in (first, second, third)] == [False, False, True]


def test_hand_of_one_that_steps_streams_together_names_none_of_them() -> None:
    assert claimed(3).shown("n/1/0#4") != claimed(4, "*").shown("n/1/0#4") == "n/1/0#4"


def _restored(stored: Stored) -> Tenancy:
    """A task at rest under its next owner."""
    compute = FakeCompute(SPEC, False, None, frozenset())
    tenancy = Tenancy(
        TaskId(SPEC.operator, 0, 0), "token", Task(SPEC, compute, Limits(), stored), 1
    )
    tenancy.replay_to(tenancy.tenant.start())
    return tenancy


def test_owner_of_a_task_at_rest_says_once_that_it_has_caught_up() -> None:
    first = committed(task())
    tenancy = _restored(Stored(1, (first.head, None), {}, first.positions))
    assert tenancy.begin()
    plan = tenancy.plan("n")
    assert plan is not None
    changed, is_caught_up = plan.call.args[7], plan.call.args[10]
    assert (changed, is_caught_up) == (0, 1)
    tenancy.finished(plan.call.read(0))
    assert not tenancy.begin()


def test_owner_that_has_records_to_read_again_does_not_say_that_it_has_caught_up() -> None:
    first = committed(task())
    tenancy = _restored(Stored(1, (first.head, None), {}, first.positions))
    tenancy.replay_to({SPEC.topics[0]: 1})
    assert not tenancy.begin()
