"""Input records: what producers, gateways and ingest itself append to ``snn.in.<input>``.

The key is the stream's name in UTF-8; a record without a key is a whole request. A value is either
*native*, a msgpack map, or *JSON*, text that begins with ``{``, so that any Kafka client can write
it. `docs/wire-format.md` lists the fields.

A record is judged here only as far as it can be without knowing the input: shapes, ranges,
addresses and the order of steps are ingest's to judge.
"""

import json
import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Final, NoReturn, cast

import msgpack
import numpy as np
from numpy.typing import NDArray

from router.numbers import Cut, Span, Work, cut, finish, flat_lists, rows_of, shape_of
from router.topics import NAME
from router.wire import ERROR_BYTES, NAME_BYTES, StreamId, clip_text
from topologies.errors import SpikeRouterError

__all__ = [
    "DTYPES",
    "MAX_AXES",
    "MAX_NETWORKS",
    "SPIKES",
    "VERSION",
    "Data",
    "Era",
    "Kill",
    "Record",
    "RecordError",
    "Route",
    "encode_record",
    "parse_cut",
    "parse_line",
    "parse_record",
    "parse_value",
    "record_key",
]

VERSION: Final = 1
DTYPES: Final = ("uint8", "int8", "uint16", "int16", "int32", "float32")
SPIKES: Final = "spikes"
_LEGAL_DTYPES: Final = (*DTYPES, SPIKES)
_ITEM_BYTES: Final = {dtype: np.dtype(dtype).itemsize for dtype in DTYPES}
MAX_NETWORKS: Final = 256  # networks that one record can name
MAX_AXES: Final = 8  # of a shape

_U64 = 2**64 - 1
_U32 = 2**32 - 1
_I32 = 2**31
_I64 = 2**63
_LONG: Final = 4096  # bytes of JSON; a longer text is read in slices
_NATIVE = {"payload", "dtype", "shape", "steps", "start"}  # fields that JSON has no use for
# An event in a native record.
_EVENT = np.dtype([("step", "<u8"), ("address", "<u4"), ("value", "<i4")])


class RecordError(SpikeRouterError, ValueError):
    """An input record that says nothing legal; the text is the reason for the dead letter."""

    retryable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Data:
    """What a producer says of one stream. At least one of payload, events, until and end is there.

    `payload` is either dense values (`dtype` of DTYPES, C order, little-endian, of `shape`), or
    spikes (`dtype` SPIKES) packed by `router.payload` over `steps` steps, the first of which is
    `start` (None: where the stream stands). A JSON record's `data` becomes float32 values.
    """

    name: str
    networks: tuple[str, ...] | None = None
    """None: all networks that the last ROUTE record names."""
    seed: int = 0
    """u64; counts in the stream's first record."""
    request: bool = False
    """The record is a whole stream: it opens and ends it. Its `name` is the request's id."""
    payload: bytes | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    """Dense values: the shape as sent; its product is the number of values."""
    steps: int | None = None
    """Spikes: the number of steps that the payload covers, u32."""
    start: int | None = None
    """Spikes: the step at which the payload begins, u64."""
    events: tuple[tuple[int, int, int], ...] | None = None
    """(step u64, address u32, value i32), as sent: neither sorted nor checked against the input."""
    until: int | None = None
    """A time mark, u64: everything before this step has been said."""
    end: bool = False
    """The stream ends here."""
    seq: int | None = None
    """The producer's own count of its records of this stream, u64."""

    def values(self) -> NDArray[Any]:
        """The dense values, of `shape` and `dtype`, read-only; raises RecordError without any."""
        if self.payload is None or self.dtype not in DTYPES or self.shape is None:
            raise RecordError("The record carries no dense values.")
        dtype = np.dtype(self.dtype)
        values = np.frombuffer(self.payload, dtype.newbyteorder("<")).reshape(self.shape)
        return values.astype(dtype, copy=False)


@dataclass(frozen=True, slots=True)
class Era:
    """Ingest begins a new era (PROTOCOL rule 1); `networks` are the routes that hold in it.

    `routed_by` is the id of the key that sealed the ROUTE from which they come, 0 for none (35).
    """

    era: int
    predecessor: int
    networks: tuple[str, ...]
    routed_by: int = 0
    max_streams: int | None = None
    """How many streams may be open at once from here on (PROTOCOL rule 32); None: any number."""


