"""What the settings name is another server than they say, or does not let us in: one sentence.

The servers are real. What starts against one of them ends at once, and says what to correct.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import redis

from router.admin import create_topics
from router.apache import ApacheKafka
from router.apache_config import KafkaSecurity, Tls
from router.bus import Bus
from router.client import Publisher, ResultReader
from router.embedded import EmbeddedStore
from router.probe import WrongServer
from router.redis_server import RedisServer
from router.settings import Settings, SettingsError
from router.store.errors import StoreUnavailable, StoreUnfit
from router.store.redis import RedisStore
from router.supervisor import Stack, StackOptions, gateway_command, worker_command

Certificates = Callable[[str], Tls]


async def _refusal_of(settings: Settings) -> str:
    """The sentence with which the store is refused at the start."""
    with pytest.raises(StoreUnfit) as caught:
        async with RedisStore.of(settings):
            pass
    return str(caught.value)


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web_server() -> Iterator[str]:
    """HOST:PORT of a server that speaks HTTP."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server_tls(certificates: Certificates) -> Tls:
    return certificates("named")


@pytest.fixture
async def with_password() -> AsyncIterator[RedisServer]:
    user = "user guest on >guest ~snn:* &snn:* +@all -@dangerous"  # and not +info
    keyless = "user keyless on >keyless ~other:* &snn:* +@all -@dangerous +info"
    async with RedisServer(password="secret", options=[user, keyless]) as server:
        yield server


# ---- a Redis that must not be the store -------------------------------------------------------


async def test_a_store_that_keeps_nothing_on_disk_is_refused_unless_that_is_allowed() -> None:
    with EmbeddedStore(appendonly=False) as server:
        settings = Settings.load(redis=server.url)
        assert "SPIKEROUTER_REDIS_MAY_FORGET=true" in await _refusal_of(settings)
        async with RedisStore.of(settings.changed(redis_may_forget=True)) as store:
            await store.ping()


@pytest.mark.servers
async def test_a_store_that_may_evict_is_refused_unless_that_is_allowed() -> None:
    options = ["maxmemory 64mb", "maxmemory-policy allkeys-lru"]
    async with RedisServer(options=options) as server:
        settings = Settings.load(redis=server.url)
        told = await _refusal_of(settings)
        assert "maxmemory-policy allkeys-lru" in told
        assert "SPIKEROUTER_REDIS_MAY_EVICT=true" in told
        async with RedisStore.of(settings.changed(redis_may_evict=True)) as store:
            await store.ping()


@pytest.mark.servers
async def test_a_snapshot_now_and_then_is_no_log() -> None:
    async with RedisServer(options=["appendonly no", "save 60 1"]) as server:
        assert "keeps no log" in await _refusal_of(Settings.load(redis=server.url))


async def test_a_stack_does_not_start_on_a_store_that_must_not_be_it(embedded_kafka: str) -> None:
    with EmbeddedStore(appendonly=False) as server:
        options = StackOptions(kafka=embedded_kafka, redis=server.url)
        with pytest.raises(StoreUnfit, match="keeps no log"):
            async with Stack(Settings.load(), options):
                pass


async def test_a_store_that_was_away_at_the_start_is_looked_at_when_it_is_found() -> None:
    with EmbeddedStore(appendonly=False) as server:
        port = int(server.address.split(":")[1])
        settings = Settings.load(redis=server.url)
        server.stop()
        async with RedisStore.of(settings) as store:
            with pytest.raises(StoreUnavailable):
                await store.status(0)
            with (
                EmbeddedStore(appendonly=False, port=port),
                pytest.raises(StoreUnfit, match="keeps no log"),
            ):
                await store.status(0)
            with EmbeddedStore(port=port):
                with suppress(StoreUnavailable):  # by the connection to the one before
                    await store.status(0)
                assert (await store.status(0)).tasks == ()


# ---- a Redis that does not let us in ----------------------------------------------------------


@pytest.mark.servers
@pytest.mark.parametrize(
    ("user", "password", "words"),
    [
        ("", "", "asks for a password: set SPIKEROUTER_REDIS_PASSWORD"),
        ("", "wrong", "no such user and password"),
        ("nobody", "secret", "no such user and password"),
        ("guest", "guest", "lacks a right"),
    ],
)
async def test_a_password_or_right_that_is_missing_or_wrong_is_named(
    with_password: RedisServer, user: str, password: str, words: str
) -> None:
    settings = Settings.load(redis=with_password.url, redis_username=user, redis_password=password)
    told = await _refusal_of(settings)
    assert words in told
    assert with_password.address in told
    assert "secret" not in told


@pytest.mark.servers
async def test_a_right_that_is_missing_later_is_named_too(with_password: RedisServer) -> None:
    settings = Settings.load(
        redis=with_password.url, redis_username="keyless", redis_password="keyless"
    )
    async with RedisStore.of(settings) as store:
        with pytest.raises(StoreUnfit, match=r"lacks a right .*docs/operations\.md"):
            await store.status(0)


