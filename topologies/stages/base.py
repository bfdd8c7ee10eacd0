"""What every stage of an operator's program has in common.

A stage reads arrays (B, T, *shape): B streams, T steps. Every value that passes between stages is
an exact integer k that means k * 2**-unit, in whatever dtype carries it (spikes are uint8, sums
have the dtype of the accumulator that the compiler proved large enough). So no stage rounds, but
for the one rounding to float32 on the way into a neuron: `to_current`.

One module per family of kinds; each exports `STAGES`, the tuple of its classes:

    conv.py       conv2d                        conv1d.py     conv1d
    linear.py     linear                        scale.py      scale
    graph.py      graph                         pool.py       max_pool, sum_pool
    reduce.py     reduce                        reshape.py    reshape, select, rows
    add.py        add                           multiply.py   multiply
    attention.py  ssa                           requantise.py requantise
    neuron.py     if, lif                       plif.py       plif
    cubalif.py    cubalif                       cubalif_int.py cubalif_int
    alif.py       alif
    multispike.py multispike                    integrator.py integrator
    brian2.py     brian2 (text: brian2_text.py, steps: brian2_run.py)
    delay.py      delay                         loop.py       loop
    readout.py    count, mean, membrane         leaky.py      leaky
    encoder.py    direct, rate, latency, events

Source of the rules: docs/numerics.md, numbered; "numerics 3" points to rule 3 there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from topologies.errors import SpikeRouterError

__all__ = [
    "NO_ARRAYS",
    "Accumulator",
    "Array",
    "Clock",
    "Cost",
    "Emissions",
    "Encoder",
    "Json",
    "Role",
    "Slice",
    "Stage",
    "StageError",
    "StateSpec",
    "Travels",
    "ValueType",
    "accumulator_dtype",
    "accumulator_for",
    "edge_dtype",
    "float32_from_bits",
    "float32_to_bits",
    "slice_type",
    "to_current",
]

Array: TypeAlias = npt.NDArray[Any]
# A readout's output: for each stream the emissions of this window, (K_b, n) each.
Emissions: TypeAlias = list[Array]
# What may stand in an artifact: no floats, whose text differs between writers.
Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"
Role: TypeAlias = Literal["linear", "neuron", "readout", "encoder"]
# Whether what a stage gives may leave its operator: sums of synapses never do.
Travels: TypeAlias = Literal["always", "as its inputs", "never"]
Accumulator: TypeAlias = Literal["float32", "int32", "float64"]
# (name, shape of one stream, dtype) of each array of a stage's state.
StateSpec: TypeAlias = tuple[tuple[str, tuple[int, ...], str], ...]


NO_ARRAYS: Mapping[str, Array] = MappingProxyType({})


class StageError(SpikeRouterError, ValueError):
    """A stage cannot be built, or cannot read what it is given."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """What an edge carries: integers of `shape` in [low, high], each meaning k * 2**-unit."""

    shape: tuple[int, ...]
    low: int
    high: int
    unit: int = 0

    @property
    def n(self) -> int:
        """Number of values of one step."""
        return math.prod(self.shape)

    @property
    def is_spike(self) -> bool:
        """Whether the values are plain spikes, 0 or 1."""
        return (self.low, self.high, self.unit) == (0, 1, 0)

    @property
    def largest(self) -> int:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the window of each stream lies.

    `start` is int64 (B,), the stream's step at which the window starts; `end` is bool (B,), whether
    the stream ends with this window. `saturated` is told how many values a stage has cut off to
    what their bits hold, which changes no bit of what it gives.
    """

    start: Array
    end: Array
    saturated: Callable[[int], None] = lambda n: None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage needs: of one stream, one step."""

    n_neurons: int = 0
    n_synapses: int = 0
    macs_per_step: int = 0
    state_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(
            self.n_neurons + other.n_neurons,
            self.n_synapses + other.n_synapses,
            self.macs_per_step + other.macs_per_step,
            self.state_bytes + other.state_bytes,
        )


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a stage that computes some of its outputs.

    `reads[i]` is the range of flattened values that it needs of input i: `None` for all of them.
    `before` stands between a single input and the stage: what it needs is no range then.
    """

    stage: Stage
    reads: tuple[tuple[int, int] | None, ...]
    before: Stage | None = None


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """One step of an operator's program. Immutable; the state goes in and out of `run`."""

    kind: ClassVar[str]
    role: ClassVar[Role] = "linear"

    # What a network file gives a layer of this kind: how many layers it reads (at least, at most;
    # None: any number), and its arrays with their dimensions (None: any but none).
    n_sources: ClassVar[tuple[int, int | None]] = (1, 1)
    needs: ClassVar[Mapping[str, int | None]] = {}
    takes: ClassVar[Mapping[str, int | None]] = {}
    # What the compiler may do. `weighted`: `weight` and `bias` go on the grid (stages/weighted.py).
    # `homogeneous`: an input twice as large makes an output twice as large, so that a divisor may
    # be taken out behind it. `tail`: where it alone reads some neurons it goes with their operator,
    # for no more values travel behind it. `shared`: it ends an operator if several layers read it.
    weighted: ClassVar[bool] = False
    homogeneous: ClassVar[bool] = False
    travels: ClassVar[Travels] = "as its inputs"
    tail: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    # Bits of a state variable, where fewer than its dtype has.
    state_bits: ClassVar[int | None] = None
    # Whether `run` treats streams and steps alike: (T, B, ...) may then be given for (B, T, ...).
    timeless: ClassVar[bool] = False

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """The stage that a layer of a network file describes, before it is known what it reads.

        Only for kinds without weights. Raises StageError for a parameter that is unknown, missing
        or out of range, KeyError for one that is missing.
        """
        return cls.build(params, {})

    @classmethod
    def lowered(
        cls,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        inputs: Sequence[ValueType],
        shift: int = 0,
    ) -> Self:
        """The stage of a layer that reads these inputs; of weights, on the grid of 2**-shift.

        Raises StageError when it cannot read them, or when no accumulator holds its sums.
        """
        return cls.authored(params, arrays).fitted(inputs)

    @classmethod
    def averaged(
        cls, params: Mapping[str, Any], shape: tuple[int, ...]
    ) -> tuple[str, dict[str, Any], int]:
        """(kind, parameters, divisor): the layer is this sum of its input (of `shape`) divided.

        The sum takes a parameter `shift`, for the divisor's factors of two. 1: nothing is divided.
        """
        return cls.kind, dict(params), 1

    @classmethod
    def faults(
        cls, params: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Iterator[tuple[str, str]]:
        """(field or "", what is wrong) of a layer whose arrays have their legal dimensions."""
        try:
            cls.authored(params, arrays)
        except KeyError as error:
            yield "", f"a {cls.kind} needs {error}."
        except (StageError, TypeError) as error:
            yield "", str(error)

    @classmethod
    @abstractmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """The stage whose `params()` and `arrays()` these are. Raises StageError."""

    @abstractmethod
    def params(self) -> dict[str, Json]:
        """Everything that is no array. Float constants as float32 bits: `float32_to_bits`."""

    def arrays(self) -> dict[str, Array]:
        """The weights, and constants with one value per neuron."""
        return {}

    def fitted(self, inputs: Sequence[ValueType]) -> Self:
        """With the cheapest accumulator in which its sums are exact (numerics 2 and 3).

        Raises StageError when there is none. A stage without sums is what it was.
        """
        params = self.params()
        if "accumulator" not in params:
            return self
        accumulator = accumulator_for(self.row_bound(inputs))
        return self.build({**params, "accumulator": accumulator}, self.arrays())

    @abstractmethod
    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """What the stage makes of these inputs. Raises StageError when it cannot read them."""

    def row_bound(self, inputs: Sequence[ValueType]) -> int:
        """The largest |integer sum| that any output row can reach, partial sums included."""
        return self.out_type(inputs).largest

    @classmethod
    def most(cls, params: Mapping[str, Any]) -> int:
        """The most spikes of one of a layer's neurons in one step, for kinds of role neuron."""
        return 1

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of this package whose libraries step it, sorted.

        With any it is not portable: its bits are the library's, not the same on every machine and
        installation (numerics 18).
        """
        return ()

    def cost(self, inputs: Sequence[ValueType]) -> Cost:
        """What one stream costs."""
        return Cost()

    def state_spec(self, inputs: Sequence[ValueType]) -> StateSpec:
        """The state of one stream; it starts as zeros."""
        return ()

    @abstractmethod
    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array | Emissions, tuple[Array, ...]]:
        """The reference: slow and plain, and what every backend must equal bit for bit.

        `inputs` are (B, T, *shape) each, `state` are (B, *shape) each, in the order of
        `state_spec`. Returns the output (B, T, *shape), or a readout's emissions, and the new
        state. Never writes into what it is given.
        """

    def granule(self, inputs: Sequence[ValueType]) -> int | None:
        """Slices begin and end at multiples of this many flattened outputs. None: cannot be cut."""
        return None

    def slice(self, inputs: Sequence[ValueType], lo: int, hi: int) -> Slice:
        """The part that computes the flattened outputs [lo, hi). Raises StageError."""
        raise StageError(f"A stage of kind {self.kind!r} cannot be cut into synapse groups.")


class Encoder(Stage):
    """The stage of an ingest operator: turns input values into the integers that travel."""

    role: ClassVar[Role] = "encoder"

    @abstractmethod
    def validate(self, sample: Array) -> Array:
        """The sample, (*shape) or for events (T, *shape), as it is encoded.

        Raises StageError when it is not what the input declares.
        """

    @abstractmethod
    def encode(self, values: Array, start: Array, n_steps: int, seeds: Array) -> Array:
        """Encodes one window of B streams.

        `values` are (B, *shape) floats, one sample per stream (an encoder of events takes its
        window's integers, (B, n_steps, *shape)); `start` is int64 (B,), the stream's step at which
        the window starts; `seeds` is uint64 (B,). Returns integers (B, n_steps, *shape).
        """

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array | Emissions, tuple[Array, ...]]:
        """Not for encoders: ingest calls `encode`."""
        raise StageError(f"An encoder ({self.kind!r}) stands alone in an ingest operator.")


_LIMITS: tuple[tuple[int, Accumulator], ...] = (
    (2**24, "float32"),
    (2**31, "int32"),
    (2**53, "float64"),
)


def accumulator_for(bound: int) -> Accumulator:
    """The cheapest accumulator in which sums up to `bound` are exact (numerics 3).

    Raises StageError when there is none.
    """
    for limit, name in _LIMITS:
        if bound < limit:
            return name
    raise StageError(
        f"A sum may reach {bound}, beyond the 2**53 up to which float64 is exact: "
        "use fewer bits per weight, or fewer inputs per neuron."
    )


def accumulator_dtype(accumulator: Accumulator) -> np.dtype[Any]:
    """The NumPy dtype of sums."""
    return np.dtype(accumulator)


def edge_dtype(value: ValueType) -> np.dtype[Any]:
    """The dtype in which values leave an operator: uint8 for spikes, else int16 or int32."""
    if value.is_spike:
        return np.dtype(np.uint8)
    if value.largest < 2**15:
        return np.dtype(np.int16)
    if value.largest < 2**31:
        return np.dtype(np.int32)
    raise StageError(f"An edge carries at most 32-bit integers, not {value.largest}.")


def to_current(sums: Array, unit: int) -> Array:
    """The float32 current of exact integer sums (any dtype) in units of 2**-unit.

    One rounding, then +0.0, so that no -0.0 reaches a neuron (numerics 3 and 9).
    """
    rounded = sums.astype(np.float32)
    scaled: Array = rounded * np.float32(2.0**-unit) + np.float32(0.0)
    return scaled


def slice_type(value: ValueType, lo: int, hi: int) -> ValueType:
    """The type of flattened values [lo, hi): whole channels keep their shape, and so do whole rows
    of one image; others are flat."""
    if not 0 <= lo < hi <= value.n:
        raise StageError(f"No slice [{lo}, {hi}) of {value.n} values.")
    channel, row = math.prod(value.shape[1:]), value.shape[-1]
    in_one_image = len(value.shape) == 3 and lo // channel == (hi - 1) // channel
    shape: tuple[int, ...] = (hi - lo,)
    if lo % channel == hi % channel == 0:
        shape = ((hi - lo) // channel, *value.shape[1:])
    elif in_one_image and lo % row == hi % row == 0:
        shape = (1, (hi - lo) // row, row)
    return ValueType(shape, value.low, value.high, value.unit)


def float32_to_bits(value: float) -> int:
    """The bits of `value` rounded to float32, as an unsigned integer."""
    return int(np.float32(value).view(np.uint32))


def float32_from_bits(bits: int) -> np.float32:
    """The float32 with these bits."""
    return np.uint32(bits).view(np.float32)
