"""Frames: golden vectors, canonical form, limits, and refusal of what contradicts the format."""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from router.wire import (
    ERROR_BYTES,
    MAX_BATCHES,
    NAME_BYTES,
    Batch,
    Damaged,
    Frame,
    Kind,
    Malformed,
    Oversized,
    StreamId,
    Truncated,
    UnknownVersion,
    WireError,
    clip_text,
    decode_frame,
    encode_frame,
    encode_frames,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "wire"
VECTORS = sorted((GOLDEN / "v2" / "frame").glob("*.json"))
UNCHECKED = sorted((GOLDEN / "v1" / "frame").glob("*.json"))
OPERATOR = "0123456789abcdef" * 2
NODE = "f" * 32


def batch(number: int = 0, **changes: Any) -> Batch:
    whole = Batch(NODE, StreamId(5, number), f"s{number}", ("a", "b"), 9, 0, 0, 4, payload=b"\0")
    return whole._replace(**changes)


def frame(*batches: Batch) -> Frame:
    return Frame(OPERATOR, 2, list(batches))


def from_golden(content: dict[str, Any]) -> Frame:
    batches = [
        Batch(
            **{
                **item,
                "stream": StreamId(*item["stream"]),
                "networks": tuple(item["networks"]),
                "kind": Kind[item["kind"]],
                "payload": bytes.fromhex(item["payload"]),
            }
        )
        for item in content["batches"]
    ]
    return Frame(content["operator"], content["group"], batches)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: str(path.stem))
