"""Somebody who may write to every topic, but has none of the keys (docs/protocol.md 32)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from loadtest.simulation.broker import Log
from router.records import Era, Kill, RecordError, Route, encode_record, parse_record
from router.topics import DEAD_LETTER
from router.wire import Batch, Frame, Kind, WireError, decode_frame, encode_frame
from workers.reading import Record

if TYPE_CHECKING:
    from loadtest.simulation.world import World

__all__ = ["forge"]


def forge(world: "World") -> None:
    """Append what the system may have said, or did say: in part, with another bit, as if it spoke
    of other streams or eras, in another place, or as it was."""
    draw = world.clock.draw
    logs = [g for p, g in world.broker.logs.items() if g.legible() and p.topic != DEAD_LETTER]
    inner = [log for log in logs if not log.place.topic.startswith("snn.in.")]
    found = (inner or logs) if draw(2) else [log for log in logs if log not in inner]
    if not found:
        return
    log = found[draw(len(found))]
    record = _sealed(log, draw(1 << 16))
    if record is None:
        return
    way = draw(5)
    to = (found[draw(len(found))] if way == 0 else log).place
    value = _changed(record.value, way, world)
    if value:
        seal = (record.seal, record.seal, b"")[draw(3)]
        world.broker.append(to.topic, record.key, to.partition, value, seal)


def _sealed(log: Log, number: int) -> Record | None:
    """A record of the system: what publishers say is theirs to change."""
    ours = [record for record in log.legible() if record.seal]
    return ours[number % len(ours)] if ours else None


def _changed(value: bytes, way: int, world: "World") -> bytes:
    draw = world.clock.draw
    at = draw(len(value))
    if way == 2:
        return value[:at]
    if way == 3:
        return value[:at] + bytes([value[at] ^ 1 << draw(8)]) + value[at + 1 :]
    if way == 4:
        return _retold(value, world)
    return value


def _retold(value: bytes, world: "World") -> bytes:
    """What says something else in the right form, as somebody would who knows the formats."""
    try:
        frame = decode_frame(value)
    except WireError:
        return _retold_record(value)
    said = world.clock.draw(4)
    batches = [_other(batch, said) for batch in frame.batches]
    return encode_frame(Frame(frame.operator, frame.group, batches))


def _retold_record(value: bytes) -> bytes:
    try:
        said = parse_record(b"s", value, 0, 0)
    except RecordError:  # it was forged before
        return b""
    if isinstance(said, Era):
        return encode_record(Era(said.era + 1, said.era, said.networks, said.routed_by))
    if isinstance(said, Route):
        return encode_record(Route(()))
    if isinstance(said, Kill):
        other = said.stream._replace(number=said.stream.number + 1)
        return encode_record(replace(said, stream=other))
    return b""


def _other(batch: Batch, said: int) -> Batch:
    era, number = batch.stream
    if said == 0:
        return batch._replace(stream=batch.stream._replace(era=era + (1 << 50)))
    if said == 1:
        return batch._replace(stream=batch.stream._replace(number=number + 1))
    if said == 2:
        return batch._replace(window=batch.window + 1)
    return batch._replace(kind=Kind.KILL, end=False, payload=b"", error="killed by somebody")
