from typing import Any

import pytest

from router.admin import TopicsNotMade, check_topics, create_topics, topic_config, topic_faults
from router.embedded import EmbeddedBroker
from router.settings import Settings


def _config(copies: int = 3, **changes: Any) -> dict[str, str]:
    return topic_config(Settings.load(**changes), copies)


@pytest.mark.parametrize(("copies", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "4")])
def test_one_copy_may_be_missing_where_there_is_more_than_one(copies: int, in_sync: str) -> None:
    assert _config(copies)["min.insync.replicas"] == in_sync


def test_unbounded_retention_is_minus_one_for_kafka() -> None:
    config = _config(retention_bytes=None, retention_ms=None)
    assert (config["retention.bytes"], config["retention.ms"]) == ("-1", "-1")


def test_a_partition_consists_of_several_segments_so_that_retention_bites() -> None:
    config = _config(retention_bytes=64 * 2**20)
    assert int(config["segment.bytes"]) * 4 == int(config["retention.bytes"])


def test_the_largest_record_fits_a_topic() -> None:
    assert int(_config(max_record_bytes=3_000_000)["max.message.bytes"]) > 3_000_000


def test_waiting_for_more_copies_than_there_are_is_refused() -> None:
    with pytest.raises(TopicsNotMade, match="nothing could ever be written"):
        _config(1, min_insync=2)


async def test_the_embedded_broker_makes_its_topics_by_itself() -> None:
    with EmbeddedBroker() as broker:
        settings = Settings.load().on_embedded(broker.address)
        assert await create_topics(settings, ["any"], 4) == ()


async def test_a_kafka_that_is_not_there_is_told_in_a_sentence() -> None:
    settings = Settings.load(kafka="127.0.0.1:1", send_timeout_s=0.5)
    with pytest.raises(TopicsNotMade, match=r"127\.0\.0\.1:1 did not make the topics"):
        await create_topics(settings, ["any"], 4)


def test_a_topic_that_deployment_makes_has_no_faults() -> None:
    settings = Settings.load()
    assert topic_faults(settings, "t", topic_config(settings, 3)) == ((), ())
    unbounded = Settings.load(retention_bytes=None, retention_ms=None)
    assert topic_faults(unbounded, "t", topic_config(unbounded, 3)) == ((), ())


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("max.message.bytes", "999999", "refuse batches of up to 1000000 bytes"),
        ("cleanup.policy", "compact", "set it to delete"),
        ("cleanup.policy", "compact,delete", "set it to delete"),
        ("retention.bytes", "4000000", "up to 4000000 bytes of it may be unread"),
    ],
)
def test_a_topic_that_would_lose_or_refuse_records_is_refused(
    name: str, value: str, why: str
) -> None:
    settings = Settings.load()
    faults = topic_faults(settings, "snn.in.x", {**topic_config(settings, 3), name: value})
    (sentence,) = faults.refused
    assert sentence.startswith(f"Topic snn.in.x has {name}={value}")
    assert why in sentence
    assert not faults.told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention.bytes", "5000000"),
        ("retention.ms", "1000"),
        ("message.timestamp.type", "CreateTime"),
        ("unclean.leader.election.enable", "true"),
    ],
)
def test_a_topic_that_is_worse_than_one_of_ours_is_told(name: str, value: str) -> None:
    settings = Settings.load()
    faults = topic_faults(settings, "snn.in.x", {**topic_config(settings, 3), name: value})
    (sentence,) = faults.told
    assert sentence.startswith(f"Topic snn.in.x has {name}={value}")
    assert not faults.refused


def test_a_topic_of_kafkas_own_defaults_takes_the_largest_record() -> None:
    assert not topic_faults(Settings.load(), "t", {"max.message.bytes": "1048588"}).refused


def test_a_topic_that_keeps_more_than_is_asked_for_has_no_faults() -> None:
    config = {"retention.bytes": "-1", "retention.ms": "-1", "max.message.bytes": "99999999"}
    assert topic_faults(Settings.load(), "t", config) == ((), ())


async def test_topics_of_the_embedded_broker_are_not_compared() -> None:
    with EmbeddedBroker() as broker:
        await check_topics(Settings.load().on_embedded(broker.address), ["any"])
