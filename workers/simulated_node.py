"""A hardware node in software: the reference kernel behind the contract of `workers.device`.

`readable` says whether its state can be read. `fail` makes every call fail, as a node does that
lost its power; `load` brings it back, empty. What needs more than the profile has is refused.
"""

from collections.abc import Sequence

import numpy as np

from topologies.compiled import Group, Operator
from topologies.profiles import PROFILES, Profile, ProfileError, needs_of
from topologies.stages.base import Array, Clock
from workers.device import DeviceFailedError
from workers.kernel import ReferenceKernel

__all__ = ["SimulatedNode"]


class SimulatedNode:
    """A `workers.device.Device`."""

    def __init__(self, profile: Profile = PROFILES["cpu"], *, readable: bool = True) -> None:
        self.profile = profile
        self.n_steps = 0
        """Steps computed since it was made, replayed ones included."""
        self._readable = readable
        self._failed = False
        self._kernel: ReferenceKernel | None = None
        self._states: dict[str, tuple[Array, ...]] = {}

    def fail(self) -> None:
        """From now on nothing works, and what it held is gone."""
        self._failed = True
        self._states.clear()

    def load(self, operator: Operator, group: Group) -> None:
        """See `Device`. Raises ProfileError when the group does not fit."""
        above = self.profile.exceeded(needs_of(operator.program.slice(group.lo, group.hi)))
        if above:
            raise ProfileError(
                f"Group {group.index} of operator {operator.id} has too many {', '.join(above)} "
                f"for {self.profile.name}: compile with --profile {self.profile.name}."
            )
        self._kernel = ReferenceKernel(operator, group)
        self._states.clear()
        self._failed = False

    def step(self, stream: str, start: int, inputs: Sequence[Array]) -> Array:
        """See `Device`."""
        kernel = self._working()
        if start == 0:
            self._states.pop(stream, None)
        state = self._states.get(stream) or kernel.init_state(1)
        clock = Clock(np.array([start], np.int64), np.zeros(1, np.bool_))
        out, self._states[stream] = kernel.step(state, [x[None] for x in inputs], clock)
        if isinstance(out, list):
            raise DeviceFailedError("A readout runs beside the nodes, not on one.")
        self.n_steps += out.shape[1]
        flat: Array = out[0]
        return flat

    def snapshot(self, stream: str) -> tuple[bytes, ...] | None:
        """See `Device`."""
        self._working()
        return tuple(a.tobytes() for a in self._states[stream]) if self._readable else None

    def restore(self, stream: str, state: tuple[bytes, ...]) -> None:
        """See `Device`."""
        spec = self._working().state_spec()
        self._states[stream] = tuple(
            np.frombuffer(raw, dtype).reshape(1, *shape)
            for raw, (_, shape, dtype) in zip(state, spec, strict=True)
        )

    def forget(self, stream: str) -> None:
        """See `Device`."""
        self._states.pop(stream, None)

    def health(self) -> None:
        """See `Device`."""
        self._working()

    def _working(self) -> ReferenceKernel:
        if self._failed or self._kernel is None:
            raise DeviceFailedError("The node does not answer: load it again, or use another.")
        return self._kernel
