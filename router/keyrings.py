"""The keys of seals in the store: loaded, begun by deployment, written anew after a wipe (35)."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Final

from router.seals import KEY_BYTES, Keyring, pack_key, unpack_key
from router.store.errors import StoreUnavailable
from router.store.redis import RedisStore

__all__ = ["begin_key", "load_keys", "look_up", "restore_keys"]

_RETRY_S: Final = 0.1


async def load_keys(store: RedisStore, ring: Keyring | None = None) -> Keyring:
    """Take the keys of the store into `ring`, or into a new one. What is damaged there is left out.

    Raises StoreUnavailable.
    """
    found = Keyring() if ring is None else ring
    found.learn(_whole(await store.get_keys()))
    return found


def _whole(stored: Mapping[int, bytes]) -> dict[int, bytes]:
    """The keys that are not damaged."""
    keys = {by: unpack_key(data) for by, data in stored.items()}
    return {by: key for by, key in keys.items() if key is not None}


async def begin_key(store: RedisStore) -> Keyring:
    """Begin a new key, and give all: what is sealed from here on was said after this (35).

    Raises StoreUnavailable.
    """
    ring = await load_keys(store)
    newest = max(ring.keys, default=0)
    while True:  # until it is ours: another deployment may have begun one in the same millisecond
        newest = max(newest + 1, time.time_ns() // 1_000_000)
        key = secrets.token_bytes(KEY_BYTES)
        if await store.add_key(newest, pack_key(key)):
            break
    ring.learn({newest: key})
    await store.drop_keys(set(await store.get_keys()) - set(ring.keys))
    return ring


async def look_up(store: RedisStore, ring: Keyring, settle_s: float) -> None:
    """Learn the store's keys, however long it is away: what they seal cannot be judged before.

    One that has lost keys which are known here gets back what others know within `settle_s`.
    """
    while True:
        try:
            stored = await store.get_keys()
            if not ring.keys.keys() <= stored.keys():
                await asyncio.sleep(settle_s)
                stored = await store.get_keys()
            ring.learn(_whole(stored))
        except StoreUnavailable:
            await asyncio.sleep(_RETRY_S)
        else:
            return


async def restore_keys(store: RedisStore, ring: Keyring) -> bool:
    """Learn the store's keys, and give it those that it has lost, or that were damaged.

    Whether there were any: then others that it had may be lost still, until who knows them gives
    them back. Raises StoreUnavailable.
    """
    known = _whole(await store.get_keys())
    lost = {by: pack_key(key) for by, key in ring.keys.items() if by not in known}
    if lost:
        await store.put_keys(lost)
    ring.learn(known)
    return bool(lost)
