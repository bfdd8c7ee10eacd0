"""What the gateway does with a request, once HTTP is out of the way."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from router.client import (
    Deadline,
    Position,
    Publisher,
    ReaderFailed,
    RecordRefused,
    ResultReader,
    ResultTimeout,
    StreamFailed,
    partition_of,
    request,
)
from router.gateway.admission import Admission
from router.gateway.backlog import Backlog
from router.gateway.bodies import Body, BodyRoom
from router.gateway.errors import Conflict, NotAlive, NotReady
from router.gateway.inference import REQUEST_NAME, InferRequest, parse_request, respond
from router.gateway.metrics import Metrics
from router.gateway.networks import Directory, ServedNetwork, Store
from router.gateway.streams import (
    a_page_of,
    check_stream_name,
    emission_json,
    json_line,
    page,
    parse_events,
)
from router.loops import Keeper, LoopLag, Slices, Turn
from router.records import Data
from router.results import MARK, Emission, Result, ResultsLost, Stream
from router.settings import Settings
from router.status import is_served, why_unhosted
from router.store.calls import StatusReply, TaskStatus, unhosted
from router.store.errors import StoreError
from router.strays import strays_of
from topologies.errors import SpikeRouterError

__all__ = ["Gateway", "Services"]

_MAX_BYTES: Final = 64 * 1024 * 1024  # in flight at once: they are in memory
_DUPLICATE: Final = "duplicate_stream"
_STATUS_S: Final = 0.5  # between two looks at how far ingest has read
_STARTED_AT_ONCE: Final = 32  # samples of a batch; others get their turn in between
_TURN_S: Final = 0.005  # of sending lines that are at hand
_MOST_POSTED: Final = 10_000  # streams of which it is known where their last record lies
_RECORD_BYTES: Final = 200  # of a record beside its payload, about


@dataclass(frozen=True)
class Services:
    """What the gateway stands on; open while it runs. `kafka_answers` asks the broker."""

    publisher: Publisher
    reader: ResultReader
    store: Store
    kafka_answers: Callable[[], Awaitable[bool]]


class Gateway:
    """Answers requests. It keeps nothing that another gateway would need."""

    def __init__(self, settings: Settings, services: Services, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self._services = services
        self._directory = Directory(services.store, services.reader.follow)
        unread = None if settings.retention_bytes is None else settings.retention_bytes // 2
        self.admission = Admission(settings.max_samples, min(unread or _MAX_BYTES, _MAX_BYTES))
        self.bodies = BodyRoom(settings.max_bodies_bytes)
        self.backlog = Backlog(unread)
        self._slices = Slices()
        self.lag = LoopLag()
        self._own_keepers = (
            Keeper("watches how far input is read", self.watch_backlog),
            Keeper("watches the event loop", self._watch_loop),
        )
        self.keepers = (services.reader.keeper, *self._own_keepers)
        self._ids: dict[tuple[str, str], list[str]] = {}
        self._posted: dict[tuple[str, str], Position] = {}  # by input and stream; oldest first
        reader, publisher = services.reader, services.publisher
        self.metrics.watch("spikerouter_results", "What results were read.", reader.counters)
        self.metrics.watch("spikerouter_published", "Records sent.", publisher.counters)
        self.metrics.watch("spikerouter_gateway", "What had to be begun again.", self._restarts)
        self.metrics.loop_longest.set_function(lambda: self.lag.longest_held)
        self.metrics.in_flight.set_function(lambda: self.admission.samples)

    def now(self) -> float:
        """The event loop's clock, in seconds."""
        return asyncio.get_running_loop().time()

    async def network(self, name: str) -> ServedNetwork:
        """A deployed network; raises UnknownNetwork."""
        limit = Deadline.after(self.settings.request_timeout_s)
        return await self._directory.get(name, self.now(), limit)

    async def networks(self) -> tuple[str, ...]:
        """The names of all deployed networks; none while the store is away."""
        try:
            return await self._services.store.list_networks()
        except StoreError:
            return ()

    def _restarts(self) -> Mapping[str, int]:
        return {"loop_restarts": sum(keeper.n_restarts for keeper in self.keepers)}

    async def _watch_loop(self) -> None:
        """Until cancelled: measure how long the event loop is held."""
        while True:
            lag, held = await self.lag.measure()
            self.metrics.loop_lag.observe(lag)
            self.metrics.loop_held.observe(held)

    # Requests

    def body(self, chunks: AsyncIterator[bytes], declared: int | None) -> Body:
        """The body of a request, to be read as these settings allow."""
        settings = self.settings
        return Body(self.bodies, chunks, declared, settings.max_body_bytes, settings.body_timeout_s)

    async def infer(self, name: str, body: Body) -> bytes:
        """Answer an inference request: the JSON response. Refuses before it reads."""
        self.admission.check_room(self.now())
        body.check()
        network = await self.network(name)
        asked = await self._slices.run(
            parse_request(await body.read(), network, uuid.uuid4().hex, self.admission.max_samples)
        )
        body.forget()
        n, n_bytes = len(asked.samples), asked.n_bytes + _RECORD_BYTES * len(asked.samples)
        limit = Deadline.after(self.settings.request_timeout_s)
        if asked.timeout_s is not None:
            limit = limit.sooner(asked.timeout_s)
        with self._sole_body(network, asked):
            self.admission.check(n, n_bytes, self.now())
            with self.admission.hold(n, n_bytes):
                results = await self._all(network, asked.samples, limit)
        self.admission.answered(n, self.now())
        self.metrics.samples.labels(network.name).inc(n)
        return respond(asked, network, results)

    @contextmanager
    def _sole_body(self, network: ServedNetwork, asked: InferRequest) -> Iterator[None]:
        """Meanwhile no other body has this id. Raises Conflict when one has it, or had lately."""
        if not asked.given_id:
            yield
            return
        own = f"{asked.given_id}{MARK}{asked.digest}"
        known = self._services.reader.siblings(network.name, asked.given_id)
        running = self._ids.setdefault((network.name, asked.given_id), [])
        if any(_is_other(name, own) for name in known) or set(running) - {asked.digest}:
            if not running:
                del self._ids[network.name, asked.given_id]
            raise Conflict(
                f"The id {asked.given_id!r} was used for another request lately: use another id, "
                "or repeat the same request to get the same result."
            )
        running.append(asked.digest)
        try:
            yield
        finally:
            running.pop()
            if not running:
                del self._ids[network.name, asked.given_id]

    async def _all(
        self, network: ServedNetwork, samples: Collection[Data], limit: Deadline
    ) -> list[Result]:
        """The results of all samples; the first error ends the waiting."""
        if len(samples) == 1:
            return [await self._one(network, sample, limit) for sample in samples]
        try:
            async with asyncio.TaskGroup() as group:
                tasks: list[asyncio.Task[Result]] = []
                for sample in samples:
                    tasks.append(group.create_task(self._one(network, sample, limit)))
                    if len(tasks) % _STARTED_AT_ONCE == 0:
                        await asyncio.sleep(0)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _one(self, network: ServedNetwork, sample: Data, limit: Deadline) -> Result:
        """The result of one sample: remembered, or computed now."""
        publisher, reader = self._services.publisher, self._services.reader
        partition = partition_of(sample.name, publisher.n_partitions)
        known = reader.peek(network.name, sample.name, partition)
        if known is not None and known.final:
            result = known.result()
            if result.error:
                raise StreamFailed(result)
            return result
        if known is None and reader.was_answered(network.name, sample.name, partition):
            raise ResultsLost(
                "This request was answered before, and its result is no longer kept"
                f" ({self.settings.results_keep_s:g} s): send it under another id, or none, to have"
                " it computed again."
            )
        self._check_backlog(network, partition, len(sample.payload or b""))
        try:
            return await request(
                publisher, reader, network.name, sample, limit, input=network.input.name
            )
        except RecordRefused as error:
            raise _conflict_or(error) from error

    def _check_backlog(self, network: ServedNetwork, partition: int, n_bytes: int) -> None:
        n_bytes += _RECORD_BYTES
        self.backlog.check(network.ingest, partition, n_bytes)
        self.backlog.sent(network.ingest, partition, n_bytes)

    # Streams

    async def post_events(self, name: str, stream: str, body: Body) -> Position:
        """Append to a stream; where its record lies once it is acknowledged."""
        self.admission.check_room(self.now())
        body.check()
        network = await self.network(name)
        record = await self._slices.run(
            parse_events(await body.read(), network, stream, self.settings.max_record_bytes)
        )
        body.forget()
        n_bytes = _RECORD_BYTES + len(record.payload or b"") + 16 * len(record.events or ())
        self.admission.check(0, n_bytes, self.now())
        publisher = self._services.publisher
        partition = partition_of(stream, publisher.n_partitions)
        known = self._services.reader.peek(network.name, stream, partition)
        if known is not None and known.final and record.seq is None:  # with one, it may be a repeat
            raise Conflict(f"Stream {stream!r} has ended; open a new one under another name.")
        self._check_backlog(network, partition, n_bytes - _RECORD_BYTES)
        with self.admission.hold(0, n_bytes):
            written = await publisher.publish(network.input.name, record, partition)
            position = await written
        self._note_posted((network.input.name, stream), position)
        return position

    def _note_posted(self, place: tuple[str, str], position: Position) -> None:
        """A refusal concerns the clients of a stream if it is of what they sent last."""
        self._posted.pop(place, None)
        self._posted[place] = position
        if len(self._posted) > _MOST_POSTED:
            del self._posted[next(iter(self._posted))]

    def _positions(self, network: ServedNetwork, stream: str) -> tuple[Position, ...]:
        """Where the last record of a stream lies; nothing if another gateway, or nobody, took it:
        then whatever was refused under this name may be its."""
        position = self._posted.get((network.input.name, stream))
        return () if position is None else (position,)

    async def results(
        self, name: str, stream: str, start: int, wait_s: float, partition: int | None
    ) -> bytes:
        """The emissions from index `start` on, waiting for the first so long."""
        network = await self.network(name)
        check_stream_name(stream)
        reader = self._services.reader
        limit = Deadline.after(min(wait_s, self.settings.request_timeout_s))
        known, emissions = self._emissions(network, stream, start, partition)
        if not emissions and not (known is not None and known.final):
            try:
                async for _ in reader.results(
                    stream, limit, network=network.name, partition=partition, start=start,
                    positions=self._positions(network, stream),
                ):  # fmt: skip
                    break
            except (ResultTimeout, StreamFailed):
                pass  # the page tells of both
            known, emissions = self._emissions(network, stream, start, partition)
        return page(network.name, stream, start, known, emissions)

    async def lines(
        self, name: str, stream: str, start: int, wait_s: float, partition: int | None
    ) -> AsyncIterator[bytes]:
        """The emissions from index `start` on as JSON lines, as they come, for so long.

        The last line tells where to go on. Raises here what can be told before the first line.
        """
        network = await self.network(name)
        check_stream_name(stream)
        self._emissions(network, stream, start, partition)
        limit = Deadline.after(min(wait_s, self.settings.request_timeout_s))
        return self._lines(network, stream, start, limit, partition)

    async def _lines(
        self,
        network: ServedNetwork,
        stream: str,
        start: int,
        limit: Deadline,
        partition: int | None,
    ) -> AsyncIterator[bytes]:
        last: dict[str, object] = {"end": True, "error": None}
        turn = Turn(_TURN_S)
        turn.begin()
        try:
            async for emission in self._services.reader.results(
                stream, limit, network=network.name, partition=partition, start=start,
                positions=self._positions(network, stream),
            ):  # fmt: skip
                start = emission.index + 1
                yield json_line(emission_json(emission))
                if turn.is_over:
                    await turn.end()
        except ResultTimeout:
            last = {"end": False, "error": None}
        except StreamFailed as error:
            last = {"end": True, "error": error.result.error}
        except SpikeRouterError as error:
            last = {"end": False, "error": str(error)}
        yield json_line({"next": start, **last})

    def _emissions(
        self, network: ServedNetwork, stream: str, start: int, partition: int | None
    ) -> tuple[Stream | None, list[Emission]]:
        known = self._services.reader.peek(network.name, stream, partition)
        if known is None:
            return None, []
        places = self._services.reader.partitions(network.name, stream)
        if partition is None and len(places) > 1:
            raise Conflict(
                f"Stream {stream!r} is in partitions {', '.join(map(str, places))}: a producer sent"
                " its records to several. Each is a stream of its own: ask with ?partition=."
            )
        return known, a_page_of(known.emissions(start))

    # Health

    async def check_ready(self, name: str | None = None) -> tuple[str, ...]:
        """Sentences on what is amiss though all is served, such as input that nobody reads.

        Raises NotReady with all reasons why this gateway, or one network, is not served.
        """
        network = None if name is None else await self.network(name)
        reasons: list[str] = []
        replies: list[StatusReply] = []
        if not await self._services.kafka_answers():
            reasons.append(f"Kafka does not answer at {self.settings.kafka}.")
        try:
            self._services.reader.check_reading()
        except ReaderFailed as error:
            reasons.append(str(error))
        else:
            reasons += [keeper.trouble for keeper in self.keepers if keeper.trouble]
        try:
            replies, lost = await self._replies(), await self._directory.lost()
        except StoreError as error:
            reasons.append(str(error))
        else:
            reasons += lost
            for each in self._directory.known if network is None else (network,):
                reasons += _lost_tasks(replies, each)
            reasons += _task_reasons(replies, None if network is None else network.operators)
        if reasons:
            raise NotReady(tuple(reasons))
        return tuple(stray.sentence() for stray in strays_of(replies))

    def check_live(self) -> None:
        """Raises NotAlive when a loop of this process has failed so often that a new process is
        the better hope."""
        for keeper in self.keepers:
            if keeper.given_up:
                raise NotAlive(f"{keeper.trouble} Start this process anew.")

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Meanwhile the gateway's own loops run."""
        running = [asyncio.create_task(keeper.run()) for keeper in self._own_keepers]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _replies(self) -> list[StatusReply]:
        return [
            await self._services.store.status(partition)
            for partition in range(self.settings.partitions)
        ]

    async def watch_backlog(self) -> None:
        """Until cancelled: learn how far ingest has read. Without the store nothing is learned."""
        while True:
            with suppress(StoreError):
                self.backlog.update(await self._replies(), self.now())
            await asyncio.sleep(_STATUS_S)


