"""One bit of what a store holds turns over: of a value, of a field's name, of a member's."""

from collections.abc import Callable

from router.store.simulated import SimulatedStore

__all__ = ["turn_bit", "turned"]

_FOR_GOOD_MS = 10**12
"""How long a blob lives from now on: the simulated store knows SET with PX only."""


def turned(data: bytes, bit: int) -> bytes:
    """The bytes with one bit turned over."""
    copy = bytearray(data)
    copy[bit // 8] ^= 1 << bit % 8
    return bytes(copy)


def turn_bit(store: SimulatedStore, draw: Callable[[int], int], kind: bytes = b"") -> str | None:
    """Turn one bit of a key of this kind, such as `b"pos:"`; says of what, None if there is none.

    `draw(n)` gives a number below n. Every key is as likely as any other, and so is each of its
    fields.
    """
    found = [(key, held) for key, (held, _) in sorted(store.dump().items()) if kind in key]
    found = [(key, held) for key, held in found if held]
    if not found:
        return None
    key, held = found[draw(len(found))]
    if isinstance(held, bytes):
        store.command("SET", key, turned(held, draw(8 * len(held))), "PX", _FOR_GOOD_MS)
        return key.decode()
    if isinstance(held, dict):
        return _turn_field(store, key, held, draw)
    members = sorted(held) if isinstance(held, set) else []
    member = members[draw(len(members))]
    store.command("SREM", key, member)
    store.command("SADD", key, turned(member, draw(8 * len(member))))
    return f"{key.decode()} (member {member.decode(errors='replace')})"


def _turn_field(
    store: SimulatedStore, key: bytes, held: dict[bytes, bytes], draw: Callable[[int], int]
) -> str:
    fields = sorted(held)
    field = fields[draw(len(fields))]
    value, name = held[field], field.decode(errors="replace")
    if value and draw(5):
        store.command("HSET", key, field, turned(value, draw(8 * len(value))))
        return f"{key.decode()} ({name}: {value.decode(errors='replace')})"
    store.command("HDEL", key, field)
    store.command("HSET", key, turned(field, draw(8 * len(field))), value)
    return f"{key.decode()} (the name {name})"
