"""What came of one hostile input. Pure."""

from typing import NamedTuple

__all__ = ["Knock"]


class Knock(NamedTuple):
    """One hostile input and what came of it; `fault` is a sentence, "" if nothing is wrong."""

    kind: str
    outcome: str
    fault: str
