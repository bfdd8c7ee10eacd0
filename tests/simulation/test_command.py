"""`make simulate`: what it prints, and how it ends."""

import pytest

from loadtest.simulate import main
from workers.task import Task


def test_first_seed_and_speed_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "11", "--seeds", "4", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("first seed 11, 4 worlds, 1 processes")
    assert "4 worlds, " in said
    assert "0 failed" in said


def test_two_processes_play_what_one_does(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for jobs in ("1", "2"):
        assert main(["--seeds", "101", "--jobs", jobs, "--faults", ""]) == 0
        said.append(capsys.readouterr().out.splitlines()[-1].partition("; ")[2])
    assert said[0] == said[1]


def test_failure_ends_with_code_1_and_tells_how_to_replay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "work", lambda self: None)
    assert main(["--seed", "5", "--seeds", "3", "--shape", "chain", "--jobs", "1"]) == 1
    assert "play it again: make simulate SEEDS=1 SEED=5" in capsys.readouterr().out
