"""Whoever watches the metrics of workers sees that a zombie was fenced, and what it cost."""

import asyncio
import itertools
import signal
from collections import defaultdict
from collections.abc import Callable, Mapping

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.faults.contents import DIGITS, Contents
from router.processes import free_ports
from router.settings import Settings
from tests.faults.served import Served, serving

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_COUNTED = ("fenced_writes_total", "duplicates_dropped_total", "windows_replayed_total")
_PHASES = ("claim", "restore", "replay")
_PACE_S = 0.05


async def _told(ports: Mapping[str, int]) -> defaultdict[str, float]:
    """Every series of these workers, added up by name, or by phase where it has one."""
    totals: defaultdict[str, float] = defaultdict(float)
    async with httpx.AsyncClient(trust_env=False) as client:
        for port in ports.values():
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    name = sample.name.removeprefix("spikerouter_worker_")
                    totals[sample.labels.get("phase", name)] += sample.value
    return totals


async def _stream_for_ever(served: Served) -> None:
    """One stream after the other; none is harmed by what happens meanwhile."""
    content = served.contents.walks[0]
    for number in itertools.count():
        await served.send(f"stream-{number}", content, 0, len(content.samples))
        answer = await served.answer(f"stream-{number}", DIGITS)
        assert answer == served.contents.expected[content.name][DIGITS]


async def _until_it_owns(served: Served, worker: str, wanted: Callable[[int], bool]) -> None:
    while True:
        rows = (await served.world.stack.status()).tasks
        if wanted(sum(row.worker == worker for row in rows)):
            return
        await asyncio.sleep(_PACE_S)


async def _make_a_zombie(served: Served, worker: str) -> None:
    """Stop a worker until others have all of its tasks, then let it go on as if it had them."""
    await _until_it_owns(served, worker, lambda n: n > 0)
    child = served.world.stack.workers[worker]
    child.signal(signal.SIGSTOP)
    await _until_it_owns(served, worker, lambda n: n == 0)
    child.signal(signal.SIGCONT)


@pytest.mark.timeout(240)
async def test_fencing_duplicates_and_replays_are_seen_in_the_metrics(contents: Contents) -> None:
    settings = Settings.load(partitions=1, log_level="WARNING")
    ports = dict(zip(("one", "two"), free_ports(2), strict=True))
    async with serving(contents, settings, n_workers=1, gateway=False) as served:
        for name, port in ports.items():
            await served.world.start_worker(name, metrics_port=port)
        await served.world.stack.stop_worker("worker-1")
        told: defaultdict[str, float] = defaultdict(float)
        async with asyncio.TaskGroup() as group:
            streaming = group.create_task(_stream_for_ever(served))
            while not all(told[name] for name in (*_COUNTED, *_PHASES)):
                await _make_a_zombie(served, "one")
                told = await _told(ports)
            streaming.cancel()
