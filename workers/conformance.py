"""Does a kernel give the reference's bits? Asked before it serves (docs/numerics.md, rule 16).

Batches of 1, 15, 16, 17 and the micro-batch limit (kernels change their order of sums with the
batch), each with random, zero and saturated input, over two windows. Half of the streams start as
new ones; the others in the middle of a stream, from membranes that are rare in life: -0.0,
subnormals, the threshold and its neighbours. Outputs and states are compared as bytes.

A spare that takes over a task waits for this, so the slow reference runs 17 streams only; a larger
batch repeats them. An operator for which that takes longer than a moment is tried on less: each
batch for one step of random input, and each kind of input for two windows of two streams. Of a very
large one, no more streams are stepped together than can be tried so (`largest_batch`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from topologies.compiled import Group, Operator
from topologies.errors import SpikeRouterError
from topologies.program import Program
from topologies.stages.base import Array, Clock, Emissions, ValueType, edge_dtype
from workers.kernel import Kernel, ReferenceKernel, check_subnormals, load_kernel

__all__ = ["ConformanceError", "admit", "check", "fingerprint", "largest_batch"]

_BATCHES = (1, 15, 16, 17)
_WINDOWS = (5, 1)  # steps
_MACS = 5 * 10**7  # of the reference in these windows; above it the operator is large
_STEP_MACS = 2 * 10**9  # of one step of the largest batch of a large operator
_STEP_VALUES = 2**26  # input values of the same
_SEED = 20
_Fill: TypeAlias = Callable[[ValueType, tuple[int, ...]], Array]
_RARE = (-0.0, 2.0**-149, -(2.0**-149), 2.0**-126, -1.5, 0.1, 0.999, 1.0, 1.0 + 2.0**-23, 1.3)


class ConformanceError(SpikeRouterError, RuntimeError):
    """A kernel does not give the reference's bits: it must not serve on this machine."""

    retryable: ClassVar[bool] = False


@dataclass(frozen=True)
class _Trial:
    """One input of `n` streams: two windows of ports (n, T, n_port), and the state before."""

    name: str
    windows: tuple[tuple[Array, ...], ...]
    state: tuple[Array, ...]
    start: Array
    end: Array

    def rows(self, n: int) -> _Trial:
        """`n` streams: the first ones, over and over."""
        at = np.arange(n) % len(self)
        return _Trial(
            self.name,
            tuple(tuple(port[at] for port in window) for window in self.windows),
            tuple(array[at] for array in self.state),
            self.start[at],
            self.end[at],
        )

    def __len__(self) -> int:
        return len(self.start)


def admit(operator: Operator, group: Group, backend: str, max_batch: int) -> Kernel:
    """Load a kernel that has shown the reference's bits. Raises ConformanceError, KernelError."""
    check_subnormals()
    kernel = load_kernel(operator, group, backend)
    check(kernel, ReferenceKernel(operator, group), max_batch)
    return kernel


def check(kernel: Kernel, reference: Kernel, max_batch: int) -> None:
    """Raises ConformanceError when `kernel` differs from `reference` in a bit.

    `max_batch` is the largest number of streams that the worker will step together.
    """
    if kernel.state_spec() != reference.state_spec():
        raise ConformanceError(
            f"{_name(kernel)} keeps the state {kernel.state_spec()}; the reference keeps "
            f"{reference.state_spec()}, so its snapshots could not be read elsewhere."
        )
    for trial, batches in _trials(reference, max_batch):
        expected = list(_parts(reference, trial))
        for n in batches:
            _compare(kernel, trial.rows(n), expected)


def fingerprint(kernel: Kernel, max_batch: int) -> str:
    """SHA-256 of all outputs and states over the suite: equal on every backend and machine."""
    total = hashlib.sha256()
    for trial, batches in _trials(kernel, max_batch):
        for n in batches:
            for _, rows in _parts(kernel, trial.rows(n)):
                for row in rows:
                    total.update(f"{row.dtype.str}{row.shape}".encode())
                    total.update(np.ascontiguousarray(row).tobytes())
    return total.hexdigest()


