"""The monitor: a Faust application with windowed tables of what a deployment does.

It reads the operators' and the results' topics beside the workers; nothing depends on it. Any other
Faust application reads and writes spike topics with the codec that this module registers::

    from router.monitor import CODEC
    frames = app.topic(spikes_topic(operator), key_type=bytes, value_serializer=CODEC)

Several monitors of one name share the partitions, a partition of all topics going to the same one.

Faust creates topics only through Kafka's CreateTopics, which the embedded broker lacks, and its
leader topic likewise: both are switched off. The tables' changelogs are made as all our topics are.
"""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

import faust
from faust.serializers import codecs

from router.activity import (
    LATENCY_EDGES_MS,
    Activity,
    Journeys,
    Report,
    activity_of,
    group_rows,
    groups_of,
    latency_bucket,
    network_row,
)
from router.admin import TopicsNotMade, create_topics
from router.client import reachable
from router.payload import PayloadError
from router.security import kafka_options
from router.settings import Settings
from router.status import TaskRow
from router.topics import out_topic, spikes_topic
from router.wire import Frame, WireError, decode_frame, encode_frame
from topologies.compiled import CompiledNetwork
from topologies.errors import SpikeRouterError

__all__ = ["CODEC", "FrameCodec", "Monitor", "MonitorFailed"]

CODEC: Final = "snn-frame"
_TOLERANT: Final = "snn-frame-or-none"


class MonitorFailed(SpikeRouterError, RuntimeError):
    """The monitor cannot read Kafka."""


class FrameCodec(codecs.Codec):
    """Frames as values of Faust topics.

    A value that is no frame raises a WireError, which ends the agent that reads it; with
    `tolerant`, the agent gets None instead.
    """

    def __init__(self, *, tolerant: bool = False) -> None:
        super().__init__(tolerant=tolerant)
        self._tolerant = tolerant

    def _loads(self, s: bytes) -> Frame | None:
        try:
            return decode_frame(s)
        except WireError:
            if self._tolerant:
                return None
            raise

    def _dumps(self, obj: Any) -> bytes:
        return encode_frame(obj)


codecs.register(CODEC, FrameCodec())
codecs.register(_TOLERANT, FrameCodec(tolerant=True))


