"""Which era an ingest counts in: what the ERA records of its log mean (docs/protocol.md 1). Pure.

The log is scanned to the end that it had at the claim. A whole one that holds a current era is
replayed from that era on; otherwise an ERA is asked for and awaited, and counting begins behind it.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Literal

from router.records import Era

__all__ = ["Eras", "Fresh", "Step"]


@dataclass(frozen=True)
class Fresh:
    """What a claim without a checkpoint starts from: the log as it is, and a random era.

    Records below `begin` are those of networks that were removed before (31): nothing is lost when
    they are gone, and nothing is replayed while they are there.
    """

    era: int
    log_start: int
    log_end: int
    begin: int = 0

    @property
    def start(self) -> int:
        """The first offset to read."""
        return max(self.log_start, self.begin)

    @property
    def is_truncated(self) -> bool:
        """Whether records that count are gone."""
        return self.log_start > self.begin


class Step(Enum):
    """What an ingest is to do next: append what `ask` makes, number from where `adopt` says, or
    pass over an ERA that a zombie wrote."""

    READ_ON = auto()
    ASK = auto()
    ADOPT = auto()
    PASS_OVER = auto()


class Eras:
    """The eras of one log, as far as it was read. `era` is the one that counts, 0 before the first;
    `predecessor` is the one before it, 0 when there was none; `max_streams` is what the log says of
    the one that counts (32)."""

    def __init__(self, fresh: Fresh) -> None:
        self.era = 0
        self.predecessor = 0
        self.max_streams: int | None = None
        self._fresh = fresh
        self._phase: Literal["scan", "await", "serve"] = "scan"
        self._seen = Era(0, 0, ())
        self._seen_at = -1
        self._is_stale = False  # what was seen: it names other networks than the ROUTE before it
        self._routed: tuple[str, ...] | None = None  # by the last ROUTE while no era was current
        self._asked = 0

    @property
    def is_serving(self) -> bool:
        """Whether an era is current, and records are numbered in it."""
        return self._phase == "serve"

    @property
    def is_scanning(self) -> bool:
        """Whether the log has yet to be read to the end that it had at the claim."""
        return self._phase == "scan"

    @property
    def seen_at(self) -> int:
        """The offset of the last ERA that is valid, adopted or not; -1 before the first."""
        return self._seen_at

    @property
    def has_lost_input(self) -> bool:
        """Whether records may have been numbered that cannot be numbered again."""
        return self.era > 0 or self._fresh.is_truncated

    @property
    def start(self) -> int:
        """The first offset to read while there is no era."""
        return self._fresh.start

    def resume(self, era: int, predecessor: int, max_streams: int | None = None) -> None:
        """Go on in the era of a checkpoint."""
        self.era, self.predecessor, self.max_streams = era, predecessor, max_streams
        self._phase = "serve"

    def route(self, networks: tuple[str, ...]) -> None:
        """A ROUTE was read while no era was current: the next one is to name its networks."""
        self._routed = networks

    def read(self, said: Era, offset: int) -> Step:
        """An ERA was read. One that does not follow on the current era is a zombie's."""
        current = self._current
        if said.era == current:
            return Step.READ_ON
        is_scanning = self._phase == "scan"
        first_of_truncated = current == 0 and is_scanning and self._fresh.is_truncated
        follows = said.predecessor == current and said.era > current
        if not (follows or first_of_truncated):
            return Step.PASS_OVER
        self._seen, self._seen_at = said, offset
        self._is_stale = self._routed is not None and set(self._routed) != set(said.networks)
        if is_scanning:
            return Step.READ_ON
        is_wrong = self._began_before(said) or self._is_superseded()
        return Step.ASK if is_wrong else Step.ADOPT

    def read_to(self, offset: int) -> Step:
        """The log was read up to `offset`. One that was scanned to its end is replayed if it is
        whole, and starts anew if it is truncated."""
        if self._phase != "scan" or offset < self._fresh.log_end:
            return Step.READ_ON
        is_whole = self._seen.era and not self._fresh.is_truncated
        return Step.ADOPT if is_whole and not self._is_superseded() else Step.ASK

    def truncated(self, log_start: int) -> Step:
        """Records below `log_start` are gone: among them may be an ERA that was asked for."""
        log_end = max(log_start, self._fresh.log_end)
        self._fresh = replace(self._fresh, log_start=log_start, log_end=log_end)
        return self.read_to(log_start) if self._phase == "scan" else Step.ASK

    def ask(
        self, networks: frozenset[str], max_streams: int | None = None, routed_by: int = 0
    ) -> Era:
        """The ERA to append, for `networks` unless a ROUTE that it is to come after is in the log:
        what that says must stay true. `routed_by` is the key of that ROUTE (35)."""
        self._phase = "await"
        predecessor = self._current
        self._asked = max(self._fresh.era, predecessor + 1, self._asked + 1)
        named = networks if self._routed is None else self._routed
        return Era(self._asked, predecessor, tuple(sorted(named)), routed_by, max_streams)

    def adopt(self) -> tuple[tuple[str, ...], int, int]:
        """Count in the era that was seen last; its networks, the key of the ROUTE that it follows,
        and the offset of its first record: behind the ERA, or where the log begins if it is the
        very first one: there every ROUTE is read again."""
        seen = self._seen
        self.resume(seen.era, seen.predecessor, seen.max_streams)
        self._routed = None
        if self._is_first():
            return seen.networks, 0, self._fresh.begin
        return seen.networks, seen.routed_by, self._seen_at + 1

    @property
    def _current(self) -> int:
        """The last era that is valid, adopted or not: one that is superseded has a successor."""
        return max(self.era, self._seen.era)

    def _began_before(self, said: Era) -> bool:
        """Whether the era may count from records that this ingest never saw: the log is truncated,
        and who asked for its very first era may have seen it whole, if it was not asked for here,
        or before that was known."""
        is_first = said.predecessor == 0 and self.era == 0
        return is_first and self._fresh.is_truncated and said.era != self._asked

    def _is_first(self) -> bool:
        """Whether the era that was seen counts from the beginning, and all that is there."""
        return self._seen.predecessor == 0 and not self._fresh.is_truncated

    def _is_superseded(self) -> bool:
        """Whether another era must follow the one that was seen, which names the wrong networks. A
        first one is not asked: the ROUTE before it is read again."""
        return self._is_stale and not self._is_first()
