"""Servers as processes: free ports, start, signals, an orderly end.

A `ServerProcess` dies with the process that started it, unless it is `detached`; a detached one is
found again by its process id and a word of its command line (`is_running`, `end_process`).
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from router.embedded import command_line
from topologies.errors import SpikeRouterError

__all__ = [
    "ServerError",
    "ServerProcess",
    "end_process",
    "free_ports",
    "is_running",
    "listens",
    "until",
]

_POLL_S: Final = 0.02
# Below the range that Linux takes for outgoing connections (32768 to 60999): a client that dials
# a dead server's port could else be given that very port, and the server could not come back.
_FIRST_PORT: Final = 20_000
_LAST_PORT: Final = 32_000
_ASK_AGAIN_S: Final = 0.1  # a server that starts needs the processor itself
_TAIL: Final = 2_000  # characters of a log that an error quotes


class ServerError(SpikeRouterError, RuntimeError):
    """A server on this machine is not installed, did not start, or is not as it was asked for."""


def free_ports(n: int) -> list[int]:
    """So many different loopback ports that nobody uses now."""
    n_ports = _LAST_PORT - _FIRST_PORT
    begin = secrets.randbelow(n_ports)
    found: list[int] = []
    with contextlib.ExitStack() as probes:
        for step in range(n_ports):
            if len(found) == n:
                break
            port = _FIRST_PORT + (begin + step) % n_ports
            probe = socket.socket()
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.close()
            else:
                probes.enter_context(probe)
                found.append(port)
    if len(found) < n:
        raise ServerError(f"Fewer than {n} ports from {_FIRST_PORT} to {_LAST_PORT} are free.")
    return found


async def until(condition: Callable[[], Awaitable[bool]], timeout: float, failure: str) -> None:
    """Wait for a condition, asking again and again; after `timeout`, ServerError(failure)."""
    try:
        async with asyncio.timeout(timeout):
            while not await condition():
                await asyncio.sleep(_ASK_AGAIN_S)
    except TimeoutError as error:
        raise ServerError(f"{failure} (waited {timeout:g} s).") from error


def listens(port: int) -> bool:
    """Whether somebody takes connections at this loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


class ServerProcess:
    """One server program; what it writes is appended to the file `log`."""

    def __init__(self, command: Sequence[str], log: Path, *, detached: bool = False) -> None:
        self._command = list(command)
        self._log = log
        self._detached = detached
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return self._process.pid if self._process is not None and self.alive else 0

    @property
    def alive(self) -> bool:
        """Whether it was started and still runs, or is paused."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; does nothing while it runs. Call it from a thread that lives on."""
        if self.alive:
            return
        self._paused = False
        command = self._command if self._detached else command_line(self._command)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nobody."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self._paused = False

    async def stop(self, timeout: float) -> bool:
        """SIGTERM, and SIGKILL when it runs on for `timeout` seconds; whether it ended well."""
        if not self.alive:
            return True
        if self._paused:
            self.resume()
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.pid:
                    await asyncio.sleep(_POLL_S)
                return True
        self.kill()
        return False

    def tail(self) -> str:
        """The last lines it wrote."""
        try:
            return self._log.read_text(errors="replace")[-_TAIL:]
        except OSError:
            return ""

    def _signal(self, number: int) -> None:
        if self._process is None or not self.alive:
            raise ServerError(f"{self._command[0]} does not run, so it can get no signal.")
        self._process.send_signal(number)


def is_running(pid: int, word: str) -> bool:
    """Whether there is a process with this id whose command line contains `word`.

    Process ids are used again: without the word, a stranger would be taken for ours.
    """
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return False
        shown = subprocess.run(
            ["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False
        )
        arguments = shown.stdout
    return word in arguments


async def end_process(pid: int, word: str, timeout: float) -> bool:
    """End a detached process as `ServerProcess.stop` does; whether it ended well."""
    if not is_running(pid, word):
        return True
    os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while is_running(pid, word):
                await asyncio.sleep(_POLL_S)
            return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return False
