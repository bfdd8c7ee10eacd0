"""`spikerouter remove`: take a network away while others serve."""

import asyncio
import json
from typing import Annotated

import typer

from router.removal import remove
from router.settings import Settings

__all__ = ["remove_command"]


def remove_command(
    network: Annotated[str, typer.Argument(help="Name of a deployed network.")],
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait for its open streams to end.")
    ] = 60.0,
    force: Annotated[
        bool, typer.Option(help="End streams that nobody has ended, with the error NetworkRemoved.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove NETWORK once its streams have ended; what other networks use stays as it is."""
    changes: dict[str, object] = {"kafka": kafka, "redis": redis}
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    done = asyncio.run(remove(settings, network, timeout=timeout, force=force))
    if as_json:
        told = {"network": done.network, "tasks": done.n_tasks, "operators": done.n_operators}
        print(json.dumps(told))
    else:
        print(
            f"Removed {done.network}: {done.n_tasks} tasks of {done.n_operators} operators that no "
            "other network has."
        )
