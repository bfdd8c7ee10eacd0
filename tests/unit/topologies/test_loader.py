import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from topologies.compiler import compile_network
from topologies.loader import NetworkNotFound, find_network, load_network, zoo_networks
from topologies.model import NetworkError, Source
from topologies.schema import form_faults
from topologies.stages.base import Array

Write = Callable[[dict[str, Any], dict[str, Array]], Path]
Document = dict[str, Any]
Arrays = dict[str, Array]


def test_network_is_read_with_its_weights(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    network = load_network(write_network(document, arrays))
    conv, norm, *_, fc = network.layers
    assert np.array_equal(conv.arrays["weight"], arrays["conv.weight"].astype(np.float64))
    assert sorted(norm.arrays) == ["bias", "running_mean", "running_var", "weight"]
    assert list(fc.arrays) == ["weight"]
    assert fc.sources == (Source("flat"),)
    assert network.output.labels == ("a", "b")


def test_file_and_folder_name_the_same_network(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    folder = write_network(document, arrays)
    one, other = load_network(folder), load_network(folder / "network.yaml")
    assert compile_network(one).version == compile_network(other).version


def test_every_network_of_the_zoo_loads_and_compiles() -> None:
    assert "scnn_digits" in zoo_networks()
    for name in zoo_networks():
        assert compile_network(load_network(name)).nodes


def test_dash_and_underscore_find_the_same_zoo_network() -> None:
    assert find_network("scnn-digits") == find_network("scnn_digits")


def test_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NetworkNotFound, match="scnn_digits"):
        load_network("nowhere")


def test_arrays_may_be_named_one_by_one(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    document["layers"][5]["weights"] = {"weight": "last.weight", "bias": "conv.bias"}
    document["output"].pop("labels")
    with pytest.raises(NetworkError, match=r"'bias' has shape \[3\]: legal is \[2\]"):
        load_network(write_network(document, arrays))


def test_all_missing_arrays_are_named_at_once(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    del arrays["last.weight"], arrays["norm.running_var"]
    with pytest.raises(NetworkError) as caught:
        load_network(write_network(document, arrays))
    places = [fault.place for fault in caught.value.faults]
    assert places == ["layers[1] (norm).weights", "layers[5] (fc).weights"]


def test_missing_weights_file_is_named(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    folder = write_network(document, arrays)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(NetworkError, match=r"weights\.safetensors"):
        load_network(folder)


def test_damaged_weights_file_is_named(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    folder = write_network(document, arrays)
    (folder / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(NetworkError, match="as safetensors"):
        load_network(folder)


def test_weights_outside_the_folder_are_refused(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    document["weights"] = "../weights.safetensors"
    with pytest.raises(NetworkError, match="not beside"):
        load_network(write_network(document, arrays))


def test_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.yaml"
    path.write_text("name: a\nformat: 1\nname: b\n", encoding="utf-8")
    with pytest.raises(NetworkError, match="name stands twice"):
        load_network(path)


@pytest.mark.parametrize("text", ["[", "- 1", "", "\x00"])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "network.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NetworkError):
        load_network(path)


def test_delays_and_branches_are_read(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    document["layers"][5:] = [
        {"name": "fc", "kind": "linear", "weights": "last"},
        {"name": "back", "kind": "linear", "from": {"layer": "out", "delay": 2}},
        {"name": "sum", "kind": "add", "from": ["fc", "back"]},
        {"name": "out", "kind": "if"},
    ]
    arrays["back.weight"] = np.eye(2, dtype=np.float32)
    network = load_network(write_network(document, arrays))
    assert network.layers[6].sources == (Source("out", 2),)
    assert network.layers[7].sources == (Source("fc"), Source("back"))


def test_example_of_the_documentation_compiles(write_network: Write) -> None:
    page = Path(__file__).parents[3] / "docs" / "topology-format.md"
    example = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    shapes = {
        "conv1.weight": (8, 1, 3, 3),
        "norm1.running_mean": (8,),
        "norm1.running_var": (8,),
        "head.weight": (2, 8 * 4 * 4),
        "back.weight": (2, 2),
    }
    arrays: Arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    network = load_network(write_network(yaml.safe_load(example), arrays))
    assert compile_network(network).input.longest_window == 2


def test_layers_of_every_example_of_the_documentation_have_a_legal_form(
    document: Document,
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "topology-format.md").read_text(encoding="utf-8")
    schema = json.loads(resources.files("topologies").joinpath("network.schema.json").read_text())
    examples = [part.split("```")[0] for part in page.split("```yaml\n")[2:]]
    assert len(examples) >= 3
    for example in examples:
        document["layers"] = yaml.safe_load(example)
        assert form_faults(document, schema) == ()


def test_constants_of_neurons_are_read_from_the_weights_file_when_they_say_so(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    document["layers"][2] = {"name": "lif", "kind": "lif", "form": "plain", "weights": "cells"}
    arrays["cells.decay"] = np.linspace(0.1, 0.9, 3, dtype=np.float32)
    arrays["cells.v_threshold"] = np.linspace(0.5, 1.5, 48, dtype=np.float32)
    network = load_network(write_network(document, arrays))
    assert sorted(network.layers[2].arrays) == ["decay", "v_threshold"]
    (stage,) = (
        stage
        for operator in compile_network(network).operators.values()
        for stage in operator.program.stages
        if stage.kind == "lif"
    )
    assert np.array_equal(stage.arrays()["leak"], np.repeat(arrays["cells.decay"], 16))
    assert np.array_equal(stage.arrays()["v_threshold"], arrays["cells.v_threshold"])


def test_wrong_number_of_constants_is_named_at_its_layer(
    document: Document, arrays: Arrays, write_network: Write
) -> None:
    document["layers"][2]["v_threshold"] = [1.0, 2.0]
    with pytest.raises(NetworkError, match=r"layers\[2\] \(lif\): v_threshold has 2 values"):
        load_network(write_network(document, arrays))
