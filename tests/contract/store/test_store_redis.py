"""What only the real store has: connections, deadlines, a script cache, concurrent callers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import redis

from router.store import calls
from router.store.calls import Call, CommitOutcome, Position, TaskId, TaskSpec
from router.store.errors import StoreReplyError, StoreUnavailable
from router.store.redis import RedisStore

TTL = 95_000


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[RedisStore]:
    """One server or a cluster."""
    async with RedisStore.connect(store_url, timeout=10.0) as opened:
        yield opened


@pytest.fixture
async def single(redis_url: str) -> AsyncIterator[RedisStore]:
    """One server, that of `admin`."""
    async with RedisStore.connect(redis_url, timeout=10.0) as opened:
        yield opened


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def deaf_url() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


async def test_concurrent_claimers_never_share_a_task(
    store: RedisStore, tasks: list[TaskId]
) -> None:
    many = [tasks[0]._replace(group=group) for group in range(40)]
    for task in many:
        await store.create_task(TaskSpec(task, "synaptic", 1), settle_ms=0)

    async def claim(worker: int) -> list[TaskId]:
        claimed: list[TaskId] = []
        for turn in range(4):
            reply = await store.claim(
                0, f"w{worker}", f"{worker}-{turn}", TTL, kinds=["synaptic"], capacity=99, limit=3
            )
            claimed += [each.task for each in reply.claimed]
        return claimed

    shares = await asyncio.gather(*(claim(worker) for worker in range(8)))
    assert sorted(task for share in shares for task in share) == sorted(many)


async def test_methods_are_the_calls(store: RedisStore, tasks: list[TaskId]) -> None:
    task = tasks[0]
    assert await store.create_task(TaskSpec(task, "synaptic", 1), settle_ms=0)
    await store.claim(0, "a", "t", TTL, kinds=["synaptic"], capacity=1, limit=1)
    info = calls.WorkerInfo(1, ("synaptic",))
    outcomes = await store.renew(0, "a", TTL, info, [calls.Lease(task, "t")])
    assert outcomes == {task: calls.RenewOutcome.OK}
    assert await store.want(0, "b", TTL, kinds=["synaptic"], capacity=1) is None
    writes = calls.blob_calls(0, "nonce", [b"head"], TTL)
    await store.write_blobs(writes)
    outcome = await store.commit(
        task, "t", 1, full=False, head=writes[0].key, positions={"x": Position(1)}
    )
    assert outcome is CommitOutcome.OK
    stored = await store.load(task)
    assert stored is not None
    assert stored.head_current == b"head"
    assert await store.hand(task, "t", "1:1#0")
    assert (await store.status(0)).tasks[0].hand == "1:1#0"
    assert await store.release(task, "t")
    assert not await store.fail_task(task, "t", "LogReplaced")
    assert await store.leave(0, "a")
    assert await store.remove_task(task)
    assert await store.load(task) is None


async def test_script_forgotten_between_two_calls_is_loaded_again(
    single: RedisStore, admin: redis.Redis, tasks: list[TaskId]
) -> None:
    for _ in range(3):
        admin.script_flush("SYNC")
        assert (await single.status(0)).tasks == ()


async def test_manifests_are_listed_by_name_and_removed(store: RedisStore) -> None:
    assert await store.list_networks() == ()
    assert await store.get_manifest("digits") is None
    await store.put_manifest("digits", b"\x00manifest")
    await store.put_manifest("audio", b"other")
    assert await store.list_networks() == ("audio", "digits")
    assert await store.get_manifest("digits") == b"\x00manifest"
    await store.remove_manifest("digits")
    assert await store.list_networks() == ("audio",)
    assert await store.get_manifest("digits") is None


async def test_artifact_comes_back_byte_for_byte(store: RedisStore) -> None:
    artifact = bytes(range(256)) * 1000
    assert await store.get_artifact("ab" * 16) is None
    await store.put_artifact("ab" * 16, artifact)
    assert await store.get_artifact("ab" * 16) == artifact


async def test_store_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with RedisStore.connect(f"redis://127.0.0.1:{port}/0") as store:
        with pytest.raises(StoreUnavailable, match="Check that it runs") as caught:
            await store.status(0)
    assert caught.value.retryable


async def test_store_that_does_not_answer_is_unavailable_after_the_deadline(deaf_url: str) -> None:
    async with RedisStore.connect(deaf_url, timeout=0.05) as store:
        with pytest.raises(StoreUnavailable, match=r"'claim' within 0\.05 s"):
            await store.claim(0, "a", "t", TTL, kinds=[], capacity=1, limit=1)
        with pytest.raises(StoreUnavailable, match="within"):
            await store.load(TaskId("ab" * 16, 0, 0))
        with pytest.raises(StoreUnavailable, match="within"):
            await store.ping()


async def test_reply_that_comes_too_late_is_not_taken_for_the_next_ones(
    redis_url: str, admin: redis.Redis
) -> None:
    async with RedisStore.connect(redis_url, timeout=0.1) as store:
        with _paused(admin):
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await store.leave(0, "a")
                with pytest.raises(StoreUnavailable):
                    await store.put_artifact("late", b"x")
        store = RedisStore(store._nodes, timeout=10.0)
        await store.put_artifact("first", b"1")
        assert await store.get_artifact("first") == b"1"
        assert await store.get_artifact("nothing") is None


@contextmanager
def _paused(admin: redis.Redis) -> Iterator[None]:
    """Scripts and writes get no answer until the block ends."""
    admin.client_pause(60_000, all=False)
    try:
        yield
    finally:
        admin.client_unpause()


async def test_cancelled_call_leaves_the_store_usable(
    single: RedisStore, admin: redis.Redis
) -> None:
    with _paused(admin):
        call = asyncio.ensure_future(single.leave(0, "a"))
        await asyncio.wait([call], timeout=0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await single.put_artifact("first", b"1")
    assert await single.get_artifact("first") == b"1"
    assert await single.get_artifact("nothing") is None


async def test_connection_the_server_closed_fails_at_most_one_call(
    single: RedisStore, admin: redis.Redis
) -> None:
    await single.ping()
    admin.client_kill_filter(_type="normal", skipme=True)
    try:
        await single.ping()
    except StoreUnavailable:
        await single.ping()


async def test_replica_is_unavailable_for_writing(single: RedisStore, admin: redis.Redis) -> None:
    admin.slaveof("127.0.0.1", 1)
    try:
        with pytest.raises(StoreUnavailable, match="ReadOnly"):
            await single.put_artifact("op", b"x")
    finally:
        admin.slaveof()
    await single.put_artifact("op", b"x")


async def test_key_of_another_type_is_an_error_that_names_the_call(
    single: RedisStore, admin: redis.Redis
) -> None:
    admin.set("snn:{p0}:tasks", "not a set")
    with pytest.raises(StoreReplyError, match="'status'") as caught:
        await single.status(0)
    assert not caught.value.retryable


async def test_reply_of_another_shape_is_an_error(store: RedisStore) -> None:
    call: Call[int] = calls.Call("leave", ("snn:{p0}:",), ("a",), lambda reply: int(str(reply)))
    assert await store.run(call) == 0
    with pytest.raises(StoreReplyError, match="a list was expected"):
        await store.run(calls.Call("leave", ("snn:{p0}:",), ("a",), calls.status(0).parse))


async def test_where_a_network_begins_is_written_once_and_goes_with_it(store: RedisStore) -> None:
    await store.put_begin("n", b"first")
    await store.put_begin("n", b"second")
    assert await store.get_begin("n") == b"first"
    await store.remove_manifest("n")
    assert await store.get_begin("n") is None


async def test_a_removed_network_is_told_from_one_that_the_store_forgot(store: RedisStore) -> None:
    await store.put_manifest("n", b"x")
    assert await store.removed_networks() == frozenset()
    await store.remove_manifest("n")
    assert await store.removed_networks() == {"n"}
    await store.put_manifest("n", b"x")
    assert await store.removed_networks() == frozenset()


async def test_generations_count_from_0(store: RedisStore) -> None:
    assert await store.generation() == 0
    await store.begin_generation()
    assert await store.generation() == 1


async def test_who_listens_is_told_of_a_task_that_is_given_back(
    single: RedisStore, admin: redis.Redis, tasks: list[TaskId]
) -> None:
    task, told = tasks[0], single.released([0, 1])
    await single.create_task(TaskSpec(task, "synaptic", 1), settle_ms=0)
    await single.claim(0, "w", "token", TTL, kinds=["synaptic"], capacity=9, limit=1)
    next_one = asyncio.ensure_future(anext(told))
    while not admin.pubsub_numsub(calls.released_channel(0))[0][1]:
        await asyncio.sleep(0)
    assert not await single.release(task, "another's token")
    assert await single.release(task, "token")
    assert await next_one == task
    await told.aclose()


async def test_who_listens_to_a_store_that_is_away_is_told_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with RedisStore.connect(f"redis://127.0.0.1:{port}/0", timeout=10.0) as away:
        with pytest.raises(StoreUnavailable):
            await anext(away.released([0]))
