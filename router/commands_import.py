"""The command `spikerouter import`: a network file from a NIR file or a module."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from router.tables import text_table
from topologies.compiler.quantise import Bits
from topologies.errors import SpikeRouterError
from topologies.files import FileError
from topologies.importers.agreement import Agreement, compare, random_batch
from topologies.importers.build import Face, Imported, safe_name
from topologies.importers.from_nir import import_nir
from topologies.importers.modules import import_module
from topologies.importers.nir_file import read_nir
from topologies.importers.nir_options import NirOptions
from topologies.importers.source import find_module, is_nir_file, load_weights
from topologies.importers.write import check_targets, write_network
from topologies.loader import load_samples
from topologies.stages.base import Array

__all__ = ["ImportCommandError", "import_command"]

_RANDOM = 16  # streams, where no samples are given


class ImportCommandError(SpikeRouterError, ValueError):
    """An option of the command is not legal."""


class IntegratorChoice(StrEnum):
    """How time is cut into steps."""

    euler = "euler"
    exp = "exp"


class ResetChoice(StrEnum):
    """What a spike does to its membrane."""

    file = "file"
    zero = "zero"
    subtract = "subtract"
    snntorch = "snntorch"
    snntorch_zero = "snntorch-zero"


class FireChoice(StrEnum):
    """How membranes are compared with thresholds."""

    above = ">"
    reaching = ">="


class EncoderChoice(StrEnum):
    """How inputs become spikes, or integers."""

    events = "events"
    direct = "direct"
    rate = "rate"
    latency = "latency"


def import_command(
    source: Annotated[
        str, typer.Argument(help="A .nir file, or package.module:function that gives a module.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The network file to write.")],
    name: Annotated[str | None, typer.Option(help="Its name; default: that of the file.")] = None,
    dt: Annotated[float | None, typer.Option(help="NIR: seconds per step.")] = None,
    integrator: Annotated[
        IntegratorChoice, typer.Option(help="NIR: how time is cut into steps.")
    ] = IntegratorChoice.euler,
    reset: Annotated[
        ResetChoice, typer.Option(help="NIR: to v_reset of the file, to zero, by subtraction, ...")
    ] = ResetChoice.file,
    fire: Annotated[
        FireChoice, typer.Option(help="NIR: when the membrane is above, or reaches, the threshold.")
    ] = FireChoice.above,
    recurrent_bias: Annotated[
        bool, typer.Option(help="NIR: the bias of a recurrent connection acts in step 0.")
    ] = True,
    max_spikes: Annotated[int, typer.Option(help="NIR: of a neuron in one step.")] = 1,
    if_per_step: Annotated[
        bool, typer.Option("--if-per-step", help="NIR: r of an IF is per step, not per second.")
    ] = False,
    shape: Annotated[
        str | None, typer.Option(help="Modules: of one sample or step, such as 1,8,8.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Modules: a state dict as safetensors.")
    ] = None,
    encoder: Annotated[
        EncoderChoice | None,
        typer.Option(help="Default: events; direct for samples of floats."),
    ] = None,
    low: Annotated[float, typer.Option(help="The least legal input.")] = 0.0,
    high: Annotated[
        float | None, typer.Option(help="The greatest legal input; default: 1, or of the events.")
    ] = None,
    grid: Annotated[int | None, typer.Option(help="Not of events: see network files.")] = None,
    unit: Annotated[int | None, typer.Option(help="Encoder direct: see network files.")] = None,
    period: Annotated[int | None, typer.Option(help="Encoder latency: steps.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a request.", min=1)] = None,
    readout: Annotated[
        str | None, typer.Option(help="count, mean or membrane; default: by the last node.")
    ] = None,
    every: Annotated[int | None, typer.Option(help="A result after each so many steps.")] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="A safetensors file with `images`, (B, *shape) or (B, T, *shape), and perhaps "
            "`labels`, to compare on; default: random input."
        ),
    ] = None,
    bits: Annotated[str, typer.Option(help="Bits per weight to compare at: auto, or 2 to 31.")] = (
        "auto"
    ),
    check: Annotated[
        bool, typer.Option(help="Compare the compiled network with the original.")
    ] = True,
) -> None:
    """Write a network file from SOURCE, and print how far the compiled network agrees with it."""
    check_targets(out)
    images, labels = _samples(samples)
    options = NirOptions(
        dt, integrator.value, reset.value, fire.value, recurrent_bias, max_spikes, if_per_step
    )
    module = None if is_nir_file(source) else find_module(source)
    kind = encoder.value if encoder else _usual_encoder(images)
    if high is None:
        high = float(images.max()) if images is not None and kind == "events" else 1.0
    params = {"grid": grid, "unit": unit, "period": period}
    face = Face(
        name=name or safe_name(out.stem),
        encoder=kind,
        params={key: value for key, value in params.items() if value is not None},
        low=low,
        high=high,
        n_steps=steps,
        readout=readout or ("count" if every else None),
        readings={"every": every} if every else {},
    )
    if module is None:
        found = import_nir(read_nir(Path(source)), face, options)
    else:
        if weights is not None:
            load_weights(module, weights)
        found = import_module(module, _shape(shape, images, kind), face)
    beside = write_network(out, found.network, _remarks(source, options, module, found))
    console = Console()
    console.print(f"[bold]{escape(str(out))}[/bold] and {escape(beside.name)}: {_summary(found)}")
    for note in found.notes:
        console.print(f"note: {escape(note)}")
    if check:
        batch = random_batch(found.network, _RANDOM) if images is None else images
        _print(console, _compared(found, batch, labels, module, _bits(bits)), images is None)


def _compared(
    found: Imported, batch: Array, labels: Array | None, module: Any, bits: Bits
) -> Agreement:
    try:
        return compare(found, batch, labels, module=module, bits=bits)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        if isinstance(error, SpikeRouterError):
            raise
        raise ImportCommandError(
            f"The network file is written, but the original cannot be run: {error}. Its modules "
            "must be such that it can be called with a batch of inputs; --no-check skips this."
        ) from error


def _bits(text: str) -> Bits:
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise ImportCommandError(f"--bits {text}: legal are auto and 2 to 31.")
    return int(text)


def _samples(path: Path | None) -> tuple[Array | None, Array | None]:
    if path is None:
        return None, None
    try:
        arrays = load_samples(path)
    except FileError as error:
        raise ImportCommandError(f"--samples: {error}") from error
    if "images" not in arrays:
        raise ImportCommandError(f"--samples {path}: it has no array 'images'.")
    return arrays["images"], arrays.get("labels")


def _usual_encoder(images: Array | None) -> str:
    if images is None:
        return "events"
    if images.dtype.kind == "f":
        return "direct"
    raise ImportCommandError(
        "The samples are integers: say --encoder events if they are (samples, steps, ...), "
        "--encoder direct if they are (samples, ...)."
    )


def _shape(text: str | None, images: Array | None, encoder: str) -> tuple[int, ...]:
    if text is None and images is not None:
        return tuple(images.shape[2 if encoder == "events" else 1 :])
    parts = (text or "").replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ImportCommandError(
            f"--shape {text}: a module does not say what it reads; legal is the shape of one "
            "sample or step, such as 1,8,8, or --samples."
        )
    return tuple(int(part) for part in parts)


def _remarks(source: str, options: NirOptions, module: Any, found: Imported) -> list[str]:
    lines = [f"Imported from {source} by spikerouter import."]
    if module is None:
        lines.append(
            f"dt {options.dt}, integrator {options.integrator}, reset {options.reset}, fire "
            f"{options.fire}, recurrent bias from step {int(not options.recurrent_bias)}, up to "
            f"{options.max_spikes} spikes per step."
        )
    return [*lines, *found.notes]


def _summary(found: Imported) -> str:
    network = found.network
    return (
        f"{len(network.layers)} layers, {len(found.neurons)} of neurons; input "
        f"{list(network.input.shape)} {network.input.encoder}, readout {network.output.readout}."
    )


def _print(console: Console, found: Agreement, is_random: bool) -> None:
    kind = "random" if is_random else "given"
    console.print(
        f"\nCompared with {escape(found.against)} on {found.n_samples} {kind} samples of "
        f"{found.n_steps} steps:\n  outputs: {found.same_class:.2%} same class, largest "
        f"difference {found.worst:.4g}"
    )
    if found.accuracy_original is not None and found.accuracy_network is not None:
        console.print(
            f"  accuracy: {found.accuracy_original:.2%} original, {found.accuracy_network:.2%} "
            "compiled"
        )
    rows = [
        (s.place, s.layer, f"{s.equal:.3%}", f"{s.rate_original:.4f}", f"{s.rate_network:.4f}")
        for s in found.spikes
    ]
    heads = ("original", "layer", "equal spikes", "rate there", "rate here")
    if rows:
        console.print(text_table("Spikes", [heads, *rows]))
        equal = float(np.mean([s.equal for s in found.spikes]))
        console.print(f"spike agreement: {equal:.3%}")
