"""Three brokers of Apache Kafka under the workers' bus: created topics, deaths, restarts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.protocol.metadata import MetadataRequest

from loadtest.brokers import under_fire
from router.admin import TopicsNotMade, TopicUnfit, check_topics, create_topics
from router.apache import ApacheKafka
from router.bus import Bus, BusError, Place
from router.processes import ServerError
from router.seals import Keyring
from router.settings import Settings

FreshName = Callable[[str], str]

pytestmark = [pytest.mark.servers, pytest.mark.serial]


@pytest.fixture(scope="module")
def running() -> Iterator[ApacheKafka]:
    cluster = ApacheKafka(3)
    with asyncio.Runner() as runner:
        runner.run(cluster.__aenter__())
    yield cluster
    with asyncio.Runner() as runner:
        runner.run(cluster.close())


@pytest.fixture
async def cluster(running: ApacheKafka) -> AsyncIterator[ApacheKafka]:
    """Three brokers, all up and in sync, whatever the test before has done."""
    yield running
    await running.start()
    await running.wait_in_sync()


@pytest.fixture
def settings(cluster: ApacheKafka) -> Settings:
    return Settings.load(kafka=cluster.bootstrap)


async def _known_to_all(cluster: ApacheKafka, topic: str) -> None:
    """Wait until each broker tells who leads a topic that was made: they learn of it one after the
    other, and whoever asks draws one of them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(30):
            for number in cluster.numbers:
                while not await _is_led(admin, number, topic):
                    await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def _is_led(admin: AIOKafkaAdminClient, number: int, topic: str) -> bool:
    reply = (await admin._send_request(MetadataRequest(None), number)).to_object()
    leaders = [p["leader"] for t in reply["topics"] if t["topic"] == topic for p in t["partitions"]]
    return bool(leaders) and min(leaders) > 0


