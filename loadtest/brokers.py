"""`spikerouter bench kafka`: what Apache Kafka costs and survives, through the bus of the workers.

1. One hop: a record of 200 bytes is sent, and the next one when a consumer has it; one broker, then
   three with a copy on each.
2. Topics: a dozen are made at once, with four partitions each.
3. SIGKILL under load: 20,000 numbered records go to six partitions of three brokers, at a steady
   pace, through one idempotent producer. One broker is killed on the way and started again. Then
   every record is read back: lost, doubled, or out of order? The stop is the longest time between
   two acknowledgements of a partition that the dead broker led. Each broker is killed once, so one
   of them was the active controller. This is done with Kafka's own times and with those of
   `router.apache_config`.
"""

import asyncio
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from router.admin import create_topics
from router.apache import ApacheKafka
from router.bus import Bus, Place
from router.settings import Settings

__all__ = ["Hop", "Outage", "bench_kafka", "outage_of", "under_fire"]

_DEFAULT_TIMES: Final = {
    "broker.session.timeout.ms": "9000",
    "broker.heartbeat.interval.ms": "2000",
    "controller.quorum.fetch.timeout.ms": "2000",
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.election.backoff.max.ms": "1000",
}
_N_PARTITIONS: Final = 6
_WARM_UP: Final = 300
_KILL_AT: Final = 0.2  # of the records
_RESTART_AT: Final = 0.5
_SEND_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Hop:
    """Times of one hop in ms, and of making a dozen topics."""

    n_brokers: int
    p50_ms: float
    p99_ms: float
    topics_ms: float


@dataclass(frozen=True)
class Outage:
    """What one SIGKILL cost; `stop_ms` and `others_stop_ms` are the longest silences.

    `others_stop_ms` is that of partitions which another broker led.
    """

    times: str
    killed: int
    n_records: int
    lost: int
    doubled: int
    disordered: int
    stop_ms: float
    others_stop_ms: float


# ---- one hop ----------------------------------------------------------------------------------


async def _hops(kafka: ApacheKafka, n: int) -> Hop:
    settings = Settings.load(kafka=kafka.bootstrap)
    begin = time.perf_counter()
    await create_topics(settings, [f"bench.{k}" for k in range(12)], 4)
    topics_ms = (time.perf_counter() - begin) * 1000
    await kafka.wait_in_sync()
    async with Bus(settings) as bus:
        await bus.ensure(["bench.0"], 4)
        bus.read({Place("bench.0", 0): 0})
        times = [await _one_hop(bus) for _ in range(_WARM_UP + n)][_WARM_UP:]
    times.sort()
    return Hop(
        len(kafka.numbers),
        round(statistics.median(times), 2),
        round(times[int(0.99 * len(times))], 2),
        round(topics_ms),
    )


async def _one_hop(bus: Bus) -> float:
    """From the call of send until a consumer has the record, in ms."""
    begin = time.perf_counter()
    await bus.send("bench.0", None, 0, bytes(200))
    while not (await bus.poll(1000)).records:
        pass
    return (time.perf_counter() - begin) * 1000


# ---- SIGKILL under load -----------------------------------------------------------------------


async def under_fire(
    kafka: ApacheKafka, killed: int, *, n_records: int, rate: float, times: str, topic: str
) -> Outage:
    """Kill broker `killed` under an idempotent producer, start it again, and read back."""
    settings = Settings.load(kafka=kafka.bootstrap, send_timeout_s=_SEND_TIMEOUT_S)
    await create_topics(settings, [topic], _N_PARTITIONS)
    await kafka.wait_in_sync()
    victims = {p for p in range(_N_PARTITIONS) if await kafka.leader(topic, p) == killed}
    acknowledged: list[list[float]] = [[] for _ in range(_N_PARTITIONS)]
    async with Bus(settings) as bus:
        await bus.ensure([topic], _N_PARTITIONS)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send(bus, topic, n_records, rate, acknowledged))
            await _when(acknowledged, int(_KILL_AT * n_records))
            kafka.kill(killed)
            await asyncio.sleep((_RESTART_AT - _KILL_AT) * n_records / rate)
            group.create_task(kafka.start_broker(killed))
            await sending
        await kafka.wait_in_sync()
        found = await _read_back(bus, topic)
    stops = [_longest(each) for each in acknowledged]
    lost, doubled, disordered = outage_of(n_records, found)
    return Outage(
        times, killed, n_records, lost, doubled, disordered,
        stop_ms=round(max(stops[p] for p in victims)),
        others_stop_ms=round(max(s for p, s in enumerate(stops) if p not in victims)),
    )  # fmt: skip


