"""Hostile clients at some doors of a real stack, a good client beside them, and a watch."""

import asyncio
import itertools
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from loadtest.demo import load_digits
from loadtest.hostile.cases_http import Target
from loadtest.hostile.checker import SPOILED, Limits, Measured, beyond
from loadtest.hostile.doors import DOORS, Door, HttpDoor, numbers_of
from loadtest.hostile.records_door import RecordsDoor
from loadtest.hostile.store_door import StoreDoor
from loadtest.undisturbed import run_streams
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network

__all__ = ["Played", "play"]

_GOOD_SAMPLES: Final = 20
_WATCH_S: Final = 0.2
_GOOD_PAUSE_S: Final = 0.02
_MIB: Final = 1024 * 1024
_MOST_FAULTS: Final = 50  # told
_TELL_S: Final = 10.0
_LONG_S: Final = 0.5
_RECOVERY_S: Final = 60.0
_SERVED_S: Final = 30.0  # within which a request must be answered, or is given up


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
    settings = Settings.load(
        partitions=2, gateway_port=0, body_timeout_s=10.0, request_timeout_s=_SERVED_S,
        log_level="WARNING",
    )  # fmt: skip
    played = Played(seed)
    async with AsyncExitStack() as exits:
        options = StackOptions(networks=(network,), n_workers=2)
        stack = await exits.enter_async_context(Stack(settings, options))
        await stack.wait_ready()
        images = load_digits()[0][:_GOOD_SAMPLES]
        target = _target(network, images[0], stack.settings)
        await _ask_once(stack, network, images)  # so that there are records to make cases of
        opened = {
            door: await exits.enter_async_context(DOORS[door].make(stack, target, kinds))
            for door in doors
        }
        good = _GoodClient(stack, network, images, played.measured)
        _link(opened, good)
        beside = [
            asyncio.create_task(good.run()),
            asyncio.create_task(_watch(stack, played.measured)),
            asyncio.create_task(_tell(played)),
        ]
        try:
            await _knock_all(opened, seed, n_inputs, seconds, played)
            _raise_if_ended(beside)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        await good.until_answered()
        children = [stack.gateway, *stack.workers.values()]
        played.measured.n_deaths = sum(child.n_deaths for child in children if child is not None)
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


def _link(doors: Mapping[str, Door], good: "_GoodClient") -> None:
    """Whether somebody damages the store, and whether the good client waits, concerns others."""
    for door in doors.values():
        if isinstance(door, RecordsDoor):
            door.is_crowded = good.waits_long
        if isinstance(door, StoreDoor):
            good.is_spoiled = door.is_spoiled
            for other in doors.values():
                if isinstance(other, HttpDoor):
                    other.is_spoiled = door.is_spoiled


async def _knock_all(
    doors: Mapping[str, Door], seed: int, n_inputs: int, seconds: float, played: Played
) -> None:
    began = time.monotonic()
    numbers = numbers_of([*doors], n_inputs)
    async with asyncio.TaskGroup() as group:
        for name, door in doors.items():
            for _ in range(DOORS[name].n_clients):
                knocking = _hostile_client(door, seed, numbers[name], began + seconds, played)
                group.create_task(knocking)
    played.seconds = time.monotonic() - began


async def _hostile_client(
    door: Door, seed: int, numbers: Iterator[int], until: float, played: Played
) -> None:
    for number in numbers:
        if time.monotonic() >= until:
            return
        knock = await door.knock(seed, number)
        played.n_inputs += 1
        played.outcomes[door.name, knock.kind, knock.outcome] += 1
        if knock.fault:
            played.n_faults += 1
            if len(played.faults) < _MOST_FAULTS:
                played.faults.append(knock.fault)


class _GoodClient:
    """Asks what is legal, one request after the other, and compares every bit of the answers."""

    def __init__(
        self,
        stack: Stack,
        network: CompiledNetwork,
        images: Any,
        measured: Measured,
    ) -> None:
        self._stack = stack
        self._network = network
        self._images = images
        self._measured = measured
        self._asked_at: float | None = None
        self.is_spoiled: Callable[[], bool] = lambda: False
        self._wanted = run_streams(network, images[:, None])

    def waits_long(self) -> bool:
        """Whether the request that is under way waits for its answer for long already."""
        return self._asked_at is not None and time.monotonic() - self._asked_at > _LONG_S

    async def run(self) -> None:
        """Until cancelled."""
        async with _client(self._stack) as client:
            for index in itertools.cycle(range(len(self._images))):
                await self._ask(client, index)
                await asyncio.sleep(_GOOD_PAUSE_S)

    async def until_answered(self) -> None:
        """When all is over, a right answer comes within `_RECOVERY_S`. Raises TimeoutError."""
        async with asyncio.timeout(_RECOVERY_S), _client(self._stack) as client:
            n_good = self._measured.n_good
            while self._measured.n_good == n_good:
                await self._ask(client, 0)

    async def _ask(self, client: httpx.AsyncClient, index: int) -> None:
        measured = self._measured
        self._asked_at = began = time.monotonic()
        try:
            reply = await _ask(client, self._network, self._images[index])
        except httpx.TransportError as error:
            measured.n_failed += 1
            measured.failures.append(repr(error))
            return
        finally:
            self._asked_at = None
        measured.longest_good_s = max(measured.longest_good_s, time.monotonic() - began)
        self._count(reply, np.asarray(self._wanted[index]))

    def _count(self, reply: httpx.Response, wanted: Any) -> None:
        """A refusal for want of room is legal; any other answer must be the right one."""
        measured, code = self._measured, reply.status_code
        if code == httpx.codes.OK:
            values = np.array(reply.json()["outputs"][0]["data"], wanted.dtype)
            measured.n_good += 1
            measured.n_wrong += values.tobytes() != wanted.tobytes()
        elif code in SPOILED and self.is_spoiled():
            measured.n_spoiled += 1
        elif code != httpx.codes.TOO_MANY_REQUESTS:
            measured.n_failed += 1
            measured.failures.append(f"{code}: {reply.text[:200]}")


async def _tell(played: Played) -> None:
    """Until cancelled: how far it is, for whoever waits."""
    began, measured = time.monotonic(), played.measured
    while True:
        await asyncio.sleep(_TELL_S)
        seconds = time.monotonic() - began
        print(
            f"{seconds:5.0f} s: {played.n_inputs:,} inputs, {played.n_inputs / seconds:.0f}/s;"
            f" {measured.n_good:,} good answers, {played.n_faults} faults;"
            f" {measured.resident_mib:.0f} MiB, loop held {1000 * measured.held_s:.0f} ms",
            file=sys.stderr,
        )


def _client(stack: Stack) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=stack.http, timeout=60.0, trust_env=False)


async def _ask(client: httpx.AsyncClient, network: CompiledNetwork, image: Any) -> httpx.Response:
    tensor = {
        "name": network.input.name, "shape": [1, *network.input.shape],
        "datatype": "UINT8", "data": image.reshape(-1).tolist(),
    }  # fmt: skip
    return await client.post(f"/v2/models/{network.name}/infer", json={"inputs": [tensor]})


async def _ask_once(stack: Stack, network: CompiledNetwork, images: Any) -> None:
    async with _client(stack) as client:
        for image in images:
            (await _ask(client, network, image)).raise_for_status()


async def _watch(stack: Stack, measured: Measured) -> None:
    """Until cancelled: how large the gateway is, and how long its loop was held."""
    async with _client(stack) as client:
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
