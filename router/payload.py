"""Payloads: the numbers of one window of one synapse group, in the smallest of a few encodings.

A window has T steps of n neurons; its cells are counted step by step, ``cell = t * n + neuron``.
The first byte tells the encoding (bits 0-3), the width of addresses (bits 4-5: u8, u16, u32) and
the type of values (bits 6-7: u8, u16, i16, i32); all that follows is little-endian.

== ==================  ======================================================================
0  empty               nothing: all cells are zero
1  addresses           the spiking cells, ascending
2  bitmap              one bit per cell, cell k is bit k % 8 of byte k // 8; the rest is zero
3  graded addresses    the cells that are not zero, ascending; then their values
4  graded bitmap       one bit per cell; then the values that are not zero
5  dense               all values
6  float result        u32 n, then K emissions of n float32, finite, without -0.0
7  integer result      u32 n, then K emissions of n i32
== ==================  ======================================================================

Encoding is canonical (NUMERICS 19): addresses and values take the narrowest width that holds the
window's last cell and the edge's bounds, whatever the content is; the smallest encoding wins, and
on a tie the first in the table. Decoding refuses everything else, so equal content and equal bytes
are the same thing. 0 to 2 carry spikes (bounds 0 and 1); 0 and 3 to 5 carry other integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from topologies.errors import SpikeRouterError

__all__ = [
    "EMPTY",
    "MAX_CELLS",
    "PayloadError",
    "check",
    "count_active",
    "pack",
    "pack_result",
    "unpack",
    "unpack_result",
    "unpack_steps",
]

EMPTY: Final = b"\0"
MAX_CELLS: Final = 2**32 - 1

_EMPTY, _ADDRESSES, _BITMAP, _GRADED_ADDRESSES, _GRADED_BITMAP, _DENSE = range(6)
_FLOATS, _INTEGERS = 6, 7
_ADDRESS_TYPES = tuple(np.dtype(code) for code in ("<u1", "<u2", "<u4"))
_VALUE_TYPES = tuple(np.dtype(code) for code in ("<u1", "<u2", "<i2", "<i4"))
_RESULT_TYPES = {_FLOATS: np.dtype("<f4"), _INTEGERS: np.dtype("<i4")}

Bytes = bytes | memoryview
Array = NDArray[Any]


class PayloadError(SpikeRouterError, ValueError):
    """A payload that is damaged or does not fit its edge, or values that no payload can hold."""

    retryable: ClassVar[bool] = False

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason if index is None else f"Payload {index}: {reason}")
        self.index = index
        """Which of the payloads (or of the rows on axis 0) is at fault; None: the call itself."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the shape and bounds of an edge fix, before any content is seen."""

    n_cells: int
    low: int
    high: int
    spikes: bool
    address_type: np.dtype[Any]
    value_type: np.dtype[Any]
    n_bitmap: int
    most_listed: int
    """With no more active cells than this, addresses are the smallest; or else,"""
    most_mapped: int
    """with no more than this, a bitmap is; or else, dense."""
    heads: tuple[int, ...]
    """First byte of empty, addresses, bitmap, and of dense values that are no spikes."""

    def choice(self, counts: Array) -> Array:
        """Which of `heads` is canonical for each of `counts` of active cells; int64."""
        listed = counts > self.most_listed
        return (counts > 0) + listed.astype(np.int64) + (listed & (counts > self.most_mapped))


