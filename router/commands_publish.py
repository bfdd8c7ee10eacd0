"""The command `spikerouter publish`: a file, or standard input, as records of an input."""

import asyncio
import json
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from router.client import Position, Publisher, PublishFailed, RecordTooLarge, partition_of
from router.lookup import find_network
from router.pacing import Pacer
from router.record_files import AnyFile, Entry, sample_entries
from router.records import Data, RecordError
from router.settings import Settings
from router.store.calls import TaskId, committed_offsets
from router.store.redis import RedisStore
from router.topics import check_name, in_topic
from topologies.arrays import ArraysError, npy_array, safetensors_arrays
from topologies.errors import SpikeRouterError
from topologies.files import MOST_ARRAYS, FileError, read_file
from topologies.manifest import InputSpec

__all__ = ["PublishCommandError", "Summary", "publish_command"]

_PIECE: Final = 256 * 1024  # bytes read at once
_PIECES: Final = 4  # read ahead
_STDIN: Final = "-"
_PAUSE_S: Final = 0.02  # between two looks at how far ingest has read
_PATIENCE_S: Final = 5.0
_SAMPLES: Final = (".npy", ".safetensors")


class PublishCommandError(SpikeRouterError, ValueError):
    """An option is not legal, or a file cannot be read."""


@dataclass(slots=True)
class Summary:
    """What was done: records that are acknowledged by all replicas, and bytes that were read.

    `refused` records were not legal, `failed` ones were not acknowledged.
    """

    records: int = 0
    n_bytes: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every record of the file was written."""
        return not self.refused and not self.failed

    def sentence(self) -> str:
        """For people."""
        rate = self.records / self.seconds if self.seconds else 0.0
        text = (
            f"{self.records:,} records published in {self.seconds:.2f} s: {rate:,.0f} records/s, "
            f"{self.n_bytes / 1e6 / (self.seconds or 1.0):.2f} MB/s"
        )
        if self.refused:
            text += f"; {self.refused:,} refused"
        if self.failed:
            text += f"; {self.failed:,} not acknowledged"
        return f"{text}."


@dataclass(frozen=True, slots=True)
class _Target:
    """Where records go, and what is known of it."""

    input: str
    n_partitions: int
    networks: tuple[str, ...] | None = None
    spec: InputSpec | None = None
    ingest: tuple[TaskId, ...] = ()


def publish_command(
    file: Annotated[
        str,
        typer.Argument(
            help="JSON lines or a native file, or samples (.npy, .safetensors); - reads standard "
            "input."
        ),
    ] = _STDIN,
    network: Annotated[
        str | None, typer.Option(help="Network the streams are for; the store tells its input.")
    ] = None,
    input: Annotated[
        str | None, typer.Option(help="Input to publish to, without asking the store.")
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(min=0, help="Partition for all records; by default by the stream's name."),
    ] = None,
    array: Annotated[
        str, typer.Option(help="Array of a safetensors file, one request per sample.")
    ] = "images",
    prefix: Annotated[
        str | None,
        typer.Option(help="Name for requests without an id: PREFIX-NUMBER; default: random."),
    ] = None,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
    partitions: Annotated[
        int | None, typer.Option(help="Partitions of every topic; --network asks the store.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Publish records or samples to a network's input.

    A line of JSON says `stream` (its name) or `id` (a whole request), and some of `data`, `events`,
    `until`, `end`, `seq`, `seed`, `networks`. What is not legal is told with its line, and the rest
    goes on; the exit code is then 1. docs/wire-format.md describes the formats. With --network, it
    waits while so much lies unread that the broker could drop it.
    """
    if (network is None) == (input is None):
        raise PublishCommandError("Name a network with --network, or an input with --input.")
    changes: dict[str, object] = {"kafka": kafka, "redis": redis, "partitions": partitions}
    settings = Settings.load(**{key: value for key, value in changes.items() if value is not None})
    source = _Source(file, array, prefix or uuid4().hex[:8])
    summary = asyncio.run(_publish(settings, source, network, input, partition))
    print(json.dumps(asdict(summary)) if as_json else summary.sentence())
    if not summary.ok:
        raise typer.Exit(1)


async def _publish(
    settings: Settings,
    source: "_Source",
    network: str | None,
    input: str | None,
    partition: int | None,
) -> Summary:
    target = await _target(settings, network, input)
    settings = settings.changed(partitions=target.n_partitions)
    if partition is not None and partition >= target.n_partitions:
        raise PublishCommandError(
            f"--partition {partition}: legal are 0 to {target.n_partitions - 1}."
        )
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    with _progress(errors) as progress:
        bar = progress.add_task("publish", total=source.n_bytes, records=0)
        async with RedisStore.of(settings) as store, Publisher.of(settings) as publisher:
            sender = _Sender(publisher, target, partition, errors, _Pace(settings, store, target))
            began = time.monotonic()
            async for entries in source.entries(target):
                for entry in entries:
                    await sender.send(entry)
                summary = sender.summary
                progress.update(bar, completed=source.n_read, records=summary.records)
            with suppress(PublishFailed):  # each failure was told and counted
                await publisher.flush()
            seconds = time.monotonic() - began
    return replace(sender.summary, n_bytes=source.n_read, seconds=seconds)


