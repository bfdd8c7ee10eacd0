"""The loops of one task leave the others their turn."""

import asyncio
from collections import Counter
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from router.bus import Bus
from router.settings import Settings
from router.store.calls import Claimed, TaskId
from router.store.errors import StoreUnavailable
from router.store.redis import RedisStore
from workers.host import Host
from workers.hosted import Hosted
from workers.kernel import check_subnormals
from workers.pool import FairPool
from workers.reading import Reading, Record
from workers.tenant import Tenant


class _Scanning:
    """A tenant that has read much and has nothing to commit yet, as an ingest without an era."""

    topics = ("snn.in.x",)
    replaying = False
    found_damage = False
    n_waiting = 0

    def __init__(self) -> None:
        self.reading = Reading(self.topics)
        self.reading.n_bytes = 10**9
        self.counts: Counter[str] = Counter()
        self.ticks = 0
        self.is_crowded = False

    def tick(self, now: float) -> None:
        self.ticks += 1

    def work(self) -> None:
        return None

    def take_outputs(self) -> list[Any]:
        return []

    def take_seeks(self) -> dict[str, int]:
        return {}

    def snapshot(self, full: bool, anyhow: bool = False) -> None:
        return None


def _hosted(claim: Claimed, tenant: Any, pool: FairPool, store: Any = None) -> Hosted:
    nothing = cast(Bus, None)
    return Hosted(
        Settings.load(), claim, cast(Tenant, tenant), nothing, cast(RedisStore, store), pool, None
    )


@pytest.mark.timeout(30)
@pytest.mark.parametrize("stopping", [False, True])
async def test_a_task_that_has_nothing_to_commit_does_not_stop_the_worker(stopping: bool) -> None:
    tenant = _Scanning()
    claim = Claimed(TaskId("a", 0, 0), "token", "ingest", 1, 1, 0, "", 0, "", 0)
    with closing(FairPool(1, check_subnormals)) as pool:
        hosted = _hosted(claim, tenant, pool)
        hosted._stopping = stopping
        running = asyncio.create_task(hosted.run())
        while tenant.ticks < 2:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])


class _Stepping(_Scanning):
    """A tenant with two steps to do."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: list[str] = []

    def work(self) -> Any:
        left = ("n/1/0#0", "n/1/0#1")[len(self.applied) :]
        return SimpleNamespace(hand=left[0], shares=Counter("n")) if left else None

    def compute(self, work: Any) -> str:
        return str(work.hand)

    def apply(self, work: Any, result: str) -> None:
        self.applied.append(result)


class _AwayAtFirst:
    """A store that does not answer the first call."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self._is_away = True

    async def hand(self, task: TaskId, token: str, hand: str) -> bool:
        if self._is_away:
            self._is_away = False
            raise StoreUnavailable("The store did not answer.")
        self.shown.append(hand)
        return True


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("hand_last", "shown"), [("", ["*"]), ("*", ["n/1/0#0", "n/1/0#1"])], ids=["first", "second"]
)
async def test_a_suspicious_owner_steps_nothing_before_the_store_knows_what(
    hand_last: str, shown: list[str]
) -> None:
    tenant, store = _Stepping(), _AwayAtFirst()
    claim = Claimed(TaskId("a", 0, 0), "token", "synaptic", 1, 3, 0, hand_last, 0, "w", 0)
    with closing(FairPool(1, check_subnormals)) as pool:
        hosted = _hosted(claim, tenant, pool, store)
        running = asyncio.create_task(hosted.run())
        while len(tenant.applied) < 2:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
    assert store.shown == shown


@pytest.mark.timeout(30)
@pytest.mark.parametrize("landed", [True, False])
async def test_windows_that_gather_go_when_a_result_comes_or_none_does(landed: bool) -> None:
    tenant = _Stepping()
    claim = Claimed(TaskId("a", 0, 0), "token", "ingest", 1, 1, 0, "", 0, "", 0)
    with closing(FairPool(1, check_subnormals)) as pool:
        hosted = _hosted(claim, tenant, pool)
        hosted._gather_until = asyncio.get_running_loop().time() + (3600 if landed else 0.05)
        tenant.is_crowded = True
        running = asyncio.create_task(hosted.run())
        while tenant.ticks < 1 or hosted._wake.is_set():
            await asyncio.sleep(0)
        assert not tenant.applied
        if landed:
            tenant.is_crowded = False
            hosted.wake()
        while len(tenant.applied) < 1:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.timeout(30)
async def test_a_suspicious_owner_takes_no_record_in_before_the_store_knows_which() -> None:
    tenant, store = _Stepping(), _AwayAtFirst()
    claim = Claimed(TaskId("a", 0, 0), "token", "synaptic", 1, 4, 0, "*", 1, "w", 0)
    records = [Record("snn.in.x", offset, 0, None, b"") for offset in range(17)]
    seen: list[tuple[list[str], int]] = []

    def receive(record: Record) -> bool:
        seen.append((list(store.shown), record.offset))
        return True

    with closing(FairPool(1, check_subnormals)) as pool:
        host = Host(Settings.load(), cast(RedisStore, None), cast(Bus, None))
        hosted = _hosted(claim, tenant, pool, store)
        vars(tenant)["receive"] = receive
        await host._deliver(hosted, records, None)
    first, second = "record:snn.in.x@0-15", "record:snn.in.x@16-16"
    assert seen == [([first], n) for n in range(16)] + [([first, second], 16)]
    assert store.shown == [first, second, ""]
