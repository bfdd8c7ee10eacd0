"""What results say of streams whose input records are still to be read again. Pure.

An ingest that lost its checkpoint replays its input, and reads the results meanwhile. Streams that
are final are kept as intervals: a long log holds many of them.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Self

from workers.flow import FINAL
from workers.intervals import IntervalSet

__all__ = ["Early"]


class Early:
    """Levels of confirmation by number and network."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[str, int]] = {}
        self._final: dict[str, IntervalSet] = {}

    def confirm(self, number: int, network: str, level: int) -> None:
        """Windows below `level` are confirmed by the network."""
        if level < FINAL:
            known = self._levels.setdefault(number, {})
            known[network] = max(level, known.get(network, 0))
        else:
            self._final.setdefault(network, IntervalSet()).add(number)

    def levels(self, number: int, networks: Iterable[str]) -> Iterator[tuple[str, int]]:
        """What is known of a stream that begins: network and level."""
        yield from self._levels.get(number, {}).items()
        yield from ((n, FINAL) for n in networks if n in self._final and number in self._final[n])

    def began(self, number: int) -> None:
        """The stream is numbered: from now on it is asked itself."""
        self._levels.pop(number, None)
        for network, numbers in list(self._final.items()):
            numbers.drop_below(number + 1)
            if not len(numbers):
                del self._final[network]

    # ---- checkpoint ---------------------------------------------------------------------------

    def freeze(self) -> list[Any]:
        """All of it, as msgpack can write it."""
        return [self._levels, {n: k.intervals() for n, k in self._final.items()}]

    @classmethod
    def thaw(cls, frozen: list[Any]) -> Self:
        """What `freeze` wrote."""
        early = cls()
        early._levels, final = frozen
        early._final = {n: IntervalSet((lo, hi) for lo, hi in pairs) for n, pairs in final.items()}
        return early
