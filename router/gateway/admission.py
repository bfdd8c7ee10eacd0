"""How much may be in flight at once, and how long a client that is refused should wait. Pure.

Time comes in as seconds of any clock that does not go back.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Final

from router.gateway.errors import TooBusy

__all__ = ["Admission"]

_RATE_WINDOW_S: Final = 10.0
_LONGEST_WAIT_S: Final = 60


class Admission:
    """Counts samples and bytes in flight, and the rate at which samples are answered.

    `max_samples` and `max_bytes` bound what is in flight over all partitions; the bytes are those
    of the records, so that unread input stays within what the broker keeps (PROTOCOL 18).
    """

    def __init__(self, max_samples: int, max_bytes: int) -> None:
        self.max_samples = max_samples
        self.max_bytes = max_bytes
        self.samples = 0
        self.n_bytes = 0
        self._answered: deque[tuple[float, int]] = deque()

    def rate(self, now: float) -> float:
        """Samples answered per second, lately; 0.0 when none were."""
        while self._answered and self._answered[0][0] < now - _RATE_WINDOW_S:
            self._answered.popleft()
        if not self._answered:
            return 0.0
        span = max(now - self._answered[0][0], 1.0)
        return sum(n for _, n in self._answered) / span

    def check(self, n: int, n_bytes: int, now: float) -> None:
        """Raises TooBusy unless so much more fits. What is larger than everything fits alone."""
        over_samples = self.samples + n - self.max_samples
        over_bytes = self.n_bytes + n_bytes - self.max_bytes
        if not (self.samples or self.n_bytes) or (over_samples <= 0 and over_bytes <= 0):
            return
        share = min(1.0, max(0, over_bytes) / max(1, self.n_bytes))
        n_to_wait_for = max(over_samples, ceil(self.samples * share))
        wait = self.retry_after(n_to_wait_for, now)
        raise TooBusy(
            f"{self.samples} samples ({self.n_bytes} bytes) are in flight; the most are "
            f"{self.max_samples} ({self.max_bytes} bytes): try again in {wait} s.",
            wait,
        )

    def check_room(self, now: float) -> None:
        """Raises TooBusy when nothing more fits, whatever it is: before a body is even parsed."""
        if self.samples >= self.max_samples or self.n_bytes >= self.max_bytes:
            self.check(1, 1, now)

    def retry_after(self, n: int, now: float) -> int:
        """Whole seconds until `n` samples will have been answered at the present rate."""
        rate = self.rate(now)
        return min(_LONGEST_WAIT_S, max(1, ceil(n / rate))) if rate > 0 else 1

    @contextmanager
    def hold(self, n: int, n_bytes: int) -> Iterator[None]:
        """So much is in flight meanwhile."""
        self.samples += n
        self.n_bytes += n_bytes
        try:
            yield
        finally:
            self.samples -= n
            self.n_bytes -= n_bytes

    def answered(self, n: int, now: float) -> None:
        """So many samples were answered just now."""
        self._answered.append((now, n))
        self.rate(now)
