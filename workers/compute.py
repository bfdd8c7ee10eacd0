"""The numbers behind a task: from payloads to arrays, through a kernel or an encoder, and back.

Pure and without memory, but for counts: what a window gives depends on its inputs, its state and
nothing else.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from router.payload import check, pack, pack_result, unpack, unpack_steps
from router.records import SPIKES, Data
from topologies.errors import SpikeRouterError
from topologies.stages.base import Array, Clock, Encoder, ValueType
from topologies.stages.encoder import Events
from workers.flow import Cut, Piece
from workers.ingest import IngestWork
from workers.kernel import Kernel
from workers.spec import IngestSpec, TaskSpec
from workers.streams import Held
from workers.windows import Window, Work

__all__ = ["EncoderEncode", "ForeignStateError", "KernelCompute"]

W = TypeVar("W")
R = TypeVar("R")


class ForeignStateError(SpikeRouterError, RuntimeError):
    """A checkpoint is by another kind of node: this worker cannot take the task over."""


class KernelCompute:
    """Runs a kernel over the windows of a task (`workers.windows.Compute`)."""

    def __init__(self, spec: TaskSpec, kernel: Kernel) -> None:
        self._spec = spec
        self._kernel = kernel
        self._state_spec = kernel.state_spec()
        self.counts: Counter[str] = Counter()

    def count_in(self, counts: Counter[str]) -> None:
        """Count into these from now on. `run` is on a thread: it adds to a key that is there."""
        counts.setdefault("values_saturated_total", 0)
        self.counts = counts

    def _saturated(self, n: int) -> None:
        self.counts["values_saturated_total"] += n

    def run(self, work: Work) -> list[tuple[bytes, Any] | Exception]:
        return _each_alone_if_need_be(self._run, work.n_steps, work.windows)

    def freeze(self, state: Any) -> list[bytes]:
        """Raw little-endian bytes of each array (numerics 22)."""
        return [np.ascontiguousarray(a).tobytes() for a in state]

    def thaw(self, frozen: list[bytes]) -> Any:
        try:
            return tuple(
                np.frombuffer(raw, dtype).reshape(shape)
                for raw, (_, shape, dtype) in zip(frozen, self._state_spec, strict=True)
            )
        except ValueError as error:
            raise ForeignStateError(
                f"The state of a stream is not that of a kernel of operator {self._spec.operator} "
                f"({error}): another kind of node wrote it, and only that can go on."
            ) from error

    def _run(self, n_steps: int, windows: Sequence[Window]) -> list[tuple[bytes, Any]]:
        inputs = [self._port(i, n_steps, windows) for i in range(len(self._spec.ports))]
        clock = Clock(
            start=np.array([w.start for w in windows], np.int64),
            end=np.array([w.end for w in windows], np.bool_),
            saturated=self._saturated,
        )
        output, after = self._kernel.step(self._gather(windows), inputs, clock)
        payloads = self._pack(output)
        keep = [not w.end for w in windows]
        return [
            (payload, tuple(a[i].copy() for a in after) if keep[i] else None)
            for i, payload in enumerate(payloads)
        ]

    def _gather(self, windows: Sequence[Window]) -> tuple[Array, ...]:
        state: tuple[Array, ...] = self._kernel.init_state(len(windows))
        for row, window in enumerate(windows):
            if window.state is not None:
                for whole, mine in zip(state, window.state, strict=True):
                    whole[row] = mine
        return state

    def _port(self, port: int, n_steps: int, windows: Sequence[Window]) -> Array:
        """All source groups of one port, joined along neurons: (B, T, n)."""
        edge = self._spec.ports[port]
        sources = [(i, s) for i, s in enumerate(windows[0].place.sources) if s.port == port]
        parts = []
        for index, source in sources:
            n = source.group.hi - source.group.lo
            if source.delay:
                rows = [_delayed(w, w.inputs[index], source.delay, n, edge) for w in windows]
                parts.append(np.stack(rows))
            else:
                payloads = [w.inputs[index][0].payload for w in windows]
                parts.append(unpack(payloads, n_steps, n, edge.low, edge.high))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def _pack(self, output: Array | list[Array]) -> list[bytes]:
        if isinstance(output, list):
            return [pack_result(values) if len(values) else b"" for values in output]
        out = self._spec.output
        return pack(output, out.low, out.high)


def _delayed(window: Window, held: Sequence[Held], delay: int, n: int, edge: ValueType) -> Array:
    """Steps `[start - delay, stop - delay)` of a source; those before step 0 are silent."""
    first = window.start - delay
    whole = np.zeros((window.stop - window.start, n), np.int32)
    for batch in held:
        values = unpack([batch.payload], batch.stop - batch.start, n, edge.low, edge.high)[0]
        lo, hi = max(batch.start, first), min(batch.stop, window.stop - delay)
        whole[lo - first : hi - first] = values[lo - batch.start : hi - batch.start]
    return whole


class EncoderEncode:
    """Checks and encodes the input records of an ingest (`workers.ingest.Encode`)."""

    def __init__(self, spec: IngestSpec, encoder: Encoder) -> None:
        self._spec = spec
        self._encoder = encoder
        self._out = encoder.out_type(())

    def check(self, data: Data) -> int:
        period = self._spec.input.n_steps
        if data.until is not None and period and not self._takes_spikes and data.until % period:
            raise ValueError(f"until is {data.until}; it must be a multiple of {period} steps")
        if data.events is not None:
            self._check_events(data, period)
        if data.payload is None:
            return 0
        if data.dtype == SPIKES:
            return self._check_spikes(data)
        return self._check_sample(data)

    @property
    def _takes_spikes(self) -> bool:
        return isinstance(self._encoder, Events)

    def _check_events(self, data: Data, period: int | None) -> None:
        if not self._takes_spikes:
            raise ValueError(
                f"input {self._spec.input.name} takes samples of shape {self._spec.input.shape},"
                " not events"
            )
        last = period if data.request and period else None
        for step, address, value in data.events or ():
            if not (0 <= address < self._out.n and self._out.low <= value <= self._out.high):
                raise ValueError(
                    f"the event (step {step}, address {address}, value {value}) is not legal:"
                    f" addresses are 0 to {self._out.n - 1},"
                    f" values {self._out.low} to {self._out.high}"
                )
            if step < 0 or (last is not None and step >= last):
                raise ValueError(f"the event at step {step} is not legal: a request has steps 0 to"
                                 f" {(last or 0) - 1}")  # fmt: skip

    def _check_spikes(self, data: Data) -> int:
        period = self._spec.input.n_steps
        if not self._takes_spikes:
            raise ValueError(f"input {self._spec.input.name} takes samples, not spike payloads")
        steps = data.steps if data.steps is not None else period
        if steps is None or (data.request and period is not None and steps != period):
            raise ValueError(f"the payload covers {steps} steps; a request has {period}")
        if steps > self._spec.most_steps:  # a short payload can claim any number of them
            raise ValueError(f"the payload covers {steps} steps; at most {self._spec.most_steps}"
                             " are legal: send it in parts")  # fmt: skip
        check(data.payload or b"", steps, self._out.n, self._out.low, self._out.high)
        return steps

    def _check_sample(self, data: Data) -> int:
        values = data.values()
        if self._takes_spikes:
            sample = self._steps_of(values)
            return int(sample.shape[0])
        self._encoder.validate(_shaped(values, self._spec.input.shape))
        return self._spec.input.n_steps or 1

    def _steps_of(self, values: Array) -> Array:
        """Dense integers (T, *shape) given for an input of events."""
        if values.size % self._out.n or not values.size:
            raise ValueError(
                f"{values.size} values are no whole number of steps of {self._out.n} addresses"
            )
        steps = values.reshape(-1, self._out.n)
        self._encoder.validate(steps.reshape(-1, *self._spec.input.shape))
        return steps

    def run(self, work: IngestWork) -> list[bytes | Exception]:
        pairs = tuple(zip(work.cuts, work.seeds, strict=True))
        return _each_alone_if_need_be(self._run, work.n_steps, pairs)

    def _run(self, n_steps: int, pairs: Sequence[tuple[Cut, int]]) -> list[bytes]:
        cuts = [cut for cut, _ in pairs]
        if self._takes_spikes:
            if all(_is_whole(cut) for cut in cuts):  # canonical, as `check` saw: equal bytes leave
                return [cut.pieces[0].payload for cut in cuts]
            steps = np.stack([self._spikes(cut) for cut in cuts])
            return pack(steps, self._out.low, self._out.high)
        if all(len(c.pieces) == 1 and _covers(c.pieces[0], c) for c in cuts):
            samples = np.stack([self._sample(c.pieces[0]) for c in cuts])
            start = np.array([c.start for c in cuts], np.int64)
            seeds = np.array([seed for _, seed in pairs], np.uint64)
            return self._pack(self._encoder.encode(samples, start, n_steps, seeds))
        return self._pack(np.stack([self._samples(cut, seed) for cut, seed in pairs]))

    def _pack(self, values: Array) -> list[bytes]:
        flat = values.reshape(*values.shape[:2], self._out.n)
        return pack(flat, self._out.low, self._out.high)

    def _sample(self, piece: Piece) -> Array:
        dtype = np.dtype(piece.dtype).newbyteorder("<")
        values = np.frombuffer(piece.payload, dtype).reshape(self._spec.input.shape)
        return self._encoder.validate(values)

    def _samples(self, cut: Cut, seed: int) -> Array:
        """A window of several samples, or with silence in it."""
        whole = np.zeros((cut.n_steps, *self._spec.input.shape), np.int32)
        for piece in cut.pieces:
            lo, hi = max(piece.start, cut.start), min(piece.stop, cut.stop)
            start, seeds = np.array([lo], np.int64), np.array([seed], np.uint64)
            part = self._encoder.encode(self._sample(piece)[None], start, hi - lo, seeds)
            whole[lo - cut.start : hi - cut.start] = part[0]
        return whole

    def _spikes(self, cut: Cut) -> Array:
        """A window of events and of spike payloads that overlap it; both given: the greater."""
        whole = np.zeros((cut.n_steps, self._out.n), np.int32)
        for piece in cut.pieces:
            lo, hi = max(piece.start, cut.start), min(piece.stop, cut.stop)
            whole[lo - cut.start : hi - cut.start] = self._steps(piece, lo, hi)
        for step, address, value in cut.events:
            row = whole[step - cut.start]
            row[address] = max(int(row[address]), value)
        return whole

    def _steps(self, piece: Piece, lo: int, hi: int) -> Array:
        """Steps `[lo, hi)` of the stream, as the piece has them; it was checked as a whole."""
        out, n_steps = self._out, piece.stop - piece.start
        first, last = lo - piece.start, hi - piece.start
        if piece.dtype == SPIKES:
            return unpack_steps(piece.payload, n_steps, out.n, out.low, out.high, first, last)
        values = np.frombuffer(piece.payload, np.dtype(piece.dtype).newbyteorder("<"))
        return values.reshape(n_steps, out.n)[first:last].astype(np.int32)


def _is_whole(cut: Cut) -> bool:
    """The window is one spike payload, no more and no less."""
    if len(cut.pieces) != 1 or cut.events:
        return False
    piece = cut.pieces[0]
    return piece.dtype == SPIKES and (piece.start, piece.stop) == (cut.start, cut.stop)


def _covers(piece: Piece, cut: Cut) -> bool:
    return piece.start <= cut.start and cut.stop <= piece.stop


def _shaped(values: Array, shape: tuple[int, ...]) -> Array:
    if values.size != int(np.prod(shape)):
        raise ValueError(f"{values.size} values were sent; a sample has the shape {shape}")
    return values.reshape(shape)


def _each_alone_if_need_be(
    run: Callable[[int, Sequence[W]], list[R]], n_steps: int, items: Sequence[W]
) -> list[Any]:
    """Run all at once; when that fails, each alone, so that one cannot take others with it."""
    try:
        return list(run(n_steps, items))
    except (ValueError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
        if len(items) == 1:
            return [error]
        return [_each_alone_if_need_be(run, n_steps, [item])[0] for item in items]
