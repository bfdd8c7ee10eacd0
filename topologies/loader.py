"""Read networks from files, which may be anything: reading is bounded, and stays in the folder."""

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import yaml

from topologies.arrays import ArraysError, npz_arrays, safetensors_arrays
from topologies.compiler.check import check_network
from topologies.document import needs_weights, network_of
from topologies.errors import SpikeRouterError
from topologies.files import MOST_ARRAYS, MOST_TEXT, FileError, read_file
from topologies.full_size import FULL_SIZE
from topologies.model import Fault, Network, NetworkError
from topologies.schema import form_faults
from topologies.stages.base import Array
from topologies.yaml_text import read_yaml
from topologies.zoo.entry import Entry

__all__ = [
    "NetworkNotFound",
    "family_of",
    "find_network",
    "load_network",
    "load_samples",
    "samples_of",
    "zoo_entry",
    "zoo_networks",
]

_FILE = "network.yaml"
_FIGURES = "figures.json"
_IMAGES = "test_images.safetensors"


class NetworkNotFound(SpikeRouterError, LookupError):
    """There is no network of this name and no such file."""

    retryable: ClassVar[bool] = False


def zoo_networks() -> tuple[str, ...]:
    """The names of the networks that come with this package: those whose training left figures."""
    zoo = _zoo()
    if not zoo.is_dir():
        return ()
    return tuple(sorted(entry.parent.name for entry in zoo.glob(f"*/{_FIGURES}")))


def zoo_entry(name: str) -> Entry:
    """What is known of a network of the zoo (`-` and `_` are one). Raises NetworkNotFound."""
    folder = _zoo() / name.replace("-", "_")
    if folder.name not in zoo_networks():
        raise NetworkNotFound(f"No network {name!r} in the zoo: legal are {_known()}.")
    figures = json.loads(read_file(folder / _FIGURES, MOST_TEXT))
    return Entry.of(folder.name, figures, folder.parent)


def _known() -> str:
    return ", ".join(zoo_networks()) or "none"


def _zoo() -> Path:
    return Path(str(resources.files("topologies"))) / "zoo"


def find_network(name: str) -> Path:
    """The file of a network: a name in the zoo (`-` and `_` are one), a file, or its folder.

    Raises NetworkNotFound.
    """
    inside = _zoo() / name.replace("-", "_") / _FILE
    for candidate in (inside, Path(name), Path(name) / _FILE):
        if _is_file(candidate):
            return candidate
    raise NetworkNotFound(
        f"No network {name!r}: it is neither a file, nor a folder with a {_FILE}, nor a name in "
        f"the zoo ({_known()}), nor one that is built ({', '.join(FULL_SIZE)})."
    )


def load_network(name: str | Path) -> Network:
    """Reads, and checks, the network of a name or path (see `find_network`), or builds it.

    What is built are the names of `topologies.full_size`. Raises NetworkNotFound, or NetworkError
    with everything that is wrong.
    """
    built = FULL_SIZE.get(str(name).replace("-", "_"))
    return _read(find_network(str(name))) if built is None else built(load_network)


def load_samples(path: Path) -> dict[str, Array]:
    """The arrays of a file of samples: safetensors, or npz. See `topologies.trials`.

    Raises FileError for what is no file that can be read, or holds none.
    """
    read = npz_arrays if path.suffix == ".npz" else safetensors_arrays
    try:
        return read(read_file(path, MOST_ARRAYS))
    except ArraysError as error:
        raise FileError(f"{path} cannot be read: {error}") from error


def samples_of(name: str) -> Path | None:
    """The test samples that come with a network: of the zoo, or images in its own folder."""
    if name.replace("-", "_") in FULL_SIZE:
        return None
    folder = find_network(name).parent
    samples = folder / _IMAGES
    if folder.parent == _zoo():
        samples = zoo_entry(folder.name).samples
    return samples if samples.is_file() else None


def family_of(name: str) -> str | None:
    """The family of a network of the zoo, by name or path (see `find_network`); None of others.

    Raises NetworkNotFound.
    """
    if name.replace("-", "_") in FULL_SIZE:
        return None
    folder = find_network(name).resolve().parent
    return zoo_entry(folder.name).family if folder.parent == _zoo().resolve() else None


def _read(path: Path) -> Network:
    document = _read_document(path)
    schema = json.loads(resources.files("topologies").joinpath("network.schema.json").read_text())
    faults = form_faults(document, schema)
    if faults:
        raise NetworkError(faults, path.name)
    network = network_of(document, _read_weights(path, document))
    found = check_network(network)
    if found:
        raise NetworkError(found, network.name)
    return network


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = read_yaml(read_file(path, MOST_TEXT).decode("utf-8"))
    except FileError as error:
        raise NetworkError([Fault("", str(error))], path.name) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NetworkError([Fault("", f"this is no YAML: {error}")], path.name) from error
    if not isinstance(document, dict):
        fault = Fault("", f"the file holds a {type(document).__name__}: legal is a mapping.")
        raise NetworkError([fault], path.name)
    return document


def _read_weights(path: Path, document: Mapping[str, Any]) -> dict[str, Array]:
    if not needs_weights(document):
        return {}
    name = document.get("weights", "weights.safetensors")
    if Path(name).name != name or not _is_beside(path, name):
        fault = Fault("weights", f"{name!r} is not beside the network file: legal is a file name.")
        raise NetworkError([fault], document["name"])
    try:
        return safetensors_arrays(read_file(path.parent / name, MOST_ARRAYS))
    except (FileError, ArraysError) as error:
        fault = Fault("weights", f"cannot read {name!r} as safetensors: {error}")
        raise NetworkError([fault], document["name"]) from error


def _is_file(path: Path) -> bool:
    """Whether a file is there; no name that a system could not take names one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_beside(path: Path, name: str) -> bool:
    """Whether a link leads, if it is one, to where the network file is or what that links to.

    A folder that was sent by somebody names no file outside of it.
    """
    try:
        folders = {Path(os.path.realpath(place)) for place in (path.parent, path)}
        real = Path(os.path.realpath(path.parent / name))
    except (OSError, ValueError):
        return True  # there is no such file: reading it says so
    return real.parent in {folder if folder.is_dir() else folder.parent for folder in folders}
