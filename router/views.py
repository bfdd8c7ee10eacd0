"""The records of the system's topics as JSON objects, for people and other programs. Pure.

One record gives one object or, where it is a frame, one for each batch. What is damaged gives an
object with the field `fault`. `docs/wire-format.md` has examples.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

import numpy as np

from router import deadletter
from router.deadletter import DeadLetter, DeadLetterError
from router.payload import PayloadError, count_active, unpack, unpack_result
from router.record_files import line_of, pack_entry
from router.records import Data, RecordError, parse_record
from router.results import ResultTable
from router.wire import Batch, Kind, WireError, decode_frame
from topologies.compiled import CompiledNetwork

__all__ = [
    "DeadLetterView",
    "Edge",
    "FrameView",
    "InputView",
    "Raw",
    "ResultView",
    "View",
    "edges_of",
    "native_entries",
]

Line = dict[str, Any]


class Raw(NamedTuple):
    """A record as Kafka keeps it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class View(Protocol):
    """Makes JSON objects of the records of one topic, which come in the order of offsets."""

    def lines(self, raw: Raw) -> Iterator[Line]:
        """The objects of one record."""
        ...


class InputView:
    """Records of ``snn.in.<input>``. `record` of one that a producer wrote can be published again,
    unless its payload is spikes."""

    def lines(self, raw: Raw) -> Iterator[Line]:
        try:
            record = parse_record(raw.key, raw.value, raw.partition, raw.offset)
        except RecordError as error:
            yield {**_place(raw), "fault": str(error)}
            return
        if isinstance(record, Data):
            yield {**_place(raw), "kind": "data", "record": line_of(record)}
        else:
            yield {**_place(raw), "kind": type(record).__name__.lower(), **asdict(record)}


def native_entries(raw: Raw) -> Iterator[bytes]:
    """What a producer said in a record of ``snn.in.<input>``, as it stands in a native file.

    A request without an id gets the name that ingest gave it. Records of the system, and what is no
    record, are left out.
    """
    try:
        record = parse_record(raw.key, raw.value, raw.partition, raw.offset)
    except RecordError:
        return
    if isinstance(record, Data):
        yield pack_entry(record)


class DeadLetterView:
    """Records of ``snn.dead-letter``; what was refused is shown as a record if it can be read as
    one, else as text or in hex."""

    def lines(self, raw: Raw) -> Iterator[Line]:
        try:
            letter = deadletter.decode(raw.value or b"")
        except DeadLetterError as error:
            yield {**_place(raw), "fault": str(error)}
            return
        yield {
            **_place(raw),
            "reason": letter.reason,
            "stream": letter.name,
            "refused": {
                "topic": letter.topic,
                "partition": letter.partition,
                "offset": letter.offset,
                **_refused(letter),
            },
        }


def _refused(letter: DeadLetter) -> Line:
    try:
        record = parse_record(letter.key, letter.value, letter.partition, letter.offset)
    except RecordError:
        return {"key": _shown(letter.key), "value": _shown(letter.value)}
    if isinstance(record, Data):
        return {"record": line_of(record)}
    return {"key": _shown(letter.key), "value": _shown(letter.value)}


class Edge(NamedTuple):
    """What a synapse group sends: the values of neurons [lo, hi), from `low` to `high`."""

    lo: int
    hi: int
    low: int
    high: int


def edges_of(networks: Iterable[CompiledNetwork]) -> dict[tuple[str, int], Edge]:
    """(operator, group) -> what it sends."""
    return {
        (operator, group.index): Edge(group.lo, group.hi, summary.output.low, summary.output.high)
        for network in networks
        for operator, summary in network.summaries.items()
        if summary.kind != "readout"
        for group in network.groups[operator]
    }


