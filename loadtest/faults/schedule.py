"""When which fault comes, from a seed. Pure: the same seed and options, the same schedule.

A schedule says how hard a fault is and whom it hits only as numbers in [0, 1); what they choose is
decided when it comes, among what is there then. So a replay injects the same faults at the same
times, although processes never run twice alike.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from topologies.errors import SpikeRouterError

__all__ = ["APACHE", "EMBEDDED", "KINDS", "Fault", "ScheduleError", "draw", "lines"]

KINDS: Final[Mapping[str, tuple[float, str]]] = {
    "kill-worker": (8, "SIGKILL of any worker"),
    "kill-workers": (2, "SIGKILL of two workers at once"),
    "kill-gateway": (2, "SIGKILL of the gateway"),
    "pause-worker": (4, "SIGSTOP of a worker for longer than its lease, then SIGCONT"),
    "slow-worker": (3, "a worker that gets a fifth of its time"),
    "stop-worker": (3, "SIGTERM of a worker: it hands over"),
    "scale": (2, "two more workers, and away with them again"),
    "cut-broker": (3, "a worker's connections to the broker reset, and refused for a while"),
    "hang-broker": (3, "a worker's connections to the broker carry nothing for a while"),
    "delay-broker": (2, "a worker's connections to the broker are slow"),
    "cut-store": (3, "a worker's connections to the store reset, and refused for a while"),
    "hang-store": (3, "a worker's connections to the store carry nothing for a while"),
    "delay-store": (2, "a worker's connections to the store are slow"),
    "kill-store": (3, "SIGKILL of the store, and its restart with its log"),
    "fail-over": (2, "SIGKILL of the store; a replica that lacks the last writes takes over"),
    "wipe-store": (1, "loss of all data of the store, and deployment anew"),
    "fill-disk": (2, "no room for the store's log"),
    "flush-scripts": (3, "the store forgets its scripts"),
    "repeat-frames": (4, "a publisher repeats frames and input, in another order"),
    "poison": (4, "frames and records that nobody can read"),
    "damage-store": (3, "one bit of any key or field of the store turns over"),
    "evict-store": (1, "the store evicts keys that it picks at random"),
    "damage-topic": (4, "copies of what the system said, in any topic, with one bit turned"),
    "forge": (4, "records and frames in the system's name, by somebody without its keys"),
    "codecs": (3, "records compressed in every way, and batches that nobody can read"),
    "flood": (3, "thousands of legal and useless records within a second"),
    "long-broker": (1, "the broker is away for longer than records may be on their way"),
    "jump-clock": (2, "the wall clock of a worker jumps"),
    "kill-broker": (3, "SIGKILL of one of three brokers, and its restart"),
    "roll-brokers": (1, "all three brokers restarted, one after the other"),
}
"""Kind -> how often it comes, relatively; what it is."""

APACHE: Final = tuple(KINDS)
EMBEDDED: Final = tuple(kind for kind in KINDS if kind not in ("kill-broker", "roll-brokers"))
"""The embedded broker cannot come back: its death ends the stack."""


class ScheduleError(SpikeRouterError, ValueError):
    """A schedule was asked for that cannot be."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The fault `number` of a schedule comes `at` seconds after the start.

    `target` and `strength` in [0, 1) choose whom it hits, and how long or hard.
    """

    number: int
    at: float
    kind: str
    target: float
    strength: float

    def pick(self, names: Sequence[str]) -> str:
        """One of the names; they must not be empty."""
        return names[int(self.target * len(names))]

    def dice(self) -> random.Random:
        """For all that it chooses besides: its own, and the same in each replay."""
        return random.Random(f"{self.number} {self.kind} {self.target} {self.strength}")

    def between(self, low: float, high: float) -> float:
        """How long or how much, by its strength."""
        return low + self.strength * (high - low)


def draw(
    seed: int, n_faults: int, *, gap_s: float, kinds: Sequence[str] = EMBEDDED
) -> tuple[Fault, ...]:
    """So many faults, `gap_s` seconds apart on average, each kind as often as it weighs.

    The first ones are one of each kind. Raises ScheduleError for a kind that there is not.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        raise ScheduleError(
            f"Faults of kind {', '.join(unknown) or '(none)'} were asked for; there are"
            f" {', '.join(KINDS)}."
        )
    dice = random.Random(seed)  # stays the same over releases of Python for random()
    bag: list[str] = []
    at, faults = 0.0, []
    for number in range(n_faults):
        if not bag:
            bag = _shuffled(dice, kinds)
        at += gap_s * (0.5 + dice.random())
        faults.append(Fault(number, round(at, 3), bag.pop(), dice.random(), dice.random()))
    return tuple(faults)


def _shuffled(dice: random.Random, kinds: Sequence[str]) -> list[str]:
    """Every kind as often as it weighs; one of each comes first. To be taken from the end."""
    first = list(kinds)
    rest = [kind for kind in kinds for _ in range(int(KINDS[kind][0]) - 1)]
    for pile in (first, rest):
        for i in range(len(pile) - 1, 0, -1):
            j = int(dice.random() * (i + 1))
            pile[i], pile[j] = pile[j], pile[i]
    return rest + first


def lines(faults: Sequence[Fault]) -> list[str]:
    """A schedule as text, one line per fault."""
    return [
        f"{f.number:4d}  {f.at:8.2f} s  {f.kind:14s} target {f.target:.3f} strength"
        f" {f.strength:.3f}"
        for f in faults
    ]
