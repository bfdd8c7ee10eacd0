"""What the store tells commands: which networks are deployed, on how many partitions."""

from typing import NamedTuple

from router.deploy import load_networks
from router.settings import Settings
from router.store.calls import TaskId
from router.store.redis import RedisStore
from topologies.compiled import CompiledNetwork
from topologies.errors import SpikeRouterError

__all__ = ["Deployment", "NotDeployed", "deployed_networks", "find_network"]


class NotDeployed(SpikeRouterError, LookupError):
    """No network of this name is deployed."""


class Deployment(NamedTuple):
    """A deployed network, without weights."""

    network: CompiledNetwork
    ingest: tuple[TaskId, ...]
    """The tasks that read its input, by partition."""

    @property
    def n_partitions(self) -> int:
        """The number of partitions on which it has tasks."""
        return len(self.ingest)


async def deployed_networks(settings: Settings) -> dict[str, CompiledNetwork]:
    """All deployed networks by name. Raises StoreUnavailable."""
    async with _store(settings) as store:
        return await load_networks(store)


async def find_network(settings: Settings, name: str) -> Deployment:
    """The network and the tasks of its input. Raises NotDeployed and StoreUnavailable."""
    async with _store(settings) as store:
        networks = await load_networks(store)
        if name not in networks:
            legal = ", ".join(sorted(networks)) or "none: start with `spikerouter up NETWORK`"
            raise NotDeployed(f"No network {name!r} is deployed; deployed are: {legal}.")
        network = networks[name]
        ingest = network.nodes[network.input.node].operator
        found: list[TaskId] = []
        while tasks := [
            status.task
            for status in (await store.status(len(found))).tasks
            if status.task.operator == ingest
        ]:
            found.append(max(tasks, key=lambda task: task.generation))
        return Deployment(network, tuple(found))


def _store(settings: Settings) -> RedisStore:
    return RedisStore.of(settings)
