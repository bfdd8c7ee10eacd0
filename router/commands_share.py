"""The command `spikerouter share`: what networks have in common, and what that saves."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from router.commands_compile import GranularityChoice
from router.tables import text_table
from topologies.compiler import compile_network
from topologies.errors import SpikeRouterError
from topologies.loader import load_network, zoo_networks
from topologies.sharing import LEVELS, Row, Sharing, Spares, share
from topologies.sharing_picture import draw_sharing

__all__ = ["ShareCommandError", "share_command", "sharing_json"]


class ShareCommandError(SpikeRouterError, ValueError):
    """The picture cannot be written."""


def share_command(
    networks: Annotated[
        list[str] | None,
        typer.Argument(help="Names in the zoo, or files; none: the whole zoo."),
    ] = None,
    granularity: Annotated[
        GranularityChoice, typer.Option(help="How coarse a service is.")
    ] = GranularityChoice.layer,
    svg: Annotated[Path | None, typer.Option(help="Also draw a picture into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count which operators NETWORKS share, exactly, by signature and by kind."""
    names = networks or list(zoo_networks())
    sharing = share(
        [compile_network(load_network(n), granularity=granularity.value) for n in names]
    )
    if svg is not None:
        _write(svg, draw_sharing(sharing))
    if as_json:
        print(json.dumps(sharing_json(sharing)))
        return
    console = Console()
    console.print(text_table("Operators, and how many are distinct", _counts(sharing)))
    console.print(text_table("Spares that outlast any one operator's worker", _spares(sharing)))
    if svg is not None:
        console.print(f"Picture: {svg}", highlight=False)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ShareCommandError(f"--svg {path}: it cannot be written ({error}).") from error


def sharing_json(sharing: Sharing) -> dict[str, object]:
    """What `--json` prints: counts per network and in all, and the spares of each kind of pool."""
    return {
        "networks": [_row_json(row) for row in sharing.networks],
        "families": [_row_json(row) for row in sharing.families],
        "total": _row_json(sharing.total),
        "spares": [
            _spares_json(sharing.per_model, 0.0),
            *(_spares_json(sharing.pools[level], sharing.saved(level)) for level in LEVELS),
        ],
    }


def _row_json(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "operators": row.n_operators,
        "nodes": row.n_nodes,
        "distinct": dict(row.distinct),
        "shared": dict(row.shared),
        "ratio": {level: round(row.ratio(level), 3) for level in LEVELS},
    }


def _spares_json(spares: Spares, saved: float) -> dict[str, object]:
    return {
        "pool": spares.pool,
        "spares": spares.n,
        "neurons_and_synapses": spares.size,
        "saved": round(saved, 4),
    }


def _counts(sharing: Sharing) -> list[tuple[str, ...]]:
    heads = ("network", "operators", *LEVELS, "shared\nexact", "shared\nsignature", "ratio")
    rows = [*sharing.networks, *sharing.families, sharing.total]
    return [heads, *(_cells(row) for row in rows)]


def _cells(row: Row) -> tuple[str, ...]:
    counts = (row.n_operators, *(row.distinct[level] for level in LEVELS))
    shared = (row.shared["exact"], row.shared["signature"])
    return (row.name, *map(str, (*counts, *shared)), f"{row.ratio('exact'):.2f}")


def _spares(sharing: Sharing) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("pool", "spares", "neurons and synapses", "saved")]
    per_model = sharing.per_model
    rows.append((per_model.pool, str(per_model.n), f"{per_model.size:,}", ""))
    for level in LEVELS:
        pool = sharing.pools[level]
        name = f"per {level} class"
        rows.append((name, str(pool.n), f"{pool.size:,}", f"{sharing.saved(level):.0%}"))
    return rows
