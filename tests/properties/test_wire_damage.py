"""Damaged and hostile bytes: a named error each time or a legal value, at bounded cost."""

import gc
import json
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.deadletter import DeadLetterError
from router.deadletter import decode as decode_letter
from router.payload import PayloadError, check, count_active, pack, unpack, unpack_result
from router.records import RecordError, encode_record, parse_record
from router.wire import Batch, Frame, StreamId, WireError, decode_frame, encode_frame
from topologies.errors import SpikeRouterError

GOLDEN = Path(__file__).parents[1] / "golden" / "wire"


def golden(kind: str) -> list[tuple[bytes, dict[str, Any]]]:
    """Bytes and contents of the vectors of one kind, of all versions."""
    vectors = [json.loads(p.read_text("utf-8")) for p in sorted(GOLDEN.glob(f"*/{kind}/*.json"))]
    return [(bytes.fromhex(vector["bytes"]), vector["content"]) for vector in vectors]


# Each check reads bytes. It passes when they are refused by name, or when what they say is written
# as bytes that say the same; anything else that is raised fails the test.


def refused(error: SpikeRouterError) -> bool:
    """The outcome of a refusal, whose sentence can be written to a dead letter."""
    assert str(error).encode("utf-8")
    return False


def check_frame(data: bytes) -> bool:
    try:
        frame = decode_frame(data)
    except WireError as error:
        return refused(error)
    assert decode_frame(encode_frame(frame)) == frame
    return True


def check_record(data: bytes, key: bytes | None = None) -> bool:
    try:
        record = parse_record(key, data, 0, 1)
    except RecordError as error:
        return refused(error)
    assert parse_record(key, encode_record(record), 0, 1) == record
    return True


def check_any_record(data: bytes) -> bool:
    """As a request, and as a record of a stream."""
    return check_record(data) | check_record(data, b"cam")


def check_letter(data: bytes) -> bool:
    try:
        decode_letter(data)
    except DeadLetterError as error:
        return refused(error)
    return True


def check_result(data: bytes) -> bool:
    try:
        unpack_result(data)
    except PayloadError as error:
        return refused(error)
    return True


def check_window(data: bytes, n_steps: int, n: int, low: int, high: int) -> bool:
    """A payload that is accepted is canonical: it is exactly what its content is packed as. And the
    quick check refuses what unpacking refuses, no more and no less."""
    quick = _is_accepted(data, n_steps, n, low, high)
    try:
        count_active(data)
    except PayloadError as error:
        refused(error)
    try:
        values = unpack([b"\0", data], n_steps, n, low, high)
    except PayloadError as error:
        assert not quick
        return refused(error)
    assert quick
    assert pack(values[1:], low, high) == [data]
    return True


def _is_accepted(data: bytes, n_steps: int, n: int, low: int, high: int) -> bool:
    try:
        check(data, n_steps, n, low, high)
    except PayloadError as error:
        return refused(error)
    return True


def mutations(data: bytes) -> Iterator[bytes]:
    """Every beginning, every byte dropped or doubled, or with a bit turned or an extreme value; and
    the first bytes, which say what the rest is, as every other."""
    for at in range(len(data)):
        yield data[:at]
        yield data[:at] + data[at + 1 :]
        yield data[:at] + data[at : at + 1] + data[at:]
        turned = [data[at] ^ 1 << bit for bit in range(8)]
        for byte in range(256) if at < 24 else (*turned, 0, 1, 0x7F, 0x80, 0xC4, 0xFF):
            yield data[:at] + bytes([byte]) + data[at + 1 :]
    yield data + b"\0"


def scrambled(data: bytes, pool: list[bytes], seed: int, n: int) -> Iterator[bytes]:
    """`n` variants with several damages each: bytes, 32-bit extremes, pieces of other vectors."""
    rng = random.Random(seed)
    for _ in range(n):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(damaged) + 1)
            piece = rng.choice(pool)
            start = rng.randrange(len(piece) + 1)
            damaged[at : at + rng.randint(0, 4)] = rng.choice(
                [
                    rng.randbytes(rng.randint(1, 4)),
                    rng.choice(
                        [b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 8, b"\xdd\xff\xff\xff\xff"]
                    ),
                    piece[start : start + rng.randint(1, 24)],
                ]
            )
        yield bytes(damaged)


CHECKS: dict[str, Callable[[bytes], bool]] = {
    "frame": check_frame,
    "record": check_any_record,
    "deadletter": check_letter,
    "result": check_result,
}
SEEDS = [(kind, i) for kind in CHECKS for i in range(len(golden(kind)))]


@pytest.mark.parametrize(("kind", "i"), SEEDS)
def test_each_single_damage_gives_a_named_error_or_a_legal_value(kind: str, i: int) -> None:
    data, _ = golden(kind)[i]
    judge = CHECKS[kind]
    assert judge(data)
    outcomes = list(map(judge, mutations(data)))
    for damaged in scrambled(data, [d for d, _ in golden(kind)], seed=i, n=400):
        judge(damaged)
    assert not all(outcomes)


