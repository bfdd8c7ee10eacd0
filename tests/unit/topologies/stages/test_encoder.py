"""What encoders accept, what they make of it, and that windows cannot change a bit of it."""

from typing import Any

import numpy as np
import pytest

from topologies.stages.base import Array, Clock, Encoder, StageError, ValueType
from topologies.stages.encoder import (
    Direct,
    EncodingError,
    Events,
    Latency,
    Rate,
    philox,
    spike_words,
)

SEEDS = np.array([0, 1, 2**64 - 1], np.uint64)
START = np.zeros(3, np.int64)


def words_of(*values: int) -> tuple[Array, ...]:
    return tuple(np.array([value], np.uint64) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            [0xFFFFFFFF] * 2,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(
    counter: list[int], key: list[int], wanted: list[int]
) -> None:
    found = philox(words_of(*counter), words_of(*key))
    assert [int(word[0]) for word in found] == wanted


def test_words_depend_on_operator_stream_step_and_address() -> None:
    steps = np.array([[0, 1, 2**40]])
    words = spike_words(7, np.array([5], np.uint64), steps, 9)
    others = [
        spike_words(8, np.array([5], np.uint64), steps, 9),
        spike_words(7, np.array([5 + 2**32], np.uint64), steps, 9),
        spike_words(7, np.array([5], np.uint64), steps + 2**32, 9),
    ]
    assert words.shape == (1, 3, 9)
    assert len(np.unique(words)) == 27
    assert all(not (other == words).any() for other in others)


def test_words_of_fewer_addresses_are_the_first_of_more() -> None:
    steps = np.arange(4)[None]
    seeds = np.array([3], np.uint64)
    assert np.array_equal(
        spike_words(1, seeds, steps, 5), spike_words(1, seeds, steps, 11)[..., :5]
    )


def test_direct_repeats_the_levels_of_the_grid() -> None:
    encoder = Direct(shape=(2,), low=0.0, high=16.0, grid=0, unit=4)
    coded = encoder.encode(np.array([[0.0, 16.0]]), START[:1], 3, SEEDS[:1])
    assert coded.tolist() == [[[0, 16]] * 3]
    assert coded.dtype == np.int16
    assert encoder.out_type(()) == ValueType((2,), 0, 16, 4)


def test_direct_rounds_halves_to_even() -> None:
    encoder = Direct.authored({"shape": [4], "low": -2, "high": 2, "grid": 1})
    values = np.array([[0.25, 0.75, -0.25, 1.26]], np.float32)
    assert encoder.encode(values, START[:1], 1, SEEDS[:1]).tolist() == [[[0, 2, 0, 3]]]
    assert encoder.out_type(()) == ValueType((4,), -4, 4, 1)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4", "f8", "?"])
def test_samples_of_any_number_type_are_accepted(dtype: str) -> None:
    encoder = Direct.authored({"shape": [2, 2]})
    sample = np.array([[0, 1], [1, 0]], dtype)
    assert encoder.validate(sample).tolist() == [[0, 1], [1, 0]]
    assert encoder.validate(sample.ravel()).shape == (2, 2)


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        ([0.0, np.nan], "Value nan at index 1 is outside the declared range 0.0 to 1.0"),
        ([np.inf, 0.0], "Value inf at index 0"),
        ([0.0, -np.inf], "Value -inf at index 1"),
        ([0.0, 1.0000001], "at index 1 is outside"),
        ([-1e-300, 0.0], "at index 0 is outside"),
        ([0.0], r"has shape \[1\]: legal is \[2\]"),
        ([[0.0], [1.0]], r"has shape \[2, 1\]"),
        (["a", "b"], "Input values are numbers"),
        ([1j, 0], "Input values are numbers"),
    ],
)
@pytest.mark.parametrize("kind", [Direct, Rate])
def test_illegal_sample_is_refused_with_a_sentence(
    kind: type[Direct] | type[Rate], sample: Any, sentence: str
) -> None:
    with pytest.raises(EncodingError, match=sentence):
        kind.authored({"shape": [2]}).validate(np.array(sample))


def test_rate_never_fires_at_low_and_always_at_high() -> None:
    encoder = Rate.authored({"shape": [2], "low": -1, "high": 1})
    coded = encoder.encode(np.array([[-1.0, 1.0]] * 3), START, 500, SEEDS)
    assert not coded[..., 0].any()
    assert coded[..., 1].all()


@pytest.mark.parametrize(("rate", "value"), [(1.0, 0.25), (0.5, 0.5), (0.1, 1.0)])
def test_rate_fires_in_proportion_to_the_value(rate: float, value: float) -> None:
    encoder = Rate.authored({"shape": [50], "rate": rate})
    coded = encoder.encode(np.full((3, 50), value), START, 400, SEEDS)
    assert coded.mean() == pytest.approx(rate * value, abs=0.01)


def test_streams_of_one_seed_get_the_same_spikes_and_of_two_others() -> None:
    encoder = Rate.authored({"shape": [40]})
    seeds = np.array([4, 4, 5], np.uint64)
    coded = encoder.encode(np.full((3, 40), 0.5), START, 20, seeds)
    assert np.array_equal(coded[0], coded[1])
    assert not np.array_equal(coded[0], coded[2])


