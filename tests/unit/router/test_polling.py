from itertools import pairwise

import pytest

from router.polling import Pace


def after(pace: Pace, gap_ms: float, n: int = 60) -> int:
    """The wait after `n` records, one every `gap_ms`."""
    waits = [pace.wait_ms(i * gap_ms / 1000, found=True) for i in range(n)]
    return waits[-1]


def test_fetch_waits_as_asked_before_there_is_a_rhythm() -> None:
    pace = Pace(2)
    assert pace.wait_ms(0.0, found=False) == 2
    assert pace.wait_ms(1.0, found=True) == 2


@pytest.mark.parametrize(("gap_ms", "wait_ms"), [(1, 1), (20, 1), (40, 2), (70, 4), (5000, 8)])
def test_wait_is_a_sixteenth_of_the_gap_within_its_bounds(gap_ms: float, wait_ms: int) -> None:
    assert after(Pace(2), gap_ms) == wait_ms


def test_rarer_records_never_shorten_the_wait() -> None:
    waits = [after(Pace(2), gap) for gap in (1, 5, 10, 20, 50, 100, 200)]
    assert all(a <= b for a, b in pairwise(waits))


def test_silence_ends_the_rhythm() -> None:
    pace = Pace(2)
    assert after(pace, 70, n=10) == 4
    assert pace.wait_ms(0.63 + 0.3, found=False) == 4
    assert pace.wait_ms(0.63 + 0.6, found=False) == 2
    assert pace.wait_ms(2.0, found=True) == 2


def test_one_long_gap_does_not_hide_the_rhythm() -> None:
    pace = Pace(2)
    after(pace, 10, n=10)
    assert pace.wait_ms(0.09 + 0.07, found=True) <= 4


def test_pace_of_a_broker_that_answers_at_once_is_never_below_half_its_own_wait() -> None:
    assert after(Pace(100), 20) == 50
