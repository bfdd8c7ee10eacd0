"""`spikerouter bench fairness`: what a flooded neighbour does to a network that it shares with.

*Quiet* and *flooded* have the same hidden layers, so the same tasks, and heads and inputs of their
own. *Stranger* is as large and shares nothing. The same workers serve all three. Rounds alternate
in one run: quiet alone at its pace; beside flooded, which is sent `factor` times as much; beside
stranger, sent as much as that. What quiet loses beside stranger is lost to a busy machine, and the
rest to shared tasks. The neighbours' client is a process of its own, and holds back what is due
while too much is unanswered, as a gateway does with 429. Latencies are counted from the instant at
which a request was due.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from loadtest.demo import run_to_report
from loadtest.kills import quantile
from loadtest.undisturbed import run_streams
from router.client import Deadline, Publisher, ResultReader, request
from router.loops import run
from router.options import KafkaOption, RedisOption
from router.payload import pack
from router.records import SPIKES, Data
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from router.tables import text_table
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.model import Network
from topologies.samples import dense_network, random_spikes
from topologies.stages.base import Array

__all__ = ["Row", "bench_fairness", "neighbours"]

_SIZES: Final = (784, 512, 512, 256, 10)
_N_STEPS: Final = 16
_N_SAMPLES: Final = 64
_SEED: Final = 7
_READY_S: Final = 120.0
_ANSWER_S: Final = 120.0
_WARM_S: Final = 2.0
_CAPACITY_S: Final = 4.0
_CLIENTS: Final = 64
_MOST_OPEN: Final = 1024  # requests of a flood; the embedded broker keeps about 3,000 unread ones
_BESIDE: Final = ("nobody", "flooded", "stranger")


@dataclass(frozen=True)
class Row:
    """One pace of quiet beside one neighbour: requests per second of both, latencies in ms.

    `ratio` is p99 to that beside nobody at the same pace.
    """

    rate: float
    beside: str
    neighbour_rate: float
    p50_ms: float
    p99_ms: float
    ratio: float
    n_requests: int
    wrong: int


def neighbours(sizes: Sequence[int] = _SIZES) -> dict[str, CompiledNetwork]:
    """Quiet and flooded, which share all but their heads and inputs, and a stranger."""
    quiet = _named(dense_network(sizes, _N_STEPS), "quiet")
    head = quiet.layers[-2]
    other = replace(head, arrays={"weight": np.roll(head.arrays["weight"], 1, axis=0)})
    flooded = _named(
        replace(quiet, layers=(*quiet.layers[:-2], other, quiet.layers[-1])), "flooded"
    )
    stranger = _named(dense_network(sizes, _N_STEPS, seed=1), "stranger")
    return {n.name: compile_network(n) for n in (quiet, flooded, stranger)}


def _named(network: Network, name: str) -> Network:
    return replace(network, name=name, input=replace(network.input, name=name))


def _samples() -> Array:
    return random_spikes(_N_SAMPLES, _N_STEPS, _SIZES[0], 0.1, _SEED)


# ---- clients ----------------------------------------------------------------------------------


class _Client:
    """Sends samples to one network and waits for the answers."""

    def __init__(self, publisher: Publisher, reader: ResultReader, network: str) -> None:
        self._publisher = publisher
        self._reader = reader
        self._network = network
        self._payloads = pack(_samples(), 0, 1)
        self._numbers = count()
        self.n_open = 0

    async def send(self, due: float) -> tuple[float, int, Array]:
        """One request: seconds from `due` to the answer, the sample, the answer."""
        number = next(self._numbers)
        index = number % _N_SAMPLES
        record = Data(
            name=f"{self._network}-{os.getpid()}-{number}", request=True,
            payload=self._payloads[index], dtype=SPIKES, steps=_N_STEPS,
        )  # fmt: skip
        self.n_open += 1
        result = await request(
            self._publisher, self._reader, self._network, record, Deadline.after(_ANSWER_S)
        )
        self.n_open -= 1
        return asyncio.get_running_loop().time() - due, index, result.values[-1]

    async def at_pace(self, rate: float, until: asyncio.Event) -> list[tuple[float, int, Array]]:
        """`rate` requests per second until the event; returns when all are answered.

        What is due while too many are unanswered is not sent at all.
        """
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), []
        async with asyncio.TaskGroup() as group:
            for number in count():
                due = began + number / rate
                if await _is_set_by(until, due):
                    break
                if self.n_open < _MOST_OPEN:
                    sent.append(group.create_task(self.send(due)))
        return [task.result() for task in sent]

    async def capacity(self, seconds: float) -> float:
        """Requests per second that are answered to many clients that wait for their answers."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await asyncio.gather(*(self._wait(began + seconds) for _ in range(_CLIENTS)))
        return sum(found) / (loop.time() - began)

    async def _wait(self, until: float) -> int:
        n = 0
        while (now := asyncio.get_running_loop().time()) < until:
            await self.send(now)
            n += 1
        return n


