"""Streams that a new era ended, until the results say so. Pure.

Tasks end the streams of an older era when they learn of the new one, and say it in the results. A
stream whose state is gone from every task has nobody who says it: so ingest, which knew that it was
open, waits for the time of a deadline and then says it itself (docs/protocol.md 1).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from router.wire import StreamId
from workers.tally import Tally

__all__ = ["Ended", "Superseded"]


class Ended(NamedTuple):
    """A stream that a new era ended, and the networks that have yet to say so."""

    stream: StreamId
    name: str
    networks: frozenset[str]


class Superseded:
    """Streams of older eras whose end is not in the results of all their networks."""

    def __init__(self) -> None:
        self._open: dict[StreamId, Ended] = {}
        self._since: dict[StreamId, float] = {}
        self._tally = Tally[StreamId]()

    def counts(self) -> dict[str, int]:
        """How many there are for each network."""
        return self._tally.counts()

    def add(self, stream: StreamId, name: str, networks: frozenset[str]) -> None:
        """The stream was open, and a new era ends it."""
        if networks:
            self._open[stream] = Ended(stream, name, networks)
            self._tally.put(stream, networks)

    def confirm(self, stream: StreamId, network: str) -> None:
        """The results of this network have the stream's end."""
        known = self._open.get(stream)
        if known is None:
            return
        left = known.networks - {network}
        if left:
            self._open[stream] = known._replace(networks=left)
            self._tally.put(stream, left)
        else:
            self._drop(stream)

    def resumed(self, era: int) -> None:
        """This era counts again, since it is replayed: its streams go on."""
        for stream in [s for s in self._open if s.era == era]:
            self._drop(stream)

    def late(self, now: float, deadline_s: float) -> Iterator[Ended]:
        """Those that waited longer than this; they are forgotten. `now` is in seconds, of a clock
        that never runs backwards."""
        for stream in list(self._open):
            if now - self._since.setdefault(stream, now) > deadline_s:
                yield self._open[stream]
                self._drop(stream)

    def _drop(self, stream: StreamId) -> None:
        del self._open[stream]
        self._since.pop(stream, None)
        self._tally.put(stream, frozenset())

    # ---- checkpoint ---------------------------------------------------------------------------

    def freeze(self) -> list[Any]:
        """All of it, as msgpack can write it."""
        return [[*e.stream, e.name, sorted(e.networks)] for e in self._open.values()]

    @classmethod
    def thaw(cls, frozen: list[Any]) -> Self:
        """What `freeze` wrote."""
        superseded = cls()
        for era, number, name, networks in frozen:
            superseded.add(StreamId(era, number), name, frozenset(networks))
        return superseded
