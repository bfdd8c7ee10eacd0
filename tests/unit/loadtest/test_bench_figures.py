"""The figures that benchmarks print, from made-up times."""

import pytest

from loadtest.kills import quantile
from loadtest.overload import Overload
from loadtest.scaling import pause_ms


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [quantile(values, q) for q in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert quantile([7.0], 0.5) == 7.0


def test_a_pause_is_the_longest_gap_around_a_move_beyond_the_usual_one() -> None:
    frames = [0.0, 0.01, 0.02, 0.22, 0.23, 0.24, 5.0, 5.01]
    assert pause_ms(frames, 0.1, 0.15) == pytest.approx(190.0)


def test_a_gap_elsewhere_is_no_pause_of_this_move() -> None:
    frames = [0.0, 0.01, 0.02, 0.03, 0.04, 0.24]
    assert pause_ms(frames, 0.005, 0.015) == pytest.approx(0.0, abs=1e-6)
    assert pause_ms([], 0.0, 1.0) == 0.0


def test_growth_compares_the_second_quarter_with_the_last_one() -> None:
    found = Overload(1.0, 10.0, 8.0, sizes={"gateway": [10, 20, 20, 20, 21, 22, 30, 30]})
    assert found.growth() == {"gateway": (20, 30)}
