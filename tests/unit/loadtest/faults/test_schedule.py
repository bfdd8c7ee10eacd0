"""A schedule of faults is a pure function of its seed."""

from collections import Counter

import pytest

from loadtest.faults.schedule import APACHE, EMBEDDED, KINDS, ScheduleError, draw, lines


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert draw(7, 50, gap_s=1.0) == draw(7, 50, gap_s=1.0)
    assert draw(7, 50, gap_s=1.0) != draw(8, 50, gap_s=1.0)


def test_a_shorter_schedule_is_the_beginning_of_a_longer_one() -> None:
    assert draw(7, 90, gap_s=1.0)[:30] == draw(7, 30, gap_s=1.0)


def test_the_first_faults_of_a_schedule_are_of_every_kind() -> None:
    found = Counter(f.kind for f in draw(3, len(APACHE), gap_s=1.0, kinds=APACHE))
    assert found == Counter(APACHE)


def test_over_a_whole_bag_kinds_come_as_often_as_they_weigh() -> None:
    n = sum(int(weight) for weight, _ in KINDS.values())
    found = Counter(f.kind for f in draw(3, n, gap_s=1.0, kinds=APACHE))
    assert found == Counter({kind: int(weight) for kind, (weight, _) in KINDS.items()})


def test_faults_come_in_order_and_about_as_far_apart_as_asked_for() -> None:
    times = [f.at for f in draw(3, 400, gap_s=2.0)]
    assert times == sorted(times)
    assert times[-1] / 400 == pytest.approx(2.0, rel=0.1)


def test_no_broker_dies_where_it_cannot_come_back() -> None:
    assert not {"kill-broker", "roll-brokers"} & set(EMBEDDED)


def test_a_fault_picks_a_name_that_is_there() -> None:
    for fault in draw(3, 100, gap_s=1.0):
        assert fault.pick(["a", "b", "c"]) in "abc"
        assert 1.0 <= fault.between(1.0, 3.0) < 3.0


def test_an_unknown_kind_is_told_with_what_is_legal() -> None:
    with pytest.raises(ScheduleError, match="unplug-it were asked for; there are kill-worker"):
        draw(1, 3, gap_s=1.0, kinds=("unplug-it",))


def test_a_schedule_is_printed_line_by_line() -> None:
    (line,) = lines(draw(5, 1, gap_s=1.0, kinds=("kill-worker",)))
    assert "kill-worker" in line
    assert line.split()[0] == "0"
