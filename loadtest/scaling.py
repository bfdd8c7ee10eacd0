"""`spikerouter bench scale`: 2 -> 4 -> 2 workers under load, and how long each task pauses.

Two workers join and take their fair share of the tasks, one at a time; then two leave politely.
Each task that changes hands stops applying, writes a last checkpoint, and goes on elsewhere. Its
*pause* is the longest time between two frames on its own topic of spikes (or results) during the
round, minus the median one: streams of a steady pace run through every task all the time.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Annotated, Final

import numpy as np
import typer
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.progress import track
from rich.table import Table

from loadtest.demo import load_digits, run_to_report
from loadtest.kills import quantile
from loadtest.recovery import Observer, Recovery
from loadtest.traffic import sample_record
from loadtest.undisturbed import run_streams
from router.client import Deadline, Publisher, ResultReader, partition_of
from router.options import KafkaOption, RedisOption
from router.security import kafka_options
from router.settings import Settings
from router.store.calls import TaskId
from router.supervisor import Stack, StackOptions
from router.topics import out_topic, spikes_topic
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network
from topologies.stages.base import Array

__all__ = ["Move", "Round", "bench_scale", "pause_ms"]

_PARTITIONS: Final = 2
_PACE_S: Final = 0.01  # between two windows of each partition's stream
_AROUND_S: Final = 0.3  # before a lease was given back: applying has stopped by then
_LEAD_S: Final = 0.5
_QUIET_S: Final = 1.5
_MOST_WINDOWS: Final = 6000  # of a stream: a minute
_TIMEOUT_S: Final = 90.0

Place = tuple[str, int]
"""(topic, partition)."""


@dataclass(frozen=True)
class Move:
    """One task that changed hands: `pause_ms` as above; `idle_ms` without an owner."""

    task: str
    way: str
    pause_ms: float
    idle_ms: float


@dataclass(frozen=True)
class Round:
    """One time out and in again. `wrong`: streams with another output than an undisturbed run."""

    moves: tuple[Move, ...]
    wrong: int


def pause_ms(frames: Sequence[float], began: float, over: float) -> float:
    """The longest gap of `frames` (seconds, ascending) that overlaps [began, over], in ms, minus
    the median gap of all; 0.0 without two frames."""
    gaps = list(pairwise(frames))
    if not gaps:
        return 0.0
    usual = median(b - a for a, b in gaps)
    mine = [b - a for a, b in gaps if a <= over and b >= began]
    return 1000 * max(0.0, max(mine, default=0.0) - usual)


class _Frames:
    """When frames came on every topic that a network's tasks write."""

    def __init__(self, settings: Settings, network: CompiledNetwork) -> None:
        self._settings = settings
        self.topics = {o: spikes_topic(o) for o in network.operators}
        self.topics[network.nodes[network.readout].operator] = out_topic(network.name)
        self.times: Mapping[Place, list[float]] = defaultdict(list)

    async def run(self) -> None:
        """Read from now on, until cancelled."""
        consumer = AIOKafkaConsumer(
            **kafka_options(self._settings), fetch_max_wait_ms=2, auto_offset_reset="latest",
            isolation_level="read_committed",
        )  # fmt: skip
        async with consumer:
            places = [
                TopicPartition(topic, p)
                for topic in self.topics.values()
                for p in range(self._settings.partitions)
            ]
            consumer.assign(places)
            await consumer.seek_to_end(*places)
            while True:
                fetched = await consumer.getmany(timeout_ms=50)
                now = time.time()
                for place, records in fetched.items():
                    self.times[place.topic, place.partition] += [now] * len(records)

    def of(self, task: TaskId) -> list[float]:
        """Frames of a task."""
        return self.times[self.topics[task.operator], task.partition]


