"""What a worker writes anew of the store's records of tasks, as it knows their networks. Pure.

A task whose kind or cost is damaged is everybody's to see and nobody's to claim. Every worker knows
what deployment wrote there, and may write it again; whether a task is deployed at all, only the
store knows (PROTOCOL 27).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from router.store.calls import StatusReply, TaskId, TaskSpec

__all__ = ["records_to_mend"]


def records_to_mend(
    reply: StatusReply, specs: Iterable[TaskSpec], running: Iterable[TaskId], generation: int
) -> Iterator[TaskSpec]:
    """The records of a partition that are missing, or are not what deployment wrote.

    `specs` are of any partition and generation. An operator's generation is that of its other
    records, of its tasks that are `running` here, or else `generation`: who guesses wrong mends
    nothing.
    """
    rows = {row.task: row for row in reply.tasks}
    generations = {task.operator: task.generation for task in (*running, *rows)}
    for spec in specs:
        number = generations.get(spec.task.operator, generation)
        task = spec.task._replace(partition=reply.partition, generation=number)
        row = rows.get(task)
        if row is None or row.damaged or (row.kind, row.cost) != (spec.kind, spec.cost):
            yield replace(spec, task=task)
