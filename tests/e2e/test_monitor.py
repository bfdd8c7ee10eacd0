"""`spikerouter monitor`, as a user runs it, beside a network that is at work."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.monitor, pytest.mark.serial]

# Of four neurons the first fires whenever its pixels do, and the others never do.
_NETWORK: Final = """
format: 1
name: camera
input: {shape: [1, 2, 8], encoder: {kind: events}, longest_window: 4}
layers:
  - {name: pool, kind: sum_pool, kernel: 2}
  - {name: fire, kind: if, v_threshold: 1.0}
  - {name: pool2, kind: sum_pool, kernel: [1, 2]}
  - {name: fire2, kind: if, v_threshold: 1.0}
output: {readout: count, every: 4}
"""


def test_monitor_tells_rates_lag_and_latency_of_what_is_served(
    serve: Callable[[str], Any],
) -> None:
    with serve(_NETWORK) as served:
        monitor = served.start("monitor", "--window", "1", "--json")
        try:
            report = _first_busy_report(served, monitor)
        finally:
            monitor.terminate()
            monitor.communicate(timeout=30)
    pool, *others = [group for group in report["groups"] if group["label"] != "input"]
    assert others == []
    assert 0 < pool["rate"] <= 0.25
    assert pool["lag_windows"] is not None
    (network,) = report["networks"]
    assert network["network"] == "camera"
    assert network["windows"] > 0
    assert report["bad_frames"] == 0


def _first_busy_report(served: Any, monitor: Any) -> dict[str, Any]:
    """Publish until a window of time has seen spikes on all their way."""
    for number in range(60):
        line = json.dumps({"stream": f"s{number}", "events": [[1, 0]], "until": 4, "end": True})
        assert served.run("publish", "--network", "camera", given=line).returncode == 0
        told = monitor.stdout.readline()
        assert told, monitor.stderr.read()
        report: dict[str, Any] = json.loads(told)
        if all(group["spikes"] for group in report["groups"]) and report["networks"][0]["windows"]:
            return report
    raise AssertionError("no window of time has seen any spikes")
