"""`spikerouter bench pipeline`: what exactness and durability cost a pipeline of four operators.

Four fully connected LIF operators (784-512-512-256-10, T = 16, one sample with 10 % active inputs
per request) are served by four worker processes on the embedded stack, everything durable switched
on. The yardstick is the same network in one NumPy process, one request at a time, one BLAS thread:
one product per layer over all 16 steps, then the neurons step by step. Rounds of both alternate in
one run, so that a noisy machine disturbs both alike; the ratio is that of the medians.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated, Any, Final, cast

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from router.client import Deadline, Publisher, ResultReader, request
from router.deploy import deploy
from router.loops import run
from router.payload import pack
from router.records import SPIKES, Data
from router.settings import Backend, Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.errors import SpikeRouterError
from topologies.samples import dense_network, random_spikes
from topologies.stages.base import Array
from topologies.stages.linear import Linear

__all__ = ["BenchError", "Row", "baseline_layers", "bench_pipeline", "run_baseline"]

_N_SAMPLES: Final = 256
_N_STEPS: Final = 16
_N_HOPS: Final = 6
"""Topics on the way: input, ingest, three operators, results."""
_SEED: Final = 7
_DEADLINE_S: Final = 30.0
_ASK_AGAIN_S: Final = 0.1
_NETWORK: Final = "dense"


class BenchError(SpikeRouterError, RuntimeError):
    """The benchmark cannot be run here and now."""


class BackendChoice(StrEnum):
    """On what the workers compute."""

    auto = "auto"
    numba = "numba"
    numpy = "numpy"
    torch = "torch"


@dataclass(frozen=True)
class Row:
    """One concurrency: `ratio` of its rate to the baseline's, latencies in ms, wrong answers."""

    concurrency: int
    ratio: float
    rate: float
    baseline_rate: float
    p50_ms: float
    p99_ms: float
    n_requests: int
    wrong: int


# ---- the yardstick ----------------------------------------------------------------------------


def baseline_layers(network: CompiledNetwork) -> list[Array]:
    """The float32 weights (n_in, n_out) of each layer, on the grid."""
    layers = []
    for node in network.nodes.values():
        program = network.operators[node.operator].program
        for stage in program.stages:
            if isinstance(stage, Linear):
                weight = np.ldexp(stage.weight.astype(np.float64), -stage.shift)
                layers.append(np.ascontiguousarray(weight.T.astype(np.float32)))
    return layers


def run_baseline(layers: Sequence[Array], spikes: Array) -> Array:
    """Counts (10,) of one request: spikes (T, n) float32; v = 0.5 v + I, soft reset at 1."""
    half, one = np.float32(0.5), np.float32(1.0)
    for weight in layers:
        current = spikes @ weight
        v = np.zeros(weight.shape[1], np.float32)
        fired = np.empty_like(current)
        for t in range(len(current)):
            v *= half
            v += current[t]
            row = fired[t]
            np.greater_equal(v, one, out=row, casting="unsafe")
            v -= row
        spikes = fired
    counts: Array = spikes.sum(axis=0).astype(np.int32)
    return counts


def _baseline_process() -> None:
    """Child: for each line on stdin (seconds), run requests so long and print how many a second."""
    layers = baseline_layers(compile_network(dense_network()))
    samples = _samples().astype(np.float32)
    for line in sys.stdin:
        seconds, n = float(line), 0
        begin = time.perf_counter()
        while (now := time.perf_counter()) - begin < seconds:
            run_baseline(layers, samples[n % len(samples)])
            n += 1
        print(n / (now - begin), flush=True)


