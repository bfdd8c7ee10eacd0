from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from topologies.compiler import compile_network, compile_with_errors
from topologies.compiler.report import make_report
from topologies.layers import layer_class
from topologies.model import Layer, Network
from topologies.random_networks import random_inputs, random_network
from topologies.trials import Trial, trial_of


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(8)


def trial(network: Network, n: int) -> Trial:
    return trial_of({"images": random_inputs(network, n, 0)}, compile_network(network).input)


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
    report = make_report(network, compile_with_errors(network, bits=31), trial(network, 8))
    assert report.agreement is not None
    assert report.agreement.agreement == 1.0
    assert report.agreement.identical == 1.0
    assert report.agreement.accuracy_after is None


def test_two_bits_do_not_keep_every_result(network: Network) -> None:
    labelled = replace(trial(network, 8), labels=np.zeros((8, 1), np.int64))
    report = make_report(network, compile_with_errors(network, bits=2), labelled)
    assert report.agreement is not None
    assert report.agreement.identical < 1.0
    assert report.agreement.accuracy_before is not None


def test_synapses_in_a_row_are_compared_at_as_many_bits_as_have_exact_sums(
    make_network: Callable[..., Network], make_layer: Callable[..., Layer]
) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 4))
    network = make_network(
        make_layer("one", "linear", "input", weight=weight),
        make_layer("two", "linear", "one", weight=weight),
        make_layer("three", "linear", "two", weight=weight),
    )
    report = make_report(network, compile_with_errors(network), trial(network, 4))
    assert report.agreement is not None
    assert report.agreement.n_samples == 4
