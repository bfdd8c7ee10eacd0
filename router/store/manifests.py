"""A network's manifest as the store keeps it: with a checksum, so that damage is noticed. Pure."""

import zlib
from typing import Final

from router.store.errors import ManifestDamaged

__all__ = ["open_manifest", "seal_manifest"]

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


def _crc(network: str, manifest: bytes) -> bytes:
    return zlib.crc32(manifest, zlib.crc32(network.encode())).to_bytes(_CRC_BYTES, "little")
