from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.unit.topologies.importers.graphs import (
    affine,
    graph,
    imported,
    lif,
    node,
    perfect,
    ports,
)
from topologies.compiler.compile import compile_network
from topologies.importers.build import Face
from topologies.importers.write import document_of, text_of, write_network
from topologies.loader import load_network
from topologies.model import Layer, Network

RNG = np.random.default_rng(0)


def recurrent() -> Network:
    nodes = {
        **ports(3, 20),
        "fc": affine(RNG.normal(size=(20, 3)), RNG.normal(size=20)),
        "cells": lif(20, tau=RNG.uniform(2, 9, 20), v_threshold=0.1, v_reset=-0.2),
        "back": affine(RNG.normal(size=(20, 20))),
        "slow": node("Delay", delay=np.arange(20.0)),
        "out": perfect(20, r=RNG.uniform(1, 2, 20)),
    }
    face = Face(
        "net",
        encoder="direct",
        params={"grid": 6},
        low=-1.0,
        high=2.5,
        n_steps=7,
        labels=("a",) * 20,
    )
    return imported(graph(nodes, "input fc cells back cells slow out output"), face).network


def assert_same(mine: Layer, other: Layer) -> None:
    assert (mine.name, mine.kind, mine.sources, mine.stage) == (
        *(other.name, other.kind, other.sources, other.stage),
    )
    assert set(mine.arrays) == set(other.arrays)
    for name, array in mine.arrays.items():
        assert np.array_equal(array, other.arrays[name])


@pytest.mark.parametrize("name", ["recurrent", "scnn_digits"])
def test_network_that_was_written_is_read_back(name: str, tmp_path: Path) -> None:
    network = recurrent() if name == "recurrent" else load_network(name)
    write_network(tmp_path / "net.yaml", network, ["where it came from"])
    again = load_network(tmp_path / "net.yaml")
    for mine, other in zip(again.layers, network.layers, strict=True):
        assert_same(mine, other)
    assert compile_network(again).version == compile_network(network).version


def test_layers_stand_on_one_line_each_and_only_say_what_is_not_usual(tmp_path: Path) -> None:
    text = text_of(document_of(recurrent(), "net.safetensors"), ["one", "two\nthree"])
    lines = text.splitlines()
    assert lines[:3] == ["# one", "# two", "# three"]
    assert "  - {name: fc, kind: linear}" in lines
    assert "  - {name: back, kind: linear, from: {layer: cells, delay: 1}}" in [
        line.replace("back.late1", "back") for line in lines
    ]
    assert yaml.safe_load(text)["input"] == {
        "shape": [3],
        "low": -1,
        "high": 2.5,
        "n_steps": 7,
        "encoder": {"kind": "direct", "grid": 6},
    }


def test_constants_are_the_shortest_decimals_of_their_float32() -> None:
    network = imported(
        graph({**ports(1, 1), "n": lif(v_threshold=np.float32(0.1))}, "input n output")
    ).network
    (entry,) = document_of(network, "w")["layers"]
    assert entry["v_threshold"] == 0.1


@pytest.mark.parametrize("value", [1e-5, 1e22, -3.0, True, None, "text", [1.0, 0.1]])
def test_values_survive_the_text(value: Any) -> None:
    network = recurrent()
    layer = replace(network.layers[0], params={"x": value})
    document = document_of(replace(network, layers=(layer,)), "w")
    assert yaml.safe_load(text_of(document))["layers"][0]["x"] == value
