"""A publisher that nobody invited: it repeats what lies in the topics, and writes what nobody can
read.

What it repeats are the very bytes that were written, on topics of spikes, inputs and results, in
another order. What it poisons with is told apart by each reader, goes to the dead letters, and
concerns no stream.
"""

import asyncio
import math
import random
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgpack
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from loadtest.faults.schedule import Fault
from router.security import kafka_options
from router.settings import Settings
from router.topics import in_topic, out_topic, spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, encode_frame
from topologies.compiled import CompiledNetwork

__all__ = ["Hostile", "poison_frames", "poison_records"]

_REPEATED: Final = 40  # records of one topic and partition
_WAIT_MS: Final = 1000
_NOBODY: Final = "f" * 32
_Said = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers of a record: the very bytes, seal and all."""
_NANS: Final = struct.pack("<64f", *[math.nan] * 64)  # a sample of digits, were they numbers


class Hostile:
    """Writes to the topics of these networks; an async context."""

    def __init__(self, settings: Settings, networks: Sequence[CompiledNetwork]) -> None:
        self._settings = settings
        self._inputs = sorted({in_topic(n.input.name) for n in networks})
        spikes = {spikes_topic(o): o for n in networks for o in n.operators}
        self._spikes = dict(sorted(spikes.items()))
        self._results = [out_topic(n.name) for n in networks]
        kafka = kafka_options(settings)
        self._producer = AIOKafkaProducer(**kafka, acks="all", request_timeout_ms=10_000)
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
        dice = random.Random(fault.number)
        topics = [*self._spikes, *self._inputs, *self._results]
        n = 0
        for topic in dice.sample(topics, 1 + int(fault.strength * 4)):
            place = TopicPartition(topic, dice.randrange(self._settings.partitions))
            records = await self._last(place)
            dice.shuffle(records)
            for key, value, headers in records:
                await self._producer.send(
                    topic, value, key=key, partition=place.partition, headers=headers
                )
            n += len(records)
        await self._producer.flush()
        self.n_repeated += n
        return n

    async def poison(self, fault: Fault) -> int:
        """Append records that nobody can read to a topic of spikes and to an input; how many."""
        partition = int(fault.strength * self._settings.partitions)
        topic = fault.pick(list(self._spikes))
        for value in poison_frames(self._spikes[topic]):
            await self._producer.send(topic, value, partition=partition)
        records = poison_records(fault.number)
        for key, value in records:
            await self._producer.send(fault.pick(self._inputs), value, key=key, partition=partition)
        await self._producer.flush()
        n = len(poison_frames(self._spikes[topic])) + len(records)
        self.n_poison += n
        return n

    async def _last(self, place: TopicPartition) -> list[_Said]:
        async with self._reading:
            return await self._last_of(place)

    async def _last_of(self, place: TopicPartition) -> list[_Said]:
        last = (await self._consumer.end_offsets([place]))[place]
        first = (await self._consumer.beginning_offsets([place]))[place]
        if last <= first:
            return []
        self._consumer.assign([place])
        self._consumer.seek(place, max(first, last - _REPEATED))
        found: list[_Said] = []
        while fetched := await self._consumer.getmany(timeout_ms=_WAIT_MS):
            for records in fetched.values():
                found += [(r.key, r.value, list(r.headers)) for r in records]
            if len(found) >= _REPEATED:
                break
        return found


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
