"""Every checker finds what it is for in a made-up bad history, and nothing in a good one."""

from collections.abc import Callable

import pytest

from loadtest.faults.checkers import CHECKERS, excuse_of, judge
from loadtest.faults.history import (
    Emission,
    End,
    History,
    Injected,
    Sample,
    Sent,
    Size,
    TaskView,
    Wire,
)
from router.client import partition_of

_A, _B = b"a" * 8, b"b" * 8
_NETS = ("one", "two")
_MB = 1024 * 1024


def _good() -> History:
    """Two records of one stream in two networks; a task that moves on; a worker that is killed."""
    history = History(expected={"walk": {"one": (_A, _B), "two": (_B, _A)}})
    for index in range(2):
        history.sent.append(Sent("s", "walk", _NETS, index, index == 1, float(index)))
        for network in _NETS:
            digest = history.expected["walk"][network][index]
            history.emissions.append(Emission(network, "s", index, digest, index + 0.5))
            wire = Wire(network, 0, 9, 4, index, index == 1, digest, index + 0.5)
            history.wire += [wire, wire]  # a repeat in the log is no duplicate at the sink
    history.ends += [End(network, "s", "", 1.6) for network in _NETS]
    for step in range(20):
        at = 0.25 * step
        owner = "w1" if step < 4 else "" if step < 9 else "w2"
        tasks = {
            "hit": TaskView(owner, step // 2, {"in": step}),
            "other": TaskView("w2", step, {"in": 2 * step}),
        }
        history.samples.append(Sample(at, tasks))
    history.faults.append(Injected(0, "kill-worker", "w1", 0.9, 0.9, ("w1",)))
    for at in range(100):
        history.sizes.append(Size("gateway", 7, float(at), (100 + min(at, 20)) * _MB))
    return history


def _lose_an_end(history: History) -> None:
    del history.ends[0]


def _lose_an_emission(history: History) -> None:
    del history.emissions[1]


def _give_an_emission_twice(history: History) -> None:
    history.emissions.append(history.emissions[0])


def _end_twice(history: History) -> None:
    history.ends.append(history.ends[0])


def _change_a_bit(history: History) -> None:
    history.emissions[0] = history.emissions[0]._replace(digest=b"x" * 8)


def _emit_more_than_there_is(history: History) -> None:
    history.emissions.append(Emission("one", "s", 2, _A, 2.0))


def _repeat_with_other_bits(history: History) -> None:
    history.wire.insert(1, history.wire[0]._replace(digest=b"x" * 8))


def _skip_a_window(history: History) -> None:
    history.wire += [Wire("one", 0, 9, 5, window, False, _A, 3.0) for window in (0, 2)]


def _go_on_after_the_end(history: History) -> None:
    history.wire.append(Wire("one", 0, 9, 4, 2, False, _A, 3.0))


def _answer_late(history: History) -> None:
    history.emissions[0] = history.emissions[0]._replace(at=100.0)


def _end_late_without_the_last_answer(history: History) -> None:
    history.expected = {"walk": {"one": (_A,), "two": (_B,)}}
    history.emissions = [e for e in history.emissions if e.ordinal == 0]
    history.ends[0] = history.ends[0]._replace(at=100.0)


def _never_acknowledge(history: History) -> None:
    history.unsent.append(Sent("t", "walk", _NETS, 0, False, 2.0))


def _put_a_record_that_is_no_frame(history: History) -> None:
    history.n_unreadable = 1


def _end_with_an_error(history: History) -> None:
    history.ends[0] = history.ends[0]._replace(error="InputLost: window 3 is gone")


def _accept_a_zombies_checkpoint(history: History) -> None:
    late = history.samples[-1].tasks["other"]
    task = late._replace(number=late.number - 3)
    history.samples.append(Sample(5.0, {**history.samples[-1].tasks, "other": task}))


def _take_a_position_back(history: History) -> None:
    task = history.samples[-1].tasks["other"]._replace(positions={"in": 3})
    history.samples.append(Sample(5.0, {**history.samples[-1].tasks, "other": task}))


def _forget_a_position(history: History) -> None:
    task = history.samples[-1].tasks["other"]._replace(positions={})
    history.samples.append(Sample(5.0, {**history.samples[-1].tasks, "other": task}))


def _stop_a_task_that_nobody_hit(history: History) -> None:
    for i in range(6, 14):  # 1.75 s
        sample = history.samples[i]
        free = sample.tasks["other"]._replace(worker="")
        history.samples[i] = sample._replace(tasks={**sample.tasks, "other": free})


def _stay_down(history: History) -> None:
    history.unready = "The stack did not become ready within 90 s."


def _grow(history: History) -> None:
    history.sizes = [s._replace(n_bytes=int(s.n_bytes + 2 * s.at * _MB)) for s in history.sizes]


_BAD: dict[str, list[Callable[[History], None]]] = {
    "lost": [_lose_an_end, _lose_an_emission],
    "duplicated at the sink": [_give_an_emission_twice, _end_twice],
    "different bits": [
        _change_a_bit,
        _emit_more_than_there_is,
        _repeat_with_other_bits,
        _put_a_record_that_is_no_frame,
    ],
    "window regression": [_skip_a_window, _go_on_after_the_end],
    "stuck stream": [_answer_late, _end_late_without_the_last_answer, _never_acknowledge],
    "unexcused error": [_end_with_an_error],
    "stale checkpoint": [_accept_a_zombies_checkpoint, _take_a_position_back, _forget_a_position],
    "unrelated task stopped": [_stop_a_task_that_nobody_hit],
    "not ready at the end": [_stay_down],
    "memory growth": [_grow],
}


def test_a_good_history_gives_no_finding() -> None:
    assert judge(_good()) == []


def test_every_checker_has_a_bad_history() -> None:
    assert set(_BAD) == set(CHECKERS)


@pytest.mark.parametrize(
    ("checker", "spoil"), [(name, spoil) for name, all_ in _BAD.items() for spoil in all_]
)
def test_a_bad_history_is_found_by_its_checker_alone(
    checker: str, spoil: Callable[[History], None]
) -> None:
    history = _good()
    spoil(history)
    assert {finding.checker for finding in judge(history)} == {checker}


def test_a_repeat_does_not_stand_for_an_emission_that_is_lost() -> None:
    history = _good()
    history.emissions[1] = history.emissions[0]
    assert {f.checker for f in judge(history)} == {"lost", "duplicated at the sink"}


def _with_error(*faults: Injected) -> tuple[History, End]:
    history = _good()
    history.faults = list(faults)
    history.ends[0] = end = history.ends[0]._replace(error="InputLost: gone", at=20.0)
    return history, end


def test_loss_of_the_store_and_of_a_worker_together_excuses_a_named_error() -> None:
    wipe = Injected(1, "wipe-store", "store", 10.0, 12.0, ("*",))
    kill = Injected(2, "kill-worker", "w1", 13.0, 13.0, ("w1",))
    history, end = _with_error(wipe, kill)
    assert excuse_of(history, end) == (wipe, kill)
    assert not [f for f in judge(history) if f.checker == "unexcused error"]


@pytest.mark.parametrize(
    "error", ["OperatorFailed: window 3", "PoisonBatch: window 3", "a sentence"]
)
def test_no_loss_of_memory_excuses_an_error_of_another_kind(error: str) -> None:
    wipe = Injected(1, "wipe-store", "store", 10.0, 12.0, ("*",))
    kill = Injected(2, "kill-worker", "w1", 13.0, 13.0, ("w1",))
    history, end = _with_error(wipe, kill)
    assert excuse_of(history, end) == (wipe, kill)
    assert excuse_of(history, end._replace(error=error)) is None


def test_a_failover_that_was_not_played_to_its_end_and_a_zombie_excuse_one_too() -> None:
    failover = Injected(1, "fail-over", "not played to its end", 10.0, 12.0, ("*",))
    zombie = Injected(2, "pause-worker", "w1", 11.0, 14.0, ("w1",))
    history, end = _with_error(zombie)
    history.unplayed.append(failover)
    assert excuse_of(history, end) == (failover, zombie)


@pytest.mark.parametrize(
    "faults",
    [
        [Injected(1, "wipe-store", "store", 10.0, 12.0, ("*",))],
        [Injected(1, "kill-worker", "w1", 10.0, 10.0, ("w1",))],
        [
            Injected(1, "wipe-store", "store", 1.0, 2.0, ("*",)),
            Injected(2, "kill-worker", "w1", 13.0, 13.0, ("w1",)),
        ],
        [
            Injected(1, "kill-store", "store", 10.0, 12.0, ("*",)),
            Injected(2, "kill-worker", "w1", 13.0, 13.0, ("w1",)),
        ],
        [
            Injected(1, "wipe-store", "store", 10.0, 12.0, ("*",)),
            Injected(2, "delay-broker", "w1", 13.0, 13.0, ("w1",)),
        ],
        [
            Injected(1, "wipe-store", "store", -60.0, -59.0, ("*",)),
            Injected(2, "kill-worker", "w1", -58.0, -58.0, ("w1",)),
        ],
        [
            Injected(1, "wipe-store", "store", 21.0, 22.0, ("*",)),
            Injected(2, "kill-worker", "w1", 19.0, 19.0, ("w1",)),
        ],
    ],
    ids=[
        "the store alone",
        "a worker alone",
        "far apart",
        "a store that kept its data",
        "a worker that kept its memory",
        "long ago",
        "after the end",
    ],
)
def test_nothing_less_excuses_one(faults: list[Injected]) -> None:
    history, end = _with_error(*faults)
    assert excuse_of(history, end) is None


def test_a_store_that_lost_its_data_may_count_checkpoints_anew() -> None:
    history = _good()
    history.faults.append(Injected(1, "wipe-store", "store", 4.8, 4.9, ("*",)))
    tasks = {task: TaskView("w2", 1, {}) for task in ("hit", "other")}
    history.samples.append(Sample(5.0, tasks))
    assert judge(history) == []


def test_a_child_goes_with_the_worker_that_started_it() -> None:
    history = _good()
    for i, sample in enumerate(history.samples):
        task = sample.tasks["hit"]
        child = task._replace(worker="w1-4711") if task.worker == "w1" else task
        history.samples[i] = sample._replace(tasks={**sample.tasks, "hit": child})
    assert judge(history) == []


_BIT = Injected(1, "damage-store", "a key", 10.0, 10.0, ("*",), ("SnapshotCorrupt", "InputLost"), 1)


def _damaged_history(fault: Injected, stream: str = "s") -> tuple[History, End]:
    end = End("one", stream, "SnapshotCorrupt: stream 4 has no readable snapshot left", 20.0)
    return History(partitions=2, faults=[fault], ends=[end]), end


def _name_in(partition: int) -> str:
    return next(n for n in "abcdefgh" if partition_of(n, 2) == partition)


def test_damage_alone_excuses_the_errors_that_it_brings_to_streams_of_its_partition() -> None:
    history, end = _damaged_history(_BIT, _name_in(1))
    assert excuse_of(history, end) == (_BIT,)
    other = end._replace(error="DeadlineMissed: no result of window 4")
    assert excuse_of(history, other) is None
    assert excuse_of(history, end._replace(stream=_name_in(0))) is None
    assert excuse_of(history, end._replace(at=51.0)) is None
    assert excuse_of(history, end._replace(at=9.0)) is None


def test_damage_to_what_all_partitions_share_excuses_errors_in_any() -> None:
    everywhere = _BIT._replace(partition=None)
    for partition in range(2):
        history, end = _damaged_history(everywhere, _name_in(partition))
        assert excuse_of(history, end) == (everywhere,)


def test_a_checkpoint_may_go_back_behind_damage_and_not_without() -> None:
    history = _good()
    _take_a_position_back(history)
    history.faults.append(_BIT._replace(began=1.0, over=1.0))
    assert not [f for f in judge(history) if f.checker == "stale checkpoint"]
    history.faults.pop()
    assert [f for f in judge(history) if f.checker == "stale checkpoint"]
