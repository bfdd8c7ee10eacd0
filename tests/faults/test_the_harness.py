"""The parts that inject faults do what their names say."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from unittest import mock

import pytest
from aiokafka.conn import AIOKafkaConnection

from loadtest.faults import worker
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


@pytest.fixture
def hooks() -> Iterator[None]:
    """What a worker of the harness puts in place is taken away again."""
    yield
    mock.patch.stopall()


@pytest.mark.usefixtures("hooks")
def test_the_wall_clock_follows_its_file_and_no_other_clock_does(tmp_path: Path) -> None:
    day_s = 86_400.0
    clock = new_clock(tmp_path / "clock")
    wall, steady = time.time(), time.monotonic()
    worker._follow_clock(clock)
    assert time.time() - wall < day_s / 2
    jump(clock, day_s)
    assert time.time() - wall > day_s / 2
    jump(clock, -day_s)
    assert time.time() - wall < -day_s / 2
    assert time.monotonic() - steady < day_s / 2


@pytest.mark.usefixtures("hooks")
async def test_connections_to_a_broker_go_through_its_proxy_and_others_do_not() -> None:
    worker._redirect({"127.0.0.1:9092": "127.0.0.1:7001"})
    through = AIOKafkaConnection("127.0.0.1", 9092)
    past = AIOKafkaConnection("127.0.0.1", 9093)
    assert (through.port, past.port) == (7001, 9093)


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize(
    ("module", "started"),
    [
        ("workers.alone", ["-m", "loadtest.faults.worker", "--clock=c", "--alone", "task"]),
        ("other", ["-m", "other", "task"]),
    ],
)
async def test_the_process_of_a_suspicious_task_gets_the_hooks_of_its_parent(
    module: str, started: list[str], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\n')
    program.chmod(0o755)
    worker._hook_children(["--clock=c"])
    process = await asyncio.create_subprocess_exec(str(program), "-m", module, "task")
    assert await process.wait() == 0
    assert told.read_text().split() == started


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
