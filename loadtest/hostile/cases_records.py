"""Hostile Kafka records for every topic, by seed. Pure.

A case is made of its seed, its number and samples of real records alone, so that one that broke
something can be made again. What a case carries belongs to nobody else: streams and requests have
names that begin with `hostile-`, and the bytes of a sample are never sent under its own key unless
nothing in them was changed. A good client that runs beside must not notice.

`FORGED` are cases that say, in the right form, what only the system may say of streams that are
there. Who may write to a topic of spikes or results can do worse; they are for those who check that
it is noticed.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import msgpack

from router.deadletter import DeadLetter
from router.deadletter import encode as encode_letter
from router.wire import Batch, Frame, Kind, StreamId, WireError, decode_frame, encode_frame

__all__ = ["FORGED", "KINDS", "LARGEST", "PREFIX", "Case", "Deck", "Sample"]

LARGEST: Final = 200_000  # bytes of a value, and of a key
PREFIX: Final = "hostile-"
_U64: Final = 2**64 - 1
_NODE: Final = "e" * 32  # an operator that there is not


class Sample(NamedTuple):
    """A real record."""

    topic: str
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Case:
    """A record to send to any partition of `topic`."""

    topic: str
    key: bytes | None
    value: bytes | None
    what: str
    """Its kind, one of KINDS."""
    headers: tuple[tuple[str, bytes], ...] = ()


class _Dice(random.Random):
    """Chance, with what is wanted of it here."""

    def bytes(self, most: int) -> bytes:
        """So many bytes at most; short ones are likelier."""
        return self.randbytes(int(most ** self.random()))

    def name(self) -> str:
        """Of a stream or request; some are asked for again and again."""
        return f"{PREFIX}{self.choice((self.randrange(8), self.getrandbits(40)))}"


_Make = Callable[[_Dice, Sample, Sequence[Sample]], Case]

# ---- of every topic ----------------------------------------------------------------------------


def _key(dice: _Dice, sample: Sample) -> bytes | None:
    """A key for bytes that are not those of the sample."""
    return dice.name().encode() if sample.key is not None and dice.random() < 0.8 else None


def _garbage(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    return Case(sample.topic, _key(dice, sample), dice.bytes(4096), "garbage")


def _truncated(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    value = sample.value[: dice.randrange(len(sample.value) or 1)]
    return Case(sample.topic, _key(dice, sample), value, "truncated")


def _flipped(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    value = bytearray(sample.value)
    for _ in range(dice.choice((1, 1, 1, 2, 8)) if value else 0):
        value[dice.randrange(len(value))] ^= 1 << dice.randrange(8)
    return Case(sample.topic, _key(dice, sample), bytes(value), "flipped")


_EXTREMES: Final = (
    b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, b"\x7f" + b"\xff" * 7,
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xca\x7f\xc0\0\0",
    b"\xcb\x7f\xf0" + b"\0" * 6, b"\xc1", b"\xd6\xff" + b"\0" * 4, b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
)  # fmt: skip


def _extreme(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    value = bytearray(sample.value)
    for _ in range(dice.randint(1, 3)):
        at, piece = dice.randrange(len(value) + 1), dice.choice(_EXTREMES)
        value[at : at + dice.choice((0, 1, len(piece)))] = piece
    return Case(sample.topic, _key(dice, sample), bytes(value), "extreme")


def _spliced(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    other = dice.choice(all_of_them).value
    cut, start = dice.randrange(len(sample.value) + 1), dice.randrange(len(other) + 1)
    value = sample.value[:cut] + other[start : start + dice.randrange(len(other) + 1)]
    return Case(sample.topic, _key(dice, sample), value[:LARGEST], "spliced")


def _extended(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    tail = dice.choice((b"\0", sample.value, dice.bytes(1024), b" " * 10, b"\0" * 50_000))
    return Case(sample.topic, _key(dice, sample), (sample.value + tail)[:LARGEST], "extended")


def _misplaced(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """A record of another topic, as it is."""
    others = [other for other in all_of_them if other.topic != sample.topic] or [sample]
    return Case(sample.topic, _key(dice, sample), dice.choice(others).value, "misplaced")


def _empty(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    key = dice.choice((None, b"", dice.name().encode()))
    return Case(sample.topic, key, dice.choice((None, b"")), "empty")


def _keyed(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """With a key that names nothing."""
    key = dice.choice((
        b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\n", b"k" * LARGEST, b"k" * 201, b"/", b"..",
        b"%00", _NODE.encode() + b"/4294967296", _NODE.encode() + b"/-1", dice.bytes(300),
        "𝕊" .encode() * 60,
    ))  # fmt: skip
    return Case(sample.topic, key, sample.value, "keyed")


def _headed(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    headers = tuple(
        (dice.choice(("", "a", "é" * 50)), dice.bytes(2000)) for _ in range(dice.choice((1, 3, 20)))
    )
    return Case(sample.topic, _key(dice, sample), dice.bytes(200), "headed", headers)


def _repeated(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    return Case(sample.topic, sample.key, sample.value, "repeated")


# ---- of inputs ---------------------------------------------------------------------------------

_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63),
    "", "a", "1", "é", "\ud800", "\0", "x" * 5000, [], [[]], [[[]]], [None], [0] * 300,
    [[0, 1]], [[0, 1, 1]], [[0, 1], 2], [["0", "1"]], [[True, 1]], [[-1, 0]], [[0, 2**32]],
    {}, {"a": 1}, {"": {}}, ["digits"] * 2, ["n"] * 300, [".", ".."],
)  # fmt: skip
_JSON_ONLY: Final[tuple[Any, ...]] = (2**64, -(2**63) - 1, 10**400, [[2**64, 0]])
_NAMES: Final = (
    *("v", "k", "id", "networks", "seed", "data", "events", "until", "end", "seq"),
    *("payload", "dtype", "shape", "steps", "start", "stream", "name", "error", "era", ""),
)
_RAW: Final = (
    "{", "{}", "{}{}", "{]", '{"a"}', "{" * 5000, "[" * 5000, '{"data":' * 2000, '{"data":NaN}',
    '{"data":1e999}', '{"data":-Infinity,"end":true}', '{"until":1,"until":2}', '{"until":1}\0',
    '{"until":01}', '{"until":1.0}', '{"until":"1"}', "{'until':1}", '{"until":1,}',
    '\ufeff{"end":true}',
    '{"end":tru', '{"id":"\\ud800","until":1}', '{"id":"\\u0000","until":1}', '{ "end" : true }',
    '{"data":' + "[" * 500 + "1" + "]" * 500 + "}", '{"data":[[1],[1,2]]}',
    '{"data":' + "9" * 5000 + "}",
)  # fmt: skip


def _json(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """JSON of every wrong type, in any combination of fields."""
    content = {
        dice.choice(_NAMES): dice.choice((*_VALUES, *_JSON_ONLY)) for _ in range(dice.randint(1, 4))
    }
    if "id" in content and isinstance(content["id"], str):
        content["id"] = (PREFIX + content["id"])[: dice.choice((60, 6000))]
    value = json.dumps(content).encode("utf-8")
    if dice.random() < 0.1:
        value = _encoded(dice, value)
    return Case(sample.topic, _stream_key(dice), value, "json")


def _encoded(dice: _Dice, value: bytes) -> bytes:
    """The same text in another encoding than UTF-8."""
    return value.decode("utf-8").encode(dice.choice(("utf-16", "utf-32", "utf-16-le")))


def _raw_json(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    return Case(sample.topic, _stream_key(dice), dice.choice(_RAW).encode("utf-8"), "raw json")


def _native(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """A msgpack map with wrong types in any combination of fields."""
    content: dict[Any, Any] = {"v": 1, "k": "data"}
    names = (*_NAMES, 1, None, b"id")
    for _ in range(dice.randint(1, 5)):
        content[dice.choice(names)] = dice.choice((*_VALUES, dice.bytes(64)))
    if "id" in content and isinstance(content["id"], str):
        content["id"] = PREFIX + content["id"]
    packed = msgpack.packb(content, unicode_errors="surrogatepass")
    return Case(sample.topic, _stream_key(dice), packed, "native")


def _stream_key(dice: _Dice) -> bytes | None:
    return dice.name().encode() if dice.random() < 0.6 else None


def _useless(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """What is legal and says nothing that anybody wants: it opens streams, and leaves them open."""
    far = dice.choice((1, 2**16, 2**31, 2**32, 2**53, 2**63, _U64))
    many = dice.choice((0, 1, 10, 100, 2000))
    content = dice.choice((
        {"end": True},
        {"until": 0},
        {"until": far},
        {"until": far, "end": True},
        {"events": [[far, 0]]},
        {"events": [[n, 0] for n in range(many)], "until": 2},
        {"events": [[0, 0]] * many},
        {"events": [], "seq": far},
        {"until": 1, "seq": dice.randrange(200)},
        {"until": 1, "seq": 0, "seed": far},
        {"until": 1, "networks": []},
        {"until": 1, "networks": [f"{PREFIX}network"]},
        {"data": [0.0] * dice.randrange(1, 100)},
    ))  # fmt: skip
    return Case(sample.topic, dice.name().encode(), json.dumps(content).encode(), "useless")


def _claiming(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """A payload of a few bytes that claims many steps, or values."""
    most = dice.choice((0, 1, 2**16, 2**31, 2**32 - 1, 2**32))
    spikes = {"dtype": "spikes", "steps": most, "start": dice.choice((0, 1, 2**63, _U64))}
    dense = {
        "dtype": dice.choice(("uint8", "float32", "int8")),
        "shape": [most] * dice.randint(0, 9),
    }
    content: dict[str, Any] = {
        "v": 1,
        "k": "data",
        "payload": dice.bytes(64),
        **dice.choice((spikes, dense)),
    }
    if dice.random() < 0.5:
        content["seq"] = dice.choice((0, 1, _U64))
    key = _stream_key(dice)
    if key is None:
        content["id"] = dice.name()
    return Case(sample.topic, key, msgpack.packb(content), "claiming")


def _system(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """What the system says to itself, of networks and streams that there are not, or half of it."""
    nobody = [f"{PREFIX}network"]
    content: dict[str, Any] = dice.choice((
        {"k": "route", "networks": dice.choice((nobody, [], ["a"] * 2, None, [1], {}))},
        {"k": "route", "networks": nobody, "ends": dice.choice((nobody, [""], 1))},
        {"k": "era", "era": dice.choice((0, 1, -1, 1.5)), "predecessor": _U64, "networks": nobody},
        {"k": "era", "networks": nobody},
        {"k": "kill", "stream": dice.choice(([0, 0], [_U64, _U64], [1], 1, [1, -1])),
         "name": dice.name(), "networks": nobody, "error": "x" * dice.randrange(9000)},
        {"k": dice.choice(("", "ERA", "data ", 1, None)), "networks": nobody},
    ))  # fmt: skip
    packed = msgpack.packb({"v": dice.choice((1, 1, 1, 0, 2, "1", 1.0)), **content})
    return Case(sample.topic, _stream_key(dice), packed, "system")


# ---- of spikes, results and dead letters ------------------------------------------------------


def _stranger(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """A whole frame of an operator that there is not, about streams that there are not."""
    batches = [
        Batch(
            _NODE, StreamId(dice.choice((0, 1, _U64)), dice.choice((0, 7, _U64))), dice.name(),
            (f"{PREFIX}network",), 0, *dice.choice(((0, 0, 1), (9, 9, 10), (2**32 - 1, 0, 1))),
            kind=dice.choice(tuple(Kind)), end=False, payload=b"",
        )
        for _ in range(dice.choice((0, 1, 1, 2, 3, 40)))
    ]  # fmt: skip
    try:
        value = encode_frame(Frame(_NODE, dice.choice((0, 2**32 - 1)), batches))
    except WireError:
        return _garbage(dice, sample, all_of_them)
    return Case(sample.topic, f"{_NODE}/0".encode(), value, "stranger")


def _forged(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """A real frame with another era, number or window, written anew: its checksum is right."""
    try:
        frame = decode_frame(sample.value)
        batches = [_forge(dice, batch) for batch in frame.batches]
        value = encode_frame(Frame(frame.operator, frame.group, batches))
    except WireError:
        return _garbage(dice, sample, all_of_them)
    return Case(sample.topic, sample.key, value, "forged")


def _forge(dice: _Dice, batch: Batch) -> Batch:
    era, number = batch.stream
    return dice.choice((
        batch._replace(stream=StreamId(min(_U64, era + dice.choice((1, 2**40))), number)),
        batch._replace(stream=StreamId(era, min(_U64, number + dice.choice((1, 2**20))))),
        batch._replace(stream=StreamId(max(0, era - 1), number)),
        batch._replace(window=min(2**32 - 1, batch.window + dice.choice((1, 2**20)))),
    ))  # fmt: skip


def _letter(dice: _Dice, sample: Sample, all_of_them: Sequence[Sample]) -> Case:
    """A dead letter of nobody's record; and what is nearly one."""
    letter = DeadLetter(
        f"snn.in.{PREFIX}input", dice.choice((0, -1, 2**31)), dice.choice((-1, 0, 2**62)),
        dice.bytes(2000), "x" * dice.randrange(9000), dice.name(), dice.bytes(LARGEST // 4),
    )  # fmt: skip
    value = encode_letter(letter)
    if dice.random() < 0.5:
        content = msgpack.unpackb(value)
        content[dice.choice((*content, "more"))] = dice.choice(
            (None, 1, "a", [], {}, b"a", True, 1.5)
        )
        value = msgpack.packb(content)
    return Case(sample.topic, None, value, "letter")


_ANY: Final[tuple[_Make, ...]] = (
    _garbage, _truncated, _flipped, _flipped, _extreme, _spliced, _extended, _misplaced, _empty,
    _keyed, _headed, _repeated,
)  # fmt: skip
_INPUT: Final[tuple[_Make, ...]] = (_json, _json, _raw_json, _native, _useless, _claiming, _system)
_MORE: Final[Mapping[str, tuple[_Make, ...]]] = {
    "snn.in.": _INPUT,
    "snn.spikes.": (_stranger,),
    "snn.out.": (_stranger,),
    "snn.dead-letter": (_letter, _letter),
}
FORGED: Final = ("forged",)
KINDS: Final = (
    "garbage", "truncated", "flipped", "extreme", "spliced", "extended", "misplaced", "empty",
    "keyed", "headed", "repeated", "json", "raw json", "native", "useless", "claiming", "system",
    "stranger", "letter", *FORGED,
)  # fmt: skip


class Deck:
    """The cases that are made of these samples, which hold a record of each topic that is hit."""

    def __init__(self, samples: Iterable[Sample], *, forged: bool = False) -> None:
        self._samples = tuple(samples)
        self._topics: dict[str, list[Sample]] = {}
        for sample in self._samples:
            self._topics.setdefault(sample.topic, []).append(sample)
        self._makes = {topic: (_ANY, _makes_of(topic, forged)) for topic in self._topics}

    def case(self, seed: int, number: int) -> Case:
        """The case of this seed and number."""
        dice = _Dice(f"{seed}-{number}")
        topic = dice.choice(list(self._topics))
        sample = dice.choice(self._topics[topic])
        make = dice.choice(dice.choice(self._makes[topic]))
        return _harmless(make(dice, sample, self._samples), sample)

    def cases(self, seed: int, n: int, *, first: int = 0) -> Iterator[Case]:
        """`n` cases from number `first` on."""
        return (self.case(seed, number) for number in range(first, first + n))


def _makes_of(topic: str, forged: bool) -> tuple[_Make, ...]:
    makes = next((makes for prefix, makes in _MORE.items() if topic.startswith(prefix)), _ANY)
    has_frames = topic.startswith(("snn.spikes.", "snn.out."))
    return (*makes, _forged) if forged and has_frames else makes


def _harmless(case: Case, sample: Sample) -> Case:
    """Nothing under the key of a real stream, unless it is what that stream has said already."""
    if case.key is None or case.key != sample.key or case.value == sample.value:
        return case
    return case if case.what in FORGED else replace(case, key=PREFIX.encode() + case.key[:100])
