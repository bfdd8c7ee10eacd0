"""`spikerouter up` and `spikerouter status`, as a user runs them: real processes, real TCP."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = pytest.mark.serial

_SPIKEROUTER: Final = (sys.executable, "-m", "router.cli")
_NETWORK: Final = """
format: 1
name: pooling
input: {shape: [1, 4, 4], n_steps: 4, encoder: {kind: events}}
layers:
  - {name: pool, kind: sum_pool, kernel: 2}
  - {name: fire, kind: if, v_threshold: 1.0}
output: {readout: count}
"""


@dataclass(slots=True)
class _Up:
    process: subprocess.Popen[str]
    places: dict[str, Any]
    files: Path
    log: Path

    @property
    def pids(self) -> set[int]:
        """The process and all its descendants now."""
        found = {self.process.pid}
        while more := {pid for pid, parent in _parents().items() if parent in found} - found:
            found |= more
        return found


def _parents() -> dict[int, int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    return parents


def _until(condition: Callable[[], bool], up: _Up, timeout: float = 40.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, up.log.read_text()
        assert up.process.poll() is None, up.log.read_text()
        time.sleep(0.05)


def _status(up: _Up) -> dict[str, Any]:
    done = subprocess.run(
        [*_SPIKEROUTER, "status", "--json", "--redis", up.places["redis"]],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _is_served(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def up(tmp_path: Path) -> Iterator[_Up]:
    """A stack of two workers that serves a small network on a free port."""
    files, log, network = tmp_path / "files", tmp_path / "log", tmp_path / "pooling.yaml"
    files.mkdir()
    network.write_text(_NETWORK)
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*_SPIKEROUTER, "up", str(network), "--workers", "2", "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "TMPDIR": str(files)},
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield _Up(process, json.loads(line), files, log)
        finally:
            process.kill()


def test_up_serves_a_network_restarts_a_killed_worker_and_leaves_nothing_behind(up: _Up) -> None:
    # One test, since each start of a whole stack takes seconds.
    ready = f"{up.places['http']}/v2/models/pooling/ready"
    _until(lambda: _is_served(ready), up)
    status = _status(up)
    assert {worker["worker"] for worker in status["workers"]} == {"worker-1", "worker-2"}
    # A task on its way to the less loaded worker has no owner for a moment.
    _until(lambda: bool(_status(up)["ready"]), up)

    os.kill(up.places["workers"]["worker-1"], signal.SIGKILL)
    _until(lambda: "worker-1 | was killed by SIGKILL" in up.log.read_text(), up)
    _until(lambda: bool(_status(up)["ready"]), up)

    pids = up.pids
    assert len(pids) >= 6  # up, broker, store and its keeper, gateway, a worker
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=20) == 0, up.log.read_text()
    assert pids & set(_parents()) == set()
    assert list(up.files.iterdir()) == []


def test_a_killed_up_takes_its_children_with_it(up: _Up) -> None:
    pids = up.pids
    up.process.kill()
    up.process.wait()
    deadline = time.monotonic() + 20
    while left := pids & set(_parents()):
        assert time.monotonic() < deadline, f"processes {left} outlived the stack"
        time.sleep(0.05)
