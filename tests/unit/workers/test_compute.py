"""Values that are cut off are counted with the task, whatever its windows give."""

import numpy as np

from router.payload import pack
from router.wire import Batch, Frame, Kind, StreamId, encode_frame
from topologies.compiler import compile_network
from topologies.model import Input, Layer, Network, Output, Source
from workers.compute import KernelCompute
from workers.kernel import load_kernel
from workers.reading import Record
from workers.spec import task_spec
from workers.task import Task
from workers.tenant import Limits

_N_STEPS = 64


def test_states_that_saturate_are_counted_in_the_metrics_of_their_task() -> None:
    registers = {"decay_u": 0, "exponent": 7, "v_threshold": 1000.0}
    weight = np.full((2, 2), 101.0)
    network = compile_network(
        Network(
            "sat",
            Input("sat", (2,), "events", n_steps=_N_STEPS),
            (
                Layer("fc", "linear", (Source("input"),), arrays={"weight": weight}),
                Layer("cells", "cubalif_int", (Source("fc"),), registers),
                Layer("head", "linear", (Source("cells"),), arrays={"weight": weight}),
            ),
            Output("count", "head"),
        ),
        bits=8,
    )
    operator = next(o for o in network.operators.values() if o.kind == "synaptic")
    spec = task_spec({"sat": network}, operator.id, 0, 0)
    compute = KernelCompute(spec, load_kernel(operator, spec.group))
    task = Task(spec, compute, Limits())
    compute.count_in(task.counts)
    assert task.counts["values_saturated_total"] == 0
    (source,) = spec.places[0].sources
    payload = pack(np.ones((1, _N_STEPS, 2), np.uint8), 0, 1)[0]
    batch = Batch(
        source.node, StreamId(1, 0), "s", ("sat",), 0, 0, 0, _N_STEPS,
        kind=Kind.SPIKES, end=True, payload=payload,
    )  # fmt: skip
    value = encode_frame(Frame(source.operator, 0, [batch]))
    assert task.receive(Record(spec.topics[0], 0, 0, None, value))
    work = task.work()
    assert work is not None
    task.apply(work, task.compute(work))
    assert task.counts["values_saturated_total"] > 0
