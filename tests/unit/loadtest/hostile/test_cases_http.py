"""Hostile HTTP follows from its seed, and its checker tells what must not come of it."""

from collections import Counter

import pytest

from loadtest.hostile.cases_http import KINDS, HttpCase, Target, draw
from loadtest.hostile.checker import Limits, Measured, beyond, codes_of, fault_of

TARGET = Target("digits", "pixels", (1, 2, 2), (0, 1, 2, 3), 100_000)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}"


def answer(code: int, body: bytes = b'{"error": "A sentence."}') -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n\r\n%b" % (code, body)


def test_a_case_follows_from_its_seed_and_number() -> None:
    assert [draw(7, n, TARGET) for n in range(300)] == [draw(7, n, TARGET) for n in range(300)]
    assert [draw(7, n, TARGET) for n in range(50)] != [draw(8, n, TARGET) for n in range(50)]


def test_every_kind_is_drawn_and_sends_something() -> None:
    cases = [draw(1, number, TARGET) for number in range(12_000)]
    assert set(Counter(case.kind for case in cases)) == set(KINDS)
    assert all(part for case in cases for part in case.parts)


@pytest.mark.parametrize(
    ("told", "ended", "finding"),
    [
        (OK, True, ""),
        (answer(400), True, ""),
        (answer(400, b"{}"), True, "without a sentence"),
        (answer(500), True, "answered with 500"),
        (answer(503), True, "answered with 503"),
        (answer(504), True, ""),
        (OK + answer(500), True, "answered with 500"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", True, "got no answer"),
        (b"", True, "got no answer"),
        (b"", False, "neither answered nor closed"),
    ],
)
def test_what_must_not_come_of_a_case_is_found(told: bytes, ended: bool, finding: str) -> None:
    case = HttpCase("useless", (b"x",), frozenset({504}))
    fault = fault_of(case, told, ended)
    assert finding in fault
    assert bool(fault) == bool(finding)


def test_a_connection_may_be_closed_without_a_word_where_the_case_says_so() -> None:
    assert fault_of(HttpCase("nonsense", (b"x",), answered=False), b"", True) == ""
    assert fault_of(HttpCase("left", (b"x",), waits=False), b"", False) == ""


def test_codes_of_all_answers_are_read() -> None:
    assert codes_of(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + answer(400)) == [200, 400]


def test_each_limit_that_is_not_kept_is_told() -> None:
    assert beyond(Measured(n_good=1), Limits()) == []
    broken = Measured(500.0, 0.2, 0.2, 1, 0, 1, 1)
    assert len(beyond(broken, Limits())) == 6
