"""Which node of a Redis Cluster has a key, as the cluster tells it. Pure.

A key's slot is CRC16 (XMODEM) of its hash tag, the part between the first `{` and the next `}`, or
of the whole key where there is none, modulo 16384. All keys of a partition have one tag.
"""

from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from router.store import replies
from router.store.errors import StoreReplyError
from router.store.values import Arg, Reply

__all__ = ["Address", "SlotMap", "by_slot", "slot_map", "slot_of"]

_SLOTS = 16384


class Address(NamedTuple):
    """Where a node takes clients."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class _Range(NamedTuple):
    first: int
    last: int
    master: Address


@dataclass(frozen=True)
class SlotMap:
    """Who serves which slots, as of one answer of one node; `moved` is what was learnt since."""

    ranges: tuple[_Range, ...]
    replicas: frozenset[Address]
    moved: Mapping[int, Address] = field(default_factory=dict)

    def owner(self, slot: int) -> Address | None:
        """The node that serves a slot; None when nobody does."""
        if slot in self.moved:
            return self.moved[slot]
        at = bisect_right(self.ranges, slot, key=lambda each: each.first) - 1
        if at < 0 or slot > self.ranges[at].last:
            return None
        return self.ranges[at].master

    def with_moved(self, slot: int, to: Address) -> "SlotMap":
        """The same after a node said that `to` has this slot."""
        return replace(self, moved={**self.moved, slot: to})

    @property
    def masters(self) -> tuple[Address, ...]:
        """Every node that serves slots, once."""
        owners = [each.master for each in self.ranges]
        return tuple(dict.fromkeys([*owners, *self.moved.values()]))

    @property
    def nodes(self) -> tuple[Address, ...]:
        """Every node that is known."""
        return tuple(dict.fromkeys([*self.masters, *sorted(self.replicas)]))


def slot_of(key: Arg) -> int:
    """The slot of a key."""
    text = key if isinstance(key, bytes) else str(key).encode()
    begin = text.find(b"{")
    end = text.find(b"}", begin + 1) if begin >= 0 else -1
    return crc_hqx(text[begin + 1 : end] if end > begin + 1 else text, 0) % _SLOTS


def by_slot(commands: Sequence[Sequence[Arg]]) -> list[list[int]]:
    """Places of the commands that may be sent together: those whose key is in one slot.

    The key of a command stands after its name.
    """
    groups: dict[int, list[int]] = {}
    for place, command in enumerate(commands):
        groups.setdefault(slot_of(command[1]), []).append(place)
    return list(groups.values())


def slot_map(reply: Reply, asked: Address) -> SlotMap:
    """Read the reply of CLUSTER SLOTS; a node without a name of its own is the one `asked`."""
    try:
        rows = [replies.items_of(row) for row in replies.items_of(reply)]
        ranges = [
            _Range(replies.integer(first), replies.integer(last), _address(nodes[0], asked))
            for first, last, *nodes in rows
        ]
        replicas = {_address(node, asked) for _, _, _, *others in rows for node in others}
    except (ValueError, IndexError) as error:
        raise StoreReplyError(
            f"The cluster told of its slots what no release writes ({error})."
        ) from error
    return SlotMap(tuple(sorted(ranges)), frozenset(replicas))


def _address(node: Reply, asked: Address) -> Address:
    host, port, *_ = replies.items_of(node)
    name = "" if host is None else replies.text(host)
    return Address(asked.host if name in ("", "?") else name, replies.integer(port))
