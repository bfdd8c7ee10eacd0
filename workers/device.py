"""What a hardware node must offer to host a synapse group, and a task's numbers on such a node.

A node keeps the membranes of its streams itself. A task wants state as a value, to checkpoint it
and to go on elsewhere (PROTOCOL 20). `DeviceCompute` brings both together:

- A node whose state can be read is asked for a snapshot behind every window; whoever takes over
  restores it.
- A node whose state cannot be read recovers by full replay: the state of a stream is then all that
  it was ever given, which is stepped again, without its outputs, before the next window. A
  checkpoint grows with the stream, so such nodes are for streams that end.

A node that fails ends the task here and no stream (`DeviceFailedError` leaves `run`): its lease
runs out, and another worker goes on from the last checkpoint.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import msgpack
import numpy as np

from topologies.compiled import Group, Operator
from topologies.errors import SpikeRouterError
from topologies.profiles import Profile
from topologies.stages.base import Array
from workers.compute import ForeignStateError, KernelCompute
from workers.spec import TaskSpec
from workers.streams import stream_field
from workers.windows import Window, Work

__all__ = ["Device", "DeviceCompute", "DeviceFailedError", "open_device"]


class DeviceFailedError(SpikeRouterError, RuntimeError):
    """The node is gone, or cannot be trusted any more: nothing of its state counts."""


class Device(Protocol):
    """One hardware node. Calls come from one thread at a time; each may raise DeviceFailedError."""

    @property
    def profile(self) -> Profile:
        """What fits on it: a worker declares it, and is given nothing larger."""

    def load(self, operator: Operator, group: Group) -> None:
        """Program the node with a synapse group. All streams that it held are gone."""

    def step(self, stream: str, start: int, inputs: Sequence[Array]) -> Array:
        """One window of a stream: inputs (T, n) integers per port, the whole of it -> (T, n_out).

        A window that starts at step 0 begins the stream anew, whatever the node held of it.
        """

    def snapshot(self, stream: str) -> tuple[bytes, ...] | None:
        """The stream's state behind its last window; None: this node's state cannot be read."""

    def restore(self, stream: str, state: tuple[bytes, ...]) -> None:
        """Continue a stream from a snapshot, of this node or of another of its kind."""

    def forget(self, stream: str) -> None:
        """The stream has ended, or went elsewhere."""

    def health(self) -> None:
        """Return while the node can be trusted, in less than the time of a window."""


def open_device(name: str) -> Device:
    """A new node of the adapter `MODULE:FACTORY`. Raises DeviceFailedError when there is none."""
    module, _, factory = name.partition(":")
    try:
        device: Device = getattr(import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise DeviceFailedError(
            f"SPIKEROUTER_DEVICE = {name!r} is no MODULE:FACTORY that can be loaded here: {error}."
        ) from error
    return device


class _Past(NamedTuple):
    """What a task keeps of a stream: a snapshot, or all windows (start, inputs) it ever had."""

    snapshot: tuple[bytes, ...] | None
    windows: tuple[tuple[int, tuple[tuple[int, bytes], ...]], ...]


class DeviceCompute(KernelCompute):
    """Runs the windows of a task on a node (`workers.windows.Compute`)."""

    def __init__(self, spec: TaskSpec, operator: Operator, device: Device) -> None:
        """Loads the node. Raises DeviceFailedError."""
        self._spec = spec
        self._device = device
        self._at: dict[str, int] = {}  # the next window of each stream that the node holds
        device.load(operator, spec.group)

    def run(self, work: Work) -> list[tuple[bytes, Any] | Exception]:
        """Window by window. Raises DeviceFailedError: then no window of these is applied."""
        self._device.health()
        return [self._tried(work.n_steps, window) for window in work.windows]

    def freeze(self, state: Any) -> list[bytes]:
        packed: bytes = msgpack.packb(list(state))
        return [packed]

    def thaw(self, frozen: list[bytes]) -> Any:
        try:
            (packed,) = frozen
            snapshot, windows = msgpack.unpackb(packed, use_list=False)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ForeignStateError(
                f"The state of a stream is not that of a node of operator {self._spec.operator} "
                f"({error}): a kernel wrote it, and only a kernel can go on."
            ) from error
        return _Past(snapshot, windows)

    def _tried(self, n_steps: int, window: Window) -> tuple[bytes, Any] | Exception:
        """What cannot be read ends its own stream."""
        try:
            return self._window(n_steps, window)
        except (ValueError, ArithmeticError, LookupError, TypeError) as error:
            return error

    def _window(self, n_steps: int, window: Window) -> tuple[bytes, Any]:
        stream = stream_field(window.place.node, window.stream.id)
        past = window.state or _Past(None, ())
        if self._at.get(stream, 0) != window.window:
            self._bring_back(stream, past)
        ports = range(len(self._spec.ports))
        inputs = [self._port(i, n_steps, [window])[0] for i in ports]
        payload = self._pack(self._device.step(stream, window.start, inputs)[None])[0]
        if window.end:
            self._at.pop(stream, None)
            self._device.forget(stream)
            return payload, None
        self._at[stream] = window.window + 1
        return payload, self._remembered(stream, window.start, inputs, past)

    def _remembered(self, stream: str, start: int, inputs: Sequence[Array], past: _Past) -> _Past:
        snapshot = self._device.snapshot(stream)
        if snapshot is not None:
            return _Past(snapshot, ())
        given = tuple((len(x), np.ascontiguousarray(x, np.int32).tobytes()) for x in inputs)
        return _Past(None, (*past.windows, (start, given)))

    def _bring_back(self, stream: str, past: _Past) -> None:
        """The node does not hold the stream as it is: restore it, or give it everything again."""
        if past.snapshot is not None:
            self._device.restore(stream, past.snapshot)
        for start, given in past.windows:
            inputs = [np.frombuffer(raw, np.int32).reshape(n, -1) for n, raw in given]
            self._device.step(stream, start, inputs)
