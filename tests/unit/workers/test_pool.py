import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import pytest

from workers.pool import FairPool


def _nothing() -> None:
    return None


class _Busy:
    """A pool of one thread that is held up until `let_go`, so that what comes meanwhile waits."""

    def __init__(self) -> None:
        self.pool = FairPool(1, _nothing)
        self.order: list[str] = []
        self._gate, self._running = threading.Event(), threading.Event()
        self.blocker = self.submit("flood", self._hold_up)
        self._running.wait(timeout=10)

    def _hold_up(self) -> bool:
        self._running.set()
        return self._gate.wait(timeout=10)

    def submit(self, party: str, call: Callable[[], object] | None = None) -> "Future[object]":
        return self.pool.submit(Counter([party]), call or (lambda: self.order.append(party)))

    def let_go(self) -> None:
        self._gate.set()


def test_a_quiet_party_waits_for_one_job_of_a_flood_only() -> None:
    busy = _Busy()
    waiting = [busy.submit("flood") for _ in range(5)] + [busy.submit("quiet")]
    busy.let_go()
    for future in waiting:
        future.result(timeout=10)
    busy.pool.close()
    assert busy.order == ["quiet"] + ["flood"] * 5


def test_what_a_job_raises_is_its_caller_s() -> None:
    pool = FairPool(1, _nothing)
    failed = pool.submit(Counter("a"), lambda: 1 // 0)
    assert isinstance(failed.exception(timeout=10), ZeroDivisionError)
    assert pool.submit(Counter("a"), lambda: 7).result(timeout=10) == 7
    pool.close()


def test_a_thread_that_is_unfit_fails_its_jobs() -> None:
    def unfit() -> None:
        raise FloatingPointError("flushes subnormals")

    pool = FairPool(1, unfit)
    failed = pool.submit(Counter("a"), lambda: 7)
    assert isinstance(failed.exception(timeout=10), FloatingPointError)
    pool.close()


def test_a_closed_pool_cancels_what_waits_and_takes_no_more() -> None:
    busy = _Busy()
    waiting = busy.submit("late")
    busy.pool.close()
    busy.let_go()
    assert busy.blocker.result(timeout=10) is True
    with pytest.raises(CancelledError):
        waiting.result(timeout=10)
    with pytest.raises(RuntimeError, match="takes no more"):
        busy.submit("late")
