"""The supervisor runs real child processes: small programs stand in for gateway and workers."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from router import supervisor
from router.settings import Settings
from router.supervisor import Stack, StackError, StackOptions, backoff_s

_PRINT_SETTINGS = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("serving", os.environ["SPIKEROUTER_WORKER_NAME"], os.environ["SPIKEROUTER_KAFKA"])
signal.sigwait([signal.SIGTERM])
print("handed over")
"""
_STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("serving")
signal.pause()
"""
_GATEWAY = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words):
        print("asked for", self.path, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_OPTIONS = StackOptions(n_workers=2, gateway=False, kafka="127.0.0.1:1", redis="redis://none")


def _python(program: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program, *arguments)


def _workers_run(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(supervisor, "worker_command", lambda name: _python(program))


async def _until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def stack(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    """Two stand-in workers, both serving; no broker, store or gateway."""
    _workers_run(monkeypatch, _PRINT_SETTINGS)
    async with Stack(Settings.load(), _OPTIONS) as running:
        await _until(lambda: sum("serving" in line for _, line in running.lines) == 2)
        yield running


async def test_workers_are_told_their_name_and_where_kafka_is(stack: Stack) -> None:
    assert ("worker-1", "serving worker-1 127.0.0.1:1") in stack.lines
    assert ("worker-2", "serving worker-2 127.0.0.1:1") in stack.lines


async def test_a_killed_worker_is_started_again_under_another_pid(stack: Stack) -> None:
    killed = stack.kill_worker("worker-1")
    await _until(lambda: stack.workers["worker-1"].pid not in {0, killed})
    assert stack.workers["worker-1"].n_starts == 2
    assert stack.workers["worker-2"].n_starts == 1
    assert any("was killed by SIGKILL" in line for _, line in stack.lines)


async def test_a_worker_killed_for_good_stays_dead(stack: Stack) -> None:
    stack.kill_worker("worker-1", restart=False)
    worker = stack.workers["worker-1"]
    await _until(lambda: worker.keeper is not None and worker.keeper.done())
    assert (worker.pid, worker.n_starts) == (0, 1)


async def test_a_polite_stop_lets_the_worker_hand_over(stack: Stack) -> None:
    await stack.stop_worker("worker-2")
    assert ("worker-2", "handed over") in stack.lines
    assert list(stack.workers) == ["worker-1"]


async def test_a_worker_can_be_added_with_other_settings(stack: Stack) -> None:
    worker = stack.start_worker("spare", capacity=10)
    await _until(lambda: worker.running)
    assert worker.environment["SPIKEROUTER_CAPACITY"] == "10"
    assert worker.environment["SPIKEROUTER_WORKER_NAME"] == "spare"


async def test_two_workers_cannot_have_one_name(stack: Stack) -> None:
    with pytest.raises(StackError, match="names are unique"):
        stack.start_worker("worker-1")


async def test_killing_an_unknown_worker_names_those_there_are(stack: Stack) -> None:
    with pytest.raises(StackError, match="worker-1, worker-2"):
        stack.kill_worker("worker-9")


async def test_after_the_stop_no_process_is_left(stack: Stack) -> None:
    workers = list(stack.workers.values())
    await stack.stop()
    assert [worker.running for worker in workers] == [False, False]
    assert sum(line == "handed over" for _, line in stack.lines) == 2


async def test_a_worker_that_ignores_the_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    _workers_run(monkeypatch, _STUBBORN)
    stack = Stack(Settings.load(), _OPTIONS)
    await stack.start()
    await _until(lambda: sum(line == "serving" for _, line in stack.lines) == 2)
    await stack.stop(timeout=0.2)
    codes = [worker.process and worker.process.returncode for worker in stack.workers.values()]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL]


async def test_without_restart_a_dead_worker_stays_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    _workers_run(monkeypatch, "import sys; sys.exit(3)")
    options = StackOptions(
        n_workers=1, gateway=False, kafka="127.0.0.1:1", redis="redis://none", restart=False
    )
    async with Stack(Settings.load(), options) as stack:
        worker = stack.workers["worker-1"]
        await _until(lambda: worker.keeper is not None and worker.keeper.done())
        assert worker.n_starts == 1


async def test_a_worker_that_dies_again_and_again_is_started_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _workers_run(monkeypatch, "import sys; sys.exit(3)")
    async with Stack(Settings.load(), _OPTIONS) as stack:
        await _until(lambda: stack.workers["worker-1"].n_starts == 3)
        told = [line for name, line in stack.lines if name == "worker-1"]
    assert told[:2] == [
        "ended with code 3; starting again in 0.2 s",
        "ended with code 3; starting again in 0.4 s",
    ]


def test_the_delay_before_a_restart_is_bounded() -> None:
    assert [backoff_s(n) for n in (0, 1, 2, 3, 50)] == [0.0, 0.2, 0.4, 0.8, 10.0]


async def test_the_stack_is_up_when_its_gateway_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        supervisor,
        "gateway_command",
        lambda settings: _python(_GATEWAY, str(settings.gateway_port)),
    )
    options = StackOptions(n_workers=0, kafka="127.0.0.1:1", redis="redis://none")
    async with Stack(Settings.load(gateway_port=0), options) as stack:
        assert stack.http != "http://127.0.0.1:0"
        assert ("gateway", "asked for /v2/health/live") in stack.lines


async def test_a_gateway_that_does_not_start_fails_the_stack_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = "import sys; sys.exit('no such application')"
    monkeypatch.setattr(supervisor, "gateway_command", lambda settings: _python(broken))
    options = StackOptions(n_workers=0, kafka="127.0.0.1:1", redis="redis://none")
    with pytest.raises(StackError, match=r"gateway died(.|\n)*no such application"):
        await Stack(Settings.load(gateway_port=0), options).__aenter__()


async def test_a_port_in_use_is_named_before_anything_is_started() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        options = StackOptions(n_workers=1, kafka="127.0.0.1:1", redis="redis://none")
        stack = Stack(Settings.load(gateway_port=port), options)
        with pytest.raises(StackError, match=f"{port}.*--port"):
            await stack.start()
        await stack.stop()
    assert stack.workers == {}


async def test_the_loss_of_the_embedded_store_fails_the_stack() -> None:
    async with Stack(Settings.load(), StackOptions(n_workers=0, gateway=False)) as stack:
        assert stack.store is not None
        stack.store.stop()
        async with asyncio.timeout(20):
            await stack.wait_failed()


async def test_a_start_that_is_cancelled_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    silent = "import signal; signal.pause()"
    monkeypatch.setattr(supervisor, "gateway_command", lambda settings: _python(silent))
    stack = Stack(Settings.load(gateway_port=0), StackOptions(n_workers=0))
    starting = asyncio.create_task(stack.__aenter__())
    await _until(lambda: stack.gateway is not None and stack.gateway.running)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    assert stack.gateway is not None
    assert not stack.gateway.running
    assert [stack.broker and stack.broker.alive, stack.store and stack.store.alive] == [False] * 2
    assert list(tmp_path.iterdir()) == []


async def test_a_very_long_line_of_a_child_is_broken_not_fatal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _workers_run(monkeypatch, "print('x' * 300_000); print('end')")
    async with Stack(Settings.load(), _OPTIONS) as stack:
        await _until(lambda: ("worker-1", "end") in stack.lines)
        assert sum(len(line) for name, line in stack.lines if name == "worker-1") >= 300_000
