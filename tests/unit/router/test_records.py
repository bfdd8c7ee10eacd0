"""Input records: golden vectors, JSON for any Kafka client, and a reason for each refusal."""

import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from router.payload import pack
from router.records import (
    MAX_NETWORKS,
    SPIKES,
    Data,
    Era,
    Kill,
    Record,
    RecordError,
    Route,
    encode_record,
    parse_record,
    record_key,
)
from router.wire import ERROR_BYTES, StreamId

GOLDEN = Path(__file__).parents[2] / "golden" / "wire" / "v1" / "record"
VECTORS = sorted(GOLDEN.glob("*.json"))
KINDS: dict[str, type[Record]] = {"Data": Data, "Era": Era, "Route": Route, "Kill": Kill}


def from_golden(content: dict[str, Any]) -> Record:
    fields = dict(content["fields"])
    for name in ("networks", "ends", "shape", "events"):
        if fields.get(name) is not None:
            fields[name] = tuple(tuple(x) if isinstance(x, list) else x for x in fields[name])
    if fields.get("payload") is not None:
        fields["payload"] = bytes.fromhex(fields["payload"])
    if "stream" in fields:
        fields["stream"] = StreamId(*fields["stream"])
    return KINDS[content["kind"]](**fields)


def native(**fields: object) -> bytes:
    value: bytes = msgpack.packb({"v": 1, "k": "data", **fields})
    return value


