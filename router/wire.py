"""Frames: the records that carry the spike batches of many streams between tasks.

A frame is one msgpack array whose second byte is the version. What differs from batch to batch
stands in columns of little-endian unsigned integers, what repeats (nodes, routes, eras) in tables,
and all payloads in one run of bytes, so that a frame of 256 batches costs a dozen objects to parse
and not thousands. `docs/wire-format.md` has it byte by byte.

A frame ends with the CRC-32 of all before it, so that damage is noticed whatever it hits. That is
version 2; version 1, without one, is read still.

Encoding is canonical: equal frames give equal bytes. Decoding accepts nothing else than what
encoding writes, but for the width of msgpack's own headers, and raises a WireError for the rest;
it allocates nothing before the bytes for it are seen to be there. It judges each batch alone: gaps,
duplicates and order between batches are the receiving task's to judge (PROTOCOL rules 7 to 9).
"""

import struct
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from operator import add, gt, index, sub
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast

import msgpack

from router.topics import NAME, OPERATOR
from topologies.batches import (
    ERROR_BYTES,
    HEAD_BYTES,
    LARGEST_RECORD,
    NAME_BYTES,
    ROW_BYTES,
    route_bytes,
)
from topologies.errors import SpikeRouterError
from topologies.names import LEGAL_NAMES

__all__ = [
    "ERROR_BYTES",
    "FRAME_BYTES",
    "MAX_BATCHES",
    "NAME_BYTES",
    "VERSION",
    "Batch",
    "Damaged",
    "Frame",
    "Kind",
    "Malformed",
    "Oversized",
    "StreamId",
    "Truncated",
    "UnknownVersion",
    "WireError",
    "clip_text",
    "decode_frame",
    "encode_frame",
    "encode_frames",
]

VERSION: Final = 2
_UNCHECKED: Final = 1  # the version without a CRC-32, which is read and not written
_CRC_BYTES: Final = 4
MAX_BATCHES: Final = (
    4096  # batches in a frame; bounds what a short frame of constants can unfold to
)
FRAME_BYTES: Final = LARGEST_RECORD  # where `encode_frames` splits

_U32 = 2**32 - 1
_U64 = 2**64 - 1
_N_FIELDS = 11
_N_COLUMNS = 12
_WIDTHS = ((0xFF, 1, "B"), (0xFFFF, 2, "H"), (_U32, 4, "I"), (_U64, 8, "Q"))
_CODES = {width: (code, 0 if width == 1 else 2 ** (4 * width)) for _, width, code in _WIDTHS}
_NO_BATCH = (0, b"", "", b"", [0] * _N_COLUMNS, b"", b"", ())
_NO_TEXT = (b"", (0,))
_pack = cast(Any, msgpack.Packer().pack)  # made once: making it takes as long as packing
_pack_era = struct.Struct("<Q").pack
_END = 4  # flags: bits 0 and 1 are the kind, bit 2 the end of the stream

T = TypeVar("T", bound=Hashable)


class WireError(SpikeRouterError, ValueError):
    """Bytes that are not a frame, or a frame that cannot be written."""

    retryable: ClassVar[bool] = False


class UnknownVersion(WireError):
    """A frame of a version that this program does not read."""


class Damaged(WireError):
    """A frame whose bytes were changed, or cut off, after it was written."""


class Truncated(WireError):
    """A frame that ends before its contents do."""


class Malformed(WireError):
    """A frame whose contents contradict the format; the text names the field."""


class Oversized(WireError):
    """A batch or frame beyond a limit of the format."""


class StreamId(NamedTuple):
    """A stream within its input and partition; both are u64. A greater era supersedes a lesser."""

    era: int
    number: int


class Kind(IntEnum):
    """What a batch says."""

    SPIKES = 0
    ABORT = 1
    KILL = 2
    ERA = 3


class Batch(NamedTuple):
    """What one synapse group says of one stream and one window of steps [start, stop).

    Equal batches are equal tuples; a payload compares equal as bytes or as a memoryview. A payload
    that was decoded is a view that keeps the payloads of its whole frame alive: take `bytes` of it
    before keeping it for long.
    """

    node: str
    """The source node, 32 hex digits."""
    stream: StreamId
    name: str
    """The stream's label, at most NAME_BYTES in UTF-8."""
    networks: tuple[str, ...]
    """The networks that the stream is routed to."""
    seed: int
    """The stream's seed, u64."""
    window: int
    """u64."""
    start: int
    """u64, in steps."""
    stop: int
    """u64, in steps; at most 2**32 - 1 beyond `start`, equal to it in a window without steps."""
    kind: Kind = Kind.SPIKES
    end: bool = False
    """Whether the stream ends with this window."""
    payload: bytes | memoryview = b""
    """SPIKES: see `router.payload`; otherwise empty."""
    error: str = ""
    """ABORT and KILL: a sentence, cut to ERROR_BYTES in UTF-8 on encoding; otherwise empty."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The batches that one synapse group (slice `group` of an operator) sends in one record."""

    operator: str
    group: int
    batches: list[Batch]


