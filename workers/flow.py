"""One open stream of an input: what its records have said, and the windows cut from that. Pure.

All of it follows from the input topic, but for `networks`, `sent`, `confirmed`, `final`, `doomed`.
"""

from bisect import bisect_left, insort
from collections import deque
from itertools import chain, count
from typing import Any, Final, NamedTuple, Self

from router.records import Data, RecordError, encode_record, parse_record

__all__ = ["FINAL", "Content", "Cut", "Event", "Flow", "Piece", "cost_of_held"]

_MAX_HELD: Final = 64
"""Records of one stream that may arrive ahead of their sequence number."""
_MAX_HELD_BYTES: Final = 1024 * 1024
"""Bytes of such records, beyond the first: all of them stand in each checkpoint of the stream."""
_RECORD_BYTES: Final = 200
"""Bytes of a record beside what it says: one that says nothing is held as well."""

FINAL = 1 << 62
"""The level of confirmation of a network that has ended the stream."""


class Piece(NamedTuple):
    """Input values of one record: a sample or a spike payload for steps `[start, stop)`."""

    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...] | None
    payload: bytes


Event = tuple[int, int, int]
"""(step, address, value)."""


class Cut(NamedTuple):
    """A window of a stream, cut from records and not yet sent."""

    window: int
    start: int
    stop: int
    end: bool
    pieces: tuple[Piece, ...]
    events: tuple[Event, ...]

    @property
    def n_steps(self) -> int:
        return self.stop - self.start


class Content(NamedTuple):
    """What a record says: all steps below `known` are said with it; `late` events came too late,
    and `waiting` ones are of steps that are not said in full, with those that wait already."""

    pieces: tuple[Piece, ...]
    events: tuple[Event, ...]
    known: int
    late: int
    waiting: int


