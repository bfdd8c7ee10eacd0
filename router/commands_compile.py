"""The command `spikerouter compile`: what a network becomes."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from router.profile_report import bits_for, bits_table, check_fit, nodes_table
from router.tables import text_table
from topologies.compiled import CompiledNetwork
from topologies.compiler import Capacity, compile_with_errors
from topologies.compiler.draw import draw_svg, draw_text
from topologies.compiler.plan import Plan, make_plan
from topologies.compiler.quantise import Bits
from topologies.compiler.report import Report, make_report, not_portable
from topologies.compiler.saturation import Saturation
from topologies.errors import SpikeRouterError
from topologies.files import FileError
from topologies.loader import load_network, load_samples, samples_of
from topologies.profiles import Profile, find_profile
from topologies.stages.base import ValueType
from topologies.trials import Trial, trial_of

__all__ = ["CompileCommandError", "Drawing", "GranularityChoice", "compile_command"]


class CompileCommandError(SpikeRouterError, ValueError):
    """An option of the command is not legal."""


class GranularityChoice(StrEnum):
    """How coarse a service is."""

    model = "model"
    stage = "stage"
    layer = "layer"
    group = "group"


class Drawing(StrEnum):
    """How the graph is drawn."""

    svg = "svg"
    text = "text"


def compile_command(
    network: Annotated[
        str,
        typer.Argument(
            help="A name in the zoo or of a full-size network, a network file or its folder."
        ),
    ],
    granularity: Annotated[
        GranularityChoice, typer.Option(help="How coarse a service is; never changes a bit.")
    ] = GranularityChoice.layer,
    bits: Annotated[str, typer.Option(help="Bits per weight: auto, or 2 to 31.")] = "auto",
    neurons: Annotated[int | None, typer.Option(help="Most neurons of a synapse group.")] = None,
    synapses: Annotated[int | None, typer.Option(help="Most synapses of a synapse group.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="Hardware node to cut for: a preset of docs/hardware.md.")
    ] = None,
    draw: Annotated[
        Drawing | None, typer.Option(help="Print the graph instead of the tables.")
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="A safetensors file with `images` or `sequences`, and perhaps `labels`, "
            "to compare on; by default test_images.safetensors beside the network file, or those "
            "of the zoo."
        ),
    ] = None,
    partitions: Annotated[int, typer.Option(help="Partitions, to count tasks.", min=1)] = 1,
) -> None:
    """Compile NETWORK and print its operators, groups, hashes, shapes and costs."""
    authored = load_network(network)
    capacity = None if neurons is None and synapses is None else Capacity(neurons, synapses)
    weight_bits = _bits(bits)
    node = None if profile is None else find_profile(profile)
    if node is not None:
        capacity, weight_bits = _within(node, neurons, synapses), bits_for(node, weight_bits)
    compilation = compile_with_errors(
        authored, granularity=granularity.value, bits=weight_bits, capacity=capacity
    )
    compiled = compilation.network
    if node is not None:
        check_fit(compiled, node)
    if draw is not None:
        typer.echo(draw_svg(compiled) if draw is Drawing.svg else draw_text(compiled), nl=False)
        return
    trial = _trial(samples or samples_of(network), compiled)
    console = Console()
    console.print(_heading(compiled))
    console.print(_operators(compiled))
    console.print(_groups(compiled))
    report = make_report(authored, compilation, trial)
    console.print(_weights(report))
    console.print(_plan(make_plan(compiled, partitions), partitions))
    if report.agreement is not None:
        console.print(_agreement(report))
    for saturation in report.saturating:
        console.print(_saturation(saturation))
    if node is not None:
        console.print(text_table("Nodes, and the most that one needs", nodes_table(compiled, node)))
        if trial is not None:
            rows = bits_table(authored, node, granularity.value, trial)
            console.print(text_table("Bits per weight", rows))


def _within(node: Profile, neurons: int | None, synapses: int | None) -> Capacity:
    """What is asked for, or less if the node has less."""
    return replace(
        node.capacity,
        neurons=_least(node.neurons, neurons),
        synapses=_least(node.synapses, synapses),
    )


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _bits(text: str) -> Bits:
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise CompileCommandError(f"--bits {text}: legal are auto and 2 to 31.")
    return int(text)


def _trial(path: Path | None, network: CompiledNetwork) -> Trial | None:
    if path is None:
        return None
    try:
        arrays = load_samples(path)
    except FileError as error:
        raise CompileCommandError(f"--samples: {error}") from error
    return trial_of(arrays, network.input)


def _heading(network: CompiledNetwork) -> str:
    spec, out, warning = network.input, network.outputs, not_portable(network)
    n_steps = f"{spec.n_steps} steps" if spec.n_steps else "any number of steps"
    return (
        f"[bold]{network.name}[/bold] version {network.version}\n"
        f"input {spec.name}: {spec.encoder} {list(spec.shape)} in {spec.low:g} to {spec.high:g}, "
        f"{n_steps}, windows of up to {spec.longest_window}\n"
        f"output: {out.readout} {list(out.shape)} {out.dtype}" + (f"\n{warning}" if warning else "")
    )


def _type(value: ValueType) -> str:
    shape = "x".join(map(str, value.shape))
    return f"{shape} spikes" if value.is_spike else f"{shape} {value.low}..{value.high}"


def _operators(network: CompiledNetwork) -> Table:
    table = Table(title="Operators, per stream and step", title_justify="left", padding=0)
    table.add_column("operator", no_wrap=True)
    for name in ("layers", "output"):
        table.add_column(name)
    for name in ("neurons", "synapses", "MACs", "state B"):
        table.add_column(name, justify="right", no_wrap=True)
    for node in network.nodes.values():
        summary = network.summaries[node.operator]
        cost = summary.cost
        table.add_row(
            summary.id[:8],
            network.labels.get(node.id, "").replace("+", " "),
            _type(summary.output) if summary.kind != "readout" else "result",
            *(f"{cost.n_neurons:,}", f"{cost.n_synapses:,}"),
            *(f"{cost.macs_per_step:,}", f"{cost.state_bytes:,}"),
        )
    return table


def _groups(network: CompiledNetwork) -> Table:
    table = Table(title="Synapse groups", title_justify="left")
    for name in ("operator", "group", "outputs"):
        table.add_column(name, no_wrap=True)
    for name in ("neurons", "synapses"):
        table.add_column(name, justify="right", no_wrap=True)
    for oid, groups in network.groups.items():
        program = network.operators[oid].program
        for group in groups:
            cost = program.slice(group.lo, group.hi).cost
            span = f"{group.lo} to {group.hi - 1}"
            numbers = (f"{cost.n_neurons:,}", f"{cost.n_synapses:,}")
            table.add_row(oid, str(group.index), span, *numbers)
    return table


def _weights(report: Report) -> Table:
    table = Table(title="Weights on the grid", title_justify="left")
    table.add_column("layer")
    for name in ("bits", "scale", "worst error", "of the largest", "summed in"):
        table.add_column(name, justify="right")
    for error in report.weights:
        share = error.worst / error.largest if error.largest else 0.0
        numbers = (f"{error.bits}", f"2**{-error.shift}", f"{error.worst:.3g}", f"{share:.2e}")
        table.add_row(error.layer, *numbers, error.accumulator)
    return table


def _plan(plan: Plan, partitions: int) -> str:
    worst = max(plan.worst_record.values(), default=0)
    return (
        f"{len(plan.topics)} topics, {len(plan.tasks)} tasks on {partitions} partition(s), "
        f"worst batch {worst:,} bytes"
    )


def _saturation(found: Saturation) -> str:
    limits = f"{found.low} to {found.high} units of 2**-{found.unit}"
    counted = (
        f"; of {found.n_values:,} on the samples {found.n_saturated:,} were cut off"
        if found.n_values
        else ""
    )
    return f"Values of {found.layer} may leave {limits}{counted}."


def _agreement(report: Report) -> str:
    found = report.agreement
    if found is None:
        return ""
    text = (
        f"{found.n_samples} samples: {found.agreement:.2%} same class as before quantising, "
        f"{found.identical:.2%} identical"
    )
    if found.accuracy_before is None or found.accuracy_after is None:
        return text
    return f"{text}; accuracy {found.accuracy_before:.2%} before, {found.accuracy_after:.2%} after"
