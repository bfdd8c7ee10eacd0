from typing import Any

import pytest

from router.admin import TopicsNotMade, create_topics, topic_config, unfit
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


def test_topic_that_keeps_all_records_of_any_legal_size_is_fit() -> None:
    settings = Settings()
    assert unfit(settings, topic_config(settings, 3)) == ""
    assert unfit(settings, {"cleanup.policy": "delete", "max.message.bytes": "1048588"}) == ""
    assert unfit(settings, {}) == ""


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"cleanup.policy": "compact"}, "every record"),
        ({"cleanup.policy": "compact,delete"}, "every record"),
        ({"max.message.bytes": "900000"}, "SPIKEROUTER_MAX_RECORD_BYTES"),
    ],
)
def test_topic_that_would_lose_records_is_unfit(config: dict[str, str], why: str) -> None:
    assert why in unfit(Settings(), config)
