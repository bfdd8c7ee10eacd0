"""Records that are legal and of no use to anybody, thousands within a second. Pure.

They are sent beside the streams of good clients, to the same input, and say: streams that open and
end at once, streams that open and are never fed, one request again and again, time marks as far
ahead as is legal, events that all fall on one step.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from loadtest.faults.bits import Said
from router.records import Data, encode_record, record_key

__all__ = ["FloodedInput", "flood"]

_FAR_WINDOWS: Final = 1024  # a record may end 4,096 windows
_FAR_MARKS: Final = 2  # they cost the most: every operator steps every window
_MOST_EVENTS: Final = 64
_NEVER_FED: Final = 0.1  # of the records: each leaves a stream open


@dataclass(frozen=True)
class FloodedInput:
    """An input: the steps of one sample, the values of a step, and a sample as a record has it."""

    steps: int
    n_values: int
    has_events: bool
    sample: Data


def flood(of: FloodedInput, n: int, dice: random.Random) -> list[Said]:
    """`n` records, shuffled; the names of their streams are their own."""
    prefix = f"flood-{dice.getrandbits(40):x}"
    marks = [_said(Data(f"{prefix}-far-{i}", until=_FAR_WINDOWS * of.steps, end=True, seq=0))
             for i in range(_FAR_MARKS)]  # fmt: skip
    idle = [_said(Data(f"{prefix}-idle-{i}", until=0, seq=0)) for i in range(int(_NEVER_FED * n))]
    made = marks + idle
    ways = [way(of, prefix) for way in _ways(of).values()]
    made += islice((next(way) for way in cycle(ways)), max(0, n - len(made)))
    dice.shuffle(made)
    return made[:n]


def _ways(of: FloodedInput) -> Mapping[str, Callable[[FloodedInput, str], Iterator[Said]]]:
    ways = {"empty": _empty, "repeated": _repeated}
    return {**ways, "one step": _one_step} if of.has_events else ways


def _said(data: Data) -> Said:
    return Said(record_key(data), encode_record(data))


def _empty(of: FloodedInput, prefix: str) -> Iterator[Said]:
    number = 0
    while True:
        yield _said(Data(f"{prefix}-empty-{number}", end=True, seq=0))
        number += 1


def _repeated(of: FloodedInput, prefix: str) -> Iterator[Said]:
    said = _said(Data(f"{prefix}-again", request=True, payload=of.sample.payload,
                      dtype=of.sample.dtype, shape=of.sample.shape))  # fmt: skip
    while True:
        yield said


def _one_step(of: FloodedInput, prefix: str) -> Iterator[Said]:
    events = tuple((0, address, 1) for address in range(min(_MOST_EVENTS, of.n_values)))
    number = 0
    while True:
        yield _said(Data(f"{prefix}-step-{number}", events=events, end=True, seq=0))
        number += 1
