"""Records that wait for a lesser `seq` are bounded for all streams of a partition together (34)."""

import pytest

from loadtest.simulation.numbers import FakeEncode
from loadtest.simulation.shapes import build, layout
from router.deadletter import decode as decode_letter
from router.records import Data, Era, Kill, encode_record, parse_record, record_key
from router.topics import DEAD_LETTER
from router.wire import StreamId
from workers import ingest as module
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.snapshot import Stored
from workers.spec import IngestSpec
from workers.streams import parse_field
from workers.tenant import Limits, Output

ERA = 100
SPECS = layout(build("shared", 4), ("m", "n"), 1).specs.values()
SPEC = next(spec for spec in SPECS if isinstance(spec, IngestSpec))
LIMITS = Limits(deadline_s=1000.0, flight_bytes=1 << 40)
N_BYTES = 5000
COST = N_BYTES + 200


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three records may be held; one that is lost may have held one of them."""
    monkeypatch.setattr(module, "_MOST_HELD_BYTES", 3 * COST)
    monkeypatch.setattr(module, "_MOST_HELD_OF_ONE", COST)


class Log:
    """An ingest, and the whole input that it has read."""

    def __init__(self) -> None:
        self.ingest = Ingest(SPEC, FakeEncode(), LIMITS, Fresh(ERA, 0, 0))
        self.records: list[tuple[bytes | None, bytes]] = []
        self.outputs: list[Output] = []
        self.settle()

    def settle(self) -> None:
        while outputs := self.ingest.take_outputs():
            self.outputs += outputs
            for output in outputs:
                if output.topic == SPEC.in_topic:
                    self.read(output.key, output.value)

    def read(self, key: bytes | None, value: bytes) -> None:
        topic = SPEC.in_topic
        at = self.ingest.reading.offset(topic)
        assert self.ingest.receive(Record(topic, at, 0, key, value))
        self.records.append((key, value))

    def say(self, *said: Data | Kill) -> None:
        for each in said:
            self.read(record_key(each), encode_record(each))
            self.settle()

    def hand_over(self, lost: int | None = None) -> None:
        """Another owner goes on, and cannot read what was stored of the stream `lost`."""
        taken = self.ingest.snapshot(full=True)
        assert taken is not None
        blobs: dict[str, tuple[bytes | None, bytes | None]] = {}
        for field, _, blob in taken.changed:
            key = parse_field(field)
            is_lost = key is not None and key[1].number == lost
            blobs[field] = (b"damaged" if is_lost else blob, None)
        stored = Stored(1, (taken.head, None), blobs)
        self.ingest = Ingest(SPEC, FakeEncode(), LIMITS, Fresh(1, 0, 0), stored)

    @property
    def letters(self) -> list[tuple[str, str]]:
        """(stream, word of the reason) of the dead letters."""
        found = [decode_letter(o.value) for o in self.outputs if o.topic == DEAD_LETTER]
        return [(letter.name, letter.reason.partition(":")[0]) for letter in found]

    @property
    def eras(self) -> int:
        """How many eras were asked for."""
        said = [parse_record(o.key, o.value, 0, 0) for o in self.outputs
                if o.topic == SPEC.in_topic]  # fmt: skip
        return sum(isinstance(each, Era) for each in said)


def early(name: str, seq: int = 5) -> Data:
    """A record that comes ahead of others."""
    return Data(name, payload=bytes(N_BYTES), dtype="uint8", shape=(N_BYTES,), seq=seq)


def fill(log: Log) -> None:
    log.say(*(Data(name, until=1, seq=0) for name in "abcd"))
    log.say(early("a"), early("b"), early("c"))
    assert not log.letters


def test_record_that_would_be_held_beyond_the_bound_of_a_partition_is_refused_by_name() -> None:
    log = Log()
    fill(log)
    log.say(early("d"))
    assert log.letters == [("d", "TooMuchHeld")]
    log.say(Data("d", until=2, seq=1), Data("d", until=3, end=True))  # what is in order goes on
    assert len(log.letters) == 1


def test_a_stream_is_not_opened_by_a_record_that_cannot_be_held() -> None:
    log = Log()
    fill(log)
    log.say(early("new"))
    assert log.letters == [("new", "TooMuchHeld")]
    assert log.ingest.n_streams == 4


@pytest.mark.parametrize("how", ["its turn comes", "its stream ends", "its stream is killed"])
def test_there_is_room_again_when_a_record_is_held_no_more(how: str) -> None:
    log = Log()
    fill(log)
    log.say(early("d"))
    if how == "its turn comes":
        log.say(*(Data("a", until=1, seq=seq) for seq in (1, 2, 3, 4)))
    elif how == "its stream ends":
        log.say(Data("a", end=True))
    else:
        log.say(Kill(StreamId(ERA, 0), "a", ("m", "n"), "why"))
    n_before = len(log.letters)
    log.say(early("d"))
    assert len(log.letters) == n_before
    log.say(early("d", 6))
    assert log.letters[n_before:] == [("d", "TooMuchHeld")]


def test_a_repeat_of_a_held_record_takes_no_room() -> None:
    log = Log()
    log.say(*(Data(name, until=1, seq=0) for name in "abc"))
    log.say(*[early("a")] * 9, early("b"), early("c"))
    assert not log.letters


def test_the_next_owner_knows_how_much_is_held() -> None:
    log = Log()
    fill(log)
    log.hand_over()
    log.say(early("d"))
    assert log.letters == [("d", "TooMuchHeld")]
    log.say(Data("a", end=True), early("d"))
    assert log.letters[1:] == [("a", "StreamEnded")]


def test_a_replay_refuses_the_same_records() -> None:
    log = Log()
    fill(log)
    log.say(early("d"), Data("b", end=True), early("d"), early("c", 6))
    log.hand_over()
    log.say(early("e"), Data("d", until=2, seq=1))
    again = Ingest(SPEC, FakeEncode(), LIMITS, Fresh(1, 0, len(log.records)))
    outputs = again.take_outputs()
    for offset, (key, value) in enumerate(log.records):
        assert again.receive(Record(SPEC.in_topic, offset, 0, key, value))
    outputs += again.take_outputs()
    if seeks := again.take_seeks():
        for offset in range(seeks[SPEC.in_topic], len(log.records)):
            assert again.receive(Record(SPEC.in_topic, offset, 0, *log.records[offset]))
        outputs += again.take_outputs()
    found = [decode_letter(o.value).reason for o in outputs if o.topic == DEAD_LETTER]
    first = [decode_letter(o.value).reason for o in log.outputs if o.topic == DEAD_LETTER]
    assert found == first
    assert any(reason.startswith("TooMuchHeld") for reason in found)


def test_a_new_era_holds_nothing() -> None:
    log = Log()
    fill(log)
    log.ingest.truncated(SPEC.in_topic, log.ingest.reading.offset(SPEC.in_topic) + 1)
    log.settle()
    log.say(*(Data(name, until=1, seq=0) for name in "xyz"))
    log.say(early("x"), early("y"), early("z"))
    assert "TooMuchHeld" not in {word for _, word in log.letters}


def test_what_a_lost_stream_held_is_not_guessed() -> None:
    """A replay that has its records would count them."""
    log = Log()
    log.say(*(Data(name, until=1, seq=0) for name in "abcd"))
    log.say(early("a"), early("b"))
    log.hand_over(lost=0)
    log.say(early("c"))  # there is room, whatever the lost one held: at most one record
    assert (log.letters, log.eras) == ([], 1)
    log = Log()
    fill(log)
    log.hand_over(lost=0)
    log.ingest.take_outputs()  # its KILL is on its way
    log.read(b"d", encode_record(early("d")))
    log.settle()
    assert log.letters == [("d", "EraLost")]
    assert log.eras == 2
