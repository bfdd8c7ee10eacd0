"""Libraries that only importing needs, found when they are."""

from importlib import import_module
from typing import Any

from topologies.errors import SpikeRouterError

__all__ = ["MissingLibrary", "library"]


class MissingLibrary(SpikeRouterError, ImportError):
    """A library of an extra is not installed."""


def library(name: str, extra: str, purpose: str) -> Any:
    """The module of this name. Raises MissingLibrary with the command that installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingLibrary(
            f"{name} is needed to {purpose}, and cannot be imported ({error}); install the extra "
            f"{extra}: pip install -c constraints.txt -e '.[{extra}]'."
        ) from error
