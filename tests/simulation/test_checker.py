"""The checker, on made-up histories: it passes good ones and names what is wrong with bad ones."""

import struct
from dataclasses import dataclass, field

import pytest

from loadtest.simulation.checker import Checker, Violation
from loadtest.simulation.numbers import POISON_SEED
from loadtest.simulation.oracle import Graph, InputLog, Stream
from loadtest.simulation.shapes import build
from router.records import Data, Era, Kill, Route, encode_record
from router.topics import out_topic, spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, encode_frame
from workers.reading import Record

ERA = 1 << 30
SHAPE = build("shared", 2)
GRAPH = Graph({n: SHAPE.networks[n] for n in ("n", "m")}, SHAPE.every, frozenset())
READOUT = GRAPH.readouts["n"]
INGEST = GRAPH.ingest


@dataclass
class History:
    """One input with one era; `said` is appended to it."""

    graph: Graph = field(default_factory=lambda: GRAPH)
    offset: int = 0

    def __post_init__(self) -> None:
        self.log = InputLog(self.graph, 0)
        self.checker = Checker({("x", 0): self.log})
        self.say(Era(ERA, 0, ("m", "n")))

    def say(self, *said: Data | Era | Kill | Route, log_start: int = 0) -> None:
        for each in said:
            key = each.name.encode() if isinstance(each, Data) else None
            record = Record("snn.in.x", self.offset, 0, key, encode_record(each))
            self.log.append(record, log_start, None if isinstance(each, Data) else 1)
            self.offset += 1

    def stream(self, number: int = 0) -> Stream:
        return self.log.streams[ERA, number]

    def batch(self, node: str, window: int, number: int = 0, **changed: object) -> Batch:
        """The right batch of this window, but for what is changed."""
        stream = self.stream(number)
        start, stop, end = stream.cuts[window]
        values = stream.expected(node, 0, window)
        networks = tuple(sorted(stream.networks & {"n"})) if node == READOUT else ("m", "n")
        right = Batch(
            node=node, stream=StreamId(ERA, number), name=stream.name,
            networks=tuple(sorted(stream.networks.intersection(networks))),
            seed=stream.seed, window=window, start=start, stop=stop, kind=Kind.SPIKES, end=end,
            payload=struct.pack(f"<{len(values)}I", *values), error="",
        )  # fmt: skip
        return right._replace(**changed)  # type: ignore[arg-type]

    def abort(self, error: str, number: int = 0) -> Batch:
        return self.batch(READOUT, 0, number, kind=Kind.ABORT, end=True, payload=b"", error=error)

    def append(self, *batches: Batch, topic: str = "") -> None:
        for batch in batches:
            operator = self.graph.operator[batch.node]
            where = topic or (out_topic("n") if batch.node == READOUT else spikes_topic(operator))
            self.checker.appended(where, 0, encode_frame(Frame(operator, 0, [batch])))


def sample(name: str = "a", n: int = 4, **more: object) -> Data:
    given: dict[str, object] = {"networks": ("n",), "end": True, **more}
    return Data(name, payload=bytes(range(n)), dtype="uint8", shape=(n,), **given)  # type: ignore[arg-type]


@pytest.fixture
def history() -> History:
    """Stream 0 with windows [0, 2) and [2, 4), the last one."""
    made = History()
    made.say(sample())
    return made


def test_good_history_passes(history: History) -> None:
    history.append(*(history.batch(node, w) for node in (INGEST, READOUT) for w in (0, 1)))
    history.checker.judge()
    assert history.checker.missing() == []
    assert history.checker.n_batches == 4


def test_repeated_batches_are_no_violation(history: History) -> None:
    history.append(*(history.batch(READOUT, w) for w in (0, 1, 0, 1, 1)))
    history.checker.judge()


def test_stream_without_a_result_hangs(history: History) -> None:
    history.append(history.batch(READOUT, 0))
    with pytest.raises(Violation, match=r"'a' .* in n hangs"):
        history.checker.judge()


def test_stream_of_two_networks_must_be_final_in_both() -> None:
    history = History()
    history.say(sample(networks=None))
    history.append(history.batch(READOUT, 0), history.batch(READOUT, 1))
    assert history.checker.open_in("m")
    assert not history.checker.open_in("n")
    with pytest.raises(Violation, match="in m hangs"):
        history.checker.judge()


def test_stream_that_its_producer_never_ended_may_stay_open() -> None:
    history = History()
    history.say(sample(end=False))
    history.checker.judge()


def test_lost_window_is_found(history: History) -> None:
    with pytest.raises(Violation, match="windows 0 to 0 were never emitted"):
        history.append(history.batch(INGEST, 1))


BAD = [
    ({"payload": struct.pack("<2I", 1, 3)}, "wrong bits"),
    ({"payload": b""}, "wrong bits"),
    ({"stop": 1}, "cut"),
    ({"start": 1}, "cut"),
    ({"end": True}, "cut"),
    ({"window": 2}, "has only 2 windows"),
    ({"window": 1}, "cut"),
    ({"name": "b"}, "label"),
    ({"seed": 3}, "label"),
    ({"networks": ("m",)}, "routed to"),
    ({"networks": ()}, "routed to"),
    ({"stream": StreamId(ERA, 1)}, "which the log does not have"),
    ({"stream": StreamId(ERA + 1, 0)}, "which the log does not have"),
]


