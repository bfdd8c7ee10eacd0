"""Long bodies are read in slices, in memory that their length bounds."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from router.client import RecordTooLarge
from router.gateway.errors import BadRequest
from router.gateway.inference import parse_request
from router.gateway.networks import ServedNetwork
from router.gateway.streams import parse_events
from router.numbers import Work, finish
from topologies.errors import SpikeRouterError

_BODY = 1024 * 1024
Build = Callable[..., bytes]


@pytest.fixture
def gestures(manifest: Build) -> ServedNetwork:
    return ServedNetwork.from_manifest(
        manifest("gestures", encoder="events", shape=(2, 4), every=4, n_steps=None)
    )


def request_of(data: bytes, shape: list[int], datatype: str = "UINT8") -> bytes:
    return b'{"inputs": [{"name": "pixels", "shape": %a, "datatype": "%b", "data": %b}]}' % (
        shape,
        datatype.encode(),
        data,
    )


def worked(work: Work[Any]) -> tuple[int, object]:
    """In how many slices it was done, and what came of it."""
    slices = 0
    while True:
        try:
            next(work)
        except StopIteration as done:
            return slices, done.value
        except SpikeRouterError as error:
            return slices, error
        slices += 1


_ROWS = _BODY // 16
BODIES: dict[str, tuple[bytes, type]] = {
    "flat": (request_of(b"[" + b"0," * (_BODY // 2 - 8) + b"0" * 15 + b"]", [1] * 4), BadRequest),
    "legal": (
        request_of(b"[" + b",".join([b"0"] * 8 * 50_000) + b"]", [1, 50_000, 2, 4]),
        object,
    ),
    "nested": (
        request_of(b"[" + b",".join([b"[0,0,0,0,0,0,0,0]"] * _ROWS) + b"]", [1, _ROWS, 2, 4]),
        object,
    ),
    "pairs": (request_of(b"[" + b",".join([b"[0,1]"] * (_BODY // 6)) + b"]", [1] * 4), BadRequest),
    "empty lists": (request_of(b"[" + b"[]," * (_BODY // 3) + b"[]]", [1] * 4), BadRequest),
    "brackets": (b'{"data": ' + b"[" * _BODY, BadRequest),
    "spaces": (b'{"data": [' + b" " * _BODY, BadRequest),
    "a text among values": (request_of(b'["' + b"x" * _BODY + b'", 1]', [1] * 4), BadRequest),
    "texts": (request_of(b"[" + b'"x",' * (_BODY // 4) + b"1]", [1] * 4), BadRequest),
    "many lists": (b'{"data":[1],' * (_BODY // 12), BadRequest),
    "many that are none": (b'"data":["",' * (_BODY // 12), BadRequest),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_long_request_takes_less_than_four_times_its_body(
    gestures: ServedNetwork, case: str
) -> None:
    body, outcome = BODIES[case]
    tracemalloc.start()
    _, said = worked(parse_request(body, gestures, "u", 1024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(said, outcome), said
    assert peak < 3 * len(body)


def test_a_long_request_is_read_in_many_slices(gestures: ServedNetwork) -> None:
    slices, _ = worked(parse_request(BODIES["legal"][0], gestures, "u", 1024))
    assert slices > 3 * len(BODIES["legal"][0]) // (16 * 1024)


def test_more_events_than_a_record_holds_are_refused_before_they_are_read(
    gestures: ServedNetwork,
) -> None:
    body = b'{"events": [' + b",".join([b"[0,1]"] * 200_000) + b"]}"
    with pytest.raises(RecordTooLarge, match="400000 numbers, which no record of 900000 bytes"):
        finish(parse_events(body, gestures, "cam", 900_000))


def test_a_text_beside_numbers_is_told_as_such_at_once(gestures: ServedNetwork) -> None:
    slices, said = worked(parse_request(BODIES["texts"][0], gestures, "u", 1024))
    assert "bytes beside a list of numbers" in str(said)
    assert slices < 10


def test_a_list_that_only_a_json_reader_finds_counts_as_any_other(gestures: ServedNetwork) -> None:
    body = request_of(b"[[0,0,0,0],[0,0,0,1]]", [1, 1, 2, 4]).replace(b'"data"', b'"d\\u0061ta"')
    plain = finish(parse_request(body, gestures, "u", 4))
    assert plain.samples[0].steps == 1
