"""Event loops: uvloop's where it is installed, which moves bytes with half the processor time; how
work that never waits leaves a loop its turns; and how what must never end is kept going.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

__all__ = ["Gate", "Keeper", "LoopLag", "Slices", "Turn", "run"]

_FIRST_PAUSE_S: Final = 0.1  # before a loop that failed is begun again; doubled with each failure
_LONGEST_PAUSE_S: Final = 5.0
_STEADY_S: Final = 30.0  # a loop that ran so long is well again
_MOST_FAILURES: Final = 10  # in a row, about half a minute: then a new process is the better hope
_log = logging.getLogger(__name__)

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
                while True:
                    try:
                        next(work)
                    except StopIteration as done:
                        result: T = done.value
                        return result
                    if turn.is_over:
                        break
                await asyncio.sleep(0)


class Gate:
    """Lets so many begin in one turn of the loop, first come, first served.

    All that is ready runs in one turn: a hundred short requests hold a loop as one long one does.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._left = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    async def enter(self) -> None:
        """Wait for a place in this turn of the loop, or in one of the next."""
        loop = asyncio.get_running_loop()
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._open)
        if self._left and not self._waiting:
            self._left -= 1
            return
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        await future  # one that is cancelled leaves its place of this turn empty

    def _open(self) -> None:
        self._left = self._at_once
        while self._left and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._left -= 1
        self._is_due = self._left < self._at_once
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._open)


class Keeper:
    """Keeps a loop going that must never end, and tells when it does not.

    Whatever ends it is logged and counted, and it is begun again after a pause. After too many
    failures in a row it counts as given up (`on_change` is called): whoever depends on it should
    not wait. It is begun again all the same, and is well again once it has run for a while.
    """

    def __init__(
        self,
        name: str,
        loop: Callable[[], Coroutine[Any, Any, None]],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.n_restarts = 0
        self._loop = loop
        self._on_change = on_change
        self._fault = ""
        self._n_failures = 0  # in a row
        self._began: float | None = None

    @property
    def trouble(self) -> str:
        """A sentence while the loop has failed lately, else empty."""
        return f"The loop that {self.name} failed: {self._fault}." if self._is_ill else ""

    @property
    def given_up(self) -> bool:
        """Whether it failed so often that starting it again is no hope."""
        return self._is_ill and self._n_failures >= _MOST_FAILURES

    @property
    def _is_ill(self) -> bool:
        return self._n_failures > 0 and not self._is_steady

    @property
    def _is_steady(self) -> bool:
        began = self._began
        return began is not None and asyncio.get_running_loop().time() - began >= _STEADY_S

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._began = asyncio.get_running_loop().time()
            try:
                await self._loop()
                self._fault = "it ended"
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop must go on
                _log.exception("The loop that %s failed; it is begun again", self.name)
                self._fault = str(error) or type(error).__name__
            self._n_failures = 1 if self._is_steady else self._n_failures + 1
            self._began = None
            self.n_restarts += 1
            self._on_change()
            pause = _FIRST_PAUSE_S * 2.0 ** min(self._n_failures - 1, 10)
            await asyncio.sleep(min(pause, _LONGEST_PAUSE_S))


class LoopLag:
    """Measures how late the event loop wakes who sleeps, and how long it was held.

    On a busy machine a loop is late because its thread has no processor; it was held by no more
    than the processor time that its thread took meanwhile. `longest` and `longest_held` are the
    worst so far, in seconds.
    """

    def __init__(self, every_s: float = 0.01) -> None:
        self._every_s = every_s
        self.longest = 0.0
        self.longest_held = 0.0

    async def measure(self) -> tuple[float, float]:
        """Sleep once; how late it was, and how long the loop was held at most, in seconds."""
        due = time.perf_counter() + self._every_s
        worked = time.thread_time()
        await asyncio.sleep(self._every_s)
        lag = max(0.0, time.perf_counter() - due)
        held = min(lag, time.thread_time() - worked)
        self.longest = max(self.longest, lag)
        self.longest_held = max(self.longest_held, held)
        return lag, held


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
