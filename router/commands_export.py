"""The command `spikerouter export`: a network as a NIR file."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from topologies.files import check_target
from topologies.importers.nir_file import write_nir
from topologies.importers.to_nir import export_nir
from topologies.loader import load_network

__all__ = ["export_command"]


def export_command(
    network: Annotated[
        str, typer.Argument(help="A name in the zoo, a network file or its folder.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .nir file to write.")],
    dt: Annotated[float, typer.Option(help="Seconds per step: NIR's times are in seconds.")] = 1e-4,
) -> None:
    """Write NETWORK as a NIR file, and print how to read it again."""
    check_target(out)
    exported = export_nir(load_network(network), dt)
    write_nir(out, dict(exported.document))
    console = Console()
    options = exported.options
    more = f" --max-spikes {options.max_spikes}" if options.max_spikes > 1 else ""
    console.print(f"[bold]{escape(str(out))}[/bold]: {len(exported.document['nodes'])} nodes.")
    console.print(
        f"Read it again with --dt {options.dt:g} --reset {options.reset} --fire "
        f"'{options.fire}'{more}"
    )
    for note in exported.notes:
        console.print(f"note: {escape(note)}")
