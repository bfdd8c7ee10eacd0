"""Where a task stands in each topic it reads (PROTOCOL 6 and 30), without any I/O."""

import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from topologies.errors import SpikeRouterError
from workers.snapshot import Position

__all__ = ["LogReplacedError", "Reading", "Record"]


class Record(NamedTuple):
    """A Kafka record as the bus hands it over; `timestamp` is in ms, `seal` of `router.seals`."""

    topic: str
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    seal: bytes = b""


class LogReplacedError(SpikeRouterError, RuntimeError):
    """The log is not the one the position was taken in: going on would mix two histories."""


class Reading:
    """Next offset per topic, the last record's identity, and the bytes read so far."""

    def __init__(
        self, topics: Iterable[str], positions: Mapping[str, Position] | None = None
    ) -> None:
        known = positions or {}
        self._at = {topic: known.get(topic, Position(0)) for topic in topics}
        self._unverified = {t for t, at in self._at.items() if at.offset > 0 and at.crc >= 0}
        self._last: dict[str, Record] = {}
        self.n_bytes = 0

    def add(self, topics: Iterable[str]) -> None:
        """Read these topics too, from their beginning."""
        for topic in topics:
            self._at.setdefault(topic, Position(0))

    def start(self) -> dict[str, int]:
        """First offset to fetch per topic: the last record's, where it must be verified."""
        return {t: at.witness if t in self._unverified else at.offset for t, at in self._at.items()}

    def offset(self, topic: str) -> int:
        return self._at[topic].offset

    def offsets(self, topics: Iterable[str]) -> dict[str, int]:
        return {topic: self._at[topic].offset for topic in topics}

    def take(self, record: Record) -> bool:
        """Move past `record` and say whether it is new.

        Raises LogReplacedError when the record before the position is not the one remembered.
        """
        topic = record.topic
        at = self._at[topic]
        if record.offset < at.offset:
            if record.offset == at.witness and topic in self._unverified:
                self._verify(record, at)
            return False
        self._unverified.discard(topic)
        self._at[topic] = Position(record.offset + 1)
        self._last[topic] = record
        self.n_bytes += len(record.value)
        return True

    def pass_over(self, topic: str, offset: int) -> bool:
        """Nothing that anybody gets lies between the position and `offset`. True if that is news.

        Markers and aborted records of transactions are counted in offsets and never delivered: the
        record to be verified stays the one before them.
        """
        at = self._at[topic]
        if offset <= at.offset:
            return False
        self._at[topic] = at._replace(offset=offset, gap=at.gap + offset - at.offset)
        return True

    def skip_to(self, topic: str, offset: int) -> bool:
        """The log begins at `offset` only. True when unread records are gone (PROTOCOL 9)."""
        self._unverified.discard(topic)
        if offset <= self._at[topic].offset:
            return False
        self._at[topic] = Position(offset)
        self._last.pop(topic, None)
        return True

    def rewind(self, topic: str, offset: int) -> None:
        self._at[topic] = Position(offset)
        self._last.pop(topic, None)

    def check_end(self, topic: str, end: int) -> None:
        """Raises LogReplacedError when the log ends (`end` = next offset) below the position."""
        at = self._at[topic].offset
        if end < at:
            raise LogReplacedError(
                f"topic {topic} ends at offset {end}, but records up to {at} were applied: the log"
                " was replaced. Deploy the networks that use it again, which starts anew."
            )

    def positions(self) -> dict[str, Position]:
        """The positions of this instant, each with its last record's timestamp and CRC-32."""
        for topic, last in self._last.items():
            offset = self._at[topic].offset
            gap = offset - 1 - last.offset
            self._at[topic] = Position(offset, last.timestamp, zlib.crc32(last.value), gap)
        self._last.clear()
        return dict(self._at)

    def _verify(self, record: Record, at: Position) -> None:
        self._unverified.discard(record.topic)
        if (record.timestamp, zlib.crc32(record.value)) != (at.timestamp, at.crc):
            raise LogReplacedError(
                f"offset {record.offset} of topic {record.topic} holds another record than the one"
                " applied before: the log was replaced. Deploy the networks that use it again,"
                " which starts a new generation."
            )
