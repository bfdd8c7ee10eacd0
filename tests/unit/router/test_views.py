"""Records of every topic as JSON objects; damage is told, repeats of results are dropped."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from router import deadletter
from router.deadletter import DeadLetter
from router.payload import pack, pack_result
from router.record_files import MAGIC, AnyFile, line_of
from router.records import Data, Era, Kill, Record, Route, encode_record, parse_line, record_key
from router.views import (
    DeadLetterView,
    Edge,
    FrameView,
    InputView,
    Raw,
    ResultView,
    View,
    edges_of,
    native_entries,
)
from router.wire import Batch, Frame, Kind, StreamId, encode_frame
from topologies.compiler import compile_network
from topologies.loader import load_network

OPERATOR, NODE = "a" * 32, "b" * 32
EVENTS = Data("cam", events=((3, 17, 1),), until=8, seq=0)


def lines(view: View, *values: bytes, key: bytes | None = None) -> list[dict[str, Any]]:
    """What the view says of these values, at offsets from 0 in partition 2; as JSON has it."""
    found = [line for at, value in enumerate(values) for line in view.lines(Raw(2, at, key, value))]
    return [json.loads(json.dumps(line)) for line in found]


def batch(**changes: Any) -> Batch:
    plain = Batch(NODE, StreamId(1, 5), "cam", ("net",), 0, 0, 4, 8, payload=b"\0")
    return plain._replace(**changes)


def frame(*batches: Batch, group: int = 0) -> bytes:
    return encode_frame(Frame(OPERATOR, group, list(batches)))


def emitted(window: int, *values: Sequence[int], end: bool = False) -> Batch:
    payload = pack_result(np.asarray(values, np.int32)) if values else b""
    start = 4 * window
    return batch(window=window, start=start, stop=start + 4, payload=payload, end=end)


def test_an_input_record_is_shown_so_that_it_can_be_published_again() -> None:
    (line,) = lines(InputView(), encode_record(EVENTS), key=b"cam")
    assert (line["partition"], line["offset"], line["kind"]) == (2, 0, "data")
    assert parse_line(json.dumps(line["record"]).encode(), "x") == EVENTS


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (Route(("a", "b")), {"kind": "route", "networks": ["a", "b"]}),
        (Era(9, 8, ("a",)), {"kind": "era", "era": 9, "predecessor": 8, "networks": ["a"]}),
        (Kill(StreamId(1, 2), "s", ("a",), "late"), {"kind": "kill", "error": "late"}),
    ],
)
def test_records_of_the_system_show_their_fields(record: Record, shown: dict[str, Any]) -> None:
    (line,) = lines(InputView(), encode_record(record), key=record_key(record))
    assert shown.items() <= line.items()


@pytest.mark.parametrize("view", [InputView(), DeadLetterView(), FrameView({}), FrameView(None),
                                  ResultView("net", 4, None)])  # fmt: skip
def test_damage_is_told_and_does_not_stop_the_view(view: View) -> None:
    (line,) = lines(view, b"\xff\xff")
    assert line["fault"]
    assert (line["partition"], line["offset"]) == (2, 0)


def test_a_dead_letter_shows_the_reason_and_the_record_that_was_refused() -> None:
    letter = DeadLetter("snn.in.a", 1, 7, b"cam", "LateEvent: why", "cam", encode_record(EVENTS))
    (line,) = lines(DeadLetterView(), deadletter.encode(letter))
    assert (line["reason"], line["stream"]) == ("LateEvent: why", "cam")
    refused = {"topic": "snn.in.a", "partition": 1, "offset": 7}
    assert line["refused"] == {**refused, "record": json.loads(json.dumps(line_of(EVENTS)))}


@pytest.mark.parametrize(
    ("value", "shown"), [(b"plain text", "plain text"), (b"\x00\xff", "00ff"), (None, None)]
)
def test_what_is_no_record_is_shown_as_text_or_in_hex(
    value: bytes | None, shown: str | None
) -> None:
    letter = DeadLetter("snn.in.a", 1, 7, None, "why", "", value)
    (line,) = lines(DeadLetterView(), deadletter.encode(letter))
    assert line["refused"]["value"] == shown


def test_spikes_are_shown_as_steps_of_the_stream_and_neurons_of_the_operator() -> None:
    cells = np.zeros((1, 4, 3), np.uint8)
    cells[0, 1, 2] = cells[0, 3, 0] = 1
    view = FrameView({(OPERATOR, 1): Edge(10, 13, 0, 1)})
    (line,) = lines(view, frame(batch(payload=pack(cells, 0, 1)[0]), group=1))
    assert line["events"] == [[5, 12], [7, 10]]
    assert (line["operator"], line["group"], line["stream"]) == (OPERATOR, 1, "cam")


def test_graded_spikes_are_shown_with_their_values() -> None:
    cells = np.array([[[0, -3], [7, 0], [0, 0], [0, 0]]], np.int16)
    view = FrameView({(OPERATOR, 0): Edge(0, 2, -8, 8)})
    (line,) = lines(view, frame(batch(payload=pack(cells, -8, 8)[0])))
    assert line["events"] == [[4, 1, -3], [5, 0, 7]]


def test_a_frame_of_an_unknown_group_shows_its_payload_and_how_many_cells_are_active() -> None:
    (line,) = lines(FrameView({}), frame(batch(payload=b"\1\5\7")))
    assert (line["n_active"], line["payload"]) == (2, "010507")


def test_a_payload_that_does_not_fit_its_edge_is_told() -> None:
    view = FrameView({(OPERATOR, 0): Edge(0, 2, 0, 1)})
    told = lines(view, frame(batch(payload=b"\1\x63"), batch(window=1)))
    assert "beyond the last one" in told[0]["fault"]
    assert told[0]["payload"] == "0163"
    assert told[1]["events"] == []


def test_notices_are_shown_with_their_error_and_without_events() -> None:
    kill = batch(kind=Kind.KILL, payload=b"", error="late")
    (line,) = lines(FrameView({}), frame(kill))
    assert (line["kind"], line["error"]) == ("kill", "late")
    assert "events" not in line


def test_frames_of_results_are_shown_as_often_as_they_were_sent() -> None:
    once = frame(emitted(0, [1, 2], end=True))
    told = lines(FrameView(None), once, once)
    assert [line["values"] for line in told] == [[[1, 2]], [[1, 2]]]


def test_edges_of_a_network_cover_all_but_its_readout() -> None:
    network = compile_network(load_network("scnn_digits"))
    edges = edges_of([network])
    readout = network.nodes[network.readout].operator
    assert {operator for operator, _ in edges} == set(network.summaries) - {readout}
    for (operator, _), edge in edges.items():
        assert 0 <= edge.lo < edge.hi <= network.summaries[operator].output.n


def test_a_result_is_told_once_and_repeats_are_counted() -> None:
    view = ResultView("net", 4, None)
    once = frame(emitted(0, [1, 5], end=True))
    (line,) = lines(view, once, once, frame(batch(kind=Kind.ABORT, payload=b"", error="late")))
    assert (line["values"], line["class"], line["end"]) == ([1, 5], 1, True)
    assert view.repeats == 2


def test_emissions_of_a_stream_are_numbered_and_only_the_last_has_end() -> None:
    view = ResultView("net", 4, 2)
    told = lines(view, frame(emitted(0, [0], [1])), frame(emitted(1, [2], [3], end=True)))
    shown = [(line["index"], line["start"], line["stop"], line["values"]) for line in told]
    assert shown == [(0, 0, 2, [0]), (1, 2, 4, [1]), (2, 4, 6, [2]), (3, 6, 8, [3])]
    assert [line["end"] for line in told] == [False, False, False, True]


def test_a_window_without_an_emission_is_no_line_and_an_end_without_one_is() -> None:
    view = ResultView("net", 4, 8)
    assert lines(view, frame(emitted(0))) == []
    (line,) = lines(view, frame(emitted(1, end=True)))
    assert (line["end"], line["error"]) == (True, None)


def test_a_stream_that_was_aborted_tells_its_error() -> None:
    abort = batch(kind=Kind.ABORT, payload=b"", error="InputLost: gone")
    (line,) = lines(ResultView("net", 4, None), frame(abort))
    assert (line["stream"], line["end"], line["error"]) == ("cam", True, "InputLost: gone")


def test_results_that_begin_within_a_stream_are_numbered_by_their_step() -> None:
    (line,) = lines(ResultView("net", 4, 4), frame(emitted(5, [9])))
    assert (line["index"], line["start"]) == (5, 20)


def test_what_producers_said_can_be_kept_as_a_native_file_and_read_again() -> None:
    request = encode_record(Data("x", request=True, until=4)).replace(b"\xa2id\xa1x", b"")
    request = bytes([request[0] - 1]) + request[1:]  # a map without the id
    raws = [
        Raw(2, 0, None, encode_record(Route(("a",)))),
        Raw(2, 1, b"cam", encode_record(EVENTS)),
        Raw(2, 2, b"cam", b"no record"),
        Raw(2, 3, None, request),
    ]
    reader = AnyFile("other")
    entries = list(reader.feed(MAGIC + b"".join(e for raw in raws for e in native_entries(raw))))
    named = Data("2-3", request=True, until=4)
    assert [entry.record for entry in entries] == [EVENTS, named]