@dataclass(frozen=True, slots=True)
class Route:
    """The networks of streams that begin after this record (PROTOCOL rule 5).

    In those of `ends`, streams that are still open and have not been told to end, end here (31).
    """

    networks: tuple[str, ...]
    ends: tuple[str, ...] = ()
    max_streams: int | None = None
    """How many streams may be open at once from here on (PROTOCOL rule 32); None: any number."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The stream is to end with an error, for the networks named (PROTOCOL rules 14 and 17).

    A long error is cut on encoding.
    """

    stream: StreamId
    name: str
    networks: tuple[str, ...]
    error: str
    if_final: bool = False
    """Only if no result is open any more: a task waits for records that retention took."""
    since: int | None = None
    """Only if the stream has said nothing at or beyond this offset of the input (rule 33)."""


Record = Data | Era | Route | Kill


# Reading


def parse_record(key: bytes | None, value: bytes | None, partition: int, offset: int) -> Record:
    """What a record says; raises RecordError with the reason when it says nothing legal.

    A request without an id is named ``<partition>-<offset>``, so `partition` and `offset` must be
    those of the record itself, also in a replay.
    """
    return parse_value(key, value, f"{partition}-{offset}")


def parse_value(key: bytes | None, value: bytes | None, unnamed: str) -> Record:
    """The same outside of Kafka, where a request without an id is named `unnamed`."""
    if not value:
        raise RecordError("The record has no value; a stream is ended by a record with `end`.")
    if value[:1] == b"{":
        return _record(finish(_from_json(value)), key, unnamed, "data")
    return _record(_from_msgpack(value), key, unnamed)


def parse_cut(key: bytes | None, parts: Cut, unnamed: str) -> Work[Record]:
    """What `parse_value` gives for a JSON record whose lists of numbers were cut out of it."""
    content = yield from _fields(parts)
    return _record(content, key, unnamed, "data")


def parse_line(line: bytes, unnamed: str) -> Data:
    """What a line of JSON says: a JSON record, with the stream's name as `stream` for a key.

    A request without an id is named `unnamed`. Raises RecordError with what was legal.
    """
    if line[:1] != b"{":
        raise RecordError("The line is not a JSON object; legal is {...}.")
    content = finish(_from_json(line))
    if content["k"] != "data":
        raise RecordError(f"The line has kind {_shown(content['k'])}; legal is data.")
    key: bytes | None = None
    if "stream" in content:
        key = _stream_name(content.pop("stream"), "stream").encode()
    record = _record(content, key, unnamed, "data", "stream")
    if not isinstance(record, Data):
        raise RecordError("The line is not what a stream says.")
    return record


def _record(content: dict[str, Any], key: bytes | None, unnamed: str, *json_only: str) -> Record:
    """The record of these fields; `json_only` are legal names that its kind does not list."""
    version, kind = content.pop("v", None), content.pop("k", None)
    if type(version) is not int or version != VERSION:
        raise RecordError(f"The record has version {_shown(version)}; legal is {VERSION}.")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise RecordError(f"The record has kind {_shown(kind)}; legal are {', '.join(_FIELDS)}.")
    unknown = sorted(content.keys() - _FIELDS[kind].keys())
    if unknown:
        legal = [name for name in _FIELDS[kind] if not json_only or name not in _NATIVE]
        if len(legal) < len(_FIELDS[kind]):
            legal += json_only
        raise RecordError(
            f"The record has a field {_shown(unknown[0])}; legal are {', '.join(legal)}."
        )
    check = _FIELDS[kind]
    checked = {name: check[name](value, name) for name, value in content.items()}
    return _PARSERS[kind](checked, key, unnamed)


def _from_json(value: bytes) -> Work[dict[str, Any]]:
    """JSON with the defaults that spare its writers the version and the kind."""
    parts = (yield from cut(value)) if len(value) > _LONG else Cut(value, {})
    return (yield from _fields(parts))


