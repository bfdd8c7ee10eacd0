"""The digits network of the zoo, as it is shipped and as it is compiled."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import topologies.zoo.scnn_digits as zoo
from topologies.compiled import CompiledNetwork, run_reference
from topologies.compiler.compile import compile_network
from topologies.loader import load_network
from topologies.stages.base import Array
from workers.conformance import check
from workers.kernel import ReferenceKernel, load_kernel

HERE = Path(str(zoo.__file__)).parent


@pytest.fixture(scope="module")
def compiled() -> CompiledNetwork:
    return compile_network(load_network("scnn_digits"))


@pytest.fixture(scope="module")
def test_part() -> dict[str, Array]:
    return load_file(HERE / "test_images.safetensors")


def _results(network: CompiledNetwork, images: Array) -> Array:
    emissions = run_reference(network, images[:, None].astype(np.float32))
    assert all(len(rows) == 1 for rows in emissions)
    return np.concatenate(emissions)


def test_compiled_network_reads_97_of_100_test_images(
    compiled: CompiledNetwork, test_part: dict[str, Array]
) -> None:
    guesses = _results(compiled, test_part["images"]).argmax(axis=1)
    assert (guesses == test_part["labels"]).mean() >= 0.97


def test_weights_are_smaller_than_100_kilobytes() -> None:
    assert (HERE / "weights.safetensors").stat().st_size < 100_000


def test_shipped_images_are_the_test_part_of_scikit_learns_digits(
    test_part: dict[str, Array],
) -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    split = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    assert test_part["images"].dtype == np.uint8
    assert test_part["images"].shape == (360, 8, 8)
    assert np.array_equal(test_part["images"], split[1])
    assert np.array_equal(test_part["labels"], split[3])


def test_long_stream_has_one_result_per_image(
    compiled: CompiledNetwork, test_part: dict[str, Array]
) -> None:
    images = test_part["images"][:1, None].astype(np.float32)
    (emissions,) = run_reference(compiled, images, n_steps=20)
    assert emissions.shape == (5, 10)


def test_every_operator_serves_on_numpy(compiled: CompiledNetwork) -> None:
    for oid, operator in compiled.operators.items():
        if operator.kind == "ingest":
            continue
        for group in compiled.groups[oid]:
            check(load_kernel(operator, group), ReferenceKernel(operator, group), 64)


@pytest.mark.torch
def test_compiled_network_says_what_the_trained_one_says(
    compiled: CompiledNetwork, test_part: dict[str, Array]
) -> None:
    import torch

    from topologies.zoo.scnn_digits.train import build, logits

    arrays = load_file(HERE / "weights.safetensors")
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    net = build()
    net.load_state_dict(weights)
    with torch.no_grad():
        wanted = logits(net, torch.from_numpy(test_part["images"])).numpy()
    found = _results(compiled, test_part["images"])
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.99
