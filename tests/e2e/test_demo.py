"""`spikerouter demo`, as a user runs it."""

import json
import subprocess
import sys
from typing import Any

import pytest

_DEMO = (sys.executable, "-m", "router.cli", "demo")

pytestmark = [pytest.mark.e2e, pytest.mark.serial]


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    """One run of the command, a little shorter than a user's."""
    return subprocess.run(
        [*_DEMO, "--json", "--windows", "250", "--seconds", "5"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="module")
def report(demo: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert demo.returncode == 0, demo.stderr
    found: dict[str, Any] = json.loads(demo.stdout)
    return found


def test_every_output_bit_is_as_if_no_worker_had_been_killed(report: dict[str, Any]) -> None:
    assert report["outputs_sha256"] == report["undisturbed_sha256"]
    assert report["ok"]
    assert report["streams_lost"] == 0
    assert report["accuracy"] >= 0.97


def test_the_killed_worker_held_a_middle_operator_with_work_in_flight(
    report: dict[str, Any],
) -> None:
    kill = report["kill"]
    assert kill["operator"].startswith("conv2")
    assert kill["task"] in kill["tasks"]
    assert kill["streams_held"] > 0
    assert kill["requests_in_flight"] > 0
    assert kill["windows_in_flight"] > 0
    assert report["n_workers"] >= 3


def test_every_phase_of_the_recovery_is_told(report: dict[str, Any]) -> None:
    timeline = report["timeline"]
    assert set(timeline) == {"detect", "claim", "restore", "replay", "caught_up"}
    parts = sum(ms for phase, ms in timeline.items() if phase != "caught_up")
    assert timeline["caught_up"] == pytest.approx(parts, abs=1.0)
    assert report["windows_replayed"] > 0


def test_deploying_anew_loses_streams_that_were_in_flight(report: dict[str, Any]) -> None:
    anew = report["redeployment"]
    assert 0 < anew["streams_lost"] <= anew["streams_in_flight"]
    assert 0 < anew["stopped_ms"] < anew["compiled_ms"] < anew["deployed_ms"]
    assert anew["deployed_ms"] < anew["first_output_ms"]


def test_progress_is_plain_lines_where_there_is_no_terminal(
    demo: subprocess.CompletedProcess[str], report: dict[str, Any]
) -> None:
    assert "\x1b" not in demo.stderr
    assert f"kill -9 {report['kill']['worker']}" in demo.stderr