def clip_text(text: str, n_bytes: int = ERROR_BYTES) -> str:
    """`text`, changed only as far as it must be to be UTF-8 of at most `n_bytes` bytes."""
    return text.encode("utf-8", "replace")[:n_bytes].decode("utf-8", "ignore")


# Writing


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame, the same for equal frames; raises WireError when it has none."""
    try:
        *fields, payloads = _fields(frame)
        head = _pack([*fields, None])
        # The payloads are most of the bytes: copy them once, after the header of a bin.
        n_bytes = sum(map(len, payloads))
        data = b"".join((head[:-1], _bin_header(n_bytes), *payloads))
    except WireError:
        raise
    except (
        TypeError,
        ValueError,
        LookupError,
        OverflowError,
        AttributeError,
        struct.error,
    ) as error:
        raise Malformed(f"The frame has a field of a wrong type or size: {error}.") from error
    if len(data) != len(head) - 1 + len(_bin_header(n_bytes)) + n_bytes:
        raise Malformed("A payload is a view of something wider than bytes.")
    return data + zlib.crc32(data).to_bytes(_CRC_BYTES, "little")


def encode_frames(frame: Frame, limit: int = FRAME_BYTES) -> list[bytes]:
    """A frame as the fewest records, in order, that are surely within `limit` bytes each.

    Raises Oversized when a batch does not fit alone: the compiler keeps the worst one below the
    limit (PROTOCOL rule 12).
    """
    runs: list[list[Batch]] = []
    room = 0
    for batch in frame.batches:
        size = _size(batch)
        if size > limit - HEAD_BYTES:
            raise Oversized(
                f"Window {batch.window} of stream {batch.name[:NAME_BYTES]!r} takes up to {size} "
                f"bytes, more than the {limit} of a frame: compile for shorter windows or more "
                "groups."
            )
        if size > room or len(runs[-1]) == MAX_BATCHES:
            runs.append([])
            room = limit - HEAD_BYTES
        runs[-1].append(batch)
        room -= size
    if len(runs) == 1:
        return [encode_frame(frame)]
    return [encode_frame(Frame(frame.operator, frame.group, run)) for run in runs]


def _size(batch: Batch) -> int:
    """The most bytes that a batch can add to a frame."""
    name = batch.name
    n_name = len(name) if name.isascii() else len(name.encode("utf-8", "replace"))
    texts = n_name + min(4 * len(batch.error), ERROR_BYTES) + route_bytes(batch.networks)
    return ROW_BYTES + texts + len(batch.payload)


def _bin_header(n_bytes: int) -> bytes:
    """msgpack's header of a bin, the narrowest."""
    if n_bytes <= 0xFF:
        return struct.pack(">BB", 0xC4, n_bytes)
    if n_bytes <= 0xFFFF:
        return struct.pack(">BH", 0xC5, n_bytes)
    return struct.pack(">BI", 0xC6, n_bytes)


def _fields(frame: Frame) -> list[Any]:
    """The values of the envelope, in their order; the last is the sequence of the payloads."""
    n = len(frame.batches)
    if n > MAX_BATCHES:
        raise Oversized(f"The frame has {n} batches; the most is {MAX_BATCHES}: split it.")
    head: list[object] = [VERSION, _id_bytes(frame.operator), _checked(frame.group, _U32, "group")]
    if n < 2:
        return [*head, 1, *_lone(frame.batches[0])] if n else [*head, *_NO_BATCH]
    (node, stream, name, networks, seed, window, start, stop, kind, end, payload, error) = zip(
        *frame.batches, strict=True
    )
    era, number = zip(*stream, strict=True)
    nodes, node_index = _table(node)
    routes, route_index = _table(networks)
    eras, era_index = _table(era)
    names, name_lengths = _texts(name, NAME_BYTES, "name")
    if any(error):
        error = tuple(map(clip_text, error))  # to fail to say what failed would be worse
    errors, error_lengths = _texts(error, ERROR_BYTES, "error")
    payload_lengths = list(map(len, payload))
    flags = [_FLAGS[pair] for pair in zip(kind, end, strict=True)]
    _check_kinds(flags, payload_lengths, error_lengths)
    steps = (
        [stop[0] - start[0]] * n if _same(start) and _same(stop) else list(map(sub, stop, start))
    )
    _checked(max(stop), _U64, "stop")
    columns = (
        _column(node_index, _U32, "node"),
        _column(route_index, _U32, "route"),
        _column(era_index, _U32, "era"),
        _column(number, _U64, "number"),
        _column(seed, _U64, "seed"),
        _column(window, _U64, "window"),
        _column(start, _U64, "start"),
        _column(steps, _U32, "stop - start"),
        _column(flags, 0xFF, "flags"),
        _column(name_lengths, NAME_BYTES, "name"),
        _column(error_lengths, ERROR_BYTES, "error"),
        _column(payload_lengths, _U32, "payload"),
    )
    tables = (
        b"".join(map(_id_bytes, nodes)),
        _route_text(routes),
        struct.pack(f"<{len(eras)}Q", *eras),
    )
    return [*head, n, *tables, columns, names, errors, payload]


