"""`spikerouter bench handover`: how long a worker that is to stop takes to give its tasks back.

In each round the worker that holds the middle operator of the digits network gets SIGTERM, while
requests and a long stream run. It stops applying, writes a last checkpoint, releases its leases,
and ends; others take its tasks. A new worker takes its place before the next round.
"""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from loadtest.demo import kill_holder, load_digits, run_to_report
from loadtest.recovery import Observer, Recovery, middle_operator
from loadtest.traffic import Traffic
from loadtest.undisturbed import run_streams
from router.client import Publisher, ResultReader
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network
from topologies.stages.base import Array

__all__ = ["Round", "bench_handover"]

_PARTITIONS: Final = 2
_N_IMAGES: Final = 60
_N_WINDOWS: Final = 100


@dataclass(frozen=True)
class Round:
    """One hand-over; all times in ms since SIGTERM, the latest of `n_tasks` tasks.

    released: its lease was given back; ended: the process was gone; claimed: another worker had the
    task; caught_up: that one had applied all that lay in the logs. `silence_ms` is the longest time
    between two results of the stream, `wrong` the number of streams with another output than an
    undisturbed run.
    """

    n_tasks: int
    released_ms: float
    ended_ms: float
    claimed_ms: float
    caught_up_ms: float
    silence_ms: float
    wrong: int


async def _measure(n_workers: int, rounds: int, console: Console) -> list[Round]:
    images, _ = load_digits()
    network = compile_network(load_network("scnn_digits"))
    stream = images[:_N_WINDOWS]
    answers = run_streams(network, images[:_N_IMAGES, None])
    expected = [run_streams(network, stream[None])[0], *answers]
    settings = Settings.load(partitions=_PARTITIONS, log_level="WARNING")
    options = StackOptions(networks=(network,), n_workers=n_workers, gateway=False)
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
                await observer.settled()
                traffic = Traffic(
                    network, publisher, reader, images[:_N_IMAGES], stream, 3.0,
                    prefix=f"{number}-",
                )  # fmt: skip
                found.append(await _round(stack, observer, traffic, network, expected))
                stack.start_worker(f"replacement-{number}")
                await stack.wait_ready()
            return found


async def _round(
    stack: Stack,
    observer: Observer,
    traffic: Traffic,
    network: CompiledNetwork,
    expected: list[Array],
) -> Round:
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run())
        kill = await kill_holder(
            stack, observer, traffic, middle_operator(network), number=signal.SIGTERM
        )
        worker = stack.workers[kill.worker]
        while worker.running:
            await asyncio.sleep(0.002)
        ended = time.time() * 1000
        back = await observer.recovered(kill.tasks, kill.at)
    found = [traffic.outputs.get(name) for name in traffic.names]
    same = (
        f is not None and f.tobytes() == wanted.tobytes()
        for f, wanted in zip(found, expected, strict=True)
    )  # fmt: skip
    return Round(
        n_tasks=len(kill.tasks),
        released_ms=_latest(back.values(), lambda r: r.claimed - r.idle_ms) - kill.at,
        ended_ms=ended - kill.at,
        claimed_ms=_latest(back.values(), lambda r: r.claimed) - kill.at,
        caught_up_ms=_latest(back.values(), lambda r: r.caught_up) - kill.at,
        silence_ms=traffic.longest_silence_ms(),
        wrong=len(expected) - sum(same),
    )


def _latest(recoveries: Iterable[Recovery], at: Callable[[Recovery], float]) -> float:
    return max(map(at, recoveries))


def bench_handover(
    workers: Annotated[int, typer.Option(min=2, help="Worker processes.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Workers that are stopped.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """How fast a worker that is told to stop hands its tasks over."""
    found = run_to_report(_measure(workers, rounds, Console(stderr=True)))
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in found]}))
    else:
        Console().print(_table(found))
    if any(row.wrong for row in found):
        raise typer.Exit(1)


def _table(rounds: list[Round]) -> Table:
    table = Table("ms since SIGTERM", "median", "worst", title="Hand-over", title_justify="left")
    for name, what in (
        ("released_ms", "leases given back"),
        ("ended_ms", "process ended"),
        ("claimed_ms", "tasks taken by others"),
        ("caught_up_ms", "caught up"),
        ("silence_ms", "longest silence of the stream"),
    ):
        values = [getattr(row, name) for row in rounds]
        table.add_row(what, f"{median(values):.0f}", f"{max(values):.0f}")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
