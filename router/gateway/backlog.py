"""How much input lies unread, so that clients are told before the broker drops it (PROTOCOL 18)."""

from collections.abc import Iterable
from math import ceil
from typing import Final

from router.gateway.errors import TooBusy
from router.status import status_rows
from router.store.calls import StatusReply, TaskId

__all__ = ["Backlog"]

_FIRST_GUESS: Final = 1024.0  # bytes of a record, before any was sent
_WEIGHT: Final = 0.05  # of the latest record in the running average
_RATE_WEIGHT: Final = 0.3  # of the latest look at how fast input is read
_LONGEST_WAIT_S: Final = 60

Place = tuple[str, int]
"""(ingest operator, partition)."""


class Backlog:
    """Unread bytes per input and partition: the lag that ingest tells, and what was sent since.

    `limit` is the most that may lie unread, in bytes; None: any amount. How fast a place is read
    follows from two looks at it, and tells a client that is refused when to come back. Time comes
    in as seconds of any clock that does not go back.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._lag: dict[Place, int] = {}
        self._since: dict[Place, int] = {}
        self._mean: dict[Place, float] = {}
        self._rate: dict[Place, float] = {}
        self._seen: dict[Place, float] = {}

    def sent(self, ingest: str, partition: int, n_bytes: int) -> None:
        """A record of so many bytes was published."""
        place = (ingest, partition)
        mean = self._mean.get(place, float(n_bytes))
        self._mean[place] = mean + _WEIGHT * (n_bytes - mean)
        self._since[place] = self._since.get(place, 0) + n_bytes

    def update(self, replies: Iterable[StatusReply], now: float) -> None:
        """Learn how far the ingest tasks have read."""
        for row in status_rows(replies).tasks:
            if row.kind == "ingest" and row.lag_records is not None:
                task = TaskId.parse(row.task)
                self._learn((task.operator, task.partition), row.lag_records, now)

    def _learn(self, place: Place, lag_records: int, now: float) -> None:
        before = self.unread(*place)
        self._lag[place] = lag_records
        self._since[place] = 0
        seconds = now - self._seen.get(place, now)
        self._seen[place] = now
        if seconds > 0:
            read = max(0, before - self.unread(*place)) / seconds
            rate = self._rate.get(place, read)
            self._rate[place] = rate + _RATE_WEIGHT * (read - rate)

    def retry_after(self, place: Place, n_bytes: int) -> int:
        """Whole seconds until so many bytes will have been read, at the present rate."""
        rate = self._rate.get(place, 0.0)
        return min(_LONGEST_WAIT_S, max(1, ceil(n_bytes / rate))) if rate > 0 else 1

    def unread(self, ingest: str, partition: int) -> int:
        """Bytes that lie unread, about; what nobody tells counts as read."""
        place = (ingest, partition)
        if place not in self._lag:
            return 0
        mean = self._mean.get(place, _FIRST_GUESS)
        return int(self._lag[place] * mean) + self._since.get(place, 0)

    def check(self, ingest: str, partition: int, n_bytes: int) -> None:
        """Raises TooBusy when so many more bytes would lie unread beyond the limit."""
        unread = self.unread(ingest, partition)
        if self._limit is not None and unread and unread + n_bytes > self._limit:
            wait = self.retry_after((ingest, partition), unread + n_bytes - self._limit)
            raise TooBusy(
                f"About {unread} bytes of this input lie unread in partition {partition}; the most "
                f"are {self._limit}: try again in {wait} s.",
                wait,
            )
