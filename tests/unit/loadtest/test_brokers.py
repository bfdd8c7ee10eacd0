"""The checker of `spikerouter bench kafka`, on histories that are made up."""

import pytest

from loadtest.brokers import outage_of

GOOD = {0: [0, 2, 4], 1: [1, 3, 5]}


def test_a_good_history_has_no_fault() -> None:
    assert outage_of(6, GOOD) == (0, 0, 0)


@pytest.mark.parametrize(
    ("found", "faults"),
    [
        ({0: [0, 2, 4], 1: [1, 5]}, (1, 0, 0)),
        ({0: [0, 2, 4], 1: []}, (3, 0, 0)),
        ({0: [0, 2, 4], 1: [1, 3, 3, 5]}, (0, 1, 1)),
        ({0: [0, 2, 4, 0, 2], 1: [1, 3, 5]}, (0, 2, 1)),
        ({0: [0, 4, 2], 1: [1, 3, 5]}, (0, 0, 1)),
        ({0: [0, 2, 4], 1: [1, 3, 5, 4]}, (0, 1, 1)),
    ],
    ids=["lost", "partition lost", "doubled", "replayed", "disordered", "in another partition"],
)
def test_a_bad_history_is_found(found: dict[int, list[int]], faults: tuple[int, int, int]) -> None:
    assert outage_of(6, found) == faults
