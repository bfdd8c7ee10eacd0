"""A program that reads its own output some steps late, as one stage.

    y[t] = program(x[t], y[t - delay]),   y = 0 before the stream's first step

The program runs as many steps at once as its shortest delay, since so many it can know. The last
outputs are part of the state. So a recurrent layer that is one operator sends nothing to itself,
and its windows may be longer than its delay (compiler/cut.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from topologies.program import Program
from topologies.stages.base import (
    Array,
    Clock,
    Cost,
    Json,
    Stage,
    StageError,
    StateSpec,
    Travels,
    ValueType,
    edge_dtype,
)

__all__ = ["STAGES", "Loop"]


@dataclass(frozen=True, eq=False)
class Loop(Stage):
    """`feedback` lists (port, delay): the ports of `program` that carry its own output.

    The stage reads the other ports, in order.
    """

    kind: ClassVar[str] = "loop"
    travels: ClassVar[Travels] = "always"

    program: Program
    feedback: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        """Check the delays. Raises StageError."""
        if not self.feedback or min(delay for _, delay in self.feedback) < 1:
            raise StageError(f"A loop reads itself 1 step late or later, not {self.feedback}.")

    @property
    def extras(self) -> tuple[str, ...]:
        """Those of its stages."""
        return self.program.extras

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """The stage with these `params()` and `arrays()`."""
        from topologies.stages.table import build_stage  # which has this kind in it

        stages = []
        for index, entry in enumerate(params["stages"]):
            prefix = f"{index:04d}."
            mine = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            stages.append(build_stage(entry["kind"], entry["params"], mine))
        ports = tuple(ValueType(tuple(shape), *rest) for shape, *rest in params["ports"])
        reads = tuple(tuple(entry["reads"]) for entry in params["stages"])
        feedback = tuple((port, delay) for port, delay in params["feedback"])
        return cls(Program(ports, tuple(stages), reads), feedback)

    def params(self) -> dict[str, Json]:
        """The stages with what they read, the types of the ports, the feedback."""
        program = self.program
        return {
            "ports": [[list(p.shape), p.low, p.high, p.unit] for p in program.ports],
            "stages": [
                {"kind": stage.kind, "params": stage.params(), "reads": list(reads)}
                for stage, reads in zip(program.stages, program.reads, strict=True)
            ],
            "feedback": [list(pair) for pair in self.feedback],
        }

    def arrays(self) -> dict[str, Array]:
        """The arrays of all stages."""
        return {
            f"{index:04d}.{name}": array
            for index, stage in enumerate(self.program.stages)
            for name, array in stage.arrays().items()
        }

    @property
    def _delays(self) -> list[int]:
        return [delay for _, delay in self.feedback]

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The program's output."""
        fed = {port for port, _ in self.feedback}
        ports, output = self.program.ports, self.program.output
        others = [ports[i] for i in range(len(ports)) if i not in fed]
        if list(inputs) != others or any(ports[port] != output for port in fed):
            raise StageError(f"This loop of {output} reads {others}, not {list(inputs)}.")
        return output

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """The program's, and the last outputs."""
        n = max(self._delays) * self.program.output.n
        return self.program.cost + Cost(state_bytes=n * edge_dtype(self.program.output).itemsize)

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The program's, then the outputs of the last steps, oldest first: `past`."""
        output = self.program.output
        past = ("past", (max(self._delays), output.n), edge_dtype(output).name)
        return (*self.program.state_spec(), past)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, *shape) each -> (B, T, *shape) in the edge's dtype."""
        *inner, past = state
        longest, n_steps = past.shape[1], inputs[0].shape[1]
        known = np.concatenate([past, np.zeros((len(past), n_steps, past.shape[2]), past.dtype)], 1)
        now, step = tuple(inner), min(self._delays)
        for lo in range(0, n_steps, step):
            hi = min(lo + step, n_steps)
            here = Clock(clock.start + lo, np.zeros_like(clock.end), clock.saturated)
            output, now = self.program.run(self._ports(inputs, known, lo, hi), now, here)
            known[:, longest + lo : longest + hi] = output
        shape = self.program.output.shape
        y = known[:, longest:].reshape(len(past), n_steps, *shape)
        return y, (*now, np.ascontiguousarray(known[:, n_steps:]))

    def _ports(self, inputs: Sequence[Array], known: Array, lo: int, hi: int) -> list[Array]:
        """What all ports of the program read in steps [lo, hi)."""
        longest, others = max(self._delays), iter(inputs)
        late = {
            port: known[:, longest + lo - delay : longest + hi - delay]
            for port, delay in self.feedback
        }
        return [
            late[i] if i in late else next(others)[:, lo:hi] for i in range(len(self.program.ports))
        ]


STAGES: tuple[type[Stage], ...] = (Loop,)
