"""Records in files: what is legal comes out in order, what is not is told with its place."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import record_files
from router.payload import unpack
from router.record_files import (
    MAGIC,
    AnyFile,
    Entry,
    JsonLines,
    NativeFile,
    Reader,
    line_of,
    pack_entry,
    sample_entries,
)
from router.records import Data, Kill, RecordError, encode_record, parse_line
from router.wire import StreamId
from topologies.manifest import InputSpec

GOLDEN = Path(__file__).parents[2] / "golden" / "wire" / "v1" / "file"
MARK = Data("cam-1", until=1000)
EVENTS = Data("cam-1", events=((3, 17, 1), (5, 2, 4)), until=8, seq=0)
IMAGE = Data("a", ("net",), 7, True, np.arange(4, dtype="<f4").tobytes(), "float32", (1, 2, 2))
DIGITS = InputSpec("pixels", "b" * 32, "direct", (1, 2, 2), 0.0, 16.0, 4, 4)
CAMERA = InputSpec("camera", "b" * 32, "events", (1, 2, 2), 0.0, 1.0, 4, None)


def read(reader: Reader, data: bytes, piece: int = 1 << 20) -> list[Entry]:
    def entries() -> Iterator[Entry]:
        for at in range(0, len(data), piece):
            yield from reader.feed(data[at : at + piece])
        yield from reader.close()

    return list(entries())


@pytest.mark.parametrize("record", [MARK, EVENTS, IMAGE, Data("s", end=True)])
def test_a_record_written_as_a_line_is_read_again_as_it_was(record: Data) -> None:
    line = json.dumps(line_of(record)).encode()
    assert parse_line(line, "unnamed") == record


def test_a_line_names_its_stream_and_the_record_has_it_as_key() -> None:
    record = parse_line(b'{"stream": "cam-1", "events": [[3, 17], [5, 2, 4]], "until": 8}', "x")
    assert record == Data("cam-1", events=((3, 17, 1), (5, 2, 4)), until=8)


def test_a_request_without_an_id_is_named_by_prefix_and_line() -> None:
    entries = read(JsonLines("run"), b'\n{"data": [1]}\n{"data": [2]}\n')
    assert [entry.record.name for entry in entries if entry.record] == ["run-2", "run-3"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"[1, 2]", "not a JSON object"),
        (b'{"stream": "s", "data": [1}', "begins like JSON and is not"),
        (b'{"stream": "s", "evnts": []}', "a field 'evnts'; legal are id, networks"),
        (b'{"stream": "s", "evnts": []}', "data, stream."),
        (b'{"stream": "", "end": true}', "`stream` is ''; legal is text of 1 to 200"),
        (b'{"stream": 1, "end": true}', "`stream` is 1"),
        (b'{"stream": "s", "id": "a", "end": true}', "a key, which names its stream, and an `id`"),
        (b'{"k": "kill", "stream": [1, 2]}', "kind 'kill'; legal is data"),
        (b'{"v": 2, "stream": "s", "end": true}', "version 2; legal is 1"),
        (b'{"id": "a"}', "says nothing"),
    ],
)
def test_an_illegal_line_is_refused_with_what_was_legal(line: bytes, sentence: str) -> None:
    with pytest.raises(RecordError) as refused:
        parse_line(line, "x")
    assert sentence in str(refused.value)


def test_bad_lines_are_told_by_number_and_good_ones_keep_their_order() -> None:
    data = b'{"stream": "a", "until": 1}\nwrong\n\r\n{"stream": "b", "until": 2}\n{"stream": "c"'
    entries = read(JsonLines("x"), data)
    assert [entry.place for entry in entries] == ["line 1", "line 2", "line 4", "line 5"]
    assert [entry.record and entry.record.name for entry in entries] == ["a", None, "b", None]
    assert "not a JSON object" in entries[1].fault


def test_a_line_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "MAX_LINE", 50)
    data = b'{"stream": "' + b"s" * 500 + b'"}\n{"stream": "b", "until": 2}\n'
    first, second = read(JsonLines("x"), data, piece=20)
    assert (first.place, first.record) == ("line 1", None)
    assert "too long" in first.fault
    assert second == Entry("line 2", Data("b", until=2))


@given(st.integers(1, 60))
def test_a_file_reads_equal_in_pieces_of_any_size(piece: int) -> None:
    native = MAGIC + b"".join(map(pack_entry, (MARK, EVENTS, IMAGE)))
    lines = b"".join(json.dumps(line_of(r)).encode() + b"\n" for r in (MARK, EVENTS, IMAGE))
    for data in (native, lines):
        found = [entry.record for entry in read(AnyFile("x"), data, piece)]
        assert found == [MARK, EVENTS, IMAGE]


def test_golden_file_is_read_and_written_unchanged() -> None:
    vector = json.loads((GOLDEN / "two-records.json").read_text())
    data = bytes.fromhex(vector["bytes"])
    records = [entry.record for entry in read(AnyFile("x"), data)]
    lines = [line_of(record) for record in records if record]
    assert json.loads(json.dumps(lines)) == vector["content"]
    assert MAGIC + b"".join(pack_entry(record) for record in records if record) == data


def test_a_native_request_without_an_id_is_named_by_prefix_and_number() -> None:
    value = b'{"data": [1]}'
    entry = len(value).to_bytes(4, "little") + b"\0\0" + value
    (found,) = read(NativeFile("run"), MAGIC + entry)
    assert found.record is not None
    assert found.record.name == "run-1"


def test_a_damaged_value_in_a_native_file_does_not_lose_its_neighbours() -> None:
    kill = Kill(StreamId(1, 2), "s", ("net",), "error")
    wrong = encode_record(kill)
    entries = [pack_entry(MARK), b"\3\0\0\0\1\0kbad", pack_entry(EVENTS)]
    entries.append(len(wrong).to_bytes(4, "little") + b"\1\0s" + wrong)
    found = read(NativeFile("x"), MAGIC + b"".join(entries))
    assert [entry.record for entry in found] == [MARK, None, EVENTS, None]
    assert found[1].place == "record 2"
    assert "kind 'kill'; legal is data" in found[3].fault


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        (b"\xff\xff\xff\xff\0\0", "4294967295 bytes is too long"),
        (b"\1\0\0", "ends within a record"),
    ],
)
def test_a_native_file_whose_lengths_are_damaged_is_given_up_loudly(
    rest: bytes, sentence: str
) -> None:
    first, last = read(NativeFile("x"), MAGIC + pack_entry(MARK) + rest, piece=3)
    assert first.record == MARK
    assert (last.place, last.record) == ("record 2", None)
    assert sentence in last.fault


@pytest.mark.parametrize("data", [b"", b"\n", MAGIC])
def test_a_file_without_records_has_no_entries(data: bytes) -> None:
    assert read(AnyFile("x"), data) == []


def test_each_sample_becomes_a_request_in_the_shape_of_the_input() -> None:
    values = np.arange(8, dtype=np.uint8).reshape(2, 4)
    entries = list(sample_entries(values, "run", ("net",), DIGITS))
    records = [entry.record for entry in entries if entry.record]
    assert [(r.name, r.request, r.networks, r.shape) for r in records] == [
        ("run-0", True, ("net",), (1, 2, 2)),
        ("run-1", True, ("net",), (1, 2, 2)),
    ]
    assert records[1].values().tolist() == [[[4, 5], [6, 7]]]


def test_samples_of_an_input_of_events_are_sent_as_spikes() -> None:
    values = np.array([[[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]])
    ((_, record, _),) = sample_entries(values, "run", None, CAMERA)
    assert record is not None
    assert (record.dtype, record.steps) == ("spikes", 3)
    assert unpack([record.payload or b""], 3, 4, 0, 1).tolist() == values.tolist()


def test_a_sample_out_of_range_is_refused_and_the_others_are_not() -> None:
    values = np.array([[1.0, 2, 3, 4], [1, 2, 3, 99], [0, np.nan, 0, 0], [4, 3, 2, 1]])
    entries = list(sample_entries(values, "run", None, DIGITS))
    assert [entry.record is not None for entry in entries] == [True, False, False, True]
    assert entries[1].place == "sample 1"
    assert "legal for input 'pixels' are 0 to 16" in entries[1].fault


@pytest.mark.parametrize(
    ("values", "spec", "sentence"),
    [
        (np.zeros((2, 5)), DIGITS, "input 'pixels' takes (samples, 1, 2, 2)"),
        (np.zeros((2, 4)), CAMERA, "input 'camera' takes (samples, steps, 1, 2, 2)"),
        (np.zeros(5), None, "legal are (samples, ...)"),
        (np.zeros((0, 4)), None, "legal are (samples, ...)"),
        (np.zeros((2, 2), complex), None, "legal are uint8"),
        (np.full((1, 2), 2**40), None, "beyond int32"),
    ],
)
def test_samples_that_cannot_be_legal_are_refused_at_once(
    values: np.ndarray, spec: InputSpec | None, sentence: str
) -> None:
    with pytest.raises(RecordError) as refused:
        list(sample_entries(values, "run", None, spec))
    assert sentence in str(refused.value)
