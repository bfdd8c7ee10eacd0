"""The stream names that an ingest remembers, numbered densely (PROTOCOL 1, and the reuse of names).

What is remembered follows from the input topic alone: the names of all streams that may still get
records, and those of the last `limit` streams that began, or ended. Names are kept in blocks of 256
numbers, so that a checkpoint writes only the blocks that changed. Of an old block only open names
stay, and one that ends moves to the newest block: one that stays open for ever keeps no other.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Name", "Names"]

_BLOCK = 256
_PREFIX = "names/"


class Name(NamedTuple):
    """`digest` (8 bytes) is of the first record; `open` says whether more records may follow."""

    number: int
    digest: bytes
    open: bool


class Names:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: dict[str, Name] = {}
        self._blocks: dict[int, dict[int, str]] = {}
        self._first_block = 0  # blocks below it are old
        self.next_number = 0
        self.n_open = 0

    def __len__(self) -> int:
        return len(self._names)

    def get(self, name: str) -> Name | None:
        return self._names.get(name)

    def name_of(self, number: int) -> str:
        """The name that has this number, "" when it is not remembered."""
        return self._blocks.get(number // _BLOCK, {}).get(number, "")

    def open_numbers(self) -> Iterator[int]:
        """The numbers of the streams that may still get records."""
        return (name.number for name in self._names.values() if name.open)

    def add(self, name: str, digest: bytes, is_open: bool) -> tuple[list[str], list[str]]:
        """Number a new name; gives the fields it changed and the fields that are forgotten."""
        number = self.next_number
        self.next_number += 1
        self._put(name, Name(number, digest, is_open), number // _BLOCK)
        touched, gone = self._forget() if number % _BLOCK == 0 else ([], [])
        return [_field(number // _BLOCK), *touched], gone

    def close(self, name: str) -> tuple[list[str], list[str]]:
        """No more records may follow under this name; gives the fields that changed or are gone."""
        known = self._names.get(name)
        if known is None or not known.open:
            return [], []
        self.n_open -= 1
        block = known.number // _BLOCK
        if block >= self._first_block:
            self._names[name] = known._replace(open=False)
            return [_field(block)], []
        self._blocks[block].pop(known.number)
        newest = (self.next_number - 1) // _BLOCK
        self._put(name, known._replace(open=False), newest)
        if self._blocks[block]:
            return [_field(block), _field(newest)], []
        del self._blocks[block]
        return [_field(newest)], [_field(block)]

    def clear(self) -> list[str]:
        """Forget all and number from 0 again; gives the fields that are gone."""
        gone = self.fields()
        self._names.clear()
        self._blocks.clear()
        self.next_number = self.n_open = self._first_block = 0
        return gone

    def fields(self) -> list[str]:
        return [_field(b) for b in self._blocks]

    def has(self, field: str) -> bool:
        block = field[len(_PREFIX) :]
        return block.isdecimal() and int(block) in self._blocks

    @staticmethod
    def owns(field: str) -> bool:
        return field.startswith(_PREFIX)

    def freeze(self, field: str) -> list[Any]:
        block = self._blocks[int(field[len(_PREFIX) :])]
        return [[name, *self._names[name]] for name in block.values()]

    def thaw(self, field: str, frozen: list[Any]) -> None:
        block = int(field[len(_PREFIX) :])
        self._blocks[block] = {}
        for name, number, digest, is_open in frozen:
            self._put(name, Name(number, digest, is_open), block)

    def resume(self, next_number: int) -> None:
        """Go on behind a checkpoint."""
        self.next_number = next_number
        self._first_block = self._oldest(next_number - (next_number - 1) % _BLOCK)

    def _put(self, name: str, entry: Name, block: int) -> None:
        self._names[name] = entry
        self._blocks.setdefault(block, {})[entry.number] = name
        self.n_open += entry.open

    def _oldest(self, next_number: int) -> int:
        """The first block that is not old when so many were numbered."""
        return max(0, (next_number - self._limit) // _BLOCK)

    def _forget(self) -> tuple[list[str], list[str]]:
        """Keep only what is open of blocks that have become old; those touched, and those gone."""
        first, self._first_block = self._first_block, self._oldest(self.next_number)
        touched, gone = [], []
        for block in range(first, self._first_block):
            names = self._blocks.get(block, {})
            kept = {n: name for n, name in names.items() if self._names[name].open}
            for name in set(names.values()).difference(kept.values()):
                del self._names[name]
            if kept:
                self._blocks[block] = kept
                touched.append(_field(block))
            elif self._blocks.pop(block, None) is not None:
                gone.append(_field(block))
        return touched, gone


def _field(block: int) -> str:
    return f"{_PREFIX}{block}"
