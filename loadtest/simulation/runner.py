"""Runs seeds, and shows what happened in one that failed."""

import gc
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from loadtest.simulation import checker, oracle
from loadtest.simulation.checker import Violation
from loadtest.simulation.plan import Plan, draw
from loadtest.simulation.world import World
from router import wire
from router.records import parse_record
from router.wire import Frame, decode_frame, encode_frame
from topologies.errors import SpikeRouterError
from workers import ingest, task

__all__ = ["Failure", "Selection", "Summary", "play", "play_all"]


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
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Summary") -> None:
        self.n_seeds += other.n_seeds
        self.n_faults += other.n_faults
        self.n_batches += other.n_batches
        self.n_aborts += other.n_aborts
        self.n_recoveries += other.n_recoveries
        self.failures += other.failures


@dataclass(frozen=True)
class Selection:
    """Which worlds are drawn, and after how many failures to stop; see `plan.draw`."""

    shape: str = ""
    faults: tuple[str, ...] | None = None
    stop_after: int = 1

    def play(self, seeds: Iterable[int]) -> Summary:
        return play_all(seeds, self)


def play(plan: Plan, *, trace: bool = False, summary: Summary | None = None) -> Failure | None:
    """One world; None when every promise was kept."""
    world = World(plan, trace=trace)
    with _read_once():
        text = _complaint(world)
    if summary is not None:
        _count(summary, world)
    told = tuple(world.trace or ())
    world.forget()
    return Failure(plan.seed, plan.shape.name, text, told) if text else None


def _complaint(world: World) -> str:
    """What a world came to; "" when every promise was kept."""
    try:
        world.run()
    except Violation as violation:
        return str(violation)
    except (SpikeRouterError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        return traceback.format_exc()  # the product broke down: that is a finding too
    return ""


class _Frames:
    """What was encoded is what will be decoded, as `tests/properties` prove of any frame; so only
    every eighth frame, and what is none, takes that way here. Who decodes what somebody else has
    decoded shares it."""

    __slots__ = ("_known", "_n")

    def __init__(self) -> None:
        self._known: dict[bytes, Frame] = {}
        self._n = 0

    def encode(self, frame: Frame) -> bytes:
        value = encode_frame(frame)
        self._n += 1
        if self._n % 8:
            self._known[value] = frame
        return value

    def decode(self, value: bytes) -> Frame:
        frame = self._known.get(value)
        if frame is None:
            frame = self._known[value] = decode_frame(value)
        return frame


@contextmanager
def _read_once() -> Iterator[None]:
    """Reading is pure, and a good part of the time: what was read once is read for everyone."""
    frames, parse = _Frames(), lru_cache(maxsize=None)(parse_record)
    instead = {
        encode_frame: (frames.encode, (wire,)),
        decode_frame: (frames.decode, (task, ingest, checker)),
        parse_record: (parse, (ingest, oracle)),
    }
    for real, (other, modules) in instead.items():
        for module in modules:
            setattr(module, real.__name__, other)
    try:
        yield
    finally:
        for real, (_, modules) in instead.items():
            for module in modules:
                setattr(module, real.__name__, real)


def _count(summary: Summary, world: World) -> None:
    summary.n_seeds += 1
    summary.n_faults += world.faults.n
    summary.n_batches += world.checker.n_batches
    summary.n_aborts += world.checker.n_aborts
    summary.n_recoveries += world.n_recoveries


def play_all(seeds: Iterable[int], selection: Selection | None = None) -> Summary:
    """Play seeds; those that failed are played again with their trace."""
    chosen = selection or Selection()
    summary = Summary()
    with _little_garbage():
        for seed in seeds:
            plan = draw(seed, shape=chosen.shape, faults=chosen.faults)
            if play(plan, summary=summary) is not None:
                summary.failures.append(_again(plan))
                if len(summary.failures) >= chosen.stop_after:
                    break
    return summary


def _again(plan: Plan) -> Failure:
    failure = play(plan, trace=True)
    if failure is None:
        return Failure(plan.seed, plan.shape.name, "failed once, and not when played again")
    return failure


@contextmanager
def _little_garbage() -> Iterator[None]:
    """A world that is over is taken apart: hardly anything is left that has to be looked for."""
    thresholds = gc.get_threshold()
    gc.set_threshold(20_000, 20, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
