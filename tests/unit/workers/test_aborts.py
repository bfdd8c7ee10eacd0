import struct

from loadtest.simulation.numbers import FakeCompute
from loadtest.simulation.shapes import build, layout
from router.topics import spikes_topic
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from workers.reading import Record
from workers.spec import TaskSpec
from workers.task import Task
from workers.tenant import Limits

_SPECS = tuple(layout(build("shared", 4), ("n", "m"), 1).specs.values())
_SPEC = next(s for s in _SPECS if isinstance(s, TaskSpec) and s.places[0].networks == {"n", "m"})


def _emitted(window: int) -> list[Batch]:
    """What a task emits when the first batch of a stream of seed 9 is of this window."""
    task = Task(_SPEC, FakeCompute(_SPEC, False, None, frozenset()), Limits())
    (source,) = _SPEC.places[0].sources
    batch = Batch(
        source.node, StreamId(100, 0), "s", ("n",), 9, window, window, window + 1,
        kind=Kind.SPIKES, payload=struct.pack("<I", 7),
    )  # fmt: skip
    value = encode_frame(Frame(source.operator, 0, [batch]))
    assert task.receive(Record(_SPEC.topics[0], 0, 0, None, value))
    while (work := task.work()) is not None:
        task.apply(work, task.compute(work))
    topic = spikes_topic(_SPEC.operator)
    frames = [decode_frame(o.value) for o in task.take_outputs() if o.topic == topic]
    return [b for frame in frames for b in frame.batches if b.kind is not Kind.ERA]


def test_an_abort_carries_its_stream_s_label_like_its_windows() -> None:
    (spikes,) = _emitted(window=0)
    (abort,) = _emitted(window=1)
    assert (spikes.kind, abort.kind) == (Kind.SPIKES, Kind.ABORT)
    assert (abort.name, abort.seed) == (spikes.name, spikes.seed) == ("s", 9)
