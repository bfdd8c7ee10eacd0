"""The stack that faults are played on: real processes, and a proxy before every server.

Workers, gateway, broker and store are the product's own. Each worker reaches the broker and the
store through proxies of its own, and the gateway and the harness reach the store through one, which
is led to the other server after a failover.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from loadtest.faults.proxy import Proxy
from loadtest.faults.worker import new_clock, worker_command
from router.apache import ApacheKafka
from router.deploy import deploy
from router.embedded import EmbeddedBroker
from router.processes import ServerError
from router.redis_server import RedisPair
from router.settings import Settings
from router.supervisor import Child, Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.errors import SpikeRouterError

__all__ = ["World"]

_BROKERS: Final = 3
_RETRY_S: Final = 0.5  # between two attempts to deploy


class World:
    """A running stack of so many workers; use it as `async with World(settings, ...) as world`.

    With `apache` the broker is an Apache Kafka of three brokers, else the embedded one. `release`
    is that of all workers ("" for the product's own), `deadly` a window that kills whoever steps it
    (`loadtest.faults.worker`; "" for none).
    """

    def __init__(
        self,
        settings: Settings,
        networks: Mapping[str, CompiledNetwork],
        *,
        n_workers: int = 4,
        apache: bool = False,
        gateway: bool = True,
        release: str = "",
        deadly: str = "",
    ) -> None:
        self.networks = networks
        self.kafka = ApacheKafka(_BROKERS, heap_mb=384) if apache else None
        self.redis = RedisPair()
        self.store_lock = asyncio.Lock()
        self.broker_lock = asyncio.Lock()
        self._n_workers = n_workers
        self._settings = settings.changed(gateway_port=0)
        self._gateway = gateway
        self._release = release
        self._deadly = deadly
        self._exits = AsyncExitStack()
        self._network = AsyncExitStack()  # of proxies: closed when nobody needs them any more
        self._store_proxies: dict[str, Proxy] = {}
        self._broker_proxies: dict[str, dict[str, Proxy]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="spikerouter-faults-"))
        self._n_extra = 0
        self.stack = Stack(settings)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _start(self) -> None:
        await self._exits.enter_async_context(self._network)
        await self._exits.enter_async_context(self.redis)
        if self.kafka is not None:
            await self._exits.enter_async_context(self.kafka)
        front = await self._store_proxy("")
        options = StackOptions(
            networks=tuple(self.networks.values()), n_workers=0, gateway=self._gateway,
            kafka=None if self.kafka is None else self.kafka.bootstrap,
            redis=f"redis://{front.address}/0",
        )  # fmt: skip
        self.stack = Stack(self._settings, options)
        await self._exits.enter_async_context(self.stack)
        for number in range(1, self._n_workers + 1):
            await self.start_worker(f"worker-{number}")
        await self.stack.wait_ready()

    async def _close(self) -> None:
        await self._exits.aclose()
        shutil.rmtree(self._folder, ignore_errors=True)

    # ---- what there is ------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """Settings for the harness: the store is reached through a proxy."""
        return self.stack.settings

    @property
    def running(self) -> dict[str, Child]:
        """Workers that run now, by name."""
        return {name: w for name, w in sorted(self.stack.workers.items()) if w.running}

    def pids(self) -> dict[str, int]:
        """Process ids of the workers, the gateway and the store that run now."""
        found = {name: worker.pid for name, worker in self.running.items()}
        if self.redis.primary.pid:
            found["store"] = self.redis.primary.pid
        if self.stack.gateway is not None and self.stack.gateway.running:
            found["gateway"] = self.stack.gateway.pid
        return found

    def store_proxy(self, worker: str) -> Proxy:
        """Between this worker and the store."""
        return self._store_proxies[worker]

    def broker_proxies(self, worker: str) -> list[Proxy]:
        """Between this worker and each broker."""
        return list(self._broker_proxies[worker].values())

    def clock(self, worker: str) -> Path:
        """The file of this worker's wall clock."""
        return self._folder / worker

    def brokers(self) -> list[str]:
        """HOST:PORT of each broker."""
        return self.settings.kafka.split(",")

    # ---- workers ------------------------------------------------------------------------------

    async def start_worker(
        self, name: str, *, release: str | None = None, **changes: object
    ) -> Child:
        """Start a worker, with proxies before its servers, a clock of its own, and some of its
        settings changed.
        """
        store = await self._store_proxy(name)
        if name not in self._broker_proxies:
            self._broker_proxies[name] = {
                broker: await self._network.enter_async_context(Proxy(broker))
                for broker in self.brokers()
            }
        redirects = {broker: p.address for broker, p in self._broker_proxies[name].items()}
        command = worker_command(
            name, redirects=redirects, clock=new_clock(self.clock(name)),
            release=self._release if release is None else release, deadly=self._deadly,
        )  # fmt: skip
        redis = f"redis://{store.address}/0"
        return self.stack.start_worker(name, command=command, redis=redis, **changes)

    def extra_name(self) -> str:
        """A name that no worker has had."""
        self._n_extra += 1
        return f"extra-{self._n_extra}"

    async def _store_proxy(self, name: str) -> Proxy:
        if name not in self._store_proxies:
            proxy = Proxy(self.redis.primary.address)
            self._store_proxies[name] = await self._network.enter_async_context(proxy)
        return self._store_proxies[name]

    # ---- servers ------------------------------------------------------------------------------

    async def fail_over(self) -> None:
        """Kill the primary, promote the replica, and make the old primary its replica."""
        await self.redis.fail_over()
        for proxy in self._store_proxies.values():
            proxy.route(self.redis.primary.address)

    async def restore_replica(self) -> None:
        """Start the replica again if need be, and wait until it has all."""
        await self.redis.replica.start()
        await self.redis.replica.follow(self.redis.primary)
        await self.redis.replica.wait_replicated()

    async def deploy(self) -> None:
        """Deploy everything again, as one does after the store has lost its data, and again while
        other faults are in the way: without it nothing is served any more."""
        while True:
            try:
                await deploy(
                    self.settings, list(self.networks.values()), partitions=self.settings.partitions
                )
            except SpikeRouterError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def broker_pid(self) -> int:
        """The process of the embedded broker. Raises ServerError where it does not run."""
        broker = self.stack.broker
        if not isinstance(broker, EmbeddedBroker) or not broker.pid:
            raise ServerError("The stack has no embedded broker that runs.")
        return broker.pid

    def apache(self) -> ApacheKafka:
        """The brokers, where they can be killed and come back."""
        if self.kafka is None:
            raise ServerError("The embedded broker cannot be started again with its data.")
        return self.kafka
