"""A new era ends every open stream, and the results say so even if no task remembers it (1)."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from loadtest.simulation.numbers import FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import Data, Era, encode_record
from router.topics import in_topic, out_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.snapshot import Stored
from workers.spec import IngestSpec
from workers.tenant import Limits

IN, OUT = in_topic("x"), out_topic("n")
SPEC = next(
    spec
    for spec in layout(build("chain", 4), ("n",), 1).specs.values()
    if isinstance(spec, IngestSpec)
)
LIMITS = Limits()


class Log:
    """An ingest that reads back what it writes to its input."""

    def __init__(self, log_start: int = 0, log_end: int = 0, stored: Stored | None = None) -> None:
        fresh = Fresh(100 + log_end, log_start, log_end)
        self.ingest = Ingest(SPEC, FakeEncode(), LIMITS, fresh, stored)
        self.results: list[Batch] = []
        self.sent: list[Batch] = []
        self.input: list[tuple[bytes | None, bytes]] = []
        self.at = log_start
        self.read()

    def read(self) -> None:
        """Read on, and what it writes to its own input as well."""
        self.settle()
        while self.input:
            key, value = self.input.pop(0)
            assert self.ingest.receive(Record(IN, self.at, 0, key, value))
            self.at += 1
            self.settle()

    def settle(self) -> None:
        while (work := self.ingest.work()) is not None:
            self.ingest.apply(work, self.ingest.compute(work))
        for output in self.ingest.take_outputs():
            if output.topic == IN:
                self.input.append((output.key, output.value))
            elif output.topic == OUT:
                self.results += decode_frame(output.value).batches
            elif ".spikes." in output.topic:
                self.sent += decode_frame(output.value).batches

    def say(self, *records: Data | Era) -> None:
        for said in records:
            key = said.name.encode() if isinstance(said, Data) else None
            self.input.append((key, encode_record(said)))
        self.read()

    def wait(self, *times: float) -> list[tuple[str, StreamId, str]]:
        """Let time pass; what the results were told."""
        for now in times:
            self.ingest.tick(now)
        self.settle()
        return [(b.name, b.stream, b.error.partition(":")[0]) for b in self.results]

    def confirm(self, stream: StreamId, name: str, offset: int = 0) -> None:
        """The results say that the stream has ended."""
        batch = Batch(
            node=SPEC.input.node, stream=stream, name=name, networks=("n",), seed=0, window=0,
            start=0, stop=1, kind=Kind.ABORT, end=True, payload=b"", error="EraLost: by a task",
        )  # fmt: skip
        value = encode_frame(Frame("0" * 32, 0, [batch]))
        assert self.ingest.receive(Record(OUT, offset, 0, None, value))

    def stored(self) -> Stored:
        snapshot = self.ingest.snapshot(full=True)
        assert snapshot is not None
        self.ingest.committed(snapshot)
        return Stored(
            number=1, heads=(snapshot.head, None), positions=snapshot.positions,
            streams={field: (blob, None) for field, _, blob in snapshot.changed},
            cursors={field: cursor for field, cursor, _ in snapshot.changed},
        )  # fmt: skip


def sample(name: str, seq: int, **more: Any) -> Data:
    return Data(name, seq=seq, payload=b"1", dtype="uint8", shape=(1,), **more)


def without(stored: Stored, fields: Iterable[str]) -> Stored:
    return replace(stored, streams={f: b for f, b in stored.streams.items() if f not in fields})


OLD = StreamId(100, 0)
TOO_LATE = LIMITS.deadline_s + 1


def truncated() -> Log:
    """Stream `a` was open when the log was truncated; a new era counts."""
    log = Log()
    log.say(sample("a", 0))
    log.at += 5
    log.ingest.truncated(IN, log.at)
    log.read()
    return log


def test_stream_that_no_task_ends_is_ended_after_the_time_of_a_deadline() -> None:
    log = truncated()
    assert log.wait(1.0, LIMITS.deadline_s) == []
    assert log.wait(1.0 + TOO_LATE) == [("a", OLD, "EraLost")]
    assert log.wait(3 * TOO_LATE) == [("a", OLD, "EraLost")]
    assert log.ingest.counts["streams_forgotten_total"] == 1


def test_stream_whose_end_is_in_the_results_is_not_ended_again() -> None:
    log = truncated()
    log.wait(1.0)
    log.confirm(OLD, "a")
    assert log.wait(1.0 + TOO_LATE) == []


def test_checkpoint_remembers_which_streams_have_yet_to_end() -> None:
    log = truncated()
    later = Log(stored=log.stored())
    assert later.wait(1.0, 1.0 + TOO_LATE) == [("a", OLD, "EraLost")]


@pytest.mark.parametrize("lost", ["names", "head"])
def test_lost_names_are_those_of_the_log_while_it_is_whole(lost: str) -> None:
    log = Log()
    log.say(sample("a", 0), sample("b", 0))
    stored = log.stored()
    if lost == "names":
        stored = without(stored, ["names/0"])
    else:
        stored = replace(stored, heads=(None, None))
    later = Log(log_end=3, stored=stored)
    assert later.ingest.found_damage
    records = Era(100, 0, ("n",)), sample("a", 0), sample("b", 0)
    later.say(*records)
    assert later.ingest.take_seeks() == {IN: 0}
    later.at = 0
    later.say(*records, sample("b", 1))
    windows = [(b.stream, b.window) for b in later.sent if b.kind is Kind.SPIKES]
    assert windows == [(OLD, 0), (StreamId(100, 1), 0), (StreamId(100, 1), 1)]
    assert later.wait(1.0, 1.0 + TOO_LATE, 2.0 + 2 * TOO_LATE) == []


def test_streams_of_a_lost_head_end_where_the_log_is_not_whole() -> None:
    log = Log()
    log.say(sample("a", 0), sample("b", 0))
    stored = replace(log.stored(), heads=(None, None))
    later = Log(log_start=2, log_end=3, stored=stored)
    later.say(sample("b", 0))
    assert later.wait(1.0, 1.0 + TOO_LATE) == [
        ("a", OLD, "EraLost"), ("b", StreamId(100, 1), "EraLost"),
    ]  # fmt: skip
