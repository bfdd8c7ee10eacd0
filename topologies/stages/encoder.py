"""Encoders: from input values to the integers that travel. The only stage of an ingest operator.

A value x of an input with range [low, high] first becomes a level, k = rint(x * 2**grid), rounding
halves to even. A step t is counted from the stream's first step, a phase is t modulo `period`, so
that the cut into windows cannot change a bit. K is the number of levels between low and high.

    direct    every step carries k, which means k * 2**-unit
    rate      a spike where philox(seed, stream seed, t, address) < limit * (k - k_low) // K
              limit = rint(rate * 2**32): the probability at `high`
    latency   a spike at the phase table[k - k_low]; an entry of -1 never spikes
    events    the integers given for each step, 0 to `high`

Random words are Philox 4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405), in two calls.
The first has the operator's seed as its key and the counter (stream seed low, high, 0, 0); its
first two words are the key of the second, whose counter is (address // 4, t low, t high, 1) and
whose word number address % 4 is used (docs/numerics.md, rule 14).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from topologies.stages.base import (
    NO_ARRAYS,
    Array,
    Encoder,
    Json,
    Stage,
    StageError,
    ValueType,
    edge_dtype,
)

__all__ = [
    "STAGES",
    "Direct",
    "EncodingError",
    "Events",
    "Latency",
    "Rate",
    "philox",
    "spike_words",
]

_MOST_LEVELS = 2**16  # of a latency table: 256 kB
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)


class EncodingError(StageError):
    """An input value cannot be encoded: its shape, type or range is not the declared one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Levels(Encoder):
    """An encoder of values in [low, high] on the grid 2**-grid."""

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    grid: int = 8

    def __post_init__(self) -> None:
        """Check the range and the grid. Raises StageError."""
        _check_shape(self.shape)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise StageError(f"The range is {self.low} to {self.high}: low must be below high.")
        if not -30 <= self.grid <= 30:
            raise StageError(f"grid is {self.grid}: it must be a whole number in -30 to 30.")
        if max(abs(self.low), abs(self.high)) * 2.0**self.grid >= 2**31:
            raise StageError("The range has values that are no 32-bit integers on its grid.")
        if self.n_levels < 1:
            raise StageError("The range holds a single level: use a finer grid.")

    @property
    def lowest(self) -> int:
        """The level of `low`."""
        return int(np.rint(self.low * 2.0**self.grid))

    @property
    def n_levels(self) -> int:
        """K, the number of levels above that of `low`."""
        return int(np.rint(self.high * 2.0**self.grid)) - self.lowest

    def params(self) -> dict[str, Json]:
        """The range as hexadecimal floats."""
        return {
            "shape": list(self.shape),
            "low": self.low.hex(),
            "high": self.high.hex(),
            "grid": self.grid,
        }

    def validate(self, sample: Array) -> Array:
        """One sample, (*shape) or flat, as float64 (*shape). Raises EncodingError."""
        values = _shaped(sample, self.shape).astype(np.float64)
        legal = (values >= self.low) & (values <= self.high)
        if not legal.all():
            at = int(np.flatnonzero(~legal.ravel())[0])
            raise EncodingError(
                f"Value {values.ravel()[at]} at index {at} is outside the declared range "
                f"{self.low} to {self.high}."
            )
        return values

    def levels(self, values: Array) -> Array:
        """k - k_low of valid values, int64."""
        scaled = np.rint(values.astype(np.float64) * 2.0**self.grid)
        return scaled.astype(np.int64) - self.lowest

    def encode(self, values: Array, start: Array, n_steps: int, seeds: Array) -> Array:
        """Encode valid values (B, *shape); see `Encoder.encode`."""
        levels = self.levels(values).reshape(len(values), -1)
        steps = start.astype(np.int64)[:, None] + np.arange(n_steps, dtype=np.int64)
        coded = self._coded(levels, steps, seeds.astype(np.uint64))
        return coded.reshape(len(values), n_steps, *self.shape)

    @abstractmethod
    def _coded(self, levels: Array, steps: Array, seeds: Array) -> Array:
        """Integers (B, T, n) of levels (B, n) int64 at steps (B, T) int64."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Direct(_Levels):
    """Every step carries the value itself, on the grid; `unit` may give the levels another scale.

    With grid 0 and unit 4, the value 16 travels as 16 and means 1.
    """

    kind: ClassVar[str] = "direct"

    unit: int

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: shape, low (0), high (1), grid (8), unit (the grid)."""
        known = _authored(cls.kind, params, "unit")
        return cls(**known, unit=_whole(params, "unit", known["grid"]))

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        return cls(**_built(params), unit=params["unit"])

    def params(self) -> dict[str, Json]:
        """Range, grid and unit."""
        return {**super().params(), "unit": self.unit}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """The levels of the range, in `unit`."""
        return ValueType(self.shape, self.lowest, self.lowest + self.n_levels, self.unit)

    def _coded(self, levels: Array, steps: Array, seeds: Array) -> Array:
        values = (levels + self.lowest).astype(edge_dtype(self.out_type(())))
        return np.repeat(values[:, None], steps.shape[1], axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rate(_Levels):
    """Spikes at random, with a probability in proportion to the value.

    `limit` is the probability at `high` in units of 2**-32; `seed` is the operator's own, 64 bits.
    """

    kind: ClassVar[str] = "rate"

    limit: int = 2**32
    seed: int = 0

    def __post_init__(self) -> None:
        """Check limit and seed too. Raises StageError."""
        super().__post_init__()
        if not 0 < self.limit <= 2**32:
            raise StageError("rate must be a probability above 0, at most 1.")
        if not 0 <= self.seed < 2**64:
            raise StageError(f"seed is {self.seed}: it must be a whole number below 2**64.")

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: shape, low (0), high (1), grid (8), rate (1), seed (0)."""
        known = _authored(cls.kind, params, "rate", "seed")
        limit = int(np.rint(_real(params, "rate", 1.0) * 2.0**32))
        return cls(**known, limit=limit, seed=_whole(params, "seed", 0))

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        return cls(**_built(params), limit=params["limit"], seed=params["seed"])

    def params(self) -> dict[str, Json]:
        """Range, grid, limit and seed."""
        return {**super().params(), "limit": self.limit, "seed": self.seed}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Spikes."""
        return ValueType(self.shape, 0, 1)

    def _coded(self, levels: Array, steps: Array, seeds: Array) -> Array:
        # levels < 2**32 and limit <= 2**32, so their product stays below 2**64.
        thresholds = levels.astype(np.uint64) * np.uint64(self.limit) // np.uint64(self.n_levels)
        words = spike_words(self.seed, seeds, steps, levels.shape[1])
        return (words < thresholds[:, None]).astype(np.uint8)


@dataclass(frozen=True, eq=False, kw_only=True)
class Latency(_Levels):
    """One spike per period; the greater the value, the earlier.

    `table` is int32 (K + 1,): the phase of each level, in 0 to period - 1, or -1 for no spike.
    """

    kind: ClassVar[str] = "latency"

    table: Array
    period: int

    def __post_init__(self) -> None:
        """Check the table too. Raises StageError."""
        super().__post_init__()
        if self.period < 1:
            raise StageError(f"period is {self.period}: it must be at least 1 step.")
        if self.table.shape != (self.n_levels + 1,) or self.table.dtype != np.int32:
            raise StageError(f"The table must be {self.n_levels + 1} integers, one per level.")
        if self.table.min() < -1 or self.table.max() >= self.period:
            raise StageError(f"The table's phases must lie in 0 to {self.period - 1}, or be -1.")

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: shape, low (0), high (1), grid (8), period, table (linear; silent at low)."""
        known = _authored(cls.kind, params, "period", "table")
        period = _whole(params, "period", None)
        n_levels = cls._n_levels(known)
        given = params.get("table")
        table = _linear_table(n_levels, period) if given is None else _table(given)
        return cls(**known, table=table, period=period)

    @staticmethod
    def _n_levels(known: Mapping[str, Any]) -> int:
        scale = 2.0 ** known["grid"]
        n_levels = int(np.rint(known["high"] * scale)) - int(np.rint(known["low"] * scale))
        if not 1 <= n_levels < _MOST_LEVELS:
            raise StageError(f"latency has {n_levels} levels: it takes 1 to {_MOST_LEVELS - 1}.")
        return n_levels

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` and `arrays` wrote."""
        return cls(**_built(params), period=params["period"], table=arrays["table"])

    def params(self) -> dict[str, Json]:
        """Range, grid and period."""
        return {**super().params(), "period": self.period}

    def arrays(self) -> dict[str, Array]:
        """The table."""
        return {"table": self.table}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Spikes."""
        return ValueType(self.shape, 0, 1)

    def _coded(self, levels: Array, steps: Array, seeds: Array) -> Array:
        phases = self.table[levels]
        fires: Array = phases[:, None] == (steps % self.period)[:, :, None]
        return fires.astype(np.uint8)


@dataclass(frozen=True, eq=False, kw_only=True)
class Events(Encoder):
    """Events as they come: for each step, integers 0 to `high` (1: plain spikes)."""

    kind: ClassVar[str] = "events"

    shape: tuple[int, ...]
    high: int = 1

    def __post_init__(self) -> None:
        """Check shape and bound. Raises StageError."""
        _check_shape(self.shape)
        if not 1 <= self.high < 2**31:
            raise StageError(f"high is {self.high}: it must lie in 1 to 2**31 - 1.")

    @classmethod
    def authored(cls, params: Mapping[str, Any], arrays: Mapping[str, Array] = NO_ARRAYS) -> Self:
        """Parameters: shape, high (1)."""
        _refuse_unknown(cls.kind, params, {"shape", "high"})
        return cls(shape=_shape(params), high=_whole(params, "high", 1))

    @classmethod
    def build(cls, params: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Read what `params` wrote."""
        return cls(shape=tuple(params["shape"]), high=params["high"])

    def params(self) -> dict[str, Json]:
        """Shape and bound."""
        return {"shape": list(self.shape), "high": self.high}

    def out_type(self, inputs: Sequence[ValueType]) -> ValueType:
        """Spikes, or integers up to `high`."""
        return ValueType(self.shape, 0, self.high)

    def validate(self, sample: Array) -> Array:
        """A window (T, *shape) or (T, n) of integers as int64 (T, *shape). Raises EncodingError."""
        if sample.dtype.kind not in "biu":
            raise EncodingError(f"Events are integers, not {sample.dtype}.")
        if sample.shape[1:] not in (self.shape, (math.prod(self.shape),)):
            raise EncodingError(f"Events of shape {sample.shape}: legal is (T, {self.shape}).")
        if sample.size and (sample.min() < 0 or sample.max() > self.high):
            raise EncodingError(f"Events have values outside 0 to {self.high}.")
        return sample.astype(np.int64).reshape(len(sample), *self.shape)

    def encode(self, values: Array, start: Array, n_steps: int, seeds: Array) -> Array:
        """The window's integers (B, n_steps, *shape), in the dtype that travels."""
        coded: Array = values.astype(edge_dtype(self.out_type(())), copy=False)
        return coded.reshape(len(values), n_steps, *self.shape)


def philox(counter: Sequence[Array], key: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    """Philox 4x32-10: four words for each counter of four words and key of two.

    All are uint64 arrays that broadcast, of values below 2**32; so are the results.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT32) ^ c1 ^ k0,
            p1 & _LOW32,
            (p0 >> _SHIFT32) ^ c3 ^ k1,
            p0 & _LOW32,
        )
        k0, k1 = (k0 + _WEYL[0]) & _LOW32, (k1 + _WEYL[1]) & _LOW32
    return c0, c1, c2, c3


def spike_words(operator_seed: int, seeds: Array, steps: Array, n: int) -> Array:
    """Random words (B, T, n) below 2**32, uint64, of stream seeds (B,) and steps (B, T)."""
    zero, one = np.zeros(1, np.uint64), np.ones(1, np.uint64)
    seed = np.array([operator_seed], np.uint64)
    streams = seeds.astype(np.uint64)
    k0, k1, _, _ = philox((*_halves(streams), zero, zero), _halves(seed))
    times = steps.astype(np.uint64)[:, :, None]
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)[None, None]
    key = (k0[:, None, None], k1[:, None, None])
    words = philox((blocks, *_halves(times), one), key)
    return np.stack(words, axis=-1).reshape(*steps.shape, -1)[:, :, :n]


def _halves(words: Array) -> tuple[Array, Array]:
    return words & _LOW32, words >> _SHIFT32


def _linear_table(n_levels: int, period: int) -> Array:
    """Phases that fall in proportion to the level, rounding halves up; level 0 never spikes."""
    levels = np.arange(n_levels + 1, dtype=np.int64)
    phases = (2 * (n_levels - levels) * (period - 1) + n_levels) // (2 * n_levels)
    phases[0] = -1
    return phases.astype(np.int32)


def _table(given: Any) -> Array:
    if not isinstance(given, list | tuple) or not all(type(k) is int for k in given):
        raise StageError("table must be a list of whole numbers.")
    return np.asarray(given, np.int64).clip(-2, 2**31 - 1).astype(np.int32)


def _shaped(sample: Array, shape: tuple[int, ...]) -> Array:
    if sample.dtype.kind not in "biuf":
        raise EncodingError(f"Input values are numbers, not {sample.dtype}.")
    if sample.shape not in (shape, (math.prod(shape),)):
        raise EncodingError(f"The input has shape {list(sample.shape)}: legal is {list(shape)}.")
    return sample.reshape(shape)


def _check_shape(shape: tuple[int, ...]) -> None:
    if not shape or any(type(size) is not int or size < 1 for size in shape):
        raise StageError(f"shape is {list(shape)}: it must be whole numbers of at least 1.")


def _authored(kind: str, params: Mapping[str, Any], *more: str) -> dict[str, Any]:
    _refuse_unknown(kind, params, {"shape", "low", "high", "grid", *more})
    return {
        "shape": _shape(params),
        "low": _real(params, "low", 0.0),
        "high": _real(params, "high", 1.0),
        "grid": _whole(params, "grid", 8),
    }


def _built(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "shape": tuple(params["shape"]),
        "low": float.fromhex(params["low"]),
        "high": float.fromhex(params["high"]),
        "grid": params["grid"],
    }


def _shape(params: Mapping[str, Any]) -> tuple[int, ...]:
    shape = params.get("shape")
    if not isinstance(shape, list | tuple):
        raise StageError(f"shape is {shape!r}: it must be a list of whole numbers.")
    return tuple(shape)


def _refuse_unknown(kind: str, params: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(params) - known)
    if unknown:
        raise StageError(
            f"{kind} has no parameter {', '.join(unknown)}: it has {', '.join(sorted(known))}."
        )


def _real(params: Mapping[str, Any], name: str, default: float) -> float:
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StageError(f"{name} is {value!r}: it must be a number.")
    return float(value)


def _whole(params: Mapping[str, Any], name: str, default: int | None) -> int:
    value = params.get(name, default)
    if type(value) is not int:
        raise StageError(f"{name} is {value!r}: it must be a whole number.")
    return value


STAGES: tuple[type[Stage], ...] = (Direct, Rate, Latency, Events)
