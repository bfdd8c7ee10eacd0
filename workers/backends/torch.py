"""The PyTorch backend, on the CPU.

Sums are exact in any kernel as long as the library really computes in float32 (or float64, where
the bound asks for it), so importing this module switches NNPACK off, asks for full float32
precision, and refuses a process whose environment lets oneDNN use less (docs/numerics.md, rule 15).
A neuron's step is the operations of `topologies.stages.neuron` one by one: nothing that PyTorch
fuses or approximates (rule 11). Values are (T, B, *shape), as in the NumPy backend.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from topologies.compiled import Group, Operator, Program
from topologies.stages.add import Add
from topologies.stages.attention import Ssa
from topologies.stages.base import Array, Clock, Emissions, StateSpec, edge_dtype
from topologies.stages.conv import Conv2d
from topologies.stages.conv1d import Conv1d
from topologies.stages.linear import Linear
from topologies.stages.neuron import If, Lif
from topologies.stages.pool import MaxPool, SumPool
from topologies.stages.reshape import Reshape
from topologies.stages.weighted import Weighted
from workers.backends.kinds import Op, kind_op
from workers.kernel import KernelError

__all__ = ["TorchKernel", "check_environment", "set_exact"]

_State: TypeAlias = tuple[Array, ...]
_Op: TypeAlias = Callable[[Sequence[torch.Tensor], _State, Clock], tuple[Any, _State]]
_DTYPES = {"float32": torch.float32, "int32": torch.float64, "float64": torch.float64}


class TorchKernel:
    """One synapse group on PyTorch; see `workers.kernel.Kernel`."""

    def __init__(self, operator: Operator, group: Group) -> None:
        """Plan the group's program. Raises StageError for an illegal group, KernelError."""
        check_environment(os.environ)
        set_exact()
        self.operator = operator
        self.group = group
        self._program = operator.program.slice(group.lo, group.hi)
        self._ops = [_plan(self._program, i) for i in range(len(self._program.stages))]
        self._n_states = [len(spec) for spec in self._program.state_specs]
        self._edge = None if operator.kind == "readout" else edge_dtype(self._program.output)

    def state_spec(self) -> StateSpec:
        """See Kernel."""
        return self._program.state_spec()

    def init_state(self, n: int) -> _State:
        """See Kernel."""
        return self._program.init_state(n)

    def step(
        self, state: _State, inputs: Sequence[Array], clock: Clock
    ) -> tuple[Array | Emissions, _State]:
        """See Kernel."""
        with torch.inference_mode():
            return self._step(state, inputs, clock)

    def _step(
        self, state: _State, inputs: Sequence[Array], clock: Clock
    ) -> tuple[Array | Emissions, _State]:
        ports = [
            _tensor(array.swapaxes(0, 1)).reshape(array.shape[1], array.shape[0], *port.shape)
            for array, port in zip(inputs, self._program.ports, strict=True)
        ]
        values: list[Any] = []
        after: list[Array] = []
        used = 0
        for op, reads, n in zip(self._ops, self._program.reads, self._n_states, strict=True):
            taken = [values[r] if r >= 0 else ports[-1 - r] for r in reads]
            value, new = op(taken, state[used : used + n], clock)
            used += n
            values.append(value)
            after.extend(new)
        return self._outward(values[-1]), tuple(after)

    def _outward(self, value: torch.Tensor | Emissions) -> Array | Emissions:
        if isinstance(value, list):
            return value
        array: Array = value.numpy()
        flat = array.reshape(*array.shape[:2], self._program.output.n)
        return np.ascontiguousarray(flat.swapaxes(0, 1), self._edge)


def check_environment(environ: Mapping[str, str]) -> None:
    """Raises KernelError when the environment lets oneDNN compute in less than float32."""
    for name in ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"):
        mode = environ.get(name, "STRICT")
        if mode.upper() != "STRICT":
            raise KernelError(
                f"{name} is {mode!r}, which lets products be computed in fewer bits than float32: "
                "unset it (or set STRICT), or use the backend numpy."
            )


def set_exact() -> None:
    """Switch this process to exact float32 products. Raises KernelError where it cannot be."""
    torch.backends.nnpack.set_flags(False)
    torch.set_float32_matmul_precision("highest")
    if not torch.backends.mkldnn.enabled:
        raise KernelError("oneDNN is switched off in this process: switch it on again.")


def _tensor(array: Array) -> torch.Tensor:
    """The array as a contiguous tensor; read-only memory is copied."""
    whole = np.ascontiguousarray(array)
    return torch.from_numpy(whole if whole.flags.writeable else whole.copy())


def _plan(program: Program, index: int) -> _Op:
    stage = program.stages[index]
    wide = torch.float32 if program.types[index].largest < 2**24 else torch.float64
    match stage:
        case Linear():
            return _linear(stage)
        case Conv2d():
            return _conv(stage)
        case Conv1d():
            return _conv1d(stage)
        case Ssa():
            return _ssa(stage)
        case If() | Lif() if stage.is_uniform:
            return _neuron(stage)
        case SumPool():
            return _sum_pool(stage, wide)
        case MaxPool():
            return _max_pool(stage, wide)
        case Add():
            return _add(stage, wide)
        case Reshape():
            shape = program.types[index].shape
            return lambda inputs, state, clock: (
                inputs[0].reshape(*inputs[0].shape[:2], *shape),
                state,
            )
    return _on_numpy(kind_op(stage))


