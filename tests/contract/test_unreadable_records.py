"""What cannot be read is passed over and told of its own place; all others go on (PROTOCOL 9)."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from aiokafka.protocol.fetch import FetchRequest
from confluent_kafka import Producer

from loadtest.faults.raw_batches import CODECS, append_raw, batch
from router.bus import Bus, Place
from router.client import Publisher, ResultReader, partition_of
from router.fetching import Unreadable
from router.payload import pack_result
from router.settings import EMBEDDED_PARTITIONS, Settings
from router.topics import out_topic
from router.wire import Batch, Frame, StreamId, encode_frame

_DEADLINE_S: Final = 30.0
FreshName = Callable[[str], str]

GARBAGE: Final = {
    "a codec that there is not": batch(b"a", b"b", codec=7),
    "no gzip": batch(b"a", b"b", codec=CODECS["gzip"], content=b"garbage" * 9),
    "no snappy": batch(b"a", b"b", codec=CODECS["snappy"], content=b"garbage" * 9),
    "no lz4": batch(b"a", b"b", codec=CODECS["lz4"], content=b"garbage" * 9),
    "no zstd": batch(b"a", b"b", codec=CODECS["zstd"], content=b"garbage" * 9),
    "no records": batch(b"a", b"b", content=b"\xff" * 40),
    "a wrong checksum": batch(b"a", b"b", wrong_crc=True),
}


class _Heard:
    """What a bus gave of each place, until there was enough of it."""

    def __init__(self, bus: Bus) -> None:
        self.values: dict[Place, list[bytes]] = {}
        self.offsets: dict[Place, list[int]] = {}
        self.unreadable: dict[Place, list[Unreadable]] = {}
        self.positions: dict[Place, int] = {}
        self._bus = bus

    async def until(self, is_enough: Callable[["_Heard"], object]) -> None:
        async with asyncio.timeout(_DEADLINE_S):
            while not is_enough(self):
                polled = await self._bus.poll(100)
                for place, records in polled.records.items():
                    self.values.setdefault(place, []).extend(r.value for r in records)
                    self.offsets.setdefault(place, []).extend(r.offset for r in records)
                self.positions.update(polled.positions)
                for place, gap in polled.unreadable.items():
                    self.unreadable.setdefault(place, []).append(gap)
                    self.positions[place] = gap.stop


class _Refusals:
    """Answers of a broker that says an error of one place."""

    def __init__(self, bus: Bus, place: Place, code: int) -> None:
        self.is_over = False
        self.n = 0
        self._plain = bus._fetching._ask
        self._place = place
        self._code = code

    async def send(self, node: int, request: Any, **options: Any) -> Any:
        response = await self._plain(node, request, **options)
        if isinstance(request, FetchRequest) and not self.is_over:
            response.topics = [(topic, [self._said(topic, *part) for part in partitions])
                               for topic, partitions in response.topics]  # fmt: skip
        return response

    def _said(self, topic: str, partition: int, code: int, *rest: Any) -> tuple[Any, ...]:
        if (topic, partition) != self._place:
            return (partition, code, *rest)
        self.n += 1
        return (partition, self._code, *rest)


async def _send(bus: Bus, place: Place, *values: bytes) -> None:
    for value in values:
        await (await bus.send(place.topic, None, place.partition, value))


def _compressed(bootstrap: str, codec: str, topic: str, *values: bytes) -> None:
    """As any producer may write: one batch of them, compressed."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 50}
    )
    failed: list[Any] = []
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda e, _: failed.append(e))
    assert producer.flush(_DEADLINE_S) == 0
    assert not any(failed)


@pytest.mark.parametrize("codec", sorted(CODECS))
async def test_records_of_each_of_kafkas_codecs_are_read(
    kafka: str, settings: Settings, fresh_name: FreshName, codec: str
) -> None:
    place = Place(fresh_name(codec), 0)
    values = [b"%d " % n * 500 for n in range(3)]
    async with Bus(settings) as bus:
        await bus.ensure([place.topic], EMBEDDED_PARTITIONS)
        await asyncio.to_thread(_compressed, kafka, codec, place.topic, *values)
        bus.read({place: 0})
        heard = _Heard(bus)
        await heard.until(lambda h: len(h.values.get(place, ())) == len(values))
    assert heard.values[place] == values
    assert not heard.unreadable


@pytest.mark.parametrize("what", sorted(GARBAGE))
async def test_a_batch_that_nobody_can_read_is_passed_over_and_all_else_is_read(
    embedded_kafka: str, fresh_name: FreshName, what: str
) -> None:
    """The embedded broker takes any bytes, as a disk may give back any."""
    bad, good = Place(fresh_name("bad"), 0), Place(fresh_name("good"), 0)
    async with Bus(Settings.load().on_embedded(embedded_kafka)) as bus:
        await bus.ensure([bad.topic, good.topic], EMBEDDED_PARTITIONS)
        await _send(bus, bad, b"before")
        assert await append_raw(embedded_kafka, bad.topic, 0, GARBAGE[what]) == ""
        await _send(bus, bad, b"behind")
        await _send(bus, good, b"one", b"two")
        bus.read({bad: 0, good: 0})
        heard = _Heard(bus)
        await heard.until(lambda h: h.positions.get(bad) == 4 and h.positions.get(good) == 2)
        await _send(bus, good, b"three")
        await heard.until(lambda h: h.positions.get(good) == 3)
        assert not bus.faults
    assert heard.values == {bad: [b"before", b"behind"], good: [b"one", b"two", b"three"]}
    assert heard.offsets[bad] == [0, 3]
    (gap,) = heard.unreadable[bad]
    assert (gap.first, gap.stop) == (1, 3)
    assert gap.is_intact == (what != "a wrong checksum")
    assert bus.counts["batches_unreadable_total"] == 1


