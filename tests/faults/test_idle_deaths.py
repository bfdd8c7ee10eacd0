"""Tasks at rest, whose owners die again and again for reasons of their own, are served again."""

import asyncio
from dataclasses import replace

import pytest

from loadtest.faults.contents import DIGITS, Contents
from router.processes import until
from router.settings import Settings
from router.store.calls import TaskId
from router.store.redis import RedisStore
from tests.faults.served import serving

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_ROUNDS = 4
"""The first finds ended streams to delete; two more make a task suspicious, and one keeps it so."""
_PROMPTLY_S = 20.0
"""What stopping takes is far below it, and a worker that waits for a child for ever above."""


async def _owners(store: RedisStore) -> dict[TaskId, tuple[int, int]]:
    """Claims and checkpoint of each task that has an owner: any new owner changes one of them."""
    tasks = (await store.status(0)).tasks
    return {t.task: (t.claims, t.number) for t in tasks if t.lease_ms > 0}


@pytest.mark.timeout(300)
async def test_tasks_at_rest_whose_owners_all_died_again_and_again_are_served_and_given_back(
    contents: Contents,
) -> None:
    settings = Settings.load(partitions=1, log_level="WARNING")
    one = replace(contents, networks={DIGITS: contents.networks[DIGITS]})
    async with (
        serving(one, settings, n_workers=2, gateway=False) as served,
        RedisStore.of(served.world.settings) as store,
    ):
        stack, content = served.world.stack, contents.walks[0]
        expected = contents.expected[content.name][DIGITS]
        await served.send("before", content, 0, len(content.samples))
        assert await served.answer("before", DIGITS) == expected
        for number in range(_ROUNDS):
            before = await _owners(store)

            async def are_claimed(before: dict[TaskId, tuple[int, int]] = before) -> bool:
                owners = await _owners(store)
                return all(task in owners and owners[task] != was for task, was in before.items())

            for name in served.world.running:
                stack.kill_worker(name)
            await until(are_claimed, 60, f"tasks have no owner after round {number}")
        await stack.wait_ready()
        await served.send("after", content, 0, len(content.samples))
        assert await served.answer("after", DIGITS) == expected
        workers = list(served.world.running.values())
        await asyncio.gather(*(stack.stop_worker(w.name, _PROMPTLY_S) for w in workers))
        assert [w.process and w.process.returncode for w in workers] == [0, 0]
