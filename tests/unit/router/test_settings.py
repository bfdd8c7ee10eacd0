import re

import pytest

from router.settings import EMBEDDED_RETENTION_BYTES, Settings, SettingsError


@pytest.fixture(autouse=True)
def _no_settings_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.load().environment():
        monkeypatch.delenv(name, raising=False)


def test_every_setting_is_documented() -> None:
    assert [n for n, field in Settings.model_fields.items() if not field.description] == []


def test_an_environment_variable_sets_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEROUTER_KAFKA", "a:1,b:2")
    monkeypatch.setenv("SPIKEROUTER_KINDS", "ingest, readout")
    monkeypatch.setenv("SPIKEROUTER_CAPACITY", "none")
    settings = Settings.load()
    assert settings.kafka == "a:1,b:2"
    assert settings.kinds == ("ingest", "readout")
    assert settings.capacity is None


def test_an_argument_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEROUTER_PARTITIONS", "3")
    assert Settings.load(partitions=2).partitions == 2


def test_a_child_reads_the_settings_its_parent_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Settings.load(
        kinds=("readout",), capacity=7, retention_bytes=None, store_timeout_s=0.5, backend="torch"
    )
    for name, value in written.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == written


def test_all_illegal_settings_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match="partitions = 0") as caught:
        Settings.load(partitions=0, backend="abacus")
    assert "'numpy', 'numba' or 'torch'" in str(caught.value)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match="colour"):
        Settings.load(colour="red")


@pytest.mark.parametrize("kafka", ["", "host", "host:", "a:1,", "kafka://a:1 b"])
def test_a_bootstrap_list_without_ports_is_refused(kafka: str) -> None:
    with pytest.raises(SettingsError, match="kafka"):
        Settings.load(kafka=kafka)


def test_what_may_be_in_flight_must_fit_the_retention_twice() -> None:
    with pytest.raises(SettingsError, match="unread input can be lost"):
        Settings.load(
            uncommitted_bytes=1_000_000, unconfirmed_bytes=1_000_000, retention_bytes=4_000_000
        )


def test_unbounded_retention_allows_any_amount_in_flight() -> None:
    assert Settings.load(uncommitted_bytes=10**9, retention_bytes=None).uncommitted_bytes == 10**9


def test_the_embedded_broker_is_polled_with_short_waits() -> None:
    settings = Settings.load(retention_bytes=None).on_embedded("127.0.0.1:5")
    assert (settings.kafka, settings.fetch_max_wait_ms) == ("127.0.0.1:5", 2)
    assert settings.retention_bytes == EMBEDDED_RETENTION_BYTES


def test_more_partitions_than_the_embedded_broker_has_are_refused() -> None:
    with pytest.raises(SettingsError, match="at most"):
        Settings.load(partitions=5).on_embedded("127.0.0.1:5")


def test_a_changed_copy_is_checked_too() -> None:
    with pytest.raises(SettingsError, match="lease_ttl_ms"):
        Settings.load().changed(lease_ttl_ms=1)


def test_a_password_reaches_a_child_and_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(kafka_password="hidden", redis_password="concealed")
    assert not re.search("hidden|concealed", f"{settings!r} {settings}")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load().kafka_password.get_secret_value() == "hidden"
    assert Settings.load().redis_password.get_secret_value() == "concealed"


def test_a_password_stands_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEROUTER_KAFKA_PASSWORD", "hidden")
    with pytest.raises(SettingsError) as caught:
        Settings.load(kafka_security="SASL_SSL")
    assert "needs a kafka_username" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("server", ["kafka", "redis"])
def test_a_certificate_without_its_key_is_refused(server: str) -> None:
    with pytest.raises(SettingsError, match=f"{server}_certificate and {server}_key belong"):
        Settings.load(**{f"{server}_certificate": "/client.pem"})


def test_more_copies_in_sync_than_copies_are_refused() -> None:
    with pytest.raises(SettingsError, match="min_insync 3 is more than replication 2"):
        Settings.load(replication=2, min_insync=3)