@pytest.mark.servers
async def test_a_password_that_changes_while_we_are_in_is_an_outage_that_names_it(
    with_password: RedisServer,
) -> None:
    settings = Settings.load(redis=with_password.url, redis_password="secret")
    async with RedisStore.of(settings) as store:
        with redis.Redis(port=with_password.port, password="secret") as admin:
            admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">other")
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(StoreUnavailable):
            await store.status(0)
        with pytest.raises(StoreUnavailable, match="no such user and password"):
            await store.status(0)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:port/0", "redis://u:pass/word@h:1/0"])
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RedisStore.of(Settings.load(redis=url))
    assert "SPIKEROUTER_REDIS is no address" in str(caught.value)
    assert "pass/" not in str(caught.value)


# ---- TLS on one side --------------------------------------------------------------------------


@pytest.mark.servers
async def test_tls_on_one_side_only_is_named(server_tls: Tls, redis_server: RedisServer) -> None:
    plain = Settings.load(redis=redis_server.url.replace("redis://", "rediss://"))
    assert "speaks no TLS" in await _refusal_of(plain)
    async with RedisServer(tls=server_tls) as server:
        told = await _refusal_of(Settings.load(redis=f"redis://{server.address}/0"))
        assert "speaks TLS" in told
        assert "write rediss://" in told


@pytest.mark.servers
async def test_a_certificate_that_nobody_vouches_for_or_that_is_missing_is_named(
    server_tls: Tls,
) -> None:
    async with RedisServer(tls=replace(server_tls, ask_client=True)) as server:
        settings = Settings.load(redis=server.url)
        assert "its certificate is not trusted" in await _refusal_of(settings)
        told = await _refusal_of(settings.changed(redis_ca=server_tls.ca))
        assert "asks for a certificate of ours" in told


@pytest.mark.servers
@pytest.mark.serial
async def test_a_kafka_with_tls_on_one_side_only_is_named(
    server_tls: Tls, apache_kafka: str
) -> None:
    settings = Settings.load(kafka=apache_kafka, kafka_security="SSL", kafka_ca=server_tls.ca)
    with pytest.raises(WrongServer, match="speaks no TLS"):
        await create_topics(settings, ["never"], 1)
    security = KafkaSecurity(server_tls, "PLAIN", {"a": "b"})
    async with ApacheKafka(security=security) as secured:
        with pytest.raises(WrongServer, match="speaks TLS, and SPIKEROUTER_KAFKA_SECURITY"):
            async with Bus(Settings.load(kafka=secured.bootstrap)):
                pass


# ---- another server ---------------------------------------------------------------------------


async def test_the_port_of_kafka_given_for_redis_is_named(kafka: str) -> None:
    told = await _refusal_of(Settings.load(redis=f"redis://{kafka}/0"))
    assert f"{kafka} answers a Kafka, not a Redis" in told


async def test_a_web_server_given_for_redis_is_named(web_server: str) -> None:
    assert "web server, not a Redis" in await _refusal_of(
        Settings.load(redis=f"redis://{web_server}/0")
    )


@pytest.mark.parametrize("there", ["redis", "web"])
async def test_another_server_given_for_kafka_is_named_by_all_who_speak_to_kafka(
    embedded_redis_url: str, web_server: str, there: str
) -> None:
    address = web_server if there == "web" else embedded_redis_url.split("/")[2]
    settings = Settings.load(kafka=address)
    words = "answers a web server" if there == "web" else "answers a Redis, not a Kafka"
    for opened in (Bus(settings), Publisher.of(settings), ResultReader.of(settings)):
        with pytest.raises(WrongServer, match=words):
            await opened.__aenter__()
    with pytest.raises(WrongServer, match=words):
        await create_topics(settings, ["never"], 1)


async def test_one_right_server_among_several_is_enough(
    kafka: str, embedded_redis_url: str, settings: Settings
) -> None:
    mixed = f"{embedded_redis_url.split('/')[2]},{kafka}"
    async with Bus(settings.changed(kafka=mixed)) as bus:
        assert bus is not None


# ---- programs ---------------------------------------------------------------------------------


def _ended(command: tuple[str, ...], settings: Settings) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **settings.environment()}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize("program", ["worker", "gateway", "status", "deploy"])
async def test_a_program_that_cannot_start_says_one_sentence_and_ends(
    embedded_kafka: str, program: str
) -> None:
    with EmbeddedStore(appendonly=False) as server:
        settings = Settings.load(kafka=embedded_kafka, redis=server.url, gateway_port=0)
        command = {
            "worker": worker_command("w"),
            "gateway": gateway_command(settings),
            "status": (sys.executable, "-m", "router.cli", "status"),
            "deploy": (sys.executable, "-m", "router.cli", "deploy", "scnn_digits"),
        }[program]
        ended = await asyncio.to_thread(_ended, command, settings)
    told = ended.stdout + ended.stderr
    assert "keeps no log on disk" in told
    assert "Traceback" not in told
    assert ended.returncode == (3 if program == "gateway" else 1)  # 3 is uvicorn's own
