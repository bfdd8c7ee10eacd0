"""Synapse groups of every cut, on every backend: the bits of the operator in one piece."""

from collections.abc import Sequence

import numpy as np
import pytest

from topologies.compiled import Group, Operator, Program
from topologies.compiler import Capacity
from topologies.compiler.groups import cut_groups
from topologies.stages.add import Add
from topologies.stages.attention import Ssa
from topologies.stages.base import Array, Clock, Stage, ValueType
from topologies.stages.conv import Conv2d
from topologies.stages.dynamics import Neuron
from topologies.stages.linear import Linear
from topologies.stages.neuron import If, Lif
from topologies.stages.pool import MaxPool, SumPool
from workers.kernel import load_kernel

BACKENDS = ["reference", "numpy", "numba", pytest.param("torch", marks=pytest.mark.torch)]
N_STREAMS, N_STEPS = 3, 4
RNG = np.random.Generator(np.random.PCG64(5))


def integers(*shape: int) -> Array:
    return RNG.integers(-90, 91, shape).astype(np.int8)


def bias(n: int) -> Array:
    return RNG.integers(-60, 61, n)


LIF = Lif.authored({"tau": 2.0, "v_threshold": 2.0, "v_reset": None})


def with_neurons(
    neurons: Neuron,
    ports: tuple[ValueType, ...],
    stages: tuple[Stage, ...],
    *reads: tuple[int, ...],
) -> Operator:
    """These stages, and the neurons that read the last of them."""
    sums = Program(ports, stages, reads)
    last = neurons.reading(sums.output)
    return Operator.of(Program(ports, (*stages, last), (*reads, (len(stages) - 1,))))


def conv(stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]) -> Operator:
    stage = Conv2d(
        integers(3, 2, 3, 2), bias(3), 6, "float32",
        stride=stride, padding=padding, dilation=dilation,
    )  # fmt: skip
    return with_neurons(LIF, (ValueType((2, 9, 6), 0, 1),), (stage,), (-1,))


def pooled(pool: Stage, *, behind: bool = True) -> Operator:
    """A convolution with its neurons, and a pool behind or before them."""
    port = ValueType((2, 9, 6), 0, 1)
    stage = Conv2d(integers(3, 2, 3, 3), bias(3), 6, "float32", padding=(1, 1))
    if behind:
        fired = with_neurons(LIF, (port,), (stage,), (-1,)).program
        return Operator.of(Program((port,), (*fired.stages, pool), (*fired.reads, (1,))))
    return with_neurons(LIF, (port,), (stage, pool), (-1,), (0,))


def branches() -> Operator:
    """Two convolutions of different geometry, added up."""
    ports = (ValueType((2, 6, 5), 0, 1), ValueType((1, 12, 5), 0, 3))
    one = Conv2d(integers(2, 2, 3, 3), bias(2), 6, "float32", padding=(1, 1))
    two = Conv2d(integers(2, 1, 3, 3), bias(2), 6, "float32", stride=(2, 1), padding=(1, 1))
    return with_neurons(LIF, ports, (one, two, Add((0, 0), "float32")), (-1,), (-2,), (0, 1))


def linear() -> Operator:
    stage = Linear(integers(7, 11), bias(7), 6, "float32")
    return with_neurons(LIF, (ValueType((11,), 0, 1),), (stage,), (-1,))


def attention() -> Operator:
    ports = tuple(ValueType((8, 5), 0, 1) for _ in range(3))
    neurons = If.authored({"v_threshold": 2.0})
    return with_neurons(neurons, ports, (Ssa(4, 1, "float32"),), (-1, -2, -3))


def granules(operator: Operator, size: int) -> tuple[Group, ...]:
    return tuple(Group(i, lo, lo + size) for i, lo in enumerate(range(0, operator.output.n, size)))


CUTS = {
    "conv by channels": (op := conv((1, 1), (1, 1), (1, 1)), granules(op, op.output.n // 3)),
    "conv by rows": (op, granules(op, op.output.shape[2])),
    "conv by runs of rows": (op, cut_groups(op, Capacity(neurons=op.output.n // 6))),
    "strided conv by rows": (op := conv((2, 3), (2, 1), (1, 1)), granules(op, op.output.shape[2])),
    "dilated conv by rows": (op := conv((1, 2), (2, 0), (3, 2)), granules(op, op.output.shape[2])),
    "conv and pool by rows": (op := pooled(MaxPool((2, 2), (2, 2))), granules(op, 3)),
    "conv and pool with gaps by rows": (op := pooled(SumPool((2, 3), (3, 2))), granules(op, 2)),
    "conv and pool by runs of rows": (
        op := pooled(SumPool((2, 2), (2, 2))),
        cut_groups(op, Capacity(neurons=30)),
    ),
    "pool before neurons by rows": (
        op := pooled(MaxPool((2, 2), (2, 2)), behind=False),
        granules(op, 3),
    ),
    "two branches by rows": (op := branches(), granules(op, op.output.shape[2])),
    "linear by rows": (op := linear(), granules(op, 1)),
    "linear by runs of rows": (op, cut_groups(op, Capacity(neurons=3))),
    "attention by heads": (op := attention(), granules(op, op.output.n // 4)),
}


def inputs_of(operator: Operator) -> list[Array]:
    rng = np.random.Generator(np.random.PCG64(11))
    shape = (N_STREAMS, N_STEPS)
    return [
        rng.integers(port.low, port.high + 1, (*shape, port.n)).astype(np.uint8)
        for port in operator.program.ports
    ]


def clock(window: int) -> Clock:
    ends = np.full(N_STREAMS, window == 1)
    return Clock(np.full(N_STREAMS, window * N_STEPS, np.int64), ends)


def outputs(operator: Operator, groups: Sequence[Group], backend: str) -> Array:
    """Two windows, so that the state of one is where the next begins."""
    kernels = [load_kernel(operator, group, backend) for group in groups]
    states = [kernel.init_state(N_STREAMS) for kernel in kernels]
    windows = []
    for window in range(2):
        parts = []
        for index, kernel in enumerate(kernels):
            out, states[index] = kernel.step(states[index], inputs_of(operator), clock(window))
            assert not isinstance(out, list)
            parts.append(out)
        windows.append(np.concatenate(parts, axis=2))
    return np.concatenate(windows, axis=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CUTS)
def test_groups_together_give_the_bits_of_the_whole(name: str, backend: str) -> None:
    operator, groups = CUTS[name]
    whole = outputs(operator, [Group(0, 0, operator.output.n)], "reference")
    assert 0 < np.count_nonzero(whole) < whole.size
    assert len(groups) > 1
    assert outputs(operator, groups, backend).tobytes() == whole.tobytes()
