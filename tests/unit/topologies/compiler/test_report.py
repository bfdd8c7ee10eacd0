from collections.abc import Callable

import numpy as np
import pytest

from topologies.compiler import compile_with_errors
from topologies.compiler.report import classes_of, make_report
from topologies.layers import layer_class
from topologies.model import Layer, Network
from topologies.random_networks import random_inputs, random_network


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(8)


def test_report_without_samples_has_the_errors_of_all_weights(network: Network) -> None:
    report = make_report(network, compile_with_errors(network))
    weighted = [x.name for x in network.layers if layer_class(x.kind).weighted]
    assert sorted(error.layer for error in report.weights) == sorted(weighted)
    assert report.agreement is None
    assert report.worst is not None


def test_coarse_weights_have_larger_errors_than_fine_ones(network: Network) -> None:
    worst = [make_report(network, compile_with_errors(network, bits=b)).worst for b in (4, 8, 16)]
    shares = [error.worst / error.largest for error in worst if error is not None]
    assert shares == sorted(shares, reverse=True)


def test_many_bits_agree_on_all_samples(network: Network) -> None:
    samples = random_inputs(network, 8, 0)
    report = make_report(network, compile_with_errors(network, bits=31), samples)
    assert report.agreement is not None
    assert report.agreement.agreement == 1.0
    assert report.agreement.identical == 1.0
    assert report.agreement.accuracy_after is None


def test_two_bits_do_not_keep_every_result(network: Network) -> None:
    samples = random_inputs(network, 8, 0)
    labels = np.zeros(8, np.int64)
    report = make_report(network, compile_with_errors(network, bits=2), samples, labels)
    assert report.agreement is not None
    assert report.agreement.identical < 1.0
    assert report.agreement.accuracy_before is not None


def test_class_is_the_lowest_index_of_the_last_maximum() -> None:
    assert classes_of([np.array([[9, 0, 0], [1, 5, 5]])]).tolist() == [1]


def test_synapses_in_a_row_are_compared_at_as_many_bits_as_have_exact_sums(
    make_network: Callable[..., Network], make_layer: Callable[..., Layer]
) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 4))
    network = make_network(
        make_layer("one", "linear", "input", weight=weight),
        make_layer("two", "linear", "one", weight=weight),
        make_layer("three", "linear", "two", weight=weight),
    )
    report = make_report(network, compile_with_errors(network), random_inputs(network, 4, 0))
    assert report.agreement is not None
    assert report.agreement.n_samples == 4