def _progress(errors: Console) -> Progress:
    """A bar of bytes read, where somebody looks at it."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    records = TextColumn("{task.fields[records]:,} records")
    return Progress(
        *columns, records, console=errors, transient=True, disable=not errors.is_terminal
    )


async def _target(settings: Settings, network: str | None, input: str | None) -> _Target:
    if input is not None:
        return _Target(check_name(input), settings.partitions)
    found, ingest = await find_network(settings, network or "")
    return _Target(found.input.name, len(ingest), (found.name,), found.input, ingest)


class _Pace:
    """Waits while ingest is behind; the store tells how far it has read, if a network is named."""

    def __init__(self, settings: Settings, store: RedisStore, target: _Target) -> None:
        retention = settings.retention_bytes if target.ingest else None
        self.pacer = Pacer(None if retention is None else retention // 2)
        self._store = store
        self._target = target

    async def room(self, partition: int, n_bytes: int, errors: Console) -> None:
        """Return when so many bytes more may be sent."""
        tell_at = time.monotonic() + _PATIENCE_S
        while self.pacer.must_wait(partition, n_bytes):
            query = committed_offsets([self._target.ingest[partition]])
            (offsets,) = await self._store.read(query)
            self.pacer.read(partition, offsets.get(in_topic(self._target.input), 0))
            if time.monotonic() > tell_at:
                errors.print(
                    f"Partition {partition} is not read: waiting (see spikerouter status)."
                )
                tell_at = float("inf")
            await asyncio.sleep(_PAUSE_S)


class _Sender:
    """Publishes entries in order and counts."""

    def __init__(
        self,
        publisher: Publisher,
        target: _Target,
        partition: int | None,
        errors: Console,
        pace: _Pace,
    ) -> None:
        self.summary = Summary()
        self._pace = pace
        self._publisher = publisher
        self._target = target
        self._partition = partition
        self._errors = errors

    async def send(self, entry: Entry) -> None:
        """Publish one record, or tell why not."""
        record = entry.record
        if record is None:
            self._refuse(entry.place, entry.fault)
            return
        if record.networks is None:
            record = replace(record, networks=self._target.networks)
        partition = self._partition
        if partition is None:
            partition = partition_of(record.name, self._target.n_partitions)
        size = _size(record)
        await self._pace.room(partition, size, self._errors)
        try:
            future = await self._publisher.publish(self._target.input, record, partition)
        except (RecordError, RecordTooLarge) as error:
            self._refuse(entry.place, str(error))
            return
        self._pace.pacer.sent(partition, size)
        future.add_done_callback(partial(self._done, partition, size))

    def _refuse(self, place: str, fault: str) -> None:
        self.summary.refused += 1
        self._errors.print(f"[red]{escape(place)}[/red]: {escape(fault)}")

    def _done(self, partition: int, size: int, future: "asyncio.Future[Position]") -> None:
        error = None if future.cancelled() else future.exception()
        if error is None and not future.cancelled():
            self.summary.records += 1
            self._pace.pacer.written(partition, future.result().offset, size)
            return
        self.summary.failed += 1
        self._pace.pacer.failed(partition, size)
        if self.summary.failed == 1:
            self._errors.print(f"[red]{escape(str(error))}[/red]")


def _size(record: Data) -> int:
    """Bytes of a record in its topic, about."""
    return len(record.payload or b"") + 16 * len(record.events or ()) + len(record.name) + 150


class _Source:
    """What is published: a file of records or of samples, or standard input."""

    def __init__(self, name: str, array: str, prefix: str) -> None:
        self._name = name
        self._path = Path(name)
        self._array = array
        self._prefix = prefix
        self.n_read = 0

    @property
    def n_bytes(self) -> int | None:
        """Bytes of the file; None when nobody knows before its end."""
        try:
            found = os.stat(0) if self._name == _STDIN else self._path.stat()
        except OSError as error:
            raise PublishCommandError(f"{self._name} cannot be read: {error.strerror}.") from error
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    async def entries(self, target: _Target) -> AsyncIterator[Iterator[Entry]]:
        """Runs of entries in the order of the file."""
        if self._path.suffix in _SAMPLES:
            values = _load(self._path, self._array)
            self.n_read = self.n_bytes or 0
            yield sample_entries(values, self._prefix, target.networks, target.spec)
            return
        reader = AnyFile(self._prefix)
        async for piece in _pieces(self._name):
            self.n_read += len(piece)
            yield reader.feed(piece)
        yield reader.close()


def _load(path: Path, array: str) -> NDArray[Any]:
    try:
        data = read_file(path, MOST_ARRAYS)
        if path.suffix == ".npy":
            return npy_array(data)
        arrays = safetensors_arrays(data)
    except FileError as error:
        raise PublishCommandError(str(error)) from error
    except ArraysError as error:
        raise PublishCommandError(f"{path} cannot be read: {error}") from error
    if array not in arrays:
        raise PublishCommandError(
            f"{path} has no array {array!r}; legal with --array are {', '.join(sorted(arrays))}."
        )
    return arrays[array]


async def _pieces(name: str) -> AsyncIterator[bytes]:
    """The bytes of a file as they come.

    A thread reads, since a terminal or a pipe may keep a reader waiting for ever; it is a daemon
    and holds no lock, so Ctrl-C ends the process nevertheless.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(_PIECES)

    def put(item: bytes | OSError) -> None:
        room.acquire()
        loop.call_soon_threadsafe(queue.put_nowait, item)

    def read() -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody waits for more
            try:
                with open(0 if name == _STDIN else name, "rb", 0, closefd=name != _STDIN) as file:
                    while piece := os.read(file.fileno(), _PIECE):
                        put(piece)
                put(b"")
            except OSError as error:
                put(error)

    threading.Thread(target=read, daemon=True).start()
    while piece := await queue.get():
        room.release()
        if isinstance(piece, OSError):
            raise PublishCommandError(f"{name} cannot be read: {piece.strerror}.") from piece
        yield piece
