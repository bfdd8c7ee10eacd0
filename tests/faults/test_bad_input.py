"""What nobody can read goes to the dead letters, ends the stream it belongs to, and no other."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import httpx
import msgpack
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from loadtest.faults.contents import DIGITS, SECOND, Contents
from loadtest.faults.hostile import poison_frames, poison_records
from router.client import RecordRefused, StreamFailed
from router.keyrings import load_keys
from router.records import Data
from router.seals import SEAL_HEADER, Keyring, Signed
from router.settings import Settings
from router.store.redis import RedisStore
from router.topics import in_topic, out_topic, spikes_topic
from router.wire import Batch, Frame, StreamId, WireError, decode_frame, encode_frame
from tests.faults.served import Served, serving

pytestmark = [pytest.mark.faults, pytest.mark.serial]

_FAKE = 1 << 40  # numbers from here on are none that ingest ever gives
_PAYLOADS = {
    "no codec": b"\xff" * 20,
    "nothing": b"",
    "addresses beyond the shape": b"\x02" + b"\xff" * 8,
    "of another shape": b"\x04" * 1000,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lasting(contents: Contents) -> AsyncIterator[Served]:
    """A world that each of these tests leaves as good as it found it, for the next one."""
    settings = Settings.load(partitions=1, log_level="WARNING")
    async with serving(contents, settings, n_workers=2) as running:
        yield running


on_the_lasting_one = pytest.mark.asyncio(loop_scope="module")


async def _append(
    served: Served,
    topic: str,
    values: Sequence[tuple[bytes | None, bytes]],
    keys: Keyring | None = None,
) -> None:
    """Append records, sealed if somebody has stolen the `keys`."""
    async with AIOKafkaProducer(bootstrap_servers=served.world.settings.kafka) as producer:
        for key, value in values:
            seal = b"" if keys is None else keys.seal(Signed(topic, 0, key, value))
            headers = [(SEAL_HEADER, seal)] if seal else None
            await producer.send_and_wait(topic, value, key=key, partition=0, headers=headers)


async def _keys(served: Served) -> Keyring:
    async with RedisStore.of(served.world.settings) as store:
        return await load_keys(store)


def _is_frame(value: bytes) -> bool:
    try:
        decode_frame(value)
    except WireError:
        return False
    return True


async def test_unreadable_frames_and_records_go_to_the_dead_letters_and_neighbours_do_not_notice(
    served: Served,
) -> None:
    content = served.contents.walks[0]
    half = len(content.samples) // 2
    await served.send("neighbour", content, 0, half)
    network = served.contents.networks[DIGITS]
    spikes = spikes_topic(network.nodes[network.input.node].operator)
    frames = poison_frames(network.nodes[network.input.node].operator)
    unreadable = [value for value in frames if not _is_frame(value)]
    await _append(served, spikes, [(None, value) for value in frames])
    await _append(served, spikes, [(None, value) for value in unreadable], await _keys(served))
    records = poison_records(1)
    await _append(served, in_topic(DIGITS), records)
    await served.send("neighbour", content, half, len(content.samples))
    for name in (DIGITS, SECOND):
        assert await served.answer("neighbour", name) == content_of(served, name)
    told = await served.letters(in_topic(DIGITS), len(records))
    assert {letter.value for letter in told} == {value for _, value in records}
    assert all(letter.reason for letter in told)
    n_letters = 2 * (len(frames) + len(unreadable))  # each network reads these spikes
    told = await served.letters(spikes, n_letters)
    assert {letter.value for letter in told} == set(frames)
    unsealed = [letter for letter in told if letter.reason.startswith("Unsealed: ")]
    assert (len(unsealed), len(told)) == (2 * len(frames), n_letters)
    assert all(letter.reason for letter in told)


def content_of(served: Served, network: str) -> tuple[bytes, ...]:
    return served.contents.expected[served.contents.walks[0].name][network]


async def _era(served: Served) -> int:
    """The era of the streams that results tell of."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=served.world.settings.kafka, auto_offset_reset="earliest"
    )
    async with consumer:
        consumer.assign([TopicPartition(out_topic(DIGITS), 0)])
        frame = decode_frame((await consumer.getone()).value)
        return frame.batches[0].stream.era


