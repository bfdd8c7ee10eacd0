"""What a task needs from its host and gives to it: values in, values out, no I/O.

`workers.task.Task` and `workers.ingest.Ingest` are both a `Tenant`; the host, the checkpoint
procedure and the simulation drive them through these methods only.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from router.seals import Keyring, Signed, Trust
from router.topics import group_key
from router.wire import FRAME_BYTES, Batch, Frame, encode_frames
from workers.reading import Reading, Record
from workers.snapshot import Snapshot

__all__ = ["Feed", "Halt", "Limits", "Outbox", "Output", "Tenant", "trust"]


class Output(NamedTuple):
    """A record to send. The partition is always explicit: keys never choose one (PROTOCOL 2)."""

    topic: str
    key: bytes | None
    partition: int
    value: bytes
    seal: bytes = b""


@dataclass(frozen=True)
class Limits:
    """How much a task takes in hand.

    `max_batch`: streams stepped together. `most_ahead`: windows of one stream that are stepped one
    after the other without a pause, beyond the first. `uncommitted_bytes`: U of PROTOCOL 19.
    `flight_bytes`: B of PROTOCOL 18. `stream_windows`: windows of one stream beyond what results
    confirm. `remembered_names`: how many of the latest stream names an input remembers per
    partition. `deadline_s`: how long a cut window may stay unconfirmed before its stream is killed.
    `frame_bytes`: what a record holds at most (PROTOCOL 12). `max_streams`: streams of an input's
    partition that may be open at once, in an era that begins here (32). `stream_idle_s`: how long
    an open stream may say nothing (33). None is unbounded. `over_s`: the time between two tellings
    of which streams are over (7). `n_partitions`: of every topic; 0: not known.
    """

    max_batch: int = 64
    most_ahead: int = 31
    uncommitted_bytes: int = 1_000_000
    flight_bytes: int = 1_000_000
    stream_windows: int = 64
    remembered_names: int = 16_384
    deadline_s: float = 30.0
    frame_bytes: int = FRAME_BYTES
    max_streams: int | None = 65_536
    stream_idle_s: float | None = 3600.0
    over_s: float = 30.0
    n_partitions: int = 0


class Tenant(Protocol):
    """A task, seen from outside. Every method is immediate; only `compute` may run on a thread."""

    reading: Reading
    counts: Counter[str]
    replaying: bool
    found_damage: bool
    """Whether some of the checkpoint it began with was damaged: the next one replaces it (24)."""

    @property
    def topics(self) -> tuple[str, ...]: ...
    @property
    def paused_topics(self) -> tuple[str, ...]: ...
    @property
    def n_streams(self) -> int: ...
    @property
    def n_waiting(self) -> int:
        """Windows that are here and not applied: the lag."""
        ...

    @property
    def is_crowded(self) -> bool:
        """Whether windows wait here that had better gather, since enough is on its way (18)."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether nothing is applied before the next commit (19, 28)."""
        ...

    def start(self) -> dict[str, int]:
        """First offset to fetch, per topic."""
        ...

    def receive(self, record: Record) -> bool:
        """Take one record. False when it names a network that `update` must bring first, or a key
        that is not known yet: nothing was taken, look both up and give it again."""
        ...

    def receive_strange(self, record: Record) -> None:
        """Take a record that `receive` gave back, though it was looked up in vain.

        They may have been removed, or never have been: nobody here has a place in them.
        """
        ...

    def refuse(self, record: Record, error: str) -> None:
        """Pass over a record that ends whoever takes it in: a dead letter, and lost (9, 28)."""
        ...

    def passed(self, topic: str, offset: int) -> None:
        """All that can be read below `offset` was given to `receive`: what else there is are
        markers and aborted records of transactions."""
        ...

    def truncated(self, topic: str, log_start: int) -> None: ...
    def unreadable(self, topic: str, first: int, stop: int, reason: str, is_intact: bool) -> None:
        """Offsets `first` to `stop - 1` hold what nobody can read, and are passed over.

        `is_intact`: nobody ever could, so it was never more than a record to refuse. Otherwise
        records are gone that somebody may have read before (9).
        """
        ...

    def work(self) -> Any | None:
        """The next micro-batch of windows that can be applied, or None."""
        ...

    def compute(self, work: Any) -> Any: ...
    def apply(self, work: Any, result: Any) -> None: ...
    def tick(self, now: float) -> None: ...
    def take_outputs(self) -> list[Output]: ...
    def take_seeks(self) -> dict[str, int]: ...
    def accuse(self, field: str, error: str) -> None: ...
    def snapshot(self, full: bool, anyhow: bool = False) -> Snapshot | None:
        """This instant, or None when nothing changed since the last commit, unless `anyhow`.

        None in any case while there is no state that could be restored.
        """
        ...

    def committed(self, snapshot: Snapshot) -> None: ...
    def refused(self, snapshot: Snapshot) -> None: ...