class Monitor:
    """Watches networks; an async context. `window_s` is the length of a window of time.

    Counts are kept in two tumbling tables, by synapse group and by network, for each partition: a
    table's row belongs to the partition whose records it counts, as Faust demands.
    """

    def __init__(
        self,
        settings: Settings,
        networks: Iterable[CompiledNetwork],
        n_partitions: int,
        *,
        window_s: float = 5.0,
        name: str = "snn-monitor",
    ) -> None:
        networks = list(networks)
        if not networks:
            raise MonitorFailed("No network is deployed: start with `spikerouter up NETWORK`.")
        self.window_s = window_s
        self.bad_frames = 0
        self._settings = settings
        self._n_partitions = n_partitions
        self._groups = groups_of(networks)
        self._networks = {out_topic(network.name): network.name for network in networks}
        ingests = (network.nodes[network.input.node].operator for network in networks)
        self._inputs = frozenset(map(spikes_topic, ingests))
        self._journeys = Journeys()
        self.app = _application(settings, name, n_partitions)
        self._activity = self._table("activity", 3)
        self._latency = self._table("latency", len(LATENCY_EDGES_MS) + 1)
        operators = dict.fromkeys(operator for operator, _ in self._groups)
        self._agent("spikes", map(spikes_topic, operators), self._count_spikes)
        self._agent("results", self._networks, self._count_results)

    def _table(self, name: str, n: int) -> Any:
        """A windowed table of rows of `n` counts."""
        table = self.app.Table(name, default=lambda: [0] * n, partitions=self._n_partitions)
        return table.tumbling(self.window_s, expires=10 * self.window_s)

    def _agent(self, name: str, topics: Iterable[str], count: Callable[[Any, Frame], None]) -> None:
        channel = self.app.topic(*topics, key_type=bytes, value_serializer=_TOLERANT)

        async def read(stream: Any) -> None:
            async for event in stream.events():
                if event.value is None:
                    self.bad_frames += 1
                else:
                    count(event.message, event.value)

        self.app.agent(channel, name=f"{self.app.conf.id}-{name}")(read)

    async def __aenter__(self) -> Self:
        """Join the group and start to read; raises MonitorFailed."""
        if not await reachable(self._settings.kafka):
            raise MonitorFailed(f"Kafka does not answer at {self._settings.kafka}.")
        changelogs = [table.changelog_topic_name for table in self.app.tables.values()]
        try:
            await create_topics(self._settings, changelogs, self._n_partitions)
        except TopicsNotMade as error:
            raise MonitorFailed(str(error)) from error
        self.app.finalize()
        await self.app.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.app.stop()

    def report(self, at: float, tasks: Iterable[TaskRow] = ()) -> Report:
        """The window of time that `at` lies in (seconds since 1970, Kafka's timestamps).

        `tasks` tell the lag. Rows of partitions that another monitor of this name reads are zero.
        """
        activity = self._activity.clone(relative_to=float(at))
        latency = self._latency.clone(relative_to=float(at))
        partitions = range(self._n_partitions)
        activities = [
            (operator, group, Activity(*activity[f"{operator}/{group}/{partition}"].value()))
            for operator, group in self._groups
            for partition in partitions
        ]
        networks = (
            network_row(name, [latency[f"{name}/{partition}"].value() for partition in partitions])
            for name in self._networks.values()
        )
        return Report(
            start=at // self.window_s * self.window_s,
            seconds=self.window_s,
            groups=group_rows(self._groups, activities, tasks),
            networks=tuple(networks),
            bad_frames=self.bad_frames,
        )

    def _count_spikes(self, message: Any, frame: Frame) -> None:
        try:
            counts = activity_of(frame)
        except PayloadError:
            self.bad_frames += 1
            return
        row = (counts.batches, counts.steps, counts.spikes)
        self._add(self._activity, f"{frame.operator}/{frame.group}/{message.partition}", row)
        if message.topic in self._inputs:
            at_ms = 1000 * message.timestamp
            self._arrived(message, self._journeys.begin(message.partition, frame.batches, at_ms))

    def _count_results(self, message: Any, frame: Frame) -> None:
        network, at_ms = self._networks[message.topic], 1000 * message.timestamp
        pairs = self._journeys.end(network, message.partition, frame.batches, at_ms)
        self._arrived(message, pairs)

    def _arrived(self, message: Any, pairs: Iterable[tuple[str, float]]) -> None:
        for network, latency_ms in pairs:
            row = [0] * (len(LATENCY_EDGES_MS) + 1)
            row[latency_bucket(latency_ms)] = 1
            self._add(self._latency, f"{network}/{message.partition}", row)

    @staticmethod
    def _add(table: Any, key: str, row: Iterable[int]) -> None:
        """Add to the window of the event at hand. A row is replaced: Faust may still hold it."""
        table[key] = [a + b for a, b in zip(table[key].value(), row, strict=True)]


class _Application(faust.App):
    def _create_directories(self) -> None:
        """None: tables are in memory, and Faust's folders would stay where it was started."""


def _application(settings: Settings, name: str, n_partitions: int) -> faust.App:
    return _Application(
        name,
        broker=[f"kafka://{address}" for address in settings.kafka.split(",")],
        broker_credentials=_credentials(settings),
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=n_partitions,
        consumer_auto_offset_reset="latest",
        web_enabled=False,
    )


def _credentials(settings: Settings) -> Any:
    """What Faust needs to be let in, as all other clients are; None where nobody asks."""
    options = kafka_options(settings)
    context = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)
