"""An endless stream from the command line: `up`, `publish` of lines, `consume`, as a user does.

Silence does not stop time: the stream's membrane leaks through windows that only a time mark tells
of, and an event from before the mark lands in the dead letters, counted.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_SPIKEROUTER: Final = (sys.executable, "-m", "router.cli")
# A spike adds 1 to a membrane that halves with every step and fires at 1.5: two spikes in a row
# make a neuron fire, two with silence between them do not. Neuron 0 reads pixels 0 and 1.
_NETWORK: Final = """
format: 1
name: camera
input: {shape: [1, 1, 4], encoder: {kind: events}, longest_window: 4}
layers:
  - {name: pool, kind: sum_pool, kernel: [1, 2]}
  - {name: fire, kind: lif, form: plain, decay: 0.5, v_threshold: 1.5}
output: {readout: count, every: 4}
"""
_LINES: Final = """
{"stream": "cam", "events": [[3, 0], [3, 2], [4, 1]], "until": 5}
{"stream": "cam", "until": 12}
{"stream": "cam", "events": [[5, 2], [13, 3]]}
{"stream": "cam", "until": 16}
this is no record
{"stream": "cam", "end": true}
"""


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Where everything is, while the network is served by two workers."""
    network, log = tmp_path / "camera.yaml", tmp_path / "log"
    network.write_text(_NETWORK)
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*_SPIKEROUTER, "up", str(network), "--workers", "2", "--port", "0", "--json"],
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield json.loads(line)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0, log.read_text()
        finally:
            process.kill()


def _run(
    places: dict[str, Any], *arguments: str, given: str = ""
) -> subprocess.CompletedProcess[str]:
    servers = {"SPIKEROUTER_KAFKA": places["kafka"], "SPIKEROUTER_REDIS": places["redis"]}
    return subprocess.run(
        [*_SPIKEROUTER, *arguments], input=given, capture_output=True, text=True, timeout=60,
        env={**os.environ, **servers}, check=False,
    )  # fmt: skip


def _lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _counts(places: dict[str, Any], wanted: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """What status tells of counts, as soon as it is what is wanted."""
    deadline = time.monotonic() + 30
    while True:
        done = _run(places, "status", "--json")
        counts: dict[str, int] = json.loads(done.stdout)["counts"]
        if wanted(counts):
            return counts
        assert time.monotonic() < deadline, counts
        time.sleep(0.1)


def test_time_marks_move_a_silent_stream_on_and_late_events_become_dead_letters(
    places: dict[str, Any],
) -> None:
    done = _run(places, "publish", "--network", "camera", given=_LINES)
    assert done.returncode == 1
    assert "5 records published" in done.stdout
    assert done.stderr == "line 6: The line is not a JSON object; legal is {...}.\n"

    *results, end = _lines(_run(places, "consume", "camera", "--from-beginning", "--count", "5"))
    shown = [(line["stream"], line["index"], line["start"], line["stop"]) for line in results]
    assert shown == [("cam", index, 4 * index, 4 * index + 4) for index in range(4)]
    assert [line["values"] for line in results] == [[0, 0], [1, 0], [0, 0], [0, 0]]
    assert (end["stream"], end["end"], end["error"]) == ("cam", True, None)

    (letter,) = _lines(
        _run(places, "consume", "snn.dead-letter", "--from-beginning", "--count", "1")
    )
    assert letter["stream"] == "cam"
    assert letter["reason"].startswith("LateEvent: 1 event lies before step 12")
    assert [5, 2, 1] in letter["refused"]["record"]["events"]
    counts = _counts(places, lambda counts: counts.get("late_events_total", 0) > 0)
    assert (counts["late_events_total"], counts["dead_letters_total"]) == (1, 1)
