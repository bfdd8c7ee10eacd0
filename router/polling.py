"""How long a fetch may wait at a broker that answers late. Pure.

The embedded broker answers a fetch without data only when its wait is over, and data that comes
meanwhile with the next one. A short wait costs many fetches, a long one delays what comes. Where
records come in a rhythm, sixteen fetches from one to the next are enough: the delay is a
thirty-second of the rhythm, and rare groups of many records do not cost more fetches than frequent
groups of few. Real brokers answer at once, and the wait is long as it is: there it stays.
"""

from typing import Final

__all__ = ["Pace"]

_FETCHES: Final = 16  # from one group of records to the next
_SHORTEST: Final = 0.5  # times the wait without a rhythm
_LONGEST_MS: Final = 8
_SMOOTH: Final = 0.2
_IDLE: Final = 8.0  # after so many gaps without a record the rhythm is over


class Pace:
    """Learns the rhythm in which records come; times are seconds of a clock that never goes back.

    `idle_ms` is the wait while there is no rhythm: a lone request must not wait longer.
    """

    def __init__(self, idle_ms: int) -> None:
        self._idle_ms = idle_ms
        self._shortest_ms = max(1, int(_SHORTEST * idle_ms))
        self._gap_ms = 0.0
        self._last: float | None = None

    def wait_ms(self, now: float, found: bool) -> int:
        """The wait of the next fetches, after one that found records at `now`, or none."""
        if self._last is None:
            self._last = now if found else None
            return self._idle_ms
        passed = (now - self._last) * 1000
        if found:
            self._last = now
            known = self._gap_ms or passed
            self._gap_ms = known + _SMOOTH * (min(passed, _IDLE * known) - known)
        elif passed > _IDLE * self._gap_ms:
            self._gap_ms, self._last = 0.0, None
            return self._idle_ms
        best = int(self._gap_ms / _FETCHES)
        return min(max(best, self._shortest_ms), max(_LONGEST_MS, self._idle_ms))
