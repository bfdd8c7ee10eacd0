"""A whole stack on one machine: broker, store, gateway and workers, each a process of its own.

`Stack` starts in this order, and stops in the reverse one:

1. the broker and the store (embedded ones, or real ones of its own), unless others are given;
2. deployment of the networks (topics, artifacts and task records exist before anyone asks);
3. the gateway and the workers.

A gateway or worker that dies is started again, at once and then more slowly. The loss of the
stack's own broker or store is not repaired here: `wait_failed` returns.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx

from router.apache import ApacheKafka
from router.embedded import EmbeddedBroker, EmbeddedError, EmbeddedStore, command_line
from router.processes import ServerError
from router.redis_server import RedisServer
from router.settings import Settings
from router.status import StatusRows, status_rows
from router.store.errors import StoreUnavailable
from router.store.redis import RedisStore
from topologies.compiled import CompiledNetwork
from topologies.errors import SpikeRouterError

__all__ = [
    "OWN_KAFKA",
    "OWN_REDIS",
    "Child",
    "Stack",
    "StackError",
    "StackOptions",
    "backoff_s",
    "gateway_command",
    "read_status",
    "worker_command",
]

OWN_KAFKA: Final = "apache"
OWN_REDIS: Final = "server"
_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 10.0
_STABLE_S: Final = 10.0  # a child that lived so long is restarted at once again
_STOP_TIMEOUT_S: Final = 5.0
_START_TIMEOUT_S: Final = 60.0  # three JVMs on a busy machine take a while
_POLL_S: Final = 0.05
_LONGEST_LINE: Final = 8192
_KEPT_LINES: Final = 2000

LogSink = Callable[[str, str], None]


class StackError(SpikeRouterError, RuntimeError):
    """The stack did not start, or a part that cannot be restarted was lost."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What a stack consists of.

    `networks` are names from the zoo, files, or compiled networks. `kafka` and `redis` name real
    servers; None starts embedded ones, `OWN_KAFKA` an Apache Kafka and `OWN_REDIS` a Redis with its
    log on disk, both on this machine and for this stack alone. `worker_settings` changes settings
    of single workers: name -> setting -> value. With `restart` False a process that dies stays
    dead.
    """

    networks: Sequence[str | CompiledNetwork] = ()
    n_workers: int = 3
    gateway: bool = True
    kafka: str | None = None
    redis: str | None = None
    restart: bool = True
    worker_settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(slots=True)
class Child:
    """A supervised process; `n_starts` and `n_deaths` count how often it was started and ended."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    process: asyncio.subprocess.Process | None = None
    n_starts: int = 0
    n_deaths: int = 0
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id; 0 while it is not running."""
        return self.process.pid if self.process is not None and self.running else 0

    @property
    def running(self) -> bool:
        """Whether a process is there now."""
        return self.process is not None and self.process.returncode is None

    def signal(self, number: int) -> None:
        """Send a signal, if there is a process to receive it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


def backoff_s(n_quick_deaths: int) -> float:
    """Delay before a restart, in seconds: none after a long life, doubled with each quick death."""
    if n_quick_deaths == 0:
        return 0.0
    return float(min(_FIRST_DELAY_S * 2.0 ** (n_quick_deaths - 1), _LONGEST_DELAY_S))


def gateway_command(settings: Settings) -> tuple[str, ...]:
    """The command line of the gateway process."""
    return (
        *(sys.executable, "-m", "uvicorn", "router.gateway.app:create_app", "--factory"),
        *("--host", settings.gateway_host, "--port", str(settings.gateway_port)),
        *("--log-level", settings.log_level.lower(), "--no-access-log"),
        *("--http", "router.gateway.http:Connection", "--ws", "none"),
        *("--h11-max-incomplete-event-size", "8192"),
    )


async def read_status(settings: Settings) -> StatusRows:
    """What the store knows of all partitions. Raises `StoreUnavailable`."""
    async with RedisStore.of(settings) as store:
        return status_rows([await store.status(p) for p in range(settings.partitions)])


