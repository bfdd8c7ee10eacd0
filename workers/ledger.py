"""Which streams differ from what the store holds (PROTOCOL 20).

What was handed to a commit counts as changed again unless that commit *succeeded*: an unknown
outcome is no success.
"""

from collections.abc import Callable, Container, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Ledger", "Taken"]

K = TypeVar("K", bound=Hashable)


class Taken(NamedTuple, Generic[K]):
    """What one snapshot took in hand: keys to write, keys that ended, and keys to delete."""

    changed: tuple[K, ...]
    ended: tuple[K, ...]
    deleted: tuple[K, ...]


class Ledger(Generic[K]):
    """Keys that changed, keys that ended, and keys that may stand in the store.

    With `lagging`, what ended is deleted from the store one commit after the one that says so: who
    falls back on the previous head finds there all that it takes to be alive (24).
    """

    def __init__(self, lagging: bool = False) -> None:
        self._lagging = lagging
        self._changed: dict[K, None] = {}
        self._ended: dict[K, None] = {}
        self._over: dict[K, None] = {}  # ended, and the last commit says so
        self._stored: set[K] = set()

    def __bool__(self) -> bool:
        return bool(self._changed or self._ended or self._over)

    def stored(self, key: K) -> None:
        """The store was seen to hold `key`."""
        self._stored.add(key)

    def change(self, key: K) -> None:
        self._ended.pop(key, None)
        self._over.pop(key, None)
        self._changed[key] = None

    def end(self, key: K) -> None:
        self._changed.pop(key, None)
        if key in self._stored and key not in self._over:
            self._ended[key] = None

    def take(self, alive: Iterable[K] | None, held_back: Container[K] = ()) -> Taken[K]:
        """Hand out what changed, or all that is `alive`, except what is `held_back`."""
        pool = list(self._changed if alive is None else alive)
        changed = tuple(k for k in pool if k not in held_back)
        ended, over = tuple(self._ended), tuple(self._over)
        taken = Taken(changed, ended, over) if self._lagging else Taken(changed, (), ended)
        self._changed = {k: None for k in self._changed if k in held_back}
        self._ended, self._over = {}, {}
        return taken

    def committed(self, taken: Taken[K], is_alive: Callable[[K], bool]) -> None:
        self._stored.difference_update(taken.deleted)
        self._stored.update(taken.changed)
        for key in taken.ended:
            if not is_alive(key):
                self._over[key] = None
        for key in taken.changed:
            if not is_alive(key):  # it ended between the snapshot and its commit
                self._ended[key] = None

    def refused(self, taken: Taken[K], is_alive: Callable[[K], bool]) -> None:
        self._stored.update(taken.changed)  # it may have been written after all
        for key in taken.changed:
            (self._changed if is_alive(key) else self._ended)[key] = None
        for key in (*taken.ended, *taken.deleted):
            if not is_alive(key):
                self._ended[key] = None
