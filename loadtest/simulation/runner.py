"""Runs seeds, and shows what happened in one that failed."""

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from loadtest.simulation import checker
from loadtest.simulation.checker import Violation
from loadtest.simulation.plan import Plan, draw
from loadtest.simulation.world import World
from router.wire import decode_frame
from topologies.errors import SpikeRouterError
from workers import ingest, task

__all__ = ["Failure", "Summary", "play", "play_all"]


@dataclass(frozen=True)
class Failure:
    """A seed that broke a promise: what is wrong, and all that happened."""

    seed: int
    shape: str
    text: str
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"seed {self.seed} ({self.shape}): {self.text}"


@dataclass
class Summary:
    """What a run of many seeds came to."""

    n_seeds: int = 0
    n_faults: int = 0
    n_batches: int = 0
    n_aborts: int = 0
    n_recoveries: int = 0
    failures: tuple[Failure, ...] = ()


def play(plan: Plan, *, trace: bool = False, summary: Summary | None = None) -> Failure | None:
    """One world; None when every promise was kept."""
    world = World(plan, trace=trace)
    try:
        with _frames_decoded_once():
            world.run()
    except Violation as violation:
        text = str(violation)
    except (SpikeRouterError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        text = traceback.format_exc()  # the product broke down: that is a finding too
    else:
        text = ""
    if summary is not None:
        _count(summary, world)
    if not text:
        return None
    return Failure(plan.seed, plan.shape.name, text, tuple(world.trace or ()))


@contextmanager
def _frames_decoded_once() -> Iterator[None]:
    """Decoding is pure, and half of the time: several tasks may share what one of them decoded."""
    modules = (task, ingest, checker)
    decode = lru_cache(maxsize=512)(decode_frame)
    for module in modules:
        setattr(module, decode_frame.__name__, decode)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, decode_frame.__name__, decode_frame)


def _count(summary: Summary, world: World) -> None:
    summary.n_seeds += 1
    summary.n_faults += world.faults.n
    summary.n_batches += world.checker.n_batches
    summary.n_aborts += world.checker.n_aborts
    summary.n_recoveries += world.n_recoveries


def play_all(
    seeds: Iterable[int],
    *,
    shape: str = "",
    faults: tuple[str, ...] | None = None,
    stop_after: int = 1,
) -> Summary:
    """Play seeds until `stop_after` of them failed; a failed one is played again with its trace."""
    summary = Summary()
    for seed in seeds:
        plan = draw(seed, shape=shape, faults=faults)
        if play(plan, summary=summary) is not None:
            failure = play(plan, trace=True)
            if failure is None:
                failure = Failure(seed, plan.shape.name, "failed once, and not when played again")
            summary.failures += (failure,)
            if len(summary.failures) >= stop_after:
                break
    return summary
