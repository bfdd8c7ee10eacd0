"""Two networks share a backbone: what becomes of one never shows in the other's bits."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest.recovery import Observer
from router.client import Deadline, Publisher, ResultReader, StreamFailed, partition_of
from router.deploy import deploy
from router.removal import RemoveError, own_operators, remove
from router.settings import Settings
from router.store.redis import RedisStore
from router.supervisor import Stack, StackOptions
from tests.e2e.conftest import Served, log_workers
from topologies.compiled import CompiledNetwork

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

Heads = Mapping[str, CompiledNetwork]
_PARTITIONS = 2


@asynccontextmanager
async def serving(
    heads: Heads, settings: Mapping[str, object] | None = None, **options: Any
) -> AsyncIterator[Served]:
    changes = {"partitions": _PARTITIONS, "log_level": "INFO", **(settings or {})}
    stack_options = StackOptions(networks=tuple(heads.values()), gateway=False, **options)
    async with Stack(Settings.load(**changes), stack_options, log=log_workers) as stack:
        await stack.wait_ready()
        async with (
            Observer(stack.settings) as observer,
            Publisher.of(stack.settings) as publisher,
            ResultReader.of(stack.settings) as reader,
        ):
            for network in heads.values():
                await reader.follow(network.name, network.input.name, network.outputs.every)
            yield Served(heads, stack, observer, publisher, reader)


async def holder_of(served: Served, operator: str, stream: str) -> str:
    """The worker that has the operator in the stream's partition."""
    partition = partition_of(stream, _PARTITIONS)
    owners = await served.observer.settled(quiet_s=0.3)
    return next(w for t, w in owners.items() if (t.operator, t.partition) == (operator, partition))


def backbone(heads: Heads) -> list[str]:
    """The operators that both networks have, ingest first."""
    one, two = heads.values()
    return [n.operator for n in one.nodes.values() if n.operator in two.summaries]


async def tasks_of(settings: Settings, operators: set[str]) -> set[int]:
    """The generations of the tasks of these operators."""
    async with RedisStore.of(settings) as store:
        replies = [await store.status(p) for p in range(_PARTITIONS)]
    rows = [row.task for reply in replies for row in reply.tasks]
    return {task.generation for task in rows if task.operator in operators}


async def test_both_networks_outlive_the_host_of_an_operator_that_they_share(heads: Heads) -> None:
    shared = backbone(heads)
    assert len(shared) == 4
    async with serving(heads, n_workers=3) as served:
        victim = await holder_of(served, shared[2], "s")
        async with asyncio.TaskGroup() as group:
            group.create_task(served.stream("s", 80, 3.0, "one", "two"))
            group.create_task(served.requests("r", 60, "one", "two"))
            await asyncio.sleep(1.0)
            served.stack.kill_worker(victim, signal.SIGKILL, restart=False)
        after = await holder_of(served, shared[2], "s")
        assert after not in ("", victim)


@pytest.mark.torch
@pytest.mark.timeout(300)
async def test_torch_takes_over_from_numpy_in_the_middle_of_a_stream(heads: Heads) -> None:
    patient = {"lease_ttl_ms": 5000, "store_timeout_s": 10.0, "progress_deadline_s": 200.0}
    backends = {"worker-1": {"backend": "numpy"}, "worker-2": {"backend": "torch"}}
    async with serving(heads, patient, n_workers=1, worker_settings=backends) as served:
        await served.send("s", range(20), 40, "one", "two")
        await served.requests("r", 4, "one", "two")
        served.stack.start_worker("worker-2")
        served.stack.kill_worker("worker-1", signal.SIGKILL, restart=False)

        async def has_taken_over() -> bool:
            return set((await served.observer.owners()).values()) == {"worker-2"}

        await served.observer.until(has_taken_over, 100.0, "the torch worker to have every task")
        await served.send("s", range(20, 40), 40, "one", "two")
        await served.compare("s", 40, "one", "two")


async def test_a_network_comes_and_goes_while_streams_of_another_run(heads: Heads) -> None:
    own = own_operators(heads["two"], heads)
    assert len(own) == 1
    async with serving(heads, n_workers=2) as served:
        settings = served.stack.settings
        async with asyncio.TaskGroup() as group:
            running = group.create_task(served.stream("s", 200, 10.0, "one"))
            await served.requests("before", 20, "one", "two")
            done = await remove(settings, "two", timeout=20.0)
            assert (done.n_tasks, done.n_operators) == (_PARTITIONS, 1)
            assert await tasks_of(settings, own) == set()
            await served.requests("between", 20, "one")
            await deploy(settings, [heads["two"]], partitions=_PARTITIONS)
            assert await tasks_of(settings, own) == {1}
            assert await tasks_of(settings, set(backbone(heads))) == {0}
            await served.requests("after", 20, "one", "two")
            assert not running.done()


