"""The store over TCP: Redis 7 or Valkey, one server or a cluster, through redis.asyncio.

Every method has one deadline for all its round trips, but for those that move blobs: these have one
for each part. Nothing is retried here: a call whose
outcome is unknown raises `StoreUnavailable`, and the protocol knows what to do (rule 23).
"""

import asyncio
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar, cast

from redis import exceptions as errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from router.probe import what_listens
from router.security import redis_options
from router.settings import Settings, SettingsError
from router.store import calls
from router.store.calls import BlobWrite, Call, Query, Reply, StoredCheckpoint, TaskId
from router.store.errors import StoreReplyError, StoreUnavailable, StoreUnfit
from router.store.fitness import Demands, refusal, store_mismatch
from router.store.lua import script
from router.store.manifests import open_manifest, open_names, seal_manifest, seal_name
from router.store.nodes import AWAY, Nodes, ask
from router.store.parts import MOST, Piece, batches, joined, pieces

__all__ = ["RedisStore"]

P = ParamSpec("P")
T = TypeVar("T")

_MANIFESTS = "snn:networks"
_GENERATION = "snn:generation"
_REMOVED = "snn:removed"
_KEYS = "snn:keys"
_WANTED = "snn:wanted"
_NO_URL: Final = (
    "SPIKEROUTER_REDIS is no address of a Redis: legal is "
    "redis://[USER:PASSWORD@]HOST:PORT/DATABASE (rediss:// for TLS, HOST:PORT,HOST:PORT for nodes "
    "of a cluster) or unix:///FILE; special characters of a password are written as %XX."
)
# It runs and cannot write now: its disk is full, it lacks its replicas, or a failover is under way.
_NOT_NOW = re.compile(r"\b(MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN)\b")


