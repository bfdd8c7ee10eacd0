"""What answers at an address, by the first bytes it says, and whether that can be the Kafka meant.

Pure: what to send to find out, how to read the answer, and the sentence for who wrote the settings.
"""

from typing import Final, Literal

__all__ = ["QUESTIONS", "Listener", "kafka_mismatch", "listener_of"]

Listener = Literal["Kafka", "Redis", "HTTP", "TLS", "TLS and a certificate"]
"""What answers at an address: its protocol, or that it is encrypted, and who it lets in."""

_CORRELATION: Final = b"spik"
# ApiVersions 0, which every Kafka answers, whoever asks: length, key, version, id, no client name.
_API_VERSIONS: Final = b"\0\0\0\x0a" + b"\0\x12" + b"\0\0" + _CORRELATION + b"\xff\xff"
QUESTIONS: Final[dict[Listener, bytes]] = {
    "Kafka": _API_VERSIONS,
    "Redis": b"PING\r\n",
    "HTTP": b"GET / HTTP/1.0\r\n\r\n",
}
"""What each protocol answers in its own way. TLS is found out by a handshake."""

_ENOUGH: Final = 8  # bytes by which an answer is recognised


def listener_of(answer: bytes) -> Listener | None:
    """Whose answer to any of the questions begins so; None: nobody's that is known."""
    if answer[4:_ENOUGH] == _CORRELATION:
        return "Kafka"
    if answer.startswith(b"HTTP/"):
        return "HTTP"
    return "Redis" if answer.startswith((b"+", b"-")) else None


def kafka_mismatch(found: Listener, where: str, *, tls: bool) -> str | None:
    """Why what listens there cannot be the Kafka that SPIKEROUTER_KAFKA means; None if it can."""
    if found == "Redis":
        return (
            f"At {where} answers a Redis, not a Kafka: correct SPIKEROUTER_KAFKA (9092 is Kafka's "
            "usual port, 6379 is Redis')."
        )
    if found == "HTTP":
        return f"At {where} answers a web server, not a Kafka: correct SPIKEROUTER_KAFKA."
    if found.startswith("TLS") and not tls:
        return (
            f"What answers at {where} speaks TLS, and SPIKEROUTER_KAFKA_SECURITY does not: if it "
            "is the Kafka, set SSL, or SASL_SSL for one that asks for a user."
        )
    if found == "Kafka" and tls:
        return (
            f"The Kafka at {where} speaks no TLS, and SPIKEROUTER_KAFKA_SECURITY asks for it: set "
            "PLAINTEXT, or SASL_PLAINTEXT for one that asks for a user, or correct the port."
        )
    return None
