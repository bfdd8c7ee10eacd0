import numpy as np
import pytest

from topologies.program import Program
from topologies.stages.add import Add
from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.conv import Conv2d
from topologies.stages.linear import Linear
from topologies.stages.neuron import If
from topologies.stages.pool import SumPool
from topologies.stages.readout import Count
from topologies.stages.reshape import Reshape, Select

IMAGE = ValueType((2, 4, 4), 0, 1)


def conv(n_out: int = 3) -> Conv2d:
    weight = np.random.default_rng(0).integers(-3, 4, (n_out, 2, 3, 3)).astype(np.int8)
    return Conv2d(weight, np.zeros(n_out, np.int64), 2, "float32", padding=(1, 1))


def linear(n_out: int, n_in: int) -> Linear:
    weight = np.random.default_rng(1).integers(-3, 4, (n_out, n_in)).astype(np.int8)
    return Linear(weight, np.zeros(n_out, np.int64), 1, "float32")


POOLED = Program((IMAGE,), (conv(), If(unit=2), SumPool((2, 2), (2, 2))), ((-1,), (0,), (1,)))
SKIP = Program(
    (IMAGE, ValueType((3, 4, 4), 0, 1)),
    (conv(), If(unit=2), Add((0, 0), "float32")),
    ((-1,), (0,), (1, -2)),
)
TWO_LAYERS = Program(
    (ValueType((6,), 0, 1),),
    (linear(5, 6), If(unit=1), linear(4, 5), If(unit=1)),
    ((-1,), (0,), (1,), (2,)),
)
FLAT = Program(
    (IMAGE,), (conv(), If(unit=2), Reshape((-1,)), Select(0, 48)), ((-1,), (0,), (1,), (2,))
)


def run(program: Program, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    inputs = [rng.integers(0, 2, (2, 5, port.n)).astype(np.uint8) for port in program.ports]
    clock = Clock(np.zeros(2, np.int64), np.zeros(2, np.bool_))
    output, _ = program.run(inputs, program.init_state(2), clock)
    assert isinstance(output, np.ndarray)
    return output


@pytest.mark.parametrize("program", [POOLED, SKIP], ids=["pooled", "skip"])
def test_groups_together_equal_the_whole(program: Program) -> None:
    granule, n = program.granule(), program.output.n
    assert granule is not None
    parts = [run(program.slice(lo, lo + granule)) for lo in range(0, n, granule)]
    assert run(program).any()
    assert np.array_equal(np.concatenate(parts, axis=2), run(program))


def test_slice_selects_its_part_of_a_skip_port() -> None:
    part = SKIP.slice(16, 32)
    assert [stage.kind for stage in part.stages] == ["conv2d", "if", "select", "add"]
    assert part.ports == SKIP.ports


def test_slice_holds_only_its_own_state() -> None:
    (whole,) = POOLED.init_state(1)
    (part,) = POOLED.slice(4, 12).init_state(1)
    assert (whole.shape, part.shape) == ((1, 3, 4, 4), (1, 2, 4, 4))


def test_whole_slice_is_the_program_itself() -> None:
    assert POOLED.slice(0, 12) is POOLED


def test_slice_through_a_channel_is_refused() -> None:
    with pytest.raises(StageError, match="no slice"):
        POOLED.slice(0, 6)


def test_program_whose_groups_would_share_neurons_is_not_cut() -> None:
    assert TWO_LAYERS.granule() is None


def test_readout_is_not_cut() -> None:
    program = Program(
        (ValueType((6,), 0, 1),), (linear(4, 6), If(unit=1), Count()), ((-1,), (0,), (1,))
    )
    assert program.granule() is None


def test_flattened_convolution_is_cut_between_channels() -> None:
    program = Program(FLAT.ports, FLAT.stages[:3], FLAT.reads[:3])
    assert program.granule() == 16


def test_state_names_its_stage() -> None:
    assert [name for name, _, _ in TWO_LAYERS.state_spec()] == ["1.v", "3.v"]


def test_cost_sums_over_the_stages() -> None:
    assert TWO_LAYERS.cost.n_neurons == 9
    assert TWO_LAYERS.cost.n_synapses == 5 * 6 + 4 * 5


def test_output_leaves_in_the_dtype_of_the_edge() -> None:
    assert run(TWO_LAYERS).dtype == np.uint8
    assert run(POOLED).dtype == np.int16
