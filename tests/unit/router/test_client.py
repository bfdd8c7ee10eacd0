"""What the client library does without a broker: who waits goes on, and no loop ends unseen."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from router.client import Position, Publisher, PublishFailed, ReaderFailed, ResultReader
from router.fetching import Fetched
from router.seals import SEAL_HEADER, Keyring, Signed
from router.topics import DEAD_LETTER


class HeldPublisher(Publisher):
    """Records leave when they are told to."""

    def __init__(self, **limits: int) -> None:
        super().__init__("nowhere:1", 1, **limits)  # type: ignore[arg-type]
        self._open = True

    async def _drain(self, lane: Any) -> None:
        return

    def acknowledge(self, n: int) -> None:
        (lane,) = self._lanes.values()
        self._acknowledge([lane.items.popleft() for _ in range(n)], Position(0, 0))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def waiters(publisher: Publisher, n: int, size: int = 1) -> list[asyncio.Task[Any]]:
    value = b"x" * size
    return [asyncio.create_task(publisher.send("t", None, value, 0)) for _ in range(n)]


async def test_a_waiter_that_is_cancelled_as_it_is_woken_wakes_the_next() -> None:
    publisher = HeldPublisher(max_in_flight=1)
    await publisher.send("t", None, b"x", 0)
    first, second = waiters(publisher, 2)
    await turn()
    publisher.acknowledge(1)
    first.cancel()
    await turn()
    assert first.cancelled()
    assert second.done()


async def test_a_waiter_that_had_gone_takes_no_wake_up() -> None:
    publisher = HeldPublisher(max_in_flight=1)
    await publisher.send("t", None, b"x", 0)
    first, second = waiters(publisher, 2)
    await turn()
    first.cancel()
    publisher.acknowledge(1)
    await turn()
    assert second.done()


async def test_one_large_record_makes_room_for_all_that_fit() -> None:
    publisher = HeldPublisher(max_in_flight_bytes=100)
    await publisher.send("t", None, b"x" * 100, 0)
    small = waiters(publisher, 5, 10)
    await turn()
    assert not any(task.done() for task in small)
    publisher.acknowledge(1)
    await turn()
    assert all(task.done() for task in small)


async def test_no_more_go_on_than_there_is_room_for() -> None:
    publisher = HeldPublisher(max_in_flight=2)
    await publisher.send("t", None, b"x", 0)
    await publisher.send("t", None, b"x", 0)
    tasks = waiters(publisher, 5)
    await turn()
    publisher.acknowledge(2)
    await turn()
    assert sum(task.done() for task in tasks) == 2
    assert publisher.in_flight == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not publisher._waiting


class FaultyPublisher(Publisher):
    """Its first batch meets a fault that nobody has foreseen."""

    def __init__(self) -> None:
        super().__init__("nowhere:1", 1)
        self._open = True
        self.n_sent = 0

    async def _live_producer(self) -> Any:
        return None

    async def _send(self, lane: Any, producer: Any, batch: Any) -> Position:
        self.n_sent += 1
        if self.n_sent == 1:
            raise RuntimeError("a fault")
        return Position(0, 7)


async def test_a_fault_of_one_batch_fails_it_and_no_other_of_its_partition() -> None:
    publisher = FaultyPublisher()
    large = b"x" * 200_000  # each a batch of its own
    first = await publisher.send("t", None, large, 0)
    second = await publisher.send("t", None, large, 0)
    async with asyncio.timeout(5):
        with pytest.raises(PublishFailed, match="a fault"):
            await first
        assert await second == Position(0, 7)


class FaultyReader(ResultReader):
    """Its reading meets a fault as often as it is told to."""

    def __init__(self, faults: int) -> None:
        super().__init__("nowhere:1", 1)
        self.faults = faults
        self.n_reads = 0

    async def _read_anew(self) -> None:
        self.n_reads += 1
        if self.faults:
            self.faults -= 1
            raise RuntimeError("a fault")
        await asyncio.Event().wait()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between two attempts take no time."""
    monkeypatch.setattr("router.loops._FIRST_PAUSE_S", 0.0)


async def test_reading_goes_on_after_a_fault_and_tells_of_it(quick: None) -> None:
    reader = FaultyReader(faults=1)
    reader._begin()
    async with asyncio.timeout(5):
        while reader.n_reads < 2:
            await asyncio.sleep(0)
    reader.check_reading()
    assert reader.keeper.n_restarts == 1
    assert "a fault" in reader.keeper.trouble
    assert not reader.keeper.given_up
    await reader.__aexit__(None, None, None)


async def test_reading_that_fails_again_and_again_is_given_up_and_who_waits_is_told(
    quick: None,
) -> None:
    reader = FaultyReader(faults=10**9)
    reader.table.follow("n", None)
    reader._inputs["n"] = "n"
    reader._begin()
    async with asyncio.timeout(5):
        with pytest.raises(ReaderFailed, match="a fault"):
            await reader.result("stream", 60.0, network="n")
    assert reader.keeper.given_up
    await reader.__aexit__(None, None, None)


def _under(by: int, key: bytes, offset: int) -> Any:
    seal = Keyring({by: key}).seal(Signed(DEAD_LETTER, 0, None, b"?"))
    return SimpleNamespace(offset=offset, key=None, value=b"?", headers=((SEAL_HEADER, seal),))


async def test_a_flood_of_unknown_keys_is_looked_up_once_per_fetch() -> None:
    ours, theirs, keys, place = b"\1" * 32, b"\2" * 32, Keyring(), TopicPartition(DEAD_LETTER, 0)
    asked: list[int] = []

    async def learn() -> None:
        asked.append(1)
        if len(asked) == 2:  # a deployment has begun the very key that somebody had guessed
            keys.learn({1099: ours})

    reader = ResultReader("nowhere:1", 1, keys=keys, learn_keys=learn)
    flood = [_under(1000 + n, theirs, n) for n in range(100)]
    await reader._take_all(Fetched({place: flood}, {}, (), {}))
    assert (len(asked), reader.counters()["unsealed"]) == (1, 100)
    await reader._take_all(Fetched({place: [_under(1099, ours, 100)]}, {}, (), {}))
    assert (len(asked), reader.counters()["unsealed"]) == (2, 100)
