"""A seed is all that a world depends on."""

import os
import subprocess
import sys

import pytest

from loadtest.simulation.plan import draw
from loadtest.simulation.runner import Selection, play, play_all
from loadtest.simulation.shapes import SHAPES
from loadtest.simulation.world import World
from workers.task import Task

SEEDS = range(7, 7 + len(SHAPES))  # one of each shape
TRACES = """
from loadtest.simulation.plan import draw
from loadtest.simulation.world import World
for seed in range({0.start}, {0.stop}):
    world = World(draw(seed), trace=True)
    world.run()
    print("\\n".join(world.trace))
"""


def traces() -> list[str]:
    lines = []
    for seed in SEEDS:
        world = World(draw(seed), trace=True)
        world.run()
        lines += world.trace or []
    return lines


def test_seeds_next_to_each_other_are_of_all_shapes() -> None:
    assert {draw(seed).shape.name for seed in SEEDS} == set(SHAPES)


def test_same_seeds_give_the_same_traces() -> None:
    assert traces() == traces()


@pytest.mark.parametrize("hashes", ["1", "2"])
def test_another_process_with_other_hashes_gives_the_same_traces(hashes: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hashes}
    command = [sys.executable, "-c", TRACES.format(SEEDS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == traces()


def test_trace_changes_nothing() -> None:
    for seed in SEEDS:
        plain, traced = World(draw(seed)), World(draw(seed), trace=True)
        plain.run()
        traced.run()
        assert plain.clock.now == traced.clock.now
        assert plain.checker.n_batches == traced.checker.n_batches


def test_failing_seed_is_told_with_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "work", lambda self: None)
    summary = play_all(range(3), Selection(shape="chain", faults=()))
    (failure,) = summary.failures
    assert failure.seed == 0
    assert "unexcused 'DeadlineMissed" in failure.text
    assert any("snn.in.x" in line for line in failure.trace)


def test_seed_without_faults_has_none() -> None:
    assert all(draw(seed, faults=()).faults == () for seed in range(50))
    assert play(draw(0, faults=())) is None
