"""Kafka as lists: one log per topic and partition, with a moving beginning and one leader.

A record is visible, and acknowledged, once it is replicated. Until then it stands in the `tail` of
the log, which is gone when the leader changes: its producers send again (idempotence: in order).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadtest.simulation.clock import Clock
from workers.reading import Record
from workers.tenant import Output

__all__ = ["Broker", "Log", "Place", "Produced"]


class Place(NamedTuple):
    topic: str
    partition: int


class Produced(NamedTuple):
    """What one producer sent at once to one place. One of the two is called in the end."""

    outputs: Sequence[Output]
    replicated: Callable[[], None]
    lost: Callable[[], None]


class Log:
    """`start` is the first offset that is still there; `records[i]` has offset i, always.

    At `markers` stand records that nobody is given: of aborted transactions, and their markers. At
    `unreadable` stand those that nobody can read; true: nobody ever could.
    """

    __slots__ = ("away_until", "markers", "place", "records", "start", "tail", "unreadable")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.start = 0
        self.records: list[Record] = []
        self.markers: set[int] = set()
        self.unreadable: dict[int, bool] = {}
        self.tail: list[Produced] = []
        self.away_until = 0

    @property
    def end(self) -> int:
        return len(self.records)

    @property
    def whole_from(self) -> int:
        """The first offset from which on nothing is gone that was once there."""
        return max([self.start, *(at + 1 for at, never in self.unreadable.items() if not never)])

    def holds(self, record: Record) -> bool:
        """Whether somebody who reads the log is given this record."""
        return record.offset not in self.markers and record.offset not in self.unreadable

    def legible(self) -> list[Record]:
        """What can be read of it, truncated or not."""
        if not (self.markers or self.unreadable):
            return self.records
        return [record for record in self.records if self.holds(record)]

    def fetch(self, at: int, stop: int) -> tuple[list[Record], int]:
        """What a reader is given from `at` on, and the offset up to which that is all there is."""
        bad = [offset for offset in self.unreadable if at <= offset < stop]
        stop = min(bad, default=stop)
        return [record for record in self.records[at:stop] if self.holds(record)], stop


class Broker:
    """`appended(log, record)` is called for each record as it becomes visible.

    `replicate_ms` is the longest time that replication takes; 0: one broker, nothing to wait for.
    """

    def __init__(
        self, clock: Clock, appended: Callable[[Log, Record], None], replicate_ms: int
    ) -> None:
        self.logs: dict[Place, Log] = {}
        self._clock = clock
        self._appended = appended
        self._replicate_ms = replicate_ms

    def log(self, topic: str, partition: int) -> Log:
        found: Log | None = self.logs.get((topic, partition))  # type: ignore[call-overload]
        if found is None:
            place = Place(topic, partition)
            found = self.logs[place] = Log(place)
        return found

    def append(
        self, topic: str, key: bytes | None, partition: int, value: bytes, seal: bytes = b""
    ) -> None:
        """Append a record that needs no acknowledgement."""
        log = self.log(topic, partition)
        record = Record(topic, len(log.records), self._clock.now, key, value, seal)
        log.records.append(record)
        self._appended(log, record)

    def append_blank(self, log: Log, *, unreadable: bool) -> None:
        """Append a marker, or what nobody ever could read, as any other client may."""
        offset = log.end
        log.records.append(Record(log.place.topic, offset, self._clock.now, None, b""))
        if unreadable:
            log.unreadable[offset] = True
        else:
            log.markers.add(offset)
        self._appended(log, log.records[offset])

    def produce(self, place: Place, produced: Produced) -> None:
        """Append when replicated, or lose, what a producer sent."""
        log = self.log(*place)
        if log.away_until > self._clock.now:
            produced.lost()
        elif self._replicate_ms:
            log.tail.append(produced)
            self._clock.after(1 + self._clock.draw(self._replicate_ms), self._commit, log, produced)
        else:
            self._write(produced)

    def _commit(self, log: Log, produced: Produced) -> None:
        """The high watermark moves in order: what stands before it in the tail goes with it."""
        while produced in log.tail:
            self._write(log.tail.pop(0))

    def _write(self, produced: Produced) -> None:
        for output in produced.outputs:
            self.append(*output)
        produced.replicated()

    def change_leaders(self, n_ms: int, which: int, of: int) -> list[Place]:
        """A broker dies, which leads every `of`-th log: their tails are gone. Gives the places."""
        led = [log for i, log in enumerate(self.logs.values()) if i % of == which % of]
        for log in led:
            log.away_until = self._clock.now + n_ms
            tail, log.tail = log.tail, []
            for produced in tail:
                produced.lost()
        return [log.place for log in led]
