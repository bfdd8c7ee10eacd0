"""Fixtures that several folders share: the embedded broker and store as real processes over TCP.

Each is started once per test process and ends with it, even when that process is killed.
"""

import itertools
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from router.embedded import EmbeddedBroker, EmbeddedStore

_counter = itertools.count()

# The same examples in every run, and no wall-clock time is asserted: a machine may be busy.
settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """A running embedded broker; `.address` is its bootstrap server."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def embedded_store() -> Iterator[EmbeddedStore]:
    """A running embedded Valkey server at `.url`. It is not emptied: see `redis_url`."""
    with EmbeddedStore() as store:
        yield store


@pytest.fixture(scope="session")
def kafka(embedded_broker: EmbeddedBroker) -> str:
    """HOST:PORT of the embedded broker. Topics stay: take their names from `fresh_name`."""
    return embedded_broker.address


@pytest.fixture
def emptied() -> Callable[[str], None]:
    """Empties the Redis or Valkey at HOST:PORT: its data and its script cache."""

    def empty(address: str) -> None:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=5.0) as connection:
            connection.sendall(b"FLUSHALL SYNC\r\nSCRIPT FLUSH\r\n")
            received = b""
            while received.count(b"\r\n") < 2:
                received += connection.recv(4096)
        assert received == b"+OK\r\n+OK\r\n"

    return empty


@pytest.fixture
def embedded_redis_url(embedded_store: EmbeddedStore, emptied: Callable[[str], None]) -> str:
    """URL of the embedded store, emptied before the test."""
    emptied(embedded_store.address)
    return embedded_store.url


@pytest.fixture
def redis_url(embedded_redis_url: str) -> str:
    """URL of a store, emptied before the test: the embedded one."""
    return embedded_redis_url


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Names that no other test uses: `fresh_name("in")` gives `in-<number>-<process>`."""
    return lambda prefix: f"{prefix}-{next(_counter)}-{os.getpid()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """aiokafka leaves a socket open when it is interrupted while it dials a server that is gone:
    where servers die on purpose, that is no fault of ours."""
    for item in items:
        if item.get_closest_marker("servers") or item.get_closest_marker("faults"):
            for warning in ("unclosed", "Unclosed AIOKafka"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{warning}:ResourceWarning"))
