"""One suite for every bus and every store: the embedded ones always, and real servers beside them.

What runs on Apache Kafka or on `redis-server` is marked `servers` (`make test-servers`). They are
started once per test process, on free ports, and end with it.
"""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from router.apache import ApacheKafka
from router.apache_config import Tls
from router.embedded import EmbeddedBroker
from router.redis_server import RedisServer
from router.settings import Settings
from tests.contract.redis_cluster import RedisCluster

# Deselected by its marker in `make test`, but its imports need the extra `monitor` all the same.
collect_ignore = [] if find_spec("faust") else ["test_monitor.py"]

REAL_KAFKA = pytest.param("apache_kafka", marks=pytest.mark.servers)
REAL_REDIS = pytest.param("redis_server_url", marks=pytest.mark.servers)
REDIS_CLUSTER = pytest.param("redis_cluster_url", marks=pytest.mark.servers)


@pytest.fixture(scope="session")
def apache() -> Iterator[ApacheKafka]:
    """A running Apache Kafka of one broker that makes topics when they are first used."""
    kafka = ApacheKafka(auto_create=True)
    with asyncio.Runner() as runner:
        runner.run(kafka.__aenter__())
    yield kafka
    with asyncio.Runner() as runner:
        runner.run(kafka.close())


@pytest.fixture(scope="session")
def apache_kafka(apache: ApacheKafka) -> str:
    """HOST:PORT of that broker."""
    return apache.bootstrap


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running Redis with its log on disk."""
    server = RedisServer()
    with asyncio.Runner() as runner:
        runner.run(server.__aenter__())
    yield server
    with asyncio.Runner() as runner:
        runner.run(server.close())


@pytest.fixture
def redis_server_url(redis_server: RedisServer, emptied: Callable[[str], None]) -> str:
    """URL of that Redis, emptied before the test."""
    emptied(redis_server.address)
    return redis_server.url


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A running Redis Cluster of three nodes."""
    cluster = RedisCluster()
    with asyncio.Runner() as runner:
        runner.run(cluster.__aenter__())
    yield cluster
    with asyncio.Runner() as runner:
        runner.run(cluster.close())


@pytest.fixture
def redis_cluster_url(redis_cluster: RedisCluster, emptied: Callable[[str], None]) -> str:
    """URL of that cluster, emptied before the test."""
    for server in redis_cluster.masters:
        emptied(server.address)
    return redis_cluster.url


@pytest.fixture(scope="session")
def embedded_kafka(embedded_broker: EmbeddedBroker) -> str:
    """HOST:PORT of the embedded broker, for tests of its own limits."""
    return embedded_broker.address


@pytest.fixture(params=["embedded_kafka", REAL_KAFKA])
def kafka(request: pytest.FixtureRequest) -> str:
    """HOST:PORT of a broker of each kind."""
    address: str = request.getfixturevalue(request.param)
    return address


@pytest.fixture(params=["embedded_redis_url", REAL_REDIS])
def redis_url(request: pytest.FixtureRequest) -> str:
    """URL of a store of each kind, emptied before the test."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(params=["embedded_redis_url", REAL_REDIS, REDIS_CLUSTER])
def store_url(request: pytest.FixtureRequest) -> str:
    """The same, and of a cluster: for tests that need no client of their own beside the store."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def settings(request: pytest.FixtureRequest, kafka: str) -> Settings:
    """Settings that fit the broker."""
    is_embedded = kafka == request.getfixturevalue("embedded_kafka")
    return Settings.load().on_embedded(kafka) if is_embedded else Settings.load(kafka=kafka)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tls]:
    """Makes a key and a certificate for 127.0.0.1 under a name, signed by one own authority."""
    folder = tmp_path_factory.mktemp("certificates")
    _openssl(
        folder, *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"),
    )  # fmt: skip

    def make(name: str) -> Tls:
        _openssl(
            folder, *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )  # fmt: skip
        _openssl(
            folder, *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", f"{name}.pem"),
        )  # fmt: skip
        return Tls(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")

    return make


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