def _fields(parts: Cut) -> Work[dict[str, Any]]:
    """The same for a text whose lists of numbers were cut out of it."""
    try:
        content = json.loads(
            parts.rest, object_pairs_hook=_without_twins, parse_constant=_no_constant
        )
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"The record begins like JSON and is not: {error}.") from error
    content = {"v": VERSION, "k": "data", **content}
    if content["k"] == "data":
        if _NATIVE & set(content):
            raise RecordError("A JSON record has its values in `data` or `events`, as lists.")
        if "data" in content:
            data = content.pop("data")
            span = parts.within(data)
            content.update(_dense(data) if span is None else (yield from _long_dense(span)))
        if "events" in content:
            span = parts.within(content["events"])
            content["events"] = (
                _event_bytes(content["events"]) if span is None else (yield from _long_events(span))
            )
    return content


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise RecordError("The record has a field twice.")
    return content


def _no_constant(text: str) -> NoReturn:
    raise RecordError(f"The record has {text}, which is not JSON and not a legal value.")


def _dense(data: object) -> dict[str, Any]:
    """The fields for a number or nested lists of numbers, as float32."""
    cells = np.asarray(data, dtype=object)  # as any other dtype, numbers beside a text become texts
    numbers = cells.reshape(-1).tolist()
    if cells.ndim > MAX_AXES or not numbers or not set(map(type, numbers)) <= {int, float}:
        raise _no_numbers(_shown(data))
    return _float_fields(_floats(numbers), cells.shape)


def _long_dense(span: Span) -> Work[dict[str, Any]]:
    """The same for lists that were cut out of a long text."""
    shape = yield from shape_of(span)
    if shape is None or len(shape) > MAX_AXES:
        raise _no_numbers(span.shown)
    values, done = np.empty(math.prod(shape), np.float32), 0
    for numbers in flat_lists(span):
        if numbers is None:
            raise _no_json("data", span)
        if not numbers or not set(map(type, numbers)) <= {int, float}:
            raise _no_numbers(span.shown)
        values[done : done + len(numbers)] = _floats(numbers)
        done += len(numbers)
        yield
    if done != len(values):
        raise _no_numbers(span.shown)
    return _float_fields(values, shape)


def _no_json(field: str, span: Span) -> RecordError:
    return RecordError(f"The record begins like JSON and is not: its `{field}` is {span.shown}.")


def _no_numbers(shown: str) -> RecordError:
    return RecordError(
        f"The field `data` is {shown}; legal are lists of numbers, of equal lengths and "
        f"nested up to {MAX_AXES} deep."
    )


def _floats(numbers: list[Any]) -> NDArray[np.float32]:
    """Numbers as float32; raises RecordError for those that it does not hold."""
    try:
        with np.errstate(over="ignore"):
            values = np.array(numbers, np.float64).astype(np.float32)
    except OverflowError:
        values = np.array([np.inf], np.float32)
    if not np.isfinite(values).all():
        raise RecordError("The field `data` has a number beyond float32.")
    if np.abs(values).max() >= 2**24 and any(
        type(number) is int and number != value
        for number, value in zip(numbers, values.tolist(), strict=True)
    ):
        raise RecordError("The field `data` has an integer that float32 does not hold.")
    return values


def _float_fields(values: NDArray[np.float32], shape: tuple[int, ...]) -> dict[str, Any]:
    payload = values.astype("<f4", copy=False).tobytes()
    return {"payload": payload, "dtype": "float32", "shape": list(shape)}


def _event_bytes(events: object) -> bytes:
    """JSON's events, [step, address] or [step, address, value], as a native record has them."""
    if not isinstance(events, list):
        raise RecordError("The field `events` is not a list of [step, address, value].")
    rows = [_event_row(event) for event in events]
    return np.array(rows, _EVENT).tobytes()


def _long_events(span: Span) -> Work[bytes]:
    """The same for a list that was cut out of a long text."""
    counts = yield from rows_of(span)
    if counts is None:
        raise _no_events(span)
    sizes = np.frombuffer(counts, np.uint8)
    ends = np.cumsum(sizes, dtype=np.int64)
    n = int(sizes.sum(dtype=np.int64))
    flat, negative, done = np.zeros(n, np.uint64), np.zeros(n, np.bool_), 0
    for items in flat_lists(span) if n else ():
        if items is None:
            raise _no_json("events", span)
        _check_integers(items, done, ends)
        stop = done + len(items)
        flat[done:stop], negative[done:stop] = _as_u64(items)
        done = stop
        yield
    if done != n:
        raise _no_events(span)
    return _event_rows(flat, negative, ends, sizes == 3).tobytes()


