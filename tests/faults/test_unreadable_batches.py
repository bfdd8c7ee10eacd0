"""What Kafka gives back and nobody can read costs at most the streams that need it, by name."""

import asyncio
from typing import Any, Final

import pytest
from confluent_kafka import Producer

from loadtest.faults.contents import DIGITS, Content
from loadtest.faults.raw_batches import CODECS, append_raw, batch
from loadtest.traffic import sample_record
from router.client import StreamFailed
from router.records import encode_record, record_key
from router.topics import in_topic, spikes_topic
from tests.faults.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_FLUSH_S: Final = 30.0
_GARBAGE: Final = (
    batch(b"a", b"b", codec=7),
    batch(b"c", codec=CODECS["lz4"], content=b"no lz4"),
    batch(b"d", content=b"\xff" * 40),
)


def _send_compressed(bootstrap: str, topic: str, name: str, content: Content) -> None:
    """A whole stream, each record compressed in another way."""
    codecs = sorted(CODECS)
    producers = [Producer({"bootstrap.servers": bootstrap, "compression.type": c}) for c in codecs]
    failed: list[Any] = []
    for index, sample in enumerate(content.samples):
        record = sample_record(name, sample, seq=index, end=index == len(content.samples) - 1)
        producer = producers[index % len(producers)]
        producer.produce(
            topic, encode_record(record), record_key(record), partition=0,
            on_delivery=lambda error, _: failed.append(error),
        )  # fmt: skip
        assert producer.flush(_FLUSH_S) == 0
    assert len(failed) == len(content.samples)
    assert not any(failed)


async def test_records_of_any_codec_are_served_and_garbage_between_them_hurts_nobody(
    served: Served,
) -> None:
    kafka, topic = served.world.settings.kafka, in_topic(DIGITS)
    content = served.contents.walks[0]
    half = len(content.samples) // 2
    await served.send("neighbour", content, 0, half)
    for garbage in _GARBAGE:
        assert await append_raw(kafka, topic, 0, garbage) == ""
    await asyncio.to_thread(_send_compressed, kafka, topic, "compressed", content)
    await served.send("neighbour", content, half, len(content.samples))
    expected = served.contents.expected[content.name][DIGITS]
    assert await served.answer("neighbour", DIGITS) == expected
    assert await served.answer("compressed", DIGITS) == expected
    letters = await served.letters(topic, len(_GARBAGE))
    assert [letter.partition for letter in letters] == [0] * len(_GARBAGE)
    assert all(letter.reason.startswith("UnreadableBatch: offset") for letter in letters)


async def test_a_damaged_batch_between_operators_ends_streams_by_name_and_the_next_one_is_served(
    served: Served,
) -> None:
    content = served.contents.walks[0]
    await served.send("open", content, 0, 5)
    await served.until_emitted("open", DIGITS)
    network = served.contents.networks[DIGITS]
    topic = spikes_topic(network.nodes[network.input.node].operator)
    damaged = batch(b"x", wrong_crc=True)
    assert await append_raw(served.world.settings.kafka, topic, 0, damaged) == ""
    with pytest.raises(StreamFailed, match=r"InputLost: stream open at window .* cannot be read"):
        await served.answer("open", DIGITS)
    await served.send("next", content, 0, len(content.samples))
    expected = served.contents.expected[content.name][DIGITS]
    assert await served.answer("next", DIGITS) == expected
    assert await served.letters(topic, 1)
