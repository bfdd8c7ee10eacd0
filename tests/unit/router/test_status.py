from dataclasses import replace
from typing import Any, cast

import pytest

from router.status import status_rows, task_detail
from router.store.calls import StatusReply, TaskId, TaskStatus, WorkerInfo, WorkerStatus
from router.strays import DETAIL, Stray, details_of

_OPERATOR = "0123456789abcdef" * 2


def _task(partition: int, worker: str = "w", lease_ms: int = 500, error: str = "") -> TaskStatus:
    return TaskStatus(
        task=TaskId(_OPERATOR, 0, partition),
        kind="synaptic",
        cost=10,
        worker=worker,
        lease_ms=lease_ms,
        claims=0,
        number=3,
        checkpoint_age_ms=1500,
        hand="",
        wanted_by="",
        error=error,
    )


def _reply(partition: int, task: TaskStatus, alive: bool = True) -> StatusReply:
    lags = {
        task_detail(task.task, "lag_records"): 4,
        task_detail(task.task, "lag_windows"): 2,
        task_detail(task.task, "streams"): 1,
    }
    worker = WorkerStatus("w", alive, WorkerInfo(100, ("synaptic",), details=lags))
    return StatusReply(partition, 1, 0, (worker,), (task,))


def test_a_worker_of_two_partitions_is_one_row_with_both_loads() -> None:
    rows = status_rows([_reply(0, _task(0)), _reply(1, _task(1))])
    (worker,) = rows.workers
    assert (worker.n_tasks, worker.load) == (2, 20)


def test_lags_are_those_the_owner_told() -> None:
    (task,) = status_rows([_reply(0, _task(0))]).tasks
    assert (task.lag_records, task.lag_windows) == (4, 2)


def _unhosted(kinds: tuple[str, ...], capacity: int = 100, **task: Any) -> str:
    """What is told of a free task beside one living worker."""
    worker = WorkerStatus("w", True, WorkerInfo(capacity, kinds, limits=task.pop("limits", ())))
    free = replace(_task(0, lease_ms=0), **task)
    return status_rows([StatusReply(0, 1, 0, (worker,), (free,))]).tasks[0].unhosted


def test_a_free_task_that_a_living_worker_could_take_is_not_unhosted() -> None:
    assert _unhosted(("synaptic",)) == ""


def test_a_task_that_needs_an_extra_nobody_has_says_which() -> None:
    told = _unhosted(("synaptic", "readout"), kind="synaptic+brian2")
    assert told == "no living worker has the extra brian2: install it where this may run"
    assert _unhosted(("synaptic", "synaptic+brian2"), kind="synaptic+brian2") == ""


@pytest.mark.parametrize(
    ("told", "kinds", "capacity", "task"),
    [
        ("hosts operators of kind synaptic", ("readout",), 100, {}),
        ("cost is 10, the largest capacity of a living worker 9", ("synaptic",), 9, {}),
        ("needs neurons 300,", ("synaptic",), 100, {"needs": (300,), "limits": (255,)}),
        ("told no needs", ("synaptic",), 100, {"limits": (255,)}),
    ],
    ids=["kind", "cost", "needs", "no needs"],
)
def test_a_task_that_fits_nobody_says_why(
    told: str, kinds: tuple[str, ...], capacity: int, task: dict[str, Any]
) -> None:
    assert told in _unhosted(kinds, capacity, **task)


def test_a_free_task_without_any_living_worker_says_so() -> None:
    (task,) = status_rows([_reply(0, _task(0, lease_ms=0), alive=False)]).tasks
    assert task.unhosted == "no worker is alive"


def test_the_table_shows_why_nobody_hosts_a_task_and_what_is_not_portable() -> None:
    task = replace(_task(0, lease_ms=0), kind="synaptic+brian2")
    rows = status_rows([_reply(0, task)])
    _, (_, kind, owner, *_, error) = rows.tables()["Tasks"]
    assert (kind, owner) == ("synaptic+brian2, not portable", "nobody")
    assert error.startswith("no living worker has the extra brian2")
    (told,) = cast(list[dict[str, object]], rows.as_json()["tasks"])
    assert (told["portable"], told["unhosted"]) == (False, error)


def test_a_task_whose_lease_is_over_has_no_owner_and_no_known_lag() -> None:
    (task,) = status_rows([_reply(0, _task(0, lease_ms=0))]).tasks
    assert (task.worker, task.lag_records, task.lag_windows) == ("", None, None)


def test_it_is_ready_only_when_every_task_has_an_owner() -> None:
    assert status_rows([_reply(0, _task(0))]).ready
    assert not status_rows([_reply(0, _task(0)), _reply(1, _task(1, lease_ms=0))]).ready


