"""Input records in files: JSON lines, native files, and arrays of samples. Pure.

`docs/wire-format.md` has both file formats. A reader is fed with bytes as they come, in pieces of
any size, and gives an entry for each record, in the order of the file; what is not legal is an
entry too, which says where it stands and what was legal, so that its neighbours are not lost.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from router.payload import PayloadError, pack
from router.records import (
    DTYPES,
    SPIKES,
    Data,
    RecordError,
    encode_record,
    parse_line,
    parse_value,
    record_key,
)
from topologies.manifest import InputSpec

__all__ = [
    "MAGIC",
    "AnyFile",
    "Entry",
    "JsonLines",
    "NativeFile",
    "Reader",
    "line_of",
    "pack_entry",
    "sample_entries",
]

MAGIC: Final = b"SNNREC\x01\n"
"""How a native file begins: the seventh byte is the version, and a newline shows that no program
has translated line ends."""

MAX_VALUE: Final = 64 * 1024 * 1024  # bytes; a longer one is damage, not to be waited for
MAX_LINE: Final = 64 * 1024 * 1024  # bytes
_HEADER: Final = struct.Struct("<IH")


class Entry(NamedTuple):
    """One record of a file, or a sentence that says why there is none."""

    place: str
    """Where it stands in the file, such as "line 3"."""
    record: Data | None
    fault: str = ""


class Reader(Protocol):
    """Takes a file in pieces."""

    def feed(self, piece: bytes) -> Iterator[Entry]:
        """The entries that are complete now. Iterate to the end before feeding more."""
        ...

    def close(self) -> Iterator[Entry]:
        """What is left when the file has ended."""
        ...


class JsonLines:
    """One JSON object per line; blank lines are passed over."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._rest = b""
        self._number = 0
        self._skips = False

    def feed(self, piece: bytes) -> Iterator[Entry]:
        *lines, rest = piece.split(b"\n")
        for line in lines:
            whole, self._rest = self._rest + line, b""
            yield from self._line(whole)
        self._rest += rest
        if len(self._rest) > MAX_LINE:  # keep nothing of it but that it was there
            self._skips, self._rest = True, b""

    def close(self) -> Iterator[Entry]:
        if self._rest or self._skips:
            yield from self._line(self._rest)

    def _line(self, line: bytes) -> Iterator[Entry]:
        self._number += 1
        place = f"line {self._number}"
        if self._skips:
            self._skips = False
            yield Entry(place, None, f"The line is too long; legal are {MAX_LINE} bytes.")
        elif line := line.strip():
            try:
                yield Entry(place, parse_line(line, f"{self._prefix}-{self._number}"))
            except RecordError as error:
                yield Entry(place, None, str(error))


class NativeFile:
    """MAGIC, then for each record: u32 bytes of its value, u16 bytes of its key, key, value."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._held = bytearray()
        self._skip = len(MAGIC)
        self._number = 0
        self._broken = False

    def feed(self, piece: bytes) -> Iterator[Entry]:
        if self._broken:
            return
        self._held += piece
        at = min(self._skip, len(self._held))
        self._skip -= at
        while len(self._held) >= at + _HEADER.size:
            n_value, n_key = _HEADER.unpack_from(self._held, at)
            if n_value > MAX_VALUE:
                yield self._break(f"A value of {n_value} bytes is too long")
                break
            middle = at + _HEADER.size + n_key
            if len(self._held) < middle + n_value:
                break
            key = bytes(self._held[at + _HEADER.size : middle])
            at = middle + n_value
            yield self._entry(key, bytes(self._held[middle:at]))
        del self._held[:at]

    def close(self) -> Iterator[Entry]:
        if self._held and not self._broken:
            yield self._break("The file ends within a record")

    def _entry(self, key: bytes, value: bytes) -> Entry:
        self._number += 1
        place = f"record {self._number}"
        try:
            record = parse_value(key or None, value, f"{self._prefix}-{self._number}")
        except RecordError as error:
            return Entry(place, None, str(error))
        if isinstance(record, Data):
            return Entry(place, record)
        kind = type(record).__name__.lower()
        return Entry(place, None, f"The record has kind '{kind}'; legal is data.")

    def _break(self, what: str) -> Entry:
        self._broken = True
        fault = f"{what}: the file is damaged here, and the rest of it cannot be read."
        return Entry(f"record {self._number + 1}", None, fault)


class AnyFile:
    """Whichever of the two it is: the first bytes decide.

    Requests without an id are named `<prefix>-<number of the record in the file, from 1>`.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._begun = b""
        self._reader: Reader | None = None

    def feed(self, piece: bytes) -> Iterator[Entry]:
        if self._reader is None:
            self._begun += piece
            if len(self._begun) < len(MAGIC):
                return
            self._reader, piece = self._chosen(), self._begun
        yield from self._reader.feed(piece)

    def close(self) -> Iterator[Entry]:
        if self._reader is None:  # shorter than MAGIC
            self._reader = JsonLines(self._prefix)
            yield from self._reader.feed(self._begun)
        yield from self._reader.close()

    def _chosen(self) -> Reader:
        is_native = self._begun.startswith(MAGIC)
        return NativeFile(self._prefix) if is_native else JsonLines(self._prefix)


