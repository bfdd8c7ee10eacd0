"""A record that ends whoever takes it in is passed over: a dead letter, and lost, by name (28)."""

from dataclasses import replace

from loadtest.simulation.numbers import FakeEncode
from router.deadletter import decode
from router.records import Data, Era, encode_record, parse_record
from router.topics import DEAD_LETTER, in_topic
from router.wire import Kind, decode_frame, encode_frame
from tests.unit.workers.test_accused_streams import ERA, INGEST, committed, record, sent, task
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.tenant import Limits, Tenant

ERROR = "PoisonRecord: the record ended two workers"


def letters(tenant: Tenant) -> list[tuple[int, str]]:
    found = [decode(o.value) for o in tenant.take_outputs() if o.topic == DEAD_LETTER]
    return [(letter.offset, letter.reason) for letter in found]


def test_refused_record_is_a_dead_letter_and_is_read() -> None:
    running = task()
    running.refuse(record(0, 0), ERROR)
    assert letters(running) == [(0, ERROR)]
    assert running.reading.offset(record(0, 0).topic) == 1
    assert running.n_streams == 0


def test_stream_of_a_refused_record_ends_with_the_gap() -> None:
    running = task()
    running.refuse(record(0, 0), ERROR)
    frame = decode_frame(record(1, 0).value)
    (batch,) = frame.batches
    later = replace(frame, batches=[batch._replace(window=1, start=1, stop=2)])
    running.receive(record(1, 0)._replace(value=encode_frame(later)))
    aborts = [error for kind, _, error in sent(running) if kind is Kind.ABORT]
    assert [error.partition(":")[0] for error in aborts] == ["InputLost"]


def test_nothing_is_applied_before_the_refusal_is_committed() -> None:
    running = task()
    running.receive(record(0, 0))
    running.refuse(record(1, 1), ERROR)
    assert running.work() is None
    committed(running)
    assert running.work() is not None


def test_input_behind_a_refused_record_is_numbered_anew() -> None:
    ingest = Ingest(INGEST, FakeEncode(), Limits(), Fresh(ERA, 0, 0))
    topic = in_topic("x")
    ingest.receive(Record(topic, 0, 0, None, encode_record(Era(ERA, 0, ("n",)))))
    ingest.receive(Record(topic, 0, 0, None, encode_record(Era(ERA, 0, ("n",)))))
    ingest.take_seeks()
    ingest.take_outputs()
    data = Data("s", payload=b"1", dtype="uint8", shape=(1,), end=True)
    ingest.refuse(Record(topic, 1, 0, b"s", encode_record(data)), ERROR)
    outputs = ingest.take_outputs()
    (era,) = [parse_record(o.key, o.value, 0, 2) for o in outputs if o.topic == topic]
    assert isinstance(era, Era)
    assert era.predecessor == ERA
    assert [decode(o.value).reason for o in outputs if o.topic == DEAD_LETTER] == [ERROR]
