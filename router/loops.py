"""Event loops: uvloop's where it is installed, which moves bytes with half the processor time; and
how work that never waits leaves a loop its turns.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Turn", "run"]

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
