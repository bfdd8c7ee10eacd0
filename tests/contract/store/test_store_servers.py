"""A Redis with its log on disk, and a primary with its replica: deaths, failover, losses."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.processes import ServerError
from router.redis_server import RedisPair, RedisServer
from router.store.errors import StoreUnavailable
from router.store.redis import RedisStore

pytestmark = [pytest.mark.servers, pytest.mark.serial]


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with RedisServer() as running:
        yield running


@pytest.fixture
async def pair() -> AsyncIterator[RedisPair]:
    async with RedisPair() as running:
        yield running


@pytest.fixture(params=["system", "bundled"])
def any_binary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's server, and with the bundled one."""
    if request.param == "bundled":
        monkeypatch.setenv("PATH", "")


async def _put(server: RedisServer, name: str) -> None:
    async with RedisStore.connect(server.url) as store:
        await store.put_artifact(name, name.encode())


async def _get(server: RedisServer, name: str) -> bytes | None:
    async with RedisStore.connect(server.url) as store:
        return await store.get_artifact(name)


@pytest.mark.usefixtures("any_binary")
async def test_a_killed_server_comes_back_with_every_answered_write() -> None:
    async with RedisServer() as server:
        for number in range(100):
            await _put(server, f"op-{number}")
        url = server.url
        server.kill()
        with pytest.raises(StoreUnavailable):
            await _get(server, "op-0")
        await server.start()
        assert server.url == url
        assert [await _get(server, f"op-{n}") for n in range(100)] == [
            b"op-%d" % n for n in range(100)
        ]


async def test_a_wiped_server_comes_back_empty(server: RedisServer) -> None:
    await _put(server, "op")
    await server.stop()
    server.wipe()
    await server.start()
    assert await _get(server, "op") is None


async def test_a_running_server_is_not_wiped(server: RedisServer) -> None:
    await _put(server, "op")
    with pytest.raises(ServerError, match="kill or stop it"):
        server.wipe()
    assert await _get(server, "op") == b"op"


async def test_a_paused_server_is_unavailable_until_it_is_resumed(server: RedisServer) -> None:
    server.pause()
    async with RedisStore.connect(server.url, timeout=0.2) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
    server.resume()
    await _put(server, "op")
    assert await _get(server, "op") == b"op"


async def test_the_replica_takes_over_with_what_it_has(pair: RedisPair) -> None:
    await _put(pair.primary, "replicated")
    await pair.replica.wait_replicated()
    old = pair.primary
    await pair.fail_over()
    assert not old.alive
    assert pair.primary is not old
    assert await _get(pair.primary, "replicated") == b"replicated"
    await _put(pair.primary, "after")
    assert await _get(pair.primary, "after") == b"after"


async def test_a_failover_loses_what_the_replica_had_not_got(pair: RedisPair) -> None:
    await _put(pair.primary, "replicated")
    await pair.replica.wait_replicated()
    await pair.replica.fall_behind()
    await _put(pair.primary, "lost")
    before = await pair.primary.info("replication")
    await pair.fail_over()
    assert await _get(pair.primary, "replicated") == b"replicated"
    assert await _get(pair.primary, "lost") is None
    after = await pair.primary.info("replication")
    assert after["master_replid"] != before["master_replid"], "the claim script looks for this"


async def test_the_old_primary_follows_the_new_one(pair: RedisPair) -> None:
    await pair.fail_over()
    await _put(pair.primary, "new")
    await pair.replica.start()
    await pair.replica.follow(pair.primary)
    await pair.replica.wait_replicated()
    assert await _get(pair.replica, "new") == b"new"


async def test_a_given_directory_is_kept_and_a_temporary_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    async with RedisServer():
        assert list((tmp_path / "temporary").iterdir()) != []
    assert list((tmp_path / "temporary").iterdir()) == []
    async with RedisServer(directory=tmp_path / "given") as server:
        await _put(server, "op")
    async with RedisServer(directory=tmp_path / "given") as server:
        assert await _get(server, "op") == b"op"
