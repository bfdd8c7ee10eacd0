"""What can go wrong at the gateway, and the one table of HTTP codes."""

from typing import ClassVar, Final

from router.client import (
    PublishFailed,
    ReaderFailed,
    RecordRefused,
    RecordTooLarge,
    ResultTimeout,
    StreamFailed,
)
from router.records import RecordError
from router.results import ResultsLost
from router.store.errors import ManifestDamaged, StoreUnavailable, StoreUnfit
from router.topics import TopicError
from topologies.errors import SpikeRouterError

__all__ = [
    "BadRequest",
    "BodyTooLarge",
    "BodyTooSlow",
    "Conflict",
    "GatewayError",
    "MisfitResult",
    "NotAlive",
    "NotReady",
    "TooBusy",
    "UnknownEncoding",
    "UnknownNetwork",
    "status_of",
]


class GatewayError(SpikeRouterError, RuntimeError):
    """A request cannot be answered; the text tells the client why."""


class BadRequest(GatewayError, ValueError):
    """The request says nothing legal; the text says what was legal."""


class UnknownNetwork(GatewayError, LookupError):
    """No network of this name is deployed."""


class Conflict(GatewayError):
    """The id names another request, or the name another stream."""


class BodyTooLarge(GatewayError, ValueError):
    """The body of the request is too large."""


class BodyTooSlow(GatewayError, TimeoutError):
    """The body of the request did not come in time."""


class UnknownEncoding(GatewayError, ValueError):
    """The body is compressed."""


class MisfitResult(GatewayError, ValueError):
    """A result is not of the shape that the network declares."""


class TooBusy(GatewayError):
    """More is in flight than may be; `retry_after` is in whole seconds."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(GatewayError):
    """Something that is needed to serve is away; `reasons` are sentences."""

    retryable: ClassVar[bool] = True

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = reasons


class NotAlive(GatewayError):
    """Something of this process has ended for good: a new one has to take its place."""


# The first class that fits decides.
_STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (BadRequest, 400),
    (RecordError, 400),
    (TopicError, 400),
    (RecordRefused, 400),
    (UnknownNetwork, 404),
    (BodyTooSlow, 408),
    (Conflict, 409),
    (ResultsLost, 410),
    (BodyTooLarge, 413),
    (RecordTooLarge, 413),
    (UnknownEncoding, 415),
    (TooBusy, 429),
    (StreamFailed, 500),
    (NotReady, 503),
    (NotAlive, 503),
    (PublishFailed, 503),
    (ReaderFailed, 503),
    (StoreUnavailable, 503),
    (StoreUnfit, 503),
    (ManifestDamaged, 503),
    (ResultTimeout, 504),
    (SpikeRouterError, 500),
)


def status_of(error: Exception) -> int:
    """The HTTP code of an error."""
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
