"""The command `spikerouter share`: what networks have in common, and what that saves."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from router.commands_compile import GranularityChoice
from router.tables import text_table
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.compiler.report import not_portable
from topologies.errors import SpikeRouterError
from topologies.files import FileError, check_target, write_file
from topologies.loader import family_of, load_network, zoo_networks
from topologies.sharing import LEVELS, Row, Sharing, Spares, share
from topologies.sharing_picture import draw_sharing

__all__ = ["ShareCommandError", "share_command", "sharing_json"]

_OTHER = "other"  # the family of networks that are not of the zoo


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
    if svg is not None:
        _check(svg)
    names = networks or list(zoo_networks())
    compiled = [compile_network(load_network(n), granularity=granularity.value) for n in names]
    sharing = _analyse(names, compiled)
    if svg is not None:
        _write(svg, draw_sharing(sharing))
    if as_json:
        print(json.dumps(sharing_json(sharing)))
        return
    console = Console()
    for title, rows in _tables(sharing).items():
        console.print(text_table(title, rows))
    for network in compiled:
        if warning := not_portable(network):
            console.print(f"{network.name} is {warning}", highlight=False, soft_wrap=True)
    if svg is not None:
        console.print(f"Picture: {svg}", highlight=False)


def _analyse(names: list[str], compiled: list[CompiledNetwork]) -> Sharing:
    pairs = zip(compiled, names, strict=True)
    return share(compiled, {network.name: family_of(name) or _OTHER for network, name in pairs})


def _check(path: Path) -> None:
    """Before the work, and not after it."""
    try:
        check_target(path)
    except FileError as error:
        raise ShareCommandError(f"--svg: {error}") from error


def _write(path: Path, text: str) -> None:
    try:
        write_file(path, text.encode("utf-8"))
    except FileError as error:
        raise ShareCommandError(f"--svg: {error}") from error


def sharing_json(sharing: Sharing) -> dict[str, object]:
    """What `--json` prints: counts and spares of each network, each family, and all together."""
    return {
        "networks": [_row_json(row) for row in sharing.networks],
        "families": [_row_json(row) for row in sharing.families],
        "total": _row_json(sharing.total),
    }


def _row_json(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "networks": list(row.networks),
        "operators": row.n_operators,
        "nodes": row.n_nodes,
        "distinct": dict(row.distinct),
        "shared": dict(row.shared),
        "ratio": {level: round(row.ratio(level), 3) for level in LEVELS},
        "spares": [
            _spares_json(row.per_model, 0.0, 0.0),
            *(
                _spares_json(row.pools[level], row.saved_spares(level), row.saved_size(level))
                for level in LEVELS
            ),
        ],
    }


def _spares_json(spares: Spares, saved: float, saved_size: float) -> dict[str, object]:
    """`saved` is the share of the spares, `saved_size` that of their neurons and synapses."""
    return {
        "pool": spares.pool,
        "spares": spares.n,
        "neurons_and_synapses": spares.size,
        "saved": round(saved, 4),
        "saved_size": round(saved_size, 4),
    }


def _tables(sharing: Sharing) -> dict[str, list[tuple[str, ...]]]:
    """The tables' rows by their titles; the first row has the heads."""
    families = [*sharing.families, sharing.total]
    pools = ("per model", *(f"pool per\n{level}" for level in LEVELS))
    return {
        "Operators of each network, and how many are distinct": _networks(sharing),
        "Operators by family, distinct ones, and (ratio)": [
            ("family", "networks", "operators", *LEVELS),
            *map(_family, families),
        ],
        "Spares that outlast any one worker, and (saved)": [
            ("family", *pools),
            *map(_spares, families),
        ],
        "Their neurons and synapses in thousands, and (saved)": [
            ("family", *pools),
            *map(_sizes, families),
        ],
    }


def _networks(sharing: Sharing) -> list[tuple[str, ...]]:
    heads = ("network", "operators", *LEVELS, "shared\nexact", "shared\nsignature")
    return [heads, *map(_network, [*sharing.networks, sharing.total])]


def _network(row: Row) -> tuple[str, ...]:
    counts = (row.n_operators, *(row.distinct[level] for level in LEVELS))
    return (row.name, *map(str, (*counts, row.shared["exact"], row.shared["signature"])))


def _family(row: Row) -> tuple[str, ...]:
    distinct = (f"{row.distinct[level]} ({row.ratio(level):.2f})" for level in LEVELS)
    return (row.name, str(len(row.networks)), str(row.n_operators), *distinct)


def _spares(row: Row) -> tuple[str, ...]:
    pools = (f"{row.pools[level].n} ({row.saved_spares(level):.0%})" for level in LEVELS)
    return (row.name, str(row.per_model.n), *pools)


def _sizes(row: Row) -> tuple[str, ...]:
    pools = (f"{_thousands(row.pools[x])} ({row.saved_size(x):.0%})" for x in LEVELS)
    return (row.name, _thousands(row.per_model), *pools)


def _thousands(spares: Spares) -> str:
    return f"{spares.size / 1000:,.0f}"
