"""The root of every error this project raises."""

from typing import ClassVar

__all__ = ["SpikeRouterError"]


class SpikeRouterError(Exception):
    """An error whose message is a sentence: what was wrong, what was legal, what to do.

    `retryable` tells a caller whether the same call may succeed later without any change.
    """

    retryable: ClassVar[bool] = False
