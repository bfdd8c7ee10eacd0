"""What an ingest has sent and results have not confirmed. Pure.

A small micro-batch costs every task on its way as much as one window does: most of that is
messages. So the next windows gather while one is on its way, as small packets do in TCP (Nagle
1984, RFC 896), and while two are, where they are large and computing is what takes the time. Under
load micro-batches grow instead of queues, and a lone request waits for nothing.
"""

from collections import deque
from typing import Final

__all__ = ["Flight"]

_SMALL: Final = 16
"""Windows of a micro-batch that costs less to compute than to send."""


class Flight:
    """Windows and bytes on their way, and the sizes of the micro-batches they were sent in.

    Results come nearly in the order of the windows: a micro-batch counts as confirmed when as many
    windows are as were sent up to its end.
    """

    def __init__(self) -> None:
        self.n_bytes = 0
        self._sizes: deque[int] = deque()
        self._landed = 0  # windows of the first micro-batch

    @property
    def n_batches(self) -> int:
        """Micro-batches on their way."""
        return len(self._sizes)

    @property
    def is_crowded(self) -> bool:
        """Whether the next windows had better wait for each other."""
        return self.n_batches > 1 or (self.n_batches == 1 and self._sizes[0] < _SMALL)

    def depart(self, n_windows: int, n_bytes: int) -> None:
        """A micro-batch was sent."""
        self.n_bytes += n_bytes
        if n_windows:
            self._sizes.append(n_windows)
        self._forget()

    def land(self, n_windows: int, n_bytes: int) -> None:
        """Windows were confirmed, or their streams have ended."""
        self.n_bytes -= n_bytes
        self._landed += n_windows
        self._forget()

    def _forget(self) -> None:
        while self._sizes and self._landed >= self._sizes[0]:
            self._landed -= self._sizes.popleft()
