"""The worker process: `python -m workers --name NAME`, settings from the environment."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys

from router.bus import Bus
from router.loops import run
from router.settings import Settings
from router.store.calls import TaskId
from router.store.redis import RedisStore
from topologies.errors import SpikeRouterError
from workers.host import Host
from workers.metrics import serving


async def _serve(settings: Settings, alone: TaskId | None) -> None:
    async with (
        RedisStore.of(settings) as store,
        Bus(settings) as bus,
    ):
        host = Host(settings, store, bus, alone)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, host.stop)
        port = settings.metrics_port if alone is None else None  # its parent has the port
        with serving(settings.metrics_host, port, lambda: host.details):
            await host.run()


def main() -> None:
    """Read the command line, and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--name", default="", help="name, unique among live workers")
    serve(parser.parse_args().name)


def serve(name: str = "", *, only: str = "") -> None:
    """Read the environment, and serve until SIGTERM; `only` names the one task to serve.

    What cannot begin for a reason that has a sentence says it, and ends with code 1.
    """
    try:
        _serve_as(name, only)
    except SpikeRouterError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


def _serve_as(name: str, only: str) -> None:
    settings = Settings.load()
    name = name or settings.worker_name or f"{socket.gethostname()}-{os.getpid()}"
    alone = TaskId.parse(only) if only else None
    settings = settings.changed(worker_name=f"{name}-{os.getpid()}" if alone else name)
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # It tells of every assignment, which changes with each task.
    logging.getLogger("aiokafka").setLevel(max(logging.WARNING, logging.root.level))
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    run(_serve(settings, alone))


if __name__ == "__main__":
    main()
