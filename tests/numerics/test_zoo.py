"""Every network of the zoo, as it is shipped: compiled, and run by the reference in one process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import topologies.zoo as zoo
from loadtest.zoo_trials import load_trial
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network, zoo_entry, zoo_networks
from topologies.trials import Trial
from workers.conformance import check
from workers.kernel import ReferenceKernel, load_kernel

HERE = Path(str(zoo.__file__)).parent
LARGEST = 10**6  # bytes of a file of weights
N_STREAMS = 370
LARGE_INPUT = 10_000  # values of one step, above which an operator takes long to try


def _compiled(name: str) -> CompiledNetwork:
    return compile_network(load_network(name))


@pytest.mark.parametrize("name", zoo_networks())
def test_compiled_network_is_as_right_as_it_is_declared_to_be(name: str) -> None:
    entry, network = zoo_entry(name), _compiled(name)
    trial = load_trial(entry.samples, network).first(N_STREAMS)
    accuracy = trial.accuracy(trial.run(network), network.outputs.shape[0])
    assert accuracy >= entry.least_accuracy


@pytest.mark.parametrize("name", zoo_networks())
def test_shipped_files_of_weights_stay_below_a_megabyte(name: str) -> None:
    assert (HERE / name / "weights.safetensors").stat().st_size < LARGEST


@pytest.mark.parametrize("name", zoo_networks())
def test_every_operator_of_a_zoo_network_serves_on_numpy(name: str) -> None:
    network = _compiled(name)
    for oid, operator in network.operators.items():
        large = any(port.n > LARGE_INPUT for port in operator.program.ports)
        if operator.kind == "ingest" or large:
            continue
        for group in network.groups[oid]:
            check(load_kernel(operator, group), ReferenceKernel(operator, group), 17)


def test_wrong_answers_lower_the_accuracy_of_a_trial() -> None:
    network = _compiled("scnn_digits")
    trial = load_trial(zoo_entry("scnn_digits").samples, network)
    assert trial.labels is not None
    right = [np.eye(10, dtype=np.float32)[row] for row in trial.labels]
    assert trial.accuracy(right, 10) == 1.0
    right[0] = np.roll(right[0], 1, axis=1)
    assert trial.accuracy(right, 10) == pytest.approx(359 / 360)


def test_places_of_a_graph_are_scored_one_by_one() -> None:
    trial = Trial((np.zeros((1, 2, 3)),), np.array([[1, 0]]), np.array([2, 0]))
    answer = np.array([[[0.5, 0.0, 0.1], [0.5, 1.0, 0.2]]]).reshape(1, 6)
    assert trial.accuracy([answer], 2) == 1.0
    assert replace(trial, places=np.array([1, 0])).accuracy([answer], 2) == 1.0
    assert replace(trial, places=np.array([2, 1])).accuracy([answer], 2) == 0.5
