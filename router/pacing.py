"""How far a publisher may run ahead of ingest, so that the broker drops nothing unread. Pure.

Kafka keeps a topic's newest bytes, read or not. Ingest limits what it has in flight, so its input
waits in the topic (PROTOCOL 18): who publishes faster than it reads has to wait as well. The
gateway tells its clients so with a 429; a publisher that knows how far ingest has read can simply
wait.
"""

from collections import deque

__all__ = ["Pacer"]


class Pacer:
    """Bytes that one publisher has sent and ingest has not read, per partition.

    `limit` is the most of them in one partition; None: any. A record that is larger alone may be
    sent when nothing is unread.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._unread: dict[int, int] = {}
        self._written: dict[int, deque[tuple[int, int]]] = {}

    def must_wait(self, partition: int, n_bytes: int) -> bool:
        """Whether so many more bytes are too many now."""
        unread = self._unread.get(partition, 0)
        return self._limit is not None and unread > 0 and unread + n_bytes > self._limit

    def sent(self, partition: int, n_bytes: int) -> None:
        """A record is on its way."""
        self._unread[partition] = self._unread.get(partition, 0) + n_bytes

    def written(self, partition: int, offset: int, n_bytes: int) -> None:
        """It lies at `offset`; offsets of a partition come in their order."""
        self._written.setdefault(partition, deque()).append((offset, n_bytes))

    def failed(self, partition: int, n_bytes: int) -> None:
        """It was not acknowledged."""
        self._unread[partition] -= n_bytes

    def read(self, partition: int, offset: int) -> None:
        """Ingest will read `offset` next."""
        written = self._written.get(partition, deque())
        while written and written[0][0] < offset:
            self._unread[partition] -= written.popleft()[1]
