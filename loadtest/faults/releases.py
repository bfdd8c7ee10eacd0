"""A second release of the wire and the snapshot format, made for tests of upgrades.

It differs from the product's own in both: a frame carries a field more (a CRC-32 of the rest), a
snapshot is compressed. As any release must, it reads what the one before wrote. Upgrades go by two
steps, since a record may be read by a worker that is not upgraded yet:

1. `next-reads`: every worker reads both formats, and still writes the old ones;
2. `next`: every worker writes the new ones.

Rollback goes the same way back.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

import msgpack

from router import wire
from router.wire import Frame, Malformed, Truncated
from topologies.errors import SpikeRouterError
from workers import snapshot
from workers.snapshot import SnapshotCorruptError

__all__ = ["RELEASES", "decode_either", "encode_next", "install", "open_either", "seal_next"]

RELEASES: Final = ("next-reads", "next")
_NEXT_FRAME: Final = wire.VERSION + 1
_NEXT_SNAPSHOT: Final = snapshot.VERSION + 1
_CRC: Final = struct.Struct(">BI")  # msgpack's uint 32
_UINT32: Final = 0xCE
_TEN_MORE: Final = 0x90

_encode: Final[Callable[[Frame], bytes]] = wire.encode_frame
_decode: Final[Callable[[bytes | memoryview], Frame]] = wire.decode_frame
_open: Final[Callable[[bytes | None, str, str], Any]] = snapshot.open_sealed


class ReleaseError(SpikeRouterError, ValueError):
    """There is no such release."""


def encode_next(frame: Frame) -> bytes:
    """A frame of the next version: one more field, the CRC-32 of all before it."""
    old = _encode(frame)
    body = bytes([old[0] + 1, _NEXT_FRAME]) + old[2:-4]
    return body + _CRC.pack(_UINT32, zlib.crc32(body))


def decode_either(data: bytes | memoryview) -> Frame:
    """A frame of either version. Raises WireError."""
    if len(data) < 2 or data[1] != _NEXT_FRAME:
        return _decode(data)
    if len(data) < 2 + _CRC.size:
        raise Truncated(f"The frame has {len(data)} bytes.")
    body, (kind, crc) = bytes(data[: -_CRC.size]), _CRC.unpack(data[-_CRC.size :])
    if kind != _UINT32 or crc != zlib.crc32(body) or body[0] & 0xF0 != _TEN_MORE:
        raise Malformed("The frame does not fit its CRC-32.")
    old = bytes([body[0] - 1, wire.VERSION]) + body[2:]
    return _decode(old + zlib.crc32(old).to_bytes(4, "little"))


def seal_next(value: object, name: str = "") -> bytes:
    """A snapshot of the next version: compressed."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    body = bytes([_NEXT_SNAPSHOT]) + zlib.compress(packed, 1)
    return body + zlib.crc32(body, zlib.crc32(name.encode())).to_bytes(4, "little")


def open_either(data: bytes | None, what: str, name: str = "") -> Any:
    """A snapshot of either version. Raises SnapshotCorruptError."""
    if not data or data[0] != _NEXT_SNAPSHOT:
        return _open(data, what, name)
    body, crc = data[:-4], int.from_bytes(data[-4:], "little")
    if zlib.crc32(body, zlib.crc32(name.encode())) != crc:
        raise SnapshotCorruptError(f"{what} is damaged: {len(body)} bytes do not fit its CRC-32")
    return msgpack.unpackb(
        zlib.decompress(body[1:]), raw=False, strict_map_key=False, use_list=True
    )


def install(release: str) -> None:
    """Make this process such a release; call it before `workers.task` is imported."""
    if release not in RELEASES:
        raise ReleaseError(f"There is no release {release!r}; there are {', '.join(RELEASES)}.")
    changes: dict[Any, dict[str, Any]] = {
        wire: {"decode_frame": decode_either},
        snapshot: {"open_sealed": open_either, "NEWEST": _NEXT_SNAPSHOT},
    }
    if release == "next":
        changes[wire]["encode_frame"] = encode_next
        changes[snapshot] |= {"seal": seal_next, "VERSION": _NEXT_SNAPSHOT}
    for module, names in changes.items():
        for name, value in names.items():
            setattr(module, name, value)
