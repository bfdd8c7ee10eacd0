"""What the last commit of a task stands for, and what has to wait for the next one. Pure."""

from collections.abc import Mapping

from workers.reading import Reading
from workers.snapshot import Snapshot

__all__ = ["Commits"]


class Commits:
    """Numbers in brackets point to the rules of docs/protocol.md."""

    def __init__(self, uncommitted_bytes: int) -> None:
        self._limit = uncommitted_bytes
        self._n_outputs = 0
        self._n_bytes = 0
        self._offsets: dict[str, int] = {}
        self._awaited = 0
        self._floor: dict[str, int] = {}

    # ---- restoring ----------------------------------------------------------------------------

    def expect(self, positions: Mapping[str, int]) -> None:
        """The store says that records up to here were committed, whatever head can be read (24)."""
        self._floor = dict(positions)

    def restored(self, offsets: Mapping[str, int]) -> None:
        """A head with these offsets was taken over: it need not be written again."""
        self._offsets = dict(offsets)

    # ---- what waits for the next commit -------------------------------------------------------

    def await_outputs(self, n_outputs: int) -> None:
        """Step nothing before a commit stands for so many outputs: the next one may kill (28)."""
        self._awaited = n_outputs

    @property
    def is_awaited(self) -> bool:
        return self._n_outputs < self._awaited

    def is_full(self, reading: Reading) -> bool:
        """Too much read since the committed positions: apply no more before a commit (19)."""
        return reading.n_bytes - self._n_bytes > self._limit

    def is_behind(self, reading: Reading) -> bool:
        """Whether the head was older, or gone, and the committed positions lie ahead (24)."""
        if self._floor:
            self._floor = {t: at for t, at in self._floor.items() if reading.offset(t) < at}
        return bool(self._floor)

    # ---- commits ------------------------------------------------------------------------------

    def lacks(self, offsets: Mapping[str, int]) -> bool:
        """Whether records were read that the last commit does not stand for."""
        return offsets != self._offsets

    def committed(self, snapshot: Snapshot) -> None:
        """The store has taken it."""
        self._n_outputs = snapshot.n_outputs
        self._n_bytes = snapshot.n_bytes_read
        self._offsets = dict(snapshot.positions)
