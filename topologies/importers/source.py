"""What `spikerouter import` is told to read: a NIR file, or a module that Python code makes.

Weights are read from safetensors. A pickle (.pt, .pth, .pkl) is refused: loading one runs whatever
its maker wrote into it.
"""

import os
import sys
from importlib import import_module as python_module
from pathlib import Path
from typing import Any, Final

from topologies.arrays import ArraysError, check_safetensors
from topologies.errors import SpikeRouterError
from topologies.files import MOST_ARRAYS, FileError, read_file
from topologies.importers.extras import library

__all__ = ["SourceError", "find_module", "is_nir_file", "load_weights"]

_PICKLES: Final = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_HOW: Final = (
    "Legal are a .nir file and package.module:function, a function without arguments that returns "
    "the module (its weights as safetensors with --weights)."
)


class SourceError(SpikeRouterError, ValueError):
    """What was named cannot be imported."""


def is_nir_file(source: str) -> bool:
    """Whether a source is a NIR file. Raises SourceError for a file that is none and no module."""
    path = Path(source)
    if path.suffix in _PICKLES:
        raise SourceError(f"{source} may be a pickle, which runs code when it is loaded. {_HOW}")
    if path.suffix == ".nir" or os.path.exists(path):
        if not os.path.exists(path):
            raise SourceError(f"{source}: there is no such file.")
        return True
    if ":" not in source:
        raise SourceError(f"{source} is neither a file nor a module. {_HOW}")
    return False


def find_module(source: str) -> Any:
    """The torch.nn.Module that `package.module:name` is, or returns. Raises SourceError.

    The working directory is searched first, as Python does for a script.
    """
    torch = library("torch", "torch", "import modules")
    where, _, name = source.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(python_module(where), name)
    except (ImportError, AttributeError) as error:
        raise SourceError(f"{source} cannot be found: {error}. {_HOW}") from error
    if not isinstance(found, torch.nn.Module) and callable(found):
        found = found()
    if not isinstance(found, torch.nn.Module):
        raise SourceError(f"{source} gives a {type(found).__name__}, not a module. {_HOW}")
    return found


def load_weights(module: Any, path: Path) -> None:
    """Sets the state dict of a module from a safetensors file. Raises SourceError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if path.suffix in _PICKLES:
        raise SourceError(f"{path} may be a pickle: legal are safetensors files.")
    try:
        data = read_file(path, MOST_ARRAYS)
        check_safetensors(data)
        module.load_state_dict(load(data))
    except (FileError, ArraysError) as error:
        raise SourceError(f"The weights in {path} cannot be set: {error}") from error
    except (SafetensorError, RuntimeError, ValueError, TypeError, LookupError) as error:
        raise SourceError(f"The weights in {path} cannot be set: {error}.") from error
