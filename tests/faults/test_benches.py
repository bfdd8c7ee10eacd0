"""The benchmarks of reliability run, and what they measure had the right bits."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from loadtest.kills import bench_recovery
from loadtest.overload import bench_overload
from loadtest.scaling import bench_scale

pytestmark = [pytest.mark.faults, pytest.mark.serial, pytest.mark.timeout(240)]


def _run(command: Callable[..., None], *options: str) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [*options, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_recovery_is_measured_after_a_real_kill() -> None:
    (row,) = _run(bench_recovery, "--kills", "1", "--workers", "3")["rows"]
    assert row["n_tasks"] >= 1
    assert 0 < row["detected_ms"] < row["caught_up_ms"]
    assert row["wrong"] == 0


def test_tasks_move_out_to_new_workers_and_in_again() -> None:
    (row,) = _run(bench_scale, "--rounds", "1")["rows"]
    assert {move["way"] for move in row["moves"]} == {"out", "in"}
    assert row["wrong"] == 0


def test_overload_is_refused_with_a_time_to_come_back_and_answers_stay_right() -> None:
    found = _run(bench_overload, "--factor", "6", "--seconds", "8")
    assert found["codes"]["200"] > 0
    assert found["codes"]["429"] > 0
    assert found["without_retry_after"] == found["wrong"] == 0
    assert found["recovered_s"] is not None
