"""Tasks and ingests believe the system alone: what is not sealed moves nothing (protocol 35)."""

from dataclasses import replace

import pytest

from loadtest.simulation.numbers import FakeCompute, FakeEncode
from loadtest.simulation.shapes import build, layout
from router import deadletter
from router.records import Data, Era, Kill, Route, encode_record
from router.seals import Keyring, Signed
from router.topics import DEAD_LETTER, in_topic, out_topic
from router.wire import Batch, Frame, Kind, StreamId, encode_frame
from workers.eras import Fresh
from workers.ingest import Ingest
from workers.reading import Record
from workers.spec import IngestSpec, TaskSpec
from workers.task import Task
from workers.tenant import Limits

OLD, NEW = b"\1" * 32, b"\2" * 32
ERA = 1 << 40
_LAYOUT = layout(build("chain", 4), ("n",), 1, ())
INGEST = next(s for s in _LAYOUT.specs.values() if isinstance(s, IngestSpec))
TASK = next(
    s for s in _LAYOUT.specs.values()
    if isinstance(s, TaskSpec) and s.places[0].sources[0].node == INGEST.input.node
)  # fmt: skip
SOURCE = TASK.places[0].sources[0]
INPUT = in_topic(INGEST.input.name)


def ring() -> Keyring:
    return Keyring({5: OLD, 9: NEW})


def sealed(keys: Keyring, topic: str, offset: int, key: bytes | None, value: bytes) -> Record:
    seal = keys.seal(Signed(topic, 0, key, value))
    return Record(topic, offset, 0, key, value, seal)


def frame(kind: Kind = Kind.SPIKES, era: int = ERA, window: int = 0) -> bytes:
    payload = b"" if kind is not Kind.SPIKES else b"\0" * 16
    error = "why" if kind in (Kind.ABORT, Kind.KILL) else ""
    batch = Batch(
        SOURCE.node, StreamId(era, 0), "s", ("n",), 0, window, 0, 4, kind, False, payload, error
    )
    return encode_frame(Frame(SOURCE.operator, 0, [batch]))


class Serving:
    """A task that has taken one window of stream 0 of ERA."""

    def __init__(self) -> None:
        self.keys = ring()
        compute = FakeCompute(TASK, False, None, frozenset())
        self.task = Task(TASK, compute, Limits(), keys=self.keys)
        assert self.task.receive(sealed(self.keys, TASK.topics[0], 0, b"k", frame()))
        self.task.take_outputs()

    def state(self) -> object:
        snapshot = self.task.snapshot(full=True)
        assert snapshot is not None
        self.task.refused(snapshot)
        return snapshot.changed, snapshot.deleted


