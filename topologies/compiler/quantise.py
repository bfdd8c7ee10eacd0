"""Put weights on the grid and fix everything that decides bits.

All weights that are summed before a neuron share one scale: w = k * 2**-s, k rounded half to even
(numerics 1 and 6). For b bits, s is the largest with |k| <= 2**(b-1) - 1, and less where all k have
factors of two in common, for then fewer bits say the same. `auto` (numerics 4) takes the most bits
from 16 down to 12 whose row bound stays below 2**24, that is in float32; where not even 12 bits do,
16, since a wider accumulator costs the same for all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import frexp
from typing import Literal, TypeAlias

import numpy as np

from topologies.compiler.bound import adding, with_accumulator
from topologies.compiler.lowered import Lowered, Read
from topologies.compiler.order import conv_geometry, layer_order, place_of
from topologies.model import (
    INPUT,
    NEURONS,
    WEIGHTED,
    Fault,
    FloatArray,
    Layer,
    Network,
    NetworkError,
    Source,
)
from topologies.stages.base import (
    Accumulator,
    Array,
    Encoder,
    Stage,
    StageError,
    ValueType,
    accumulator_for,
)
from topologies.stages.common import narrowest
from topologies.stages.conv import Conv2d
from topologies.stages.linear import Linear
from topologies.stages.neuron import Neuron
from topologies.stages.readout import Readout
from topologies.stages.table import stage_class

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
    signals = _signal_types(network, order, shapes, encoder.out_type(()))
    sums = [layer for layer in order if layer.name not in signals]
    made: dict[str, Stage] = {}
    types = dict(signals)
    errors: dict[str, WeightError] = {}
    faults: list[Fault] = []
    for part in _components(sums):
        try:
            found = _best(part, signals, bits)
        except _NoExactSum as fault:
            faults.append(Fault(place_of(network, fault.layer), str(fault)))
            continue
        made |= found.stages
        types |= found.types
        errors |= {error.layer: error for error in found.errors}
    if faults:
        raise NetworkError(faults, network.name)
    stages = _lowered(network, order, encoder, types, signals, made)
    return Quantised(stages, tuple(errors[x.name] for x in order if x.name in errors))


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


def _signal_types(
    network: Network,
    order: Sequence[Layer],
    shapes: Mapping[str, tuple[int, ...]],
    encoded: ValueType,
) -> dict[str, ValueType]:
    """The types of what may travel: spikes, input, and unweighted sums of them.

    They do not depend on weights, so they are known before any of these is quantised.
    """
    types = {INPUT: encoded}
    types |= {x.name: ValueType(shapes[x.name], 0, 1) for x in order if x.kind in NEURONS}
    for layer in order:
        known = all(source.layer in types for source in layer.sources)
        if layer.kind not in (*NEURONS, *WEIGHTED) and known:
            inputs = [types[source.layer] for source in layer.sources]
            types[layer.name] = _unweighted(layer, inputs).out_type(inputs)
    return types


def _unweighted(layer: Layer, inputs: Sequence[ValueType]) -> Stage:
    stage: Stage
    if layer.kind == "add":
        stage = adding(inputs)
    else:
        stage = stage_class(layer.kind).build(layer.params, {})
    return with_accumulator(stage, inputs)


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
    shift = _shift(part, bits)
    for fewer in range(_common_twos(part, shift), 0, -1):
        attempt = _at_shift(part, signals, bits, shift - fewer)
        if _same_values(attempt, _at_shift(part, signals, bits, shift)):
            return attempt
    return _at_shift(part, signals, bits, shift)


def _weights(part: Sequence[Layer]) -> list[FloatArray]:
    return [layer.arrays["weight"] for layer in part if layer.kind in WEIGHTED]


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
        joined |= int(np.bitwise_or.reduce(_grid(weight, shift), axis=None, initial=0))
    return (joined & -joined).bit_length() - 1 if joined else 0


def _grid(values: FloatArray, shift: int) -> Array:
    """values * 2**shift, rounded half to even, int64."""
    k: Array = np.rint(np.ldexp(values, shift)).astype(np.int64)
    return k


def _at_shift(
    part: Sequence[Layer], signals: Mapping[str, ValueType], bits: int, shift: int
) -> _Attempt:
    types = dict(signals)
    stages: dict[str, Stage] = {}
    errors: list[WeightError] = []
    bound = 0
    for layer in part:
        inputs = [types[source.layer] for source in layer.sources]
        try:
            stage: Stage
            if layer.kind in WEIGHTED:
                stage = _weighted(layer, inputs[0], shift)
                errors.append(_error(layer, stage, inputs[0], bits))
            else:
                stage = _unweighted(layer, inputs)
            bound = max(bound, stage.row_bound(inputs))
            stages[layer.name] = with_accumulator(stage, inputs)
            types[layer.name] = stage.out_type(inputs)
        except StageError as error:
            raise _NoExactSum(layer.name, str(error)) from error
    found = {name: types[name] for name in stages}
    return _Attempt(stages, found, tuple(errors), bound)


def _weighted(layer: Layer, value: ValueType, shift: int) -> Conv2d | Linear:
    weight = narrowest(_grid(layer.arrays["weight"], shift))
    scaled = np.rint(np.ldexp(layer.arrays["bias"], shift + value.unit))
    if np.abs(scaled).max(initial=0.0) >= 2.0**53:
        raise StageError(
            f"A bias of {np.abs(layer.arrays['bias']).max()} is more than 2**53 grid units of "
            f"2**-{shift + value.unit}: scale the weights up or the bias down."
        )
    bias = scaled.astype(np.int64)
    if layer.kind == "linear":
        return Linear(weight, bias, shift, "float64")
    groups = layer.params.get("groups", 1)
    return Conv2d(weight, bias, shift, "float64", channel_groups=groups, **conv_geometry(layer))


def _error(layer: Layer, stage: Conv2d | Linear, value: ValueType, bits: int) -> WeightError:
    weight = layer.arrays["weight"]
    worst = np.abs(weight - _values(stage, "weight")).max(initial=0.0)
    largest = np.abs(weight).max(initial=0.0)
    accumulator = accumulator_for(stage.row_bound([value]))
    return WeightError(layer.name, bits, stage.shift, float(worst), float(largest), accumulator)


def _same_values(one: _Attempt, other: _Attempt) -> bool:
    """Whether two scales stand for the same weights and biases."""
    return all(
        np.array_equal(_values(a, "weight"), _values(b, "weight"))
        and np.array_equal(_values(a, "bias", one.types[n]), _values(b, "bias", other.types[n]))
        for n, a in one.stages.items()
        if isinstance(a, Conv2d | Linear) and isinstance(b := other.stages[n], Conv2d | Linear)
    )


def _values(stage: Conv2d | Linear, name: str, out: ValueType | None = None) -> FloatArray:
    unit = stage.shift if out is None else out.unit
    values: FloatArray = np.ldexp(stage.arrays()[name].astype(np.float64), -unit)
    return values


def _lowered(
    network: Network,
    order: Sequence[Layer],
    encoder: Encoder,
    types: Mapping[str, ValueType],
    signals: Mapping[str, ValueType],
    made: Mapping[str, Stage],
) -> tuple[Lowered, ...]:
    index = {INPUT: 0, **{layer.name: i + 1 for i, layer in enumerate(order)}}
    stages = [Lowered(INPUT, encoder, (), types[INPUT], True)]
    for layer in order:
        inputs = [types[source.layer] for source in layer.sources]
        stage = made.get(layer.name) or _plain(layer, inputs)
        reads = tuple(_read(index, source) for source in layer.sources)
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


def _read(index: Mapping[str, int], source: Source) -> Read:
    return Read(index[source.layer], source.delay)


def _plain(layer: Layer, inputs: Sequence[ValueType]) -> Stage:
    if layer.kind not in NEURONS:
        return _unweighted(layer, inputs)
    stage = stage_class(layer.kind).authored(layer.params)
    return stage.reading(inputs[0]) if isinstance(stage, Neuron) else stage
