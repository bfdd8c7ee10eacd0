"""Offsets without a record: markers and aborted records are no loss; what cannot be read is one."""

import struct

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import build, layout
from router.deadletter import DeadLetter
from router.deadletter import decode as decode_letter
from router.records import Data, Era, encode_record, parse_record, record_key
from router.store.calls import TaskId
from router.topics import DEAD_LETTER
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.spec import IngestSpec, TaskSpec
from workers.task import Task
from workers.tenancy import Tenancy
from workers.tenant import Feed, Halt, Limits, Output, Tenant

SPECS = tuple(layout(build("chain", 4), ("n",), 1).specs.values())
INGEST = next(s for s in SPECS if isinstance(s, IngestSpec))
SPEC = next(s for s in SPECS if isinstance(s, TaskSpec) and not s.places[0].readout_of)
(SOURCE,) = SPEC.places[0].sources
(TOPIC,) = SPEC.topics
INPUT, RESULTS = INGEST.topics
ERA = 100
WHY = "UnsupportedCodecError: Unknown compression codec 0x07"


def ingest(log_end: int) -> Ingest:
    return Ingest(INGEST, FakeEncode(), Limits(), Fresh(ERA, 0, log_end))


def operator() -> Task:
    task = Task(SPEC, FakeCompute(SPEC, False, None, frozenset()), Limits())
    batch = Batch(
        node=SOURCE.node, stream=StreamId(ERA, 0), name="s", networks=("n",), seed=0, window=0,
        start=0, stop=1, kind=Kind.SPIKES, end=False, payload=struct.pack("<I", 0),
    )  # fmt: skip
    value = encode_frame(Frame(SOURCE.operator, SOURCE.group.index, [batch]))
    assert task.receive(Record(TOPIC, 0, 0, None, value))
    return task


def said(offset: int, what: Data | Era) -> Record:
    return Record(INPUT, offset, 0, record_key(what), encode_record(what))


def request(name: str) -> Data:
    return Data(name, request=True, payload=b"1", dtype="uint8", shape=(1,))


def letters(outputs: list[Output]) -> list[DeadLetter]:
    return [decode_letter(o.value) for o in outputs if o.topic == DEAD_LETTER]


def eras(outputs: list[Output]) -> list[Era]:
    found = [parse_record(o.key, o.value, 0, 0) for o in outputs if o.topic == INPUT]
    return [era for era in found if isinstance(era, Era)]


def errors(outputs: list[Output]) -> list[str]:
    frames = [decode_frame(o.value) for o in outputs if o.topic != DEAD_LETTER]
    return [b.error for frame in frames for b in frame.batches if b.kind is Kind.ABORT]


def tenancy(tenant: Tenant, **ends: int) -> Tenancy:
    found = Tenancy(TaskId("a" * 32, 0, 0), "token", tenant, 0)
    found.replay_to(dict(zip(tenant.topics, ends.values(), strict=False)))
    return found


def test_a_task_has_caught_up_when_markers_are_all_that_is_left() -> None:
    task = operator()
    found = tenancy(task, spikes=3)
    work = task.work()
    assert work is not None
    task.apply(work, task.compute(work))
    assert not found.is_caught_up()
    assert Feed(task, [], (TOPIC, 3)).go() is None
    assert found.is_caught_up()
    assert not task.counts["log_truncated_total"]


def test_an_input_that_ends_with_markers_is_scanned_to_its_end() -> None:
    tenant = ingest(log_end=2)
    assert Feed(tenant, [], (INPUT, 1)).go() is None
    assert not eras(tenant.take_outputs())
    assert Feed(tenant, [], (INPUT, 2)).go() is None
    assert [era.era for era in eras(tenant.take_outputs())] == [ERA]


def test_an_era_that_was_found_before_markers_is_replayed_from_its_beginning() -> None:
    tenant = ingest(log_end=3)
    feed = Feed(tenant, [said(0, request("a")), said(1, Era(7, 0, ("n",)))], (INPUT, 3))
    assert feed.go() is Halt.SEEK
    assert feed.seeks == {INPUT: 0}
    assert tenant.routes == ("n",)


