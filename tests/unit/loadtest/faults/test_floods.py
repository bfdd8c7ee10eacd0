"""A flood is made of legal records, each under a name of its own making."""

import random
from collections import Counter

import numpy as np
import pytest

from loadtest.faults.floods import FloodedInput, flood
from loadtest.traffic import sample_record
from router.records import Data, parse_record

_DENSE = FloodedInput(4, 64, False, sample_record("", np.zeros((1, 8, 8), np.uint8)))
_EVENTS = FloodedInput(8, 32, True, sample_record("", np.zeros((8, 32), np.uint8)))


def _said(of: FloodedInput, n: int = 1000) -> list[Data]:
    found = [
        parse_record(said.key, said.value, 0, i)
        for i, said in enumerate(flood(of, n, random.Random(1)))
    ]
    return [record for record in found if isinstance(record, Data)]


@pytest.mark.parametrize("of", [_DENSE, _EVENTS], ids=["dense", "events"])
def test_a_flood_has_as_many_legal_records_as_asked_for(of: FloodedInput) -> None:
    assert len(_said(of)) == 1000
    assert all(record.name.startswith("flood-") for record in _said(of))


def test_it_opens_streams_that_end_at_once_and_some_that_are_never_fed() -> None:
    said = _said(_DENSE)
    names = Counter(record.name for record in said if not record.request)
    assert set(names.values()) == {1}
    n_open = sum(not record.end and not record.request for record in said)
    assert n_open == 100


def test_it_repeats_one_request() -> None:
    requests = [record for record in _said(_DENSE) if record.request]
    assert len(requests) > 100
    assert len(set(requests)) == 1


def test_its_time_marks_end_many_windows_and_fewer_than_are_legal() -> None:
    far = [r.until for r in _said(_EVENTS) if r.until]
    assert far == [1024 * _EVENTS.steps] * 2


def test_events_fall_on_one_step_of_inputs_that_take_events() -> None:
    steps = {step for r in _said(_EVENTS) for step, _, _ in r.events or ()}
    assert steps == {0}
    assert not any(r.events for r in _said(_DENSE))


def test_the_same_dice_flood_alike() -> None:
    assert flood(_DENSE, 50, random.Random(4)) == flood(_DENSE, 50, random.Random(4))
