"""Reads one `.nir` file and ends: `python -m topologies.importers.nir_child FILE OUT`.

The HDF5 library is written in C, and a damaged file can make it run for ever, or take its process
with it. So it runs in one of its own, which `nir_file` gives a deadline. What was read is written
to OUT as a .npz file: the arrays, and `tree`, the document as JSON with an array's number for each
array. A refusal is a sentence on standard error, and exit code 1.

Links to other files, or to other places of this one, are refused: a file that was sent by somebody
says what is in it and no more. So are data that lie in other files, filters that HDF5 would have to
look for on this machine, and data that take much more memory than the file has bytes.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from topologies.errors import SpikeRouterError
from topologies.files import MOST_ARRAYS, FileError, read_file
from topologies.stages.base import Array

__all__ = ["DAMAGE", "NirFileError", "NirReader", "main"]

_DEEPEST: Final = 64  # groups in groups
_MOST_ITEMS: Final = 20_000  # a group may hold itself twice, and then 2**64 at that depth
_MOST_TEXT: Final = 64 * 1024 * 1024  # bytes of texts: many may refer to one
_MOST_BYTES: Final = 4 * 1024**3  # of all data, each time that they are referred to
_UNFOLDS: Final = 1_100  # times: deflate reaches 1,032 on zeros
_SMALL: Final = 64 * 1024  # bytes that may unfold from anything: data never written are not stored
_FILTERS: Final = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # part of h5py
_CHUNKED: Final = 2  # H5D_CHUNKED: only chunks have filters
DAMAGE: Final = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)
"""What h5py raises for a damaged file depends on where the damage is."""


class NirFileError(SpikeRouterError, ValueError):
    """A file is no NIR file, or one that is not read."""


@dataclass(eq=False)
class NirReader:
    """Reads a file, and counts what it reads. An array becomes its number in `arrays`."""

    h5py: Any
    path: Path
    arrays: list[Array] = field(default_factory=list)
    n_items: int = 0
    n_bytes: int = 0
    n_text: int = 0

    def read(self, data: bytes) -> dict[str, Any]:
        """The document in these bytes. Raises NirFileError."""
        try:  # the file is not opened by its name, so HDF5 has none that it could open others by
            with self.h5py.File(self.h5py.h5f.open_file_image(data)) as file:
                return self._root(file)
        except NirFileError:
            raise
        except DAMAGE as error:
            raise NirFileError(
                f"{self.path} cannot be read as a NIR file (HDF5): {error}."
            ) from error

    def _root(self, file: Any) -> dict[str, Any]:
        if "node" not in list(file):
            names = ", ".join(file) or "nothing"
            raise NirFileError(f"{self.path} is HDF5 but no NIR file: it holds {names}, no 'node'.")
        node = self._item(file, "node")
        if not isinstance(node, self.h5py.Group):
            raise NirFileError(f"{self.path} is no NIR file: its 'node' is no group.")
        return self._group(node, 0)

    def _item(self, group: Any, name: str) -> Any:
        """What is in a group under this name, if it is there and not elsewhere."""
        where = f"{self.path}: {group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
            raise NirFileError(f"{where} is a link elsewhere: legal are data and groups.")
        self.n_items += 1
        if self.n_items > _MOST_ITEMS:
            raise NirFileError(f"{self.path} has more than {_MOST_ITEMS:,} groups and data.")
        return group[name]

    def _group(self, group: Any, depth: int) -> dict[str, Any]:
        if depth > _DEEPEST:
            raise NirFileError(f"{self.path} has groups nested deeper than {_DEEPEST}.")
        found: dict[str, Any] = {}
        for name in group:
            item = self._item(group, name)
            is_group = isinstance(item, self.h5py.Group)
            found[name] = self._group(item, depth + 1) if is_group else self._data(item)
        return found

    def _data(self, item: Any) -> Any:
        """The value of a dataset: the number of an array, or texts."""
        where = f"{self.path}: {getattr(item, 'name', '?')}"
        if not isinstance(item, self.h5py.Dataset):
            raise NirFileError(f"{where} is a named type: legal are data and groups.")
        self._check(item, where)
        if self.h5py.check_string_dtype(item.dtype) is None:
            self.arrays.append(np.asarray(item[()]))
            return len(self.arrays) - 1
        if not item.shape:
            return self._text(item[()])
        return [self._texts(item[index]) for index in range(item.shape[0])]

    def _texts(self, values: Any) -> Any:
        """A row at a time: each text may be as long as the file."""
        if isinstance(values, np.ndarray):
            return [self._texts(value) for value in values]
        return self._text(values)

    def _text(self, value: Any) -> str:
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
        self.n_text += len(data)
        if self.n_text > _MOST_TEXT:
            raise NirFileError(f"{self.path} has more than {_MOST_TEXT:,} bytes of text.")
        return data.decode("utf-8", "replace")

    def _check(self, item: Any, where: str) -> None:
        """Refuse what lies elsewhere, and what takes more than the file holds of it."""
        if item.is_virtual or item.external:
            raise NirFileError(f"{where} lies in other files: legal are data of this one.")
        if item.shape is None:
            raise NirFileError(f"{where} has no value: legal are numbers and texts.")
        if item.dtype.kind not in "biuf" and self.h5py.check_string_dtype(item.dtype) is None:
            raise NirFileError(f"{where} has dtype {item.dtype}: legal are numbers and texts.")
        for number in _filters(item):
            if number not in _FILTERS:
                legal = ", ".join(_FILTERS.values())
                raise NirFileError(f"{where} has the filter {number}: legal are {legal}.")
        n_bytes = item.size * item.dtype.itemsize
        self.n_bytes += n_bytes
        stored = item.id.get_storage_size()
        if n_bytes > _SMALL + _UNFOLDS * stored or self.n_bytes > _MOST_BYTES:
            raise NirFileError(
                f"{where} would take {n_bytes:,} bytes, of which the file holds {stored:,}: legal "
                f"are {_UNFOLDS:,} times as many, and {_MOST_BYTES:,} in all."
            )


def _filters(item: Any) -> Iterator[int]:
    plan = item.id.get_create_plist()
    if plan.get_layout() == _CHUNKED:
        for index in range(plan.get_nfilters()):
            yield plan.get_filter(index)[0]


def main(path: Path, out: Path) -> None:
    """Reads the file, and writes what it says. Raises NirFileError."""
    import h5py

    reader = NirReader(h5py, path)
    try:
        tree = json.dumps(reader.read(read_file(path, MOST_ARRAYS))).encode("ascii")
    except FileError as error:
        raise NirFileError(str(error)) from error
    arrays = {f"{number}": array for number, array in enumerate(reader.arrays)}
    np.savez(out, allow_pickle=False, tree=np.frombuffer(tree, np.uint8), **arrays)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except SpikeRouterError as error:
        sys.stderr.buffer.write(str(error).encode("utf-8", "surrogateescape"))
        sys.exit(1)
