import re

import numpy as np
import pytest

from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.graph import Graph

CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
VALUE = ValueType((2, 4), -1, 3, 1)
EDGES = np.array([[3, 0, 1, 0], [1, 1, 2, 2]], np.float64)
WEIGHT = np.array([0.5, 0.25, -1.0, 2.0])


def lowered(edges: object = EDGES, weight: object = WEIGHT) -> Graph:
    arrays = {"edges": np.array(edges, np.float64), "weight": np.array(weight, np.float64)}
    return Graph.lowered({}, arrays, [VALUE], 2)


def test_each_node_adds_up_the_edges_into_it() -> None:
    x = np.array([[[[1, 2, 0, 3], [0, -1, 3, 1]]]], np.int16)
    y, _ = lowered().run([x], (), CLOCK)
    first = [0, 1 * 1 + 2 * 3, 8 * 1 - 4 * 2, 0]
    second = [0, 1 * 0 + 2 * 1, 8 * 0 - 4 * -1, 0]
    assert y.tolist() == [[[first, second]]]


def test_order_of_the_edges_does_not_change_a_byte() -> None:
    turned = lowered(EDGES[:, ::-1], WEIGHT[::-1])
    for name, array in lowered().arrays().items():
        assert array.tobytes() == turned.arrays()[name].tobytes()


def test_parallel_edges_are_added_before_they_are_rounded() -> None:
    stage = lowered([[0, 0, 0], [1, 1, 1]], [0.125, 0.125, 0.25])
    assert stage.weight.tolist() == [2]


def test_bound_is_that_of_the_heaviest_node() -> None:
    out = lowered().out_type([VALUE])
    assert (out.high, out.unit) == ((8 + 4) * 3, 3)


def test_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(StageError, match=r"names node 3: .* 3 nodes"):
        lowered().out_type([ValueType((2, 3), 0, 1)])


@pytest.mark.parametrize(
    ("edges", "sentence"),
    [
        ([[0, 1]], r"legal is \[2, 4\]"),
        ([[0, 1, 2, -1]] * 2, "from 0 on"),
        ([[0.5] * 4] * 2, "0 on"),
    ],
)
def test_edges_that_are_none_are_refused(edges: object, sentence: str) -> None:
    arrays = {"edges": np.array(edges, np.float64), "weight": WEIGHT}
    ((field, message),) = Graph.faults({}, arrays)
    assert field == "weights"
    assert re.search(sentence, message)


def test_slices_are_whole_channels() -> None:
    assert lowered().slice([VALUE], 4, 8).reads == ((4, 8),)
    with pytest.raises(StageError, match=r"no slice \[2, 4\)"):
        lowered().slice([VALUE], 2, 4)


def test_stage_survives_writing_and_reading() -> None:
    again = Graph.build(lowered().params(), lowered().arrays())
    assert again.params() == lowered().params()
    assert again.cost([VALUE]).n_synapses == 8
