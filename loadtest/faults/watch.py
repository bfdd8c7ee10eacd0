"""Watches a world: what the results topics hold, what the store says, how much memory is used."""

import asyncio
import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from loadtest.faults.history import History, Sample, Size, TaskView, Wire
from loadtest.faults.world import World
from router.seals import Keyring, Signed, Trust, seal_of
from router.security import kafka_options
from router.settings import Settings
from router.store.calls import committed_offsets, status
from router.store.errors import StoreError
from router.store.redis import RedisStore
from router.topics import out_topic
from router.wire import Batch, Kind, WireError, decode_frame

__all__ = ["Tap", "Watcher"]

_SAMPLE_S: Final = 0.2
_SIZE_S: Final = 2.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Tap:
    """Reads results topics from their beginning, repeats and all, into the history.

    With `keys`, what the system has not sealed is counted and passed over.
    """

    def __init__(
        self,
        settings: Settings,
        networks: list[str],
        history: History,
        keys: Keyring | None = None,
        learn_keys: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._settings = settings
        self._keys = Keyring(is_open=True) if keys is None else keys
        self._learn_keys = learn_keys
        self._history = history
        self._places = {
            TopicPartition(out_topic(network), p): network
            for network in networks
            for p in range(settings.partitions)
        }

    async def run(self) -> None:
        """Read until cancelled."""
        consumer = AIOKafkaConsumer(
            **kafka_options(self._settings), group_id=None, enable_auto_commit=False,
            auto_offset_reset="earliest", isolation_level="read_committed", fetch_max_wait_ms=20,
        )  # fmt: skip
        await consumer.start()
        try:
            consumer.assign(list(self._places))
            while True:
                try:
                    await self._take(await consumer.getmany(timeout_ms=200))
                except KafkaError:
                    await asyncio.sleep(_SAMPLE_S)
        finally:
            await consumer.stop()

    async def _take(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        for place, records in fetched.items():
            for record in records:
                if await self._is_sealed(place, record):
                    self._frame(place, record.value or b"")
                else:
                    self._history.n_unsealed += 1

    async def _is_sealed(self, place: TopicPartition, record: Any) -> bool:
        signed = Signed(place.topic, place.partition, record.key, record.value or b"")
        seal = seal_of(record.headers)
        trust = self._keys.trust(signed, seal)
        if trust is Trust.UNKNOWN and self._learn_keys is not None:
            await self._learn_keys()
            trust = self._keys.trust(signed, seal)
        return trust is Trust.GENUINE

    def _frame(self, place: TopicPartition, value: bytes) -> None:
        try:
            batches = decode_frame(value).batches
        except WireError:
            self._history.n_unreadable += 1
            return
        now = asyncio.get_running_loop().time()
        self._history.wire += [
            _wire(self._places[place], place.partition, batch, now)
            for batch in batches
            if batch.kind <= Kind.ABORT
        ]


def _wire(network: str, partition: int, batch: Batch, at: float) -> Wire:
    said = f"{batch.start} {batch.stop} {batch.end} {batch.name}\n".encode() + batch.payload
    is_data = batch.kind is Kind.SPIKES
    digest = hashlib.blake2b(said, digest_size=8).digest() if is_data else b""
    era, number = batch.stream
    return Wire(network, partition, era, number, batch.window, batch.end, digest, at)


class Watcher:
    """Samples the store and the memory of processes into the history."""

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._history = history
        self._counts: dict[str, Counter[str]] = {}
        self._past: Counter[str] = Counter()

    @property
    def counts(self) -> Counter[str]:
        """What all workers have counted, as far as they told before they died."""
        return sum(self._counts.values(), self._past.copy())

    async def run(self) -> None:
        """Sample until cancelled."""
        async with RedisStore.of(self._world.settings) as store, asyncio.TaskGroup() as group:
            group.create_task(self._sample_store(store))
            group.create_task(self._sample_memory())

    async def _sample_store(self, store: RedisStore) -> None:
        while True:
            with contextlib.suppress(StoreError, ValueError):  # it may be damaged on purpose
                await self._sample(store)
            await asyncio.sleep(_SAMPLE_S)

    async def _sample(self, store: RedisStore) -> None:
        at = asyncio.get_running_loop().time()
        tasks: dict[str, TaskView] = {}
        told: dict[str, Counter[str]] = {}
        for partition in range(self._world.settings.partitions):
            reply = await store.run(status(partition))
            for worker in reply.workers:  # each partition has what it last renewed there
                mine = Counter(json.loads(str(worker.info.details.get("counts", "{}"))))
                told[worker.worker] = max(told.get(worker.worker, mine), mine, key=Counter.total)
            stored = await store.read(committed_offsets(task.task for task in reply.tasks))
            for task, positions in zip(reply.tasks, stored, strict=True):
                owner = task.worker if task.lease_ms > 0 else ""
                tasks[str(task.task)] = TaskView(owner, task.number, positions)
        self._history.samples.append(Sample(at, tasks))
        for name, mine in told.items():
            last = self._counts.get(name, Counter())
            if mine.total() < last.total():  # it was started again, and counts from zero
                self._past.update(last)
            self._counts[name] = mine

    async def _sample_memory(self) -> None:
        while True:
            at = asyncio.get_running_loop().time()
            for name, pid in self._world.pids().items():
                if n_bytes := _resident(pid):
                    self._history.sizes.append(Size(name, pid, at, n_bytes))
            await asyncio.sleep(_SIZE_S)


def _resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
