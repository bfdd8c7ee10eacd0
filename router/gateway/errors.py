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


_OF_REASON: Final = {
    "DeadlineMissed": 504, "EraLost": 503, "InputLost": 503, "SnapshotCorrupt": 503,
}  # fmt: skip
"""What a stream ends with through no fault of its own: the same may be asked again, as another."""


def status_of(error: Exception) -> int:
    """The HTTP code of an error."""
    if code := _OF_REASON.get(_reason_of(error)):
        return code
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


def _reason_of(error: Exception) -> str:
    """The word before the colon of why a stream ended, or a record was refused."""
    if isinstance(error, StreamFailed):
        result = getattr(error, "result", None)
        return "" if result is None else result.error.partition(":")[0]
    if isinstance(error, RecordRefused):
        return str(getattr(error, "reason", "")).partition(":")[0]
    return ""
