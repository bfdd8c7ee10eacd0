"""However a network is cut, its results are the same bits, and so are its hashes."""

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.compiled import CompiledNetwork, run_reference, run_reference_nodes
from topologies.compiler import Capacity, CapacityError, compile_network
from topologies.compiler.cut import GRANULARITIES, Granularity
from topologies.layers import LAYERS
from topologies.model import Network
from topologies.random_networks import random_inputs, random_network
from topologies.stages.base import Array

SEEDS = st.integers(0, 10_000)
N_STREAMS = 3


def test_drawn_networks_have_layers_of_every_kind_that_needs_no_extra() -> None:
    drawn = {layer.kind for seed in range(120) for layer in random_network(seed).layers}
    assert drawn == set(LAYERS) - {"brian2"}


def results(
    network: Network, compiled: CompiledNetwork, window: int | None = None, by_group: bool = False
) -> list[Array]:
    inputs = random_inputs(network, N_STREAMS, 0)
    seeds = np.arange(N_STREAMS, dtype=np.uint64)
    return run_reference(compiled, inputs, seeds, window=window, by_group=by_group)


def equal(one: Sequence[Array], other: Sequence[Array]) -> bool:
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one, other, strict=True)
    )


@settings(max_examples=40)
@given(seed=SEEDS, granularity=st.sampled_from(GRANULARITIES), window=st.integers(1, 8))
def test_granularity_and_windows_change_no_bit(
    seed: int, granularity: Granularity, window: int
) -> None:
    network = random_network(seed)
    plain = results(network, compile_network(network))
    cut = compile_network(network, granularity=granularity)
    assert equal(results(network, cut, window), plain)


@settings(max_examples=40)
@given(seed=SEEDS, neurons=st.integers(1, 60))
def test_synapse_groups_change_no_bit(seed: int, neurons: int) -> None:
    network = random_network(seed)
    whole = compile_network(network)
    try:
        cut = compile_network(network, capacity=Capacity(neurons=neurons))
    except CapacityError:
        return  # a channel or a readout does not fit: refused, not served wrongly
    assert list(cut.nodes) == list(whole.nodes)
    assert equal(results(network, cut, by_group=True), results(network, whole))


@settings(max_examples=20)
@given(seed=SEEDS)
def test_smallest_possible_groups_change_no_bit(seed: int) -> None:
    network = random_network(seed)
    whole = compile_network(network)
    smallest = max(_smallest(whole, oid) for oid in whole.operators)
    cut = compile_network(network, capacity=Capacity(neurons=smallest))
    assert equal(results(network, cut, by_group=True), results(network, whole))


def _smallest(network: CompiledNetwork, oid: str) -> int:
    program = network.operators[oid].program
    granule = program.granule()
    part = program if granule is None else program.slice(0, granule)
    return max(1, part.cost.n_neurons)


@settings(max_examples=25)
@given(seed=SEEDS, granularity=st.sampled_from(GRANULARITIES))
def test_network_survives_its_bytes(seed: int, granularity: Granularity) -> None:
    network = random_network(seed)
    compiled = compile_network(network, granularity=granularity)
    artifacts = {oid: operator.to_bytes() for oid, operator in compiled.operators.items()}
    again = CompiledNetwork.from_bytes(compiled.to_bytes(), artifacts)
    assert again.version == compiled.version
    assert equal(results(network, again), results(network, compiled))


@settings(max_examples=25)
@given(seed=SEEDS)
def test_no_sum_leaves_the_accumulator_that_was_chosen(seed: int) -> None:
    compiled = compile_network(random_network(seed))
    limits = {"float32": 2**24, "int32": 2**31, "float64": 2**53}
    for operator in compiled.operators.values():
        program = operator.program
        for index, stage in enumerate(program.stages):
            accumulator = stage.params().get("accumulator")
            if isinstance(accumulator, str):
                assert stage.row_bound(program.inputs_of(index)) < limits[accumulator]


@settings(max_examples=25)
@given(seed=SEEDS)
def test_every_value_on_an_edge_lies_in_its_declared_range(seed: int) -> None:
    network = random_network(seed)
    compiled = compile_network(network)
    inputs = random_inputs(network, N_STREAMS, 1)
    seeds = np.arange(N_STREAMS, dtype=np.uint64)
    for node, values in run_reference_nodes(compiled, inputs, seeds).items():
        kind = compiled.operators[compiled.nodes[node].operator].output
        assert values.min() >= kind.low
        assert values.max() <= kind.high


VERSIONS = """
from topologies.compiler import compile_network
from topologies.random_networks import random_network
print(*(compile_network(random_network(seed)).version for seed in range(6)))
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_hashes_are_equal_in_every_process(hash_seed: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", VERSIONS],
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    here = [compile_network(random_network(seed)).version for seed in range(6)]
    assert run.stdout.split() == here


def test_known_networks_have_their_known_hashes() -> None:
    """A new format or formula changes these: then every deployment is another one."""
    versions = [compile_network(random_network(seed)).version for seed in range(3)]
    assert versions == [
        "067611540fb7b496b255b820611a9856",
        "47fc00b59aef51d59e08d7175eb9b148",
        "34a2f2e719012b29e02743551dc4c28f",
    ]
