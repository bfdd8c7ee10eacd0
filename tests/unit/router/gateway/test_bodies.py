"""What is refused before it is read, and what costs no more than what has come."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from router.gateway.bodies import Body, BodyRoom
from router.gateway.errors import BodyTooLarge, BodyTooSlow, TooBusy
from router.gateway.streams import a_page_of
from router.results import Emission

World = Any  # from conftest, which cannot be imported

_INFER = "/v2/models/digits/infer"


async def endless(size: int = 1000) -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0)
        yield bytes(size)


async def silent() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


async def of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def body(room: BodyRoom, chunks: AsyncIterator[bytes], declared: int | None = None) -> Body:
    return Body(room, chunks, declared, limit=100_000, timeout_s=0.01)


async def test_a_body_without_an_end_is_cut_off_at_the_limit() -> None:
    room = BodyRoom(1_000_000)
    with body(room, endless()) as endless_body, pytest.raises(BodyTooLarge, match="100000"):
        await endless_body.read()
    assert room.n_bytes == 0


async def test_a_body_that_does_not_come_is_given_up() -> None:
    room = BodyRoom(1_000_000)
    with body(room, silent()) as silent_body, pytest.raises(BodyTooSlow, match="1 bytes did"):
        await silent_body.read()
    assert room.n_bytes == 0


async def test_a_body_costs_what_has_come_and_not_what_it_claims() -> None:
    room = BodyRoom(120_000)
    with body(room, silent(), 90_000) as claims, body(room, of(bytes(90_000))) as comes:
        reading = asyncio.create_task(claims.read())
        await asyncio.sleep(0)
        assert room.n_bytes == 1
        assert len(await comes.read()) == 90_000
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_bodies_that_do_not_fit_together_are_refused_until_one_is_forgotten() -> None:
    room = BodyRoom(120_000)
    with body(room, of(bytes(90_000))) as first, body(room, of(bytes(90_000))) as second:
        await first.read()
        with pytest.raises(TooBusy, match="try again in 1 s"):
            await second.read()
        with body(room, of(b"{}"), 2) as small:
            assert await small.read() == b"{}"
        first.forget()
        with body(room, of(bytes(90_000)), 90_000) as again:
            await again.read()
            assert room.n_bytes == 90_000
    assert room.n_bytes == 0


class Raw:
    """One request on the bare application, its body given or withheld by hand."""

    def __init__(self, world: World, *headers: tuple[bytes, bytes], path: str = _INFER) -> None:
        self._app = world.client._transport.app
        self._scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": list(headers), "http_version": "1.1",
            "scheme": "http", "server": ("gateway", 80), "client": ("127.0.0.1", 1), "state": {},
        }  # fmt: skip
        self.n_read = 0
        self.code = 0
        self.headers: dict[bytes, bytes] = {}
        self.content = b""

    async def run(self, chunk: bytes | None) -> "Raw":
        """Send this chunk for ever; None: nothing ever comes."""

        async def receive() -> dict[str, Any]:
            if chunk is None:
                await asyncio.Event().wait()
            self.n_read += len(chunk or b"")
            return {"type": "http.request", "body": chunk, "more_body": True}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.code, self.headers = message["status"], dict(message["headers"])
            self.content += message.get("body", b"")

        await self._app(self._scope, receive, send)
        return self


async def test_a_length_beyond_the_limit_is_413_before_anything_is_read(world: World) -> None:
    answer = await Raw(world, (b"content-length", b"1000000")).run(b"x")
    assert (answer.code, answer.n_read) == (413, 0)
    assert answer.headers[b"connection"] == b"close"
    assert "the most are 20000 bytes" in json.loads(answer.content)["error"]


async def test_chunks_without_an_end_are_413_once_the_limit_is_reached(world: World) -> None:
    answer = await Raw(world, (b"transfer-encoding", b"chunked")).run(bytes(1000))
    assert (answer.code, answer.n_read) == (413, 21_000)
    assert answer.headers[b"connection"] == b"close"


async def test_a_body_for_no_network_is_404_before_anything_is_read(world: World) -> None:
    headers = (b"transfer-encoding", b"chunked")
    answer = await Raw(world, headers, path="/v2/models/nobody/infer").run(bytes(1000))
    assert (answer.code, answer.n_read) == (404, 0)
    assert answer.headers[b"connection"] == b"close"


async def test_a_body_is_refused_unread_while_others_fill_the_room(world: World) -> None:
    world.client._transport.app.state.gateway.bodies.n_bytes = 2**40
    answer = await Raw(world, (b"content-length", b"19000")).run(b"x")
    assert (answer.code, answer.n_read) == (429, 0)
    assert int(answer.headers[b"retry-after"]) >= 1


async def test_a_body_that_stops_is_408(world: World) -> None:
    gateway = world.client._transport.app.state.gateway
    gateway.settings = gateway.settings.changed(body_timeout_s=0.01)
    answer = await Raw(world, (b"transfer-encoding", b"chunked")).run(None)
    assert answer.code == 408
    assert answer.headers[b"connection"] == b"close"


def test_pages_are_bounded_and_hold_each_emission_once() -> None:
    emissions = [Emission(i, i, i + 1, np.zeros(60_000, np.int32)) for i in range(5)]
    seen: list[int] = []
    while len(seen) < 5:
        page = a_page_of(emissions[len(seen) :])
        assert len(page) == 1  # two have more values than a response holds
        seen += [each.index for each in page]
    assert seen == list(range(5))
