"""`spikerouter bench sharing`: networks on one backbone, against the same ones without sharing.

Networks of one hidden layer differ in their heads. *Shared*: all declare one input and have one
backbone, so a record is encoded and the backbone computed once. *Apart*: each has an input and a
backbone of its own, of the same size. One worker, one partition; the figures are the worker's
resident memory once all tasks run, and results per second over all networks.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console

from loadtest.traffic import sample_record
from router.client import Deadline, Publisher, ResultReader
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from router.tables import text_table
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.model import Layer
from topologies.samples import dense_network, random_spikes

__all__ = ["Row", "bench_sharing", "networks_apart", "networks_shared"]

_SIZES: Final = (256, 256, 10)
_N_STEPS: Final = 16
_READY_S: Final = 300.0
_ANSWER_S: Final = 200.0


@dataclass(frozen=True)
class Row:
    """One deployment. Memory is in MB, throughput in results per second."""

    networks: int
    shared: bool
    operators: int
    tasks: int
    memory_mb: float
    results_per_s: float


def networks_shared(n: int) -> list[CompiledNetwork]:
    """`n` heads on one backbone and one input."""
    base = dense_network(_SIZES, _N_STEPS, name="base")
    source = replace(base.input, name="shared")
    at = max(i for i, layer in enumerate(base.layers) if "weight" in layer.arrays)
    found = []
    for i in range(n):
        layers = (*base.layers[:at], _turned(base.layers[at], i), *base.layers[at + 1 :])
        found.append(compile_network(replace(base, name=f"head-{i}", input=source, layers=layers)))
    return found


def _turned(head: Layer, by: int) -> Layer:
    """The head with its classes in another order, and one weight of its own."""
    weight = np.roll(head.arrays["weight"], by, axis=0)
    weight[0, 0] = by / 64.0
    return replace(head, arrays={**head.arrays, "weight": weight})


def networks_apart(n: int) -> list[CompiledNetwork]:
    """`n` networks of the same size that have nothing in common."""
    made = (dense_network(_SIZES, _N_STEPS, seed=i, name=f"apart-{i}") for i in range(n))
    return [compile_network(replace(m, input=replace(m.input, name=m.name))) for m in made]


async def _measure(networks: Sequence[CompiledNetwork], shared: bool, n_requests: int) -> Row:
    settings = Settings.load(partitions=1, log_level="ERROR", warm_bytes=0)
    options = StackOptions(networks=tuple(networks), n_workers=1, gateway=False)
    async with Stack(settings, options) as stack:
        await stack.wait_ready(_READY_S)
        (worker,) = stack.workers.values()
        async with (
            Publisher.of(stack.settings) as publisher,
            ResultReader.of(stack.settings) as reader,
        ):
            for network in networks:
                await reader.follow(network.name, network.input.name, network.outputs.every)
            await _serve(publisher, reader, networks, "warm", 4)
            seconds = await _serve(publisher, reader, networks, "run", n_requests)
        memory = _resident_mb(worker.pid)
    operators = {operator for network in networks for operator in network.operators}
    rate = n_requests * len(networks) / seconds
    return Row(len(networks), shared, len(operators), len(operators), memory, round(rate, 1))


async def _serve(
    publisher: Publisher,
    reader: ResultReader,
    networks: Sequence[CompiledNetwork],
    prefix: str,
    n: int,
) -> float:
    """Send `n` samples to every input, wait for every network's results; the seconds it took."""
    loop = asyncio.get_running_loop()
    samples = random_spikes(n, _N_STEPS, _SIZES[0], 0.1).astype(np.uint8)
    began, deadline = loop.time(), Deadline.after(_ANSWER_S)
    for i, sample in enumerate(samples):
        for source in dict.fromkeys(network.input.name for network in networks):
            record = sample_record(f"{prefix}-{i}", sample, request=True)
            await publisher.publish(source, record)
    await publisher.flush()
    for network in networks:
        for i in range(n):
            await reader.result(f"{prefix}-{i}", deadline, network=network.name)
    return loop.time() - began


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def bench_sharing(
    networks: Annotated[
        list[int] | None, typer.Option(help="Networks at once; repeat the option for several.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests to each network.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Memory and throughput of networks on one backbone, against the same without sharing."""
    rows = []
    for n in networks or [2, 8, 32]:
        for shared, made in ((True, networks_shared(n)), (False, networks_apart(n))):
            rows.append(asyncio.run(_measure(made, shared, requests)))
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "cpus": os.cpu_count()}))
        return
    heads = ("networks", "", "tasks", "memory MB", "results/s")
    cells = [
        (str(r.networks), "shared" if r.shared else "apart", str(r.tasks), str(r.memory_mb),
         str(r.results_per_s))
        for r in rows
    ]  # fmt: skip
    Console().print(text_table("One worker, one partition", [heads, *cells]))
