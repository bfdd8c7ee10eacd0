"""What can go wrong between a worker and the store."""

from typing import ClassVar

from topologies.errors import SpikeRouterError

__all__ = [
    "ManifestDamaged",
    "StoreCallError",
    "StoreError",
    "StoreReplyError",
    "StoreUnavailable",
    "StoreUnfit",
]


class StoreError(SpikeRouterError, RuntimeError):
    """The root of every error of the store."""


class StoreUnavailable(StoreError):
    """The store did not answer in time; whether the call took effect is unknown (rule 23)."""

    retryable: ClassVar[bool] = True


class StoreReplyError(StoreError):
    """The store answered with something no version of this project writes."""


class StoreUnfit(StoreError):
    """What answers cannot or must not be the store; the sentence says why, and what to set."""


class ManifestDamaged(StoreError):
    """What the store holds as a network's manifest is not what deployment wrote."""

    retryable: ClassVar[bool] = True


class StoreCallError(StoreError, ValueError):
    """A call was built from values that no script accepts."""