async def _is_set_by(event: asyncio.Event, at: float) -> bool:
    try:
        async with asyncio.timeout_at(at):
            await event.wait()
    except TimeoutError:
        return False
    return True


@asynccontextmanager
async def _clients(
    settings: Settings, networks: Sequence[str]
) -> AsyncIterator[Mapping[str, _Client]]:
    async with Publisher.of(settings) as publisher, ResultReader.of(settings) as reader:
        for network in networks:
            await reader.follow(network)
        yield {network: _Client(publisher, reader, network) for network in networks}


# ---- the neighbours' client -------------------------------------------------------------------


def _neighbour_process() -> None:
    """Child: a line `NETWORK RATE` begins a flood, the next line ends it when all is answered."""
    run(_obey())


async def _obey() -> None:
    async with _clients(Settings.load(), _BESIDE[1:]) as clients:
        print("ready", flush=True)
        while order := await asyncio.to_thread(sys.stdin.readline):
            network, rate = order.split()
            over = asyncio.Event()
            flood = asyncio.create_task(clients[network].at_pace(float(rate), over))
            await asyncio.to_thread(sys.stdin.readline)
            over.set()
            print(len(await flood), flush=True)


class _Neighbour:
    """The client of flooded and of stranger."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    @classmethod
    @asynccontextmanager
    async def started(cls, settings: Settings) -> "AsyncIterator[_Neighbour]":
        """Started and connected; killed at the end."""
        code = "from loadtest.fairness import _neighbour_process as run; run()"
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code),
            env={**os.environ, **settings.environment()},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            found = cls(child)
            await found._answer()
            yield found
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def begin(self, network: str, rate: float) -> None:
        """Begin to flood the network."""
        await self._tell(f"{network} {rate}\n")

    async def end(self) -> int:
        """Send no more and wait for all answers; how many there were."""
        await self._tell("\n")
        return int(await self._answer())

    async def _tell(self, line: str) -> None:
        if self._child.stdin is None:
            raise RuntimeError("The neighbours' client has no input.")
        self._child.stdin.write(line.encode())
        await self._child.stdin.drain()

    async def _answer(self) -> str:
        if self._child.stdout is None:
            raise RuntimeError("The neighbours' client has no output.")
        line = await self._child.stdout.readline()
        if not line:
            raise RuntimeError("The neighbours' client has ended.")
        return line.decode()


# ---- rounds -----------------------------------------------------------------------------------


@dataclass
class _Found:
    """All rounds of one pace beside one neighbour."""

    latencies: list[float]
    seconds: float = 0.0
    n_neighbour: int = 0
    wrong: int = 0


class _Bench:
    def __init__(self, quiet: _Client, neighbour: _Neighbour, expected: Sequence[Array]) -> None:
        self._quiet = quiet
        self._neighbour = neighbour
        self._expected = expected

    async def round(
        self, found: _Found, rate: float, beside: str, factor: float, seconds: float
    ) -> None:
        """Quiet at its pace for so many seconds, while the neighbour is flooded."""
        loop = asyncio.get_running_loop()
        if beside != "nobody":
            await self._neighbour.begin(beside, factor * rate)
        over = asyncio.Event()
        loop.call_later(seconds, over.set)
        answers = await self._quiet.at_pace(rate, over)
        if beside != "nobody":
            found.n_neighbour += await self._neighbour.end()
        found.seconds += seconds
        found.latencies += [latency for latency, _, _ in answers]
        found.wrong += sum(not np.array_equal(a, self._expected[i]) for _, i, a in answers)


async def _measure(
    rates: Sequence[float], factor: float, rounds: int, seconds: float, options: StackOptions,
    console: Console,
) -> tuple[float, list[Row]]:  # fmt: skip
    networks = neighbours()
    expected = [emissions[-1] for emissions in run_streams(networks["quiet"], _samples())]
    settings = Settings.load(partitions=1, log_level="ERROR")
    async with Stack(settings, replace(options, networks=[*networks.values()])) as stack:
        await stack.wait_ready(_READY_S)
        async with (
            _clients(stack.settings, [*networks]) as clients,
            _Neighbour.started(stack.settings) as neighbour,
        ):
            for client in clients.values():
                await client.capacity(_WARM_S)
            capacity = await clients["flooded"].capacity(_CAPACITY_S)
            bench = _Bench(clients["quiet"], neighbour, expected)
            return capacity, await _rounds(bench, rates, factor, rounds, seconds, console)


async def _rounds(
    bench: _Bench, rates: Sequence[float], factor: float, rounds: int, seconds: float,
    console: Console,
) -> list[Row]:  # fmt: skip
    found = {(rate, beside): _Found([]) for rate in rates for beside in _BESIDE}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=rounds * len(found))
        for _ in range(rounds):
            for (rate, beside), so_far in found.items():
                progress.update(bar, description=f"{rate}/s beside {beside}")
                await bench.round(so_far, rate, beside, factor, seconds)
                progress.advance(bar)
    alone = {rate: quantile(found[rate, "nobody"].latencies, 0.99) for rate in rates}
    return [_row(rate, beside, f, alone[rate]) for (rate, beside), f in found.items()]


def _row(rate: float, beside: str, found: _Found, alone: float) -> Row:
    p99 = quantile(found.latencies, 0.99)
    return Row(
        rate=rate,
        beside=beside,
        neighbour_rate=round(found.n_neighbour / found.seconds, 1),
        p50_ms=round(1000 * quantile(found.latencies, 0.5), 1),
        p99_ms=round(1000 * p99, 1),
        ratio=round(p99 / alone, 2),
        n_requests=len(found.latencies),
        wrong=found.wrong,
    )


def bench_fairness(
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Requests per second to quiet; repeat the option for several."),
    ] = None,
    factor: Annotated[
        float, typer.Option(min=1.0, help="Times the neighbour gets as much.")
    ] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds beside each neighbour.")] = 4,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of a round.")] = 8.0,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """p99 of a network alone, and beside a flooded one that shares its operators."""
    console = Console(stderr=True)
    options = StackOptions(n_workers=workers, gateway=False, kafka=kafka, redis=redis)
    measuring = _measure(rate or [5.0, 50.0], factor, rounds, seconds, options, console)
    capacity, rows = run_to_report(measuring)
    if as_json:
        about = {"capacity": round(capacity, 1), "workers": workers, "cpus": os.cpu_count()}
        print(json.dumps({"rows": [asdict(row) for row in rows], **about}))
    else:
        Console().print(text_table(f"Capacity {capacity:.0f} requests/s", _cells(rows)))
    if any(row.wrong for row in rows):
        raise typer.Exit(1)


def _cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    heads = ("quiet/s", "beside", "its/s", "p50 ms", "p99 ms", "p99 ratio", "requests", "wrong")
    numbers = (
        (r.rate, r.beside, r.neighbour_rate, r.p50_ms, r.p99_ms, r.ratio, r.n_requests, r.wrong)
        for r in rows
    )
    return [heads, *(tuple(map(str, row)) for row in numbers)]
