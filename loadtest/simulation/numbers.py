"""Arithmetic in place of neurons: any wrong order, step, window, delay or state shows in the bits.

Every operator keeps one 32-bit number `h` per stream and group. In each step it takes one number
from each source, in the fixed order of sources:

    h = ((h ^ x_i) * 0x9E3779B1 + i + 1) mod 2**32     for each source i
    emitted: h ^ (h >> 15)

A readout emits its number at the end and each `every` steps, and starts again from its salt. The
result depends on the order of sources and on every earlier step, and not on how windows are cut.
"""

import struct
from collections.abc import Sequence
from typing import Any

from router.records import Data
from workers.flow import Cut
from workers.ingest import IngestWork
from workers.spec import TaskSpec
from workers.streams import Held
from workers.windows import Window, Work

__all__ = [
    "DEADLY_SEED", "MASK", "POISON_SEED", "FakeCompute", "FakeEncode", "emit", "mix", "mix_event",
    "salt",
]  # fmt: skip

MASK = 0xFFFFFFFF
POISON_SEED = 0xBAD
"""A stream with this seed makes the operators named in `poisoned` fail at its second window."""
DEADLY_SEED = 0xDEAD
"""A stream with this seed kills the process that steps its second window in a `deadly` operator."""

State = tuple[int, int, int]
"""Next step, h, and the step of the last emission of a readout (-1: none)."""


def salt(operator: str, group: int) -> int:
    """Where `h` begins."""
    return (int(operator[:8], 16) + group * 0x51ED27) & MASK


def mix(h: int, index: int, x: int) -> int:
    return ((h ^ x) * 0x9E3779B1 + index + 1) & MASK


def emit(h: int) -> int:
    return h ^ (h >> 15)


def mix_event(value: int, address: int, weight: int) -> int:
    return (value * 31 + address * 7 + weight + 1) & MASK


class FakeCompute:
    """`workers.windows.Compute` for one task. `every` is None for what is no readout."""

    def __init__(
        self, spec: TaskSpec, is_readout: bool, every: int | None, poisoned: frozenset[str]
    ) -> None:
        self._salt = salt(spec.operator, spec.group.index)
        self._is_readout = is_readout
        self._every = every
        self._is_poisoned = spec.operator in poisoned

    def run(self, work: Work) -> list[tuple[bytes, Any] | Exception]:
        return [self._guarded(w) for w in work.windows]

    def _guarded(self, window: Window) -> tuple[bytes, Any] | Exception:
        try:
            return self._window(window)
        except (ValueError, struct.error) as error:
            return error

    def _window(self, w: Window) -> tuple[bytes, Any]:
        if self._is_poisoned and w.seed == POISON_SEED and w.window == 1:
            raise ValueError("poison")
        step, h, last = (0, self._salt, -1) if w.state is None else w.state
        if step != w.start:
            raise ValueError(f"the state is of step {step}, the window begins at {w.start}")
        columns = [
            _steps(held, source.delay, w.start, w.stop)
            for source, held in zip(w.place.sources, w.inputs, strict=True)
        ]
        out: list[int] = []
        for row in zip(*columns, strict=True):
            for index, x in enumerate(row):
                h = ((h ^ x) * 0x9E3779B1 + index + 1) & MASK
            step += 1
            if not self._is_readout:
                out.append(h ^ (h >> 15))
            elif self._every and step % self._every == 0:
                out.append(h ^ (h >> 15))
                h, last = self._salt, step
        if self._is_readout and w.end and (last < 0 or last < step):
            out.append(h ^ (h >> 15))
        return struct.pack(f"<{len(out)}I", *out), (step, h, last)

    def freeze(self, state: Any) -> list[bytes]:
        return [struct.pack("<qIq", *state)]

    def thaw(self, frozen: list[bytes]) -> Any:
        return struct.unpack("<qIq", frozen[0])


def _steps(held: Sequence[Held], delay: int, start: int, stop: int) -> Sequence[int]:
    """What the source says of steps [start - delay, stop - delay); silent before step 0."""
    if not delay:
        (only,) = held
        if only.start != start or only.stop != stop:
            raise ValueError(f"window [{start}, {stop}) got [{only.start}, {only.stop})")
        return struct.unpack(f"<{stop - start}I", only.payload)
    known: dict[int, int] = {}
    for batch in held:
        values = struct.unpack(f"<{batch.stop - batch.start}I", batch.payload)
        known.update(zip(range(batch.start, batch.stop), values, strict=True))
    wanted = range(start - delay, stop - delay)
    missing = [t for t in wanted if t >= 0 and t not in known]
    if missing:
        raise ValueError(f"steps {missing} of a delayed source are missing")
    return [known[t] if t >= 0 else 0 for t in wanted]


class FakeEncode:
    """`workers.ingest.Encode`: one step per byte of a payload, and events."""

    def check(self, data: Data) -> int:
        for _, address, _ in data.events or ():
            if address > 99:
                raise ValueError(f"address {address} is not legal: 0 to 99")
        return len(data.payload or b"")

    def run(self, work: IngestWork) -> list[bytes | Exception]:
        return [
            ValueError("poison") if seed == POISON_SEED + 1 and cut.window == 1 else _encode(cut)
            for cut, seed in zip(work.cuts, work.seeds, strict=True)
        ]


def _encode(cut: Cut) -> bytes:
    values = [0] * cut.n_steps
    for piece in cut.pieces:
        for t in range(max(piece.start, cut.start), min(piece.stop, cut.stop)):
            values[t - cut.start] = piece.payload[t - piece.start] + 1
    for t, address, weight in cut.events:
        values[t - cut.start] = mix_event(values[t - cut.start], address, weight)
    return struct.pack(f"<{len(values)}I", *values)
