"""Options that several commands have."""

from typing import Annotated

import typer

__all__ = ["KafkaOption", "RedisOption"]

KafkaOption = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="A real Kafka; 'apache' starts one; else embedded."),
]
RedisOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A real Redis; 'server' starts one; else embedded."),
]