def test_golden_frame_is_read_and_written_unchanged(path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    data = bytes.fromhex(vector["bytes"])
    assert decode_frame(data) == from_golden(vector["content"])
    assert encode_frame(from_golden(vector["content"])) == data
    assert encode_frame(decode_frame(data)) == data
    assert encode_frame(decode_frame(memoryview(data))) == data


@pytest.mark.parametrize("path", UNCHECKED, ids=lambda path: str(path.stem))
def test_golden_frame_without_a_crc_is_read_still(path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    assert decode_frame(bytes.fromhex(vector["bytes"])) == from_golden(vector["content"])


def test_no_golden_vector_was_changed_or_removed_or_left_unlisted() -> None:
    lines = [line.split("  ") for line in (GOLDEN / "SHA256SUMS").read_text().splitlines()]
    listed = {path: digest for digest, path in lines}
    present = {
        path.relative_to(GOLDEN).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in GOLDEN.rglob("*.json")
    }
    assert present == listed
    assert len(VECTORS) >= 6
    assert [path.name for path in VECTORS] == [path.name for path in UNCHECKED]


def test_payload_is_a_view_into_the_frame_and_not_a_copy() -> None:
    decoded = decode_frame(encode_frame(frame(batch(0, payload=b"\1\7"), batch(1))))
    payloads = [item.payload for item in decoded.batches]
    assert all(isinstance(payload, memoryview) for payload in payloads)
    assert [bytes(payload) for payload in payloads] == [b"\1\7", b"\0"]


def test_types_survive_exactly() -> None:
    decoded = decode_frame(encode_frame(frame(batch(0, end=True, window=3)))).batches[0]
    assert type(decoded) is Batch
    assert type(decoded.stream) is StreamId
    assert type(decoded.kind) is Kind
    assert type(decoded.end) is bool
    assert {type(value) for value in (decoded.seed, decoded.window, decoded.stop)} == {int}


def test_equal_frames_give_equal_bytes_whatever_holds_their_values() -> None:
    plain = frame(batch(0, payload=b"\1\7"), batch(1))
    other = frame(
        batch(0, payload=memoryview(b"x\1\7")[1:], networks=("a", "b")),
        batch(1, end=0, kind=0, node=NODE[:16] + NODE[16:]),
    )
    assert encode_frame(plain) == encode_frame(other)


def test_order_of_batches_survives() -> None:
    numbers = [5, 1, 3, 3, 2**63, 0]
    decoded = decode_frame(encode_frame(frame(*map(batch, numbers))))
    assert [item.stream.number for item in decoded.batches] == numbers


def test_columns_of_equal_rows_cost_nothing_per_batch() -> None:
    small, large = (
        encode_frame(frame(*(batch(i, name="", payload=b"") for i in range(1, n + 1))))
        for n in (130, 230)
    )
    assert len(large) - len(small) == 100  # the column of numbers has a byte each


def test_non_ascii_names_are_cut_apart_at_their_bytes() -> None:
    names = ["ä", "", "日本", "plain", "𝄞" * 50]
    decoded = decode_frame(encode_frame(frame(*(batch(name=name) for name in names))))
    assert [item.name for item in decoded.batches] == names


@pytest.mark.parametrize(
    "changes",
    [
        {"node": NODE.upper()},
        {"node": NODE[1:]},
        {"node": NODE + "\n"},
        {"node": " " + NODE[1:]},
        {"stream": StreamId(-1, 0)},
        {"stream": StreamId(0, 2**64)},
        {"seed": -1},
        {"seed": 2**64},
        {"window": 2**64},
        {"start": 5},
        {"stop": 2**32},
        {"start": 2**64 - 1, "stop": 2**64},
        {"name": "\ud800"},
        {"networks": ("a b",)},
        {"networks": ("a;b",)},
        {"networks": ("",)},
        {"kind": Kind.ABORT},
        {"kind": Kind.ERA},
        {"kind": 4},
        {"error": "spikes do not fail"},
        {"payload": "text"},
        {"payload": memoryview(struct.pack("<2I", 1, 2)).cast("I")},
        {"window": 1.0},
        {"window": None},
        {"name": b"s"},
    ],
    ids=lambda change: "+".join(change),  # a repr may hold an address
)
@pytest.mark.parametrize("beside", [(), (batch(7),)], ids=["alone", "beside"])
def test_illegal_batch_is_refused_when_written(
    changes: dict[str, Any], beside: tuple[Batch, ...]
) -> None:
    with pytest.raises(Malformed):
        encode_frame(frame(*beside, batch(**changes)))


@pytest.mark.parametrize(
    ("operator", "group"), [("x" * 32, 0), (OPERATOR, -1), (OPERATOR, 2**32), ("", 0)]
)
def test_illegal_frame_is_refused_when_written(operator: str, group: int) -> None:
    with pytest.raises(Malformed):
        encode_frame(Frame(operator, group, [batch()]))


def test_name_beyond_its_limit_is_refused_and_at_its_limit_is_not() -> None:
    name = "ä" * (NAME_BYTES // 2)
    assert decode_frame(encode_frame(frame(batch(name=name)))).batches[0].name == name
    with pytest.raises(Oversized):
        encode_frame(frame(batch(name=name + "x")))


def test_long_error_is_cut_so_that_an_abort_can_always_be_sent() -> None:
    abort = batch(kind=Kind.ABORT, payload=b"", error="x" + "ä" * ERROR_BYTES)
    error = decode_frame(encode_frame(frame(abort))).batches[0].error
    assert error == "x" + "ä" * ((ERROR_BYTES - 1) // 2)


@pytest.mark.parametrize(
    ("text", "cut"), [("abcd", "abcd"), ("abcde", "abcd"), ("aäää", "aä"), ("\ud800", "?")]
)
def test_clipped_text_is_valid_utf8_within_its_limit(text: str, cut: str) -> None:
    assert clip_text(text, 4) == cut


def test_more_batches_than_the_limit_are_refused_and_splitting_keeps_them() -> None:
    batches = [batch(i) for i in range(MAX_BATCHES + 1)]
    with pytest.raises(Oversized):
        encode_frame(frame(*batches))
    parts = [decode_frame(data) for data in encode_frames(frame(*batches))]
    assert [len(part.batches) for part in parts] == [MAX_BATCHES, 1]
    assert [item for part in parts for item in part.batches] == batches


def test_split_records_stay_below_the_limit_and_keep_order() -> None:
    batches = [batch(i, payload=bytes(i * 37 % 900), name=f"日{i}") for i in range(200)]
    records = encode_frames(frame(*batches), limit=4000)
    assert max(map(len, records)) <= 4000
    assert [item for data in records for item in decode_frame(data).batches] == batches
    assert 25 < len(records) < 60


def test_batch_too_large_for_any_frame_is_refused_by_its_window() -> None:
    with pytest.raises(Oversized, match="Window 12 of stream 's0'"):
        encode_frames(frame(batch(window=12, payload=bytes(5000))), limit=4000)


def test_a_frame_without_batches_needs_no_record() -> None:
    assert encode_frames(frame()) == []


# Damage that is made on purpose: fields of the envelope are replaced one by one.

FIELDS = (
    "version", "operator", "group", "n", "nodes", "routes", "eras", "columns", "names", "errors",
    "payloads",
)  # fmt: skip
COLUMNS = (
    "node", "route", "era", "number", "seed", "window", "start", "steps", "flags", "name_length",
    "error_length", "payload_length",
)  # fmt: skip


def envelope(*batches: Batch) -> dict[str, Any]:
    fields = msgpack.unpackb(encode_frame(frame(*batches))[:-4])
    return dict(zip(FIELDS, fields, strict=True))


def checked(body: bytes) -> bytes:
    """With the CRC-32 that it must have: what is damaged is damaged on purpose."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def packed(fields: dict[str, Any]) -> bytes:
    return checked(msgpack.packb(list(fields.values())))


def damaged(change: Callable[[dict[str, Any]], object], *batches: Batch) -> bytes:
    fields = envelope(*(batches or (batch(1), batch(2), batch(3))))
    decode_frame(packed(fields))
    change(fields)
    return packed(fields)


def column(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda fields: fields["columns"].__setitem__(COLUMNS.index(name), value)


def field(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda fields: fields.__setitem__(name, value)


@pytest.mark.parametrize(
    "change",
    [
        field("operator", b"short"),
        field("operator", "0123456789abcdef"),
        field("group", -1),
        field("group", 2**32),
        field("group", True),
        field("n", 0),
        field("n", 2),
        field("n", 4),
        field("n", MAX_BATCHES + 1),
        field("n", 2**63),
        field("nodes", b""),
        field("nodes", bytes(15)),
        field("nodes", bytes(32)),
        field("routes", "a b"),
        field("routes", "a;b"),
        field("routes", "a," + "x" * 101),
        field("routes", b"a,b"),
        field("eras", b""),
        field("eras", bytes(7)),
        field("eras", bytes(16)),
        field("columns", []),
        field("columns", [0] * 13),
        field("columns", {}),
        field("names", b"s1s2"),
        field("names", b"s1s2s3s"),
        field("names", b"s1s2s\xff"),
        field("names", "s1s2s3"),
        field("errors", b"x"),
        field("payloads", b""),
        field("payloads", bytes(4)),
        column("node", 1),
        column("node", b"\0\1\1"),
        column("route", b"\0\0\0"),
        column("era", -1),
        column("number", b"\1\2"),
        column("number", b"\1\1\1"),
        column("number", struct.pack("<3H", 1, 2, 3)),
        column("number", struct.pack("<3Q", 1, 2, 2**32 - 1)),
        column("number", bytes(9)),
        column("number", "123"),
        column("number", 1.0),
        column("number", None),
        column("start", 2**64 - 1),
        column("steps", 2**32),
        column("steps", struct.pack("<3Q", 1, 2, 2**32)),
        column("flags", 8),
        column("flags", b"\0\0\x0b"),
        column("flags", int(Kind.ERA)),
        column("name_length", 201),
        column("name_length", b"\0\0\xff"),
        column("error_length", 1),
        column("payload_length", 2**32 - 1),
        column("payload_length", b"\1\1\0"),
    ],
)
def test_contradiction_within_a_frame_is_refused(
    change: Callable[[dict[str, Any]], object],
) -> None:
    with pytest.raises(Malformed):
        decode_frame(damaged(change))


@pytest.mark.parametrize(
    "change",
    [
        field("nodes", bytes.fromhex(NODE * 2)),  # twice the same
        field("nodes", bytes(16) + bytes.fromhex(NODE) + bytes(16)),  # one that no row names
        column("node", b"\1\0"),  # not in the order of first sight
        column("node", b"\0\2"),
        column("node", 0),
    ],
)
def test_table_that_is_not_canonical_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    two = (batch(1, node="0" * 32), batch(1))
    with pytest.raises(Malformed):
        decode_frame(damaged(change, *two))


def test_contents_without_a_batch_are_refused() -> None:
    fields = envelope()
    for name in ("nodes", "eras", "names", "errors", "payloads"):
        with pytest.raises(Malformed):
            decode_frame(packed({**fields, name: bytes(16)}))
    with pytest.raises(Malformed):
        decode_frame(packed({**fields, "columns": [0] * 11 + [1]}))


@pytest.mark.parametrize("version", [0, 3, 127])
def test_other_version_is_named_whatever_follows_it(version: int) -> None:
    data = bytearray(encode_frame(frame(batch())))
    data[1] = version
    for whole in (bytes(data), bytes(data[:2]), bytes(data[:2]) + b"\xc1\xc1"):
        with pytest.raises(UnknownVersion, match=f"version {version};"):
            decode_frame(whole)


def test_every_beginning_of_a_frame_is_called_truncated_or_damaged() -> None:
    data = encode_frame(frame(batch(1), batch(2, name="ä", payload=bytes(300))))
    for stop in range(len(data)):
        with pytest.raises((Truncated, Damaged)):
            decode_frame(data[:stop])
    for stop in range(2, len(data) - 4):
        with pytest.raises(Truncated):
            decode_frame(checked(data[:stop]))


def test_every_single_bit_of_damage_is_noticed() -> None:
    data = encode_frame(frame(batch(1), batch(2, name="ä", payload=bytes(30))))
    for at in range(8 * len(data)):
        turned = bytearray(data)
        turned[at // 8] ^= 1 << at % 8
        with pytest.raises(WireError):
            decode_frame(bytes(turned))


@pytest.mark.parametrize(
    "data",
    [b"{}", b"\x81\x01\x02", b"\x9b\xcc\x01", b"\xdc\x00\x0b\x01", b"plain text", b"\xc1\x01"],
)
def test_bytes_of_something_else_are_called_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_frame(data)


def test_bytes_behind_a_frame_are_refused() -> None:
    data = encode_frame(frame(batch()))
    with pytest.raises(Damaged):
        decode_frame(data + b"\0")
    with pytest.raises(Malformed):
        decode_frame(checked(data[:-4] + b"\0"))


def test_wire_errors_are_final_and_are_value_errors() -> None:
    for kind in (UnknownVersion, Damaged, Truncated, Malformed, Oversized):
        assert issubclass(kind, WireError)
        assert issubclass(kind, ValueError)
        assert not kind.retryable
