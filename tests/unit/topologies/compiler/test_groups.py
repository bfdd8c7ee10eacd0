from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from topologies.compiled import Operator, Program
from topologies.compiler import Capacity, CapacityError, compile_network
from topologies.compiler.groups import cut_groups, split
from topologies.model import Layer, Network
from topologies.stages.base import ValueType
from topologies.stages.conv import Conv2d
from topologies.stages.linear import Linear
from topologies.stages.neuron import If
from topologies.stages.pool import MaxPool

Make = Callable[..., Network]
MakeLayer = Callable[..., Layer]


def dense(n_out: int = 10, n_in: int = 8) -> Operator:
    stage = Linear(np.ones((n_out, n_in), np.int8), np.zeros(n_out, np.int64), 0, "float32")
    return Operator.of(Program((ValueType((n_in,), 0, 1),), (stage, If()), ((-1,), (0,))))


def conv(channels: int = 6) -> Operator:
    weight = np.ones((channels, 1, 3, 3), np.int8)
    stage = Conv2d(weight, np.zeros(channels, np.int64), 0, "float32", padding=(1, 1))
    return Operator.of(Program((ValueType((1, 4, 4), 0, 1),), (stage, If()), ((-1,), (0,))))


def hidden(make_layer: MakeLayer) -> tuple[Layer, Layer]:
    """Four neurons `n` behind a linear layer."""
    return (
        make_layer("a", "linear", "input", weight=np.eye(4)),
        make_layer("n", "if", "a"),
    )


def test_without_a_capacity_there_is_one_group() -> None:
    (group,) = cut_groups(dense(), None)
    assert (group.lo, group.hi) == (0, 10)


def test_groups_are_as_few_as_fit() -> None:
    assert len(cut_groups(dense(), Capacity(neurons=10))) == 1
    assert len(cut_groups(dense(), Capacity(neurons=9))) == 2
    assert len(cut_groups(dense(), Capacity(neurons=3))) == 4


def test_every_group_fits_in_neurons_and_synapses() -> None:
    operator, capacity = dense(), Capacity(neurons=4, synapses=17)
    groups = cut_groups(operator, capacity)
    assert all(capacity.holds(operator.program.slice(g.lo, g.hi).cost) for g in groups)
    assert len(groups) == 5


