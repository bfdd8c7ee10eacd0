"""Networks on one input, served by processes, and one way to send to some of them; and a network
that is served by a command, for other commands to find."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from loadtest.demo import load_digits
from loadtest.recovery import Observer
from loadtest.traffic import sample_record
from loadtest.undisturbed import run_streams
from router.client import Deadline, Publisher, ResultReader
from router.supervisor import Stack
from topologies.compiled import CompiledNetwork
from topologies.compiler import compile_network
from topologies.loader import load_network
from topologies.stages.base import Array

_TIMEOUT_S = 80.0
_SPIKEROUTER: Final = (sys.executable, "-m", "router.cli")


def log_workers(name: str, line: str) -> None:
    """What the workers wrote stands in the report of a failure."""
    if "aiokafka" not in line:
        logging.getLogger(name).warning(line)


@pytest.fixture(scope="session")
def heads() -> Mapping[str, CompiledNetwork]:
    """`one` and `two`: the digits network, with two heads on one input and one backbone."""
    authored = load_network("scnn_digits")
    source = replace(authored.input, name="digits")
    one = replace(authored, name="one", input=source)
    *body, head = authored.layers
    turned = {name: -array for name, array in head.arrays.items()}
    two = replace(one, name="two", layers=(*body, replace(head, arrays=turned)))
    return {network.name: compile_network(network) for network in (one, two)}


@dataclass(frozen=True)
class Served:
    """A stack with these networks; results of each are followed."""

    networks: Mapping[str, CompiledNetwork]
    stack: Stack
    observer: Observer
    publisher: Publisher
    reader: ResultReader

    async def requests(self, prefix: str, n: int, *names: str) -> None:
        """Send images as requests to these networks, and compare every bit of the answers."""
        images = load_digits()[0][:n]
        for i, image in enumerate(images):
            record = sample_record(f"{prefix}{i}", image, request=True)
            await self.publisher.publish("digits", replace(record, networks=names))
        await self.publisher.flush()
        await self._equal(images[:, None], [f"{prefix}{i}" for i in range(n)], names)

    async def send(self, name: str, images: range, n: int, *names: str) -> None:
        """These images of a stream that has `n`."""
        for i in images:
            record = sample_record(name, load_digits()[0][i], seq=i, end=i == n - 1)
            await self.publisher.publish("digits", replace(record, networks=names))
        await self.publisher.flush()

    async def stream(self, name: str, n: int, seconds: float, *names: str) -> None:
        """One stream of images at a steady pace to these networks; every bit is compared."""
        for i in range(n):
            await self.send(name, range(i, i + 1), n, *names)
            await asyncio.sleep(seconds / n)
        await self.compare(name, n, *names)

    async def compare(self, name: str, n: int, *names: str) -> None:
        """Wait for the end of the stream of `n` images, and compare every bit."""
        await self._equal(load_digits()[0][:n][None], [name], names)

    async def _equal(self, values: Array, streams: list[str], names: tuple[str, ...]) -> None:
        deadline = Deadline.after(_TIMEOUT_S)
        for network in names:
            expected = run_streams(self.networks[network], values)
            for stream, wanted in zip(streams, expected, strict=True):
                found = await self.reader.result(stream, deadline, network=network)
                assert found.values.tobytes() == wanted.tobytes(), f"{stream} of {network}"


# Commands, as a user types them


@dataclass(frozen=True)
class Commands:
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
    def serve(text: str) -> Iterator[Commands]:
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
                yield Commands(json.loads(line))
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=30) == 0, log.read_text()
            finally:
                process.kill()

    return serve