async def _config_of(bootstrap: str, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        (reply,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    return {entry[0]: entry[1] for entry in reply.resources[0][4]}


async def _read(bus: Bus, n: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(30):
        while len(found) < n:
            for records in (await bus.poll(100)).records.values():
                found += [record.value for record in records]
    return found


async def test_a_topic_gets_its_partitions_copies_and_limits(
    cluster: ApacheKafka, settings: Settings, fresh_name: FreshName
) -> None:
    topic = fresh_name("made")
    limits = settings.changed(retention_bytes=64 * 2**20, retention_ms=3_600_000)
    assert await create_topics(limits, [topic, topic], 5) == (topic,)
    await _known_to_all(cluster, topic)
    (described,) = await cluster.describe([topic])
    assert len(described["partitions"]) == 5
    assert all(len(p["replicas"]) == 3 for p in described["partitions"])
    config = await _config_of(cluster.bootstrap, topic)
    assert config["retention.bytes"] == str(64 * 2**20)
    assert config["retention.ms"] == "3600000"
    assert config["segment.bytes"] == str(16 * 2**20)
    assert config["min.insync.replicas"] == "2"
    assert config["cleanup.policy"] == "delete"
    assert config["message.timestamp.type"] == "LogAppendTime"


async def test_a_topic_that_exists_is_left_alone(
    cluster: ApacheKafka, settings: Settings, fresh_name: FreshName
) -> None:
    topic = fresh_name("there")
    await create_topics(settings.changed(replication=2), [topic], 3)
    await _known_to_all(cluster, topic)
    assert await create_topics(settings, [topic], 5) == ()
    (described,) = await cluster.describe([topic])
    assert [len(p["replicas"]) for p in described["partitions"]] == [2, 2, 2]


async def test_a_topic_that_was_made_otherwise_is_refused_or_told(
    cluster: ApacheKafka,
    settings: Settings,
    fresh_name: FreshName,
    caplog: pytest.LogCaptureFixture,
) -> None:
    narrow, short = fresh_name("narrow"), fresh_name("short")
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        config = {"max.message.bytes": "1000", "cleanup.policy": "compact"}
        await admin.create_topics([NewTopic(narrow, 1, 1, topic_configs=config)])
    finally:
        await admin.close()
    await create_topics(settings.changed(retention_ms=60_000), [short], 1)
    with pytest.raises(TopicUnfit, match=rf"{narrow} has cleanup.*{narrow} has max\.message"):
        await check_topics(settings, [narrow, short])
    caplog.clear()
    await check_topics(settings, [short, fresh_name("none")])
    assert [record.message.split(" has ")[1] for record in caplog.records] == [
        "retention.ms=60000, less than SPIKEROUTER_RETENTION_MS (604800000): alter the topic, or"
        " the setting."
    ]


async def test_topics_are_made_while_a_broker_is_away(
    cluster: ApacheKafka, settings: Settings, fresh_name: FreshName
) -> None:
    topics = [fresh_name("away") for _ in range(8)]  # each asks a broker that is drawn at random
    cluster.kill(cluster.numbers[0])
    two = settings.changed(replication=2)
    made = [await create_topics(two, [topic], 1) for topic in topics]
    assert made == [(topic,) for topic in topics]
    async with asyncio.timeout(30):  # a broker learns of topics a moment after they are made
        while not set(topics) <= {each["topic"] for each in await cluster.describe()}:
            await asyncio.sleep(0.1)


async def test_more_copies_than_brokers_are_refused_with_kafkas_reason(
    settings: Settings, fresh_name: FreshName
) -> None:
    with pytest.raises(TopicsNotMade, match=r"InvalidReplicationFactor.*SPIKEROUTER_REPLICATION"):
        await create_topics(settings.changed(replication=4), [fresh_name("four")], 1)


async def test_more_copies_to_wait_for_than_there_are_is_refused(
    settings: Settings, fresh_name: FreshName
) -> None:
    with pytest.raises(TopicsNotMade, match="SPIKEROUTER_MIN_INSYNC is 4"):
        await create_topics(settings.changed(min_insync=4), [fresh_name("wait")], 1)


async def test_a_topic_is_not_made_by_asking_for_it(
    settings: Settings, fresh_name: FreshName, cluster: ApacheKafka
) -> None:
    asked = fresh_name("asked")
    async with Bus(settings.changed(send_timeout_s=1.0)) as bus:
        with pytest.raises(UnknownTopicOrPartitionError):
            await (await bus.send(asked, None, 0, b"x"))
        with pytest.raises(BusError, match=f"did not take a record of topic {asked}"):
            await bus.write(asked, 0, b"x", Keyring(is_open=True))
    assert asked not in [each["topic"] for each in await cluster.describe()]


async def test_killing_a_leader_loses_doubles_and_reorders_no_record(
    cluster: ApacheKafka, fresh_name: FreshName
) -> None:
    topic = fresh_name("fire")
    outage = await under_fire(cluster, 2, n_records=3000, rate=1000, times="shipped", topic=topic)
    assert (outage.lost, outage.doubled, outage.disordered) == (0, 0, 0)


async def test_a_rolling_restart_keeps_every_record(
    cluster: ApacheKafka, settings: Settings, fresh_name: FreshName
) -> None:
    topic = fresh_name("rolling")
    await create_topics(settings, [topic], 1)
    async with Bus(settings) as bus:
        await bus.ensure([topic], 1)
        sent = 0
        for number in cluster.numbers:
            await (await bus.send(topic, None, 0, b"%d" % sent))
            await cluster.stop_broker(number)
            await (await bus.send(topic, None, 0, b"%d" % (sent + 1)))
            await cluster.start_broker(number)
            await cluster.wait_in_sync()
            sent += 2
        bus.read({Place(topic, 0): 0})
        assert await _read(bus, sent) == [b"%d" % n for n in range(sent)]


async def test_a_paused_leader_is_replaced_and_writing_goes_on(
    cluster: ApacheKafka, settings: Settings, fresh_name: FreshName
) -> None:
    topic = fresh_name("paused")
    await create_topics(settings, [topic], 1)
    await _known_to_all(cluster, topic)
    await cluster.wait_in_sync()
    leader = await cluster.leader(topic, 0)
    async with Bus(settings) as bus:
        bus.read({Place(topic, 0): 0})
        await (await bus.send(topic, None, 0, b"before"))
        assert await _read(bus, 1) == [b"before"]
        cluster.pause(leader)
        try:
            await (await bus.send(topic, None, 0, b"while paused"))
            assert await _read(bus, 1) == [b"while paused"]
        finally:
            cluster.resume(leader)


async def test_the_cluster_keeps_its_data_and_ports_over_a_stop(
    cluster: ApacheKafka, settings: Settings, fresh_name: FreshName
) -> None:
    topic = fresh_name("kept")
    await create_topics(settings, [topic], 1)
    bootstrap = cluster.bootstrap
    async with Bus(settings) as bus:
        await (await bus.send(topic, None, 0, b"before"))
    await cluster.stop()
    assert not cluster.alive
    await cluster.start()
    assert cluster.bootstrap == bootstrap
    async with Bus(settings) as bus:
        bus.read({Place(topic, 0): 0})
        assert await _read(bus, 1) == [b"before"]


async def test_a_broker_that_is_not_there_is_named(cluster: ApacheKafka) -> None:
    with pytest.raises(ServerError, match="no broker 4; there are: 1, 2, 3"):
        cluster.kill(4)
