"""The product's own ingest and tasks over a log in memory: one process, no broker, no store.

Delivery between topics is shuffled by a seed; with `crashes`, tasks are thrown away at random and
begun again from their last checkpoint, so that they send again what they had sent.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from router.client import partition_of
from router.payload import pack
from router.records import SPIKES, Data, Route, encode_record, record_key
from router.results import ResultTable
from router.topics import DEAD_LETTER, in_topic, out_topic
from router.wire import decode_frame
from topologies.compiled import CompiledNetwork, Operator
from topologies.compiler import Capacity, CapacityError, compile_network
from topologies.compiler.cut import Granularity
from topologies.model import Network
from topologies.stages.base import Array, Encoder
from workers.compute import EncoderEncode, KernelCompute
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.kernel import load_kernel
from workers.reading import Record
from workers.snapshot import Snapshot, Stored
from workers.spec import ingest_spec, task_spec
from workers.task import Task
from workers.tenant import Feed, Halt, Limits, Tenant

_QUIET_SWEEPS = 5
_MOST_CRASHES = 40

Place = tuple[str, int]
Log = dict[Place, list[tuple[bytes | None, bytes]]]


@dataclass
class _Checkpoints:
    """What the store would give back: two versions of the head and of each stream."""

    number: int = 0
    heads: tuple[bytes | None, bytes | None] = (None, None)
    streams: dict[str, tuple[bytes | None, bytes | None]] = field(default_factory=dict)

    def commit(self, snapshot: Snapshot) -> None:
        self.number += 1
        self.heads = (snapshot.head, self.heads[0])
        changed = {name: blob for name, _, blob in snapshot.changed}
        kept = set(snapshot.keep) | set(changed)
        gone = set(self.streams) - kept if snapshot.full else set(snapshot.deleted) - set(changed)
        for name in gone:
            self.streams.pop(name, None)
        for name, blob in changed.items():
            self.streams[name] = (blob, self.streams.get(name, (None, None))[0])

    def stored(self) -> Stored | None:
        return Stored(self.number, self.heads, dict(self.streams)) if self.number else None


class _Hosted:
    """One task with its read positions and its checkpoints."""

    def __init__(self, start: Callable[[Stored | None], Tenant], partition: int, log: Log) -> None:
        self._start = start
        self._partition = partition
        self._log = log
        self._checkpoints = _Checkpoints()
        self.counts: Counter[str] = Counter()
        self.begin()

    def begin(self) -> None:
        """Begin, or begin again, from the last checkpoint."""
        self.tenant = self._start(self._checkpoints.stored())
        self._full = True
        self._at = dict(self.tenant.start())

    def crash(self) -> None:
        self.counts.update(self.tenant.counts)
        self.begin()

    def deliver(self, topic: str, most: int) -> bool:
        """Up to `most` records of a topic; False when there is none."""
        at = self._at.get(topic, 0)
        records = self._log.get((topic, self._partition), [])[at : at + most]
        if topic in self.tenant.paused_topics:
            return False
        feed = Feed(
            self.tenant,
            [Record(topic, offset, 0, *record) for offset, record in enumerate(records, at)],
        )
        assert feed.go() is not Halt.LOOK_UP
        self._at[topic] = at + feed.n_taken
        if feed.seeks:
            self._at = dict(self.tenant.start())
        return bool(records)

    def apply(self) -> bool:
        work = self.tenant.work()
        if work is not None:
            self.tenant.apply(work, self.tenant.compute(work))
        return self.send() or work is not None

    def send(self) -> bool:
        outputs = self.tenant.take_outputs()
        for topic, key, partition, value, _ in outputs:
            self._log.setdefault((topic, partition), []).append((key, value))
        return bool(outputs)

    def checkpoint(self) -> bool:
        self.send()
        snapshot = self.tenant.snapshot(self._full)
        if snapshot is None:
            return False
        self._checkpoints.commit(snapshot)
        self.tenant.committed(snapshot)
        self._full = False
        return True


class _World:
    def __init__(
        self, network: CompiledNetwork, partitions: int, limits: Limits, seed: int
    ) -> None:
        self.log: Log = {}
        self._network = network
        self._partitions = partitions
        self._limits = limits
        self._random = np.random.Generator(np.random.PCG64(seed))
        self.n_crashes = 0
        route = encode_record(Route((network.name,)))
        for partition in range(partitions):
            self.log[in_topic(network.input.name), partition] = [(None, route)]

    def publish(self, record: Data) -> None:
        partition = partition_of(record.name, self._partitions)
        place = (in_topic(self._network.input.name), partition)
        self.log[place].append((record_key(record), encode_record(record)))

    def run(self, crashes: float) -> Counter[str]:
        """Until nothing happens any more; what the tasks have counted."""
        hosted = [
            self._host(operator, group.index, partition)
            for operator, groups in self._network.groups.items()
            for group in groups
            for partition in range(self._partitions)
        ]
        quiet = 0
        while quiet < _QUIET_SWEEPS:
            order = self._random.permutation(len(hosted))
            moved = [self._turn(hosted[index], crashes) for index in order]
            quiet = 0 if any(moved) else quiet + 1
        while sum(self._all(one) for one in hosted):  # all of them, so no `any`
            pass
        counts: Counter[str] = Counter()
        for one in hosted:
            counts.update(one.counts + one.tenant.counts)
        counts["crashes"] = self.n_crashes
        return counts

    def _turn(self, one: _Hosted, crashes: float) -> bool:
        """A few records of some topics, some micro-batches, sometimes a checkpoint or a crash."""
        chance = self._random.random
        moved = False
        for topic in self._random.permutation(np.array(one.tenant.topics)):
            if chance() < 0.7:
                moved |= one.deliver(str(topic), 1 + int(4 * chance()))
        while chance() < 0.7 and one.apply():
            moved = True
        if chance() < 0.3:
            one.checkpoint()
        if self.n_crashes < _MOST_CRASHES and chance() < crashes:
            one.crash()
            self.n_crashes += 1
            moved = True
        return moved

    def _all(self, one: _Hosted) -> bool:
        moved = [one.deliver(topic, 1_000) for topic in one.tenant.topics]
        moved.append(one.apply())
        moved.append(one.checkpoint())
        return any(moved)

    def _host(self, operator: str, group: int, partition: int) -> _Hosted:
        networks = {self._network.name: self._network}
        whole = self._network.operators[operator]
        if whole.kind == "ingest":
            return _Hosted(self._ingest(networks, whole, partition), partition, self.log)
        spec = task_spec(networks, operator, group, partition)
        compute = KernelCompute(spec, load_kernel(whole, spec.group))

        def start(stored: Stored | None) -> Tenant:
            return Task(spec, compute, self._limits, stored)

        return _Hosted(start, partition, self.log)

    def _ingest(
        self, networks: Mapping[str, CompiledNetwork], operator: Operator, partition: int
    ) -> Callable[[Stored | None], Tenant]:
        spec = ingest_spec(networks, operator.id, partition)
        encoder = operator.program.stages[-1]
        assert isinstance(encoder, Encoder)
        encode = EncoderEncode(spec, encoder)

        def start(stored: Stored | None) -> Tenant:
            end = len(self.log[spec.in_topic, partition])
            era = 1 + int(self._random.integers(2**40))
            return Ingest(spec, encode, self._limits, Fresh(era, 0, end), stored)

        return start

    def results(self) -> dict[str, Array]:
        """Stream name -> its emissions (K, n). Every stream must have ended well."""
        letters = [value for (topic, _), log in self.log.items() for _, value in log
                   if topic == DEAD_LETTER]  # fmt: skip
        assert not letters, letters[0]
        name = self._network.name
        table = ResultTable(self._partitions)
        table.follow(name, self._network.outputs.every)
        found: dict[str, Array] = {}
        for partition in range(self._partitions):
            for _, value in self.log.get((out_topic(name), partition), []):
                for stream in table.feed(name, partition, decode_frame(value).batches, 0.0):
                    assert not stream.error, stream.error
                    if stream.final:
                        found[stream.name] = stream.result().values
        assert table.tally.gaps == 0
        return found


@pytest.fixture
def serve() -> Callable[..., tuple[dict[str, Array], Counter[str]]]:
    """Serve records in one process: `serve(network, records, partitions=, ...)`.

    Gives the emissions (K, n) of each stream, and what all tasks have counted.
    """

    def served(
        network: CompiledNetwork,
        records: Sequence[Data],
        *,
        partitions: int = 1,
        max_batch: int = 64,
        stream_windows: int = 64,
        crashes: float = 0.0,
        seed: int = 0,
    ) -> tuple[dict[str, Array], Counter[str]]:
        limits = Limits(max_batch=max_batch, stream_windows=stream_windows)
        world = _World(network, partitions, limits, seed)
        for record in records:
            world.publish(record)
        counts = world.run(crashes)
        return world.results(), counts

    return served


@pytest.fixture
def compiled() -> Callable[..., CompiledNetwork]:
    """Compile, `cut` into as many synapse groups as each operator can be, and set the window."""

    def compile_it(
        network: Network,
        granularity: Granularity = "layer",
        *,
        cut: bool = False,
        longest_window: int | None = None,
    ) -> CompiledNetwork:
        if longest_window is not None:
            spec = replace(network.input, longest_window=longest_window)
            network = replace(network, input=spec)
        for neurons in (1, 2, 4, 8, 16, 32, 64, 128, 256) if cut else ():
            try:
                return compile_network(
                    network, granularity=granularity, capacity=Capacity(neurons=neurons)
                )
            except CapacityError:
                continue
        return compile_network(network, granularity=granularity)

    return compile_it


@pytest.fixture
def requests_of() -> Callable[..., list[Data]]:
    """Each stream as one request: values (B, *shape), or (B, T, *shape) for events."""

    def requests(network: CompiledNetwork, values: Array, seeds: Array) -> list[Data]:
        ways = (_as_spikes, _as_events, _as_dense) if network.input.encoder == "events" else ()
        found = []
        for i, (value, seed) in enumerate(zip(values, seeds, strict=True)):
            content = ways[i % 3](network, value, 0) if ways else _sample(value)
            content.pop("start", None)
            found.append(Data(name=f"request-{i}", request=True, seed=int(seed), **content))
        return found

    return requests


@pytest.fixture
def streams_of() -> Callable[..., list[Data]]:
    """Each stream as many records with time marks, those of different streams interleaved.

    Values are (B, T, *shape) for events, else (B, S, *shape): S samples of a request's length.
    """

    def streams(network: CompiledNetwork, values: Array, seeds: Array, seed: int = 0) -> list[Data]:
        random = np.random.Generator(np.random.PCG64(seed))
        cut = _event_stream if network.input.encoder == "events" else _sample_stream
        waiting = [
            cut(network, f"stream-{i}", value, int(stream_seed), random)
            for i, (value, stream_seed) in enumerate(zip(values, seeds, strict=True))
        ]
        found = []
        while any(waiting):
            some = [records for records in waiting if records]
            found.append(some[int(random.integers(len(some)))].pop(0))
        return found

    return streams


def _sample(value: Array) -> dict[str, Any]:
    dense = value.astype("<f4")
    return {"payload": dense.tobytes(), "dtype": "float32", "shape": value.shape}


def _as_spikes(network: CompiledNetwork, steps: Array, start: int) -> dict[str, Any]:
    high = int(network.input.high)
    payload = pack(steps.reshape(1, len(steps), -1), 0, high)[0]
    return {"payload": payload, "dtype": SPIKES, "steps": len(steps), "start": start}


def _as_events(network: CompiledNetwork, steps: Array, start: int) -> dict[str, Any]:
    flat = steps.reshape(len(steps), -1)
    events = tuple((start + int(t), int(a), int(flat[t, a])) for t, a in np.argwhere(flat))
    return {"events": events, "until": start + len(steps)}


def _as_dense(network: CompiledNetwork, steps: Array, start: int) -> dict[str, Any]:
    dense = steps.astype("<i4")
    return {"payload": dense.tobytes(), "dtype": "int32", "shape": dense.shape}


def _event_stream(
    network: CompiledNetwork, name: str, steps: Array, seed: int, random: np.random.Generator
) -> list[Data]:
    """Records of 1 to 9 steps; silence is said by time marks alone; END comes by itself or not."""
    ways = (_as_spikes, _as_events, _as_dense)
    numbered = bool(random.integers(2))
    found: list[Data] = []
    start = 0
    while start < len(steps):
        stop = min(len(steps), start + 1 + int(random.integers(9)))
        part = steps[start:stop]
        content = ways[int(random.integers(3))](network, part, start)
        if not part.any():
            content = {"until": stop}
        number = len(found) if numbered else None
        found.append(Data(name=name, seed=seed, seq=number, **content))
        start = stop
    if random.integers(2):
        found[-1] = replace(found[-1], end=True)
    else:
        found.append(Data(name=name, end=True, seq=len(found) if numbered else None))
    return found


def _sample_stream(
    network: CompiledNetwork, name: str, samples: Array, seed: int, random: np.random.Generator
) -> list[Data]:
    found = [
        Data(name=name, seed=seed, seq=i, **_sample(sample)) for i, sample in enumerate(samples)
    ]
    found[-1] = replace(found[-1], end=True)
    return found
