"""Files of arrays whose headers lie."""

import io
import json
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from topologies.arrays import ArraysError, npy_array, npz_arrays, safetensors_arrays


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, which may be a text, and may lie about its own length."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], lo: int, hi: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [lo, hi]}


LIES = {
    "no header": b"",
    "half a length": b"\x01\x00",
    "header of 2**60 bytes": safetensors({}, length=2**60),
    "header beyond the end": safetensors({}, length=3),
    "header of no JSON": safetensors("{'a': 1}"),
    "header of no text": struct.pack("<Q", 2) + b"\xff\xfe",
    "header that is a list": safetensors([1]),
    "header nested without end": safetensors("[" * 100_000),
    "entry that is a number": safetensors({"a": 1}),
    "entry without offsets": safetensors({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
    "data beyond the end": safetensors({"a": entry([2], 0, 8)}, b"1234"),
    "data that overlap": safetensors({"a": entry([1], 0, 4), "b": entry([1], 2, 6)}, b"123456"),
    "data with a hole": safetensors({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"1" * 12),
    "data that end before they begin": safetensors({"a": entry([1], 4, 0)}, b"1234"),
    "offsets below 0": safetensors({"a": entry([1], -4, 0)}, b"1234"),
    "offsets of 2**64": safetensors({"a": entry([1], 2**64, 2**64 + 4)}, b"1234"),
    "shape that claims more": safetensors({"a": entry([1000], 0, 4)}, b"1234"),
    "shape that overflows": safetensors({"a": entry([2**32, 2**32, 4], 0, 4)}, b"1234"),
    "shape of a negative size": safetensors({"a": entry([-1], 0, 4)}, b"1234"),
    "shape of 100 axes": safetensors({"a": entry([1] * 100, 0, 4)}, b"1234"),
    "dtype that there is not": safetensors({"a": entry([1], 0, 4, "F31")}, b"1234"),
    "dtype that NumPy has not": safetensors({"a": entry([2], 0, 4, "BF16")}, b"1234"),
    "dtype that is a list": safetensors(
        {"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, b"1234"
    ),
    "name that stands twice": safetensors(
        '{"a": %s, "a": %s}' % ((json.dumps(entry([1], 0, 4)),) * 2), b"1234"
    ),
    "bytes behind the data": safetensors({"a": entry([1], 0, 4)}, b"1234567"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_safetensors_whose_header_lies_is_refused_with_a_sentence(lie: str) -> None:
    with pytest.raises(ArraysError):
        safetensors_arrays(LIES[lie])


def test_safetensors_of_every_numeric_dtype_is_read() -> None:
    wanted = {name: np.ones((2, 3), name) for name in ("?", "u1", "i8", "f2", "f4", "f8")}
    found = safetensors_arrays(save(wanted))
    assert {name: array.dtype for name, array in found.items()} == {
        name: array.dtype for name, array in wanted.items()
    }
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_empty_array_of_safetensors_is_read() -> None:
    assert safetensors_arrays(save({"a": np.zeros((0, 5), np.float32)}))["a"].shape == (0, 5)


def test_damaged_safetensors_is_refused_or_read_and_nothing_else() -> None:
    whole = save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2)})
    rng = np.random.default_rng(3)
    for _ in range(2000):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 2):
            data[at] ^= 1 << int(rng.integers(0, 8))
        try:
            safetensors_arrays(bytes(data[: rng.integers(0, len(data) + 1)]))
        except ArraysError:
            continue


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [np.arange(12).reshape(3, 4), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.float32(3),
     np.zeros((0, 2))],
)  # fmt: skip
def test_npy_is_read_as_it_was_written(array: Any) -> None:
    found = npy_array(npy(array))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def header(shape: str, dtype: str = "'<f4'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00", npy(np.arange(9))[:-1], npy(np.arange(9)) + b"1",
     npy(np.array([{}], object)), npy(np.array(["a"])), npy(np.zeros(2, [("a", "f4")])),
     header("(1000000000000,)"), header("(2, -2)") + b"1" * 16, header("(1,) * 9"),
     header("(" * 500), header("(True, 1)", "'|O'"), header("(4,)", "'<f99'"),
     header(f"({'1,' * 100})") + b"1234"],
)  # fmt: skip
def test_npy_that_lies_or_is_a_pickle_is_refused(data: bytes) -> None:
    with pytest.raises(ArraysError):
        npy_array(data)


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def test_npz_is_read_as_it_was_written() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.arange(6).reshape(2, 3), labels=np.arange(2))
    found = npz_arrays(file.getvalue())
    assert sorted(found) == ["images", "labels"]
    assert np.array_equal(found["images"], np.arange(6).reshape(2, 3))


def test_archive_that_unfolds_without_end_is_refused_before_it_does() -> None:
    inner = npz(a=npy(np.zeros(3_000_000, np.uint8)))
    bomb = npz(**{f"a{n}": npy(np.zeros(3_000_000, np.uint8)) for n in range(3)})
    assert npz_arrays(inner)["a"].nbytes == 3_000_000
    forged = bomb.replace(
        struct.pack("<I", len(npy(np.zeros(3_000_000, np.uint8)))), struct.pack("<I", 2**32 - 2)
    )
    assert forged != bomb
    tracemalloc.start()
    with pytest.raises(ArraysError, match="unfold to"):
        npz_arrays(forged)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", npz(a=b"no array"), npz(a=npy([{}]))])
def test_npz_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ArraysError):
        npz_arrays(data)


def test_damaged_npz_is_refused_or_read_and_nothing_else() -> None:
    whole = npz(a=npy(np.arange(40)), b=npy(np.zeros(500)))
    rng = np.random.default_rng(4)
    for _ in range(2000):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] ^= 1 << int(rng.integers(0, 8))
        try:
            npz_arrays(bytes(data[: rng.integers(0, len(data) + 1)] if at % 3 == 0 else data))
        except ArraysError:
            continue
