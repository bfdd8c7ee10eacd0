"""Which door is given which input: the same ones in every run, and none twice."""

import pytest

from loadtest.hostile.doors import DOORS, numbers_of


@pytest.mark.parametrize(
    "doors", [[*DOORS], ["http"], ["records", "store"], ["store", "http"]], ids=", ".join
)
def test_every_number_is_given_to_one_door(doors: list[str]) -> None:
    given = {door: [*numbers] for door, numbers in numbers_of(doors, 5_000).items()}
    assert sorted(n for numbers in given.values() for n in numbers) == [*range(5_000)]
    assert given == {door: [*numbers] for door, numbers in numbers_of(doors, 5_000).items()}


def test_doors_take_turns_by_their_shares() -> None:
    whole = sum(entry.share for entry in DOORS.values())
    for door, numbers in numbers_of([*DOORS], 2 * whole).items():
        given = [*numbers]
        assert len(given) == 2 * DOORS[door].share
        assert sum(n < whole for n in given) == DOORS[door].share
