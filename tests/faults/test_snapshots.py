"""Snapshots that cannot be read: the one before is taken, else the stream ends with an error."""

from collections.abc import AsyncIterator, Mapping

import pytest
from redis.asyncio import Redis

from loadtest.faults.contents import DIGITS, Contents
from loadtest.faults.releases import seal_next
from loadtest.recovery import middle_operator
from router.client import StreamFailed
from router.settings import Settings
from router.store.calls import TaskId
from tests.faults.served import Served, serving

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_TTL_MS = 2500  # time enough to damage what a dead owner left, before another one reads it
_SENT = 12


@pytest.fixture
async def served(contents: Contents) -> AsyncIterator[Served]:
    """Two workers whose leases are long."""
    settings = Settings.load(partitions=1, lease_ttl_ms=_TTL_MS, log_level="WARNING")
    async with serving(contents, settings, n_workers=2, gateway=False) as running:
        yield running


async def _kill_owner_of(served: Served, task: TaskId) -> None:
    rows = (await served.world.stack.status()).tasks
    owner = next(row.worker for row in rows if row.task == str(task))
    served.world.stack.kill_worker(owner, restart=False)


async def _blobs(client: Redis, task: TaskId) -> list[list[str]]:
    """The keys of the current and the previous blob of each open stream of a task."""
    streams = await client.hgetall(f"snn:{{p0}}:streams:{task}")
    return [str(reference).split("|")[1:] for reference in streams.values()]


async def _damage(served: Served, data: bytes, *, both: bool) -> None:
    """A stream is under way, its middle operator's owner dies, its snapshot is overwritten."""
    content = served.contents.walks[0]
    task = TaskId(middle_operator(served.contents.networks[DIGITS]), 0, 0)
    async with Redis.from_url(served.world.settings.redis, decode_responses=True) as client:
        for i in range(_SENT):
            await served.send("hurt", content, i, i + 1)
            await served.until_emitted("hurt", DIGITS, i)
        while not all(previous for _, previous in await _blobs(client, task)):
            pass
        await _kill_owner_of(served, task)
        (keys,) = await _blobs(client, task)
        for key in keys[: 1 + both]:
            assert await client.set(key, data, xx=True, keepttl=True)


@pytest.mark.parametrize("data", [b"damaged", seal_next([1, 2, 3])], ids=["torn", "foreign"])
async def test_an_unreadable_snapshot_falls_back_to_the_one_before_without_another_bit(
    served: Served, data: bytes
) -> None:
    content = served.contents.walks[0]
    await _damage(served, data, both=False)
    await served.send("hurt", content, _SENT, len(content.samples))
    assert await served.answer("hurt", DIGITS) == served.contents.expected[content.name][DIGITS]
    counts: Mapping[str, int] = {}
    while not counts.get("snapshot_fallbacks_total"):  # workers tell of it a little later
        counts = (await served.world.stack.status()).counts
    assert counts["snapshots_corrupt_total"] == counts["snapshot_fallbacks_total"] == 1


async def test_a_stream_without_a_readable_snapshot_ends_by_name_and_its_neighbour_goes_on(
    served: Served,
) -> None:
    content, other = served.contents.walks[0], served.contents.walks[-1]
    await served.send("neighbour", other, 0, 5)
    await _damage(served, b"damaged", both=True)
    with pytest.raises(StreamFailed, match="SnapshotCorrupt: stream 0 at node"):
        await served.answer("hurt", DIGITS)
    await served.send("neighbour", other, 5, len(other.samples))
    network = other.networks[0]
    assert (
        await served.answer("neighbour", network) == (served.contents.expected[other.name][network])
    )
    await served.send("after", content, 0, len(content.samples))
    assert await served.answer("after", DIGITS) == served.contents.expected[content.name][DIGITS]
