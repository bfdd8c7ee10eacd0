"""Payloads: golden vectors, the choice of the encoding, bounds, and refusal of other bytes."""

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from router.payload import (
    EMPTY,
    PayloadError,
    count_active,
    pack,
    pack_result,
    unpack,
    unpack_result,
    unpack_steps,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "wire" / "v1"
WINDOWS = sorted((GOLDEN / "payload").glob("*.json"))
RESULTS = sorted((GOLDEN / "result").glob("*.json"))

EMPTY_FORM, ADDRESSES, BITMAP, GRADED_ADDRESSES, GRADED_BITMAP, DENSE = range(6)


def window(n_active: int, n_cells: int = 64, value: int = 1) -> NDArray[np.int32]:
    """One stream, one step, the first cells active."""
    values = np.zeros((1, 1, n_cells), np.int32)
    values[..., :n_active] = value
    return values


def form(payload: bytes) -> int:
    return payload[0] & 15


@pytest.mark.parametrize("path", WINDOWS, ids=lambda path: str(path.stem))
def test_golden_window_is_read_and_written_unchanged(path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    content, data = vector["content"], bytes.fromhex(vector["bytes"])
    n_steps, n, bounds = content["steps"], content["neurons"], (content["low"], content["high"])
    values = np.zeros(n_steps * n, np.int64)
    for cell, value in content["cells"]:
        values[cell] = value
    values = values.reshape(1, n_steps, n)
    assert pack(values, *bounds) == [data]
    assert np.array_equal(unpack([data], n_steps, n, *bounds), values)
    assert np.array_equal(unpack([memoryview(data)], n_steps, n, *bounds), values)
    assert count_active(data) == len(content["cells"])


def test_some_steps_of_any_payload_are_read_as_in_the_whole() -> None:
    rng = np.random.default_rng(5)
    n_steps, n = 23, 11
    forms = set()
    for high, density in product((1, 3, 40_000), (0, 0.01, 0.1, 0.6, 1)):
        active = rng.random((1, n_steps, n)) < density
        (data,) = pack(rng.integers(1, high + 1, active.shape) * active, 0, high)
        forms.add(form(data))
        whole = unpack([data], n_steps, n, 0, high)[0]
        for start, stop in combinations(range(n_steps + 1), 2):
            steps = unpack_steps(data, n_steps, n, 0, high, start, stop)
            assert steps.dtype == whole.dtype
            assert np.array_equal(steps, whole[start:stop])
    assert forms == {EMPTY_FORM, ADDRESSES, BITMAP, GRADED_ADDRESSES, GRADED_BITMAP, DENSE}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: str(path.stem))
def test_golden_result_is_read_and_written_unchanged(path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    content, data = vector["content"], bytes.fromhex(vector["bytes"])
    rows = [[float.fromhex(v) if isinstance(v, str) else v for v in r] for r in content["values"]]
    values = np.array(rows, content["dtype"]).reshape(-1, content["outputs"])
    assert pack_result(values) == data
    read = unpack_result(data)
    assert read.dtype == values.dtype
    assert read.tobytes() == values.tobytes()


def test_there_are_golden_vectors_of_every_encoding() -> None:
    first = {json.loads(path.read_text("utf-8"))["bytes"][:2] for path in WINDOWS + RESULTS}
    assert {int(head, 16) & 15 for head in first} == set(range(8))


@pytest.mark.parametrize(
    ("n_active", "expected"),
    [(0, EMPTY_FORM), (1, ADDRESSES), (8, ADDRESSES), (9, BITMAP), (64, BITMAP)],
)
def test_smallest_encoding_of_spikes_wins_and_addresses_win_a_tie(
    n_active: int, expected: int
) -> None:
    assert form(pack(window(n_active), 0, 1)[0]) == expected


@pytest.mark.parametrize(
    ("n_active", "expected"),
    [
        (0, EMPTY_FORM),
        (8, GRADED_ADDRESSES),  # 16 bytes, as the bitmap: a tie
        (9, GRADED_BITMAP),
        (56, GRADED_BITMAP),  # 64 bytes, as dense: a tie
        (57, DENSE),
    ],
)
def test_smallest_encoding_of_values_wins_in_the_order_of_the_table(
    n_active: int, expected: int
) -> None:
    assert form(pack(window(n_active, value=3), 0, 9)[0]) == expected


@pytest.mark.parametrize(("n_cells", "width"), [(256, 1), (257, 2), (65536, 2), (65537, 4)])
def test_width_of_addresses_follows_the_window_and_not_the_content(
    n_cells: int, width: int
) -> None:
    assert len(pack(window(1, n_cells), 0, 1)[0]) == 1 + width


@pytest.mark.parametrize(
    ("low", "high", "width"),
    [(0, 255, 1), (0, 256, 2), (0, 65535, 2), (-1, 1, 2), (-32768, 32767, 2), (-1, 32768, 4),
     (0, 65536, 4), (-(2**31), 2**31 - 1, 4)],
)  # fmt: skip
def test_width_of_values_follows_the_bounds_and_not_the_content(
    low: int, high: int, width: int
) -> None:
    assert len(pack(window(1, 200), low, high)[0]) == 1 + 1 + width


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int32, np.uint64])
def test_equal_content_gives_equal_bytes_whatever_the_dtype_and_layout(dtype: Any) -> None:
    rng = np.random.default_rng(5)
    plain = (rng.random((6, 5, 40)) < np.linspace(0, 0.4, 6)[:, None, None]).astype(np.uint8)
    turned = np.asfortranarray(plain.astype(dtype))
    assert pack(turned, 0, 1) == pack(plain, 0, 1)


