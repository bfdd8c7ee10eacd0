from typing import Any

import numpy as np
import pytest

from tests.unit.topologies.importers.graphs import affine, graph, lif, node, ports
from topologies.importers.nir_graph import open_graph
from topologies.model import NetworkError

RNN = graph(
    {
        "in": node("Input", shape=np.array([1])),
        "lif": lif(),
        "w": affine([[1.0]]),
        "out": node("Output", shape=np.array([1])),
    },
    "in lif w lif out",
)


def test_subgraph_is_opened_and_its_ports_are_joined() -> None:
    found = open_graph(graph({**ports(1, 1), "rnn": RNN}, "input rnn output"))
    assert set(found.nodes) == {"input", "rnn.lif", "rnn.w", "output"}
    assert set(found.edges) == {
        ("input", "rnn.lif"),
        ("rnn.lif", "rnn.w"),
        ("rnn.w", "rnn.lif"),
        ("rnn.lif", "output"),
    }


def test_subgraphs_in_subgraphs_are_opened() -> None:
    middle = graph(
        {"i": node("Input", shape=np.array([1])), "rnn": RNN, "o": node("Output", shape=None)},
        "i rnn o",
    )
    found = open_graph(graph({**ports(1, 1), "block": middle}, "input block output"))
    assert ("input", "block.rnn.lif") in found.edges
    assert ("block.rnn.lif", "output") in found.edges


def test_edge_may_name_a_node_inside_a_subgraph() -> None:
    document = graph({**ports(1, 1), "rnn": RNN}, "input rnn.in", "rnn.lif output")
    found = open_graph(document)
    assert ("input", "rnn.lif") in found.edges
    assert ("rnn.lif", "output") in found.edges


def test_node_of_a_subgraph_may_carry_the_subgraphs_name() -> None:
    inner = graph({"rnn.lif": lif(), "rnn.in": node("Input", shape=None)}, "rnn.in rnn.lif")
    found = open_graph(graph({**ports(1, 1), "rnn": inner}, "input rnn", "rnn.lif output"))
    assert found.edges == (("rnn.rnn.lif", "output"), ("input", "rnn.rnn.lif"))


def test_names_that_were_read_from_a_file_may_be_bytes() -> None:
    document = {**graph({**ports(1, 1), "lif": lif()}), "edges": [(b"input", b"lif")]}
    assert open_graph(document).edges == (("input", "lif"),)


def test_graph_without_ports_gets_them() -> None:
    found = open_graph(graph({"w": affine([[1.0]]), "lif": lif()}, "w lif"))
    assert found.edges == (("w", "lif"), ("input", "w"), ("lif", "output"))


def test_single_node_is_a_graph() -> None:
    assert open_graph(lif()).edges == (("input", "node"), ("node", "output"))


def test_file_of_one_subgraph_has_the_ports_of_that() -> None:
    found = open_graph(graph({"rnn": RNN}))
    assert found.only("Input").path == "rnn.in"


def test_all_faults_are_said_at_once_with_the_paths_of_their_nodes() -> None:
    inner = graph({"odd": node("Sigmoid"), "w": node("Affine", weight=np.ones((1, 1)))})
    document = graph({**ports(1, 1), "sub": inner}, "input nowhere", "input output", "input output")
    with pytest.raises(NetworkError) as error:
        open_graph(document)
    text = str(error.value)
    assert "4 faults" in text
    assert "sub.odd: 'Sigmoid' is no NIR primitive that is known: Affine, AvgPool2d" in text
    assert "sub.w: this Affine lacks bias." in text
    assert "edge input -> output: stands 2 times: legal is once." in text
    assert "edge input -> nowhere: there is no node 'nowhere': there are input, output," in text


def test_edge_to_a_subgraph_with_two_inputs_must_name_one() -> None:
    inner = graph(
        {"a": node("Input", shape=None), "b": node("Input", shape=None), "lif": lif()},
        "a lif",
        "b lif",
    )
    with pytest.raises(NetworkError, match=r"'sub' is a sub-graph with 2 Input nodes \(sub.a, sub"):
        open_graph(graph({**ports(1, 1), "sub": inner}, "input sub output"))


def test_two_inputs_are_refused_by_their_names() -> None:
    nodes = {"a": node("Input", shape=None), "b": node("Input", shape=None), "lif": lif()}
    with pytest.raises(NetworkError, match=r"the graph has 2 Input nodes \(a, b\): legal is one"):
        open_graph(graph(nodes, "a lif", "b lif")).only("Input")


@pytest.mark.parametrize("value", ["text", np.array([np.nan]), np.array([]), [[1], [1, 2]]])
def test_field_that_is_no_array_of_finite_numbers_is_refused(value: object) -> None:
    found = open_graph(graph({"a": {**lif(), "tau": value}}))
    with pytest.raises(NetworkError, match="a: its tau must be finite numbers"):
        found.nodes["a"].array("tau")


@pytest.mark.parametrize("edges", ["text", [1, 2], [("a", "b", "c")], np.zeros((2, 3))])
def test_edges_that_are_no_pairs_are_refused(edges: object) -> None:
    with pytest.raises(NetworkError, match="edges: are no list of pairs of names"):
        open_graph({**graph({**ports(1, 1), "lif": lif()}), "edges": edges})


@pytest.mark.parametrize("nodes", [7, {"lif": np.ones(3)}])
def test_nodes_that_are_no_groups_of_fields_are_refused(nodes: object) -> None:
    with pytest.raises(NetworkError, match="legal is a group of fields"):
        open_graph({**graph({}), "nodes": nodes})


@pytest.mark.parametrize(
    "edges", [None, 1, "ab", [None, ("input", "output")], [["a"]], [[]], [1, 2], np.array("a")]
)
def test_edges_that_are_no_pairs_are_refused_with_a_sentence(edges: Any) -> None:
    document = {**graph({**ports(2, 2)}, "input output"), "edges": edges}
    with pytest.raises(NetworkError, match="are no list of pairs of names"):
        open_graph(document)
