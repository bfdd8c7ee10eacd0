"""`spikerouter demo`: kill a worker under load, and compare every output bit.

1. Compile the digits network, and run all its input in one undisturbed process.
2. Serve it with several worker processes; send 360 images as requests, and one long stream.
3. Kill -9 the worker that holds the operator in the middle, while both run.
4. Wait for every answer; compare; read how the lost tasks came back.
5. Kill again, and do what one does without Spike Router: stop everything, compile, deploy, start.
"""

import asyncio
import json
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from safetensors.numpy import load_file

from loadtest.recovery import Observer, Recovery, middle_operator
from loadtest.traffic import Traffic, sample_record
from loadtest.undisturbed import digest_of, run_streams
from router.client import Deadline, Publisher, ResultReader, partition_of, request
from router.deploy import deploy
from router.options import KafkaOption, RedisOption
from router.settings import Settings
from router.store.calls import TaskId
from router.supervisor import OWN_KAFKA, Stack, StackOptions
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.errors import SpikeRouterError
from topologies.loader import load_network
from topologies.stages.base import Array

__all__ = [
    "DemoFailed",
    "Kill",
    "Redeployment",
    "Report",
    "demo",
    "kill_holder",
    "load_digits",
    "run_to_report",
]

R = TypeVar("R")

_NETWORK: Final = "scnn_digits"
_PARTITIONS: Final = 2
_TIMEOUT_S: Final = 45.0  # for an answer; nothing is lost before that
_PHASES: Final = {
    "detect": "its leases run out",
    "claim": "another worker takes the task",
    "restore": "operator and checkpoint are loaded",
    "replay": "windows since the checkpoint are applied again",
    "caught_up": "all of it, since the kill",
}


class DemoFailed(SpikeRouterError, RuntimeError):
    """The demonstration did not show what it is to show."""


@dataclass(frozen=True)
class Kill:
    """What was killed, and what was under way; `at` is wall clock, in ms.

    `task` was the one in the middle, with state of `streams_held` streams; `tasks` are all its
    tasks.
    """

    worker: str
    pid: int
    operator: str
    task: TaskId
    tasks: tuple[TaskId, ...]
    at: float
    streams_held: int
    requests_in_flight: int
    windows_in_flight: int


@dataclass(frozen=True)
class Redeployment:
    """Times since the kill, in ms, and what became of the streams that were open at the kill."""

    stopped_ms: float
    compiled_ms: float
    deployed_ms: float
    first_output_ms: float
    streams_in_flight: int
    streams_lost: int


@dataclass(frozen=True)
class Report:
    """What the demonstration found. Times are in ms."""

    accuracy: float
    n_images: int
    n_windows: int
    n_workers: int
    kill: Kill
    timeline: Mapping[str, float]
    all_caught_up_ms: float
    longest_silence_ms: float
    windows_replayed: int
    duplicates_dropped: int
    repeats_dropped_by_client: int
    streams_lost: int
    redeployment: Redeployment
    outputs_sha256: str
    undisturbed_sha256: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every bit is as if nothing had happened."""
        return self.outputs_sha256 == self.undisturbed_sha256 and self.streams_lost == 0

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        kill = {**asdict(self.kill), "task": str(self.kill.task)}
        kill["tasks"] = [str(task) for task in self.kill.tasks]
        return {**asdict(self), "kill": kill, "ok": self.ok}


# ---- input ------------------------------------------------------------------------------------


def load_digits() -> tuple[Array, Array]:
    """The 360 test images, (360, 1, 8, 8) uint8 of 0 to 16, and their labels (360,)."""
    folder = Path(str(resources.files("topologies"))) / "zoo" / _NETWORK
    arrays = load_file(folder / "test_images.safetensors")
    return arrays["images"][:, None], arrays["labels"]


def _expected(network: CompiledNetwork, images: Array, stream: Array) -> dict[str, Array]:
    """Name -> emissions of every stream of the traffic, from one undisturbed process."""
    answers = run_streams(network, images[:, None])
    found = {f"image-{index:03d}": answer for index, answer in enumerate(answers)}
    return {**found, "stream": run_streams(network, stream[None])[0]}


# ---- the kill ---------------------------------------------------------------------------------


async def kill_holder(
    stack: Stack,
    observer: Observer,
    traffic: Traffic,
    operator: str,
    *,
    progress: float = 0.3,
    number: int = signal.SIGKILL,
    restart: bool = False,
    timeout_s: float = 30.0,
) -> Kill:
    """Signal the worker that holds `operator` for the long stream, with work in flight.

    Waits until `progress` of the traffic is sent. Raises DemoFailed when there is no such moment.
    """
    partition = partition_of(traffic.stream_name, stack.settings.partitions)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        if loop.time() > deadline or traffic.is_over(traffic.stream_name):
            raise DemoFailed("There was no moment to kill a worker with work in flight.")
        await asyncio.sleep(0.002)
        if traffic.progress < progress or not _is_busy(traffic):
            continue
        owners = await observer.owners()
        task = next(t for t in owners if (t.operator, t.partition) == (operator, partition))
        victim = owners[task]
        if not victim or not stack.workers[victim].running:
            continue
        streams_held = await observer.streams_held(task)
        if streams_held and _is_busy(traffic):
            break
    at = time.time() * 1000
    pid = stack.kill_worker(victim, number, restart=restart)
    label = next(
        traffic.network.labels.get(n.id, n.id)
        for n in traffic.network.nodes.values()
        if n.operator == operator
    )
    lost = tuple(sorted(t for t, owner in owners.items() if owner == victim))
    return Kill(
        victim, pid, label, task, lost, at, streams_held, traffic.requests_in_flight,
        traffic.windows_in_flight,
    )  # fmt: skip


def _is_busy(traffic: Traffic) -> bool:
    return traffic.requests_in_flight > 0 and traffic.windows_in_flight > 0


# ---- display ----------------------------------------------------------------------------------


def _count(n: int, what: str) -> str:
    """A number with its noun."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _spread(owners: Mapping[TaskId, str]) -> str:
    """`3 tasks on worker-1, 2 tasks on worker-2`."""
    held = Counter(owners.values())
    return ", ".join(f"{_count(n, 'task')} on {name}" for name, n in sorted(held.items()))


