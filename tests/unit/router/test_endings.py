"""What became of a record that ends a stream, told from the records that follow it."""

import numpy as np
import pytest

from router.deadletter import DeadLetter
from router.deadletter import encode as encode_letter
from router.endings import Ending
from router.payload import pack_result
from router.topics import DEAD_LETTER, out_topic, spikes_topic
from router.views import Line, Raw
from router.wire import Batch, Frame, Kind, StreamId, encode_frame

OPERATOR = "a" * 32
INGEST = spikes_topic(OPERATOR)


def ending() -> Ending:
    found = Ending("x", "s", {"m": None, "n": None, "other": None}, 2)
    found.sent[1] = 7
    return found


def feed(into: Ending, topic: str, value: bytes, partition: int = 1) -> list[Line]:
    return list(into.feed(topic, Raw(partition, 3, None, value)))


def frame(*networks: str, name: str = "s", kind: Kind = Kind.SPIKES, end: bool = True) -> bytes:
    payload = pack_result(np.asarray([[1, 2]], np.int32)) if kind is Kind.SPIKES else b""
    batch = Batch(
        "b" * 32, StreamId(1, 0), name, networks, 0, 0, 0, 4, kind, end, payload,
        "StreamIdle: s" if kind is not Kind.SPIKES else "",
    )  # fmt: skip
    return encode_frame(Frame(OPERATOR, 0, [batch]))


def letter(offset: int = 7, name: str = "s", topic: str = "snn.in.x") -> bytes:
    return encode_letter(DeadLetter(topic, 1, offset, b"s", "stream s is not open", name))


def test_stream_is_over_when_each_network_of_its_last_window_has_its_last_result() -> None:
    told = ending()
    assert feed(told, INGEST, frame("m", "n")) == []
    (line,) = feed(told, out_topic("m"), frame("m"))
    assert (line["network"], line["stream"], line["values"]) == ("m", "s", [1, 2])
    assert not told.is_over
    feed(told, out_topic("n"), frame("n"))
    assert told.is_over


def test_result_may_be_read_before_the_window_that_it_is_of() -> None:
    told = ending()
    feed(told, out_topic("n"), frame("n"))
    assert not told.is_over
    feed(told, INGEST, frame("n"))
    assert told.is_over


@pytest.mark.parametrize("value", [frame("n", name="t"), frame("n", end=False), b"no frame"])
def test_other_streams_windows_and_garbage_tell_nothing(value: bytes) -> None:
    told = ending()
    for topic in (INGEST, out_topic("n"), DEAD_LETTER):
        assert feed(told, topic, value) == []
    assert not told.is_over


def test_stream_that_is_killed_meanwhile_is_over_with_its_error() -> None:
    told = ending()
    feed(told, INGEST, frame("n", kind=Kind.KILL, end=False))
    (line,) = feed(told, out_topic("n"), frame("n", kind=Kind.ABORT))
    assert line["error"] == "StreamIdle: s"
    assert told.is_over


def test_dead_letter_that_quotes_the_record_refuses_the_end() -> None:
    told = ending()
    feed(told, DEAD_LETTER, letter())
    assert told.is_refused([1])
    assert told.refused == {1: "stream s is not open"}
    assert not told.is_refused([0, 1])


@pytest.mark.parametrize(
    "other", [letter(offset=6), letter(name="t"), letter(topic="snn.in.y"), letter(offset=-1)]
)
def test_dead_letter_of_another_record_refuses_nothing(other: bytes) -> None:
    told = ending()
    feed(told, DEAD_LETTER, other)
    assert not told.is_refused([1])
