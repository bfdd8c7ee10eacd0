"""Input records: what producers, gateways and ingest itself append to ``snn.in.<input>``.

The key is the stream's name in UTF-8; a record without a key is a whole request. A value is either
*native*, a msgpack map, or *JSON*, text that begins with ``{``, so that any Kafka client can write
it. `docs/wire-format.md` lists the fields.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from router.wire import StreamId
from topologies.errors import SpikeRouterError

__all__ = [
    "DTYPES",
    "SPIKES",
    "Data",
    "Era",
    "Kill",
    "Record",
    "RecordError",
    "Route",
    "encode_record",
    "parse_record",
    "record_key",
]

DTYPES: Final = ("uint8", "int8", "uint16", "int16", "int32", "float32")
SPIKES: Final = "spikes"


class RecordError(SpikeRouterError, ValueError):
    """An input record that says nothing legal; the text is the reason for the dead letter."""

    retryable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Data:
    """What a producer says of one stream. At least one of payload, events, until and end is there.

    `payload` is either dense values (`dtype` of DTYPES, C order, little-endian, of `shape`), or
    spikes (`dtype` SPIKES) packed by `router.payload` over `steps` steps, the first of which is
    `start` (None: where the stream stands).
    """

    name: str
    networks: tuple[str, ...] | None = None
    """None: all networks that the last ROUTE record names."""
    seed: int = 0
    """u64; counts in the stream's first record."""
    request: bool = False
    """The record is a whole stream: it opens and ends it."""
    payload: bytes | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    """Dense values: the shape as sent; its product is the number of values."""
    steps: int | None = None
    """Spikes: the number of steps that the payload covers."""
    start: int | None = None
    """Spikes: the step at which the payload begins."""
    events: tuple[tuple[int, int, int], ...] | None = None
    """(step, address, value), as sent: neither sorted nor checked against the input."""
    until: int | None = None
    """A time mark: everything before this step has been said."""
    end: bool = False
    """The stream ends here."""
    seq: int | None = None
    """The producer's own count of its records of this stream, u64."""

    def values(self) -> NDArray[np.generic]:
        """The dense values, of `shape` and `dtype`, read-only; raises RecordError if none."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Era:
    """Ingest begins a new era (PROTOCOL rule 1); `networks` are the routes that hold in it."""

    era: int
    predecessor: int
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """The networks of streams that begin after this record (PROTOCOL rule 5)."""

    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kill:
    """The stream is to end with an error (PROTOCOL rule 17)."""

    stream: StreamId
    name: str
    error: str


Record = Data | Era | Route | Kill


def parse_record(key: bytes | None, value: bytes | None, partition: int, offset: int) -> Record:
    """What a record says; raises RecordError with the reason when it says nothing legal."""
    raise NotImplementedError


def encode_record(record: Record) -> bytes:
    """The native value of a record; its key is `record_key(record)`."""
    raise NotImplementedError


def record_key(record: Record) -> bytes | None:
    """The key to send a record with: the stream's name, None for a whole request."""
    raise NotImplementedError
