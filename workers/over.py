"""Which stream numbers are over: every stream below the next number but the open ones. Pure.

Ingest alone knows it: a stream that goes elsewhere leaves a gap in what a task has seen end. So it
tells from time to time, and numbers of streams that are gone are nobody's to remember one by one
(docs/protocol.md 7).
"""

from collections.abc import Collection, Iterable, Iterator

from workers.intervals import IntervalSet

__all__ = ["Over"]


class Over:
    """`numbers` are those that were told. `is_stale`: a stream is over since that was not told."""

    def __init__(self) -> None:
        self.numbers = IntervalSet()
        self.is_stale = False
        self._told_at: float | None = None
        self._lost: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number in self.numbers

    def resume(self, lost: Iterable[int]) -> None:
        """Behind a checkpoint all is told again. Streams that are `lost` have yet to be killed."""
        self._lost = set(lost)
        self.is_stale = True

    @property
    def n_lost(self) -> int:
        """Streams that nobody has here, and whose KILL is on its way."""
        return len(self._lost)

    def killed(self, number: int) -> None:
        """The KILL of a stream was read that nobody has here."""
        self._lost.discard(number)
        self.is_stale = True

    def is_due(self, now: float, every_s: float) -> bool:
        """Whether there is something to tell, and the last time is long enough ago."""
        if self._told_at is None:
            self._told_at = now
        if not self.is_stale or now - self._told_at < every_s:
            return False
        self._told_at = now
        self.is_stale = False
        return True

    def runs(self, alive: Collection[int], stop: int) -> Iterator[tuple[int, int]]:
        """Runs of numbers below `stop` that are over, as far as they grew; they are told now."""
        lo = 0
        told = IntervalSet(self.numbers.intervals())
        for number in sorted((*alive, *self._lost, stop)):
            if not told.covers(lo, number):
                self.numbers.add_range(lo, number)
                yield lo, number
            lo = number + 1
