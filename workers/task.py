"""The task protocol of an operator, as a state machine without I/O (docs/protocol.md).

Records go in (`receive`), micro-batches of windows come out (`work`), are computed elsewhere and
come back (`apply`); what is to be sent is collected (`take_outputs`), and `snapshot` takes one
instant of it all. Numbers such as (7) point to the rules of docs/protocol.md.

What a stream's payloads and state *are* is not decided here but by `Compute`: the protocol is the
same for every operator and every backend.
"""

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from router.deadletter import DeadLetter
from router.deadletter import encode as encode_letter
from router.records import Kill, encode_record
from router.topics import DEAD_LETTER, in_topic, out_topic, spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, WireError, clip_text, decode_frame
from workers.commits import Commits
from workers.intervals import IntervalSet
from workers.ledger import Ledger
from workers.reading import Reading, Record
from workers.snapshot import Position, Snapshot, SnapshotCorruptError, Stored, open_sealed, seal
from workers.spec import Place, TaskSpec
from workers.tenant import Limits, Outbox, Output
from workers.turns import SHARED_BATCH, fair_batch

__all__ = ["Compute", "Outcome", "Task", "Window", "Work", "stream_field"]

_MOST_WINDOWS: Final = 64
"""Windows that the later rounds of a micro-batch fill it up to."""
_NEVER = 1 << 62
"""A step after every step: what is known of a source that has ended."""


class Held(NamedTuple):
    """A batch in the inbox."""

    window: int
    start: int
    stop: int
    end: bool
    payload: bytes


class Window(NamedTuple):
    """One window of one stream, ready to be applied.

    `inputs[i]` are the batches of source i that cover steps `[start - D, stop - D)`, D its delay.
    `state` is None before the first window.
    """

    stream: Any
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
        return f"{stream_field(first.place.node, first.stream.id)}#{first.window}"


Outcome: TypeAlias = tuple[bytes, Any] | Exception
"""Payload and new state of a window; an exception when it cannot be computed."""


class Compute(Protocol):
    """The numbers behind a task. All methods are pure; `run` is called on a thread."""

    def run(self, work: Work) -> list[Outcome]:
        """What becomes of each of `work.windows`, in their order."""
        ...

    def freeze(self, state: Any) -> list[bytes]: ...
    def thaw(self, frozen: list[bytes]) -> Any: ...


class _Stream:
    """State of one (node, stream). The only cursor is `window`, the next one to apply (11)."""

    __slots__ = (
        "abort", "catch_up", "expect", "floor", "id", "inbox", "known", "name", "networks", "place",
        "routes", "seed", "state", "step", "window",
    )  # fmt: skip

    def __init__(
        self, place: "_PlaceState", sid: StreamId, batch: Batch, nets: frozenset[str]
    ) -> None:
        n = len(place.spec.sources)
        self.place = place
        self.id = sid
        self.name = batch.name
        self.route(nets)
        self.seed = batch.seed
        self.window = 0
        self.step = 0
        self.state: Any = None
        self.expect = [0] * n
        self.known = [0] * n
        self.inbox: list[deque[Held]] = [deque() for _ in range(n)]
        self.abort: tuple[int, str] | None = None
        self.catch_up: dict[str, int] = {}
        self.floor = 0

    def route(self, networks: frozenset[str]) -> None:
        self.networks = networks
        self.routes = tuple(sorted(networks))

    def lacks(self) -> bool:
        """Whether a source is behind the others, in a stream that cannot go on."""
        if self.abort is not None:
            return True
        delays = self.place.delays
        return any(
            held and (not delay or not self.window)
            for delay, held in zip(delays, self.inbox, strict=True)
        )


class _PlaceState:
    """What is remembered per node: the current era, and which of its numbers ended (7, 17)."""

    __slots__ = ("delays", "ended", "era", "first", "killed", "spec", "spikes")

    def __init__(self, spec: Place, operator: str) -> None:
        self.spec = spec
        self.era = 0
        self.ended = IntervalSet()
        self.killed: dict[str, IntervalSet] = {}
        self.spikes = spikes_topic(operator)
        self.delays = tuple(s.delay for s in spec.sources)
        self.first = self.delays.index(0)

    def unkilled(self, networks: Iterable[str], number: int) -> frozenset[str]:
        mine = self.spec.networks.intersection(networks)
        if not self.killed:
            return mine
        return frozenset(n for n in mine if n not in self.killed or number not in self.killed[n])