@pytest.mark.parametrize(("n", "granule", "count"), [(10, 1, 3), (96, 16, 4), (7, 7, 1)])
def test_split_covers_everything_without_gaps(n: int, granule: int, count: int) -> None:
    groups = split(n, granule, count)
    assert [g.index for g in groups] == list(range(count))
    assert groups[0].lo == 0
    assert groups[-1].hi == n
    assert all(a.hi == b.lo for a, b in pairwise(groups))
    sizes = [(g.hi - g.lo) // granule for g in groups]
    assert max(sizes) - min(sizes) <= 1


def test_convolutions_are_cut_between_channels() -> None:
    groups = cut_groups(conv(), Capacity(neurons=40))
    assert [(g.lo, g.hi) for g in groups] == [(0, 32), (32, 64), (64, 96)]


def test_channels_larger_than_the_capacity_are_cut_between_rows() -> None:
    groups = cut_groups(conv(2), Capacity(neurons=15))
    assert [(g.lo, g.hi) for g in groups] == [(0, 8), (8, 16), (16, 24), (24, 32)]
    assert [g.index for g in groups] == [0, 1, 2, 3]


def test_row_larger_than_the_capacity_is_refused_with_its_size() -> None:
    with pytest.raises(CapacityError, match=r"smallest group \(4 outputs\) needs 4 neurons"):
        cut_groups(conv(), Capacity(neurons=3), "conv1")


def test_group_of_rows_has_the_synapses_of_its_own_outputs() -> None:
    operator = conv(2)
    whole = operator.program.slice(0, 16).cost
    rows = [operator.program.slice(lo, lo + 4).cost for lo in range(0, 16, 4)]
    assert sum(cost.n_synapses for cost in rows) == whole.n_synapses
    assert sum(cost.n_neurons for cost in rows) == whole.n_neurons == 16


def pooled(kernel: int, stride: int, padding: int = 0) -> Program:
    """A convolution of two channels of 4 x 4, its neurons, and a pool of these."""
    weight = np.ones((2, 1, 3, 3), np.int8)
    stage = Conv2d(weight, np.zeros(2, np.int64), 0, "float32", padding=(1, 1))
    stages = (stage, If(), MaxPool((kernel,) * 2, (stride,) * 2, (padding,) * 2))
    return Program((ValueType((1, 4, 4), 0, 1),), stages, ((-1,), (0,), (1,)))


def test_operator_with_a_pool_is_cut_between_the_rows_of_the_pool() -> None:
    operator = Operator.of(pooled(2, 2))
    groups = cut_groups(operator, Capacity(neurons=15))
    assert [(g.lo, g.hi) for g in groups] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert [operator.program.slice(g.lo, g.hi).cost.n_neurons for g in groups] == [8] * 4
    with pytest.raises(CapacityError, match=r"smallest group \(2 outputs\) needs 8 neurons"):
        cut_groups(operator, Capacity(neurons=7))


@pytest.mark.parametrize("pool", [(3, 1), (2, 2, 1)], ids=["overlapping", "padded"])
def test_pool_whose_rows_share_neurons_is_cut_between_channels_only(pool: tuple[int, ...]) -> None:
    program = pooled(*pool)
    assert program.row_granule() is None
    with pytest.raises(CapacityError, match="needs 16 neurons"):
        cut_groups(Operator.of(program), Capacity(neurons=15))


@pytest.mark.parametrize("capacity", [(0, None), (None, 0)])
def test_capacity_of_nothing_is_refused(capacity: tuple[int | None, int | None]) -> None:
    with pytest.raises(CapacityError, match="at least 1"):
        Capacity(*capacity)


def test_readout_is_never_cut(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(make_layer("fc", "linear", "input", weight=np.eye(4)))
    with pytest.raises(CapacityError, match="it is a readout"):
        compile_network(network, capacity=Capacity(neurons=2))


def test_readout_beside_nodes_may_be_larger_than_they_are(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        *hidden(make_layer),
        make_layer("b", "linear", "n", weight=np.eye(4)),
    )
    compiled = compile_network(network, capacity=Capacity(neurons=2, readouts=False))
    counts = {operator.kind: len(compiled.groups[i]) for i, operator in compiled.operators.items()}
    assert counts == {"ingest": 1, "synaptic": 2, "readout": 1}


def test_fused_operator_that_does_not_fit_names_a_finer_granularity(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        *hidden(make_layer),
        make_layer("b", "linear", "n", weight=np.eye(4)),
        make_layer("m", "if", "b"),
        make_layer("c", "linear", "m", weight=np.eye(4)[:1]),
        make_layer("o", "if", "c"),
        readout="count",
    )
    assert compile_network(network, capacity=Capacity(neurons=2)).groups
    with pytest.raises(CapacityError):
        compile_network(network, capacity=Capacity(neurons=2), granularity="model")


def test_ids_do_not_depend_on_the_groups(make_network: Make, make_layer: MakeLayer) -> None:
    network = make_network(
        *hidden(make_layer),
        make_layer("b", "linear", "n", weight=np.eye(4)[:1]),
    )
    whole = compile_network(network)
    cut = compile_network(network, capacity=Capacity(neurons=1))
    assert list(whole.nodes) == list(cut.nodes)
    assert set(whole.operators) == set(cut.operators)
    assert sum(map(len, cut.groups.values())) == 2 + 4


def test_group_granularity_cuts_without_a_capacity(
    make_network: Make, make_layer: MakeLayer
) -> None:
    network = make_network(
        make_layer("a", "linear", "input", weight=np.ones((600, 4))),
        make_layer("n", "if", "a"),
        make_layer("b", "linear", "n", weight=np.ones((2, 600))),
    )
    counts = [
        len(groups) for groups in compile_network(network, granularity="group").groups.values()
    ]
    assert sorted(counts) == [1, 1, 3]
