"""`spikerouter kafka start|stop|status`: Apache Kafka on this machine, without Docker.

The brokers run on when the command has ended. Their directory remembers ports, data and process
ids, so that `status` and `stop` find them again.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from router.apache import ApacheKafka
from router.processes import ServerError, end_process, is_running

__all__ = ["app"]

_PIDS: Final = "pids.json"
_STOP_S: Final = 30.0

app = typer.Typer(
    help="Run Apache Kafka on this machine: one broker, or a cluster of three.",
    no_args_is_help=True,
)

Directory = Annotated[
    Path | None, typer.Option("--dir", help="Folder of its data; default: in your state folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _folder(given: Path | None) -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return (given or Path(state) / "spikerouter" / "kafka").resolve()


@app.command()
def start(
    brokers: Annotated[int, typer.Option("--brokers", "-n", min=1, max=9)] = 1,
    port: Annotated[
        int, typer.Option(min=0, max=65_000, help="Of the first broker; the others follow.")
    ] = 9092,
    directory: Directory = None,
    heap: Annotated[int, typer.Option(min=128, help="Heap of each broker in MB.")] = 512,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for Kafka's jars; default: in your cache folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start it in the background, and print where it is. `--port 0` takes free ports."""
    folder = _folder(directory)
    if running := _running(folder):
        raise ServerError(
            f"Apache Kafka runs already in {folder} (processes {', '.join(map(str, running))}):"
            " stop it first (spikerouter kafka stop), or give another --dir."
        )
    kafka = ApacheKafka(
        brokers,
        directory=folder,
        ports=[port + n for n in range(brokers)] if port else (),
        heap_mb=heap,
        cache=cache,
        detached=True,
    )
    asyncio.run(_start(kafka, folder))
    if as_json:
        print(json.dumps({"kafka": kafka.bootstrap, "directory": str(folder)}))
    else:
        print(f"Apache Kafka runs at {kafka.bootstrap}, in {folder}.")
        print(f"Use it: spikerouter up scnn_digits --kafka {kafka.bootstrap}")
        print("End it: spikerouter kafka stop" + (f" --dir {folder}" if directory else ""))


@app.command()
def stop(
    directory: Directory = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep its data, to start again.")] = False,
) -> None:
    """Stop it, and remove its data unless they are to be kept."""
    folder = _folder(directory)
    asyncio.run(_stop(folder))
    if not keep:
        _remove(folder)
    print(f"Apache Kafka in {folder} is stopped" + (", its data kept." if keep else "."))


@app.command()
def status(directory: Directory = None, as_json: AsJson = False) -> None:
    """Show whether it runs; exit code 1 when it does not."""
    folder = _folder(directory)
    state = _read(folder)
    running = _running(folder)
    if as_json:
        print(json.dumps({**state, "running": running, "directory": str(folder)}))
    elif running:
        print(f"Apache Kafka runs at {state['kafka']}, as processes {running}, in {folder}.")
    else:
        print(f"Apache Kafka does not run in {folder}.")
    if not running:
        raise typer.Exit(1)


async def _start(kafka: ApacheKafka, folder: Path) -> None:
    """Start it; whatever fails, leave no broker behind."""
    try:
        await kafka.start()
    except BaseException:
        await kafka.stop()
        raise
    pids = [kafka.pid(number) for number in kafka.numbers]
    _pid_file(folder).write_text(json.dumps({"kafka": kafka.bootstrap, "pids": pids}))


async def _stop(folder: Path) -> None:
    pids = _read(folder).get("pids", [])
    await asyncio.gather(*(end_process(pid, str(folder), _STOP_S) for pid in pids))


def _running(folder: Path) -> list[int]:
    return [pid for pid in _read(folder).get("pids", []) if is_running(pid, str(folder))]


def _pid_file(folder: Path) -> Path:
    return folder / _PIDS


def _read(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_pid_file(folder).read_text())
    except FileNotFoundError:
        return {}
    return found


def _remove(folder: Path) -> None:
    """Remove the cluster's own files; a folder that holds others stays."""
    ApacheKafka.remove(folder)
    _pid_file(folder).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
