"""Streams that an ingest has read of while no era was current. Pure.

An ingest without a checkpoint reads its log before it knows whether the log is whole. If it is, all
of this is read again and numbered. If not, these streams can never be numbered, and are refused.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Unnumbered", "Waiting"]


class Waiting(NamedTuple):
    """A stream, and the offset and key of the last record that was read of it."""

    name: str
    offset: int
    key: bytes | None


class Unnumbered:
    """The last `limit` streams that were read of, each once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._streams: OrderedDict[str, Waiting] = OrderedDict()

    def note(self, waiting: Waiting) -> None:
        """One more record was read."""
        self._streams[waiting.name] = waiting
        self._streams.move_to_end(waiting.name)
        if len(self._streams) > self._limit:
            self._streams.popitem(last=False)

    def take(self, stop: int | None) -> Iterator[Waiting]:
        """Those whose last record lies below offset `stop` (None: all); all are forgotten."""
        streams, self._streams = self._streams, OrderedDict()
        return (w for w in streams.values() if stop is None or w.offset < stop)
