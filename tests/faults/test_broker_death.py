"""The embedded broker cannot come back: its death is a clear end, and nobody hangs."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from loadtest.faults.contents import DIGITS
from router.client import ClientError
from router.embedded import EmbeddedBroker
from tests.faults.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.serial]


async def test_its_death_ends_the_stack_and_whoever_waits_gets_a_named_error(
    served: Served,
) -> None:
    content = served.contents.walks[0]
    await served.send("open", content, 0, 5)
    waiting = asyncio.create_task(served.answer("open", DIGITS, timeout_s=5.0))
    broker = served.world.stack.broker
    assert isinstance(broker, EmbeddedBroker)
    os.kill(broker.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await served.world.stack.wait_failed()
    with pytest.raises(ClientError):
        await waiting
    with pytest.raises(ClientError):
        await served.send("another", content, 0, 1)


async def test_up_ends_with_a_sentence_and_an_exit_code() -> None:
    command = [sys.executable, "-m", "router.cli", "up", "scnn_digits", "--workers", "1",
               "--port", "0", "--json"]  # fmt: skip
    up = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert up.stdout is not None
    try:
        async with asyncio.timeout(60):
            places = json.loads(await up.stdout.readline())
            children = await asyncio.to_thread(_children, up.pid)
            (broker,) = [pid for pid, command in children.items() if "embedded broker" in command]
            os.kill(broker, signal.SIGKILL)
            _, told = await up.communicate()
    finally:
        if up.returncode is None:
            up.kill()
    assert places["kafka"]
    assert up.returncode == 1
    assert b"The stack's own broker is gone" in told


def _children(parent: int) -> dict[int, str]:
    shown = subprocess.run(
        ["ps", "--ppid", str(parent), "-o", "pid=,command="],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split(maxsplit=1) for line in shown.stdout.splitlines()]
    return {int(pid): command for pid, command in rows}