@pytest.mark.parametrize("i", range(len(golden("payload"))))
def test_each_damage_to_a_window_gives_a_named_error_or_a_canonical_payload(i: int) -> None:
    data, content = golden("payload")[i]
    edge = content["steps"], content["neurons"], content["low"], content["high"]
    assert check_window(data, *edge)
    if content["steps"] * content["neurons"] < 1000:
        for damaged in mutations(data):
            check_window(damaged, *edge)
    for damaged in scrambled(data, [d for d, _ in golden("payload")], seed=i, n=300):
        check_window(damaged, *edge)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_named_error_or_a_legal_value(data: bytes) -> None:
    for judge in CHECKS.values():
        judge(data)
    check_frame(b"\x9b\x01" + data)
    check_frame(checked(b"\x9b\x02" + data))
    check_any_record(b"{" + data)
    check_window(data, 3, 20, 0, 1)
    check_window(data, 3, 20, -5, 300)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary()
    | st.text()
)
fields = st.text(max_size=3) | st.sampled_from(["v", "k", "end", "data", "events"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(fields, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_any_msgpack_value_gives_a_named_error_or_a_legal_value(value: object) -> None:
    try:
        data = msgpack.packb(value)
        nested = msgpack.packb([1, *([value] * 10)])
        record = msgpack.packb({"v": 1, "k": "data", "payload": value, "end": value})
    except (ValueError, UnicodeEncodeError):
        return
    for judge in CHECKS.values():
        judge(data)
    check_frame(nested)
    check_any_record(record)


def huge_arrays(depth: int) -> bytes:
    """Arrays in arrays, each of which claims 2**32 - 1 entries."""
    return b"\xdd\xff\xff\xff\xff" * depth


def constants(n_batches: int) -> bytes:
    """A few bytes that claim many equal batches."""
    frame = msgpack.unpackb(
        encode_frame(Frame("0" * 32, 0, [Batch("0" * 32, StreamId(0, 0), "", (), 0, 0, 0, 0)]))[:-4]
    )
    frame[3] = n_batches
    return checked(msgpack.packb(frame))


def checked(body: bytes) -> bytes:
    """A frame's CRC-32 behind it, whatever it is."""
    return body + zlib.crc32(body).to_bytes(4, "little")


HOSTILE = {
    "array of 4 G": b"\x9b\x01" + huge_arrays(1),
    "nested arrays": b"\x9b\x01" + huge_arrays(100_000),
    "nested small arrays": b"\x9b\x01" + b"\x9f" * 900_000,
    "nested arrays of 16 bit": b"\x9b\x01" + b"\xdc\xff\xff" * 300_000,
    "nested maps": b"\x9b\x01" + b"\xdf\xff\xff\xff\xff" * 100_000,
    "nested maps in a record": b"\x81\xa1v" * 200_000,
    "nested arrays in a record": b"\x81\xa1v" + huge_arrays(100_000),
    "nested legal arrays in a record": b"\x81\xa1v" + b"\xdc\x01\x00" * 300_000,
    "map of 4 G": b"\xdf\xff\xff\xff\xff",
    "bin of 4 GB": b"\x9b\x01\xc6\xff\xff\xff\xff",
    "str of 4 GB": b"\x9b\x01\xdb\xff\xff\xff\xff",
    "ext of 4 GB": b"\x9b\x01\xc9\xff\xff\xff\xff\x01",
    "most batches": constants(4096),
    "more batches than may be": constants(4097),
    "4 G batches": constants(2**32 - 1),
    "2**64 batches": constants(2**64 - 1),
    "JSON lists": b'{"data": ' + b"[" * 500_000,
    "JSON lists in legal depth": b'{"data": [' + b"[" * 7 + b"]" * 7 + b"}",
    "JSON maps": b'{"a":' * 100_000,
    "JSON long text beside many": b'{"data": ["' + b"x" * 100_000 + b'"' + b',"y"' * 50_000 + b"]}",
    "JSON digits": b'{"until": ' + b"9" * 500_000 + b"}",
    "result of 4 G": b"\x06" + struct.pack("<I", 2**32 - 1),
    "shape of many cells": msgpack.packb(
        {"v": 1, "k": "data", "payload": b"1", "dtype": "uint8", "shape": [2**32 - 1] * 8}
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_cost_memory_in_proportion_to_their_number(data: bytes) -> None:
    for judge in CHECKS.values():
        gc.collect()
        tracemalloc.start()
        try:
            judge(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 20_000_000 + 32 * len(data)


def test_hostile_payload_costs_no_more_than_the_window_that_is_expected() -> None:
    payloads = [bytes([head]) + b"\xff" * 100_000 for head in range(256)]
    for payload in payloads:
        tracemalloc.start()
        try:
            assert not check_window(payload, 16, 512, -9, 9)
            assert not check_window(payload, 16, 512, 0, 1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 10_000_000


def test_damage_to_a_large_frame_gives_a_named_error_or_a_legal_value() -> None:
    rng = np.random.default_rng(1)
    spikes = (rng.random((64, 4, 100)) < 0.1).astype(np.uint8)
    batches = [
        Batch(
            f"{i % 3:032x}", StreamId(1 + i % 2, i * i), f"ström-{i}", ("a", f"b{i % 4}")[: i % 3],
            i, i, 4 * i, 4 * i + 4, payload=payload,
        )
        for i, payload in enumerate(pack(spikes, 0, 1))
    ]  # fmt: skip
    data = encode_frame(Frame("e" * 32, 1, batches))
    pool = [data, *(d for d, _ in golden("frame"))]
    assert not any(check_frame(d) for d in scrambled(data, pool, seed=9, n=300) if d != data)
    bodies = scrambled(data[:-4], pool, seed=9, n=3000)
    outcomes = [check_frame(checked(body)) for body in bodies]  # damaged before it was sealed
    assert 0 < sum(outcomes) < len(outcomes)