def _weights(stage: Weighted) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = _DTYPES[stage.accumulator]
    return torch.tensor(stage.weight).to(dtype), torch.tensor(stage.bias).to(dtype)


def _linear(stage: Linear) -> _Op:
    weight, bias = _weights(stage)

    def op(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        return functional.linear(inputs[0].to(weight.dtype), weight, bias), state

    return op


def _conv(stage: Conv2d) -> _Op:
    weight, bias = _weights(stage)

    def op(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        (x,) = inputs
        sums = functional.conv2d(
            x.flatten(0, 1).to(weight.dtype),
            weight,
            bias,
            stage.stride,
            stage.padding,
            stage.dilation,
            stage.channel_groups,
        )
        return sums.unflatten(0, x.shape[:2]), state

    return op


def _conv1d(stage: Conv1d) -> _Op:
    weight, bias = _weights(stage)

    def op(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        (x,) = inputs
        geometry = stage.stride, stage.padding, stage.dilation, stage.channel_groups
        sums = functional.conv1d(x.flatten(0, 1).to(weight.dtype), weight, bias, *geometry)
        return sums.unflatten(0, x.shape[:2]), state

    return op


def _ssa(stage: Ssa) -> _Op:
    dtype = _DTYPES[stage.accumulator]

    def op(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        q, k, v = (x.to(dtype).unflatten(2, (stage.heads, -1)) for x in inputs)
        sums = torch.matmul(v, torch.matmul(k.transpose(3, 4), q))
        return sums.reshape(inputs[0].shape), state

    return op


def _sum_pool(stage: SumPool, dtype: torch.dtype) -> _Op:
    def op(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        x = inputs[0].to(dtype)
        sums = functional.avg_pool2d(
            x.flatten(0, 1), stage.kernel, stage.stride, stage.padding, divisor_override=1
        )
        return sums.unflatten(0, x.shape[:2]), state

    return op


def _max_pool(stage: MaxPool, dtype: torch.dtype) -> _Op:
    def op(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        x = inputs[0].to(dtype)
        pooled = functional.max_pool2d(x.flatten(0, 1), stage.kernel, stage.stride, stage.padding)
        return pooled.unflatten(0, x.shape[:2]), state

    return op


def _add(stage: Add, dtype: torch.dtype) -> _Op:
    def op(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        total = inputs[0].to(dtype) * 2.0 ** stage.lifts[0]
        for x, lift in zip(inputs[1:], stage.lifts[1:], strict=True):
            total = total + x.to(dtype) * 2.0**lift
        return total, state

    return op


def _on_numpy(op: Op) -> _Op:
    """Any other stage: its operation on NumPy."""

    def apply(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        value, after = op([x.numpy() for x in inputs], state, clock)
        return (value if isinstance(value, list) else _tensor(value)), after

    return apply


def _neuron(stage: If | Lif) -> _Op:
    unit = 2.0**-stage.unit

    def op(inputs: Sequence[torch.Tensor], state: _State, clock: Clock) -> tuple[Any, _State]:
        current = inputs[0].to(torch.float32) * unit + 0.0
        spikes = torch.empty(current.shape, dtype=torch.uint8)
        v = _tensor(stage.started(state[0], clock.start))
        for t in range(len(current)):
            fired, v = _step(stage, v, current[t])
            spikes[t] = fired
        return spikes, (v.numpy(),)

    return op


def _step(stage: If | Lif, v: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One step; Python floats below are float32 values, which PyTorch takes as float32."""
    if isinstance(stage, Lif) and stage.form == "snntorch":
        return _step_snntorch(stage, v, i)
    h = _charge(stage, v, i)
    fired = h >= stage.v_threshold if stage.fire == ">=" else h > stage.v_threshold
    return fired, _reset(stage, h, fired)


def _charge(stage: If | Lif, v: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    if isinstance(stage, If):
        return v + i
    r = 0.0 if stage.v_reset is None else stage.v_reset
    if stage.form == "plain":
        return v * stage.leak + i
    if stage.form == "norse":
        return v + ((i + stage.v_leak) - v) * stage.leak
    if stage.decay_input:
        return v + (i - (v - r)) / stage.leak
    return (v - (v - r) / stage.leak) + i


def _reset(stage: If | Lif, h: torch.Tensor, fired: torch.Tensor) -> torch.Tensor:
    s = fired.to(torch.float32)
    form = stage.form if isinstance(stage, Lif) else "spikingjelly"
    if form == "norse" and stage.v_reset is None:
        return (1.0 - s) * h + s * (h - stage.v_threshold)
    if stage.v_reset is None:
        return h - s * stage.v_threshold
    if form == "plain":
        return torch.where(fired, stage.v_reset, h)
    return s * stage.v_reset + (1.0 - s) * h


def _step_snntorch(
    stage: Lif, v: torch.Tensor, i: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    soft, threshold = stage.v_reset is None, stage.v_threshold
    q = (v > threshold).to(torch.float32)
    if soft:
        h = (v * stage.leak + i) - q * threshold
    else:
        h = ((1.0 - q) * v) * stage.leak + i
    fired = h > threshold
    if stage.reset_delayed:
        return fired, h
    d = fired.to(torch.float32) - q
    return fired, h - d * (threshold if soft else h)
