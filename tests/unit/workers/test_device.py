"""A task on a hardware node: the bits of a kernel, also when the node dies in between."""

from dataclasses import replace

import numpy as np
import pytest

from router.payload import pack
from router.wire import Batch, Frame, Kind, StreamId, decode_frame, encode_frame
from topologies.compiled import CompiledNetwork, Operator
from topologies.compiler import compile_network
from topologies.profiles import PROFILES, Profile, ProfileError
from topologies.samples import dense_network
from topologies.stages.base import Array
from workers.compute import ForeignStateError, KernelCompute
from workers.device import DeviceCompute, DeviceFailedError, open_device
from workers.kernel import load_kernel
from workers.reading import Record
from workers.simulated_node import SimulatedNode
from workers.snapshot import Snapshot, Stored
from workers.spec import TaskSpec, task_spec
from workers.task import Task
from workers.tenant import Limits
from workers.windows import Compute

ERA, N_WINDOWS, N_STEPS = 100, 6, 3
NETWORK: CompiledNetwork = compile_network(dense_network((12, 8, 4)))
OPERATOR: Operator = next(o for o in NETWORK.operators.values() if o.kind == "synaptic")
SPEC: TaskSpec = task_spec({NETWORK.name: NETWORK}, OPERATOR.id, 0, 0)
(SOURCE,) = SPEC.places[0].sources
NODES = [pytest.param(True, id="readable"), pytest.param(False, id="unreadable")]


def spikes() -> Array:
    """(streams, windows, steps, inputs)."""
    rng = np.random.Generator(np.random.PCG64(1))
    port = SPEC.ports[0]
    return rng.integers(port.low, port.high + 1, (2, N_WINDOWS, N_STEPS, port.n)).astype(np.int32)


def frame(offset: int, window: int) -> Record:
    port, values = SPEC.ports[0], spikes()
    batches = [
        Batch(
            SOURCE.node, StreamId(ERA, n), f"s{n}", (NETWORK.name,), 0, window,
            window * N_STEPS, (window + 1) * N_STEPS, kind=Kind.SPIKES,
            end=window == N_WINDOWS - 1,
            payload=pack(values[n, window][None], port.low, port.high)[0],
        )
        for n in range(len(values))
    ]  # fmt: skip
    return Record(SPEC.topics[0], offset, 0, None, encode_frame(Frame(SOURCE.operator, 0, batches)))


def on(node: SimulatedNode) -> DeviceCompute:
    return DeviceCompute(SPEC, OPERATOR, node)


def served(task: Task, windows: range) -> list[tuple[int, int, bytes]]:
    """(stream, window, payload) of what leaves."""
    for window in windows:
        assert task.receive(frame(window, window))
    while (work := task.work()) is not None:
        task.apply(work, task.compute(work))
    batches = [b for o in task.take_outputs() for b in decode_frame(o.value).batches]
    return [(b.stream.number, b.window, bytes(b.payload)) for b in batches if b.kind is Kind.SPIKES]


def begin(compute: Compute, stored: Stored | None = None) -> Task:
    return Task(SPEC, compute, Limits(), stored)


def checkpoint(task: Task) -> Stored:
    snapshot = task.snapshot(full=True)
    assert isinstance(snapshot, Snapshot)
    streams = {field: (blob, None) for field, _, blob in snapshot.changed}
    return Stored(1, (snapshot.head, None), streams, snapshot.positions)


@pytest.fixture
def expected() -> list[tuple[int, int, bytes]]:
    kernel = load_kernel(OPERATOR, SPEC.group)
    found = served(begin(KernelCompute(SPEC, kernel)), range(N_WINDOWS))
    assert len(found) == 2 * N_WINDOWS
    assert any(payload for _, _, payload in found)
    return found


@pytest.mark.parametrize("readable", NODES)
def test_node_gives_the_bits_of_a_kernel(
    readable: bool, expected: list[tuple[int, int, bytes]]
) -> None:
    node = SimulatedNode(readable=readable)
    assert served(begin(on(node)), range(N_WINDOWS)) == expected
    assert node.n_steps == 2 * N_WINDOWS * N_STEPS


@pytest.mark.parametrize("readable", NODES)
@pytest.mark.parametrize("died_before", range(1, N_WINDOWS))
def test_another_node_goes_on_from_the_checkpoint(
    readable: bool, died_before: int, expected: list[tuple[int, int, bytes]]
) -> None:
    """An unreadable one steps everything again; a readable one nothing."""
    before = begin(on(SimulatedNode(readable=readable)))
    found = served(before, range(died_before))
    spare = SimulatedNode(readable=readable)
    after = begin(on(spare), checkpoint(before))
    found += served(after, range(died_before, N_WINDOWS))
    assert found == expected
    left = N_WINDOWS if not readable else N_WINDOWS - died_before
    assert spare.n_steps == 2 * left * N_STEPS


def test_failure_of_a_node_ends_the_task_and_no_stream() -> None:
    node = SimulatedNode()
    task = begin(on(node))
    served(task, range(2))
    node.fail()
    task.receive(frame(2, 2))
    work = task.work()
    assert work is not None
    with pytest.raises(DeviceFailedError, match="load it again"):
        task.compute(work)
    assert task.n_streams == 2
    assert task.take_outputs() == []


@pytest.mark.parametrize("readable", NODES)
def test_node_that_was_loaded_again_is_brought_to_where_its_streams_are(
    readable: bool, expected: list[tuple[int, int, bytes]]
) -> None:
    node = SimulatedNode(readable=readable)
    first = begin(on(node))
    found = served(first, range(3))
    again = begin(on(node), checkpoint(first))
    assert found + served(again, range(3, N_WINDOWS)) == expected


def test_group_that_does_not_fit_is_refused_when_it_is_loaded() -> None:
    small = replace(PROFILES["cpu"], name="small", neurons=OPERATOR.cost.n_neurons - 1)
    with pytest.raises(ProfileError, match="too many neurons for small"):
        on(SimulatedNode(small))
    on(SimulatedNode(Profile("just", neurons=OPERATOR.cost.n_neurons)))


def test_adapter_is_found_by_module_and_factory() -> None:
    assert isinstance(open_device("workers.simulated_node:SimulatedNode"), SimulatedNode)


@pytest.mark.parametrize("name", ["nowhere:Node", "workers.simulated_node:Nothing"])
def test_adapter_that_is_not_there_is_a_sentence(name: str) -> None:
    with pytest.raises(DeviceFailedError, match="MODULE:FACTORY"):
        open_device(name)


def test_kernels_and_nodes_do_not_take_each_others_tasks() -> None:
    kernel = KernelCompute(SPEC, load_kernel(OPERATOR, SPEC.group))
    node = on(SimulatedNode())
    for one, other in ((kernel, node), (node, kernel)):
        before = begin(one)
        served(before, range(2))
        with pytest.raises(ForeignStateError, match="only"):
            begin(other, checkpoint(before))
