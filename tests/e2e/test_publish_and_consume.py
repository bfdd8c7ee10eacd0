"""An endless stream from the command line: `up`, `publish` of lines, `consume`, as a user does.

Silence does not stop time: the stream's membrane leaks through windows that only a time mark tells
of, and an event from before the mark lands in the dead letters, counted.
"""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

Served = Any  # from conftest, which cannot be imported
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


def _lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _counts(served: Served, wanted: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """What status tells of counts, as soon as it is what is wanted."""
    deadline = time.monotonic() + 30
    while True:
        done = served.run("status", "--json")
        counts: dict[str, int] = json.loads(done.stdout)["counts"]
        if wanted(counts):
            return counts
        assert time.monotonic() < deadline, counts
        time.sleep(0.1)


def test_time_marks_move_a_silent_stream_on_and_late_events_become_dead_letters(
    serve: Callable[[str], Any],
) -> None:
    with serve(_NETWORK) as served:
        _publish_and_consume(served)


_GAP: Final = """
{"stream": "gap", "until": 4, "seq": 0}
{"stream": "gap", "until": 12, "seq": 2}
"""


def test_open_stream_that_waits_for_a_lost_record_is_ended_by_its_name(
    serve: Callable[[str], Any],
) -> None:
    with serve(_NETWORK) as served:
        served.run("publish", "--network", "camera", given=_GAP)
        (end,) = _lines(served.run("end", "gap", "--input", "camera"))
        told = [end[name] for name in ("network", "stream", "end", "error")]
        assert told == ["camera", "gap", True, None]
        again = served.run("end", "gap", "--input", "camera")
        assert again.returncode == 1
        assert "Stream 'gap' cannot be ended: duplicate_stream" in again.stderr
        letters = _lines(
            served.run("consume", "snn.dead-letter", "--from-beginning", "--until-idle", "0.5")
        )
        waited = [line for line in letters if line["reason"].startswith("StreamEnded")]
        assert [line["refused"]["record"]["seq"] for line in waited] == [2]


def _publish_and_consume(served: Served) -> None:
    done = served.run("publish", "--network", "camera", given=_LINES)
    assert done.returncode == 1
    assert "5 records published" in done.stdout
    assert done.stderr == "line 6: The line is not a JSON object; legal is {...}.\n"

    *results, end = _lines(served.run("consume", "camera", "--from-beginning", "--count", "5"))
    shown = [(line["stream"], line["index"], line["start"], line["stop"]) for line in results]
    assert shown == [("cam", index, 4 * index, 4 * index + 4) for index in range(4)]
    assert [line["values"] for line in results] == [[0, 0], [1, 0], [0, 0], [0, 0]]
    assert (end["stream"], end["end"], end["error"]) == ("cam", True, None)

    (letter,) = _lines(served.run("consume", "snn.dead-letter", "--from-beginning", "--count", "1"))
    assert letter["stream"] == "cam"
    assert letter["reason"].startswith("LateEvent: 1 event lies before step 12")
    assert [5, 2, 1] in letter["refused"]["record"]["events"]
    counts = _counts(served, lambda counts: counts.get("late_events_total", 0) > 0)
    assert (counts["late_events_total"], counts["dead_letters_total"]) == (1, 1)