@pytest.mark.parametrize(
    "value",
    [
        frame(era=1 << 60), frame(Kind.KILL), frame(Kind.ABORT), frame(Kind.ERA, 1 << 60),
        frame(window=7), frame(window=1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seal", ["none", "of another key", "of another partition"])
def test_a_forged_frame_is_a_dead_letter_and_moves_nothing(value: bytes, seal: str) -> None:
    serving = Serving()
    before = serving.state()
    topic = TASK.topics[0]
    forged = {
        "none": Record(topic, 1, 0, b"k", value),
        "of another key": sealed(Keyring({9: b"x" * 32}), topic, 1, b"k", value),
        "of another partition": Record(
            topic, 1, 0, b"k", value, serving.keys.seal(Signed(topic, 1, b"k", value))
        ),
    }[seal]
    assert serving.task.receive(forged)
    (letter,) = [o for o in serving.task.take_outputs() if o.topic == DEAD_LETTER]
    assert deadletter.decode(letter.value).reason.startswith("Unsealed: ")
    assert serving.task.counts["unsealed_total"] == 1
    offsets, *_ = serving.state(), before
    assert [c[:2] for c in offsets[0]] == [c[:2] for c in before[0]]  # type: ignore[index]
    assert serving.task.n_streams == 1


def test_a_frame_under_a_key_that_is_not_known_waits_until_it_was_looked_up() -> None:
    serving = Serving()
    later = Keyring({12: b"\3" * 32})
    record = sealed(later, TASK.topics[0], 1, b"k", frame(window=1))
    assert not serving.task.receive(record)
    assert serving.task.reading.offset(TASK.topics[0]) == 1
    serving.keys.learn(later.keys)
    assert serving.task.receive(record)
    assert serving.task.counts["unsealed_total"] == 0


def test_a_frame_under_a_key_that_nobody_has_is_refused_in_the_end() -> None:
    serving = Serving()
    record = sealed(Keyring({12: b"\3" * 32}), TASK.topics[0], 1, b"k", frame(era=1 << 60))
    assert not serving.task.receive(record)
    serving.task.receive_strange(record)
    assert serving.task.counts["unsealed_total"] == 1
    assert serving.task.reading.offset(TASK.topics[0]) == 2


def test_all_that_a_task_sends_is_sealed() -> None:
    serving = Serving()
    work = serving.task.work()
    assert work is not None
    serving.task.apply(work, serving.task.compute(work))
    outputs = serving.task.take_outputs()
    assert outputs
    for topic, key, partition, value, seal in outputs:
        assert seal == serving.keys.seal(Signed(topic, partition, key, value))


class Numbering:
    """An ingest that counts in ERA, routes to `n`, and has one open stream."""

    def __init__(self) -> None:
        self.keys = ring()
        self.ingest = Ingest(INGEST, FakeEncode(), Limits(), Fresh(ERA, 0, 0), keys=self.keys)
        self.offset = 0
        self.say(encode_record(Era(ERA, 0, ("n",))))
        self.say(encode_record(Route(("n",))))
        data = Data("s", payload=b"12345678", dtype="uint8", shape=(8,))
        self.ingest.receive(Record(INPUT, self.offset, 0, b"s", encode_record(data)))
        self.offset += 1
        self.ingest.take_outputs()

    def say(self, value: bytes, keys: Keyring | None = None) -> None:
        record = sealed(self.keys if keys is None else keys, INPUT, self.offset, None, value)
        assert self.ingest.receive(record)
        self.offset += 1

    def letters(self) -> list[str]:
        outputs = self.ingest.take_outputs()
        return [deadletter.decode(o.value).reason for o in outputs if o.topic == DEAD_LETTER]


KILL = Kill(StreamId(ERA, 0), "s", ("n",), "because")
SAID = [Era(ERA + 1, ERA, ()), Route(()), Route((), ("n",)), KILL, replace(KILL, if_final=True)]


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("keys", [None, Keyring({9: b"x" * 32})], ids=["unsealed", "wrong key"])
def test_era_route_and_kill_of_a_publisher_are_dead_letters(
    said: Era | Route | Kill, keys: Keyring | None
) -> None:
    numbering = Numbering()
    value = encode_record(said)
    seal = b"" if keys is None else keys.seal(Signed(INPUT, 0, b"s", value))
    assert numbering.ingest.receive(Record(INPUT, numbering.offset, 0, b"s", value, seal))
    (reason,) = numbering.letters()
    assert reason.startswith("Unsealed: ")
    assert numbering.ingest.routes == ("n",)
    assert numbering.ingest.open_streams() == {"n": 1}


def test_a_kill_of_the_system_ends_the_stream() -> None:
    numbering = Numbering()
    numbering.say(encode_record(KILL))
    assert numbering.ingest.open_streams() == {}


def test_an_older_route_that_is_repeated_is_refused() -> None:
    numbering = Numbering()
    numbering.say(encode_record(Route(("n",), ("n",))), Keyring({5: OLD}))
    (reason,) = numbering.letters()
    assert reason.startswith("Superseded: ")
    assert numbering.ingest.open_streams() == {"n": 1}


def test_the_route_of_a_later_deployment_counts() -> None:
    numbering = Numbering()
    later = Keyring({12: b"\3" * 32})
    numbering.keys.learn(later.keys)
    numbering.say(encode_record(Route(())), later)
    assert numbering.ingest.routes == ()


def test_a_result_that_somebody_made_up_confirms_nothing() -> None:
    numbering = Numbering()
    end = Batch(SOURCE.node, StreamId(ERA, 0), "s", ("n",), 0, 9, 0, 4, Kind.SPIKES, True, b"", "")
    value = encode_frame(Frame(SOURCE.operator, 0, [end]))
    topic = out_topic("n")
    assert numbering.ingest.receive(Record(topic, 0, 0, b"k", value))
    assert numbering.ingest.counts["unsealed_total"] == 1
    assert numbering.ingest.open_streams() == {"n": 1}
    assert numbering.ingest.receive(sealed(numbering.keys, topic, 1, b"k", value))
    assert numbering.ingest.open_streams() == {}