class _Baseline:
    """The yardstick in a process of its own, since BLAS reads its threads when it is loaded."""

    def __init__(self) -> None:
        one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
        environment = {**os.environ, **one_thread}
        environment.pop("OPENBLAS_CORETYPE", None)
        self._child = subprocess.Popen(
            [sys.executable, "-c", "from loadtest.pipeline import _baseline_process as run; run()"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def rate(self, seconds: float) -> float:
        """Requests per second."""
        stdin, stdout = self._child.stdin, self._child.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("The baseline process has no pipes.")
        stdin.write(f"{seconds}\n")
        stdin.flush()
        return float(stdout.readline())

    def close(self) -> None:
        self._child.kill()
        self._child.wait()


# ---- the pipeline -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Round:
    rate: float
    latencies: list[float]
    wrong: int


def _samples() -> Array:
    return random_spikes(_N_SAMPLES, _N_STEPS, 784, 0.1, _SEED)


class _Client:
    """Closed loop: so many requests are under way at any time, straight on Kafka."""

    def __init__(self, publisher: Publisher, reader: ResultReader, expected: list[Array]) -> None:
        self._publisher = publisher
        self._reader = reader
        self._expected = expected
        self._payloads = pack(_samples(), 0, 1)
        self._n = 0

    async def round(self, concurrency: int, seconds: float) -> _Round:
        begin = time.perf_counter()
        loops = [self._loop(begin + seconds) for _ in range(concurrency)]
        outcomes = [o for loop in await asyncio.gather(*loops) for o in loop]
        elapsed = time.perf_counter() - begin
        latencies = [latency for latency, _ in outcomes]
        return _Round(len(outcomes) / elapsed, latencies, sum(not right for _, right in outcomes))

    async def _loop(self, end: float) -> list[tuple[float, bool]]:
        outcomes = []
        while time.perf_counter() < end:
            outcomes.append(await self._one())
        return outcomes

    async def _one(self) -> tuple[float, bool]:
        self._n += 1
        index = self._n % _N_SAMPLES
        begin = time.perf_counter()
        record = Data(
            name=f"bench-{os.getpid()}-{self._n}", request=True, payload=self._payloads[index],
            dtype=SPIKES, steps=_N_STEPS,
        )  # fmt: skip
        result = await request(
            self._publisher, self._reader, _NETWORK, record, Deadline.after(_DEADLINE_S)
        )
        latency = time.perf_counter() - begin
        return latency, np.array_equal(result.values[-1], self._expected[index])


async def _measure(
    backend: Backend,
    concurrencies: Sequence[int],
    rounds: int,
    seconds: float,
    console: Console,
) -> list[Row]:
    network = compile_network(dense_network())
    layers = baseline_layers(network)
    expected = [run_baseline(layers, s) for s in _samples().astype(np.float32)]
    settings = Settings.load(partitions=1, backend=backend)
    baseline = _Baseline()
    names = [f"worker-{i}" for i in range(1, 5)]
    try:
        async with Stack(settings, StackOptions(n_workers=0, gateway=False)) as stack:
            await deploy(stack.settings, [network])
            for name in names:
                stack.start_worker(name)
            await stack.wait_ready()
            await _spread(stack, names)
            async with (
                Publisher.of(stack.settings) as publisher,
                ResultReader.of(stack.settings) as reader,
            ):
                await reader.follow(_NETWORK)
                client = _Client(publisher, reader, expected)
                return await _rounds(client, baseline, concurrencies, rounds, seconds, console)
    finally:
        baseline.close()


async def _spread(stack: Stack, names: Sequence[str]) -> None:
    """Wait until every worker has a task: the first one to start takes all, the others ask."""
    try:
        async with asyncio.timeout(_DEADLINE_S):
            while {task.worker for task in (await stack.status()).tasks} != {*names}:
                await asyncio.sleep(_ASK_AGAIN_S)
    except TimeoutError as error:
        raise BenchError(
            f"Within {_DEADLINE_S:g} s not every one of the workers {', '.join(names)} had a task:"
            " the machine is too busy to measure anything."
        ) from error


async def _rounds(
    client: _Client,
    baseline: _Baseline,
    concurrencies: Sequence[int],
    rounds: int,
    seconds: float,
    console: Console,
) -> list[Row]:
    measured: dict[int, list[_Round]] = {c: [] for c in concurrencies}
    yardstick: list[float] = []
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("warming up", total=(rounds + 1) * len(concurrencies))
        for number in range(rounds + 1):
            for concurrency in concurrencies:
                rate = await asyncio.to_thread(baseline.rate, seconds / 2)
                result = await client.round(concurrency, seconds if number else 1.0)
                if number:  # the first round only warms up
                    yardstick.append(rate)
                    measured[concurrency].append(result)
                text = f"round {number}, {concurrency} at once"
                progress.update(bar, advance=1, description=text)
    base = statistics.median(yardstick)
    return [_row(c, found, base) for c, found in measured.items()]


def _row(concurrency: int, rounds: Sequence[_Round], baseline: float) -> Row:
    latencies = sorted(x for r in rounds for x in r.latencies)
    rate = statistics.median(r.rate for r in rounds)
    return Row(
        concurrency=concurrency,
        ratio=round(rate / baseline, 3),
        rate=round(rate, 1),
        baseline_rate=round(baseline, 1),
        p50_ms=round(latencies[len(latencies) // 2] * 1000, 2),
        p99_ms=round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
        n_requests=len(latencies),
        wrong=sum(r.wrong for r in rounds),
    )


def bench_pipeline(
    backend: Annotated[
        BackendChoice, typer.Option(help="Backend of the workers; auto: numba if it is installed.")
    ] = BackendChoice.auto,
    concurrency: Annotated[
        list[int] | None, typer.Option(help="Requests at once; repeat the option for several.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a round.")] = 4.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Requests per second through four operators, against one NumPy process."""
    console = Console(stderr=True)
    used = _backend(backend)
    rows = run(_measure(used, concurrency or [1, 16, 64, 256], rounds, seconds, console))
    about: dict[str, Any] = {
        "backend": used,
        "hops": _N_HOPS,
        "workers": 4,
        "steps": _N_STEPS,
        "numpy": np.__version__,
        "cpus": os.cpu_count(),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
    }
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows], **about}))
    else:
        Console().print(_table(rows, used))
    if any(row.wrong for row in rows):
        raise typer.Exit(1)


def _backend(choice: BackendChoice) -> Backend:
    if choice is BackendChoice.auto:
        return "numba" if find_spec("numba") else "numpy"
    return cast(Backend, choice.value)


def _table(rows: Sequence[Row], backend: Backend) -> Table:
    table = Table(
        title=f"784-512-512-256-10, T = {_N_STEPS}, {_N_HOPS} hops, 4 workers on {backend}"
    )
    for heading in ("at once", "ratio", "requests/s", "NumPy alone/s", "p50 ms", "p99 ms", "wrong"):
        table.add_column(heading, justify="right")
    for r in rows:
        cells = (r.concurrency, r.ratio, r.rate, r.baseline_rate, r.p50_ms, r.p99_ms, r.wrong)
        table.add_row(*map(str, cells))
    return table
