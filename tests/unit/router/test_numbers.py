"""Lists of numbers that are read in slices say what JSON and NumPy say of them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import numbers, records
from router.numbers import Cut, Span, cut, finish, flat_lists, rows_of, shape_of
from router.records import RecordError, parse_value

NUMBER = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
TOKENS = st.lists(
    st.sampled_from(["[", "]", ",", " ", "\n", "1", "-2.5e3", "true", "null", "01", "+", "9" * 20]),
    max_size=14,
)


@pytest.fixture(params=[16 * 1024, 64], ids=["long slices", "short slices"], autouse=True)
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds for any length of a slice that a value fits."""
    monkeypatch.setattr(numbers, "_SLICE", request.param)


def span_of(text: str) -> Span:
    return Span(text.encode(), 0, len(text), text.count(","))


def values_of(span: Span) -> list[Any] | None:
    found: list[Any] = []
    for part in flat_lists(span):
        if part is None:
            return None
        found += part
    return found


@st.composite
def nested(draw: st.DrawFn) -> Any:
    """Numbers nested evenly, up to four deep."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    n = int(np.prod(shape))
    cells = np.empty(n, object)
    cells[:] = draw(st.lists(NUMBER, min_size=n, max_size=n))
    return cells.reshape(shape).tolist()


@given(data=nested(), indent=st.sampled_from([None, 1]))
def test_lists_nested_evenly_have_the_shape_and_values_that_json_gives(
    data: Any, indent: int | None
) -> None:
    span = span_of(json.dumps(data, indent=indent))
    cells = np.asarray(data, dtype=object)
    assert finish(shape_of(span)) == cells.shape
    assert repr(values_of(span)) == repr(cells.reshape(-1).tolist())


@given(tokens=TOKENS)
def test_no_other_text_is_taken_for_a_list(tokens: list[str]) -> None:
    text = "[" + "".join(tokens) + "]"
    span = span_of(text)
    shape, values = finish(shape_of(span)), values_of(span)
    try:
        cells = np.asarray(json.loads(text), dtype=object)
    except ValueError:  # no JSON
        assert shape is None or values is None or len(values) != np.prod(shape)
    else:
        read_whole = shape is not None and values is not None and len(values) == np.prod(shape)
        even = cells.size > 0 and not any(isinstance(x, list) for x in cells.reshape(-1))
        assert read_whole == even


@pytest.mark.parametrize("text", ["[[1,2],[3]]", "[[1],2]", "[1,[2]]", "[[1,2],[3],[4,5]]", "[]]"])
def test_lists_of_unequal_lengths_have_no_shape(text: str) -> None:
    assert finish(shape_of(span_of(text))) is None


def test_rows_of_two_and_three_values_are_told_apart() -> None:
    assert finish(rows_of(span_of("[[1,2], [3,4,5],\n[6,7]]"))) == b"\2\3\2"
    assert finish(rows_of(span_of("[ ]"))) == b""
    for text in ("[[1]]", "[1,2]", "[[1,2],3]", "[[1,2][3,4]]", "[[[1,2]]]", "[[1,2,3,4]]"):
        assert finish(rows_of(span_of(text))) is None


def cut_of(text: bytes, most_rest: int | None = None) -> Cut:
    return finish(cut(text, most_rest))


def test_what_is_cut_out_leaves_the_rest_of_the_text() -> None:
    text = b'{"id": "x", "inputs": [{"data" : [[1, 2], [3, 4]], "name": "y"}], "events": [1]}'
    parts = cut_of(text)
    content = json.loads(parts.rest)
    data = parts.within(content["inputs"][0].pop("data"))
    events = parts.within(content.pop("events"))
    assert content == {"id": "x", "inputs": [{"name": "y"}]}
    assert data is not None
    assert text[data.start : data.stop] == b"[[1, 2], [3, 4]]"
    assert events is not None
    assert text[events.start : events.stop] == b"[1]"


@pytest.mark.parametrize(
    "text",
    [b'{"a": "\\"data\\": [1]"}', b'{"\\"data": [1]}', b'{"data": ["1"]}', b'{"data": [[1], "x"]}'],
)
def test_texts_and_names_that_only_look_like_a_list_stay_where_they_are(text: bytes) -> None:
    assert cut_of(text).rest == text


def test_nobody_can_write_a_name_that_stands_for_a_list() -> None:
    parts = cut_of(b'{"data": [1], "x": "y"}')
    (name,) = parts.spans
    forged = cut_of(b'{"data": [1], "x": "%b"}' % name.encode())
    assert name not in forged.spans


def test_a_long_rest_is_not_worked_on() -> None:
    text = b'{"data": [1], "id": "' + b"x" * 100 + b'"}'
    assert cut_of(text, 64) == Cut(text, {})
    assert cut_of(text, 200).spans


def test_a_value_longer_than_a_slice_is_none() -> None:
    span = span_of("[1," + " " * 20_000 + "2]")
    assert finish(shape_of(span)) is None
    assert values_of(span) is None


@st.composite
def json_records(draw: st.DrawFn) -> str:
    """JSON records: legal ones, and such as are not."""
    number = st.one_of(
        st.integers(0, 9), st.sampled_from([2**24 + 1, 2**31, 2**32, 2**64 - 1, 2**64, -1, 1.5])
    )
    row = st.lists(number, min_size=1, max_size=4)
    if draw(st.booleans()):
        content: dict[str, Any] = {"events": draw(st.lists(row | st.just([3, 4]), max_size=6))}
    else:
        content = {"data": draw(st.lists(number, max_size=6) | st.lists(row, max_size=4))}
    return json.dumps({**content, "end": True})


def _said(text: str, monkeypatch: pytest.MonkeyPatch, long: int) -> object:
    monkeypatch.setattr(records, "_LONG", long)
    try:
        return parse_value(b"cam", text.encode(), "")
    except RecordError:
        return RecordError


@given(text=json_records())
def test_a_long_record_says_what_it_would_say_if_it_were_short(text: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        short, long = _said(text, monkeypatch, 10**9), _said(text, monkeypatch, 0)
    assert long == short
