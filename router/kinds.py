"""What a task asks of a worker by its kind: the operator's kind, and the extras that step it.

A kind is written `synaptic`, or `synaptic+brian2` for an operator that an extra's library steps.
A worker names all kinds that it hosts, so one without the library is never given such a task, nor
is one of a release that knows of no extras.
"""

from collections.abc import Collection
from importlib.util import find_spec
from itertools import combinations
from typing import Final

__all__ = ["EXTRAS", "extras_of", "installed_extras", "operator_kind", "task_kind", "with_extras"]

EXTRAS: Final = ("brian2",)
"""Extras whose libraries step operators; each has the name of the module that it installs."""


def task_kind(kind: str, extras: Collection[str]) -> str:
    """The kind of the tasks of an operator of this kind, which needs these extras."""
    return "+".join((kind, *sorted(extras)))


def operator_kind(kind: str) -> str:
    """The operator's kind in a task's: ingest, synaptic or readout."""
    return kind.partition("+")[0]


def extras_of(kind: str) -> tuple[str, ...]:
    """The extras in a task's kind. With any, the operator is not portable (numerics 18)."""
    return tuple(kind.split("+")[1:])


def with_extras(kinds: Collection[str], extras: Collection[str]) -> tuple[str, ...]:
    """All kinds of task that a worker hosts which hosts these kinds of operator."""
    sets = [s for n in range(len(extras) + 1) for s in combinations(sorted(extras), n)]
    return tuple(task_kind(kind, chosen) for kind in kinds for chosen in sets)


def installed_extras() -> tuple[str, ...]:
    """Those that are there. Nothing is imported: that takes seconds, which only a task is worth."""
    return tuple(extra for extra in EXTRAS if find_spec(extra) is not None)
