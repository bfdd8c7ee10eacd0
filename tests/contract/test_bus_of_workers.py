"""`router.bus.Bus` keeps its word on every broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

from router.bus import Bus, BusError, Place, set_fetch_wait
from router.settings import EMBEDDED_PARTITIONS, EMBEDDED_RETENTION_BYTES, Settings

_DEADLINE_S: Final = 20.0


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    async with Bus(settings) as running:
        yield running


@pytest.fixture
async def topic(bus: Bus, fresh_name: Callable[[str], str]) -> str:
    name = fresh_name("worker-bus")
    await bus.ensure([name], EMBEDDED_PARTITIONS)
    return name


async def _send(bus: Bus, topic: str, partition: int, *values: bytes) -> None:
    for value in values:
        await (await bus.send(topic, b"op/0", partition, value))


async def _poll(bus: Bus, n_records: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(_DEADLINE_S):
        while len(found) < n_records:
            for records in (await bus.poll(100)).records.values():
                found += records
    return found


async def test_a_topic_with_too_few_partitions_is_refused(bus: Bus, topic: str) -> None:
    with pytest.raises(BusError, match="partitions"):
        await bus.ensure([topic], EMBEDDED_PARTITIONS + 1)


async def test_records_beyond_some_partitions_are_counted(bus: Bus, topic: str) -> None:
    await _send(bus, topic, 0, b"a")
    await _send(bus, topic, 3, b"a", b"b")
    assert await bus.held(topic, 2) == {2: 0, 3: 2}
    assert await bus.held(topic, EMBEDDED_PARTITIONS) == {}


async def test_reading_starts_at_the_offset_that_was_given(bus: Bus, topic: str) -> None:
    await _send(bus, topic, 2, b"a", b"b", b"c")
    bus.read({Place(topic, 2): 1})
    assert [(r.offset, r.value) for r in await _poll(bus, 2)] == [(1, b"b"), (2, b"c")]


async def test_reading_again_from_an_earlier_offset_repeats_the_records(
    bus: Bus, topic: str
) -> None:
    await _send(bus, topic, 0, b"a", b"b")
    for _ in range(2):
        bus.read({Place(topic, 0): 0})
        assert [r.value for r in await _poll(bus, 2)] == [b"a", b"b"]


async def test_bounds_are_the_first_kept_and_the_next_offset(bus: Bus, topic: str) -> None:
    await _send(bus, topic, 1, b"a", b"b")
    places = [Place(topic, 0), Place(topic, 1)]
    assert await bus.bounds(places) == {places[0]: (0, 0), places[1]: (0, 2)}


async def test_a_paused_place_yields_nothing_until_it_is_resumed(bus: Bus, topic: str) -> None:
    paused, other = Place(topic, 0), Place(topic, 1)
    bus.read({paused: 0, other: 0})
    bus.pause([paused])
    await _send(bus, topic, 0, b"held back")
    await _send(bus, topic, 1, b"read")
    assert [r.value for r in await _poll(bus, 1)] == [b"read"]
    bus.pause([])
    assert [r.value for r in await _poll(bus, 1)] == [b"held back"]


async def test_polling_with_nothing_to_read_returns_empty(bus: Bus) -> None:
    polled = await bus.poll(1)
    assert (dict(polled.records), polled.lost) == ({}, ())


async def test_a_position_beyond_the_end_is_reported_as_lost(bus: Bus, topic: str) -> None:
    place = Place(topic, 3)
    bus.read({place: 50})
    async with asyncio.timeout(_DEADLINE_S):
        while not (polled := await bus.poll(100)).lost:
            assert not polled.records
    assert polled.lost == (place,)


async def test_truncated_input_is_reported_as_lost_and_others_are_read_on(
    embedded_kafka: str, fresh_name: Callable[[str], str]
) -> None:
    settings = Settings.load().on_embedded(embedded_kafka)
    truncated, whole = Place(fresh_name("truncated"), 0), Place(fresh_name("whole"), 0)
    async with Bus(settings) as bus:
        await bus.ensure([truncated.topic, whole.topic], EMBEDDED_PARTITIONS)
        n_records = EMBEDDED_RETENTION_BYTES // settings.max_record_bytes + 2
        large = bytes(settings.max_record_bytes)
        await _send(bus, truncated.topic, 0, *[large] * n_records)
        await _send(bus, whole.topic, 0, b"kept")
        assert (await bus.bounds([truncated]))[truncated][0] > 0
        bus.read({truncated: 0, whole: 0})
        lost: set[Place] = set()
        values: list[bytes] = []
        async with asyncio.timeout(_DEADLINE_S):
            while not (lost and values):
                polled = await bus.poll(100)
                lost |= set(polled.lost)
                values += [r.value for records in polled.records.values() for r in records]
    assert (lost, values) == ({truncated}, [b"kept"])


async def test_a_reader_whose_loop_has_ended_is_replaced_where_it_stood(
    bus: Bus, topic: str
) -> None:
    place = Place(topic, 0)
    await _send(bus, topic, 0, b"a")
    bus.read({place: 0})
    assert [r.value for r in await _poll(bus, 1)] == [b"a"]
    bus._consumer._fetcher._fetch_task.cancel()
    with pytest.raises(BusError, match="by a new consumer"):
        await _poll(bus, 1)
    await _send(bus, topic, 0, b"b")
    assert [(r.offset, r.value) for r in await _poll(bus, 1)] == [(1, b"b")]


async def test_the_largest_record_of_the_settings_passes(
    bus: Bus, settings: Settings, topic: str
) -> None:
    await _send(bus, topic, 0, bytes(settings.max_record_bytes))
    bus.read({Place(topic, 0): 0})
    (record,) = await _poll(bus, 1)
    assert len(record.value) == settings.max_record_bytes


async def test_next_fetches_wait_as_long_as_they_are_told(
    bus: Bus, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.read({Place(topic, 0): 0})
    consumer = bus._consumer
    waits: list[int] = []

    async def send(node: int, request: Any, **options: Any) -> Any:
        waits.append(getattr(request, "_max_wait_ms", -1))
        return await plain(node, request, **options)

    plain = consumer._client.send
    monkeypatch.setattr(consumer._client, "send", send)
    set_fetch_wait(consumer, 7)
    async with asyncio.timeout(_DEADLINE_S):
        while 7 not in waits:
            await consumer.getmany(timeout_ms=20)
