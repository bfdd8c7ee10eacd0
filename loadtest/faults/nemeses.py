"""What injects each kind of fault into a world, and heals it again.

A nemesis returns when the fault is over, with what it did to whom. It returns None where there was
nothing to hit.
"""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from redis.asyncio import Redis

from loadtest.faults.codecs import send_in_all_codecs, send_in_transactions
from loadtest.faults.hostile import Hostile
from loadtest.faults.proxy import Proxy
from loadtest.faults.schedule import Fault
from loadtest.faults.store_damage import evict_by_itself, evict_some, turn_bit
from loadtest.faults.worker import jump
from loadtest.faults.world import World
from router.redis_server import RedisServer
from router.supervisor import Child

__all__ = ["EXCUSES", "NEMESES", "Done", "Nemesis", "full_disk"]


class Done(NamedTuple):
    """What was hit, the workers that may have stopped by it ("*" stands for all of them), and the
    partition whose streams it may have cost (None: any)."""

    target: str
    hit: tuple[str, ...] = ()
    partition: int | None = None


Nemesis = Callable[[World, Hostile, Fault], Awaitable[Done | None]]

ALL: Final = ("*",)
_SLOW_S: Final = 0.1  # a slow worker runs for a fifth of each such time
_DAY_S: Final = 86_400.0
_EVICTED: Final = 0.2  # of all keys, at most


def _victim(world: World, fault: Fault) -> Child | None:
    running = world.running
    return running[fault.pick(list(running))] if running else None


# ---- processes --------------------------------------------------------------------------------


