"""A rolling upgrade to other wire and snapshot formats, and back, under load and amid faults."""

import asyncio
import os
import secrets
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from loadtest.faults import watch
from loadtest.faults.checkers import judge
from loadtest.faults.contents import Contents
from loadtest.faults.history import History
from loadtest.faults.hostile import Hostile
from loadtest.faults.nemeses import NEMESES
from loadtest.faults.releases import RELEASES, decode_either
from loadtest.faults.schedule import draw
from loadtest.faults.watch import Tap
from loadtest.faults.workload import Pace, Workload
from loadtest.faults.world import World
from router import client
from router.settings import Settings
from tests.faults.served import serving

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_STEPS = (*RELEASES, RELEASES[0], "")
"""Workers of this release are followed by ones that read both formats, by ones that write the new
formats too, and back again."""
_MEANWHILE = (
    "kill-worker", "pause-worker", "cut-broker", "hang-broker", "cut-store", "flush-scripts",
    "repeat-frames",
)  # fmt: skip
_SEED = int(os.environ.get("SEED", "2026"))


@pytest.fixture
def clients_read_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who read results are upgraded before those who write them."""
    monkeypatch.setattr(client, "decode_frame", decode_either)
    monkeypatch.setattr(watch, "decode_frame", decode_either)


def _names() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"later-{number}"


async def _replace_all(world: World, release: str, names: Iterator[str]) -> None:
    """One worker after the other is stopped, and one of the release takes its place."""
    for old in list(world.stack.workers):
        await world.start_worker(next(names), release=release)
        await world.stack.stop_worker(old)
        await world.stack.wait_ready()


async def _disturb(world: World, hostile: Hostile, over: asyncio.Event) -> None:
    """One fault after the other, each healed before the next one comes, until it is over."""
    for fault in draw(_SEED, 1000, gap_s=1.0, kinds=_MEANWHILE):
        if over.is_set():
            return
        await NEMESES[fault.kind](world, hostile, fault)
        await world.stack.wait_ready()


async def _committed_to_the_end(world: World) -> None:
    """What lies in the topics now will not be read again: the former release may be forgotten.

    Without this wait, a worker of the release before finds frames that it cannot read.
    """
    settings = world.settings
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka)
    async with consumer, Redis.from_url(settings.redis, decode_responses=True) as client:
        for row in (await world.stack.status()).tasks:
            key = f"snn:{{p0}}:pos:{row.task}"
            places = [TopicPartition(topic, 0) for topic in await client.hkeys(key)]
            ends = await consumer.end_offsets(places)
            while True:
                stored = await client.hgetall(key)
                if all(int(str(stored[at.topic]).split("|")[0]) >= end for at, end in ends.items()):
                    break
                await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("clients_read_both")
async def test_an_upgrade_and_its_rollback_amid_faults_lose_nothing_and_change_no_bit(
    contents: Contents,
) -> None:
    settings = Settings.load(partitions=1, log_level="WARNING")
    history = History(expected=contents.expected)
    async with serving(contents, settings, n_workers=2, gateway=False) as served:
        workload = Workload(
            contents, history, served.publisher, served.reader, "", Pace(6.0, 2, 6.0), seed=_SEED,
            prefix=secrets.token_hex(3),
        )  # fmt: skip
        tap = Tap(served.world.settings, list(contents.networks), history)
        async with (
            Hostile(served.world.settings, list(contents.networks.values())) as hostile,
            asyncio.TaskGroup() as group,
        ):
            tapping = group.create_task(tap.run())
            running = group.create_task(workload.run())
            over = asyncio.Event()
            disturbing = group.create_task(_disturb(served.world, hostile, over))
            names = _names()
            for release in _STEPS:
                await _replace_all(served.world, release, names)
                await _committed_to_the_end(served.world)
            over.set()
            await disturbing
            workload.stop()
            await running
            tapping.cancel()
    assert judge(history) == []
    assert history.ends
