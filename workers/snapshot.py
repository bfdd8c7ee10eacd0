"""What a checkpoint holds, and the bytes it is stored as (docs/snapshot-format.md).

A snapshot is one instant of a task: streams changed since the last successful commit, each with its
state and inbox, the ended set, and the read positions of that instant (PROTOCOL 20). The *head* is
written whole every time and is small; every changed stream is a blob of its own. Each carries its
version and a CRC-32, so that torn or damaged bytes are noticed and never restored. The CRC is of
the name as well that a blob is stored under, so that one is never taken for another.
"""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from topologies.errors import SpikeRouterError

__all__ = [
    "NEWEST",
    "VERSION",
    "Position",
    "Snapshot",
    "SnapshotCorruptError",
    "Stored",
    "blob_name",
    "open_sealed",
    "seal",
    "thawing",
]

VERSION = 2
"""The format that is written."""
NEWEST = 2
"""The newest format that is read: tasks that are stored in a newer one are passed over (25)."""


def blob_name(operator: str, group: int, partition: int, field: str = "") -> str:
    """The name that a stream's blob is sealed with, or a head's: no other opens in its place."""
    return f"{operator}/{group}/{partition}/{field}"


class SnapshotCorruptError(SpikeRouterError, ValueError):
    """Stored bytes that are damaged, or that this release cannot read."""


class Position(NamedTuple):
    """A read position in one topic, with the identity of the log it was taken in (PROTOCOL 30).

    `offset` is the *next* record to read: resume at it, not after it. `timestamp` (ms) and `crc`
    belong to the record before it, which is read again at a claim; both are -1 where there is none.
    `gap` offsets lie between the two: markers and aborted records, which nobody gets to see.
    """

    offset: int
    timestamp: int = -1
    crc: int = -1
    gap: int = 0

    @property
    def witness(self) -> int:
        """The offset of the record that `timestamp` and `crc` belong to."""
        return self.offset - 1 - self.gap


class Snapshot(NamedTuple):
    """One instant of a task, ready to be committed.

    `changed` holds (field, cursor, blob), `deleted` the fields of streams that ended, `keep` the
    fields whose stored references a full snapshot must leave as they are, `n_outputs` how many
    outputs Kafka must have acknowledged before this may be written (PROTOCOL 21).
    """

    full: bool
    head: bytes
    positions: Mapping[str, int]
    changed: tuple[tuple[str, int, bytes], ...]
    deleted: tuple[str, ...]
    keep: tuple[str, ...]
    n_outputs: int
    n_bytes_read: int
    token: Any = None


@dataclass(frozen=True)
class Stored:
    """What the store gives back: the head's two versions and each stream's two versions.

    `positions` and `cursors` are those of the last commit, which no later one may fall below: who
    falls back on an older version commits nothing (of that stream) before it has caught up (22).
    They are an index of the blobs, which tell the same: a damaged one is missing, or -1.
    """

    number: int
    heads: tuple[bytes | None, bytes | None]
    streams: Mapping[str, tuple[bytes | None, bytes | None]]
    positions: Mapping[str, int] = field(default_factory=dict)
    cursors: Mapping[str, int] = field(default_factory=dict)
    format_version: int = VERSION


def seal(value: object, name: str = "") -> bytes:
    """Pack `value` with the snapshot version in front and a CRC-32 of `name` and of all behind."""
    # A packer takes a quarter of a megabyte otherwise, and most of what is packed has some hundred.
    body: bytes = bytes([VERSION]) + msgpack.Packer(buf_size=4096).pack(value)
    return body + zlib.crc32(body, zlib.crc32(name.encode())).to_bytes(4, "little")


def open_sealed(data: bytes | None, what: str, name: str = "") -> Any:
    """Give back what `seal` packed under this name.

    Raises SnapshotCorruptError when the bytes are missing, damaged, of another name, or of a
    foreign version.
    """
    if not data or len(data) < 6:
        raise SnapshotCorruptError(f"{what} is missing or shorter than a sealed value (6 bytes)")
    body, crc = data[:-4], int.from_bytes(data[-4:], "little")
    if zlib.crc32(body, zlib.crc32(name.encode())) != crc:
        raise SnapshotCorruptError(f"{what} is damaged: {len(body)} bytes do not fit its CRC-32")
    if body[0] != VERSION:
        raise SnapshotCorruptError(
            f"{what} has snapshot version {body[0]}; this release reads version {VERSION}"
        )
    return msgpack.unpackb(body[1:], raw=False, strict_map_key=False, use_list=True)


@contextmanager
def thawing(what: str) -> Iterator[None]:
    """Whatever is wrong with stored contents is damage: it must not make its task unrestorable.

    Raises SnapshotCorruptError in place of what wrong contents raise.
    """
    try:
        yield
    except SnapshotCorruptError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise SnapshotCorruptError(
            f"{what} fits its CRC-32, but does not hold what it should: {error!r}"
        ) from error
