import numpy as np
import pytest

from topologies.stages.attention import Ssa
from topologies.stages.base import Array, Clock, StageError, ValueType

CLOCK = Clock(np.zeros(2, np.int64), np.zeros(2, np.bool_))
Q, K = ValueType((4, 3), 0, 1), ValueType((4, 5), 0, 2, 1)


def by_hand(q: Array, k: Array, v: Array, heads: int) -> Array:
    """One step of one stream, (D, N) and (D, M), element by element."""
    y = np.zeros(q.shape, np.int64)
    width = len(q) // heads
    for e, n in np.ndindex(q.shape):
        head = range(e // width * width, (e // width + 1) * width)
        for m in range(k.shape[1]):
            y[e, n] += sum(int(q[d, n]) * int(k[d, m]) for d in head) * int(v[e, m])
    return y


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_sums_are_those_written_out(heads: int) -> None:
    rng = np.random.default_rng(heads)
    q, k, v = (rng.integers(-2, 3, (2, 3, 4, n)) for n in (3, 5, 5))
    y, _ = Ssa(heads, 3, "float32").run([q, k, v], (), CLOCK)
    for at in np.ndindex(2, 3):
        assert np.array_equal(y[at], by_hand(q[at], k[at], v[at], heads))


def test_bound_is_reached_by_saturated_input_and_never_passed() -> None:
    stage = Ssa.lowered({"heads": 2}, {}, [Q, K, K])
    x = [np.full((1, 1, *value.shape), value.high) for value in (Q, K, K)]
    out = stage.out_type([Q, K, K])
    y, _ = stage.run(x, (), CLOCK)
    assert y.max() == out.high == 2 * 5 * 1 * 2 * 2
    assert (out.low, out.unit) == (0, 0 + 1 + 1 + 3)


def test_accumulator_follows_the_bound() -> None:
    wide = ValueType((4, 5), 0, 2**12)
    assert Ssa.lowered({}, {}, [Q, K, K]).accumulator == "float32"
    assert Ssa.lowered({}, {}, [wide, wide, wide]).accumulator == "float64"


def test_signed_values_make_signed_sums() -> None:
    out = Ssa(1, 0, "float32").out_type([ValueType((4, 3), -1, 1), K, K])
    assert (out.low, out.high) == (-80, 80)


def test_slices_are_whole_heads() -> None:
    stage = Ssa(2, 3, "float32")
    part = stage.slice([Q, K, K], 6, 12)
    assert isinstance(part.stage, Ssa)
    assert part.stage.heads == 1
    assert part.reads == ((6, 12), (10, 20), (10, 20))
    with pytest.raises(StageError, match=r"no slice \[3, 9\)"):
        stage.slice([Q, K, K], 3, 9)


@pytest.mark.parametrize("params", [{"heads": 0}, {"scale": 0.3}, {"scale": 0}, {"scale": "1"}])
def test_illegal_parameters_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(StageError, match=r"legal is 1 or more|must be a power of two"):
        Ssa.authored(params)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StageError, match="3 heads do not divide 4 channels"):
        Ssa(3, 0, "float32").out_type([Q, K, K])
    with pytest.raises(StageError, match="k and v alike"):
        Ssa(1, 0, "float32").out_type([Q, K, Q])
    with pytest.raises(StageError, match=r"shape \(channels, tokens\)"):
        Ssa(1, 0, "float32").out_type([ValueType((4,), 0, 1)] * 3)


def test_cost_is_that_of_the_cheaper_order() -> None:
    few = [ValueType((8, 2), 0, 1)] * 3
    many = [ValueType((8, 50), 0, 1)] * 3
    assert Ssa(1, 0, "float32").cost(few).macs_per_step == 2 * 8 * 2 * 2
    assert Ssa(1, 0, "float32").cost(many).macs_per_step == 8 * 8 * 100
