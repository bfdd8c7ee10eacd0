"""Ingest: numbers streams, cuts windows, and is the only place that limits flow (docs/protocol.md).

Two kinds of state are kept strictly apart. What a stream *is* (its number, its windows, whether
its name is taken) follows from the input topic alone, so that a replay decides the same (1, 4, 5).
*When* a window is sent follows from results and may differ from run to run; it changes no bit (18).
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple, Protocol

from router.deadletter import DeadLetter
from router.deadletter import encode as encode_letter
from router.records import Data, Era, Kill, RecordError, Route, encode_record, parse_record
from router.seals import UNSEALED, Keyring, Trust, key_id
from router.topics import DEAD_LETTER, out_topic, partition_of, spikes_topic
from router.wire import Batch, Kind, StreamId, WireError, clip_text, decode_frame
from workers.commits import Commits
from workers.early import Early
from workers.eras import Eras, Fresh, Step
from workers.flight import Flight
from workers.flow import FINAL, Cut, Flow, cost_of_held
from workers.gaps import letter_of
from workers.intervals import IntervalSet
from workers.ledger import Ledger
from workers.names import Name, Names
from workers.over import Over
from workers.reading import Reading, Record
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
from workers.spec import MOST_WINDOWS, IngestSpec
from workers.streams import parse_field, stream_field
from workers.superseded import Superseded
from workers.tally import Tally
from workers.tenant import Limits, Outbox, Output, trust
from workers.turns import in_turn
from workers.unnumbered import Unnumbered, Waiting

__all__ = ["Encode", "Ingest", "IngestWork"]

_MAX_WAITING = 65_536
"""Events of one stream that may wait for the end of their step: all of them are in memory."""
_INPUT_GONE = "EraLost: the input was truncated, its state is gone"
_MOST_HELD_BYTES = 16 * 1024 * 1024
"""Bytes of records of a partition that may wait for a lesser `seq`. A constant, since a replay must
refuse the same ones."""
_MOST_HELD_OF_ONE = 4 * 1024 * 1024
"""Bytes that one stream holds at most: 64 records of 1 MiB in all, or one that is larger."""
_N_CUT = 5
"""Where a frozen flow has the number of windows cut: the cursor of its reference."""
_BATCH_BYTES = 200
"""Bytes of one batch in a frame beside its payload."""


class IngestWork(NamedTuple):
    """Windows to encode, equally long, those of one stream in their order.

    `seeds[i]` and `flows[i]` belong to `cuts[i]`.
    """

    n_steps: int
    cuts: tuple[Cut, ...]
    seeds: tuple[int, ...]
    flows: tuple[Any, ...]
    hand: str

    @property
    def shares(self) -> Counter[Hashable]:
        """Windows per set of networks that they are for."""
        return Counter(flow.routes for flow in self.flows)


class Encode(Protocol):
    """The numbers behind an ingest. Both methods are pure; `run` is called on a thread."""

    def check(self, data: Data) -> int:
        """Steps that the record's payload covers (0 without one).

        Raises ValueError with a sentence when it is not what the input declares.
        """
        ...

    def run(self, work: IngestWork) -> list[bytes | Exception]: ...


class Ingest:
    """The ingest of one input on one partition (a `workers.tenant.Tenant`)."""

    def __init__(
        self,
        spec: IngestSpec,
        encode: Encode,
        limits: Limits,
        fresh: Fresh,
        stored: Stored | None = None,
        keys: Keyring | None = None,
    ) -> None:
        self.spec = spec
        self.keys = Keyring(is_open=True) if keys is None else keys
        self.counts: Counter[str] = Counter()
        self.replaying = False
        self.found_damage = False
        self._identity = (spec.operator, 0, spec.partition)
        self._encode = encode
        self._limits = limits
        self._eras = Eras(fresh)
        self._outbox = Outbox(spec.operator, 0, spec.partition, limits.frame_bytes, self.keys)
        self._spikes = spikes_topic(spec.operator)
        self._results = {t: n for n, t in zip(sorted(spec.networks), spec.topics[1:], strict=True)}
        self.reading = Reading(spec.topics)
        self._now = 0.0
        self._routes: tuple[str, ...] = ()
        self._routed_by = 0  # the key of the last ROUTE: what an older one sealed is a repeat (35)
        self._names = Names(limits.remembered_names)
        self._killed: dict[str, IntervalSet] = {}
        self._flows: dict[int, Flow] = {}
        self._open_numbers = IntervalSet()
        # Since when they say nothing, the longest first (33); None: since the last tick.
        self._quiet: dict[Flow, float | None] = {}
        self._over = Over()
        self._early = Early()
        self._condemned: set[int] = set()  # late or lost: KILL is on its way, their result open
        self._superseded = Superseded()
        self._unnumbered = Unnumbered(limits.remembered_names)
        self._ready: dict[Flow, None] = {}
        self._flight = Flight()
        self._queued = 0
        self._held_bytes = 0  # of records that wait for a lesser `seq`, of all flows (34)
        self._n_waiting = 0  # cuts that are queued, of all flows
        self._tally = Tally[int]()
        self._ledger: Ledger[str] = Ledger()
        self._seeks: dict[str, int] = {}
        self._accused: dict[str, str] = {}
        self._commits = Commits(limits.uncommitted_bytes)
        if stored is not None:
            self._restore(stored)
        self._follow(self._eras.read_to(fresh.start))

    # ---- the outside --------------------------------------------------------------------------

    @property
    def topics(self) -> tuple[str, ...]:
        return self.spec.topics

    @property
    def paused_topics(self) -> tuple[str, ...]:
        """The input, while more is cut than may be sent: only ingest limits the flow (18).

        Before the era is known: the results, which could not be told apart yet.
        """
        if not self._eras.is_serving:
            return self.spec.topics[1:]
        return (self.spec.in_topic,) if self._queued > self._limits.flight_bytes else ()

    @property
    def n_streams(self) -> int:
        return len(self._flows)

    @property
    def n_waiting(self) -> int:
        return self._n_waiting

    @property
    def routes(self) -> tuple[str, ...] | None:
        """The networks that a stream may join now; None while no era is current."""
        return self._routes if self._eras.is_serving else None

    def open_streams(self) -> dict[str, int]:
        """How many streams each network has that it has not confirmed to their end."""
        return dict(Counter(self._tally.counts()) + Counter(self._superseded.counts()))

    def start(self) -> dict[str, int]:
        first = self.reading.start()
        if not self._eras.era:
            first[self.spec.in_topic] = self._eras.start
        return first

    def update(self, spec: IngestSpec) -> None:
        """A network was deployed or removed. Streams that are left without any end (31)."""
        new = set(spec.topics) - set(self.spec.topics)
        self.spec = spec
        self._results = {t: n for n, t in zip(sorted(spec.networks), spec.topics[1:], strict=True)}
        self.reading.add(new)
        self._seeks.update(dict.fromkeys(new, 0))
        for flow in list(self._flows.values()):
            if not flow.networks <= spec.networks:
                self._leave(flow, flow.networks - spec.networks)

    def take_outputs(self) -> list[Output]:
        return self._outbox.take()

    def take_seeks(self) -> dict[str, int]:
        seeks, self._seeks = self._seeks, {}
        return seeks

    def receive(self, record: Record) -> bool:
        if record.offset < self.reading.offset(record.topic):
            self.reading.take(record)
            return True
        if record.topic != self.spec.in_topic:
            return self._receive_result(record, anyhow=False)
        said = self._parse(record)
        if said is None:
            return False
        if isinstance(said, Era | Route) and not self.spec.known_networks.issuperset(said.networks):
            return False
        self._take(said, record)
        return True

    def receive_strange(self, record: Record) -> None:
        """Networks that nobody knows count as removed; a ROUTE to nothing else is refused."""
        self.counts["strange_records_total"] += 1
        if record.topic != self.spec.in_topic:
            self._receive_result(record, anyhow=True)
            return
        said = self._parse(record) or RecordError(UNSEALED)
        if isinstance(said, Era | Route):
            known = tuple(n for n in said.networks if n in self.spec.known_networks)
            if isinstance(said, Route) and not known:
                named = ", ".join(said.networks)
                said = RecordError(f"UnknownNetwork: no network is deployed by the name of {named}")
            else:
                said = replace(said, networks=known)
        self._take(said, record)

    def refuse(self, record: Record, error: str) -> None:
        """What the input said there is not known: numbers begin anew behind it (9, 28)."""
        self.counts["poison_records_total"] += 1
        letter = DeadLetter(
            record.topic, self.spec.partition, record.offset, record.key, error, value=record.value
        )
        self._outbox.record(DEAD_LETTER, record.key, encode_letter(letter))
        self._commits.await_outputs(self._outbox.n_outputs)
        if record.topic == self.spec.in_topic:
            self.truncated(record.topic, record.offset + 1)
        else:
            self.reading.take(record)

    def _take(self, said: Data | Era | Route | Kill | RecordError, record: Record) -> None:
        self.reading.take(record)
        if isinstance(said, RecordError):
            if self._eras.is_serving:
                self._reject(record, "", str(said))
        else:
            self._read(said, record)
        self._follow(self._eras.read_to(record.offset + 1))

    def _parse(self, record: Record) -> Data | Era | Route | Kill | RecordError | None:
        """What the record says, or why it is refused; None while its key is not known here."""
        try:
            said = parse_record(record.key, record.value, self.spec.partition, record.offset)
        except RecordError as error:
            return error
        if isinstance(said, Data):
            return said
        by = trust(self.keys, record, self.spec.partition)
        if by is Trust.UNKNOWN:
            return None
        if by is Trust.FORGED:
            self.counts["unsealed_total"] += 1
            return RecordError(UNSEALED)
        if isinstance(said, Route) and key_id(record.seal) < self._routed_by:
            return RecordError("Superseded: a later deployment has told where streams go")
        return said

    def _read(self, said: Data | Era | Route | Kill, record: Record) -> None:
        if isinstance(said, Era):
            self._era(said, record.offset)
        elif not self._eras.is_serving:
            self._before_era(said, record)
        elif isinstance(said, Route):
            self._routed_by = key_id(record.seal)
            self._route(said)
        elif isinstance(said, Kill):
            self._kill(said)
        else:
            self._data(said, record)

    # ---- eras (1) -----------------------------------------------------------------------------

    def _era(self, said: Era, offset: int) -> None:
        seen_at = self._eras.seen_at
        step = self._eras.read(said, offset)
        if self._eras.is_scanning and self._eras.seen_at != seen_at and said.predecessor:
            self._unnumbered.take(0)  # it does not count them, and who asked for it told them so
        self._follow(step)

    def _follow(self, step: Step) -> None:
        if step is Step.ASK:
            self._ask_for_era()
        elif step is Step.ADOPT:
            self._adopt()
        elif step is Step.PASS_OVER:
            self.counts["zombie_eras_total"] += 1

    def _ask_for_era(self) -> None:
        era = self._eras.ask(self.spec.networks, self._limits.max_streams, self._routed_by)
        if era.predecessor or self._eras.has_lost_input:  # who reads it takes them for told
            self._refuse_unnumbered()
        self._outbox.record(self.spec.in_topic, None, encode_record(era))

    def _adopt(self) -> None:
        """Number anew; what was open in the era before has ended."""
        for number in self._condemned.difference(self._flows):
            if name := self._names.name_of(number):
                stream = StreamId(self._eras.era, number)
                self._superseded.add(stream, name, self.spec.networks)
        for flow in list(self._flows.values()):
            self._supersede(flow)
        self._routes, self._routed_by, begin = self._eras.adopt()
        self._superseded.resumed(self._eras.era)
        self._refuse_unnumbered(begin)
        for field in self._names.clear():
            self._ledger.end(field)
        self._killed = {}
        self._over = Over()
        self._early = Early()
        self._condemned = set()
        if begin < self.reading.offset(self.spec.in_topic):
            self.reading.rewind(self.spec.in_topic, begin)
            self._seeks[self.spec.in_topic] = begin
        self._control(Kind.ERA, 0, "", self.spec.networks, "")

    def _refuse_unnumbered(self, stop: int | None = None) -> None:
        """Streams whose last record lies below `stop` cannot be numbered any more."""
        for waiting in self._unnumbered.take(stop):
            self._letter(waiting.key, waiting.offset, _INPUT_GONE, waiting.name, b"")

    def _supersede(self, flow: Flow) -> None:
        """End a stream with its era, also in tasks that have not heard of it yet (1)."""
        stream = StreamId(self._eras.era, flow.number)
        self._superseded.add(stream, flow.name, flow.waiting)
        if networks := flow.networks & self.spec.networks:
            error = self._era_lost(stream, flow.name)
            said = self._notice(Kind.ABORT, flow.number, flow.name, networks, error)
            window = flow.n_cut - len(flow.cuts)
            self._outbox.batch(self._spikes, said._replace(seed=flow.seed, window=window, end=True))
        self._close(flow)

    def _end_superseded(self) -> None:
        """Say of streams that a new era ended that it did, where no task is left to say it (1)."""
        for ended in self._superseded.late(self._now, self._limits.deadline_s):
            self.counts["streams_forgotten_total"] += 1
            error = self._era_lost(ended.stream, ended.name)
            networks = ended.networks & self.spec.networks
            self._abort_results(ended.stream, ended.name, networks, error)

    def _era_lost(self, stream: StreamId, name: str) -> str:
        return (
            f"EraLost: stream {name} was open when era {stream.era} of input"
            f" {self.spec.input.name} was superseded"
        )

    def _before_era(self, said: Data | Route | Kill, record: Record) -> None:
        """Records before a later era belong to streams that nobody can number any more."""
        if isinstance(said, Route):
            self._routed_by = key_id(record.seal)
            self._eras.route(said.networks)
        elif isinstance(said, Data):
            if self._eras.has_lost_input:
                self._reject(record, said.name, _INPUT_GONE)
            else:
                self._unnumbered.note(Waiting(said.name, record.offset, record.key))

    def passed(self, topic: str, offset: int) -> None:
        if self.reading.pass_over(topic, offset) and topic == self.spec.in_topic:
            self._follow(self._eras.read_to(offset))

    def unreadable(self, topic: str, first: int, stop: int, reason: str, is_intact: bool) -> None:
        """What nobody ever could read was numbered by nobody: it is refused, as any other record
        that says nothing legal. What is damaged may have been: it is a gap (9)."""
        if stop <= self.reading.offset(topic):
            return
        self.counts["records_unreadable_total"] += 1
        if topic != self.spec.in_topic or self._eras.is_serving:
            self.counts["dead_letters_total"] += 1
            value = letter_of(topic, self.spec.partition, first, stop, reason)
            self._outbox.record(DEAD_LETTER, None, value)
        if is_intact:
            self.passed(topic, stop)
        else:
            self.truncated(topic, stop)

    def truncated(self, topic: str, log_start: int) -> None:
        """A gap in the input ends every open stream, by a new era: numbers must stay dense (9)."""
        if not self.reading.skip_to(topic, log_start):
            return
        self.counts["log_truncated_total"] += 1
        if topic == self.spec.in_topic:
            self._follow(self._eras.truncated(log_start))

    # ---- records ------------------------------------------------------------------------------

    def _reject(self, record: Record, name: str, reason: str) -> None:
        self._letter(record.key, record.offset, reason, name, record.value)

    def _letter(self, key: bytes | None, offset: int, reason: str, name: str, value: bytes) -> None:
        self.counts["dead_letters_total"] += 1
        topic = self.spec.in_topic
        letter = DeadLetter(topic, self.spec.partition, offset, key, reason, name, value)
        self._outbox.record(DEAD_LETTER, key, encode_letter(letter))

    def _data(self, data: Data, record: Record) -> None:
        digest = hashlib.blake2b(record.value, digest_size=8).digest()
        known = self._names.get(data.name)
        try:
            if known is None:
                self._open(data, digest, record.offset)
            elif data.request:
                self._repeat(data, digest, known)
            elif not known.open:
                killed = any(known.number in numbers for numbers in self._killed.values())
                raise RecordError((_ended if killed else _taken)(data.name))
            else:
                flow = self._flow_of(data.name, known)
                self._hear(flow, record.offset)
                self._sequence(flow, data)
        except ValueError as error:
            self._reject(record, data.name, str(error))

    def _flow_of(self, name: str, known: Name) -> Flow:
        flow = self._flows.get(known.number)
        if flow is None:
            raise RecordError(_ended(name))
        return flow

    def _repeat(self, data: Data, digest: bytes, known: Name) -> None:
        """A request repeated with an equal body is dropped quietly; its result stands."""
        if known.digest != digest:
            raise RecordError(_taken(data.name))
        self.counts["duplicate_requests_total"] += 1

    def _hear(self, flow: Flow, offset: int) -> None:
        """It says something: a KILL for its silence that was asked for before is void (33)."""
        flow.said_at = offset
        self._touch(flow)
        self._listen(flow)

    def _listen(self, flow: Flow) -> None:
        """Its silence begins now."""
        self._quiet.pop(flow, None)
        if not flow.end:
            self._quiet[flow] = None

    def _check_room(self, data: Data) -> None:
        """Refuse what would open one stream too many: both numbers follow from the log (32)."""
        most, n_open = self._eras.max_streams, self._names.n_open
        if most is None or n_open < most or data.request or (data.end and not data.seq):
            return
        if n_open - self._over.n_lost < most:  # which of those the log has ended is lost, too
            self._ask_for_era()
            raise RecordError(
                f"EraLost: with the snapshots of {self._over.n_lost} streams it is lost whether"
                f" stream {data.name} is one too many; send it again"
            )
        raise RecordError(
            f"TooManyStreams: {n_open} streams are open on input {self.spec.input.name}, partition"
            f" {self.spec.partition}, and at most {most} may be: end some that are over"
            f" (`spikerouter end`), then send stream {data.name} again"
        )

    def _open(self, data: Data, digest: bytes, offset: int) -> None:
        """The last ROUTE before a stream's first record fixes its networks (5)."""
        if data.networks == ():
            raise RecordError(f"stream {data.name} is not open, and no network is to have it")
        wanted = self._routes if data.networks is None else data.networks
        networks = frozenset(wanted).intersection(self._routes)
        if not networks or len(networks) < len(set(wanted)):
            legal = ", ".join(self._routes) or "none yet: deploy a network first"
            raise RecordError(
                f"stream {data.name} asks for {list(wanted)}; deployed on input"
                f" {self.spec.input.name}: {legal}"
            )
        if not data.request and self._eras.predecessor and data.seq != 0:
            raise RecordError(
                f"InputLost: input was lost before this record, so stream {data.name} may have"
                " begun earlier; open a new stream under another name with seq 0"
            )
        self._check_room(data)
        flow = Flow(self._names.next_number, data.name, networks, data.seed)
        flow.since = self._now
        for network, level in self._early.levels(flow.number, networks):
            flow.confirm(network, level)
        self._sequence(flow, data)
        self._count_partitioner(data)
        self._flows[flow.number] = flow
        self._open_numbers.add(flow.number)
        self._early.began(flow.number)
        self._note_names(*self._names.add(data.name, digest, is_open=not flow.end))
        flow.said_at = offset
        self._listen(flow)
        self._settle(flow)
        if self._accused and (error := self._accused.pop(self._field(flow.number), "")):
            self._convict(flow, error)
        if not networks <= self.spec.networks:  # a replay numbers streams of removed networks too
            self._leave(flow, networks - self.spec.networks)

    def _count_partitioner(self, data: Data) -> None:
        """Legal, if all records of the stream come here: nobody who looks at one partition can say.

        A request is one record, and cannot be torn.
        """
        n = self._limits.n_partitions
        if n and not data.request and partition_of(data.name, n) != self.spec.partition:
            self.counts["foreign_partitioner_streams_total"] += 1

    def _sequence(self, flow: Flow, data: Data) -> None:
        """Apply a record in the order of the producer's own numbers, where it gives them."""
        if data.seq is None:
            self._apply_data(flow, data)
            return
        if data.seq < flow.next_seq or data.seq in flow.held:
            self.counts["duplicate_records_total"] += 1
            return
        if data.seq > flow.next_seq:
            self._check_held(flow, data)
            flow.hold(data.seq, data)
            self._held_bytes += cost_of_held(data)
            self._touch(flow)
            return
        self._apply_data(flow, data)
        flow.next_seq += 1
        while (held := flow.held.pop(flow.next_seq, None)) is not None:
            self._held_bytes -= cost_of_held(held)
            flow.next_seq += 1
            try:
                self._apply_data(flow, held)
            except ValueError as error:
                self._letter(flow.name.encode(), -1, str(error), flow.name, encode_record(held))

    def _apply_data(self, flow: Flow, data: Data) -> None:
        """Take a record's content in and cut what is known in full (4). All or nothing."""
        if flow.end:
            raise RecordError(f"stream {flow.name} has ended; open a new one under another name")
        content = flow.read(data, self._encode.check(data), self.spec.input.n_steps)
        n_windows = (content.known - flow.step) // self.spec.input.longest_window
        if n_windows > MOST_WINDOWS:
            raise RecordError(
                f"the record would end {n_windows} windows of stream {flow.name} at once; at most"
                f" {MOST_WINDOWS} are legal: send time marks in smaller steps"
            )
        said, is_last = flow.known, data.end or data.request
        if content.waiting > _MAX_WAITING and not is_last:
            raise RecordError(
                f"{content.waiting} events of stream {flow.name} would wait for the end of their"
                f" step; at most {_MAX_WAITING} may: say with `until` which steps are over"
            )
        flow.add(content, end=is_last)
        for cut in flow.cut(self.spec.input.longest_window):
            self._queue(cut, 1)
        if is_last:
            self._shut(flow.name)
            self._refuse_held(flow)
        self._settle(flow)
        if late := content.late:
            self.counts["late_events_total"] += late
            what = "1 event lies" if late == 1 else f"{late} events lie"
            reason = f"LateEvent: {what} before step {said}, up to which all had been said"
            self._letter(flow.name.encode(), -1, reason, flow.name, encode_record(data))

    def _refuse_held(self, flow: Flow) -> None:
        """The stream has ended before records that wait for others."""
        for seq, data in sorted(flow.held.items()):
            reason = (
                f"StreamEnded: stream {flow.name} ended while this record, with seq {seq},"
                f" waited for seq {flow.next_seq}"
            )
            self._letter(flow.name.encode(), -1, reason, flow.name, encode_record(data))
        self._hold_no_more(flow)

    def _hold_no_more(self, flow: Flow) -> None:
        self._held_bytes -= flow.held_bytes
        flow.held.clear()

    def _check_held(self, flow: Flow, data: Data) -> None:
        """Refuse what would be held beyond the bound: all of it follows from the log (34)."""
        room = _MOST_HELD_BYTES - self._held_bytes - cost_of_held(data)
        if room >= self._over.n_lost * _MOST_HELD_OF_ONE:
            return
        if room >= 0:  # what the streams hold that are lost is lost, too
            self._ask_for_era()
            raise RecordError(
                f"EraLost: with the snapshots of {self._over.n_lost} streams it is lost whether seq"
                f" {data.seq} of stream {flow.name} can be held; send it again"
            )
        raise RecordError(
            f"TooMuchHeld: stream {flow.name} waits for seq {flow.next_seq}, and records that came"
            f" ahead of others, of all streams on input {self.spec.input.name}, partition"
            f" {self.spec.partition}, may take {_MOST_HELD_BYTES} bytes, so seq {data.seq} is"
            " refused: send it again later"
        )

    def _cost(self, n_steps: int) -> int:
        return n_steps * self.spec.step_bytes + _BATCH_BYTES

    def _queue(self, cut: Cut, n: int) -> None:
        """One cut more (`n` 1) or less (-1) waits to be sent."""
        self._queued += n * self._cost(cut.n_steps)
        self._n_waiting += n

    # ---- results ------------------------------------------------------------------------------

    def _receive_result(self, record: Record, anyhow: bool) -> bool:
        """Take a record of the results; False while its key is not known here."""
        by = trust(self.keys, record, self.spec.partition)
        if by is Trust.UNKNOWN and not anyhow:
            return False
        self.reading.take(record)
        if by is Trust.GENUINE:
            self._confirm(record)
        else:
            self.counts["unsealed_total"] += 1
        return True

    def _confirm(self, record: Record) -> None:
        """What results say of windows: they free the flow, and change nothing else (18)."""
        try:
            frame = decode_frame(record.value)
        except WireError:
            self.counts["poison_frames_total"] += 1
            return
        network = self._results.get(record.topic)
        if network is None:  # it was removed meanwhile (31)
            return
        for batch in frame.batches:
            is_final = batch.end or batch.kind is Kind.ABORT
            if is_final:
                self._superseded.confirm(batch.stream, network)
            if batch.stream.era == self._eras.era:
                level = FINAL if is_final else batch.window + 1
                self._note_level(batch.stream.number, network, level)

    def _note_level(self, number: int, network: str, level: int) -> None:
        """Windows below `level` are confirmed by `network`, which may be news of a replay's."""
        flow = self._flows.get(number)
        if flow is not None:
            if flow.confirm(network, level):
                self._progress(flow)
        elif number >= self._names.next_number:  # its records are to be read again
            self._early.confirm(number, network, level)

    def _progress(self, flow: Flow) -> None:
        if not flow.waiting:
            self._drop_cuts(flow)
        self._flight.land(*flow.release())
        flow.since = self._now
        self._settle(flow)

    def _settle(self, flow: Flow) -> None:
        """File the flow where it belongs now: sending, waiting, or closed."""
        waiting = flow.waiting
        if flow.end and not waiting:
            self._close(flow)
            return
        if self._flows.get(flow.number) is flow:
            self._tally.put(flow.number, waiting)
        self._touch(flow)
        if flow.cuts and self._room(flow) > 0:
            self._ready[flow] = None
        else:
            self._ready.pop(flow, None)

    def _touch(self, flow: Flow) -> None:
        self._ledger.change(self._field(flow.number))

    def _field(self, number: int) -> str:
        return stream_field(self.spec.input.node, StreamId(self._eras.era, number))

    def _close(self, flow: Flow) -> None:
        self._drop_cuts(flow)
        self._hold_no_more(flow)
        self._flight.land(*flow.flying())
        flow.sent.clear()
        self._flows.pop(flow.number, None)
        self._tally.put(flow.number, frozenset())
        self._open_numbers.discard(flow.number)
        self._ready.pop(flow, None)
        self._quiet.pop(flow, None)
        self._over.is_stale = True
        self._ledger.end(self._field(flow.number))

    # ---- ending streams -----------------------------------------------------------------------

    def _route(self, said: Route) -> None:
        """Streams that nobody has ended yet end where their network is removed by force (31)."""
        self._routes, self._eras.max_streams = said.networks, said.max_streams
        for number, flow in sorted(self._flows.items()):
            ends = tuple(sorted(flow.lasting.intersection(said.ends)))
            if ends and not flow.end:
                error = (
                    f"NetworkRemoved: stream {flow.name} on input {self.spec.input.name} was open"
                    f" when {', '.join(ends)} was removed by force"
                )
                self._kill(Kill(StreamId(self._eras.era, number), flow.name, ends, error))

    def _kill(self, said: Kill) -> None:
        """End the stream for the networks named, and pass it on once (17).

        The result is written here: on its way to the readout, KILL may be lost to retention. A
        task that asks whether it waits in vain is told so when every result is final, and no new
        one is written then; it asks again while a result is open, which the deadline sees to.
        """
        number = said.stream.number
        if said.stream.era != self._eras.era or number >= self._names.next_number:
            return
        flow = self._flows.get(number)
        if said.since is not None and not _is_silent(flow, said.since):
            return
        if said.if_final:
            if flow is not None or number in self._condemned:
                return
        elif number in self._over:  # all of it has its results, and everyone is told so
            return
        self._condemned.discard(number)
        if flow is not None:
            flow.lasting -= frozenset(said.networks)
            self._touch(flow)
        new = frozenset(
            n for n in self.spec.networks.intersection(said.networks)
            if n not in self._killed or number not in self._killed[n]
        )  # fmt: skip
        if not new:
            if flow is not None and not flow.lasting:
                self._leave(flow, new)
            return
        if said.since is not None:
            self.counts["streams_idle_total"] += 1
        for network in new:
            self._killed.setdefault(network, IntervalSet()).add(number)
        name = self._names.name_of(number) or said.name
        self._control(Kind.KILL, number, name, new, said.error)
        if not said.if_final:
            routed = new if flow is None else new & flow.networks
            self._abort_results(said.stream, name, routed, said.error)
        if flow is None:
            self._over.killed(number)
            self._shut(name)
            return
        self._leave(flow, new)

    def _leave(self, flow: Flow, networks: frozenset[str]) -> None:
        """Go on without these networks (14, 31); the stream ends with the last that the log ends.

        Where all that is left was removed, it says nothing more, but is there as long as in a
        replay of that time: how many streams are open must follow from the log alone (32).
        """
        flow.route(flow.networks - networks)
        if flow.lasting:
            self._progress(flow)
        else:
            self._shut(flow.name)
            self._refuse_held(flow)
            self._close(flow)

    def _shut(self, name: str) -> None:
        """No more records may follow under this name."""
        self._note_names(*self._names.close(name))

    def _note_names(self, touched: Iterable[str], gone: Iterable[str]) -> None:
        for field in touched:
            self._ledger.change(field)
        for field in gone:
            self._ledger.end(field)

    def accuse(self, field: str, error: str) -> None:
        """End the stream that two owners in a row had in hand when they died (28)."""
        for flow in self._flows.values():
            if self._field(flow.number) == field:
                self._convict(flow, error)
                return
        self._accused[field] = error  # it is not in the checkpoint: it comes again in the replay

    def _convict(self, flow: Flow, error: str) -> None:
        """End the stream, and send nothing before that is committed: the next one may kill, too."""
        self._doom(flow, error)
        self._outbox.flush()
        self._commits.await_outputs(self._outbox.n_outputs)

    def _abort_results(
        self, stream: StreamId, name: str, networks: frozenset[str], error: str
    ) -> None:
        said = self._notice(Kind.ABORT, stream.number, name, networks, error)
        batch = said._replace(stream=stream, end=True)
        for network in batch.networks:
            self._outbox.batch(out_topic(network), batch)

    def _control(
        self, kind: Kind, number: int, name: str, networks: Iterable[str], error: str
    ) -> None:
        self._outbox.batch(self._spikes, self._notice(kind, number, name, networks, error))

    def _notice(
        self, kind: Kind, number: int, name: str, networks: Iterable[str], error: str
    ) -> Batch:
        return Batch(
            node=self.spec.input.node, stream=StreamId(self._eras.era, number), name=name,
            networks=tuple(sorted(networks)), seed=0, window=0, start=0, stop=0, kind=kind,
            end=False, payload=b"", error=clip_text(error),
        )  # fmt: skip

    def tick(self, now: float) -> None:
        """`now` in seconds, of any clock that never runs backwards. Kill what is late (17)."""
        if not self._now:
            for flow in self._flows.values():
                flow.since = now
        self._now = now
        self._tell_what_is_over()
        self._end_silent()
        if self._eras.is_serving:
            self._end_superseded()
        for flow in list(self._flows.values()):
            if not flow.sent:
                flow.since = now
            elif now - flow.since > self._limits.deadline_s:
                flow.since = now
                self._kill_late(flow)

    def _kill_late(self, flow: Flow) -> None:
        first = flow.sent[0][0]
        waiting = flow.waiting
        late = tuple(n for n in flow.routes if n in waiting and flow.confirmed.get(n, 0) <= first)
        self.counts["deadlines_missed_total"] += 1
        error = (
            f"DeadlineMissed: window {first} of stream {flow.name} on input {self.spec.input.name}"
            f" was not confirmed by {', '.join(late)} within {self._limits.deadline_s:g} s"
        )
        kill = Kill(StreamId(self._eras.era, flow.number), flow.name, late, clip_text(error))
        self._outbox.record(self.spec.in_topic, flow.name.encode(), encode_record(kill))
        # Wait no longer: what is queued behind these windows may hold back the reading of the KILL.
        self._condemned.add(flow.number)
        flow.final |= set(late)
        self._progress(flow)

    def _end_silent(self) -> None:
        """Append a KILL for each stream that has said nothing for too long (33). Whether that is so
        when it is read follows from the log: the stream may have spoken up before it."""
        for flow in reversed(self._quiet):
            if self._quiet[flow] is not None:
                break
            self._quiet[flow] = self._now
        limit = self._limits.stream_idle_s
        while limit is not None and self._quiet:
            flow, since = next(iter(self._quiet.items()))
            if since is None or self._now - since <= limit:
                return
            self._listen(flow)
            if not (flow.sent or flow.cuts or flow.doomed or self.replaying or self.paused_topics):
                self._ask_silent(flow, limit)

    def _ask_silent(self, flow: Flow, limit: float) -> None:
        error = (
            f"StreamIdle: stream {flow.name} on input {self.spec.input.name} has said nothing for"
            f" {limit:g} s"
        )
        kill = Kill(
            StreamId(self._eras.era, flow.number), flow.name, tuple(sorted(flow.lasting)),
            clip_text(error), since=self.reading.offset(self.spec.in_topic),
        )  # fmt: skip
        self._outbox.record(self.spec.in_topic, flow.name.encode(), encode_record(kill))

    def _tell_what_is_over(self) -> None:
        """Tell which numbers have no stream any more: others need not remember each of them (7)."""
        if not self._eras.is_serving or not self._over.is_due(self._now, self._limits.over_s):
            return
        known = self._over.numbers
        alive = (*self._flows, *self._condemned)
        for lo, hi in self._over.runs(alive, self._names.next_number):
            said = self._notice(Kind.ERA, lo, "", self.spec.networks, "")
            self._outbox.batch(self._spikes, said._replace(start=lo, stop=hi))
        self._killed = {n: left for n, k in self._killed.items() if (left := k.minus(known))}

    # ---- sending ------------------------------------------------------------------------------

    @property
    def is_crowded(self) -> bool:
        return bool(self._ready) and not self.replaying and self._flight.is_crowded

    @property
    def is_held(self) -> bool:
        return self._commits.is_awaited or self._is_full()

    def work(self) -> IngestWork | None:
        if not self._ready or self.is_held:
            return None
        cuts: list[Cut] = []
        flows: list[Flow] = []
        room = self._limits.flight_bytes - self._flight.n_bytes
        n_steps = next(iter(self._ready)).cuts[0].n_steps
        cost = self._cost(n_steps)
        for flow, cut in self._in_rounds(n_steps):
            if cost > room and (flows or self._flight.n_bytes > 0):
                break
            room -= cost
            cuts.append(cut)
            flows.append(flow)
            if len(flows) == self._limits.max_batch:
                break
        if not flows:
            return None
        hand = f"{self._field(flows[0].number)}#{cuts[0].window}"
        return IngestWork(n_steps, tuple(cuts), tuple(f.seed for f in flows), tuple(flows), hand)

    def _in_rounds(self, n_steps: int) -> Iterator[tuple[Flow, Cut]]:
        """The first window of each stream that may be sent, then the second of each, and so on.

        Only windows of `n_steps`. Within a round the networks take turns.
        """
        flows = [*in_turn(self._ready, lambda flow: flow.routes)]
        for depth in count():
            flows = [f for f in flows if depth < min(len(f.cuts), self._room(f))]
            flows = [f for f in flows if f.cuts[depth].n_steps == n_steps]
            if not flows:
                return
            yield from ((flow, flow.cuts[depth]) for flow in flows)

    def _room(self, flow: Flow) -> int:
        """Windows that the stream may still have on their way."""
        return self._limits.stream_windows - len(flow.sent)

    def _is_full(self) -> bool:
        # One that is behind cannot commit before it has read on, nor read on unless it sends.
        return self._commits.is_full(self.reading) and not self._commits.is_behind(self.reading)

    def compute(self, work: IngestWork) -> list[bytes | Exception]:
        return self._encode.run(work)

    def apply(self, work: IngestWork, result: list[bytes | Exception]) -> None:
        n_sent = n_bytes = 0
        for cut, flow, payload in zip(work.cuts, work.flows, result, strict=True):
            if not self._is_next(flow, cut):
                continue  # ended while it was encoded
            flow.cuts.popleft()
            cost = self._cost(cut.n_steps)
            self._queue(cut, -1)
            if isinstance(payload, Exception):
                self._poison(flow, cut, payload)
                continue
            if cut.window >= flow.level:  # a replay's may be confirmed long since
                n_sent, n_bytes = n_sent + 1, n_bytes + cost
                if not flow.sent:
                    flow.since = self._now
                flow.sent.append((cut.window, cost))
            self.counts["windows_applied_total"] += 1
            if self.replaying:
                self.counts["windows_replayed_total"] += 1
            self._send(flow, cut, payload)
            self._settle(flow)
        self._flight.depart(n_sent, n_bytes)

    def _is_next(self, flow: Flow, cut: Cut) -> bool:
        return self._flows.get(flow.number) is flow and bool(flow.cuts) and flow.cuts[0] is cut

    def _send(self, flow: Flow, cut: Cut, payload: bytes) -> None:
        batch = Batch(
            node=self.spec.input.node, stream=StreamId(self._eras.era, flow.number), name=flow.name,
            networks=flow.routes, seed=flow.seed, window=cut.window, start=cut.start, stop=cut.stop,
            kind=Kind.SPIKES, end=cut.end, payload=payload, error="",
        )  # fmt: skip
        self._outbox.batch(self._spikes, batch)

    def _poison(self, flow: Flow, cut: Cut, error: Exception) -> None:
        where = f"stream {flow.name}, window {cut.window}"
        self._doom(flow, f"EncoderFailed: {where}: {type(error).__name__}: {error}")

    def _drop_cuts(self, flow: Flow) -> None:
        for cut in flow.cuts:
            self._queue(cut, -1)
        flow.cuts.clear()
        self._ready.pop(flow, None)

    def _doom(self, flow: Flow, error: str) -> None:
        """End a stream through the log, so that a replay ends it too (5); till then it is mute."""
        flow.doomed = True
        self._drop_cuts(flow)
        self._touch(flow)
        kill = Kill(StreamId(self._eras.era, flow.number), flow.name, flow.routes, clip_text(error))
        self._outbox.record(self.spec.in_topic, flow.name.encode(), encode_record(kill))

    # ---- checkpoint ---------------------------------------------------------------------------

    def snapshot(self, full: bool, anyhow: bool = False) -> Snapshot | None:
        """One instant (20). None while no era is current, and, unless `anyhow`, when nothing
        happened since."""
        if not self._eras.is_serving or self._commits.is_behind(self.reading):
            return None
        self._outbox.flush()
        offsets = self.reading.offsets(self.spec.topics)
        if not (full or anyhow or self._ledger or self._commits.lacks(offsets)):
            return None
        alive = (*self._names.fields(), *map(self._field, self._flows)) if full else None
        taken = self._ledger.take(alive)
        return Snapshot(
            full=full,
            head=self._head(),
            positions=offsets,
            changed=tuple(map(self._freeze, taken.changed)),
            deleted=taken.deleted,
            keep=(),
            n_outputs=self._outbox.n_outputs,
            n_bytes_read=self.reading.n_bytes,
            token=taken,
        )

    def committed(self, snapshot: Snapshot) -> None:
        self._ledger.committed(snapshot.token, self._is_alive)
        self._commits.committed(snapshot)

    def refused(self, snapshot: Snapshot) -> None:
        self._ledger.refused(snapshot.token, self._is_alive)

    def _is_alive(self, field: str) -> bool:
        if self._names.owns(field):
            return self._names.has(field)
        key = parse_field(field)
        return key is not None and key[1].era == self._eras.era and key[1].number in self._flows

    def _head(self) -> bytes:
        return seal({
            "positions": {t: list(p) for t, p in self.reading.positions().items()},
            "era": [self._eras.era, self._eras.predecessor, self._eras.max_streams],
            "routes": list(self._routes),
            "next": self._names.next_number,
            "killed": {n: k.intervals() for n, k in self._killed.items()},
            "early": self._early.freeze(),
            "condemned": sorted(self._condemned),
            "superseded": self._superseded.freeze(),
            "routed_by": self._routed_by,
            "open": self._open_numbers.intervals(),
            "names": self._names.fields(),
        }, blob_name(*self._identity))  # fmt: skip

    def _freeze(self, field: str) -> tuple[str, int, bytes]:
        if self._names.owns(field):
            return field, 0, seal(self._names.freeze(field), blob_name(*self._identity, field))
        flow = self._flows[int(field.rsplit("/", 1)[1])]
        return field, flow.n_cut, seal(flow.freeze(), blob_name(*self._identity, field))

    # ---- restoring ----------------------------------------------------------------------------

    def _restore(self, stored: Stored) -> None:
        """Take a checkpoint in. Where it does not tell how streams were numbered, the log is read
        again from the beginning of its era or, where it is not whole, a new one begins (1)."""
        head = self._open_head(stored)
        self._commits.expect({t: n for t, n in stored.positions.items() if t in self.spec.topics})
        for field in stored.streams:
            self._ledger.stored(field)
        if head is None:
            for field, versions in stored.streams.items():
                self._ledger.end(field)
                self._remember(field, versions)
            return
        opened = IntervalSet((lo, hi) for lo, hi in head["open"])
        fields = {self._field(number): number for number in opened.members()}
        for field in stored.streams:
            if field not in fields and field not in head["names"]:
                self._note_damage()  # a damaged name: whose it was is missing
                self._ledger.end(field)
        for field, number in fields.items():
            self._restore_flow(number, field, stored)
        # Streams that are lost here live on elsewhere, until their KILL is read.
        self._over.resume(n for n in self._names.open_numbers() if n not in self._flows)

    def _note_damage(self) -> None:
        self.counts["snapshots_corrupt_total"] += 1
        self.found_damage = True

    def _remember(self, field: str, versions: tuple[bytes | None, ...]) -> None:
        """Who the stream is, as its own snapshot says: it ends, unless its era is replayed."""
        key = parse_field(field)
        if key is None:  # a block of names, or damaged
            return
        _, stream = key
        for saved in versions:
            try:
                frozen = self._open_blob(field, saved)
                with thawing(field):
                    flow = Flow.thaw(stream.number, frozen, self.spec.partition)
            except SnapshotCorruptError:
                continue
            self._superseded.add(stream, flow.name, flow.waiting)
            return

    def _open_blob(self, field: str, data: bytes | None) -> Any:
        return open_sealed(data, field, blob_name(*self._identity, field))

    def _open_head(self, stored: Stored) -> Any | None:
        """Take the newest head in, and the names that it lists; None where either is damaged. An
        older one would number again what was numbered: it is not used."""
        what, topic = f"head of checkpoint {stored.number}", self.spec.in_topic
        try:
            head = open_sealed(stored.heads[0], what, blob_name(*self._identity))
            with thawing(what):
                if head["positions"].get(topic, (0,))[0] < stored.positions.get(topic, 0):
                    raise SnapshotCorruptError(f"{what} is older than the positions beside it")
                names = self._open_names(head["names"], stored)
                self._thaw_head(head, names, stored)
        except SnapshotCorruptError:
            self._note_damage()
            return None
        return head

    def _open_names(self, fields: Iterable[str], stored: Stored) -> Names:
        """Raises SnapshotCorruptError: without its names an ingest cannot number as before."""
        names = Names(self._limits.remembered_names)
        for field in fields:
            if stored.cursors.get(field, 0):  # a block of names has none but 0
                self._note_damage()
            block = self._open_blob(field, stored.streams.get(field, (None,))[0])
            with thawing(field):
                names.thaw(field, block)
        return names

    def _thaw_head(self, head: Any, names: Names, stored: Stored) -> None:
        """All of it or, where an exception comes out, nothing."""
        positions = {t: Position(*p) for t, p in head["positions"].items()}
        reading = Reading(self.spec.topics, positions)
        era, predecessor, max_streams = head["era"]
        routes, routed_by = tuple(head["routes"]), head["routed_by"]
        early, condemned = Early.thaw(head["early"]), set(head["condemned"])
        superseded = Superseded.thaw(head["superseded"])
        killed = {
            n: IntervalSet((lo, hi) for lo, hi in pairs) for n, pairs in head["killed"].items()
        }
        names.resume(int(head["next"]))
        self.found_damage |= not positions.keys() <= stored.positions.keys()
        self.reading, self._routes, self._routed_by = reading, routes, routed_by
        self._eras.resume(era, predecessor, max_streams)
        self._names, self._superseded = names, superseded
        self._early, self._condemned, self._killed = early, condemned, killed

    def _restore_flow(self, number: int, field: str, stored: Stored) -> None:
        current, previous = stored.streams.get(field, (None, None))
        try:
            saved, cursor = self._open_blob(field, current), stored.cursors.get(field)
            with thawing(field):
                if cursor is not None and saved[_N_CUT] != cursor:
                    saved = self._which(field, saved, previous, cursor)
                flow = Flow.thaw(number, saved, self.spec.partition)
                for cut in flow.cuts:
                    self._cost(cut.n_steps)
        except SnapshotCorruptError as error:
            self._note_damage()
            self._ledger.end(field)
            self._give_up(number, str(error))
            return
        self._resume(flow)

    def _which(
        self, field: str, saved: list[Any], previous: bytes | None, cursor: int
    ) -> list[Any]:
        """The reference is damaged, or names the older version as the newer one."""
        self._note_damage()
        try:
            other: list[Any] = self._open_blob(field, previous)
        except SnapshotCorruptError:
            return saved
        return other if other[_N_CUT] == cursor > saved[_N_CUT] else saved

    def _give_up(self, number: int, error: str) -> None:
        """What an older version of a flow lacks is not to be told apart: its stream is killed."""
        self._condemned.add(number)
        name = self._names.name_of(number)
        networks = tuple(sorted(self.spec.networks))
        error = clip_text(f"SnapshotCorrupt: {error}")
        kill = Kill(StreamId(self._eras.era, number), name, networks, error)
        self._outbox.record(self.spec.in_topic, name.encode() or None, encode_record(kill))

    def _resume(self, flow: Flow) -> None:
        self._flows[flow.number] = flow
        self._held_bytes += flow.held_bytes
        self._open_numbers.add(flow.number)
        self._flight.depart(*flow.flying())
        for cut in flow.cuts:
            self._queue(cut, 1)
        self._tally.put(flow.number, flow.waiting)
        self._listen(flow)
        if flow.cuts and self._room(flow) > 0:
            self._ready[flow] = None
        if not flow.networks <= self.spec.networks:
            self._leave(flow, flow.networks - self.spec.networks)


def _is_silent(flow: Flow | None, since: int) -> bool:
    """Whether it is open, and has said nothing at or beyond this offset."""
    return flow is not None and not flow.end and flow.said_at < since


def _taken(name: str) -> str:
    return (
        f"duplicate_stream: the name {name} is taken by a stream that was seen lately; use another"
        " name, or repeat the same request byte for byte to get the same result"
    )


def _ended(name: str) -> str:
    """Its end is in the results: readers take that, not this refusal, for what became of it."""
    return f"StreamEnded: stream {name} ended with an error; open one under another name"
