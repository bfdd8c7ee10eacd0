"""Who holds which task, and how tasks came back after a kill, from what the store knows."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from router.settings import Settings
from router.status import task_detail
from router.store.calls import StatusReply, TaskId, status
from router.store.redis import RedisStore
from topologies.compiled import CompiledNetwork
from topologies.errors import SpikeRouterError

__all__ = ["Observer", "Recovery", "Settled", "middle_operator"]

_PACE_S: Final = 0.1


class Settled(SpikeRouterError, RuntimeError):
    """Something that was waited for did not come about in time."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """One task that changed hands. Times are wall clock, in ms since the epoch."""

    task: TaskId
    worker: str
    previous: str
    idle_ms: float
    claimed: float
    restored: float
    caught_up: float
    windows_replayed: int

    @classmethod
    def parse(cls, worker: str, entry: Mapping[str, Any]) -> Self:
        """An entry of a worker's detail `recoveries`."""
        return cls(
            TaskId.parse(entry["task"]), worker, entry["previous"], float(entry["idle_ms"]),
            float(entry["claimed"]), float(entry["restored"]), float(entry["caught_up"]),
            int(entry["windows_replayed"]),
        )  # fmt: skip

    def phases(self, killed: float) -> dict[str, float]:
        """Milliseconds of each phase; `killed` is the wall clock of the kill, in ms.

        detect: until the lease was over; claim: until a worker had taken it; restore: operator and
        checkpoint loaded; replay: until all that lay in the logs at the claim was applied;
        caught_up: all of it.
        """
        return {
            "detect": self.claimed - self.idle_ms - killed,
            "claim": self.idle_ms,
            "restore": self.restored - self.claimed,
            "replay": self.caught_up - self.restored,
            "caught_up": self.caught_up - killed,
        }


class Observer:
    """Reads the store's status again and again; use it as `async with Observer(settings)`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = RedisStore.of(settings)
        self._task: asyncio.Task[None] | None = None
        self.recoveries: dict[tuple[TaskId, float], Recovery] = {}
        self._counts: dict[str, Counter[str]] = {}

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._store.close()

    @property
    def counts(self) -> Counter[str]:
        """What all workers have counted, as far as they told before they died."""
        total: Counter[str] = Counter()
        for mine in self._counts.values():
            total.update(mine)
        return total

    async def owners(self) -> dict[TaskId, str]:
        """The worker of each task; "" for one that is free."""
        return {
            task.task: task.worker if task.lease_ms > 0 else ""
            for reply in await self._replies()
            for task in reply.tasks
        }

    async def streams_held(self, task: TaskId) -> int:
        """How many streams a task has in hand, as its owner told last."""
        for reply in await self._replies():
            for worker in reply.workers:
                if worker.alive and (told := worker.info.details.get(task_detail(task, "streams"))):
                    return int(told)
        return 0

    async def settled(self, quiet_s: float = 0.8, timeout_s: float = 15.0) -> dict[TaskId, str]:
        """Wait until every task has an owner and none has moved for a while."""
        loop = asyncio.get_running_loop()
        last, since = await self.owners(), loop.time()

        async def is_quiet() -> bool:
            nonlocal last, since
            now = await self.owners()
            if now != last or not all(now.values()):
                last, since = now, loop.time()
            return bool(now) and loop.time() - since >= quiet_s

        await self.until(is_quiet, timeout_s, "the tasks to settle on their workers")
        return last

    async def recovered(
        self, tasks: Iterable[TaskId], after: float, timeout_s: float = 15.0
    ) -> dict[TaskId, Recovery]:
        """Wait until all these tasks have been taken over since `after` (wall clock, ms)."""
        wanted = set(tasks)
        found: dict[TaskId, Recovery] = {}

        async def are_all_back() -> bool:
            for recovery in sorted(self.recoveries.values(), key=lambda r: r.claimed):
                if recovery.claimed >= after and recovery.task in wanted:
                    found.setdefault(recovery.task, recovery)
            return len(found) == len(wanted)

        await self.until(are_all_back, timeout_s, "the lost tasks to be told of by new owners")
        return found

    async def until(
        self, condition: Callable[[], Awaitable[bool]], timeout_s: float, what: str
    ) -> None:
        """Ask again and again. Raises Settled when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await condition():
                    await asyncio.sleep(_PACE_S)
        except TimeoutError as error:
            raise Settled(f"Waited {timeout_s:g} s in vain for {what}.") from error

    async def _watch(self) -> None:
        while True:
            for reply in await self._replies():
                self._take(reply)
            await asyncio.sleep(_PACE_S)

    def _take(self, reply: StatusReply) -> None:
        for worker in reply.workers:
            details = worker.info.details
            for entry in json.loads(str(details.get("recoveries", "[]"))):
                recovery = Recovery.parse(worker.worker, entry)
                self.recoveries[recovery.task, recovery.claimed] = recovery
            counts = Counter(json.loads(str(details.get("counts", "{}"))))
            if counts.total() >= self._counts.get(worker.worker, Counter()).total():
                self._counts[worker.worker] = counts

    async def _replies(self) -> list[StatusReply]:
        return [await self._store.run(status(p)) for p in range(self._settings.partitions)]


def middle_operator(network: CompiledNetwork) -> str:
    """The operator in the middle of the network's synaptic ones."""
    inner = [
        node.operator
        for node in network.nodes.values()
        if network.summaries[node.operator].kind == "synaptic"
    ]
    return inner[len(inner) // 2]
