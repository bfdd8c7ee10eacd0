"""A worker process: its leases, its tasks, its producer, and the faults that hold it up."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loadtest.simulation.host import Host, short
from loadtest.simulation.producer import Producer
from router.store.calls import Claimed, TaskId
from workers.leases import Granted, LeaseBook, LeaseCall, Lost, Regained, Suspicious, Wanted
from workers.snapshot import NEWEST
from workers.tenancy import stored_of, tenancy_of

if TYPE_CHECKING:
    from loadtest.simulation.world import World

__all__ = ["Worker"]

_TICK_MS = 30
_SUSPECT_AFTER = 2
"""Owners in a row that died with one window in hand, as in `workers/host.py` (28)."""


class Worker:
    """`paused_until`: stopped and continued. `cut_off_until`: from the broker, `astray_until`:
    from the store. Its clock runs at `rate` thousandths of the world's."""

    def __init__(self, world: "World", name: str, rate: int, alone: TaskId | None) -> None:
        self.world = world
        self.name = name
        self.is_alive = True
        self.paused_until = 0
        self.cut_off_until = 0
        self.astray_until = 0
        self.hosts: dict[TaskId, Host] = {}
        self.producer = Producer(self)
        self._rate = rate
        self._is_ticking = True
        self.book = LeaseBook(
            name, range(world.plan.n_partitions), world.plan.ttl_ms,
            kinds=("ingest", "synaptic"), new_token=world.new_token, alone=alone,
            format_version=NEWEST,
        )  # fmt: skip
        world.note(f"{name} starts{f' alone for {short(alone)}' if alone else ''}")
        self._tick()

    def defers(self, action: Callable[..., None], *args: Any) -> bool:
        """Whether the worker cannot act now: dead, or paused, then it acts later."""
        if not self.is_alive:
            return True
        if self.paused_until > self.world.clock.now:
            self.world.clock.after(self.paused_until - self.world.clock.now, action, *args)
            return True
        return False

    @property
    def is_held_up(self) -> bool:
        now = self.world.clock.now
        return self.paused_until > now or self.cut_off_until > now or self.astray_until > now

    def is_sure_of(self, host: Host) -> bool:
        """Whether the host runs under the lease that is known here."""
        task = host.task
        return task in self.book.tasks and self.book.token(task) == host.tenancy.token

    # ---- leases -------------------------------------------------------------------------------

    def _now(self) -> int:
        return self.world.clock.now * self._rate // 1000

    def _tick(self) -> None:
        if self.defers(self._tick):
            return
        self.ask()
        self._is_ticking = not self.world.rest.may_sleep()
        if self._is_ticking:
            self.world.clock.after(_TICK_MS, self._tick)

    def rouse(self) -> None:
        """Something may be free to be claimed."""
        if not self._is_ticking:
            self._is_ticking = True
            self.world.clock.after(1, self._tick)

    def ask(self) -> None:
        clock = self.world.clock
        for call in self.book.due(self._now()):
            clock.after(1 + clock.draw(2), self._execute, call)
        if self.book.is_over:
            self.world.note(f"{self.name} has left")
            self.is_alive = False
            for host in list(self.hosts.values()):  # of leases that it lost before
                host.drop()

    def _execute(self, call: LeaseCall) -> None:
        """The store runs a call, whatever became of the caller meanwhile."""
        world = self.world
        store = world.store_of(self)
        if store is None:
            world.clock.after(3, self._failed, call)
            return
        reply = store.run(call.call)
        if world.strikes("lost reply"):
            world.note(f"the reply to {call.verb} of {self.name} is lost")
            world.clock.after(5, self._failed, call)
        else:
            world.clock.after(world.clock.draw(2), self._replied, call, reply)

    def _failed(self, call: LeaseCall) -> None:
        if not self.defers(self._failed, call):
            self.book.failed(call, self._now())

    def _replied(self, call: LeaseCall, reply: Any) -> None:
        if self.defers(self._replied, call, reply):
            return
        events = self.book.replied(call, reply, self._now())
        for event in events:
            if isinstance(event, Granted):
                self.world.clock.after(self.world.clock.draw(3), self._load, event.claimed)
            elif isinstance(event, Regained):
                self._regained(event)
            elif isinstance(event, Lost):
                self.world.note(f"{self.name} lost {short(event.task)}")
                self._drop(event.task)
            elif isinstance(event, Wanted):
                self._give_if_caught_up(event.task)
            elif isinstance(event, Suspicious):
                self.world.start_worker(event.task)
        if events or call.verb != "renew":
            self.ask()

    def _regained(self, event: Regained) -> None:
        host = self.hosts.get(event.task)
        if host is not None:
            self.world.note(f"{self.name} regained {host}")
            host.tenancy.regained(event.token)
            host.wake(1)

    def _drop(self, task: TaskId) -> None:
        if task in self.hosts:
            self.hosts[task].drop()

    def _give_if_caught_up(self, task: TaskId) -> None:
        """Who is still catching up would make the task wait twice."""
        if task in self.hosts and self.hosts[task].tenancy.is_caught_up():
            self.hosts[task].give()

    # ---- taking a task over -------------------------------------------------------------------

    def _load(self, claimed: Claimed) -> None:
        if self.defers(self._load, claimed):
            return
        world, task = self.world, claimed.task
        if task not in self.book.tasks or self.book.token(task) != claimed.token:
            return
        if not world.deployment.has(task):
            self.book.drop(task)
            return
        store = world.store_of(self)
        if store is None:
            world.clock.after(5, self._load, claimed)
            return
        stored = stored_of(store.load(task))
        tenant = world.deployment.tenant(claimed, stored)
        if claimed.hand_count >= _SUSPECT_AFTER:
            field, _, window = claimed.hand_last.rpartition("#")
            tenant.accuse(field, f"PoisonBatch: window {window} ended two workers")
        tenancy = tenancy_of(task, claimed.token, tenant, stored)
        host = self.hosts[task] = Host(self, claimed, tenant, tenancy)
        world.note(f"{self.name} takes {host}, checkpoint {tenancy.number}")
        world.n_recoveries += claimed.claims > 1
        host.position()

    # ---- its end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """Hand everything over, then leave."""
        self.world.note(f"{self.name} is asked to stop")
        self.book.stop()
        for task in self.book.tasks:
            if task in self.hosts:
                self.hosts[task].give()
            else:
                self.book.release(task)
        self.ask()

    def crash(self) -> None:
        if not self.is_alive:
            return
        self.world.note(f"{self.name} dies")
        self.is_alive = False
        self.producer.die()
        for host in list(self.hosts.values()):
            self.world.faults.died(host)
            host.drop()
        self.world.clock.after(1 + self.world.clock.draw(60), self.world.start_worker)
