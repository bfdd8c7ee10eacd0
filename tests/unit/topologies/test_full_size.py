from collections.abc import Callable

import numpy as np
import pytest

from topologies.batches import LARGEST_RECORD
from topologies.compiled import run_reference_nodes
from topologies.compiler import compile_network
from topologies.compiler.plan import make_plan
from topologies.full_size import FULL_SIZE, spiking_gcn, srnn_shd
from topologies.loader import load_network
from topologies.model import Network

# Synapses in millions, as the publications' layer tables give them (weights, not connections).
MILLIONS_OF_WEIGHTS = {
    "plif_dvs_gesture": 1.7,
    "sew_resnet18": 11.2,
    "spikformer_4_384": 9.3,
    "srnn_shd": 0.14,
    "svgg11": 9.2,
}


def _no_zoo(name: str) -> Network:
    raise AssertionError(f"{name} is not needed")


def _built(name: str) -> Network:
    return FULL_SIZE[name](_no_zoo)


@pytest.fixture
def small_graph() -> Callable[[int], Network]:
    """A ring of 2,708 papers, from a seed."""
    ring = np.arange(2708)
    edges = np.stack([ring, np.roll(ring, 1)])
    return lambda seed: spiking_gcn(edges, np.ones(2708), seed)


@pytest.mark.parametrize("name", sorted(MILLIONS_OF_WEIGHTS))
def test_network_has_the_size_of_its_publication(name: str) -> None:
    layers = _built(name).layers
    n = sum(layer.arrays["weight"].size for layer in layers if "weight" in layer.arrays)
    assert n / 1e6 == pytest.approx(MILLIONS_OF_WEIGHTS[name], rel=0.03)


@pytest.mark.parametrize("name", sorted(MILLIONS_OF_WEIGHTS))
def test_network_compiles_into_batches_that_a_record_holds(name: str) -> None:
    compiled = compile_network(_built(name))
    plan = make_plan(compiled)
    assert max(plan.worst_record.values()) <= LARGEST_RECORD
    assert compiled.outputs.shape[0] == {"plif_dvs_gesture": 11, "srnn_shd": 20}.get(name, 10)


def test_graph_network_compiles_into_batches_that_a_record_holds(
    small_graph: Callable[[int], Network],
) -> None:
    compiled = compile_network(small_graph(0))
    assert max(make_plan(compiled).worst_record.values()) <= LARGEST_RECORD
    assert compiled.outputs.shape == (7, 2708)


def test_same_seed_gives_the_same_hash_and_another_seed_another() -> None:
    one, other = compile_network(srnn_shd(3)), compile_network(srnn_shd(3))
    assert one.version == other.version
    assert compile_network(srnn_shd(4)).version != one.version


def test_compiler_finds_a_full_size_network_by_its_name() -> None:
    assert load_network("srnn-shd").name == "srnn_shd"


@pytest.mark.parametrize("name", ["srnn_shd", "svgg11"])
def test_neurons_of_every_operator_fire_but_not_always(name: str) -> None:
    compiled = compile_network(_built(name))
    rng = np.random.default_rng(0)
    size = (1, *compiled.input.shape)
    if compiled.input.encoder == "events":
        values = (rng.random((1, 60, *size[1:])) < 0.1).astype(np.uint8)
    else:
        values = rng.integers(0, 256, size).astype(np.float32)
    sent = run_reference_nodes(compiled, values)
    rates = [sent[nid].mean() for nid in sent if nid != compiled.input.node]
    assert rates
    assert all(0.01 < rate < 0.7 for rate in rates)
