"""Where a batch ends that nobody can read: its head says so, or the batch behind it."""

import pytest

from loadtest.faults.raw_batches import batch, with_base_offset
from router.fetching import Extent, extent_of

BEFORE = with_base_offset(batch(b"x"), 6)
BEHIND = with_base_offset(batch(b"y"), 10)
LOG_END = 11


def test_an_intact_batch_ends_where_its_head_says() -> None:
    whole = with_base_offset(batch(b"a", b"b", b"c", codec=7), 7)
    assert extent_of(BEFORE + whole + BEHIND, 7, LOG_END) == Extent(10, is_intact=True)


@pytest.mark.parametrize("at", [7, 8, 9])
def test_any_offset_of_a_batch_leads_to_its_end(at: int) -> None:
    whole = with_base_offset(batch(b"a", b"b", b"c"), 7)
    assert extent_of(whole, at, LOG_END).stop == 10


@pytest.mark.parametrize("n_offsets", [1, 3, 2**30])
def test_a_damaged_batch_ends_where_the_next_one_begins(n_offsets: int) -> None:
    damaged = batch(b"a", b"b", b"c", wrong_crc=True, n_offsets=n_offsets)
    found = extent_of(with_base_offset(damaged, 7) + BEHIND, 7, LOG_END)
    assert found == Extent(10, is_intact=False)


def test_a_damaged_batch_at_the_end_of_the_log_ends_where_its_head_says() -> None:
    damaged = with_base_offset(batch(b"a", b"b", wrong_crc=True), 9)
    assert extent_of(damaged, 9, LOG_END) == Extent(11, is_intact=False)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x00" * 200], ids=["none", "ones", "zeros"])
def test_where_no_batch_is_to_be_seen_one_offset_is_passed_over(data: bytes) -> None:
    assert extent_of(data, 7, LOG_END) == Extent(8, is_intact=False)


def test_a_damaged_head_that_leads_beyond_the_log_is_not_believed() -> None:
    damaged = with_base_offset(batch(b"a", wrong_crc=True, n_offsets=2**30), 7)
    assert extent_of(damaged, 7, LOG_END) == Extent(8, is_intact=False)


def test_a_truncated_batch_is_passed_over_by_one_offset() -> None:
    assert extent_of(with_base_offset(batch(b"a" * 99), 7)[:80], 7, LOG_END).stop == 8