@lru_cache(maxsize=1024)
def _layout(n_steps: int, n: int, low: int, high: int) -> _Layout:
    n_cells = n_steps * n
    if n_steps < 0 or n < 1 or n_cells > MAX_CELLS:
        raise PayloadError(f"A window of {n_steps} steps of {n} neurons is not legal.")
    if low > high or low < -(2**31) or high >= 2**31:
        raise PayloadError(f"The bounds {low} to {high} are not legal: use -2**31 to 2**31 - 1.")
    spikes = low == 0 and high <= 1
    if low >= 0 and high <= 0xFFFF:
        value = 0 if high <= 0xFF else 1
    else:
        value = 2 if low >= -(2**15) and high < 2**15 else 3
    address = 0 if n_cells <= 2**8 else 1 if n_cells <= 2**16 else 2
    a, b = _ADDRESS_TYPES[address].itemsize, -(-n_cells // 8)
    v = _VALUE_TYPES[value].itemsize
    most_listed = b // a if spikes else min(b // a, n_cells * v // (a + v))
    codes = (
        (_EMPTY, _ADDRESSES | address << 4, _BITMAP)
        if spikes
        else (
            _EMPTY,
            _GRADED_ADDRESSES | address << 4 | value << 6,
            _GRADED_BITMAP | value << 6,
            _DENSE | value << 6,
        )
    )
    return _Layout(
        n_cells=n_cells,
        low=low,
        high=high,
        spikes=spikes,
        address_type=_ADDRESS_TYPES[address],
        value_type=_VALUE_TYPES[value],
        n_bitmap=b,
        most_listed=most_listed,
        most_mapped=n_cells if spikes else n_cells - -(-b // v),
        heads=codes,
    )


# Windows


def pack(values: NDArray[Any], low: int, high: int) -> list[bytes]:
    """The payloads of B windows.

    `values` has shape (B, T, n), bool or integer, each from `low` to `high`, the bounds of the
    edge; bounds of 0 and 1 mean spikes. Raises PayloadError, with the row as `index` where one row
    is at fault.
    """
    if values.ndim != 3 or values.dtype.kind not in "biu":
        raise PayloadError(
            f"Values of shape {values.shape} and dtype {values.dtype} have no payload: "
            "use integers of shape (streams, steps, neurons)."
        )
    n_rows, n_steps, n = values.shape
    layout = _layout(n_steps, n, low, high)
    if not n_rows or not layout.n_cells:
        return [EMPTY] * n_rows
    cells = np.ascontiguousarray(values).reshape(n_rows, layout.n_cells)
    _check_bounds(cells, layout)
    active = cells if cells.dtype == np.bool_ or cells.dtype == np.uint8 else cells != 0
    bits = np.packbits(active, axis=1, bitorder="little")
    choice = layout.choice(_popcount(bits))
    payloads = [EMPTY] * n_rows
    forms = set(choice.tolist())
    if len(forms) == 1:
        return _WRITERS[forms.pop()](cells, bits, layout)
    for form in forms - {_EMPTY}:
        rows = np.flatnonzero(choice == form)
        some = cells if layout.spikes else cells[rows]  # spikes are written from their bits
        packed = _WRITERS[form](some, bits[rows], layout)
        for row, payload in zip(rows.tolist(), packed, strict=True):
            payloads[row] = payload
    return payloads


def unpack(
    payloads: Sequence[Bytes], n_steps: int, n: int, low: int, high: int
) -> NDArray[np.uint8] | NDArray[np.int16] | NDArray[np.int32]:
    """The inverse of `pack`: shape (len(payloads), n_steps, n), writable.

    Spikes are uint8; other values int16 if the bounds fit, else int32. Raises PayloadError with
    the payload's place as `index`.
    """
    layout = _layout(n_steps, n, low, high)
    if not all(payloads):
        index = next(i for i, payload in enumerate(payloads) if not len(payload))
        raise PayloadError("it has no bytes; an empty window has one, 0.", index)
    heads = [payload[0] for payload in payloads]
    kinds = set(heads)
    shape = (len(payloads), n_steps, n)
    if len(kinds) == 1:
        return _read(payloads, range(len(payloads)), heads[0], layout).reshape(shape)
    cells = np.zeros((len(payloads), layout.n_cells), _type_in_memory(layout))
    for kind in kinds:
        rows = [row for row, head in enumerate(heads) if head == kind]
        cells[rows] = _read([payloads[row] for row in rows], rows, kind, layout)
    return cells.reshape(shape)


def unpack_steps(
    payload: Bytes, n_steps: int, n: int, low: int, high: int, start: int, stop: int
) -> NDArray[np.uint8] | NDArray[np.int16] | NDArray[np.int32]:
    """Steps `[start, stop)` of a payload that `check` has passed: what `unpack` gives for them.

    Shape (stop - start, n), writable. It costs what these steps cost, however long the payload is.
    """
    layout = _layout(n_steps, n, low, high)
    read = _STEP_READERS[layout.heads.index(payload[0])]
    return read(payload, start * n, stop * n, layout).reshape(stop - start, n)


def check(payload: Bytes, n_steps: int, n: int, low: int, high: int) -> None:
    """Raises PayloadError where `unpack([payload], ...)` does.

    Spikes are judged without unpacking them, which is ten times faster for one payload.
    """
    layout = _layout(n_steps, n, low, high)
    if not (layout.spikes and high and (_is_bitmap(payload, layout) or _is_list(payload, layout))):
        unpack([payload], n_steps, n, low, high)


def _is_bitmap(payload: Bytes, layout: _Layout) -> bool:
    """Whether it is surely the canonical bitmap of some spikes."""
    if len(payload) != layout.n_bitmap + 1 or payload[0] != layout.heads[2]:
        return False
    rest = layout.n_cells % 8
    n_active = int.from_bytes(payload[1:], "little").bit_count()
    return n_active > layout.most_listed and not (rest and payload[-1] >> rest)


def _is_list(payload: Bytes, layout: _Layout) -> bool:
    """Whether it is surely the canonical list of some spikes."""
    count, rest = divmod(len(payload) - 1, layout.address_type.itemsize)
    if rest or not 0 < count <= layout.most_listed or payload[0] != layout.heads[1]:
        return False
    cells = np.frombuffer(payload, layout.address_type, offset=1)
    return bool(cells[-1] < layout.n_cells and (cells[1:] > cells[:-1]).all())


def count_active(payload: Bytes) -> int:
    """The number of cells that are not zero, without knowing the edge; raises PayloadError.

    It costs no more than the bytes at hand, and checks no more than it needs.
    """
    if not len(payload):
        raise PayloadError("The payload has no bytes; an empty window has one, 0.")
    form, address, value = payload[0] & 15, payload[0] >> 4 & 3, payload[0] >> 6
    body = np.frombuffer(payload, np.uint8, offset=1) if len(payload) > 1 else np.empty(0, np.uint8)
    width = _VALUE_TYPES[value].itemsize
    if form == _EMPTY:
        return 0
    if form in (_ADDRESSES, _GRADED_ADDRESSES) and address < len(_ADDRESS_TYPES):
        cell = _ADDRESS_TYPES[address].itemsize + (width if form == _GRADED_ADDRESSES else 0)
        return body.size // cell
    if form == _BITMAP:
        return int(np.bitwise_count(body).sum(dtype=np.int64))
    if form == _GRADED_BITMAP:
        # Grows with each byte that would be of the bitmap: one place at most fits the length.
        ends = (
            np.arange(1, body.size + 1) + np.cumsum(np.bitwise_count(body), dtype=np.int64) * width
        )
        n_bitmap = int(np.searchsorted(ends, body.size)) + 1
        if n_bitmap <= body.size and ends[n_bitmap - 1] == body.size:
            return (body.size - n_bitmap) // width
    if form == _DENSE and body.size % width == 0:
        return int(np.count_nonzero(body.view(_VALUE_TYPES[value])))
    raise PayloadError(
        f"The payload's first byte {payload[0]:#04x} does not tell its active cells."
    )


def _type_in_memory(layout: _Layout) -> np.dtype[Any]:
    if layout.spikes:
        return np.dtype(np.uint8)
    return np.dtype(np.int16 if layout.low >= -(2**15) and layout.high < 2**15 else np.int32)


def _check_bounds(cells: Array, layout: _Layout) -> None:
    """Refuse values beyond the bounds; `cells` has rows on axis 0."""
    if not cells.size or (cells.dtype == np.bool_ and layout.low <= 0 and layout.high >= 1):
        return
    if layout.low <= int(cells.min()) and int(cells.max()) <= layout.high:
        return
    row = int(np.argmax(((cells < layout.low) | (cells > layout.high)).any(axis=1)))
    raise PayloadError(
        f"it has values from {int(cells[row].min())} to {int(cells[row].max())}; "
        f"the edge is bounded by {layout.low} and {layout.high}.",
        row,
    )


def _popcount(bits: Array) -> Array:
    """Ones in each row of a uint8 array; shape (rows,), int64."""
    words = bits.view(np.uint64) if bits.shape[1] % 8 == 0 and bits.flags.c_contiguous else bits
    counts: Array = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    return counts


def _pieces(blob: bytes, counts: Array, width: int) -> list[bytes]:
    """`blob` cut into runs of `counts` items of `width` bytes."""
    edges = [0, *(np.cumsum(counts) * width).tolist()]
    return [blob[a:b] for a, b in pairwise(edges)]


def _write_empty(cells: Array, bits: Array, layout: _Layout) -> list[bytes]:
    return [EMPTY] * len(bits)


def _write_addresses(cells: Array, bits: Array, layout: _Layout) -> list[bytes]:
    counts = _popcount(bits)
    base = np.repeat(np.arange(len(bits)) * (8 * layout.n_bitmap), counts)
    places = _ones(bits) - base
    head = bytes([layout.heads[1]])
    blob = places.astype(layout.address_type).tobytes()
    pieces = _pieces(blob, counts, layout.address_type.itemsize)
    if layout.spikes:
        return [head + piece for piece in pieces]
    flat = places + np.repeat(np.arange(len(cells)) * layout.n_cells, counts)
    values = cells.reshape(-1)[flat].astype(layout.value_type)
    graded = _pieces(values.tobytes(), counts, layout.value_type.itemsize)
    return [head + piece + value for piece, value in zip(pieces, graded, strict=True)]


def _ones(bits: Array) -> Array:
    """Where the ones stand in a bitmap of bytes, lowest bit first; int64, ascending.

    Looking only into bytes that are not zero is faster than `np.flatnonzero` of the cells, below
    one spike in ten.
    """
    flat = bits.reshape(-1)
    used = np.flatnonzero(flat != 0)
    places = np.flatnonzero(np.unpackbits(flat[used], bitorder="little").view(np.bool_))
    ones: Array = (used[places >> 3] << 3) + (places & 7)
    return ones


def _write_bitmap(cells: Array, bits: Array, layout: _Layout) -> list[bytes]:
    pieces = _with_head(bits, layout.heads[2])
    if layout.spikes:
        return pieces
    values = cells[cells != 0].astype(layout.value_type)
    graded = _pieces(values.tobytes(), _popcount(bits), layout.value_type.itemsize)
    return [piece + value for piece, value in zip(pieces, graded, strict=True)]


def _write_dense(cells: Array, bits: Array, layout: _Layout) -> list[bytes]:
    return _with_head(cells.astype(layout.value_type).view(np.uint8), layout.heads[3])


_WRITERS = (_write_empty, _write_addresses, _write_bitmap, _write_dense)


def _with_head(body: Array, head: int) -> list[bytes]:
    """The rows of a uint8 array, each behind the byte `head`."""
    whole = np.empty((body.shape[0], body.shape[1] + 1), np.uint8)
    whole[:, 0] = head
    whole[:, 1:] = body
    blob = whole.tobytes()
    return [blob[at : at + whole.shape[1]] for at in range(0, len(blob), whole.shape[1])]


def _read(payloads: Sequence[Bytes], rows: Sequence[int], head: int, layout: _Layout) -> Array:
    """Payloads with one first byte as cells, shape (len(payloads), n_cells); `rows` names them."""
    if head not in layout.heads:
        raise PayloadError(
            f"its first byte {head:#04x} is not that of an edge of {layout.n_cells} cells bounded "
            f"by {layout.low} and {layout.high}.",
            rows[0] if rows else None,
        )
    form = layout.heads.index(head)
    cells, counts = _READERS[form](payloads, rows, layout)
    _refuse(layout.choice(counts) != form, rows, "another encoding of it is the canonical one.")
    if layout.low > 0 or layout.high < 0:  # the cells that are not listed are zero
        _check_read(cells, rows, layout)
    return cells


def _refuse(bad: Any, rows: Sequence[int], reason: str) -> None:
    """Raise for the first row that `bad` (bool, one per row) marks."""
    if bad.any():
        raise PayloadError(reason, rows[int(np.argmax(bad))])


def _check_read(cells: Array, rows: Sequence[int], layout: _Layout) -> None:
    """Refuse values that were read and are beyond the bounds; shape (rows, cells)."""
    if cells.size and not layout.low <= int(cells.min()) <= int(cells.max()) <= layout.high:
        beyond = (cells < layout.low) | (cells > layout.high)
        _refuse(beyond.any(axis=1), rows, f"its values leave {layout.low} to {layout.high}.")


def _matrix(
    payloads: Sequence[Bytes], rows: Sequence[int], n_bytes: int, exactly: bool = True
) -> Array:
    """Payloads of 1 + n_bytes bytes (or their beginnings) without the first, (rows, n_bytes)."""
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    wrong = lengths != n_bytes + 1 if exactly else lengths < n_bytes + 1
    _refuse(wrong, rows, f"its length is wrong: {n_bytes + 1} bytes are due.")
    parts = payloads if exactly else [payload[: n_bytes + 1] for payload in payloads]
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, n_bytes + 1)[:, 1:]


def _read_empty(
    payloads: Sequence[Bytes], rows: Sequence[int], layout: _Layout
) -> tuple[Array, Array]:
    _matrix(payloads, rows, 0)
    shape = (len(payloads), layout.n_cells)
    return np.zeros(shape, _type_in_memory(layout)), np.zeros(len(payloads), np.int64)


def _read_addresses(
    payloads: Sequence[Bytes], rows: Sequence[int], layout: _Layout
) -> tuple[Array, Array]:
    width = layout.address_type.itemsize
    cell = width if layout.spikes else width + layout.value_type.itemsize
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads)) - 1
    _refuse(lengths % cell != 0, rows, f"its length is no multiple of {cell} bytes per cell.")
    counts = lengths // cell
    _refuse(counts == 0, rows, "it lists no cell.")
    _refuse(counts > layout.n_cells, rows, f"it lists more than {layout.n_cells} cells.")
    stops = (counts * width + 1).tolist()
    blob = b"".join([payload[1:stop] for payload, stop in zip(payloads, stops, strict=True)])
    addresses = np.frombuffer(blob, layout.address_type)
    beyond = addresses >= layout.n_cells
    _refuse_cells(beyond, counts, rows, "it lists a cell beyond the last one.")
    flat = np.repeat(np.arange(len(payloads)) * layout.n_cells, counts)
    flat += addresses
    _refuse_cells(flat[1:] <= flat[:-1], counts, rows, "its cells do not ascend.", first=1)
    cells = np.zeros(len(payloads) * layout.n_cells, _type_in_memory(layout))
    if layout.spikes:
        cells[flat] = 1
    else:
        parts = [payload[stop:] for payload, stop in zip(payloads, stops, strict=True)]
        cells[flat] = _listed_values(b"".join(parts), counts, rows, layout)
    return cells.reshape(len(payloads), layout.n_cells), counts


