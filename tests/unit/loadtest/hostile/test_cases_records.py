"""Hostile records at the doors of all tasks: a dead letter, a legal value, and nothing else."""

import os
import tracemalloc
from collections import Counter

from loadtest.hostile.cases_records import FORGED, KINDS, PREFIX, Case, Deck
from router.deadletter import DeadLetterError
from router.deadletter import decode as decode_letter
from router.payload import PayloadError, count_active, unpack_result
from router.records import RecordError, encode_record, parse_record
from router.topics import DEAD_LETTER
from router.wire import WireError, decode_frame, encode_frame
from tests.unit.loadtest.hostile.doors import Doors, expected, stored_of, streams
from workers.ingest import Ingest

N_CASES = int(os.environ.get("HOSTILE_RECORDS", "10000"))
SEED = int(os.environ.get("HOSTILE_SEED", "13"))
_WORLD = 500  # cases, before the doors are opened anew: the tests are about each, not their sum


def doors_with_samples(*, is_sealed: bool = False) -> Doors:
    doors = Doors(is_sealed=is_sealed)
    for name, spikes in streams(3).items():
        doors.begin(name, spikes)
        doors.settle()
        doors.finish(name, spikes)
    doors.append(doors.input, b"bad", b"{}")
    doors.settle()
    return doors


SAMPLES = doors_with_samples().samples()
DECK, FORGING = Deck(SAMPLES), Deck(SAMPLES, forged=True)


def parsed(case: Case) -> None:
    """Read as whoever reads this topic does, and written again if it is legal."""
    try:
        if case.topic.startswith("snn.in."):
            record = parse_record(case.key, case.value, 0, 1)
            assert parse_record(case.key, encode_record(record), 0, 1) == record
        elif case.topic == DEAD_LETTER:
            decode_letter(case.value or b"")
        else:
            frame = decode_frame(case.value or b"")
            assert decode_frame(encode_frame(frame)) == frame
            for batch in frame.batches:
                _payload(bytes(batch.payload))
    except (RecordError, WireError, DeadLetterError, PayloadError) as error:
        _check_sentence(str(error))


def _check_sentence(text: str) -> None:
    """It can be written to a dead letter, whatever it quotes."""
    assert text.encode("utf-8")
    assert len(text) < 2000


def _payload(data: bytes) -> None:
    for read in (count_active, unpack_result):
        try:
            read(data)
        except PayloadError:
            continue


def test_a_case_is_made_of_its_seed_and_number_alone() -> None:
    cases = list(FORGING.cases(SEED, 300))
    assert cases == list(FORGING.cases(SEED, 300))
    assert cases[200:] == list(FORGING.cases(SEED, 100, first=200))
    assert FORGING.case(SEED, 7) == cases[7]
    assert cases != list(FORGING.cases(SEED + 1, 300))


def test_every_kind_comes_and_every_topic_is_hit() -> None:
    cases = list(FORGING.cases(SEED, 5000))
    assert {case.what for case in cases} == set(KINDS)
    assert {case.topic for case in cases} == {sample.topic for sample in SAMPLES}
    assert not {case.what for case in DECK.cases(SEED, 5000)} & set(FORGED)


def test_nothing_is_sent_under_the_key_of_a_real_stream_but_what_it_has_said() -> None:
    said = {(sample.topic, sample.key): set[bytes]() for sample in SAMPLES}
    for sample in SAMPLES:
        said[sample.topic, sample.key].add(sample.value)
    for case in DECK.cases(SEED, 5000):
        if case.topic.startswith("snn.in.") and case.key and (case.topic, case.key) in said:
            assert case.value in said[case.topic, case.key], case.what
        if case.what in ("useless", "json", "claiming") and case.key is not None:
            assert case.key.startswith(PREFIX.encode())


def test_every_case_is_refused_by_name_or_legal() -> None:
    for number, case in enumerate(FORGING.cases(SEED, N_CASES)):
        try:
            parsed(case)
        except Exception as error:
            raise AssertionError(f"seed {SEED}, case {number}: {case.what}") from error


def test_no_case_takes_more_memory_than_follows_from_its_length() -> None:
    cases = list(FORGING.cases(SEED + 1, N_CASES // 10))
    worst: Counter[str] = Counter()
    tracemalloc.start()
    try:
        for case in cases:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            parsed(case)
            peak = tracemalloc.get_traced_memory()[1] - before
            most = 300_000 + 100 * len(case.value or b"")
            worst[case.what] = max(worst[case.what], peak)
            assert peak < most, f"{case.what} of {len(case.value or b'')} bytes took {peak}"
    finally:
        tracemalloc.stop()


def test_every_case_at_every_door_is_a_dead_letter_or_applied_and_can_be_restored() -> None:
    for first in range(0, N_CASES // 4, _WORLD):
        doors = doors_with_samples()
        for number in range(first, first + _WORLD):
            case = FORGING.case(SEED + 2, number)
            doors.append(case.topic, case.key, case.value)
            try:
                doors.settle()
            except Exception as error:
                raise AssertionError(f"seed {SEED + 2}, case {number}: {case}") from error
        _check_restored(doors, f"seed {SEED + 2}, cases {first} to {first + _WORLD}")


def _check_restored(doors: Doors, where: str) -> None:
    """Whatever an ingest took in can be checkpointed and restored."""
    ingest = next(t for t in doors.tenants if isinstance(t, Ingest))
    snapshot = ingest.snapshot(full=True)
    if snapshot is None:
        return
    restored = doors.ingest(stored_of(snapshot))
    assert restored.n_streams == ingest.n_streams, where
    assert restored.routes == ingest.routes, where


def test_good_streams_beside_hostile_records_are_answered_as_alone() -> None:
    """Of every topic, by somebody who has none of the keys."""
    doors = doors_with_samples(is_sealed=True)
    good = {name.replace("good", "fine"): spikes for name, spikes in streams(8).items()}
    cases = [*FORGING.cases(SEED + 3, N_CASES // 5)]
    share = len(cases) // (2 * len(good))
    for number, case in enumerate(cases):
        doors.append(case.topic, case.key, case.value)
        at, rest = divmod(number, share)
        if not rest:
            name, spikes = list(good.items())[at % len(good)]
            (doors.begin if at < len(good) else doors.finish)(name, spikes)
        if not rest or number % 10 == 0:
            doors.settle()
    answers = doors.answers()
    assert {name: answers[name] for name in good} == {
        name: expected(spikes) for name, spikes in good.items()
    }
