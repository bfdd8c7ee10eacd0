from collections.abc import Callable
from dataclasses import replace

from topologies.compiled import Operator
from topologies.compiler import compile_network
from topologies.compiler.digest import Place, node_ids, strong_components
from topologies.model import Layer, Network


def test_node_depends_on_everything_upstream() -> None:
    def ids(first: str) -> tuple[str, ...]:
        return node_ids([Place("in", (), "x"), Place(first, ((0, 0),)), Place("b", ((1, 0),))])

    assert ids("a")[0] == ids("c")[0]
    assert ids("a")[2] != ids("c")[2]


def test_node_does_not_depend_on_anything_downstream() -> None:
    short = [Place("in", (), "x"), Place("a", ((0, 0),))]
    assert node_ids(short) == node_ids([*short, Place("b", ((1, 0),))])[:2]


def test_networks_with_different_inputs_share_no_node() -> None:
    one, two = (node_ids([Place("in", (), n), Place("a", ((0, 0),))]) for n in ("x", "y"))
    assert not set(one) & set(two)


def test_equal_places_are_one_node() -> None:
    ids = node_ids([Place("in", (), "x"), Place("a", ((0, 0),)), Place("a", ((0, 0),))])
    assert ids[1] == ids[2]


def test_places_of_a_cycle_have_their_own_ids() -> None:
    ids = node_ids(
        [
            Place("in", (), "x"),
            Place("a", ((0, 0), (2, 1))),
            Place("a", ((1, 0), (1, 2))),
        ]
    )
    assert len(set(ids)) == 3


def test_delay_within_a_cycle_changes_every_node_of_it() -> None:
    def cycle(delay: int) -> tuple[str, ...]:
        return node_ids(
            [Place("in", (), "x"), Place("a", ((0, 0), (2, delay))), Place("b", ((1, 0),))]
        )

    assert cycle(1)[0] == cycle(2)[0]
    assert not set(cycle(1)[1:]) & set(cycle(2)[1:])


def test_cycle_has_the_same_ids_beside_other_nodes() -> None:
    loop = [Place("in", (), "x"), Place("a", ((0, 0), (1, 1)))]
    assert node_ids(loop) == node_ids([*loop, Place("b", ((1, 0),))])[:2]


def test_cycle_depends_on_what_feeds_it() -> None:
    def fed(operator: str) -> tuple[str, ...]:
        return node_ids(
            [Place("in", (), "x"), Place(operator, ((0, 0),)), Place("a", ((1, 0), (2, 1)))]
        )

    assert fed("b")[2] != fed("c")[2]


def test_components_come_sources_first() -> None:
    places = [
        Place("in", ()),
        Place("a", ((0, 0), (2, 1))),
        Place("b", ((1, 0),)),
        Place("c", ((2, 0),)),
    ]
    assert strong_components(places) == [[0], [1, 2], [3]]


def test_equal_encoders_of_two_inputs_are_two_operators(
    make_network: Callable[..., Network], make_layer: Callable[..., Layer]
) -> None:
    """One task of an ingest operator reads one topic: that of its input."""
    one = make_network(make_layer("n", "if", "input"))
    other = replace(one, input=replace(one.input, name="elsewhere"))
    here, there = list(compile_network(one).operators), list(compile_network(other).operators)
    assert here[0] != there[0]
    assert here[1:] == there[1:]


def test_operator_of_an_input_comes_back_from_its_artifact(
    make_network: Callable[..., Network], make_layer: Callable[..., Layer]
) -> None:
    ingest = next(iter(compile_network(make_network(make_layer("n", "if", "input"))).operators))
    operator = compile_network(make_network(make_layer("n", "if", "input"))).operators[ingest]
    again = Operator.from_bytes(operator.to_bytes(), ingest)
    assert (again.id, again.input) == (ingest, "in")