async def test_what_a_broker_takes_of_garbage_is_passed_over_too(
    kafka: str, settings: Settings, fresh_name: FreshName
) -> None:
    place = Place(fresh_name("garbage"), 0)
    async with Bus(settings) as bus:
        await bus.ensure([place.topic], EMBEDDED_PARTITIONS)
        taken = [what for what, data in GARBAGE.items()
                 if not await append_raw(kafka, place.topic, 0, data)]  # fmt: skip
        await _send(bus, place, b"behind")
        bus.read({place: 0})
        heard = _Heard(bus)
        await heard.until(lambda h: place in h.values)
    assert heard.values == {place: [b"behind"]}
    assert len(heard.unreadable.get(place, ())) == len(taken)


async def test_records_before_a_damaged_one_in_its_batch_are_read(
    embedded_kafka: str, fresh_name: FreshName
) -> None:
    place = Place(fresh_name("partly"), 0)
    whole = batch(b"first", b"second")
    at = whole.index(b"second") - 5  # the length of the second record's value, and what is before
    content = whole[61:at] + b"\xff" * (len(whole) - at)
    async with Bus(Settings.load().on_embedded(embedded_kafka)) as bus:
        await bus.ensure([place.topic], EMBEDDED_PARTITIONS)
        damaged = batch(b"first", b"second", content=content)
        assert await append_raw(embedded_kafka, place.topic, 0, damaged) == ""
        await _send(bus, place, b"behind")
        bus.read({place: 0})
        heard = _Heard(bus)
        await heard.until(lambda h: h.positions.get(place) == 3)
    assert heard.values[place] == [b"first", b"behind"]
    assert [(gap.first, gap.stop) for gap in heard.unreadable[place]] == [(1, 2)]


@pytest.mark.parametrize(
    ("code", "told"),
    [(29, "this user may not read"), (-1, "UnknownError"), (2, "CorruptRecord")],
    ids=["not allowed", "unknown", "corrupt at the broker"],
)
async def test_a_place_that_the_broker_gives_to_nobody_is_named_and_read_once_it_does(
    embedded_kafka: str, fresh_name: FreshName, monkeypatch: pytest.MonkeyPatch,
    code: int, told: str,
) -> None:  # fmt: skip
    bad, good = Place(fresh_name("kept"), 0), Place(fresh_name("given"), 0)
    async with Bus(Settings.load().on_embedded(embedded_kafka)) as bus:
        await bus.ensure([bad.topic, good.topic], EMBEDDED_PARTITIONS)
        for place in (bad, good):
            await _send(bus, place, b"one")
        refusals = _Refusals(bus, bad, code)
        monkeypatch.setattr(bus._fetching, "_ask", refusals.send)
        bus.read({bad: 0, good: 0})
        heard = _Heard(bus)
        await heard.until(lambda h: h.positions.get(good) == 1 and bad in bus.faults)
        assert told in bus.faults[bad]
        n_asked = refusals.n
        await _send(bus, good, *[b"more"] * 20)
        await heard.until(lambda h: h.positions.get(good) == 21)
        assert refusals.n - n_asked < 20  # it is not asked again at once, for ever
        refusals.is_over = True
        await heard.until(lambda h: h.values.get(bad) == [b"one"])
        assert bad not in bus.faults
    assert not heard.unreadable


async def test_results_behind_what_nobody_can_read_are_read(
    embedded_kafka: str, fresh_name: FreshName
) -> None:
    network, name = fresh_name("net"), "s"
    sent = Batch(
        "b" * 32, StreamId(1, 0), name, (network,), 0, 0, 0, 4, end=True,
        payload=pack_result(np.asarray([[1, 2]], np.int32)),
    )  # fmt: skip
    frame, partition = encode_frame(Frame("a" * 32, 0, [sent])), partition_of(name, 4)
    async with (
        Publisher(embedded_kafka, 4) as publisher,
        ResultReader(embedded_kafka, 4, networks=[network], fetch_max_wait_ms=2) as reader,
    ):
        for what in ("a codec that there is not", "a wrong checksum"):
            bad = GARBAGE[what]
            assert await append_raw(embedded_kafka, out_topic(network), partition, bad) == ""
        await (await publisher.send(out_topic(network), None, frame, partition))
        result = await reader.result(name, _DEADLINE_S, network=network)
        assert result.error == ""
        assert reader.counters()["unreadable"] == 4
