"""The stream names that an ingest remembers, numbered densely (PROTOCOL 1, and the reuse of names).

What is remembered follows from the input topic alone: the names of all streams that may still get
records, and those of the last `limit` streams. Names are kept in blocks of 256 numbers, so that a
checkpoint writes only the blocks that changed.
"""

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
        self.next_number = 0

    def __len__(self) -> int:
        return len(self._names)

    def get(self, name: str) -> Name | None:
        return self._names.get(name)

    def name_of(self, number: int) -> str:
        """The name that has this number, "" when it is not remembered."""
        return self._blocks.get(number // _BLOCK, {}).get(number, "")

    def add(self, name: str, digest: bytes, is_open: bool) -> tuple[str, list[str]]:
        """Number a new name; gives the field it changed and the fields that are forgotten."""
        number = self.next_number
        self.next_number += 1
        self._put(name, Name(number, digest, is_open))
        gone = self._forget() if number % _BLOCK == 0 else []
        return _field(number // _BLOCK), gone

    def close(self, name: str) -> str | None:
        """No more records may follow under this name; gives the field that changed, if any."""
        known = self._names.get(name)
        if known is None or not known.open:
            return None
        self._names[name] = known._replace(open=False)
        return _field(known.number // _BLOCK)

    def clear(self) -> list[str]:
        """Forget all and number from 0 again; gives the fields that are gone."""
        gone = self.fields()
        self._names.clear()
        self._blocks.clear()
        self.next_number = 0
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

    def thaw(self, frozen: list[Any]) -> None:
        for name, number, digest, is_open in frozen:
            self._put(name, Name(number, digest, is_open))

    def _put(self, name: str, entry: Name) -> None:
        self._names[name] = entry
        self._blocks.setdefault(entry.number // _BLOCK, {})[entry.number] = name

    def _forget(self) -> list[str]:
        oldest = (self.next_number - self._limit) // _BLOCK
        gone = [
            b for b, names in self._blocks.items()
            if b < oldest and not any(self._names[n].open for n in names.values())
        ]  # fmt: skip
        for block in gone:
            for name in self._blocks.pop(block).values():
                del self._names[name]
        return [_field(b) for b in gone]


def _field(block: int) -> str:
    return f"{_PREFIX}{block}"
