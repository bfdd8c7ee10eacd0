"""Put weights on the grid and fix everything that decides bits.

All weights that are summed before a neuron share one scale: w = k * 2**-s, k rounded half to even
(numerics 1 and 6). For b bits, s is the largest with |k| <= 2**(b-1) - 1, and less where all k have
factors of two in common, for then fewer bits say the same. `auto` (numerics 4) takes the most bits
from 16 down to 12 whose row bound stays below 2**24, that is in float32; where not even 12 bits do,
16, since a wider accumulator costs the same for all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import frexp
from typing import Literal, TypeAlias

import numpy as np

from topologies.compiler.lowered import Lowered, Read
from topologies.compiler.order import layer_order, place_of, signals_of
from topologies.layers import layer_class
from topologies.model import INPUT, Fault, FloatArray, Layer, Network, NetworkError, Source
from topologies.stages.base import (
    Accumulator,
    Encoder,
    Stage,
    StageError,
    ValueType,
    accumulator_for,
)
from topologies.stages.readout import Readout
from topologies.stages.requantise import Requantise
from topologies.stages.table import stage_class
from topologies.stages.weighted import grid

__all__ = ["Bits", "Quantised", "WeightError", "quantise"]

Bits: TypeAlias = int | Literal["auto"]
_AUTO = range(16, 11, -1)
_FLOAT32 = 2**24


@dataclass(frozen=True, slots=True)
class WeightError:
    """What quantising did to one layer: errors in units of the weights, and how it sums now."""

    layer: str
    bits: int
    shift: int
    worst: float
    largest: float
    accumulator: Accumulator


@dataclass(frozen=True, eq=False)
class Quantised:
    """The lowered network, and the error of each weighted layer."""

    stages: tuple[Lowered, ...]
    errors: tuple[WeightError, ...]


def quantise(network: Network, shapes: Mapping[str, tuple[int, ...]], bits: Bits) -> Quantised:
    """Lowers a folded network. Raises NetworkError with every layer that has no exact sum."""
    order, _ = layer_order(network)
    encoder = _encoder(network)
    signals = signals_of(network)
    work = _Work(network, shapes, bits, {INPUT: encoder.out_type(())})
    work.run(
        [layer for layer in order if layer.name in signals],
        list(_components([layer for layer in order if layer.name not in signals])),
    )
    if work.faults:
        raise NetworkError(work.faults, network.name)
    stages = _lowered(network, order, encoder, work, signals)
    return Quantised(stages, tuple(work.errors[x.name] for x in order if x.name in work.errors))


@dataclass(eq=False)
class _Work:
    """What is known so far; a type is decided once everything that it depends on is."""

    network: Network
    shapes: Mapping[str, tuple[int, ...]]
    bits: Bits
    types: dict[str, ValueType]
    stages: dict[str, Stage] = field(default_factory=dict)
    errors: dict[str, WeightError] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def run(self, signals: list[Layer], parts: list[list[Layer]]) -> None:
        """Decide all; until a fault leaves something undecided.

        Spikes are known at once. Where nothing else can be decided, in a cycle, what is put back
        onto a grid is taken to fill it.
        """
        for layer in signals:
            cls = layer_class(layer.kind)
            if cls.role == "neuron":
                shape, most = self.shapes[layer.name], cls.most(layer.params)
                self.types[layer.name] = ValueType(shape, 0, most)
        while signals or parts:
            ready = [x for x in signals if self._knows(x.sources)]
            able = [part for part in parts if self._knows(_outside(part))]
            cyclic = [x for x in signals if x.kind == Requantise.kind and x.name not in self.types]
            for layer in ready:
                self._lower(layer)
            for part in able:
                self._quantise(part)
            if not ready and not able:
                if self.faults or not cyclic:
                    return
                first = cyclic[0]
                declared = Requantise.declared(first.params, self.shapes[first.name])
                self.types[first.name] = declared
            signals = [x for x in signals if x not in ready]
            parts = [x for x in parts if x not in able]

    def inputs(self, layer: Layer) -> list[ValueType]:
        return [self.types[source.layer] for source in layer.sources]

    def _knows(self, sources: Sequence[Source]) -> bool:
        return all(source.layer in self.types for source in sources)

    def _lower(self, layer: Layer) -> None:
        inputs = self.inputs(layer)
        cls = layer_class(layer.kind)
        try:
            stage = cls.lowered(layer.params, layer.arrays, inputs)
            if isinstance(stage, Requantise) and layer.name in self.types:
                stage = stage.filling(self.types[layer.name])
            self.types[layer.name] = stage.out_type(inputs)
        except StageError as error:
            self.faults.append(Fault(place_of(self.network, layer.name), str(error)))
            return
        self.stages[layer.name] = stage

    def _quantise(self, part: Sequence[Layer]) -> None:
        try:
            found = _best(part, self.types, self.bits)
        except _NoExactSum as fault:
            self.faults.append(Fault(place_of(self.network, fault.layer), str(fault)))
            return
        self.stages |= found.stages
        self.types |= found.types
        self.errors |= {error.layer: error for error in found.errors}


def _outside(part: Sequence[Layer]) -> list[Source]:
    names = {layer.name for layer in part}
    return [source for layer in part for source in layer.sources if source.layer not in names]


def _encoder(network: Network) -> Encoder:
    spec = network.input
    params = {**spec.params, "shape": list(spec.shape), "high": spec.high}
    if spec.encoder != "events":
        params["low"] = spec.low
    else:
        params["high"] = int(spec.high)
    stage = stage_class(spec.encoder).authored(params)
    if not isinstance(stage, Encoder):
        raise NetworkError([Fault("input.encoder", f"{spec.encoder!r} is no encoder.")])
    return stage


def _components(sums: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers of sums that are connected with each other, in order: each gets one scale."""
    names = {layer.name for layer in sums}
    home = {name: name for name in names}

    def root(name: str) -> str:
        while home[name] != name:
            name = home[name]
        return name

    for layer in sums:
        for source in layer.sources:
            if source.layer in names:
                home[root(source.layer)] = root(layer.name)
    roots = dict.fromkeys(root(layer.name) for layer in sums)
    for found in roots:
        yield [layer for layer in sums if root(layer.name) == found]


