"""A POST on a connection of its own, for load: a pool of thousands costs more than they do."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import h11

__all__ = ["Reply", "post"]

_CHUNK = 1 << 16


class Reply(NamedTuple):
    """Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def post(host: str, port: int, path: str, body: bytes, timeout: float) -> Reply:
    """Raises OSError (TimeoutError too) or h11.ProtocolError when there is no whole reply."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            connection = h11.Connection(h11.CLIENT)
            headers = [("Host", host), ("Content-Length", str(len(body))), ("Connection", "close")]
            request = h11.Request(method="POST", target=path, headers=headers)
            parts = (request, h11.Data(body), h11.EndOfMessage())
            writer.writelines(filter(None, map(connection.send, parts)))
            return await _read(connection, reader)
        finally:
            writer.close()


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> Reply:
    status, headers, body = 0, {}, bytearray()
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("The server closed the connection before its reply was whole.")
    return Reply(status, headers, bytes(body))
