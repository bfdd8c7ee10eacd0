"""Virtual time: everything that happens is an event on one heap, in whole milliseconds."""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

__all__ = ["Clock"]


class Clock:
    """`now` counts from 1. Events of one instant happen in the order in which they were set."""

    __slots__ = ("_heap", "_n_events", "_random", "now")

    def __init__(self, seed: str) -> None:
        self.now = 1
        self._random = Random(seed).random
        self._heap: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []
        self._n_events = 0

    def after(self, delay: int, action: Callable[..., object], *args: Any) -> None:
        """Call `action(*args)` in `delay` ms."""
        self._n_events += 1
        heappush(self._heap, (self.now + delay, self._n_events, action, args))

    def draw(self, below: int) -> int:
        """A random integer in [0, below)."""
        return int(self._random() * below)

    def run(self, until: int) -> bool:
        """Let everything happen up to `until`; whether anything is left to happen after it."""
        heap = self._heap
        while heap:
            self.now, _, action, args = heappop(heap)
            if self.now > until:
                return True
            action(*args)
        return False

    def stop(self) -> None:
        """Nothing happens any more."""
        self._heap.clear()