def _method(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate["RedisStore", P], Awaitable[T]]:
    """The method that builds a call with `build` and runs it."""

    @wraps(build)
    async def method(self: "RedisStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(build(*args, **kwargs))

    return method


class RedisStore:
    """Runs the calls of `router.store.calls`; use it as `async with RedisStore.connect(url)`.

    Every method raises StoreUnavailable when the store does not answer before the deadline of
    `timeout` seconds, and StoreReplyError when it answers what it should not.
    """

    create_task = _method(calls.create_task)
    mend_task = _method(calls.mend_task)
    remove_task = _method(calls.remove_task)
    claim = _method(calls.claim)
    renew = _method(calls.renew)
    leave = _method(calls.leave)
    release = _method(calls.release)
    want = _method(calls.want)
    commit = _method(calls.commit)
    hand = _method(calls.hand)
    fail_task = _method(calls.fail_task)
    blame = _method(calls.blame)
    status = _method(calls.status)

    def __init__(self, nodes: Nodes, *, timeout: float = 2.0) -> None:
        """`nodes` are closed with the store."""
        self._nodes = nodes
        self._timeout = timeout

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        timeout: float = 2.0,
        security: Mapping[str, Any] | None = None,
        demands: Demands | None = None,
    ) -> Self:
        """A store at `redis://host:port/db`; connects when it is first used.

        Of a cluster several nodes may be named, `redis://a:1,b:2/0`; whether it is one, the first
        that answers tells. `security` are more arguments of `redis.asyncio.Redis.from_url`,
        `demands` what is asked of the servers, None for nothing. Raises ValueError for other URLs.
        """
        options = {
            "decode_responses": False,
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": timeout,
            "socket_timeout": None,  # calls have deadlines; redis-py's can swallow a cancellation
            **(security or {}),
        }
        nodes = Nodes(url, timeout=timeout, options=options, demands=demands)
        return cls(nodes, timeout=timeout)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store that these settings describe; raises SettingsError for unusable files."""
        security = redis_options(settings)
        try:
            return cls.connect(
                settings.redis,
                timeout=settings.store_timeout_s,
                security=security,
                demands=Demands(settings.redis_may_evict, settings.redis_may_forget),
            )
        except ValueError as error:  # its text may quote a password
            raise SettingsError(_NO_URL) from error

    async def __aenter__(self) -> Self:
        """Meet the servers. Raises StoreUnfit for what cannot or must not be the store; one that is
        away is met by the first call that finds it."""
        try:
            await self._meet()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; a call under way fails with StoreUnavailable."""
        await self._nodes.close()

    async def _meet(self) -> None:
        try:
            async with self._deadline("INFO"):
                await self._nodes.meet()
        except (StoreUnavailable, StoreReplyError) as error:
            if self._nodes.is_demanding:
                await self._find_out()
            if not isinstance(error, StoreUnavailable):
                raise

    async def _find_out(self) -> None:
        """Raise StoreUnfit if what answers where the store should be is something else."""
        for address in self._nodes.addresses:
            if found := await what_listens(address.host, address.port):
                has = {"tls": self._nodes.tls, "certificate": self._nodes.has_certificate}
                if why := store_mismatch(found, str(address), **has):
                    raise StoreUnfit(why)

    async def ping(self) -> None:
        """Return when the store answers, each of its servers."""
        async with self._deadline("PING"):
            for client in await self._nodes.masters():
                await ask(client, "PING")

    async def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        """Run one script; it is loaded again when the server has forgotten it."""
        text = script(call.script)
        operands = (len(call.keys), *call.keys, *call.args)

        async def send(client: Redis) -> Any:
            try:
                return await ask(client, "EVALSHA", text.sha, *operands)
            except errors.NoScriptError:
                return await ask(client, "EVAL", text.text, *operands)

        async with self._deadline(call.script, timeout):
            reply = await self._nodes.at(call.keys[0], send)
        return call.read(reply)

    async def read(self, query: Query[T], *, timeout: float | None = None) -> T:
        """Run the read commands of a query."""
        return query.read(await self._execute(query.commands, timeout))

    async def write_blobs(
        self, writes: Sequence[BlobWrite], *, timeout: float | None = None
    ) -> None:
        """Write blobs that vanish unless a commit names them in time."""
        for batch in batches(writes, lambda write: len(write.data)):
            await self.run(calls.write(batch), timeout=timeout)

    async def load(self, task: TaskId, *, timeout: float | None = None) -> StoredCheckpoint | None:
        """The last checkpoint with both versions of every blob; None when there is none.

        Only the owner of the lease may load: nobody else's commit can then come in between. It
        comes in parts, each with a deadline of its own: how much there is of it does not matter.
        """
        query = calls.load_references(task)
        *small, (_, streams) = query.commands
        found = [*await self._some(small, timeout), await self._scan(str(streams), timeout)]
        references = query.read(found)
        if references is None:
            return None
        blobs = calls.load_blobs(references)
        data = await self._blobs([str(key) for _, key in blobs.commands], timeout)
        return blobs.read([data.get(str(key)) for _, key in blobs.commands])

    async def _scan(self, key: str, timeout: float | None) -> dict[bytes, bytes]:
        """A hash that may be long."""
        found: dict[bytes, bytes] = {}
        cursor: int | None = None
        while cursor != 0:
            (reply,) = await self._some([("HSCAN", key, cursor or 0, "COUNT", MOST)], timeout)
            if reply is None:
                return {}
            cursor, some = cast("tuple[int, dict[bytes, bytes]]", reply)
            found |= some
        return found

    async def _blobs(self, keys: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        """The blobs under these keys, without those that are gone."""
        sizes: dict[str, int] = {}
        for names in batches(keys, lambda _: 0):
            lengths = await self._some([("STRLEN", name) for name in names], timeout)
            sizes |= {n: cast(int, size) for n, size in zip(names, lengths, strict=True) if size}
        found: list[tuple[Piece, bytes]] = []
        for part in batches(pieces(sizes), lambda piece: piece.stop - piece.start):
            ranges = [("GETRANGE", p.key, p.start, p.stop - 1) for p in part]
            data = cast("list[bytes]", await self._some(ranges, timeout))
            found += zip(part, data, strict=True)
        return joined(found)

    async def _some(
        self, commands: Sequence[tuple[calls.Arg, ...]], timeout: float | None
    ) -> list[Reply]:
        """Commands of one partition with one deadline; None for what is of another type: it counts
        as lost."""
        if not commands:
            return []
        async with self._deadline("load", timeout):
            send = partial(_pipelined, commands)
            replies = await self._nodes.at(commands[0][1], send)
            return [_unless_mistyped(reply) for reply in replies]

    async def put_manifest(self, network: str, manifest: bytes) -> None:
        """Write a network's manifest, then list its name."""
        sealed = seal_manifest(network, manifest)
        await self._execute([("SET", f"snn:network:{network}", sealed)])
        await self._execute([("SADD", _MANIFESTS, seal_name(network))])
        await self._execute([("SREM", _REMOVED, seal_name(network))])

    async def get_manifest(self, network: str) -> bytes | None:
        """A network's manifest; None when it is not deployed. Raises ManifestDamaged."""
        data = await self._get(f"snn:network:{network}")
        return None if data is None else open_manifest(network, data)

    async def restore_manifest(self, network: str, manifest: bytes) -> None:
        """Write a manifest anew that the store has lost, by who remembers it (27).

        A removal says so before it takes the manifest away: who came between takes its own back.
        """
        sealed = seal_manifest(network, manifest)
        await self._execute([("SET", f"snn:network:{network}", sealed)])
        await self._execute([("SADD", _MANIFESTS, seal_name(network))])
        if network in await self.removed_networks():
            await self._execute([("SREM", _MANIFESTS, seal_name(network))])
            await self._execute([("UNLINK", f"snn:network:{network}")])

    async def remove_manifest(self, network: str) -> None:
        """Write that it was removed, take its name off the list, delete what there is of it."""
        await self._execute([("SADD", _REMOVED, seal_name(network))])
        await self._execute([("SREM", _MANIFESTS, seal_name(network))])
        await self._execute([("UNLINK", f"snn:network:{network}")])
        await self._execute([("UNLINK", f"snn:begin:{network}")])

    async def removed_networks(self) -> frozenset[str]:
        """The networks that were removed: one that is neither here nor listed, the store forgot."""
        (names,) = await self._execute([("SMEMBERS", _REMOVED)])
        return frozenset(open_names(cast("set[bytes]", names)))

    async def put_begin(self, network: str, begin: bytes) -> None:
        """Write where a network begins in its topics, unless that is known already (31)."""
        await self._execute([("SET", f"snn:begin:{network}", begin, "NX")])

    async def get_begin(self, network: str) -> bytes | None:
        """Where a network begins in its topics; None: at their beginning."""
        return await self._get(f"snn:begin:{network}")

    async def begin_generation(self) -> None:
        """Tasks that are deployed from now on have other keys than those before (31)."""
        await self._execute([("INCR", _GENERATION)])

    async def restore_generation(self, known: int) -> None:
        """Write how often a generation was begun, unless the store still knows."""
        await self._execute([("SET", _GENERATION, known, "NX")])

    async def generation(self) -> int:
        """How often a generation was begun."""
        known = await self._get(_GENERATION) or b"0"
        if not known.isdigit():
            raise StoreReplyError(
                f"snn:generation in the store is {known!r}, which is no number: write the largest"
                " number there that stands behind @ in the name of a task."
            )
        return int(known)

    async def get_keys(self) -> dict[int, bytes]:
        """The keys of seals as they are stored, by id: `router.seals.unpack_key` judges them."""
        (found,) = await self._execute([("HGETALL", _KEYS)])
        pairs = cast("dict[bytes, bytes]", found).items()
        return {int(by): data for by, data in pairs if by.isdigit()}

    async def add_key(self, by: int, data: bytes) -> bool:
        """Write a key under an id that is free; False when it is not."""
        (is_new,) = await self._execute([("HSETNX", _KEYS, str(by), data)])
        return bool(is_new)

    async def put_keys(self, keys: Mapping[int, bytes]) -> None:
        """Write keys that the store has lost, or that were damaged there."""
        pairs = [part for by, data in keys.items() for part in (str(by), data)]
        await self._execute([("HSET", _KEYS, *pairs)])

    async def drop_keys(self, ids: Iterable[int]) -> None:
        """Delete keys that are too old to be kept."""
        old = [str(by) for by in ids]
        if old:
            await self._execute([("HDEL", _KEYS, *old)])

    async def list_networks(self) -> tuple[str, ...]:
        """The names of all deployed networks, sorted."""
        (names,) = await self._execute([("SMEMBERS", _MANIFESTS)])
        return tuple(sorted(open_names(cast("set[bytes]", names))))

    async def put_artifact(self, operator: str, artifact: bytes) -> None:
        """Write an operator's artifact; its id is the hash of the bytes, so this is idempotent."""
        await self._execute([("SET", f"snn:artifact:{operator}", artifact)])

    async def get_artifact(self, operator: str) -> bytes | None:
        """An operator's artifact, to be verified by the caller; None when there is none."""
        return await self._get(f"snn:artifact:{operator}")

    async def remove_artifact(self, operator: str) -> None:
        """Delete an operator's artifact, which no deployed network may use."""
        await self._execute([("UNLINK", f"snn:artifact:{operator}")])

    async def want_artifact(self, operator: str) -> None:
        """Tell that an artifact is lost or damaged: who holds the operator writes it anew (27)."""
        await self._execute([("SADD", _WANTED, operator)])

    async def wanted_artifacts(self) -> frozenset[str]:
        """The operators whose artifacts somebody could not read."""
        (found,) = await self._execute([("SMEMBERS", _WANTED)])
        return frozenset(each.decode(errors="replace") for each in cast("set[bytes]", found))

    async def want_no_more(self, operator: str) -> None:
        """Its artifact is there again."""
        await self._execute([("SREM", _WANTED, operator)])

    async def released(self, partitions: Iterable[int]) -> AsyncGenerator[TaskId, None]:
        """Tasks as they are given back, as far as the store tells it: some may be missed.

        A cluster tells all its nodes what one is told: any of them will do.
        """
        channels = [calls.released_channel(p) for p in partitions]
        client = await self._listening_at(channels[0])
        with self._translated("SUBSCRIBE", self._timeout):
            async with client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(*channels)
                async for message in channel.listen():
                    yield TaskId.parse(message["data"].decode())

    async def _listening_at(self, channel: str) -> Redis:
        async with self._deadline("SUBSCRIBE"):
            return await self._nodes.at(channel, _itself)

    async def _get(self, key: str) -> bytes | None:
        (reply,) = await self._execute([("GET", key)])
        return cast("bytes | None", reply)

    async def _execute(
        self, commands: Sequence[tuple[calls.Arg, ...]], timeout: float | None = None
    ) -> list[Reply]:
        """Run commands, those of a partition as of one instant; a key stands after each name."""
        found: dict[int, Reply] = {}
        async with self._deadline(str(commands[0][0]) if commands else "nothing", timeout):
            for places in await self._nodes.groups(commands):
                for start in range(0, len(places), MOST):
                    some = places[start : start + MOST]
                    batch = [commands[place] for place in some]
                    send = partial(_transaction, batch)
                    replies = await self._nodes.at(batch[0][1], send)
                    found.update(zip(some, replies, strict=True))
        return [found[place] for place in range(len(commands))]

    @asynccontextmanager
    async def _deadline(self, what: str, timeout: float | None = None) -> AsyncIterator[None]:
        limit = self._timeout if timeout is None else timeout
        with self._translated(what, limit):
            try:
                async with asyncio.timeout(limit):
                    yield
            except errors.ReadOnlyError:
                await self._nodes.disconnect()  # it became a replica: ask anew
                raise

    @contextmanager
    def _translated(self, what: str, limit: float) -> Iterator[None]:
        try:
            yield
        except AWAY as error:
            self._nodes.doubt()
            why = refusal(_told(error), self._nodes.where)
            if why is not None and not self._nodes.met:
                raise StoreUnfit(why) from error
            raise StoreUnavailable(
                f"The store did not complete {what!r} within {limit:g} s "
                f"({type(error).__name__}: {why or error}). Check that it runs; the call may be "
                "repeated."
            ) from error
        except errors.RedisError as error:
            if _NOT_NOW.search(str(error)):
                raise StoreUnavailable(
                    f"The store cannot complete {what!r} now: {error}. Check its disk and its "
                    "replicas; the call may be repeated."
                ) from error
            if why := refusal(_told(error), self._nodes.where):
                raise StoreUnfit(why) from error
            raise StoreReplyError(f"The store refused {what!r}: {error}.") from error


async def _itself(client: Redis) -> Redis:
    return client


async def _transaction(commands: Sequence[tuple[calls.Arg, ...]], client: Redis) -> list[Reply]:
    async with client.pipeline(transaction=True) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Reply] = await pipeline.execute()
        return replies


async def _pipelined(commands: Sequence[tuple[calls.Arg, ...]], client: Redis) -> list[Any]:
    """The replies, errors of single commands among them; one that moved is the whole's."""
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception) and not _is_mistyped(reply):
            raise reply
    return replies


def _is_mistyped(reply: object) -> bool:
    return isinstance(reply, errors.ResponseError) and "WRONGTYPE" in str(reply)


def _unless_mistyped(reply: Any) -> Reply:
    return None if _is_mistyped(reply) else cast(Reply, reply)


def _told(error: BaseException) -> str:
    """What an error and those it came from say; redis-py keeps the server's first word apart."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        texts += [getattr(link, "status_code", None) or "", str(link)]
        link = link.__cause__ or link.__context__
    return " ".join(filter(None, texts))
