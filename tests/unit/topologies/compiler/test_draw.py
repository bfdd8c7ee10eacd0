from xml.etree import ElementTree as ET

import pytest

from topologies.compiled import CompiledNetwork
from topologies.compiler import Capacity, compile_network
from topologies.compiler.draw import draw_svg, draw_text
from topologies.random_networks import random_network
from topologies.samples import dense_network

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def network() -> CompiledNetwork:
    return compile_network(dense_network((9, 8, 7, 4)), capacity=Capacity(neurons=8))


def test_text_shows_every_node_and_what_it_reads(network: CompiledNetwork) -> None:
    text = draw_text(network)
    assert all(f"[{nid[:8]}] {network.labels[nid]}" in text for nid in network.nodes)
    assert text.count("<-") == sum(len(node.edges) for node in network.nodes.values())


@pytest.mark.parametrize("seed", range(6))
def test_svg_is_well_formed_with_a_box_per_node_and_an_arrow_per_edge(seed: int) -> None:
    network = compile_network(random_network(seed))
    root = ET.fromstring(draw_svg(network))
    assert len(root.findall(f"{SVG}rect")) == len(network.nodes)
    arrows = [path for path in root.findall(f"{SVG}path") if path.get("marker-end")]
    assert len(arrows) == sum(len(node.edges) for node in network.nodes.values())


def test_boxes_do_not_overlap(network: CompiledNetwork) -> None:
    root = ET.fromstring(draw_svg(network))
    corners = [(int(r.get("x", "")), int(r.get("y", ""))) for r in root.findall(f"{SVG}rect")]
    assert len(set(corners)) == len(corners)


def test_drawing_is_the_same_each_time(network: CompiledNetwork) -> None:
    assert draw_svg(network) == draw_svg(network)
