"""Protocols are told by the first bytes of an answer."""

import pytest

from router.listeners import Listener, kafka_mismatch, listener_of


@pytest.mark.parametrize(
    ("answer", "listener"),
    [
        (b"\0\0\1\6spik\0\0\0\0", "Kafka"),
        (b"+PONG\r\n", "Redis"),
        (b"-NOAUTH Authentication required.\r\n", "Redis"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None),
    ],
)
def test_an_answer_tells_whose_it_is(answer: bytes, listener: Listener | None) -> None:
    assert listener_of(answer) == listener


@pytest.mark.parametrize(
    ("found", "tls", "words"),
    [
        ("Redis", False, "answers a Redis, not a Kafka"),
        ("HTTP", False, "answers a web server"),
        ("TLS", False, "speaks TLS"),
        ("Kafka", True, "speaks no TLS"),
    ],
)
def test_a_server_of_another_kind_is_named_with_what_to_correct(
    found: Listener, tls: bool, words: str
) -> None:
    why = kafka_mismatch(found, "a:1", tls=tls)
    assert why is not None
    assert words in why
    assert "SPIKEROUTER_KAFKA" in why


def test_what_answers_as_it_should_is_no_mismatch() -> None:
    assert kafka_mismatch("Kafka", "a:1", tls=False) is None
    assert kafka_mismatch("TLS", "a:1", tls=True) is None
