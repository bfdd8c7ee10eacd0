"""What a task remembers of a stream, and of a place of its in a network. Pure.

Numbers such as (7) point to the rules of docs/protocol.md.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Self, TypeAlias

from router.topics import spikes_topic
from router.wire import Batch, StreamId
from workers.intervals import IntervalSet
from workers.spec import Place

__all__ = [
    "Held",
    "Key",
    "PlaceState",
    "Remembered",
    "Stream",
    "parse_field",
    "stream_field",
]

_NEVER: Final = 1 << 62
"""A step after every step: what is known of a source that has ended."""

Key: TypeAlias = tuple[str, StreamId]
"""Node and stream."""


class Held(NamedTuple):
    """A batch in the inbox."""

    window: int
    start: int
    stop: int
    end: bool
    payload: bytes


def stream_field(node: str, stream: StreamId) -> str:
    """The name under which the store keeps a stream's references."""
    return f"{node}/{stream.era}/{stream.number}"


class Remembered(NamedTuple):
    """What a head holds of a place, read; `open` are the streams whose state is beside it."""

    era: int
    ended: IntervalSet
    killed: dict[str, IntervalSet]
    over: IntervalSet
    open: IntervalSet

    @classmethod
    def read(cls, frozen: list[Any]) -> Self:
        """What `PlaceState.freeze` gave."""
        era, ended, killed, over, opened = frozen
        each = {n: _set(pairs) for n, pairs in killed.items()}
        return cls(era, _set(ended), each, _set(over), _set(opened))


def _set(pairs: list[Any]) -> IntervalSet:
    return IntervalSet((lo, hi) for lo, hi in pairs)


def parse_field(field: str) -> Key | None:
    """What `stream_field` wrote, read back; None for what it writes for nobody."""
    node, *numbers = field.rsplit("/", 2)
    if len(numbers) < 2 or not all(n.isascii() and n.isdecimal() for n in numbers):
        return None
    key = (node, StreamId(*map(int, numbers)))
    return key if stream_field(*key) == field else None


class PlaceState:
    """What is remembered per node: the current era, and which of its numbers ended (7, 17).

    `over` are numbers that ingest told to be over, also those that never came here; they are among
    `ended`. A checkpoint holds the state of each stream that is `open` (24).
    """

    __slots__ = ("delays", "ended", "era", "first", "killed", "open", "over", "spec", "spikes")

    def __init__(self, spec: Place, operator: str) -> None:
        self.spec = spec
        self.era = 0
        self.ended = IntervalSet()
        self.open = IntervalSet()
        self.killed: dict[str, IntervalSet] = {}
        self.over = IntervalSet()
        self.spikes = spikes_topic(operator)
        self.delays = tuple(s.delay for s in spec.sources)
        self.first = self.delays.index(0)

    def begin(self, era: int) -> None:
        """Nothing is known of a new era."""
        self.era = era
        self.ended, self.over, self.killed = IntervalSet(), IntervalSet(), {}
        self.open = IntervalSet()

    def tell_over(self, lo: int, hi: int) -> bool:
        """All numbers in `[lo, hi)` are over; whether that is news.

        Kills of numbers that were over before are forgotten only now: what is told goes several
        ways, and a KILL that goes round a loop must be known when it comes back.
        """
        if self.over.covers(lo, hi):
            return False
        left = {n: k.minus(self.over) for n, k in self.killed.items()}
        self.killed = {n: k for n, k in left.items() if k}
        self.over.add_range(lo, hi)
        self.ended.add_range(lo, hi)
        return True

    def freeze(self) -> list[Any]:
        """What a head holds of it."""
        killed = {n: k.intervals() for n, k in self.killed.items()}
        over, opened = self.over.intervals(), self.open.intervals()
        return [self.era, self.ended.intervals(), killed, over, opened]

    def thaw(self, frozen: "Remembered") -> None:
        """Take it over; a stream is open when its own state was taken over, too."""
        self.era, self.ended, self.killed, self.over, _ = frozen

    def unkilled(self, networks: Iterable[str], number: int) -> frozenset[str]:
        """Those of `networks` that have a place here and have not killed the stream."""
        mine = self.spec.networks.intersection(networks)
        if not self.killed:
            return mine
        return frozenset(n for n in mine if n not in self.killed or number not in self.killed[n])


class Stream:
    """One stream at one place. The only cursor is `window`, the next one to apply (11).

    Per source: `expect`, the next window to come; `known`, the step up to which all is here; and
    `inbox`, what came and is still to be applied.
    """

    __slots__ = (
        "abort", "expect", "id", "inbox", "key", "known", "name", "networks", "place", "routes",
        "seed", "state", "step", "window",
    )  # fmt: skip

    def __init__(
        self, place: PlaceState, sid: StreamId, name: str, seed: int, networks: frozenset[str]
    ) -> None:
        n = len(place.spec.sources)
        self.place = place
        self.id = sid
        self.key: Key = (place.spec.node, sid)
        self.name = name
        self.seed = seed
        self.route(networks)
        self.window = 0
        self.step = 0
        self.state: Any = None
        self.expect = [0] * n
        self.known = [0] * n
        self.inbox: list[deque[Held]] = [deque() for _ in range(n)]
        self.abort: tuple[int, str] | None = None

    @property
    def field(self) -> str:
        return stream_field(*self.key)

    def route(self, networks: frozenset[str]) -> None:
        self.networks = networks
        self.routes = tuple(sorted(networks))

    def hold(self, source: int, batch: Batch) -> None:
        """Put the next batch of a source into its inbox."""
        self.expect[source] = batch.window + 1
        self.known[source] = _NEVER if batch.end else batch.stop
        payload = bytes(batch.payload)
        held = Held(batch.window, batch.start, batch.stop, batch.end, payload)
        self.inbox[source].append(held)

    def is_ready(self, ahead: int = 0) -> bool:
        """Whether the window `ahead` of the next one is there from every source (11)."""
        place = self.place
        inbox = self.inbox
        for delay, held in zip(place.delays, inbox, strict=True):
            if not delay and len(held) <= ahead:
                return False
        if self.abort is not None and self.abort[0] <= self.window + ahead:
            return False
        stop = inbox[place.first][ahead].stop
        return all(
            known >= stop - delay
            for delay, known in zip(place.delays, self.known, strict=True)
            if delay
        )

    def advance(self, stop: int, state: Any) -> None:
        """The next window, which ends at step `stop`, was applied and left `state`."""
        self.window += 1
        self.step = stop
        self.state = state
        for delay, held in zip(self.place.delays, self.inbox, strict=True):
            if not delay:
                held.popleft()
            else:
                while held and held[0].stop <= stop - delay:
                    held.popleft()

    def lacks(self) -> bool:
        """Whether a source is behind the others, in a stream that cannot go on."""
        if self.abort is not None:
            return True
        return any(
            held and (not delay or not self.window)
            for delay, held in zip(self.place.delays, self.inbox, strict=True)
        )

    def hears(self, topic: str) -> bool:
        """Whether a source of this topic has not ended the stream yet."""
        sources = zip(self.place.spec.sources, self.known, strict=True)
        return any(spikes_topic(s.operator) == topic and known < _NEVER for s, known in sources)
