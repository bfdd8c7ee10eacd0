"""When readouts emit, and what."""

from typing import Any

import numpy as np
import pytest

from topologies.stages.base import Array, Clock, StageError, ValueType
from topologies.stages.readout import Count, Mean, Membrane, Readout

SPIKES = ValueType((3,), 0, 1)
SUMS = ValueType((2, 2), -1000, 1000, 4)


def run_windows(readout: Readout, steps: Array, cuts: list[int], *, end: bool = True) -> Array:
    """All emissions (K, n) of one stream with steps (T, *shape), cut at `cuts`."""
    shape = steps.shape[1:]
    kind = readout.state_spec([ValueType(shape, -(2**20), 2**20, readout.unit)])
    state: tuple[Array, ...] = (np.zeros((1, *shape), kind[0][2]),)
    bounds = [0, *cuts, len(steps)]
    emitted: list[Array] = []
    for index in range(len(bounds) - 1):
        lo, hi = bounds[index], bounds[index + 1]
        last = end and index == len(bounds) - 2
        clock = Clock(np.array([lo]), np.array([last]))
        out, state = readout.run([steps[None, lo:hi]], state, clock)
        emitted.append(out[0])
    return np.concatenate(emitted)


@pytest.fixture
def spikes() -> Array:
    made: Array = (np.random.default_rng(0).random((11, 3)) < 0.4).astype(np.uint8)
    return made


def test_count_adds_up_spikes_until_the_end(spikes: Array) -> None:
    counts = run_windows(Count(), spikes, [])
    assert counts.dtype == np.int32
    assert counts.tolist() == [spikes.sum(axis=0).tolist()]


def test_nothing_is_emitted_before_the_end(spikes: Array) -> None:
    assert run_windows(Count(), spikes, [5], end=False).shape == (0, 3)


def test_periods_tumble_and_the_end_emits_what_remains(spikes: Array) -> None:
    counts = run_windows(Count(every=4), spikes, [])
    wanted = [spikes[lo : lo + 4].sum(axis=0).tolist() for lo in (0, 4, 8)]
    assert counts.tolist() == wanted


def test_end_on_a_period_emits_once(spikes: Array) -> None:
    assert len(run_windows(Count(every=4), spikes[:8], [])) == 2


def test_end_in_a_window_without_steps_emits_nothing_more(spikes: Array) -> None:
    assert len(run_windows(Count(every=4), spikes[:8], [8])) == 2


def test_end_in_a_window_without_steps_emits_what_remains(spikes: Array) -> None:
    counts = run_windows(Count(every=4), spikes[:6], [6])
    assert counts.tolist()[1] == spikes[4:6].sum(axis=0).tolist()
    assert len(counts) == 2


@pytest.mark.parametrize("readout", [Count(), Mean(every=3), Membrane(decay=0.5)])
def test_stream_without_any_step_emits_zeros_once(readout: Readout) -> None:
    emitted = run_windows(readout, np.empty((0, 3), np.uint8), [])
    assert emitted.tolist() == [[0, 0, 0]]
    assert not np.signbit(emitted).any()


def test_mean_is_taken_over_the_steps_of_the_period(spikes: Array) -> None:
    means = run_windows(Mean(every=4), spikes, [])
    for mean, lo, n in zip(means, (0, 4, 8), (4, 4, 3), strict=True):
        exact = spikes[lo : lo + n].sum(axis=0) / np.float64(n)
        assert np.array_equal(mean, exact.astype(np.float32))


def test_mean_counts_in_the_unit_of_its_input() -> None:
    readout = Mean().reading(SUMS)
    steps = np.full((3, 2, 2), -24, np.float32)
    emitted = run_windows(readout, steps, [])
    assert emitted.dtype == np.float32
    assert emitted.tolist() == [[-1.5] * 4]


