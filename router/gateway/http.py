"""HTTP connections that share the event loop: `uvicorn --http router.gateway.http:Connection`.

uvicorn parses whatever has come at once, and h11 needs microseconds for each header and each chunk:
a quarter of a megabyte of chunks of one byte would hold the loop for half a second. Here it is
parsed piece by piece, the connections in turn. And who connects has a deadline for a request.
"""

import asyncio
import time
from collections import deque
from typing import Any, ClassVar, Final

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["Connection"]

_PIECE: Final = 1024  # bytes parsed at once, of a connection that parses slowly
_LARGEST_PIECE: Final = 16 * 1024
_TURN_S: Final = 0.005  # of parsing, over all connections
_SLOW_S: Final = 0.001  # a piece that takes longer is followed by small ones
_LINGER_S: Final = 2.0  # for a client that is still sending to read its answer
_REQUEST_S: Final = 20.0  # until the headers of a request must have come


class _Queue:
    """Connections with bytes to parse, in turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Connection] = deque()
        self._until: float | None = None  # the end of the turn that has begun

    def has_time(self) -> bool:
        """Whether nobody waits, and this turn of the loop has not parsed for too long."""
        self._begin()
        return not self._waiting and self._until is not None and time.perf_counter() < self._until

    def add(self, connection: "Connection") -> None:
        self._waiting.append(connection)
        self._begin()

    def _begin(self) -> None:
        if self._until is None:
            self._until = time.perf_counter() + _TURN_S
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        until = time.perf_counter() + _TURN_S
        while self._waiting:
            connection = self._waiting.popleft()
            if connection.parse_some():
                self._waiting.append(connection)
            if time.perf_counter() >= until:
                break
        self._until = None
        if self._waiting:
            self._begin()


class _Flow(FlowControl):
    """Reads nothing while bytes wait to be parsed, whatever uvicorn says."""

    def __init__(self, transport: asyncio.Transport, connection: "Connection") -> None:
        super().__init__(transport)
        self._connection = connection
        self._held = False

    def hold(self) -> None:
        """Bytes wait."""
        if not self._held:
            self._held = True
            if not self.read_paused:
                self._transport.pause_reading()

    def release(self) -> None:
        """None wait any more."""
        if self._held:
            self._held = False
            if not self.read_paused:
                self._transport.resume_reading()

    def pause_reading(self) -> None:
        if self._held:
            self.read_paused = True
        else:
            super().pause_reading()

    def resume_reading(self) -> None:
        if not self._held:
            super().resume_reading()
        elif self.read_paused:
            self.read_paused = False
            self._connection.go_on()


class _Transport:
    """A transport that the connection closes in its own way."""

    def __init__(self, transport: asyncio.Transport, connection: "Connection") -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._connection.is_lingering or self._transport.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self._connection.close()


class Connection(H11Protocol):
    """uvicorn's, in pieces and with a deadline."""

    _queues: ClassVar[dict[asyncio.AbstractEventLoop, _Queue]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unparsed = bytearray()
        self._piece = _PIECE
        self._is_queued = False
        self._patience: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self.is_lingering = False

    @property
    def _queue(self) -> _Queue:
        queue = self._queues.get(self.loop)
        if queue is None:
            self._queues.clear()  # one process has one loop; a closed one must not be kept
            queue = self._queues[self.loop] = _Queue(self.loop)
        return queue

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wire = transport
        self.transport = _Transport(transport, self)  # type: ignore[assignment]
        self.flow = _Flow(transport, self)
        self._wait_for_request()

    def close(self) -> None:
        """Close at once, unless the client is still sending: an answer is lost to those who send
        on into a closed connection. Then what comes is thrown away for a moment."""
        wire = self._wire
        if wire is None:
            return
        if self.conn.their_state is not h11.SEND_BODY or not wire.can_write_eof():
            wire.close()
            return
        self.is_lingering = True
        self._unparsed.clear()
        wire.write_eof()
        wire.resume_reading()
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(_LINGER_S, wire.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed.clear()
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse a little at once, and what is more than that in turn with others."""
        if self.is_lingering:
            return
        if not self._unparsed and len(data) <= _PIECE and self._queue.has_time():
            self._parse(data)
            return
        self._unparsed += data
        self.flow.hold()  # type: ignore[attr-defined]
        self.go_on()

    def go_on(self) -> None:
        """Wait for the next turn, unless it waits already."""
        if not self._is_queued:
            self._is_queued = True
            self._queue.add(self)

    def parse_some(self) -> bool:
        """Parse one piece; whether more can be parsed now."""
        self._is_queued = False
        if self.transport.is_closing():
            self._unparsed.clear()
        if self._unparsed and not self.flow.read_paused:
            self._parse_piece()
        if not self._unparsed:
            self.flow.release()  # type: ignore[attr-defined]
        self._is_queued = bool(self._unparsed) and not self.flow.read_paused
        return self._is_queued

    def _parse_piece(self) -> None:
        size = self._piece if self._is_answering else _PIECE  # headers are the slowest
        piece = bytes(self._unparsed[:size])
        del self._unparsed[:size]
        began = time.perf_counter()
        self._parse(piece)
        took = time.perf_counter() - began
        self._piece = _PIECE if took > _SLOW_S else min(2 * self._piece, _LARGEST_PIECE)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
        elif self._patience is None:
            self._wait_for_request()

    @property
    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _wait_for_request(self) -> None:
        self._patience = self.loop.call_later(_REQUEST_S, self._give_up)

    def _give_up(self) -> None:
        self._patience = None
        if not self._is_answering:
            self.transport.close()