def pack_entry(record: Data) -> bytes:
    """A record as it stands in a native file, behind MAGIC; raises RecordError."""
    key, value = record_key(record) or b"", encode_record(record)
    return _HEADER.pack(len(value), len(key)) + key + value


def line_of(record: Data) -> dict[str, Any]:
    """The record as a line of JSON has it: what `parse_line` reads again.

    Only spikes cannot be told so, since their payload is unpacked by who knows the input: they keep
    their native fields, the payload as hexadecimal digits.
    """
    line: dict[str, Any] = {"id" if record.request else "stream": record.name}
    for name in ("networks", "seed", "events", "until", "end", "seq"):
        value = getattr(record, name)
        if value is not None and value is not False and (name, value) != ("seed", 0):
            line[name] = value
    if record.dtype == SPIKES and record.payload is not None:
        spikes = {"dtype": SPIKES, "steps": record.steps, "start": record.start}
        line |= {"payload": record.payload.hex(), **spikes}
    elif record.payload is not None:
        line["data"] = record.values().tolist()
    return line


# Samples


def sample_entries(
    values: NDArray[Any],
    prefix: str,
    networks: tuple[str, ...] | None = None,
    spec: InputSpec | None = None,
) -> Iterator[Entry]:
    """Each sample of `values` as a whole request, named `<prefix>-<index>`.

    `values` has shape (n_samples, ...): samples of the input's shape, or with as many values; for
    an input of events (n_samples, n_steps, ...). Without `spec` they are sent as they are, and
    ingest judges them. Raises RecordError when no sample can be legal.
    """
    values = _on_the_wire(values)
    shape, lead = values.shape[1:], 1
    if spec is not None:
        lead = 2 if spec.encoder == "events" else 1
        shape = _shape_for(values, spec, lead)
    for index, sample in enumerate(values):
        place, name = f"sample {index}", f"{prefix}-{index}"
        try:
            yield Entry(place, _sample(sample, name, networks, spec, shape))
        except (RecordError, PayloadError) as error:
            yield Entry(place, None, str(error))


def _on_the_wire(values: NDArray[Any]) -> NDArray[Any]:
    """The values in a dtype that records have, if none of them is changed by that."""
    if values.ndim < 2 or not values.size:
        raise RecordError(
            f"The array has shape {values.shape}; legal are (samples, ...), at least one each."
        )
    if values.dtype.name in DTYPES:
        return values
    narrow = {"b": "uint8", "f": "float32", "i": "int32", "u": "int32"}.get(values.dtype.kind, "")
    if not narrow:
        raise RecordError(f"The array has dtype {values.dtype}; legal are {', '.join(DTYPES)}.")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(narrow)
    if values.dtype.kind in "iu" and (cast != values).any():
        raise RecordError(f"The array of dtype {values.dtype} has values beyond int32.")
    return cast


def _shape_for(values: NDArray[Any], spec: InputSpec, lead: int) -> tuple[int, ...]:
    """The shape to send a sample in."""
    n = int(np.prod(spec.shape))
    if values.ndim <= lead or int(np.prod(values.shape[lead:])) != n:
        axes = ["samples", "steps"][:lead] + list(map(str, spec.shape))
        raise RecordError(
            f"The array has shape {values.shape}; input {spec.name!r} takes ({', '.join(axes)})."
        )
    return spec.shape


def _sample(
    sample: NDArray[Any],
    name: str,
    networks: tuple[str, ...] | None,
    spec: InputSpec | None,
    shape: Sequence[int],
) -> Data:
    if spec is not None and spec.encoder == "events":
        packed = pack(sample.reshape(1, len(sample), -1), int(spec.low), int(spec.high))
        return Data(name, networks, 0, True, packed[0], SPIKES, steps=len(sample))
    if not np.isfinite(sample).all():
        raise RecordError("The sample has a value that is not finite.")
    if spec is not None and ((sample < spec.low).any() or (sample > spec.high).any()):
        raise RecordError(
            f"The sample has values from {sample.min():g} to {sample.max():g}; legal for input "
            f"{spec.name!r} are {spec.low:g} to {spec.high:g}."
        )
    wire = sample.astype(sample.dtype.newbyteorder("<"), copy=False)
    return Data(name, networks, 0, True, wire.tobytes(), sample.dtype.name, tuple(shape))
