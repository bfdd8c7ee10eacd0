"""Micro-batches: which windows are stepped together, and what follows on what. Pure.

What a stream's payloads and state *are* is not decided here but by `Compute`: the protocol is the
same for every operator and every backend. Numbers such as (11) point to docs/protocol.md.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from workers.spec import Place
from workers.streams import Held, Stream
from workers.tenant import Limits
from workers.turns import SHARED_BATCH, fair_batch

__all__ = ["Compute", "Outcome", "Window", "Work", "micro_batch", "run_rounds"]

_MOST_WINDOWS: Final = 64
"""Windows that the later rounds of a micro-batch fill it up to."""


class Window(NamedTuple):
    """One window of one stream, ready to be applied.

    `inputs[i]` are the batches of source i that cover steps `[start - D, stop - D)`, D its delay.
    `state` is None before the first window.
    """

    stream: Stream
    place: Place
    window: int
    start: int
    stop: int
    end: bool
    seed: int
    state: Any
    inputs: tuple[tuple[Held, ...], ...]


class Work(NamedTuple):
    """Windows of different streams with equally many steps, to be stepped together.

    `later` holds windows that follow on these, of the same streams or some of them: a stream that
    catches up goes many windows at once. Their `state` is not known yet.
    """

    n_steps: int
    windows: tuple[Window, ...]
    later: "tuple[Work, ...]" = ()

    @property
    def rounds(self) -> "tuple[Work, ...]":
        """This, and what follows on it."""
        return (self, *self.later)

    @property
    def shares(self) -> Counter[Hashable]:
        """Windows per set of networks that they are for."""
        return Counter(w.stream.routes for each in self.rounds for w in each.windows)

    @property
    def hand(self) -> str:
        """What a suspicious owner names before it steps: its first stream and window (28)."""
        first = self.windows[0]
        return f"{first.stream.field}#{first.window}"


Outcome: TypeAlias = tuple[bytes, Any] | Exception
"""Payload and new state of a window; an exception when it cannot be computed."""


class Compute(Protocol):
    """The numbers behind a task. All methods are pure; `run` is called on a thread."""

    def run(self, work: Work) -> list[Outcome]:
        """What becomes of each of `work.windows`, in their order."""
        ...

    def freeze(self, state: Any) -> list[bytes]: ...
    def thaw(self, frozen: list[bytes]) -> Any: ...


def micro_batch(ready: Collection[Stream], limits: Limits, is_shared: bool) -> Work:
    """The next windows of streams that are ready, at least one, and what these have ready beyond.

    In a task that several networks share, a micro-batch is small and holds as many of each: a
    flood delays nobody else.
    """
    streams = fair_batch(ready, lambda stream: stream.routes) if is_shared else ready
    first = _round(streams, 0, limits.max_batch)
    return first._replace(later=_later(first, limits, is_shared))


def run_rounds(compute: Compute, work: Work) -> list[list[Outcome]]:
    """What becomes of each window of each round."""
    found = [compute.run(work)]
    for before, work_on in pairwise(work.rounds):
        after = dict(zip((w.stream for w in before.windows), found[-1], strict=True))
        found.append(_go_on(compute, work_on, after))
    return found


def _round(streams: Iterable[Stream], ahead: int, most: int) -> Work:
    """Windows `ahead` of the next ones, as many as may be stepped together."""
    windows: list[Window] = []
    n_steps = -1
    for stream in streams:
        head = stream.inbox[stream.place.first][ahead]
        if n_steps < 0:
            n_steps = head.stop - head.start
        elif head.stop - head.start != n_steps:
            continue
        windows.append(_window(stream, ahead))
        if len(windows) == most:
            break
    return Work(n_steps, tuple(windows))


def _later(first: Work, limits: Limits, is_shared: bool) -> tuple[Work, ...]:
    """What the streams of a round have ready beyond it. None where several networks share it: each
    would wait for the windows of the other's."""
    if is_shared and len({w.stream.routes for w in first.windows}) > 1:
        return ()
    room = (SHARED_BATCH if is_shared else _MOST_WINDOWS) - len(first.windows)
    rounds: list[Work] = []
    streams = [w.stream for w in first.windows]
    for ahead in range(1, limits.most_ahead + 1):
        streams = [s for s in streams if s.is_ready(ahead)]
        if not streams or room <= 0:
            break
        rounds.append(_round(streams, ahead, room))
        streams = [w.stream for w in rounds[-1].windows]
        room -= len(streams)
    return tuple(rounds)


def _window(stream: Stream, ahead: int) -> Window:
    place = stream.place
    head = stream.inbox[place.first][ahead]
    inputs = tuple(
        (held[ahead],) if not delay else _covering(held, head.start - delay, head.stop - delay)
        for delay, held in zip(place.delays, stream.inbox, strict=True)
    )
    state = None if ahead else stream.state
    return Window(
        stream, place.spec, stream.window + ahead, head.start, head.stop, head.end, stream.seed,
        state, inputs,
    )  # fmt: skip


def _covering(held: Iterable[Held], start: int, stop: int) -> tuple[Held, ...]:
    """The batches with a step in `[start, stop)`."""
    return tuple(h for h in held if h.start < stop and h.stop > start)


def _go_on(compute: Compute, work: Work, after: Mapping[Stream, Outcome]) -> list[Outcome]:
    """Step windows from the states that the windows before left; what failed stays failed."""
    came = [after[window.stream] for window in work.windows]
    going = tuple(
        window._replace(state=before[1])
        for window, before in zip(work.windows, came, strict=True)
        if not isinstance(before, Exception)
    )
    stepped = iter(compute.run(Work(work.n_steps, going)) if going else ())
    return [before if isinstance(before, Exception) else next(stepped) for before in came]
