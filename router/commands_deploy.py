"""`spikerouter deploy`: make the topics and tasks of networks on a Kafka and a Redis that run."""

import asyncio
import json
from typing import Annotated

import typer

from router.deploy import deploy
from router.settings import Settings

__all__ = ["deploy_command"]


def deploy_command(
    networks: Annotated[list[str], typer.Argument(help="Names from the zoo, or files.")],
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
    partitions: Annotated[int | None, typer.Option(help="Partitions of every topic.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Deploy networks; repeat it freely. Workers that run claim the new tasks by themselves."""
    changes: dict[str, object] = {"kafka": kafka, "redis": redis, "partitions": partitions}
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    done = asyncio.run(deploy(settings, networks))
    if as_json:
        told = {"networks": done.networks, "tasks": done.n_tasks, "new": done.n_new}
        print(json.dumps(told))
    else:
        print(
            f"Deployed {', '.join(done.networks)}: {done.n_tasks} tasks, {done.n_new} of them new."
        )
