"""Eras: who counts from where, when the log is whole, truncated, or shared with a zombie (1, 9)."""

from typing import Any

import pytest

from loadtest.simulation.numbers import FakeEncode
from loadtest.simulation.shapes import build, layout
from router.deadletter import decode as decode_letter
from router.records import Data, Era, Route, encode_record, parse_record
from router.topics import DEAD_LETTER, in_topic, out_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.spec import IngestSpec
from workers.tenant import Limits

TOPIC = in_topic("x")


def spec_of(shape: str, *networks: str) -> IngestSpec:
    specs = layout(build(shape, 4), networks, 1).specs.values()
    return next(spec for spec in specs if isinstance(spec, IngestSpec))


SPEC = spec_of("chain", "n")


class Log:
    """An ingest, and the input topic that it reads and writes."""

    def __init__(
        self, era: int, start: int, end: int, begin: int = 0, spec: IngestSpec = SPEC
    ) -> None:
        self.ingest = Ingest(spec, FakeEncode(), Limits(), Fresh(era, start, end, begin))
        self.at = max(start, begin)
        self.letters: list[str] = []
        self.batches: list[Batch] = []

    def read(self, said: Any) -> None:
        """The ingest reads one more record."""
        key = said.name.encode() if isinstance(said, Data) else None
        assert self.ingest.receive(Record(TOPIC, self.at, 0, key, encode_record(said)))
        self.at += 1

    def eras(self) -> list[Era]:
        """The ERA records that it wants to append; what else it sends is kept."""
        asked = []
        while (work := self.ingest.work()) is not None:
            self.ingest.apply(work, self.ingest.compute(work))
        for topic, _, _, value, _ in self.ingest.take_outputs():
            if topic == TOPIC:
                said = parse_record(None, value, 0, 0)
                assert isinstance(said, Era)
                asked.append(said)
            elif topic == DEAD_LETTER:
                self.letters.append(decode_letter(value).reason)
            else:
                self.batches += decode_frame(value).batches
        return asked

    def streams(self) -> list[tuple[int, int, str]]:
        self.eras()
        windows = [b for b in self.batches if b.kind is Kind.SPIKES]
        return [(b.stream.era, b.stream.number, b.name) for b in windows]


def sample(name: str, **more: Any) -> Data:
    return Data(name, payload=b"1", dtype="uint8", shape=(1,), **more)


def test_first_era_counts_from_the_beginning_of_the_log() -> None:
    log = Log(100, 0, 0)
    (era,) = log.eras()
    log.read(sample("a", end=True))
    log.read(era)
    assert log.ingest.take_seeks() == {TOPIC: 0}
    log.at = 0
    log.read(sample("a", end=True))
    assert log.streams() == [(100, 0, "a")]


@pytest.mark.parametrize("said", [Era(300, 200, ("n",)), Era(99, 100, ("n",))], ids=str)
def test_era_that_does_not_follow_on_the_current_one_is_ignored(said: Era) -> None:
    log = Log(100, 0, 0)
    (era,) = log.eras()
    log.read(era)
    log.read(said)
    log.read(sample("a", end=True))
    assert log.streams() == [(100, 0, "a")]
    assert log.ingest.counts["zombie_eras_total"] == 1


@pytest.mark.parametrize("asker", [100, 90], ids=["asked for here", "asked for by another"])
def test_era_that_may_count_from_truncated_records_is_superseded(asker: int) -> None:
    log = Log(100, 0, 0)
    log.eras()
    log.ingest.truncated(TOPIC, 1)
    log.at = 1
    log.read(Era(asker, 0, ("n",)))
    log.read(sample("rest", seq=3, end=True))
    assert log.streams() == []
    assert log.letters == ["EraLost: the input was truncated, its state is gone"]


def test_era_asked_for_after_truncation_is_adopted() -> None:
    log = Log(100, 0, 0)
    log.eras()
    log.ingest.truncated(TOPIC, 1)
    log.at = 1
    (era,) = log.eras()
    log.read(era)
    log.read(sample("a", end=True))
    assert log.streams() == [(era.era, 0, "a")]


