"""What is deployed: task records, routes, and the tenants that run them."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import Layout, layout
from router.records import Route, encode_record
from router.seals import KEY_BYTES, Keyring, Signed
from router.store.calls import Claimed, TaskId, TaskSpec
from router.topics import in_topic
from workers import ingest, task
from workers.eras import Fresh
from workers.snapshot import Stored
from workers.spec import IngestSpec
from workers.spec import TaskSpec as WorkSpec
from workers.tenant import Limits, Tenant

if TYPE_CHECKING:
    from loadtest.simulation.world import World

__all__ = ["DEADLINE_MS", "Deployment"]

DEADLINE_MS = 3000
"""After this long without a result, ingest kills a stream (17)."""


class Deployment:
    """`names` are the networks that are deployed now."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._plan = world.plan
        self._layout: Layout = layout(world.plan.shape, (), world.plan.n_partitions, ())
        self.names: tuple[str, ...] = ()
        self.keys: dict[int, bytes] = {}  # of seals, as the store has them
        self.every_key = Keyring()  # that there ever was

    def tasks(self) -> Iterator[TaskId]:
        for unit in self._layout.units:
            for partition in range(self._plan.n_partitions):
                yield TaskId(unit.operator, unit.group, partition)

    @property
    def n_tasks(self) -> int:
        return len(self._layout.units) * self._plan.n_partitions

    def has(self, of: TaskId) -> bool:
        return (of.operator, of.group, of.partition) in self._layout.specs

    def spec(self, of: TaskId) -> WorkSpec | IngestSpec:
        return self._layout.specs[of.operator, of.group, of.partition]

    def specs(self) -> Iterator[tuple[TaskId, WorkSpec | IngestSpec]]:
        for of in self.tasks():
            yield of, self.spec(of)

    def ingests(self) -> Iterator[tuple[TaskId, IngestSpec]]:
        for of, spec in self.specs():
            if isinstance(spec, IngestSpec):
                yield of, spec

    # ---- deploying and removing ---------------------------------------------------------------

    def deploy(self, names: tuple[str, ...]) -> None:
        """Task records first, ROUTE last (5, 27)."""
        self._world.note(f"deploy {names}")
        is_first = not self.names
        self._settle(names, ())
        self.create_tasks(0)
        self._route(names)
        if not is_first:
            self._tell()

    def remove(self, name: str, force: bool) -> None:
        """ROUTE first; what is left of the network goes when its streams are drained (31)."""
        self._world.note(f"no stream may join {name} any more{', all must leave' if force else ''}")
        ends = (name,) if force else ()
        self._world.checker.forced |= {*ends}
        self._route(self._without(name), ends)
        self._drain(name, ends)

    def _without(self, name: str) -> tuple[str, ...]:
        return tuple(n for n in self.names if n != name)

    def _drain(self, name: str, ends: tuple[str, ...]) -> None:
        world = self._world
        is_read = world.rest.has_read_inputs()
        if is_lost := is_read and world.rest.is_routed_to(name):  # ingest never read that ROUTE
            self._route(self._without(name), ends)
        if world.checker.open_in(name) or is_lost or not is_read:
            world.clock.after(20, self._drain, name, ends)
            return
        world.note(f"remove {name}")
        before = set(self.tasks())
        self._settle(self._without(name), (name,))
        for of in sorted(before.difference(self.tasks()), key=str):
            self._remove_task(of)
        self._tell()

    def _remove_task(self, of: TaskId) -> None:
        world = self._world
        if world.outage_until > world.clock.now:
            world.clock.after(10, self._remove_task, of)
            return
        world.store.remove_task(of)
        for worker in world.workers:
            worker.book.drop(of)
            if of in worker.hosts:
                worker.hosts[of].drop()

    def _settle(self, names: tuple[str, ...], removed: tuple[str, ...]) -> None:
        self.names = names
        self._layout = layout(self._plan.shape, names, self._plan.n_partitions, removed)

    def begin_key(self) -> None:
        """What is sealed with it was said after all before (35)."""
        by = max((self._world.clock.now << 8, *(known + 1 for known in self.every_key.keys)))
        key = hashlib.blake2b(f"{self._plan.seed} {by}".encode(), digest_size=KEY_BYTES).digest()
        self.keys[by] = key
        self.every_key.learn({by: key})

    def lose_keys(self) -> None:
        """Keys that the store has lost come back with who knows them (27). One that nobody knows is
        kept: whatever it has sealed would be no record of the system any more."""
        for by in self._known():
            self.keys.pop(by, None)

    def keep_keys(self) -> None:
        """The same, when whoever knew them may be gone since."""
        known = self._known()
        self.keys.update({by: k for by, k in self.every_key.keys.items() if by not in known})

    def _known(self) -> set[int]:
        """The keys that somebody knows who can tell the store, and stays to do so."""
        alive = [w for w in self._world.workers if w.is_alive and not w.is_held_up]
        here = [w for w in alive if not w.book.is_stopping]
        return {by for worker in here for by in worker.keys.keys}

    def _route(self, names: tuple[str, ...], ends: tuple[str, ...] = ()) -> None:
        self.begin_key()
        shape, keys = self._plan.shape, Keyring(self.keys)
        for name in shape.inputs:
            mine = tuple(n for n in names if shape.networks[n].input.name == name)
            for partition in range(self._plan.n_partitions):
                value = encode_record(Route(mine, ends, self._plan.tuning.max_streams))
                seal = keys.seal(Signed(in_topic(name), partition, None, value))
                self._world.broker.append(in_topic(name), None, partition, value, seal)

    def _tell(self) -> None:
        """Workers look up sooner or later which networks there are."""
        for worker in self._world.workers:
            for host in worker.hosts.values():
                self._world.clock.after(self._world.clock.draw(60), host.learn)

    def create_tasks(self, settle_ms: int) -> None:
        for unit in self._layout.units:
            kind = "ingest" if unit.is_ingest else "synaptic"
            for partition in range(self._plan.n_partitions):
                of = TaskId(unit.operator, unit.group, partition)
                self._world.store.create_task(TaskSpec(of, kind, 1), settle_ms=settle_ms)

    def mend(self) -> None:
        """Workers write anew what is damaged of the records of tasks that they know of."""
        world = self._world
        if world.clock.now < world.outage_until:
            world.clock.after(world.outage_until - world.clock.now, self.mend)
            return
        for unit in self._layout.units:
            kind = "ingest" if unit.is_ingest else "synaptic"
            for partition in range(self._plan.n_partitions):
                of = TaskId(unit.operator, unit.group, partition)
                world.store.mend_task(TaskSpec(of, kind, 1), settle_ms=self._plan.ttl_ms)

    def again(self) -> None:
        """After a failover the operator of the system deploys again: tasks may be forgotten."""
        world = self._world
        if world.clock.now < world.outage_until:
            world.clock.after(world.outage_until - world.clock.now, self.again)
        else:
            self.begin_key()
            self.create_tasks(self._plan.ttl_ms)

    # ---- tenants ------------------------------------------------------------------------------

    def tenant(self, claimed: Claimed, stored: Stored | None, keys: Keyring) -> Tenant:
        of = claimed.task
        spec = self.spec(of)
        if isinstance(spec, IngestSpec):
            log = self._world.broker.log(spec.in_topic, of.partition)
            era = (self._world.clock.now << 20) + self._world.clock.draw(1 << 20)
            fresh = Fresh(era, log.start, log.end)
            return ingest.Ingest(spec, FakeEncode(), self._limits(claimed), fresh, stored, keys)
        unit = self._layout.unit(of.operator, of.group)
        compute = FakeCompute(spec, unit.is_readout, unit.every, self._plan.poisoned)
        return task.Task(spec, compute, self._limits(claimed), stored, keys)

    def _limits(self, claimed: Claimed) -> Limits:
        tuning = self._plan.tuning
        return Limits(
            max_batch=1 if claimed.one_by_one else tuning.max_batch,
            most_ahead=0 if claimed.one_by_one else tuning.most_ahead,
            stream_windows=tuning.stream_windows, flight_bytes=tuning.flight_bytes,
            uncommitted_bytes=tuning.uncommitted_bytes, deadline_s=DEADLINE_MS / 1000,
            frame_bytes=tuning.frame_bytes, max_streams=tuning.max_streams,
            stream_idle_s=None if tuning.idle_ms is None else tuning.idle_ms / 1000,
            over_s=tuning.over_ms / 1000,
        )  # fmt: skip
