"""What somebody says in the system's name who knows the formats, but has none of its keys. Pure.

It begins with what the system did say at a place, so that what is made up names operators, groups,
eras and streams that there are. Each is told once without a seal, once with the seal of another
record, and once with one that a made-up key made under the id of the system's own.
"""

import random
import secrets
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from loadtest.faults.bits import Said
from router import deadletter
from router.records import Era, Kill, Record, RecordError, Route, encode_record, parse_record
from router.seals import KEY_BYTES, SEAL_HEADER, Keyring, Signed, key_id, seal_of
from router.topics import DEAD_LETTER
from router.wire import Batch, Frame, Kind, StreamId, WireError, decode_frame, encode_frame

__all__ = ["Where", "forgeries"]

_EVER: Final = 2**64 - 1
_ERROR: Final = "OperatorFailed: somebody says so"


class Where(NamedTuple):
    """A partition of a topic, and the names of streams that are open at the input behind it."""

    topic: str
    partition: int
    names: Sequence[str]
    networks: Sequence[str]
    input_topic: str
    """Of which dead letters tell."""


def forgeries(where: Where, last: Sequence[Said], dice: random.Random) -> list[Said]:
    """Forged records for a place, from the last ones that lie there."""
    genuine = [said for said in last if seal_of(said.headers)]
    if where.topic == DEAD_LETTER:
        made = list(_letters(where, dice))
    elif where.topic.startswith("snn.in."):
        made = list(_input_records(where, last, dice))
    else:
        made = list(_frames(genuine, dice))
    return [sealed for said in made for sealed in _sealed(where, said, genuine, dice)]


def _sealed(
    where: Where, said: Said, genuine: Sequence[Said], dice: random.Random
) -> Iterator[Said]:
    yield said
    if not genuine:
        return
    seal = seal_of(dice.choice(genuine).headers)
    yield said._replace(headers=((SEAL_HEADER, seal),))
    for by in (key_id(seal), key_id(seal) + 1):  # an id that is known, and one that nobody has
        ring = Keyring({by: secrets.token_bytes(KEY_BYTES)})
        signed = Signed(where.topic, where.partition, said.key, said.value or b"")
        yield said._replace(headers=((SEAL_HEADER, ring.seal(signed)),))


# ---- frames -----------------------------------------------------------------------------------


def _frames(genuine: Sequence[Said], dice: random.Random) -> Iterator[Said]:
    """Frames with the right CRC-32 that say something else of the streams of a genuine one."""
    found = [said for said in genuine if said.value]
    if not found:
        return
    said = dice.choice(found)
    try:
        frame = decode_frame(said.value or b"")
    except WireError:
        return
    for others in _retold(frame.batches):
        yield Said(said.key, encode_frame(Frame(frame.operator, frame.group, others)))


def _retold(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """The batches of another era, number or window, as kills, aborts, ends and a new era."""
    yield [b._replace(stream=b.stream._replace(era=b.stream.era + 1)) for b in batches]
    yield [b._replace(stream=b.stream._replace(era=_EVER)) for b in batches]
    yield [b._replace(stream=b.stream._replace(number=b.stream.number + 1)) for b in batches]
    yield [b._replace(window=b.window + 1) for b in batches]
    spikes = [b for b in batches if b.kind is Kind.SPIKES]
    if not spikes:
        return
    payloads = [bytes(b.payload) for b in spikes]
    turned = payloads[1:] + payloads[:1]  # legal, and another stream's
    yield [b._replace(payload=p) for b, p in zip(spikes, turned, strict=True)]
    yield [b._replace(end=True) for b in spikes]
    for kind in (Kind.KILL, Kind.ABORT):
        end = kind is Kind.ABORT
        yield [b._replace(kind=kind, end=end, payload=b"", error=_ERROR) for b in spikes]


# ---- records of an input ----------------------------------------------------------------------


def _input_records(where: Where, last: Sequence[Said], dice: random.Random) -> Iterator[Said]:
    """An era, routes, and kills of streams that are open there."""
    networks = tuple(where.networks)
    era = _era_of(last)
    yield _record(None, Route(()))
    yield _record(None, Route((), networks))
    for other in (era + 1, _EVER):
        yield _record(None, Era(other, era, networks))
    for name in where.names[-4:]:
        stream = StreamId(era, dice.randrange(64))
        for if_final in (False, True):
            yield _record(name.encode(), Kill(stream, name, networks, _ERROR, if_final))


def _record(key: bytes | None, record: Record) -> Said:
    return Said(key, encode_record(record))


def _era_of(last: Sequence[Said]) -> int:
    """The last era that was begun there, as far as the records show; else any."""
    era = 1
    for said in last:
        try:
            record = parse_record(said.key, said.value, 0, 0)
        except RecordError:
            continue
        if isinstance(record, Era):
            era = record.era
        elif isinstance(record, Kill):
            era = record.stream.era
    return era


# ---- dead letters -----------------------------------------------------------------------------


def _letters(where: Where, dice: random.Random) -> Iterator[Said]:
    """Letters that refuse records of good clients: by their names, by offsets that come soon."""
    for name in where.names[-8:]:
        for offset in (0, dice.randrange(100_000)):
            letter = deadletter.DeadLetter(
                where.input_topic, where.partition, offset, name.encode(), _ERROR, name
            )
            yield Said(name.encode(), deadletter.encode(letter))