@on_the_lasting_one
@pytest.mark.parametrize("what", _PAYLOADS)
async def test_a_window_that_cannot_be_computed_ends_its_stream_by_name(
    lasting: Served, what: str
) -> None:
    served, content, number = lasting, lasting.contents.walks[0], list(_PAYLOADS).index(what)
    neighbour, poisoned = f"neighbour-{number}", f"poisoned-{number}"
    await served.send(neighbour, content, 0, 5)
    await served.until_emitted(neighbour, DIGITS)
    network = served.contents.networks[DIGITS]
    ingest = network.nodes[network.input.node]
    batch = Batch(
        ingest.id, StreamId(await _era(served), _FAKE + number), poisoned, (DIGITS,), 0, 0, 0, 4,
        payload=_PAYLOADS[what], end=True,
    )  # fmt: skip
    value = encode_frame(Frame(ingest.operator, 0, [batch]))
    topic = spikes_topic(ingest.operator)
    await _append(served, topic, [(None, value)])  # by somebody without keys: of no effect
    await _append(served, topic, [(None, value)], await _keys(served))
    told = rf"OperatorFailed: operator [0-9a-f]+, stream {poisoned}"
    with pytest.raises(StreamFailed, match=told):
        await served.answer(poisoned, DIGITS)
    await served.send(neighbour, content, 5, len(content.samples))
    assert await served.answer(neighbour, DIGITS) == content_of(served, DIGITS)


@on_the_lasting_one
async def test_a_client_whose_record_is_refused_learns_the_reason(lasting: Served) -> None:
    bad = Data("wrong", request=True, payload=b"\x00" * 12, dtype="uint8", shape=(12,))
    at = await (await lasting.publisher.publish(DIGITS, bad))
    with pytest.raises(RecordRefused, match="12 values were sent"):
        await lasting.reader.result("wrong", 20.0, network=DIGITS, positions=[at])


@on_the_lasting_one
async def test_hostile_http_requests_are_refused_with_a_sentence_and_the_gateway_lives(
    lasting: Served,
) -> None:
    good = lasting.contents.requests[0].samples.tolist()
    tensor = {"name": DIGITS, "shape": [1, 1, 8, 8], "datatype": "UINT8", "data": good}
    nan = b'{"inputs": [{"name": "scnn_digits", "shape": [1, 1, 8, 8], "data": [NaN]}]}'
    infer = f"/v2/models/{DIGITS}/infer"
    limit = lasting.world.settings.max_body_bytes
    asked: list[tuple[str, bytes, set[int]]] = [
        (infer, b"x" * (limit + 1), {413}),
        (infer, nan, {400}),
        (infer, b"[" * 50_000, {400}),
        (infer, msgpack.packb({"inputs": []}), {400}),
        (infer, b'{"inputs": [{"shape": [99999999999999999999, 1]}]}', {400}),
        (infer, b'{"id": "\\u0000", "inputs": []}', {400}),
        ("/v2/models/..%2f..%2fetc%2fpasswd/infer", b"{}", {400, 404}),
        ("/v2/models/%2e%2e/infer", b"{}", {400, 404}),
        ("/v2/models/nobody/infer", b"{}", {404}),
        (f"/v1/networks/{DIGITS}/streams/%00/events", b'{"end": true}', {400}),
        (f"/v1/networks/{DIGITS}/streams/{'x' * 300}/events", b'{"end": true}', {400}),
        (f"/v1/networks/{DIGITS}/streams/..%2f..%2fx/events", b'{"end": true}', {400, 404, 202}),
    ]
    async with httpx.AsyncClient(base_url=lasting.world.stack.http, trust_env=False) as client:
        for path, body, codes in asked:
            reply = await client.post(path, content=body)
            assert reply.status_code in codes, (path, reply.text)
            if reply.status_code >= 400:
                assert reply.json()["error"], path
        reply = await client.post(infer, json={"inputs": [tensor]})
        assert reply.status_code == 200


@on_the_lasting_one
async def test_a_body_that_claims_to_be_endless_is_not_read(lasting: Served) -> None:
    host, _, port = lasting.world.stack.http.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v2/models/{DIGITS}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {10**15}\r\n\r\n"
    writer.write(head.encode())
    assert b" 413 " in await reader.readline()
    writer.close()
