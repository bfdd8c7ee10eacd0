"""Seals: what the system says to itself is told from what anybody else writes. Pure.

Workers and deployment share keys that lie in the store. Every record they write carries a seal in
the Kafka header `snn-seal`: the id of a key, and a keyed BLAKE2b (RFC 7693) of where the record
lies and what it says. Whoever may write to a topic, but does not have the keys, can neither make up
a record of the system, nor change one, nor move one to another topic or partition. To repeat one in
its place is possible and harmless: repeats are dropped by cursor (PROTOCOL 8), by era (1) and by
the age of their key (35).

A seal is 24 bytes: u64 id of the key, little-endian, and 16 bytes of the hash. Hashed are, end to
end: u16 length of the topic's name, the name, u32 partition, u32 length of the record's key
(2**32 - 1: it has none), the key, and the value.

Ids grow with time, and a deployment begins a new key: a seal also says after which deployment its
record was written.
"""

import hashlib
import hmac
import struct
import zlib
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from topologies.errors import SpikeRouterError

__all__ = [
    "KEY_BYTES",
    "MOST_KEYS",
    "SEAL_HEADER",
    "UNSEALED",
    "Keyring",
    "NoKeyError",
    "Signed",
    "Trust",
    "key_id",
    "pack_key",
    "seal_of",
    "unpack_key",
]

SEAL_HEADER: Final = "snn-seal"
KEY_BYTES: Final = 32
MOST_KEYS: Final = 1024
"""Keys that are kept, the newest: those of so many deployments. A record that is older than all of
them is nobody's."""

_MAC_BYTES: Final = 16
_ID: Final = struct.Struct("<Q")
_NO_KEY: Final = b"\xff\xff\xff\xff"
_MOST_STARTED: Final = 4096  # places whose beginning of a hash is kept
UNSEALED: Final = (
    "Unsealed: only workers and deployments write such records, and none of their keys sealed it"
)
"""Why a record is refused: the reason in its dead letter."""


class NoKeyError(SpikeRouterError, RuntimeError):
    """There is no key to seal with: the store lost them all, or nothing was ever deployed."""


class Trust(Enum):
    """What a seal says of a record."""

    GENUINE = "the system wrote it"
    UNKNOWN = "its key is not known here: look the keys up"
    FORGED = "somebody else wrote it, or changed it"


class Signed(NamedTuple):
    """A record as far as its seal goes."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes


class Keyring:
    """The keys that are known, by id; the newest seals.

    One that `is_open` takes every record for genuine, and seals with nothing: for tools that read
    topics without the store, and tests. Workers and gateways never have such a one.
    """

    def __init__(self, keys: Mapping[int, bytes] | None = None, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self._keys: dict[int, bytes] = {}
        self._newest = 0
        self._started: dict[tuple[int, str, int], Any] = {}
        self.learn(keys or {})

    @property
    def keys(self) -> Mapping[int, bytes]:
        return self._keys

    def learn(self, keys: Mapping[int, bytes]) -> None:
        """Take more keys in; the oldest beyond MOST_KEYS are forgotten."""
        self._keys.update(keys)
        for old in sorted(self._keys)[:-MOST_KEYS]:
            del self._keys[old]
        self._newest = max(self._keys, default=0)

    def seal(self, record: Signed) -> bytes:
        """The seal of a record; empty of a ring that is open. Raises NoKeyError."""
        if self._is_open:
            return b""
        if not self._keys:
            raise NoKeyError(
                "There is no key to seal records with: the store has lost them, or nothing was"
                " deployed yet. Deploy the networks again, which begins a new one."
            )
        return _ID.pack(self._newest) + self._mac(self._newest, record)

    def trust(self, record: Signed, seal: bytes) -> Trust:
        """Whether the system wrote the record."""
        if self._is_open:
            return Trust.GENUINE
        if len(seal) != _ID.size + _MAC_BYTES:
            return Trust.FORGED
        by = key_id(seal)
        if by not in self._keys:
            return Trust.UNKNOWN
        is_genuine = hmac.compare_digest(self._mac(by, record), seal[_ID.size :])
        return Trust.GENUINE if is_genuine else Trust.FORGED

    def _mac(self, by: int, record: Signed) -> bytes:
        topic, partition, key, value = record
        begun = self._started.get((by, topic, partition))
        if begun is None:
            if len(self._started) >= _MOST_STARTED:
                self._started.clear()
            begun = self._begin(by, topic, partition)
        mac = begun.copy()
        mac.update(_NO_KEY if key is None else len(key).to_bytes(4, "little") + key)
        mac.update(value)
        digest: bytes = mac.digest()
        return digest

    def _begin(self, by: int, topic: str, partition: int) -> Any:
        name = topic.encode()
        begun = hashlib.blake2b(
            len(name).to_bytes(2, "little") + name + partition.to_bytes(4, "little"),
            key=self._keys[by], digest_size=_MAC_BYTES, person=SEAL_HEADER.encode(),
        )  # fmt: skip
        self._started[by, topic, partition] = begun
        return begun


def key_id(seal: bytes) -> int:
    """The id of the key that a seal names; 0 when there is no seal."""
    (by,) = _ID.unpack(seal[: _ID.size]) if len(seal) >= _ID.size else (0,)
    return int(by)


def seal_of(headers: Any) -> bytes:
    """The seal among a record's headers, pairs of name and value; empty without one."""
    for name, value in headers or ():
        if name == SEAL_HEADER and value is not None:
            return bytes(value)
    return b""


def pack_key(key: bytes) -> bytes:
    """A key as the store keeps it: with its CRC-32, since damaged keys would refuse everything."""
    return key + zlib.crc32(key).to_bytes(4, "little")


def unpack_key(stored: bytes) -> bytes | None:
    """The key that `pack_key` packed; None for anything else."""
    key, crc = stored[:-4], stored[-4:]
    is_whole = len(key) == KEY_BYTES and zlib.crc32(key).to_bytes(4, "little") == crc
    return key if is_whole else None
