"""Rates, silent and saturated groups, lag and latency, from frames and timestamps alone."""

import numpy as np
import pytest

from router.activity import (
    LATENCY_EDGES_MS,
    Activity,
    Group,
    Journeys,
    Report,
    activity_of,
    group_rows,
    groups_of,
    latency_bucket,
    network_row,
)
from router.payload import PayloadError, pack
from router.status import TaskRow
from router.wire import Batch, Frame, Kind, StreamId
from topologies.compiler import Capacity, compile_network
from topologies.loader import load_network

OPERATOR = "a" * 32
PLACE = (OPERATOR, 0)


def batch(n_spikes: int = 0, **changes: object) -> Batch:
    cells = np.zeros((1, 4, 10), np.uint8)
    cells.reshape(-1)[:n_spikes] = 1
    plain = Batch("b" * 32, StreamId(1, 0), "s", ("net",), 0, 0, 0, 4, payload=pack(cells, 0, 1)[0])
    return plain._replace(**changes)  # type: ignore[arg-type]


def row(activity: Activity, kind: str = "synaptic", n_neurons: int = 10) -> tuple[float, str]:
    (found,) = group_rows({PLACE: Group(n_neurons, kind, "lif1")}, [(*PLACE, activity)])
    return found.rate, found.state


def task(partition: int, windows: int | None, records: int | None) -> TaskRow:
    name = f"{OPERATOR}/0/{partition}@0"
    return TaskRow(name, "synaptic", "w", records, windows, 1, 100, "", served=True)


def test_activity_counts_spikes_and_steps_of_all_streams_but_no_notices() -> None:
    kill = batch(kind=Kind.KILL, payload=b"", error="late")
    frame = Frame(OPERATOR, 0, [batch(3), batch(5, stream=StreamId(1, 1)), kill])
    assert activity_of(frame) == Activity(batches=2, steps=8, spikes=8)


def test_a_damaged_payload_is_not_counted_as_silence() -> None:
    with pytest.raises(PayloadError):
        activity_of(Frame(OPERATOR, 0, [batch(payload=b"\xff")]))


def test_a_rate_is_in_spikes_per_neuron_and_step() -> None:
    assert row(Activity(batches=2, steps=8, spikes=8)) == (0.1, "")


@pytest.mark.parametrize(
    ("activity", "kind", "state"),
    [
        (Activity(1, 4, 0), "synaptic", "silent"),
        (Activity(1, 4, 0), "ingest", "silent"),
        (Activity(0, 0, 0), "synaptic", ""),
        (Activity(1, 4, 35), "synaptic", ""),
        (Activity(1, 4, 36), "synaptic", "saturated"),
        (Activity(1, 4, 40), "ingest", ""),
    ],
)
def test_a_group_without_spikes_is_silent_and_one_that_nearly_always_fires_saturated(
    activity: Activity, kind: str, state: str
) -> None:
    assert row(activity, kind)[1] == state


def test_partitions_of_a_group_are_added_up_and_its_largest_lag_is_shown() -> None:
    groups = {PLACE: Group(10, "synaptic", "lif1"), (OPERATOR, 1): Group(4, "synaptic", "lif1")}
    counts = [(*PLACE, Activity(1, 4, 2)), (*PLACE, Activity(1, 4, 6))]
    tasks = [task(0, 3, 9), task(1, 5, None)]
    first, second = group_rows(groups, counts, tasks)
    assert (first.batches, first.rate) == (2, 0.1)
    assert (first.lag_windows, first.lag_records) == (5, 9)
    assert (second.steps, second.lag_windows) == (0, None)


def test_groups_of_a_network_stand_in_its_order_and_cover_all_but_the_readout() -> None:
    network = compile_network(load_network("scnn_digits"), capacity=Capacity(neurons=256))
    groups = groups_of([network, network])
    order = [node.operator for node in network.nodes.values() if node.id != network.readout]
    assert list(dict.fromkeys(operator for operator, _ in groups)) == order
    for operator in order:
        mine = [group.n_neurons for (owner, _), group in groups.items() if owner == operator]
        assert sum(mine) == network.summaries[operator].output.n


def test_latency_is_from_ingest_to_result_whichever_is_seen_first() -> None:
    journeys = Journeys()
    late = batch(window=1)
    assert journeys.begin(2, [batch()], 1000.0) == []
    assert journeys.end("net", 2, [batch()], 1030.0) == [("net", 30.0)]
    assert journeys.end("net", 2, [late], 1090.0) == []
    assert journeys.begin(2, [late], 1050.0) == [("net", 40.0)]
    assert len(journeys) == 0


def test_each_network_of_a_shared_stream_has_its_own_latency() -> None:
    journeys = Journeys()
    journeys.begin(0, [batch(networks=("a", "b"))], 0.0)
    assert journeys.end("b", 0, [batch()], 7.0) == [("b", 7.0)]
    assert journeys.end("a", 0, [batch()], 9.0) == [("a", 9.0)]


def test_windows_of_other_partitions_and_notices_are_no_pair() -> None:
    journeys = Journeys()
    journeys.begin(0, [batch()], 0.0)
    assert journeys.end("net", 1, [batch()], 5.0) == []
    assert journeys.end("net", 0, [batch(kind=Kind.ABORT, payload=b"")], 5.0) == []


def test_of_repeats_the_first_counts() -> None:
    journeys = Journeys()
    journeys.begin(0, [batch()], 10.0)
    journeys.begin(0, [batch()], 50.0)
    assert journeys.end("net", 0, [batch()], 60.0) == [("net", 50.0)]


def test_windows_that_never_end_are_forgotten_the_oldest_first() -> None:
    journeys = Journeys(n_kept=3)
    for window in range(5):
        journeys.begin(0, [batch(window=window)], float(window))
    assert len(journeys) == 3
    assert journeys.end("net", 0, [batch(window=2)], 9.0) == [("net", 7.0)]


def test_quantiles_are_the_upper_ends_of_their_buckets() -> None:
    counts = [0] * (len(LATENCY_EDGES_MS) + 1)
    for latency in (0.5, 3.0, 3.0, 5.0, 18.0):
        counts[latency_bucket(latency)] += 1
    found = network_row("net", [counts, [0] * len(counts)])
    assert (found.windows, found.p50_ms, found.p99_ms) == (5, 5.0, 20.0)


def test_a_latency_above_the_last_bucket_has_no_upper_end() -> None:
    counts = [0] * (len(LATENCY_EDGES_MS) + 1)
    counts[latency_bucket(1e6)] += 1
    assert network_row("net", [counts]).p99_ms is None
    report = Report(0.0, 2.0, (), (network_row("net", [counts]),))
    assert report.tables()["Networks"][1] == ("net", "0.5", "over 10,000 ms", "over 10,000 ms")


def test_what_was_not_seen_is_shown_as_such_and_not_as_zero() -> None:
    groups = group_rows({PLACE: Group(10, "synaptic", "lif1")}, [])
    none = network_row("net", [[0] * (len(LATENCY_EDGES_MS) + 1)])
    tables = Report(0.0, 5.0, groups, (none,)).tables()
    assert tables["Synapse groups"][1] == ("aaaaaaaa/0", "lif1", "-", "", "0", "?", "?")
    assert tables["Networks"][1] == ("net", "0.0", "-", "-")