def parse(value: bytes | str | None, key: bytes | None = b"cam") -> Record:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return parse_record(key, data, 3, 77)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: str(path.stem))
def test_golden_record_is_read_and_written_unchanged(path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    record, data = from_golden(vector["content"]), bytes.fromhex(vector["bytes"])
    key = vector["content"]["key"]
    assert record_key(record) == (None if key is None else key.encode())
    assert encode_record(record) == data
    assert parse_record(record_key(record), data, 0, 0) == record


def test_events_in_json_have_value_1_unless_given() -> None:
    record = parse('{"events": [[3, 17], [4, 2, -5]], "until": 40, "end": true}')
    assert record == Data("cam", events=((3, 17, 1), (4, 2, -5)), until=40, end=True)


def test_data_in_json_becomes_float32_of_its_shape() -> None:
    record = parse('{"data": [[1, 2.5], [0.1, -4]], "networks": ["a"], "seed": 3, "seq": 0}')
    assert isinstance(record, Data)
    values = record.values()
    assert values.dtype == np.float32
    assert np.array_equal(values, np.array([[1, 2.5], [0.1, -4]], np.float32))
    assert (record.networks, record.seed, record.seq, record.request) == (("a",), 3, 0, False)


def test_single_number_in_json_is_a_value_without_axes() -> None:
    record = parse('{"data": 5}')
    assert isinstance(record, Data)
    assert record.values().shape == ()


def test_other_kinds_can_be_written_in_json_too() -> None:
    assert parse('{"k": "route", "networks": ["a", "b"]}', None) == Route(("a", "b"))
    assert parse('{"k": "route", "networks": [], "ends": ["a"]}', None) == Route((), ("a",))
    era = '{"v": 1, "k": "era", "era": 18446744073709551615, "predecessor": 0, "networks": []}'
    assert parse(era) == Era(2**64 - 1, 0, ())


def test_json_and_native_records_of_equal_content_are_equal() -> None:
    text = parse('{"events": [[3, 17]], "end": true}')
    assert parse_record(b"cam", encode_record(text), 0, 0) == text


def test_record_without_key_is_a_request_named_by_its_id() -> None:
    record = parse('{"data": [1], "id": "Zürich"}', None)
    assert isinstance(record, Data)
    assert (record.name, record.request) == ("Zürich", True)
    assert record_key(record) is None
    assert parse_record(None, encode_record(record), 9, 9) == record


def test_request_without_id_is_named_by_its_place_in_the_log() -> None:
    record = parse('{"data": [1]}', None)
    assert isinstance(record, Data)
    assert record.name == "3-77"


def test_key_names_the_stream() -> None:
    record = parse('{"end": true}', "Zürich/1".encode())
    assert record == Data("Zürich/1", end=True)
    assert record_key(record) == "Zürich/1".encode()


def test_dense_values_without_shape_have_one_axis() -> None:
    record = parse(native(payload=bytes(6), dtype="int16"))
    assert isinstance(record, Data)
    assert record.shape == (3,)
    assert record.values().dtype == np.int16


def test_spikes_keep_their_steps() -> None:
    payload = pack(np.ones((1, 4, 8), np.uint8), 0, 1)[0]
    record = Data("cam", payload=payload, dtype=SPIKES, steps=4, start=2**40)
    assert parse_record(b"cam", encode_record(record), 0, 0) == record
    with pytest.raises(RecordError, match="no dense values"):
        record.values()


def test_long_error_of_a_kill_is_cut_so_that_it_can_always_be_sent() -> None:
    kill = Kill(StreamId(1, 2), "cam", ("a",), "ä" * ERROR_BYTES)
    assert parse_record(b"cam", encode_record(kill), 0, 0) == Kill(
        kill.stream, "cam", ("a",), "ä" * (ERROR_BYTES // 2)
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no value"),
        (b"", "no value"),
        ("{", "is not"),
        ('{"end": true} x', "is not"),
        ('{"end": true, "end": true}', "twice"),
        ('{"end": true, "v": 2}', "version 2"),
        ('{"end": true, "v": true}', "version True"),
        ('{"end": true, "k": "spike"}', "kind 'spike'; legal are data, era, route, kill"),
        ('{"end": true, "k": []}', "kind"),
        ('{"evnets": [[1, 2]]}', "field 'evnets'; legal are .*events.*data"),
        ('{"k": "route", "end": true}', "field 'end'; legal are networks, ends"),
        ('{"k": "route"}', "no field `networks`"),
        ("{}", "says nothing"),
        ('{"seed": 3}', "says nothing"),
        ('{"end": false}', "says nothing"),
        ('{"data": [1], "events": [[1, 2]]}', "both"),
        ('{"payload": "AAA="}', "JSON"),
        ('{"id": "x", "end": true}', "has a key"),
        ('{"data": []}', "lists of numbers"),
        ('{"data": [[]]}', "lists of numbers"),
        ('{"data": [1, [2]]}', "lists of numbers"),
        ('{"data": [[1, 2], [3]]}', "lists of numbers"),
        ('{"data": ["1"]}', "lists of numbers"),
        ('{"data": [true]}', "lists of numbers"),
        ('{"data": null}', "lists of numbers"),
        ('{"data": {"a": 1}}', "lists of numbers"),
        ('{"data": [[[[[[[[[1]]]]]]]]]}', "8 deep"),
        ('{"data": [NaN]}', "NaN"),
        ('{"data": [-Infinity]}', "-Infinity"),
        ('{"data": [1e39]}', "beyond float32"),
        ('{"data": [1' + "0" * 400 + "]}", "beyond float32"),
        ('{"data": [1' + "0" * 5000 + "]}", "is not"),
        ('{"data": [16777217]}', "integer that float32 does not hold"),
        ('{"data": ' + "[" * 50_000, "is not"),
        ('{"data": ' + "[" * 900 + "1" + "]" * 900 + "}", "8 deep|is not"),
        ('{"events": [[1]]}', "event"),
        ('{"events": [[1, 2, 3, 4]]}', "event"),
        ('{"events": [[1, 2.0]]}', "event"),
        ('{"events": [[-1, 2]]}', "event"),
        ('{"events": [[1, 4294967296]]}', "event"),
        ('{"events": [[18446744073709551616, 0]]}', "event"),
        ('{"events": [[1, 2, 2147483648]]}', "event"),
        ('{"events": {"1": 2}}', "not a list"),
        ('{"until": -1}', "`until` is -1"),
        ('{"until": 1.5}', "`until` is 1.5"),
        ('{"end": 1}', "`end` is 1"),
        ('{"end": true, "seed": 18446744073709551616}', "`seed`"),
        ('{"end": true, "networks": "a"}', "networks"),
        ('{"end": true, "networks": ["a", "a"]}', "different"),
        ('{"end": true, "networks": ["a b"]}', "names of networks"),
        (json.dumps({"end": True, "networks": list(map(str, range(MAX_NETWORKS + 1)))}), "up to"),
    ],
)  # fmt: skip
def test_json_record_that_says_nothing_legal_is_refused_with_the_reason(
    value: bytes | str | None, reason: str
) -> None:
    with pytest.raises(RecordError, match=reason):
        parse(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"plain text", "neither JSON nor msgpack"),
        (b"\xc1", "neither JSON nor msgpack"),
        (b"\x93\x01\x02\x03", "not a msgpack map"),
        (b"\x81\x01\x02", "neither|not a msgpack map"),
        (b"\x80", "version None"),
        (native(end=True)[:-1], "neither"),
        (native(end=True) + b"\0", "neither"),
        (native(payload=bytes(4)), "no `dtype`"),
        (native(dtype="uint8", end=True), "has none"),
        (native(steps=4, end=True), "has none"),
        (native(payload=bytes(4), dtype="float64"), "dtype"),
        (native(payload=bytes(4), dtype=[]), "dtype"),
        (native(payload="text", dtype="uint8"), "payload"),
        (native(payload=None, dtype="uint8"), "payload"),
        (native(payload=b"", dtype="uint8"), "0 bytes"),
        (native(payload=bytes(5), dtype="float32"), "5 bytes"),
        (native(payload=bytes(8), dtype="uint8", shape=[2, 3]), "8 bytes"),
        (native(payload=bytes(8), dtype="uint8", shape=[2**32 - 1] * 8), "8 bytes"),
        (native(payload=bytes(8), dtype="uint8", shape=[8, 0]), "shape"),
        (native(payload=bytes(8), dtype="uint8", shape=[-8]), "shape"),
        (native(payload=bytes(1), dtype="uint8", shape=[1] * 9), "shape"),
        (native(payload=bytes(8), dtype="uint8", steps=1), "no `steps`"),
        (native(payload=bytes(8), dtype=SPIKES), "has `steps`"),
        (native(payload=bytes(8), dtype=SPIKES, steps=1, shape=[8]), "no `shape`"),
        (native(payload=bytes(8), dtype=SPIKES, steps=2**32), "steps"),
        (native(payload=bytes(8), dtype="uint8", events=bytes(16)), "both"),
        (native(events=bytes(15)), "multiple of 16"),
        (native(events=[[1, 2]]), "events"),
        (native(data=[1]), "field 'data'"),
        (native(k="kill", stream=[1], name="", networks=[], error=""), "stream"),
        (native(k="era", era=-1, predecessor=0, networks=[]), "era"),
    ],
)  # fmt: skip
def test_native_record_that_says_nothing_legal_is_refused_with_the_reason(
    value: bytes, reason: str
) -> None:
    with pytest.raises(RecordError, match=reason):
        parse(value)