def _lone(batch: Batch) -> list[Any]:
    """The fields behind the head for one batch, as most frames of a stream that is alone have it:
    each table has one entry, each column one value."""
    node, (era, number), name, networks, seed, window, start, stop, kind, end, payload, text = batch
    names, (n_name,) = _texts((name,), NAME_BYTES, "name")
    errors, (n_error,) = _texts((clip_text(text),), ERROR_BYTES, "error") if text else _NO_TEXT
    n_payload = len(payload)
    flags = _FLAGS[kind, end]
    if n_error or flags & 3:
        _check_kinds((flags,), (n_payload,), (n_error,))
    _checked(stop, _U64, "stop")
    row = (0, 0, 0, number, seed, window, start, stop - start, flags, n_name, n_error, n_payload)
    columns = list(map(index, row))
    if min(columns) < 0 or any(map(gt, columns, _MOST)):
        for value, legal in zip(columns, _COLUMN_LIMITS, strict=True):
            _checked(value, *legal)
    tables = (_id_bytes(node), _route_text((networks,)), _pack_era(era))
    return [*tables, columns, names, errors, (payload,)]


def _same(values: Sequence[object]) -> bool:
    return values.count(values[0]) == len(values)


def _checked(value: int, limit: int, what: str) -> int:
    if not 0 <= value <= limit:
        raise Malformed(f"The {what} {value} is not legal: use 0 to {limit}.")
    return value


@lru_cache(maxsize=4096)
def _id_bytes(text: str) -> bytes:
    if OPERATOR.fullmatch(text) is None:
        raise Malformed(f"The id {text[:120]!r} is not 32 digits 0-9 a-f.")
    return bytes.fromhex(text)


def _table(values: Sequence[T]) -> tuple[list[T], Sequence[int]]:
    """The different values in the order of first sight, and where each value stands among them."""
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return different, (0,) * len(values)
    places = dict(zip(different, range(len(different)), strict=True))
    return different, [places[value] for value in values]


def _column(values: Sequence[int], limit: int, what: str) -> int | bytes:
    """One value if all rows have it, otherwise all of them in the fewest bytes each."""
    first = values[0]
    if _same(values):
        return _checked(int(index(first)), limit, what)
    least, most = min(values), max(values)
    _checked(least, limit, what)
    _checked(most, limit, what)
    code = next(code for greatest, _, code in _WIDTHS if most <= greatest)
    return struct.pack(f"<{len(values)}{code}", *values)


def _texts(values: Sequence[str], limit: int, what: str) -> tuple[bytes, Sequence[int]]:
    """Texts end to end in UTF-8, and the bytes of each."""
    joined = "".join(values)
    if not joined:
        return b"", (0,) * len(values)
    if joined.isascii():
        lengths, whole = list(map(len, values)), joined.encode("ascii")
    else:
        parts = [value.encode("utf-8") for value in values]
        lengths, whole = list(map(len, parts)), b"".join(parts)
    if max(lengths) > limit:
        raise Oversized(f"A {what} has {max(lengths)} bytes in UTF-8; the most is {limit}.")
    return whole, lengths


def _route_text(routes: Iterable[tuple[str, ...]]) -> str:
    """Sets of networks as text: ``,`` between the networks of a set, ``;`` between sets."""
    for route in routes:
        _check_route(route)
    return ";".join(map(",".join, routes))


# Reading


