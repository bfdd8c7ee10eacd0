"""Which records of tasks a worker writes anew, as it knows their networks."""

from dataclasses import replace

import pytest

from router.store.calls import StatusReply, TaskId, TaskSpec, TaskStatus
from workers.mending import records_to_mend

OPERATOR = "ab" * 16
SPECS = [TaskSpec(TaskId(OPERATOR, group, 0), "synaptic", 9) for group in range(2)]


def row(group: int, **changes: object) -> TaskStatus:
    task = TaskId(OPERATOR, group, 3, 2)
    whole = TaskStatus(task, "synaptic", 9, "w", 1, 1, 1, 1, "", "", "", (4,))
    return replace(whole, **changes)  # type: ignore[arg-type]


def mended(*rows: TaskStatus, running: tuple[TaskId, ...] = ()) -> list[TaskSpec]:
    reply = StatusReply(3, 0, 0, (), rows)
    return [*records_to_mend(reply, SPECS, running, 7)]


def test_record_as_deployment_wrote_it_is_left_alone() -> None:
    assert mended(row(0), row(1)) == []


@pytest.mark.parametrize(
    "damage", [{"kind": "rynaptic"}, {"cost": 1}, {"damaged": True, "cost": 0}, {"kind": ""}]
)
def test_damaged_record_is_written_anew_under_its_own_name(damage: dict[str, object]) -> None:
    assert mended(row(0, **damage), row(1)) == [TaskSpec(row(0).task, "synaptic", 9)]


def test_missing_record_is_looked_for_in_the_generation_of_its_operator() -> None:
    assert mended(row(0)) == [TaskSpec(row(1).task, "synaptic", 9)]
    (first, second) = mended(running=(TaskId(OPERATOR, 1, 0, 5),))
    assert (first.task.generation, second.task.generation) == (5, 5)
    assert [spec.task.generation for spec in mended()] == [7, 7]


def test_records_of_unknown_networks_are_left_alone() -> None:
    other = row(0, task=TaskId("cd" * 16, 0, 3), damaged=True)
    assert mended(row(0), row(1), other) == []
