"""`spikerouter bench overload`: ten times as many requests as the stack can answer, over HTTP.

1. Measure the capacity: samples per second with a few clients that wait for their answers.
2. Offer `factor` times as much, at a steady pace that slows down for nobody. What is too much is
   refused with 429 and a Retry-After; the memory of every process is watched.
3. Offer half the capacity again, and see how long it takes until requests are answered as before.

Every answer is compared with an undisturbed run.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import h11
import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table

from loadtest.demo import load_digits, run_to_report
from loadtest.kills import quantile
from loadtest.one_shot import post
from loadtest.undisturbed import run_streams
from router.options import KafkaOption, RedisOption
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network

__all__ = ["Overload", "bench_overload"]

_BATCH: Final = 64  # samples per request: the client shares the machine with what it loads
_BODIES: Final = 5
_CLIENTS: Final = 4
_TIMEOUT_S: Final = 30.0
_WARM_S: Final = 3.0
_MEASURE_S: Final = 8.0
_AFTER_S: Final = 10.0
_SIZE_S: Final = 1.0
_USUAL: Final = 2.0  # a request is answered as before within so many times the usual latency
_MIB: Final = 1024 * 1024


@dataclass
class Overload:
    """What was found. Rates are in samples per second; `sizes` are MiB of each process, by second.

    `recovered_s` is the time after the overload until a request took no longer than twice the usual
    latency; None when none did.
    """

    capacity: float
    offered: float
    seconds: float
    codes: Counter[int] = field(default_factory=Counter)
    retry_after: list[int] = field(default_factory=list)
    without_retry_after: int = 0
    wrong: int = 0
    usual_s: float = 0.0
    recovered_s: float | None = None
    sizes: dict[str, list[float]] = field(default_factory=dict)

    def growth(self) -> dict[str, tuple[float, float]]:
        """MiB of each process: median of the second and of the last quarter of the overload."""
        return {
            name: (median(s[len(s) // 4 : len(s) // 2 + 1]), median(s[-len(s) // 4 :]))
            for name, s in self.sizes.items()
            if len(s) >= 4
        }


class _Client:
    """Sends bodies that were made before, and counts what comes back."""

    def __init__(self, stack: Stack, network: CompiledNetwork) -> None:
        images, _ = load_digits()
        url = urlsplit(stack.http)
        self._at = (url.hostname or "", url.port or 80, f"/v2/models/{network.name}/infer")
        self._bodies = []
        for i in range(_BODIES):
            batch = images[np.arange(i * _BATCH, (i + 1) * _BATCH) % len(images)]
            tensor = {"name": network.input.name, "shape": list(batch.shape), "datatype": "UINT8",
                      "data": batch.reshape(-1).tolist()}  # fmt: skip
            body = orjson.dumps({"inputs": [tensor], "outputs": [{"name": "output"}]})
            wanted = np.concatenate(run_streams(network, batch[:, None]))
            self._bodies.append((body, wanted))

    async def send(self, number: int, found: Overload) -> float | None:
        """One request; the seconds it took if it was answered."""
        loop = asyncio.get_running_loop()
        body, wanted = self._bodies[number % _BODIES]
        began = loop.time()
        try:
            reply = await post(*self._at, body, _TIMEOUT_S)
        except (OSError, h11.ProtocolError):
            found.codes[0] += 1
            return None
        found.codes[reply.status] += 1
        if reply.status == HTTPStatus.OK:
            values = np.array(orjson.loads(reply.body)["outputs"][0]["data"], wanted.dtype)
            found.wrong += values.tobytes() != wanted.tobytes()
            return loop.time() - began
        if reply.status == HTTPStatus.TOO_MANY_REQUESTS:
            told = reply.headers.get("retry-after", "")
            if told.isdecimal():
                found.retry_after.append(int(told))
            else:
                found.without_retry_after += 1
        return None


async def _measure(factor: float, seconds: float, n_workers: int, kafka: str | None,
                   redis: str | None, log: Console) -> Overload:  # fmt: skip
    network = compile_network(load_network("scnn_digits"))
    settings = Settings.load(partitions=2, log_level="WARNING", gateway_port=0)
    options = StackOptions(networks=(network,), n_workers=n_workers, kafka=kafka, redis=redis)
    async with Stack(settings, options) as stack:
        await stack.wait_ready()
        client = _Client(stack, network)
        await _closed_loop(client, _WARM_S, Overload(0, 0, 0))
        calm = Overload(0, 0, 0)
        taken = await _closed_loop(client, _MEASURE_S, calm)
        capacity = len(taken) * _BATCH / _MEASURE_S
        log.print(f"capacity {capacity:.0f} samples/s; now {factor:g} times as many")
        found = Overload(capacity, factor * capacity, seconds, wrong=calm.wrong)
        found.usual_s = quantile(taken, 0.9)
        await _open_loop(stack, client, found)
        found.recovered_s = await _recover(client, found)
    return found


async def _closed_loop(client: _Client, seconds: float, found: Overload) -> list[float]:
    """A few clients, each waiting for its answers; seconds of each request that was answered."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    taken: list[float] = []

    async def one(number: int) -> None:
        while loop.time() < until:
            if (took := await client.send(number, found)) is not None:
                taken.append(took)
            number += _CLIENTS

    await asyncio.gather(*(one(number) for number in range(_CLIENTS)))
    return taken


