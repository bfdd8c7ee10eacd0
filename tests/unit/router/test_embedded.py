"""The embedded servers are real processes: these tests start and kill some."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from router.embedded import EmbeddedBroker, EmbeddedError, EmbeddedStore, command_line

# Starts both servers and a child of its own, names the process ids, and waits to be killed.
_PARENT = """
import subprocess, sys
from router.embedded import EmbeddedBroker, EmbeddedStore, command_line
broker = EmbeddedBroker().start()
store = EmbeddedStore().start()
sleeper = subprocess.Popen(command_line([sys.executable, "-c", "import time; time.sleep(600)"]))
print(broker.pid, store.pid, sleeper.pid, flush=True)
sys.stdin.read()
"""


def _wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def _is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has (its parent may be slow to collect it)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _ask(address: str, command: bytes) -> bytes:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as connection:
        connection.sendall(command)
        return connection.recv(4096)


def test_store_answers_on_loopback() -> None:
    with EmbeddedStore() as store:
        assert store.url == f"redis://{store.address}/0"
        assert _ask(store.address, b"PING\r\n") == b"+PONG\r\n"


def test_a_stopped_server_is_gone_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with EmbeddedStore() as store:
        pid = store.pid
        assert list(tmp_path.iterdir()) != []
    assert _is_gone(pid)
    assert list(tmp_path.iterdir()) == []
    assert store.pid == 0


def test_a_store_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    store = EmbeddedStore(directory=tmp_path)
    with store:
        assert _ask(store.address, b"SET key value\r\n") == b"+OK\r\n"
    with store:
        assert _ask(store.address, b"GET key\r\n") == b"$5\r\nvalue\r\n"


def test_a_killed_store_is_seen_dead_and_starts_again() -> None:
    with EmbeddedStore() as store:
        os.kill(store.pid, signal.SIGKILL)
        _wait_until(lambda: not store.alive)
        assert store.start().alive
        assert _ask(store.address, b"PING\r\n") == b"+PONG\r\n"


def test_a_store_on_a_taken_port_names_the_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        store = EmbeddedStore(port=taken.getsockname()[1])
        with pytest.raises(EmbeddedError, match="did not start"):
            store.start()
    assert not store.alive


def test_two_brokers_have_two_addresses() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.address != other.address
        assert one.alive
        assert other.alive


def test_nothing_outlives_a_parent_killed_by_sigkill(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        parent.kill()
    for pid in pids:
        _wait_until(lambda pid=pid: _is_gone(pid))  # type: ignore[misc]
    _wait_until(lambda: list(tmp_path.iterdir()) == [])


def test_a_program_does_not_start_when_its_parent_is_gone_already() -> None:
    command = command_line([sys.executable, "-c", "print('started')"])
    command[4] = "1"  # as if the process that built the command had died
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