def test_streams_of_one_call_do_not_see_each_other() -> None:
    rng = np.random.default_rng(6)
    densities = np.array([0, 0.01, 0.9, 0.05, 0, 0.3])[:, None, None]
    for low, high in ((0, 1), (-7, 7), (0, 100_000)):
        values = rng.integers(low, high + 1, (6, 3, 50)) * (rng.random((6, 3, 50)) < densities)
        together = pack(values, low, high)
        assert together == [pack(row[None], low, high)[0] for row in values]
        assert np.array_equal(unpack(together, 3, 50, low, high), values)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 1, np.uint8), (0, 255, np.int16), (-9, 9, np.int16), (0, 40000, np.int32),
     (-70000, 0, np.int32)],
)  # fmt: skip
def test_type_in_memory_follows_the_bounds(low: int, high: int, dtype: Any) -> None:
    for value in (low, high):
        read = unpack(pack(window(1, value=value), low, high), 1, 64, low, high)
        assert read.dtype == dtype
        assert read[0, 0, 0] == value
        assert read.flags.writeable


def test_no_streams_and_no_steps_have_their_shapes() -> None:
    assert pack(np.zeros((0, 4, 8), np.uint8), 0, 1) == []
    assert unpack([], 4, 8, 0, 1).shape == (0, 4, 8)
    assert pack(np.zeros((3, 0, 8), np.uint8), 0, 1) == [EMPTY] * 3
    assert unpack([EMPTY] * 3, 0, 8, 0, 1).shape == (3, 0, 8)


@pytest.mark.parametrize("value", [-1, 2, 300])
def test_spike_that_is_neither_0_nor_1_is_refused_by_its_row(value: int) -> None:
    values = np.zeros((3, 2, 4), np.int32)
    values[1, 1, 3] = value
    with pytest.raises(PayloadError, match="Payload 1") as caught:
        pack(values, 0, 1)
    assert caught.value.index == 1


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 3)), np.zeros((1, 2, 3), np.float32), np.zeros((1, 2, 0), np.uint8)],
    ids=["axes", "floats", "no neurons"],
)
def test_array_that_is_no_window_is_refused(values: NDArray[Any]) -> None:
    with pytest.raises(PayloadError) as caught:
        pack(values, 0, 1)
    assert caught.value.index is None