class Halt(Enum):
    """Why a host has, or gets, to act before a tenant takes another record."""

    LOOK_UP = "networks and keys must be looked up, and the tenant brought up to them; then go on"
    SEEK = "the tenant reads on elsewhere: what was fetched before does not follow on"
    PAUSE = "so many records were taken as were asked for; there are more"


class Feed:
    """Records of one topic, in the order of their offsets, on their way into a tenant (6).

    `passed`, (topic, offset), says up to where they are all that can be read there.
    """

    def __init__(
        self, tenant: Tenant, records: Sequence[Record], passed: tuple[str, int] | None = None
    ) -> None:
        self.n_taken = 0
        self.seeks: dict[str, int] = {}
        self._tenant = tenant
        self._records = records
        self._passed = passed
        self._looked_up = False

    def go(self, most: int | None = None) -> Halt | None:
        """Hand over one record after the other, `most` of them; None once all are taken.

        After `Halt.SEEK` the rest is not for this tenant: offsets would be missing in between.
        """
        tenant = self._tenant
        stop = len(self._records) if most is None else self.n_taken + most
        while self.n_taken < len(self._records):
            if self.n_taken >= stop:
                return Halt.PAUSE
            record = self._records[self.n_taken]
            if not tenant.receive(record):
                if not self._looked_up:
                    self._looked_up = True
                    return Halt.LOOK_UP
                tenant.receive_strange(record)
            self._looked_up = False
            self.n_taken += 1
            if self._seeks():
                return Halt.SEEK
        if self._passed is not None:
            tenant.passed(*self._passed)
            self._passed = None
        return Halt.SEEK if self._seeks() else None

    def _seeks(self) -> bool:
        if seeks := self._tenant.take_seeks():
            self.seeks = seeks
        return bool(seeks)


def trust(keys: Keyring, record: Record, partition: int) -> Trust:
    """Whether the system wrote a record of this partition (35)."""
    signed = Signed(record.topic, partition, record.key, record.value)
    return keys.trust(signed, record.seal)


class Outbox:
    """Collects batches per topic, joins them into frames, seals and counts what is handed out."""

    def __init__(
        self,
        operator: str,
        group: int,
        partition: int,
        frame_bytes: int = FRAME_BYTES,
        keys: Keyring | None = None,
    ) -> None:
        self._operator, self._group, self._partition = operator, group, partition
        self._frame_bytes = frame_bytes
        self._keys = Keyring(is_open=True) if keys is None else keys
        self._key = group_key(operator, group)
        self._batches: dict[str, list[Batch]] = {}
        self._ready: list[Output] = []
        self.n_outputs = 0
        self.n_bytes = 0

    def batch(self, topic: str, batch: Batch) -> None:
        queue = self._batches.get(topic)
        if queue is None:
            queue = self._batches[topic] = []
        queue.append(batch)

    def record(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Queue a record that is not a frame, behind what is queued already."""
        self.flush()
        self._append(topic, key, value)

    def flush(self) -> None:
        """Turn queued batches into records: from here on they count as outputs (PROTOCOL 20)."""
        if not self._batches:
            return
        for topic, batches in self._batches.items():
            frame = Frame(self._operator, self._group, batches)
            for value in encode_frames(frame, self._frame_bytes):
                self._append(topic, self._key, value)
        self._batches.clear()

    def take(self) -> list[Output]:
        self.flush()
        if not self._ready:
            return []
        ready, self._ready = self._ready, []
        return ready

    def _append(self, topic: str, key: bytes | None, value: bytes) -> None:
        seal = self._keys.seal(Signed(topic, self._partition, key, value))
        self._ready.append(Output(topic, key, self._partition, value, seal))
        self.n_outputs += 1
        self.n_bytes += len(value)
