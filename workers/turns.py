"""Who is served first where several networks share a task. Pure.

One of each network in turn: a network that sends ten times as much as another never pushes the
other out of a micro-batch. Nor does it make the other's micro-batch long: one that holds windows of
several networks ends with the network that has the fewest, and no micro-batch of a shared task is
large, since whatever comes meanwhile waits until it is computed.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain, islice
from typing import Final, TypeVar

__all__ = ["SHARED_BATCH", "fair_batch", "in_turn"]

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
