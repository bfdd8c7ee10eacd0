"""The conformance suite catches faults that were found in real kernels, planted here one by one.

Each fault stands in a stage of an otherwise faultless reference kernel, so that nothing else can be
what is caught; its test also shows that the kernel without the fault passes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from topologies.compiled import Group, Operator, Program
from topologies.compiler import compile_network
from topologies.loader import load_network
from topologies.stages.base import Array, Clock, Emissions, Stage, StateSpec, to_current
from topologies.stages.linear import Linear
from topologies.stages.neuron import Lif, Neuron
from workers.conformance import ConformanceError, admit, check, largest_batch
from workers.kernel import Kernel, ReferenceKernel, load_kernel

MAX_BATCH = 20
Whole = Callable[[Operator], Group]


@dataclass(frozen=True, eq=False, kw_only=True)
class Float64Literal(Lif):
    """The decay is a Python float in a compiled loop: the step is computed in float64."""

    def step(self, v: Array, i: Array) -> tuple[Array, Array]:
        h = 0.9 * v.astype(np.float64) + i
        s = h >= self.v_threshold
        return s, (h - s * self.v_threshold).astype(np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fused(Lif):
    """decay * v + i in one instruction that rounds once."""

    def _charge(self, v: Array, i: Array) -> Array:
        exact = np.float64(np.float32(self.leak)) * v.astype(np.float64) + i
        return exact.astype(np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class WithoutPositiveZero(Lif):
    """The current is scaled, but +0.0 is not added."""

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        current = inputs[0].astype(np.float32) * np.float32(2.0**-self.unit)
        spikes, v = np.empty(current.shape, np.uint8), state[0]
        for t in range(current.shape[1]):
            spikes[:, t], v = self.step(v, current[:, t])
        return spikes, (v,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Flushed(Lif):
    """Subnormal membranes become zero."""

    def step(self, v: Array, i: Array) -> tuple[Array, Array]:
        s, after = super().step(v, i)
        return s, np.where(np.abs(after) < np.float32(2.0**-126), np.float32(0), after)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reciprocal(Lif):
    """v / tau as v * (1 / tau)."""

    def _charge(self, v: Array, i: Array) -> Array:
        h: Array = (v - v * (np.float32(1) / np.float32(self.leak))) + i
        return h


@dataclass(frozen=True, eq=False)
class NegativeZeros(Linear):
    """Sums without any term are -0.0, as some kernels leave them."""

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        sums, state = super().run(inputs, state, clock)
        return np.where(sums == 0, np.float32(-0.0), sums), state


@dataclass(frozen=True, eq=False)
class NarrowSums(Linear):
    """float32 sums where the bound asks for float64."""

    def run(
        self, inputs: Sequence[Array], state: tuple[Array, ...], clock: Clock
    ) -> tuple[Array, tuple[Array, ...]]:
        sums = inputs[0].astype(np.float32) @ self.weight.T.astype(np.float32)
        return (sums + self.bias.astype(np.float32)).astype(np.float64), state


def turned_into(cls: type[Any], stage: Stage) -> Any:
    """A stage of another class with the same fields."""
    return cls(**{field.name: getattr(stage, field.name) for field in fields(stage)})


def planted(operator: Operator, *classes: type[Stage]) -> ReferenceKernel:
    """The reference kernel with its synapses or neurons turned into faulty ones."""
    stages = list(operator.program.stages)
    for cls in classes:
        index = next(i for i, s in enumerate(stages) if type(s) in cls.__mro__)
        stages[index] = turned_into(cls, stages[index])
    program = replace(operator.program, stages=tuple(stages))
    faulty = ReferenceKernel(operator, Group(0, 0, operator.output.n))
    return _with_program(faulty, program)


def _with_program(kernel: ReferenceKernel, program: Program) -> ReferenceKernel:
    kernel._program = program
    return kernel


in_the_numbers = pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("plain soft high threshold", [Float64Literal]),
        ("plain soft high threshold", [Fused]),
        ("plain soft", [NegativeZeros, WithoutPositiveZero]),
        ("spikingjelly soft", [Flushed]),
        ("spikingjelly hard", [Reciprocal]),
        ("float64 sums", [NarrowSums]),
    ],
)


def assert_is_caught(operator: Operator, whole: Whole, faults: list[type[Stage]]) -> None:
    reference = ReferenceKernel(operator, whole(operator))
    check(planted(operator), reference, MAX_BATCH)
    with pytest.raises(ConformanceError, match="differs from the reference in"):
        check(planted(operator, *faults), reference, MAX_BATCH)


@in_the_numbers
def test_fault_in_the_numbers_is_caught(
    operators: dict[str, Operator], whole: Whole, name: str, faults: list[type[Stage]]
) -> None:
    assert_is_caught(operators[name], whole, faults)


def test_negative_zeros_of_a_product_are_harmless_where_positive_zero_is_added(
    operators: dict[str, Operator], whole: Whole
) -> None:
    operator = operators["plain soft"]
    assert str(to_current(np.array([-0.0], np.float32), 3)[0]) == "0.0"
    check(planted(operator, NegativeZeros), ReferenceKernel(operator, whole(operator)), MAX_BATCH)


def test_scale_of_its_own_for_a_group_is_caught(operators: dict[str, Operator]) -> None:
    operator = operators["plain soft"]
    group = Group(1, 30, 70)
    synapses, neuron = operator.program.slice(group.lo, group.hi).stages
    assert isinstance(synapses, Linear)
    assert isinstance(neuron, Neuron)
    largest = int(np.abs(synapses.weight).max())
    scale = 255 / largest  # the group's own 8-bit grid
    weight = np.rint(np.rint(synapses.weight * scale) / scale).astype(np.int16)
    rescaled = replace(synapses, weight=weight)
    faulty = ReferenceKernel(operator, group)
    faulty = _with_program(faulty, replace(faulty._program, stages=(rescaled, neuron)))
    check(ReferenceKernel(operator, group), ReferenceKernel(operator, group), MAX_BATCH)
    with pytest.raises(ConformanceError, match=r"group 1 \[30, 70\)"):
        check(faulty, ReferenceKernel(operator, group), MAX_BATCH)


class Wrapped:
    """A kernel whose results pass through `spoil`."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.operator, self.group = kernel, kernel.operator, kernel.group

    def state_spec(self) -> StateSpec:
        return self.kernel.state_spec()

    def init_state(self, n: int) -> tuple[Array, ...]:
        return self.kernel.init_state(n)

    def step(
        self, state: tuple[Array, ...], inputs: Sequence[Array], clock: Clock
    ) -> tuple[Array | Emissions, tuple[Array, ...]]:
        output, after = self.kernel.step(state, inputs, clock)
        return self.spoil(output, after, inputs)

    def spoil(
        self, output: Any, after: tuple[Array, ...], inputs: Sequence[Array]
    ) -> tuple[Any, tuple[Array, ...]]:
        return output, after


