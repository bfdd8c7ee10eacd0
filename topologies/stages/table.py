"""Which class a kind of stage has."""

from collections.abc import Mapping
from typing import Any

from topologies.stages import (
    add,
    alif,
    attention,
    brian2,
    conv,
    conv1d,
    cubalif,
    cubalif_int,
    delay,
    encoder,
    graph,
    integrator,
    leaky,
    linear,
    loop,
    multiply,
    multispike,
    neuron,
    plif,
    pool,
    readout,
    reduce,
    requantise,
    reshape,
    scale,
)
from topologies.stages.base import Array, Role, Stage, StageError

__all__ = ["KINDS", "build_stage", "kinds_of", "stage_class"]

_MODULES = (
    *(conv, conv1d, linear, scale, graph),
    *(pool, reduce, reshape, add, multiply, attention, requantise, delay),
    *(neuron, plif, cubalif, cubalif_int, alif, multispike, integrator, brian2, loop),
    *(readout, leaky, encoder),
)
KINDS: Mapping[str, type[Stage]] = {cls.kind: cls for module in _MODULES for cls in module.STAGES}


def kinds_of(role: Role) -> tuple[str, ...]:
    """The kinds of a role."""
    return tuple(kind for kind, cls in KINDS.items() if cls.role == role)


def stage_class(kind: str) -> type[Stage]:
    """The class of a kind. Raises StageError for an unknown one."""
    if kind not in KINDS:
        raise StageError(f"Unknown kind of stage {kind!r}: known are {', '.join(sorted(KINDS))}.")
    return KINDS[kind]


def build_stage(kind: str, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Stage:
    """The stage with these `params()` and `arrays()`. Raises StageError."""
    return stage_class(kind).build(params, arrays)
