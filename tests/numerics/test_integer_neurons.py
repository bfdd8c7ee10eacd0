"""`cubalif_int` against the published equations in Python's own unbounded integers."""

from collections.abc import Sequence

import numpy as np
import pytest

from topologies.compiled import Group, Operator, Program
from topologies.stages.base import Clock, StageError, ValueType
from topologies.stages.cubalif_int import CubaLifInt
from topologies.stages.linear import Linear
from workers.kernel import load_kernel

TOP = 2**23
CLOCK = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_))
BACKENDS = ["reference", "numpy", "numba", pytest.param("torch", marks=pytest.mark.torch)]


def slow(neuron: CubaLifInt, sums: Sequence[int]) -> list[tuple[int, int, int]]:
    """(spike, u, v) after each step. Written from Davies et al. 2018, with exact division."""

    def towards_zero(numerator: int, denominator: int) -> int:
        quotient = abs(numerator) // denominator
        return quotient if numerator >= 0 else -quotient

    def saturated(value: int) -> int:
        return max(-TOP, min(TOP - 1, value))

    u = v = 0
    trace = []
    for x in sums:
        power = 6 + neuron.exponent
        arrived = x * 2**power if power >= 0 else towards_zero(x, 2**-power)
        u = saturated(towards_zero(u * (4096 - neuron.decay_u), 4096) + arrived)
        v = saturated(towards_zero(v * (4096 - neuron.decay_v), 4096) + u + neuron.bias)
        spike = int(v > neuron.v_threshold * 64)
        v = 0 if spike else v
        trace.append((spike, u, v))
    return trace


def fast(neuron: CubaLifInt, sums: Sequence[int]) -> list[tuple[int, int, int]]:
    state = (np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32))
    trace = []
    for x in sums:
        spikes, state = neuron.run([np.array([[[x]]], np.int32)], state, CLOCK)  # type: ignore[assignment]
        trace.append((int(spikes[0, 0, 0]), int(state[0][0, 0]), int(state[1][0, 0])))
    return trace


def test_golden_trace_of_one_neuron() -> None:
    """Worked by hand: half of the current and a quarter of the membrane are lost in each step."""
    neuron = CubaLifInt(decay_u=2048, decay_v=1024, v_threshold=5)
    assert fast(neuron, [3, 0, 0, 3, 0]) == [
        (0, 192, 192),
        (0, 96, 240),
        (0, 48, 228),
        (1, 216, 0),  # 171 + 216 = 387 > 320
        (0, 108, 108),
    ]


NEURONS = [
    CubaLifInt(decay_u=du, decay_v=dv, v_threshold=th, bias=bias, exponent=exponent)
    for du, dv in ((4096, 0), (0, 4096), (409, 128), (1, 1), (4095, 4095))
    for th, bias, exponent in ((1, 0, 0), (300, -37, -8), (2**17 - 1, 640, 7), (64, 5, -6))
]


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: str(tuple(n.params().values())))
@pytest.mark.parametrize("largest", [3, 200, 2**20, 2**31 - 1])
def test_steps_are_those_of_exact_integers(neuron: CubaLifInt, largest: int) -> None:
    rng = np.random.Generator(np.random.PCG64(largest))
    sums = [int(x) for x in rng.integers(-largest, largest + 1, 200)]
    assert fast(neuron, sums) == slow(neuron, sums)


def test_state_saturates_and_comes_back() -> None:
    neuron = CubaLifInt(decay_u=1, decay_v=0, v_threshold=2**17 - 1)
    trace = fast(neuron, [-(2**20)] * 4 + [2**20] * 8)
    assert trace[3][1:] == (-TOP, -TOP)
    assert max(u for _, u, _ in trace) == TOP - 1
    assert trace == slow(neuron, [-(2**20)] * 4 + [2**20] * 8)


def test_what_decays_reaches_zero() -> None:
    neuron = CubaLifInt(decay_u=1, decay_v=1, v_threshold=2**17 - 1)
    trace = fast(neuron, [-1] + [0] * 70_000)
    assert trace[-1] == (0, 0, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_operator_has_the_bits_of_exact_integers_on_every_backend(backend: str) -> None:
    rng = np.random.Generator(np.random.PCG64(3))
    weight = rng.integers(-127, 128, (9, 30)).astype(np.int8)
    port = ValueType((30,), 0, 1)
    synapses = Linear(weight, np.zeros(9, np.int64), 7, "float32")
    inputs = [synapses.out_type([port])]
    neuron = CubaLifInt.lowered({"decay_u": 600, "decay_v": 200, "v_threshold": 3.5}, {}, inputs)
    assert neuron.v_threshold == 448
    operator = Operator.of(Program((port,), (synapses, neuron), ((-1,), (0,))))
    spikes = (rng.random((4, 25, 30)) < 0.3).astype(np.uint8)
    kernel = load_kernel(operator, Group(0, 0, 9), backend)
    clock = Clock(np.zeros(4, np.int64), np.zeros(4, np.bool_))
    out, _ = kernel.step(kernel.init_state(4), [spikes], clock)
    assert not isinstance(out, list)
    assert 0 < np.count_nonzero(out) < out.size
    sums = spikes.astype(np.int64) @ weight.T.astype(np.int64)
    for b in range(4):
        for n in range(9):
            expected = [s for s, _, _ in slow(neuron, [int(x) for x in sums[b, :, n]])]
            assert out[b, :, n].tolist() == expected


def test_grid_too_fine_for_the_threshold_is_made_coarser() -> None:
    port = ValueType((3,), -(2**30), 2**30, 20)
    neuron = CubaLifInt.lowered({"v_threshold": 1.5, "bias": 0.25}, {}, [port])
    assert neuron.exponent == -5
    assert (neuron.v_threshold, neuron.bias) == (3 * 2**14, 2**13 * 64)
    sums = [2**20, -(2**20) - 17, 3 * 2**20, 31, -31]
    assert fast(neuron, sums) == slow(neuron, sums)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decay_u": 4097},
        {"decay_v": -1},
        {"v_threshold": 0},
        {"v_threshold": 2**17},
        {"bias": 2**23},
        {"exponent": 8},
    ],
)
def test_what_a_register_cannot_hold_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(StageError, match=next(iter(wrong))):
        CubaLifInt(**{"decay_u": 0, "decay_v": 0, "v_threshold": 1, **wrong})


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_state_that_is_cut_off_is_counted(backend: str) -> None:
    """A current that never decays and grows by 127 * 2**13 in each step, into a membrane that fires
    and begins at 0 again."""
    port = ValueType((1,), 0, 1)
    synapses = Linear(np.array([[127]], np.int8), np.zeros(1, np.int64), 0, "float32")
    neuron = CubaLifInt(decay_u=0, decay_v=0, v_threshold=2**17 - 1, exponent=7)
    operator = Operator.of(Program((port,), (synapses, neuron), ((-1,), (0,))))
    counted: list[int] = []
    clock = Clock(np.zeros(1, np.int64), np.zeros(1, np.bool_), counted.append)
    kernel = load_kernel(operator, Group(0, 0, 1), backend)
    kernel.step(kernel.init_state(1), [np.ones((1, 12, 1), np.uint8)], clock)
    u = v = cut_off = 0
    for _ in range(12):
        wide = u + 127 * 2**13
        u = min(wide, TOP - 1)
        total = v + u
        v = 0 if min(total, TOP - 1) > (2**17 - 1) * 64 else total
        cut_off += (wide > u) + (total > TOP - 1)
    assert cut_off > 4
    assert sum(counted) == cut_off
