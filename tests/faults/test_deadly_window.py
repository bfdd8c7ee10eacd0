"""A window that kills whoever steps it ends its own stream, by name, and nothing else."""

import asyncio

import pytest

from loadtest.faults.contents import DIGITS, EVENTS, SECOND, Contents
from loadtest.recovery import middle_operator
from router.client import StreamFailed
from router.settings import Settings
from tests.faults.served import Served, serving

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_WORKERS = 3
_WINDOW = 3
_DEADLINE_S = 120.0
"""Up to seven processes start one after the other meanwhile, on a machine that may be busy."""


async def _neighbours(served: Served) -> dict[tuple[str, str], tuple[bytes, ...]]:
    """The answers of two streams, one in the deadly stream's tasks, that go on all the while."""
    beside, elsewhere = served.contents.walks[1], served.contents.walks[-1]
    streams = [("beside", beside), ("elsewhere", elsewhere)]
    for name, content in streams:
        await served.send(name, content, 5, len(content.samples))
    return {
        (name, network): await served.answer(name, network, _DEADLINE_S)
        for name, content in streams
        for network in content.networks
    }


@pytest.mark.timeout(300)
async def test_a_window_that_kills_whoever_steps_it_ends_its_stream_and_no_other(
    contents: Contents,
) -> None:
    network, expected = contents.networks[DIGITS], contents.expected
    bad, beside, elsewhere = contents.walks[0], contents.walks[1], contents.walks[-1]
    operator = middle_operator(network)
    (node,) = (node.id for node in network.nodes.values() if node.operator == operator)
    settings = Settings.load(partitions=1, progress_deadline_s=_DEADLINE_S, log_level="WARNING")
    deadly = f"{node}:deadly:{_WINDOW}"
    async with serving(
        contents, settings, n_workers=_WORKERS, gateway=False, deadly=deadly
    ) as served:
        for name, content, through in (
            ("beside", beside, DIGITS),
            ("elsewhere", elsewhere, EVENTS),
        ):
            await served.send(name, content, 0, 5)
            await served.until_emitted(name, through)
        await served.send("deadly", bad, 0, len(bad.samples))
        async with asyncio.TaskGroup() as group:
            going_on = group.create_task(_neighbours(served))
            told = f"PoisonBatch: window {_WINDOW} of operator {operator} ended two workers"
            with pytest.raises(StreamFailed, match=told):
                await served.answer("deadly", DIGITS, _DEADLINE_S)
        assert going_on.result() == {
            ("beside", DIGITS): expected[beside.name][DIGITS],
            ("beside", SECOND): expected[beside.name][SECOND],
            ("elsewhere", EVENTS): expected[elsewhere.name][EVENTS],
        }
        # Its other network has no such operator: there the same stream ends well.
        assert await served.answer("deadly", SECOND, _DEADLINE_S) == expected[bad.name][SECOND]
        await served.world.stack.wait_ready()
        await served.send("after", bad, 0, len(bad.samples))
        assert await served.answer("after", DIGITS) == expected[bad.name][DIGITS]
        # Its first owner and the two who were not warned; all later ones were on their own.
        workers = served.world.stack.workers
        assert 2 <= sum(worker.n_deaths for worker in workers.values()) <= 3
        assert len(served.world.running) == _WORKERS
