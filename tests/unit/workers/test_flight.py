"""Micro-batches of an input: what goes together, and when the next one waits (18)."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from loadtest.simulation.numbers import FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import Data, Era, encode_record
from router.topics import in_topic
from workers.eras import Fresh
from workers.flight import Flight
from workers.ingest import Ingest, IngestWork
from workers.reading import Record
from workers.spec import IngestSpec
from workers.tenant import Limits

_SPECS = layout(build("chain", 4), ("n",), 1).specs.values()
_SPEC = next(spec for spec in _SPECS if isinstance(spec, IngestSpec))
_ERA = 7


def _crowded(flight: Flight) -> bool:
    return flight.is_crowded


def test_windows_wait_for_each_other_while_a_small_micro_batch_is_on_its_way() -> None:
    flight = Flight()
    assert not _crowded(flight)
    flight.depart(3, 30)
    assert _crowded(flight)
    flight.land(2, 20)
    assert _crowded(flight)
    flight.land(1, 10)
    assert not _crowded(flight)
    assert flight.n_bytes == 0


def test_a_second_micro_batch_goes_after_a_large_one() -> None:
    flight = Flight()
    flight.depart(64, 1)
    assert not _crowded(flight)
    flight.depart(1, 1)
    assert _crowded(flight)
    flight.land(64, 1)
    assert _crowded(flight), "the small one is still on its way"


def test_a_micro_batch_of_nothing_is_not_on_its_way() -> None:
    flight = Flight()
    flight.depart(0, 0)
    assert not flight.is_crowded


@given(st.lists(st.integers(0, 40)), st.randoms())
def test_nothing_is_on_its_way_when_all_is_confirmed(sizes: list[int], random: Random) -> None:
    flight = Flight()
    left = sum(sizes)
    for size in sizes:
        flight.depart(size, 10 * size)
    while left:
        n = random.randint(1, left)
        flight.land(n, 10 * n)
        left -= n
    assert (flight.n_batches, flight.n_bytes) == (0, 0)


def test_what_lands_before_its_micro_batch_is_complete_is_not_counted_twice() -> None:
    flight = Flight()
    flight.land(1, 10)
    flight.depart(1, 10)
    assert (flight.n_batches, flight.n_bytes) == (0, 0)


def _record(name: str, seq: int, n: int) -> Data:
    return Data(
        name, ("n",), payload=b"1", dtype="uint8", shape=(1,), seq=seq, end=seq == n - 1
    )  # fmt: skip


def _ingest(*n_periods: int, limits: Limits) -> Ingest:
    """An input with a stream of so many windows each."""
    ingest = Ingest(_SPEC, FakeEncode(), limits, Fresh(_ERA, 0, 0))
    said: list[Data | Era] = [
        Era(_ERA, 0, ("n",)),
        *(_record(f"s{i}", seq, n) for i, n in enumerate(n_periods) for seq in range(n)),
    ]
    for offset, each in enumerate(said):
        key = each.name.encode() if isinstance(each, Data) else None
        assert ingest.receive(Record(in_topic("x"), offset, 0, key, encode_record(each)))
    ingest.take_seeks()
    return ingest


def _windows(work: IngestWork | None) -> list[tuple[str, int]]:
    pairs = () if work is None else zip(work.flows, work.cuts, strict=True)
    return [(flow.name, cut.window) for flow, cut in pairs]


def test_windows_of_a_stream_go_in_one_micro_batch_after_the_first_of_every_stream() -> None:
    ingest = _ingest(3, 1, 2, limits=Limits())
    first = [("s0", 0), ("s1", 0), ("s2", 0)]
    assert _windows(ingest.work()) == [*first, ("s0", 1), ("s2", 1), ("s0", 2)]


def test_a_stream_has_no_more_windows_on_their_way_than_it_may() -> None:
    ingest = _ingest(5, limits=Limits(stream_windows=2))
    work = ingest.work()
    assert _windows(work) == [("s0", 0), ("s0", 1)]
    assert work is not None
    ingest.apply(work, ingest.compute(work))
    assert ingest.work() is None
    assert not ingest.is_crowded, "what may not go does not gather"


def test_an_input_is_crowded_only_while_windows_wait() -> None:
    ingest = _ingest(1, 1, limits=Limits(max_batch=1))
    assert not ingest.is_crowded
    for crowded in (True, False):
        work = ingest.work()
        assert work is not None
        ingest.apply(work, ingest.compute(work))
        assert ingest.is_crowded == crowded
