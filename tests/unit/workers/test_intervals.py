"""Intervals are the set of integers that they stand for."""

from hypothesis import given
from hypothesis import strategies as st

from workers.intervals import IntervalSet

numbers = st.integers(0, 40)
ranges = st.tuples(numbers, numbers)
spans = st.lists(st.tuples(numbers, st.integers(0, 9)), max_size=8)


def filled(of: list[tuple[int, int]]) -> tuple[IntervalSet, set[int]]:
    """Ranges (first, length), as intervals and as Python has it."""
    found, plain = IntervalSet(), set[int]()
    for lo, n in of:
        found.add_range(lo, lo + n)
        plain.update(range(lo, lo + n))
    return found, plain


def members(of: IntervalSet) -> set[int]:
    return {n for lo, hi in of.intervals() for n in range(lo, hi)}


def n_runs(plain: set[int]) -> int:
    return sum(n - 1 not in plain for n in plain)


@given(spans, st.lists(numbers))
def test_ranges_and_members_come_together_in_as_few_intervals_as_can_be(
    of: list[tuple[int, int]], single: list[int]
) -> None:
    found, plain = filled(of)
    for number in single:
        found.add(number)
    assert members(found) == plain.union(single)
    assert len(found) == n_runs(plain.union(single))


@given(spans, spans)
def test_difference_has_what_the_other_has_not(
    of: list[tuple[int, int]], less: list[tuple[int, int]]
) -> None:
    (found, plain), (gone, plain_gone) = filled(of), filled(less)
    left = found.minus(gone)
    assert members(left) == plain - plain_gone
    assert len(left) == n_runs(plain - plain_gone)


@given(spans, ranges)
def test_covered_range_has_all_its_members_in_the_set(
    of: list[tuple[int, int]], wanted: tuple[int, int]
) -> None:
    found, plain = filled(of)
    assert found.covers(*wanted) == plain.issuperset(range(*wanted))


@given(spans, numbers)
def test_what_lies_below_is_forgotten(of: list[tuple[int, int]], value: int) -> None:
    found, plain = filled(of)
    found.drop_below(value)
    assert members(found) == {n for n in plain if n >= value}
