"""The task protocol of an operator, as a state machine without I/O (docs/protocol.md).

Records go in (`receive`), micro-batches of windows come out (`work`), are computed elsewhere and
come back (`apply`); what is to be sent is collected (`take_outputs`), and `snapshot` takes one
instant of it all. Numbers such as (7) point to the rules of docs/protocol.md.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from router.deadletter import DeadLetter
from router.deadletter import encode as encode_letter
from router.records import Kill, encode_record
from router.seals import UNSEALED, Keyring, Trust
from router.topics import DEAD_LETTER, in_topic, out_topic
from router.wire import Batch, Frame, Kind, StreamId, WireError, clip_text, decode_frame
from workers.commits import Commits
from workers.gaps import letter_of, offsets_of
from workers.intervals import IntervalSet
from workers.ledger import Ledger
from workers.reading import Reading, Record
from workers.replays import Replays
from workers.snapshot import (
    Position,
    Snapshot,
    SnapshotCorruptError,
    Stored,
    blob_name,
    open_sealed,
    seal,
    thawing,
)
from workers.spec import TaskSpec
from workers.streams import (
    Held,
    Key,
    PlaceState,
    Remembered,
    Stream,
    parse_field,
    stream_field,
)
from workers.tenant import Limits, Outbox, Output, trust
from workers.windows import Compute, Outcome, Window, Work, micro_batch, run_rounds

__all__ = ["Task"]


class Task:
    """One synapse group of an operator on one partition (a `workers.tenant.Tenant`)."""

    def __init__(
        self,
        spec: TaskSpec,
        compute: Compute,
        limits: Limits,
        stored: Stored | None = None,
        keys: Keyring | None = None,
    ) -> None:
        self.spec = spec
        self.keys = Keyring(is_open=True) if keys is None else keys
        self.counts: Counter[str] = Counter()
        self.replaying = False
        self.found_damage = False
        self._identity = (spec.operator, spec.group.index, spec.partition)
        self._compute = compute
        self._limits = limits
        self._outbox = Outbox(
            spec.operator, spec.group.index, spec.partition, limits.frame_bytes, self.keys
        )
        self._places: dict[str, PlaceState] = {}
        self._targets: dict[tuple[str, int], list[tuple[PlaceState, int]]] = {}
        self._streams: dict[Key, Stream] = {}
        self._ready: dict[Stream, None] = {}
        self._n_waiting = 0  # windows in the inboxes of all streams, by their first source
        self._ledger: Ledger[Key] = Ledger(lagging=True)
        self._replays = Replays(self._ledger)
        self._commits = Commits(limits.uncommitted_bytes)
        self._accused: dict[str, str] = {}
        self._seeks: dict[str, int] = {}
        self._look_at = 0.0
        self._lacking: dict[Stream, tuple[tuple[int, ...], int]] = {}
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
        return self._n_waiting

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
                self._places[place.node] = PlaceState(place, spec.operator)
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
        self._replays.start(first)
        return first

    def receive(self, record: Record) -> bool:
        return self._receive(record, anyhow=False)

    def receive_strange(self, record: Record) -> None:
        self.counts["strange_records_total"] += 1
        self._receive(record, anyhow=True)

    def _receive(self, record: Record, anyhow: bool) -> bool:
        topic, at = record.topic, self.reading.offset(record.topic)
        new = record.offset >= at
        if not new and not self._replays:
            self.reading.take(record)
            return True
        by = trust(self.keys, record, self.spec.partition)
        if by is Trust.UNKNOWN and not anyhow:
            return False
        frame = self._frame(record, by)
        if frame is None:
            self.reading.take(record)
            return True
        if new and not anyhow and not self._knows(frame.batches):
            return False
        self.reading.take(record)
        group = frame.group
        for batch in frame.batches:
            for place, source in self._targets.get((batch.node, group), ()):
                if new or self._replays.wants((place.spec.node, batch.stream), record):
                    self._take(place, source, batch)
        if self._replays:
            self._replays.took(topic, record.offset + 1)
        return True

    def _frame(self, record: Record, by: Trust) -> Frame | None:
        """The frame of a record; what is none, or nobody's, goes to the dead letters (35). A frame
        of the system that was damaged shows as a gap (9)."""
        if by is not Trust.GENUINE:
            self.counts["unsealed_total"] += 1
            self._letter(record, UNSEALED)
            return None
        try:
            return decode_frame(record.value)
        except WireError as error:
            self.counts["poison_frames_total"] += 1
            self._letter(record, str(error))
            return None

    def refuse(self, record: Record, error: str) -> None:
        """Streams that it concerned end with the gap that it leaves; nothing is applied before
        that is committed (9, 28)."""
        self.counts["poison_records_total"] += 1
        self._has_lost_records = True  # an END or a KILL may be among them, and leave no gap (17)
        self._letter(record, error)
        self.reading.take(record)
        if self._replays:
            self._replays.took(record.topic, record.offset + 1)
        self._commits.await_outputs(self._outbox.n_outputs)

    def _letter(self, record: Record, reason: str) -> None:
        letter = DeadLetter(
            record.topic, self.spec.partition, record.offset, record.key, reason, value=record.value
        )
        self._outbox.record(DEAD_LETTER, record.key, encode_letter(letter))

    def _knows(self, batches: Iterable[Batch]) -> bool:
        known = self.spec.known_networks
        routes = {b.networks for b in batches}
        return all(known.issuperset(r) for r in routes)

    def passed(self, topic: str, offset: int) -> None:
        self.reading.pass_over(topic, offset)
        if self._replays:
            self._replays.took(topic, offset)

    def truncated(self, topic: str, log_start: int) -> None:
        """Records below `log_start` are gone. Whom they concerned, nobody can tell any more: every
        open stream that still hears of this topic ends (9)."""
        if self.reading.skip_to(topic, log_start):
            self.counts["log_truncated_total"] += 1
            why = f"records of {topic} below offset {log_start} were gone before they were read"
            self._lose_hearers(topic, why)
        for stream in self._replays.in_need_of(topic, log_start):
            self._lose(stream, f"its replay needs records of {topic} below offset {log_start}")

    def unreadable(self, topic: str, first: int, stop: int, reason: str, is_intact: bool) -> None:
        """What nobody ever could read was written by no task: it is refused, like what is not
        sealed. What is damaged may have been a task's: it is lost (9)."""
        if stop > self.reading.offset(topic):
            self.counts["records_unreadable_total"] += 1
            value = letter_of(topic, self.spec.partition, first, stop, reason)
            self._outbox.record(DEAD_LETTER, None, value)
        if is_intact:
            self.passed(topic, stop)
            return
        if self.reading.skip_to(topic, stop):
            self._lose_hearers(topic, f"{offsets_of(topic, first, stop)} cannot be read: {reason}")
        for stream in self._replays.in_need_of(topic, stop):
            self._lose(stream, f"its replay needs {offsets_of(topic, first, stop)}: {reason}")
        if self._replays:
            self._replays.took(topic, stop)

    def _lose_hearers(self, topic: str, why: str) -> None:
        self._has_lost_records = True
        for stream in list(self._streams.values()):
            if stream.hears(topic):
                self._lose(stream, why)

    def _take(self, place: PlaceState, source: int, batch: Batch) -> None:
        sid = batch.stream
        if sid.era != place.era:
            if sid.era < place.era:
                self.counts["old_era_dropped_total"] += 1
                return
            self._new_era(place, sid.era)
        if batch.kind is Kind.ERA:
            self._over(place, batch)
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
            stream = self._streams[key] = Stream(place, sid, batch.name, batch.seed, nets)
            place.open.add(number)
            self._replays.began(stream)
        if self._accused and (error := self._accused.pop(stream.field, "")):
            self._convict(stream, error)
            return
        if batch.kind is Kind.ABORT:
            self._abort_at(stream, batch.window, batch.error)
        elif not self._hold(stream, source, batch):
            return
        if self._streams.get(key) is stream:
            self._ledger.change(key)
            if stream.is_ready():
                self._ready[stream] = None

    def _over(self, place: PlaceState, batch: Batch) -> None:
        """Of these numbers all results are final: what is open here waits in vain (7, 17)."""
        lo, hi = batch.start, batch.stop
        if not place.tell_over(lo, hi):
            return
        for stream in self._numbered(place, lo, hi):
            self._end(stream)
        if place.spec.consumed:
            said = self._control(place, Kind.ERA, StreamId(place.era, lo), place.spec.networks)
            self._outbox.batch(place.spikes, said._replace(start=lo, stop=hi))

    def _numbered(self, place: PlaceState, lo: int, hi: int) -> list[Stream]:
        """The place's open streams with numbers in `[lo, hi)`."""
        node, era = place.spec.node, place.era
        if hi - lo > len(self._streams):
            numbers = (s.id.number for s in self._streams.values() if s.place is place)
            found = [n for n in numbers if lo <= n < hi]
        else:
            found = [*range(lo, hi)]
        keys = ((node, StreamId(era, n)) for n in found)
        return [self._streams[key] for key in keys if key in self._streams]

    def _hold(self, stream: Stream, source: int, batch: Batch) -> bool:
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
        stream.hold(source, batch)
        self._n_waiting += source == stream.place.first
        return True

    # ---- failing one stream -------------------------------------------------------------------

    def _abort_at(self, stream: Stream, window: int, error: str) -> None:
        """ABORT(w) at or below the next window acts now; above it, it waits its turn (15)."""
        if stream.abort is None or window < stream.abort[0]:
            stream.abort = (window, error)
        if stream.abort[0] <= stream.window:
            self._abort(stream, stream.abort[1])

    def _abort(self, stream: Stream, error: str) -> None:
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
        for stream in self._streams.values():
            if stream.field == field:
                self._convict(stream, error)
                return
        self._accused[field] = error  # it is not in the checkpoint: it comes again in the replay

    def _convict(self, stream: Stream, error: str) -> None:
        """End the stream, and step nothing before that is committed: the next one may kill, too."""
        self._abort(stream, error)
        self._outbox.flush()
        self._commits.await_outputs(self._outbox.n_outputs)

    def _lose(self, stream: Stream, why: str) -> None:
        self._abort(stream, f"InputLost: stream {stream.name} at window {stream.window}: {why}")

    def _request_kill(
        self, place: PlaceState, sid: StreamId, nets: frozenset[str], name: str, error: str
    ) -> None:
        """The readout's task tells everyone through the input topic (17)."""
        mine = tuple(sorted(nets.intersection(place.spec.readout_of)))
        if mine:
            value = encode_record(Kill(sid, name, mine, error))
            self._outbox.record(in_topic(place.spec.input), name.encode(), value)

    def _kill(self, place: PlaceState, batch: Batch) -> None:
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

    def _leave(self, stream: Stream, networks: frozenset[str]) -> None:
        """Go on without these networks; a shared node ends a stream with the last (14, 31)."""
        stream.route(stream.networks - networks)
        self._ledger.change(stream.key)
        if not stream.networks:
            self._end(stream)

    def _new_era(self, place: PlaceState, era: int) -> None:
        """A greater era ends every stream of the older ones, loudly, also where a readout has not
        heard of it yet (1)."""
        old = place.era
        for stream in [s for s in self._streams.values() if s.place is place]:
            error = f"EraLost: era {old} of input {place.spec.input} was superseded by {era}"
            nets = stream.networks
            batch = self._control(place, Kind.ABORT, stream.id, nets, stream.name, error)
            aborted = _as_abort(batch._replace(seed=stream.seed), stream.window, stream.step)
            self._emit(place, aborted, nets)
            self._end(stream)
        place.begin(era)
        if place.spec.consumed:
            all_of_them = place.spec.networks
            control = self._control(place, Kind.ERA, StreamId(era, 0), all_of_them)
            self._outbox.batch(place.spikes, control)

    def _end(self, stream: Stream) -> None:
        """State and inbox go, the number stays in the ended set (13)."""
        if stream.id.era == stream.place.era:
            stream.place.ended.add(stream.id.number)
            stream.place.open.discard(stream.id.number)
        del self._streams[stream.key]
        self._n_waiting -= len(stream.inbox[stream.place.first])
        self._ready.pop(stream, None)
        self._replays.end(stream.key)
        self._ledger.end(stream.key)

    # ---- sending ------------------------------------------------------------------------------

    def _control(
        self,
        place: PlaceState,
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

    def _emit(self, place: PlaceState, batch: Batch, networks: Iterable[str]) -> None:
        if place.spec.consumed:
            self._outbox.batch(place.spikes, batch)
        self._emit_results(place, batch, networks)

    def _emit_results(self, place: PlaceState, batch: Batch, networks: Iterable[str]) -> None:
        for network in place.spec.readout_of:
            if network in networks:
                self._outbox.batch(out_topic(network), batch)

    def take_outputs(self) -> list[Output]:
        return self._outbox.take()

    def take_seeks(self) -> dict[str, int]:
        seeks, self._seeks = self._seeks, {}
        return seeks

    # ---- applying -----------------------------------------------------------------------------

    @property
    def is_crowded(self) -> bool:
        return False

    @property
    def is_held(self) -> bool:
        return self._commits.is_awaited or self._commits.is_full(self.reading)

    def work(self) -> Work | None:
        if not self._ready or self.is_held:
            return None
        return micro_batch(self._ready, self._limits, is_shared=len(self.spec.networks) > 1)

    def compute(self, work: Work) -> list[list[Outcome]]:
        return run_rounds(self._compute, work)

    def apply(self, work: Work, result: list[list[Outcome]]) -> None:
        """Move every stream past its windows and queue what it emitted (11, 12)."""
        for each, outcomes in zip(work.rounds, result, strict=True):
            for window, outcome in zip(each.windows, outcomes, strict=True):
                self._applied(window, outcome)

    def _applied(self, window: Window, outcome: Outcome) -> None:
        stream = window.stream
        if self._streams.get(stream.key) is not stream or stream.window != window.window:
            return  # it ended while this was computed
        self._ready.pop(stream, None)
        if isinstance(outcome, Exception):
            where = f"operator {self.spec.operator}, stream {stream.name}"
            why = f"window {stream.window}: {type(outcome).__name__}: {outcome}"
            self._abort(stream, f"OperatorFailed: {where}, {why}")
        else:
            self._step(stream, window, outcome)

    def _step(self, stream: Stream, window: Window, outcome: tuple[bytes, Any]) -> None:
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
        stream.advance(window.stop, state)
        self._n_waiting -= 1
        self._ledger.change(stream.key)
        self._replays.moved(stream.key)
        if stream.abort is not None and stream.abort[0] <= stream.window:
            self._abort(stream, stream.abort[1])
        elif stream.is_ready():
            self._ready[stream] = None

    def tick(self, now: float) -> None:
        """`now` in seconds, of any clock that never runs backwards.

        What a stream lacks may be gone for good, and nobody miss it: its results were final before
        retention took it. So ingest is asked about streams that lacked the same a deadline ago;
        what it says comes through the log, as all that depends on a clock (5, 17). Where records
        were lost unread, a stream that only seems to pause may have been sent again in part. Each
        time it waits twice as long before it asks again: a stream may pause for days.
        """
        if now < self._look_at:
            return
        self._look_at = now + self._limits.deadline_s
        before, self._lacking = self._lacking, {}
        for stream in self._streams.values():
            if stream not in self._ready and (self._has_lost_records or stream.lacks()):
                at = (stream.window, *stream.expect)
                was_at, n_looks = before.get(stream, (at, -1))
                n_looks = n_looks + 1 if was_at == at else 0
                self._lacking[stream] = (at, n_looks)
                if n_looks.bit_count() == 1:  # 1, 2, 4, 8, ...
                    self._ask_whether_final(stream)

    def _ask_whether_final(self, stream: Stream) -> None:
        self.counts["streams_doubted_total"] += 1
        error = f"AlreadyFinal: stream {stream.name} lacks input of window {stream.window}"
        kill = Kill(stream.id, stream.name, stream.routes, clip_text(error), if_final=True)
        topic = in_topic(stream.place.spec.input)
        self._outbox.record(topic, stream.name.encode(), encode_record(kill))

    # ---- checkpoint ---------------------------------------------------------------------------

    def snapshot(self, full: bool, anyhow: bool = False) -> Snapshot | None:
        """One instant of state, inbox and read positions (20). None when nothing happened since,
        unless `anyhow`.

        None too while a task that fell back on its older head is behind the committed positions.
        """
        if self._commits.is_behind(self.reading):
            return None
        self._outbox.flush()
        offsets = self.reading.offsets(self.spec.topics)
        if not (full or anyhow or self._ledger or self._commits.lacks(offsets)):
            return None
        taken = self._ledger.take(self._streams if full else None, held_back=self._replays)
        return Snapshot(
            full=full,
            head=self._head(self.reading.positions()),
            positions=offsets,
            changed=tuple(self._freeze(k, offsets) for k in taken.changed),
            deleted=tuple(stream_field(*k) for k in taken.deleted),
            keep=tuple(stream_field(*k) for k in self._replays),
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
        places = {node: place.freeze() for node, place in self._places.items()}
        read = {t: list(p) for t, p in positions.items()}
        head = {"positions": read, "places": places, "lossy": self._has_lost_records}
        return seal(head, blob_name(*self._identity))

    def _freeze(self, key: Key, offsets: dict[str, int]) -> tuple[str, int, bytes]:
        s = self._streams[key]
        state = None if s.state is None else self._compute.freeze(s.state)
        inbox = [[list(h) for h in held] for held in s.inbox]
        blob = seal([offsets, s.name, s.routes, s.seed, s.window, s.step, s.expect, s.known,
                     inbox, s.abort, state], blob_name(*self._identity, s.field))  # fmt: skip
        return s.field, s.window, blob

    # ---- restoring ----------------------------------------------------------------------------

    def _restore(self, stored: Stored) -> None:
        """Take a checkpoint in. What is damaged falls back, or ends its streams by name (24)."""
        places, is_newest = self._open_head(stored)
        self._commits.expect({t: n for t, n in stored.positions.items() if t in self.spec.topics})
        expected = self._expected(places)
        for name, blobs in stored.streams.items():
            key = parse_field(name)
            if key is None or (is_newest and self._is_astray(key, expected)):
                self._note_damage()
                continue
            expected.discard(key)
            self._restore_stream(*key, blobs, stored.cursors.get(name), places is not None)
        for key in sorted(expected) if is_newest else ():
            self._note_damage()
            self._give_up(*key)
        if places is not None:
            self._commits.restored(self.reading.offsets(self.spec.topics))

    def _note_damage(self) -> None:
        self.counts["snapshots_corrupt_total"] += 1
        self.found_damage = True

    def _open_head(self, stored: Stored) -> tuple[Mapping[str, Remembered] | None, bool]:
        """Take in the newest head that can be read: what it holds of each place, and whether it is
        the one of the last commit."""
        what = f"head of checkpoint {stored.number}"
        for version, data in enumerate(stored.heads):
            try:
                head = open_sealed(data, what, blob_name(*self._identity))
                with thawing(what):
                    places = self._thaw_head(head, stored)
            except SnapshotCorruptError:
                self._note_damage()
                continue
            at = head["positions"]
            is_behind = any(at.get(t, (0,))[0] < n for t, n in stored.positions.items())
            if version:
                self.counts["snapshot_fallbacks_total"] += 1
            return places, version == 0 and not is_behind
        return None, False

    def _thaw_head(self, head: Any, stored: Stored) -> Mapping[str, Remembered]:
        """All of it or, where an exception comes out, nothing."""
        known = {t: Position(*p) for t, p in head["positions"].items()}
        reading, is_lossy = Reading(self.spec.topics, known), bool(head.get("lossy", False))
        places = {node: Remembered.read(frozen) for node, frozen in head["places"].items()}
        self.found_damage |= not known.keys() <= stored.positions.keys()
        self.reading, self._has_lost_records = reading, is_lossy
        for node, remembered in places.items():
            if node in self._places:
                self._places[node].thaw(remembered)
        return places

    @staticmethod
    def _expected(places: Mapping[str, Remembered] | None) -> set[Key]:
        """The streams of which the head says that the checkpoint holds their state."""
        return {
            (node, StreamId(known.era, number))
            for node, known in (places or {}).items()
            for number in known.open.members()
        }

    def _is_astray(self, key: Key, expected: set[Key]) -> bool:
        """Whether the head knows nothing of a stream: its field is a damaged one, or it is another
        task's. One that has ended stays in the store for one commit more."""
        place = self._places.get(key[0])
        if place is None or key in expected:
            return False
        return not (key[1].era < place.era or key[1].number in place.ended)

    def _restore_stream(
        self,
        node: str,
        sid: StreamId,
        blobs: tuple[bytes | None, bytes | None],
        cursor: int | None,
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
            self._replays.expect(key, max(0, cursor or 0))
            return
        for version, data in enumerate(blobs):
            what = f"stream {sid.number} of node {node}"
            try:
                saved = self._open(key, data)
                if place is not None:
                    with thawing(what):
                        self._thaw(place, sid, saved, cursor, fallback=version > 0)
            except SnapshotCorruptError:
                self._note_damage()
                continue
            return
        self._give_up(node, sid)

    def _open(self, key: Key, data: bytes | None) -> Any:
        what = f"stream {key[1].number} of node {key[0]}"
        return open_sealed(data, what, blob_name(*self._identity, stream_field(*key)))

    def _thaw(
        self, place: PlaceState, sid: StreamId, saved: list[Any], cursor: int | None, fallback: bool
    ) -> None:
        offsets, name, routes, seed, window, step, expect, known, inbox, abort, state = saved
        nets = place.unkilled(routes, sid.number)
        if not nets:  # its last network was removed meanwhile (31)
            place.ended.add(sid.number)
            self._ledger.end((place.spec.node, sid))
            return
        stream = Stream(place, sid, name, seed, nets)
        if cursor is None:
            cursor = window
        elif cursor < 0 or (cursor != window and not fallback):
            # The reference is damaged, or names the wrong version: the blob knows which it is.
            self.found_damage, fallback, cursor = True, True, window
        stream.window, stream.step, stream.expect, stream.known = window, step, expect, known
        stream.inbox = [deque(Held(*h) for h in held) for held in inbox]
        stream.abort = None if abort is None else (abort[0], abort[1])
        stream.state = None if state is None else self._compute.thaw(state)
        is_ready = stream.is_ready()
        self._streams[stream.key] = stream
        self._n_waiting += len(stream.inbox[place.first])
        place.open.add(sid.number)
        if fallback:
            self.counts["snapshot_fallbacks_total"] += 1
            self._replays.fall_back(stream, offsets, cursor, self.reading.offsets(self.spec.topics))
        if is_ready:
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


def _as_abort(control: Batch, window: int, step: int) -> Batch:
    """ABORT(window), in place of that window."""
    return control._replace(kind=Kind.ABORT, window=window, start=step, stop=step, end=True)