def _refuse_cells(
    bad: Array, counts: Array, rows: Sequence[int], reason: str, first: int = 0
) -> None:
    """Raise for the row of the first cell that `bad` marks, which begins with cell `first`."""
    if bad.any():
        cell = first + int(np.argmax(bad))
        raise PayloadError(reason, rows[int(np.searchsorted(np.cumsum(counts), cell, "right"))])


def _listed_values(blob: bytes, counts: Array, rows: Sequence[int], layout: _Layout) -> Array:
    """The values of active cells, checked before they are put into the type of the memory."""
    values = np.frombuffer(blob, layout.value_type)
    _refuse_cells(values == 0, counts, rows, "it lists a zero.")
    beyond = (values < layout.low) | (values > layout.high)
    _refuse_cells(beyond, counts, rows, f"its values leave {layout.low} to {layout.high}.")
    return values


def _read_bitmap(
    payloads: Sequence[Bytes], rows: Sequence[int], layout: _Layout
) -> tuple[Array, Array]:
    bits = np.ascontiguousarray(_matrix(payloads, rows, layout.n_bitmap, exactly=layout.spikes))
    rest = layout.n_cells % 8
    if rest:
        _refuse(bits[:, -1] >> rest != 0, rows, "its bitmap has bits beyond the last cell.")
    counts = _popcount(bits)
    cells = np.unpackbits(bits, axis=1, count=layout.n_cells, bitorder="little")
    if layout.spikes:
        return cells, counts
    start = layout.n_bitmap + 1
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    due = start + counts * layout.value_type.itemsize
    _refuse(lengths != due, rows, "its length is not that of a value for each bit.")
    blob = b"".join([payload[start:] for payload in payloads])
    graded = np.zeros(cells.shape, _type_in_memory(layout))
    graded[cells.view(np.bool_)] = _listed_values(blob, counts, rows, layout)
    return graded, counts


