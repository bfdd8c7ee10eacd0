from dataclasses import replace

import pytest

from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.samples import dense_network
from workers.spec import UnknownOperatorError, ingest_spec, kernels_wanted, task_spec

KINDS = ("ingest", "synaptic", "readout")


@pytest.fixture(scope="module")
def network() -> CompiledNetwork:
    return compile_network(dense_network((12, 8, 4)))


def _kinds(
    network: CompiledNetwork, kinds: tuple[str, ...] = KINDS, *, on_nodes: bool = False
) -> set[str]:
    return {s.kind for s in kernels_wanted([network], kinds, on_nodes=on_nodes).values()}


def test_kernels_are_wanted_for_all_that_may_be_asked_for_but_ingest(
    network: CompiledNetwork,
) -> None:
    assert _kinds(network) == {"synaptic", "readout"}
    assert _kinds(network, ("synaptic",)) == {"synaptic"}


def test_no_kernel_is_wanted_for_what_nodes_compute(network: CompiledNetwork) -> None:
    assert _kinds(network, on_nodes=True) == {"readout"}


def test_no_kernel_is_wanted_for_an_operator_whose_extra_is_not_there(
    network: CompiledNetwork,
) -> None:
    summaries = {i: replace(s, extras=("brian2",)) for i, s in network.summaries.items()}
    foreign = replace(network, operators={}, summaries=summaries)
    assert _kinds(foreign) == set()
    assert _kinds(foreign, ("synaptic", "synaptic+brian2")) == {"synaptic"}


def test_operator_of_two_networks_is_wanted_once(network: CompiledNetwork) -> None:
    other = replace(network, name="other")
    wanted = kernels_wanted([network, other], KINDS, on_nodes=False)
    assert wanted == kernels_wanted([network], KINDS, on_nodes=False)


def test_operator_of_no_readable_network_is_an_error_that_names_it(
    network: CompiledNetwork,
) -> None:
    for of in (lambda: task_spec({"n": network}, "ab", 0, 0), lambda: ingest_spec({}, "ab", 0)):
        with pytest.raises(UnknownOperatorError, match="has operator ab; those that can"):
            of()