@pytest.mark.parametrize("key", [b"", b"\xff", b"x" * 201, "ä".encode() * 101])
def test_key_that_names_no_stream_is_refused(key: bytes) -> None:
    with pytest.raises(RecordError, match="key"):
        parse('{"end": true}', key)


@pytest.mark.parametrize("name", ['""', '"' + "x" * 201 + '"', '"\\ud800"', "5", "null"])
def test_id_that_names_no_stream_is_refused(name: str) -> None:
    with pytest.raises(RecordError, match="`id`"):
        parse('{"data": [1], "id": ' + name + "}", None)


def test_request_that_carries_nothing_is_refused() -> None:
    with pytest.raises(RecordError, match="says nothing"):
        parse('{"end": true}', None)


@pytest.mark.parametrize("seq", [0, 1])
@pytest.mark.parametrize("fields", ['"data": [1]', '"id": "a", "until": 3'])
def test_request_with_a_sequence_number_is_refused(fields: str, seq: int) -> None:
    # Its publisher forgot the key: each record would be a stream of its own.
    with pytest.raises(RecordError, match="`seq` and no key: it is a whole request"):
        parse(f'{{{fields}, "seq": {seq}}}', None)


@pytest.mark.parametrize(
    "record",
    [
        Data("cam"),
        Data("", end=True),
        Data("\ud800", end=True),
        Data("x" * 201, end=True),
        Data("cam", until=-1),
        Data("cam", until=2**64),
        Data("cam", events=((1, 2, 2**31),)),
        Data("cam", events=((1, 2**32, 1),)),
        Data("cam", payload=bytes(3), dtype="int16"),
        Data("cam", payload=bytes(3)),
        Data("cam", end=True, networks=("a b",)),
        Era(-1, 0, ()),
        Era(2**64, 0, ()),
        Route(("a", "a")),
        Route(("a",), ("b", "b")),
        Kill(StreamId(0, -1), "cam", (), "x"),
    ],
    ids=repr,
)
def test_illegal_record_is_refused_before_it_is_sent(record: Record) -> None:
    with pytest.raises(RecordError):
        encode_record(record)


def test_refusals_are_final_and_can_be_written_as_text() -> None:
    assert not RecordError.retryable
    for value in ('{"\ud800": 1}', '{"\\ud800": 1}', '{"k": "\\ud800"}', b"{\xff\xff}"):
        with pytest.raises(RecordError) as caught:
            parse(value)
        assert str(caught.value).encode("utf-8")
