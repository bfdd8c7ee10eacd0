"""One task at work on this host: the async shell around a tenancy.

Two loops share the tenancy. `_apply` takes micro-batches, has them computed on a thread and sends
what comes out; `_checkpoint` runs the steps of `workers.tenancy`. Neither decides anything.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from functools import partial
from typing import Any, Final

from aiokafka.errors import KafkaError

from router.bus import Bus
from router.sending import Lane
from router.settings import Settings
from router.store.calls import Claimed, CommitOutcome
from router.store.errors import StoreUnavailable
from router.store.redis import RedisStore
from topologies.errors import SpikeRouterError
from workers.hand import is_of_records
from workers.pool import FairPool
from workers.snapshot import Stored
from workers.tenancy import TenancyLostError, TokenRefusedError, tenancy_of
from workers.tenant import Output, Tenant

__all__ = ["Hosted", "SendFailedError"]

_TICK_S: Final = 0.5
_RETRY_S: Final = 0.05
_GATHER_S: Final = 0.1  # windows of an input wait for each other so long, if no result comes
_log = logging.getLogger(__name__)


class SendFailedError(SpikeRouterError, RuntimeError):
    """Kafka refused an output for good: the tenancy ends, nothing is skipped (PROTOCOL 12)."""


class Hosted:
    """Runs one tenancy until it is lost, handed over or cancelled."""

    def __init__(
        self,
        settings: Settings,
        claim: Claimed,
        tenant: Tenant,
        bus: Bus,
        store: RedisStore,
        pool: FairPool,
        stored: Stored | None,
    ) -> None:
        self.claim = claim
        self.tenant = tenant
        self.tenancy = tenancy_of(claim.task, claim.token, tenant, stored)
        self.caught_up = asyncio.Event()
        self.committed_at = 0.0
        self.doubt: Callable[[], None] = lambda: None
        self._settings = settings
        self._bus = bus
        self._lane: Lane | None = None
        self._sending = asyncio.Lock()
        self._store = store
        self._pool = pool
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._interval = settings.checkpoint_interval_ms / 1000
        self._busy = False
        self._gather_until = 0.0
        self._stopping = False
        self._failure: BaseException | None = None
        self._bytes_at_commit = 0
        self._hand = asyncio.Lock()
        self._shown = ""
        self._doubted = ""  # a token that the store refused
        self._doubted_until = 0.0

    # ---- what the host calls ------------------------------------------------------------------

    def wake(self) -> None:
        """There may be something to apply or to send."""
        if not self.caught_up.is_set() and self.tenancy.is_caught_up():
            self.caught_up.set()
        self._wake.set()

    async def run(self) -> None:
        """Work until the tenancy ends. Raises what ended it."""
        self.wake()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._apply())
            group.create_task(self._checkpoint())
            group.create_task(self._tick())

    async def hand_over(self) -> None:
        """Apply no more, write a last checkpoint, give the lease back."""
        self._stopping = True
        while self._busy or self.tenancy.is_committing:
            await self._wait_progress(self._interval)
        await self._send_outputs()
        # A store that may evict has perhaps dropped what is no news.
        self.tenancy.full |= self._settings.redis_may_evict
        while self.tenancy.begin():  # until one is accepted: what is lost here would be replayed
            await self._commit()
        await self._store.release(self.claim.task, self.claim.token)

    # ---- loops --------------------------------------------------------------------------------

    async def _apply(self) -> None:
        tenant = self.tenant
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._raise_failure()
            while (work := await self._next()) is not None:
                self._busy = True
                try:
                    async with self._in_hand(work):
                        result = self._pool.submit(work.shares, partial(tenant.compute, work))
                        tenant.apply(work, await asyncio.wrap_future(result))
                finally:
                    self._busy = False
                await self._send_outputs()
                self._gather_until = asyncio.get_running_loop().time() + _GATHER_S
                self._raise_failure()
            await self._send_outputs()
            if not self.caught_up.is_set() and self.tenancy.is_caught_up():
                self.caught_up.set()
            self._progress.set()

    async def _next(self) -> Any | None:
        """The next micro-batch, if there is one and it may go."""
        if self.tenant.is_crowded:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._gather_until):
                    await self._gather()
        return None if self._stopping else self.tenant.work()

    async def _gather(self) -> None:
        """Let windows come together while enough are on their way."""
        while self.tenant.is_crowded and not self._stopping:
            self._wake.clear()
            await self._wake.wait()
            self._raise_failure()

    async def _checkpoint(self) -> None:
        """Commit every interval while something changes, and at once when much was read."""
        while True:
            await self._until_due()
            if self._stopping or self._is_doubted() or not self.tenancy.begin():
                # Much may be read and nothing be there to write: an ingest that has no era yet.
                await self._wait_progress(self._interval)
                continue
            await self._send_outputs()
            await self._commit()
            self._wake.set()

    def _is_doubted(self) -> bool:
        """Whether the lease book is being asked what a refused token means.

        LOST cancels these loops; VANISHED brings another token, and this state may be the only one
        that is left of the task (27). Without a word for a time to live, the commit is tried again.
        """
        now = asyncio.get_running_loop().time()
        return self.tenancy.token == self._doubted and now < self._doubted_until

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.tenant.tick(loop.time())
            self._wake.set()
            await asyncio.sleep(_TICK_S)

    # ---- checkpoint ---------------------------------------------------------------------------

    async def _until_due(self) -> None:
        """The interval is over, `checkpoint_bytes` were read, or it is to be said that the owner
        lives; then wait for a quiet instant.

        A snapshot between two micro-batches has few waiting windows in its inbox.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval
        while (left := due - loop.time()) > 0 and not (self._read_much() or self._clears_itself()):
            await self._wait_progress(left)
        latest = loop.time() + self._interval
        while self._busy and loop.time() < latest:
            await self._wait_progress(self._interval)

    def _clears_itself(self) -> bool:
        """Whether the next checkpoint says at last that owners do not die of this task (28)."""
        is_doubtful = self.claim.claims > 1 and not self.tenancy.n_commits
        return is_doubtful and self.caught_up.is_set()

    def _read_much(self) -> bool:
        read = self.tenant.reading.n_bytes - self._bytes_at_commit
        return read > self._settings.checkpoint_bytes

    async def _commit(self) -> None:
        """Steps 2 to 5 of `workers.tenancy`. Raises TenancyLostError when the task must go."""
        while (plan := self.tenancy.plan(secrets.token_hex(8))) is None:
            self._raise_failure()
            await self._wait_progress(self._interval)
        outcome: CommitOutcome | None = None
        try:
            await self._store.write_blobs(plan.blobs)
            outcome = await self._store.run(plan.call)
        except StoreUnavailable as error:
            _log.warning("checkpoint of %s is in doubt: %s", self.claim.task, error)
            await asyncio.sleep(_RETRY_S)
        if outcome is not CommitOutcome.OK:
            self.tenant.counts["checkpoints_refused_total"] += 1
        if outcome is CommitOutcome.TOKEN:
            self.tenant.counts["fenced_writes_total"] += 1
        try:
            self.tenancy.finished(outcome)
        except TokenRefusedError:
            if self._stopping:
                raise
            self._doubted = self.tenancy.token
            ttl_s = self._settings.lease_ttl_ms / 1000
            self._doubted_until = asyncio.get_running_loop().time() + ttl_s
            self.doubt()
        self._bytes_at_commit = self.tenant.reading.n_bytes
        if outcome is CommitOutcome.OK:
            self.tenant.counts["checkpoints_total"] += 1
            self.committed_at = asyncio.get_running_loop().time()

    async def _wait_progress(self, seconds: float) -> None:
        self._progress.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._progress.wait()
        except TimeoutError:
            return

    # ---- sending ------------------------------------------------------------------------------

    async def _send_outputs(self) -> None:
        """Queue what there is, in order: both loops come here, and neither may overtake (12)."""
        async with self._sending:
            for index, output in self.tenancy.take_outputs():
                self._raise_failure()
                await self._send(index, output)

    async def _send(self, index: int, output: Output) -> None:
        try:
            self._lane = self._lane or self._bus.lane()
            future = await self._lane.send(*output)
        except KafkaError as error:
            self._failure = self._failure or self._refused(repr(error))
            raise self._failure from error

        def done(acknowledged: Awaitable[Any]) -> None:
            self._on_acknowledged(index, acknowledged)

        future.add_done_callback(done)

    def _on_acknowledged(self, index: int, future: Any) -> None:
        if future.cancelled():
            self._failure = self._refused("it was not written in time")
        elif (error := future.exception()) is not None:
            self._failure = self._refused(repr(error))
        else:
            self.tenancy.acknowledged(index)
            if self.tenancy.is_committing:
                self._progress.set()
            return
        self._wake.set()
        self._progress.set()

    def _refused(self, why: str) -> SendFailedError:
        return SendFailedError(f"Kafka did not take an output of task {self.claim.task}: {why}.")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # ---- what is in hand ----------------------------------------------------------------------

    @asynccontextmanager
    async def hand_of(self, hand: str) -> AsyncIterator[None]:
        """Do one thing that may kill, and nothing else that may, once the store knows of it (28).

        Raises TenancyLostError when the task is another worker's.
        """
        async with self._hand:
            if not await self._show(hand):
                raise TenancyLostError(f"Task {self.claim.task} is another worker's now.")
            yield

    async def let_go(self) -> None:
        """The records that were named are taken in: who dies from here on did not die of them."""
        async with self._hand:
            if is_of_records(self._shown):
                await self._show("")

    def _in_hand(self, work: Any) -> AbstractAsyncContextManager[None]:
        if not self.claim.suspicious:
            return nullcontext()
        return self.hand_of(self.claim.shown(work.hand))

    async def _show(self, hand: str) -> bool:
        """Write what may kill, so that a crash names it; wait for the store."""
        while hand != self._shown:
            try:
                if not await self._store.hand(self.claim.task, self.claim.token, hand):
                    return False
            except StoreUnavailable as error:
                _log.warning("task %s is not stepped: %s", self.claim.task, error)
                await asyncio.sleep(_RETRY_S)
            else:
                self._shown = hand
        return True
