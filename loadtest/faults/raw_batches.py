"""Batches of records as bytes, right or wrong, and a way to have a broker take them as they are."""

import struct
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

__all__ = ["CODECS", "append_raw", "batch", "with_base_offset"]

CODECS: Final = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_HEAD: Final = struct.Struct(">qiibIhiqqqhii")
_CRC_AT, _CHECKED_FROM = 17, 21


def batch(
    *values: bytes,
    codec: int = 0,
    content: bytes | None = None,
    wrong_crc: bool = False,
    n_offsets: int | None = None,
) -> bytes:
    """A batch of these values. `content` stands in place of its records, said to be of `codec`."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=2**20,
    )  # fmt: skip
    for index, value in enumerate(values):
        builder.append(index, None, None, value, [])
    whole = bytes(builder.build())
    head, body = list(_HEAD.unpack_from(whole)), content or whole[_HEAD.size :]
    head[1] = _HEAD.size - 12 + len(body)
    head[5] = codec
    if n_offsets is not None:
        head[6] = n_offsets - 1
    found = bytearray(_HEAD.pack(*head) + body)
    crc = calc_crc32c(bytes(found[_CHECKED_FROM:])) ^ wrong_crc
    struct.pack_into(">I", found, _CRC_AT, crc)
    return bytes(found)


def with_base_offset(data: bytes, offset: int) -> bytes:
    """The same batch, as a broker gives it out that has put it at this offset."""
    return struct.pack(">q", offset) + data[8:]


async def append_raw(bootstrap: str, topic: str, partition: int, data: bytes) -> str:
    """Have the broker append these bytes; the name of its error, "" if it took them."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        await producer.partitions_for(topic)
        leader = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
        request = ProduceRequest(
            transactional_id=None, required_acks=-1, timeout=5_000,
            topics=[(topic, [(partition, data)])],
        )  # fmt: skip
        response: Any = await producer.client.send(leader, request)
    finally:
        await producer.stop()
    ((_, ((_, code, *_),)),) = response.topics
    return "" if code == 0 else str(for_code(code).__name__)
