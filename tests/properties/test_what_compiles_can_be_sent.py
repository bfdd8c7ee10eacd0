"""A batch that the compiler allows fits a record, whatever its stream is called and does."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from router.payload import pack, pack_result
from router.wire import Batch, Frame, Kind, StreamId, encode_frames
from topologies.batches import (
    ERROR_BYTES,
    LARGEST_RECORD,
    NAME_BYTES,
    ROUTE_BYTES,
    payload_bytes,
    record_bytes,
    result_bytes,
    route_bytes,
)
from topologies.stages.base import ValueType

_TOP = 2**64 - 1
_TRAILER = 64
"""Bytes that a check of its content may take behind a frame."""
_names = st.sampled_from(("s" * NAME_BYTES, "é" * (NAME_BYTES // 2), "𝄞" * (NAME_BYTES // 4)))
_bounds = st.sampled_from(
    (
        (0, 1),
        (0, 2),
        (0, 255),
        (-1, 1),
        (0, 256),
        (-(2**15) + 1, 2**15 - 1),
        (0, 40_000),
        (-9, 2**30),
    )
)


def _batch(name: str, networks: tuple[str, ...], payload: bytes, error: str = "") -> Batch:
    return Batch(
        node="f" * 32, stream=StreamId(_TOP, _TOP), name=name, networks=networks, seed=_TOP,
        window=_TOP, start=_TOP - 9, stop=_TOP, kind=Kind.ABORT if error else Kind.SPIKES,
        end=True, payload=payload, error=error,
    )  # fmt: skip


def _networks(n: int) -> tuple[str, ...]:
    return tuple(f"{i:0100d}" for i in range(n))


@given(st.integers(0, 3_000_000), _names, st.integers(1, 40))
@example(112_448 * 64 // 8 + 1, "s" * NAME_BYTES, 40)
@example(LARGEST_RECORD - record_bytes(ERROR_BYTES) + ERROR_BYTES, "é" * (NAME_BYTES // 2), 40)
def test_payload_is_allowed_only_if_it_can_be_sent(payload: int, name: str, n: int) -> None:
    limit = record_bytes(payload, route_bytes(_networks(n)))
    batch = _batch(name, _networks(n), bytes(payload))
    (value,) = encode_frames(Frame("f" * 32, 2**32 - 1, [batch]), limit)
    assert len(value) + _TRAILER <= limit


@given(st.text(min_size=1, max_size=3000), _names)
@example("𝄞" * 2000, "𝄞" * (NAME_BYTES // 4))
def test_error_can_be_sent_wherever_a_window_can(error: str, name: str) -> None:
    networks = _networks(40)
    assert route_bytes(networks) == ROUTE_BYTES
    frame = Frame("f" * 32, 0, [_batch(name, networks, b"", error)])
    (value,) = encode_frames(frame, record_bytes(0))
    assert len(value) + _TRAILER <= record_bytes(0)


@given(_bounds, st.integers(1, 40), st.integers(1, 9), st.floats(0, 1), st.integers(0, 2**32))
def test_no_payload_is_larger_than_the_compiler_thinks(
    bounds: tuple[int, int], n: int, n_steps: int, density: float, seed: int
) -> None:
    low, high = bounds
    draw = np.random.default_rng(seed)
    values = draw.integers(low, high + 1, (n_steps, n)) * (draw.random((n_steps, n)) < density)
    (packed,) = pack(values[None].astype(np.int64), low, high)
    assert len(packed) <= payload_bytes(ValueType((n,), low, high), n, n_steps)


@given(st.integers(1, 40), st.none() | st.integers(1, 9), st.integers(0, 40), st.integers(0, 20))
def test_no_result_is_larger_than_the_compiler_thinks(
    n: int, every: int | None, n_steps: int, start: int
) -> None:
    steps = range(start + 1, start + n_steps + 1)
    at = {step for step in steps if every is not None and step % every == 0} | {start + n_steps}
    packed = pack_result(np.zeros((len(at), n), np.float32))
    assert len(packed) <= result_bytes(n, every, n_steps)
