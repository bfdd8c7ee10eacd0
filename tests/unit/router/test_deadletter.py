"""Dead letters: golden vectors, and that none is too large or too odd to be sent."""

import json
from pathlib import Path

import msgpack
import pytest

from router.deadletter import VALUE_BYTES, DeadLetter, DeadLetterError, decode, encode

GOLDEN = Path(__file__).parents[2] / "golden" / "wire" / "v1" / "deadletter"
VECTORS = sorted(GOLDEN.glob("*.json"))
LETTER = DeadLetter("snn.in.a", 1, 2, b"cam", "The step is before the mark.", "cam", b"{}")


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: str(path.stem))
def test_golden_dead_letter_is_read_and_written_unchanged(path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    fields = vector["content"]
    for name in ("key", "value"):
        fields[name] = None if fields[name] is None else bytes.fromhex(fields[name])
    data = bytes.fromhex(vector["bytes"])
    assert encode(DeadLetter(**fields)) == data
    assert decode(data) == DeadLetter(**fields)


def test_large_letter_is_cut_and_keeps_the_beginning_of_the_value() -> None:
    value = bytes(range(256)) * 1000
    letter = DeadLetter("t", 0, 0, b"k" * 5000, "ä" * 5000, "\ud800" * 500, value)
    data = encode(letter)
    assert len(data) < VALUE_BYTES + 6000
    assert decode(data).value == value[:VALUE_BYTES]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\xc1",
        encode(LETTER)[:-1],
        encode(LETTER) + b"\0",
        msgpack.packb({**msgpack.unpackb(encode(LETTER)), "v": 2}),
        msgpack.packb({**msgpack.unpackb(encode(LETTER)), "offset": "2"}),
        msgpack.packb({**msgpack.unpackb(encode(LETTER)), "more": 1}),
    ],
)
def test_bytes_that_are_no_dead_letter_are_refused(data: bytes) -> None:
    with pytest.raises(DeadLetterError):
        decode(data)
