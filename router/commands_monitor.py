"""The command `spikerouter monitor`: what each window of time has seen."""

import asyncio
import json
import logging
import time
from typing import Annotated, Final

import typer
from rich.console import Console

from router.activity import Report
from router.lookup import deployed_networks, find_network
from router.monitor import Monitor
from router.settings import Settings
from router.supervisor import read_status
from router.tables import text_table

__all__ = ["monitor_command"]

_SETTLE_S: Final = 0.5  # after a window's end, for its last records to be read


def monitor_command(
    window: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.5, help="Length of a window of time.")
    ] = 5.0,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many windows.")] = None,
    name: Annotated[
        str, typer.Option(help="Monitors of one name share the partitions between them.")
    ] = "snn-monitor",
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON per window.")
    ] = False,
) -> None:
    """Watch all deployed networks, until Ctrl-C.

    For each window of time: spikes per neuron and step of each synapse group, which groups are
    silent or saturated, how far their tasks lag, and the latency from ingest to result.
    """
    changes: dict[str, object] = {"kafka": kafka, "redis": redis}
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    logging.getLogger("faust").setLevel(logging.WARNING)
    asyncio.run(_watch(settings, window, count, name, as_json=as_json))


async def _watch(
    settings: Settings, window_s: float, count: int | None, name: str, *, as_json: bool
) -> None:
    networks = await deployed_networks(settings)
    sizes = [(await find_network(settings, network)).n_partitions for network in networks]
    settings = settings.changed(partitions=max(sizes, default=settings.partitions))
    monitor = Monitor(
        settings, networks.values(), settings.partitions, window_s=window_s, name=name
    )
    async with monitor:
        while count is None or count > 0:
            at = time.time()
            await asyncio.sleep(window_s - at % window_s + _SETTLE_S)
            tasks = (await read_status(settings)).tasks
            _show(monitor.report(at, tasks), as_json=as_json)
            count = None if count is None else count - 1


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_json()), flush=True)
        return
    console = Console(highlight=False)
    console.rule(time.strftime("%H:%M:%S", time.localtime(report.start)))
    for title, rows in report.tables().items():
        console.print(text_table(title, rows))
    if report.bad_frames:
        console.print(f"{report.bad_frames} records were no frames.")