async def _open_loop(stack: Stack, client: _Client, found: Overload) -> None:
    loop = asyncio.get_running_loop()
    watching = asyncio.create_task(_watch(stack, found))
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in count():
            await asyncio.sleep(began + number * _BATCH / found.offered - loop.time())
            if loop.time() >= began + found.seconds:
                break
            group.create_task(client.send(number, found))
    found.seconds = loop.time() - began
    found.offered = number * _BATCH / found.seconds  # as far as this client could
    watching.cancel()


async def _watch(stack: Stack, found: Overload) -> None:
    while True:
        children = {**stack.workers, **({"gateway": stack.gateway} if stack.gateway else {})}
        for name, child in children.items():
            found.sizes.setdefault(name, []).append(_resident_mib(child.pid))
        await asyncio.sleep(_SIZE_S)


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


async def _recover(client: _Client, found: Overload) -> float | None:
    """Seconds until a request is answered as it was before the overload."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    after = Overload(0, 0, 0)
    while loop.time() < began + _AFTER_S:
        took = await client.send(0, after)
        if took is not None and took <= _USUAL * found.usual_s:
            found.wrong += after.wrong
            return loop.time() - began
    return None


def bench_overload(
    factor: Annotated[float, typer.Option(min=1.0, help="Times the capacity.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=5.0, help="How long.")] = 300.0,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """What a stack does with ten times as much as it can answer."""
    log = Console(stderr=True)
    found = run_to_report(_measure(factor, seconds, workers, kafka, redis, log))
    if as_json:
        print(json.dumps({**vars(found), "growth": found.growth()}))
    else:
        Console().print(_table(found))
    if found.wrong or found.without_retry_after:
        raise typer.Exit(1)


def _table(found: Overload) -> Table:
    table = Table("", "", title="Overload", title_justify="left", show_header=False)
    answered = found.codes[HTTPStatus.OK] * _BATCH / found.seconds
    rows: list[tuple[str, Any]] = [
        ("capacity", f"{found.capacity:.0f} samples/s"),
        ("offered", f"{found.offered:.0f} samples/s for {found.seconds:.0f} s"),
        ("answered meanwhile", f"{answered:.0f} samples/s"),
        *((f"requests with code {code}", str(n)) for code, n in sorted(found.codes.items())),
        ("429 without Retry-After", str(found.without_retry_after)),
        ("Retry-After", _spread(found.retry_after)),
        ("answers with other bits", str(found.wrong)),
        ("answered as before after", _seconds(found.recovered_s)),
        *_growth_rows(found.growth()),
    ]
    for what, value in rows:
        table.add_row(what, value)
    return table


def _growth_rows(growth: Mapping[str, tuple[float, float]]) -> list[tuple[str, str]]:
    return [
        (f"memory of {name}", f"{early:.0f} MiB, then {late:.0f} MiB")
        for name, (early, late) in growth.items()
    ]


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "none"
    return f"p50 {quantile(values, 0.5):.0f} s, max {max(values)} s"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