def largest_batch(program: Program, max_batch: int) -> int:
    """The most streams that are tried, and so may be stepped together, of `max_batch`."""
    if not _is_large(program):
        return max_batch
    values = sum(port.n for port in program.ports)
    most = min(_STEP_MACS // program.cost.macs_per_step, _STEP_VALUES // values)
    return min(max_batch, max(most, *_BATCHES))


def _is_large(program: Program) -> bool:
    return program.cost.macs_per_step * max(_BATCHES) * sum(_WINDOWS) > _MACS


def _batches(program: Program, max_batch: int) -> list[int]:
    return sorted({*_BATCHES, max(largest_batch(program, max_batch), 1)})


def _compare(kernel: Kernel, trial: _Trial, expected: list[tuple[str, Sequence[Array]]]) -> None:
    before = [port.copy() for window in trial.windows for port in window]
    for (what, found), (_, wanted) in zip(_parts(kernel, trial), expected, strict=True):
        for b, row in enumerate(found):
            right = wanted[b % len(wanted)]
            if _same(row, right):
                continue
            raise ConformanceError(
                f"{_name(kernel)} differs from the reference in {what} of stream {b} of "
                f"{len(trial)}, {trial.name} input: {_difference(row, right)} It must not "
                "serve on this machine; use another backend."
            )
    after = [port for window in trial.windows for port in window]
    if not all(map(_same, after, before)):
        raise ConformanceError(f"{_name(kernel)} writes into its inputs.")


def _parts(kernel: Kernel, trial: _Trial) -> Iterator[tuple[str, Sequence[Array]]]:
    """What a kernel makes of a trial: (name, one array per stream) of each output and state."""
    state, start = trial.state, trial.start
    names = [name for name, _, _ in kernel.state_spec()]
    for index, window in enumerate(trial.windows):
        n_steps = window[0].shape[1]
        last = index == len(trial.windows) - 1
        end = trial.end if last else np.zeros(len(trial), np.bool_)
        output, state = kernel.step(state, window, Clock(start, end))
        start = start + n_steps
        yield f"the output of window {index}", _rows(output)
        for name, array in zip(names, state, strict=True):
            yield f"state {name} after window {index}", _rows(array)


def _rows(values: Array | Emissions) -> Sequence[Array]:
    return values if isinstance(values, list) else [*values]


def _same(found: Array, wanted: Array) -> bool:
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    return np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(wanted).tobytes()


def _difference(found: Array, wanted: Array) -> str:
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"{found.dtype} {found.shape} for {wanted.dtype} {wanted.shape}."
    bits = np.dtype(f"u{found.dtype.itemsize}")
    mine, theirs = np.ascontiguousarray(found), np.ascontiguousarray(wanted)
    at = np.flatnonzero(mine.view(bits).ravel() != theirs.view(bits).ravel())
    first = int(at[0])
    return (
        f"{len(at)} of {found.size} values, the first at {first}: "
        f"{mine.ravel()[first]!r} for {theirs.ravel()[first]!r}."
    )


def _trials(kernel: Kernel, max_batch: int) -> Iterator[tuple[_Trial, Sequence[int]]]:
    """The suite's inputs, always the same for one operator, and the batches to try each in."""
    program = kernel.operator.program
    batches = _batches(program, max_batch)
    if _is_large(program):
        (random,) = _filled(kernel, 4, (1,), ("random",))
        yield random, batches
        yield from ((trial, (len(trial),)) for trial in _filled(kernel, 2, (1, 1)))
        return
    yield from ((trial, batches) for trial in _filled(kernel, max(_BATCHES), _WINDOWS))


def _filled(
    kernel: Kernel, n: int, lengths: Sequence[int], names: Collection[str] | None = None
) -> Iterator[_Trial]:
    """Trials of `n` streams, with windows of these lengths, for these or all kinds of input."""
    program = kernel.operator.program
    rng = np.random.default_rng(_SEED)
    state = _states(kernel, n)
    start = np.where(np.arange(n) % 2 == 0, 0, 3 + np.arange(n, dtype=np.int64))
    fills: dict[str, _Fill] = {
        "zero": lambda port, size: np.full(size, _clipped(0, port), edge_dtype(port)),
        "saturated": lambda port, size: np.full(size, port.high, edge_dtype(port)),
        "lowest": lambda port, size: np.full(size, port.low, edge_dtype(port)),
        "random": lambda port, size: _random(rng, port, size).astype(edge_dtype(port)),
    }
    for name, fill in fills.items():
        if names is not None and name not in names:
            continue
        if name == "lowest" and all(port.low == 0 for port in program.ports):
            continue
        windows = tuple(
            tuple(fill(port, (n, n_steps, port.n)) for port in program.ports) for n_steps in lengths
        )
        yield _Trial(name, windows, state, start, np.arange(n) % 3 < 2)


def _clipped(value: int, port: ValueType) -> int:
    return min(max(value, port.low), port.high)


def _random(rng: np.random.Generator, port: ValueType, size: tuple[int, ...]) -> Array:
    """Uniform integers; of spikes a tenth, and in every other stream a half."""
    if not port.is_spike:
        return rng.integers(port.low, port.high, size, endpoint=True)
    density = np.where(np.arange(size[0]) % 2 == 0, 0.1, 0.5)
    spikes: Array = rng.random(size, np.float32) < density[:, None, None]
    return spikes


def _states(kernel: Kernel, n: int) -> tuple[Array, ...]:
    """New streams at even places, rare states at odd ones."""
    state = kernel.init_state(n)
    rng = np.random.default_rng(_SEED)
    for array in state:
        odd = array[1::2]
        if array.dtype == np.float32:
            rare = rng.choice(np.array(_RARE, np.float32), odd.shape)
            common = rng.normal(0, 0.6, odd.shape).astype(np.float32)
            odd[...] = np.where(rng.random(odd.shape) < 0.5, rare, common)
        elif array.dtype == np.int64:
            odd[...] = rng.integers(-100, 100, odd.shape)
        else:  # what was sent or read in earlier steps: 0 and 1 are legal on every edge
            odd[...] = rng.integers(0, 2, odd.shape)
    return state


def _name(kernel: Kernel) -> str:
    group = kernel.group
    return (
        f"The kernel {type(kernel).__name__} of operator {kernel.operator.id}, group "
        f"{group.index} [{group.lo}, {group.hi}),"
    )
