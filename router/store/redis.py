"""The store over TCP: Redis 7 or Valkey, through redis.asyncio.

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
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from redis import exceptions as errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from router.security import redis_options
from router.settings import Settings
from router.store import calls
from router.store.calls import BlobWrite, Call, Query, Reply, StoredCheckpoint, TaskId
from router.store.errors import StoreReplyError, StoreUnavailable
from router.store.lua import script
from router.store.manifests import open_manifest, seal_manifest
from router.store.parts import MOST, Piece, batches, joined, pieces

__all__ = ["RedisStore"]

P = ParamSpec("P")
T = TypeVar("T")

_MANIFESTS = "snn:networks"
_GENERATION = "snn:generation"
_REMOVED = "snn:removed"
_AWAY = (
    TimeoutError,
    OSError,
    errors.ConnectionError,
    errors.TimeoutError,
    errors.BusyLoadingError,
    errors.ReadOnlyError,
    errors.OutOfMemoryError,
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
    status = _method(calls.status)

    def __init__(self, client: Redis, *, timeout: float = 2.0) -> None:
        """`client` is closed with the store; it must neither retry nor decode replies."""
        self._client = client
        self._command: Callable[..., Awaitable[Any]] = client.execute_command
        self._timeout = timeout

    @classmethod
    def connect(
        cls, url: str, *, timeout: float = 2.0, security: Mapping[str, Any] | None = None
    ) -> Self:
        """A store at `redis://host:port/db`; connects when it is first used.

        `security` are more arguments of `redis.asyncio.Redis.from_url`.
        """
        client = Redis.from_url(
            url,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=timeout,
            socket_timeout=None,  # calls have deadlines; redis-py's can swallow a cancellation
            **(security or {}),
        )
        return cls(client, timeout=timeout)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store that these settings describe; raises SettingsError for unusable files."""
        return cls.connect(
            settings.redis, timeout=settings.store_timeout_s, security=redis_options(settings)
        )

    async def __aenter__(self) -> Self:
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
        await self._client.aclose()

    async def ping(self) -> None:
        """Return when the store answers."""
        await self._execute([("PING",)])

    async def run(self, call: Call[T], *, timeout: float | None = None) -> T:
        """Run one script; it is loaded again when the server has forgotten it."""
        text = script(call.script)
        operands = (len(call.keys), *call.keys, *call.args)
        async with self._deadline(call.script, timeout):
            try:
                reply = await self._command("EVALSHA", text.sha, *operands)
            except errors.NoScriptError:
                reply = await self._command("EVAL", text.text, *operands)
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
        """Commands with one deadline; None for what is of another type: it counts as lost."""
        async with (
            self._deadline("load", timeout),
            self._client.pipeline(transaction=False) as pipeline,
        ):
            for command in commands:
                pipeline.execute_command(*command)
            replies = await pipeline.execute(raise_on_error=False)
        return [_unless_mistyped(reply) for reply in replies]

    async def put_manifest(self, network: str, manifest: bytes) -> None:
        """Write a network's manifest, then list its name."""
        sealed = seal_manifest(network, manifest)
        await self._execute([("SET", f"snn:network:{network}", sealed)])
        await self._execute([("SADD", _MANIFESTS, network)])
        await self._execute([("SREM", _REMOVED, network)])

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
        await self._execute([("SADD", _MANIFESTS, network)])
        if network in await self.removed_networks():
            await self._execute([("SREM", _MANIFESTS, network)])
            await self._execute([("UNLINK", f"snn:network:{network}")])

    async def remove_manifest(self, network: str) -> None:
        """Write that it was removed, take its name off the list, delete what there is of it."""
        await self._execute([("SADD", _REMOVED, network)])
        await self._execute([("SREM", _MANIFESTS, network)])
        await self._execute([("UNLINK", f"snn:network:{network}")])
        await self._execute([("UNLINK", f"snn:begin:{network}")])

    async def removed_networks(self) -> frozenset[str]:
        """The networks that were removed: one that is neither here nor listed, the store forgot."""
        (names,) = await self._execute([("SMEMBERS", _REMOVED)])
        return frozenset(name.decode() for name in cast("set[bytes]", names))

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

    async def list_networks(self) -> tuple[str, ...]:
        """The names of all deployed networks, sorted."""
        (names,) = await self._execute([("SMEMBERS", _MANIFESTS)])
        return tuple(sorted(name.decode() for name in cast("set[bytes]", names)))

    async def put_artifact(self, operator: str, artifact: bytes) -> None:
        """Write an operator's artifact; its id is the hash of the bytes, so this is idempotent."""
        await self._execute([("SET", f"snn:artifact:{operator}", artifact)])

    async def get_artifact(self, operator: str) -> bytes | None:
        """An operator's artifact, to be verified by the caller; None when there is none."""
        return await self._get(f"snn:artifact:{operator}")

    async def remove_artifact(self, operator: str) -> None:
        """Delete an operator's artifact, which no deployed network may use."""
        await self._execute([("UNLINK", f"snn:artifact:{operator}")])

    async def released(self, partitions: Iterable[int]) -> AsyncGenerator[TaskId, None]:
        """Tasks as they are given back, as far as the store tells it: some may be missed."""
        with _translated("SUBSCRIBE", self._timeout):
            async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(*(calls.released_channel(p) for p in partitions))
                async for message in channel.listen():
                    yield TaskId.parse(message["data"].decode())

    async def _get(self, key: str) -> bytes | None:
        (reply,) = await self._execute([("GET", key)])
        return cast("bytes | None", reply)

    async def _execute(
        self, commands: Sequence[tuple[calls.Arg, ...]], timeout: float | None = None
    ) -> list[Reply]:
        replies: list[Reply] = []
        async with self._deadline(str(commands[0][0]) if commands else "nothing", timeout):
            for start in range(0, len(commands), MOST):
                async with self._client.pipeline(transaction=True) as pipeline:
                    for command in commands[start : start + MOST]:
                        pipeline.execute_command(*command)
                    replies += await pipeline.execute()
        return replies

    @asynccontextmanager
    async def _deadline(self, what: str, timeout: float | None = None) -> AsyncIterator[None]:
        limit = self._timeout if timeout is None else timeout
        with _translated(what, limit):
            try:
                async with asyncio.timeout(limit):
                    yield
            except errors.ReadOnlyError:
                await self._client.connection_pool.disconnect()  # it became a replica: ask anew
                raise


def _unless_mistyped(reply: Any) -> Reply:
    if not isinstance(reply, Exception):
        return cast(Reply, reply)
    if isinstance(reply, errors.ResponseError) and "WRONGTYPE" in str(reply):
        return None
    with _translated("load", 0.0):
        raise reply


@contextmanager
def _translated(what: str, limit: float) -> Iterator[None]:
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailable(
            f"The store did not complete {what!r} within {limit:g} s "
            f"({type(error).__name__}: {error}). Check that it runs; the call may be repeated."
        ) from error
    except errors.RedisError as error:
        if _NOT_NOW.search(str(error)):
            raise StoreUnavailable(
                f"The store cannot complete {what!r} now: {error}. Check its disk and its replicas;"
                " the call may be repeated."
            ) from error
        raise StoreReplyError(f"The store refused {what!r}: {error}.") from error
