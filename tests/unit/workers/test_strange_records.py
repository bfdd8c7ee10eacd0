"""Records that name networks which nobody knows stop neither a task nor its streams."""

import struct

import pytest

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import build, layout
from router.deadletter import decode as decode_letter
from router.records import Data, Era, Route, encode_record
from router.topics import DEAD_LETTER, in_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.spec import IngestSpec, TaskSpec
from workers.task import Task
from workers.tenant import Limits

_ERA = 100
_SPECS = tuple(layout(build("chain", 4), ("n",), 1).specs.values())
_INGEST = next(spec for spec in _SPECS if isinstance(spec, IngestSpec))
_TASK = next(spec for spec in _SPECS if isinstance(spec, TaskSpec))
(_SOURCE,) = _TASK.places[0].sources


@pytest.fixture
def task() -> Task:
    return Task(_TASK, FakeCompute(_TASK, False, None, frozenset()), Limits())


def _frame(offset: int, number: int, *networks: str) -> Record:
    batch = Batch(
        _SOURCE.node, StreamId(_ERA, number), f"s{number}", networks, 0, 0, 0, 1,
        payload=struct.pack("<I", 7),
    )  # fmt: skip
    value = encode_frame(Frame(_SOURCE.operator, 0, [batch]))
    return Record(_TASK.topics[0], offset, 0, None, value)


def _names(task: Task) -> list[str]:
    while (work := task.work()) is not None:
        task.apply(work, task.compute(work))
    batches = [b for o in task.take_outputs() for b in decode_frame(o.value).batches]
    return [b.name for b in batches if b.kind is Kind.SPIKES]


def test_a_frame_for_nobody_is_passed_over_and_the_next_one_applied(task: Task) -> None:
    assert not task.receive(_frame(0, 0, "nobody"))
    task.receive_strange(_frame(0, 0, "nobody"))
    assert task.receive(_frame(1, 1, "n"))
    assert _names(task) == ["s1"]
    assert task.counts["strange_records_total"] == 1


def test_a_stream_that_is_routed_to_a_known_network_too_goes_on_there(task: Task) -> None:
    assert not task.receive(_frame(0, 0, "n", "nobody"))
    task.receive_strange(_frame(0, 0, "n", "nobody"))
    assert _names(task) == ["s0"]


class _Log:
    """An ingest that serves, and the letters it writes."""

    def __init__(self) -> None:
        self.ingest = Ingest(_INGEST, FakeEncode(), Limits(), Fresh(_ERA, 0, 0))
        self.at = 0
        self.say(Era(_ERA, 0, ("n",)))

    def say(self, said: Data | Era | Route) -> None:
        key = said.name.encode() if isinstance(said, Data) else None
        record = Record(in_topic("x"), self.at, 0, key, encode_record(said))
        if not self.ingest.receive(record):
            self.ingest.receive_strange(record)
        self.at += 1

    def letters(self) -> list[str]:
        outputs = self.ingest.take_outputs()
        return [decode_letter(o.value).reason for o in outputs if o.topic == DEAD_LETTER]


def _sample(name: str) -> Data:
    return Data(name, payload=b"1", dtype="uint8", shape=(1,), end=True)


def test_a_route_to_nobody_is_refused_and_the_last_one_stays() -> None:
    log = _Log()
    log.say(Route(("nobody",)))
    log.say(_sample("a"))
    assert log.letters() == ["UnknownNetwork: no network is deployed by the name of nobody"]
    assert log.ingest.n_streams == 1


def test_a_route_keeps_the_networks_that_are_known() -> None:
    log = _Log()
    log.say(Route(("n", "nobody")))
    log.say(_sample("a"))
    assert log.letters() == []
    assert log.ingest.n_streams == 1


def test_an_era_for_nobody_is_a_zombies_unless_it_follows_the_current_one() -> None:
    log = _Log()
    log.say(Era(_ERA + 1, 7, ("nobody",)))
    log.say(_sample("a"))
    assert log.ingest.n_streams == 1
    assert log.ingest.counts["zombie_eras_total"] == 1
