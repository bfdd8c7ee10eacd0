"""A store that cannot write is away for a while; one that lost its data is written anew."""

import asyncio

import pytest

from loadtest.faults.contents import DIGITS
from loadtest.faults.history import History
from loadtest.faults.nemeses import full_disk
from loadtest.faults.watch import Tap
from router.redis_server import RedisServer
from router.settings import Settings
from router.store.calls import TaskId, TaskSpec
from router.store.errors import StoreUnavailable
from router.store.redis import RedisStore
from tests.faults.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.serial]


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


@pytest.mark.parametrize("wait_s", [0.0, 3.0])
async def test_owners_who_outlive_the_stores_data_write_it_anew_and_begin_nothing_anew(
    served: Served, wait_s: float
) -> None:
    content, world = served.contents.walks[0], served.world
    await served.send("open", content, 0, 20)
    await served.until_emitted("open", DIGITS, 19)
    world.redis.primary.kill()
    world.redis.primary.wipe()
    await world.redis.primary.start()
    await asyncio.sleep(wait_s)  # workers look at an empty store meanwhile
    await world.deploy()
    await served.send("open", content, 20, len(content.samples))
    assert await served.answer("open", DIGITS) == served.contents.expected[content.name][DIGITS]
    await world.stack.wait_ready()
    counts = (await world.stack.status()).counts
    # A task that began anew would send 20 windows again, to the next one or to the results.
    assert counts["duplicates_dropped_total"] + await _n_repeats(world.settings) < 20
    assert counts["windows_applied_total"] > 0


async def _n_repeats(settings: Settings) -> int:
    """Batches that lie in the results of the one stream more than once."""
    history = History(expected={})
    reading = asyncio.create_task(Tap(settings, [DIGITS], history).run())
    async with asyncio.timeout(30.0):
        while not any(wire.final for wire in history.wire):
            await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.wait([reading])
    return len(history.wire) - len({wire.window for wire in history.wire})
