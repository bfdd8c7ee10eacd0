"""When a world is at rest, and what nobody may hoard by then (7, 13)."""

from typing import TYPE_CHECKING, Any

from loadtest.simulation.host import Host, short
from router.store.calls import TaskId, prefix
from workers.ingest import Ingest
from workers.task import Task

if TYPE_CHECKING:
    from loadtest.simulation.world import World

__all__ = ["Rest"]


class Rest:
    def __init__(self, world: "World") -> None:
        self._world = world

    def may_sleep(self) -> bool:
        """Every task has one live owner, nobody is going, nothing is under way: lease calls would
        change nothing any more."""
        world = self._world
        if not world.is_calm or world.outage_until > world.clock.now:
            return False
        owned: set[TaskId] = set()
        for worker in world.workers:
            if not worker.is_alive:
                continue
            if worker.is_held_up or worker.book.is_stopping:
                return False
            for task, host in worker.hosts.items():
                if host.giving or not worker.is_sure_of(host) or task in owned:
                    return False
                owned.add(task)
        n_tasks = world.deployment.n_tasks
        # Somebody may hold a lease that is over, or that the store does not know of.
        return len(owned) == n_tasks == len(self._owners())

    def has_read_inputs(self) -> bool:
        """Whether every input is numbered, and read to its end by the owner of its ingest."""
        owners = self._owners()
        for task, spec in self._world.deployment.ingests():
            host = owners.get(task)
            log = self._world.broker.log(spec.in_topic, task.partition)
            if not self._world.inputs[spec.input.name, task.partition].era:
                return False
            if host is None or host.tenant.reading.offset(spec.in_topic) < log.end:
                return False
            if isinstance(host.tenant, Ingest) and host.tenant.routes is None:
                return False
        return True

    def is_routed_to(self, network: str) -> bool:
        """Whether an ingest has streams join the network now."""
        tenants = [host.tenant for host in self._owners().values()]
        return any(network in (t.routes or ()) for t in tenants if isinstance(t, Ingest))

    def unrest(self) -> str:
        """Why the world is not at rest, "" when it is."""
        world = self._world
        for worker in world.workers:
            if worker.is_alive and worker.is_held_up:
                return f"{worker.name} is held up"
        for worker in world.workers:
            for host in worker.hosts.values():
                why = host.unrest()
                if why:
                    return f"{host} {why}"
        owners, tasks = self._owners(), list(world.deployment.tasks())
        for task in tasks:
            if task not in owners:
                return f"{short(task)} has no owner"
        for task, fields in zip(tasks, self._stored(tasks), strict=True):
            why = self._hoard(owners[task], len(fields))
            if why:
                return f"{short(task)} {why}"
        return self._suspected()

    def _suspected(self) -> str:
        """A task that owners died with is trusted again once one of them has caught up (28)."""
        for partition in range(self._world.plan.n_partitions):
            for task in self._world.store.status(partition).tasks:
                if task.claims > 2 and not self._world.faults.store_forgot:
                    return f"{short(task.task)} is suspected after {task.claims} claims"
        return ""

    def _owners(self) -> dict[TaskId, Host]:
        """Who runs each task by the store's word: a zombie's host is not it."""
        hosts = [h for w in self._world.workers if w.is_alive for h in w.hosts.values()]
        ask = [("HGET", _key("task", host.task), "token") for host in hosts]
        tokens = self._world.store.commands(ask)
        return {
            host.task: host
            for host, token in zip(hosts, tokens, strict=True)
            if token == host.tenancy.token.encode()
        }

    def _hoard(self, host: Host, n_kept: int) -> str:
        """What it keeps of ended streams, here or (`n_kept`) in the store, beyond intervals."""
        partition, tenant = host.task.partition, host.tenant
        logs = [log for (_, p), log in self._world.inputs.items() if p == partition]
        streams = [s for log in logs for s in log.streams.values()]
        n_open = sum(not s.closed for s in streams)
        # A KILL that was refused with its record does not come again: tasks pass it on once (17).
        was_refused = "refused" in self._world.checker.excuses.get(partition, ())
        if tenant.n_streams > 2 * n_open and not was_refused:
            return f"remembers {tenant.n_streams} streams"
        is_ingest = isinstance(tenant, Ingest)
        is_exact = not (self._world.faults.store_forgot or was_refused)
        if is_exact and n_kept > 2 * n_open + is_ingest:
            return f"has {n_kept} streams in the store"
        if isinstance(tenant, Ingest):
            flight = tenant._flight
            if not n_open and (flight.n_bytes or flight.n_batches or tenant._queued):
                return "counts windows in flight that are not"
        elif isinstance(tenant, Task):
            for place in tenant._places.values():
                if len(place.ended) > len(streams):
                    return f"has {len(place.ended)} intervals"
        return ""

    def _stored(self, tasks: list[TaskId]) -> list[Any]:
        """The names of each task's streams in the store."""
        return self._world.store.commands([("HKEYS", _key("streams", task)) for task in tasks])


def _key(kind: str, task: TaskId) -> str:
    return f"{prefix(task.partition)}{kind}:{task}"
