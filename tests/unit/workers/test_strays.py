"""Records in partitions that nobody reads."""

from collections.abc import Mapping

import pytest

from workers.strays import StrayWatch


class _Bus:
    def __init__(self, held: Mapping[str, Mapping[int, int]]) -> None:
        self.topics = held

    async def held(self, topic: str, first: int) -> Mapping[int, int]:
        return {p: n for p, n in self.topics[topic].items() if p >= first}


async def test_records_beyond_the_deployed_partitions_are_found_and_told_once() -> None:
    bus = _Bus({"snn.in.a": {0: 5, 1: 5, 2: 0, 3: 7, 5: 1}, "snn.in.b": {0: 9, 1: 9}})
    watch = StrayWatch(bus, 2)
    (news,) = await watch.look(["snn.in.a", "snn.in.b"])
    assert (news.topic, news.records, news.n_records) == ("snn.in.a", {3: 7, 5: 1}, 8)
    assert news.sentence().startswith(
        "8 records of topic snn.in.a lie unread in partition 3, 5: only partitions 0 to 1 are"
    )
    assert await watch.look(["snn.in.a", "snn.in.b"]) == []
    assert list(watch.found) == ["snn.in.a"]


async def test_more_of_them_are_told_again_and_fewer_are_not() -> None:
    watch = StrayWatch(_Bus({"a": {2: 7}}), 2)
    await watch.look(["a"])
    watch._bus = _Bus({"a": {2: 3}})
    assert await watch.look(["a"]) == []
    watch._bus = _Bus({"a": {2: 4}})
    assert [s.n_records for s in await watch.look(["a"])] == [4]


async def test_what_was_found_stands_while_the_broker_is_away() -> None:
    watch = StrayWatch(_Bus({"a": {2: 7}}), 2)
    await watch.look(["a"])
    watch._bus = _Bus({})
    with pytest.raises(KeyError):
        await watch.look(["a"])
    assert watch.found["a"].n_records == 7


async def test_input_of_another_worker_is_no_longer_told() -> None:
    watch = StrayWatch(_Bus({"a": {2: 7}}), 2)
    await watch.look(["a"])
    await watch.look([])
    assert watch.found == {}
