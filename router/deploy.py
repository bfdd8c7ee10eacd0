"""Deployment: artifacts, manifests, topics and task records, in an order that a crash cannot hurt.

0. A key, so that all that is told from here on is known to come after it (PROTOCOL 35).
1. Topics, with the same number of partitions each. Those that exist are compared with what is
   needed of them before anything is written.
2. Once a network was removed: where a new one begins in its topics, since they may hold streams of
   one of the same name (PROTOCOL 31).
3. Artifacts and manifests, so that whoever sees a task can load it.
4. Task records (PROTOCOL 27: only here, and again without harm).
5. ROUTE, last: streams that begin after it belong to the network (PROTOCOL 5).
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from router.admin import check_topics, create_topics
from router.artifacts import open_artifacts
from router.bus import Bus, Place
from router.keyrings import begin_key
from router.kinds import task_kind
from router.records import Route, encode_record
from router.settings import Settings
from router.store.calls import TaskId, TaskSpec
from router.store.errors import ManifestDamaged
from router.store.redis import RedisStore
from router.topics import DEAD_LETTER, check_name, in_topic, out_topic, spikes_topic
from topologies.batches import route_bytes
from topologies.compiled import CompiledNetwork, Group, ManifestError, Summary
from topologies.errors import SpikeRouterError
from topologies.names import is_same_topic
from topologies.profiles import operator_needs

__all__ = [
    "DeployError",
    "Deployed",
    "deploy",
    "deploy_compiled",
    "group_cost",
    "load_networks",
    "task_specs",
]


_log = logging.getLogger(__name__)


class DeployError(SpikeRouterError, ValueError):
    """A network cannot be deployed beside those that are."""


@dataclass(frozen=True)
class Deployed:
    """What a deployment wrote: how many tasks there are, and how many of them are new."""

    networks: tuple[str, ...]
    n_tasks: int
    n_new: int


async def deploy(
    settings: Settings, networks: Sequence[str | CompiledNetwork], *, partitions: int | None = None
) -> Deployed:
    """Compile (names from the zoo, or files) and deploy; repeat it freely.

    Raises DeployError, TopicUnfit, TopicsNotMade, BusError or StoreUnavailable.
    """
    from topologies.compiler import compile_network
    from topologies.loader import load_network

    compiled = [
        n if isinstance(n, CompiledNetwork) else compile_network(load_network(n)) for n in networks
    ]
    n_partitions = settings.partitions if partitions is None else partitions
    async with (
        RedisStore.of(settings) as store,
        Bus(settings) as bus,
    ):
        return await deploy_compiled(settings, store, bus, compiled, n_partitions)


async def deploy_compiled(
    settings: Settings,
    store: RedisStore,
    bus: Bus,
    networks: Sequence[CompiledNetwork],
    n_partitions: int,
) -> Deployed:
    """Deploy through connections that are open already."""
    existing = await load_networks(store)
    everything = {**existing, **{n.name: n for n in networks}}
    for network in networks:
        check_name(network.name)
        _check_beside(network, everything.values())
        _check_again(network, existing)
    _check_records(settings, networks, everything.values())
    topics = _topics(networks)
    await check_topics(settings, topics)
    keys = await begin_key(store)  # 0
    await create_topics(settings, topics, n_partitions)  # 1
    await bus.ensure(topics, n_partitions)
    generation = await store.generation()
    if generation:
        for network in networks:
            if network.name not in existing:
                begin = await _ends(bus, _topics([network]), n_partitions)  # 2
                await store.put_begin(network.name, json.dumps(begin).encode())
    artifacts = open_artifacts(settings, store)
    for network in networks:  # 3
        for operator in network.operators.values():
            await artifacts.put_artifact(operator.id, operator.to_bytes())
        await store.put_manifest(network.name, network.to_bytes())
    known = await _generations(store, n_partitions)
    specs = [s for n in networks for s in task_specs(n, n_partitions, known, generation)]
    settle_ms = (
        settings.lease_ttl_ms if existing or await _is_used(bus, networks, n_partitions) else 0
    )
    fresh = [await store.create_task(spec, settle_ms=settle_ms) for spec in specs]  # 4
    for name in dict.fromkeys(n.input.name for n in networks):  # 5
        routes = tuple(sorted(n.name for n in everything.values() if n.input.name == name))
        value = encode_record(Route(routes, max_streams=settings.max_streams))
        for partition in range(n_partitions):
            await bus.write(in_topic(name), partition, value, keys)
    return Deployed(tuple(n.name for n in networks), len(specs), sum(fresh))


async def _is_used(bus: Bus, networks: Iterable[CompiledNetwork], n_partitions: int) -> bool:
    """Whether there was input before: then owners may have outlived the store's data (26, 27)."""
    ends = await _ends(bus, {in_topic(n.input.name) for n in networks}, n_partitions)
    return any(any(offsets) for offsets in ends.values())


async def _ends(bus: Bus, topics: Iterable[str], n_partitions: int) -> dict[str, list[int]]:
    """The next offset of each topic, by partition."""
    partitions = range(n_partitions)
    found = await bus.bounds(Place(topic, p) for topic in topics for p in partitions)
    return {topic: [found[Place(topic, p)][1] for p in partitions] for topic in topics}


