"""Processes of their own for suspicious tasks (PROTOCOL 28): `python -m workers.alone TASK`.

Each takes seconds of processor time to start and is as large as a worker, so a few run at once and
the others wait for a place. A place is free again soon, whatever other tasks do: who has caught up
with what lay in the log at its claim says so and leaves, and does not wait for more input.
"""

import asyncio
import logging
import sys
from typing import Final

from router.store.calls import TaskId

__all__ = ["Children"]

_MOST: Final = 2
_HAND_OVER_S: Final = 3.0  # less than what whoever stops this worker allows it
_log = logging.getLogger(__name__)


class Children:
    """The processes that this worker has started, until `stopping` is set."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._tasks: set[TaskId] = set()
        self._places = asyncio.Semaphore(_MOST)

    async def run(self, task: TaskId) -> None:
        """Run a process for the task to its end. Raises OSError when it cannot be started."""
        if task in self._tasks:  # it is slow to start: a second one would make it slower
            return
        self._tasks.add(task)
        try:
            async with self._places:
                if not self._stopping.is_set():
                    await self._run(task)
        finally:
            self._tasks.discard(task)

    async def _run(self, task: TaskId) -> None:
        """It ends by itself, is asked to hand over when this worker stops, and dies with it."""
        _log.warning("task %s took two owners with it: it runs in a process of its own", task)
        command = (sys.executable, "-m", "workers.alone", str(task))
        child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        ended = asyncio.create_task(child.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if child.returncode is None:
                child.terminate()
                await asyncio.wait([ended], timeout=_HAND_OVER_S)
        finally:
            if child.returncode is None:
                _log.warning("the process of task %s is killed: it did not hand over", task)
                child.kill()
            stopping.cancel()
            await ended
