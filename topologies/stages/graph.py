"""Aggregation over the edges of a fixed graph: a sparse matrix on the node axis.

    y[c, j] = sum over edges e into j of w[e] * x[c, source of e]

in integers: w = k * 2**-shift. Values are (channels, nodes): the features of a node that a GCN
transforms by one matrix are the channels of a conv1d with a kernel of 1. The sum is exact in
`accumulator`, in any order.

Edges are kept sorted by target, then source, and parallel ones are added before they are rounded,
so that equal graphs are equal bytes. Self-loops and normalisation (such as 1 / sqrt(d_i * d_j) of
Kipf and Welling, ICLR 2017, arXiv:1609.02907) are edges and weights like any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import (
    Accumulator,
    Array,
    Clock,
    Cost,
    Json,
    Slice,
    Stage,
    StageError,
    Travels,
    ValueType,
    accumulator_dtype,
)
from topologies.stages.common import one_input, same_arrays
from topologies.stages.weighted import weight_on_grid

__all__ = ["STAGES", "Graph"]


@dataclass(frozen=True, eq=False)
class Graph(Stage):
    """`weight` (E,), int8 to int32; `sources`, `targets` (E,) int32: nodes, of the last axis."""

    kind: ClassVar[str] = "graph"
    needs: ClassVar[Mapping[str, int | None]] = {"weight": 1, "edges": 2}
    weighted: ClassVar[bool] = True
    travels: ClassVar[Travels] = "never"
    timeless: ClassVar[bool] = True

    weight: Array
    sources: Array
    targets: Array
    shift: int
    accumulator: Accumulator

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """The stage with these `params()` and `arrays()`."""
        same_arrays(cls.kind, arrays, ("weight", "sources", "targets"))
        edges = (arrays["weight"], arrays["sources"], arrays["targets"])
        return cls(*edges, params["shift"], params["accumulator"])

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """Weights on the grid of 2**-shift, edges in order."""
        sources, targets = arrays["edges"].astype(np.int32)
        pairs, place = np.unique(np.stack([targets, sources]), axis=1, return_inverse=True)
        joined = np.zeros(pairs.shape[1])
        np.add.at(joined, place.ravel(), arrays["weight"])
        weight = weight_on_grid(joined, shift)
        return cls(weight, pairs[1], pairs[0], shift, "float64").fitted(inputs)

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """Edges that are none, or too few weights."""
        edges, weight = arrays.get("edges"), arrays.get("weight")
        if edges is None or weight is None:
            return
        if len(edges) != 2 or edges.shape[1] != len(weight):
            yield (
                "weights",
                f"'edges' has shape {list(edges.shape)}: legal is [2, {len(weight)}], the sources "
                "and the targets of each weight.",
            )
        elif (edges < 0).any() or (edges != np.rint(edges)).any():
            yield "weights", "'edges' holds node numbers: legal are whole numbers from 0 on."

    def params(self) -> dict[str, Json]:
        """Shift and accumulator."""
        return {"shift": self.shift, "accumulator": self.accumulator}

    def arrays(self) -> dict[str, Array]:
        """Weights and edges, integers."""
        return {"weight": self.weight, "sources": self.sources, "targets": self.targets}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The same shape, in units of 2**-(unit + shift)."""
        value = one_input(self.kind, inputs)
        last = int(max(self.sources.max(), self.targets.max()))
        if last >= value.shape[-1]:
            raise StageError(
                f"An edge names node {last}: values of shape {value.shape} have "
                f"{value.shape[-1]} nodes, numbered from 0."
            )
        bound = self.row_bound(inputs)
        return ValueType(value.shape, -bound, bound, value.unit + self.shift)

    def row_bound(self, inputs: Sequence[ValueType]) -> int:
        """The largest over the nodes of sum |k| * max |x|."""
        rows = np.zeros(int(self.targets.max()) + 1, np.int64)
        np.add.at(rows, self.targets, np.abs(self.weight.astype(np.int64)))
        return int(rows.max()) * one_input(self.kind, inputs).largest

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """One synapse per edge and channel."""
        n = self.weight.size * (inputs[0].n // inputs[0].shape[-1])
        return Cost(n_synapses=n, macs_per_step=n)

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        """(B, T, ..., N) -> the same in the accumulator's dtype."""
        (x,) = inputs
        n_rows = prod(x.shape[:-1])
        nodes = x.astype(np.float64).reshape(n_rows, x.shape[-1]).T
        sums = np.zeros(nodes.shape)
        np.add.at(sums, self.targets, nodes[self.sources] * self.weight[:, None])
        return sums.T.astype(accumulator_dtype(self.accumulator)).reshape(x.shape), state

    def granule(self, inputs: Sequence[ValueType]) -> int:
        """All nodes of a channel."""
        return inputs[0].n // inputs[0].shape[0] if len(inputs[0].shape) > 1 else inputs[0].n

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The channels of [lo, hi)."""
        granule, n = self.granule(inputs), inputs[0].n
        if lo % granule or hi % granule or not 0 <= lo < hi <= n:
            raise StageError(f"A graph of {n} outputs has no slice [{lo}, {hi}).")
        return Slice(self, ((lo, hi),))


STAGES: tuple[type[Stage], ...] = (Graph,)