_Key = tuple[str, StreamId]


def stream_field(node: str, stream: StreamId) -> str:
    """The name under which the store keeps a stream's references."""
    return f"{node}/{stream.era}/{stream.number}"


class Task:
    """One synapse group of an operator on one partition (a `workers.tenant.Tenant`)."""

    def __init__(
        self, spec: TaskSpec, compute: Compute, limits: Limits, stored: Stored | None = None
    ) -> None:
        self.spec = spec
        self.counts: Counter[str] = Counter()
        self.replaying = False
        self._compute = compute
        self._limits = limits
        self._outbox = Outbox(spec.operator, spec.group.index, spec.partition, limits.frame_bytes)
        self._places: dict[str, _PlaceState] = {}
        self._targets: dict[tuple[str, int], list[tuple[_PlaceState, int]]] = {}
        self._streams: dict[_Key, _Stream] = {}
        self._ready: dict[_Stream, None] = {}
        self._ledger: Ledger[_Key] = Ledger(lagging=True)
        self._catching: dict[_Key, _Stream] = {}
        self._commits = Commits(limits.uncommitted_bytes)
        self._catch_to: dict[str, int] = {}
        self._floors: dict[_Key, int] = {}
        self._accused: dict[str, str] = {}
        self._seeks: dict[str, int] = {}
        self._look_at = 0.0
        self._lacking: dict[_Stream, tuple[int, ...]] = {}
        self._has_lost_records = False
        self.reading = Reading(spec.topics)
        self._settle(spec)
        if stored is not None:
            self._restore(stored)

    # ---- places -------------------------------------------------------------------------------

    @property
    def topics(self) -> tuple[str, ...]:
        return self.spec.topics

    @property
    def paused_topics(self) -> tuple[str, ...]:
        """None, ever: pausing in the middle of a graph deadlocks (10)."""
        return ()

    @property
    def n_streams(self) -> int:
        return len(self._streams)

    @property
    def n_waiting(self) -> int:
        return sum(len(s.inbox[s.place.first]) for s in self._streams.values())

    def update(self, spec: TaskSpec) -> None:
        """A network was deployed or removed: take its places in, from its first stream on."""
        new = set(spec.topics) - set(self.spec.topics)
        self.spec = spec
        self._settle(spec)
        self.reading.add(new)
        self._seeks.update(dict.fromkeys(new, 0))
        for stream in list(self._streams.values()):
            if not stream.networks <= stream.place.spec.networks:
                self._leave(stream, stream.networks - stream.place.spec.networks)

    def _settle(self, spec: TaskSpec) -> None:
        for place in spec.places:
            state = self._places.get(place.node)
            if state is None:
                self._places[place.node] = _PlaceState(place, spec.operator)
            else:
                state.spec = place
        nodes = {place.node for place in spec.places}
        for node, state in self._places.items():
            if node not in nodes:  # removed: what still comes is routed nowhere (31)
                state.spec = replace(state.spec, networks=frozenset(), readout_of=())
        self._targets = {}
        for state in self._places.values():
            for at, source in enumerate(state.spec.sources):
                self._targets.setdefault((source.node, source.group.index), []).append((state, at))

    # ---- receiving ----------------------------------------------------------------------------

    def start(self) -> dict[str, int]:
        first = self.reading.start()
        for stream in self._catching.values():
            for topic, offset in stream.catch_up.items():
                if topic in first:
                    first[topic] = min(first[topic], offset)
        return first

    def receive(self, record: Record) -> bool:
        return self._receive(record, anyhow=False)

    def receive_strange(self, record: Record) -> None:
        self.counts["strange_records_total"] += 1
        self._receive(record, anyhow=True)

    def _receive(self, record: Record, anyhow: bool) -> bool:
        topic, at = record.topic, self.reading.offset(record.topic)
        new = record.offset >= at
        if not new and not self._catching:
            self.reading.take(record)
            return True
        frame = self._frame(record)
        if frame is None:
            self.reading.take(record)
            return True
        if new and not anyhow and not self._knows(frame.batches):
            return False
        self.reading.take(record)
        group = frame.group
        for batch in frame.batches:
            for place, source in self._targets.get((batch.node, group), ()):
                if new or self._wants(place, batch, record):
                    self._take(place, source, batch)
        if self._catching:
            self._caught_up(topic, record.offset + 1)
        return True

    def _frame(self, record: Record) -> Frame | None:
        """The frame of a record; what is none goes to the dead letters, and shows as a gap (9)."""
        try:
            return decode_frame(record.value)
        except WireError as error:
            self.counts["poison_frames_total"] += 1
            letter = DeadLetter(
                record.topic, self.spec.partition, record.offset, record.key, str(error),
                value=record.value,
            )  # fmt: skip
            self._outbox.record(DEAD_LETTER, record.key, encode_letter(letter))
            return None

    def _knows(self, batches: Iterable[Batch]) -> bool:
        known = self.spec.known_networks
        routes = {b.networks for b in batches}
        return all(known.issuperset(r) for r in routes)

    def truncated(self, topic: str, log_start: int) -> None:
        """Records below `log_start` are gone. Whom they concerned, nobody can tell any more: every
        open stream that still hears of this topic ends (9)."""
        if self.reading.skip_to(topic, log_start):
            self.counts["log_truncated_total"] += 1
            self._has_lost_records = True
            why = f"records of {topic} below offset {log_start} were gone before they were read"
            for stream in list(self._streams.values()):
                if _still_reads(stream, topic):
                    self._lose(stream, why)
        for stream in list(self._catching.values()):
            if stream.catch_up.get(topic, log_start) < log_start:
                self._lose(stream, f"its replay needs records of {topic} below offset {log_start}")

    def _take(self, place: _PlaceState, source: int, batch: Batch) -> None:
        sid = batch.stream
        if sid.era != place.era:
            if sid.era < place.era:
                self.counts["old_era_dropped_total"] += 1
                return
            self._new_era(place, sid.era)
        if batch.kind is Kind.ERA:
            return
        number = sid.number
        if batch.kind is Kind.KILL:
            self._kill(place, batch)
            return
        if number in place.ended:  # (7)
            self.counts["duplicates_dropped_total"] += 1
            return
        key = (place.spec.node, sid)
        stream = self._streams.get(key)
        if stream is None:
            nets = place.unkilled(batch.networks, number)
            if not nets:  # not routed here (5), or killed before it began
                return
            stream = self._streams[key] = _Stream(place, sid, batch, nets)
            if self._floors:
                stream.floor = self._floors.pop(key, 0)
                self._catching[key] = stream
                self._release(key, stream)
        if self._accused and (error := self._accused.pop(stream_field(*key), "")):
            self._convict(stream, error)
            return
        if batch.kind is Kind.ABORT:
            self._abort_at(stream, batch.window, batch.error)
        elif not self._hold(stream, source, batch):
            return
        if self._streams.get(key) is stream:
            self._ledger.change(key)
            if self._is_ready(stream):
                self._ready[stream] = None

    def _hold(self, stream: _Stream, source: int, batch: Batch) -> bool:
        """Put a batch into the inbox; False for a duplicate (8)."""
        window = batch.window
        if window < stream.expect[source]:
            self.counts["duplicates_dropped_total"] += 1
            return False
        if window > stream.expect[source]:  # (9)
            self._abort_at(
                stream, stream.expect[source],
                f"InputLost: window {stream.expect[source]} of node {batch.node} is gone,"
                f" window {window} came instead",
            )  # fmt: skip
            return True
        stream.expect[source] = window + 1
        stream.known[source] = _NEVER if batch.end else batch.stop
        payload = bytes(batch.payload)
        stream.inbox[source].append(Held(window, batch.start, batch.stop, batch.end, payload))
        return True

    # ---- failing one stream -------------------------------------------------------------------

    def _abort_at(self, stream: _Stream, window: int, error: str) -> None:
        """ABORT(w) at or below the next window acts now; above it, it waits its turn (15)."""
        if stream.abort is None or window < stream.abort[0]:
            stream.abort = (window, error)
        if stream.abort[0] <= stream.window:
            self._abort(stream, stream.abort[1])

    def _abort(self, stream: _Stream, error: str) -> None:
        """Emit ABORT in place of the next window and end the stream (14)."""
        self.counts["streams_aborted_total"] += 1
        place = stream.place
        batch = self._control(place, Kind.ABORT, stream.id, stream.networks, stream.name, error)
        # Behind a replay it may come first, and windows below it after it: they go by its label.
        batch = _as_abort(batch, stream.window, stream.step)._replace(seed=stream.seed)
        self._emit(place, batch, stream.networks)
        self._request_kill(place, stream.id, stream.networks, stream.name, error)
        self._end(stream)

    def accuse(self, field: str, error: str) -> None:
        """End the stream that two owners in a row had in hand when they died (28)."""
        for key, stream in self._streams.items():
            if stream_field(*key) == field:
                self._convict(stream, error)
                return
        self._accused[field] = error  # it is not in the checkpoint: it comes again in the replay

    def _convict(self, stream: _Stream, error: str) -> None:
        """End the stream, and step nothing before that is committed: the next one may kill, too."""
        self._abort(stream, error)
        self._outbox.flush()
        self._commits.await_outputs(self._outbox.n_outputs)

    def _lose(self, stream: _Stream, why: str) -> None:
        self._abort(stream, f"InputLost: stream {stream.name} at window {stream.window}: {why}")

    def _request_kill(
        self, place: _PlaceState, sid: StreamId, nets: frozenset[str], name: str, error: str
    ) -> None:
        """The readout's task tells everyone through the input topic (17)."""
        mine = tuple(sorted(nets.intersection(place.spec.readout_of)))
        if mine:
            value = encode_record(Kill(sid, name, mine, error))
            self._outbox.record(in_topic(place.spec.input), name.encode(), value)

    def _kill(self, place: _PlaceState, batch: Batch) -> None:
        """End the stream for the networks named, and pass it on once (17)."""
        sid = batch.stream
        new = place.unkilled(batch.networks, sid.number)
        if not new:
            return
        for network in new:
            place.killed.setdefault(network, IntervalSet()).add(sid.number)
        key = (place.spec.node, sid)
        stream = self._streams.get(key)
        control = self._control(place, Kind.KILL, sid, new, batch.name, batch.error)
        if place.spec.consumed:
            self._outbox.batch(place.spikes, control)
        if sid.number not in place.ended:
            window, step = (stream.window, stream.step) if stream else (0, 0)
            self._emit_results(place, _as_abort(control, window, step), new)
        if stream is not None:
            self._leave(stream, new)

    def _leave(self, stream: _Stream, networks: frozenset[str]) -> None:
        """Go on without these networks; a shared node ends a stream with the last (14, 31)."""
        stream.route(stream.networks - networks)
        self._ledger.change((stream.place.spec.node, stream.id))
        if not stream.networks:
            self._end(stream)

    def _new_era(self, place: _PlaceState, era: int) -> None:
        """A greater era ends every stream of the older ones, loudly (1)."""
        old = place.era
        for stream in [s for s in self._streams.values() if s.place is place]:
            error = f"EraLost: era {old} of input {place.spec.input} was superseded by {era}"
            nets = stream.networks
            batch = self._control(place, Kind.ABORT, stream.id, nets, stream.name, error)
            self._emit_results(place, _as_abort(batch, stream.window, stream.step), nets)
            self._end(stream)
        place.era = era
        place.ended = IntervalSet()
        place.killed = {}
        if place.spec.consumed:
            all_of_them = place.spec.networks
            control = self._control(place, Kind.ERA, StreamId(era, 0), all_of_them)
            self._outbox.batch(place.spikes, control)

    def _end(self, stream: _Stream) -> None:
        """State and inbox go, the number stays in the ended set (13)."""
        key = (stream.place.spec.node, stream.id)
        if stream.id.era == stream.place.era:
            stream.place.ended.add(stream.id.number)
        del self._streams[key]
        self._ready.pop(stream, None)
        self._catching.pop(key, None)
        self._ledger.end(key)

    # ---- sending ------------------------------------------------------------------------------

    def _control(
        self,
        place: _PlaceState,
        kind: Kind,
        sid: StreamId,
        networks: Iterable[str],
        name: str = "",
        error: str = "",
    ) -> Batch:
        return Batch(
            node=place.spec.node, stream=sid, name=name, networks=tuple(sorted(networks)), seed=0,
            window=0, start=0, stop=0, kind=kind, end=False, payload=b"", error=clip_text(error),
        )  # fmt: skip

    def _emit(self, place: _PlaceState, batch: Batch, networks: Iterable[str]) -> None:
        if place.spec.consumed:
            self._outbox.batch(place.spikes, batch)
        self._emit_results(place, batch, networks)

    def _emit_results(self, place: _PlaceState, batch: Batch, networks: Iterable[str]) -> None:
        for network in place.spec.readout_of:
            if network in networks:
                self._outbox.batch(out_topic(network), batch)

    def take_outputs(self) -> list[Output]:
        return self._outbox.take()

    def take_seeks(self) -> dict[str, int]:
        seeks, self._seeks = self._seeks, {}
        return seeks

    # ---- applying -----------------------------------------------------------------------------

    def _is_ready(self, stream: _Stream, ahead: int = 0) -> bool:
        """Whether the window `ahead` of the next one is there from every source (11)."""
        place = stream.place
        inbox = stream.inbox
        for delay, held in zip(place.delays, inbox, strict=True):
            if not delay and len(held) <= ahead:
                return False
        if stream.abort is not None and stream.abort[0] <= stream.window + ahead:
            return False
        stop = inbox[place.first][ahead].stop
        return all(
            known >= stop - delay
            for delay, known in zip(place.delays, stream.known, strict=True)
            if delay
        )

    @property
    def is_crowded(self) -> bool:
        return False

    @property
    def is_held(self) -> bool:
        return self._commits.is_awaited or self._commits.is_full(self.reading)

    def work(self) -> Work | None:
        if not self._ready or self.is_held:
            return None
        first = self._round(self._in_turn(), 0, self._limits.max_batch)
        return first._replace(later=self._later(first))

    def _later(self, first: Work) -> tuple[Work, ...]:
        """What the streams of a round have ready beyond it. None where several networks share it:
        each would wait for the windows of the other's."""
        if self._is_shared and len({w.stream.routes for w in first.windows}) > 1:
            return ()
        room = (SHARED_BATCH if self._is_shared else _MOST_WINDOWS) - len(first.windows)
        rounds: list[Work] = []
        streams = [w.stream for w in first.windows]
        for ahead in range(1, self._limits.most_ahead + 1):
            streams = [s for s in streams if self._is_ready(s, ahead)]
            if not streams or room <= 0:
                break
            rounds.append(self._round(streams, ahead, room))
            streams = [w.stream for w in rounds[-1].windows]
            room -= len(streams)
        return tuple(rounds)

    def _round(self, streams: Iterable[_Stream], ahead: int, most: int) -> Work:
        """Windows `ahead` of the next ones, as many as may be stepped together."""
        windows: list[Window] = []
        n_steps = -1
        for stream in streams:
            head = stream.inbox[stream.place.first][ahead]
            if n_steps < 0:
                n_steps = head.stop - head.start
            elif head.stop - head.start != n_steps:
                continue
            windows.append(self._window(stream, ahead))
            if len(windows) == most:
                break
        return Work(n_steps, tuple(windows))

    def _in_turn(self) -> Iterable[_Stream]:
        """The streams that are ready. In a task that several networks share, a micro-batch is small
        and holds as many of each: a flood delays nobody else."""
        if not self._is_shared:
            return self._ready
        return fair_batch(self._ready, lambda stream: stream.routes)

    @property
    def _is_shared(self) -> bool:
        return len(self.spec.networks) > 1

    def _window(self, stream: _Stream, ahead: int) -> Window:
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

    def compute(self, work: Work) -> list[list[Outcome]]:
        """What becomes of each window of each round."""
        found = [self._compute.run(work)]
        for before, work_on in pairwise(work.rounds):
            after = dict(zip((w.stream for w in before.windows), found[-1], strict=True))
            found.append(self._go_on(work_on, after))
        return found

    def _go_on(self, work: Work, after: Mapping[Any, Outcome]) -> list[Outcome]:
        """Step windows from the states that the windows before left; what failed stays failed."""
        came = [after[window.stream] for window in work.windows]
        going = tuple(
            window._replace(state=before[1])
            for window, before in zip(work.windows, came, strict=True)
            if not isinstance(before, Exception)
        )
        stepped = iter(self._compute.run(Work(work.n_steps, going)) if going else ())
        return [before if isinstance(before, Exception) else next(stepped) for before in came]

    def apply(self, work: Work, result: list[list[Outcome]]) -> None:
        """Move every stream past its windows and queue what it emitted (11, 12)."""
        for each, outcomes in zip(work.rounds, result, strict=True):
            for window, outcome in zip(each.windows, outcomes, strict=True):
                self._applied(window, outcome)

    def _applied(self, window: Window, outcome: Outcome) -> None:
        stream: _Stream = window.stream
        key = (stream.place.spec.node, stream.id)
        if self._streams.get(key) is not stream or stream.window != window.window:
            return  # it ended while this was computed
        self._ready.pop(stream, None)
        if isinstance(outcome, Exception):
            where = f"operator {self.spec.operator}, stream {stream.name}"
            why = f"window {stream.window}: {type(outcome).__name__}: {outcome}"
            self._abort(stream, f"OperatorFailed: {where}, {why}")
        else:
            self._step(stream, window, outcome)

    def _step(self, stream: _Stream, window: Window, outcome: tuple[bytes, Any]) -> None:
        payload, state = outcome
        place = stream.place
        self.counts["windows_applied_total"] += 1
        if self.replaying:
            self.counts["windows_replayed_total"] += 1
        batch = Batch(
            node=place.spec.node, stream=stream.id, name=stream.name,
            networks=stream.routes, seed=stream.seed, window=window.window,
            start=window.start, stop=window.stop, kind=Kind.SPIKES, end=window.end,
            payload=payload, error="",
        )  # fmt: skip
        self._emit(place, batch, stream.networks)
        if window.end:
            self._end(stream)
            return
        stream.window += 1
        stream.step = window.stop
        stream.state = state
        for delay, held in zip(place.delays, stream.inbox, strict=True):
            if not delay:
                held.popleft()
            else:
                while held and held[0].stop <= stream.step - delay:
                    held.popleft()
        key = (place.spec.node, stream.id)
        self._ledger.change(key)
        if key in self._catching:
            self._release(key, stream)
        if stream.abort is not None and stream.abort[0] <= stream.window:
            self._abort(stream, stream.abort[1])
        elif self._is_ready(stream):
            self._ready[stream] = None

    def tick(self, now: float) -> None:
        """`now` in seconds, of any clock that never runs backwards.

        What a stream lacks may be gone for good, and nobody miss it: its results were final before
        retention took it. So ingest is asked about streams that lacked the same a deadline ago;
        what it says comes through the log, as all that depends on a clock (5, 17). Where records
        were lost unread, a stream that only seems to pause may have been sent again in part.
        """
        if now < self._look_at:
            return
        self._look_at = now + self._limits.deadline_s
        before, self._lacking = self._lacking, {}
        for stream in self._streams.values():
            if stream not in self._ready and (self._has_lost_records or stream.lacks()):
                at = self._lacking[stream] = (stream.window, *stream.expect)
                if before.get(stream) == at:
                    self._ask_whether_final(stream)

    def _ask_whether_final(self, stream: _Stream) -> None:
        self.counts["streams_doubted_total"] += 1
        error = f"AlreadyFinal: stream {stream.name} lacks input of window {stream.window}"
        kill = Kill(stream.id, stream.name, stream.routes, clip_text(error), if_final=True)
        topic = in_topic(stream.place.spec.input)
        self._outbox.record(topic, stream.name.encode(), encode_record(kill))

    # ---- checkpoint ---------------------------------------------------------------------------

    def snapshot(self, full: bool) -> Snapshot | None:
        """One instant of state, inbox and read positions (20). None when nothing happened since.

        None too while a task that fell back on its older head is behind the committed positions.
        """
        if self._commits.is_behind(self.reading):
            return None
        self._outbox.flush()
        offsets = {t: self.reading.offset(t) for t in self.spec.topics}
        if not (full or self._ledger or self._commits.lacks(offsets)):
            return None
        taken = self._ledger.take(self._streams if full else None, held_back=self._catching)
        return Snapshot(
            full=full,
            head=self._head(self.reading.positions()),
            positions=offsets,
            changed=tuple(self._freeze(k, offsets) for k in taken.changed),
            deleted=tuple(stream_field(*k) for k in taken.deleted),
            keep=tuple(stream_field(*k) for k in self._catching),
            n_outputs=self._outbox.n_outputs,
            n_bytes_read=self.reading.n_bytes,
            token=taken,
        )

    def committed(self, snapshot: Snapshot) -> None:
        self._ledger.committed(snapshot.token, self._streams.__contains__)
        self._commits.committed(snapshot)

    def refused(self, snapshot: Snapshot) -> None:
        self._ledger.refused(snapshot.token, self._streams.__contains__)

    def _head(self, positions: dict[str, Position]) -> bytes:
        places = {
            node: [p.era, p.ended.intervals(), {n: k.intervals() for n, k in p.killed.items()}]
            for node, p in self._places.items()
        }
        read = {t: list(p) for t, p in positions.items()}
        return seal({"positions": read, "places": places, "lossy": self._has_lost_records})

    def _freeze(self, key: _Key, offsets: dict[str, int]) -> tuple[str, int, bytes]:
        s = self._streams[key]
        state = None if s.state is None else self._compute.freeze(s.state)
        inbox = [[list(h) for h in held] for held in s.inbox]
        nets = sorted(s.networks)
        blob = seal([offsets, s.name, nets, s.seed, s.window, s.step, s.expect, s.known,
                     inbox, s.abort, state])  # fmt: skip
        return stream_field(*key), s.window, blob

    # ---- restoring ----------------------------------------------------------------------------

    def _restore(self, stored: Stored) -> None:
        head = self._open_head(stored)
        if head is not None:
            known = {t: Position(*p) for t, p in head["positions"].items()}
            self.reading = Reading(self.spec.topics, known)
            self._has_lost_records = head.get("lossy", False)
            for node, (era, ended, killed) in head["places"].items():
                place = self._places.get(node)
                if place is not None:
                    place.era, place.ended = era, IntervalSet((lo, hi) for lo, hi in ended)
                    place.killed = {
                        n: IntervalSet((lo, hi) for lo, hi in pairs) for n, pairs in killed.items()
                    }
        self._commits.expect({t: n for t, n in stored.positions.items() if t in self.spec.topics})
        for name, blobs in stored.streams.items():
            node, era, number = name.rsplit("/", 2)
            sid = StreamId(int(era), int(number))
            self._restore_stream(node, sid, blobs, stored.cursors.get(name, 0), head is not None)
        if head is not None:
            self._commits.restored({t: self.reading.offset(t) for t in self.spec.topics})

    def _open_head(self, stored: Stored) -> Any | None:
        for version, data in enumerate(stored.heads):
            try:
                head = open_sealed(data, f"head of checkpoint {stored.number}")
            except SnapshotCorruptError:
                self.counts["snapshots_corrupt_total"] += 1
                continue
            if version:
                self.counts["snapshot_fallbacks_total"] += 1
            return head
        return None

    def _restore_stream(
        self,
        node: str,
        sid: StreamId,
        blobs: tuple[bytes | None, bytes | None],
        cursor: int,
        positioned: bool,
    ) -> None:
        place = self._places.get(node)
        key = (node, sid)
        self._ledger.stored(key)
        over = place is None or sid.era < place.era or sid.number in place.ended
        if over and positioned:
            self._ledger.end(key)
            return
        is_later = place is not None and sid.era > place.era  # than the older head, fallen back on
        if is_later or not positioned:  # it is replayed from its beginning, as far as that is there
            self._ledger.end(key)
            self._floors[key] = cursor
            return
        for version, data in enumerate(blobs):
            try:
                saved = open_sealed(data, f"stream {sid.number} of node {node}")
            except SnapshotCorruptError:
                self.counts["snapshots_corrupt_total"] += 1
                continue
            if place is not None:
                self._thaw(place, sid, saved, cursor, fallback=version > 0)
            return
        self._give_up(node, sid)

    def _thaw(
        self, place: _PlaceState, sid: StreamId, saved: list[Any], cursor: int, fallback: bool
    ) -> None:
        offsets, name, routes, seed, window, step, expect, known, inbox, abort, state = saved
        nets = place.unkilled(routes, sid.number)
        if not nets:  # its last network was removed meanwhile (31)
            place.ended.add(sid.number)
            self._ledger.end((place.spec.node, sid))
            return
        blank = self._control(place, Kind.SPIKES, sid, nets, name)._replace(seed=seed)
        stream = _Stream(place, sid, blank, nets)
        stream.window, stream.step, stream.expect, stream.known = window, step, expect, known
        stream.inbox = [deque(Held(*h) for h in held) for held in inbox]
        stream.abort = None if abort is None else (abort[0], abort[1])
        stream.state = None if state is None else self._compute.thaw(state)
        key = (place.spec.node, sid)
        self._streams[key] = stream
        if fallback:  # (24) reads again from its own, older positions, apart from the others
            self.counts["snapshot_fallbacks_total"] += 1
            stream.catch_up = {t: o for t, o in offsets.items() if o < self.reading.offset(t)}
            stream.floor = cursor
            self._catching[key] = stream
            self._catch_to = {t: self.reading.offset(t) for t in self.spec.topics}
            self._release(key, stream)
        if self._is_ready(stream):
            self._ready[stream] = None

    def _give_up(self, node: str, sid: StreamId) -> None:
        """No readable version is left: the stream ends, and everyone learns of it (17)."""
        self._ledger.end((node, sid))
        place = self._places.get(node)
        if place is None:
            return
        nets = tuple(sorted(place.spec.networks))
        error = f"SnapshotCorrupt: stream {sid.number} at node {node} has no readable snapshot left"
        self._accused[stream_field(node, sid)] = error  # its next batch may be here before the KILL
        kill = encode_record(Kill(sid, "", nets, error))
        self._outbox.record(in_topic(place.spec.input), None, kill)

    def _wants(self, place: _PlaceState, batch: Batch, record: Record) -> bool:
        stream = self._catching.get((place.spec.node, batch.stream))
        return stream is not None and record.offset >= stream.catch_up.get(record.topic, _NEVER)

    def _caught_up(self, topic: str, read: int) -> None:
        """A stream on its older version has read up to the committed positions of this topic."""
        if read < self._catch_to.get(topic, 0):
            return
        for key, stream in list(self._catching.items()):
            stream.catch_up.pop(topic, None)
            self._release(key, stream)

    def _release(self, key: _Key, stream: _Stream) -> None:
        """Level with the last commit: from here on it is committed like the others (24)."""
        if not stream.catch_up and stream.window >= stream.floor:
            del self._catching[key]
            self._ledger.change(key)


def _as_abort(control: Batch, window: int, step: int) -> Batch:
    """ABORT(window), in place of that window."""
    return control._replace(kind=Kind.ABORT, window=window, start=step, stop=step, end=True)


def _still_reads(stream: _Stream, topic: str) -> bool:
    """Whether a source of this topic has not ended the stream yet."""
    sources = zip(stream.place.spec.sources, stream.known, strict=True)
    return any(spikes_topic(s.operator) == topic and known < _NEVER for s, known in sources)


def _covering(held: Iterable[Held], start: int, stop: int) -> tuple[Held, ...]:
    """The batches with a step in `[start, stop)`."""
    return tuple(h for h in held if h.start < stop and h.stop > start)