def _read_dense(
    payloads: Sequence[Bytes], rows: Sequence[int], layout: _Layout
) -> tuple[Array, Array]:
    n_bytes = layout.n_cells * layout.value_type.itemsize
    body = np.ascontiguousarray(_matrix(payloads, rows, n_bytes))
    values = body.view(layout.value_type).reshape(len(payloads), layout.n_cells)
    _check_read(values, rows, layout)
    cells = values.astype(_type_in_memory(layout))
    return cells, np.count_nonzero(cells, axis=1).astype(np.int64)


_READERS = (_read_empty, _read_addresses, _read_bitmap, _read_dense)


# Some cells of one payload that was checked before


def _some_of_none(payload: Bytes, first: int, last: int, layout: _Layout) -> Array:
    return np.zeros(last - first, _type_in_memory(layout))


def _some_listed(payload: Bytes, first: int, last: int, layout: _Layout) -> Array:
    width = layout.address_type.itemsize
    cell = width if layout.spikes else width + layout.value_type.itemsize
    listed = np.frombuffer(payload, layout.address_type, (len(payload) - 1) // cell, offset=1)
    lo, hi = np.searchsorted(listed, np.array((first, last), np.int64)).tolist()
    values = 1 if layout.spikes else _values(payload, 1 + listed.nbytes, lo, hi, layout)
    cells = np.zeros(last - first, _type_in_memory(layout))
    cells[listed[lo:hi].astype(np.int64) - first] = values
    return cells


def _some_mapped(payload: Bytes, first: int, last: int, layout: _Layout) -> Array:
    bitmap = np.frombuffer(payload, np.uint8, layout.n_bitmap, offset=1)
    skipped = bitmap[: first // 8]
    bits = np.unpackbits(bitmap[first // 8 : -(-last // 8)], bitorder="little")
    before, active = np.split(bits[: last - 8 * skipped.size], [first % 8])
    if layout.spikes:
        return active
    lo = int(_popcount(skipped[None])[0]) + int(before.sum())
    hi = lo + int(active.sum())
    cells = np.zeros(last - first, _type_in_memory(layout))
    cells[active.view(np.bool_)] = _values(payload, 1 + layout.n_bitmap, lo, hi, layout)
    return cells


def _some_dense(payload: Bytes, first: int, last: int, layout: _Layout) -> Array:
    return _values(payload, 1, first, last, layout).astype(_type_in_memory(layout))


def _values(payload: Bytes, offset: int, lo: int, hi: int, layout: _Layout) -> Array:
    """Values lo to hi of those that lie in the payload from `offset` on."""
    width = layout.value_type.itemsize
    return np.frombuffer(payload, layout.value_type, hi - lo, offset=offset + lo * width)


_STEP_READERS = (_some_of_none, _some_listed, _some_mapped, _some_dense)


# Results


def pack_result(values: NDArray[Any]) -> bytes:
    """The payload of a readout's emissions in one window.

    `values` has shape (K, n), int32 or float32; -0.0 is written as +0.0. Raises PayloadError for
    another type or shape, and for NaN and infinity.
    """
    code = {"f": _FLOATS, "i": _INTEGERS}.get(values.dtype.kind)
    if values.ndim != 2 or not values.shape[1] or code is None or values.dtype.itemsize != 4:
        raise PayloadError(
            f"A result of shape {values.shape} and dtype {values.dtype} has no payload: "
            "use int32 or float32 of shape (emissions, outputs)."
        )
    if code == _FLOATS:
        if not np.isfinite(values).all():
            raise PayloadError("A result has values that are not finite.")
        values = values + np.float32(0.0)
    body = np.ascontiguousarray(values, _RESULT_TYPES[code]).tobytes()
    return bytes([code]) + int(values.shape[1]).to_bytes(4, "little") + body


def unpack_result(payload: Bytes) -> NDArray[np.int32] | NDArray[np.float32]:
    """The inverse of `pack_result`: shape (K, n), read-only; raises PayloadError."""
    if len(payload) < 5 or payload[0] not in _RESULT_TYPES:
        raise PayloadError("The payload is not a result: it begins with 6 or 7 and has 5 bytes.")
    n = int.from_bytes(payload[1:5], "little")
    if not n or (len(payload) - 5) % (4 * n):
        raise PayloadError(f"The result has {len(payload) - 5} bytes for emissions of {n} values.")
    values = np.frombuffer(payload, _RESULT_TYPES[payload[0]], offset=5).reshape(-1, n)
    if payload[0] == _FLOATS:
        if not np.isfinite(values).all() or (values.view("<u4") == 0x80000000).any():
            raise PayloadError("The result has a value that is -0.0 or not finite.")
        return values.astype(np.float32, copy=False)
    return values.astype(np.int32, copy=False)
