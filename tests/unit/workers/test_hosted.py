"""The loops of one task leave the others their turn."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from router.bus import Bus
from router.settings import Settings
from router.store.calls import Claimed, TaskId
from router.store.redis import RedisStore
from workers.hosted import Hosted
from workers.reading import Reading
from workers.tenant import Tenant


class _Scanning:
    """A tenant that has read much and has nothing to commit yet, as an ingest without an era."""

    topics = ("snn.in.x",)
    replaying = False
    n_waiting = 0

    def __init__(self) -> None:
        self.reading = Reading(self.topics)
        self.reading.n_bytes = 10**9
        self.counts: Counter[str] = Counter()
        self.ticks = 0

    def tick(self, now: float) -> None:
        self.ticks += 1

    def work(self) -> None:
        return None

    def take_outputs(self) -> list[Any]:
        return []

    def take_seeks(self) -> dict[str, int]:
        return {}

    def snapshot(self, full: bool) -> None:
        return None


@pytest.mark.timeout(30)
@pytest.mark.parametrize("stopping", [False, True])
async def test_a_task_that_has_nothing_to_commit_does_not_stop_the_worker(stopping: bool) -> None:
    tenant = _Scanning()
    claim = Claimed(TaskId("a", 0, 0), "token", "ingest", 1, 1, 0, "", 0, "", 0)
    with ThreadPoolExecutor(1) as pool:
        hosted = Hosted(
            Settings.load(), claim, cast(Tenant, tenant), cast(Bus, None), cast(RedisStore, None),
            pool, None,
        )  # fmt: skip
        hosted._stopping = stopping
        running = asyncio.create_task(hosted.run())
        while tenant.ticks < 2:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
