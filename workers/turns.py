"""Who is served first where several networks share a task, or a worker. Pure.

One of each network in turn: a network that sends ten times as much as another never pushes the
other out of a micro-batch. Nor does it make the other's micro-batch long: one that holds windows of
several networks ends with the network that has the fewest, and no micro-batch of a shared task is
large, since whatever comes meanwhile waits until it is computed.

The tasks of a worker wait for its threads. There `FairQueue` lets those go first whose networks
have had the least of the worker's time, as start-time fair queueing does (Goyal, Vin and Cheng
1996, doi:10.1145/248156.248171): what a quiet network needs waits for one micro-batch of a flood,
and not for one of each task that the flood runs through.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Final, Generic, TypeVar

__all__ = ["SHARED_BATCH", "FairQueue", "fair_batch", "in_turn"]

SHARED_BATCH: Final = 32
"""Most windows of a micro-batch of a shared task; larger ones are hardly cheaper per window."""

T = TypeVar("T")


def in_turn(items: Iterable[T], key: Callable[[T], Hashable]) -> Iterator[T]:
    """All items, one of each key in turn; those of one key stay in their order."""
    waiting = deque(_queues(items, key))
    while waiting:
        queue = waiting.popleft()
        yield queue.popleft()
        if queue:
            waiting.append(queue)


def fair_batch(items: Iterable[T], key: Callable[[T], Hashable]) -> list[T]:
    """The next items of a shared task: equally many of each key, all of the one that has fewest."""
    queues = _queues(items, key)
    rows = zip(*queues, strict=False)  # ends with the shortest
    return list(islice(chain.from_iterable(rows), SHARED_BATCH))


def _queues(items: Iterable[T], key: Callable[[T], Hashable]) -> list[deque[T]]:
    """The items of each key, the key that came first before the others."""
    queues: dict[Hashable, deque[T]] = {}
    for item in items:
        queues.setdefault(key(item), deque()).append(item)
    return [*queues.values()]


class FairQueue(Generic[T]):
    """Items wait for their turn; each is for one or several parties that share what serves them.

    The next one is that with the party that was served least, among equals the one that came
    first. A party that asks for little, or not for a while, saves nothing up: it counts as served
    as much as the one that had the last turn.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[tuple[Hashable, ...], T]] = []
        self._served: dict[Hashable, float] = {}
        self._level = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, parties: Iterable[Hashable], item: T) -> None:
        """Add an item; without parties it is served like one of a new party."""
        self._waiting.append((tuple(parties), item))

    def take(self) -> T:
        """The next item. Raises ValueError when none waits."""
        turn = min(range(len(self._waiting)), key=lambda i: self._least(self._waiting[i][0]))
        parties, item = self._waiting.pop(turn)
        self._level = self._least(parties)
        self._served = {p: s for p, s in self._served.items() if s > self._level}
        return item

    def charge(self, shares: Mapping[Hashable, float], cost: float) -> None:
        """An item has been served at this cost, for its parties in these proportions."""
        total = sum(shares.values())
        for party, share in shares.items():
            self._served[party] = self._served_to(party) + cost * share / total

    def _least(self, parties: Iterable[Hashable]) -> float:
        return min(map(self._served_to, parties), default=self._level)

    def _served_to(self, party: Hashable) -> float:
        return max(self._served.get(party, 0.0), self._level)