def test_mean_adds_integers_so_large_sums_lose_nothing() -> None:
    steps = np.full((5, 1), 2.0**24 - 1)
    steps[0] = 1
    exact = (4 * (2**24 - 1) + 1) / 5
    assert run_windows(Mean(), steps, [])[0, 0] == np.float32(exact)


def test_membrane_leaks_and_never_fires() -> None:
    steps = np.array([[64], [0], [0]], np.float32)
    readout = Membrane(decay=0.5).reading(SUMS)
    assert run_windows(readout, steps, []).tolist() == [[1.0]]


def test_membrane_starts_again_after_each_period() -> None:
    steps = np.array([[16], [16], [16]], np.float32)
    readout = Membrane(every=2).reading(SUMS)
    assert run_windows(readout, steps, []).tolist() == [[2.0], [1.0]]


def test_count_saturates_instead_of_wrapping() -> None:
    state = (np.array([[2**31 - 2, 5, -(2**40)]]),)
    clock = Clock(np.array([2**31]), np.array([True]))
    out, _ = Count().run([np.ones((1, 3, 3), np.uint8)], state, clock)
    assert out[0].tolist() == [[2**31 - 1, 8, -(2**31 - 1)]]


@pytest.mark.parametrize("readout", [Count(every=3), Mean(every=5), Membrane(every=4, decay=0.9)])
@pytest.mark.parametrize("cuts", [[1], [3], [2, 4, 9], [0, 5, 5, 10]])
def test_cut_into_windows_changes_no_bit(spikes: Array, readout: Readout, cuts: list[int]) -> None:
    whole = run_windows(readout, spikes, [])
    assert run_windows(readout, spikes, cuts).tobytes() == whole.tobytes()


def test_streams_at_different_steps_emit_at_their_own(spikes: Array) -> None:
    steps = np.stack([spikes[:5]] * 3)
    state = (np.zeros((3, 3), np.int64),)
    clock = Clock(np.array([0, 2, 3]), np.array([False, False, True]))
    out, after = Count(every=4).run([steps], state, clock)
    assert [len(rows) for rows in out] == [1, 1, 2]
    assert out[1].tolist() == [spikes[:2].sum(axis=0).tolist()]
    assert out[2].tolist() == [part.sum(axis=0).tolist() for part in (spikes[:1], spikes[1:5])]
    assert after[0][1].tolist() == spikes[2:5].sum(axis=0).tolist()


def test_state_is_not_written_to(spikes: Array) -> None:
    state = (np.full((1, 3), 7),)
    Count(every=2).run([spikes[None]], state, Clock(np.array([0]), np.array([True])))
    assert state[0].tolist() == [[7, 7, 7]]


@pytest.mark.parametrize("readout", [Count(every=3), Mean(unit=4), Membrane(decay=0.1, every=2)])
def test_parameters_survive_writing_and_reading(readout: Readout) -> None:
    assert vars(type(readout).build(readout.params(), {})) == vars(readout)


@pytest.mark.parametrize(
    ("cls", "params", "sentence"),
    [
        (Count, {"every": 0}, "every is 0: it must be 1 step or more"),
        (Count, {"every": 2.0}, "every is 2.0: it must be 1 step or more"),
        (Count, {"decay": 0.5}, "count has no parameter decay: it has every"),
        (Membrane, {"decay": 1.5}, "decay is 1.5: it must lie in 0 to 1"),
        (Membrane, {"decay": "slow"}, "decay is 'slow': it must be a number"),
    ],
)
def test_illegal_parameters_are_refused_with_a_sentence(
    cls: type[Readout], params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StageError) as refused:
        cls.authored(params)
    assert sentence in str(refused.value)


def test_readout_refuses_another_unit() -> None:
    with pytest.raises(StageError, match=r"reads units of 2\*\*-0 is given 2\*\*-4"):
        Mean().out_type([SUMS])


def test_readout_cannot_be_cut_into_groups() -> None:
    assert Count().granule([SPIKES]) is None
    with pytest.raises(StageError, match="cannot be cut into synapse groups"):
        Count().slice([SPIKES], 0, 1)
