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
    """`start` is the first offset that is still there; `records[i]` has offset i, always."""

    __slots__ = ("away_until", "place", "records", "start", "tail")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.start = 0
        self.records: list[Record] = []
        self.tail: list[Produced] = []
        self.away_until = 0

    @property
    def end(self) -> int:
        return len(self.records)


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