class FrameView:
    """Frames of ``snn.spikes.<operator>``, whose payloads need `edges`; of results (None).

    Of a group that is not in `edges`, only the number of active cells and the payload in hex are
    told. Nothing is dropped: repeats are there as often as they were sent.
    """

    def __init__(self, edges: Mapping[tuple[str, int], Edge] | None) -> None:
        self._edges = edges

    def lines(self, raw: Raw) -> Iterator[Line]:
        try:
            frame = decode_frame(raw.value or b"")
        except WireError as error:
            yield {**_place(raw), "fault": str(error)}
            return
        source: Line = {"operator": frame.operator, "group": frame.group}
        for batch in frame.batches:
            line = {**_place(raw), **source, **_said(batch)}
            try:
                yield line | self._content(batch, frame.operator, frame.group)
            except PayloadError as error:
                yield line | {"payload": bytes(batch.payload).hex(), "fault": str(error)}

    def _content(self, batch: Batch, operator: str, group: int) -> Line:
        if batch.kind is not Kind.SPIKES:
            return {"error": batch.error} if batch.error else {}
        if self._edges is None:
            values = unpack_result(batch.payload).tolist() if batch.payload else []
            return {"values": values}
        edge = self._edges.get((operator, group))
        if edge is None:
            shown = bytes(batch.payload).hex()
            return {"n_active": count_active(batch.payload), "payload": shown}
        return {"events": _events(batch, edge)}


def _events(batch: Batch, edge: Edge) -> list[list[int]]:
    """[step, neuron] for each spike, [step, neuron, value] for each graded one."""
    n_steps = batch.stop - batch.start
    (cells,) = unpack([batch.payload], n_steps, edge.hi - edge.lo, edge.low, edge.high)
    steps, neurons = np.nonzero(cells)
    places = [steps + batch.start, neurons + edge.lo]
    if (edge.low, edge.high) != (0, 1):
        places.append(cells[steps, neurons])
    rows: list[list[int]] = np.stack(places, axis=1).tolist()
    return rows


class ResultView:
    """Results of one network by the rules of `router.results`: each is told once, repeats are
    dropped and counted.

    A line is one emission; `end` tells that it is the stream's last. A stream that ends without
    one, or with an error, has a line without values.
    """

    def __init__(self, network: str, n_partitions: int, every: int | None) -> None:
        self._network = network
        self._table = ResultTable(n_partitions)
        self._table.follow(network, every)
        self.bad_frames = 0

    @property
    def repeats(self) -> int:
        """Batches that said what had been said."""
        return self._table.tally.repeats

    @property
    def spread(self) -> int:
        """Streams whose name another partition had too."""
        return self._table.tally.spread

    def lines(self, raw: Raw) -> Iterator[Line]:
        try:
            frame = decode_frame(raw.value or b"")
        except WireError as error:
            yield {**_place(raw), "fault": str(error)}
            return
        for batch in frame.batches:
            for stream in self._table.feed(self._network, raw.partition, [batch], raw.offset):
                said = {**_place(raw), "stream": stream.name}
                found = list(stream.emissions(stream.chunks[-1].first)) if batch.payload else []
                for emission in found:
                    yield {
                        **said, "index": emission.index, "start": emission.start,
                        "stop": emission.stop, "values": emission.values.tolist(),
                        "class": int(emission.values.argmax()),
                        "end": stream.final and emission is found[-1],
                    }  # fmt: skip
                if stream.error or (stream.final and not found):
                    yield {**said, "end": True, "error": stream.error or None}


def _place(raw: Raw) -> Line:
    return {"partition": raw.partition, "offset": raw.offset}


def _said(batch: Batch) -> Line:
    return {
        "kind": batch.kind.name.lower(),
        "node": batch.node,
        "stream": batch.name,
        "id": list(batch.stream),
        "networks": list(batch.networks),
        "seed": batch.seed,
        "window": batch.window,
        "start": batch.start,
        "stop": batch.stop,
        "end": batch.end,
    }


def _shown(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data.hex()
    return text if text.isprintable() else data.hex()
