"""A task that waits for what retention took, of a stream whose results are final (9, 17)."""

import struct

import pytest

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import Data, Kill, encode_record, parse_record
from router.topics import in_topic, out_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.snapshot import Stored
from workers.spec import IngestSpec, TaskSpec
from workers.task import Task
from workers.tenant import Limits

ERA = 100
SPECS = tuple(layout(build("groups", 4), ("n",), 1).specs.values())
READOUT = next(s for s in SPECS if isinstance(s, TaskSpec) and s.places[0].readout_of)
INGEST = next(s for s in SPECS if isinstance(s, IngestSpec))
FIRST, SECOND = READOUT.places[0].sources
(TOPIC,) = READOUT.topics
INPUT, RESULTS = INGEST.topics
DEADLINE_S = Limits().deadline_s


def readout(stored: Stored | None = None) -> Task:
    return Task(READOUT, FakeCompute(READOUT, True, None, frozenset()), Limits(), stored)


def batch(node: str, kind: Kind = Kind.SPIKES, window: int = 0, end: bool = False) -> Batch:
    payload = struct.pack("<I", window) if kind is Kind.SPIKES else b""
    return Batch(
        node=node, stream=StreamId(ERA, 0), name="s", networks=("n",), seed=0, window=window,
        start=window, stop=window + 1, kind=kind, end=end, payload=payload,
    )  # fmt: skip


def frame(offset: int, said: Batch, group: int, topic: str = TOPIC) -> Record:
    value = encode_frame(Frame(FIRST.operator, group, [said]))
    return Record(topic, offset, 0, None, value)


def asked(task: Task) -> list[Kill]:
    records = [o for o in task.take_outputs() if o.topic == INPUT]
    said = [parse_record(o.key, o.value, 0, 0) for o in records]
    return [s for s in said if isinstance(s, Kill)]


def half_told() -> Task:
    """It has the last window of one group; that of the other was gone before it was read."""
    task = readout()
    task.truncated(TOPIC, 1)
    assert task.receive(frame(1, batch(SECOND.node, end=True), SECOND.group.index))
    return task


def test_task_asks_after_a_deadline_whether_it_waits_in_vain() -> None:
    task = half_told()
    task.tick(1.0)
    task.tick(DEADLINE_S)
    assert asked(task) == []
    task.tick(1.0 + DEADLINE_S)
    (kill,) = asked(task)
    assert (kill.stream, kill.networks, kill.if_final) == (StreamId(ERA, 0), ("n",), True)


def test_task_whose_stream_went_on_meanwhile_does_not_ask() -> None:
    task = readout()
    for window in range(2):
        task.receive(frame(window, batch(SECOND.node, window=window), SECOND.group.index))
    task.tick(1.0)
    task.receive(frame(2, batch(FIRST.node), FIRST.group.index))
    work = task.work()
    assert work is not None
    task.apply(work, task.compute(work))
    task.tick(1.0 + DEADLINE_S)
    assert asked(task) == []


def _asked_of_silence(task: Task) -> list[Kill]:
    """What it asks of a stream that has its first window and hears of no other."""
    for offset, source in enumerate((FIRST, SECOND), 1):
        task.receive(frame(offset, batch(source.node), source.group.index))
    work = task.work()
    assert work is not None
    task.apply(work, task.compute(work))
    task.tick(1.0)
    task.tick(1.0 + DEADLINE_S)
    return asked(task)


def test_silent_stream_is_not_asked_for() -> None:
    assert _asked_of_silence(readout()) == []


def lossy() -> Task:
    task = readout()
    task.truncated(TOPIC, 1)
    return task


def handed_over(task: Task) -> Task:
    """What another owner makes of its checkpoint."""
    snapshot = task.snapshot(full=True)
    assert snapshot is not None
    return readout(Stored(1, (snapshot.head, None), {}, snapshot.positions))


@pytest.mark.parametrize("task", [lossy(), handed_over(lossy())], ids=["lossy", "handed over"])
def test_silent_stream_is_asked_for_where_records_were_lost(task: Task) -> None:
    # Ingest began to send it anew, and learned from the results that it was final.
    (kill,) = _asked_of_silence(task)
    assert (kill.stream, kill.networks, kill.if_final) == (StreamId(ERA, 0), ("n",), True)


def test_kill_of_a_final_stream_frees_who_waits_in_vain() -> None:
    task = half_told()
    kill = batch(FIRST.node, Kind.KILL)._replace(error="AlreadyFinal: s")
    assert task.receive(frame(2, kill, FIRST.group.index))
    assert task.n_streams == 0


def serving() -> tuple[Ingest, Kill]:
    """An ingest with one open stream that has been sent, and the question whether it is final."""
    ingest = Ingest(INGEST, FakeEncode(), Limits(), Fresh(ERA, 0, 0))
    (era,) = ingest.take_outputs()
    ingest.receive(Record(INPUT, 0, 0, None, era.value))
    data = Data("s", payload=b"1", dtype="uint8", shape=(1,), end=True)
    ingest.receive(Record(INPUT, 1, 0, b"s", encode_record(data)))
    while (work := ingest.work()) is not None:
        ingest.apply(work, ingest.compute(work))
    ingest.take_outputs()
    return ingest, Kill(StreamId(ERA, 0), "s", ("n",), "AlreadyFinal: s", if_final=True)


def ask(ingest: Ingest, kill: Kill, offset: int) -> list[tuple[str, Kind]]:
    """What the ingest says to the question, and where."""
    ingest.receive(Record(INPUT, offset, 0, b"s", encode_record(kill)))
    outputs = ingest.take_outputs()
    return [(o.topic, b.kind) for o in outputs for b in decode_frame(o.value).batches]


def test_open_stream_goes_on_when_a_task_asks_whether_it_is_final() -> None:
    ingest, kill = serving()
    assert ask(ingest, kill, 2) == []
    assert ingest.n_streams == 1


def test_final_stream_is_ended_in_the_tasks_and_gets_no_second_result() -> None:
    ingest, kill = serving()
    end = batch(READOUT.places[0].node, end=True)
    ingest.receive(frame(0, end, 0, RESULTS))
    (told,) = ask(ingest, kill, 2)
    assert told[1] is Kind.KILL
    assert told[0] not in (out_topic("n"), in_topic("x"))
    assert ask(ingest, kill, 3) == []


def test_late_stream_is_ended_by_its_own_kill_and_not_by_a_question_before_it() -> None:
    ingest, kill = serving()
    ingest.tick(1.0)
    ingest.tick(2.0 + Limits().deadline_s)
    (late,) = ingest.take_outputs()
    assert ask(ingest, kill, 2) == []
    own = parse_record(late.key, late.value, 0, 0)
    assert isinstance(own, Kill)
    assert not own.if_final
    told = ask(ingest, own, 3)
    assert (out_topic("n"), Kind.ABORT) in told
