import numpy as np
import pytest

from tests.unit.topologies.importers.graphs import affine, graph, imported, lif, ports
from topologies.importers.agreement import compare, random_batch
from topologies.importers.build import Face, Imported
from topologies.stages.encoder import EncodingError

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(5, 8)), RNG.normal(size=(3, 5))


def network(face: Face | None = None) -> Imported:
    first, second = WEIGHTS
    nodes = {
        **ports(8, 3),
        "a": affine(first),
        "n": lif(5, v_threshold=0.1),
        "b": affine(second),
        "m": lif(3),
    }
    return imported(graph(nodes, "input a n b m output"), face)


def test_fewer_bits_agree_less() -> None:
    found = network()
    batch = random_batch(found.network, 20)
    fine, coarse = compare(found, batch), compare(found, batch, bits=2)
    assert [s.place for s in fine.spikes] == ["n", "m"]
    assert all(s.equal > 0.99 for s in fine.spikes)
    assert min(s.equal for s in coarse.spikes) < min(s.equal for s in fine.spikes)
    assert coarse.worst > fine.worst
    assert (fine.n_samples, fine.n_steps) == (20, 32)
    assert fine.against == "the graph before quantising"


def test_rates_are_spikes_per_neuron_and_step() -> None:
    found = network()
    batch = np.ones((4, 10, 8), np.int64)
    (first, _) = compare(found, batch).spikes
    assert 0 < first.rate_network <= 1
    assert first.rate_network * 5 * 40 == pytest.approx(round(first.rate_network * 5 * 40))


def test_accuracy_is_that_of_each_side() -> None:
    found = network()
    batch = random_batch(found.network, 20)
    plain = compare(found, batch)
    assert plain.accuracy_network is None
    labelled = compare(found, batch, np.full(20, 9))
    assert (labelled.accuracy_original, labelled.accuracy_network) == (0.0, 0.0)


def test_random_samples_lie_in_the_declared_range() -> None:
    events = random_batch(network(Face("net", high=3.0, n_steps=7)).network, 50)
    assert events.shape == (50, 7, 8)
    assert set(np.unique(events)) == {0, 1, 2, 3}
    direct = Face("net", "direct", {"grid": 4}, low=-1.0, high=2.0, n_steps=7)
    values = random_batch(network(direct).network, 50)
    assert values.shape == (50, 8)
    assert values.min() >= -1
    assert values.max() <= 2
    assert compare(network(direct), values).n_steps == 7


def test_samples_that_the_input_would_refuse_are_refused() -> None:
    with pytest.raises(EncodingError, match="outside 0 to 1"):
        compare(network(), np.full((2, 5, 8), 2))
