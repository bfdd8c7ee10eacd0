from collections.abc import Callable

import numpy as np
import pytest

from topologies.batches import LARGEST_RECORD, payload_bytes
from topologies.compiled import Group, Operator, Program
from topologies.compiler import CapacityError, compile_network
from topologies.compiler.digest import Place
from topologies.compiler.plan import (
    cycle_window,
    fit_batches,
    make_plan,
)
from topologies.model import Layer, Network, NetworkError, Source
from topologies.stages.add import Add
from topologies.stages.base import ValueType

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]
EYE = np.eye(4)


def wide(make_network: Make, make_layer: MakeLayer, n: int, **options: int) -> Network:
    return make_network(
        make_layer("up", "linear", "input", weight=np.ones((n, 1))),
        make_layer("n", "if", "up"),
        make_layer("down", "linear", "n", weight=np.ones((1, n))),
        shape=(1,),
        **options,
    )


def test_topics_are_input_spikes_and_output(make_network: Make, make_layer: MakeLayer) -> None:
    network = compile_network(wide(make_network, make_layer, 3))
    plan = make_plan(network, partitions=3)
    assert plan.topics[0] == "snn.in.in"
    assert plan.topics[-1] == "snn.out.net"
    assert len(plan.topics) == 4
    assert len(plan.tasks) == 3 * 3


@pytest.mark.parametrize(
    ("value", "n_bytes"),
    [
        (ValueType((10,), 0, 1), 10 * 7 // 8 + 1),
        (ValueType((10,), 0, 255), 70),
        (ValueType((10,), -1, 255), 140),
        (ValueType((10,), 0, 40000), 280),
    ],
)
def test_worst_batch_is_the_densest_encoding(value: ValueType, n_bytes: int) -> None:
    assert payload_bytes(value, 10, 7) == 1 + n_bytes


def test_long_windows_are_shortened_until_batches_fit(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = compile_network(wide(make_network, make_layer, 100_000, longest_window=1000))
    window = network.input.longest_window
    assert 60 < window < 72
    assert max(make_plan(network).worst_record.values()) <= LARGEST_RECORD


def test_step_that_is_too_large_is_cut_into_groups() -> None:
    value = ValueType((600_000,), 0, 40_000)
    operator = Operator.of(Program((value,), (Add((0,), "int32"),), ((-1,),)))
    whole = {operator.id: (Group(0, 0, value.n),)}
    groups, window = fit_batches({operator.id: operator}, whole, 8)
    assert [(g.lo, g.hi) for g in groups[operator.id]] == [
        (0, 200_000),
        (200_000, 400_000),
        (400_000, 600_000),
    ]
    assert window == 1


def test_input_step_that_is_too_large_is_refused(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(
        make_layer("w", "linear", "input", weight=np.ones((1, 500_000))),
        shape=(500_000,),
        high=1000.0,
    )
    with pytest.raises(CapacityError, match="cannot be cut any further"):
        compile_network(network)


def test_network_without_cycles_takes_any_window() -> None:
    assert cycle_window([Place("a", ()), Place("b", ((0, 5),))]) is None


@pytest.mark.parametrize(("forth", "back", "window"), [(0, 3, 3), (2, 3, 3), (4, 1, 4), (1, 1, 1)])
def test_window_of_a_cycle_is_its_longest_delay(forth: int, back: int, window: int) -> None:
    places = [Place("a", ()), Place("b", ((0, 0), (2, back))), Place("c", ((1, forth),))]
    assert cycle_window(places) == window


def test_window_of_two_cycles_suits_both() -> None:
    places = [Place("a", ((0, 5),)), Place("b", ((0, 0), (1, 2)))]
    assert cycle_window(places) == 2


def recurrent(make_network: Make, make_layer: MakeLayer, **options: int) -> Network:
    return make_network(
        make_layer("back", "linear", Source("n", 2), weight=EYE),
        make_layer("sum", "add", "input", "back"),
        make_layer("n", "if", "sum"),
        **options,
    )


def test_cycle_shortens_a_window_that_nobody_asked_for(
    make_network: Make, make_layer: MakeLayer
) -> None:
    assert compile_network(recurrent(make_network, make_layer)).input.longest_window == 2


def test_window_longer_than_a_cycle_allows_is_refused(
    make_network: Make, make_layer: MakeLayer
) -> None:
    with pytest.raises(NetworkError, match="legal is 1 to 2"):
        compile_network(recurrent(make_network, make_layer, longest_window=3))
