"""What damages a store damages what it says, and nothing else."""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from loadtest.faults.store_damage import evict_by_itself, evict_some, turn_bit
from router.redis_server import RedisServer

pytestmark = pytest.mark.serial


@pytest.fixture
async def client() -> AsyncIterator[Redis]:
    async with RedisServer() as server, Redis.from_url(server.url) as connected:
        yield connected


async def _all(client: Redis) -> dict[bytes, Any]:
    """Every key with its contents."""
    found: dict[bytes, Any] = {}
    async for key in client.scan_iter():
        match await client.type(key):
            case b"hash":
                found[key] = await client.hgetall(key)
            case b"set":
                found[key] = await client.smembers(key)
            case _:
                found[key] = await client.get(key)
    return found


async def _fill(client: Redis) -> None:
    await client.set("snn:{p0}:blob:ab:0", b"contents", px=600_000)
    await client.hset("snn:{p1}:pos:op/0/1@0", mapping={"topic": "4|x"})
    await client.sadd("snn:{p0}:tasks", "op/0/0@0")


async def test_each_turned_bit_changes_one_key_and_names_whose_it_is(client: Redis) -> None:
    await _fill(client)
    dice = random.Random(1)
    kinds = set()
    for _ in range(40):
        before = await _all(client)
        damage = await turn_bit(client, dice)
        after = await _all(client)
        assert damage is not None
        changed = [key for key in before if before[key] != after.get(key)]
        assert before.keys() == after.keys()
        assert len(changed) == 1
        assert damage.what.startswith(changed[0].decode())
        assert damage.partition == (1 if b"p1" in changed[0] else 0)
        kinds.add(changed[0])
    assert len(kinds) == 3
    assert 0 < await client.pttl("snn:{p0}:blob:ab:0") <= 600_000


async def test_there_is_nothing_to_damage_in_an_empty_store(client: Redis) -> None:
    assert await turn_bit(client, random.Random(1)) is None
    assert await evict_some(client, random.Random(1), 0.5) == 0


async def test_the_asked_share_of_keys_is_evicted(client: Redis) -> None:
    for number in range(100):
        await client.set(f"snn:{number}", b"x")
    assert await evict_some(client, random.Random(1), 0.1) == 11
    assert await client.dbsize() == 89


async def test_a_store_that_is_short_of_memory_evicts_about_as_much_and_has_room_again(
    client: Redis,
) -> None:
    for number in range(1000):
        await client.set(f"snn:{number}", b"x" * 1000)
    n = await evict_by_itself(client, 0.1)
    assert 101 <= n < 500
    assert await client.dbsize() == 1000 - n
    assert (await client.config_get("maxmemory"))["maxmemory"] == "0"
    await client.set("snn:more", b"x" * 100_000)
    assert await client.dbsize() == 1001 - n
