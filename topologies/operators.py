"""Operators and their canonical artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from topologies.artifact import ArtifactError, digest, pack_artifact, unpack_artifact
from topologies.program import Program
from topologies.stages.base import Array, Cost, Json, StageError, ValueType
from topologies.stages.table import build_stage

__all__ = ["Operator", "OperatorKind", "type_from_json", "type_to_json"]

OperatorKind: TypeAlias = Literal["ingest", "synaptic", "readout"]
_FORMAT = 1  # of artifacts


@dataclass(frozen=True, eq=False)
class Operator:
    """What one worker service computes. `id` is the hash of `to_bytes()`.

    `input` is the name of the input that an ingest operator reads, "" for any other: one task of
    it reads one topic, so equal encoders of two inputs are two operators.
    """

    id: str
    kind: OperatorKind
    program: Program
    input: str = ""

    @classmethod
    def of(cls, program: Program, input_name: str = "") -> Operator:
        """The operator with this program. Raises StageError when its stages do not fit."""
        return cls(digest(_artifact(program, input_name)), _kind(program), program, input_name)

    @property
    def output(self) -> ValueType:
        """What the operator sends. A readout's is the type of one emission's values."""
        return self.program.output

    @property
    def cost(self) -> Cost:
        """What one stream costs."""
        return self.program.cost

    def to_bytes(self) -> bytes:
        """The canonical artifact."""
        return _artifact(self.program, self.input)

    @classmethod
    def from_bytes(cls, data: bytes, expected: str | None = None) -> Operator:
        """The operator of an artifact.

        Raises ArtifactError when the bytes are no canonical artifact, or when the operator is not
        the `expected` one.
        """
        meta, arrays = unpack_artifact(data)
        try:
            operator = cls.of(_program(meta, arrays), meta.get("input", ""))
        except (KeyError, TypeError, IndexError, StageError) as error:
            raise ArtifactError(f"The artifact holds no legal program: {error}") from error
        found = digest(data)
        if operator.id != found or expected not in (None, found):
            raise ArtifactError(
                f"The artifact's hash is {found}, its operator's {operator.id}, expected was "
                f"{expected or operator.id}: the bytes are damaged or of another version."
            )
        return operator


def _kind(program: Program) -> OperatorKind:
    role = program.stages[-1].role
    if role == "encoder":
        return "ingest"
    return "readout" if role == "readout" else "synaptic"


def _artifact(program: Program, input_name: str) -> bytes:
    arrays: dict[str, Array] = {}
    stages: list[Json] = []
    for index, (stage, reads) in enumerate(zip(program.stages, program.reads, strict=True)):
        stages.append({"kind": stage.kind, "params": stage.params(), "reads": list(reads)})
        arrays |= {f"{index:04d}.{name}": array for name, array in stage.arrays().items()}
    types = program.types  # raises when the stages do not fit
    meta: dict[str, Json] = {
        "format": _FORMAT,
        "ports": [type_to_json(port) for port in program.ports],
        "stages": stages,
        "output": type_to_json(types[-1]),
    }
    if input_name:
        meta["input"] = input_name
    return pack_artifact(meta, arrays)


def _program(meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> Program:
    if meta["format"] != _FORMAT:
        raise ArtifactError(f"The artifact has format {meta['format']}, legal is {_FORMAT}.")
    stages = []
    for index, entry in enumerate(meta["stages"]):
        prefix = f"{index:04d}."
        mine = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        stages.append(build_stage(entry["kind"], entry["params"], mine))
    reads = tuple(tuple(entry["reads"]) for entry in meta["stages"])
    return Program(tuple(type_from_json(port) for port in meta["ports"]), tuple(stages), reads)


def type_to_json(value: ValueType) -> list[Any]:
    """A type as it stands in artifacts and manifests."""
    return [list(value.shape), value.low, value.high, value.unit]


def type_from_json(entry: Sequence[Any]) -> ValueType:
    """The type that `type_to_json` wrote."""
    shape, low, high, unit = entry
    return ValueType(tuple(shape), low, high, unit)
