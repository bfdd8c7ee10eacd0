import json
import urllib.request
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from router.processes import free_ports, listens
from workers.metrics import WorkerCollector, serving

_TASK = "ab" * 16 + "/0/3"
_RECOVERY = {
    "task": _TASK, "previous": "other", "idle_ms": 50, "claimed": 1000.0, "restored": 1250.0,
    "caught_up": 1750.0,
}  # fmt: skip
_REPORT: dict[str, Any] = {
    "backend": "numpy",
    "counts": json.dumps({"windows_replayed_total": 7}),
    "recoveries": json.dumps([{**_RECOVERY, "restored": 9999.0}, _RECOVERY]),
    f"{_TASK}:lag_records": 12,
    f"{_TASK}:streams": 3,
}


def _lines(report: dict[str, Any]) -> list[str]:
    registry = CollectorRegistry()
    registry.register(WorkerCollector(lambda: report))
    return [x for x in generate_latest(registry).decode().splitlines() if x[:1] != "#"]


def test_counts_keep_their_names() -> None:
    assert "spikerouter_worker_windows_replayed_total 7.0" in _lines(_REPORT)


def test_each_task_has_its_own_series() -> None:
    lines = _lines({**_REPORT, "cd/1/0:streams": 5})
    assert f'spikerouter_worker_task_streams{{task="{_TASK}"}} 3.0' in lines
    assert 'spikerouter_worker_task_streams{task="cd/1/0"} 5.0' in lines
    assert f'spikerouter_worker_task_lag_records{{task="{_TASK}"}} 12.0' in lines


def test_the_phases_are_those_of_the_latest_take_over() -> None:
    lines = _lines(_REPORT)
    assert 'spikerouter_worker_recovery_seconds{phase="claim"} 0.05' in lines
    assert 'spikerouter_worker_recovery_seconds{phase="restore"} 0.25' in lines
    assert 'spikerouter_worker_recovery_seconds{phase="replay"} 0.5' in lines


def test_a_worker_that_has_not_reported_yet_tells_nothing() -> None:
    assert _lines({}) == []


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def test_metrics_are_served_while_the_worker_runs_and_not_after(port: int) -> None:
    url = f"http://127.0.0.1:{port}/metrics"
    with (
        serving("127.0.0.1", port, lambda: _REPORT),
        urllib.request.urlopen(url, timeout=10) as reply,
    ):
        assert "spikerouter_worker_windows_replayed_total 7.0" in reply.read().decode()
    assert not listens(port)


def test_without_a_port_nothing_is_served(port: int) -> None:
    with serving("127.0.0.1", None, lambda: _REPORT):
        assert not listens(port)
