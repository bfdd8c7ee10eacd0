"""Feed: records go into a tenant in the order of the log, whatever a poll brought."""

from typing import Any

from loadtest.simulation.numbers import FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import Data, Era, Route, encode_record
from router.topics import in_topic
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.spec import IngestSpec
from workers.tenant import Feed, Halt, Limits

TOPIC = in_topic("x")
SPEC = next(
    spec
    for spec in layout(build("chain", 4), ("n",), 1).specs.values()
    if isinstance(spec, IngestSpec)
)


def new_ingest(log_end: int) -> Ingest:
    """An ingest without a checkpoint, of an input that has a log."""
    return Ingest(SPEC, FakeEncode(), Limits(), Fresh(era=100, log_start=0, log_end=log_end))


def record(offset: int, said: Any) -> Record:
    key = said.name.encode() if isinstance(said, Data) else None
    return Record(TOPIC, offset, 0, key, encode_record(said))


def stream(name: str) -> Data:
    return Data(name, payload=b"1", dtype="uint8", shape=(1,), end=True)


def numbers(ingest: Ingest) -> dict[str, int]:
    """The number of each stream that is open, by name."""
    return {name: n for n in range(9) if (name := ingest._names.name_of(n))}


def test_ingest_that_goes_back_takes_nothing_more_of_the_same_poll() -> None:
    log = [
        record(0, Era(7, 0, ("n",))), record(1, stream("a")), record(2, stream("b")),
        record(3, stream("c")),
    ]  # fmt: skip
    ingest = new_ingest(log_end=2)  # the poll holds more than there was when it was claimed
    feed = Feed(ingest, log)
    assert feed.go() is Halt.SEEK
    assert (feed.n_taken, feed.seeks) == (2, {TOPIC: 0})
    assert Feed(ingest, log).go() is None
    assert numbers(ingest) == {"a": 0, "b": 1, "c": 2}


def test_record_that_names_an_unknown_network_stops_the_feed_until_it_was_looked_up() -> None:
    ingest = new_ingest(log_end=1)
    assert Feed(ingest, [record(0, Era(7, 0, ("n",)))]).go() is Halt.SEEK
    feed = Feed(
        ingest,
        [record(0, Era(7, 0, ("n",))), record(1, Route(("other",))), record(2, stream("a"))],
    )
    assert feed.go() is Halt.LOOK_UP
    assert feed.n_taken == 1
    assert feed.go() is None  # nobody knows it: the record is refused, and the next one taken
    assert ingest.counts["strange_records_total"] == 1
    assert numbers(ingest) == {"a": 0}


def test_feed_pauses_after_as_many_records_as_were_asked_for() -> None:
    ingest = new_ingest(log_end=1)
    assert Feed(ingest, [record(0, Era(7, 0, ("n",)))]).go() is Halt.SEEK
    log = [record(0, Era(7, 0, ("n",))), *(record(n, stream(f"s{n}")) for n in range(1, 5))]
    feed = Feed(ingest, log)
    assert [feed.go(2), feed.go(2), feed.go(2)] == [Halt.PAUSE, Halt.PAUSE, None]
    assert numbers(ingest) == {"s1": 0, "s2": 1, "s3": 2, "s4": 3}
