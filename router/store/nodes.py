"""The servers behind the store's URL: one Redis, or the nodes of a Redis Cluster.

Which of both it is, the server says itself: the first command that a store sends is INFO. From then
on a cluster's keys are looked for at the node that has their slot. A node that says where a slot
has moved to is believed at once; after any failure the nodes are asked anew, beginning with another
one each time. Nothing is sent twice but what a node has refused to begin (MOVED).

Why not redis-py's RedisCluster: ADR 54.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

from redis import exceptions as errors
from redis.asyncio import Redis

from router.store.calls import Arg
from router.store.errors import StoreUnfit
from router.store.fitness import Demands, unfit
from router.store.slots import Address, SlotMap, by_slot, slot_map, slot_of

__all__ = ["AWAY", "Nodes", "ask", "split_url"]

T = TypeVar("T")

AWAY: Final = (
    TimeoutError,
    OSError,
    errors.ConnectionError,
    errors.TimeoutError,
    errors.BusyLoadingError,
    errors.ReadOnlyError,
    errors.OutOfMemoryError,
    # A cluster that elects a master, or moves a slot: its keys are refused for a moment. ASK too:
    # scripts must see a partition whole, so none runs where only some of its keys have come to.
    errors.ClusterDownError,
    errors.TryAgainError,
    errors.AskError,
)
"""What passes by itself."""

_REDIRECTS: Final = 5  # a slot that moves on as often while it is looked for does not settle now
_SHARE: Final = 0.25  # of a call's deadline, for one node to tell who serves what


class Nodes:
    """Clients of the servers; they are made when they are first used."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        options: Mapping[str, Any],
        demands: Demands | None = None,
    ) -> None:
        """`demands` are made of each server at the first meeting; None for none.

        Raises ValueError for a URL that is none.
        """
        self._urls = split_url(url)
        self._options = dict(options)
        self._timeout = timeout
        self._demands = demands
        self._clients: dict[str, Redis] = {}
        self._seeds = [self._client(each) for each in self._urls]
        self._only: Redis | None = None
        self._slots: SlotMap | None = None
        self._stale = False
        self._turn = 0
        self._lock = asyncio.Lock()

    @property
    def where(self) -> str:
        """The servers as the URL names them, without user and password."""
        return ",".join(_place(url) for url in self._urls)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Host and port of each server that the URL names; none of a socket file."""
        parts = [urlsplit(url) for url in self._urls]
        return tuple(Address(p.hostname or "localhost", p.port or 6379) for p in parts if p.netloc)

    @property
    def tls(self) -> bool:
        """Whether the servers are spoken to over TLS."""
        return self._urls[0].startswith("rediss://")

    @property
    def has_certificate(self) -> bool:
        """Whether a certificate of ours is shown to them."""
        return "ssl_certfile" in self._options

    @property
    def met(self) -> bool:
        """Whether a server has answered, and is what was asked for."""
        return self._only is not None or self._slots is not None

    @property
    def is_demanding(self) -> bool:
        """Whether something is asked of the servers."""
        return self._demands is not None

    async def meet(self) -> None:
        """Find out what the servers are, unless that is known. Raises StoreUnfit for what they
        must not be, and what redis-py raises."""
        if self.met:
            return
        async with self._lock:
            if not self.met:
                await self._meet()

    async def at(self, key: Arg, send: Callable[[Redis], Awaitable[T]]) -> T:
        """Run `send` with the client of the node that has the key."""
        for _ in range(_REDIRECTS - 1):
            try:
                return await send(await self._of(key))
            except errors.MovedError as error:
                self._follow(error)
        return await send(await self._of(key))

    async def groups(self, commands: Sequence[Sequence[Arg]]) -> list[list[int]]:
        """Places of the commands that one node can run as one transaction."""
        await self.meet()
        return by_slot(commands) if self._slots is not None else [[*range(len(commands))]]

    async def masters(self) -> list[Redis]:
        """The clients of all servers that keep data."""
        if self._stale or not self.met:
            await self._of("")
        if self._slots is None:
            return [] if self._only is None else [self._only]
        return [self._client(self._url(node)) for node in self._slots.masters]

    def doubt(self) -> None:
        """Something failed: who serves which slots is asked anew before the next call."""
        self._stale = self._slots is not None

    async def disconnect(self) -> None:
        """Close the connections that nobody uses: the next calls make new ones."""
        for client in self._clients.values():
            await client.connection_pool.disconnect()

    async def close(self) -> None:
        """Close all of them; a call under way fails."""
        for client in self._clients.values():
            await client.aclose()

    # ---- how ----------------------------------------------------------------------------------

    def _client(self, url: str) -> Redis:
        if url not in self._clients:
            self._clients[url] = Redis.from_url(url, **self._options)
        return self._clients[url]

    def _url(self, node: Address) -> str:
        """The URL of a node: that of the first seed with another host and port."""
        parts = urlsplit(self._urls[0])
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{node}"))

    async def _of(self, key: Arg) -> Redis:
        await self.meet()
        if self._only is not None:
            return self._only
        if self._stale:
            async with self._lock:
                if self._stale:
                    await self._ask_for_slots()
        owner = None if self._slots is None else self._slots.owner(slot_of(key))
        if owner is None:
            self.doubt()
            raise errors.ClusterDownError(f"no node serves the slot of {key!r}")
        return self._client(self._url(owner))

    def _follow(self, error: errors.MovedError) -> None:
        """What MOVED says; a node that does not know its own name means the one that was asked."""
        if self._slots is not None and error.host:
            self._slots = self._slots.with_moved(error.slot_id, Address(error.host, error.port))
        else:
            self.doubt()

    async def _meet(self) -> None:
        """The first of the servers that answers says whether it is one of a cluster."""
        last: Exception = errors.ConnectionError("no server is named")
        for url, client in zip(self._urls, self._seeds, strict=True):
            try:
                info = await ask(client, "INFO")
            except errors.AuthenticationError:
                raise
            except AWAY as error:
                last = error
                continue
            if not info.get("cluster_enabled"):
                self._check(info, _place(url))
                self._be_one(client)
                return
            self._slots = await self._check_nodes(await self._slots_by(client))
            return
        raise last

    def _be_one(self, client: Redis) -> None:
        if len(self._seeds) > 1:
            raise StoreUnfit(
                f"SPIKEROUTER_REDIS names {len(self._seeds)} servers ({self.where}), which only a "
                "Redis Cluster has, and the first that answers is none (cluster-enabled no): name "
                "one server, or those of a cluster."
            )
        self._only = client

    async def _check_nodes(self, slots: SlotMap) -> SlotMap:
        """Make the demands of every node that keeps data; one that is away now is not asked."""
        for node in slots.masters if self._demands is not None else ():
            try:
                async with asyncio.timeout(self._timeout * _SHARE):
                    info = await ask(self._client(self._url(node)), "INFO")
            except errors.AuthenticationError:
                raise
            except AWAY:
                continue
            self._check(info, str(node))
        return slots

    def _check(self, info: Mapping[str, Any], where: str) -> None:
        if self._demands is not None and (why := unfit(info, self._demands, where)):
            raise StoreUnfit(why)

    async def _ask_for_slots(self) -> None:
        known = [] if self._slots is None else [self._url(node) for node in self._slots.nodes]
        urls = [*dict.fromkeys([*known, *self._urls])]
        self._turn += 1
        last: Exception = errors.ConnectionError("no node is known")
        for step in range(len(urls)):
            client = self._client(urls[(self._turn + step) % len(urls)])
            try:
                async with asyncio.timeout(self._timeout * _SHARE):
                    self._slots = await self._slots_by(client)
            except AWAY as error:
                last = error
            else:
                self._stale = False
                return
        raise last

    async def _slots_by(self, client: Redis) -> SlotMap:
        kwargs = client.connection_pool.connection_kwargs
        asked = Address(kwargs.get("host", "localhost"), kwargs.get("port", 6379))
        reply = await ask(client, "CLUSTER", "SLOTS")
        return slot_map(reply, asked)


async def ask(client: Redis, *command: Arg) -> Any:
    """Send one command; its reply as redis-py gives it."""
    execute: Callable[..., Awaitable[Any]] = client.execute_command
    return await execute(*command)


def split_url(url: str) -> tuple[str, ...]:
    """`redis://USER:PASSWORD@A:1,B:2/0` as one URL per server, in that order."""
    parts = urlsplit(url)
    if not parts.netloc:  # a socket file
        return (url,)
    user, at, hosts = parts.netloc.rpartition("@")
    names = [host.strip() for host in hosts.split(",") if host.strip()] or [hosts]
    return tuple(urlunsplit(parts._replace(netloc=f"{user}{at}{name}")) for name in names)


def _place(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path
