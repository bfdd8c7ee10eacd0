"""What was seen of a run under faults: values only, so that the checkers are pure functions of it.

Times are seconds on the clock of the one process that watches. A *digest* stands for bits: equal
digests are equal type, shape and bytes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from topologies.stages.base import Array

__all__ = [
    "Emission",
    "End",
    "History",
    "Injected",
    "Sample",
    "Sent",
    "Size",
    "TaskView",
    "Wire",
    "digest_of_values",
]


class Sent(NamedTuple):
    """Record `ordinal` of a stream, first sent `at`, was acknowledged. `last`: the stream ends
    with it."""

    stream: str
    content: str
    networks: tuple[str, ...]
    ordinal: int
    last: bool
    at: float


class Emission(NamedTuple):
    """The sink was given emission `ordinal` of a stream."""

    network: str
    stream: str
    ordinal: int
    digest: bytes
    at: float


class End(NamedTuple):
    """The sink was told that a stream is over; `error` is empty when it ended well."""

    network: str
    stream: str
    error: str
    at: float


class Wire(NamedTuple):
    """One batch as it lies in a results topic, in the order of the log; repeats included.

    `final` is END or ABORT. `digest` covers everything that a repeat must say again; it is empty
    for ABORT, which may come in place of any window.
    """

    network: str
    partition: int
    era: int
    number: int
    window: int
    final: bool
    digest: bytes
    at: float


class TaskView(NamedTuple):
    """What the store says of a task; `worker` is empty when nobody holds its lease."""

    worker: str
    number: int
    positions: Mapping[str, int]


class Sample(NamedTuple):
    """The store at one time."""

    at: float
    tasks: Mapping[str, TaskView]


class Size(NamedTuple):
    """Resident memory of a process."""

    process: str
    pid: int
    at: float
    n_bytes: int


class Injected(NamedTuple):
    """A fault that was injected, from `began` until it was healed at `over`.

    `hit` are the workers that it may stop; "*" stands for all of them. `excuses` are the errors
    that it alone may end streams with, those of `partition` (None: of any).
    """

    number: int
    kind: str
    target: str
    began: float
    over: float
    hit: tuple[str, ...]
    excuses: tuple[str, ...] = ()
    partition: int | None = None


@dataclass
class History:
    """Everything seen. `expected[content][network]` are the digests of the undisturbed run.

    `unsent` are records that the publisher gave up, never acknowledged; `n_unreadable` counts
    records of results topics that are sealed and no frame, `n_unsealed` what others wrote there.
    `unplayed` are faults that could not be injected,
    or not be healed, as they are described. `unready` says why the stack did not serve everything
    again after the last fault; it is empty when it did.
    """

    expected: Mapping[str, Mapping[str, tuple[bytes, ...]]] = field(default_factory=dict)
    partitions: int = 1
    sent: list[Sent] = field(default_factory=list)
    unsent: list[Sent] = field(default_factory=list)
    emissions: list[Emission] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    wire: list[Wire] = field(default_factory=list)
    n_unreadable: int = 0
    n_unsealed: int = 0
    samples: list[Sample] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    unplayed: list[Injected] = field(default_factory=list)
    unready: str = ""

    @property
    def disturbances(self) -> list[Injected]:
        """All that may have stopped something."""
        return [*self.faults, *self.unplayed]


def digest_of_values(values: Array) -> bytes:
    """What stands for the bits of one emission (n,)."""
    head = f"{values.dtype.str} {values.shape}\n".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(values).tobytes(), digest_size=8).digest()
