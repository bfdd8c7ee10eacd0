import numpy as np
import pytest

from tests.unit.topologies.importers.graphs import affine, graph, imported, node, perfect, ports
from topologies.compiled import run_reference
from topologies.compiler.compile import compile_network, compile_with_errors
from topologies.importers.trace import trace
from topologies.loader import load_network
from topologies.model import Network
from topologies.stages.base import Array


def loop() -> Network:
    nodes = {
        **ports(3, 4),
        "fc": affine(np.eye(4, 3)),
        "n": perfect(4, v_threshold=1.5),
        "late": node("Delay", delay=np.full(4, 3.0)),
        "w": affine(np.ones((4, 4)) / 4, np.full(4, 0.125)),
    }
    return imported(graph(nodes, "input fc n w n late output")).network


@pytest.mark.parametrize("name", ["loop", "scnn_digits"])
def test_results_are_those_of_the_reference(name: str) -> None:
    rng = np.random.default_rng(0)
    network = loop() if name == "loop" else load_network(name)
    shape = network.input.shape
    if network.input.encoder == "events":
        values: Array = rng.integers(0, 2, (3, 12, *shape))
        n_steps = 12
    else:
        values, n_steps = rng.integers(0, 17, (3, *shape)), network.input.n_steps or 0
    found = trace(compile_with_errors(network).quantised.stages, values, n_steps, set())
    wanted = run_reference(compile_network(network), values)
    assert np.array_equal(found.results, np.stack(wanted))
    assert np.abs(found.results).max() > 0


def test_every_layer_that_is_wanted_is_kept_for_every_step() -> None:
    values = np.ones((2, 9, 3), np.int64)
    stages = compile_with_errors(loop()).quantised.stages
    found = trace(stages, values, 9, {"n", "input"})
    assert {name: x.shape for name, x in found.layers.items()} == {
        "n": (2, 9, 4),
        "input": (2, 9, 3),
    }
