"""Open streams are bounded: by number (32), by silence (33), and an `end` ends each of them."""

from collections.abc import Iterator

import pytest

from loadtest.simulation.numbers import FakeEncode
from loadtest.simulation.shapes import build, layout
from router.deadletter import STREAM_ENDED
from router.deadletter import decode as decode_letter
from router.records import Data, Kill, Route, encode_record, parse_record, record_key
from router.topics import DEAD_LETTER, out_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.snapshot import Stored, seal
from workers.spec import IngestSpec
from workers.tenant import Limits, Output

ERA = 100
IDLE_S = 10.0
NETWORKS = layout(build("shared", 4), ("m", "n"), 1).specs.values()
SPEC = next(spec for spec in NETWORKS if isinstance(spec, IngestSpec))
LIMITS = Limits(max_streams=2, stream_idle_s=IDLE_S, deadline_s=1000.0)


class Log:
    """An ingest, and the input that it reads; what it appends there is read like all else."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.ingest = Ingest(SPEC, FakeEncode(), limits, Fresh(ERA, 0, 0))
        self.outputs: list[Output] = []
        self.settle()

    def settle(self) -> None:
        """Read what was appended, until nothing more is."""
        while outputs := self.ingest.take_outputs():
            self.outputs += outputs
            for output in outputs:
                if output.topic == SPEC.in_topic:
                    self.read(output.key, output.value)

    def read(self, key: bytes | None, value: bytes) -> None:
        topic = SPEC.in_topic
        assert self.ingest.receive(Record(topic, self.ingest.reading.offset(topic), 0, key, value))

    def say(self, *said: Data | Route | Kill) -> None:
        for each in said:
            self.read(record_key(each), encode_record(each))
        self.settle()

    def tick(self, now: float) -> None:
        self.ingest.tick(now)
        self.settle()

    def send(self) -> None:
        while (work := self.ingest.work()) is not None:
            self.ingest.apply(work, self.ingest.compute(work))
        self.settle()

    def confirm(self, number: int, window: int, end: bool = False) -> None:
        for network in ("m", "n"):
            topic = out_topic(network)
            batch = Batch(
                node=SPEC.input.node, stream=StreamId(ERA, number), name="", networks=(network,),
                seed=0, window=window, start=0, stop=1, kind=Kind.SPIKES, end=end, payload=b"",
            )  # fmt: skip
            value = encode_frame(Frame(SPEC.operator, 0, [batch]))
            at = self.ingest.reading.offset(topic)
            assert self.ingest.receive(Record(topic, at, 0, None, value))

    def hand_over(self) -> None:
        """Another owner goes on from the checkpoint of this instant."""
        taken = self.ingest.snapshot(full=True)
        assert taken is not None
        blobs = {field: (blob, None) for field, _, blob in taken.changed}
        stored = Stored(1, (taken.head, None), blobs)
        self.ingest = Ingest(SPEC, FakeEncode(), self.limits, Fresh(1, 0, 0), stored)

    @property
    def letters(self) -> list[str]:
        """The reasons of the dead letters."""
        return [decode_letter(o.value).reason for o in self.outputs if o.topic == DEAD_LETTER]

    def batches(self) -> Iterator[tuple[str, Batch]]:
        for output in self.outputs:
            if output.topic.startswith(("snn.out.", "snn.spikes.")):
                yield from ((output.topic, b) for b in decode_frame(output.value).batches)

    @property
    def aborted(self) -> list[tuple[str, str, str]]:
        """(network, stream, word of the error) of the results that were aborted."""
        return [
            (topic.removeprefix("snn.out."), b.name, b.error.partition(":")[0])
            for topic, b in self.batches()
            if b.kind is Kind.ABORT
        ]


def mark(name: str, until: int = 1, **more: int | bool | None) -> Data:
    return Data(name, until=until, **more)  # type: ignore[arg-type]


# ---- too many ------------------------------------------------------------------------------------


def test_record_that_would_open_one_stream_too_many_is_refused_by_name() -> None:
    log = Log()
    log.say(mark("a"), mark("b"), mark("c"))
    (reason,) = log.letters
    assert reason.startswith("TooManyStreams: 2 streams are open on input x, partition 0")
    assert log.ingest.n_streams == 2


def test_refused_name_may_be_sent_again_when_there_is_room() -> None:
    log = Log()
    log.say(mark("a"), mark("b"), mark("c"), Data("a", end=True), mark("c"))
    assert len(log.letters) == 1
    assert log.ingest.n_streams == 3  # the result of the first is still open


@pytest.mark.parametrize(
    "whole",
    [Data("r", request=True, until=1), Data("r", until=1, end=True), mark("r", seq=0, end=True)],
)
def test_stream_of_one_record_has_room_where_all_places_are_taken(whole: Data) -> None:
    log = Log()
    log.say(mark("a"), mark("b"), whole)
    assert log.letters == []


def test_stream_whose_last_record_came_first_takes_a_place() -> None:
    log = Log()
    log.say(mark("a"), mark("b"), mark("r", seq=3, end=True))
    assert len(log.letters) == 1


def test_killed_stream_makes_room() -> None:
    log = Log()
    log.say(mark("a"), mark("b"), Kill(StreamId(ERA, 0), "a", ("m",), "half"), mark("c"))
    log.say(Kill(StreamId(ERA, 0), "a", ("n",), "the other half"), mark("c"))
    assert len(log.letters) == 1


def test_last_route_says_how_many_streams_there_may_be() -> None:
    log = Log()
    log.say(Route(("m", "n"), max_streams=3), mark("a"), mark("b"), mark("c"), mark("d"))
    log.say(Route(("m", "n")), mark("d"), mark("e"))
    assert len(log.letters) == 1


def test_number_of_places_is_that_of_the_log_and_not_of_who_takes_over() -> None:
    log = Log()
    log.limits = Limits(max_streams=50)
    log.hand_over()
    log.say(mark("a"), mark("b"), mark("c"))
    assert len(log.letters) == 1


def with_lost_stream(limits: Limits, *more: Data) -> tuple[Log, Output]:
    """A log of streams a and b, of whose ingest the snapshot of a is damaged; and a's KILL."""
    log = Log(limits)
    log.say(mark("a"), mark("b"), *more)
    taken = log.ingest.snapshot(full=True)
    assert taken is not None
    blobs = {field: (blob, None) for field, _, blob in taken.changed}
    field = next(f for f in blobs if f.endswith("/0") and not f.startswith("names/"))
    stored = Stored(1, (taken.head, None), {**blobs, field: (seal(["no flow"]), None)})
    log.ingest = Ingest(SPEC, FakeEncode(), limits, Fresh(200, 0, 0), stored)
    (kill,) = log.ingest.take_outputs()
    return log, kill


