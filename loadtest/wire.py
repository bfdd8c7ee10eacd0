"""What it costs to put spikes on the wire and to take them off again, on one core.

Two shapes of frame. *Sparse*: 32 streams, 4,096 neurons, one step, 5 % of them spike (addresses);
the target is 0.5 ms for pack, encode, decode and unpack together. *Dense*: 256 streams, 16 steps of
512 neurons, 10 % spike (bitmaps of 1 kB); the target is 6 us per batch for encode and decode
together, and pack and unpack are compared with copying the same arrays.

Each figure is the least of several rounds, in which all are measured in turn.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from router.payload import pack, unpack
from router.wire import Batch, Frame, StreamId, decode_frame, encode_frame

__all__ = ["Figures", "Shape", "main", "measure"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A frame of B streams with T steps of n neurons, of which `density` spike."""

    name: str
    n_streams: int
    n_steps: int
    n_neurons: int
    density: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in microseconds for a whole frame; the least of the rounds."""

    name: str
    n_batches: int
    n_bytes: int
    pack_us: float
    encode_us: float
    decode_us: float
    unpack_us: float
    copy_us: float
    """Copying the array of spikes once, for comparison."""

    @property
    def total_us(self) -> float:
        """All four together."""
        return self.pack_us + self.encode_us + self.decode_us + self.unpack_us

    @property
    def frame_us_per_batch(self) -> float:
        """Encode and decode, for one batch."""
        return (self.encode_us + self.decode_us) / self.n_batches


SHAPES = (Shape("sparse", 32, 1, 4096, 0.05), Shape("dense", 256, 16, 512, 0.10))


def measure(shape: Shape, rounds: int = 50, seed: int = 0) -> Figures:
    """Measure one shape; the spikes are drawn from `seed`."""
    rng = np.random.default_rng(seed)
    size = (shape.n_streams, shape.n_steps, shape.n_neurons)
    spikes = (rng.random(size) < shape.density).astype(np.uint8)
    payloads = pack(spikes, 0, 1)
    frame = _frame(shape, payloads)
    data = encode_frame(frame)
    received = [batch.payload for batch in decode_frame(data).batches]
    steps: dict[str, Callable[[], object]] = {
        "pack_us": lambda: pack(spikes, 0, 1),
        "encode_us": lambda: encode_frame(frame),
        "decode_us": lambda: decode_frame(data),
        "unpack_us": lambda: unpack(received, shape.n_steps, shape.n_neurons, 0, 1),
        "copy_us": spikes.copy,
    }
    _check(spikes, unpack(received, shape.n_steps, shape.n_neurons, 0, 1))
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, step in steps.items():
            least[name] = min(least[name], _time_us(step))
    return Figures(shape.name, shape.n_streams, len(data), **least)


def _frame(shape: Shape, payloads: list[bytes]) -> Frame:
    """The payloads as requests of one network: each stream begins and ends in its window."""
    operator = "0123456789abcdef" * 2
    return Frame(
        operator,
        0,
        [
            Batch(
                node=operator,
                stream=StreamId(2**62 + 1, 1000 + i),
                name=f"request-{i * 7919:08x}",
                networks=("bench",),
                seed=0,
                window=0,
                start=0,
                stop=shape.n_steps,
                end=True,
                payload=payload,
            )
            for i, payload in enumerate(payloads)
        ],
    )


def _check(sent: NDArray[np.uint8], received: NDArray[np.generic]) -> None:
    if not np.array_equal(sent, received):
        raise RuntimeError("The frame did not bring back the spikes that it was given.")


def _time_us(step: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    step()
    return (time.perf_counter_ns() - start) / 1000


def main(arguments: list[str] | None = None) -> None:
    """Print the figures as a table, or as JSON with ``--json``."""
    parser = argparse.ArgumentParser(description="Measure the wire format.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=200, help="rounds per figure (least counts)")
    options = parser.parse_args(arguments)
    figures = [measure(shape, options.rounds) for shape in SHAPES]
    if options.json:
        print(json.dumps({"rows": [_row(figure) for figure in figures]}))
        return
    print(f"{'':8}{'batches':>8}{'bytes':>9}{'pack':>8}{'encode':>8}{'decode':>8}{'unpack':>8}"
          f"{'total':>8}{'copy':>8}  us, whole frame; encode + decode per batch")  # fmt: skip
    for f in figures:
        print(f"{f.name:8}{f.n_batches:8}{f.n_bytes:9}{f.pack_us:8.0f}{f.encode_us:8.0f}"
              f"{f.decode_us:8.0f}{f.unpack_us:8.0f}{f.total_us:8.0f}{f.copy_us:8.0f}"
              f"  {f.frame_us_per_batch:.2f}")  # fmt: skip


def _row(figures: Figures) -> dict[str, object]:
    return {
        **asdict(figures),
        "total_us": figures.total_us,
        "frame_us_per_batch": figures.frame_us_per_batch,
    }


if __name__ == "__main__":
    main()