def test_new_era_names_the_one_whose_beginning_is_gone_as_its_predecessor() -> None:
    log = Log(100, 0, 0)
    log.eras()
    log.ingest.truncated(TOPIC, 1)
    log.at = 1
    log.read(Era(90, 0, ("n",)))
    last = log.eras()[-1]
    assert last.predecessor == 90
    log.read(last)
    log.read(sample("a", seq=0, end=True))
    assert log.streams() == [(last.era, 0, "a")]


def test_gap_in_the_input_of_a_running_ingest_begins_a_new_era() -> None:
    log = Log(100, 0, 0)
    (era,) = log.eras()
    log.read(era)
    log.read(sample("a"))
    log.ingest.truncated(TOPIC, 5)
    (again,) = log.eras()
    assert again.predecessor == 100
    assert again.era > 100


def test_stream_opened_after_a_lost_era_must_begin_at_its_first_record() -> None:
    log = Log(100, 5, 5)
    (era,) = log.eras()
    log.read(Era(50, 0, ("n",)))
    (era,) = log.eras()
    log.read(era)
    log.read(sample("rest", end=True))
    assert log.streams() == []
    assert log.letters[0].startswith("InputLost")


@pytest.mark.parametrize("start", [0, 3, 5], ids=["all there", "some gone", "all gone"])
def test_network_deployed_again_counts_from_where_it_begins(start: int) -> None:
    """What lies below is of its first life: neither replayed nor missed."""
    log = Log(100, start, 5, begin=5)
    assert log.ingest.start()[TOPIC] == 5
    (era,) = log.eras()
    assert era.predecessor == 0
    log.read(sample("a", end=True))
    log.read(era)
    assert log.ingest.take_seeks() == {TOPIC: 5}
    log.at = 5
    log.read(sample("a", end=True))
    assert log.streams() == [(100, 0, "a")]
    assert log.letters == []


def test_records_lost_above_where_a_network_begins_are_missed() -> None:
    log = Log(100, 7, 7, begin=5)
    log.read(sample("a", end=True))
    (era,) = log.eras()
    log.read(era)
    assert log.streams() == []
    assert log.letters == ["EraLost: the input was truncated, its state is gone"]


def test_ingest_routes_nowhere_before_its_era_and_then_as_that_and_each_route_says() -> None:
    log = Log(100, 0, 0, spec=spec_of("shared", "n", "m"))
    (era,) = log.eras()
    routes = [log.ingest.routes]
    for said in (era, Route(("m",))):
        log.read(said)
        routes.append(log.ingest.routes)
    assert routes == [None, ("m", "n"), ("m",)]


def test_open_streams_are_counted_by_network_until_they_are_confirmed() -> None:
    log = Log(100, 0, 0)
    (era,) = log.eras()
    log.read(era)
    log.read(sample("a", end=True))
    assert log.ingest.open_streams() == {"n": 1}
    log.eras()
    ended = Batch(
        SPEC.input.node, StreamId(100, 0), "a", ("n",), 0, 0, 0, 1, kind=Kind.SPIKES, end=True
    )
    value = encode_frame(Frame(SPEC.operator, 0, [ended]))
    log.ingest.receive(Record(out_topic("n"), 0, 0, None, value))
    assert log.ingest.open_streams() == {}


def test_era_that_names_other_networks_than_the_route_before_it_is_followed_by_another() -> None:
    log = Log(100, 1, 1, spec=spec_of("shared", "n", "m"))
    (era,) = log.eras()
    assert era.networks == ("m", "n")
    log.read(Route(("m",)))  # n is being removed, and the ERA was on its way already
    log.read(era)
    (second,) = log.eras()
    assert (second.predecessor, second.networks) == (era.era, ("m",))
    log.read(second)
    log.read(sample("a", end=True, seq=0))
    assert log.streams() == [(second.era, 0, "a")]
    assert log.batches[-1].networks == ("m",)


def test_a_superseded_era_is_followed_by_another_in_an_ingest_that_had_one_before() -> None:
    log = Log(100, 0, 0, spec=spec_of("shared", "n", "m"))
    (era,) = log.eras()
    log.read(era)
    log.ingest.truncated(TOPIC, 5)
    log.at = 5
    (second,) = log.eras()
    log.read(Route(("m",)))
    log.read(second)
    (third,) = log.eras()
    assert third.predecessor == second.era
    log.read(third)
    log.read(sample("a", end=True, seq=0))
    assert log.streams() == [(third.era, 0, "a")]
