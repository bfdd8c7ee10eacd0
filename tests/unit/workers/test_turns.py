import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import Data, Era, encode_record
from router.topics import in_topic
from router.wire import Batch, Frame, Kind, StreamId, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.spec import IngestSpec, TaskSpec
from workers.task import Task
from workers.tenant import Limits
from workers.turns import SHARED_BATCH, FairQueue, fair_batch, in_turn

_ERA = 100
_SPECS = tuple(layout(build("shared", 4), ("n", "m"), 1).specs.values())
_SHARED = next(s for s in _SPECS if isinstance(s, TaskSpec) and s.places[0].networks == {"n", "m"})
_INGEST = next(s for s in _SPECS if isinstance(s, IngestSpec))
_FLOOD = 40


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers())))
def test_turns_change_only_the_order_between_keys(items: list[tuple[str, int]]) -> None:
    turned = list(in_turn(items, lambda item: item[0]))
    for key in "abc":
        assert [i for i in turned if i[0] == key] == [i for i in items if i[0] == key]


def test_a_rare_key_comes_in_the_first_round() -> None:
    items = [("flood", i) for i in range(100)] + [("rare", 0), ("rare", 1)]
    turned = list(in_turn(items, lambda item: item[0]))
    assert [turned.index(("rare", i)) for i in range(2)] == [1, 3]


def _frame(offset: int, number: int, network: str) -> Record:
    (source,) = _SHARED.places[0].sources
    batch = Batch(
        source.node, StreamId(_ERA, number), f"s{number}", (network,), 0, 0, 0, 1,
        kind=Kind.SPIKES, payload=struct.pack("<I", 7),
    )  # fmt: skip
    value = encode_frame(Frame(source.operator, 0, [batch]))
    return Record(_SHARED.topics[0], offset, 0, None, value)


def _flooded() -> Task:
    """A shared task with forty windows of one network ready, and then one of the other."""
    task = Task(_SHARED, FakeCompute(_SHARED, False, None, frozenset()), Limits(max_batch=256))
    for i in range(_FLOOD):
        task.receive(_frame(i, i, "m"))
    task.receive(_frame(_FLOOD, _FLOOD, "n"))
    return task


def test_a_flood_through_a_shared_task_leaves_its_neighbour_in_the_next_micro_batch() -> None:
    work = _flooded().work()
    assert work is not None
    assert [w.stream.routes for w in work.windows].count(("n",)) == 1


def test_a_flood_does_not_make_its_neighbours_micro_batch_long() -> None:
    work = _flooded().work()
    assert work is not None
    assert [w.stream.routes for w in work.windows].count(("m",)) == 1


def test_micro_batches_of_a_shared_task_are_small_though_one_network_fills_them() -> None:
    task = _flooded()
    first = task.work()
    assert first is not None
    task.apply(first, task.compute(first))
    second = task.work()
    assert second is not None
    assert {w.stream.routes for w in second.windows} == {("m",)}
    assert len(second.windows) == SHARED_BATCH < _FLOOD - 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers())))
def test_a_fair_batch_has_as_many_of_each_key_as_there_are_of_the_rarest(
    items: list[tuple[str, int]],
) -> None:
    counts = Counter(key for key, _ in fair_batch(items, lambda item: item[0]))
    rarest = min(Counter(key for key, _ in items).values(), default=0)
    n_keys = len({key for key, _ in items})
    if rarest * n_keys <= SHARED_BATCH:
        assert set(counts.values()) <= {rarest}
    assert counts.total() == min(rarest * n_keys, SHARED_BATCH)
    assert max(counts.values(), default=0) - min(counts.values(), default=0) <= 1


def test_a_flood_through_a_shared_input_leaves_its_neighbour_in_the_next_micro_batch() -> None:
    ingest = Ingest(_INGEST, FakeEncode(), Limits(max_batch=8), Fresh(_ERA, 0, 0))
    said: list[Data | Era] = [Era(_ERA, 0, ("n", "m"))]
    for i in range(_FLOOD + 1):
        networks = ("m",) if i < _FLOOD else ("n",)
        said.append(Data(f"s{i}", networks, payload=b"1", dtype="uint8", shape=(1,), end=True))
    for offset, each in enumerate(said):
        key = each.name.encode() if isinstance(each, Data) else None
        assert ingest.receive(Record(in_topic("x"), offset, 0, key, encode_record(each)))
    ingest.take_seeks()
    work = ingest.work()
    assert work is not None
    assert [flow.routes for flow in work.flows].count(("n",)) == 1


def _order(queue: FairQueue[str], cost: float = 1.0) -> list[str]:
    """Serve all items; an item is named after its party."""
    order = []
    while len(queue):
        order.append(queue.take())
        queue.charge({order[-1]: 1.0}, cost)
    return order


def test_parties_are_served_equally_whatever_waits() -> None:
    queue: FairQueue[str] = FairQueue()
    for party in "aaaabb":
        queue.put(party, party)
    assert _order(queue) == list("ababaa")


def test_a_party_that_was_away_saves_nothing_up() -> None:
    queue: FairQueue[str] = FairQueue()
    for party in "aaaa":
        queue.put(party, party)
    assert _order(queue) == list("aaaa")
    for party in "aabb":
        queue.put(party, party)
    assert _order(queue) == list("baba")


def test_an_item_of_several_parties_goes_with_the_one_that_was_served_least() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "first")
    queue.take()
    queue.charge({"a": 1.0}, 1.0)
    queue.put("a", "alone")
    queue.put("ab", "both")
    assert queue.take() == "both"


def test_a_shared_item_is_charged_to_its_parties_by_their_shares() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.charge({"a": 3.0, "b": 1.0}, 1.0)
    for party in "ab":
        queue.put(party, party)
    assert [queue.take(), queue.take()] == ["b", "a"]


def test_nothing_is_taken_from_an_empty_queue() -> None:
    with pytest.raises(ValueError, match="empty"):
        FairQueue[str]().take()
