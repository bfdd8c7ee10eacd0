"""What a worker tells Prometheus: what it reports to the store, in the names of Prometheus.

`spikerouter_worker_<count>` for each of its counts (`windows_replayed_total` and so on), gauges for
each of its tasks, and how long the phases of its latest take-over of a task lasted.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from router.store.calls import Info

__all__ = ["WorkerCollector", "serving"]

_PREFIX: Final = "spikerouter_worker"
_OF_TASKS: Final = {
    "lag_records": "Records in its topics beyond those that it has read.",
    "lag_windows": "Windows that wait for another source or for their turn.",
    "streams": "Streams that are open.",
    "checkpoint_age_ms": "Time since its last checkpoint, in milliseconds.",
}
_INSTANTS: Final = ("claimed", "restored", "caught_up")
_PHASES: Final = ("restore", "replay")

Report = Mapping[str, Info]


class WorkerCollector(Collector):
    """Turns the latest report of a worker into metrics whenever they are asked for.

    `read` gives the report as the store gets it; it is called in another thread.
    """

    def __init__(self, read: Callable[[], Report]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment."""
        report = self._read()
        for name, count in sorted(json.loads(str(report.get("counts", "{}"))).items()):
            yield CounterMetricFamily(f"{_PREFIX}_{name}", "Counted by this worker.", value=count)
        yield from _of_tasks(report)
        yield _of_recovery(json.loads(str(report.get("recoveries", "[]"))))


@contextmanager
def serving(host: str, port: int | None, read: Callable[[], Report]) -> Iterator[None]:
    """Serve the metrics over HTTP while the block runs; `port` None serves none.

    Raises OSError when the port is taken.
    """
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(WorkerCollector(read))
    server, thread = start_http_server(port, host, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _of_tasks(report: Report) -> Iterator[Metric]:
    for what, meaning in _OF_TASKS.items():
        family = GaugeMetricFamily(f"{_PREFIX}_task_{what}", meaning, labels=["task"])
        for key, value in report.items():
            task, _, told = key.rpartition(":")
            if told == what and task:
                family.add_metric([task], float(value or 0))
        yield family


def _of_recovery(recoveries: list[dict[str, Any]]) -> Metric:
    """Seconds of the phases of the latest take-over: nothing before the first one."""
    family = GaugeMetricFamily(
        f"{_PREFIX}_recovery_seconds",
        "Seconds of each phase of the latest take-over of a task.",
        labels=["phase"],
    )
    if recoveries:
        family.add_metric(["claim"], float(recoveries[-1]["idle_ms"]) / 1000)
        times = [float(recoveries[-1][instant]) for instant in _INSTANTS]
        for phase, (begin, end) in zip(_PHASES, pairwise(times), strict=True):
            family.add_metric([phase], (end - begin) / 1000)
    return family
