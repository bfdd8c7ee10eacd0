"""The networks that have one stem: deployed together, it is one node for all of them."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from topologies.compiled import CompiledNetwork, run_reference_nodes
from topologies.compiler import compile_network
from topologies.loader import load_network, zoo_entry

NETWORKS = (
    "sdsa_digits",
    "sew_resnet_digits",
    "spikformer_digits",
    "stem_scnn_digits",
    "stem_svgg_digits",
)
# The row of the family that each must come within a point of.
ROWS = {
    "spikformer_digits": 0.98,
    "sdsa_digits": 0.97,
    "stem_scnn_digits": 0.97,
    "stem_svgg_digits": 0.97,
    "sew_resnet_digits": 0.98,
}


@pytest.fixture(scope="module")
def compiled() -> list[CompiledNetwork]:
    return [compile_network(load_network(name)) for name in NETWORKS]


def test_encoder_and_stem_are_equal_nodes_in_all_of_them(compiled: list[CompiledNetwork]) -> None:
    assert {network.input.name for network in compiled} == {"digits"}
    common = set.intersection(*(set(network.nodes) for network in compiled))
    labels = {network.labels[node] for network in compiled for node in common}
    assert labels == {"input", "stem.conv+stem.lif"}


def test_stem_sends_the_same_spikes_in_all_of_them(compiled: list[CompiledNetwork]) -> None:
    images = load_file(zoo_entry("sew_resnet_digits").samples)["images"][:8].astype(np.float32)
    stem = next(n for n, label in compiled[0].labels.items() if label == "stem.conv+stem.lif")
    sent = [run_reference_nodes(network, images)[stem] for network in compiled]
    assert sent[0].any()
    assert all(np.array_equal(sent[0], other) for other in sent)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_declared_at_most_one_point_below_its_familys_row(name: str) -> None:
    assert zoo_entry(name).least_accuracy >= ROWS[name] - 0.01
