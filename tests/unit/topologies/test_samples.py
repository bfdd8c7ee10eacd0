import numpy as np
import pytest

from topologies.compiled import Program
from topologies.compiler import compile_network
from topologies.model import Network
from topologies.samples import SampleError, dense_network, random_spikes
from topologies.stages.base import Clock


@pytest.fixture(scope="module")
def network() -> Network:
    return dense_network((784, 512, 512, 256, 10))


def test_about_the_target_share_of_neurons_fires_in_every_layer(network: Network) -> None:
    compiled = compile_network(network)
    spikes = random_spikes(6, 16, 784, 0.1, seed=99)
    clock = Clock(np.zeros(6, np.int64), np.zeros(6, np.bool_))
    for node in list(compiled.nodes.values())[1:]:
        whole = compiled.operators[node.operator].program
        program = Program(whole.ports, whole.stages[:2], whole.reads[:2])
        output, _ = program.run([spikes], program.init_state(6), clock)
        assert isinstance(output, np.ndarray)
        spikes = output
        assert 0.05 < spikes.mean() < 0.15


def test_four_synaptic_operators_the_last_with_its_readout(network: Network) -> None:
    summaries = compile_network(network).summaries
    compiled = compile_network(network)
    stages = [summaries[node.operator].stages for node in compiled.nodes.values()]
    assert stages == [("events",), *[("linear", "lif")] * 3, ("linear", "lif", "count")]


def test_all_sums_are_exact_in_float32(network: Network) -> None:
    for operator in compile_network(network).operators.values():
        kinds = {stage.params().get("accumulator", "float32") for stage in operator.program.stages}
        assert kinds == {"float32"}


def test_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    one, same, other = (compile_network(dense_network((9, 5), seed=s)) for s in (1, 1, 2))
    assert one.version == same.version != other.version


def test_spikes_have_the_rate_that_was_asked_for() -> None:
    assert abs(random_spikes(10, 10, 1000, 0.1).mean() - 0.1) < 0.005


@pytest.mark.parametrize(("sizes", "rate"), [((5,), 0.1), ((5, 0), 0.1), ((5, 5), 0.0)])
def test_impossible_network_is_refused(sizes: tuple[int, ...], rate: float) -> None:
    with pytest.raises(SampleError, match="legal are"):
        dense_network(sizes, target_rate=rate)