def test_latency_fires_once_per_period_and_earlier_for_more() -> None:
    encoder = Latency.authored({"shape": [5], "low": 0, "high": 4, "grid": 0, "period": 9})
    coded = encoder.encode(np.arange(5.0)[None], START[:1], 18, SEEDS[:1])[0]
    assert [np.flatnonzero(coded[:9, k]).tolist() for k in range(5)] == [[], [6], [4], [2], [0]]
    assert np.array_equal(coded[:9], coded[9:])


def test_latency_follows_the_table_it_is_given() -> None:
    params = {"shape": [3], "low": 0, "high": 2, "grid": 0, "period": 4, "table": [3, -1, 1]}
    encoder = Latency.authored(params)
    coded = encoder.encode(np.arange(3.0)[None], START[:1], 4, SEEDS[:1])[0]
    assert [np.flatnonzero(coded[:, k]).tolist() for k in range(3)] == [[3], [], [1]]


ENCODERS = [
    Direct.authored({"shape": [2, 3]}),
    Rate.authored({"shape": [2, 3], "seed": 2**63, "rate": 0.7}),
    Latency.authored({"shape": [2, 3], "period": 7}),
]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_cut_into_windows_and_batches_changes_no_bit(encoder: Encoder) -> None:
    values = np.random.default_rng(0).random((3, 2, 3))
    whole = encoder.encode(values, START, 20, SEEDS)
    assert whole.shape == (3, 20, 2, 3)
    parts = [encoder.encode(values, START + lo, n, SEEDS) for lo, n in ((0, 1), (1, 12), (13, 7))]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    alone = encoder.encode(values[2:], START[2:], 20, SEEDS[2:])
    assert np.array_equal(alone[0], whole[2])
    staggered = encoder.encode(values, START + np.array([0, 5, 11]), 9, SEEDS)
    assert np.array_equal(staggered[1], whole[1, 5:14])
    assert np.array_equal(staggered[2], whole[2, 11:20])


@pytest.mark.parametrize("encoder", [*ENCODERS, Events(shape=(2, 3), high=5)])
def test_parameters_survive_writing_and_reading(encoder: Encoder) -> None:
    again = type(encoder).build(encoder.params(), encoder.arrays())
    assert again.params() == encoder.params()
    assert again.out_type(()) == encoder.out_type(())


def test_events_pass_through_in_the_dtype_that_travels() -> None:
    encoder = Events(shape=(2, 2))
    window = np.zeros((1, 3, 2, 2), np.int64)
    window[0, 1, 1, 0] = 1
    coded = encoder.encode(window, START[:1], 3, SEEDS[:1])
    assert coded.dtype == np.uint8
    assert np.array_equal(coded, window)


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        (np.full((3, 4), 2), "outside 0 to 1"),
        (np.full((3, 4), -1), "outside 0 to 1"),
        (np.zeros((3, 4)), "Events are integers, not float64"),
        (np.zeros((3, 5), np.uint8), "Events of shape"),
    ],
)
def test_illegal_events_are_refused_with_a_sentence(sample: Array, sentence: str) -> None:
    with pytest.raises(EncodingError, match=sentence):
        Events(shape=(2, 2)).validate(sample)


@pytest.mark.parametrize(
    ("cls", "params", "sentence"),
    [
        (Direct, {"shape": [0]}, "shape is [0]: it must be whole numbers of at least 1"),
        (Direct, {"shape": 3}, "shape is 3: it must be a list"),
        (Direct, {"shape": [1], "low": 1, "high": 1}, "low must be below high"),
        (Direct, {"shape": [1], "high": 1e30}, "no 32-bit integers"),
        (Direct, {"shape": [1], "grid": -2}, "holds a single level"),
        (Direct, {"shape": [1], "rate": 0.5}, "direct has no parameter rate"),
        (Rate, {"shape": [1], "rate": 0.0}, "rate must be a probability above 0"),
        (Rate, {"shape": [1], "seed": -1}, "seed is -1: it must be a whole number below 2**64"),
        (Latency, {"shape": [1]}, "period is None: it must be a whole number"),
        (Latency, {"shape": [1], "period": 4, "table": [0]}, "must be 257 integers"),
        (Latency, {"shape": [1], "grid": 0, "period": 4, "table": [0, 4]}, "in 0 to 3, or be -1"),
        (Latency, {"shape": [1], "grid": 30, "period": 4}, "latency has 1073741824 levels"),
        (Events, {"shape": [1], "high": 0}, "high is 0: it must lie in 1 to 2**31 - 1"),
    ],
)
def test_illegal_parameters_are_refused_with_a_sentence(
    cls: type[Encoder], params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(StageError) as refused:
        cls.authored(params)
    assert sentence in str(refused.value)


def test_encoder_is_no_stage_of_a_longer_program() -> None:
    with pytest.raises(StageError, match="stands alone in an ingest operator"):
        ENCODERS[0].run([], (), Clock(START, START > 0))
