"""What the Kafka image runs, run here: the same script, jars and configuration."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.admin import create_topics
from router.apache_jars import kafka_jars
from router.bus import Bus, Place
from router.embedded import command_line
from router.processes import free_ports, listens
from router.settings import Settings
from tests.deployment.deployment import ROOT

pytestmark = [pytest.mark.servers, pytest.mark.serial]

_START_S = 120.0


@pytest.fixture(scope="module")
def jars() -> Path:
    return asyncio.run(kafka_jars())


@pytest.fixture
def environment(tmp_path: Path, jars: Path) -> dict[str, str]:
    client, controller = free_ports(2)
    return {
        **os.environ,
        "KAFKA_JARS": str(jars),
        "KAFKA_DATA": str(tmp_path / "data"),
        "KAFKA_HOST": "127.0.0.1",
        "KAFKA_PORT": str(client),
        "KAFKA_CONTROLLER_PORT": str(controller),
        "KAFKA_HEAP": "256m",
    }


class _Container:
    """The script of the image as a process; `log` is what it writes."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.kafka = f"127.0.0.1:{environment['KAFKA_PORT']}"
        self._environment = environment
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._run()
        async with asyncio.timeout(_START_S):
            while not listens(int(self.kafka.split(":")[1])):
                assert self.process is not None
                assert self.process.poll() is None, self._log.read_text()
                await asyncio.sleep(0.1)

    def _run(self) -> None:
        script = str(ROOT / "docker" / "kafka" / "run.sh")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command_line([script]), env=self._environment, stdout=log, stderr=log
            )

    def end(self, number: int) -> int:
        """Send a signal and wait; the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def container(environment: dict[str, str], tmp_path: Path) -> Iterator[_Container]:
    running = _Container(environment, tmp_path / "log")
    yield running
    running.end(signal.SIGKILL)


async def test_the_broker_serves_ends_on_sigterm_and_keeps_its_data(container: _Container) -> None:
    await container.start()
    settings = Settings.load(kafka=container.kafka)
    assert await create_topics(settings, ["kept"], 2) == ("kept",)
    async with Bus(settings) as bus:
        await (await bus.send("kept", None, 1, b"before"))
    assert container.end(signal.SIGTERM) == 143  # Java's word for an orderly end
    await container.start()
    async with Bus(settings) as bus, asyncio.timeout(60):
        bus.read({Place("kept", 1): 0})
        while not (records := (await bus.poll(100)).records):
            pass
    ((record,),) = records.values()
    assert record.value == b"before"
