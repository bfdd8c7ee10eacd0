"""How many streams each network has open, kept up as they change. Pure."""

from collections import Counter
from collections.abc import Hashable, Set
from typing import Generic, TypeVar

__all__ = ["Tally"]


K = TypeVar("K", bound=Hashable)


class Tally(Generic[K]):
    """Counts names over the sets that were put in; to ask costs nothing per set."""

    def __init__(self) -> None:
        self._sets: dict[K, frozenset[str]] = {}
        self._counts: Counter[str] = Counter()

    def put(self, key: K, names: frozenset[str]) -> None:
        """The set of `key` is this from now on; an empty one is forgotten."""
        before: Set[str] = self._sets.get(key, frozenset())
        if names == before:
            return
        self._counts.update(names - before)
        for name in before - names:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]
        if names:
            self._sets[key] = names
        else:
            del self._sets[key]

    def counts(self) -> dict[str, int]:
        """The names that are in any set, and in how many."""
        return dict(self._counts)