def test_records_around_aborted_ones_are_numbered_as_if_nothing_lay_between() -> None:
    tenant = ingest(log_end=1)
    assert Feed(tenant, [said(0, Era(7, 0, ("n",)))]).go() is Halt.SEEK
    assert (
        Feed(tenant, [said(0, Era(7, 0, ("n",))), said(1, request("a"))], (INPUT, 5)).go() is None
    )
    assert Feed(tenant, [said(5, request("b"))], (INPUT, 6)).go() is None
    assert [tenant._names.name_of(n) for n in range(2)] == ["a", "b"]
    assert not eras(tenant.take_outputs())


def test_what_nobody_ever_could_read_of_an_input_is_refused_and_streams_go_on() -> None:
    tenant = ingest(log_end=1)
    assert Feed(tenant, [said(0, Era(7, 0, ("n",)))]).go() is Halt.SEEK
    Feed(tenant, [said(0, Era(7, 0, ("n",))), said(1, request("a"))]).go()
    tenant.unreadable(INPUT, 2, 4, WHY, is_intact=True)
    outputs = tenant.take_outputs()
    (letter,) = letters(outputs)
    assert (letter.topic, letter.partition, letter.offset) == (INPUT, 0, 2)
    assert "offsets 2 to 3" in letter.reason
    assert letter.reason.endswith(WHY)
    assert not eras(outputs)
    assert tenant.n_streams == 1
    assert tenant.reading.offset(INPUT) == 4


def test_damaged_records_of_an_input_begin_a_new_era() -> None:
    tenant = ingest(log_end=1)
    assert Feed(tenant, [said(0, Era(7, 0, ("n",)))]).go() is Halt.SEEK
    Feed(tenant, [said(0, Era(7, 0, ("n",))), said(1, request("a"))]).go()
    tenant.unreadable(INPUT, 2, 4, WHY, is_intact=False)
    outputs = tenant.take_outputs()
    assert len(letters(outputs)) == 1
    assert [era.predecessor for era in eras(outputs)] == [7]


def test_unreadable_results_cost_an_input_nothing_but_a_letter() -> None:
    tenant = ingest(log_end=1)
    assert Feed(tenant, [said(0, Era(7, 0, ("n",)))]).go() is Halt.SEEK
    tenant.take_outputs()
    tenant.unreadable(RESULTS, 0, 1, WHY, is_intact=False)
    outputs = tenant.take_outputs()
    assert [letter.topic for letter in letters(outputs)] == [RESULTS]
    assert not eras(outputs)


def test_what_no_task_can_have_written_costs_a_letter_and_no_stream() -> None:
    task = operator()
    task.unreadable(TOPIC, 1, 3, WHY, is_intact=True)
    outputs = task.take_outputs()
    assert [letter.offset for letter in letters(outputs)] == [1]
    assert (errors(outputs), task.n_streams, task.reading.offset(TOPIC)) == ([], 1, 3)


def test_streams_that_hear_of_a_topic_end_by_name_when_it_was_damaged() -> None:
    task = operator()
    task.unreadable(TOPIC, 1, 2, WHY, is_intact=False)
    outputs = task.take_outputs()
    (error,) = errors(outputs)
    assert error.startswith("InputLost: stream s at window 0: offset 1 of ")
    assert error.endswith(WHY)
    assert [letter.offset for letter in letters(outputs)] == [1]
    assert (task.n_streams, task.counts["records_unreadable_total"]) == (0, 1)


def test_what_was_read_before_it_was_damaged_concerns_a_task_no_more() -> None:
    task = operator()
    task.unreadable(TOPIC, 0, 1, WHY, is_intact=False)
    outputs = task.take_outputs()
    assert (letters(outputs), errors(outputs), task.n_streams) == ([], [], 1)