def _conflict_or(error: RecordRefused) -> Exception:
    """Ingest refuses a name that is taken by another body."""
    return Conflict(str(error)) if error.reason.startswith(_DUPLICATE) else error


def _lost_tasks(replies: Collection[StatusReply], network: ServedNetwork) -> list[str]:
    """Whether the store has lost all tasks of some operators: deployment brings them back."""
    held = {task.task.operator for reply in replies for task in reply.tasks}
    n, n_lost = len(network.operators), len(network.operators - held)
    if not n_lost:
        return []
    return [
        f"The store has no tasks of {n_lost} of the {n} operators of network {network.name}:"
        " deploy it again. Workers that run them go on meanwhile."
    ]


def _task_reasons(replies: Collection[StatusReply], operators: frozenset[str] | None) -> list[str]:
    """What is wrong with the tasks, of these operators if they are given."""

    def counts(task: TaskStatus) -> bool:
        return operators is None or task.task.operator in operators

    tasks = [task for reply in replies for task in reply.tasks if counts(task)]
    served = {task.task for reply in replies for task in reply.tasks if is_served(task, reply)}
    if not tasks:
        return ["No network is deployed." if operators is None else "The network has no tasks."]
    nobodys = {task: reply for reply in replies for task in unhosted(reply)}
    free = [task for task in tasks if task.lease_ms <= 0 and not task.error]
    reasons = [f"Task {task.task} has failed: {task.error}" for task in tasks if task.error]
    misfits = [task for task in free if task.task in nobodys]
    if misfits:
        reasons.append(
            f"{len(misfits)} tasks fit no living worker, such as {misfits[0].task}: "
            f"{why_unhosted(misfits[0], nobodys[misfits[0].task])}."
        )
    if len(free) > len(misfits):
        reasons.append(f"{len(free) - len(misfits)} of {len(tasks)} tasks have no owner yet.")
    starting = sum(t.lease_ms > 0 and not t.error and t.task not in served for t in tasks)
    if starting:
        reasons.append(f"{starting} of {len(tasks)} tasks are being started by their owners.")
    return reasons


def _is_other(name: str, own: str) -> bool:
    """Whether a stream's name is that of a request with the same id and another body."""
    is_request = REQUEST_NAME.search(name) is not None
    return is_request and name != own and not name.startswith(f"{own}.")
