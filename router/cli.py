"""The command line `spikerouter`.

Other packages add commands through the entry point group `spikerouter.commands`: a name, and a
function or a Typer application. A name `bench.pipeline` is the command `bench pipeline`. Only the
command that is run is imported; help imports them all.
"""

import asyncio
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.options import KafkaOption, RedisOption
from router.settings import Backend, Settings
from router.supervisor import Stack, StackOptions, read_status, worker_command
from router.tables import text_table
from topologies.errors import SpikeRouterError

__all__ = ["application", "main"]

COMMANDS_GROUP: Final = "spikerouter.commands"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; an error of this project is printed as its sentence, with exit code 1."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    # What aiokafka tries again is no news; what fails for good is raised as a sentence.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        application(given, entry_points(group=COMMANDS_GROUP))(given)
    except SpikeRouterError as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]{escape(str(error))}[/red]")
        sys.exit(1)


def application(arguments: Sequence[str], plugins: Iterable[EntryPoint]) -> typer.Typer:
    """The application with its own commands and those plugins that `arguments` need."""
    app = typer.Typer(
        name="spikerouter",
        help="Serve spiking neural networks operator by operator.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    own: dict[str, Callable[..., None]] = {"up": up, "status": status, "worker": worker}
    for name, function in own.items():
        app.command(name)(function)
    named = next((word for word in arguments if not word.startswith("-")), None)
    found = {plugin.name: plugin for plugin in plugins if _first(plugin) not in own}
    wanted = [name for name in sorted(found) if _first(found[name]) == named]
    if named not in own:
        _add(app, [found[name] for name in wanted or sorted(found)])
    return app


def _first(plugin: EntryPoint) -> str:
    return str(plugin.name).partition(".")[0]


def _add(app: typer.Typer, plugins: Iterable[EntryPoint]) -> None:
    """Add the plugins to the application, and those named `group.command` to groups of it."""
    groups: dict[str, typer.Typer] = {}
    for plugin in plugins:
        group, _, command = plugin.name.rpartition(".")
        into = app
        if group:
            into = groups.setdefault(group, typer.Typer(no_args_is_help=True))
            into.callback()(_nothing)  # keeps a group of one command a group
        loaded = _load(plugin)
        if isinstance(loaded, typer.Typer):
            into.add_typer(loaded, name=command)
        else:
            into.command(command)(loaded)
    for group, commands in groups.items():
        names = ", ".join(str(command.name) for command in commands.registered_commands)
        app.add_typer(commands, name=group, help=f"Commands: {names}.")


def _nothing() -> None:
    pass


def _load(plugin: EntryPoint) -> Callable[..., object] | typer.Typer:
    try:
        loaded: Callable[..., object] | typer.Typer = plugin.load()
    except (ImportError, AttributeError) as error:
        return _unavailable(plugin, error)
    return loaded


def _unavailable(plugin: EntryPoint, error: Exception) -> Callable[[], None]:
    """A command that says why it cannot run: most often an extra is not installed."""
    extras = ", ".join(plugin.extras)
    remedy = f"install the extra {extras}: pip install -c constraints.txt -e '.[{extras}]'"
    sentence = f"Command {plugin.name!r} cannot be loaded ({error})"

    def unavailable() -> None:
        raise SpikeRouterError(f"{sentence}; {remedy}" if extras else f"{sentence}.")

    unavailable.__doc__ = f"Needs the extra {extras}." if extras else f"Not available: {error}."
    return unavailable


def up(
    networks: Annotated[
        list[str] | None, typer.Argument(help="Networks to deploy: names from the zoo, or files.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-n", min=0, help="Worker processes.")] = 3,
    partitions: Annotated[int | None, typer.Option(help="Partitions of every topic.")] = None,
    kafka: KafkaOption = None,
    redis: RedisOption = None,
    host: Annotated[str | None, typer.Option(help="Address the gateway listens on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the gateway; 0 takes any.")] = None,
    backend: Annotated[Backend | None, typer.Option(help="Backend of the workers.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print where everything is as one line of JSON.")
    ] = False,
) -> None:
    """Start broker, store, gateway and workers on this machine, until Ctrl-C."""
    changes: dict[str, object] = {
        "partitions": partitions,
        "gateway_host": host,
        "gateway_port": port,
        "backend": backend,
    }
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    options = StackOptions(
        networks=tuple(networks or ()), n_workers=workers, kafka=kafka, redis=redis
    )
    if not asyncio.run(_up(settings, options, as_json=as_json)):
        raise typer.Exit(1)


def worker(
    name: Annotated[str, typer.Option(help="Name, unique among live workers.")] = "",
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
    backend: Annotated[Backend | None, typer.Option(help="Backend to compute on.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Kinds of operator it hosts.")] = None,
    capacity: Annotated[int | None, typer.Option(help="Neurons plus synapses it holds.")] = None,
    profile: Annotated[str | None, typer.Option(help="Hardware node it stands for.")] = None,
    max_tasks: Annotated[int | None, typer.Option(help="Most tasks at once.")] = None,
) -> None:
    """Run one worker in this terminal against a Kafka and a Redis."""
    changes: dict[str, object] = {
        "worker_name": name or None,
        "kafka": kafka,
        "redis": redis,
        "backend": backend,
        "kinds": kinds,
        "capacity": capacity,
        "profile": profile,
        "max_tasks": max_tasks,
    }
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    command = worker_command(settings.worker_name)
    os.execve(command[0], command, {**os.environ, **settings.environment()})


def status(
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
    partitions: Annotated[int | None, typer.Option(help="Partitions of every topic.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show workers, tasks, lag in windows and records, and the age of checkpoints."""
    changes: dict[str, object] = {"redis": redis, "partitions": partitions}
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    rows = asyncio.run(read_status(settings))
    if as_json:
        print(json.dumps(rows.as_json()))
        return
    console = Console()
    for title, table in rows.tables().items():
        console.print(text_table(title, table))


async def _up(settings: Settings, options: StackOptions, *, as_json: bool) -> bool:
    """Run the stack until a signal; False when a part was lost that cannot be restarted.

    Only the first signal counts: the stack is then being stopped, and must not be left half so.
    """
    serving = asyncio.create_task(_serve(settings, options, as_json=as_json))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _cancel_once, serving)
    await asyncio.wait([serving])
    if serving.cancelled():
        return True
    serving.result()
    return False


def _cancel_once(task: asyncio.Task[None]) -> None:
    if not task.cancelling():
        task.cancel()


async def _serve(settings: Settings, options: StackOptions, *, as_json: bool) -> None:
    errors = Console(stderr=True, soft_wrap=True, highlight=False)

    def log(name: str, line: str) -> None:
        errors.print(f"[cyan]{escape(name):>9}[/cyan] | {escape(line)}")

    async with Stack(settings, options, log=log) as stack:
        _show(stack, as_json=as_json)
        await stack.wait_failed()


def _show(stack: Stack, *, as_json: bool) -> None:
    workers = {name: worker.pid for name, worker in stack.workers.items()}
    places = {"kafka": stack.kafka, "redis": stack.redis_url}
    if stack.gateway is not None:
        places["http"] = stack.http
    if as_json:
        print(json.dumps({**places, "workers": workers}), flush=True)
        return
    console = Console(soft_wrap=True, highlight=False)
    table = Table(title="Spike Router is up", title_justify="left", box=None, show_header=False)
    for name, place in places.items():
        table.add_row(name, escape(place))
    for name, pid in workers.items():
        table.add_row(name, f"process {pid}")
    console.print(table)
    if stack.gateway is not None:
        console.print(f"\nTry it in a browser: {stack.http}/docs")
    console.print("For commands in another terminal:\n")
    console.print(f"  export {' '.join(_exports(stack.settings))}\n")
    console.print("Ctrl-C stops everything.")


def _exports(settings: Settings) -> list[str]:
    """The variables by which other commands find this stack."""
    wanted = ["SPIKEROUTER_KAFKA", "SPIKEROUTER_REDIS"]
    if settings.partitions != Settings.model_fields["partitions"].default:
        wanted.append("SPIKEROUTER_PARTITIONS")
    environment = settings.environment()
    return [f"{name}={shlex.quote(environment[name])}" for name in wanted]


if __name__ == "__main__":
    main()
