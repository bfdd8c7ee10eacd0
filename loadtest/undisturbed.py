"""What a deployment must equal: the same streams in one process that nothing disturbs. Pure."""

import hashlib
from collections.abc import Mapping

import numpy as np

from topologies.compiled import run_streams
from topologies.stages.base import Array

__all__ = ["digest_of", "run_streams"]


def digest_of(outputs: Mapping[str, Array]) -> str:
    """SHA-256 over all outputs: name, type, shape and bytes of each stream, sorted by name."""
    total = hashlib.sha256()
    for name, values in sorted(outputs.items()):
        total.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()
