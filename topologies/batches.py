"""How large a batch can get: one rule for the compiler, for deployment and for the wire. Pure.

A batch is what one group says of one stream and one window. A record holds at least one, so the
worst one decides which windows a network can have, and which records a broker must take. All sizes
are in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from topologies.stages.base import ValueType

__all__ = [
    "ERROR_BYTES",
    "HEAD_BYTES",
    "LARGEST_RECORD",
    "NAME_BYTES",
    "ROUTE_BYTES",
    "ROW_BYTES",
    "payload_bytes",
    "record_bytes",
    "result_bytes",
    "route_bytes",
]

LARGEST_RECORD: Final = 900_000
"""What the compiler makes batches for; Kafka's default limit is 1,048,588."""
NAME_BYTES: Final = 200
"""The longest name of a stream, in UTF-8."""
ERROR_BYTES: Final = 4096
"""The longest error in an ABORT or KILL, in UTF-8."""
ROW_BYTES: Final = 9 * 12 + 16 + 8 + 1
"""What one more batch adds to a frame beside texts and payload: twelve columns, a node, an era."""
HEAD_BYTES: Final = 256 + 64
"""The most that a frame without batches takes, and what stands behind it to check it by."""
ROUTE_BYTES: Final = 40 * 101
"""Room for the names of the networks that share a stream: 40 of the longest. `router.deploy` looks
at those that there are."""


def route_bytes(networks: tuple[str, ...]) -> int:
    """What the names of a stream's networks take."""
    return sum(map(len, networks)) + len(networks)


def record_bytes(payload: int, routes: int = ROUTE_BYTES) -> int:
    """The most that a record takes with a batch of such a payload alone, under any name, or with
    an error in its place."""
    return HEAD_BYTES + ROW_BYTES + NAME_BYTES + routes + max(payload, ERROR_BYTES)


def payload_bytes(value: ValueType, n: int, n_steps: int) -> int:
    """The most that `n` values of this type take for `n_steps` steps: the dense encodings."""
    if value.is_spike:
        return 1 + (n * n_steps + 7) // 8
    low, high = min(value.low, 0), value.high
    width = next(
        size
        for size, fits in ((1, low >= 0 and high < 2**8), (2, max(-low, high) < 2**15), (4, True))
        if fits
    )
    return 1 + n * n_steps * width


def result_bytes(n: int, every: int | None, n_steps: int) -> int:
    """The most that the emissions of a readout of `n` values take in a window: one each `every`
    steps, and one at the end."""
    n_emissions = 1 if every is None else (n_steps + every - 1) // every + 1
    return 1 + 4 + 4 * n * n_emissions