def decode_frame(data: bytes | memoryview) -> Frame:
    """The frame that `encode_frame` wrote; raises WireError for any other bytes."""
    fields = _unpack(data)
    if len(fields) != _N_FIELDS:
        raise Malformed(f"The frame has {len(fields)} fields; version {VERSION} has {_N_FIELDS}.")
    _, operator, group, n, nodes, routes, eras, columns, names, errors, payloads = fields
    for blob, what in ((operator, "operator"), (nodes, "nodes"), (eras, "eras"), (names, "names"),
                       (errors, "errors"), (payloads, "payloads")):  # fmt: skip
        if type(blob) is not bytes:
            raise Malformed(f"The field {what!r} is not of msgpack's type bin.")
    _integer(group, _U32, "group")
    _integer(n, MAX_BATCHES, "number of batches")
    if len(operator) != 16 or type(routes) is not str:
        raise Malformed("The operator is not 16 bytes, or the routes are not text.")
    if type(columns) is not list or len(columns) != _N_COLUMNS:
        raise Malformed(f"The columns are not an array of {_N_COLUMNS}.")
    if n:
        batches = _batches(n, nodes, routes, eras, columns, names, errors, payloads)
    elif nodes or routes or eras or names or errors or payloads or columns != [0] * _N_COLUMNS:
        raise Malformed("The frame has contents, but no batch.")
    else:
        batches = []
    return Frame(operator.hex(), group, batches)


def _unpack(data: bytes | memoryview) -> list[Any]:
    """The envelope's values. msgpack bounds what it allocates by the limits given here: it makes
    room for an array as soon as it has read how long it claims to be, up to 1,024 levels deep."""
    if len(data) < 2:
        raise Truncated(f"The frame has {len(data)} bytes; the shortest has more than 40.")
    if data[0] & 0xF0 != 0x90 or data[1] > 0x7F:
        raise Malformed("The bytes are not a frame: a msgpack array that begins with a version.")
    if data[1] == VERSION:
        data = _checked_body(data)
    elif data[1] != _UNCHECKED:
        raise UnknownVersion(
            f"The frame has version {data[1]}; this program reads versions {_UNCHECKED} and"
            f" {VERSION}: upgrade it."
        )
    limits = {"max_array_len": 16, "max_map_len": 0, "max_ext_len": 0}
    try:
        return cast(list[Any], msgpack.unpackb(data, **limits))
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        if _incomplete(data, limits):
            raise Truncated(f"The frame ends at byte {len(data)}, before its contents.") from error
        raise Malformed(f"The frame is not valid msgpack: {error}.") from error


