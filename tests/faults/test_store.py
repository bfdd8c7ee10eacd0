"""A store that cannot write is away for a while, not broken."""

import pytest

from loadtest.faults.nemeses import full_disk
from router.redis_server import RedisServer
from router.store.calls import TaskId, TaskSpec
from router.store.errors import StoreUnavailable
from router.store.redis import RedisStore

pytestmark = pytest.mark.serial


async def test_a_full_disk_is_told_as_an_outage_that_passes() -> None:
    spec = TaskSpec(TaskId("a", 0, 0), "synaptic", 1)
    async with RedisServer() as server, RedisStore.connect(server.url) as store:
        await store.put_manifest("before", b"x")
        async with full_disk(server):
            with pytest.raises(StoreUnavailable, match="Check its disk"):
                await _write_until_it_fails(store)
            with pytest.raises(StoreUnavailable, match="Check its disk"):
                await store.create_task(spec, settle_ms=0)
        assert await store.create_task(spec, settle_ms=0)
        assert "before" in await store.list_networks()


async def _write_until_it_fails(store: RedisStore) -> None:
    """The server notices that its log cannot be written with its next write."""
    while True:
        await store.put_manifest("meanwhile", b"x")