async def _generations(store: RedisStore, n_partitions: int) -> dict[str, int]:
    """The generation of every operator that has tasks."""
    replies = [await store.status(partition) for partition in range(n_partitions)]
    return {row.task.operator: row.task.generation for reply in replies for row in reply.tasks}


async def load_networks(store: RedisStore) -> dict[str, CompiledNetwork]:
    """All deployed networks, without weights, by name: those whose manifest is whole."""
    found: dict[str, CompiledNetwork] = {}
    for name in await store.list_networks():
        try:
            manifest = await store.get_manifest(name)
            if manifest is not None:
                found[name] = CompiledNetwork.from_bytes(manifest)
        except (ManifestDamaged, ManifestError) as error:
            _log.warning("network %s cannot be read: %s", name, error)
    return found


def group_cost(summary: Summary, group: Group) -> int:
    """What a synapse group takes of a worker's capacity: its share of neurons plus synapses."""
    whole = max(1, summary.cost.n_neurons + summary.cost.n_synapses)
    return max(1, whole * (group.hi - group.lo) // summary.output.n)


def task_specs(
    network: CompiledNetwork,
    n_partitions: int,
    known: Mapping[str, int] | None = None,
    generation: int = 0,
) -> list[TaskSpec]:
    """One task per operator, synapse group and partition. The cost is in neurons plus synapses.

    An operator in `known` has tasks of that generation already; others get `generation`.
    """
    generations = known or {}
    specs = []
    needs = {o: operator_needs(network, o) for o in network.operators}
    for operator, summary in network.summaries.items():
        kind = task_kind(summary.kind, summary.extras)
        for group in network.groups[operator]:
            cost = group_cost(summary, group)
            for partition in range(n_partitions):
                number = generations.get(operator, generation)
                task = TaskId(operator, group.index, partition, number)
                asked = astuple(needs[operator][group.index]) if operator in needs else ()
                specs.append(TaskSpec(task, kind, cost, asked))
    return specs


def _topics(networks: Iterable[CompiledNetwork]) -> list[str]:
    topics = {DEAD_LETTER: None}
    for network in networks:
        topics[in_topic(network.input.name)] = None
        topics[out_topic(network.name)] = None
        topics.update(dict.fromkeys(spikes_topic(o) for o in network.summaries))
    return list(topics)


def _check_again(network: CompiledNetwork, existing: Mapping[str, CompiledNetwork]) -> None:
    """One name is one content, for as long as streams of it may be open."""
    known = existing.get(network.name)
    if known is not None and known.version != network.version:
        raise DeployError(
            f"network {network.name} is deployed with other content (version {known.version[:8]},"
            f" this is {network.version[:8]}): remove it first, or deploy this one under another"
            " name"
        )


def _check_records(
    settings: Settings, networks: Iterable[CompiledNetwork], everything: Iterable[CompiledNetwork]
) -> None:
    """The worst batch of each network must fit a record, whatever networks its stream goes to."""
    from topologies.compiler.plan import (
        worst_records,  # workers import this module, and compile not
    )

    everything = tuple(everything)
    for spec in {network.input.name for network in networks}:
        beside = [network for network in everything if network.input.name == spec]
        routes = route_bytes(tuple(network.name for network in beside))
        for network in beside:
            worst = worst_records(network, routes)
            operator = max(worst, key=worst.__getitem__)
            if worst[operator] > settings.max_record_bytes:
                raise DeployError(
                    f"operator {operator} of network {network.name} sends records of up to"
                    f" {worst[operator]} bytes, and SPIKEROUTER_MAX_RECORD_BYTES is"
                    f" {settings.max_record_bytes}: raise it, or compile the network for windows"
                    f" shorter than {network.input.longest_window} steps"
                )


def _check_names(network: CompiledNetwork, other: CompiledNetwork) -> None:
    """Kafka refuses the second of two topics whose names its metrics could not tell apart."""
    pairs = ((network.name, other.name), (network.input.name, other.input.name))
    for what, (one, two) in zip(("network", "input"), pairs, strict=True):
        if one != two and is_same_topic(one, two):
            raise DeployError(
                f"{what} {one} and {what} {two}, which is deployed, differ only in . and _, which"
                " Kafka takes for one in the name of a topic: give it another name"
            )


def _check_beside(network: CompiledNetwork, others: Iterable[CompiledNetwork]) -> None:
    """Networks on one input share its declaration; operators keep their first cut."""
    for other in others:
        _check_names(network, other)
        if other.input.name == network.input.name and other.input != network.input:
            raise DeployError(
                f"network {network.name} declares input {network.input.name} otherwise than"
                f" {other.name} does: give it the same declaration (windows up to"
                f" {other.input.longest_window} steps), or another input name"
            )
        for operator in set(network.groups) & set(other.groups):
            if network.groups[operator] != other.groups[operator]:
                raise DeployError(
                    f"operator {operator} is deployed with {len(other.groups[operator])} synapse"
                    f" groups for {other.name}: compile {network.name} with the same cut"
                )
