"""The parts that inject faults do what their names say."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loadtest.faults.proxy import Proxy
from loadtest.faults.worker import jump, new_clock
from router.redis_server import RedisPair


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that says what it is told."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with Proxy(f"{host}:{port}") as running:
        yield running
    server.close()


async def _connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = proxy.address.split(":")
    return await asyncio.open_connection(host, int(port))


async def test_an_open_proxy_carries_both_ways(proxy: Proxy) -> None:
    reader, writer = await _connect(proxy)
    writer.write(b"to and fro")
    assert await reader.readexactly(10) == b"to and fro"
    writer.close()


async def test_a_cut_ends_connections_and_refuses_new_ones_until_it_is_healed(
    proxy: Proxy,
) -> None:
    reader, writer = await _connect(proxy)
    writer.write(b"a")
    await reader.readexactly(1)
    proxy.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    second, other = await _connect(proxy)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await second.readexactly(1)
    proxy.heal()
    third, last = await _connect(proxy)
    last.write(b"b")
    assert await third.readexactly(1) == b"b"
    for each in (writer, other, last):
        each.close()


async def test_a_hung_connection_carries_what_it_was_given_once_it_is_healed(
    proxy: Proxy,
) -> None:
    reader, writer = await _connect(proxy)
    writer.write(b"a")
    await reader.readexactly(1)
    proxy.hang()
    writer.write(b"b")
    arriving = asyncio.create_task(reader.readexactly(1))
    done, _ = await asyncio.wait([arriving], timeout=0.05)
    assert not done
    proxy.heal()
    assert await arriving == b"b"
    writer.close()


async def test_a_proxy_that_is_led_elsewhere_ends_the_old_connections(proxy: Proxy) -> None:
    reader, writer = await _connect(proxy)
    writer.write(b"a")
    await reader.readexactly(1)
    other = await asyncio.start_server(_echo, "127.0.0.1", 0)
    host, port = other.sockets[0].getsockname()
    proxy.route(f"{host}:{port}")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    other.close()


def test_a_clock_file_holds_the_seconds_it_is_ahead(tmp_path: Path) -> None:
    clock = new_clock(tmp_path / "clock")
    assert struct.unpack("<d", clock.read_bytes()) == (0.0,)
    jump(clock, -3600.5)
    assert struct.unpack("<d", clock.read_bytes()) == (-3600.5,)


@pytest.mark.serial
async def test_a_promoted_replica_is_a_primary_after_its_restart_too() -> None:
    async with RedisPair() as pair:
        await pair.fail_over()
        await pair.replica.start()
        await pair.replica.follow(pair.primary)
        await pair.replica.wait_replicated()
        pair.primary.kill()
        await pair.primary.start()
        assert (await pair.primary.info("replication"))["role"] == "master"
        await pair.replica.wait_replicated()
