"""Thousands of seeded worlds with faults: nothing lost, nothing doubled, the same bits, no hang."""

import pytest

from loadtest.simulation.runner import play_all

PORTION = 200
N_SEEDS = 3_000


@pytest.mark.parametrize("first", range(0, N_SEEDS, PORTION))
def test_every_promise_is_kept_in_every_seed(first: int) -> None:
    summary = play_all(range(first, first + PORTION))
    for failure in summary.failures:
        pytest.fail(f"{failure}\nplay it again: make simulate SEEDS=1 SEED={failure.seed}")
    assert summary.n_seeds == PORTION
    assert summary.n_faults > PORTION
    assert summary.n_recoveries > 0
