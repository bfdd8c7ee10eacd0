"""What the tests of commands share: a served network, and commands that find it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

_SPIKEROUTER: Final = (sys.executable, "-m", "router.cli")


@dataclass(frozen=True)
class Served:
    """A stack of two workers, and where everything is."""

    places: dict[str, Any]

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command against it; `given` is its standard input."""
        with self.start(*arguments, given=True) as process:
            out, errors = process.communicate(given, timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, errors)

    def start(self, *arguments: str, given: bool = False) -> "subprocess.Popen[str]":
        """Start a command that reads this stack."""
        servers = {
            "SPIKEROUTER_KAFKA": self.places["kafka"],
            "SPIKEROUTER_REDIS": self.places["redis"],
        }
        return subprocess.Popen(
            [*_SPIKEROUTER, *arguments],
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **servers},
        )


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[str], Any]:
    """`with serve(network_file_text) as served`: serves the network until the block ends."""

    @contextmanager
    def serve(text: str) -> Iterator[Served]:
        network, log = tmp_path / "network.yaml", tmp_path / "log"
        network.write_text(text)
        command = [*_SPIKEROUTER, "up", str(network), "--workers", "2", "--port", "0", "--json"]
        with log.open("w") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        with process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, log.read_text()
                yield Served(json.loads(line))
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=30) == 0, log.read_text()
            finally:
                process.kill()

    return serve
