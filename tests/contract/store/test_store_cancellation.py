"""A task that is cancelled while it asks the store ends, however the cancellation falls."""

import asyncio
import random

from router.store.calls import status
from router.store.redis import RedisStore

_TRIES = 200


async def _ask_for_ever(store: RedisStore) -> None:
    while True:
        await store.run(status(0))
        await asyncio.sleep(0)


async def test_task_that_asks_for_ever_ends_when_it_is_cancelled(redis_url: str) -> None:
    rng = random.Random(1)
    for _ in range(_TRIES):
        async with RedisStore.connect(redis_url) as store:
            asking = asyncio.create_task(_ask_for_ever(store))
            await store.run(status(0))
            await asyncio.sleep(rng.random() * 0.002)
            asking.cancel()
            done, _ = await asyncio.wait([asking], timeout=5)
            assert done
            assert asking.cancelled()
