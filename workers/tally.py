"""How many streams each network has open, kept up as they change. Pure."""

from collections import Counter
from collections.abc import Set

__all__ = ["Tally"]


class Tally:
    """Counts names over the sets that were put in; to ask costs nothing per set."""

    def __init__(self) -> None:
        self._sets: dict[int, frozenset[str]] = {}
        self._counts: Counter[str] = Counter()

    def put(self, number: int, names: frozenset[str]) -> None:
        """The set of `number` is this from now on; an empty one is forgotten."""
        before: Set[str] = self._sets.get(number, frozenset())
        if names == before:
            return
        self._counts.update(names - before)
        for name in before - names:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]
        if names:
            self._sets[number] = names
        else:
            del self._sets[number]

    def counts(self) -> dict[str, int]:
        """The names that are in any set, and in how many."""
        return dict(self._counts)