def worker_command(name: str) -> tuple[str, ...]:
    """The command line of a worker process."""
    return (sys.executable, "-m", "workers", "--name", name)


class Stack:
    """A running stack; use it as `async with Stack(settings, options) as stack`.

    `settings` holds for every process; where it listens and which ports are free is filled in
    at the start and can be read from `settings` of the running stack. `log` receives each line
    a child writes, as (name of the child, line); the last lines are kept in `lines`.
    """

    def __init__(
        self, settings: Settings, options: StackOptions | None = None, *, log: LogSink | None = None
    ) -> None:
        self.settings = settings
        self.options = options or StackOptions()
        self._lacks = "nothing was looked at"
        self.lines: deque[tuple[str, str]] = deque(maxlen=_KEPT_LINES)
        self.broker: EmbeddedBroker | ApacheKafka | None = None
        self.store: EmbeddedStore | RedisServer | None = None
        self.gateway: Child | None = None
        self.workers: dict[str, Child] = {}
        self._log = log
        self._failed = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    @property
    def kafka(self) -> str:
        """Bootstrap servers."""
        return self.settings.kafka

    @property
    def redis_url(self) -> str:
        """URL of the store."""
        return self.settings.redis

    @property
    def http(self) -> str:
        """Base URL of the gateway, without a slash at its end."""
        host = self.settings.gateway_host
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
        return f"http://{host}:{self.settings.gateway_port}"

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, timeout: float = _START_TIMEOUT_S) -> None:
        """Start everything and wait until the gateway answers. Raises `StackError`."""
        async with _deadline(timeout, "start"):
            await self._start_servers()
            await self._check_store()
            self._watch = self._seen(self._watch_servers())
            await self._deploy()
            if self.options.gateway:
                self._choose_gateway_port()
                self.gateway = self._launch(
                    "gateway", gateway_command(self.settings), self.settings
                )
            for number in range(1, self.options.n_workers + 1):
                self.start_worker(f"worker-{number}")
            if self.gateway is not None:
                await _until(self._gateway_is_live)

    async def stop(self, timeout: float = _STOP_TIMEOUT_S) -> None:
        """Stop everything: workers hand over and end, then the gateway, the store, the broker."""
        await asyncio.gather(*(_end(worker, timeout) for worker in self.workers.values()))
        if self.gateway is not None:
            await _end(self.gateway, timeout)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        for server in (self.store, self.broker):
            if isinstance(server, ApacheKafka | RedisServer):
                await server.close()
            elif server is not None:
                await asyncio.to_thread(server.stop)

    async def wait_failed(self) -> None:
        """Return when a server of the stack's own was lost, which ends the stack."""
        await self._failed.wait()

    async def wait_ready(self, timeout: float = _START_TIMEOUT_S) -> None:
        """Return when all workers are known, every task is served, and the gateway agrees.

        Raises `StackError` when that is not so in time.
        """
        async with _deadline(timeout, "become ready", self._why_unready):
            await _until(self._is_ready)
            if self.gateway is not None:
                await _until(self._gateway_is_ready)

    async def status(self) -> StatusRows:
        """What the store knows of workers and tasks now."""
        return await read_status(self.settings)

    def start_worker(self, name: str, *, command: tuple[str, ...] = (), **changes: object) -> Child:
        """Start one more worker under a new name, some of its settings changed.

        `command` is what runs in place of `worker_command(name)`.
        """
        if name in self.workers:
            raise StackError(f"There is a worker {name!r} already; names are unique.")
        changes = {**self.options.worker_settings.get(name, {}), **changes}
        settings = self.settings.changed(worker_name=name, **changes)
        self.workers[name] = self._launch(name, command or worker_command(name), settings)
        return self.workers[name]

    async def stop_worker(self, name: str, timeout: float = _STOP_TIMEOUT_S) -> None:
        """Stop a worker politely (SIGTERM, then SIGKILL when time is over) and forget it."""
        await _end(self._worker(name), timeout)
        del self.workers[name]

    def kill_worker(self, name: str, number: int = signal.SIGKILL, *, restart: bool = True) -> int:
        """Send a signal to a worker and return the process id it had.

        With `restart` False it is not started again.
        """
        worker = self._worker(name)
        if not worker.running:
            raise StackError(f"Worker {name!r} is not running now.")
        if not restart:
            worker.unwanted.set()
        pid = worker.pid
        worker.signal(number)
        return pid

    def log(self, name: str, line: str) -> None:
        """Keep a line and pass it on."""
        self.lines.append((name, line))
        if self._log is not None:
            self._log(name, line)

    def _worker(self, name: str) -> Child:
        if name not in self.workers:
            known = ", ".join(sorted(self.workers)) or "none"
            raise StackError(f"There is no worker {name!r}; the workers are: {known}.")
        return self.workers[name]

    async def _start_servers(self) -> None:
        try:
            self.settings = await self._start_broker(self.settings)
            self.settings = await self._start_store(self.settings)
        except (EmbeddedError, ServerError) as error:
            raise StackError(str(error)) from error

    async def _start_broker(self, settings: Settings) -> Settings:
        """Start the broker, unless there is one; the settings that name it."""
        if self.options.kafka is None:
            self.broker = broker = EmbeddedBroker()
            await asyncio.to_thread(broker.start)
            return settings.on_embedded(broker.address)
        if self.options.kafka != OWN_KAFKA:
            return settings.changed(kafka=self.options.kafka)
        self.broker = kafka = ApacheKafka()
        await kafka.start()
        return settings.changed(kafka=kafka.bootstrap)

    async def _start_store(self, settings: Settings) -> Settings:
        """Start the store, unless there is one; the settings that name it."""
        if self.options.redis is None:
            self.store = store = EmbeddedStore()
            await asyncio.to_thread(store.start)
            return settings.changed(redis=store.url)
        if self.options.redis != OWN_REDIS:
            return settings.changed(redis=self.options.redis)
        self.store = redis = RedisServer()
        await redis.start()
        return settings.changed(redis=redis.url)

    async def _check_store(self) -> None:
        """Raise StoreUnfit at once for a store that every process would refuse."""
        async with RedisStore.of(self.settings):
            return

    async def _watch_servers(self) -> None:
        servers = [server for server in (self.broker, self.store) if server is not None]
        while servers:
            for server in servers:
                if not server.alive:
                    self.log(
                        "up", f"The stack's own {server.role} is gone; it is not started again."
                    )
                    self._failed.set()
                    return
            await asyncio.sleep(10 * _POLL_S)

    async def _deploy(self) -> None:
        if self.options.networks:
            from router.deploy import deploy

            await deploy(
                self.settings, list(self.options.networks), partitions=self.settings.partitions
            )

    def _choose_gateway_port(self) -> None:
        host, port = self.settings.gateway_host, self.settings.gateway_port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise StackError(
                    f"The gateway cannot listen on {host}:{port} ({error.strerror}); choose "
                    "another port with --port (0 takes a free one)."
                ) from error
            self.settings = self.settings.changed(gateway_port=probe.getsockname()[1])

    def _launch(self, name: str, command: tuple[str, ...], settings: Settings) -> Child:
        threads = str(settings.compute_threads)
        environment = {
            **{f"{library}_NUM_THREADS": threads for library in ("OPENBLAS", "OMP", "MKL")},
            **os.environ,
            **settings.environment(),
            "PYTHONUNBUFFERED": "1",
        }
        child = Child(name, command, environment)
        child.keeper = self._seen(self._keep(child))
        return child

    def _seen(self, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task whose fault ends the stack loudly, where a child would be left alone."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.log("up", f"A part of the stack is not watched any more: {error!r}")
                self._failed.set()

        task = asyncio.create_task(loop)
        task.add_done_callback(ended)
        return task

    async def _keep(self, child: Child) -> None:
        """Run the child, again and again until it is not wanted any more."""
        loop = asyncio.get_running_loop()
        n_quick_deaths = 0
        while not child.unwanted.is_set():
            began = loop.time()
            try:
                await self._run_once(child)
            except OSError as error:
                self.log(child.name, f"cannot be started: {error}")
                self._failed.set()
                return
            if child.unwanted.is_set() or not self.options.restart:
                return
            n_quick_deaths = 0 if loop.time() - began > _STABLE_S else n_quick_deaths + 1
            delay = backoff_s(n_quick_deaths)
            self.log(child.name, f"{_how_it_ended(child)}; starting again in {delay:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.unwanted.wait(), delay)

    async def _run_once(self, child: Child) -> None:
        child.process = await asyncio.create_subprocess_exec(
            *command_line(child.command),
            env=child.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        child.n_starts += 1
        if child.unwanted.is_set():  # stopped while it was being started
            child.signal(signal.SIGTERM)
        if child.process.stdout is None:
            return
        reader = self._seen(self._pass_on_lines(child.name, child.process.stdout))
        await child.process.wait()
        # Whoever inherited the pipe may hold it open; the last lines are there at once.
        await asyncio.wait([reader], timeout=_POLL_S)
        reader.cancel()
        child.n_deaths += 1

    async def _pass_on_lines(self, name: str, stream: asyncio.StreamReader) -> None:
        """Log what the child writes, line by line; a line that is too long is broken."""
        rest = b""
        while more := await stream.read(65536):
            *lines, rest = (rest + more).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self.log(name, line.decode(errors="replace").rstrip())
        if rest:
            self.log(name, rest.decode(errors="replace").rstrip())

    async def _is_ready(self) -> bool:
        try:
            status = await self.status()
        except StoreUnavailable as error:  # it may be starting itself, or away for a while
            self._lacks = str(error)
            return False
        alive = {worker.worker for worker in status.workers if worker.alive}
        wanted = {name for name, worker in self.workers.items() if not worker.unwanted.is_set()}
        lacks = [f"{row.task}: {row.error or 'nobody serves it'}" for row in status.unserved]
        lacks += [f"{name} is not known" for name in sorted(wanted - alive)]
        self._lacks = "; ".join(lacks) or "there are no tasks"
        return status.ready and wanted <= alive

    async def _gateway_is_ready(self) -> bool:
        told = await _told(f"{self.http}/v2/health/ready")
        self._lacks = "the gateway does not answer" if told is None else f"the gateway says {told}"
        return told == ""

    async def _gateway_is_live(self) -> bool:
        gateway = self.gateway
        if gateway is not None and gateway.n_deaths > 0:
            raise StackError(f"The gateway died while it was starting.{self._last_words()}")
        return await _told(f"{self.http}/v2/health/live") == ""

    def _why_unready(self) -> str:
        return f" {self._lacks}.{self._last_words()}"

    def _last_words(self) -> str:
        """What the children wrote last, unless it was passed on already."""
        if self._log is not None:
            return ""
        lines = list(self.lines)[-20:]
        return "".join(f"\n  {name} | {line}" for name, line in lines)


@contextlib.asynccontextmanager
async def _deadline(
    timeout: float, what: str, last_words: Callable[[], str] = str
) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise StackError(f"The stack did not {what} within {timeout:g} s.{last_words()}") from error


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(_POLL_S)


async def _told(url: str) -> str | None:
    """What the gateway complains of there, "" where it answers 200; None without an answer."""
    try:
        # No certificates are needed on plain HTTP; loading them takes longer than the answer.
        async with httpx.AsyncClient(timeout=2.0, trust_env=False, verify=False) as client:
            answer = await client.get(url)
    except httpx.TransportError:
        return None
    return "" if answer.status_code == httpx.codes.OK else answer.text


async def _end(child: Child, timeout: float) -> None:
    """End a child for good: SIGTERM, and SIGKILL when it is still there after `timeout`."""
    child.unwanted.set()
    child.signal(signal.SIGTERM)
    if child.keeper is None:
        return
    done, _ = await asyncio.wait([child.keeper], timeout=timeout)
    if not done:
        child.signal(signal.SIGKILL)
        await asyncio.wait([child.keeper])


def _how_it_ended(child: Child) -> str:
    code = child.process.returncode if child.process is not None else None
    if code is None:
        return "was not started"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
