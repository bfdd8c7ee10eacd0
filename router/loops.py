"""Event loops: uvloop's where it is installed, which moves bytes with half the processor time; and
how work that never waits leaves a loop its turns.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["Slices", "Turn", "run"]

T = TypeVar("T")


class Turn:
    """A stretch of work that never waits, `seconds` long; then the loop's other work goes on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = 0.0

    def begin(self) -> None:
        """The loop's other work had its turn just now."""
        self._until = asyncio.get_running_loop().time() + self._seconds

    @property
    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() >= self._until

    async def end(self) -> None:
        """Let all go on that can, then begin anew."""
        await asyncio.sleep(0)
        self.begin()


class Slices:
    """Long computations in slices, in turn: all of them together leave the loop its other work.

    What is short is done at once, unless others are at it: then it waits for one turn of each.
    """

    def __init__(self, seconds: float = 0.003) -> None:
        self._seconds = seconds
        self._one = asyncio.Lock()  # first come, first served

    async def run(self, work: Generator[None, None, T]) -> T:
        """What the work returns; it gives way after each slice."""
        turn = Turn(self._seconds)
        while True:
            async with self._one:
                turn.begin()
                while not turn.is_over:
                    try:
                        next(work)
                    except StopIteration as done:
                        result: T = done.value
                        return result
                await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on the fastest loop there is."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        return runner.run(main)


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop
