"""A TCP proxy between a worker and a server: connections can be cut, hung and delayed.

async with Proxy("127.0.0.1:6379") as proxy:
    proxy.address          # HOST:PORT to connect to
    proxy.cut()            # reset what is there, and refuse what comes
    proxy.hang()           # keep connections, and carry nothing
    proxy.delay(0.05)      # carry everything so much later
    proxy.heal()
"""

import asyncio
import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Literal, Self

__all__ = ["Proxy"]

_CHUNK: Final = 256 * 1024


class Proxy:
    """Carries connections to `upstream`, HOST:PORT, on a free loopback port."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._state: Literal["open", "cut", "hung"] = "open"
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay_s = 0.0
        self.n_connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        """`HOST:PORT` of the proxy."""
        if self._server is None:
            return ""
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def route(self, upstream: str) -> None:
        """From now on carry to another server; connections to the old one are reset."""
        self._upstream = upstream
        self._reset()

    def cut(self) -> None:
        """Reset all connections, and refuse new ones until `heal`."""
        self._state = "cut"
        self._reset()

    def hang(self) -> None:
        """Keep connections, take new ones, and carry nothing until `heal`."""
        self._state = "hung"
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Carry every chunk so many seconds late, until `heal`."""
        self._delay_s = seconds

    def heal(self) -> None:
        """Carry everything at once again."""
        self._state = "open"
        self._delay_s = 0.0
        self._flowing.set()

    def _reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.n_connections += 1
        with self._held(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            if self._state == "cut":
                return
            await self._flowing.wait()
            host, _, port = self._upstream.rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            with self._held(back):
                await self._carry(reader, back, there, writer)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Both ways, until either side has closed."""
        ways = [
            asyncio.create_task(self._pump(reader, back)),
            asyncio.create_task(self._pump(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()

    @contextlib.contextmanager
    def _held(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
