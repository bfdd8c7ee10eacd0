"""`python -m loadtest.simulate`: play seeded worlds, and show the trace of one that fails."""

import argparse
import sys
import time

from loadtest.simulation.plan import FAULTS
from loadtest.simulation.runner import Summary, play_all
from loadtest.simulation.shapes import SHAPES

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 when a seed failed."""
    options = _parser().parse_args(argv)
    seeds = range(options.first, options.first + options.seeds)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    faults = None if options.faults is None else tuple(filter(None, options.faults.split(",")))
    began = time.perf_counter()
    summary = play_all(seeds, shape=options.shape, faults=faults, stop_after=options.stop_after)
    _show(summary, time.perf_counter() - began, options.quiet)
    return 1 if summary.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, default=None, help="play this one only")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="", help="only these networks")
    parser.add_argument("--faults", help=f"kinds to draw from, or '': {', '.join(FAULTS)}")
    parser.add_argument("--stop-after", type=int, default=1, help="failures to collect")
    parser.add_argument("--quiet", action="store_true", help="no traces")
    return parser


def _show(summary: Summary, seconds: float, is_quiet: bool) -> None:
    for failure in summary.failures:
        if not is_quiet:
            print("\n".join(failure.trace))
        print(failure)
        print(f"play it again: make simulate SEED={failure.seed}")
    print(
        f"{summary.n_seeds} worlds, {summary.n_seeds / seconds:.0f}/s,"
        f" {len(summary.failures)} failed; {summary.n_batches} batches compared,"
        f" {summary.n_faults} faults, {summary.n_recoveries} recoveries,"
        f" {summary.n_aborts} excused aborts"
    )


if __name__ == "__main__":
    sys.exit(main())
