import ssl
from pathlib import Path

import pytest

from router.security import kafka_options, redis_options, tls_context
from router.settings import Settings, SettingsError
from tests.unit.topologies.hostile import NOT_READABLE, make


def test_without_security_a_client_gets_neither_tls_nor_a_user() -> None:
    assert kafka_options(Settings.load(kafka="a:1")) == {
        "bootstrap_servers": "a:1",
        "security_protocol": "PLAINTEXT",
    }
    assert redis_options(Settings.load()) == {"username": None, "password": None}


def test_tls_demands_a_certificate_for_the_servers_name() -> None:
    context = kafka_options(Settings.load(kafka_security="SSL"))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_sasl_without_tls_passes_user_and_mechanism_only() -> None:
    settings = Settings.load(
        kafka_security="SASL_PLAINTEXT", kafka_username="spikes", kafka_password="secret"
    )
    options = kafka_options(settings)
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "spikes"
    assert options["sasl_plain_password"] == "secret"
    assert "ssl_context" not in options


def test_files_of_a_plain_redis_are_not_passed() -> None:
    options = redis_options(Settings.load(redis="redis://a:1", redis_ca="/nowhere.pem"))
    assert not any(name.startswith("ssl") for name in options)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(SettingsError, match=r"ca\.pem cannot be used"):
        redis_options(Settings.load(redis="rediss://a:1", redis_ca=file))
    with pytest.raises(SettingsError, match=r"ca\.pem cannot be used"):
        kafka_options(Settings.load(kafka_security="SSL", kafka_ca=file))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", NOT_READABLE)
def test_a_certificate_that_is_no_file_is_named_and_never_waited_for(
    kind: str, tmp_path: Path
) -> None:
    file = make(kind, tmp_path, "ca.pem")
    with pytest.raises(SettingsError, match=NOT_READABLE[kind]):
        tls_context(file, None, None)
    with pytest.raises(SettingsError, match=NOT_READABLE[kind]):
        tls_context(None, file, None)
