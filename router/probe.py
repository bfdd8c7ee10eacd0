"""Who listens at an address: asked when a server does not answer as the settings say it should."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from router.listeners import QUESTIONS, Listener, kafka_mismatch, listener_of
from topologies.errors import SpikeRouterError

__all__ = ["WrongServer", "check_kafka", "what_listens"]

_PATIENCE_S: Final = 1.0  # for one question; a server that is slow is not judged
_ANSWER: Final = 256  # bytes


class WrongServer(SpikeRouterError, RuntimeError):
    """What answers where Kafka should be is something else, or speaks TLS on one side only."""


async def what_listens(host: str, port: int) -> Listener | None:
    """What answers there; None when nothing does, or nothing that is known."""
    async with asyncio.TaskGroup() as group:
        encrypted = group.create_task(_speaks_tls(host, port))
        strict = group.create_task(_asks_for_certificate(host, port))
        asked = [group.create_task(_ask(host, port, each)) for each in QUESTIONS.values()]
    if encrypted.result():
        return "TLS and a certificate" if strict.result() else "TLS"
    return next((found for each in asked if (found := listener_of(each.result()))), None)


async def check_kafka(options: Mapping[str, Any]) -> None:
    """Raise WrongServer if no server of these options of a client (`router.security`) is a Kafka of
    that kind, and one of them surely is something else. Nothing is said of servers that are away.
    """
    tls = str(options.get("security_protocol", "PLAINTEXT")).endswith("SSL")
    reasons = []
    for host, port in _addresses(options["bootstrap_servers"]):
        if await _is_right(host, port, tls=tls):
            return
        found = await what_listens(host, port)
        if found and (why := kafka_mismatch(found, f"{host}:{port}", tls=tls)):
            reasons.append(why)
    if reasons:
        raise WrongServer(reasons[0])


async def _is_right(host: str, port: int, *, tls: bool) -> bool:
    if tls:
        return await _speaks_tls(host, port)
    return listener_of(await _ask(host, port, QUESTIONS["Kafka"])) == "Kafka"


def _addresses(bootstrap: str | Iterable[str]) -> list[tuple[str, int]]:
    servers = bootstrap.split(",") if isinstance(bootstrap, str) else bootstrap
    parts = [server.rpartition(":") for server in servers]
    return [(host.strip("[]"), int(port)) for host, _, port in parts]


async def _speaks_tls(host: str, port: int) -> bool:
    """Whether a handshake succeeds."""
    with contextlib.suppress(OSError, TimeoutError):
        async with _connection(host, port, _trusting()):
            return True
    return False


async def _asks_for_certificate(host: str, port: int) -> bool:
    """Whether it ends the connection for want of a client's certificate: it says so after the
    handshake, to who only listens."""
    try:
        async with _connection(host, port, _trusting()) as (reader, _):
            await reader.read(_ANSWER)
    except (OSError, TimeoutError) as error:  # ssl.SSLError is one
        return "CERTIFICATE_REQUIRED" in str(error)
    return False


def _trusting() -> ssl.SSLContext:
    """TLS without a look at the server's certificate: nothing is sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _ask(host: str, port: int, question: bytes) -> bytes:
    """The first bytes of the answer; none when there is no connection, or no answer."""
    with contextlib.suppress(OSError, TimeoutError):
        async with _connection(host, port) as (reader, writer):
            writer.write(question)
            return await reader.read(_ANSWER)
    return b""


@contextlib.asynccontextmanager
async def _connection(
    host: str, port: int, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(_PATIENCE_S):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # nothing more is to be said
            with contextlib.suppress(OSError):
                await writer.wait_closed()
