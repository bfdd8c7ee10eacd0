"""Hostile clients at some doors of a real stack, a good client beside them, and a watch."""

import asyncio
import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from loadtest.demo import load_digits
from loadtest.hostile.cases_http import Target
from loadtest.hostile.checker import Limits, Measured, beyond
from loadtest.hostile.doors import DOORS, Door
from loadtest.undisturbed import run_streams
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network

__all__ = ["Played", "play"]

_CLIENTS: Final = 12  # hostile ones
_GOOD_SAMPLES: Final = 20
_WATCH_S: Final = 0.2
_GOOD_PAUSE_S: Final = 0.02
_MIB: Final = 1024 * 1024
_MOST_FAULTS: Final = 50  # told


@dataclass
class Played:
    """What came of a run; `outcomes` counts (door, kind, outcome)."""

    seed: int
    n_inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    n_faults: int = 0
    measured: Measured = field(default_factory=Measured)

    def findings(self, limits: Limits) -> list[str]:
        """What must not be, as sentences."""
        return [*self.faults, *beyond(self.measured, limits)]


async def play(
    seed: int, n_inputs: int, seconds: float, doors: Sequence[str], kinds: Sequence[str] = ()
) -> Played:
    """Give so many inputs, or as many as the time allows; the same ones for the same seed.

    `kinds` of cases: none given means all.
    """
    network = compile_network(load_network("scnn_digits"))
    settings = Settings.load(partitions=2, gateway_port=0, body_timeout_s=10.0, log_level="WARNING")
    played = Played(seed)
    async with AsyncExitStack() as exits:
        options = StackOptions(networks=(network,), n_workers=2)
        stack = await exits.enter_async_context(Stack(settings, options))
        await stack.wait_ready()
        images = load_digits()[0][:_GOOD_SAMPLES]
        target = _target(network, images[0], stack.settings)
        opened = [
            await exits.enter_async_context(DOORS[door](stack, target, kinds)) for door in doors
        ]
        beside = [
            asyncio.create_task(_good_client(stack, network, images, played.measured)),
            asyncio.create_task(_watch(stack, played.measured)),
        ]
        try:
            await _knock_all(opened, seed, n_inputs, seconds, played)
            _raise_if_ended(beside)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        played.measured.n_deaths = 0 if stack.gateway is None else stack.gateway.n_deaths
    return played


def _target(network: CompiledNetwork, image: Any, settings: Settings) -> Target:
    return Target(
        network.name,
        network.input.name,
        network.input.shape,
        tuple(image.reshape(-1).tolist()),
        settings.max_body_bytes,
    )


def _raise_if_ended(tasks: list[asyncio.Task[None]]) -> None:
    """Neither the good client nor the watch may have ended."""
    for task in tasks:
        if task.done():
            task.result()


async def _knock_all(
    doors: list[Door], seed: int, n_inputs: int, seconds: float, played: Played
) -> None:
    began = time.monotonic()
    numbers = iter(range(n_inputs))
    turns = itertools.cycle(doors)
    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(_hostile_client(turns, seed, numbers, began + seconds, played))
    played.seconds = time.monotonic() - began


async def _hostile_client(
    doors: Iterator[Door], seed: int, numbers: Iterator[int], until: float, played: Played
) -> None:
    for number in numbers:
        if time.monotonic() >= until:
            return
        door = next(doors)
        knock = await door.knock(seed, number)
        played.n_inputs += 1
        played.outcomes[door.name, knock.kind, knock.outcome] += 1
        if knock.fault:
            played.n_faults += 1
            if len(played.faults) < _MOST_FAULTS:
                played.faults.append(knock.fault)


async def _good_client(
    stack: Stack, network: CompiledNetwork, images: Any, measured: Measured
) -> None:
    """Until cancelled: ask what is legal, and compare every bit of the answer."""
    wanted = run_streams(network, images[:, None])
    async with httpx.AsyncClient(base_url=stack.http, timeout=60.0, trust_env=False) as client:
        for index in itertools.cycle(range(len(images))):
            tensor = {
                "name": network.input.name, "shape": [1, *network.input.shape],
                "datatype": "UINT8", "data": images[index].reshape(-1).tolist(),
            }  # fmt: skip
            began = time.monotonic()
            try:
                reply = await client.post(
                    f"/v2/models/{network.name}/infer", json={"inputs": [tensor]}
                )
            except httpx.TransportError:
                measured.n_failed += 1
                continue
            measured.longest_good_s = max(measured.longest_good_s, time.monotonic() - began)
            _count(reply, np.asarray(wanted[index]), measured)
            await asyncio.sleep(_GOOD_PAUSE_S)


def _count(reply: httpx.Response, wanted: Any, measured: Measured) -> None:
    """A refusal for want of room is legal; any other answer must be the right one."""
    if reply.status_code == httpx.codes.OK:
        values = np.array(reply.json()["outputs"][0]["data"], wanted.dtype)
        measured.n_good += 1
        measured.n_wrong += values.tobytes() != wanted.tobytes()
    elif reply.status_code != httpx.codes.TOO_MANY_REQUESTS:
        measured.n_failed += 1


async def _watch(stack: Stack, measured: Measured) -> None:
    """Until cancelled: how large the gateway is, and how long its loop was held."""
    async with httpx.AsyncClient(base_url=stack.http, timeout=60.0, trust_env=False) as client:
        while True:
            pid = 0 if stack.gateway is None else stack.gateway.pid
            if pid:
                measured.resident_mib = max(measured.resident_mib, _resident_mib(pid))
                try:
                    text = (await client.get("/metrics")).text
                except httpx.TransportError:
                    text = ""
                measured.held_s = max(measured.held_s, _longest(text, "held"))
            await asyncio.sleep(_WATCH_S)


def _resident_mib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it ended just now
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def _longest(text: str, what: str) -> float:
    found = re.search(rf"^spikerouter_gateway_loop_{what}_longest_seconds (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0