def test_lost_stream_counts_until_its_kill_is_read() -> None:
    log, kill = with_lost_stream(Limits(max_streams=3))
    log.say(mark("c"))
    log.read(kill.key, kill.value)
    log.settle()
    assert sorted(log.aborted) == [("m", "a", "SnapshotCorrupt"), ("n", "a", "SnapshotCorrupt")]
    log.say(mark("d"), mark("e"))
    assert [r.partition(":")[0] for r in log.letters] == ["TooManyStreams"]


@pytest.mark.parametrize("hands_over", [False, True])
def test_lost_stream_that_had_ended_is_not_over_before_its_kill_is_read(hands_over: bool) -> None:
    log, kill = with_lost_stream(Limits(over_s=1.0), Data("a", end=True))
    if hands_over:
        log.hand_over()
    for now in (1.0, 3.0):
        log.ingest.tick(now)
    log.read(kill.key, kill.value)
    log.settle()
    assert sorted(log.aborted) == [("m", "a", "SnapshotCorrupt"), ("n", "a", "SnapshotCorrupt")]


def test_era_begins_where_nobody_knows_whether_the_log_has_ended_a_lost_stream() -> None:
    # A replay of the whole log would know, and number the streams behind it otherwise.
    log, _ = with_lost_stream(LIMITS)
    log.say(mark("c"))
    assert [r.partition(":")[0] for r in log.letters] == ["EraLost"]
    log.say(mark("c", seq=0))
    assert log.ingest.n_streams == 1
    assert log.ingest.routes == ("m", "n")


# ---- idle ----------------------------------------------------------------------------------------


def test_stream_that_says_nothing_for_too_long_is_ended_by_name() -> None:
    log = Log()
    log.say(mark("a", seq=5))  # it waits for others
    log.tick(1.0)
    log.tick(1.0 + IDLE_S)
    assert log.aborted == []
    log.tick(1.1 + IDLE_S)
    assert log.aborted == [("m", "a", "StreamIdle"), ("n", "a", "StreamIdle")]
    assert log.ingest.n_streams == 0
    assert [r.partition(":")[0] for r in log.letters] == ["StreamEnded"]


def test_record_of_a_stream_that_was_killed_is_refused_as_one_whose_end_is_in_the_results() -> None:
    log = Log()
    log.say(mark("a"), Kill(StreamId(ERA, 0), "a", ("m", "n"), "SnapshotCorrupt: ..."), mark("a"))
    (reason,) = log.letters
    assert reason == f"{STREAM_ENDED}: stream a ended with an error; open one under another name"