class _NoExactSum(StageError):
    def __init__(self, layer: str, message: str) -> None:
        self.layer = layer
        super().__init__(message)


@dataclass(frozen=True, eq=False)
class _Attempt:
    stages: dict[str, Stage]
    types: dict[str, ValueType]
    errors: tuple[WeightError, ...]
    bound: int


def _best(part: Sequence[Layer], signals: Mapping[str, ValueType], bits: Bits) -> _Attempt:
    """The component with its bits; see the module."""
    if bits != "auto":
        return _attempt(part, signals, bits)
    for candidate in _AUTO:
        try:
            attempt = _attempt(part, signals, candidate)
        except _NoExactSum:
            continue
        if attempt.bound < _FLOAT32:
            return attempt
    return _attempt(part, signals, _AUTO[0])


def _attempt(part: Sequence[Layer], signals: Mapping[str, ValueType], bits: int) -> _Attempt:
    _check_finite(part)
    shift = _shift(part, bits)
    for fewer in range(_common_twos(part, shift), 0, -1):
        attempt = _at_shift(part, signals, bits, shift - fewer)
        if _same_values(attempt, _at_shift(part, signals, bits, shift)):
            return attempt
    return _at_shift(part, signals, bits, shift)


def _weights(part: Sequence[Layer]) -> list[FloatArray]:
    return [layer.arrays["weight"] for layer in part if layer_class(layer.kind).weighted]


def _check_finite(part: Sequence[Layer]) -> None:
    """What was folded into weights, such as a batch norm, may have carried them too far."""
    for layer in part:
        if not all(np.isfinite(array).all() for array in layer.arrays.values()):
            text = "its weights, with what is folded into them, are beyond what a float holds."
            raise _NoExactSum(layer.name, text)


