"""What is forged has the form of what the system says, and no genuine seal."""

import random
from collections.abc import Sequence

import pytest

from loadtest.faults.bits import Said
from loadtest.faults.forgery import Where, forgeries
from router import deadletter
from router.records import Era, Kill, Route, encode_record, parse_record
from router.seals import SEAL_HEADER, Keyring, Signed, Trust, seal_of
from router.topics import DEAD_LETTER, in_topic, out_topic, spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame

_OPERATOR = "0" * 31 + "1"
_RING = Keyring({7: b"k" * 32})
_NAMES = ("cam-1", "cam-2")
_INPUT = in_topic("camera")
_BATCHES = [
    Batch(_OPERATOR, StreamId(5, n), f"cam-{n}", ("net",), 0, 3, 12, 16, payload=bytes([1, n]))
    for n in range(1, 3)
]
_FRAME = encode_frame(Frame(_OPERATOR, 0, _BATCHES))


def _where(topic: str) -> Where:
    return Where(topic, 1, _NAMES, ("net",), _INPUT)


def _sealed(topic: str, key: bytes | None, value: bytes) -> Said:
    return Said(key, value, ((SEAL_HEADER, _RING.seal(Signed(topic, 1, key, value))),))


def _forged(topic: str, last: Sequence[Said]) -> list[Said]:
    return forgeries(_where(topic), last, random.Random(1))


def _genuine(topic: str) -> list[Said]:
    if topic == _INPUT:
        return [_sealed(topic, None, encode_record(Era(5, 4, ("net",)))), Said(b"cam-1", b"{}")]
    if topic == DEAD_LETTER:
        return [
            _sealed(topic, b"x", deadletter.encode(deadletter.DeadLetter(_INPUT, 1, 3, b"x", "no")))
        ]
    return [_sealed(topic, b"group", _FRAME)]


_TOPICS = (_INPUT, spikes_topic(_OPERATOR), out_topic("net"), DEAD_LETTER)


@pytest.mark.parametrize("topic", _TOPICS)
def test_no_forged_record_is_trusted(topic: str) -> None:
    forged = _forged(topic, _genuine(topic))
    assert forged
    for said in forged:
        signed = Signed(topic, 1, said.key, said.value or b"")
        assert _RING.trust(signed, seal_of(said.headers)) is not Trust.GENUINE


@pytest.mark.parametrize("topic", _TOPICS)
def test_each_is_told_without_a_seal_with_anothers_and_under_wrong_keys(topic: str) -> None:
    trusts = {
        (
            bool(said.headers),
            _RING.trust(Signed(topic, 1, said.key, said.value or b""), seal_of(said.headers)),
        )
        for said in _forged(topic, _genuine(topic))
    }
    assert trusts == {(False, Trust.FORGED), (True, Trust.FORGED), (True, Trust.UNKNOWN)}


def test_forged_frames_are_whole_and_speak_of_other_eras_numbers_windows_and_ends() -> None:
    forged = _forged(out_topic("net"), _genuine(out_topic("net")))
    batches = [b for said in forged for b in decode_frame(said.value or b"").batches]
    assert {b.kind for b in batches} == {Kind.SPIKES, Kind.KILL, Kind.ABORT}
    assert {b.stream.era for b in batches} == {5, 6, 2**64 - 1}
    assert {b.window for b in batches} == {3, 4}
    assert any(b.end for b in batches if b.kind is Kind.SPIKES)
    assert any(bytes(b.payload) == b"\x01\x01" and b.name == "cam-2" for b in batches)


def test_forged_input_begins_eras_ends_routes_and_kills_streams_that_are_open() -> None:
    forged = _forged(_INPUT, _genuine(_INPUT))
    said = [parse_record(r.key, r.value, 1, 0) for r in forged]
    assert {r.era for r in said if isinstance(r, Era)} == {6, 2**64 - 1}
    assert Route((), ("net",)) in said
    kills = [r for r in said if isinstance(r, Kill)]
    assert {(k.name, k.stream.era, k.if_final) for k in kills} == {
        (name, 5, final) for name in _NAMES for final in (False, True)
    }


def test_forged_letters_refuse_what_good_clients_sent() -> None:
    forged = _forged(DEAD_LETTER, _genuine(DEAD_LETTER))
    letters = [deadletter.decode(said.value or b"") for said in forged]
    assert {(letter.topic, letter.partition, letter.name) for letter in letters} == {
        (_INPUT, 1, name) for name in _NAMES
    }


def test_where_the_system_said_nothing_yet_only_unsealed_records_are_made_up() -> None:
    assert _forged(spikes_topic(_OPERATOR), []) == []
    assert all(not said.headers for said in _forged(_INPUT, []))