def outage_of(n_records: int, found: Mapping[int, Sequence[int]]) -> tuple[int, int, int]:
    """How many of the records 0 to n-1 were lost, doubled, out of order; `found` by partition."""
    counts = Counter(number for numbers in found.values() for number in numbers)
    lost = sum(number not in counts for number in range(n_records))
    doubled = sum(count - 1 for count in counts.values())
    disordered = sum(
        later <= earlier for numbers in found.values() for earlier, later in pairwise(numbers)
    )
    return lost, doubled, disordered


async def _send(
    bus: Bus, topic: str, n_records: int, rate: float, acknowledged: list[list[float]]
) -> None:
    """Send at a steady pace, whatever is acknowledged; return when all is."""
    begin = time.perf_counter()
    waiting = []
    for number in range(n_records):
        if (ahead := begin + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        partition = number % _N_PARTITIONS
        sent = await bus.send(topic, None, partition, number.to_bytes(8, "big") + bytes(192))
        sent.add_done_callback(partial(_note, acknowledged[partition]))
        waiting.append(sent)
    await asyncio.gather(*waiting)


def _note(times: list[float], _: object) -> None:
    times.append(time.perf_counter())


async def _when(acknowledged: Sequence[Sequence[float]], n: int) -> None:
    while sum(map(len, acknowledged)) < n:
        await asyncio.sleep(0.005)


def _longest(times: Sequence[float]) -> float:
    """The longest time in ms between two acknowledgements."""
    return max(b - a for a, b in pairwise(times)) * 1000


async def _read_back(bus: Bus, topic: str) -> dict[int, list[int]]:
    """The numbers in each partition, in the order of the log."""
    places = [Place(topic, partition) for partition in range(_N_PARTITIONS)]
    ends = {place: end for place, (_, end) in (await bus.bounds(places)).items()}
    bus.read(dict.fromkeys(places, 0))
    found: dict[int, list[int]] = {place.partition: [] for place in places}
    reached = dict.fromkeys(places, 0)
    while any(reached[place] < ends[place] for place in places):
        for at, records in (await bus.poll(200)).records.items():
            found[at.partition] += [int.from_bytes(r.value[:8], "big") for r in records]
            reached[Place(at.topic, at.partition)] = records[-1].offset + 1
    return found


# ---- the command ------------------------------------------------------------------------------


async def _measure(n_hops: int, n_records: int, rate: float) -> tuple[list[Hop], list[Outage]]:
    hops, outages = [], []
    async with ApacheKafka(1) as kafka:
        hops.append(await _hops(kafka, n_hops))
    async with ApacheKafka(3) as kafka:
        hops.append(await _hops(kafka, n_hops))
        outages += await _kill_each(kafka, n_records, rate, "shipped")
    async with ApacheKafka(3, properties=_DEFAULT_TIMES) as kafka:
        outages += await _kill_each(kafka, n_records, rate, "Kafka's own")
    return hops, outages


async def _kill_each(kafka: ApacheKafka, n_records: int, rate: float, times: str) -> list[Outage]:
    return [
        await under_fire(
            kafka, number, n_records=n_records, rate=rate, times=times, topic=f"fire.{number}"
        )
        for number in kafka.numbers
    ]


def bench_kafka(
    hops: Annotated[int, typer.Option(min=100, help="Measured hops.")] = 2000,
    records: Annotated[int, typer.Option(min=1000, help="Records sent around a kill.")] = 20_000,
    rate: Annotated[float, typer.Option(min=100, help="Records per second.")] = 2000.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Latency, topic creation and SIGKILL of brokers, on an Apache Kafka of its own."""
    measured, outages = asyncio.run(_measure(hops, records, rate))
    if as_json:
        about: dict[str, Any] = {"cpus": os.cpu_count(), "load": os.getloadavg()[0]}
        rows = {"hops": [asdict(h) for h in measured], "outages": [asdict(o) for o in outages]}
        print(json.dumps({**rows, **about}))
    else:
        Console().print(_hop_table(measured))
        Console().print(_outage_table(outages))
    if any(o.lost or o.doubled or o.disordered for o in outages):
        raise typer.Exit(1)


def _hop_table(hops: Sequence[Hop]) -> Table:
    table = Table("brokers", "hop p50 ms", "hop p99 ms", "12 topics ms", title_justify="left")
    for h in hops:
        table.add_row(*map(str, (h.n_brokers, h.p50_ms, h.p99_ms, h.topics_ms)))
    return table


def _outage_table(outages: Sequence[Outage]) -> Table:
    table = Table(
        "times", "killed", "records", "lost", "doubled", "disordered", "stop ms", "others ms"
    )
    for o in outages:
        table.add_row(*map(str, asdict(o).values()))
    return table
