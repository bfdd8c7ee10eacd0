import json
from collections.abc import Callable
from copy import deepcopy
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.unit.topologies.hostile import NOT_READABLE, make
from topologies.compiler import compile_network
from topologies.compiler.check import check_network
from topologies.document import network_of
from topologies.errors import SpikeRouterError
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


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", sorted(NOT_READABLE.keys() - {"nothing", "no parent"}))
def test_network_file_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises((NetworkError, NetworkNotFound)):
        load_network(make(kind, tmp_path, "net.yaml"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "kind", sorted(NOT_READABLE.keys() - {"no parent", "a parent that is a file"})
)
def test_weights_that_are_no_file_are_refused_and_never_waited_for(
    kind: str, document: Document, arrays: Arrays, write_network: Write
) -> None:
    folder = write_network(document, arrays)
    (folder / "weights.safetensors").unlink()
    document["weights"] = make(kind, folder, "weights.safetensors").name
    (folder / "network.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(NetworkError, match=r"cannot read|not beside"):
        load_network(folder)


def test_link_to_weights_in_another_folder_is_not_followed(
    document: Document, arrays: Arrays, write_network: Write, tmp_path: Path
) -> None:
    folder = write_network(document, arrays)
    inside = tmp_path / "sent"
    inside.mkdir()
    (inside / "network.yaml").write_bytes((folder / "network.yaml").read_bytes())
    (inside / "weights.safetensors").symlink_to(folder / "weights.safetensors")
    with pytest.raises(NetworkError, match="not beside the network file"):
        load_network(inside)


def test_folder_of_links_to_one_network_is_read(
    document: Document, arrays: Arrays, write_network: Write, tmp_path: Path
) -> None:
    folder = write_network(document, arrays)
    links = tmp_path / "links"
    links.mkdir()
    for name in ("network.yaml", "weights.safetensors"):
        (links / name).symlink_to(folder / name)
    assert load_network(links).name == "tiny"


@pytest.mark.parametrize("name", [".", "..", "...", "snn.in.x", "snn.dead-letter"])
@pytest.mark.parametrize("place", ["network", "input"])
def test_name_that_is_a_trap_in_topics_and_urls_is_refused(
    name: str, place: str, document: Document, arrays: Arrays, write_network: Write
) -> None:
    (document if place == "network" else document["input"])["name"] = name
    with pytest.raises(NetworkError, match="not legal"):
        load_network(write_network(document, arrays))


_WRONG: list[Any] = [
    None, True, -1, 2**70, 0.5, 1e308, float("nan"), float("inf"), "x" * 5000, "\0", [], [[]], {},
    {1: 2}, [1] * 100, "input", date(2026, 1, 1), b"x",
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(children, dict):
        return [path]
    found = [_places(child, (*path, key)) for key, child in children.items()]
    return [path, *(place for places in found for place in places)]


def _changed(document: Document, place: tuple[Any, ...], value: Any) -> Document:
    changed = deepcopy(document)
    at: Any = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return changed


def _is_told(document: Document, arrays: Arrays, schema: Document) -> None:
    """Read a document as a file is, and compile it; an error that is a sentence is wanted."""
    try:
        if not form_faults(document, schema):
            network = network_of(document, arrays)
            if not check_network(network):
                compile_network(network)
    except SpikeRouterError:
        return


def test_document_with_any_value_in_any_place_is_compiled_or_refused_with_a_sentence(
    document: Document, arrays: Arrays
) -> None:
    schema = json.loads(resources.files("topologies").joinpath("network.schema.json").read_text())
    for place in _places(document)[1:]:
        for wrong in _WRONG:
            try:
                _is_told(_changed(document, place, wrong), arrays, schema)
            except Exception as error:
                raise AssertionError(f"{place} = {wrong!r}") from error


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_of_any_values_and_shape_are_compiled_or_refused_with_a_sentence(
    document: Document, arrays: Arrays
) -> None:
    schema = json.loads(resources.files("topologies").joinpath("network.schema.json").read_text())
    for name, array in arrays.items():
        wrong: list[Any] = [array * x for x in (np.nan, np.inf, -1, 0, 1e38, 1e-40)]
        wrong += [array.astype(np.float64) * 1e300, array > 0, array[:0], array[None], array.T]
        wrong += [np.float32(1).reshape(()), np.full(array.shape, 2**64 - 1, np.uint64)]
        for values in wrong:
            try:
                _is_told(document, {**arrays, name: values}, schema)
            except Exception as error:
                raise AssertionError(f"{name} = {values!r}") from error
