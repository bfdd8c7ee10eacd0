"""What an ingest accepts can be checkpointed at any instant, restored, and goes on as before."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.simulation.numbers import FakeEncode
from loadtest.simulation.shapes import build, layout
from router.records import DTYPES, SPIKES, Data, Kill, Route, encode_record, record_key
from router.topics import DEAD_LETTER, out_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.eras import Fresh
from workers.flow import FINAL, Flow
from workers.ingest import Ingest
from workers.reading import Record
from workers.snapshot import Snapshot, Stored
from workers.spec import IngestSpec
from workers.tenant import Limits, Output

ERA = 100
SPECS = layout(build("shared", 4), ("m", "n"), 1).specs.values()
SPEC = next(spec for spec in SPECS if isinstance(spec, IngestSpec))
LIMITS = Limits(stream_windows=3, remembered_names=300, max_streams=4, flight_bytes=1_000_000_000)



def often(usual: Sequence[Any], rare: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly one of the usual values, so that records meet each other."""
    return st.integers(0, 7).flatmap(lambda n: rare if n == 7 else st.sampled_from(usual))


u64 = st.integers(0, 2**64 - 1)
steps = often(range(14), u64)
strange = st.sampled_from(["ß/1", "\U0001f9e0", "\x00 @", "n" * 200])
texts = strange | st.text(st.characters(codec="utf-8"), min_size=1, max_size=50)
names = often(["s", "t"], texts)
networks = often([None, ("n",), ("m", "n")], st.sampled_from([(), ("who",), ("m",)]))
events = st.tuples(steps, st.integers(0, 100), st.integers(-(2**31), 2**31 - 1))


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """What a record says: dense values, spikes, events, or nothing but a time mark or the end."""
    kind = draw(st.sampled_from(["dense", "spikes", "events", "mark"]))
    if kind == "dense":
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(1, 3), max_size=3))
        n_bytes = np.dtype(dtype).itemsize * int(np.prod(shape))
        return {"payload": draw(st.binary(min_size=n_bytes, max_size=n_bytes)), "dtype": dtype,
                "shape": tuple(shape)}  # fmt: skip
    if kind == "spikes":
        start = draw(st.none() | steps)
        return {"payload": draw(st.binary(max_size=9)), "dtype": SPIKES, "steps": 3, "start": start}
    if kind == "events":
        return {"events": tuple(draw(st.lists(events, max_size=4)))}
    return {"until": draw(steps)}


@st.composite
def data(draw: st.DrawFn) -> Data:
    request = draw(often([False], st.just(True)))
    said = draw(contents())
    seq = None if request else draw(often([None, 0, 1, 2, 3], u64))
    until, end = draw(often([None], st.integers(0, 14))), draw(often([False], st.just(True)))
    return Data(draw(names), draw(networks), draw(u64), request, end=end, seq=seq,
                **{"until": until, **said})  # fmt: skip


def in_json(record: Data) -> bytes:
    """The record as a client without this library writes it, where JSON can say it."""
    if record.payload is not None:
        return encode_record(record)
    content: dict[str, object] = {"id": record.name} if record.request else {}
    for field in ("networks", "seed", "events", "until", "end", "seq"):
        if (value := getattr(record, field)) not in (None, False):
            content[field] = value
    return json.dumps(content).encode()


@st.composite
def said(draw: st.DrawFn) -> tuple[bytes | None, bytes]:
    """Key and value of any record that ingest accepts, and of many that it refuses."""
    sid = StreamId(ERA, draw(st.integers(0, 6)))
    routed = draw(st.sampled_from([("n",), ("m",), ("m", "n")]))
    record = draw(st.one_of(
        *[data()] * 8,
        st.builds(Kill, st.just(sid), names, st.just(routed), names, st.booleans(),
                  st.none() | st.integers(0, 30)),
        st.builds(Route, st.just(routed), st.just(()), st.none() | st.integers(1, 5)),
    ))  # fmt: skip
    if isinstance(record, Data) and draw(st.booleans()):
        return record_key(record), in_json(record)
    return record_key(record), encode_record(record)


results = st.tuples(
    st.integers(0, 6), st.sampled_from(["m", "n"]), st.integers(1, 6) | st.just(FINAL)
)
actions = st.lists(
    st.one_of(
        *[st.tuples(st.just("read"), said())] * 4,
        st.tuples(st.just("send"), st.none()),
        st.tuples(st.just("confirm"), results),
        st.tuples(st.just("restore"), st.booleans()),
    ),
    max_size=40,
)


