"""`spikerouter zoo`: the networks that come with the package, and what they answer when served.

`zoo eval` serves networks with worker processes on the embedded stack, sends the test samples that
come with them, and compares the accuracy of what comes back with the training framework's. Networks
of one input are served together and get each sample once, so that what is equal in them computes
once.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtest.demo import run_to_report
from loadtest.zoo_trials import load_trial, records
from router.client import Deadline, Publisher, ResultReader
from router.settings import Settings
from router.supervisor import Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network, zoo_entry, zoo_networks
from topologies.stages.base import Array
from topologies.trials import Trial
from topologies.zoo.entry import Entry

__all__ = ["Row", "eval_command", "list_command", "serve"]

_PARTITIONS: Final = 2
_MAX_BATCH: Final = 16  # streams stepped together: less to try before a large operator is served
_IN_FLIGHT: Final = 64
_TIMEOUT_S: Final = 600.0  # for all samples of one input, on a busy machine too
_READY_S: Final = 300.0


@dataclass(frozen=True)
class Row:
    """One network; accuracies are shares of 1, of `n_samples` classes that were asked for."""

    family: str
    network: str
    data: str
    accuracy: float
    accuracy_framework: float
    least_accuracy: float
    n_samples: int

    @property
    def ok(self) -> bool:
        """Whether the served network is as good as it is declared to be."""
        return self.accuracy >= self.least_accuracy


async def serve(
    networks: Sequence[CompiledNetwork],
    trial: Trial,
    n_workers: int,
    answered: Callable[[int], None],
) -> dict[str, list[Array]]:
    """Serve networks of one input with workers; network -> the emissions (K, n) of every stream.

    `answered` is told how many answers have come. Raises what a client raises.
    """
    settings = Settings.load(
        partitions=_PARTITIONS,
        max_batch=_MAX_BATCH,
        progress_deadline_s=_TIMEOUT_S,
        log_level="WARNING",
    )
    options = StackOptions(networks=tuple(networks), n_workers=n_workers, gateway=False)
    async with Stack(settings, options) as stack:
        await stack.wait_ready(_READY_S)
        async with (
            Publisher.of(stack.settings) as publisher,
            ResultReader.of(stack.settings) as reader,
        ):
            for network in networks:
                await reader.follow(network.name, network.input.name, network.outputs.every)
            return await _ask_all(networks, trial, publisher, reader, answered)


async def _ask_all(
    networks: Sequence[CompiledNetwork],
    trial: Trial,
    publisher: Publisher,
    reader: ResultReader,
    answered: Callable[[int], None],
) -> dict[str, list[Array]]:
    room = asyncio.Semaphore(_IN_FLIGHT)
    deadline = Deadline.after(_TIMEOUT_S)
    spec = networks[0].input

    async def ask(index: int, stream: Array) -> list[Array]:
        name = f"sample-{index:05d}"
        async with room:
            for record in records(name, stream, networks[0]):
                await publisher.publish(spec.name, record)
            found = [await reader.result(name, deadline, network=n.name) for n in networks]
        answered(len(networks))
        return [result.values for result in found]

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(i, s)) for i, s in enumerate(trial.streams)]
    rows = [task.result() for task in asked]
    return {n.name: [row[i] for row in rows] for i, n in enumerate(networks)}


async def _evaluate(names: Sequence[str], n_workers: int, console: Console) -> list[Row]:
    together: dict[str, list[CompiledNetwork]] = defaultdict(list)
    for name in names:
        network = compile_network(load_network(name))
        together[network.input.name].append(network)
    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn())
    shown = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    rows = []
    with shown as progress:
        for networks in together.values():
            entries = [zoo_entry(network.name) for network in networks]
            trial = load_trial(entries[0].samples, networks[0])
            label = networks[0].name if len(networks) == 1 else networks[0].input.name
            bar = progress.add_task(label, total=len(trial.streams) * len(networks))
            answers = await serve(networks, trial, n_workers, partial(progress.advance, bar))
            rows += [_row(e, n, trial, answers) for e, n in zip(entries, networks, strict=True)]
    return rows


def _row(
    entry: Entry, network: CompiledNetwork, trial: Trial, answers: dict[str, list[Array]]
) -> Row:
    return Row(
        family=entry.family,
        network=entry.name,
        data=entry.data,
        accuracy=trial.accuracy(answers[entry.name], network.outputs.shape[0]),
        accuracy_framework=entry.accuracy_framework,
        least_accuracy=entry.least_accuracy,
        n_samples=trial.n_samples,
    )


def eval_command(
    networks: Annotated[
        list[str] | None, typer.Argument(help="Names in the zoo; all of them by default.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Serve networks through workers, and print their accuracy beside the training framework's."""
    names = [zoo_entry(name).name for name in networks or zoo_networks()]
    rows = run_to_report(_evaluate(names, workers, Console(stderr=True)))
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        Console(highlight=False).print(_table(rows))
    if not all(row.ok for row in rows):
        raise typer.Exit(1)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="Accuracy through the running service", title_justify="left")
    for name in ("family", "network", "data"):
        table.add_column(name)
    for name in ("served", "framework", "at least", "samples"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        served = f"{row.accuracy:.1%}" if row.ok else f"[red]{row.accuracy:.1%}[/red]"
        numbers = (served, f"{row.accuracy_framework:.1%}", f"{row.least_accuracy:.0%}")
        table.add_row(row.family, row.network, row.data, *numbers, str(row.n_samples))
    return table


def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """The networks that come with the package."""
    entries = [zoo_entry(name) for name in zoo_networks()]
    if as_json:
        rows = [{**asdict(entry), "samples": entry.samples.name} for entry in entries]
        print(json.dumps({"rows": rows}))
        return
    table = Table("family", "network", "data", title="The zoo", title_justify="left")
    table.add_column("framework", justify="right")
    for entry in entries:
        accuracy = f"{entry.accuracy_framework:.1%}"
        table.add_row(entry.family, entry.name, entry.data, accuracy)
    Console(highlight=False).print(table)