class WrongAt(Wrapped):
    """One bit is wrong, in batches of one size only."""

    size = 0

    def spoil(
        self, output: Any, after: tuple[Array, ...], inputs: Sequence[Array]
    ) -> tuple[Any, tuple[Array, ...]]:
        if len(output) == self.size:
            output[self.size - 1, 0, 3] ^= 1
        return output, after


class WrongWhen(WrongAt):
    """One bit is wrong, when the input is as `density` says."""

    density = 0.0

    def spoil(
        self, output: Any, after: tuple[Array, ...], inputs: Sequence[Array]
    ) -> tuple[Any, tuple[Array, ...]]:
        if inputs[0].mean() == self.density:
            output[0, 0, 0] ^= 1
        return output, after


class WritesInputs(Wrapped):
    """Clears the input it was given."""

    def spoil(
        self, output: Any, after: tuple[Array, ...], inputs: Sequence[Array]
    ) -> tuple[Any, tuple[Array, ...]]:
        inputs[0][...] = 0
        return output, after


class OtherState(Wrapped):
    """Keeps its membranes in float64."""

    def state_spec(self) -> StateSpec:
        return tuple((name, shape, "float64") for name, shape, _ in self.kernel.state_spec())


@pytest.mark.parametrize("size", [1, 15, 16, 17, MAX_BATCH])
def test_fault_at_one_batch_size_is_caught(
    operators: dict[str, Operator], whole: Whole, size: int
) -> None:
    operator = operators["plain soft"]
    reference = ReferenceKernel(operator, whole(operator))
    faulty = WrongAt(reference)
    faulty.size = size
    with pytest.raises(ConformanceError, match=f"stream {size - 1} of {size}"):
        check(faulty, reference, MAX_BATCH)


