"""One bit of something turns over: of a record, or of what a store holds. Pure."""

import random
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from loadtest.simulation.damage import turned

__all__ = [
    "Change",
    "Held",
    "Said",
    "change_of",
    "damaged",
    "kind_of_key",
    "partition_of_key",
]

_PARTITION: Final = re.compile(rb"snn:\{p([0-9]+)\}:")
Held = bytes | Mapping[bytes, bytes] | frozenset[bytes]
"""What lies under a key of the store: a string, a hash, a set."""


class Said(NamedTuple):
    """A record: the very bytes, headers and all."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Change(NamedTuple):
    """What is taken from a key of the store, and what is put there instead.

    `of` is what lies there: of a hash these are (field, value), of a set (member, ""), of a string
    ("", contents).
    """

    of: str
    taken: tuple[bytes, bytes]
    put: tuple[bytes, bytes]
    what: str


def _any_bit(data: bytes, dice: random.Random) -> bytes:
    return turned(data, dice.randrange(8 * len(data)))


# ---- records ----------------------------------------------------------------------------------


def damaged(said: Said, dice: random.Random) -> Said | None:
    """The record with one bit turned: mostly of its value, else of its key or of a header.

    None where there is nothing to turn.
    """
    parts = [part for part in ("value",) * 4 + ("key", "headers") if getattr(said, part)]
    if not parts:
        return None
    match dice.choice(parts):
        case "value":
            return said._replace(value=_any_bit(said.value or b"", dice))
        case "key":
            return said._replace(key=_any_bit(said.key or b"", dice))
    at = dice.randrange(len(said.headers))
    headers = list(said.headers)
    headers[at] = _damaged_header(*headers[at], dice)
    return said._replace(headers=tuple(headers))


def _damaged_header(name: str, value: bytes, dice: random.Random) -> tuple[str, bytes]:
    if value and dice.randrange(4):
        return name, _any_bit(value, dice)
    at = dice.randrange(len(name))  # the highest bit stays: a name is text
    return name[:at] + chr(ord(name[at]) ^ 1 << dice.randrange(7)) + name[at + 1 :], value


# ---- the store --------------------------------------------------------------------------------


def kind_of_key(key: bytes) -> str:
    """What a key of the store is for: `blob` of `snn:{p1}:blob:<nonce>:0`, `keys` of `snn:keys`."""
    parts = key.decode(errors="replace").split(":")
    at = 2 if len(parts) > 2 and parts[1].startswith("{") else 1
    return parts[at] if len(parts) > at else parts[-1]


def partition_of_key(key: bytes) -> int | None:
    """The partition that a key of the store belongs to; None: to all of them."""
    found = _PARTITION.match(key)
    return int(found[1]) if found else None


def change_of(held: Held, dice: random.Random) -> Change | None:
    """One bit of a field's value, of a field's name, of a member, or of a string; None if empty."""
    if not held:
        return None
    if isinstance(held, bytes):
        put = _any_bit(held, dice)
        return Change("string", (b"", held), (b"", put), "its value")
    if isinstance(held, Mapping):
        return _of_field(held, dice)
    member = dice.choice(sorted(held))
    what = f"member {_shown(member)}"
    other = _any_bit(member, dice) if member else b"\1"
    return Change("set", (member, b""), (other, b""), what)


def _of_field(held: Mapping[bytes, bytes], dice: random.Random) -> Change:
    field = dice.choice(sorted(held))
    value = held[field]
    if value and dice.randrange(5):
        put = (field, _any_bit(value, dice))
        return Change("hash", (field, value), put, f"field {_shown(field)}")
    other = _any_bit(field, dice) if field else b"\1"
    return Change("hash", (field, value), (other, value), f"the name of field {_shown(field)}")


def _shown(name: bytes) -> str:
    return name.decode(errors="replace")[:80]
