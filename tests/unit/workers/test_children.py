"""Processes for suspicious tasks: few at once, each once, and none outlives its worker."""

import asyncio
import signal
from typing import Any

import pytest

from router.store.calls import TaskId
from workers import children
from workers.children import Children

TASKS = [TaskId("op", group, 0) for group in range(4)]


class _Process:
    """A process that ends when it is told to; `is_deaf`: not by SIGTERM."""

    def __init__(self, is_deaf: bool = False) -> None:
        self.returncode: int | None = None
        self.signals: list[int] = []
        self._is_deaf = is_deaf
        self._ended = asyncio.Event()

    def end(self, code: int) -> None:
        self.returncode = code
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    def terminate(self) -> None:
        self.signals.append(signal.SIGTERM)
        if not self._is_deaf:
            self.end(0)

    def kill(self) -> None:
        self.signals.append(signal.SIGKILL)
        self.end(-signal.SIGKILL)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, _Process]:
    """The processes that were started, by task; group 3 hears no SIGTERM."""
    found: dict[str, _Process] = {}

    async def start(*command: str, **_: Any) -> _Process:
        found[command[-1]] = _Process(is_deaf=command[-1] == str(TASKS[3]))
        return found[command[-1]]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(children, "_HAND_OVER_S", 0.01)
    return found


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.timeout(30)
async def test_a_task_that_waits_for_a_place_gets_the_next_that_is_free(
    started: dict[str, _Process],
) -> None:
    ours = Children(asyncio.Event())
    async with asyncio.TaskGroup() as group:
        for task in TASKS[:3]:
            group.create_task(ours.run(task))
        await _settled()
        assert set(started) == {str(task) for task in TASKS[:2]}
        started[str(TASKS[0])].end(0)
        await _settled()
        assert set(started) == {str(task) for task in TASKS[:3]}
        for process in started.values():
            process.end(0)


@pytest.mark.timeout(30)
async def test_a_task_that_has_a_process_gets_no_second_one(started: dict[str, _Process]) -> None:
    ours = Children(asyncio.Event())
    async with asyncio.TaskGroup() as group:
        group.create_task(ours.run(TASKS[0]))
        await _settled()
        await ours.run(TASKS[0])
        started[str(TASKS[0])].end(0)


@pytest.mark.timeout(30)
async def test_a_worker_that_stops_asks_its_processes_to_hand_over_and_starts_no_more(
    started: dict[str, _Process],
) -> None:
    stopping = asyncio.Event()
    ours = Children(stopping)
    async with asyncio.TaskGroup() as group:
        for task in TASKS[:3]:
            group.create_task(ours.run(task))
        await _settled()
        stopping.set()
    assert [process.signals for process in started.values()] == [[signal.SIGTERM]] * 2


@pytest.mark.timeout(30)
async def test_a_process_that_does_not_hand_over_in_time_is_killed(
    started: dict[str, _Process],
) -> None:
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(Children(stopping).run(TASKS[3]))
        await _settled()
        stopping.set()
    assert started[str(TASKS[3])].signals == [signal.SIGTERM, signal.SIGKILL]


@pytest.mark.timeout(30)
async def test_a_process_dies_with_its_worker(started: dict[str, _Process]) -> None:
    running = asyncio.create_task(Children(asyncio.Event()).run(TASKS[0]))
    await _settled()
    running.cancel()
    await asyncio.wait([running])
    assert started[str(TASKS[0])].signals == [signal.SIGKILL]
