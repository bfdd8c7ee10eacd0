"""A topic that was deleted and made again is told by name: nothing goes on in another history."""

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from loadtest.faults.contents import DIGITS, EVENTS, SECOND, Contents
from router.admin import create_topics
from router.client import StreamFailed
from router.settings import Settings
from router.status import TaskRow
from router.topics import spikes_topic
from tests.faults.served import Served, serving

pytestmark = [pytest.mark.faults, pytest.mark.servers, pytest.mark.serial]

_DEADLINE_S = 5.0
_STEP_S = 30.0


async def _replace(served: Served, topic: str) -> None:
    settings = served.world.settings
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        while topic in await admin.list_topics():
            await asyncio.sleep(0.1)
    finally:
        await admin.close()
    await create_topics(settings, [topic], settings.partitions)


async def _failed(served: Served, n: int) -> list[TaskRow]:
    """Wait until so many tasks have failed."""
    while True:
        rows = [row for row in (await served.world.stack.status()).tasks if row.error]
        if len(rows) >= n:
            return rows
        await asyncio.sleep(0.1)


@pytest.mark.timeout(300)
async def test_tasks_of_a_topic_that_was_made_anew_fail_by_name_and_their_streams_end_by_deadline(
    contents: Contents,
) -> None:
    settings = Settings.load(
        partitions=1, progress_deadline_s=_DEADLINE_S, replication=1, log_level="WARNING"
    )
    network, other = contents.networks[DIGITS], contents.walks[-1]
    topic = spikes_topic(network.nodes[network.input.node].operator)
    async with serving(contents, settings, n_workers=2, gateway=False, apache=True) as served:
        await served.send("open", contents.walks[0], 0, 5)
        await served.send("elsewhere", other, 0, 5)
        async with asyncio.timeout(_STEP_S):
            for name, through in (("open", DIGITS), ("open", SECOND), ("elsewhere", EVENTS)):
                await served.until_emitted(name, through, 4)
        async with asyncio.timeout(_STEP_S):
            await _replace(served, topic)
        async with asyncio.timeout(_STEP_S):
            failed = await _failed(served, 2)  # both heads read these spikes
        assert all(f"topic {topic}" in row.error for row in failed)
        assert all("the log was replaced. Deploy" in row.error for row in failed)
        assert not (await served.world.stack.status()).ready
        await served.send("open", contents.walks[0], 5, 6)
        with pytest.raises(StreamFailed, match="DeadlineMissed: window 5 of stream open"):
            await served.answer("open", DIGITS)
        await served.send("elsewhere", other, 5, len(other.samples))
        expected = contents.expected[other.name][EVENTS]
        assert await served.answer("elsewhere", EVENTS) == expected
