"""`spikerouter bench recovery`: how fast the tasks of a killed worker are back, over many kills.

In each round the worker that holds the middle operator of the digits network gets SIGKILL, while
requests and a long stream run; it is started again and becomes a spare. The stream's windows come
through the killed task, so the first result of a window that was sent after the kill is the first
output that the recovery made possible. Every output is compared with an undisturbed run.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from loadtest.demo import Kill, kill_holder, load_digits, run_to_report
from loadtest.recovery import Observer, middle_operator
from loadtest.traffic import Traffic
from loadtest.undisturbed import run_streams
from router.client import Publisher, ResultReader
from router.options import KafkaOption, RedisOption
from router.settings import Settings
from router.store.calls import TaskId
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network
from topologies.stages.base import Array

__all__ = ["Round", "bench_recovery", "quantile"]

_PARTITIONS: Final = 2
_N_IMAGES: Final = 40
_N_WINDOWS: Final = 160
_SECONDS: Final = 3.2
_PACE_S: Final = 0.02
_ROWS: Final = (
    ("detected_ms", "its leases have run out"),
    ("first_output_ms", "first correct output of input sent after the kill"),
    ("caught_up_ms", "all its tasks caught up"),
    ("from_detection_ms", "from detection to caught up, each task"),
    ("claim_ms", "- until a worker has claimed it"),
    ("restore_ms", "- until it has operator, checkpoint and place in the logs"),
    ("replay_ms", "- until it has applied all that lay in the logs"),
    ("others_free_ms", "tasks elsewhere without an owner, the longest time"),
)


@dataclass(frozen=True)
class Round:
    """One kill; times in ms since the kill, the latest of its tasks.

    `from_detection_ms` is from the end of a task's lease until it had caught up; `claim_ms`,
    `restore_ms` and `replay_ms` are its parts where it took longest. `others_free_ms` is
    the longest time that a task of another worker was seen without an owner, `wrong` the number of
    streams with another output than an undisturbed run.
    """

    n_tasks: int
    detected_ms: float
    first_output_ms: float
    caught_up_ms: float
    from_detection_ms: float
    claim_ms: float
    restore_ms: float
    replay_ms: float
    others_free_ms: float
    wrong: int


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that a part `q` of all does not exceed."""
    return sorted(values)[max(0, ceil(q * len(values)) - 1)]


class _Bench:
    """The stack under test, and what its streams must give."""

    def __init__(self, stack: Stack, network: CompiledNetwork, images: Array) -> None:
        self.stack = stack
        self.network = network
        self.images = images[:_N_IMAGES]
        self.stream = images[np.arange(_N_WINDOWS) % len(images)]
        answers = run_streams(network, self.images[:, None])
        self.expected = [run_streams(network, self.stream[None])[0], *answers]

    async def run(self, kills: int, console: Console) -> list[Round]:
        async with (
            Observer(self.stack.settings) as observer,
            Publisher.of(self.stack.settings) as publisher,
            ResultReader.of(self.stack.settings) as reader,
        ):
            network = self.network
            await reader.follow(network.name, network.input.name, network.outputs.every)
            found = []
            for number in track(range(kills), "kills", console=console, transient=True):
                await observer.settled(quiet_s=1.5, timeout_s=60.0)  # the spare has its fair share
                traffic = Traffic(
                    network, publisher, reader, self.images, self.stream, _SECONDS, f"{number}-"
                )
                found.append(await self._round(observer, traffic))
                await self.stack.wait_ready()
            return found

    async def _round(self, observer: Observer, traffic: Traffic) -> Round:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.run())
            operator = middle_operator(self.network)
            kill = await kill_holder(self.stack, observer, traffic, operator, restart=True)
            ahead = time.time() * 1000 - 1000 * loop.time()
            n_sent = traffic.n_windows
            back = asyncio.create_task(observer.recovered(kill.tasks, kill.at, 60.0))
            others_free_ms = await _watch_others(observer, kill, back)
        recoveries = list((await back).values())
        found = [traffic.outputs.get(name) for name in traffic.names]
        same = (
            f is not None and f.tobytes() == wanted.tobytes()
            for f, wanted in zip(found, self.expected, strict=True)
        )  # fmt: skip
        phases = [recovery.phases(kill.at) for recovery in recoveries]
        slowest = max(phases, key=_from_detection)
        return Round(
            n_tasks=len(kill.tasks),
            detected_ms=max(p["detect"] for p in phases),
            first_output_ms=1000 * traffic.arrivals[n_sent] + ahead - kill.at,
            caught_up_ms=max(p["caught_up"] for p in phases),
            from_detection_ms=_from_detection(slowest),
            claim_ms=slowest["claim"],
            restore_ms=slowest["restore"],
            replay_ms=slowest["replay"],
            others_free_ms=others_free_ms,
            wrong=len(self.expected) - sum(same),
        )


def _from_detection(phases: Mapping[str, float]) -> float:
    return phases["caught_up"] - phases["detect"]


async def _watch_others(observer: Observer, kill: Kill, until: "asyncio.Task[object]") -> float:
    """The longest time in ms that a task of another worker has no owner, meanwhile."""
    loop = asyncio.get_running_loop()
    since: dict[TaskId, float] = {}
    longest = 0.0
    while not until.done():
        now = loop.time()
        for task, owner in (await observer.owners()).items():
            if owner or task in kill.tasks:
                since.pop(task, None)
            else:
                longest = max(longest, now - since.setdefault(task, now))
        await asyncio.sleep(_PACE_S)
    return 1000 * longest


async def _measure(n_workers: int, kills: int, kafka: str | None, redis: str | None,
                   console: Console) -> list[Round]:  # fmt: skip
    images, _ = load_digits()
    network = compile_network(load_network("scnn_digits"))
    settings = Settings.load(partitions=_PARTITIONS, log_level="WARNING")
    options = StackOptions(
        networks=(network,), n_workers=n_workers, gateway=False, kafka=kafka, redis=redis
    )
    async with Stack(settings, options) as stack:
        await stack.wait_ready()
        return await _Bench(stack, network, images).run(kills, console)


def bench_recovery(
    kills: Annotated[int, typer.Option(min=1, help="Workers that are killed.")] = 100,
    workers: Annotated[int, typer.Option(min=2, help="Worker processes.")] = 4,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """How fast the tasks of a killed worker are back."""
    found = run_to_report(_measure(workers, kills, kafka, redis, Console(stderr=True)))
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in found]}))
    else:
        Console().print(_table(found))
    if any(row.wrong for row in found):
        raise typer.Exit(1)


def _table(rounds: list[Round]) -> Table:
    title = f"Recovery over {len(rounds)} kills, {sum(r.n_tasks for r in rounds)} tasks lost"
    table = Table("ms since SIGKILL", "p50", "p99", "max", title=title, title_justify="left")
    for name, what in _ROWS:
        values = [float(getattr(r, name)) for r in rounds]
        table.add_row(what, *(f"{quantile(values, q):.0f}" for q in (0.5, 0.99, 1.0)))
    table.add_row("streams with other bits, or lost", "", "", str(sum(r.wrong for r in rounds)))
    for column in table.columns[1:]:
        column.justify = "right"
    return table
