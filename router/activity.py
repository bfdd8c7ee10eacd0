"""What a monitor tells of a deployment: firing rates, silent and saturated groups, latency, lag.

Pure: frames, timestamps and what the store knows come in, rows go out. Rates are in spikes per
neuron and step over one window of time. A synapse group is *silent* when it sent steps but no
spike, and *saturated* when nearly every neuron fired in nearly every step: both are what a wrong
threshold, a wrong scale of the input or a dead sensor look like.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, NamedTuple

from router.payload import count_active
from router.status import TaskRow
from router.store.calls import TaskId
from router.wire import Batch, Frame, Kind, StreamId
from topologies.compiled import CompiledNetwork

__all__ = [
    "LATENCY_EDGES_MS",
    "Activity",
    "Group",
    "GroupRow",
    "Journeys",
    "NetworkRow",
    "Report",
    "activity_of",
    "group_rows",
    "groups_of",
    "latency_bucket",
    "network_row",
]

SATURATED: Final = 0.9
"""Spikes per neuron and step; a refractory neuron cannot reach it, a stuck one does."""

LATENCY_EDGES_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Upper ends of the buckets that latencies are counted in; one more bucket has what is above."""

_KEPT_JOURNEYS: Final = 100_000  # windows that are under way
_SHORT: Final = 8  # digits of an operator's id, for people

State = Literal["", "silent", "saturated"]


@dataclass(frozen=True, slots=True)
class Activity:
    """Counts of one synapse group, over all its streams; `spikes` are cells that are not zero."""

    batches: int = 0
    steps: int = 0
    spikes: int = 0

    def __add__(self, other: "Activity") -> "Activity":
        return Activity(
            self.batches + other.batches, self.steps + other.steps, self.spikes + other.spikes
        )


def activity_of(frame: Frame) -> Activity:
    """The counts of one frame; raises PayloadError when a payload is damaged."""
    spikes = [batch for batch in frame.batches if batch.kind is Kind.SPIKES]
    return Activity(
        len(spikes),
        sum(batch.stop - batch.start for batch in spikes),
        sum(count_active(batch.payload) for batch in spikes),
    )


class Group(NamedTuple):
    """What is known of a synapse group without looking at its frames."""

    n_neurons: int
    kind: str
    label: str
    """The layers of the operator, for people."""


