from dataclasses import replace

import numpy as np
import pytest

from topologies.compiled import CompiledNetwork, run_streams
from topologies.compiler import compile_network
from topologies.loader import load_network
from topologies.samples import dense_network
from topologies.stages.base import Array
from topologies.trials import Trial, TrialError, trial_of


@pytest.fixture(scope="module")
def events() -> CompiledNetwork:
    return compile_network(dense_network((6, 5, 4), n_steps=3))


@pytest.fixture(scope="module")
def pixels() -> CompiledNetwork:
    return compile_network(load_network("scnn_digits"))


def spikes(*shape: int) -> Array:
    return (np.random.default_rng(4).random(shape) < 0.5).astype(np.int64)


def test_streams_of_unequal_length_are_answered_in_their_order(events: CompiledNetwork) -> None:
    streams = tuple(spikes(length, 6) for length in (7, 3, 7, 5, 3))
    found = Trial(streams).run(events)
    for stream, answer in zip(streams, found, strict=True):
        assert answer.tobytes() == run_streams(events, stream[None])[0].tobytes()


def test_image_for_an_input_of_samples_is_one_sample(pixels: CompiledNetwork) -> None:
    trial = trial_of({"images": np.zeros((5, 8, 8)), "labels": np.arange(5)}, pixels.input)
    assert [stream.shape for stream in trial.streams] == [(1, 1, 8, 8)] * 5
    assert trial.n_samples == 5
    assert trial.labels is not None
    assert trial.labels.tolist() == [[0], [1], [2], [3], [4]]


def test_image_for_an_input_of_events_is_its_steps(events: CompiledNetwork) -> None:
    trial = trial_of({"images": spikes(2, 9, 6)}, events.input)
    assert [stream.shape for stream in trial.streams] == [(9, 6), (9, 6)]


@pytest.mark.parametrize("shape", [(2, 63), (2, 2, 8, 8), (0, 8, 8)], ids=["less", "two", "none"])
def test_images_of_another_shape_are_refused(
    pixels: CompiledNetwork, shape: tuple[int, ...]
) -> None:
    with pytest.raises(TrialError, match=r"no samples of shape \(1, 8, 8\) with the encoder"):
        trial_of({"images": np.zeros(shape)}, pixels.input)


def test_class_is_the_lowest_index_of_the_maximum_of_the_last_emission() -> None:
    trial = Trial((spikes(1, 1),), np.array([[1]]))
    assert trial.classes([np.array([[9, 0, 0], [1, 5, 5]])], 3).tolist() == [[1]]


def test_samples_without_labels_have_no_accuracy(events: CompiledNetwork) -> None:
    trial = Trial((spikes(3, 6),))
    with pytest.raises(TrialError, match="no labels"):
        trial.accuracy(trial.run(events), 4)
    assert replace(trial, labels=np.array([[9]])).accuracy(trial.run(events), 4) == 0.0


def test_answers_must_be_as_many_as_streams() -> None:
    with pytest.raises(TrialError, match="0 answers to 1 streams"):
        Trial((spikes(3, 6),)).classes([], 4)
