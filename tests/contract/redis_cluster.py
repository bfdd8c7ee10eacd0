"""A Redis Cluster of three nodes on loopback, as processes of its own; with replicas if asked for.

async with RedisCluster(replicas=True) as cluster:
    cluster.url                     # redis://127.0.0.1:A,127.0.0.1:B,127.0.0.1:C/0
    cluster.server_of("{p0}")       # the master that had the slot when the cluster was made
"""

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

import redis

from router.processes import free_ports, until
from router.redis_server import RedisServer
from router.store.slots import slot_of

N_MASTERS: Final = 3
_N_SLOTS: Final = 16384
_PATIENCE_S: Final = 60.0


class RedisCluster:
    """`node_timeout_ms` is when the nodes give one up that is silent; a replica then takes over."""

    def __init__(
        self,
        *,
        replicas: bool = False,
        node_timeout_ms: int = 30_000,
        options: tuple[str, ...] = (),
        password: str = "",
    ) -> None:
        ports = free_ports(2 * N_MASTERS * (2 if replicas else 1))
        servers = [
            RedisServer(
                port=port,
                password=password,
                options=(
                    "cluster-enabled yes",
                    f"cluster-port {bus}",
                    f"cluster-node-timeout {node_timeout_ms}",
                    "cluster-replica-validity-factor 0",
                    "enable-debug-command local",
                    *options,
                ),
            )
            for port, bus in zip(ports[::2], ports[1::2], strict=True)
        ]
        self.masters, self.replicas = servers[:N_MASTERS], servers[N_MASTERS:]
        self._buses = dict(zip(ports[::2], ports[1::2], strict=True))
        self._password = password
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            for server in (*self.masters, *self.replicas):
                await self._exits.enter_async_context(server)
            await self._join()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all nodes, and remove their data."""
        await self._exits.aclose()

    @property
    def url(self) -> str:
        """All masters, as SPIKEROUTER_REDIS names them."""
        return f"redis://{','.join(server.address for server in self.masters)}/0"

    def server_of(self, key: str) -> RedisServer:
        """The master that got the key's slot."""
        return self.masters[self._place(slot_of(key))]

    def replica_of(self, key: str) -> RedisServer:
        """The replica of that master."""
        return self.replicas[self._place(slot_of(key))]

    def ask(self, server: RedisServer, *command: str | int) -> Any:
        """Send one command to one node."""
        with redis.Redis(port=server.port, password=self._password or None) as client:
            return client.execute_command(*command)

    async def wait_promoted(self, server: RedisServer) -> None:
        """Return when a replica has become a master, and the cluster serves all slots again."""
        alive = [each for each in (*self.masters, *self.replicas) if each.alive]

        async def is_master() -> bool:
            role: str = (await server.info("replication"))["role"]
            return role == "master" and all([await self._is_whole(each) for each in alive])

        await until(is_master, _PATIENCE_S, "the replica did not take over")

    # ---- how ----------------------------------------------------------------------------------

    def _place(self, slot: int) -> int:
        return slot * N_MASTERS // _N_SLOTS

    async def _join(self) -> None:
        everybody = (*self.masters, *self.replicas)
        for number, server in enumerate(everybody, 1):
            self.ask(server, "CLUSTER", "SET-CONFIG-EPOCH", number)
        firsts = [-(-n * _N_SLOTS // N_MASTERS) for n in range(N_MASTERS + 1)]
        for server, first, end in zip(self.masters, firsts, firsts[1:], strict=False):
            self.ask(server, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        hub = self.masters[0]
        for server in everybody[1:]:
            bus = self._buses[hub.port]
            self.ask(server, "CLUSTER", "MEET", "127.0.0.1", hub.port, bus)
        await self._wait_whole(len(everybody))
        for replica, master in zip(self.replicas, self.masters, strict=False):
            name = self.ask(master, "CLUSTER", "MYID").decode()
            self.ask(replica, "CLUSTER", "REPLICATE", name)
        for replica, master in zip(self.replicas, self.masters, strict=False):
            await self._wait_linked(replica, master)

    async def _wait_whole(self, n_nodes: int) -> None:
        async def is_whole() -> bool:
            states = [await self._is_whole(s, n_nodes) for s in (*self.masters, *self.replicas)]
            return all(states)

        await until(is_whole, _PATIENCE_S, "the nodes did not become a cluster")

    async def _is_whole(self, server: RedisServer, n_nodes: int = 0) -> bool:
        told: bytes = await asyncio.to_thread(self.ask, server, "CLUSTER", "INFO")
        info = dict(line.split(":") for line in told.decode().split())
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) >= n_nodes

    async def _wait_linked(self, replica: RedisServer, master: RedisServer) -> None:
        async def is_linked() -> bool:
            told, source = await replica.info("replication"), await master.info("replication")
            if told["role"] != "slave" or told["master_link_status"] != "up":
                return False
            return int(told["slave_repl_offset"]) >= int(source["master_repl_offset"])

        await until(is_linked, _PATIENCE_S, "a replica did not get its master's data")

    async def wait_replicated(self, key: str) -> None:
        """Return when the replica of the key's master has all that was written there."""
        await self._wait_linked(self.replica_of(key), self.server_of(key))