def groups_of(networks: Iterable[CompiledNetwork]) -> dict[tuple[str, int], Group]:
    """(operator, group) -> what is known of it, in the order of the networks.

    Readouts send results, and have no rates.
    """
    found: dict[tuple[str, int], Group] = {}
    for network in networks:
        for node in network.nodes.values():
            kind = network.summaries[node.operator].kind
            label = network.labels.get(node.id) or node.operator[:_SHORT]
            for group in network.groups[node.operator] if kind != "readout" else ():
                known = Group(group.hi - group.lo, kind, label)
                found.setdefault((node.operator, group.index), known)
    return found


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One synapse group in one window of time. Lags are the largest of its tasks; None: unknown."""

    operator: str
    group: int
    label: str
    batches: int
    steps: int
    spikes: int
    rate: float
    """Spikes per neuron and step."""
    state: State
    lag_windows: int | None
    lag_records: int | None


def group_rows(
    groups: Mapping[tuple[str, int], Group],
    activities: Iterable[tuple[str, int, Activity]],
    tasks: Iterable[TaskRow] = (),
) -> tuple[GroupRow, ...]:
    """One row for each of `groups`, in their order; counts of several partitions are added up."""
    total: dict[tuple[str, int], Activity] = {}
    for operator, group, activity in activities:
        total[operator, group] = total.get((operator, group), Activity()) + activity
    lags = _lags(tasks)
    return tuple(
        _group_row(place, known, total.get(place, Activity()), lags.get(place, ()))
        for place, known in groups.items()
    )


def _group_row(
    place: tuple[str, int], known: Group, counts: Activity, tasks: Sequence[TaskRow]
) -> GroupRow:
    rate = counts.spikes / max(1, counts.steps * known.n_neurons)
    return GroupRow(
        *(*place, known.label, counts.batches, counts.steps, counts.spikes, rate),
        _state(known, counts, rate),
        _largest(task.lag_windows for task in tasks),
        _largest(task.lag_records for task in tasks),
    )


def _state(known: Group, counts: Activity, rate: float) -> State:
    if counts.steps and not counts.spikes:
        return "silent"
    # Every cell of a directly encoded sample may well differ from zero.
    return "saturated" if rate >= SATURATED and known.kind == "synaptic" else ""


def _lags(tasks: Iterable[TaskRow]) -> dict[tuple[str, int], list[TaskRow]]:
    found: dict[tuple[str, int], list[TaskRow]] = {}
    for task in tasks:
        place = TaskId.parse(task.task)
        found.setdefault((place.operator, place.group), []).append(task)
    return found


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


# Latency


class _Window(NamedTuple):
    partition: int
    stream: StreamId
    window: int


class Journeys:
    """Pairs the windows that ingest sent with the results of the same windows.

    They are read from different topics, so either may be seen first. Of repeats, which a replay
    makes, the first counts, unless the pair was complete. What never finds its other half is
    forgotten, the oldest first.
    """

    def __init__(self, n_kept: int = _KEPT_JOURNEYS) -> None:
        self._n_kept = n_kept
        self._halves: OrderedDict[tuple[str, _Window], tuple[bool, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._halves)

    def begin(
        self, partition: int, batches: Iterable[Batch], at_ms: float
    ) -> list[tuple[str, float]]:
        """Ingest sent these at `at_ms`; (network, latency in ms) of each pair that is complete."""
        return [
            pair
            for batch in batches
            if batch.kind is Kind.SPIKES
            for network in batch.networks
            for pair in self._meet(network, partition, batch, False, at_ms)
        ]

    def end(
        self, network: str, partition: int, batches: Iterable[Batch], at_ms: float
    ) -> list[tuple[str, float]]:
        """The readout of `network` sent these at `at_ms`; as in `begin`."""
        return [
            pair
            for batch in batches
            if batch.kind is Kind.SPIKES
            for pair in self._meet(network, partition, batch, True, at_ms)
        ]

    def _meet(
        self, network: str, partition: int, batch: Batch, is_end: bool, at_ms: float
    ) -> list[tuple[str, float]]:
        key = (network, _Window(partition, batch.stream, batch.window))
        other = self._halves.setdefault(key, (is_end, at_ms))
        if other[0] == is_end:
            while len(self._halves) > self._n_kept:
                self._halves.popitem(last=False)
            return []
        del self._halves[key]
        return [(network, max(0.0, at_ms - other[1] if is_end else other[1] - at_ms))]


def latency_bucket(latency_ms: float) -> int:
    """The bucket that a latency is counted in."""
    return bisect_left(LATENCY_EDGES_MS, latency_ms)


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """Windows of one network whose result came in one window of time.

    Latencies are from ingest's frame to the result's, by the timestamps of their records; each is
    the upper end of its bucket. None: there was none, or it is above the last edge.
    """

    network: str
    windows: int
    p50_ms: float | None
    p99_ms: float | None


def network_row(network: str, counts: Iterable[Sequence[int]]) -> NetworkRow:
    """Latencies of a network from its counts per bucket, one sequence for each partition."""
    total = [sum(bucket) for bucket in zip(*counts, strict=True)]
    return NetworkRow(network, sum(total), _quantile(total, 0.5), _quantile(total, 0.99))


def _quantile(counts: Sequence[int], q: float) -> float | None:
    """The upper end of the bucket in which the quantile lies."""
    below = 0
    for edge, count in zip(LATENCY_EDGES_MS, counts, strict=False):
        below += count
        if count and below >= q * sum(counts):
            return float(edge)
    return None


# The whole


@dataclass(frozen=True, slots=True)
class Report:
    """One window of time, [start, start + seconds) of Kafka's timestamps, in seconds."""

    start: float
    seconds: float
    groups: tuple[GroupRow, ...]
    networks: tuple[NetworkRow, ...]
    bad_frames: int = 0
    """Records since the monitor began that were no frames."""

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    def tables(self) -> Mapping[str, Sequence[tuple[str, ...]]]:
        """Title -> rows of text, the first one being the heads of the columns."""
        return {
            "Synapse groups": [
                ("group", "layers", "rate", "state", "batches", "lag\nwindows", "lag\nrecords"),
                *map(_group_cells, self.groups),
            ],
            "Networks": [
                ("network", "windows/s", "p50", "p99"),
                *(_network_cells(row, self.seconds) for row in self.networks),
            ],
        }


def _group_cells(row: GroupRow) -> tuple[str, ...]:
    rate = f"{row.rate:.4f}" if row.steps else "-"
    lags = ("?" if lag is None else str(lag) for lag in (row.lag_windows, row.lag_records))
    place = f"{row.operator[:_SHORT]}/{row.group}"
    return (place, row.label, rate, row.state, str(row.batches), *lags)


def _network_cells(row: NetworkRow, seconds: float) -> tuple[str, ...]:
    quantiles = (
        f"up to {edge:g} ms" if edge is not None else f"over {LATENCY_EDGES_MS[-1]:,} ms"
        for edge in (row.p50_ms, row.p99_ms)
    )
    shown = quantiles if row.windows else ("-", "-")
    return (row.network, f"{row.windows / seconds:.1f}", *shown)
