"""Threads for the numeric work of a worker, which they do in a fair order (`workers.turns`)."""

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from workers.turns import FairQueue

__all__ = ["FairPool"]

T = TypeVar("T")


class _Job(NamedTuple):
    shares: Mapping[Hashable, float]
    call: Callable[[], Any]
    future: "Future[Any]"


class FairPool:
    """So many threads; all methods may be called from anywhere.

    Each thread calls `initializer` first; what that raises, every job of the thread fails with.
    """

    def __init__(self, n_threads: int, initializer: Callable[[], None]) -> None:
        self._initializer = initializer
        self._queue: FairQueue[_Job] = FairQueue()
        self._changed = threading.Condition()
        self._closed = False
        for number in range(n_threads):
            threading.Thread(target=self._work, name=f"compute-{number}", daemon=True).start()

    def submit(self, shares: Mapping[Hashable, float], call: Callable[[], T]) -> "Future[T]":
        """Have something called, for parties that share its cost in these proportions."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("The pool is closed: it takes no more work.")
            self._queue.put(shares, _Job(shares, call, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Take no more. Threads end with what they do; what waits is cancelled."""
        with self._changed:
            self._closed = True
            while len(self._queue):
                self._queue.take().future.cancel()
            self._changed.notify_all()

    def _work(self) -> None:
        unfit: Future[None] = Future()
        _fulfil(unfit, self._initializer)
        while (job := self._next()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            began = time.perf_counter()
            _fulfil(job.future, job.call if unfit.exception() is None else unfit.result)
            with self._changed:
                self._queue.charge(job.shares, time.perf_counter() - began)

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._queue))
            return None if self._closed else self._queue.take()


def _fulfil(future: "Future[T]", call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
        future.set_exception(error)
    else:
        future.set_result(result)
