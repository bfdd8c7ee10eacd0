"""The store of a stack, for somebody who may write to each of its keys.

A bit of some key turns over, or the key is gone; each kind of key is as likely as any. Owners write
anew what they know, so the door opens once in a while only; and somebody deploys the network again
now and then, as readiness asks where tasks are lost (PROTOCOL 27).
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from redis.asyncio import Redis

from loadtest.faults.store_damage import evict_one, turn_bit
from loadtest.hostile.knocks import Knock
from router.deploy import deploy
from router.store.errors import StoreReplyError
from router.supervisor import Stack
from topologies.errors import SpikeRouterError

__all__ = ["StoreDoor", "store_door"]

_PAUSE_S: Final = 0.5
_MISSED_S: Final = 45.0  # a deadline, and its way through the log
_MOST_SINCE: Final = 10
_GENERATION: Final = "snn:generation"
_log = logging.getLogger(__name__)
_EVICTED: Final = 0.25  # of all cases; the others are bits


class StoreDoor:
    """Damages one key at a time: what comes of it shows at the good client."""

    name = "store"

    def __init__(self, client: Redis, deploy_again: Callable[[], Awaitable[object]]) -> None:
        self._client = client
        self._deploy_again = deploy_again
        self._n_since = 0  # keys that were damaged since it was deployed
        self._lock = asyncio.Lock()
        self.damaged_at: float | None = None

    def is_spoiled(self) -> bool:
        """Whether something was damaged so lately that it may still be missed."""
        return self.damaged_at is not None and time.monotonic() - self.damaged_at < _MISSED_S

    async def knock(self, seed: int, number: int) -> Knock:
        """Damage some key, by the choice of the number."""
        dice = random.Random(f"store {seed} {number}")
        async with self._lock:
            await asyncio.sleep(_PAUSE_S)
            is_evicted = dice.random() < _EVICTED
            damage = await (evict_one if is_evicted else turn_bit)(self._client, dice)
            self.damaged_at = time.monotonic()
            self._n_since += 1
            if is_evicted or self._n_since >= _MOST_SINCE:
                await self._mend()
        if damage is None:
            return Knock("nothing", "empty store", "")
        return Knock(damage.kind, "evicted" if is_evicted else "a bit turned", "")

    async def _mend(self) -> None:
        """What is not done now is done the next time."""
        try:
            await self._deploy_again()
        except StoreReplyError:  # it asks for a number that no network is told by
            await self._client.set(_GENERATION, 0)
        except SpikeRouterError as error:
            _log.warning("the network is not deployed again yet: %s", error)
        else:
            self._n_since = 0


@asynccontextmanager
async def store_door(stack: Stack, kinds: Sequence[str]) -> AsyncIterator[StoreDoor]:
    """The door of a stack's store, whichever it is; `kinds` do not concern it."""
    networks = stack.options.networks
    async with Redis.from_url(stack.redis_url) as client:
        yield StoreDoor(client, lambda: deploy(stack.settings, networks))
