"""What a worker's host does with a poll: others have their turn, whatever it brought."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from router.bus import Bus, Place, Polled
from router.loops import Turn
from router.settings import Settings
from router.store.calls import Claimed, TaskId
from router.store.redis import RedisStore
from workers.host import Host
from workers.hosted import Hosted
from workers.reading import Record

TOPIC = "snn.in.x"
N_RECORDS = 1000


class _Tenant:
    """Takes in whatever comes."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def receive(self, record: Record) -> bool:
        self.taken.append(record.offset)
        return True

    def take_seeks(self) -> dict[str, int]:
        return {}


def _host(tenant: _Tenant) -> Host:
    """A host on which every stretch of work is too long; one task reads one topic."""
    host = Host(Settings.load(), cast(RedisStore, None), cast(Bus, None))
    claim = Claimed(TaskId("a", 0, 0), "token", "ingest", 1, 1, 0, "", 0, "", 0)
    hosted = SimpleNamespace(tenant=tenant, wake=lambda: None, claim=claim)
    host._readers = {Place(TOPIC, 0): [cast(Hosted, hosted)]}
    host._turn = Turn(0.0)
    return host


def _polled() -> Polled:
    def message(offset: int) -> Any:
        return SimpleNamespace(offset=offset, timestamp=0, key=None, value=b"", headers=())

    return Polled({Place(TOPIC, 0): [message(n) for n in range(N_RECORDS)]}, ())


@pytest.mark.timeout(30)
async def test_a_long_poll_leaves_the_leases_their_turns() -> None:
    tenant = _Tenant()
    dispatch = asyncio.create_task(_host(tenant)._dispatch(_polled()))
    seen = set()
    while not dispatch.done():
        await asyncio.sleep(0)
        seen.add(len(tenant.taken))
    assert tenant.taken == list(range(N_RECORDS))
    assert len(seen) > N_RECORDS // 20


@pytest.mark.timeout(30)
async def test_the_rest_of_a_poll_is_nobodys_once_tasks_have_come_or_gone() -> None:
    tenant = _Tenant()
    host = _host(tenant)
    dispatch = asyncio.create_task(host._dispatch(_polled()))
    while len(tenant.taken) < N_RECORDS // 2:
        await asyncio.sleep(0)
    host._assign()
    await dispatch
    assert tenant.taken == list(range(len(tenant.taken)))
    assert len(tenant.taken) < N_RECORDS