def test_stream_that_speaks_now_and_then_is_not_idle() -> None:
    log = Log()
    for second in range(1, 100, 9):
        log.tick(float(second))
        log.say(mark("a", seq=7))
    assert log.aborted == []


def test_silence_is_counted_from_the_first_look_at_the_clock_after_the_record() -> None:
    log = Log()
    log.tick(1.0)
    log.say(mark("a", seq=5))
    log.tick(1.1 + IDLE_S)  # it may have been read just now
    assert log.aborted == []


def test_stream_that_waits_for_results_is_not_idle() -> None:
    log = Log()
    log.tick(1.0)
    log.say(mark("a"))
    log.send()
    log.tick(2 + IDLE_S)
    log.tick(3 + 2 * IDLE_S)
    assert log.aborted == []
    log.confirm(0, 0)
    log.tick(4 + 3 * IDLE_S)
    log.tick(5 + 4 * IDLE_S)
    assert [word for _, _, word in log.aborted] == ["StreamIdle"] * 2


def test_idle_time_begins_anew_with_another_owner() -> None:
    log = Log()
    log.tick(1.0)
    log.say(mark("a", seq=5))
    log.hand_over()
    log.tick(5 + IDLE_S)
    assert log.aborted == []
    log.tick(6 + 2 * IDLE_S)
    assert [word for _, _, word in log.aborted] == ["StreamIdle"] * 2


def asked(log: Log) -> Kill:
    """What the ingest appends for a silent stream, unread."""
    log.say(mark("a", seq=5))
    log.tick(1.0)
    log.ingest.tick(2 + IDLE_S)
    (output,) = log.ingest.take_outputs()
    kill = parse_record(output.key, output.value, 0, 0)
    assert isinstance(kill, Kill)
    return kill


@pytest.mark.parametrize("hands_over", [False, True])
def test_stream_that_spoke_before_its_kill_was_read_goes_on(hands_over: bool) -> None:
    log = Log()
    kill = asked(log)
    log.say(mark("a", seq=5))  # a repeat is a sign of life as well
    if hands_over:
        log.hand_over()
    log.say(kill)
    assert log.aborted == []
    assert log.ingest.n_streams == 1


def test_stream_that_has_ended_is_not_killed_for_its_silence() -> None:
    log = Log()
    kill = asked(log)
    log.say(Data("a", end=True), kill)
    assert log.aborted == []


def test_without_a_limit_a_stream_may_be_silent_for_ever() -> None:
    log = Log(Limits(stream_idle_s=None))
    log.tick(1.0)
    log.say(mark("a", seq=5))
    log.tick(1e9)
    assert log.aborted == []


def test_late_stream_gets_its_result_though_ends_are_told_before_its_kill_is_read() -> None:
    log = Log(Limits(deadline_s=5.0, over_s=1.0))
    log.tick(1.0)
    log.say(mark("a", end=True))
    log.send()
    log.ingest.tick(7.0)
    (kill,) = (o for o in log.ingest.take_outputs() if o.topic == SPEC.in_topic)
    log.tick(9.0)
    log.read(kill.key, kill.value)
    log.settle()
    assert log.aborted == [("m", "a", "DeadlineMissed"), ("n", "a", "DeadlineMissed")]
    log.tick(11.0)
    assert [(b.start, b.stop) for _, b in log.batches() if b.kind is Kind.ERA] == [(0, 0), (0, 1)]


# ---- the end -------------------------------------------------------------------------------------


def test_end_without_seq_ends_a_stream_that_waits_for_a_lost_record() -> None:
    log = Log()
    log.say(mark("a", 1, seq=0), mark("a", 9, seq=2), mark("a", 9, seq=3), Data("a", end=True))
    assert [r.partition(" waited")[1:] for r in log.letters] == [(" waited", " for seq 1")] * 2
    assert all(r.startswith("StreamEnded: stream a ended while") for r in log.letters)
    log.send()
    ends = [b for _, b in log.batches() if b.kind is Kind.SPIKES]
    assert [(b.start, b.stop, b.end) for b in ends] == [(0, 1, False), (1, 1, True)]


def test_end_for_no_network_opens_no_stream() -> None:
    log = Log()
    log.say(Data("nobody", networks=(), end=True))
    assert len(log.letters) == 1
    assert log.ingest.n_streams == 0


def test_records_held_by_a_stream_are_bounded_in_bytes() -> None:
    log = Log()
    big = Data("a", payload=bytes(600_000), dtype="uint8", shape=(600_000,))
    for seq in (1, 2):
        log.read(b"a", encode_record(Data("a", payload=big.payload, dtype="uint8", seq=seq)))
    log.settle()
    (reason,) = log.letters
    assert "send it again later" in reason