@pytest.mark.parametrize(("changed", "complaint"), BAD)
def test_divergent_batch_is_found(
    history: History, changed: dict[str, object], complaint: str
) -> None:
    with pytest.raises(Violation, match=complaint):
        history.append(history.batch(INGEST, 0)._replace(**changed))  # type: ignore[arg-type]


def test_batch_of_another_window_under_a_right_label_is_found(history: History) -> None:
    later = history.batch(INGEST, 1)
    with pytest.raises(Violation, match="wrong bits"):
        history.append(history.batch(INGEST, 0, payload=later.payload))


ABORTS = [
    ("InputLost: gone", "truncated", True),
    ("InputLost: gone", "store lost", True),
    ("InputLost: gone", "", False),
    ("EraLost: superseded", "corrupt", True),
    ("EraLost: superseded", "", False),
    ("SnapshotCorrupt: rotten", "corrupt", True),
    ("SnapshotCorrupt: rotten", "truncated", False),
    ("DeadlineMissed: late", "store lost", True),
    ("DeadlineMissed: late", "", False),
    ("OperatorFailed: poison", "corrupt", False),
    ("PoisonBatch: two owners", "corrupt", False),
    ("killed by its publisher", "", True),
    ("something else", "corrupt", False),
]


@pytest.mark.parametrize(("error", "excuse", "is_legal"), ABORTS)
def test_abort_needs_an_excuse(history: History, error: str, excuse: str, is_legal: bool) -> None:
    if excuse:
        history.checker.excuse(0, excuse)
    if is_legal:
        history.append(history.abort(error))
        history.checker.judge()
    else:
        with pytest.raises(Violation, match="unexcused"):
            history.append(history.abort(error))


def test_an_abort_between_operators_carries_its_stream_s_label(history: History) -> None:
    (node,) = [n for n in GRAPH.operator if n not in GRAPH.readouts.values() and n != INGEST][:1]
    history.checker.excuse(0, "truncated")
    abort = history.batch(node, 0, kind=Kind.ABORT, end=True, payload=b"", error="InputLost: gone")
    history.append(abort)
    with pytest.raises(Violation, match="label 'a'/7"):
        history.append(abort._replace(seed=7))


def test_excuse_of_another_partition_is_none(history: History) -> None:
    history.checker.excuse(1, "truncated")
    with pytest.raises(Violation, match="unexcused"):
        history.append(history.abort("InputLost: gone"))


def test_first_final_result_counts(history: History) -> None:
    history.append(*(history.batch(READOUT, w) for w in (0, 1)))
    history.append(history.abort("killed by its publisher"))
    (final,) = history.checker.finals.values()
    assert final.kind is Kind.SPIKES


def test_poisoned_stream_must_not_end_well() -> None:
    history = History(Graph(GRAPH.networks, SHAPE.every, frozenset({GRAPH.operator[READOUT]})))
    history.say(sample(seed=POISON_SEED))
    history.append(*(history.batch(READOUT, w) for w in (0, 1)))
    with pytest.raises(Violation, match="but is poisoned"):
        history.checker.judge()


def test_poisoned_stream_may_fail_where_the_poison_is() -> None:
    history = History(Graph(GRAPH.networks, SHAPE.every, frozenset({GRAPH.operator[READOUT]})))
    history.say(sample(seed=POISON_SEED))
    history.append(history.abort("OperatorFailed: poison"))
    history.checker.judge()


def test_era_lost_for_nothing_is_found(history: History) -> None:
    history.append(*(history.batch(READOUT, w) for w in (0, 1)))
    history.say(Era(ERA + 1, ERA, ("n",)))
    with pytest.raises(Violation, match="was lost for nothing"):
        history.checker.judge()


def test_era_may_be_lost_to_truncation(history: History) -> None:
    history.checker.excuse(0, "truncated")
    history.say(Era(ERA + 1, ERA, ("n",)), log_start=2)
    history.append(history.abort("EraLost: ..."))
    history.checker.judge()


def test_stream_of_a_lost_era_that_nobody_ends_is_found(history: History) -> None:
    history.checker.excuse(0, "truncated")
    history.say(Era(ERA + 1, ERA, ("n",)), log_start=2)
    with pytest.raises(Violation, match="hangs"):
        history.checker.judge()


def test_stream_of_a_lost_era_ends_by_the_refusal_of_a_later_record(history: History) -> None:
    history.checker.excuse(0, "truncated")
    history.say(Era(ERA + 1, ERA, ("n",)), log_start=2)
    history.checker.refused.add((0, "a"))
    history.checker.judge()


def test_nobody_knows_a_stream_whose_first_record_is_gone(history: History) -> None:
    history.checker = Checker({("x", 0): history.log}, is_legible=lambda *_: False)
    history.checker.excuse(0, "truncated")
    history.say(Era(ERA + 1, ERA, ("n",)), log_start=2)
    history.checker.judge()
