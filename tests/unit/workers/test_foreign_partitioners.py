"""Streams whose producer chose another partition than this project would."""

from dataclasses import replace

from loadtest.simulation.numbers import FakeEncode
from router.records import Data, Era, record_key
from router.topics import partition_of
from tests.unit.workers.test_feed import SPEC, record
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.tenant import Feed, Limits

N = 4
NAMES = [f"s{n}" for n in range(20)]


def counted(n_partitions: int, *, request: bool) -> int:
    """How many of NAMES, all in one partition, are said to be of another partitioner."""
    limits = replace(Limits(), n_partitions=n_partitions)
    ingest = Ingest(SPEC, FakeEncode(), limits, Fresh(era=7, log_start=0, log_end=1))
    Feed(ingest, [record(0, Era(7, 0, ("n",)))]).go()
    said = [
        Data(name, payload=b"1", dtype="uint8", shape=(1,), end=not request, request=request)
        for name in NAMES
    ]
    records = [record(0, Era(7, 0, ("n",)))]
    records += [record(n, data)._replace(key=record_key(data)) for n, data in enumerate(said, 1)]
    Feed(ingest, records).go()
    assert ingest.counts["dead_letters_total"] == 0
    return ingest.counts["foreign_partitioner_streams_total"]


def test_streams_of_another_partitioner_are_counted() -> None:
    elsewhere = sum(partition_of(name, N) != SPEC.partition for name in NAMES)
    assert 0 < elsewhere < len(NAMES)
    assert counted(N, request=False) == elsewhere


def test_requests_are_one_record_and_may_be_anywhere() -> None:
    assert counted(N, request=True) == 0


def test_nothing_is_counted_where_the_number_of_partitions_is_not_known() -> None:
    assert counted(0, request=False) == 0
