"""A set of integers that are added almost in order, kept as half-open intervals.

Ended streams are remembered for ever (PROTOCOL 7); their numbers are dense, so the memory taken
grows with the number of *gaps*, that is with open streams, and not with time.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["IntervalSet"]


class IntervalSet:
    """Integers in sorted, disjoint, non-touching intervals `[lo, hi)`."""

    __slots__ = ("_hi", "_lo")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        pairs = sorted(intervals)
        self._lo = [lo for lo, _ in pairs]
        self._hi = [hi for _, hi in pairs]

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self._lo, value) - 1
        return at >= 0 and value < self._hi[at]

    def __len__(self) -> int:
        """How many intervals there are: the memory taken, not the number of members."""
        return len(self._lo)

    def add(self, value: int) -> None:
        lo, hi = self._lo, self._hi
        at = bisect_right(lo, value) - 1
        if at >= 0 and value <= hi[at]:
            if value < hi[at]:
                return
            hi[at] = value + 1
        else:
            at += 1
            lo.insert(at, value)
            hi.insert(at, value + 1)
        if at + 1 < len(lo) and lo[at + 1] == hi[at]:
            hi[at] = hi.pop(at + 1)
            lo.pop(at + 1)

    def discard(self, value: int) -> None:
        """Take a member out, if it is one."""
        if value not in self:
            return
        lo, hi = self._lo, self._hi
        at = bisect_right(lo, value) - 1
        if value > lo[at]:
            lo.insert(at + 1, value + 1)
            hi.insert(at, value)
            at += 1
        else:
            lo[at] += 1
        if lo[at] == hi[at]:
            del lo[at], hi[at]

    def members(self) -> Iterator[int]:
        for lo, hi in zip(self._lo, self._hi, strict=True):
            yield from range(lo, hi)

    def add_range(self, lo: int, hi: int) -> None:
        """Add all of `[lo, hi)`."""
        if lo >= hi:
            return
        first, last = bisect_left(self._hi, lo), bisect_right(self._lo, hi)
        if first < last:  # those that it touches become one with it
            lo, hi = min(lo, self._lo[first]), max(hi, self._hi[last - 1])
        self._lo[first:last] = [lo]
        self._hi[first:last] = [hi]

    def drop_below(self, value: int) -> None:
        """Forget the members below `value`."""
        gone = bisect_right(self._hi, value)
        del self._lo[:gone], self._hi[:gone]
        if self._lo and self._lo[0] < value:
            self._lo[0] = value

    def covers(self, lo: int, hi: int) -> bool:
        """Whether all of `[lo, hi)` is in the set."""
        at = bisect_right(self._lo, lo) - 1
        return lo >= hi or (at >= 0 and hi <= self._hi[at])

    def minus(self, other: "IntervalSet") -> "IntervalSet":
        """The members that are not in `other`."""
        found: list[tuple[int, int]] = []
        for lo, hi in self.intervals():
            for at in range(bisect_right(other._hi, lo), len(other._lo)):
                if other._lo[at] >= hi:
                    break
                if lo < other._lo[at]:
                    found.append((lo, other._lo[at]))
                lo = other._hi[at]
            if lo < hi:
                found.append((lo, hi))
        return IntervalSet(found)

    def intervals(self) -> list[tuple[int, int]]:
        return list(zip(self._lo, self._hi, strict=True))