@dataclass
class _Load:
    """One stream per partition, at a steady pace, until it is told to stop."""

    network: CompiledNetwork
    publisher: Publisher
    reader: ResultReader
    samples: Array
    prefix: str

    def __post_init__(self) -> None:
        self.stopping = asyncio.Event()
        self.sent: dict[str, int] = {}
        names = (f"{self.prefix}{i}" for i in range(1000))
        by_partition = {partition_of(n, self.publisher.n_partitions): n for n in names}
        self.names = sorted(by_partition.values())

    async def run(self) -> int:
        """Send; the number of streams that came back other than an undisturbed run."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._stream(name)) for name in self.names]
        return sum(task.result() for task in tasks)

    async def _stream(self, name: str) -> bool:
        loop = asyncio.get_running_loop()
        began, n = loop.time(), 0
        while True:
            end = self.stopping.is_set() or n == _MOST_WINDOWS - 1
            sample = self.samples[n % len(self.samples)]
            record = sample_record(name, sample, seq=n, end=end)
            await self.publisher.publish(self.network.input.name, record)
            n += 1
            if end:
                break
            await asyncio.sleep(began + n * _PACE_S - loop.time())
        deadline = Deadline.after(_TIMEOUT_S)
        result = await self.reader.result(name, deadline, network=self.network.name)
        order = np.arange(n) % len(self.samples)
        (wanted,) = run_streams(self.network, self.samples[order][None])
        return result.values.tobytes() != wanted.tobytes()


async def _measure(
    rounds: int, kafka: str | None, redis: str | None, console: Console
) -> list[Round]:
    images, _ = load_digits()
    network = compile_network(load_network("scnn_digits"))
    settings = Settings.load(partitions=_PARTITIONS, log_level="WARNING")
    options = StackOptions(
        networks=(network,), n_workers=2, gateway=False, kafka=kafka, redis=redis
    )
    async with Stack(settings, options) as stack:
        await stack.wait_ready()
        async with (
            Observer(stack.settings) as observer,
            Publisher.of(stack.settings) as publisher,
            ResultReader.of(stack.settings) as reader,
        ):
            await reader.follow(network.name, network.input.name, network.outputs.every)
            found = []
            for number in track(range(rounds), "rounds", console=console, transient=True):
                await observer.settled(_QUIET_S)
                load = _Load(network, publisher, reader, images, f"{number}-")
                found.append(await _round(stack, observer, load, number))
            return found


async def _round(stack: Stack, observer: Observer, load: _Load, number: int) -> Round:
    frames = _Frames(stack.settings, load.network)
    names = [f"extra-{number}-{i}" for i in range(2)]
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(frames.run())
        running = group.create_task(load.run())
        await asyncio.sleep(_LEAD_S)
        began = time.time() * 1000
        for name in names:
            stack.start_worker(name)
        await observer.until(_have_a_share(observer, names), 60.0, "new workers to get tasks")
        await observer.settled(_QUIET_S, 60.0)
        turned = time.time() * 1000
        await asyncio.gather(*(stack.stop_worker(name) for name in names))
        await observer.settled(_QUIET_S, 60.0)
        load.stopping.set()
        await running
        reading.cancel()
    moved = [r for r in observer.recoveries.values() if r.claimed >= began]
    return Round(tuple(_move(r, frames, turned) for r in moved), running.result())


def _have_a_share(observer: Observer, names: Sequence[str]) -> Callable[[], Awaitable[bool]]:
    async def have() -> bool:
        return set(names) <= set((await observer.owners()).values())

    return have


def _move(recovery: Recovery, frames: _Frames, turned: float) -> Move:
    began = (recovery.claimed - recovery.idle_ms) / 1000 - _AROUND_S
    pause = pause_ms(frames.of(recovery.task), began, recovery.caught_up / 1000 + _AROUND_S)
    way = "out" if recovery.claimed < turned else "in"
    return Move(str(recovery.task), way, pause, recovery.idle_ms)


def bench_scale(
    rounds: Annotated[int, typer.Option(min=1, help="Times out and in again.")] = 5,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """How long tasks pause when workers join and leave."""
    found = run_to_report(_measure(rounds, kafka, redis, Console(stderr=True)))
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in found]}))
    else:
        Console().print(_table(found))
    if any(row.wrong for row in found):
        raise typer.Exit(1)


def _table(rounds: Sequence[Round]) -> Table:
    title = f"2 -> 4 -> 2 workers, {len(rounds)} times"
    table = Table("", "moves", "p50 ms", "p99 ms", "max ms", title=title, title_justify="left")
    for way, what in (("out", "2 -> 4"), ("in", "4 -> 2")):
        moves = [m for r in rounds for m in r.moves if m.way == way]
        for name, values in (
            ("pause", [m.pause_ms for m in moves]),
            ("without an owner", [m.idle_ms for m in moves]),
        ):
            shown = [f"{quantile(values, q):.0f}" for q in (0.5, 0.99, 1.0)] if values else []
            table.add_row(f"{what}: {name}", str(len(values)), *shown)
    table.add_row("streams with other bits", str(sum(r.wrong for r in rounds)))
    for column in table.columns[1:]:
        column.justify = "right"
    return table
