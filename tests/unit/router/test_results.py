"""What the results topics have said of a stream, and what is only a repeat of it."""

import numpy as np
import pytest

from router.payload import pack_result
from router.results import REMEMBERED_NAMES, ResultsLost, ResultTable, Stream
from router.wire import Batch, Kind, StreamId
from workers.tenant import Limits

_FIRST = StreamId(7, 3)


def _batch(
    window: int, *, end: bool = False, stream: StreamId = _FIRST, is_silent: bool = False
) -> Batch:
    payload = b"" if is_silent else pack_result(np.array([[window]], np.int32))
    return Batch(
        "n", stream, "s", ("net",), 0, window, window, window + 1, end=end, payload=payload
    )  # fmt: skip


def _abort(window: int, *, stream: StreamId = _FIRST) -> Batch:
    return Batch(
        "n", stream, "s", ("net",), 0, window, 0, 0, kind=Kind.ABORT, end=True, error="Lost: gone"
    )  # fmt: skip


def _fed(*batches: Batch) -> tuple[ResultTable, Stream]:
    table = ResultTable(1)
    table.follow("net", 1)
    table.feed("net", 0, batches, 0.0)
    stream = table.find("net", "s", 0)
    assert stream is not None
    return table, stream


def _values(stream: Stream) -> list[int]:
    return [int(emission.values[0]) for emission in stream.emissions(0)]


def test_windows_are_taken_once_and_in_order() -> None:
    table, stream = _fed(_batch(0), _batch(1), _batch(0), _batch(1), _batch(2, end=True))
    assert _values(stream) == [0, 1, 2]
    assert stream.final
    assert table.tally.repeats == 2


@pytest.mark.parametrize("window", [0, 1, 2, 3, 9])
def test_an_abort_is_final_whatever_window_it_names(window: int) -> None:
    table, stream = _fed(_batch(0), _batch(1), _batch(2), _abort(window))
    assert (stream.final, stream.error) == (True, "Lost: gone")
    assert _values(stream) == [0, 1, 2]
    assert (table.tally.repeats, table.tally.finals) == (0, 1)


@pytest.mark.parametrize("late", [_abort(0), _abort(2), _batch(1), _batch(2)])
def test_what_comes_after_the_end_is_a_repeat(late: Batch) -> None:
    table, stream = _fed(_batch(0), _batch(1, end=True), late)
    assert stream.error == ""
    assert _values(stream) == [0, 1]
    assert table.tally.repeats == 1


def test_a_window_after_an_abort_is_a_repeat() -> None:
    table, stream = _fed(_batch(0), _abort(0), _batch(1))
    assert _values(stream) == [0]
    assert table.tally.repeats == 1


def test_an_abort_of_an_era_that_is_over_ends_no_stream_of_the_next_one() -> None:
    table, stream = _fed(_batch(0, stream=StreamId(8, 0)), _abort(5))
    assert not stream.final
    assert table.tally.repeats == 1


def test_emissions_that_were_not_read_are_told_as_lost_though_none_came_after_them() -> None:
    _, stream = _fed(_batch(0), _batch(3, is_silent=True))
    emissions = stream.emissions(0)
    assert next(emissions).values.tolist() == [0]
    with pytest.raises(ResultsLost, match=r"Emission 1 of stream 's' .* the next one is 3"):
        next(emissions)


def test_a_window_that_was_not_read_is_told_as_a_gap() -> None:
    table, stream = _fed(_batch(0), _batch(2))
    assert not stream.complete
    assert table.tally.gaps == 1


def test_a_name_in_two_partitions_is_counted_and_both_are_named() -> None:
    table = ResultTable(4)
    table.follow("net", 1)
    table.feed("net", 2, [_batch(0)], 0.0)
    table.feed("net", 2, [_batch(1), _batch(0)], 0.0)
    assert (table.tally.spread, table.partitions("net", "s")) == (0, [2])
    table.feed("net", 0, [_batch(0)], 0.0)
    assert (table.tally.spread, table.partitions("net", "s")) == (1, [0, 2])
    assert table.partitions("net", "other") == []


def test_a_stream_that_ingest_knows_no_more_ends_by_the_reason_of_a_refusal() -> None:
    table, stream = _fed(_batch(0))
    assert table.lose("net", 0, "s", "EraLost: gone")
    assert (stream.final, stream.error, _values(stream)) == (True, "EraLost: gone", [0])
    assert not table.lose("net", 0, "s", "EraLost: gone")


def test_a_refusal_changes_nothing_of_a_stream_that_has_ended_or_of_the_next_era() -> None:
    table, ended = _fed(_batch(0, end=True))
    assert not table.lose("net", 0, "s", "EraLost: gone")
    assert ended.error == ""
    table, _ = _fed(_batch(0))
    table.lose("net", 0, "s", "EraLost: gone")
    table.feed("net", 0, [_batch(0, end=True, stream=StreamId(8, 0))], 0.0)
    later = table.find("net", "s", 0)
    assert later is not None
    assert (later.final, later.error, _values(later)) == (True, "", [0])


def _request(name: str, number: int, era: int = 7, *, end: bool = True) -> Batch:
    payload = pack_result(np.array([[1]], np.int32))
    sid = StreamId(era, number)
    return Batch("n", sid, name, ("net",), 0, 0, 0, 1, end=end, payload=payload)


def _short(*batches: Batch) -> ResultTable:
    """A table that has read these, and has then forgotten all that is older than a second."""
    table = ResultTable(1, keep_s=1.0)
    table.follow("net", None)
    table.feed("net", 0, batches, 0.0)
    table.feed("net", 0, (), 9.0)
    return table


def test_a_request_that_is_forgotten_with_its_result_is_known_as_answered() -> None:
    table = _short(_request("a@1", 3))
    assert len(table) == 0
    assert table.was_answered("net", "a@1", 0)
    assert not table.was_answered("net", "a@2", 0)
    assert not table.was_answered("net", "a@1", 1)


def test_a_request_is_not_known_as_answered_before_it_is() -> None:
    assert not _short(_request("a@1", 3, end=False)).was_answered("net", "a@1", 0)


def test_streams_without_a_request_s_id_are_not_remembered() -> None:
    assert not _short(_request("cam", 3)).was_answered("net", "cam", 0)


@pytest.mark.parametrize(
    ("later", "is_repeat"),
    [
        (_request("b@1", 3 + REMEMBERED_NAMES - 1), True),
        (_request("b@1", 3 + REMEMBERED_NAMES), False),  # ingest has forgotten the name
        (_request("b@1", 0, era=8), False),  # and that of any era before
    ],
)
def test_it_is_known_no_longer_than_ingest_takes_a_repeat_for_one(
    later: Batch, is_repeat: bool
) -> None:
    assert _short(_request("a@1", 3), later).was_answered("net", "a@1", 0) == is_repeat
    assert Limits().remembered_names == REMEMBERED_NAMES


def test_requests_that_were_answered_are_remembered_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.results._MOST_ANSWERED", 2)
    table = _short(*(_request(f"{name}@1", number) for number, name in enumerate("abc")))
    assert [table.was_answered("net", f"{name}@1", 0) for name in "abc"] == [False, True, True]
