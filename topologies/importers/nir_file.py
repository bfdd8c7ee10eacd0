"""`.nir` files: HDF5, read as plain data and written by the package `nir`.

Nothing in a file is executed; what else is refused stands in `nir_child`, the process that reads.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from topologies.arrays import ArraysError, npz_arrays
from topologies.files import MOST_ARRAYS, FileError, check_file, check_target, read_file, write_file
from topologies.importers.extras import library
from topologies.importers.nir_child import NirFileError
from topologies.stages.base import Array

__all__ = ["NirFileError", "read_nir", "write_nir"]

_DEADLINE_S: Final = 30.0
_BYTES_PER_S: Final = 10_000_000  # of a slow machine; the deadline grows with the file
_READ_BYTES: Final = 2 * MOST_ARRAYS  # as arrays


def read_nir(path: Path) -> dict[str, Any]:
    """The graph of a file, as `nir.NIRGraph.to_dict()` gives it. Raises NirFileError."""
    library("h5py", "nir", "read NIR files")
    try:
        check_file(path, MOST_ARRAYS)
        deadline_s = _DEADLINE_S + path.stat().st_size / _BYTES_PER_S
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "read.npz"
            _run_child(path, out, deadline_s)
            arrays = npz_arrays(read_file(out, _READ_BYTES))
        tree: dict[str, Any] = json.loads(arrays["tree"].tobytes())
    except FileError as error:
        raise NirFileError(str(error)) from error
    except (OSError, ArraysError) as error:
        raise NirFileError(f"{path} cannot be read as a NIR file (HDF5): {error}.") from error
    return {name: _filled(value, arrays) for name, value in tree.items()}


def _run_child(path: Path, out: Path, deadline_s: float) -> None:
    # -P: what lies in the working directory is no module of the child's.
    command = (sys.executable, "-P", "-m", "topologies.importers.nir_child", str(path), str(out))
    try:
        ended = subprocess.run(command, capture_output=True, timeout=deadline_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise NirFileError(
            f"{path} cannot be read as a NIR file (HDF5): it is damaged, so that HDF5 does not end "
            f"within {deadline_s:.0f} s."
        ) from error
    if ended.returncode == 1 and (sentence := ended.stderr.decode("utf-8", "replace")):
        raise NirFileError(sentence)
    if ended.returncode:
        raise NirFileError(
            f"{path} cannot be read as a NIR file (HDF5): it is damaged, so that HDF5 ends with "
            f"code {ended.returncode}."
        )


def _filled(value: Any, arrays: dict[str, Array]) -> Any:
    """The document with its arrays in place of their numbers; a single number as NumPy's."""
    if isinstance(value, dict):
        return {name: _filled(item, arrays) for name, item in value.items()}
    return arrays[f"{value}"][()] if isinstance(value, int) else value


def write_nir(path: Path, document: dict[str, Any]) -> None:
    """Writes a graph, as `export_nir` gives it. Raises NirFileError."""
    nir = library("nir", "nir", "write NIR files")
    try:
        check_target(path)
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "graph.nir"
            nir.write(str(draft), nir.dict2NIRNode({**document, "type_check": False}))
            write_file(path, draft.read_bytes())
    except FileError as error:
        raise NirFileError(str(error)) from error
    except OSError as error:
        raise NirFileError(f"{path} cannot be written: {error}.") from error
