"""Topics on a real Kafka: made with the right partitions, copies and retention before first use.

A broker would make a topic when it is first asked for, with whatever it has for defaults; here that
is right only on the embedded broker, which has no other way. Topics that exist are left alone;
deployment compares what they are set to with what it needs (`check_topics`).

What each topic gets beside its numbers:

- `cleanup.policy=delete`: never compacted (PROTOCOL 2), since a replay needs every record;
- `message.timestamp.type=LogAppendTime`: the broker's clock decides what is too old, so a client
  whose clock is wrong can neither lose input by it nor keep records for ever;
- `unclean.leader.election.enable=false`: a copy that lacks acknowledged records never leads.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from router.probe import check_kafka
from router.security import kafka_options
from router.settings import Settings
from topologies.errors import SpikeRouterError

__all__ = [
    "TopicFaults",
    "TopicUnfit",
    "TopicsNotMade",
    "check_topics",
    "create_topics",
    "topic_config",
    "topic_faults",
]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_RETRY_S: Final = 0.2  # between two attempts
_PATIENCE: Final = 3  # times the send timeout: a controller that died is replaced by then
_ATTEMPT: Final = 0.2  # times the send timeout: a request may wait for the one that died
_COPIES: Final = 3
_LARGEST_BATCH: Final = 1_048_588  # Kafka's own default of max.message.bytes
_HEADROOM: Final = 100_000  # bytes of a batch beside its largest record
_SMALLEST_SEGMENT: Final = 1024 * 1024
_LARGEST_SEGMENT: Final = 1024 * 1024 * 1024
_SEGMENTS: Final = 4  # whole segments are deleted: a fourth more than asked for is kept at most
_UNBOUNDED: Final = 1 << 63  # what -1 is compared as


class TopicsNotMade(SpikeRouterError, RuntimeError):
    """Kafka refused to make a topic, or did not answer."""

    retryable = True


class TopicUnfit(SpikeRouterError, ValueError):
    """A topic that exists is set to what would lose or refuse records."""


class TopicFaults(NamedTuple):
    """What is amiss with a topic, in sentences: why it is refused, and what is only told."""

    refused: tuple[str, ...]
    told: tuple[str, ...]


async def create_topics(
    settings: Settings, topics: Iterable[str], n_partitions: int
) -> tuple[str, ...]:
    """Make those topics that do not exist, and return their names. Raises `TopicsNotMade`, and
    `WrongServer` when it is no Kafka that answers.

    A broker that is away for a while is waited for, three times `settings.send_timeout_s` at most.
    """
    wanted = tuple(dict.fromkeys(topics))

    async def create(admin: AIOKafkaAdminClient) -> tuple[str, ...]:
        return await _create(admin, settings, wanted, n_partitions)

    return await _patiently(settings, create, "did not make the topics")


async def check_topics(settings: Settings, topics: Iterable[str]) -> None:
    """Compare the settings of those topics that exist with what a deployment needs.

    Raises `TopicUnfit`, with all that has to be altered, and what `create_topics` raises; what
    costs no record of a client that is on time is logged.
    """
    wanted = tuple(dict.fromkeys(topics))

    async def describe(admin: AIOKafkaAdminClient) -> dict[str, dict[str, str]]:
        return await _configs(admin, wanted)

    found = await _patiently(settings, describe, "did not tell how its topics are set")
    faults = [topic_faults(settings, topic, config) for topic, config in found.items()]
    for sentence in (each for fault in faults for each in fault.told):
        _log.warning("%s", sentence)
    if refused := [each for fault in faults for each in fault.refused]:
        raise TopicUnfit(" ".join(refused))


def topic_faults(settings: Settings, topic: str, config: Mapping[str, str]) -> TopicFaults:
    """What is amiss with a topic that is set like this; what `config` does not name is right."""
    policy, largest = config.get("cleanup.policy", "delete"), _least_batch(settings)
    refused, told = [], []
    if policy != "delete":
        refused.append(
            f"Topic {topic} has cleanup.policy={policy}, which drops records that a replay needs:"
            " set it to delete."
        )
    if _size(config, "max.message.bytes") < largest:
        refused.append(
            f"Topic {topic} has max.message.bytes={config['max.message.bytes']}, and Kafka would"
            f" refuse batches of up to {largest} bytes that are written there: set it to that at"
            " least, or SPIKEROUTER_MAX_RECORD_BYTES lower."
        )
    unread = 2 * (settings.uncommitted_bytes + settings.unconfirmed_bytes)
    kept = _size(config, "retention.bytes")
    if kept <= unread:
        refused.append(
            f"Topic {topic} has retention.bytes={kept}, and up to {unread} bytes of it may be"
            " unread: set it higher than that."
        )
    elif kept < (settings.retention_bytes or _UNBOUNDED):
        told.append(_keeps_less(topic, "retention.bytes", kept, settings.retention_bytes))
    if (kept := _size(config, "retention.ms")) < (settings.retention_ms or _UNBOUNDED):
        told.append(_keeps_less(topic, "retention.ms", kept, settings.retention_ms))
    if config.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        told.append(
            f"Topic {topic} has message.timestamp.type=CreateTime, so the clocks of publishers"
            " decide how long it keeps their records: LogAppendTime is better."
        )
    if config.get("unclean.leader.election.enable", "false") != "false":
        told.append(
            f"Topic {topic} has unclean.leader.election.enable=true, by which a broker may lose"
            " records that it has acknowledged: false is better."
        )
    return TopicFaults(tuple(refused), tuple(told))


def _keeps_less(topic: str, name: str, kept: int, wanted: int | None) -> str:
    asked = "unbounded" if wanted is None else str(wanted)
    return (
        f"Topic {topic} has {name}={kept}, less than SPIKEROUTER_{name.upper().replace('.', '_')}"
        f" ({asked}): alter the topic, or the setting."
    )


def _size(config: Mapping[str, str], name: str) -> int:
    """A number of bytes or ms; unbounded where it is -1, or nobody has said it."""
    value = int(config.get(name, -1))
    return value if value >= 0 else _UNBOUNDED


def _least_batch(settings: Settings) -> int:
    """The largest batch that this program writes."""
    return settings.max_record_bytes + _HEADROOM


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
        "max.message.bytes": str(max(_LARGEST_BATCH, _least_batch(settings))),
        "min.insync.replicas": str(in_sync),
        "message.timestamp.type": "LogAppendTime",
        "unclean.leader.election.enable": "false",
    }


async def _patiently(
    settings: Settings, ask: Callable[[AIOKafkaAdminClient], Awaitable[_T]], failed: str
) -> _T:
    """Ask until Kafka answers, three times the send timeout at most."""
    await check_kafka(kafka_options(settings))
    now = asyncio.get_running_loop().time
    deadline = now() + _PATIENCE * settings.send_timeout_s
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await _attempt(settings, ask)
        except (KafkaError, TimeoutError) as error:
            may_pass = isinstance(error, TimeoutError) or error.retriable
            if not may_pass or now() + _RETRY_S >= deadline:
                raise TopicsNotMade(
                    f"Kafka at {settings.kafka} {failed}: {error!r}. Check that it"
                    " runs, and that this user may describe the cluster and create topics."
                ) from error
        await asyncio.sleep(_RETRY_S)


async def _attempt(settings: Settings, ask: Callable[[AIOKafkaAdminClient], Awaitable[_T]]) -> _T:
    """Ask a cluster as it is now: a client that is open already may know it as it was."""
    answer_ms = max(1, int(_ATTEMPT * settings.send_timeout_s * 1000))
    admin = AIOKafkaAdminClient(**kafka_options(settings), request_timeout_ms=answer_ms)
    try:
        await admin.start()
        return await ask(admin)
    finally:
        await admin.close()


async def _create(
    admin: AIOKafkaAdminClient, settings: Settings, topics: Iterable[str], n_partitions: int
) -> tuple[str, ...]:
    brokers = await _brokers(admin)
    if not brokers:
        return ()
    existing = set(await admin.list_topics())
    copies = settings.replication or min(_COPIES, len(brokers))
    config = topic_config(settings, copies)
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


async def _brokers(admin: AIOKafkaAdminClient) -> set[int]:
    """The numbers of the brokers; none of an embedded one, which has no controller to ask."""
    cluster = await admin.describe_cluster()
    brokers = {broker["node_id"] for broker in cluster["brokers"]}
    return brokers if cluster["controller_id"] in brokers else set()


async def _configs(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """How those topics that exist are set, as far as this user may know it."""
    if not await _brokers(admin):
        return {}
    existing = set(await admin.list_topics())
    asked = [ConfigResource(ConfigResourceType.TOPIC, t) for t in topics if t in existing]
    found: dict[str, dict[str, str]] = {}
    for reply in await admin.describe_configs(asked) if asked else ():
        for code, reason, _, topic, entries in reply.resources:
            kind = for_code(code)
            if code and kind.retriable:
                raise kind(f"topic {topic}: {reason or 'no reason'}")
            if code:
                _log.warning(
                    "Whether topic %s keeps and takes what it has to is not known (%s): grant this"
                    " user DescribeConfigs on it.", topic, kind.__name__,
                )  # fmt: skip
            else:
                found[topic] = {name: value for name, value, *_ in entries if value is not None}
    return found


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
