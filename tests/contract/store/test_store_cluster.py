"""What only a Redis Cluster has: nodes that die and take over, slots that move, a node per key."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from router.redis_server import RedisServer
from router.settings import Settings
from router.store import calls
from router.store.calls import (
    Change,
    CommitOutcome,
    Lease,
    Position,
    RenewOutcome,
    TaskId,
    TaskSpec,
    WorkerInfo,
)
from router.store.errors import StoreUnavailable, StoreUnfit
from router.store.redis import RedisStore
from router.store.slots import slot_of
from tests.contract.redis_cluster import RedisCluster
from tests.deployment.deployment import ROOT

pytestmark = pytest.mark.servers

TTL = 95_000
N_PARTITIONS = 12  # enough that every node has some
INFO = WorkerInfo(100, ("synaptic",))


@pytest.fixture
async def store(redis_cluster_url: str) -> AsyncIterator[RedisStore]:
    async with RedisStore.connect(redis_cluster_url, timeout=10.0) as opened:
        yield opened


def _task(partition: int) -> TaskId:
    return TaskId("ab" * 16, 0, partition)


async def _claimed(store: RedisStore, partition: int) -> TaskId:
    """A task of this partition, leased to `a`."""
    task = _task(partition)
    await store.create_task(TaskSpec(task, "synaptic", 1), settle_ms=0)
    claim = store.claim(partition, "a", "t", TTL, kinds=["synaptic"], capacity=9, limit=1)
    assert [each.task for each in (await claim).claimed] == [task]
    return task


async def _commit(store: RedisStore, task: TaskId, number: int) -> CommitOutcome:
    """A checkpoint at offset `number` with one stream, whose blob is its number."""
    writes = calls.blob_calls(
        task.partition, f"n{number}", [b"head-%d" % number, b"stream-%d" % number], TTL
    )
    await store.write_blobs(writes)
    return await store.commit(
        task, "t", number, full=False, head=writes[0].key,
        positions={"x": Position(number)}, changed=[Change("1:1", number, writes[1].key)],
    )  # fmt: skip


@contextmanager
def _paused(cluster: RedisCluster) -> Iterator[None]:
    """Scripts and writes get no answer from any node until the block ends."""
    for server in cluster.masters:
        cluster.ask(server, "CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        yield
    finally:
        for server in cluster.masters:
            cluster.ask(server, "CLIENT", "UNPAUSE")


def test_partitions_are_spread_over_all_nodes(redis_cluster: RedisCluster) -> None:
    holders = {redis_cluster.server_of(calls.prefix(p)).port for p in range(N_PARTITIONS)}
    assert len(holders) == len(redis_cluster.masters)


@pytest.mark.usefixtures("redis_cluster_url")
async def test_any_one_node_leads_to_all_partitions(redis_cluster: RedisCluster) -> None:
    for server in redis_cluster.masters:
        async with RedisStore.connect(server.url, timeout=10.0) as store:
            for partition in range(N_PARTITIONS):
                assert (await store.status(partition)).tasks == ()


async def test_positions_of_tasks_on_several_nodes_come_in_the_order_asked(
    store: RedisStore,
) -> None:
    tasks = [await _claimed(store, partition) for partition in range(N_PARTITIONS)]
    for task in tasks:
        for number in range(1, task.partition + 2):
            assert await _commit(store, task, number) is CommitOutcome.OK
    found = await store.read(calls.committed_offsets(reversed(tasks)))
    assert found == [{"x": partition + 1} for partition in reversed(range(N_PARTITIONS))]


async def test_a_node_that_forgot_its_scripts_gets_them_again(
    store: RedisStore, redis_cluster: RedisCluster
) -> None:
    for server in redis_cluster.masters:
        for partition in range(N_PARTITIONS):
            assert (await store.status(partition)).tasks == ()
        redis_cluster.ask(server, "SCRIPT", "FLUSH", "SYNC")
    for partition in range(N_PARTITIONS):
        assert (await store.status(partition)).tasks == ()


async def test_a_release_is_heard_of_whatever_node_has_the_partition(
    store: RedisStore, redis_cluster: RedisCluster
) -> None:
    partitions = range(N_PARTITIONS)
    tasks = [await _claimed(store, partition) for partition in partitions]
    told = store.released(partitions)
    next_one = asyncio.ensure_future(anext(told))
    listened = redis_cluster.server_of(calls.released_channel(0))
    channel = calls.released_channel(0)
    while not redis_cluster.ask(listened, "PUBSUB", "NUMSUB", channel)[1]:
        await asyncio.sleep(0)
    heard = []
    for task in tasks:
        assert await store.release(task, "t")
        heard.append(await next_one)
        next_one = asyncio.ensure_future(anext(told))
    assert heard == tasks
    next_one.cancel()
    await asyncio.wait([next_one])
    await told.aclose()


@pytest.mark.usefixtures("redis_cluster_url")
async def test_a_reply_that_comes_too_late_is_not_taken_for_the_next_ones(
    redis_cluster: RedisCluster,
) -> None:
    async with RedisStore.connect(redis_cluster.url, timeout=0.2) as store:
        with _paused(redis_cluster):
            for partition in range(3):
                with pytest.raises(StoreUnavailable):
                    await store.leave(partition, "a")
                with pytest.raises(StoreUnavailable):
                    await store.put_artifact(f"late-{partition}", b"x")
        store = RedisStore(store._nodes, timeout=10.0)
        await store.put_artifact("first", b"1")
        assert await store.get_artifact("first") == b"1"
        assert await store.get_artifact("nothing") is None


async def test_a_cancelled_call_leaves_the_store_usable(
    store: RedisStore, redis_cluster: RedisCluster
) -> None:
    with _paused(redis_cluster):
        call = asyncio.ensure_future(store.leave(0, "a"))
        await asyncio.wait([call], timeout=0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await store.put_artifact("first", b"1")
    assert await store.get_artifact("first") == b"1"


# ---- what may be the store --------------------------------------------------------------------


@pytest.mark.usefixtures("redis_cluster_url")
async def test_every_node_must_be_fit(redis_cluster: RedisCluster) -> None:
    settings = Settings.load(redis=redis_cluster.masters[0].url)
    async with RedisStore.of(settings) as store:
        await store.ping()
    last = redis_cluster.masters[-1]
    redis_cluster.ask(last, "CONFIG", "SET", "appendonly", "no")
    try:
        with pytest.raises(StoreUnfit, match=f"{last.address} keeps no log"):
            async with RedisStore.of(settings):
                pass
        async with RedisStore.of(settings.changed(redis_may_forget=True)) as store:
            await store.ping()
    finally:
        redis_cluster.ask(last, "CONFIG", "SET", "appendonly", "yes")


async def test_several_servers_that_are_no_cluster_are_refused(redis_server: RedisServer) -> None:
    settings = Settings.load(redis=f"redis://{redis_server.address},127.0.0.1:1/0")
    with pytest.raises(StoreUnfit, match="names 2 servers"):
        async with RedisStore.of(settings):
            pass


async def test_a_cluster_has_one_database(redis_cluster: RedisCluster) -> None:
    settings = Settings.load(redis=redis_cluster.url.replace("/0", "/1"))
    with pytest.raises(StoreUnfit, match="database 0 only"):
        async with RedisStore.of(settings):
            pass


async def test_the_user_of_the_documents_has_the_rights_that_a_cluster_needs() -> None:
    found = re.search(r"^ACL SETUSER (.+)$", (ROOT / "docs" / "operations.md").read_text(), re.M)
    assert found is not None
    user = f"user {found[1]}".replace("PASSWORD", "mine")
    async with RedisCluster(options=(user,)) as cluster:
        settings = Settings.load(
            redis=cluster.url, redis_username="spikes", redis_password="mine", store_timeout_s=10.0
        )
        async with RedisStore.of(settings) as store:
            for partition in range(N_PARTITIONS):
                task = await _claimed(store, partition)
                assert await _commit(store, task, 1) is CommitOutcome.OK
                assert await store.release(task, "t")
            await store.put_manifest("n", b"manifest")
            assert await store.list_networks() == ("n",)


# ---- nodes that die, slots that move ----------------------------------------------------------


@pytest.fixture
async def replicated() -> AsyncIterator[RedisCluster]:
    """A cluster with a replica of each node, which takes over after two seconds of silence."""
    async with RedisCluster(replicas=True, node_timeout_ms=2_000) as cluster:
        yield cluster


@pytest.mark.serial
async def test_a_replica_takes_over_and_owners_come_first(replicated: RedisCluster) -> None:
    async with RedisStore.connect(replicated.url, timeout=10.0) as store:
        task = await _claimed(store, 0)
        for number in (1, 2):
            assert await _commit(store, task, number) is CommitOutcome.OK
        other = next(
            p for p in range(1, N_PARTITIONS)
            if replicated.server_of(calls.prefix(p)) is not replicated.server_of(calls.prefix(0))
        )  # fmt: skip
        await _claimed(store, other)
        await replicated.wait_replicated(calls.prefix(0))
        replicated.server_of(calls.prefix(0)).kill()
        with pytest.raises(StoreUnavailable):
            await store.status(0)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        await replicated.wait_promoted(replicated.replica_of(calls.prefix(0)))

        claim = await store.claim(0, "b", "u", TTL, kinds=["synaptic"], capacity=9, limit=1)
        assert (claim.claimed, claim.settling_ms) == ((), TTL)
        lease = Lease(task, "t")
        assert await store.renew(0, "a", TTL, INFO, [lease]) == {task: RenewOutcome.OK}
        assert await _commit(store, task, 3) is CommitOutcome.OK
        stored = await store.load(task)
        assert stored is not None
        assert (stored.number, stored.positions) == (3, {"x": Position(3)})
        assert stored.streams["1:1"] == (3, b"stream-3", b"stream-2")
        await store.ping()

        assert (await store.status(other)).settling_ms == 0, "only that node has failed over"


@pytest.mark.usefixtures("redis_cluster_url")
async def test_a_partition_that_moves_is_away_until_all_of_it_has_come(
    redis_cluster: RedisCluster,
) -> None:
    ask, slot = redis_cluster.ask, slot_of(calls.prefix(0))
    old = redis_cluster.server_of(calls.prefix(0))
    new = next(server for server in redis_cluster.masters if server is not old)
    async with RedisStore.connect(redis_cluster.url, timeout=10.0) as store:
        task = await _claimed(store, 0)
        for number in (1, 2):
            assert await _commit(store, task, number) is CommitOutcome.OK
        before = await store.load(task)
        names = {each: ask(each, "CLUSTER", "MYID").decode() for each in (old, new)}
        ask(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[old])
        ask(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[new])
        keys = ask(old, "CLUSTER", "GETKEYSINSLOT", slot, 1000)
        for key in keys:
            with pytest.raises(StoreUnavailable):
                await store.renew(0, "a", TTL, INFO, [Lease(task, "t")])
            with pytest.raises(StoreUnavailable):
                await _commit(store, task, 3)
            ask(old, "MIGRATE", "127.0.0.1", new.port, key.decode(), 0, 5_000)
            with pytest.raises(StoreUnavailable):
                await store.load(task)
        assert ask(new, "CLUSTER", "COUNTKEYSINSLOT", slot) == len(keys) > 0
        for server in (new, *redis_cluster.masters):
            ask(server, "CLUSTER", "SETSLOT", slot, "NODE", names[new])
        try:
            assert await store.load(task) == before
            claim = await store.claim(0, "b", "u", TTL, kinds=["synaptic"], capacity=9, limit=1)
            assert (claim.claimed, claim.settling_ms) == ((), TTL), "another server: owners first"
            renewed = await store.renew(0, "a", TTL, INFO, [Lease(task, "t")])
            assert renewed == {task: RenewOutcome.OK}
            assert await _commit(store, task, 3) is CommitOutcome.OK
        finally:
            ask(new, "FLUSHALL")
            for server in (old, *redis_cluster.masters):
                ask(server, "CLUSTER", "SETSLOT", slot, "NODE", names[old])