class Store:
    """The bytes of a task's newest checkpoint."""

    def __init__(self) -> None:
        self.number = 0
        self.head = b""
        self.streams: dict[str, bytes] = {}

    def commit(self, taken: Snapshot) -> None:
        self.number += 1
        self.head = taken.head
        if taken.full:
            self.streams.clear()
        for field in taken.deleted:
            self.streams.pop(field, None)
        self.streams.update({field: blob for field, _, blob in taken.changed})

    def stored(self) -> Stored:
        blobs = {field: (blob, None) for field, blob in self.streams.items()}
        return Stored(self.number, (self.head, None), blobs)


class Run:
    """One ingest, its log, and all that leaves it."""

    def __init__(self) -> None:
        self.ingest = Ingest(SPEC, FakeEncode(), LIMITS, Fresh(ERA, 0, 0))
        self.store = Store()
        self.sent: dict[tuple[str, int], list[Batch]] = defaultdict(list)
        self.letters: list[bytes] = []
        (era,) = self.ingest.take_outputs()
        self.read((None, era.value))

    def read(self, what: tuple[bytes | None, bytes]) -> None:
        topic = SPEC.in_topic
        record = Record(topic, self.ingest.reading.offset(topic), 7, *what)
        if not self.ingest.receive(record):
            self.ingest.receive_strange(record)

    def send(self, _: None) -> None:
        while (work := self.ingest.work()) is not None:
            self.ingest.apply(work, self.ingest.compute(work))

    def confirm(self, what: tuple[int, str, int]) -> None:
        number, network, level = what
        topic = out_topic(network)
        batch = Batch(
            node=SPEC.input.node, stream=StreamId(ERA, number), name="", networks=(network,),
            seed=0, window=0 if level == FINAL else level - 1, start=0, stop=1, kind=Kind.SPIKES,
            end=level == FINAL, payload=b"",
        )  # fmt: skip
        frame = encode_frame(Frame(SPEC.operator, 0, [batch]))
        self.ingest.receive(Record(topic, self.ingest.reading.offset(topic), 7, None, frame))

    def restore(self, full: bool) -> None:
        """Another owner goes on from what the store has of this instant."""
        before = self.ingest
        taken = before.snapshot(full or not self.store.number)
        self.look()
        if taken is not None:
            before.committed(taken)
            self.store.commit(taken)
        self.ingest = Ingest(SPEC, FakeEncode(), LIMITS, Fresh(1, 0, 0), self.store.stored())
        self.look()
        assert not self.ingest.counts
        assert flows(self.ingest) == flows(before)
        assert frozen(self.ingest) == frozen(before)

    def look(self) -> None:
        for output in self.ingest.take_outputs():
            self._note(output)

    def _note(self, output: Output) -> None:
        if output.topic == DEAD_LETTER:
            self.letters.append(output.value)
        else:
            for batch in decode_frame(output.value).batches:
                self.sent[output.topic, batch.stream.number].append(batch)


def flows(ingest: Ingest) -> dict[int, dict[str, Any]]:
    """All that is remembered of the open streams, but for what a clock says."""
    slots = [name for name in Flow.__slots__ if name != "since"]
    return {n: {s: getattr(flow, s) for s in slots} for n, flow in ingest._flows.items()}


def frozen(ingest: Ingest) -> tuple[bytes, list[tuple[str, int, bytes]]]:
    """All that a checkpoint would hold."""
    taken = ingest.snapshot(full=True)
    assert taken is not None
    ingest.refused(taken)
    return taken.head, sorted(taken.changed)


@settings(max_examples=150)
@given(actions)
def test_ingest_restored_at_any_instant_goes_on_as_if_nothing_had_happened(
    played: list[tuple[str, Any]],
) -> None:
    undisturbed, restored = Run(), Run()
    for kind, what in played:
        for run in (undisturbed, restored):
            if kind != "restore" or run is restored:
                act: Callable[[Any], None] = getattr(run, kind)
                act(what)
    for run in (undisturbed, restored):
        run.send(None)
        run.look()
    assert restored.sent == undisturbed.sent
    assert restored.letters == undisturbed.letters
    assert frozen(restored.ingest) == frozen(undisturbed.ingest)