@pytest.mark.parametrize(("density", "name"), [(0.0, "zero"), (1.0, "saturated")])
def test_fault_at_one_kind_of_input_is_caught(
    operators: dict[str, Operator], whole: Whole, density: float, name: str
) -> None:
    operator = operators["plain soft"]
    reference = ReferenceKernel(operator, whole(operator))
    faulty = WrongWhen(reference)
    faulty.density = density
    with pytest.raises(ConformanceError, match=f"{name} input"):
        check(faulty, reference, MAX_BATCH)


def test_kernel_that_writes_into_its_inputs_is_caught(
    operators: dict[str, Operator], whole: Whole
) -> None:
    operator = operators["plain soft"]
    reference = ReferenceKernel(operator, whole(operator))
    with pytest.raises(ConformanceError, match="writes into its inputs"):
        check(WritesInputs(reference), reference, MAX_BATCH)


def test_kernel_with_another_state_is_caught(operators: dict[str, Operator], whole: Whole) -> None:
    operator = operators["plain soft"]
    reference = ReferenceKernel(operator, whole(operator))
    with pytest.raises(ConformanceError, match="its snapshots could not be read elsewhere"):
        check(OtherState(reference), reference, MAX_BATCH)


def test_admitted_kernel_has_passed(operators: dict[str, Operator], whole: Whole) -> None:
    operator = operators["convolution"]
    kernel = admit(operator, whole(operator), "numpy", MAX_BATCH)
    check(kernel, ReferenceKernel(operator, whole(operator)), MAX_BATCH)


def large(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """The operator, and the suite made to take it for a large one."""
    monkeypatch.setattr("workers.conformance._MACS", 0)
    return operator


@in_the_numbers
def test_fault_in_the_numbers_of_a_large_operator_is_caught(
    operators: dict[str, Operator],
    whole: Whole,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    faults: list[type[Stage]],
) -> None:
    assert_is_caught(large(operators[name], monkeypatch), whole, faults)


@pytest.mark.parametrize("size", [1, 15, 16, 17, MAX_BATCH])
def test_fault_of_a_large_operator_at_one_batch_size_is_caught(
    operators: dict[str, Operator], whole: Whole, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    operator = large(operators["plain soft"], monkeypatch)
    faulty = WrongAt(ReferenceKernel(operator, whole(operator)))
    faulty.size = size
    with pytest.raises(ConformanceError, match=f"stream {size - 1} of {size}"):
        check(faulty, faulty.kernel, MAX_BATCH)


@pytest.mark.parametrize(("density", "name"), [(0.0, "zero"), (1.0, "saturated")])
def test_fault_of_a_large_operator_at_one_kind_of_input_is_caught(
    operators: dict[str, Operator],
    whole: Whole,
    monkeypatch: pytest.MonkeyPatch,
    density: float,
    name: str,
) -> None:
    operator = large(operators["plain soft"], monkeypatch)
    faulty = WrongWhen(ReferenceKernel(operator, whole(operator)))
    faulty.density = density
    with pytest.raises(ConformanceError, match=f"{name} input"):
        check(faulty, faulty.kernel, MAX_BATCH)


def test_no_more_streams_of_a_very_large_operator_are_stepped_together_than_are_tried() -> None:
    network = compile_network(load_network("sgnn_cora"))
    operator = max(network.operators.values(), key=lambda o: o.program.cost.macs_per_step)
    assert largest_batch(operator.program, 256) == 17
    assert largest_batch(operator.program, 5) == 5


def test_other_operators_are_tried_and_stepped_up_to_the_limit_of_the_worker(
    operators: dict[str, Operator],
) -> None:
    assert {largest_batch(o.program, 256) for o in operators.values()} == {256}


@pytest.fixture
def nnpack() -> Iterator[None]:
    """PyTorch with oneDNN off and NNPACK on, as some builds and settings have it."""
    import torch

    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    torch.backends.nnpack.set_flags(True)
    yield
    torch.backends.mkldnn.enabled = before
    torch.backends.nnpack.set_flags(False)


@pytest.mark.torch
def test_convolution_by_nnpack_is_caught(
    operators: dict[str, Operator],
    whole: Whole,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    operator = operators["convolution"]
    reference = ReferenceKernel(operator, whole(operator))
    kernel = load_kernel(operator, whole(operator), "torch")
    check(kernel, reference, MAX_BATCH)
    request.getfixturevalue("nnpack")
    with pytest.raises(ConformanceError, match="TorchKernel"):
        check(kernel, reference, MAX_BATCH)
