"""`.nir` files: HDF5, read as plain data and written by the package `nir`.

Nothing in a file is executed, and links to other files, or to other places of this one, are
refused: a file that was sent by somebody says what is in it and no more.
"""

from pathlib import Path
from typing import Any, Final

from topologies.errors import SpikeRouterError
from topologies.importers.extras import library

__all__ = ["NirFileError", "read_nir", "write_nir"]

_DEEPEST: Final = 64  # groups in groups


class NirFileError(SpikeRouterError, ValueError):
    """A file is no NIR file, or one that is not read."""


def read_nir(path: Path) -> dict[str, Any]:
    """The graph of a file, as `nir.NIRGraph.to_dict()` gives it. Raises NirFileError."""
    h5py = library("h5py", "nir", "read NIR files")
    try:
        with h5py.File(path, "r") as file:
            if "node" not in file:
                names = ", ".join(file) or "nothing"
                raise NirFileError(f"{path} is HDF5 but no NIR file: it holds {names}, no 'node'.")
            return _group(h5py, file["node"], path, 0)
    except OSError as error:
        raise NirFileError(f"{path} cannot be read as a NIR file (HDF5): {error}.") from error


def _group(h5py: Any, group: Any, path: Path, depth: int) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise NirFileError(f"{path} has groups nested deeper than {_DEEPEST}.")
    found: dict[str, Any] = {}
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise NirFileError(
                f"{path}: {group.name}/{name} is a link elsewhere: legal are data and groups."
            )
        item = group[name]
        if isinstance(item, h5py.Group):
            found[name] = _group(h5py, item, path, depth + 1)
        else:
            value = item[()]
            found[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def write_nir(path: Path, document: dict[str, Any]) -> None:
    """Writes a graph, as `export_nir` gives it. Raises NirFileError."""
    nir = library("nir", "nir", "write NIR files")
    try:
        nir.write(str(path), nir.dict2NIRNode({**document, "type_check": False}))
    except OSError as error:
        raise NirFileError(f"{path} cannot be written: {error}.") from error
