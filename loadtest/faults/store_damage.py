"""What a store may do to what it holds: turn a bit of it over, or evict some of it."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis

from loadtest.faults.bits import Change, Held, change_of, kind_of_key, partition_of_key

__all__ = ["Damage", "evict_some", "evicting", "turn_bit"]

_KEYS: Final = "snn:*"
_SCANNED: Final = 1000


class Damage(NamedTuple):
    """What was damaged, in words, and whose: of a partition, or of all (None)."""

    what: str
    partition: int | None


async def turn_bit(client: Redis, dice: random.Random) -> Damage | None:
    """Turn one bit of some key; None where there are none. Each kind of key is as likely as any.

    Nobody can write the key meanwhile: then it is tried again with what he wrote.
    """
    keys = await _keys(client)
    if not keys:
        return None
    kinds: dict[str, list[bytes]] = defaultdict(list)
    for key in keys:
        kinds[kind_of_key(key)].append(key)
    key = dice.choice(kinds[dice.choice(sorted(kinds))])
    number = dice.getrandbits(64)
    done: list[Change] = []

    async def turn(pipeline: Any) -> None:
        done.clear()
        change = change_of(await _held(pipeline, key), random.Random(number))
        pipeline.multi()
        if change is not None:
            _put(pipeline, key, change)
            done.append(change)

    await client.transaction(turn, key)
    what = done[0].what if done else "nothing: it is gone"
    return Damage(f"{key.decode(errors='replace')}: {what}", partition_of_key(key))


async def evict_some(client: Redis, dice: random.Random, share: float) -> int:
    """Take this share of all keys away, as a store does that is short of memory; how many."""
    keys = await _keys(client)
    victims = dice.sample(keys, min(len(keys), 1 + int(share * len(keys))))
    return int(await client.unlink(*victims)) if victims else 0


@asynccontextmanager
async def evicting(client: Redis, share: float) -> AsyncIterator[None]:
    """Meanwhile the store has room for so much less than it holds, and evicts any key."""
    told = await client.info("memory")
    counted = int(told["used_memory"]) - int(told["mem_not_counted_for_evict"])
    room = max(1, counted - int(share * int(told["used_memory_dataset"])))
    try:
        await client.config_set("maxmemory-policy", "allkeys-random")
        await client.config_set("maxmemory", room)
        yield
    finally:
        await client.config_set("maxmemory", 0)
        await client.config_set("maxmemory-policy", "noeviction")


async def _keys(client: Redis) -> list[bytes]:
    found = {key async for key in client.scan_iter(_KEYS, count=_SCANNED)}
    return sorted(found)


async def _held(client: Any, key: bytes) -> Held:
    """What lies under a key; empty bytes when it is gone."""
    match await client.type(key):
        case b"hash":
            return cast("dict[bytes, bytes]", await client.hgetall(key))
        case b"set":
            return frozenset(await client.smembers(key))
        case b"string":
            return cast(bytes, await client.get(key) or b"")
    return b""


def _put(pipeline: Any, key: bytes, change: Change) -> None:
    """Have what a transaction does put the change in place."""
    (taken, _), (name, value) = change.taken, change.put
    match change.of:
        case "hash":
            pipeline.hdel(key, taken)
            pipeline.hset(key, name, value)
        case "set":
            pipeline.srem(key, taken)
            pipeline.sadd(key, name)
        case "string":
            pipeline.set(key, value, keepttl=True)
