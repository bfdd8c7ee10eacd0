"""A publisher that nobody invited: it repeats what lies in the topics, and writes what nobody can
read.

What it repeats are the very bytes that were written, on topics of spikes, inputs and results, in
another order. What it poisons with is told apart by each reader, goes to the dead letters, and
concerns no stream. What it damages and forges has the form of what the system says, and not its
seal; what it floods an input with is legal, and useless.
"""

import asyncio
import math
import random
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgpack
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from loadtest.faults.bits import Said, damaged
from loadtest.faults.floods import FloodedInput, flood
from loadtest.faults.forgery import Where, forgeries
from loadtest.faults.schedule import Fault
from loadtest.faults.workload import Workload
from loadtest.traffic import sample_record
from router.client import partition_of
from router.seals import SEAL_HEADER, Keyring, Signed, seal_of
from router.security import kafka_options
from router.settings import Settings
from router.topics import DEAD_LETTER, in_topic, out_topic, spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, encode_frame
from topologies.compiled import CompiledNetwork

__all__ = ["Hostile", "poison_frames", "poison_records"]

_REPEATED: Final = 40  # records of one topic and partition
_WAIT_MS: Final = 1000
_NOBODY: Final = "f" * 32
_PATIENCE_MS: Final = 30_000  # a broker may be away for longer than workers wait for it
_DAMAGED: Final = (4, 40)  # records of one topic and partition, each with a bit of its own
_FLOOD: Final = (1000, 3000)
_NANS: Final = struct.pack("<64f", *[math.nan] * 64)  # a sample of digits, were they numbers


class Hostile:
    """Writes to the topics of these networks, beside a workload; an async context.

    With `keys`, some of what it poisons with is sealed, as if a worker had written it.
    """

    def __init__(
        self,
        settings: Settings,
        networks: Sequence[CompiledNetwork],
        workload: Workload | None = None,
        keys: Keyring | None = None,
    ) -> None:
        self._keys = keys
        self.workload = workload
        self._settings = settings
        self._networks = list(networks)
        self._inputs = sorted({in_topic(n.input.name) for n in networks})
        spikes = {spikes_topic(o): o for n in networks for o in n.operators}
        self._spikes = dict(sorted(spikes.items()))
        self._results = [out_topic(n.name) for n in networks]
        kafka = kafka_options(settings)
        self._producer = AIOKafkaProducer(**kafka, acks="all", request_timeout_ms=_PATIENCE_MS)
        self._consumer = AIOKafkaConsumer(
            **kafka, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed",
        )  # fmt: skip
        self._reading = asyncio.Lock()  # one place at a time: faults may overlap
        self.n_repeated = 0
        self.n_poison = 0

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._consumer.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._consumer.stop()
        await self._producer.stop()

    async def repeat(self, fault: Fault) -> int:
        """Append the last records of some topics again, shuffled; how many."""
        dice = fault.dice()
        topics = [*self._spikes, *self._inputs, *self._results]
        n = 0
        for topic in dice.sample(topics, 1 + int(fault.strength * 4)):
            place = TopicPartition(topic, dice.randrange(self._settings.partitions))
            records = await self._last(place)
            dice.shuffle(records)
            n += await self._append(place, records)
        self.n_repeated += n
        return n

    async def damage(self, fault: Fault) -> tuple[str, int]:
        """Append copies of the last records of the system in a random place, each with one bit
        turned; where, and how many. What publishers say is theirs to change.
        """
        dice = fault.dice()
        place = self._any_place(fault, dice)
        ours = [said for said in await self._ends(place) if seal_of(said.headers)]
        copies = [damaged(dice.choice(ours), dice) for _ in range(int(fault.between(*_DAMAGED)))
                  if ours]  # fmt: skip
        return _named(place), await self._append(place, [said for said in copies if said])

    async def forge(self, fault: Fault) -> tuple[str, int]:
        """Append what the system might say, of streams that are open too; where, and how much."""
        dice = fault.dice()
        place = self._any_place(fault, dice)
        source = place.topic if place.topic in self._inputs else dice.choice(self._inputs)
        networks = [n.name for n in self._networks if in_topic(n.input.name) == source]
        names = self._open_names(place.partition)
        where = Where(place.topic, place.partition, names, networks, source)
        forged = forgeries(where, await self._ends(place), dice)
        return _named(place), await self._append(place, forged)

    async def flood(self, fault: Fault) -> tuple[str, int]:
        """Append thousands of legal and useless records to an input, at once; how many."""
        dice = fault.dice()
        network = self._networks[int(fault.target * len(self._networks))]
        records = flood(_flooded(network), int(fault.between(*_FLOOD)), dice)
        topic = in_topic(network.input.name)
        place = TopicPartition(topic, dice.randrange(self._settings.partitions))
        return _named(place), await self._append(place, records)

    async def poison(self, fault: Fault) -> int:
        """Append records that nobody can read to a topic of spikes and to an input; how many."""
        partition = int(fault.strength * self._settings.partitions)
        topic = fault.pick(list(self._spikes))
        frames = [Said(None, value) for value in poison_frames(self._spikes[topic])]
        place = TopicPartition(topic, partition)
        n = await self._append(place, [*frames, *(self._sealed(place, said) for said in frames)])
        records = [Said(key, value) for key, value in poison_records(fault.number)]
        n += await self._append(TopicPartition(fault.pick(self._inputs), partition), records)
        self.n_poison += n
        return n

    def _sealed(self, place: TopicPartition, said: Said) -> Said:
        """The record as a worker writes it that is not in its right mind: with a genuine seal."""
        if self._keys is None:
            return said
        signed = Signed(place.topic, place.partition, said.key, said.value or b"")
        return said._replace(headers=((SEAL_HEADER, self._keys.seal(signed)),))

    def _open_names(self, partition: int) -> list[str]:
        """Of streams of the workload that are being sent to a partition."""
        n, names = self._settings.partitions, self.workload.open_names if self.workload else ()
        return [name for name in names if partition_of(name, n) == partition]

    def _any_place(self, fault: Fault, dice: random.Random) -> TopicPartition:
        """Of the inputs, of what operators say, of results and of dead letters alike."""
        kinds = ([*self._spikes], self._inputs, self._results, [DEAD_LETTER])
        topic = dice.choice(kinds[int(fault.target * len(kinds))])
        return TopicPartition(topic, dice.randrange(self._settings.partitions))

    async def _append(self, place: TopicPartition, records: Sequence[Said]) -> int:
        """Send records to a place as they are; how many."""
        for key, value, headers in records:
            await self._producer.send(
                place.topic, value, key=key, partition=place.partition, headers=list(headers)
            )
        await self._producer.flush()
        return len(records)

    async def _last(self, place: TopicPartition) -> list[Said]:
        """The last records of a place."""
        async with self._reading:
            first, last = await self._bounds(place)
            return await self._from(place, max(first, last - _REPEATED)) if first < last else []

    async def _ends(self, place: TopicPartition) -> list[Said]:
        """The first records of a place, where the system begins its inputs, and the last ones."""
        async with self._reading:
            first, last = await self._bounds(place)
            if last <= first:
                return []
            begin = await self._from(place, first)
            if last - first <= _REPEATED:
                return begin
            return begin + await self._from(place, max(first + _REPEATED, last - _REPEATED))

    async def _bounds(self, place: TopicPartition) -> tuple[int, int]:
        first = (await self._consumer.beginning_offsets([place]))[place]
        return first, (await self._consumer.end_offsets([place]))[place]

    async def _from(self, place: TopicPartition, offset: int) -> list[Said]:
        """Some records from an offset on; there must be one."""
        self._consumer.assign([place])
        self._consumer.seek(place, offset)
        found: list[Said] = []
        while fetched := await self._consumer.getmany(timeout_ms=_WAIT_MS):
            for records in fetched.values():
                found += [Said(r.key, r.value, tuple(r.headers)) for r in records]
            if len(found) >= _REPEATED:
                break
        return found[:_REPEATED]


