"""One bit turns over, and nothing else."""

import random

import pytest

from loadtest.faults.bits import (
    Held,
    Said,
    change_of,
    damaged,
    kind_of_key,
    partition_of_key,
)

_SAID = Said(b"key", b"some value", (("snn-seal", b"\x07" * 24),))


def _distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def _apart(one: Said, other: Said) -> int:
    """Bits in which two records of the same form differ."""
    flat = [
        b"".join([s.key or b"", s.value or b"", *(n.encode() + v for n, v in s.headers)])
        for s in (one, other)
    ]
    return _distance(*flat)


def test_a_damaged_record_differs_in_one_bit_of_any_of_its_parts() -> None:
    dice = random.Random(1)
    found = [damaged(_SAID, dice) for _ in range(300)]
    assert all(said is not None and _apart(said, _SAID) == 1 for said in found)
    changed = {
        name
        for said in found
        for name in Said._fields
        if getattr(said, name) != getattr(_SAID, name)
    }
    assert changed == set(Said._fields)


def test_a_header_keeps_a_name_that_is_text() -> None:
    dice = random.Random(2)
    only_headers = Said(None, None, (("snn-seal", b""),))
    for _ in range(50):
        said = damaged(only_headers, dice)
        assert said is not None
        assert said.headers[0][0].isascii()
        assert said.headers[0][0] != "snn-seal"


def test_a_record_without_anything_cannot_be_damaged() -> None:
    assert damaged(Said(None, b""), random.Random(1)) is None


@pytest.mark.parametrize(
    "held",
    [b"abc", {b"a": b"1", b"bc": b"", b"": b"x"}, frozenset({b"a", b"bc"})],
    ids=["string", "hash", "set"],
)
def test_a_change_of_the_store_takes_what_is_there_and_puts_one_bit_of_it_otherwise(
    held: Held,
) -> None:
    dice = random.Random(3)
    for _ in range(100):
        change = change_of(held, dice)
        assert change is not None
        (name, value), (other, new) = change.taken, change.put
        if isinstance(held, bytes):
            assert value == held
        else:
            assert name in held
        assert _distance(name, other) + _distance(value, new) == 1


def test_an_empty_key_is_left_alone() -> None:
    assert change_of(b"", random.Random(1)) is None


@pytest.mark.parametrize(
    ("key", "kind", "partition"),
    [
        (b"snn:{p1}:blob:af03:0", "blob", 1),
        (b"snn:{p12}:task:op/0/12@0", "task", 12),
        (b"snn:{p0}:workers", "workers", 0),
        (b"snn:network:digits", "network", None),
        (b"snn:keys", "keys", None),
    ],
)
def test_a_key_tells_what_it_is_for_and_whose(key: bytes, kind: str, partition: int | None) -> None:
    assert kind_of_key(key) == kind
    assert partition_of_key(key) == partition
