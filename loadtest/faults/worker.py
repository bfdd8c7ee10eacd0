"""A worker process that faults can be played on: `python -m loadtest.faults.worker OPTIONS`.

It is the product's own worker (`python -m workers`), started in the same way, after what the
options ask for has been put between it and the outside:

- `--redirect HOST:PORT=HOST:PORT` leads its connections to a broker through a proxy. Brokers tell
  clients where to connect, so that cannot be done by settings alone.
- `--clock FILE` adds to its wall clock the seconds that stand in the file, a float64.
- `--release N` makes it another release of wire and snapshot format (`loadtest.faults.releases`).
- `--deadly NODE:STREAM:WINDOW` kills the process that is to step that window, as a fault in a
  kernel's native code would.

All of it holds for the processes that it starts for suspicious tasks, too (`workers.alone`).
"""

import argparse
import asyncio
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from aiokafka.conn import AIOKafkaConnection

__all__ = ["jump", "new_clock", "worker_command"]

_OFFSET = struct.Struct("<d")


def worker_command(
    name: str,
    *,
    redirects: Mapping[str, str],
    clock: Path | None = None,
    release: str = "",
    deadly: str = "",
) -> tuple[str, ...]:
    """The command line of such a worker; `redirects` are brokers -> proxies."""
    options = [f"--redirect={broker}={proxy}" for broker, proxy in redirects.items()]
    if clock is not None:
        options.append(f"--clock={clock}")
    if release:
        options.append(f"--release={release}")
    if deadly:
        options.append(f"--deadly={deadly}")
    return (sys.executable, "-m", "loadtest.faults.worker", *options, "--name", name)


def new_clock(path: Path) -> Path:
    """Make the file of a clock that is right."""
    path.write_bytes(_OFFSET.pack(0.0))
    return path


def jump(path: Path, seconds: float) -> None:
    """Put the wall clock of the worker that reads this file so many seconds ahead of ours."""
    with path.open("r+b") as file:
        file.write(_OFFSET.pack(seconds))


def _follow_clock(path: Path) -> None:
    """Add the file's offset to `time.time`, from now on."""
    with path.open("rb") as file:
        shown = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    right = time.time

    def shifted() -> float:
        offset: float = _OFFSET.unpack(shown[: _OFFSET.size])[0]
        return right() + offset

    mock.patch.object(time, "time", shifted).start()


def _redirect(proxies: Mapping[str, str]) -> None:
    """Lead connections of aiokafka to these brokers through their proxies."""
    init = AIOKafkaConnection.__init__

    def redirected(self: AIOKafkaConnection, host: str, port: int, **options: object) -> None:
        there, _, its = proxies.get(f"{host}:{port}", f"{host}:{port}").rpartition(":")
        init(self, there, int(its), **options)

    mock.patch.object(AIOKafkaConnection, "__init__", redirected).start()


def _die_at(deadly: str) -> None:
    """Let the window of `NODE:STREAM:WINDOW` kill this process when it is to be stepped."""
    from workers.compute import KernelCompute
    from workers.windows import Work

    node, name, window = deadly.split(":")
    run = KernelCompute.run

    def run_or_die(self: KernelCompute, work: Work) -> list[Any]:
        hand = {(w.place.node, w.stream.name, str(w.window)) for w in work.windows}
        if (node, name, window) in hand:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, work)

    mock.patch.object(KernelCompute, "run", run_or_die).start()


def _hook_children(hooks: Sequence[str]) -> None:
    """Start the processes of suspicious tasks with the same hooks."""
    start: Any = asyncio.create_subprocess_exec
    alone, hooked = ("-m", "workers.alone"), ("-m", "loadtest.faults.worker", *hooks, "--alone")

    async def started(program: str, *arguments: str, **options: Any) -> Any:
        if arguments[:2] == alone:
            arguments = (*hooked, *arguments[2:])
        return await start(program, *arguments, **options)

    mock.patch.object(asyncio, "create_subprocess_exec", started).start()


def main() -> None:
    """Put the faults' hooks in place, then be a worker."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.faults.worker", description=__doc__)
    parser.add_argument("--redirect", action="append", default=[])
    parser.add_argument("--clock", type=Path)
    parser.add_argument("--release", default="")
    parser.add_argument("--deadly", default="")
    parser.add_argument("--alone", action="store_true", help="be `workers.alone`")
    options, rest = parser.parse_known_args()
    _redirect(dict(each.split("=") for each in options.redirect))
    if options.clock is not None:
        _follow_clock(options.clock)
    if options.release:
        from loadtest.faults.releases import install

        install(options.release)
    if options.deadly:
        _die_at(options.deadly)
    _hook_children([hook for hook in sys.argv[1:] if hook not in (*rest, "--alone")])
    sys.argv = [sys.argv[0], *rest]
    _work(alone=options.alone)


def _work(*, alone: bool) -> None:
    """Import the worker only now: after what it is to find in place."""
    if alone:
        from workers.alone import main as work
    else:
        from workers.__main__ import main as work
    work()


if __name__ == "__main__":
    main()
