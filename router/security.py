"""TLS, SASL and passwords: what the settings say, as arguments of the client libraries."""

import ssl
from pathlib import Path
from typing import Any

from router.settings import Settings, SettingsError
from topologies.files import MOST_TEXT, check_file

__all__ = ["kafka_options", "redis_options", "tls_context"]


def kafka_options(settings: Settings) -> dict[str, Any]:
    """Arguments of every aiokafka client: where Kafka is, and how to be let in.

    Raises `SettingsError` when a certificate or key cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka,
        "security_protocol": settings.kafka_security,
    }
    if settings.kafka_security.endswith("SSL"):
        options["ssl_context"] = tls_context(
            settings.kafka_ca, settings.kafka_certificate, settings.kafka_key
        )
    if settings.kafka_security.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.kafka_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return options


def redis_options(settings: Settings) -> dict[str, Any]:
    """Arguments of `redis.asyncio.Redis.from_url` beside the URL, which wins where both speak.

    Raises `SettingsError` when a certificate or key cannot be read.
    """
    options: dict[str, Any] = {
        "username": settings.redis_username or None,
        "password": settings.redis_password.get_secret_value() or None,
    }
    if settings.redis.startswith("rediss://"):
        files = (settings.redis_ca, settings.redis_certificate, settings.redis_key)
        tls_context(*files)  # redis-py reads them at each connection; a fault is better found now
        names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        options |= {name: str(f) for name, f in zip(names, files, strict=True) if f is not None}
    return options


def tls_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """A client's TLS: it demands a certificate for the server's name, signed by `ca`.

    `ca` None is the system's own list; `certificate` and `key` are what the client shows.
    """
    try:
        for file in (ca, certificate, key):
            if file is not None:  # OpenSSL would wait for ever at a pipe
                check_file(file, MOST_TEXT)
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            # Without this OpenSSL asks at the terminal, and waits, for the password of a key.
            context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is one
        names = ", ".join(str(name) for name in (ca, certificate, key) if name is not None)
        raise SettingsError(
            f"The certificates {names} cannot be used: {error}. PEM files are needed, the key "
            "without a password and belonging to the certificate."
        ) from error
    return context
