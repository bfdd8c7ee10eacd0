"""Who is served first where several networks share a task. Pure.

One of each network in turn: a network that sends ten times as much as another fills what is left of
a micro-batch, and never pushes the other out of it.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

__all__ = ["in_turn"]

T = TypeVar("T")


def in_turn(items: Iterable[T], key: Callable[[T], Hashable]) -> Iterator[T]:
    """All items, one of each key in turn; those of one key stay in their order."""
    queues: dict[Hashable, deque[T]] = {}
    for item in items:
        queues.setdefault(key(item), deque()).append(item)
    waiting = deque(queues.values())
    while waiting:
        queue = waiting.popleft()
        yield queue.popleft()
        if queue:
            waiting.append(queue)
