"""Much data, cut into parts that each have a deadline of their own. Pure.

Who moves a part in time makes progress, and however much there is of it comes through. A part that
is bounded by its bytes asks the same of a connection whatever a checkpoint holds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

__all__ = ["MOST", "PART_BYTES", "Piece", "batches", "joined", "pieces"]

MOST: Final = 256
"""Commands or blobs at once: what one client may hold the server up for."""
PART_BYTES: Final = 256 * 1024
"""Bytes at once. With the usual timeout of 2 s, a connection of a megabit per second suffices."""

T = TypeVar("T")


class Piece(NamedTuple):
    """Bytes `[start, stop)` of a blob."""

    key: str
    start: int
    stop: int


def batches(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in their order, so many at once; one that is too large comes alone."""
    batch: list[T] = []
    n_bytes = 0
    for item in items:
        size = size_of(item)
        if batch and (len(batch) == MOST or n_bytes + size > PART_BYTES):
            yield batch
            batch, n_bytes = [], 0
        batch.append(item)
        n_bytes += size
    if batch:
        yield batch


def pieces(sizes: Mapping[str, int]) -> Iterator[Piece]:
    """Blobs of these sizes, the large ones in several pieces."""
    for key, size in sizes.items():
        for start in range(0, size, PART_BYTES):
            yield Piece(key, start, min(size, start + PART_BYTES))


def joined(found: Iterable[tuple[Piece, bytes]]) -> dict[str, bytes]:
    """The blobs that pieces, in their order, are of."""
    parts: dict[str, list[bytes]] = {}
    for piece, data in found:
        parts.setdefault(piece.key, []).append(data)
    return {key: b"".join(data) for key, data in parts.items()}
