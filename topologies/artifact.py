"""Canonical bytes: equal content gives equal bytes, on every machine.

An artifact is a valid safetensors file that this module writes itself, because the library's
writer promises no order: 8 bytes of little-endian header length; the header as JSON with sorted
keys, no spaces, ASCII, padded with spaces to a multiple of 8; then the little-endian tensors
without gaps, the widest dtype first, then by name. The header's `__metadata__` has one entry,
`spikerouter`, whose text is canonical JSON without floats.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from topologies.errors import SpikeRouterError
from topologies.stages.base import Array, Json

__all__ = ["ArtifactError", "canonical_json", "digest", "pack_artifact", "unpack_artifact"]

_DTYPES = {
    "F64": "<f8",
    "I64": "<i8",
    "F32": "<f4",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
}
_NAMES = {np.dtype(text): name for name, text in _DTYPES.items()}
_ID_LENGTH = 32  # hex digits: 128 bits of SHA-256


class ArtifactError(SpikeRouterError, ValueError):
    """Bytes are no artifact, or not the one that was asked for."""


def canonical_json(value: Json) -> str:
    """`value` as JSON text that depends on nothing but its content. Raises on a float."""
    _refuse_floats(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _refuse_floats(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ArtifactError(f"A key of canonical JSON is a string, not {key!r}.")
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)
    elif not (value is None or isinstance(value, bool | int | str)):
        raise ArtifactError(
            f"Canonical JSON holds no {type(value).__name__} ({value!r}): "
            "store a float constant as its float32 bits."
        )


def digest(data: bytes) -> str:
    """The first 128 bits of SHA-256, 32 hex digits."""
    return hashlib.sha256(data).hexdigest()[:_ID_LENGTH]


def pack_artifact(meta: Json, arrays: Mapping[str, Array]) -> bytes:
    """The canonical bytes of `meta` and `arrays`."""
    plain = {name: _plain(name, array) for name, array in arrays.items()}
    order = sorted(plain, key=lambda name: (-plain[name].dtype.itemsize, name))
    header: dict[str, Json] = {"__metadata__": {"spikerouter": canonical_json(meta)}}
    offset = 0
    for name in order:
        array = plain[name]
        end = offset + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = canonical_json(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(plain[n].tobytes() for n in order)


def _plain(name: str, array: Array) -> Array:
    """`array` in little-endian order, C-contiguous."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if little.dtype not in _NAMES:
        raise ArtifactError(f"Array {name!r} has dtype {array.dtype}: legal are {list(_DTYPES)}.")
    return little.reshape(array.shape)


def unpack_artifact(data: bytes) -> tuple[Any, dict[str, Array]]:
    """(meta, arrays) of an artifact; the arrays are read-only views of `data`.

    Raises ArtifactError for anything that `pack_artifact` does not write.
    """
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length].decode("ascii"))
        meta = json.loads(header.pop("__metadata__")["spikerouter"])
        body = memoryview(data)[8 + length :]
        arrays = {name: _read(body, entry) for name, entry in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"These {len(data)} bytes are no artifact: {error!r}.") from error
    return meta, arrays


def _read(body: memoryview, entry: Mapping[str, Any]) -> Array:
    begin, end = entry["data_offsets"]
    array = np.frombuffer(body[begin:end], dtype=_DTYPES[entry["dtype"]])
    return array.reshape(entry["shape"])