async def test_an_open_stream_holds_back_the_removal_of_its_network(heads: Heads) -> None:
    async with serving(heads, n_workers=1) as served:
        settings = served.stack.settings
        await served.send("s", range(5), 10, "one", "two")
        with pytest.raises(RemoveError, match="1 of its streams have not ended"):
            await remove(settings, "two", timeout=6.0)
        await served.send("s", range(5, 10), 10, "one", "two")
        await served.compare("s", 10, "one", "two")
        assert (await remove(settings, "two", timeout=20.0)).network == "two"


async def test_a_removal_by_force_ends_open_streams_with_an_error_and_in_that_network_alone(
    heads: Heads,
) -> None:
    async with serving(heads, n_workers=1) as served:
        settings = served.stack.settings
        await served.send("s", range(5), 10, "one", "two")
        done = await remove(settings, "two", timeout=20.0, force=True)
        assert done.n_operators == 1
        with pytest.raises(StreamFailed, match="NetworkRemoved: stream s "):
            await served.reader.result("s", Deadline.after(20.0), network="two")
        await served.send("s", range(5, 10), 10, "one", "two")
        await served.compare("s", 10, "one")


async def test_the_last_network_of_an_input_can_be_removed_and_deployed_again(
    heads: Heads,
) -> None:
    """What the input holds of its first life is not served a second time."""
    alone = {"one": heads["one"]}
    async with serving(alone, n_workers=1) as served:
        settings = served.stack.settings
        await served.requests("first", 20, "one")
        await remove(settings, "one", timeout=20.0)
        await deploy(settings, [heads["one"]], partitions=_PARTITIONS)
        await served.requests("second", 20, "one")
        async with RedisStore.of(settings) as store:
            replies = [await store.status(p) for p in range(_PARTITIONS)]
        ingest = heads["one"].nodes[heads["one"].input.node].operator
        rows = [row for reply in replies for row in reply.tasks if row.task.operator == ingest]
        assert {row.task.generation for row in rows} == {1}


async def test_weights_may_lie_in_a_directory_and_go_with_the_last_network_that_has_them(
    heads: Heads, tmp_path: Path
) -> None:
    kept, cache = tmp_path / "kept", tmp_path / "cache"
    changes = {"artifacts": f"file://{kept}", "artifact_cache": cache}
    async with serving(heads, changes, n_workers=1) as served:
        settings = served.stack.settings
        await served.requests("r", 4, "one", "two")
        everything = {o for network in heads.values() for o in network.operators}
        assert {path.name for path in kept.iterdir()} == everything
        assert {path.name for path in cache.iterdir()} == everything
        async with RedisStore.of(settings) as store:
            assert [await store.get_artifact(operator) for operator in everything] == [None] * 6
        own = own_operators(heads["two"], heads)
        await remove(settings, "two", timeout=20.0)
        assert {path.name for path in kept.iterdir()} == everything - own
        async with asyncio.timeout(20.0):
            while {path.name for path in cache.iterdir()} != everything - own:
                await asyncio.sleep(0.1)


async def test_a_node_takes_over_from_another_in_the_middle_of_a_stream(
    heads: Heads,
) -> None:
    """Workers 1 and 2 compute on simulated nodes, worker 3 has what runs beside them."""
    node = {"device": "workers.simulated_node:SimulatedNode", "kinds": ("synaptic",)}
    rest = {"kinds": ("ingest", "readout")}
    changes = {"worker-1": node, "worker-2": node, "worker-3": rest}
    async with serving(heads, n_workers=3, worker_settings=changes) as served:
        victim = await holder_of(served, backbone(heads)[2], "s")
        await served.send("s", range(10), 20, "one", "two")
        await served.requests("r", 4, "one", "two")
        served.stack.kill_worker(victim, signal.SIGKILL, restart=False)
        await served.send("s", range(10, 20), 20, "one", "two")
        await served.compare("s", 20, "one", "two")
        assert await holder_of(served, backbone(heads)[2], "s") not in (victim, "worker-3")
