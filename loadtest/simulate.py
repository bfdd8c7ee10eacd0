"""`make simulate`: play seeded worlds on all cores, and show the trace of one that fails.

The worlds of seeds FIRST, FIRST + 1, ... are dealt to processes in small portions, and each is
played from its seed alone: neither the number of processes nor their pace changes what happens.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from loadtest.simulation.plan import FAULTS
from loadtest.simulation.runner import Selection, Summary, play_all
from loadtest.simulation.shapes import SHAPES

__all__ = ["main"]

_PORTION = 100
"""Seeds that a process plays before it reports."""


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 when a seed failed."""
    options = _parser().parse_args(argv)
    seeds = range(options.seed, options.seed + options.seeds)
    faults = None if options.faults is None else tuple(filter(None, options.faults.split(",")))
    selection = Selection(options.shape, faults, options.stop_after)
    console = Console(highlight=False)
    console.print(f"first seed {seeds.start}, {len(seeds)} worlds, {options.jobs} processes")
    began = time.perf_counter()
    summary = Summary()
    with _progress(console, len(seeds)) as progress:
        task = progress.add_task("worlds", total=len(seeds), failed=0, rate=0)
        for part in _played(seeds, selection, options.jobs):
            summary.add(part)
            rate = round(summary.n_seeds / (time.perf_counter() - began))
            n_failed = len(summary.failures)
            progress.update(task, completed=summary.n_seeds, failed=n_failed, rate=rate)
            progress.refresh()
            if n_failed >= options.stop_after:
                break
    _show(summary, time.perf_counter() - began, options.quiet)
    return 1 if summary.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="", help="only these networks")
    parser.add_argument("--faults", help=f"kinds to draw from, or '': {', '.join(FAULTS)}")
    parser.add_argument("--stop-after", type=int, default=1, help="failures to collect")
    parser.add_argument("--quiet", action="store_true", help="no traces")
    return parser


def _progress(console: Console, n_seeds: int) -> Progress:
    columns = (
        SpinnerColumn(), MofNCompleteColumn(), TextColumn("worlds, {task.fields[rate]}/s,"),
        TextColumn("{task.fields[failed]} failed"), TimeElapsedColumn(),
    )  # fmt: skip
    # Shown after each portion: a thread that draws ten times a second takes its share of the core.
    return Progress(*columns, console=console, disable=n_seeds <= _PORTION, auto_refresh=False)


def _played(seeds: range, selection: Selection, n_jobs: int) -> Iterator[Summary]:
    portions = [seeds[i : i + _PORTION] for i in range(0, len(seeds), _PORTION)]
    if n_jobs == 1 or len(portions) == 1:
        yield from (play_all(portion, selection) for portion in portions)
        return
    with multiprocessing.get_context("spawn").Pool(n_jobs) as pool:
        yield from pool.imap_unordered(selection.play, portions)


def _show(summary: Summary, seconds: float, is_quiet: bool) -> None:
    for failure in summary.failures:
        if not is_quiet:
            _print(failure.trace)
        _print([str(failure), f"play it again: make simulate SEEDS=1 SEED={failure.seed}"])
    _print([
        f"{summary.n_seeds} worlds, {summary.n_seeds / seconds:.0f}/s,"
        f" {len(summary.failures)} failed; {summary.n_batches} batches compared,"
        f" {summary.n_faults} faults, {summary.n_recoveries} recoveries,"
        f" {summary.n_aborts} excused aborts"
    ])  # fmt: skip


def _print(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
