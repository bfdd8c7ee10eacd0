"""What is written is read back, equal content gives equal bytes, and splitting loses nothing."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.payload import count_active, pack, pack_result, unpack, unpack_result
from router.records import DTYPES, Data, Era, Kill, Record, Route, encode_record, parse_record
from router.records import record_key as key_of
from router.wire import (
    Batch,
    Frame,
    Kind,
    StreamId,
    decode_frame,
    encode_frame,
    encode_frames,
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
ids = st.sampled_from(["0" * 32, "f" * 32, "0123456789abcdef" * 2])
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
networks = st.lists(st.text("abcXYZ019._-", min_size=1, max_size=12), max_size=3, unique=True).map(
    tuple
)
streams = st.builds(StreamId, u64, u64)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    kind = draw(st.sampled_from(Kind))
    start = draw(u64)
    stop = draw(st.integers(start, min(start + 2**32 - 1, 2**64 - 1)))
    failed = kind in (Kind.ABORT, Kind.KILL)
    return Batch(
        node=draw(ids),
        stream=draw(streams),
        name=draw(names),
        networks=draw(networks),
        seed=draw(u64),
        window=draw(u64),
        start=start,
        stop=stop,
        kind=kind,
        end=draw(st.booleans()),
        payload=draw(st.binary(max_size=40)) if kind is Kind.SPIKES else b"",
        error=draw(names) if failed else "",
    )


frames = st.builds(Frame, ids, u32, st.lists(batches(), max_size=12))


@given(frames)
def test_frame_is_read_as_it_was_written(frame: Frame) -> None:
    data = encode_frame(frame)
    assert decode_frame(data) == frame
    assert encode_frame(decode_frame(data)) == data


@given(frames, st.integers(6000, 12_000))
def test_splitting_a_frame_keeps_its_batches_in_order(frame: Frame, limit: int) -> None:
    records = encode_frames(frame, limit)
    assert all(len(data) <= limit for data in records)
    parts = [decode_frame(data) for data in records]
    assert [batch for part in parts for batch in part.batches] == frame.batches
    assert all((part.operator, part.group) == (frame.operator, frame.group) for part in parts)


@st.composite
def windows(draw: st.DrawFn) -> tuple[NDArray[Any], int, int]:
    """Streams of different densities, and the bounds of their edge."""
    low = draw(st.sampled_from([0, -1, -300, -(2**31)]))
    high = draw(st.sampled_from([0, 1, 1, 1, 255, 256, 40_000, 2**31 - 1]))
    shape = draw(st.integers(0, 5)), draw(st.integers(0, 4)), draw(st.integers(1, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = rng.choice([0.0, 0.02, 0.1, 0.4, 1.0], size=(shape[0], 1, 1))
    values = rng.integers(low, high, shape, endpoint=True)
    return values * (rng.random(shape) < density), low, high


@given(windows())
def test_window_is_read_as_it_was_written(window: tuple[NDArray[Any], int, int]) -> None:
    values, low, high = window
    payloads = pack(values, low, high)
    read = unpack(payloads, values.shape[1], values.shape[2], low, high)
    assert np.array_equal(read, values)
    assert pack(read, low, high) == payloads
    assert [count_active(payload) for payload in payloads] == [
        int(np.count_nonzero(row)) for row in values
    ]


@given(windows(), windows())
def test_payloads_differ_when_contents_differ(
    one: tuple[NDArray[Any], int, int], other: tuple[NDArray[Any], int, int]
) -> None:
    (a, low, high), (b, _, _) = one, other
    if a.shape == b.shape and a.size and np.all((low <= b) & (b <= high)):
        assert (pack(a, low, high) == pack(b, low, high)) == np.array_equal(a, b)


@given(
    st.integers(0, 4),
    st.integers(1, 12),
    st.sampled_from(["<i4", "<f4"]),
    st.integers(0, 2**32 - 1),
)
def test_result_is_read_bit_for_bit(k: int, n: int, dtype: str, seed: int) -> None:
    words = np.random.default_rng(seed).integers(-(2**31), 2**31, (k, n)).astype("<i4")
    values = words.view(dtype)
    if dtype == "<f4":
        values = np.where(np.isfinite(values), values, np.float32(1)) + np.float32(0.0)
    assert unpack_result(pack_result(values)).tobytes() == values.tobytes()


events = st.tuples(u64, u32, st.integers(-(2**31), 2**31 - 1))
labels = names.filter(lambda name: 0 < len(name.encode()) <= 200)


@st.composite
def dense(draw: st.DrawFn) -> Data:
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(1, 4), max_size=4))
    n_bytes = np.dtype(dtype).itemsize * int(np.prod(shape))
    request = draw(st.booleans())
    return Data(
        draw(labels),
        networks=draw(st.none() | networks),
        seed=draw(u64),
        request=request,
        payload=draw(st.binary(min_size=n_bytes, max_size=n_bytes)),
        dtype=dtype,
        shape=tuple(shape),
        until=draw(st.none() | u64),
        end=draw(st.booleans()),
        seq=None if request else draw(st.none() | u64),
    )


records: st.SearchStrategy[Record] = st.one_of(
    dense(),
    st.builds(Data, labels, request=st.booleans(), events=st.lists(events, max_size=5).map(tuple)),
    st.builds(Data, labels, payload=st.binary(max_size=9), dtype=st.just("spikes"), steps=u32),
    st.builds(Data, labels, end=st.just(True), until=st.none() | u64),
    st.builds(Era, u64, u64, networks, st.none() | u64),
    st.builds(Route, networks, networks, st.none() | u64),
    st.builds(Kill, streams, names, networks, names, st.booleans(), st.none() | u64),
)


@given(records)
def test_record_is_read_as_it_was_written(record: Record) -> None:
    value = encode_record(record)
    assert parse_record(key_of(record), value, 0, 0) == record
    assert encode_record(parse_record(key_of(record), value, 1, 1)) == value
