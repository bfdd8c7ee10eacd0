"""Seals: what the system wrote is told from what anybody else did."""

import hashlib
from typing import Any

import pytest

from router.seals import (
    KEY_BYTES,
    MOST_KEYS,
    SEAL_HEADER,
    Keyring,
    NoKeyError,
    Signed,
    Trust,
    key_id,
    pack_key,
    seal_of,
    unpack_key,
)

KEY = bytes(range(32))
RECORD = Signed("snn.in.camera", 2, b"cam-1", b"value")
RING = Keyring({7: KEY})


def test_a_seal_is_the_bytes_of_the_document() -> None:
    """Written out by hand, as docs/wire-format.md says it."""
    said = b"\x0d\x00snn.in.camera" + b"\x02\x00\x00\x00" + b"\x05\x00\x00\x00cam-1" + b"value"
    mac = hashlib.blake2b(said, key=KEY, digest_size=16, person=b"snn-seal").digest()
    assert RING.seal(RECORD) == b"\x07\0\0\0\0\0\0\0" + mac
    assert RING.seal(RECORD).hex() == "0700000000000000e45406d4545c7e4500bd0f92c660e00a"


def test_what_the_system_sealed_is_genuine_whoever_of_it_asks() -> None:
    other = Keyring({7: KEY, 9: bytes(32)})
    assert other.trust(RECORD, RING.seal(RECORD)) is Trust.GENUINE
    assert RING.trust(RECORD, RING.seal(RECORD)) is Trust.GENUINE


@pytest.mark.parametrize(
    "change",
    [
        {"topic": "snn.in.camerb"}, {"partition": 3}, {"key": b"cam-2"}, {"key": None},
        {"key": b""}, {"value": b"valuf"}, {"value": b""}, {"topic": "snn.in.camer"},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_that_was_changed_or_moved_is_forged(change: dict[str, Any]) -> None:
    assert RING.trust(RECORD._replace(**change), RING.seal(RECORD)) is Trust.FORGED


def test_bytes_cannot_be_moved_from_one_part_to_the_next() -> None:
    key, value = b"ab", b"cd"
    seals = {
        RING.seal(Signed("t", 0, key + value, b"")),
        RING.seal(Signed("t", 0, b"", key + value)),
        RING.seal(Signed("t", 0, None, key + value)),
        RING.seal(Signed("t", 0, key, value)),
    }
    assert len(seals) == 4


def test_every_bit_of_a_seal_counts() -> None:
    seal = RING.seal(RECORD)
    for at in range(8 * len(seal)):
        turned = bytearray(seal)
        turned[at // 8] ^= 1 << at % 8
        assert RING.trust(RECORD, bytes(turned)) is not Trust.GENUINE
    for cut in range(len(seal)):
        assert RING.trust(RECORD, seal[:cut]) is Trust.FORGED
    assert RING.trust(RECORD, seal + b"\0") is Trust.FORGED


def test_a_key_that_is_not_known_is_to_be_looked_up() -> None:
    ring = Keyring({9: bytes(32)})
    seal = RING.seal(RECORD)
    assert ring.trust(RECORD, seal) is Trust.UNKNOWN
    ring.learn({7: KEY})
    assert ring.trust(RECORD, seal) is Trust.GENUINE


def test_the_newest_key_seals() -> None:
    ring = Keyring({7: KEY})
    ring.learn({12: bytes(32), 9: b"\1" * 32})
    assert key_id(ring.seal(RECORD)) == 12


def test_a_ring_without_keys_trusts_nobody_and_seals_nothing() -> None:
    ring = Keyring()
    assert ring.trust(RECORD, b"") is Trust.FORGED
    assert ring.trust(RECORD, RING.seal(RECORD)) is Trust.UNKNOWN
    with pytest.raises(NoKeyError, match="Deploy"):
        ring.seal(RECORD)


def test_an_open_ring_trusts_everybody() -> None:
    ring = Keyring(is_open=True)
    assert ring.seal(RECORD) == b""
    assert ring.trust(RECORD, b"") is Trust.GENUINE


def test_the_oldest_keys_are_forgotten() -> None:
    ring = Keyring(dict.fromkeys(range(1, MOST_KEYS + 3), KEY))
    assert len(ring.keys) == MOST_KEYS
    assert min(ring.keys) == 3


def test_the_seal_is_found_among_other_headers() -> None:
    headers = (("traceparent", b"00"), (SEAL_HEADER, b"seal"), ("empty", None))
    assert seal_of(headers) == b"seal"
    assert seal_of(()) == seal_of(None) == seal_of([(SEAL_HEADER, None)]) == b""
    assert key_id(b"short") == 0


def test_a_damaged_key_is_none() -> None:
    stored = pack_key(KEY)
    assert unpack_key(stored) == KEY
    assert len(KEY) == KEY_BYTES
    for at in range(8 * len(stored)):
        turned = bytearray(stored)
        turned[at // 8] ^= 1 << at % 8
        assert unpack_key(bytes(turned)) is None
    assert unpack_key(b"") is None
    assert unpack_key(pack_key(KEY[1:])) is None
