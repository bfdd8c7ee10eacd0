"""A gateway on in-memory doubles of Kafka and the store: no sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest

from router.client import Deadline, Position, Publisher, ReaderFailed, ResultReader
from router.gateway.app import create_app
from router.gateway.service import Services
from router.payload import pack_result
from router.records import Data, Record, encode_record
from router.settings import Settings
from router.status import task_detail
from router.store.calls import StatusReply, TaskId, TaskStatus, WorkerInfo, WorkerStatus
from router.store.errors import ManifestDamaged, StoreUnavailable
from router.wire import Batch, Kind, StreamId
from topologies.compiled import CompiledNetwork, InputSpec, Node, OutputSpec

INGEST, READOUT = "1" * 32, "2" * 32
N_PARTITIONS = 4


def batch(
    name: str,
    values: list[list[int]] | None = None,
    *,
    window: int = 0,
    number: int = 0,
    end: bool = True,
    error: str = "",
) -> Batch:
    """A batch of results: windows of four steps."""
    payload = b"" if values is None else pack_result(np.asarray(values, np.int32))
    kind = Kind.ABORT if error else Kind.SPIKES
    return Batch(
        READOUT, StreamId(1, number), name, ("digits",), 0, window, 4 * window, 4 * window + 4,
        kind, end and not error, payload, error,
    )  # fmt: skip


class MemoryReader(ResultReader):
    """A results reader that is fed by hand."""

    def __init__(self) -> None:
        super().__init__("nowhere:1", N_PARTITIONS)
        self.away = ""

    async def follow(
        self,
        network: str,
        input: str | None = None,
        every: int | None = None,
        deadline: Deadline | float | None = None,
    ) -> None:
        self.table.follow(network, every)
        self._inputs[network] = input or network

    def check_reading(self) -> None:
        if self.away:
            raise ReaderFailed(self.away)

    def feed(self, network: str, partition: int, *batches: Batch) -> None:
        """What a record of the results topic does."""
        for stream in self.table.feed(network, partition, batches, 0.0):
            self._wake((stream.network, stream.name))

    def refuse(self, letter: bytes) -> None:
        """What a record of the dead-letter topic does."""
        self._take_letter(letter)


@dataclass
class Published:
    """One published record."""

    input: str
    record: Data
    position: Position
    value: bytes


class MemoryPublisher(Publisher):
    """A publisher that remembers, and lets `react` answer."""

    def __init__(self) -> None:
        super().__init__("nowhere:1", N_PARTITIONS)
        self.published: list[Published] = []
        self.react: Callable[[Published], None] = lambda published: None
        self.failure: Exception | None = None

    async def publish(
        self,
        input: str,
        record: Record,
        partition: int | None = None,
    ) -> "asyncio.Future[Position]":
        assert isinstance(record, Data)
        assert partition is not None
        position = Position(partition, len(self.published))
        written: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        if self.failure is not None:
            written.set_exception(self.failure)
            return written
        published = Published(input, record, position, encode_record(record))
        self.published.append(published)
        written.set_result(position)
        self.react(published)
        return written


@dataclass
class MemoryStore:
    """A store with manifests and a status."""

    manifests: dict[str, bytes] = field(default_factory=dict)
    tasks: list[TaskStatus] = field(default_factory=list)
    workers: list[WorkerStatus] = field(default_factory=list)
    away: bool = False
    removed: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("The store does not answer.")

    async def ping(self) -> None:
        self._check()

    async def get_manifest(self, network: str) -> bytes | None:
        self._check()
        if network in self.damaged:
            raise ManifestDamaged(f"The manifest of network {network} is damaged.")
        return self.manifests.get(network)

    async def list_networks(self) -> tuple[str, ...]:
        self._check()
        return tuple(self.manifests)

    async def removed_networks(self) -> frozenset[str]:
        self._check()
        return self.removed

    async def status(self, partition: int) -> StatusReply:
        self._check()
        tasks = tuple(task for task in self.tasks if task.task.partition == partition)
        return StatusReply(partition, 0, 0, tuple(self.workers), tasks)


@pytest.fixture(name="manifest")
def manifest_fixture() -> Callable[..., bytes]:
    """`manifest`, for modules that cannot import it."""
    return manifest


def manifest(
    name: str,
    *,
    encoder: str = "direct",
    shape: tuple[int, ...] = (1, 2, 2),
    high: float = 1.0,
    every: int | None = None,
    n_steps: int | None = 4,
) -> bytes:
    """A manifest with as much in it as a gateway reads."""
    nodes = {node: Node(node, node, ()) for node in (INGEST, READOUT)}
    source = InputSpec("pixels", INGEST, encoder, shape, 0.0, high, 4, n_steps)
    outputs = OutputSpec((3,), "int32", "count", every, ("zero", "one", "two"))
    return CompiledNetwork(name, source, {}, {}, nodes, READOUT, outputs).to_bytes()


def task(operator: str, partition: int, *, lease_ms: int = 500, error: str = "") -> TaskStatus:
    """A task record."""
    identity, kind = TaskId(operator, 0, partition), "ingest" if operator == INGEST else "readout"
    return TaskStatus(
        identity, kind, 1, "w" if lease_ms else "", lease_ms, 0, 0, None, "", "", error
    )


@dataclass
class World:
    """Everything a test needs. `settings` limits are small enough to be reached."""

    settings: Settings
    publisher: MemoryPublisher
    reader: MemoryReader
    store: MemoryStore
    client: httpx.AsyncClient
    kafka: list[bool]

    def serve(self, network: str = "digits") -> None:
        """Answer each request with ten times its first three values, rounded."""

        def react(published: Published) -> None:
            values = published.record.values().ravel()[:3] * 10
            self.reader.feed(
                network,
                published.position.partition,
                batch(
                    published.record.name,
                    [[round(float(value)) for value in values]],
                    number=published.position.offset,
                ),
            )

        self.publisher.react = react

    async def infer(
        self, data: object = (0.0, 0.5, 1.0, 0.25), *, model: str = "digits", **changes: object
    ) -> httpx.Response:
        """Send one request; changes are of the tensor, or of the request if they belong there."""
        n = len(data) // 4 if isinstance(data, list | tuple) else 1
        tensor: dict[str, object] = {
            "name": "pixels", "shape": [n, 1, 2, 2], "datatype": "FP32", "data": data,
        }  # fmt: skip
        body: dict[str, object] = {"inputs": [tensor]}
        for name, value in changes.items():
            (tensor if name in ("name", "shape", "datatype") else body)[name] = value
        return await self.client.post(f"/v2/models/{model}/infer", json=body)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Networks `digits` (values), `gestures` (events, every 4 steps), with an owner per task."""
    settings = Settings.load(max_body_bytes=20_000, request_timeout_s=5.0)
    publisher, reader, kafka = MemoryPublisher(), MemoryReader(), [True]
    tasks = [task(o, place) for o in (INGEST, READOUT) for place in range(N_PARTITIONS)]
    told = {task_detail(each.task, "streams"): 0 for each in tasks}
    store = MemoryStore(
        {
            "digits": manifest("digits"),
            "gestures": manifest("gestures", encoder="events", shape=(2, 4), every=4, n_steps=None),
        },
        tasks,
        [WorkerStatus("w", True, WorkerInfo(10, ("ingest", "readout"), 0, told))],
    )

    async def kafka_answers() -> bool:
        return kafka[0]

    app = create_app(settings, Services(publisher, reader, store, kafka_answers))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield World(settings, publisher, reader, store, client, kafka)