@pytest.mark.parametrize(("low", "high"), [(1, 0), (0, 2**31), (-(2**31) - 1, 0)])
def test_illegal_bounds_are_refused(low: int, high: int) -> None:
    with pytest.raises(PayloadError, match="bounds"):
        unpack([EMPTY], 1, 1, low, high)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("", "no bytes"),
        ("0000", "length"),
        ("01", "lists no cell"),
        ("0114", "beyond the last"),
        ("010505", "ascend"),
        ("010504", "ascend"),
        ("0101020304", "canonical"),
        ("020000", "length"),
        ("02ffffffff", "length"),
        ("02ffff1f", "beyond the last"),
        ("02000000", "canonical"),
        ("02010000", "canonical"),
        ("110500", "first byte"),  # u16 addresses
        ("0305ff", "first byte"),
        ("05" + "00" * 20, "first byte"),
        ("08", "first byte"),
        ("ff", "first byte"),
    ],
)
@pytest.mark.parametrize("beside", [[], ["00"], ["0105", "02ffff00"]], ids=len)
def test_damaged_spikes_are_refused_by_their_place(
    payload: str, reason: str, beside: list[str]
) -> None:
    payloads = [bytes.fromhex(text) for text in (*beside, payload, *beside)]
    with pytest.raises(PayloadError, match=reason) as caught:
        unpack(payloads, 2, 10, 0, 1)
    assert caught.value.index == len(beside)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("8305", "multiple"),
        ("8305000000", "multiple"),
        ("83050000", "zero"),
        ("83050a00", "leave"),
        ("830504020001", "multiple"),
        ("83050402000100", "ascend"),
        ("84ff", "length"),
        ("84ffff0000", "length"),
        ("840700010002000000", "zero"),
        ("84070001000200f6ff", "leave"),
        ("84030001000200", "canonical"),
        ("85" + "0100" * 15 + "f600", "leave"),
        ("85" + "0100" * 8 + "0000" * 8, "canonical"),
        ("85" + "0100" * 15, "length"),
        ("0305", "first byte"),
        ("0105", "first byte"),
    ],
)
def test_damaged_values_are_refused_by_their_place(payload: str, reason: str) -> None:
    with pytest.raises(PayloadError, match=reason) as caught:
        unpack([EMPTY, bytes.fromhex(payload)], 2, 8, -9, 9)
    assert caught.value.index == 1


def test_cells_that_are_not_listed_count_as_zero_against_the_bounds() -> None:
    with pytest.raises(PayloadError, match="leave 1 to 9"):
        unpack([EMPTY], 1, 4, 1, 9)
    with pytest.raises(PayloadError):
        pack(np.zeros((1, 1, 4), np.int32), 1, 9)


def test_negative_zero_of_a_result_is_written_as_zero() -> None:
    zeros = np.array([[0.0, -0.0]], np.float32)
    assert pack_result(zeros) == pack_result(np.abs(zeros))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_result_that_is_not_finite_is_neither_written_nor_read(value: float) -> None:
    values = np.array([[1.0, value]], np.float32)
    with pytest.raises(PayloadError, match="finite"):
        pack_result(values)
    damaged = pack_result(np.zeros((1, 2), np.float32))[:5] + values.tobytes()
    with pytest.raises(PayloadError, match="finite"):
        unpack_result(damaged)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(3, np.int32),
        np.zeros((1, 3)),
        np.zeros((1, 3), np.int64),
        np.zeros((1, 0), np.int32),
    ],
    ids=["axes", "float64", "int64", "no outputs"],
)
def test_array_that_is_no_result_is_refused(values: NDArray[Any]) -> None:
    with pytest.raises(PayloadError):
        pack_result(values)


@pytest.mark.parametrize(
    "payload",
    ["", "06", "0600000000", "060100000000", "0501000000", "07010000000000", "060100000000000080"],
)
def test_damaged_result_is_refused(payload: str) -> None:
    with pytest.raises(PayloadError):
        unpack_result(bytes.fromhex(payload))


@pytest.mark.parametrize("payload", ["", "06", "31", "33", "8500", "0f", "84", "84ff00"])
def test_activity_of_something_else_is_refused(payload: str) -> None:
    with pytest.raises(PayloadError):
        count_active(bytes.fromhex(payload))