def test_a_task_that_its_owner_does_not_tell_of_is_not_served_yet() -> None:
    """It is loading the operator, trying it, or restoring the checkpoint."""
    reply = _reply(0, _task(0))
    (worker,) = reply.workers
    claimed = replace(reply, workers=(replace(worker, info=replace(worker.info, details={})),))
    rows = status_rows([claimed])
    assert (rows.tasks[0].worker, rows.tasks[0].served, rows.ready) == ("w", False, False)


def test_a_task_with_an_error_or_no_task_at_all_is_not_ready() -> None:
    assert not status_rows([_reply(0, _task(0, error="LogReplaced"))]).ready
    assert not status_rows([]).ready


def test_the_table_shows_the_age_in_seconds_and_a_short_operator() -> None:
    rows = status_rows([_reply(0, _task(0))]).tables()["Tasks"]
    assert rows[1] == ("01234567/0/0@0", "synaptic", "w", "1", "2", "4", "1.5 s", "")


def test_a_silent_worker_is_shown_as_such() -> None:
    rows = status_rows([_reply(0, _task(0), alive=False)]).tables()["Workers"]
    assert rows[1][:2] == ("w", "silent")


def test_counts_of_workers_are_added_up_whatever_partitions_they_are_known_in() -> None:
    def worker(name: str, counts: str) -> WorkerStatus:
        return WorkerStatus(name, True, WorkerInfo(100, ("synaptic",), details={"counts": counts}))

    one, two = worker("a", '{"late_events_total": 2}'), worker("b", '{"late_events_total": 3}')
    replies = [StatusReply(partition, 1, 0, (one, two), ()) for partition in range(2)]
    rows = status_rows(replies)
    assert rows.as_json()["counts"] == {"late_events_total": 5}
    assert rows.tables()["Counts"][1:] == [("late_events_total", "5")]


def test_a_takeover_is_told_once_with_the_seconds_of_each_phase() -> None:
    told = (
        '[{"task": "a/0/0@0", "previous": "b", "idle_ms": 20, "claimed": 5000.0,'
        ' "restored": 5100.0, "caught_up": 5350.0, "windows_replayed": 7}]'
    )
    worker = WorkerStatus("w", True, WorkerInfo(100, ("synaptic",), details={"recoveries": told}))
    rows = status_rows(StatusReply(partition, 1, 0, (worker,), ()) for partition in range(2))
    assert rows.as_json()["recoveries"] == [
        {
            "task": "a/0/0@0",
            "worker": "w",
            "previous": "b",
            "claim_s": 0.02,
            "restore_s": 0.1,
            "replay_s": 0.25,
            "windows_replayed": 7,
        }
    ]


def test_a_place_that_cannot_be_read_is_named_by_the_worker_that_lives_and_reads_it() -> None:
    told = {"places": '[["snn.in.x", 2, "offset 7 cannot be read"]]'}
    info = WorkerInfo(100, ("synaptic",), details=told)
    workers = (WorkerStatus("w", True, info), WorkerStatus("dead", False, info))
    rows = status_rows(StatusReply(partition, 1, 0, workers, ()) for partition in range(2))
    row = {"topic": "snn.in.x", "partition": 2, "worker": "w", "fault": "offset 7 cannot be read"}
    assert rows.as_json()["places"] == [row]
    assert rows.tables()["Places"][1:] == [tuple(map(str, row.values()))]
    assert "Places" not in status_rows([_reply(0, _task(0))]).tables()


def test_input_that_nobody_reads_is_told_by_those_who_are_alive_and_leaves_all_ready() -> None:
    stray = Stray("snn.in.a", 2, {3: 7})
    told = {**_reply(0, _task(0)).workers[0].info.details, DETAIL: details_of([stray])}
    info = WorkerInfo(100, ("synaptic",), details=told)
    replies = [StatusReply(0, 1, 0, (WorkerStatus("w", True, info),), (_task(0),))]
    rows = status_rows(replies)
    assert rows.strays == (stray,)
    assert rows.as_json()["strays"] == [{"topic": "snn.in.a", "deployed": 2, "records": {3: 7}}]
    assert rows.ready
    assert rows.tables()["Input that nobody reads"][1] == (stray.sentence(),)
    dead = [StatusReply(0, 1, 0, (WorkerStatus("w", False, info),), (_task(0),))]
    assert status_rows(dead).strays == ()


def test_without_such_input_there_is_no_table_of_it() -> None:
    assert list(status_rows([_reply(0, _task(0))]).tables()) == ["Workers", "Tasks", "Counts"]
