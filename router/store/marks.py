"""The mark of a stored position: what tells that it is the one that was written. Pure."""

import zlib

from router.store.values import TaskId

__all__ = ["mark"]


def mark(task: TaskId, topic: str, offset: int) -> str:
    """8 hexadecimal digits for a position of this task in this topic."""
    return f"{zlib.crc32(f'{task}|{topic}|{offset}'.encode()):08x}"
