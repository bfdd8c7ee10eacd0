"""Regular files: read within bounds, and written whole or not at all.

What somebody names may be a pipe that nobody writes to, a device without an end, a folder, or a
terabyte of holes. None of these is opened: opening alone can wait for ever, or rewind a tape.
"""

import os
import stat
from pathlib import Path
from typing import ClassVar, Final

from topologies.errors import SpikeRouterError

__all__ = ["MOST_ARRAYS", "MOST_TEXT", "FileError", "check_file", "check_target", "read_file",
           "write_file"]  # fmt: skip

MOST_TEXT: Final = 4 * 1024 * 1024  # bytes of a document that a person could have written
MOST_ARRAYS: Final = 4 * 1024**3  # bytes of weights or samples: they are in memory at once

_PIECE: Final = 64 * 1024  # bytes read at once of what says that it is empty, as files of Linux do
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_READ: Final = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # what became a pipe meanwhile is not waited for
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class FileError(SpikeRouterError, OSError):
    """A file cannot be read or written, or is none; the message names it and the reason."""

    retryable: ClassVar[bool] = False


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises FileError."""
    check_file(path, most)
    try:
        with open(os.open(path, _READ), "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            _check(path, found, most)
            data = _read(file.fileno(), most, found.st_size + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if len(data) > most:
        raise FileError(_too_large(path, f"more than {most:,}", most))
    return data


def check_file(path: Path, most: int) -> None:
    """Raises FileError unless this is a regular file of at most `most` bytes. Opens nothing."""
    try:
        _check(path, os.stat(path), most)
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise _unreadable(path, error) from error


def check_target(path: Path) -> None:
    """Raises FileError unless a file could be put there: its folder is there, no other thing is."""
    try:
        place = Path(os.path.realpath(path))
        if not place.parent.is_dir():
            raise FileError(
                f"{path} cannot be written: {place.parent} is no folder. Make it first."
            )
        if os.path.lexists(place) and not place.is_file():
            raise FileError(f"{path} cannot be written: {_kind_of(os.lstat(place))} is there.")
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error


def write_file(path: Path, data: bytes) -> None:
    """Put a file there: all of it or, when the disk is full, what was there before.

    Behind a symbolic link, the file that it leads to. Raises FileError.
    """
    check_target(path)
    place = os.path.realpath(path)
    # No other write of this process has an object of this id at this time.
    part = os.path.join(os.path.dirname(place), f".{os.getpid()}-{id(data):x}.part")
    try:
        with open(os.open(part, _WRITE, 0o666), "wb") as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(part, place)
            except BaseException:
                os.unlink(part)
                raise
    except OSError as error:
        raise _unwritable(path, error) from error


def _read(file: int, most: int, piece_bytes: int) -> bytes:
    """What a file holds, and one byte more than `most` at most, whatever its size is said to be."""
    pieces: list[bytes] = []
    left = most + 1
    while left and (piece := os.read(file, min(left, max(piece_bytes, _PIECE)))):
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check(path: Path, found: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FileError(f"{path} cannot be read: it is {_kind_of(found)}, legal is a file.")
    if found.st_size > most:
        raise FileError(_too_large(path, f"{found.st_size:,}", most))


def _kind_of(found: os.stat_result) -> str:
    return next((name for test, name in _KINDS if test(found.st_mode)), "something else")


def _too_large(path: Path, size: str, most: int) -> str:
    return f"{path} cannot be read: it has {size} bytes, legal are {most:,}."


def _unreadable(path: Path, error: Exception) -> FileError:
    return error if isinstance(error, FileError) else _failed(path, "read", error)


def _unwritable(path: Path, error: Exception) -> FileError:
    return error if isinstance(error, FileError) else _failed(path, "written", error)


def _failed(path: Path, what: str, error: Exception) -> FileError:
    reason = getattr(error, "strerror", None) or str(error)
    return FileError(f"{str(path)!r} cannot be {what}: {reason}.")
