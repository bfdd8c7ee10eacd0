"""Which class a kind of stage has."""

from collections.abc import Mapping
from typing import Any

from topologies.stages import add, conv, encoder, linear, neuron, pool, readout, reshape
from topologies.stages.base import Array, Stage, StageError

__all__ = ["KINDS", "build_stage", "stage_class"]

KINDS: Mapping[str, type[Stage]] = {
    cls.kind: cls
    for module in (conv, linear, pool, reshape, add, neuron, readout, encoder)
    for cls in module.STAGES
}


def stage_class(kind: str) -> type[Stage]:
    """The class of a kind. Raises StageError for an unknown one."""
    if kind not in KINDS:
        raise StageError(f"Unknown kind of stage {kind!r}: known are {', '.join(sorted(KINDS))}.")
    return KINDS[kind]


def build_stage(kind: str, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Stage:
    """The stage with these `params()` and `arrays()`. Raises StageError."""
    return stage_class(kind).build(params, arrays)
