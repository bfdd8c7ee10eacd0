"""Looks for records that nobody reads, in partitions of inputs beyond the deployed ones."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from router.strays import Stray

__all__ = ["StrayWatch"]


class _Bus(Protocol):
    async def held(self, topic: str, first: int) -> Mapping[int, int]:
        """Records that each partition from `first` on holds."""
        ...


class StrayWatch:
    """What was found lately in the topics of the inputs that this worker looks after."""

    def __init__(self, bus: _Bus, n_partitions: int) -> None:
        self.found: dict[str, Stray] = {}
        self._bus = bus
        self._n_partitions = n_partitions

    async def look(self, topics: Iterable[str]) -> list[Stray]:
        """Look into these topics, and no longer into others; what is worse than it was.

        Raises what the bus raises; what was found before then stands.
        """
        found: dict[str, Stray] = {}
        for topic in topics:
            held = await self._bus.held(topic, self._n_partitions)
            records = {partition: count for partition, count in held.items() if count}
            if records:
                found[topic] = Stray(topic, self._n_partitions, records)
        news = [s for s in found.values() if s.n_records > self._known(s.topic)]
        self.found = found
        return news

    def _known(self, topic: str) -> int:
        return self.found[topic].n_records if topic in self.found else 0
