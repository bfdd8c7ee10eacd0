"""Steps equations of `brian2_text` with Brian2, which is imported at the first step.

Brian2's target is NumPy: its generated code is array operations in float64, element by element. A
group of neurons is made per model and size, sizes being powers of two, and kept. It has no memory
that matters: a step writes the states into it, runs its updater, threshold and reset in Brian2's
order, and takes the states out. Its clock stands at 0, since each stream has its own time;
refractoriness is counted in steps instead.

All groups of a process share one lock: Brian2 keeps global tables, and kernels run on threads.
"""

from __future__ import annotations

import ast
import logging
import operator
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import Any, Final

import numpy as np

from topologies.stages.base import Array, StageError
from topologies.stages.brian2_text import CURRENT, UNITS, Model

__all__ = ["run_window"]

_LOCK: Final = threading.RLock()
_KEPT: Final = 64  # groups, a few arrays each
_OPERATORS: Final[Mapping[type[ast.AST], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}


def run_window(
    model: Model, current: Array, state: Sequence[Array], fresh: Array
) -> tuple[Array, tuple[Array, ...]]:
    """One window of B streams of n neurons.

    `current` is float64 (B, T, n); `state` has (B, n) for each state of the model, float64 in base
    units, and, if there is a refractory period, int32 (B, n): the steps that are left of it.
    `fresh` is bool (B,): streams that begin here. Returns spikes uint8 (B, T, n) and the new state.

    Raises StageError where Brian2 is missing or refuses the equations, or a state is not finite.
    """
    n_streams, n_steps, n = current.shape
    spikes = np.zeros(current.shape, np.uint8)
    with _LOCK, _told(), np.errstate(all="ignore"):
        group = _group(model, 1 << max(n_streams * n - 1, 0).bit_length())
        group.put([array.reshape(-1) for array in state], np.repeat(fresh, n))
        for t in range(n_steps):
            streams, neurons = np.divmod(group.step(current[:, t].reshape(-1)), n)
            spikes[streams, t, neurons] = 1
        after = group.take()
    return spikes, tuple(array.reshape(n_streams, n) for array in after)


class _Group:
    """A Brian2 group of `size` neurons. Those beyond what was put in are silent company."""

    def __init__(self, model: Model, size: int) -> None:
        brian = _brian2()
        _refuse_clashes(brian, model)
        units = {**{name: getattr(brian, name) for name in UNITS}, "pi": np.pi}
        parameters = {name: _value(name, text, units) for name, text in model.parameters}
        names = {**units, **parameters}
        dt = _time(brian, "dt", model.dt, names)
        rest = None if model.refractory is None else _time(brian, "", model.refractory, names)
        group = brian.NeuronGroup(
            size,
            "\n".join([*map(str, model.equations), f"{CURRENT} : 1"]),
            threshold=model.threshold,
            reset="\n".join(model.reset) or None,
            refractory=False if rest is None else rest,
            method=model.method,
            namespace=parameters,
            dt=dt,
        )
        self._network = brian.Network(group)
        self._network.run(0 * brian.second, namespace={})  # no step: it generates the code
        self._objects = list(self._network.sorted_objects)
        self._arrays = {name: _array(group, name) for name in model.states}
        starts = {name: _value(name, text, names) for name, text in model.initial}
        self._starts = {
            name: _start(brian, name, starts.get(name), group.variables[name])
            for name in model.states
        }
        self._current, self._fired = _array(group, CURRENT), _array(group, "_spikespace")
        self._last = None if rest is None else _array(group, "lastspike")
        self._dt, self._rest = float(dt), 0 if rest is None else _steps(rest, dt)
        self._left = np.zeros(size, np.int32)
        self._n = 0

    def put(self, state: Sequence[Array], fresh: Array) -> None:
        """The states of n neurons, flat; `fresh` ones begin here."""
        self._n = len(fresh)
        for (name, array), given in zip(self._arrays.items(), state, strict=False):
            array[:] = self._starts[name]
            array[: self._n] = np.where(fresh, self._starts[name], given)
        self._left[:] = 0
        if self._last is not None:
            self._left[: self._n] = np.where(fresh, 0, state[-1])

    def step(self, current: Array) -> Array:
        """Currents (n,) -> which neurons fire, ascending. Raises StageError."""
        self._current[: self._n], self._current[self._n :] = current, 0.0
        if self._last is not None:  # so long ago, seen from time 0, as steps have gone by
            self._last[:] = (self._left - self._rest) * self._dt
        for part in self._objects:
            part.run()
        fired = self._fired[: self._fired[-1]].copy()
        self._left = np.maximum(self._left - 1, 0)
        self._left[fired] = max(self._rest - 1, 0)
        self._check()
        return fired[fired < self._n]

    def take(self) -> list[Array]:
        """The states of the n neurons, in the order in which `put` took them."""
        found = [array[: self._n].copy() for array in self._arrays.values()]
        return found if self._last is None else [*found, self._left[: self._n].copy()]

    def _check(self) -> None:
        for name, array in self._arrays.items():
            if not np.isfinite(array[: self._n]).all():
                raise StageError(
                    f"The state {name} of a brian2 neuron is no finite number any more: its "
                    "equations need a smaller dt, another method, or smaller currents."
                )


@lru_cache(_KEPT)
def _group(model: Model, size: int) -> _Group:
    return _Group(model, size)


@contextmanager
def _told() -> Iterator[None]:
    """Brian2's refusals as a StageError with the innermost reason, and none of its warnings."""
    brian = _brian2()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StageError:
        raise
    except (
        *(brian.BrianObjectException, brian.DimensionMismatchError),
        brian.equations.equations.EquationError,
        brian.stateupdaters.base.UnsupportedEquationsException,
        *(SyntaxError, ValueError, TypeError, KeyError, NotImplementedError, ArithmeticError),
    ) as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        said = " ".join(str(reason).split())[:400]
        raise StageError(f"Brian2 refuses the equations: {said}") from error


def _refuse_clashes(brian: Any, model: Model) -> None:
    """Brian2 would take a unit or function of its own for a parameter of the same name."""
    declared = {e.name for e in model.equations} | {name for name, _ in model.parameters}
    own = {*brian.DEFAULT_UNITS, *brian.DEFAULT_FUNCTIONS, *brian.DEFAULT_CONSTANTS}
    if clashes := sorted(declared & own):
        raise StageError(
            f"{', '.join(clashes)} is a unit, function or constant of Brian2: rename it."
        )


def _value(name: str, text: str, names: Mapping[str, Any]) -> Any:
    """The number or quantity of a constant in its stored form. Raises StageError."""

    def of(node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=found):
                return names[found]
            case ast.UnaryOp(op=op, operand=operand):
                return _OPERATORS[type(op)](of(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](of(left), of(right))
        raise StageError(f"{name} is {text!r}, which is no constant.")

    value = of(ast.parse(text, mode="eval").body)
    if not np.isfinite(float(value)):
        raise StageError(f"{name} is {text!r}, which is no finite number.")
    return value


def _time(brian: Any, name: str, text: str, names: Mapping[str, Any]) -> Any:
    value = _value(name or "refractory", text, names)
    is_time = brian.get_dimensions(value) == brian.second.dim
    if not is_time or float(value) < 0 or (name == "dt" and float(value) == 0):
        raise StageError(f"{name or 'refractory'} is {text}: it must be a time, as 1*ms.")
    return value


def _steps(time: Any, dt: Any) -> int:
    """As Brian2 counts them: a time that is a hair short of a step counts as that step."""
    steps = int((float(time) + 1e-3 * float(dt)) / float(dt))
    if steps >= 2**31:
        raise StageError(f"refractory is {steps} steps: legal are less than 2**31.")
    return steps


def _start(brian: Any, name: str, value: Any, variable: Any) -> float:
    if value is not None and brian.get_dimensions(value) != variable.dim:
        raise StageError(f"initial {name} is {value}, which has another unit than {name}.")
    return 0.0 if value is None else float(value)


def _array(group: Any, name: str) -> Array:
    """The memory of a variable: Brian2 reads and writes it, and so do we."""
    found: Array = group.variables[name].get_value()
    return found


@cache
def _brian2() -> Any:
    """Brian2, generating NumPy code, kept from changing the process around it.

    Its import takes over interrupts, warnings and uncaught exceptions, and logs into a temporary
    file that a killed process would leave behind; preferences may come from a file. Raises
    StageError.
    """
    hook = sys.excepthook
    try:
        with warnings.catch_warnings(), _without_handlers():
            warnings.simplefilter("ignore")
            import brian2
    except ImportError as error:
        raise StageError(
            "Layers of kind brian2 are run by Brian2, which is not installed here: install the "
            "extra `brian2`."
        ) from error
    sys.excepthook = hook
    logging.captureWarnings(False)
    _remove_log(brian2.BrianLogger)
    brian2.BrianLogger.log_level_error()  # what it warns of is refused, or of no account here
    brian2.prefs.reset_to_defaults()
    brian2.prefs.codegen.target = "numpy"
    return brian2


@contextmanager
def _without_handlers() -> Iterator[None]:
    """This thread sets no signal handlers; only the main thread could, and it has its own."""
    real, here = signal.signal, threading.get_ident()

    def set_elsewhere(number: Any, handler: Any) -> Any:
        return signal.getsignal(number) if threading.get_ident() == here else real(number, handler)

    signal.signal = set_elsewhere  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = real


def _remove_log(logger: Any) -> None:
    handler, files = logger.file_handler, (logger.tmp_log, logger.tmp_script)
    logger.file_handler = logger.tmp_log = logger.tmp_script = None
    if handler is not None:
        logging.getLogger("brian2").removeHandler(handler)
        handler.close()
    for file in files:
        with suppress(OSError, TypeError):  # TypeError: there is none
            os.unlink(file)