async def _kill_worker(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    if (victim := _victim(world, fault)) is None:
        return None
    victim.signal(signal.SIGKILL)
    return Done(victim.name, (victim.name,))


async def _kill_workers(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    running = list(world.running)
    if len(running) < 2:
        return None
    first = running.index(fault.pick(running))
    victims = (running[first], running[first - 1])
    for name in victims:
        world.stack.workers[name].signal(signal.SIGKILL)
    return Done(" and ".join(victims), victims)


async def _kill_gateway(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    gateway = world.stack.gateway
    if gateway is None or not gateway.running:
        return None
    gateway.signal(signal.SIGKILL)
    return Done(gateway.name, ())


async def _pause_worker(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    if (victim := _victim(world, fault)) is None:
        return None
    victim.signal(signal.SIGSTOP)
    await asyncio.sleep(fault.between(1.2, 3.0) * world.settings.lease_ttl_ms / 1000)
    victim.signal(signal.SIGCONT)
    return Done(victim.name, (victim.name,))


async def _slow_worker(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    if (victim := _victim(world, fault)) is None:
        return None
    for _ in range(int(fault.between(10, 40))):
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(0.8 * _SLOW_S)
        victim.signal(signal.SIGCONT)
        await asyncio.sleep(0.2 * _SLOW_S)
    return Done(victim.name, (victim.name,))


async def _stop_worker(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    if (victim := _victim(world, fault)) is None:
        return None
    victim.signal(signal.SIGTERM)
    return Done(victim.name, (victim.name,))


async def _scale(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    names = (world.extra_name(), world.extra_name())
    for name in names:
        await world.start_worker(name)
    await asyncio.sleep(fault.between(2.0, 5.0))
    await asyncio.gather(*(world.stack.stop_worker(name) for name in names))
    return Done(" and ".join(names), names)


async def _jump_clock(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    if (victim := _victim(world, fault)) is None:
        return None
    jump(world.clock(victim.name), fault.between(-_DAY_S, _DAY_S))
    await asyncio.sleep(fault.between(1.0, 3.0))
    jump(world.clock(victim.name), 0.0)
    return Done(victim.name, ())


# ---- networks ---------------------------------------------------------------------------------


def _at_broker(act: Callable[[Proxy, Fault], None], low: float, high: float) -> Nemesis:
    async def nemesis(world: World, hostile: Hostile, fault: Fault) -> Done | None:
        if (victim := _victim(world, fault)) is None:
            return None
        await _disturb(world.broker_proxies(victim.name), act, fault, low, high)
        return Done(f"{victim.name} - broker", (victim.name,))

    return nemesis


def _at_store(act: Callable[[Proxy, Fault], None], low: float, high: float) -> Nemesis:
    async def nemesis(world: World, hostile: Hostile, fault: Fault) -> Done | None:
        if (victim := _victim(world, fault)) is None:
            return None
        await _disturb([world.store_proxy(victim.name)], act, fault, low, high)
        return Done(f"{victim.name} - store", (victim.name,))

    return nemesis


async def _disturb(
    proxies: list[Proxy], act: Callable[[Proxy, Fault], None], fault: Fault, low: float, high: float
) -> None:
    for proxy in proxies:
        act(proxy, fault)
    try:
        await asyncio.sleep(fault.between(low, high))
    finally:
        for proxy in proxies:
            proxy.heal()


def _cut(proxy: Proxy, fault: Fault) -> None:
    proxy.cut()


def _hang(proxy: Proxy, fault: Fault) -> None:
    proxy.hang()


def _delay(proxy: Proxy, fault: Fault) -> None:
    proxy.delay(fault.between(0.005, 0.1))


# ---- the store --------------------------------------------------------------------------------


async def _kill_store(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    async with world.store_lock:
        world.redis.primary.kill()
        await asyncio.sleep(fault.between(0.0, 2.0))
        await world.redis.primary.start()
        await world.redis.replica.wait_replicated()
    return Done("store", ALL)


async def _fail_over(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    async with world.store_lock:
        await world.redis.replica.fall_behind()
        await asyncio.sleep(fault.between(0.0, 1.0))  # so long nothing reaches the replica
        await world.fail_over()
        await world.restore_replica()
    return Done("store", ALL)


async def _wipe_store(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    async with world.store_lock:
        world.redis.primary.kill()
        world.redis.primary.wipe()
        await world.redis.primary.start()
        await asyncio.sleep(fault.between(0.0, 1.0))
        await world.deploy()
        await world.redis.replica.wait_replicated()
    return Done("store", ALL)


async def _fill_disk(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    async with world.store_lock, full_disk(world.redis.primary):
        await asyncio.sleep(fault.between(1.0, 4.0))
    return Done("store", ALL)


async def _flush_scripts(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    async with world.store_lock, _asking(world) as client:
        await client.script_flush()
    return Done("store", ())


async def _damage_store(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    """Most of what is damaged is written anew soon: every other time somebody reads it first."""
    async with world.store_lock, _holding(world) as client:
        damage = await turn_bit(client, fault.dice())
    if damage is None:
        return None
    if fault.strength < 0.5 and (victim := _victim(world, fault)) is not None:
        await asyncio.sleep(fault.strength)
        victim.signal(signal.SIGKILL)
    return Done(damage.what, ALL, damage.partition)


async def _evict_store(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    """By the store's own choice, or key by key; as after a loss, one deploys again."""
    share = fault.between(0.0, _EVICTED)
    async with world.store_lock:
        async with _holding(world) as client:
            if fault.target < 0.5:
                what = f"{await evict_by_itself(client, share)} keys by itself"
            else:
                what = f"{await evict_some(client, fault.dice(), share)} keys"
        await asyncio.sleep(fault.between(0.0, 1.0))
        await world.deploy()
    return Done(what, ALL)


@asynccontextmanager
async def full_disk(server: RedisServer) -> AsyncIterator[None]:
    """Meanwhile no file of the server may grow: every write of its log fails."""
    async with Redis.from_url(server.url, decode_responses=True) as client:
        folder = Path(str((await client.config_get("dir"))["dir"])) / "appendonlydir"
        largest = max(path.stat().st_size for path in folder.iterdir())
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest, hard))
        try:
            yield
        finally:
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        while (await client.info("persistence"))["aof_last_write_status"] != "ok":
            await asyncio.sleep(_SLOW_S)  # it tries again once a second


@asynccontextmanager
async def _asking(world: World) -> AsyncIterator[Redis]:
    client = Redis.from_url(world.redis.primary.url, decode_responses=True)
    async with client:
        yield client


@asynccontextmanager
async def _holding(world: World) -> AsyncIterator[Redis]:
    """A client that is given the very bytes."""
    async with Redis.from_url(world.redis.primary.url) as client:
        yield client


# ---- the broker -------------------------------------------------------------------------------


async def _kill_broker(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    kafka = world.apache()
    async with world.broker_lock:
        number = kafka.numbers[int(fault.target * len(kafka.numbers))]
        kafka.kill(number)
        await asyncio.sleep(fault.between(0.0, 4.0))
        await kafka.start_broker(number)
        await kafka.wait_in_sync()
    return Done(f"broker {number}", ALL)


async def _roll_brokers(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    kafka = world.apache()
    async with world.broker_lock:
        for number in kafka.numbers:
            await kafka.stop_broker(number)
            await kafka.start_broker(number)
            await kafka.wait_in_sync()
    return Done("all brokers", ALL)


async def _long_broker(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    """Longer than a broker's answer is waited for; every other time longer than a record is."""
    share = fault.between(0.55, 1.45)
    async with world.broker_lock, _silent(world, fault) as who:
        await asyncio.sleep(share * world.settings.send_timeout_s)
    return Done(who, ALL)


@asynccontextmanager
async def _silent(world: World, fault: Fault) -> AsyncIterator[str]:
    """Meanwhile the broker, one of three, or all three of them get no time (SIGSTOP)."""
    if world.kafka is None:
        with _stopped(world.broker_pid()):
            yield "the broker"
        return
    kafka = world.kafka
    one = kafka.numbers[int(fault.target * 2 * len(kafka.numbers)) % len(kafka.numbers)]
    numbers = [one] if fault.target < 0.5 else list(kafka.numbers)
    for number in numbers:
        kafka.pause(number)
    try:
        yield "broker " + ", ".join(map(str, numbers))
    finally:
        for number in numbers:
            kafka.resume(number)
    await kafka.wait_in_sync()


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# ---- records ----------------------------------------------------------------------------------


async def _repeat_frames(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    n = await hostile.repeat(fault)
    return Done(f"{n} records", ())


async def _poison(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    n = await hostile.poison(fault)
    return Done(f"{n} records", ())


async def _damage_topic(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    place, n = await hostile.damage(fault)
    return Done(f"{n} records of {place}") if n else None


async def _forge(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    place, n = await hostile.forge(fault)
    return Done(f"{n} records in {place}") if n else None


async def _flood(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    place, n = await hostile.flood(fault)
    return Done(f"{n} records in {place}")


async def _codecs(world: World, hostile: Hostile, fault: Fault) -> Done | None:
    dice = fault.dice()
    workload = hostile.workload
    if workload is None:
        return None
    n = await send_in_all_codecs(world.settings, workload, dice)
    if world.kafka is not None:  # the embedded broker knows no transactions
        n += await send_in_transactions(world.settings, workload, dice)
    return Done(f"{n} records")


EXCUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "damage-store": ("SnapshotCorrupt", "InputLost", "EraLost"),
    "evict-store": ("SnapshotCorrupt", "InputLost", "EraLost"),
    "long-broker": ("DeadlineMissed",),
}
"""Errors that such a fault alone may end streams with."""

NEMESES: Final[Mapping[str, Nemesis]] = {
    "kill-worker": _kill_worker,
    "kill-workers": _kill_workers,
    "kill-gateway": _kill_gateway,
    "pause-worker": _pause_worker,
    "slow-worker": _slow_worker,
    "stop-worker": _stop_worker,
    "scale": _scale,
    "cut-broker": _at_broker(_cut, 0.2, 3.0),
    "hang-broker": _at_broker(_hang, 0.5, 4.0),
    "delay-broker": _at_broker(_delay, 1.0, 4.0),
    "cut-store": _at_store(_cut, 0.2, 3.0),
    "hang-store": _at_store(_hang, 0.5, 4.0),
    "delay-store": _at_store(_delay, 1.0, 4.0),
    "kill-store": _kill_store,
    "fail-over": _fail_over,
    "wipe-store": _wipe_store,
    "fill-disk": _fill_disk,
    "flush-scripts": _flush_scripts,
    "repeat-frames": _repeat_frames,
    "poison": _poison,
    "damage-store": _damage_store,
    "evict-store": _evict_store,
    "damage-topic": _damage_topic,
    "forge": _forge,
    "codecs": _codecs,
    "flood": _flood,
    "long-broker": _long_broker,
    "jump-clock": _jump_clock,
    "kill-broker": _kill_broker,
    "roll-brokers": _roll_brokers,
}