def _flooded(network: CompiledNetwork) -> FloodedInput:
    """The network's input, with a sample in which nothing happens."""
    source, has_events = network.input, network.input.encoder == "events"
    steps = source.n_steps or 1
    sample = np.zeros((steps, *source.shape) if has_events else source.shape, np.uint8)
    n_values = math.prod(source.shape)
    return FloodedInput(steps, n_values, has_events, sample_record("", sample))


def _named(place: TopicPartition) -> str:
    return f"{place.topic}/{place.partition}"


def poison_frames(operator: str) -> tuple[bytes, ...]:
    """Bytes on a topic of spikes that are no frame, or a frame that concerns nobody."""
    batch = Batch(_NOBODY, StreamId(1, 2), "nobody", ("nobody",), 0, 0, 0, 1, payload=b"")
    good = encode_frame(Frame(operator, 0, [batch]))
    return (
        b"",
        b"\x00\xff garbage",
        good[:1] + b"\x7e" + good[2:],  # a version that there is not
        good[: len(good) // 2],
        good + b"\x00",
        good[:1] + b"\x01" + b"\xdd\xff\xff\xff\xff" * 8,  # counts that promise 4 GiB
        b"\x91" * 2000,  # deeper than any reader goes
        encode_frame(Frame(operator, 4_000_000_000, [batch])),
        encode_frame(Frame(_NOBODY, 0, [batch])),
        encode_frame(Frame(operator, 0, [batch._replace(kind=Kind.ABORT, payload=b"")])),
        encode_frame(Frame(operator, 0, [batch._replace(kind=Kind.KILL, payload=b"")])),
    )


def poison_records(number: int) -> tuple[tuple[bytes | None, bytes], ...]:
    """Bytes on an input topic that say nothing legal."""
    name = f"poison-{number}".encode()
    pack = msgpack.packb
    return (
        (name, b"{"),
        (name, b'{"data": [NaN]}'),
        (name, b"\xc1"),
        (name, pack({"v": 9, "k": "data"})),
        (name, pack({"v": 1, "k": "data", "shape": [2**31, 2**31], "dtype": "float32",
                     "payload": b""})),
        (name, pack({"v": 1, "k": "data", "end": True, "shape": [8, 8], "dtype": "float32",
                     "payload": _NANS})),
        (name, pack({"v": 1, "k": "data", "end": True, "networks": ["../../etc/passwd"]})),
        (b"\xff\xfe", pack({"v": 1, "k": "data", "end": True})),
        (None, b"\x81" * 4000),
        (None, pack({"v": 1, "k": "route", "networks": ["nobody"]})),
        (None, pack({"v": 1, "k": "era", "era": 2**63, "predecessor": 5, "networks": ["nobody"]})),
        (name, b'{"events": ' + b"[" * 4000),
    )  # fmt: skip
