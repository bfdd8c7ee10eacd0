"""Networks of six families are the same bits on every backend, however they are cut."""

from collections.abc import Callable

import numpy as np
import pytest

from topologies import families
from topologies.compiled import CompiledNetwork, run_reference, run_reference_nodes
from topologies.compiler import compile_network
from topologies.compiler.cut import GRANULARITIES
from topologies.model import Network
from topologies.random_networks import random_inputs
from topologies.stages.base import ValueType
from workers.conformance import check
from workers.kernel import ReferenceKernel, load_kernel

FAMILIES: dict[str, Callable[[], Network]] = {
    "svgg": lambda: families.svgg(stages=((4, 4), (8,)), hidden=16),
    "sew_resnet": lambda: families.sew_resnet(blocks=((4, 1), (8, 2), (8, 1))),
    "ms_resnet": lambda: families.ms_resnet(blocks=((4, 1), (8, 2))),
    "srnn": families.srnn,
    "sgcn": families.sgcn,
    "spikformer": lambda: families.spikformer(width=12, n_blocks=2, heads=3),
    "spike-driven transformer": lambda: families.spikformer(width=12, attention="sdsa"),
}
N_STREAMS = 3


@pytest.fixture(params=FAMILIES)
def network(request: pytest.FixtureRequest) -> Network:
    return FAMILIES[request.param]()


def test_whole_network_gives_the_bits_of_the_reference_however_it_is_cut(network: Network) -> None:
    values = random_inputs(network, N_STREAMS, 0)
    seeds = np.arange(N_STREAMS, dtype=np.uint64)
    wanted = [a.tobytes() for a in run_reference(compile_network(network), values, seeds)]
    assert len(set(wanted)) == N_STREAMS
    for granularity in GRANULARITIES:
        cut = compile_network(network, granularity=granularity)
        grouped = run_reference(cut, values, seeds, window=1, by_group=True)
        assert [a.tobytes() for a in grouped] == wanted


@pytest.mark.parametrize("backend", ["numpy", pytest.param("torch", marks=pytest.mark.torch)])
def test_every_operator_gives_the_bits_of_the_reference(network: Network, backend: str) -> None:
    compiled = compile_network(network)
    for operator in compiled.operators.values():
        if operator.kind != "ingest":
            (group,) = compiled.groups[operator.id]
            kernel = load_kernel(operator, group, backend)
            check(kernel, ReferenceKernel(operator, group), 17)


def test_no_layer_of_neurons_is_silent_or_saturated(network: Network) -> None:
    compiled = compile_network(network)
    sent = run_reference_nodes(compiled, random_inputs(network, N_STREAMS, 0))
    spikes = [v for n, v in sent.items() if _output(compiled, n).is_spike]
    assert spikes
    assert all(0.002 < values.mean() < 0.95 for values in spikes)


def _output(compiled: CompiledNetwork, node: str) -> ValueType:
    return compiled.operators[compiled.nodes[node].operator].output
