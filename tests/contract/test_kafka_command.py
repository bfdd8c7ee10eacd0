"""`spikerouter kafka start|stop|status`, as a user runs it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from router.admin import create_topics
from router.bus import Bus, Place
from router.settings import Settings

Command = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.servers, pytest.mark.serial]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kafka"


@pytest.fixture
def kafka_command(folder: Path) -> Iterator[Command]:
    """Runs `spikerouter kafka <arguments>` in the folder; what still runs is ended."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "router.cli", "kafka", *arguments, "--dir", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    run("stop")


def _started(kafka_command: Command) -> str:
    done = kafka_command("start", "--port", "0", "--heap", "256", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return str(found["kafka"])


async def _send(kafka: str, value: bytes) -> None:
    async with Bus(Settings.load(kafka=kafka)) as bus:
        await (await bus.send("kept", None, 0, value))


async def _first(kafka: str) -> bytes:
    async with Bus(Settings.load(kafka=kafka)) as bus:
        bus.read({Place("kept", 0): 0})
        while not (records := (await bus.poll(100)).records):
            pass
    value: bytes = next(iter(records.values()))[0].value
    return value


async def test_a_stopped_kafka_that_is_kept_starts_again_with_its_data(
    kafka_command: Command, folder: Path
) -> None:
    kafka = _started(kafka_command)
    await create_topics(Settings.load(kafka=kafka), ["kept"], 1)
    await _send(kafka, b"before")
    assert kafka_command("stop", "--keep").returncode == 0
    assert kafka_command("status").returncode == 1
    assert _started(kafka_command) == kafka
    assert await _first(kafka) == b"before"
    again = kafka_command("start")
    assert again.returncode == 1
    assert "runs already" in again.stderr
    status = kafka_command("status", "--json")
    assert len(json.loads(status.stdout)["running"]) == 1
    assert kafka_command("stop").returncode == 0
    assert not folder.exists()


def test_stopping_removes_no_file_of_somebody_else(kafka_command: Command, folder: Path) -> None:
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    (folder / "broker-1").mkdir()
    assert kafka_command("stop").returncode == 0
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_another_number_of_brokers_on_the_same_data_is_refused(
    kafka_command: Command, folder: Path
) -> None:
    folder.mkdir()
    state = {"cluster_id": "x", "ports": [[1, 2, 3]]}
    (folder / "cluster.json").write_text(json.dumps(state))
    done = kafka_command("start", "--brokers", "3")
    assert done.returncode == 1
    assert "holds a cluster of 1 brokers" in done.stderr
