"""A worker process: its leases, its tasks, its producer, and the faults that hold it up."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loadtest.simulation.host import Host, short
from loadtest.simulation.producer import Producer
from router.seals import Keyring
from router.store.calls import Claimed, TaskId
from workers.hand import accused
from workers.leases import Granted, LeaseBook, LeaseCall, Lost, Regained, Suspicious, Wanted
from workers.snapshot import NEWEST
from workers.tenancy import stored_of, tenancy_of

if TYPE_CHECKING:
    from loadtest.simulation.world import World

__all__ = ["Worker"]

_TICK_MS = 30
_MOST_CHILDREN = 2
"""Processes for suspicious tasks that a worker has at once, as in `workers/host.py`."""


class Worker:
    """`paused_until`: stopped and continued. `cut_off_until`: from the broker, `astray_until`:
    from the store. Its clock runs at `rate` thousandths of the world's."""

    def __init__(
        self, world: "World", name: str, rate: int, alone: TaskId | None, parent: "Worker | None"
    ) -> None:
        self.world = world
        self.name = name
        self.alone = alone
        self._parent = parent
        self._children: dict[TaskId, Worker | None] = {}  # None: it waits for its turn
        self.is_alive = True
        self.paused_until = 0
        self.cut_off_until = 0
        self.astray_until = 0
        self.hosts: dict[TaskId, Host] = {}
        self.producer = Producer(self)
        self.keys = Keyring()
        self._settled_at = 0
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
            self._is_over()

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
                self._isolate(event.task)
        if events or call.verb != "renew":
            self.ask()

    def _regained(self, event: Regained) -> None:
        host = self.hosts.get(event.task)
        if host is not None:
            self.world.note(f"{self.name} regained {host}")
            self.learn_keys()
            host.tenancy.regained(event.token)
            host.wake(1)

    def _give_keys_back(self) -> None:
        """The store may have lost them a moment ago, and be away still."""
        if not self.defers(self._give_keys_back) and not self.learn_keys():
            self.world.clock.after(5, self._give_keys_back)

    def learn_keys(self) -> bool:
        """Take over the keys that the store has, and give it those that it lost; False while it is
        away, or may not have got back all that it lost."""
        world, stored = self.world, self.world.deployment.keys
        if world.store_of(self) is None:
            return False
        if not self.keys.keys.keys() <= stored.keys():
            self._settled_at = world.clock.now + world.plan.ttl_ms
        stored.update(self.keys.keys)
        self.keys.learn(stored)
        return world.clock.now >= self._settled_at

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
        world.deployment.keep_keys()
        self.learn_keys()
        tenant = world.deployment.tenant(claimed, stored, self.keys)
        field, error = accused(claimed)
        if field:
            tenant.accuse(field, error)
        tenancy = tenancy_of(task, claimed.token, tenant, stored)
        host = self.hosts[task] = Host(self, claimed, tenant, tenancy)
        world.note(f"{self.name} takes {host}, checkpoint {tenancy.number}")
        world.n_recoveries += claimed.claims > 1
        host.position()

    # ---- suspicious tasks ---------------------------------------------------------------------

    def _isolate(self, task: TaskId) -> None:
        """Start a process for the task, now or when another one has ended."""
        if task not in self._children:
            self._children[task] = None
            self._start_children()

    def _start_children(self) -> None:
        for task, child in self._children.items():
            if sum(c is not None for c in self._children.values()) >= _MOST_CHILDREN:
                return
            if child is None:
                self._children[task] = self.world.start_worker(task, self)

    def _is_over(self) -> None:
        """This process has ended: its parent has a place again, and its children end with it."""
        children, self._children = self._children, {}
        for child in children.values():
            if child is not None:
                child.crash()
        if self._parent is not None and self.alone is not None:
            self._parent._children.pop(self.alone, None)
            self._parent._start_children()

    def leave_if_settled(self, host: Host) -> None:
        """One that runs alone gives its task back when the suspicion is over (28)."""
        if self.alone is not None and host.tenancy.n_commits and not self.book.is_stopping:
            self.stop()

    # ---- its end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """Hand everything over, then leave."""
        self.world.note(f"{self.name} is asked to stop")
        self._give_keys_back()
        self._children = {t: c for t, c in self._children.items() if c is not None}
        for child in self._children.values():
            if child is not None and not child.book.is_stopping:
                child.stop()
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
        self._is_over()
        if self.alone is None:
            self.world.clock.after(1 + self.world.clock.draw(60), self.world.start_worker)
