"""Arrays out of the bytes of a file: safetensors, .npz and .npy. Pure.

What such a file says of itself is compared with what it holds before anything is allocated: a
header may claim any shape, and an archive of kilobytes may unfold to terabytes.
"""

import io
import json
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from tokenize import TokenError
from typing import Any, ClassVar, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from topologies.errors import SpikeRouterError
from topologies.stages.base import Array

__all__ = ["ArraysError", "check_safetensors", "npy_array", "npz_arrays", "safetensors_arrays"]

_npy: Final[Any] = np.lib.format
_NUMPY: Final = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "F32", "F64")
_HEADER: Final = struct.Struct("<Q")
_LONGEST_HEADER: Final = 100_000_000  # bytes: the library's own limit
_LONGEST_NPY_HEADER: Final = 10_000  # bytes: NumPy's own limit
# NumPy reads a header as Python's own parser does, and lets pass what that raises.
_NO_HEADER: Final = (
    ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError, EOFError,
)  # fmt: skip
_MOST_MEMBERS: Final = 10_000
_UNFOLDS: Final = 1_100  # times: deflate reaches 1,032 on zeros
_MOST_UNFOLDED: Final = 4 * 1024**3  # bytes of an archive


class ArraysError(SpikeRouterError, ValueError):
    """Bytes are no file of arrays, or one whose header does not fit what it holds."""

    retryable: ClassVar[bool] = False


def safetensors_arrays(data: bytes) -> dict[str, Array]:
    """The arrays of a safetensors file, by name. Raises ArraysError."""
    check_safetensors(data, _NUMPY)
    try:
        arrays: dict[str, Array] = load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise ArraysError(f"it is no safetensors file: {error}") from error
    return arrays


def check_safetensors(data: bytes, dtypes: Collection[str] = ()) -> None:
    """Raises ArraysError for a header that is none, names an array twice, or another dtype.

    That offsets and shapes fit the data is left to the library, which refuses what does not.
    """
    if len(data) < _HEADER.size:
        raise ArraysError("it is no safetensors file: it ends within its header.")
    (length,) = _HEADER.unpack_from(data)
    if length > min(_LONGEST_HEADER, len(data) - _HEADER.size):
        raise ArraysError(
            f"it is no safetensors file: its header is said to have {length:,} bytes, but it has "
            f"{len(data):,} in all."
        )
    try:
        text = data[_HEADER.size : _HEADER.size + length].decode("utf-8")
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ArraysError(f"it is no safetensors file: its header is damaged ({error}).") from error
    if not isinstance(header, dict):
        raise ArraysError("it is no safetensors file: its header is no mapping.")
    for name, said in header.items():
        if name != "__metadata__":
            _check_entry(name, said, dtypes)


def _check_entry(name: str, said: object, dtypes: Collection[str]) -> None:
    dtype = said.get("dtype") if isinstance(said, Mapping) else None
    if not isinstance(dtype, str) or (dtypes and dtype not in dtypes):
        raise ArraysError(
            f"its array {name[:60]!r} has dtype {str(dtype)[:60]!r}: legal are {', '.join(dtypes)}."
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = Counter(name for name, _ in pairs)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{twice[:60]!r} stands twice")
    return dict(pairs)


def npz_arrays(data: bytes) -> dict[str, Array]:
    """The arrays of a .npz file, by name. Raises ArraysError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, len(data))
            return {
                member.filename.removesuffix(".npy"): npy_array(archive.read(member))
                for member in members
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ArraysError):
            raise
        raise ArraysError(f"it is no .npz file: {error}") from error


def _check_members(members: list[zipfile.ZipInfo], n_bytes: int) -> None:
    """`zipfile` reads no more of a member than it is said to have, so what is said is enough."""
    if len(members) > _MOST_MEMBERS:
        raise ArraysError(f"it holds {len(members):,} files: legal are {_MOST_MEMBERS:,}.")
    total = sum(member.file_size for member in members)
    most = min(_MOST_UNFOLDED, _UNFOLDS * n_bytes)
    if total > most:
        raise ArraysError(f"its {n_bytes:,} bytes unfold to {total:,}: legal are {most:,}.")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArraysError(f"{member.filename[:60]!r} is not stored or deflated, as NumPy does.")


def npy_array(data: bytes) -> Array:
    """The array of a .npy file; never of objects, which are pickles. Raises ArraysError."""
    file = io.BytesIO(data)
    try:
        is_first = _npy.read_magic(file) == (1, 0)
        read = _npy.read_array_header_1_0 if is_first else _npy.read_array_header_2_0
        shape, by_column, dtype = read(file, _LONGEST_NPY_HEADER)
    except _NO_HEADER as error:
        raise ArraysError(f"it is no .npy file: {error}") from error
    if dtype.kind not in "biuf":
        raise ArraysError(f"an array has dtype {str(dtype)[:60]}: legal are numbers.")
    count = _count(shape)
    if count * dtype.itemsize != len(data) - file.tell():
        raise ArraysError(
            f"an array of shape {str(shape)[:60]} and dtype {dtype} needs "
            f"{count * dtype.itemsize:,} bytes, but has {len(data) - file.tell():,}."
        )
    flat = np.frombuffer(data, dtype, count, file.tell())
    try:
        return flat.reshape(shape, order="F" if by_column else "C")
    except (ValueError, TypeError, OverflowError) as error:
        raise ArraysError(f"no array has the shape {str(shape)[:60]}: {error}") from error


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        if size < 0:
            raise ArraysError(f"no array has the shape {str(shape)[:60]}.")
        count *= size
    return count
