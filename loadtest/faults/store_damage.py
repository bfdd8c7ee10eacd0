"""What a store may do to what it holds: turn a bit of it over, or evict some of it."""

import asyncio
import random
from collections import defaultdict
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis

from loadtest.faults.bits import Change, Held, change_of, kind_of_key, partition_of_key

__all__ = ["Damage", "evict_by_itself", "evict_one", "evict_some", "turn_bit"]

_KEYS: Final = "snn:*"
_SCANNED: Final = 1000
_EVICTING_S: Final = 2.0
_STEP_BYTES: Final = 4096


class Damage(NamedTuple):
    """What was damaged, in words, and whose: of a partition, or of all (None); the kind of key."""

    what: str
    partition: int | None
    kind: str


async def turn_bit(client: Redis, dice: random.Random) -> Damage | None:
    """Turn one bit of some key; None where there are none. Each kind of key is as likely as any.

    Nobody can write the key meanwhile: then it is tried again with what he wrote.
    """
    key = await _any_key(client, dice)
    if key is None:
        return None
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
    return _damage(key, what)


async def evict_one(client: Redis, dice: random.Random) -> Damage | None:
    """Take some key away; None where there are none. Each kind of key is as likely as any."""
    key = await _any_key(client, dice)
    if key is None:
        return None
    await client.unlink(key)
    return _damage(key, "all of it")


def _damage(key: bytes, what: str) -> Damage:
    text = f"{key.decode(errors='replace')}: {what}"
    return Damage(text, partition_of_key(key), kind_of_key(key))


async def _any_key(client: Redis, dice: random.Random) -> bytes | None:
    kinds: dict[str, list[bytes]] = defaultdict(list)
    for key in await _keys(client):
        kinds[kind_of_key(key)].append(key)
    return dice.choice(kinds[dice.choice(sorted(kinds))]) if kinds else None


async def evict_some(client: Redis, dice: random.Random, share: float) -> int:
    """Take this share of all keys away, as a store does that is short of memory; how many."""
    keys = await _keys(client)
    victims = dice.sample(keys, min(len(keys), 1 + int(share * len(keys))))
    return int(await client.unlink(*victims)) if victims else 0


async def evict_by_itself(client: Redis, share: float) -> int:
    """Give the store less memory than it holds until it has evicted this share of all keys, by its
    own choice; how many. Its memory is taken away bit by bit, so that it stops near to that.
    """
    wanted = 1 + int(share * await client.dbsize())
    before = await _n_evicted(client)
    await client.config_set("maxmemory-policy", "allkeys-random")
    try:
        async with asyncio.timeout(_EVICTING_S):
            while await _n_evicted(client) - before < wanted:
                told = await client.info("memory")
                counted = int(told["used_memory"]) - int(told["mem_not_counted_for_evict"])
                await client.config_set("maxmemory", counted - _STEP_BYTES)
    except TimeoutError:
        pass  # others free memory as well
    finally:
        await client.config_set("maxmemory", 0)
        await client.config_set("maxmemory-policy", "noeviction")
    return await _n_evicted(client) - before


async def _n_evicted(client: Redis) -> int:
    return int((await client.info("stats"))["evicted_keys"])


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