class _Display:
    """Bars on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """One line, with the seconds since the beginning."""
        self._console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/dim]  {text}")

    @contextmanager
    def following(self, traffic: Traffic) -> Iterator[None]:
        """Show how far the answers are."""
        columns = (TextColumn("         {task.description:<18}"), BarColumn(), MofNCompleteColumn())
        shown = Progress(
            *columns, TimeElapsedColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        with shown as progress:
            images = progress.add_task("images answered", total=len(traffic.images))
            windows = progress.add_task("stream results", total=len(traffic.stream))

            def changed() -> None:
                answered = traffic.n_requests - traffic.requests_in_flight
                progress.update(images, completed=answered)
                progress.update(windows, completed=len(traffic.arrivals))

            traffic.changed = changed
            yield


# ---- the demonstration ------------------------------------------------------------------------


async def _demo(
    options: StackOptions, n_windows: int, seconds: float, log: Console, verbose: bool
) -> Report:
    began = time.monotonic()
    display = _Display(log)
    images, labels = load_digits()
    network = compile_network(load_network(_NETWORK))
    stream = np.concatenate([images] * (1 + n_windows // len(images)))[:n_windows]
    display.say(f"{_NETWORK}: {len(network.operators)} operators, compiled")
    expected = _expected(network, images, stream)
    display.say(f"undisturbed run in one process: SHA-256 {digest_of(expected)[:16]}...")
    settings = Settings.load(partitions=_PARTITIONS, log_level="INFO" if verbose else "WARNING")
    options = replace(options, networks=(network,))
    n_workers = options.n_workers
    # Servers that others have used may remember the streams of an earlier run.
    run = "" if options.kafka in (None, OWN_KAFKA) else f"{secrets.token_hex(4)}-"

    def line(name: str, text: str) -> None:
        if verbose:
            log.print(f"{name} | {text}", markup=False, highlight=False)

    async with Stack(settings, options, log=line) as stack:
        await stack.wait_ready()
        async with (
            Observer(stack.settings) as observer,
            Publisher.of(stack.settings) as publisher,
            ResultReader.of(stack.settings) as reader,
        ):
            await reader.follow(network.name, network.input.name, network.outputs.every)
            owners = await observer.settled()
            display.say(f"served by {n_workers} worker processes: {_spread(owners)}")
            traffic = Traffic(
                network, publisher, reader, images, stream, seconds, prefix=run,
                timeout_s=_TIMEOUT_S,
            )  # fmt: skip
            with display.following(traffic):
                kill, back = await _disturb(stack, observer, traffic, display)
            display.say(f"{len(traffic.outputs)} of {len(traffic.names)} streams have ended well")
            again = Traffic(
                network, publisher, reader, images, stream, seconds, prefix=f"{run}again-",
                timeout_s=_TIMEOUT_S,
            )  # fmt: skip
            redeployment = await _redeploy(
                stack, observer, again, n_workers, expected["image-000"], display, line
            )
            return _report(
                traffic, labels, expected, n_workers, kill, back, observer, redeployment,
                time.monotonic() - began,
            )  # fmt: skip


async def _disturb(
    stack: Stack, observer: Observer, traffic: Traffic, display: _Display
) -> tuple[Kill, dict[TaskId, Recovery]]:
    """Run all traffic; kill a worker on the way."""
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run())
        kill = await kill_holder(stack, observer, traffic, middle_operator(traffic.network))
        display.say(
            f"[bold red]kill -9[/bold red] {kill.worker} (process {kill.pid}), which holds"
            f" [bold]{kill.operator}[/bold] ({_count(kill.streams_held, 'open stream')}), in all"
            f" {_count(len(kill.tasks), 'task')}; {_count(kill.requests_in_flight, 'request')} and"
            f" {_count(kill.windows_in_flight, 'window')} of the stream are in flight"
        )
        back = await observer.recovered(kill.tasks, kill.at)
        _check_kill(stack, kill, back[kill.task])
        display.say(f"all its tasks are back: {_spread({t: r.worker for t, r in back.items()})}")
    return kill, back


def _check_kill(stack: Stack, kill: Kill, recovery: Recovery) -> None:
    """It was really that worker which died and had the task."""
    process = stack.workers[kill.worker].process
    if process is None or process.returncode != -signal.SIGKILL:
        raise DemoFailed(f"Worker {kill.worker} is still there after kill -9.")
    if recovery.previous != kill.worker:
        raise DemoFailed(f"Task {kill.task} was {recovery.previous}'s, not {kill.worker}'s.")


async def _redeploy(
    stack: Stack,
    observer: Observer,
    traffic: Traffic,
    n_workers: int,
    wanted: Array,
    display: _Display,
    line: Any,
) -> Redeployment:
    """The same kill, and then the whole network anew. What held state in memory has lost it.

    The kill is taken as noticed at once, and the new broker and store, embedded ones, are up
    already.
    """
    async with Stack(
        Settings.load(partitions=_PARTITIONS, log_level=stack.settings.log_level),
        StackOptions(n_workers=0, gateway=False),
        log=line,
    ) as fresh:
        kill, in_flight = await _kill_again(stack, observer, traffic)
        display.say(
            f"kill -9 {kill.worker} again, {len(in_flight)} streams in flight; now stop all,"
            " compile, deploy, start"
        )
        await asyncio.gather(*(stack.stop_worker(name) for name in list(stack.workers)))
        stopped = time.time() * 1000
        network = compile_network(load_network(_NETWORK))
        compiled = time.time() * 1000
        await deploy(fresh.settings, [network], partitions=_PARTITIONS)
        deployed = time.time() * 1000
        for number in range(1, n_workers + 1):
            fresh.start_worker(f"new-{number}")
        await _first_output(fresh, network, traffic.images[0], wanted)
        first = time.time() * 1000
        reader, name = traffic.reader, traffic.network.name
        ended = [s for s in in_flight if (known := reader.peek(name, s)) and known.final]
        display.say(f"first correct output after {first - kill.at:.0f} ms")
    return Redeployment(
        stopped - kill.at, compiled - kill.at, deployed - kill.at, first - kill.at,
        len(in_flight), len(in_flight) - len(ended),
    )  # fmt: skip


async def _kill_again(stack: Stack, observer: Observer, traffic: Traffic) -> tuple[Kill, list[str]]:
    """Kill as before; the names of the streams that were in flight then. Sends no more."""
    sending = asyncio.create_task(traffic.run())
    try:
        operator = middle_operator(traffic.network)
        kill = await kill_holder(stack, observer, traffic, operator, progress=0.1)
        sent = [traffic.image_name(index) for index in range(traffic.n_requests)]
        open_ = [name for name in (traffic.stream_name, *sent) if not traffic.is_over(name)]
    finally:
        sending.cancel()
        await asyncio.wait([sending])
    return kill, open_


async def _first_output(
    stack: Stack, network: CompiledNetwork, image: Array, wanted: Array
) -> None:
    async with (
        Publisher.of(stack.settings) as publisher,
        ResultReader.of(stack.settings) as reader,
    ):
        await reader.follow(network.name, network.input.name, network.outputs.every)
        record = sample_record("first", image, request=True)
        result = await request(publisher, reader, network.name, record, Deadline.after(_TIMEOUT_S))
        if result.values.tobytes() != wanted.tobytes():
            raise DemoFailed("The network that was deployed anew gave another output.")


def _report(
    traffic: Traffic,
    labels: Array,
    expected: Mapping[str, Array],
    n_workers: int,
    kill: Kill,
    back: Mapping[TaskId, Recovery],
    observer: Observer,
    redeployment: Redeployment,
    seconds: float,
) -> Report:
    outputs = {traffic.plain_name(name): values for name, values in traffic.outputs.items()}
    right = sum(
        int(outputs[name][0].argmax()) == label
        for index, label in enumerate(labels)
        if (name := traffic.plain_name(traffic.image_name(index))) in outputs
    )
    counts = observer.counts
    dropped = ("duplicates_dropped_total", "duplicate_requests_total", "duplicate_records_total")
    return Report(
        accuracy=right / len(labels),
        n_images=len(labels),
        n_windows=len(traffic.stream),
        n_workers=n_workers,
        kill=kill,
        timeline=back[kill.task].phases(kill.at),
        all_caught_up_ms=max(r.caught_up for r in back.values()) - kill.at,
        longest_silence_ms=traffic.longest_silence_ms(),
        windows_replayed=sum(r.windows_replayed for r in back.values()),
        duplicates_dropped=sum(counts[name] for name in dropped),
        repeats_dropped_by_client=traffic.reader.table.tally.repeats,
        streams_lost=len(traffic.names) - len(outputs),
        redeployment=redeployment,
        outputs_sha256=digest_of(outputs),
        undisturbed_sha256=digest_of(expected),
        seconds=seconds,
    )


# ---- the command ------------------------------------------------------------------------------


def demo(
    workers: Annotated[int, typer.Option(min=3, help="Worker processes.")] = 4,
    windows: Annotated[int, typer.Option(min=50, help="Windows of the long stream.")] = 400,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long input is sent.")] = 8.0,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Annotated[bool, typer.Option(help="Print what the workers log.")] = False,
) -> None:
    """Serve the digits network, kill a worker, and compare every output bit."""
    log = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
    options = StackOptions(n_workers=workers, gateway=False, kafka=kafka, redis=redis)
    report = run_to_report(_demo(options, windows, seconds, log, verbose))
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        _print(Console(highlight=False), report)
    if not report.ok:
        raise typer.Exit(1)


def run_to_report(measuring: Coroutine[Any, Any, R]) -> R:
    """Run it; of errors that came together, raise the first that is a sentence."""
    try:
        return asyncio.run(measuring)
    except BaseExceptionGroup as group:
        mine = group.subgroup(SpikeRouterError)
        while mine is not None and isinstance(mine.exceptions[0], BaseExceptionGroup):
            mine = mine.exceptions[0]
        if mine is None:
            raise
        raise mine.exceptions[0] from group


def _print(console: Console, report: Report) -> None:
    kill, redo = report.kill, report.redeployment
    times = Table("after the kill of one worker", "ms", title="Recovery", title_justify="left")
    times.columns[1].justify = "right"
    for phase, what in _PHASES.items():
        times.add_row(f"{phase.replace('_', ' ')}: {what}", f"{report.timeline[phase]:.0f}")
    times.add_row(f"all {len(kill.tasks)} tasks caught up", f"{report.all_caught_up_ms:.0f}")
    anew = Table("since the kill", "ms", title="The whole network anew", title_justify="left")
    anew.columns[1].justify = "right"
    for what, ms in (
        ("all workers stopped", redo.stopped_ms),
        ("network compiled", redo.compiled_ms),
        ("network deployed", redo.deployed_ms),
        ("first correct output", redo.first_output_ms),
    ):
        anew.add_row(what, f"{ms:.0f}")
    console.print(times)
    console.print(anew)
    facts = (
        ("accuracy", f"{report.accuracy:.1%} of {report.n_images} images"),
        ("windows replayed", f"{report.windows_replayed}"),
        ("duplicates dropped", f"{report.duplicates_dropped} by workers,"
         f" {report.repeats_dropped_by_client} by this client"),
        ("longest silence", f"{report.longest_silence_ms:.0f} ms between two of the stream's"
         f" {report.n_windows} results"),
        ("streams lost", f"{report.streams_lost}  (anew: {redo.streams_lost} of"
         f" {redo.streams_in_flight} in flight)"),
        ("all outputs", report.outputs_sha256),
        ("undisturbed", report.undisturbed_sha256),
    )  # fmt: skip
    for name, value in facts:
        console.print(f"{name:<20}{value}", soft_wrap=True)
    if report.ok:
        console.print(f"[bold green]Every bit is the same.[/bold green] ({report.seconds:.0f} s)")
    else:
        console.print("[bold red]The outputs differ, or streams were lost.[/bold red]")
