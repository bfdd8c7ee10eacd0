from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.model import Layer, Network
from topologies.sharing import LEVELS, SharingError, class_of, share
from topologies.sharing_picture import draw_sharing

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]
Compiled = Callable[..., CompiledNetwork]
EYE = np.eye(4)
WIDE = np.ones((6, 4))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def compiled(make_network: Make, make_layer: MakeLayer) -> Compiled:
    """compiled(name, *weights): a linear and neurons for each of them; then a mean."""

    def compile_it(name: str, *weights: np.ndarray) -> CompiledNetwork:
        layers, source = [], "input"
        for i, weight in enumerate(weights):
            layers.append(make_layer(f"w{i}", "linear", source, weight=weight))
            layers.append(make_layer(f"n{i}", "if", f"w{i}"))
            source = f"n{i}"
        last = make_layer("head", "linear", source, weight=np.eye(len(weights[-1])))
        return compile_network(replace(make_network(*layers, last), name=name))

    return compile_it


def counts(*networks: CompiledNetwork) -> list[int]:
    total = share(networks).total
    return [total.n_operators, *(total.distinct[level] for level in LEVELS)]


def test_equal_networks_have_the_operators_of_one(compiled: Compiled) -> None:
    assert counts(compiled("a", EYE), compiled("b", EYE)) == [6, 3, 3, 3]


def test_other_weights_of_the_same_shape_have_the_same_signature(compiled: Compiled) -> None:
    """Ingest and readout are equal; only the neurons' weights differ."""
    assert counts(compiled("a", EYE), compiled("b", EYE / 2)) == [6, 4, 3, 3]


def test_other_shapes_of_the_same_stages_have_the_same_kind(compiled: Compiled) -> None:
    assert counts(compiled("a", EYE), compiled("b", WIDE)) == [6, 5, 5, 3]


def test_operators_that_need_another_extra_are_of_another_kind(compiled: Compiled) -> None:
    """Even if their stages have one name: a `loop` hides what is in it."""
    network = compiled("a", EYE)
    plain = next(s for s in network.summaries.values() if s.kind == "synaptic")
    foreign = replace(plain, extras=("brian2",))
    assert class_of(plain, "kind") != class_of(foreign, "kind")
    assert class_of(plain, "signature") != class_of(foreign, "signature")


def test_levels_are_nested(compiled: Compiled) -> None:
    networks = [compiled("a", EYE, EYE / 2), compiled("b", EYE / 4, WIDE)]
    summaries = [s for n in networks for s in n.summaries.values()]
    for one in summaries:
        for other in summaries:
            equal = [class_of(one, level) == class_of(other, level) for level in LEVELS]
            assert equal == sorted(equal)


def test_operator_that_stands_twice_in_one_network_is_not_shared(compiled: Compiled) -> None:
    row = share([compiled("a", EYE, EYE)]).networks[0]
    assert (row.n_operators, row.distinct["exact"], row.n_nodes) == (4, 3, 4)
    assert row.shared["exact"] == 0
    assert row.ratio("exact") == 4 / 3


def test_places_are_one_node_only_if_everything_upstream_is_equal(compiled: Compiled) -> None:
    """Behind other neurons, the equal second operator is computed for each network."""
    networks = (compiled("a", EYE, EYE / 4), compiled("b", EYE / 2, EYE / 4))
    sharing = share(networks)
    assert sharing.total.n_nodes == 7
    assert sharing.total.distinct["exact"] == 5


def test_families_count_what_their_networks_have(compiled: Compiled) -> None:
    networks = [compiled("a", EYE), compiled("b", EYE / 2), compiled("c", WIDE)]
    families = share(networks, {"a": "x", "b": "x", "c": "y"}).families
    assert [(f.name, f.n_operators, f.distinct["exact"]) for f in families] == [
        ("x", 6, 4),
        ("y", 3, 3),
    ]


def test_pool_of_a_signature_holds_its_largest_operator_once(compiled: Compiled) -> None:
    sharing = share([compiled("a", EYE), compiled("b", EYE / 2), compiled("c", EYE / 4)])
    total, one = sharing.total, share([compiled("a", EYE)]).total
    assert total.per_model.size == 3 * one.per_model.size
    assert total.pools["signature"].size == one.per_model.size
    assert total.saved_size("signature") == pytest.approx(2 / 3)
    assert total.saved_spares("signature") == pytest.approx(2 / 3)


def test_pool_of_a_kind_is_as_large_as_its_largest(compiled: Compiled) -> None:
    small, large = compiled("a", EYE), compiled("b", WIDE)
    pool = share([small, large]).total.pools["kind"]
    assert pool.size == share([large]).total.per_model.size


def test_spares_of_a_family_are_those_of_its_networks_alone(compiled: Compiled) -> None:
    networks = [compiled("a", EYE), compiled("b", EYE / 2), compiled("c", EYE / 4)]
    x, y = share(networks, {"a": "x", "b": "x", "c": "y"}).families
    assert (x.per_model.n, x.pools["exact"].n, x.pools["signature"].n) == (6, 4, 3)
    assert (y.per_model.n, y.pools["signature"].n, y.saved_spares("signature")) == (3, 3, 0.0)


@pytest.mark.parametrize(
    ("names", "families", "match"),
    [
        ((), None, "at least one"),
        (("a", "a"), None, "given twice"),
        (("a", "b"), {"a": "x"}, "b have no family"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    compiled: Compiled, names: tuple[str, ...], families: dict[str, str] | None, match: str
) -> None:
    with pytest.raises(SharingError, match=match):
        share([compiled(name, EYE) for name in names], families)


def test_equal_operators_have_one_fill_and_lone_ones_are_grey(compiled: Compiled) -> None:
    networks = [compiled("a", EYE), compiled("b", EYE / 2)]
    sharing = share(networks)
    boxes = {}
    groups = ET.fromstring(draw_sharing(sharing)).iter(f"{SVG}g")
    for place, group in zip(sharing.places, groups, strict=True):
        rectangles = [r.attrib["fill"] for r in group.iter(f"{SVG}rect")]
        boxes[place.network, place.label] = rectangles
    assert boxes["a", "input"] == boxes["b", "input"]
    (stripe, alone), (same_stripe, also_alone) = boxes["a", "w0+n0"], boxes["b", "w0+n0"]
    assert stripe == same_stripe
    assert alone == also_alone != boxes["a", "input"][-1]


def test_networks_of_a_family_stand_side_by_side_below_its_name(compiled: Compiled) -> None:
    networks = [compiled(name, EYE) for name in "abc"]
    picture = ET.fromstring(draw_sharing(share(networks, {"a": "x", "b": "y", "c": "x"})))
    heads = [text.text for text in picture.findall(f"{SVG}text")][1:]
    assert heads == ["x", "a", "x", "c", "y", "b"]


def test_names_are_escaped_in_the_picture(compiled: Compiled) -> None:
    picture = draw_sharing(share([replace(compiled("a", EYE), name="<a&b>")]))
    assert "&lt;a&amp;b&gt;" in picture