def _shift(part: Sequence[Layer], bits: int) -> int:
    """The largest s with |k| <= 2**(bits - 1) - 1; 0 if all weights are zero."""
    largest = max((float(np.abs(w).max(initial=0.0)) for w in _weights(part)), default=0.0)
    if largest == 0.0:
        return 0
    shift = bits - 1 - frexp(largest)[1]
    top = int(np.rint(np.ldexp(largest, shift)))
    return shift if top <= 2 ** (bits - 1) - 1 else shift - 1


def _common_twos(part: Sequence[Layer], shift: int) -> int:
    """How many factors of two all quantised weights have in common."""
    joined = 0
    for weight in _weights(part):
        joined |= int(np.bitwise_or.reduce(grid(weight, shift), axis=None, initial=0))
    return (joined & -joined).bit_length() - 1 if joined else 0


def _at_shift(
    part: Sequence[Layer], signals: Mapping[str, ValueType], bits: int, shift: int
) -> _Attempt:
    types = dict(signals)
    stages: dict[str, Stage] = {}
    errors: list[WeightError] = []
    bound = 0
    for layer in part:
        inputs = [types[source.layer] for source in layer.sources]
        cls = layer_class(layer.kind)
        try:
            stage = cls.lowered(layer.params, layer.arrays, inputs, shift)
            bound = max(bound, stage.row_bound(inputs))
            types[layer.name] = stage.out_type(inputs)
        except StageError as error:
            raise _NoExactSum(layer.name, str(error)) from error
        stages[layer.name] = stage
        if cls.weighted:
            errors.append(_error(layer, stage, inputs, bits, shift))
    found = {name: types[name] for name in stages}
    return _Attempt(stages, found, tuple(errors), bound)


def _error(
    layer: Layer, stage: Stage, inputs: Sequence[ValueType], bits: int, shift: int
) -> WeightError:
    weight = layer.arrays["weight"]
    worst = np.abs(weight - np.ldexp(grid(weight, shift).astype(np.float64), -shift))
    accumulator = accumulator_for(stage.row_bound(inputs))
    largest = float(np.abs(weight).max(initial=0.0))
    return WeightError(layer.name, bits, shift, float(worst.max(initial=0.0)), largest, accumulator)


def _same_values(one: _Attempt, other: _Attempt) -> bool:
    """Whether two scales stand for the same weights and biases."""
    return all(
        np.array_equal(mine, theirs)
        for name, stage in one.stages.items()
        if layer_class(stage.kind).weighted
        for mine, theirs in zip(
            _values(stage, one.types[name]),
            _values(other.stages[name], other.types[name]),
            strict=True,
        )
    )


def _values(stage: Stage, out: ValueType) -> Iterator[FloatArray]:
    """What its weights and biases stand for."""
    shift = stage.params()["shift"]
    units = {"weight": shift, "bias": out.unit}
    for name, unit in units.items():
        if name in stage.arrays() and isinstance(unit, int):
            yield np.ldexp(stage.arrays()[name].astype(np.float64), -unit)


def _lowered(
    network: Network,
    order: Sequence[Layer],
    encoder: Encoder,
    work: _Work,
    signals: set[str],
) -> tuple[Lowered, ...]:
    index = {INPUT: 0, **{layer.name: i + 1 for i, layer in enumerate(order)}}
    types = work.types
    stages = [Lowered(INPUT, encoder, (), types[INPUT], True)]
    for layer in order:
        stage = work.stages[layer.name]
        reads = tuple(Read(index[source.layer], source.delay) for source in layer.sources)
        signal = layer.name in signals
        stages.append(Lowered(layer.name, stage, reads, types[layer.name], signal, layer.stage))
    read = types[network.output.source]
    readout = stage_class(network.output.readout).authored(network.output.params)
    if isinstance(readout, Readout):
        readout = readout.reading(read)
    try:
        emitted = readout.out_type([read])
    except StageError as error:
        raise NetworkError([Fault("output", str(error))], network.name) from error
    source = (Read(index[network.output.source]),)
    stages.append(Lowered(network.output.readout, readout, source, emitted, False))
    return tuple(stages)
