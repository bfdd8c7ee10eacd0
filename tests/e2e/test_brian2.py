"""Equations that Brian2 runs, in real workers: killed and resumed in the middle of streams."""

import asyncio
import signal
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest

from loadtest.recovery import Observer
from loadtest.undisturbed import run_streams
from router.client import Deadline, Publisher, ResultReader, partition_of
from router.records import Data
from router.settings import Settings
from router.status import TaskRow
from router.supervisor import Stack, StackOptions
from tests.brian2_networks import N_IN, make_network
from tests.e2e.conftest import log_workers
from topologies.compiler import Capacity, compile_network
from topologies.stages.base import Array
from topologies.stages.brian2 import Brian2

pytestmark = [pytest.mark.brian2, pytest.mark.e2e, pytest.mark.serial, pytest.mark.timeout(200)]

_N, _N_STEPS, _WINDOW = 6, 48, 4
_TIMEOUT_S = 90.0
_WITHOUT = (
    sys.executable, "-c",
    "import sys; sys.modules['brian2'] = None; from workers.__main__ import main; main()",
)  # fmt: skip


def _records(name: str, steps: Array, start: int) -> Sequence[Data]:
    """One record per window of a stream (T, n), from step `start` on; the last one ends it."""
    found = []
    for lo in range(start, len(steps), _WINDOW):
        part = steps[lo : lo + _WINDOW].astype("<i4")
        end = lo + _WINDOW >= len(steps)
        found.append(
            Data(
                name=name, seq=lo // _WINDOW, end=end,
                payload=part.tobytes(), dtype="int32", shape=part.shape,
            )
        )  # fmt: skip
    return found


async def _emitted(reader: ResultReader, name: str, count: int) -> None:
    """Wait until a stream has given so many results."""
    async for emission in reader.results(name, Deadline.after(_TIMEOUT_S)):
        if emission.index + 1 >= count:
            return


async def test_worker_without_brian2_hosts_all_but_the_equations_and_status_says_so() -> None:
    network = compile_network(make_network("leaky"))
    cells = next(oid for oid, summary in network.summaries.items() if summary.extras)
    values = (np.random.default_rng(8).random((2, 12, N_IN)) < 0.4).astype(np.uint8)
    wanted = run_streams(network, values)

    settings = Settings.load(partitions=1, log_level="INFO")
    options = StackOptions(networks=(network,), n_workers=0, gateway=False, restart=False)
    async with Stack(settings, options, log=log_workers) as stack:
        stack.start_worker("without", command=_WITHOUT)
        tasks = await _served_but_one(stack)
        (left,) = [task for task in tasks if not task.served]
        assert (left.task.startswith(cells), left.worker, left.portable) == (True, "", False)
        assert left.unhosted.startswith("no living worker has the extra brian2")
        stack.start_worker("with")
        await stack.wait_ready(_TIMEOUT_S)
        (now,) = [task for task in (await stack.status()).tasks if task.task == left.task]
        assert (now.worker, now.unhosted) == ("with", "")
        async with Publisher.of(stack.settings) as pub, ResultReader.of(stack.settings) as reader:
            await reader.follow(network.name, network.input.name, network.outputs.every)
            for number, steps in enumerate(values):
                for record in _records(f"s{number}", steps, 0):
                    await pub.publish(network.input.name, record)
            await pub.flush()
            for number, right in enumerate(wanted):
                found = await reader.result(f"s{number}", Deadline.after(_TIMEOUT_S))
                assert found.values.tobytes() == right.tobytes()


async def _served_but_one(stack: Stack) -> Sequence[TaskRow]:
    """The tasks, once all but one are served."""
    async with asyncio.timeout(_TIMEOUT_S):
        while True:
            tasks = (await stack.status()).tasks
            if tasks and sum(not task.served for task in tasks) == 1:
                return tasks
            await asyncio.sleep(0.1)


async def test_killed_host_of_equations_is_replaced_and_no_bit_of_its_streams_changes() -> None:
    authored = make_network("adaptive, refractory, in volts", n_steps=None)
    network = compile_network(authored, capacity=Capacity(10, None))
    (cells,) = [
        oid for oid, operator in network.operators.items()
        if any(isinstance(stage, Brian2) for stage in operator.program.stages)
    ]  # fmt: skip
    values = (np.random.default_rng(8).random((_N, _N_STEPS, N_IN)) < 0.4).astype(np.uint8)
    wanted = run_streams(network, values)
    assert len({array.tobytes() for array in wanted}) == _N

    settings = Settings.load(partitions=2, log_level="INFO")
    options = StackOptions(networks=(network,), n_workers=2, gateway=False, restart=False)
    async with Stack(settings, options, log=log_workers) as stack:
        await stack.wait_ready(_TIMEOUT_S)
        async with (
            Observer(stack.settings) as observer,
            Publisher.of(stack.settings) as publisher,
            ResultReader.of(stack.settings) as reader,
        ):
            await reader.follow(network.name, network.input.name, network.outputs.every)
            names = [f"s{i}" for i in range(_N)]
            half = _N_STEPS // 2
            for name, steps in zip(names, values, strict=True):
                for record in _records(name, steps[: half + _WINDOW], 0)[:-1]:
                    await publisher.publish(network.input.name, record)
            await publisher.flush()
            await asyncio.gather(*(_emitted(reader, name, half // 4 - 1) for name in names))

            owners = await observer.settled(quiet_s=0.3, timeout_s=_TIMEOUT_S)
            held = {t: w for t, w in owners.items() if t.operator == cells}
            partition = partition_of(names[0], 2)
            victim = next(w for t, w in held.items() if t.partition == partition)
            lost = {task for task, worker in owners.items() if worker == victim}
            killed_at = time.time() * 1000
            stack.kill_worker(victim, signal.SIGKILL, restart=False)
            for name, steps in zip(names, values, strict=True):
                for record in _records(name, steps, half):
                    await publisher.publish(network.input.name, record)
            await publisher.flush()
            deadline = Deadline.after(_TIMEOUT_S)
            for name, right in zip(names, wanted, strict=True):
                found = await reader.result(name, deadline)
                assert found.values.tobytes() == right.tobytes(), name
            back = await observer.recovered(lost, killed_at, timeout_s=_TIMEOUT_S)
            assert {recovery.previous for recovery in back.values()} == {victim}
