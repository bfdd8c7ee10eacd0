"""Read positions, and logs that are not what they were (6, 30)."""

import zlib

import pytest

from workers.reading import LogReplacedError, Reading, Record
from workers.snapshot import Position


def record(offset: int, value: bytes = b"v", timestamp: int = 7) -> Record:
    return Record("t", offset, timestamp, None, value)


@pytest.fixture
def position() -> Position:
    """The position after record 4."""
    reading = Reading(["t"])
    reading.take(record(4))
    return reading.positions()["t"]


def test_record_below_the_position_is_not_new() -> None:
    reading = Reading(["t"], {"t": Position(5)})
    assert not reading.take(record(3))
    assert reading.take(record(5))
    assert reading.offset("t") == 6


def test_offsets_may_have_gaps() -> None:
    reading = Reading(["t"])
    assert reading.take(record(0))
    assert reading.take(record(9))
    assert reading.offset("t") == 10


def test_position_names_the_next_record_and_remembers_the_last(position: Position) -> None:
    assert (position.offset, position.timestamp) == (5, 7)
    assert position.crc >= 0


def test_record_before_a_restored_position_is_fetched_again(position: Position) -> None:
    assert Reading(["t"], {"t": position}).start() == {"t": 4}


def test_position_without_a_record_has_nothing_to_verify() -> None:
    assert Reading(["t"], {"t": Position(5)}).start() == {"t": 5}


def test_same_record_before_the_position_is_accepted(position: Position) -> None:
    reading = Reading(["t"], {"t": position})
    assert not reading.take(record(4))
    assert reading.start() == {"t": 5}


@pytest.mark.parametrize("other", [record(4, b"w"), record(4, timestamp=8)])
def test_another_record_before_the_position_is_a_replaced_log(
    position: Position, other: Record
) -> None:
    with pytest.raises(LogReplacedError, match="offset 4 of topic t"):
        Reading(["t"], {"t": position}).take(other)


def test_log_that_ends_below_the_position_is_a_replaced_log(position: Position) -> None:
    reading = Reading(["t"], {"t": position})
    reading.check_end("t", 5)
    with pytest.raises(LogReplacedError, match="ends at offset 4"):
        reading.check_end("t", 4)


def test_truncation_above_the_position_is_told() -> None:
    reading = Reading(["t"], {"t": Position(5)})
    assert not reading.skip_to("t", 5)
    assert reading.skip_to("t", 6)
    assert reading.offset("t") == 6


def test_truncated_record_before_the_position_is_not_verified(position: Position) -> None:
    reading = Reading(["t"], {"t": position})
    reading.skip_to("t", 5)
    assert reading.start() == {"t": 5}


def test_topic_that_is_added_is_read_from_its_beginning() -> None:
    reading = Reading(["t"], {"t": Position(5)})
    reading.add(["u", "t"])
    assert (reading.offset("t"), reading.offset("u")) == (5, 0)


def test_rewound_topic_gives_its_records_again() -> None:
    reading = Reading(["t"], {"t": Position(5)})
    reading.rewind("t", 2)
    assert reading.take(record(2))


def test_bytes_of_new_records_are_counted() -> None:
    reading = Reading(["t"], {"t": Position(1)})
    reading.take(record(0, b"old"))
    reading.take(record(1, b"four"))
    assert reading.n_bytes == 4


def test_markers_at_the_end_of_a_log_are_passed_over_and_only_once() -> None:
    reading = Reading(["t"], {"t": Position(5)})
    assert reading.pass_over("t", 7)
    assert not reading.pass_over("t", 7)
    assert not reading.pass_over("t", 6)
    assert reading.offset("t") == 7
    reading.check_end("t", 7)


def test_the_record_before_markers_is_the_one_that_is_verified() -> None:
    reading = Reading(["t"])
    reading.take(record(4))
    reading.pass_over("t", 6)
    reading.positions()
    reading.pass_over("t", 7)
    position = reading.positions()["t"]
    assert (position.offset, position.witness) == (7, 4)
    again = Reading(["t"], {"t": position})
    assert again.start() == {"t": 4}
    with pytest.raises(LogReplacedError, match="offset 4 of topic t"):
        again.take(record(4, b"w"))


def test_a_record_that_was_verified_before_markers_is_not_fetched_again() -> None:
    reading = Reading(["t"], {"t": Position(7, 7, zlib.crc32(b"v"), gap=2)})
    assert not reading.take(record(4))
    assert reading.start() == {"t": 7}


def test_a_position_behind_markers_that_nobody_can_verify_waits_for_nothing() -> None:
    reading = Reading(["t"])
    reading.pass_over("t", 3)
    assert Reading(["t"], reading.positions()).start() == {"t": 3}


def test_a_record_behind_markers_is_the_next_one_to_be_verified() -> None:
    reading = Reading(["t"])
    reading.take(record(4))
    reading.pass_over("t", 6)
    reading.take(record(6))
    assert reading.positions()["t"].witness == 6
