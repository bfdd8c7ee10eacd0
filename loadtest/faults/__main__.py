"""`python -m loadtest.faults`: break a running stack on purpose, and see that no bit changes."""

import argparse
import asyncio
import json
import secrets
import sys
from dataclasses import asdict
from pathlib import Path

from loadtest.demo import load_digits
from loadtest.faults.contents import Contents, make_contents
from loadtest.faults.report import Summary, as_text, summarise, together
from loadtest.faults.runner import play
from loadtest.faults.schedule import APACHE, EMBEDDED, draw, lines
from loadtest.faults.workload import Pace
from loadtest.faults.world import World
from router.loops import run
from router.settings import Settings
from topologies.loader import load_network

_ROUND = 100
"""Faults after which a fresh stack is started: the embedded broker keeps 5 MiB of a partition, and
reads a log batch by batch, so a task that has lost all its state takes ever longer to replay it."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the schedule and the workload; default: drawn")
    parser.add_argument("--faults", type=int, default=40, help="how many")
    parser.add_argument("--gap", type=float, default=1.5, help="seconds between two, on average")
    parser.add_argument("--kinds", default="", help="of faults, separated by commas; default: all")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--load", type=float, default=1.0, help="times the usual pace of input")
    parser.add_argument("--apache", action="store_true", help="on Apache Kafka, three brokers")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--log", default="", help="file for what the processes write; a seed's is FILE.SEED"
    )
    return parser


async def _run(options: argparse.Namespace, seed: int) -> Summary:
    """Rounds of at most `_ROUND` faults, the first with this seed, each with the one after it."""
    contents = make_contents(
        load_network("scnn_digits"), load_digits()[0], n_requests=200, n_walks=6, length=240
    )
    sizes = [min(_ROUND, options.faults - done) for done in range(0, options.faults, _ROUND)]
    rounds: list[Summary] = []
    for number, n_faults in enumerate(sizes):
        rounds.append(await _round(options, contents, seed + number, n_faults))
        found = [f"{finding.checker}: {finding.text}" for finding in rounds[-1].findings]
        title = f"Round {number + 1} of {len(sizes)}: {len(found)} findings."
        print("\n".join([title, *found]), file=sys.stderr)
    return together(rounds)


async def _round(
    options: argparse.Namespace, contents: Contents, seed: int, n_faults: int
) -> Summary:
    kinds = tuple(options.kinds.split(",")) if options.kinds else ()
    faults = draw(
        seed, n_faults, gap_s=options.gap,
        kinds=kinds or (APACHE if options.apache else EMBEDDED),
    )  # fmt: skip
    print("\n".join([f"Schedule of seed {seed}:", *lines(faults)]), file=sys.stderr)
    settings = Settings.load(partitions=2, log_level="INFO" if options.log else "WARNING")
    world = World(settings, contents.networks, n_workers=options.workers, apache=options.apache)
    async with world:
        outcome = await play(
            world, contents, faults, seed=seed, pace=Pace().times(options.load),
            say=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
    if options.log:
        text = "".join(f"{name} | {line}\n" for name, line in world.stack.lines)
        await asyncio.to_thread(Path(f"{options.log}.{seed}").write_text, text)
    stack = "Apache Kafka (3 brokers) and Redis" if options.apache else "embedded broker, Redis"
    return summarise(outcome, seed, stack)


def main() -> int:
    """Run one schedule; 1 when a promise was broken."""
    options = _parser().parse_args()
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    summary = run(_run(options, seed))
    print(json.dumps(asdict(summary), default=list) if options.json else as_text(summary))
    return 0 if summary.ok else 1


if __name__ == "__main__":
    sys.exit(main())
