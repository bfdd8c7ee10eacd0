"""A network's name and manifest as the store keeps them: with checksums, to notice damage. Pure."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from router.store.errors import ManifestDamaged
from router.topics import NAME

__all__ = ["open_manifest", "open_names", "seal_manifest", "seal_name"]

_CRC_BYTES: Final = 4


def seal_manifest(network: str, manifest: bytes) -> bytes:
    """The manifest with a CRC-32 of the network's name and of itself behind."""
    return manifest + _crc(network, manifest)


def open_manifest(network: str, data: bytes) -> bytes:
    """What `seal_manifest` was given. Raises ManifestDamaged."""
    manifest, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if crc != _crc(network, manifest):
        raise ManifestDamaged(
            f"The manifest of network {network} in the store is damaged: {len(data)} bytes do not"
            " fit their CRC-32. A worker that runs the network writes it anew within seconds;"
            " deploying it again does, too."
        )
    return manifest


def seal_name(network: str) -> str:
    """The name as it stands in a set of names: with its CRC-32, so that a bit that turns over makes
    no network of which nobody ever heard."""
    return f"{network}:{zlib.crc32(network.encode()):08x}"


def open_names(members: Iterable[bytes]) -> Iterator[str]:
    """The names that `seal_name` wrote: what is damaged is nobody's, and hides no other."""
    for member in members:
        name = member.decode(errors="replace").rpartition(":")[0]
        if NAME.fullmatch(name) is not None and seal_name(name).encode() == member:
            yield name


def _crc(network: str, manifest: bytes) -> bytes:
    return zlib.crc32(manifest, zlib.crc32(network.encode())).to_bytes(_CRC_BYTES, "little")
