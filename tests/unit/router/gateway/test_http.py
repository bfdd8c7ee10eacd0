"""Connections are parsed in turn, a piece at a time, and have a deadline for a request."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from router.gateway import http
from router.gateway.http import Connection

_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """A connection to nobody, which tells whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_read = True
        self.closed = False
        self.ended = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Served:
    """An application that collects bodies, behind connections."""

    def __init__(self, reads: bool = True) -> None:
        self.bodies: list[bytes] = []
        self._reads = reads
        self._config = Config(
            self._app, "127.0.0.1", 0, http=Connection, ws="none", interface="asgi3",
            lifespan="off", log_level="critical",
        )  # fmt: skip
        self._config.load()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if not self._reads:
            close = [(b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": close})
            await send({"type": "http.response.body"})
            return
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = Connection(self._config, ServerState(), {}), Transport()
        connection.connection_made(transport)
        return connection, transport


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 5000, 100_000])
async def test_chunks_of_any_size_come_whole_and_in_order(size: int) -> None:
    served = Served()
    connection, transport = served.connect()
    body = bytes(range(256)) * 400
    connection.data_received(_HEAD + chunked(body, size))
    await until(lambda: bool(served.bodies))
    assert served.bodies == [body]
    assert b" 204 " in transport.written
    await until(lambda: transport.is_read)
    connection.connection_lost(None)


async def test_no_more_than_a_piece_is_parsed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = Connection._parse

    def counted(self: Connection, data: bytes) -> None:
        parsed.append(len(data))
        parse(self, data)

    monkeypatch.setattr(Connection, "_parse", counted)
    served = Served()
    connection, transport = served.connect()
    connection.data_received(_HEAD + chunked(bytes(50_000), 1))
    assert parsed == []
    assert not transport.is_read
    await until(lambda: bool(served.bodies))
    assert max(parsed) <= http._LARGEST_PIECE
    connection.connection_lost(None)


async def test_a_short_request_waits_for_one_turn_of_each_long_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "_TURN_S", 0.0)
    served = Served()
    long, _ = served.connect()
    short, transport = served.connect()
    long.data_received(_HEAD + chunked(bytes(100_000), 1))
    short.data_received(_HEAD + chunked(b"short", 5))
    await until(lambda: bool(served.bodies))
    assert served.bodies == [b"short"]
    assert b" 204 " in transport.written
    await until(lambda: len(served.bodies) == 2)
    for connection in (long, short):
        connection.connection_lost(None)


async def test_requests_in_a_row_are_each_answered() -> None:
    served = Served()
    connection, transport = served.connect()
    connection.data_received((_HEAD + chunked(b"one", 3)) * 40)
    await until(lambda: len(served.bodies) == 40)
    await until(lambda: transport.written.count(b" 204 ") == 40)
    connection.connection_lost(None)


async def test_who_sends_no_request_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_REQUEST_S", 0.0)
    served = Served()
    connection, transport = served.connect()
    connection.data_received(b"GET / HT")
    await until(lambda: transport.closed)
    connection.connection_lost(None)


async def test_a_request_that_is_being_answered_is_not_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "_REQUEST_S", 3600.0)
    served = Served()
    connection, transport = served.connect()
    assert not _is_patient(connection)
    connection.data_received(_HEAD)
    assert _is_patient(connection)
    connection.data_received(b"0\r\n\r\n")
    await until(lambda: b" 204 " in transport.written)
    assert not transport.closed
    connection.connection_lost(None)


async def test_who_is_answered_while_still_sending_can_read_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "_LINGER_S", 0.0)
    served = Served(reads=False)
    connection, transport = served.connect()
    connection.data_received(_HEAD + b"5\r\nhello\r\n")
    await until(lambda: transport.ended)
    assert b" 413 " in transport.written
    assert transport.is_read
    connection.data_received(b"x" * 100_000)  # thrown away
    assert not connection._unparsed
    await until(lambda: transport.closed)
    connection.connection_lost(None)


def _is_patient(connection: Connection) -> bool:
    return connection._patience is None


async def test_what_comes_after_nonsense_is_not_parsed() -> None:
    served = Served()
    connection, transport = served.connect()
    connection.data_received(b"nonsense\r\n\r\n" + b"x" * 100_000)
    await until(lambda: transport.closed and not connection._unparsed)
    assert b" 400 " in transport.written
    connection.connection_lost(None)
