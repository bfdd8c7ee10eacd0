"""Requests in every form in which Kafka's producers may write them, and batches in none.

Each compression, and transactions where the broker knows them: what is aborted is under the very
names of what is committed after it, with other contents, so that it would be answered wrongly if
anybody took it for said. Between them lie batches that the broker takes as they are, and nobody can
read.
"""

import random
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer

from loadtest.faults.contents import Content
from loadtest.faults.raw_batches import CODECS, append_raw, batch
from loadtest.faults.workload import Workload
from loadtest.traffic import sample_record
from router.records import encode_record, record_key
from router.security import kafka_options
from router.settings import Settings
from router.topics import in_topic

__all__ = ["UNREADABLE", "send_in_all_codecs", "send_in_transactions"]

_REQUESTS: Final = 3  # of each codec, in one batch
_LINGER_MS: Final = 20
UNREADABLE: Final = (
    batch(b"a", b"b", codec=7),
    batch(b"c", codec=CODECS["lz4"], content=b"no lz4"),
    batch(b"d", codec=CODECS["zstd"], content=b"no zstd"),
    batch(b"e", content=b"\xff" * 40),
)
"""Intact by their checksums: an unknown codec, contents that are of none, no records."""


async def send_in_all_codecs(settings: Settings, workload: Workload, dice: random.Random) -> int:
    """Send requests by a producer for each codec, and what nobody can read; how many records."""
    n = 0
    for codec in sorted(CODECS):
        async with AIOKafkaProducer(
            **kafka_options(settings), acks="all", compression_type=codec, linger_ms=_LINGER_MS
        ) as producer:
            sent = _requests(workload, dice, codec)
            partition = dice.randrange(settings.partitions)
            await _send(producer, partition, sent)
            for name, content in sent:
                workload.adopt(name, content)
        data = dice.choice(UNREADABLE)
        topic = in_topic(sent[0][1].input)
        refused = await append_raw(settings.kafka, topic, partition, data)
        n += len(sent) + (not refused)  # some brokers look into what they are given
    return n


async def send_in_transactions(settings: Settings, workload: Workload, dice: random.Random) -> int:
    """Send requests in a transaction, after others of their names in one that is aborted."""
    kept = _requests(workload, dice, "kept")
    aborted = [(name, _another(workload, content, dice)) for name, content in kept]
    partition = dice.randrange(settings.partitions)
    async with AIOKafkaProducer(
        **kafka_options(settings), transactional_id=f"transactions-{dice.getrandbits(40):x}"
    ) as producer:
        await producer.begin_transaction()
        await _send(producer, partition, aborted)
        await producer.abort_transaction()
        async with producer.transaction():
            await _send(producer, partition, kept)
    for name, content in kept:
        workload.adopt(name, content)
    return len(aborted) + len(kept)


def _requests(workload: Workload, dice: random.Random, what: str) -> list[tuple[str, Content]]:
    """Requests of one input, under names of their own."""
    source = dice.choice(workload.contents.requests).input
    contents = [c for c in workload.contents.requests if c.input == source]
    prefix = f"{what}-{dice.getrandbits(40):x}"
    return [(f"{prefix}-{i}", dice.choice(contents)) for i in range(_REQUESTS)]


def _another(workload: Workload, content: Content, dice: random.Random) -> Content:
    """A content of the same input that is another one."""
    found = [c for c in workload.contents.requests if c.input == content.input and c is not content]
    return dice.choice(found)


async def _send(
    producer: AIOKafkaProducer, partition: int, requests: Sequence[tuple[str, Content]]
) -> None:
    """Send them, and wait until all are acknowledged."""
    for name, content in requests:
        record = sample_record(name, content.samples[0], request=True)
        await producer.send(
            in_topic(content.input), encode_record(record), key=record_key(record),
            partition=partition,
        )  # fmt: skip
    await producer.flush()