def _no_events(span: Span) -> RecordError:
    return RecordError(
        f"The field `events` is {span.shown}, not a list of [step, address, value]: each event is "
        "[step, address] or [step, address, value] of integers (u64, u32, i32)."
    )


def _check_integers(items: list[Any], first: int, ends: NDArray[np.int64]) -> None:
    """Refuse the event of the first item that is no integer of 64 bits; `ends` are the rows'."""
    if set(map(type, items)) == {int} and min(items) >= -_I64 and max(items) <= _U64:
        return
    legal = [type(item) is int and -_I64 <= item <= _U64 for item in items]
    at = legal.index(False)
    row = int(np.searchsorted(ends, first + at, "right"))
    begin = int(ends[row - 1]) - first if row else 0
    _event_row(items[max(0, begin) : int(ends[row]) - first])


def _as_u64(items: list[int]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Integers from -2**63 to 2**64 - 1, and which are negative: those are wrapped."""
    try:
        signed = np.array(items, np.int64)
    except OverflowError:
        wrapped = np.array([item & _U64 for item in items], np.uint64)
        return wrapped, np.array([item < 0 for item in items], np.bool_)
    return signed.view(np.uint64), signed < 0


def _event_rows(
    flat: NDArray[np.uint64],
    negative: NDArray[np.bool_],
    ends: NDArray[np.int64],
    graded: NDArray[np.bool_],
) -> NDArray[Any]:
    """Events as native records have them; row i ends before `flat[ends[i]]`."""
    firsts = ends - 2 - graded
    thirds = ends[graded] - 1
    values = flat.view(np.int64)[thirds]
    bad = negative[firsts] | negative[firsts + 1] | (flat[firsts + 1] > _U32)
    wrapped = negative[thirds] != (values < 0)
    bad[graded] |= wrapped | (values < -_I32) | (values >= _I32)
    if bad.any():
        row = int(np.argmax(bad))
        cells = range(int(firsts[row]), int(ends[row]))
        _event_row([int(flat[i]) - (_U64 + 1 if negative[i] else 0) for i in cells])
    rows = np.empty(len(ends), _EVENT)
    rows["step"], rows["address"], rows["value"] = flat[firsts], flat[firsts + 1], 1
    rows["value"][graded] = values
    return rows


def _event_row(event: object) -> tuple[int, int, int]:
    """One event; the value is 1 unless given."""
    if isinstance(event, list) and 2 <= len(event) <= 3 and all(type(x) is int for x in event):
        step, address, value = (*event, 1)[:3]
        if 0 <= step <= _U64 and 0 <= address <= _U32 and -_I32 <= value < _I32:
            return step, address, value
    raise RecordError(
        f"The event {_shown(event)} is not [step, address] or [step, address, value] of integers "
        "(u64, u32, i32)."
    )


def _from_msgpack(value: bytes) -> dict[str, Any]:
    """A native record. msgpack makes room for an array as soon as it has read how long it claims to
    be, up to 1,024 levels deep, so the longest array is short, and events stand in one bin."""
    try:
        content = msgpack.unpackb(
            value,
            max_array_len=MAX_NETWORKS,
            max_map_len=32,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise RecordError(f"The record is neither JSON nor msgpack: {error}.") from error
    if not isinstance(content, dict) or not {*map(type, content)} <= {str}:
        raise RecordError("The record is not a msgpack map with names of fields.")
    return cast(dict[str, Any], content)


# Each checker takes a field's value and name, and gives the value to keep or raises RecordError.


def _shown(value: object) -> str:
    """A value in a sentence, cut short; a plain `repr` would fail on what is nested deeply."""
    text = reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _integer(most: int) -> Callable[[object, str], int]:
    def check(value: object, name: str) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise RecordError(f"The field `{name}` is {_shown(value)}; legal is 0 to {most}.")
        return value

    return check


def _flag(value: object, name: str) -> bool:
    if type(value) is not bool:
        raise RecordError(f"The field `{name}` is {_shown(value)}; legal are true and false.")
    return value


def _text(least: int, most: int) -> Callable[[object, str], str]:
    def check(value: object, name: str) -> str:
        if type(value) is not str or not least <= _utf8_length(value) <= most:
            raise RecordError(
                f"The field `{name}` is {_shown(value)}; legal is text of {least} to {most} bytes "
                "in UTF-8."
            )
        return value

    return check


_stream_name = _text(1, NAME_BYTES)


def _utf8_length(text: str) -> int:
    """Bytes in UTF-8; -1 for text that JSON can write and UTF-8 cannot (lone surrogates)."""
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return -1


def _bin(value: object, name: str) -> bytes:
    if type(value) is not bytes:
        raise RecordError(f"The field `{name}` is {_shown(value)}; legal are bytes.")
    return value


def _networks(value: object, name: str) -> tuple[str, ...]:
    if isinstance(value, list) and len(value) <= MAX_NETWORKS:
        legal = all(type(item) is str and NAME.fullmatch(item) for item in value)
        if legal and len(set(value)) == len(value):
            return tuple(value)
    raise RecordError(
        f"The field `{name}` is {_shown(value)}; legal is a list of up to {MAX_NETWORKS} different "
        "names of networks."
    )


def _shape(value: object, name: str) -> tuple[int, ...]:
    if isinstance(value, list) and len(value) <= MAX_AXES and all(map(_is_size, value)):
        return tuple(value)
    raise RecordError(
        f"The field `{name}` is {_shown(value)}; legal is a list of up to {MAX_AXES} sizes from 1."
    )


def _is_size(item: object) -> bool:
    return type(item) is int and 0 < item <= _U32


def _dtype(value: object, name: str) -> str:
    if type(value) is not str or value not in _LEGAL_DTYPES:
        raise RecordError(
            f"The field `{name}` is {_shown(value)}; legal are {', '.join(_LEGAL_DTYPES)}."
        )
    return value


def _events(value: object, name: str) -> tuple[tuple[int, int, int], ...]:
    blob = _bin(value, name)
    if len(blob) % _EVENT.itemsize:
        raise RecordError(f"The field `{name}` is no multiple of {_EVENT.itemsize} bytes.")
    return tuple(np.frombuffer(blob, _EVENT).tolist())


def _stream(value: object, name: str) -> StreamId:
    if isinstance(value, list) and len(value) == 2:
        return StreamId(*(_integer(_U64)(item, name) for item in value))
    raise RecordError(f"The field `{name}` is {_shown(value)}; legal is [era, number].")


_FIELDS: dict[str, dict[str, Callable[[Any, str], Any]]] = {
    "data": {
        "id": _stream_name,
        "networks": _networks,
        "seed": _integer(_U64),
        "payload": _bin,
        "dtype": _dtype,
        "shape": _shape,
        "steps": _integer(_U32),
        "start": _integer(_U64),
        "events": _events,
        "until": _integer(_U64),
        "end": _flag,
        "seq": _integer(_U64),
    },
    "era": {
        "era": _integer(_U64),
        "predecessor": _integer(_U64),
        "networks": _networks,
        "routed_by": _integer(_U64),
        "max_streams": _integer(_U64),
    },
    "route": {"networks": _networks, "ends": _networks, "max_streams": _integer(_U64)},
    "kill": {
        "stream": _stream,
        "name": _text(0, NAME_BYTES),
        "networks": _networks,
        "error": _text(0, ERROR_BYTES),
        "if_final": _flag,
        "since": _integer(_U64),
    },
}


# What the checked fields of each kind make.


def _data(content: dict[str, Any], key: bytes | None, unnamed: str) -> Data:
    request = key is None
    if key is not None and "id" in content:
        raise RecordError("The record has a key, which names its stream, and an `id` as well.")
    if request and "seq" in content:
        raise RecordError(
            "The record has a `seq` and no key: it is a whole request, which is one record only. "
            "Give the stream's name as the key, or leave `seq` out."
        )
    name = content.pop("id", unnamed) if key is None else _name_of(key)
    if "payload" in content:
        content.update(_payload_fields(content))
    elif "dtype" in content or "shape" in content or "steps" in content or "start" in content:
        raise RecordError("The record tells how its `payload` is made, but has none.")
    if "payload" in content and "events" in content:
        raise RecordError("The record has both values and `events`; legal is one of them.")
    is_mute = content.keys().isdisjoint(("payload", "events", "until"))
    if is_mute and (request or not content.get("end")):
        raise RecordError("The record says nothing: no values, `events`, `until` or `end`.")
    return Data(name, request=request, **content)


def _name_of(key: bytes) -> str:
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(
            f"The record's key is not the UTF-8 name of a stream: {error}."
        ) from error
    return _stream_name(name, "key")


def _payload_fields(content: dict[str, Any]) -> dict[str, Any]:
    """The fields that describe a payload, checked against its bytes."""
    payload, dtype = content["payload"], content.get("dtype")
    if dtype is None:
        raise RecordError("The record has a `payload`, but no `dtype`.")
    if dtype == SPIKES:
        if "steps" not in content or "shape" in content:
            raise RecordError("A payload of spikes has `steps`, and no `shape`.")
        return {}
    if "steps" in content or "start" in content:
        raise RecordError("A payload of dense values has no `steps` and no `start`.")
    width = _ITEM_BYTES[dtype]
    shape = content.get("shape", (len(payload) // width,))
    if not payload or math.prod(shape) * width != len(payload):
        raise RecordError(
            f"The payload has {len(payload)} bytes; {dtype} of shape {_shown(shape)} has "
            f"{math.prod(shape) * width}."
        )
    return {"shape": shape}


def _era(content: dict[str, Any], key: bytes | None, unnamed: str) -> Era:
    return Era(**_complete(content, "era"))


def _route(content: dict[str, Any], key: bytes | None, unnamed: str) -> Route:
    return Route(**_complete(content, "route"))


def _kill(content: dict[str, Any], key: bytes | None, unnamed: str) -> Kill:
    return Kill(**_complete(content, "kill"))


def _complete(content: dict[str, Any], kind: str) -> dict[str, Any]:
    missing = [name for name in _FIELDS[kind] if name not in content and name not in _DEFAULTS]
    if missing:
        raise RecordError(f"The record of kind {kind} has no field `{missing[0]}`.")
    return content


_PARSERS: dict[str, Callable[[dict[str, Any], bytes | None, str], Record]] = {
    "data": _data,
    "era": _era,
    "route": _route,
    "kill": _kill,
}


# Writing


def encode_record(record: Record) -> bytes:
    """The native value of a record, to be sent with `record_key(record)`; raises RecordError.

    Equal records give equal bytes: the fields stand in one order, and defaults are left out.
    """
    kind, content = _contents(record)
    try:
        key = record_key(record)
        value = cast(bytes, msgpack.packb({"v": VERSION, "k": kind, **content}))
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"The record has a field of a wrong type: {error}.") from error
    parse_record(key, value, 0, 0)
    return value


def record_key(record: Record) -> bytes | None:
    """The key to send a record with: its stream's name; None for requests, eras and routes."""
    if isinstance(record, Kill) or (isinstance(record, Data) and not record.request):
        return record.name.encode("utf-8")
    return None


def _contents(record: Record) -> tuple[str, dict[str, object]]:
    """The kind and the fields to write."""
    match record:
        case Data():
            return "data", _data_contents(record)
        case Era() | Route() | Kill():
            return type(record).__name__.lower(), _said(record)


def _said(record: Era | Route | Kill) -> dict[str, object]:
    """The fields of a record of the system, without those that say nothing."""
    kind = type(record).__name__.lower()
    content: dict[str, object] = {}
    for name in _FIELDS[kind]:
        value = getattr(record, name)
        if value is not None and value != _DEFAULTS.get(name):
            content[name] = value
    if isinstance(record, Kill):
        content |= {"stream": tuple(record.stream), "error": clip_text(record.error)}
    return content


def _data_contents(record: Data) -> dict[str, object]:
    content: dict[str, object] = {"id": record.name} if record.request else {}
    for name in _FIELDS["data"]:
        value = getattr(record, name, None)
        if name == "events" and record.events is not None:
            content[name] = _packed_events(record.events)
        elif value is not None and value != _DEFAULTS.get(name):
            content[name] = value
    return content


def _packed_events(events: tuple[tuple[int, int, int], ...]) -> bytes:
    """Events as bytes; those that are not legal are found by looking at each."""
    if {*map(len, events)} <= {3} and {*map(type, chain.from_iterable(events))} <= {int}:
        try:
            return np.array(list(events), _EVENT).tobytes()
        except OverflowError:
            pass
    return _event_bytes([list(event) for event in events])


_DEFAULTS = {
    "seed": 0, "end": False, "if_final": False, "ends": (), "routed_by": 0, "max_streams": None,
    "since": None,
}  # fmt: skip
