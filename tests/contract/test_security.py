"""TLS, SASL and passwords by settings, against real servers with certificates made here."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from router.admin import TopicsNotMade, create_topics
from router.apache import ApacheKafka
from router.apache_config import KafkaSecurity, Tls
from router.bus import Bus, BusError, Place
from router.client import Publisher, ResultReader
from router.probe import WrongServer
from router.redis_server import RedisServer
from router.settings import Settings, SettingsError
from router.store.errors import StoreUnfit
from router.store.redis import RedisStore
from router.supervisor import Stack, StackOptions
from router.topics import DEAD_LETTER
from tests.deployment.deployment import ROOT

Certificates = Callable[[str], Tls]
FreshName = Callable[[str], str]

pytestmark = [pytest.mark.servers, pytest.mark.serial]

_USERS = {"spikes": 'pass "word" \\ 1'}


@pytest.fixture(scope="module")
def server_tls(certificates: Certificates) -> Tls:
    return certificates("server")


@pytest.fixture(scope="module")
def client_tls(certificates: Certificates) -> Tls:
    return certificates("client")


@pytest.fixture(scope="module")
def secured(server_tls: Tls) -> Iterator[ApacheKafka]:
    """Apache Kafka that asks for TLS, a client's certificate, and a SCRAM password."""
    security = KafkaSecurity(replace(server_tls, ask_client=True), "SCRAM-SHA-512", _USERS)
    yield from _running(ApacheKafka(security=security))


@pytest.fixture(scope="module")
def plain(server_tls: Tls) -> Iterator[ApacheKafka]:
    """Apache Kafka that asks for TLS and a PLAIN password."""
    yield from _running(ApacheKafka(security=KafkaSecurity(server_tls, "PLAIN", _USERS)))


def _running(kafka: ApacheKafka) -> Iterator[ApacheKafka]:
    with asyncio.Runner() as runner:
        runner.run(kafka.__aenter__())
    yield kafka
    with asyncio.Runner() as runner:
        runner.run(kafka.close())


@pytest.fixture
def allowed(secured: ApacheKafka, client_tls: Tls) -> Settings:
    """Settings of a client that the secured Kafka lets in."""
    return Settings.load(
        kafka=secured.bootstrap,
        kafka_security="SASL_SSL",
        kafka_username="spikes",
        kafka_password=_USERS["spikes"],
        kafka_ca=client_tls.ca,
        kafka_certificate=client_tls.certificate,
        kafka_key=client_tls.key,
        send_timeout_s=5.0,
    )


async def _round_trip(settings: Settings, topic: str) -> None:
    await create_topics(settings, [topic], 1)
    async with Bus(settings) as bus:
        await (await bus.send(topic, None, 0, b"secret spikes"))
        bus.read({Place(topic, 0): 0})
        async with asyncio.timeout(20):
            while not (records := (await bus.poll(100)).records):
                pass
    ((record,),) = records.values()
    assert record.value == b"secret spikes"


async def test_records_pass_over_tls_with_a_certificate_and_a_scram_password(
    allowed: Settings, fresh_name: FreshName
) -> None:
    await _round_trip(allowed, fresh_name("scram"))


async def test_records_pass_over_tls_with_a_plain_password(
    plain: ApacheKafka, server_tls: Tls, fresh_name: FreshName
) -> None:
    settings = Settings.load(
        kafka=plain.bootstrap,
        kafka_security="SASL_SSL",
        kafka_mechanism="PLAIN",
        kafka_username="spikes",
        kafka_password=_USERS["spikes"],
        kafka_ca=server_tls.ca,
    )
    await _round_trip(settings, fresh_name("plain"))


async def test_the_client_library_is_let_in_too(allowed: Settings) -> None:
    await create_topics(allowed, [DEAD_LETTER], allowed.partitions)
    async with Publisher.of(allowed) as publisher, ResultReader.of(allowed) as reader:
        await (await publisher.send(DEAD_LETTER, None, b"letter", 0))
        reader.check_reading()


@pytest.mark.parametrize(
    "change",
    [
        {"kafka_password": "wrong"},
        {"kafka_username": "nobody"},
        {"kafka_certificate": None, "kafka_key": None},
        {"kafka_ca": None},
    ],
    ids=["password", "user", "no certificate", "unknown authority"],
)
async def test_a_client_that_is_not_let_in_is_told_to_look_at_its_settings(
    allowed: Settings, change: dict[str, Any]
) -> None:
    settings = allowed.changed(**change, send_timeout_s=1.0)
    with pytest.raises(TopicsNotMade, match="did not make the topics"):
        await create_topics(settings, ["never"], 1)
    with pytest.raises(BusError, match="user and certificates"):
        async with Bus(settings):
            pass


async def test_a_client_without_tls_is_told_that_kafka_has_it(allowed: Settings) -> None:
    settings = allowed.changed(kafka_security="SASL_PLAINTEXT")
    for opening in (create_topics(settings, ["never"], 1), Bus(settings).__aenter__()):
        with pytest.raises(WrongServer, match="speaks TLS"):
            await opening


async def test_a_certificate_file_that_cannot_be_read_is_named(allowed: Settings) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.pem.* cannot be used"):
        Bus(allowed.changed(kafka_ca="/nowhere.pem"))


async def test_a_redis_with_tls_and_a_password_is_reached_by_settings(
    server_tls: Tls, client_tls: Tls
) -> None:
    tls = replace(server_tls, ask_client=True)
    async with RedisServer(tls=tls, password="se cret") as server:
        settings = Settings.load(
            redis=server.url,
            redis_password="se cret",
            redis_ca=client_tls.ca,
            redis_certificate=client_tls.certificate,
            redis_key=client_tls.key,
        )
        async with RedisStore.of(settings) as store:
            await store.put_artifact("op", b"weights")
            assert await store.get_artifact("op") == b"weights"
        for change in ({"redis_password": "wrong"}, {"redis_ca": None}):
            with pytest.raises(StoreUnfit, match="does not let us in"):
                async with RedisStore.of(settings.changed(**change)):
                    pass


def _redis_user(password: str) -> str:
    """The line of a Redis configuration that makes the user of docs/operations.md."""
    found = re.search(r"^ACL SETUSER (.+)$", (ROOT / "docs" / "operations.md").read_text(), re.M)
    assert found is not None
    return f"user {found[1]}".replace("PASSWORD", password)


async def test_a_whole_stack_serves_over_tls_as_users_with_no_more_rights_than_they_need(
    allowed: Settings, server_tls: Tls
) -> None:
    user = _redis_user("mine")
    async with RedisServer(tls=server_tls, password="secret", options=[user]) as server:
        settings = allowed.changed(
            redis_username="spikes", redis_password="mine", redis_ca=server_tls.ca,
            partitions=1, gateway_port=0,
        )  # fmt: skip
        options = StackOptions(
            networks=["scnn_digits"], n_workers=1, kafka=allowed.kafka, redis=server.url
        )
        async with Stack(settings, options) as stack:
            await stack.wait_ready()
            inputs = [{"name": "scnn_digits", "shape": [1, 1, 8, 8], "datatype": "UINT8",
                       "data": [0] * 64}]  # fmt: skip
            async with httpx.AsyncClient(base_url=stack.http, trust_env=False) as client:
                reply = await client.post("/v2/models/scnn_digits/infer", json={"inputs": inputs})
            assert reply.status_code == 200, reply.text
            while not (await stack.status()).counts["checkpoints_total"]:
                await asyncio.sleep(0.05)