def _checked_body(data: bytes | memoryview) -> memoryview:
    """What stands before the CRC-32. Raises Damaged."""
    body, crc = memoryview(data)[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if zlib.crc32(body) != int.from_bytes(crc, "little"):
        raise Damaged(f"The frame has {len(data)} bytes, which do not fit its CRC-32.")
    return body


def _incomplete(data: bytes | memoryview, limits: dict[str, int]) -> bool:
    """Whether the bytes are the beginning of something longer."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data), **limits)
    unpacker.feed(data)
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        return True
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        return False
    return False


def _batches(
    n: int,
    nodes: bytes,
    routes: str,
    eras: bytes,
    columns: list[object],
    names: bytes,
    errors: bytes,
    payloads: bytes,
) -> list[Batch]:
    """The rows of the columns as batches."""
    (node, route, era, number, seed, window, start, steps, flags, name_lengths, error_lengths,
     payload_lengths) = map(partial(_values, n), _COLUMN_LIMITS, columns)  # fmt: skip
    if len(nodes) % 16 or len(eras) % 8:
        raise Malformed("The table of nodes or eras ends within an entry.")
    node_table = [nodes[at : at + 16].hex() for at in range(0, len(nodes), 16)]
    era_table = struct.unpack(f"<{len(eras) // 8}Q", eras)
    _check_kinds(flags, payload_lengths, error_lengths)
    stop = (
        (start[0] + steps[0],) * n
        if _same(start) and _same(steps)
        else tuple(map(add, start, steps))
    )
    if max(stop) > _U64:
        raise Malformed(f"A window stops at step {max(stop)}; the last is {_U64}.")
    view = memoryview(payloads)
    rows = zip(
        _looked_up(node, node_table, "node"),
        map(_new_stream, zip(_looked_up(era, era_table, "era"), number, strict=True)),
        _split_text(name_lengths, names, "name"),
        _looked_up(route, _parse_routes(routes), "route"),
        seed,
        window,
        start,
        stop,
        [_KINDS[flag] for flag in flags],
        [flag >= _END for flag in flags],
        [view[a:b] for a, b in _spans(payload_lengths, len(payloads), "payload")],
        _split_text(error_lengths, errors, "error"),
        strict=True,
    )
    return list(map(_new_batch, rows))


_new_batch = cast(Any, partial(tuple.__new__, Batch))
_new_stream = cast(Any, partial(tuple.__new__, StreamId))
_KINDS = [Kind(flag & 3) for flag in range(8)]
_FLAGS = {(kind, end): kind + _END * end for kind in Kind for end in (False, True)}
_COLUMN_LIMITS = (
    (_U32, "node"),
    (_U32, "route"),
    (_U32, "era"),
    (_U64, "number"),
    (_U64, "seed"),
    (_U64, "window"),
    (_U64, "start"),
    (_U32, "steps"),
    (7, "flags"),
    (NAME_BYTES, "name"),
    (ERROR_BYTES, "error"),
    (_U32, "payload"),
)
_MOST = tuple(limit for limit, _ in _COLUMN_LIMITS)


def _integer(value: object, limit: int, what: str) -> int:
    if type(value) is not int:
        raise Malformed(f"The {what} is not an integer.")
    return _checked(value, limit, what)


def _values(n: int, legal: tuple[int, str], column: object) -> tuple[int, ...]:
    """The n values of a column."""
    limit, what = legal
    if type(column) is not bytes:
        return (_integer(column, limit, what),) * n
    width, rest = divmod(len(column), n)
    if rest or width not in _CODES:
        raise Malformed(f"The column {what!r} has {len(column)} bytes for {n} batches.")
    code, least = _CODES[width]
    values: tuple[int, ...] = struct.unpack(f"<{n}{code}", column)
    most = max(values)
    if most < least or _same(values):
        raise Malformed(f"The column {what!r} is wider than its values need.")
    _checked(most, limit, what)
    return values


def _check_kinds(flags: Sequence[int], payloads: Sequence[int], errors: Sequence[int]) -> None:
    """Only SPIKES have a payload, only ABORT and KILL an error."""
    if (not any(errors)) and set(flags) <= {Kind.SPIKES, Kind.SPIKES + _END}:
        return
    for flag, payload, error in zip(flags, payloads, errors, strict=True):
        kind = _KINDS[flag]
        if payload and kind is not Kind.SPIKES:
            raise Malformed(f"A batch of kind {kind.name} has a payload.")
        if error and kind not in (Kind.ABORT, Kind.KILL):
            raise Malformed(f"A batch of kind {kind.name} has an error.")


def _looked_up(places: tuple[int, ...], table: Sequence[T], what: str) -> Sequence[T]:
    """The rows' entries. Entries differ, and stand in the order in which rows name them first."""
    if list(dict.fromkeys(places)) != list(range(len(table))):
        raise Malformed(
            f"The rows do not name the {len(table)} entries of table {what!r} in order."
        )
    if len(table) == 1:
        return (table[0],) * len(places)
    if len(set(table)) != len(table):
        raise Malformed(f"The table {what!r} has an entry twice.")
    return [table[i] for i in places]


def _parse_routes(text: str) -> list[tuple[str, ...]]:
    """The inverse of `_route_text`, which has at least one set."""
    routes = [tuple(part.split(",")) if part else () for part in text.split(";")]
    for route in routes:
        _check_route(route)
    return routes


@lru_cache(maxsize=4096)
def _check_route(route: tuple[str, ...]) -> None:
    for name in route:
        if NAME.fullmatch(name) is None:
            raise Malformed(f"The network {name[:120]!r} is not legal: {LEGAL_NAMES}")
    if len(set(route)) != len(route):
        raise Malformed(f"The networks {','.join(route)[:120]!r} name one twice.")


def _spans(lengths: Sequence[int], total: int, what: str) -> Iterator[tuple[int, int]]:
    """Where each piece begins and ends."""
    edges = list(accumulate(lengths, initial=0))
    if edges[-1] != total:
        raise Malformed(f"The lengths of column {what!r} add up to {edges[-1]} of {total} bytes.")
    return pairwise(edges)


def _split_text(lengths: Sequence[int], whole: bytes, what: str) -> Sequence[str]:
    """The inverse of `_texts`."""
    spans = _spans(lengths, len(whole), what)
    if not whole:
        return ("",) * len(lengths)
    try:
        if whole.isascii():
            text = whole.decode("ascii")
            return [text[a:b] for a, b in spans]
        return [whole[a:b].decode("utf-8") for a, b in spans]
    except UnicodeDecodeError as error:
        raise Malformed(f"The {what} of a batch is not UTF-8: {error}.") from error
