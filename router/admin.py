"""Topics on a real Kafka: made with the right partitions, copies and retention before first use.

A broker would make a topic when it is first asked for, with whatever it has for defaults; here that
is right only on the embedded broker, which has no other way. Topics that exist are left alone, but
one that could lose records, or refuse them, is told.

What each topic gets beside its numbers:

- `cleanup.policy=delete`: never compacted (PROTOCOL 2), since a replay needs every record;
- `message.timestamp.type=LogAppendTime`: the broker's clock decides what is too old, so a client
  whose clock is wrong can neither lose input by it nor keep records for ever;
- `unclean.leader.election.enable=false`: a copy that lacks acknowledged records never leads.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from router.probe import check_kafka
from router.security import kafka_options
from router.settings import Settings
from topologies.errors import SpikeRouterError

__all__ = ["TopicUnfit", "TopicsNotMade", "create_topics", "topic_config", "unfit"]

_RETRY_S: Final = 0.2  # between two attempts
_PATIENCE: Final = 3  # times the send timeout: a controller that died is replaced by then
_ATTEMPT: Final = 0.2  # times the send timeout: a request may wait for the one that died
_COPIES: Final = 3
_LARGEST_BATCH: Final = 1_048_588  # Kafka's own default of max.message.bytes
_HEADROOM: Final = 100_000  # bytes of a batch beside its largest record
_AROUND: Final = 4_096  # those that it needs: headers, key, seal
_SMALLEST_SEGMENT: Final = 1024 * 1024
_LARGEST_SEGMENT: Final = 1024 * 1024 * 1024
_log = logging.getLogger(__name__)
_SEGMENTS: Final = 4  # whole segments are deleted: a fourth more than asked for is kept at most


class TopicsNotMade(SpikeRouterError, RuntimeError):
    """Kafka refused to make a topic, or did not answer."""

    retryable = True


class TopicUnfit(TopicsNotMade):
    """A topic that was made before has a configuration under which records would be lost."""

    retryable = False


async def create_topics(
    settings: Settings, topics: Iterable[str], n_partitions: int
) -> tuple[str, ...]:
    """Make those topics that do not exist, and return their names. Raises `TopicsNotMade`,
    `TopicUnfit` for one that exists otherwise than it must, and `WrongServer` when it is no Kafka
    that answers.

    A broker that is away for a while is waited for, three times `settings.send_timeout_s` at most.
    """
    wanted = tuple(dict.fromkeys(topics))
    await check_kafka(kafka_options(settings))
    now = asyncio.get_running_loop().time
    deadline = now() + _PATIENCE * settings.send_timeout_s
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await _attempt(settings, wanted, n_partitions)
        except (KafkaError, TimeoutError) as error:
            may_pass = isinstance(error, TimeoutError) or error.retriable
            if not may_pass or now() + _RETRY_S >= deadline:
                raise TopicsNotMade(
                    f"Kafka at {settings.kafka} did not make the topics: {error!r}. Check that it"
                    " runs, and that this user may describe the cluster and create topics."
                ) from error
        await asyncio.sleep(_RETRY_S)


def topic_config(settings: Settings, copies: int) -> dict[str, str]:
    """The configuration of a topic with so many copies, as Kafka names and writes it."""
    keep_bytes, keep_ms = settings.retention_bytes, settings.retention_ms
    in_sync = settings.min_insync or max(1, copies - 1)
    if in_sync > copies:
        raise TopicsNotMade(
            f"SPIKEROUTER_MIN_INSYNC is {in_sync}, but a topic gets {copies} copies here: nothing"
            " could ever be written. Set it lower, or use more brokers."
        )
    segment = _LARGEST_SEGMENT
    if keep_bytes is not None:
        segment = min(max(keep_bytes // _SEGMENTS, _SMALLEST_SEGMENT), _LARGEST_SEGMENT)
    return {
        "cleanup.policy": "delete",
        "retention.bytes": "-1" if keep_bytes is None else str(keep_bytes),
        "retention.ms": "-1" if keep_ms is None else str(keep_ms),
        "segment.bytes": str(segment),
        "max.message.bytes": str(max(_LARGEST_BATCH, settings.max_record_bytes + _HEADROOM)),
        "min.insync.replicas": str(in_sync),
        "message.timestamp.type": "LogAppendTime",
        "unclean.leader.election.enable": "false",
    }


async def _attempt(settings: Settings, topics: Iterable[str], n_partitions: int) -> tuple[str, ...]:
    """Ask a cluster as it is now: a client that is open already may know it as it was."""
    answer_ms = max(1, int(_ATTEMPT * settings.send_timeout_s * 1000))
    admin = AIOKafkaAdminClient(**kafka_options(settings), request_timeout_ms=answer_ms)
    try:
        await admin.start()
        return await _create(admin, settings, topics, n_partitions)
    finally:
        await admin.close()


async def _create(
    admin: AIOKafkaAdminClient, settings: Settings, topics: Iterable[str], n_partitions: int
) -> tuple[str, ...]:
    cluster = await admin.describe_cluster()
    brokers = {broker["node_id"] for broker in cluster["brokers"]}
    if cluster["controller_id"] not in brokers:  # the embedded broker: it has none
        return ()
    existing = set(await admin.list_topics())
    copies = settings.replication or min(_COPIES, len(brokers))
    config = topic_config(settings, copies)
    if there := [name for name in topics if name in existing]:
        await _check_existing(admin, settings, there)
    wanted = [
        NewTopic(name, n_partitions, copies, topic_configs=config)
        for name in topics
        if name not in existing
    ]
    if not wanted:
        return ()
    reply = await admin.create_topics(wanted)
    _check(reply.topic_errors)
    return tuple(topic.name for topic in wanted)


async def _check_existing(
    admin: AIOKafkaAdminClient, settings: Settings, topics: Iterable[str]
) -> None:
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
    for reply in await admin.describe_configs(asked):
        for code, reason, _, name, entries in reply.resources:
            if code:  # a right that is missing, say: nobody can tell
                _log.warning("topic %s: its configuration is not known: %s", name, reason or code)
            elif why := unfit(settings, {entry[0]: entry[1] for entry in entries}):
                raise TopicUnfit(f"Topic {name} exists, and {why}")


def unfit(settings: Settings, config: Mapping[str, str | None]) -> str:
    """Why a topic of this configuration, in Kafka's names, would lose or refuse records; "" if it
    would not."""
    policy, most = config.get("cleanup.policy"), config.get("max.message.bytes")
    if "compact" in (policy or ""):
        return (
            f"its cleanup.policy is {policy}: it must be delete, since a replay needs every record."
            " Change it, or delete the topic."
        )
    if most is not None and int(most) < settings.max_record_bytes + _AROUND:
        return (
            f"its max.message.bytes is {most}, but records of SPIKEROUTER_MAX_RECORD_BYTES"
            f" ({settings.max_record_bytes}) need {settings.max_record_bytes + _AROUND}: raise the"
            " one, or lower the other."
        )
    return ""


def _check(errors: Iterable[Any]) -> None:
    """Raise for the first error but that somebody else was quicker: TopicsNotMade, or Kafka's own
    where it may pass."""
    for name, code, reason in errors:
        kind = for_code(code)
        if code and kind.retriable:
            raise kind(f"topic {name}: {reason or 'no reason'}")
        if code and kind is not TopicAlreadyExistsError:
            raise TopicsNotMade(
                f"Kafka refused to make topic {name} ({kind.__name__}): {reason or 'no reason'}"
                " Check SPIKEROUTER_REPLICATION, SPIKEROUTER_RETENTION_BYTES and the user's rights."
            )
