"""Real processes: each test starts one and sees it end."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.processes import (
    ServerError,
    ServerProcess,
    end_process,
    free_ports,
    is_running,
    listens,
    until,
)

_SLEEP = "import time; print('up', flush=True); time.sleep(600)"
_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True);"
    " time.sleep(600)"
)


def _server(program: str, log: Path, *, detached: bool = False) -> ServerProcess:
    return ServerProcess([sys.executable, "-c", program], log, detached=detached)


async def _up(server: ServerProcess) -> None:
    server.start()

    async def told() -> bool:
        return "up" in server.tail()

    await until(told, 20.0, "it did not start")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def sleeper(log: Path) -> Iterator[ServerProcess]:
    server = _server(_SLEEP, log)
    yield server
    server.kill()


@pytest.fixture
def stubborn(log: Path) -> Iterator[ServerProcess]:
    """A server that ignores SIGTERM."""
    server = _server(_STUBBORN, log)
    yield server
    server.kill()


@pytest.fixture
def detached(log: Path) -> Iterator[ServerProcess]:
    server = _server(_SLEEP, log, detached=True)
    yield server
    server.kill()


async def test_a_server_that_is_stopped_ends_well(sleeper: ServerProcess) -> None:
    await _up(sleeper)
    assert await sleeper.stop(20.0)
    assert (sleeper.alive, sleeper.pid) == (False, 0)


async def test_a_server_that_ignores_the_signal_is_killed(stubborn: ServerProcess) -> None:
    await _up(stubborn)
    assert not await stubborn.stop(0.2)
    assert not stubborn.alive


async def test_a_paused_server_can_be_stopped(sleeper: ServerProcess) -> None:
    await _up(sleeper)
    sleeper.pause()
    assert await sleeper.stop(20.0)


async def test_starting_twice_starts_one(sleeper: ServerProcess) -> None:
    await _up(sleeper)
    pid = sleeper.pid
    sleeper.start()
    assert sleeper.pid == pid


async def test_a_killed_server_starts_again(sleeper: ServerProcess) -> None:
    await _up(sleeper)
    first = sleeper.pid
    sleeper.kill()
    sleeper.start()
    assert sleeper.alive
    assert sleeper.pid != first


def test_a_signal_to_a_server_that_does_not_run_is_refused(sleeper: ServerProcess) -> None:
    with pytest.raises(ServerError, match="does not run"):
        sleeper.pause()


async def test_a_process_is_known_by_id_and_word_together(detached: ServerProcess) -> None:
    await _up(detached)
    assert is_running(detached.pid, "time.sleep(600)")
    assert not is_running(detached.pid, "another program")


async def test_a_stranger_with_the_id_of_ours_is_left_alone(detached: ServerProcess) -> None:
    await _up(detached)
    assert await end_process(detached.pid, "another program", 5.0)
    assert detached.alive


async def test_a_detached_process_is_ended_by_its_id(detached: ServerProcess) -> None:
    await _up(detached)
    pid = detached.pid
    os.kill(pid, signal.SIGSTOP)
    ended = end_process(pid, "time.sleep(600)", 20.0)
    assert await ended
    assert not is_running(pid, "time.sleep(600)")


def test_free_ports_differ_and_lie_below_those_of_outgoing_connections() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert max(ports) < 32_768


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_ports(1)[0]))
        taken.listen()
        port = taken.getsockname()[1]
        assert listens(port)
        assert port not in free_ports(2000)
    assert not listens(port)


async def test_a_condition_that_does_not_come_true_is_an_error_with_its_sentence() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(ServerError, match=r"It did not happen \(waited 0\.01 s\)"):
        await until(never, 0.01, "It did not happen")