class Flow:
    """One open stream. `networks` are those it goes to, `routes` the same in order.

    `lasting` are those in which the log has not ended it: networks that were removed meanwhile are
    among them, so that a replay knows as well as the first reader how many streams are open (32).
    """

    __slots__ = (
        "confirmed", "cuts", "done", "doomed", "end", "events", "final", "held", "known", "lasting",
        "n_cut", "name", "networks", "next_seq", "number", "pieces", "routes", "said_at", "seed",
        "sent", "since", "step",
    )  # fmt: skip

    def __init__(self, number: int, name: str, networks: frozenset[str], seed: int) -> None:
        self.number = number
        self.name = name
        self.seed = seed
        self.known = 0  # steps that have been said in full
        self.step = 0  # steps that have been cut
        self.n_cut = 0
        self.end = False  # no more records
        self.done = False  # the last window is cut
        self.doomed = False  # its KILL is on the way: nothing more is sent
        self.next_seq = 0
        self.held: dict[int, Data] = {}
        self.pieces: list[Piece] = []  # of the record that is being cut
        self.events: list[Event] = []
        self.cuts: deque[Cut] = deque()
        self.sent: deque[tuple[int, int]] = deque()  # (window, bytes), not confirmed yet
        self.confirmed: dict[str, int] = {}
        self.final: frozenset[str] = frozenset()
        self.since = 0.0
        self.lasting = networks
        self.said_at = -1  # offset of its last record
        self.route(networks)

    def route(self, networks: frozenset[str]) -> None:
        """Go to these networks from now on."""
        self.networks = networks
        self.routes = tuple(sorted(networks))

    # ---- records ------------------------------------------------------------------------------

    def hold(self, seq: int, data: Data) -> None:
        """Keep a record that came ahead of its sequence number. Raises RecordError for too many."""
        n_bytes = _size(data) + sum(map(_size, self.held.values())) if self.held else 0
        if len(self.held) >= _MAX_HELD or n_bytes > _MAX_HELD_BYTES:
            raise RecordError(
                f"stream {self.name} waits for seq {self.next_seq}; at most {_MAX_HELD} records,"
                f" or {_MAX_HELD_BYTES} bytes, may run ahead of it, so seq {seq} is refused: send"
                " it again later"
            )
        self.held[seq] = data

    @property
    def held_bytes(self) -> int:
        """What the records take that are held, in bytes."""
        return sum(map(cost_of_held, self.held.values()))

    def read(self, data: Data, n_steps: int, period: int | None) -> Content:
        """What a record says beyond what is known; nothing changes.

        `n_steps` are the steps of its payload, `period` those of a request. Raises RecordError when
        its payload begins before what has been said.
        """
        known, late = self.known, 0
        pieces: tuple[Piece, ...] = ()
        events: tuple[Event, ...] = ()
        if data.payload is not None:
            start = self.known if data.start is None else data.start
            if start < self.known:
                raise RecordError(
                    f"the payload begins at step {start}, but stream {self.name} has been told in"
                    f" full up to step {self.known}"
                )
            known = start + n_steps
            pieces = (Piece(start, known, data.dtype or "", data.shape, bytes(data.payload)),)
        if data.events:
            events = tuple(e for e in data.events if e[0] >= self.known)
            late = len(data.events) - len(events)
            known = max((known, *(e[0] for e in events)))
        if data.until is not None:
            known = max(known if data.events is None else self.known, data.until)
        if data.end or data.request:
            known = max((known, *(e[0] + 1 for e in (*self.events[-1:], *events))))
        if data.request and data.payload is None and period is not None:
            known = max(known, period)
        waiting = len(self.events) - bisect_left(self.events, (known,))
        waiting += sum(step >= known for step, _, _ in events)
        return Content(pieces, events, known, late, waiting)

    def add(self, content: Content, *, end: bool) -> None:
        """Take in what a record says; `end`: it is the last one."""
        self.pieces += content.pieces
        for event in sorted(content.events):  # in order, each goes near the end
            insort(self.events, event)
        self.known = content.known
        self.end = end

    def cut(self, longest: int) -> list[Cut]:
        """Windows no longer than `longest` of what is known (4); those that wait to be sent."""
        first = len(self.cuts)
        at = 0
        while self.step < self.known or (self.end and not self.done):
            start, stop = self.step, min(self.step + longest, self.known)
            end = self.end and stop == self.known
            pieces = tuple(p for p in self.pieces if p.start < stop and p.stop > start)
            until = bisect_left(self.events, (stop,), at)
            events, at = tuple(self.events[at:until]), until
            if self.waiting and not self.doomed:
                self.cuts.append(Cut(self.n_cut, start, stop, end, pieces, events))
            self.pieces = [p for p in self.pieces if p.stop > stop]
            self.step = stop
            self.n_cut += 1
            self.done = end
        del self.events[:at]
        return list(self.cuts)[first:]

    # ---- results ------------------------------------------------------------------------------

    @property
    def waiting(self) -> frozenset[str]:
        """Networks whose last result is not there."""
        return self.networks - self.final

    @property
    def level(self) -> int:
        """Windows below it are confirmed by every network that the stream waits for (18)."""
        return min((self.confirmed.get(n, 0) for n in self.waiting), default=self.n_cut)

    def confirm(self, network: str, level: int) -> bool:
        """Windows below `level` are confirmed by the network; whether that is news."""
        if level == FINAL:
            is_new = network not in self.final
            self.final |= {network}
            self.confirmed.pop(network, None)
            return is_new
        if network in self.final or level <= self.confirmed.get(network, 0):
            return False
        self.confirmed[network] = level
        return True

    def release(self) -> tuple[int, int]:
        """Forget what was sent and is confirmed; how many windows, and their bytes."""
        level, n_windows, n_bytes = self.level, 0, 0
        while self.sent and self.sent[0][0] < level:
            n_windows += 1
            n_bytes += self.sent.popleft()[1]
        return n_windows, n_bytes

    def flying(self) -> tuple[int, int]:
        """Windows that were sent and are not confirmed, and their bytes."""
        return len(self.sent), sum(cost for _, cost in self.sent)

    # ---- checkpoint ---------------------------------------------------------------------------

    def freeze(self) -> list[Any]:
        """All of it, as msgpack can write it."""
        held = [encode_record(data) for _, data in sorted(self.held.items())]
        pieces = dict.fromkeys(chain.from_iterable(c.pieces for c in self.cuts))
        at = dict(zip(pieces, count(), strict=False))  # one piece may lie in thousands of windows
        cuts = [(*c[:4], [at[p] for p in c.pieces], c.events) for c in self.cuts]
        return [
            self.name, self.seed, self.routes, self.known, self.step, self.n_cut, self.end,
            self.done, self.next_seq, held, list(pieces), self.events, cuts, list(self.sent),
            self.confirmed, sorted(self.final), self.doomed, sorted(self.lasting), self.said_at,
        ]  # fmt: skip

    @classmethod
    def thaw(cls, number: int, saved: list[Any], partition: int) -> Self:
        """The stream that `freeze` wrote."""
        (name, seed, routes, known, step, n_cut, end, done, next_seq, held, every, events, cuts,
         sent, confirmed, final, doomed, lasting, said_at) = saved  # fmt: skip
        flow = cls(number, name, frozenset(routes), seed)
        flow.known, flow.step, flow.n_cut, flow.end, flow.done = known, step, n_cut, end, done
        flow.next_seq = next_seq
        flow.lasting, flow.said_at = frozenset(lasting), said_at
        for value in held:
            data = parse_record(name.encode(), value, partition, 0)
            if isinstance(data, Data) and data.seq is not None:
                flow.held[data.seq] = data
        pieces = [_piece(p) for p in every]
        flow.events = [(e[0], e[1], e[2]) for e in events]
        flow.cuts = deque(
            Cut(w, a, b, e, tuple(pieces[i] for i in at), tuple((t, i, v) for t, i, v in es))
            for w, a, b, e, at, es in cuts
        )
        flow.sent = deque((w, c) for w, c in sent)
        flow.confirmed, flow.final, flow.doomed = confirmed, frozenset(final), doomed
        return flow


def _piece(saved: list[Any]) -> Piece:
    start, stop, dtype, shape, payload = saved
    return Piece(start, stop, dtype, None if shape is None else tuple(shape), payload)


def cost_of_held(data: Data) -> int:
    """What a record takes that is held, in bytes: the same before and after a checkpoint."""
    return _RECORD_BYTES + _size(data)


def _size(data: Data) -> int:
    """Bytes of a record in a checkpoint, about."""
    return len(data.payload or b"") + 16 * len(data.events or ())
