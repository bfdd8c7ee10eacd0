"""Plays a schedule of faults on a world under load, and gives the history of it."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from loadtest.faults.contents import Contents
from loadtest.faults.history import History, Injected
from loadtest.faults.hostile import Hostile
from loadtest.faults.nemeses import EXCUSES, NEMESES
from loadtest.faults.schedule import Fault
from loadtest.faults.watch import Tap, Watcher
from loadtest.faults.workload import Pace, Workload
from loadtest.faults.world import World
from router.client import Publisher, ResultReader
from router.keyrings import load_keys, look_up
from router.store.redis import RedisStore
from router.supervisor import StackError
from topologies.errors import SpikeRouterError

__all__ = ["Outcome", "play"]

_QUIET_S: Final = 1.0  # under load before the first fault, and after the last
_TIMEOUT_S: Final = 240.0  # for one fault to be healed: three JVMs that start again take a while
_NOT_PLAYED: Final = (SpikeRouterError, RedisError, KafkaError, OSError, TimeoutError)
_SETTLED_S: Final = 90.0


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its history, what workers and the client counted, and its length."""

    history: History
    counts: Counter[str]
    repeats_dropped_by_client: int
    seconds: float


async def play(
    world: World,
    contents: Contents,
    faults: Sequence[Fault],
    *,
    seed: int,
    pace: Pace | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Inject each fault at its time while a workload runs; then wait for every answer.

    Faults may overlap. Returns when the workload is over, and every task has an owner again or had
    time enough to get one.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    history = History(expected=contents.expected, partitions=world.settings.partitions)
    watcher = Watcher(world, history)
    async with (
        Publisher.of(world.settings) as publisher,
        RedisStore.of(world.settings) as store,
        AsyncExitStack() as exits,
    ):
        keys = await load_keys(store)
        learn = partial(look_up, store, keys, world.settings.lease_ttl_ms / 1000)
        reader = await exits.enter_async_context(
            ResultReader.of(world.settings, keys=keys, learn_keys=learn)
        )
        workload = Workload(
            contents, history, publisher, reader, world.stack.http if world.stack.gateway else "",
            pace or Pace(), seed, prefix=f"{secrets.token_hex(3)}-",
        )  # fmt: skip
        hostile = await exits.enter_async_context(
            Hostile(world.settings, list(contents.networks.values()), workload, keys)
        )
        tap = Tap(world.settings, list(contents.networks), history, keys, learn)
        watching = [asyncio.create_task(loop_()) for loop_ in (tap.run, watcher.run)]
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(workload.run())
                await asyncio.sleep(_QUIET_S)
                await _inject(world, hostile, faults, history, say)
                history.unready = await _until_ready(world)
                await asyncio.sleep(_QUIET_S)
                workload.stop()
                await running
            for task in watching:
                if task.done():  # a run that nobody watched proves nothing
                    task.result()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        repeats = reader.table.tally.repeats
    return Outcome(history, watcher.counts, repeats, loop.time() - began)


async def _until_ready(world: World) -> str:
    """Wait until everything is served; what is wrong when it is not in time, else ""."""
    try:
        await world.stack.wait_ready(_SETTLED_S)
    except StackError as error:
        return str(error).partition("\n")[0]  # without what the processes wrote last
    return ""


async def _inject(
    world: World,
    hostile: Hostile,
    faults: Sequence[Fault],
    history: History,
    say: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            await asyncio.sleep(began + fault.at - loop.time())
            group.create_task(_one(world, hostile, fault, history, say))


async def _one(
    world: World,
    hostile: Hostile,
    fault: Fault,
    history: History,
    say: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            done = await NEMESES[fault.kind](world, hostile, fault)
    except _NOT_PLAYED as error:
        # Another fault was in its way. It may have done something: so it may be an excuse.
        text = f"not played to its end: {error!r}"
        history.unplayed.append(_injected(fault, text, began, ("*",)))
        say(f"{fault.number:4d}  {fault.kind}: {text[:200]}")
        return
    if done is None:
        say(f"{fault.number:4d}  {fault.kind}: there was nothing to hit")
        return
    injected = _injected(fault, done.target, began, done.hit, done.partition)
    history.faults.append(injected)
    say(f"{fault.number:4d}  {fault.kind:14s} {done.target}, {injected.over - began:.1f} s")


def _injected(
    fault: Fault,
    target: str,
    began: float,
    hit: tuple[str, ...],
    partition: int | None = None,
) -> Injected:
    over = asyncio.get_running_loop().time()
    excuses = EXCUSES.get(fault.kind, ())
    return Injected(fault.number, fault.kind, target, began, over, hit, excuses, partition)
