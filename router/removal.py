"""Removing a network while others serve (PROTOCOL 31).

1. ROUTE without the network: no stream may begin in it any more (PROTOCOL 5). By force, it ends
   those of its streams that have not been told to end, too: each gets the error `NetworkRemoved`.
2. Wait until the ingest has read that record and every stream of the network is confirmed to its
   end: what is open goes on, and what a client waits for comes. Where ingest routes to the network
   nevertheless, it never read the record: it is appended again.
3. A new generation, for the keys of tasks that are deployed from now on: who still runs a task
   under its old key writes to nothing.
4. Its own tasks with their checkpoints, then its own artifacts. What another network uses stays.
5. The manifest, last: whoever repeats a removal that was cut short goes on here.

Workers see that the manifest is gone; they drop the tasks and leave its places in shared ones.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from router.artifacts import open_artifacts
from router.bus import Bus
from router.deploy import DeployError, load_networks
from router.keyrings import begin_key
from router.records import Route, encode_record
from router.settings import Settings
from router.status import task_detail
from router.store.calls import StatusReply, TaskId
from router.store.redis import RedisStore
from router.topics import in_topic
from topologies.compiled import CompiledNetwork

__all__ = ["RemoveError", "Removed", "has_lost_route", "open_streams", "own_operators", "remove"]

_ASK_AGAIN_S: Final = 0.1


class RemoveError(DeployError):
    """A network cannot be removed, or not yet."""


@dataclass(frozen=True)
class Removed:
    """What a removal took away."""

    network: str
    n_tasks: int
    n_operators: int


async def remove(
    settings: Settings, name: str, *, timeout: float = 60.0, force: bool = False
) -> Removed:
    """Remove the network; repeat it freely. See the module for the steps, and for `force`.

    Raises RemoveError when it is not deployed, or when streams of it are still open after `timeout`
    seconds; BusError or StoreUnavailable.
    """
    async with RedisStore.of(settings) as store, Bus(settings) as bus:
        networks = await load_networks(store)
        if name not in networks:
            legal = ", ".join(sorted(networks)) or "none"
            raise RemoveError(f"No network {name!r} is deployed; deployed are: {legal}.")
        network = networks[name]
        tell = partial(_tell, store, bus, network, settings.max_streams, force)
        await _drain(store, network, tell, settings.partitions, timeout)  # 1 and 2
        await store.begin_generation()  # 3
        return await _take_away(settings, store, network, networks)


def own_operators(network: CompiledNetwork, networks: Mapping[str, CompiledNetwork]) -> set[str]:
    """The operators that no other network has."""
    others = (n.summaries for name, n in networks.items() if name != network.name)
    return set(network.summaries).difference(*others)


def open_streams(reply: StatusReply, network: CompiledNetwork, told: int) -> int | None:
    """Streams of the network that ingest waits for on one partition.

    None while the ingest has not read its input up to offset `told`, awaits an era that may route
    to the network again, or is run by nobody.
    """
    known = _known_behind(told, reply, network)
    if known is None or known.get("routes", ()) is None:
        return None
    n_open: int = known["streams"].get(network.name, 0)
    return n_open


def has_lost_route(reply: StatusReply, network: CompiledNetwork, told: int) -> bool:
    """Whether streams may still join the network behind the ROUTE at offset `told`: retention took
    that record before the ingest read it, or an ERA that was on its way came after it."""
    known = _known_behind(told, reply, network)
    return known is not None and network.name in (known.get("routes") or ())


def _known_behind(told: int, reply: StatusReply, network: CompiledNetwork) -> dict[str, Any] | None:
    """What the owner of the network's ingest last told of its streams; None while it has not read
    its input up to offset `told`. Workers of earlier releases tell no `routes`."""
    ingest = network.nodes[network.input.node].operator
    for task in reply.tasks:
        if task.task.operator != ingest or task.lease_ms <= 0:
            continue
        for worker in reply.workers:
            said = worker.info.details.get(task_detail(task.task, "open"))
            if worker.worker == task.worker and isinstance(said, str):
                known: dict[str, Any] = json.loads(said)
                return known if known["read"] > told else None
    return None


def _route(
    network: CompiledNetwork,
    networks: Mapping[str, CompiledNetwork],
    max_streams: int | None,
    *,
    force: bool,
) -> bytes:
    """The ROUTE record, without the network."""
    source = network.input.name
    rest = (n.name for n in networks.values() if n.input.name == source and n.name != network.name)
    ends = (network.name,) if force else ()
    return encode_record(Route(tuple(sorted(rest)), ends, max_streams))


async def _tell(
    store: RedisStore,
    bus: Bus,
    network: CompiledNetwork,
    max_streams: int | None,
    force: bool,
    partitions: Collection[int],
) -> dict[int, int]:
    """Append ROUTE to these partitions, under a new key: whatever was routed before is superseded
    (35). Its offset in each."""
    keys = await begin_key(store)
    route = _route(network, await load_networks(store), max_streams, force=force)
    topic = in_topic(network.input.name)
    return {p: await bus.write(topic, p, route, keys) for p in partitions}


async def _drain(
    store: RedisStore,
    network: CompiledNetwork,
    tell: Callable[[Collection[int]], Awaitable[dict[int, int]]],
    partitions: int,
    timeout: float,
) -> None:
    """Append ROUTE to each partition, again where it was lost, and wait for the open streams."""
    told = await tell(range(partitions))  # 1
    left: dict[int, int | None] = dict.fromkeys(range(partitions))
    try:
        async with asyncio.timeout(timeout):
            while left:  # 2
                for partition in tuple(left):
                    reply = await store.status(partition)
                    if has_lost_route(reply, network, told[partition]):
                        told |= await tell([partition])
                    left[partition] = open_streams(reply, network, told[partition])
                    if left[partition] == 0:
                        del left[partition]
                await asyncio.sleep(_ASK_AGAIN_S if left else 0)
    except TimeoutError as error:
        raise RemoveError(_still_open(network.name, left, timeout)) from error


def _still_open(name: str, left: Mapping[int, int | None], timeout: float) -> str:
    silent = sorted(partition for partition, n in left.items() if n is None)
    n_open = sum(n or 0 for n in left.values())
    why = [f"{n_open} of its streams have not ended"] if n_open else []
    if silent:
        why.append(f"its ingest does not answer on partitions {', '.join(map(str, silent))}")
    return (
        f"Network {name} takes no new streams, but after {timeout:g} s {' and '.join(why)}: "
        "have the streams ended, look at `spikerouter status`, and remove it again; --force ends "
        "them with an error."
    )


async def _take_away(
    settings: Settings,
    store: RedisStore,
    network: CompiledNetwork,
    networks: Mapping[str, CompiledNetwork],
) -> Removed:
    own = own_operators(network, networks)
    tasks: list[TaskId] = []
    for partition in range(settings.partitions):
        reply = await store.status(partition)
        tasks += [row.task for row in reply.tasks if row.task.operator in own]
    for task in tasks:  # 4
        await store.remove_task(task)
    artifacts = open_artifacts(settings, store)
    for operator in sorted(own):
        await artifacts.remove_artifact(operator)
    await store.remove_manifest(network.name)  # 5
    return Removed(network.name, len(tasks), len(own))
